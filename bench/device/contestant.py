"""One contestant, loaded once, that measures when it is told to.

    python bench/device/contestant.py NAME FOLDER THREADS

Prints `{"ready": …}`, then reads lines `CASE COUNT` and answers each with a JSON object of seconds. Cases: jpeg (a file
of 1600x1200 px), frame (raw, 1600x1200), small (raw, 224x224).
"""

import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

SIZE = 224
Judge = Callable[[bytes | np.ndarray], float]  # the file or frame to the score


def open_reference(folder: Path, kind: str, threads: int) -> Judge:
    """The common deployment: ResNet18 in PyTorch eager, Pillow, torchvision's transforms."""
    import torch
    from torchvision import transforms
    from torchvision.models import resnet18

    torch.set_num_threads(threads)
    model = resnet18(weights=None, num_classes=2)
    model.load_state_dict(torch.load(folder / "resnet18.pt", weights_only=True))
    model.eval()
    transform = transforms.Compose(
        [
            transforms.Resize((SIZE, SIZE)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )

    def judge(picture: bytes | np.ndarray) -> float:
        encoded = isinstance(picture, bytes)
        image = Image.open(io.BytesIO(picture)).convert("RGB") if encoded else Image.fromarray(picture)
        with torch.inference_mode():
            return float(model(transform(image).unsqueeze(0)).softmax(1)[0, 1])

    return judge


def _prepare() -> Callable[[bytes | np.ndarray], np.ndarray]:
    """Our own preprocessing, for peers too: the comparison is of what runs the model."""
    from edge.contract import InputContract
    from edge.preprocess import decode_file, finish, to_model_input

    size = InputContract(SIZE, SIZE)

    def prepare(picture: bytes | np.ndarray) -> np.ndarray:
        if isinstance(picture, bytes):
            return finish(decode_file(picture, size), size).pixels
        return to_model_input(picture, size)

    return prepare


def open_onnxruntime(folder: Path, kind: str, threads: int) -> Judge:
    """The same backbone in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(folder / f"{kind}.onnx", options, providers=["CPUExecutionProvider"])
    prepare = _prepare()
    return lambda picture: float(session.run(None, {"pixels": prepare(picture).astype(np.float32)})[0][0, 0])


def open_openvino(folder: Path, kind: str, threads: int) -> Judge:
    """The same backbone in OpenVINO."""
    import openvino

    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    compiled = openvino.compile_model(folder / f"{kind}.onnx", "CPU", hints)
    request, prepare = compiled.create_infer_request(), _prepare()

    def judge(picture: bytes | np.ndarray) -> float:
        request.infer({0: prepare(picture).astype(np.float32)})
        return float(request.get_output_tensor(0).data[0, 0])

    return judge


class Ours:
    """The device's own code, from part to verdict; and the same without all that is not decoding or the model."""

    def __init__(self, folder: Path, kind: str, threads: int) -> None:
        from edge.judge import judge_part
        from edge.package import open_package
        from edge.part import Part

        self._part, self._judge = Part, judge_part
        self.folder = folder / f"package-{kind}"
        self.package = open_package(self.folder)
        self._detector = self.package.open_detector(threads)
        self._prepare = _prepare()

    def __call__(self, picture: bytes | np.ndarray) -> float:
        """Judge."""
        encoded = isinstance(picture, bytes)
        data, frame = (picture, None) if encoded else (None, picture)
        part = self._part("key", "picture", time.time(), time.monotonic(), data, frame)  # type: ignore[arg-type]
        judgement = self._judge(part, self.package.contract, self._detector)
        if judgement.score is None:
            raise SystemExit(f"no score: {judgement.reason}")
        return judgement.score

    def bare(self, picture: bytes | np.ndarray) -> tuple[float, float]:
        """Seconds of decoding and resizing, and of the model alone."""
        start = time.perf_counter()
        self._prepare(picture)
        middle = time.perf_counter()
        self._detector._interpreter.invoke()
        return middle - start, time.perf_counter() - middle


OPENERS: dict[str, Callable[[Path, str, int], Any]] = {
    "reference": open_reference,
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
    "ours": Ours,
}


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def serve(name: str, folder: Path, threads: int) -> None:
    """Load, then measure what standard input asks for."""
    program, _, kind = name.partition("-")
    judge = OPENERS[program](folder, kind or "float32", threads)
    files = [path.read_bytes() for path in sorted((folder / "pictures").glob("*.jpg"))[:4]]
    score = judge(files[0])
    _say(ready=name, rss_bytes=rss_bytes(), score=score)
    frames = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in files]
    small = [np.asarray(Image.fromarray(frame).resize((SIZE, SIZE))) for frame in frames]
    cases: dict[str, list[Any]] = {"jpeg": files, "frame": frames, "small": small}
    for line in sys.stdin:
        case, count = line.split()
        whole, cpu, decode, invoke = [], [], [], []
        for index in range(int(count)):
            picture = cases[case][index % len(cases[case])]
            bare = judge.bare if isinstance(judge, Ours) else None
            if bare is not None and index % 2:  # in turn: what comes second finds the picture in the processor's cache
                _append(bare(picture), decode, invoke)
            start, cpu_start = time.perf_counter(), time.process_time()
            judge(picture)
            whole.append(time.perf_counter() - start)
            cpu.append(time.process_time() - cpu_start)
            if bare is not None and not index % 2:
                _append(bare(picture), decode, invoke)
        _say(whole=whole, cpu=cpu, decode=decode, invoke=invoke)


def _append(values: tuple[float, float], *lists: list[float]) -> None:
    for value, one in zip(values, lists, strict=True):
        one.append(value)


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    if sys.argv[4:] == ["--once"]:  # cold start of the reference: one picture, then the end
        judge_one = OPENERS[sys.argv[1]](Path(sys.argv[2]), "float32", int(sys.argv[3]))
        print(judge_one((Path(sys.argv[2]) / "pictures" / "00.jpg").read_bytes()), flush=True)
    else:
        serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
