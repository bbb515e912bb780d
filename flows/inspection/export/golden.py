"""Golden images: pictures with the scores that a device must reproduce before it serves a package."""

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from edge.contract import GoldenImage, InputContract, OperatingPoint, SelfTest
from edge.preprocess import prepare_file
from inspection.errors import PackageError
from inspection.export.device import device_interpreter, other_runtimes, score_with
from inspection.settings import ExportSettings

log = logging.getLogger(__name__)

FOLDER = "golden"
IMAGES = 12
FEWER_IMAGES = 8  # when a picture is large, so that the package stays small
LARGE_PX = 4_000_000
GRADED_SHARE = 1 / 3  # at least this much of the golden images is spread over the range of scores
LEAST_TOLERANCE = 1e-3  # logits; a float model differs this much between processors and thread counts
GREY16_MODES = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class Candidates:
    """Pictures that may become golden images: of the calibration or training split, never of the holdout."""

    names: Sequence[str]  # for messages
    scores: np.ndarray  # float64 [N], logits of the artifact that ships
    read: Callable[[int], bytes]  # the original file of a picture, by its index


@dataclass(frozen=True)
class GoldenReport:
    """How much runtimes differ on the golden images."""

    self_test: SelfTest
    score_step: float  # quantisation step of the score, logits; 0.0 for float
    spread: float  # largest difference of a score between the runs below, logits
    runs: tuple[str, ...]  # runtime and threads of each


def write_golden(
    folder: Path,
    candidates: Candidates,
    model: Path,
    input: InputContract,
    point: OperatingPoint,
    defect_types: Sequence[str],
    settings: ExportSettings,
) -> GoldenReport:
    """Choose golden images, write them as PNG and score them as a device does, on every runtime that is here.

    Args:
        folder: the package's folder.
        candidates: what to choose from.
        model: the artifact.
        input: its input contract.
        point: some images lie nearest to its thresholds.
        defect_types: names of the model's type outputs.
        settings: which interpreter stands for the device.

    Raises:
        PackageError: too few candidates.
        ConversionError: the model cannot be run.
        ImageError: a candidate cannot be decoded.
    """
    (folder / FOLDER).mkdir()
    files: list[str] = []
    pixels: list[np.ndarray] = []
    for index in choose(candidates.scores, point, _count(candidates)):
        data = _as_png(candidates.read(index))
        files.append(f"{FOLDER}/{len(files):02d}.png")
        (folder / files[-1]).write_bytes(data)
        pixels.append(prepare_file(data, input, candidates.names[index]).pixels)
    python, origin = device_interpreter(settings)
    stack = np.concatenate(pixels)
    runs = [score_with(python, origin, model, stack, input, defect_types, threads) for threads in (1, 2)]
    described = [f"{run.runtime}, {threads} thread(s)" for run, threads in zip(runs, (1, 2), strict=True)]
    for other in other_runtimes():
        runs.append(score_with(other, other.parents[1].name, model, stack, input, defect_types))
        described.append(f"{runs[-1].runtime}, 1 thread(s)")
    reference, step = runs[0].scores, runs[0].score_step
    spread = max(float(np.abs(run.scores - reference).max()) for run in runs)
    tolerance = max(2 * step, spread, LEAST_TOLERANCE)
    log.info("event=golden_written images=%d spread=%.4g step=%.4g tolerance=%.4g", len(files), spread, step, tolerance)
    images = tuple(GoldenImage(file, float(score)) for file, score in zip(files, reference, strict=True))
    return GoldenReport(SelfTest(tolerance, images), step, spread, tuple(described))


def choose(scores: np.ndarray, point: OperatingPoint, count: int) -> list[int]:
    """Indices of pictures nearest to the thresholds, on both sides, then graded over the range of scores.

    Args:
        scores: float64 [N], logits.
        point: the thresholds.
        count: how many to choose; all when there are fewer.

    Raises:
        PackageError: fewer pictures than a self-test needs.
    """
    if len(scores) < FEWER_IMAGES:
        raise PackageError(
            f"golden images: want at least {FEWER_IMAGES} pictures to choose from, found {len(scores)} in "
            "calibration and training; add images"
        )
    order = np.argsort(scores, kind="stable")
    thresholds = dict.fromkeys((point.lower, point.upper))
    nearest = int(count * (1 - GRADED_SHARE) / (2 * len(thresholds)))  # on each side of each
    chosen: list[int] = []
    for threshold in thresholds:
        place = int(np.searchsorted(scores[order], threshold))
        chosen += [int(index) for index in order[max(0, place - nearest) : place + nearest]]
    chosen = list(dict.fromkeys(chosen))
    rest = np.array([index for index in order if index not in set(chosen)], dtype=int)
    missing = min(count - len(chosen), len(rest))
    graded = rest[np.linspace(0, len(rest) - 1, missing).round().astype(int)] if missing > 0 else rest[:0]
    return chosen + [int(index) for index in graded]


def _count(candidates: Candidates) -> int:
    """How many golden images, by the size of the first picture: a line's pictures are of one size."""
    if len(candidates.scores) == 0:
        return FEWER_IMAGES
    with Image.open(io.BytesIO(candidates.read(0))) as image:
        return FEWER_IMAGES if image.width * image.height > LARGE_PX else IMAGES


def _as_png(data: bytes) -> bytes:
    """The whole picture, upright and lossless, so that no device's JPEG decoder matters."""
    with Image.open(io.BytesIO(data)) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode not in (*GREY16_MODES, "L", "RGB"):
            image.info.pop("transparency", None)  # Pillow warns when it drops a transparent colour by itself
            image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    stream = io.BytesIO()
    # A new picture, so that no metadata of the camera goes along.
    Image.fromarray(np.asarray(image)).save(stream, "PNG")
    return stream.getvalue()
