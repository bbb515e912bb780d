"""From a trained classifier to TensorFlow Lite: one float32 file and one int8 file.

The work is done in a process of its own (`convert_process`), since its libraries are noisy, hungry and can end the
process that calls them. Nothing appears in the target folder before both files are whole.
"""

import copy
import json
import logging
import pickle
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge.contract import InputContract
from inspection.errors import ConversionError
from inspection.export.child import hand_over, import_path, run_child
from inspection.export.variation import copies_of
from inspection.settings import AugmentationSettings

if TYPE_CHECKING:
    from torch import nn

    from inspection.model.classifier import Pixels

log = logging.getLogger(__name__)

FLOAT_NAME = "model-float32.tflite"
INT8_NAME = "model-int8.tflite"
CALIBRATION_IMAGES = 256  # more only widens the ranges; each costs about 20 ms at 224 px
DEFAULT_AUGMENTATION = AugmentationSettings()
SEED = 0  # of the choice among more images, and of the copies that fill up fewer


@dataclass(frozen=True)
class Converted:
    """Both converted models and what it took to make them."""

    float_path: Path
    int8_path: Path
    seconds: float  # conversion and quantisation, start of the process included
    peak_rss_bytes: int  # of the converting process
    calibration_images: int  # seen by the quantiser, copies included
    lifted_channels: int  # nearly dead channels whose bias would not have fitted 32 bits
    corrected_features: int  # of the int8 head, for the mean error that rounding gives them
    versions: dict[str, str]  # of the packages that converted


def convert(
    model: "nn.Module",
    input: InputContract,
    calibration_pixels: "Pixels",
    folder: Path,
    augmentation: AugmentationSettings = DEFAULT_AUGMENTATION,
) -> Converted:
    """Convert a classifier to float32 and to full int8.

    Args:
        model: maps float32 [N, H, W, 3], RGB, 0..255, to the score [N, 1], or to the score and type logits [N, T].
            Its class must be importable by name.
        input: the size of its input.
        calibration_pixels: uint8 [N, H, W, 3], of training images only: the quantiser takes its ranges from them.
            At most `CALIBRATION_IMAGES` are read and used; fewer are filled up with slightly varied copies.
        folder: receives both files; it must not hold them yet.
        augmentation: how the copies may differ from their pictures.

    Raises:
        ConversionError: the pixels do not fit, a file exists, or the model cannot be converted or quantised.
        StorageError: no space for the pictures.
    """
    chosen = _choose(calibration_pixels)
    _check_pixels(chosen, input)
    targets = folder / FLOAT_NAME, folder / INT8_NAME
    for target in targets:
        if target.exists():
            raise ConversionError(f"{target}: exists already; convert into an empty folder, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=folder) as name:
        work = Path(name)
        _write_model(model, work / "model.pt")
        hand_over(work / "pixels.npy", _fill_up(chosen, augmentation))
        run_child(
            [sys.executable, "-m", "inspection.export.convert_process", work],
            what="converting the model to TensorFlow Lite",
            advice="an operation may have no counterpart there: see docs/decisions/0001-litert-torch-for-conversion.md",
            folder=work,
            environment={"PYTHONPATH": import_path(), "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "1"},
        )
        report = json.loads((work / "report.json").read_text())
        for target in targets:
            (work / target.name).replace(target)
    converted = Converted(*targets, **report)
    log.info(
        "event=converted seconds=%.1f peak_rss_mb=%.0f float_bytes=%d int8_bytes=%d calibration_images=%d "
        "lifted_channels=%d corrected_features=%d",
        converted.seconds,
        converted.peak_rss_bytes / 1e6,
        converted.float_path.stat().st_size,
        converted.int8_path.stat().st_size,
        converted.calibration_images,
        converted.lifted_channels,
        converted.corrected_features,
    )
    return converted


def _check_pixels(pixels: np.ndarray, input: InputContract) -> None:
    want = (input.height, input.width, 3)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != want or len(pixels) == 0:
        raise ConversionError(
            f"calibration_pixels: want uint8 [N, {input.height}, {input.width}, 3] with N > 0, "
            f"found {pixels.dtype} {list(pixels.shape)}; read them from the cache of the same input contract"
        )


def _write_model(model: "nn.Module", path: Path) -> None:
    import torch

    from inspection.model.classifier import Scorer

    try:
        # litert-torch reads a constant in channels_last as if it were contiguous: maps then get wrong factors.
        plain = copy.deepcopy(model).cpu().eval().to(memory_format=torch.contiguous_format)
        if isinstance(plain, Scorer):
            plain.fold_normalisation()
        torch.save(plain, path)
    except (pickle.PicklingError, AttributeError, TypeError, RuntimeError) as error:
        raise ConversionError(
            f"{type(model).__qualname__}: cannot be handed to the converting process ({error}); define it in a module, "
            "without lambdas or hooks as attributes"
        ) from error


def _choose(pixels: "Pixels") -> np.ndarray:
    """A seeded choice of images, uint8 [at most CALIBRATION_IMAGES, H, W, 3]."""
    return pixels[np.sort(np.random.default_rng(SEED).permutation(len(pixels))[:CALIBRATION_IMAGES])]


def _fill_up(chosen: np.ndarray, augmentation: AugmentationSettings = DEFAULT_AUGMENTATION) -> np.ndarray:
    """The chosen images and as many varied copies as make CALIBRATION_IMAGES, uint8."""
    missing = CALIBRATION_IMAGES - len(chosen)
    if missing <= 0:
        return chosen
    return np.concatenate([chosen, copies_of(chosen, np.arange(missing) % len(chosen), augmentation, SEED)])
