"""Makes the tiny model, the pictures and the known scores in tests/golden: `python tests/make_tiny_model.py`.

Run it in the main environment, by hand, when the exporter changes; the tests only read what it wrote.
"""

import json
from pathlib import Path

import litert_torch
import numpy as np
import torch
import torch.nn.functional as F
from ai_edge_quantizer import calibrator, quantizer, recipe
from ai_edge_quantizer.utils import qsv_utils
from PIL import Image
from torch import nn

from edge.contract import InputContract
from edge.detector import Detector
from edge.preprocess import prepare_file

GOLDEN = Path(__file__).with_name("golden")
INPUT = InputContract(width=32, height=32)
DEFECT_TYPES = ("scratch", "stain")
SIZES = {"part-0.png": (32, 32), "part-1.png": (100, 80), "part-2.jpg": (128, 96), "part-3.png": (45, 67)}  # px
SIGNATURE = "serving_default"


class TinyClassifier(nn.Module):
    """float32 [1, 32, 32, 3], 0..255 -> score [1, 1], types [1, 2]; the operators of our real models."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU6(),
        )
        self.mean_head = nn.Linear(16, 3)
        self.max_head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = (x.permute(0, 3, 1, 2) - 127.5) * (1 / 64)
        x = self.features(x)
        mean = F.adaptive_avg_pool2d(x, 1).flatten(1)
        largest = F.max_pool2d(x, x.shape[-2:]).flatten(1)
        logits = self.mean_head(mean) + self.max_head(largest)
        return logits[:, :1], logits[:, 1:]


def picture(seed: int, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3]: soft colours; odd seeds have a scratch (1 modulo 4) or a stain (3 modulo 4)."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(96, 256, (4, 4, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    if seed % 4 == 1:
        pixels[height // 3 : height // 3 + height // 12, width // 4 :] //= 5
    elif seed % 4 == 3:
        pixels[height // 2 : height // 2 + height // 3, width // 4 : width // 2] //= 3
    return pixels


def main() -> None:
    """Write everything."""
    GOLDEN.mkdir(exist_ok=True)
    calibration = np.stack([picture(100 + seed, 32, 32) for seed in range(128)]).astype(np.float32)
    model = TinyClassifier()
    train(model, torch.from_numpy(calibration))
    float_path, int8_path = GOLDEN / "tiny_float32.tflite", GOLDEN / "tiny_int8.tflite"
    for path in (float_path, int8_path):
        path.unlink(missing_ok=True)
    litert_torch.convert(model.eval(), (torch.from_numpy(calibration[:1]),)).export(str(float_path))
    quantise(float_path, int8_path, calibration)

    for seed, (name, (width, height)) in enumerate(SIZES.items()):
        Image.fromarray(picture(seed, width, height)).save(GOLDEN / name, quality=95)
    write_scores()


def write_scores() -> None:
    """Score the pictures with both models."""
    known = {}
    for kind in ("float32", "int8"):
        detector = Detector(GOLDEN / f"tiny_{kind}.tflite", INPUT, DEFECT_TYPES)
        known[kind] = {"score_step": detector.score_step, "pictures": {}}
        for name in SIZES:
            detection = detector.detect(prepare_file((GOLDEN / name).read_bytes(), INPUT, name).pixels)
            known[kind]["pictures"][name] = {"score": detection.score, "type_logits": detection.type_logits.tolist()}
    (GOLDEN / "tiny_scores.json").write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


def train(model: TinyClassifier, pictures: torch.Tensor) -> None:
    """Teach it what `picture` does, in a second."""
    seeds = torch.arange(len(pictures))
    is_bad = (seeds % 2).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-3)
    for _ in range(300):
        score, types = model(pictures)
        loss = F.binary_cross_entropy_with_logits(score[:, 0], is_bad)
        loss = loss + F.cross_entropy(types[is_bad > 0], (seeds[is_bad > 0] % 4) // 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def quantise(float_path: Path, int8_path: Path, calibration: np.ndarray) -> None:
    """Full int8, ranges by smallest and largest value, the input's exactly 0..255."""
    work = quantizer.Quantizer(str(float_path), recipe.static_wi8_ai8())
    observer = calibrator.Calibrator(float_path.read_bytes(), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    entry = observer._tfl_interpreter.get_signature_runner(SIGNATURE).get_input_details()
    ((name, details),) = entry.items()
    samples = [{name: sample[np.newaxis]} for sample in calibration]
    observer.calibrate({SIGNATURE: samples}, work._recipe_manager)
    ranges = observer.get_model_qsvs()
    for key, value in (("min", 0.0), ("max", 255.0)):
        ranges[details["name"]][key] = np.full_like(ranges[details["name"]][key], value)
    work.quantize(ranges, enable_progress_report=False, enable_progress_bar=False).export_model(str(int8_path))
    int8_path.chmod(0o644)


if __name__ == "__main__":
    main()
