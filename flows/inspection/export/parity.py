"""The parity gate: before any threshold exists, a converted model must decide as the trained one does.

It looks at images of the training split only, and at slightly varied copies of them: neither the calibration split
nor the holdout may have a part in choosing what ships.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edge.contract import InputContract
from inspection.errors import ParityError
from inspection.export.agreement import ParityReport, check_parity
from inspection.export.benchmark import read_benchmarks
from inspection.export.conversion import Converted
from inspection.export.device import score_each_on_device
from inspection.export.variation import VariedPictures
from inspection.settings import AugmentationSettings, ExportSettings

if TYPE_CHECKING:
    from inspection.model.classifier import Pixels

__all__ = ["GateError", "ParityGate", "ParityReport", "check_parity", "run_parity_gate"]

log = logging.getLogger(__name__)

DEFAULT_AUGMENTATION = AugmentationSettings()
NAMED = 10  # flipped images named in an error


class Scores(Protocol):
    """A trained model, as far as the gate needs it."""

    def score_pixels(self, pixels: Any, batch: int = 8) -> np.ndarray:
        """Defect logits, float64 [N], of uint8 [N, H, W, 3]."""


@dataclass(frozen=True)
class TrainedScores:
    """The images that the gate compares, and what the trained model says of them."""

    pictures: VariedPictures  # the given ones first, then varied copies
    scores: np.ndarray  # float64 [M], logits


@dataclass(frozen=True)
class ParityGate:
    """Both reports, what ships and why."""

    float: ParityReport
    int8: ParityReport
    artifact: Path  # the model file that ships
    kind: str  # of that file
    reason: str  # why that one
    source_index: np.ndarray  # int64 [images]: which of the given pictures each compared image came from
    copies: np.ndarray  # bool [images]: a varied copy, not the picture itself
    devices: dict[str, dict[str, Any]]  # latency and memory by kind, as measured here

    def to_json(self) -> dict[str, Any]:
        """The gate as JSON values."""
        return {
            "kind": self.kind,
            "reason": self.reason,
            "float32": self.float.to_json(),
            "int8": self.int8.to_json(),
            "devices": self.devices,
        }


class GateError(ParityError):
    """No converted model passed; carries what a card needs to show the pictures that flipped."""

    def __init__(self, message: str, reports: Sequence[ParityReport] = (), source_index: np.ndarray | None = None):
        super().__init__(message)
        self.reports = tuple(reports)
        self.source_index = source_index  # as in `ParityGate`


def score_trained(
    model: Scores,
    pixels: "Pixels",
    settings: ExportSettings,
    seed: int,
    augmentation: AugmentationSettings = DEFAULT_AUGMENTATION,
    stop: Event | None = None,
) -> TrainedScores:
    """Score what the gate will compare with the trained model. It needs no converted one, so it may run meanwhile.

    Args:
        model: the trained model.
        pixels: uint8 [N, H, W, 3], images of the training split; read in batches, and again by the gate.
        settings: how many images to compare at least.
        seed: of the copies that fill up to that number.
        augmentation: how the copies may differ from their pictures.
        stop: set by another thread when the scores are of no use any more; looked at between batches.

    Raises:
        CancelledError: `stop` was set.
    """
    pictures, scores = VariedPictures(pixels, settings.parity_images, augmentation, seed), []
    for batch in pictures.batches():
        if stop is not None and stop.is_set():
            raise CancelledError(f"the trained model's scores of {len(pictures)} pictures are not wanted any more")
        scores.append(model.score_pixels(batch))
    return TrainedScores(pictures, np.concatenate(scores))


def run_parity_gate(
    trained: TrainedScores,
    converted: Converted,
    is_bad: np.ndarray,
    input: InputContract,
    settings: ExportSettings,
    seed: int,
    defect_types: Sequence[str] = (),
    names: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> ParityGate:
    """Compare both converted models with the trained one and choose what ships.

    Args:
        trained: what the trained model says.
        converted: its float32 and int8 files.
        is_bad: bool [N], of the given pictures.
        input: the size that the model takes.
        settings: limits and target.
        seed: of the bootstrap.
        defect_types: names of the model's type outputs.
        names: of the given pictures, for the error; their numbers when not given.
        groups: part or lot of each given picture, for the bounds; each its own when not given.

    Raises:
        ParityError: neither passes; the pictures that flipped are named.
        ConversionError: a model cannot be run.
        SettingsError: the device benchmark cannot be used.
    """
    benchmarks = read_benchmarks(Path(settings.device_benchmark), input) if settings.device_benchmark else None
    source_index = trained.pictures.source_index
    labels, reports, devices = is_bad[source_index], {}, {}
    paths = {"float32": converted.float_path, "int8": converted.int8_path}
    # Side by side, one thread each: what is compared is scores. The latency that is reported as the artifact's is
    # measured alone, on the calibration split.
    found = score_each_on_device(list(paths.values()), trained.pictures, input, settings, defect_types)
    for kind, device in zip(paths, found, strict=True):
        reports[kind] = check_parity(trained.scores, device.scores, labels, settings, kind, source_index, seed, groups)
        devices[kind] = device.describe()
        log.info("event=parity %s", reports[kind].summary())
    if not any(report.passed for report in reports.values()):
        raise GateError(_refusal(reports, source_index, names), tuple(reports.values()), source_index)
    kind, reason = _choose(reports, settings, benchmarks)
    log.info("event=artifact_chosen kind=%s reason=%r", kind, reason)
    return ParityGate(
        float=reports["float32"],
        int8=reports["int8"],
        artifact=converted.int8_path if kind == "int8" else converted.float_path,
        kind=kind,
        reason=reason,
        source_index=source_index,
        copies=np.arange(len(source_index)) >= trained.pictures.given,
        devices=devices,
    )


def _choose(
    reports: dict[str, ParityReport], settings: ExportSettings, benchmarks: dict[str, Any] | None
) -> tuple[str, str]:
    """The kind that ships, of those that passed (at least one), and the reason."""
    passed = [kind for kind, report in reports.items() if report.passed]
    if len(passed) == 1:
        other = next(report for kind, report in reports.items() if kind != passed[0])
        verb = "ships as wanted" if passed[0] == settings.target else f"ships although the target is {settings.target}"
        return passed[0], f"{passed[0]} {verb}; {other.kind} failed the parity gate: {'; '.join(other.faults)}"
    if benchmarks is None:
        return settings.target, f"{settings.target} is the target and passed the parity gate"
    fastest = min(passed, key=lambda kind: benchmarks[kind].p50_ms)
    slower = next(kind for kind in passed if kind != fastest)
    return fastest, (
        f"both passed the parity gate, and on {benchmarks[fastest].machine} with {benchmarks[fastest].runtime} "
        f"{fastest} takes {benchmarks[fastest].p50_ms:.1f} ms, {slower} {benchmarks[slower].p50_ms:.1f} ms"
    )


def _refusal(reports: dict[str, ParityReport], source_index: np.ndarray, names: Sequence[str] | None) -> str:
    parts = [f"{report.kind}: {'; '.join(report.faults)} (of {report.images} images)" for report in reports.values()]
    flipped = dict.fromkeys(int(source_index[index]) for report in reports.values() for index in report.flipped)
    shown = [names[index] if names is not None else f"image {index}" for index in list(flipped)[:NAMED]]
    more = f" and {len(flipped) - NAMED} more" if len(flipped) > NAMED else ""
    named = f"; flipped: {', '.join(shown)}{more}" if shown else ""
    return (
        f"no converted model passed the parity gate. {'. '.join(parts)}{named}. See the parity card; more training "
        "images, another backbone or wider limits in [export] may help"
    )
