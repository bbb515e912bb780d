"""Score pictures as the device does: `edge.score` in a process of its own, with the device's packages."""

import dataclasses
import json
import logging
import os
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import edge
from edge.contract import InputContract
from inspection.errors import ConversionError
from inspection.export.child import run_child
from inspection.export.shards import Pictures, write_shards
from inspection.settings import REPOSITORY, ExportSettings

log = logging.getLogger(__name__)

DEVICE_ENVIRONMENTS = {  # made by `make setup` from edge/requirements*.txt, at the repository's root
    "ai-edge-litert": ".venv-edge",
    "tflite-runtime": ".venv-edge-tflite",
}
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
    pixels: Pictures,
    input: InputContract,
    settings: ExportSettings,
    defect_types: Sequence[str] = (),
    threads: int = 1,
) -> DeviceScores:
    """Score pictures with a converted model through `edge.detector`.

    Args:
        model: .tflite file.
        pixels: uint8 [N, H, W, 3]; they reach the device's process through files of at most 256 MB.
        input: the size that the model takes.
        settings: which interpreter stands for the device.
        defect_types: names of the model's type outputs, in order.
        threads: CPU threads for one picture; latency is usually quoted for 1.

    Raises:
        ConversionError: the interpreter lacks a runtime, or the model or the pixels do not fit; with its own words.
    """
    python, origin = device_interpreter(settings)
    return score_with(python, origin, model, pixels, input, defect_types, threads)


def score_each_on_device(
    models: Sequence[Path],
    pixels: Pictures,
    input: InputContract,
    settings: ExportSettings,
    defect_types: Sequence[str] = (),
) -> list[DeviceScores]:
    """`score_on_device` for several models at once, with one thread each; pictures are gone over once.

    Raises:
        ConversionError: see `score_on_device`.
    """
    python, origin = device_interpreter(settings)
    return _score(python, origin, models, pixels, input, defect_types, 1)


def score_with(
    python: Path,
    origin: str,
    model: Path,
    pixels: Pictures,
    input: InputContract,
    defect_types: Sequence[str] = (),
    threads: int = 1,
) -> DeviceScores:
    """`score_on_device` with a given interpreter.

    Raises:
        ConversionError: see `score_on_device`.
    """
    return _score(python, origin, [model], pixels, input, defect_types, threads)[0]


def _score(
    python: Path,
    origin: str,
    models: Sequence[Path],
    pixels: Pictures,
    input: InputContract,
    defect_types: Sequence[str],
    threads: int,
) -> list[DeviceScores]:
    """Scores of each model: shard by shard, all models on the same shard at once."""
    if len(pixels) == 0:
        raise ConversionError(f"{models[0].name}: want at least one picture to score, found none")
    with (
        tempfile.TemporaryDirectory(prefix="lineside-device-") as name,
        ThreadPoolExecutor(len(models)) as pool,
    ):
        source = Path(name) / "pixels.npy"
        folders = [Path(name) / str(number) for number in range(len(models))]
        for folder in folders:
            folder.mkdir()
        options: list[str | Path] = ["--width", str(input.width), "--height", str(input.height)]
        options += ["--types", json.dumps(list(defect_types)), "--threads", str(threads)]
        shards = [
            list(
                pool.map(
                    lambda model, folder: _score_file(python, origin, model, source, options, folder), models, folders
                )
            )
            for _ in write_shards(pixels, source)
        ]
    return [_join(model, parts, len(pixels)) for model, *parts in zip(models, *shards, strict=True)]


def _score_file(
    python: Path, origin: str, model: Path, source: Path, options: Sequence[str | Path], folder: Path
) -> DeviceScores:
    """Scores of one file of pictures, by a process that works in `folder`."""
    target = folder / "scores.npz"
    command: list[str | Path] = [python, "-m", "edge.score", "--model", model.absolute(), "--pixels", source]
    run_child(
        [*command, "--out", target, *options],
        what=f"scoring pictures with {model.name} on {python}",
        advice=ADVICE,
        folder=folder,
        environment=_environment(),
    )
    try:
        with np.load(target) as found:
            return DeviceScores(
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


def _join(model: Path, parts: Sequence[DeviceScores], count: int) -> DeviceScores:
    """The scores of all shards as one, checked."""
    scores = dataclasses.replace(
        parts[0],
        scores=np.concatenate([part.scores for part in parts]),
        type_logits=np.concatenate([part.type_logits for part in parts]),
        latency_s=np.concatenate([part.latency_s for part in parts]),
        rss_bytes=max(part.rss_bytes for part in parts),
    )
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
        scores.interpreter,
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
