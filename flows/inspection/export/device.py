"""Score pictures as the device does: `edge.score` in a process of its own, with the device's packages.

Pictures go to that process through a pipe, so that neither memory nor disk grows with their number.
"""

import itertools
import logging
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

import edge
from edge.contract import InputContract
from inspection.errors import ConversionError
from inspection.export.child import run_child
from inspection.settings import REPOSITORY, ExportSettings

log = logging.getLogger(__name__)

DEVICE_ENVIRONMENTS = {  # made by `make setup` from edge/requirements*.txt, at the repository's root
    "ai-edge-litert": ".venv-edge",
    "tflite-runtime": ".venv-edge-tflite",
}
BATCH = 64  # pictures of an array that are handed on at once
ADVICE = (
    "set [export] device_python to an interpreter that has the packages of edge/requirements.txt, or run `make setup`"
)


@dataclass(frozen=True)
class DeviceScores:
    """What a converted model says of pictures, and what that cost."""

    scores: np.ndarray  # float64 [N], logits
    type_logits: np.ndarray  # float32 [N, T]; T is 0 without defect types
    latency_s: np.ndarray  # float64 [N], of inference alone
    rss_bytes: int  # peak of the scoring process
    runtime: str  # name and version
    kind: str  # "int8" or "float32"
    score_step: float  # difference of neighbouring scores, logits; 0.0 for float
    interpreter: str  # where its Python came from: "settings", ".venv-edge", "this process's"

    def latency_ms(self, percent: float) -> float:
        """A percentile of the time that one picture takes, in milliseconds."""
        return float(np.percentile(self.latency_s, percent) * 1e3)

    def describe(self) -> dict[str, Any]:
        """The figures of cost, as JSON values."""
        return {
            "runtime": self.runtime,
            "kind": self.kind,
            "interpreter": self.interpreter,
            "images": len(self.scores),
            "p50_ms": self.latency_ms(50),
            "p99_ms": self.latency_ms(99),
            "rss_bytes": self.rss_bytes,
            "score_step": self.score_step,
        }


def device_interpreter(settings: ExportSettings) -> tuple[Path, str]:
    """The Python that stands for the device, and where it came from.

    Raises:
        ConversionError: the one in the settings does not exist.
    """
    if settings.device_python:
        path = Path(settings.device_python).expanduser()
        if not path.is_file():
            raise ConversionError(
                f"[export] device_python: want a Python interpreter, found nothing at {path}; {ADVICE}"
            )
        return path.absolute(), "settings"  # not resolved: a virtual environment's python is a link
    path = REPOSITORY / DEVICE_ENVIRONMENTS["ai-edge-litert"] / "bin" / "python"
    if path.is_file():
        return path, DEVICE_ENVIRONMENTS["ai-edge-litert"]
    return Path(sys.executable), "this process's"


def other_runtimes() -> list[Path]:
    """Interpreters at the repository's root with another TFLite runtime than the default."""
    path = REPOSITORY / DEVICE_ENVIRONMENTS["tflite-runtime"] / "bin" / "python"
    return [path] if path.is_file() else []


def score_on_device(
    model: Path,
    pixels: np.ndarray,
    input: InputContract,
    settings: ExportSettings,
    defect_types: Sequence[str] = (),
    threads: int = 1,
) -> DeviceScores:
    """Score pictures with a converted model through `edge.detector`.

    Args:
        model: .tflite file.
        pixels: uint8 [N, H, W, 3]; a memory map stays on the disk.
        input: the size that the model takes.
        settings: which interpreter stands for the device.
        defect_types: names of the model's type outputs, in order.
        threads: CPU threads for one picture; latency is usually quoted for 1.

    Raises:
        ConversionError: the interpreter lacks a runtime, or the model or the pixels do not fit; with its own words.
        StorageError: no space for the pictures.
    """
    python, origin = device_interpreter(settings)
    return score_with(python, origin, model, pixels, input, defect_types, threads)


def score_batches_on_device(
    model: Path,
    batches: Iterable[np.ndarray],
    count: int,
    input: InputContract,
    settings: ExportSettings,
    defect_types: Sequence[str] = (),
) -> DeviceScores:
    """`score_on_device` for more pictures than fit into memory.

    Args:
        model: .tflite file.
        batches: uint8 [n, H, W, 3] each; one is held at a time.
        count: of all pictures in the batches.
        input: the size that the model takes.
        settings: which interpreter stands for the device.
        defect_types: names of the model's type outputs, in order.

    Raises:
        ConversionError: see `score_on_device`.
    """
    python, origin = device_interpreter(settings)
    return _score(python, origin, model, batches, count, input, defect_types, threads=1)


def score_with(
    python: Path,
    origin: str,
    model: Path,
    pixels: np.ndarray,
    input: InputContract,
    defect_types: Sequence[str] = (),
    threads: int = 1,
) -> DeviceScores:
    """`score_on_device` with a given interpreter.

    Raises:
        ConversionError: see `score_on_device`.
    """
    batches = (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))
    return _score(python, origin, model, batches, len(pixels), input, defect_types, threads)


def _score(
    python: Path,
    origin: str,
    model: Path,
    batches: Iterable[np.ndarray],
    count: int,
    input: InputContract,
    defect_types: Sequence[str],
    threads: int,
) -> DeviceScores:
    if count == 0:
        raise ConversionError(f"{model.name}: want at least one picture to score, found none")

    def feed(stream: IO[bytes]) -> None:
        """The pictures as a .npy file."""
        rest = iter(batches)
        first = next(rest)
        np.lib.format.write_array_header_1_0(
            stream,
            {
                "descr": np.lib.format.dtype_to_descr(first.dtype),
                "fortran_order": False,
                "shape": (count, *first.shape[1:]),
            },
        )
        for batch in itertools.chain([first], rest):
            stream.write(np.ascontiguousarray(batch).data.cast("B"))

    with tempfile.TemporaryDirectory(prefix="lineside-device-") as name:
        work = Path(name)
        target = work / "scores.npz"
        command: list[str | Path] = [python, "-m", "edge.score", "--model", model.absolute(), "--pixels", "-"]
        command += ["--out", target, "--width", str(input.width), "--height", str(input.height)]
        command += ["--types", ",".join(defect_types), "--threads", str(threads)]
        run_child(
            command,
            what=f"scoring {count} pictures with {model.name} on {python}",
            advice=ADVICE,
            folder=work,
            environment=_environment(),
            feed=feed,
        )
        try:
            with np.load(target) as found:
                scores = DeviceScores(
                    scores=found["scores"],
                    type_logits=found["type_logits"],
                    latency_s=found["latency_s"],
                    rss_bytes=int(found["rss_bytes"]),
                    runtime=str(found["runtime"]),
                    kind=str(found["kind"]),
                    score_step=float(found["score_step"]),
                    interpreter=origin,
                )
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ConversionError(f"{python} -m edge.score: left no scores that can be read ({error})") from error
    if len(scores.scores) != count or not np.isfinite(scores.scores).all():
        raise ConversionError(
            f"{model.name}: want {count} finite scores, found {np.isfinite(scores.scores).sum()} among "
            f"{len(scores.scores)}; convert the model again"
        )
    log.info(
        "event=scored_on_device model=%s images=%d runtime=%r interpreter=%s p50_ms=%.2f p99_ms=%.2f rss_mb=%.0f",
        model.name,
        count,
        scores.runtime,
        origin,
        scores.latency_ms(50),
        scores.latency_ms(99),
        scores.rss_bytes / 1e6,
    )
    return scores


def run_edge(arguments: Sequence[str | Path], what: str, settings: ExportSettings) -> None:
    """Run `python -m edge` with the device's packages.

    Args:
        arguments: of the device's program; paths absolute.
        what: the work, for messages.
        settings: which interpreter stands for the device.

    Raises:
        ConversionError: it fails; with its own words.
    """
    python, _ = device_interpreter(settings)
    with tempfile.TemporaryDirectory(prefix="lineside-device-") as name:
        run_child(
            [python, "-m", "edge", *arguments],
            what=f"{what} on {python}",
            advice=ADVICE,
            folder=Path(name),
            environment=_environment(),
        )


def _environment() -> dict[str, str]:
    """Variables of the device's process: `edge` alone goes along, from wherever this process has it."""
    (folder,) = edge.__path__
    return {"PYTHONPATH": os.fspath(Path(folder).resolve().parent), "PYTHONDONTWRITEBYTECODE": "1"}
