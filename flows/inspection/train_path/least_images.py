"""How few images the whole train path bears, asked in its first step."""

from inspection.dataset.manifest import Snapshot
from inspection.errors import DataError
from inspection.export.golden import FEWER_IMAGES
from inspection.settings import Settings


def check_enough(settings: Settings, snapshot: Snapshot) -> None:
    """Check that there are images enough for every later step: for training, and golden ones for the package.

    Raises:
        DataError: there are not.
    """
    from inspection.model.examples import MIN_PER_CLASS, MIN_TO_FINETUNE

    least = MIN_TO_FINETUNE if settings.training.recipe in ("finetune", "both") else MIN_PER_CLASS
    counts = {label: sum(row.label == label for row in snapshot.select("train")) for label in ("good", "bad")}
    if min(counts.values()) < least:
        raise DataError(
            f"{snapshot.location}: too few images to train on: want at least {least} good and {least} bad ones for "
            f"recipe {settings.training.recipe}, found {counts['good']} good and {counts['bad']} bad in the training "
            "part; add images, or lower [data] calibration_fraction and holdout_fraction"
        )
    free = [row for row in snapshot.rows if row.split != "holdout"]
    if len(free) < FEWER_IMAGES:
        raise DataError(
            f"{snapshot.location}: too few images: want at least {FEWER_IMAGES} outside of the holdout, from which a "
            f"device's self-test is made, found {len(free)} of {len(snapshot.rows)}; add images"
        )
