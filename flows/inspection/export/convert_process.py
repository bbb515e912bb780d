"""The converting process: `python -m inspection.export.convert_process FOLDER`, started by `conversion`.

FOLDER holds `model.pt` (the pickled module, written by the parent a moment ago) and `pixels.npy` (uint8 [N, H, W, 3]).
It writes both .tflite files and `report.json` beside them.
"""

import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge.memory import peak_rss_bytes
from inspection.errors import ConversionError
from inspection.export.conversion import FLOAT_NAME, INT8_NAME
from inspection.export.quantisation import quantise

PACKAGES = ("torch", "litert-torch", "ai-edge-quantizer", "ai-edge-litert")


def main(folder: Path) -> None:
    """Convert, quantise, report."""
    started = time.monotonic()
    import torch

    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    model = torch.load(folder / "model.pt", weights_only=False)  # our own parent wrote it
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    convert_to_float(model, pixels.shape[1:3], folder / FLOAT_NAME)
    done = quantise(folder / FLOAT_NAME, pixels, folder / INT8_NAME, threads)
    report = {
        "seconds": time.monotonic() - started,
        "peak_rss_bytes": peak_rss_bytes(),
        "calibration_images": len(pixels),
        "lifted_channels": done.lifted_channels,
        "corrected_features": done.corrected_features,
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    }
    (folder / "report.json").write_text(json.dumps(report))


def convert_to_float(model: Any, size: tuple[int, ...], path: Path) -> None:
    """Write the model as float32 TFLite with one NHWC input.

    Args:
        model: a module in eval mode, float32 [N, H, W, 3] in.
        size: height and width, px.
        path: a file that does not exist yet: litert_torch refuses to overwrite.

    Raises:
        ConversionError: the model gives something else than a score, or a score and type logits.
    """
    import torch

    sample = torch.zeros(1, *size, 3)
    with torch.inference_mode():
        outputs = model(sample)
    shapes = [tuple(output.shape) for output in (outputs if isinstance(outputs, tuple) else (outputs,))]
    if shapes[0] != (1, 1) or len(shapes) > 2 or any(len(shape) != 2 for shape in shapes):
        raise ConversionError(f"model: want outputs [1, 1] or [1, 1] and [1, T], found {shapes}")
    import litert_torch  # only now: it takes seconds

    litert_torch.convert(model, (sample,)).export(str(path))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
