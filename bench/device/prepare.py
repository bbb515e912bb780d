"""Makes what the contestants run on: pictures, one model in every form, and the reference's model.

python bench/device/prepare.py FOLDER              (main environment)
python bench/device/prepare.py FOLDER --onnx       (peers' environment, afterwards)
"""

import dataclasses
import hashlib
import itertools
import sys
from pathlib import Path

import numpy as np
from PIL import Image

BENCH = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCH), str(BENCH.parent), str(BENCH.parent / "flows")]

SIZE = 224  # px
PICTURES = 12
SEED = 0


def make_pictures(folder: Path) -> None:
    """JPEGs of 1600x1200 px, no two alike."""
    from data_prep import HEIGHT, WIDTH, make_picture

    noise = np.random.default_rng(SEED).normal(0, 4, (HEIGHT + 512, WIDTH, 3)).astype(np.float32)
    (folder / "pictures").mkdir()
    for index in range(PICTURES):
        make_picture(index, noise).save(folder / "pictures" / f"{index:02}.jpg", quality=92)


def make_models(folder: Path) -> None:
    """One mobilenet_v2 classifier: as PyTorch, and as TensorFlow Lite packages; and a resnet18."""
    import torch
    from export import make_model
    from export import make_pictures as make_small
    from torchvision.models import resnet18

    from edge.contract import InputContract
    from inspection.export.conversion import convert

    pixels = make_small(256, SIZE)
    model = make_model("mobilenet_v2", pixels)
    torch.save(model, folder / "model.pt")
    np.save(folder / "calibration.npy", pixels[:128])
    converted = convert(model, InputContract(SIZE, SIZE), pixels, folder / "converted")
    for kind, path in (("int8", converted.int8_path), ("float32", converted.float_path)):
        make_package(folder / f"package-{kind}", path, kind, pixels[:2])
    torch.manual_seed(SEED)
    reference = resnet18(weights=None, num_classes=2).eval()
    torch.save(reference.state_dict(), folder / "resnet18.pt")


def make_package(folder: Path, model: Path, kind: str, pixels: np.ndarray) -> None:
    """A package whose guard and tolerance let everything through: what is measured is time."""
    from edge import contract as c
    from edge.detector import Detector

    (folder / "golden").mkdir(parents=True)
    (folder / "model.tflite").write_bytes(model.read_bytes())
    (folder / "provenance.json").write_text("{}\n")
    size, golden = c.InputContract(SIZE, SIZE), []
    detector = Detector(folder / "model.tflite", size)
    for index, each in enumerate(pixels):
        name = f"golden/{index}.png"
        Image.fromarray(each).save(folder / name)
        golden.append(c.GoldenImage(name, detector.detect(each[np.newaxis]).score))
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    wide, quantiles = c.Range(0.0, 255.0), tuple(float(value) for value in range(11))
    contract = c.Contract(
        schema=c.SCHEMA,
        requires=(),
        line="bench",
        version=files["model.tflite"][:12],
        task="classify",
        defect_types=(),
        artifact=c.Artifact("model.tflite", kind),  # type: ignore[arg-type]
        input=size,
        guard=c.InputGuard(wide, wide, wide, c.Range(0.01, 99.0), 1, 1),
        calibration=c.Calibration(temperature=1.0, prevalence=0.5),
        operating_point=c.OperatingPoint("bench", lower=1e6, upper=2e6),  # all pass: no image is kept
        self_test=c.SelfTest(tolerance=100.0, images=tuple(golden)),
        drift_reference=c.DriftReference(quantiles, quantiles, quantiles, quantiles),
        files=files,
    )
    (folder / "contract.json").write_text(c.dump_contract(dataclasses.replace(contract)))


def make_onnx(folder: Path) -> None:
    """The same classifier as ONNX, float32 and int8 (calibrated on the same kind of pictures)."""
    import torch
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    model = torch.load(folder / "model.pt", weights_only=False).eval()
    model.fold_normalisation()  # as in the model that ships
    for module in model.modules():  # batch normalisation into the convolutions, as a quantiser wants it
        names = list(module._modules)
        for name, following in itertools.pairwise(names):
            pair = module._modules[name], module._modules[following]
            if isinstance(pair[0], torch.nn.Conv2d) and isinstance(pair[1], torch.nn.BatchNorm2d):
                module._modules[name] = fuse_conv_bn_eval(*pair)
                module._modules[following] = torch.nn.Identity()
    example = torch.zeros(1, SIZE, SIZE, 3)
    program = torch.onnx.export(model, (example,), input_names=["pixels"], dynamo=True, verbose=False)
    program.save(folder / "float32.onnx")
    calibration = np.load(folder / "calibration.npy")

    class Pictures(CalibrationDataReader):  # type: ignore[misc]
        """The calibration pictures, one by one."""

        def __init__(self) -> None:
            self._left = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            """The next picture, or None."""
            each = next(self._left, None)
            return None if each is None else {"pixels": each[np.newaxis].astype(np.float32)}

    quantize_static(
        folder / "float32.onnx",
        folder / "int8.onnx",
        Pictures(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


if __name__ == "__main__":
    target = Path(sys.argv[1])
    if "--onnx" in sys.argv:
        make_onnx(target)
    else:
        make_pictures(target)
        make_models(target)
