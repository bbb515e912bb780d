"""The end of the train path: pack what a device needs, register it, and say what was made."""

import logging
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

import numpy as np

from inspection.dataset.intake import open_images, read_original
from inspection.dataset.manifest import ImageRow, Snapshot, load_snapshot
from inspection.export.golden import IMAGES
from inspection.export.package import METRICS_FILE, Candidates, PackageContent, archive_package, build_package
from inspection.registry.interface import PackageReference
from inspection.registry.objects import metrics_key
from inspection.registry.opening import open_registry
from inspection.settings import REPOSITORY, Settings
from inspection.storage import open_storage
from inspection.train_path.judging import judge_rows, open_artifact
from inspection.train_path.learning import open_cache
from inspection.train_path.proving import Decision, Exported
from inspection.train_path.report_card import read_card
from inspection.train_path.run import TrainRun

log = logging.getLogger(__name__)

MORE_CANDIDATES = 100  # training images among which golden ones are looked for when calibration has too few
BATCH = 256  # pictures in memory at once while statistics are taken
PACKAGES = (
    "torch",
    "torchvision",
    "litert-torch",
    "ai-edge-quantizer",
    "ai-edge-litert",
    "numpy",
    "Pillow",
    "metaflow",
)


@dataclass(frozen=True)
class Release:
    """A registered model."""

    line: str
    version: int
    archive: str  # key in storage
    archive_sha256: str
    storage: str
    metrics: str = ""  # key in storage of metrics.json, which is in the package too


def release(settings: Settings, run: TrainRun, pathspec: str) -> Release:
    """Build the package, let the device's code verify it, and register it as pending.

    Args:
        settings: of the line.
        run: its artifacts up to the evaluation.
        pathspec: of the run, such as `TrainFlow/17`.

    Raises:
        StorageError: the model is no longer the one that was exported.
        DataError: an image that would become a golden one is no longer there.
        PackageError: the device's code refuses what was built.
        RegistryError: it cannot be registered.
    """
    exported, decision = run.exported, run.decision
    storage = open_storage(settings.storage_root)
    snapshot = load_snapshot(storage, run.snapshot_id)
    calibration = snapshot.select("calibration")
    origin = describe_origin(settings, run, pathspec)
    content = PackageContent(
        line=settings.line.name,
        artifact=open_artifact(settings, exported),
        kind=cast(Literal["int8", "float32"], exported.kind),
        input=settings.input.contract(),
        defect_types=exported.defect_types,
        calibration=decision.calibration,
        operating_point=decision.report.point,
        guard=decision.guard,
        calibration_batches=_batches(settings, calibration),
        calibration_scores=decision.scores,
        golden=golden_candidates(settings, snapshot, exported, decision),
        provenance={
            **origin,
            "metrics": run.evaluation.to_dict(),
            "operating_point": decision.report.to_dict(),
            "parity": exported.gate.to_json(),
            "jpeg": decision.jpeg.to_json(),
            "conversion": exported.converted,
            "latency": decision.device,
        },
        metrics_json=run.evaluation.to_json(),
    )
    with TemporaryDirectory(prefix="lineside-package-") as scratch:
        folder = build_package(Path(scratch) / "package", content, settings.export)
        archive = Path(scratch) / "package.zip"
        sha256 = archive_package(folder, archive)
        storage.upload(folder / METRICS_FILE, metrics_key(sha256))
        registered = open_registry(settings).register(
            PackageReference(
                line=settings.line.name,
                archive=archive,
                archive_sha256=sha256,
                contract_version=sha256_name(folder),
                metrics=summary_metrics(run),
                snapshot=run.snapshot_id,
                run=pathspec,
                commit=origin["commit"],
                card=f"{pathspec}/evaluate",
                card_html=read_card(f"{pathspec}/evaluate", "report"),
                tags={
                    "backbone": settings.training.backbone,
                    "recipe": run.trained.recipe,
                    "weights": origin["weights"],
                    "artifact": exported.kind,
                },
            )
        )
    log.info("event=registered line=%s version=%d sha256=%s", registered.line, registered.version, sha256)
    return Release(
        registered.line, registered.version, registered.archive, sha256, settings.storage_root, metrics_key(sha256)
    )


def golden_candidates(settings: Settings, snapshot: Snapshot, exported: Exported, decision: Decision) -> Candidates:
    """The calibration images, and, where they are few, training images too; never one of the holdout."""
    rows, scores = snapshot.select("calibration"), decision.scores
    if len(rows) < IMAGES:
        more = snapshot.select("train")[:MORE_CANDIDATES]
        judged = judge_rows(settings, exported, more, decision.guard)
        rows, scores = [*rows, *more], np.concatenate([scores, judged.scores])
        log.info("event=golden_candidates calibration=%d train=%d", len(decision.scores), len(more))
    source = open_images(settings, snapshot.location)
    return Candidates([row.uri for row in rows], scores, lambda index: read_original(source, rows[index].uri))


def sha256_name(folder: Path) -> str:
    """The `version` that the package's contract names its model by."""
    from edge.package import open_package

    return open_package(folder).contract.version


def summary_metrics(run: TrainRun) -> dict[str, Any]:
    """The figures that a registry's list shows."""
    evaluation, report, device = run.evaluation, run.decision.report, run.decision.device
    rates, per_thousand = evaluation.resolved, evaluation.per_thousand  # what the line does
    return {
        "auroc": asdict(evaluation.auroc),
        "escape_rate": _interval(rates.escape),
        "overkill_rate": _interval(rates.overkill),
        "review_rate": {name: value / 1000 for name, value in asdict(per_thousand["reviews"]).items()},
        "error_rate": {name: value / 1000 for name, value in asdict(per_thousand["errors"]).items()},
        "promised_escape_rate": report.escape.rate,
        "promised_overkill_rate": report.overkill.rate,
        "confidence": report.escape.confidence,
        "autonomous": report.autonomous,
        "agreement": 1 - run.exported.shipped.flip_rate,
        "jpeg_agreement": run.decision.jpeg.agreement,
        "p50_ms": device["p50_ms"],
        "p99_ms": device["p99_ms"],
    }


def describe_origin(settings: Settings, run: TrainRun, pathspec: str) -> dict[str, Any]:
    """What someone needs to repeat this model."""
    weights = settings.training.weights
    return {
        "line": settings.line.name,
        "snapshot": run.snapshot_id,
        "run": pathspec,
        "commit": current_commit(),
        "backbone": settings.training.backbone,
        "weights": weights if weights in ("imagenet", "none") else Path(weights).name,
        "recipe": run.trained.recipe,
        "training_seconds": round(run.trained.seconds, 1),
        "seed": settings.training.seed,
        "settings_digest": settings.digest("data", "input", "training", "export", "operating_point"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def current_commit() -> str:
    """Commit of the code, hex, with `-dirty` when files were changed since; "" where the code is no git checkout."""
    git = ["git", "-C", str(REPOSITORY)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit}-dirty" if changed else commit


def _batches(settings: Settings, rows: Sequence[ImageRow]) -> Iterator[np.ndarray]:
    return open_cache(settings).iter_batches([row.sha256 for row in rows], BATCH)


def _interval(rate: Any) -> dict[str, float]:
    return {"value": rate.rate, "low": rate.low, "high": rate.high}
