"""The second half of the train path: what ships is proved to decide as the trained model does, gets its thresholds
on the calibration split, and is judged once on the holdout.

Every score of a split comes from the artifact that ships, through `edge.detector`, in a process of its own, and every
picture passes the input guard that ships, or is an error as it would be on the device.
"""

import dataclasses
import io
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from edge.contract import Calibration, InputContract, InputGuard
from edge.preprocess import prepare_file, to_model_input
from inspection.dataset.intake import open_images, read_original
from inspection.dataset.manifest import ImageRow, Snapshot, load_snapshot
from inspection.errors import ParityError
from inspection.settings import Settings
from inspection.storage import open_storage
from inspection.train_path.judging import judge_rows, learn_input_guard, open_artifact
from inspection.train_path.learning import CachedPixels, TrainedModel, load_trained, open_cache
from inspection.train_path.stored_models import store_model

if TYPE_CHECKING:
    from inspection.decision.evaluation import Evaluation
    from inspection.decision.promise import OperatingPointReport
    from inspection.export.agreement import ParityReport
    from inspection.export.device import DeviceScores
    from inspection.export.jpeg import JpegAgreement
    from inspection.export.parity import ParityGate

log = logging.getLogger(__name__)

PARITY_SOURCES = 4000  # training images compared at most; a flip rate of 1 % is well known long before
JPEG_IMAGES = 300  # compared with their own JPEG at most
JPEG_QUALITY = 95
SEED = 0  # of the choice of images, where not all are taken, and of their copies


@dataclass(frozen=True)
class Exported:
    """The artifact that ships, and why it is trusted."""

    key: str  # of the .tflite file in storage
    sha256: str  # of that file: thresholds, evaluation and package are of this very content
    kind: str  # "int8" or "float32"
    defect_types: tuple[str, ...]
    gate: "ParityGate"
    converted: dict[str, Any]  # seconds, memory and versions of the conversion

    @property
    def shipped(self) -> "ParityReport":
        """How the artifact that ships agrees with the trained model."""
        return self.gate.int8 if self.kind == "int8" else self.gate.float


@dataclass(frozen=True)
class Decision:
    """Thresholds of the artifact, from the calibration split."""

    report: "OperatingPointReport"
    calibration: Calibration
    scores: np.ndarray  # float64 [N], of the calibration split in the snapshot's order
    refused: np.ndarray  # bool [N], likewise: the input guard refuses the picture
    guard: InputGuard  # that ships, learnt from the training split
    device: dict[str, Any]  # latency and memory on this machine
    jpeg: "JpegAgreement"


def export_model(settings: Settings, snapshot_id: str, trained: TrainedModel, card: Any) -> Exported:
    """Convert to TensorFlow Lite, let the parity gate choose what ships, and store it.

    Only training images are looked at.

    Args:
        settings: of the line.
        snapshot_id: of the data set.
        trained: the model to convert.
        card: the step's card; receives the gate's findings, also when nothing passes.

    Raises:
        ConversionError: the model cannot be converted.
        ParityError: no converted model decides as the trained one does.
    """
    from inspection.cards.parity import failed_parity_components, parity_components, pictures_wanted
    from inspection.export.conversion import convert
    from inspection.export.parity import GateError, run_parity_gate, score_trained

    storage = open_storage(settings.storage_root)
    rows = parity_rows(load_snapshot(storage, snapshot_id))
    is_bad = np.array([row.label == "bad" for row in rows])
    names = [row.uri for row in rows]
    model = load_trained(settings, trained)
    contract = settings.input.contract()
    augmentation = settings.training.augmentation
    with (
        TemporaryDirectory(prefix="lineside-export-") as scratch,
        ThreadPoolExecutor(1) as aside,
        ExitStack() as leaving,
    ):
        # The converting process keeps one core busy at best: the trained model's scores are taken meanwhile.
        # Each reads the cache for itself, in batches: a reader keeps shards open and is not shared by two threads.
        stop, pixels = Event(), CachedPixels(settings, rows)
        leaving.callback(stop.set)  # before the thread is waited for: a failed conversion is told at once
        scored = aside.submit(score_trained, model, pixels, settings.export, SEED, augmentation, stop)
        converted = convert(model, contract, CachedPixels(settings, rows), Path(scratch), augmentation)
        try:
            gate = run_parity_gate(
                scored.result(),
                converted,
                is_bad,
                contract,
                settings.export,
                SEED,
                defect_types=trained.defect_types,
                names=names,
                groups=[row.group for row in rows],
            )
        except GateError as error:
            flipped = _pictures(settings, rows, pictures_wanted(error))
            card.extend(failed_parity_components(error, flipped, names))
            card.refresh()
            raise
        card.extend(parity_components(gate, _pictures(settings, rows, pictures_wanted(gate)), names))
        stored = store_model(storage, gate.artifact, f"{Path(trained.key).parent.as_posix()}/model-{gate.kind}")
    facts = dataclasses.asdict(converted)
    return Exported(
        key=stored.key,
        sha256=stored.sha256,
        kind=gate.kind,
        defect_types=trained.defect_types,
        gate=dataclasses.replace(gate, artifact=Path(gate.artifact.name)),
        converted={name: value for name, value in facts.items() if not name.endswith("_path")},
    )


def parity_rows(snapshot: Snapshot) -> list[ImageRow]:
    """The training images that the parity gate compares."""
    return _some(snapshot.select("train"), PARITY_SOURCES)


def choose_thresholds(settings: Settings, snapshot_id: str, exported: Exported) -> Decision:
    """Score the calibration split with the artifact and choose the operating point.

    Raises:
        DataError: the split cannot be scored or holds one class only.
        ParityError: see `compare_with_jpeg`.
    """
    from inspection.decision.calibration import fit_calibration
    from inspection.decision.operating_point import choose_operating_point

    snapshot = load_snapshot(open_storage(settings.storage_root), snapshot_id)
    guard = learn_input_guard(settings, snapshot.select("train"))
    rows = snapshot.select("calibration")
    is_bad = np.array([row.label == "bad" for row in rows])
    judged = judge_rows(settings, exported, rows, guard)
    kept, scores = ~judged.refused, judged.scores
    report = choose_operating_point(
        scores, is_bad, [row.group for row in rows], settings.operating_point, judged.refused
    )
    return Decision(
        report=report,
        calibration=fit_calibration(scores[kept], is_bad[kept]),
        scores=scores,
        refused=judged.refused,
        guard=guard,
        device=judged.device.describe(),
        jpeg=compare_with_jpeg(settings, snapshot, exported, report),
    )


def evaluate_holdout(settings: Settings, snapshot_id: str, exported: Exported, decision: Decision) -> "Evaluation":
    """Judge the artifact on the holdout, as it is, and on a part of it disturbed."""
    from inspection.decision.evaluation import evaluate
    from inspection.decision.robustness import (
        DISTURBANCES,
        Disturbance,
        choose_disturbed,
        perturb,
        summarise_robustness,
    )

    rows = load_snapshot(open_storage(settings.storage_root), snapshot_id).select("holdout")
    is_bad = np.array([row.label == "bad" for row in rows])
    point = decision.report.point
    judged = judge_rows(settings, exported, rows, decision.guard)
    evaluation = evaluate(
        judged.scores,
        is_bad,
        [row.group for row in rows],
        [row.defect_type for row in rows],
        [row.lot for row in rows],
        [row.uri for row in rows],
        point,
        decision.calibration,
        settings.operating_point,
        SEED,
        judged.refused,
    )

    def disturb(one: Disturbance) -> tuple[Disturbance, np.ndarray, np.ndarray]:
        def change(pixels: np.ndarray, batch: int) -> np.ndarray:
            return perturb(pixels, one.kind, one.strength, (SEED, batch))

        found = judge_rows(settings, exported, some, decision.guard, change)
        return one, found.scores, found.refused

    chosen = choose_disturbed(is_bad, SEED)
    some = [rows[index] for index in chosen]
    robustness = summarise_robustness(
        (judged.scores[chosen], judged.refused[chosen]),
        [disturb(one) for one in DISTURBANCES],
        is_bad[chosen],
        [row.group for row in some],
        point,
    )
    return dataclasses.replace(evaluation, robustness=robustness, robustness_images=len(some))


def compare_with_jpeg(
    settings: Settings, snapshot: Snapshot, exported: Exported, report: "OperatingPointReport"
) -> "JpegAgreement":
    """Check that a raw frame and its own JPEG get the same verdict, on images that are not of the holdout.

    Raises:
        DataError: an image is no longer there.
        ParityError: they differ on so many images that it cannot be chance, and the settings say to stop then.
    """
    from inspection.export.jpeg import MIN_JPEG_AGREEMENT, jpeg_agreement

    contract = settings.input.contract()
    source = open_images(settings, snapshot.location)
    raw, compressed = [], []
    rows = _some([*snapshot.select("train"), *snapshot.select("calibration")], JPEG_IMAGES)
    for row in rows:
        as_is = InputContract(width=row.width, height=row.height, white_level=contract.white_level)
        frame = prepare_file(read_original(source, row.uri), as_is, row.uri).pixels[0]
        stream = io.BytesIO()
        Image.fromarray(frame).save(stream, "JPEG", quality=JPEG_QUALITY)
        raw.append(to_model_input(frame, contract))
        compressed.append(prepare_file(stream.getvalue(), contract, row.uri).pixels)
    scores = score_pixels(settings, exported, np.concatenate([*raw, *compressed])).scores
    agreement = jpeg_agreement(scores[: len(raw)], scores[len(raw) :], report.point, settings.export.confidence)
    log.info("event=jpeg_compared images=%d agreement=%.4f", agreement.images, agreement.agreement)
    if agreement.passed:
        return agreement
    named = ", ".join(rows[index].uri for index in agreement.differing[:10])
    found = (
        f"a raw frame and its own JPEG (quality {JPEG_QUALITY}) agree on {agreement.agreement:.1%} of "
        f"{agreement.images} images, want >= {MIN_JPEG_AGREEMENT:.1%}; they differ on {named}"
    )
    if settings.export.jpeg_gate == "stop" and agreement.agreement_upper < MIN_JPEG_AGREEMENT:
        raise ParityError(
            f"{found}. The model lives on detail that compression removes: use a larger [input] size or more noise in "
            '[training.augmentation], or feed the device what it was trained on and set [export] jpeg_gate = "warn"'
        )
    log.warning("event=jpeg_differs what=%r", found)
    return agreement


def score_pixels(settings: Settings, exported: Exported, pixels: np.ndarray) -> "DeviceScores":
    """Score prepared pictures, uint8 [N, H, W, 3], with the artifact, on the device's packages."""
    from inspection.export.device import score_on_device

    return score_on_device(
        open_artifact(settings, exported), pixels, settings.input.contract(), settings.export, exported.defect_types
    )


def _pictures(settings: Settings, rows: Sequence[ImageRow], wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """Pictures of these rows, uint8 [H, W, 3], by their index."""
    pixels = open_cache(settings).read([rows[index].sha256 for index in wanted])
    return dict(zip(wanted, pixels, strict=True))


def _some(rows: Sequence[ImageRow], limit: int) -> list[ImageRow]:
    """A seeded choice of at most `limit` rows, in their order."""
    if len(rows) <= limit:
        return list(rows)
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(rows))[:limit])
    return [rows[index] for index in chosen]
