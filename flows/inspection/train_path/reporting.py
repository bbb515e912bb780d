"""Fills the cards of the train flow from what its steps return."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from metaflow.cards import Markdown

from inspection.cards.dataset import dataset_components
from inspection.cards.dataset import pictures_wanted as of_dataset
from inspection.cards.intake import intake_components
from inspection.cards.intake import pictures_wanted as of_intake
from inspection.cards.parity import pictures_wanted as of_parity
from inspection.cards.report import pictures_wanted as of_holdout
from inspection.cards.report import report_components
from inspection.cards.training import trained_components, training_components
from inspection.dataset.intake_record import load_intake
from inspection.dataset.manifest import ImageRow, Snapshot, load_snapshot
from inspection.dataset.mask_cache import box_mask, read_masks
from inspection.settings import Settings
from inspection.storage import open_storage
from inspection.train_path.larger_input import LargerInput
from inspection.train_path.learning import TrainedModel, open_cache
from inspection.train_path.proving import parity_rows
from inspection.train_path.releasing import describe_origin
from inspection.train_path.run import TrainRun

if TYPE_CHECKING:
    from inspection.model.progress import Progress


def show_dataset(card: Any, settings: Settings, snapshot: Snapshot, warning: str = "") -> None:
    """What is in the data set, on a card of its own, and what to mind."""
    if warning:
        card.append(Markdown(f"**Attention:** {warning}."))
    card.extend(_dataset(settings, snapshot))
    card.extend(_intake(settings, snapshot))


def watch_training(card: Any) -> "Callable[[Progress], None]":
    """What to call as training goes on, so that the card shows the curves while they grow."""

    def show(progress: "Progress") -> None:
        card.clear()
        card.extend(training_components(progress))
        card.refresh()

    return show


def show_trained(card: Any, trained: TrainedModel, larger: LargerInput | None = None) -> None:
    """The finished curves, and whether a larger input would tell more."""
    notes = list(trained.notes)
    if larger is not None:
        notes.append(f"**Attention:** {larger.warning}." if larger.warning else f"a larger input: {larger.describe()}")
    card.clear()
    card.extend(trained_components(trained.recipe, trained.curves, trained.seconds, notes, trained.figures))


def show_report(card: Any, settings: Settings, run: TrainRun, pathspec: str) -> None:
    """The report that a quality engineer reads before the model is approved.

    Args:
        card: the step's card.
        settings: of the line.
        run: its artifacts up to the evaluation.
        pathspec: of the run, such as `TrainFlow/17`.
    """
    snapshot = load_snapshot(open_storage(settings.storage_root), run.snapshot_id)
    holdout, calibration = snapshot.select("holdout"), snapshot.select("calibration")
    report, compared = run.decision.report, parity_rows(snapshot)
    holding = {index: "upper" for index in report.setting_upper} | {index: "lower" for index in report.setting_lower}
    card.extend(
        report_components(
            run.evaluation,
            report,
            _by_index(settings, holdout, of_holdout(run.evaluation)),
            title=f"Line {settings.line.name}: report of its {run.exported.kind} model",
            parity=run.exported.gate,
            parity_pictures=_by_index(settings, compared, of_parity(run.exported.gate)),
            parity_names=[row.uri for row in compared],
            threshold_pictures=[
                (f"{calibration[index].uri}: holds the {holding[index]} threshold", picture)
                for index, picture in _by_index(settings, calibration, list(holding)).items()
            ],
            recipe=run.choice,
            dataset=_dataset(settings, snapshot),
            provenance=_provenance(settings, run, pathspec),
        )
    )


def _provenance(settings: Settings, run: TrainRun, pathspec: str) -> dict[str, str]:
    """The origin of the model, a line each."""
    origin = describe_origin(settings, run, pathspec)
    versions = origin.pop("versions")
    return {
        **{name.replace("_", " "): str(value) for name, value in origin.items() if value != ""},
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
    }


def _dataset(settings: Settings, snapshot: Snapshot) -> list[Any]:
    rows = of_dataset(snapshot)
    cache = open_cache(settings)
    pictures = cache.read([row.sha256 for row in rows])
    marks = read_masks(cache, rows)
    marks |= {row.uri: box_mask(row, settings.input.contract()) for row in rows if row.boxes and row.uri not in marks}
    return dataset_components(snapshot, {row.uri: picture for row, picture in zip(rows, pictures, strict=True)}, marks)


def _intake(settings: Settings, snapshot: Snapshot) -> list[Any]:
    """What the examination of the images found when they were taken in."""
    intake = load_intake(open_storage(settings.storage_root), settings.line.name, snapshot.id)
    if intake is None:
        return []
    digests = {row.uri: row.sha256 for row in snapshot.rows}
    uris = of_intake(intake)
    pictures = open_cache(settings).read([digests[uri] for uri in uris])
    return intake_components(intake, dict(zip(uris, pictures, strict=True)))


def _by_index(settings: Settings, rows: Sequence[ImageRow], wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """Pictures of these rows, uint8 [H, W, 3], by their index."""
    pictures = open_cache(settings).read([rows[index].sha256 for index in wanted])
    return dict(zip(wanted, pictures, strict=True))
