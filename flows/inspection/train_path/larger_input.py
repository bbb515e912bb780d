"""Whether the model would tell more from a larger input: asked when no mask says how small the defects are."""

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edge.contract import InputContract
from edge.preprocess import prepare_file
from inspection.dataset.intake import open_images, read_original
from inspection.dataset.manifest import ImageRow, Snapshot, load_snapshot
from inspection.settings import Settings
from inspection.storage import open_storage
from inspection.train_path.budget import for_input
from inspection.train_path.learning import CachedPixels

if TYPE_CHECKING:
    from inspection.model.examples import TrainingSet

log = logging.getLogger(__name__)

LARGEST_PX = 512  # of the settings
LEAST_FACTOR = 1.25  # a larger input than this by less tells nothing new
IMAGES = 200  # of the training part that are tried; more cost minutes and hardly narrow the interval
WORTH = 0.01  # AUROC that a larger input must bring to be worth four times the work


@dataclass(frozen=True)
class LargerInput:
    """Frozen features at the line's input and at a larger one, cross-validated on the same training images."""

    width: int  # px, of the larger input
    height: int
    images: int
    auroc: float  # at the line's input
    larger_auroc: float
    low: float  # 95 % interval of the gain
    high: float
    warning: str  # "" when the gain is not shown or too small to be worth it
    seconds: float = 0.0  # that the trial took

    def describe(self) -> str:
        """The figures in a sentence."""
        gain = self.larger_auroc - self.auroc
        return (
            f"at {self.width}x{self.height} px frozen features reach a cross-validated AUROC of "
            f"{self.larger_auroc:.3f}, at the line's input {self.auroc:.3f} (gain {gain:+.3f}, 95 % interval "
            f"{self.low:+.3f} to {self.high:+.3f}, {self.images} training images)"
        )


def try_larger_input(settings: Settings, snapshot_id: str) -> LargerInput | None:
    """Compare the line's input with one of twice the side, or of at most 512 px.

    Frozen features are enough for that and cost seconds. Nothing is compared when masks tell the size of the defects
    (`advice.warn_of_small_defects` looks at them), when the images hold no more pixels, when the input is as large as
    the settings allow, or when the recipe was not to be compared either.

    Returns:
        what was found; None when nothing was compared.
    """
    snapshot = load_snapshot(open_storage(settings.storage_root), snapshot_id)
    rows = snapshot.select("train")
    contract = larger_contract(settings.input.contract(), rows)
    if settings.training.recipe != "auto" or contract is None or any(row.mask for row in rows):
        return None
    from inspection.model.selection import BOOTSTRAPS, bootstrap_aurocs
    from inspection.model.training import cross_validate

    rows = _some(rows, settings.training.seed)
    started = time.monotonic()
    training = dataclasses.replace(cast(Any, for_input(settings.training)), views=1)
    here = _training_set(rows, CachedPixels(settings, rows))
    there = _training_set(rows, _read(settings, snapshot, rows, contract))
    results = [cross_validate("frozen", one, training) for one in (here, there)]
    drawn = bootstrap_aurocs([one.scores for one in results], here.is_bad, here.groups, training.seed)
    low, high = (float(value) for value in np.quantile(drawn[:, 1] - drawn[:, 0], [0.025, 0.975]))
    found = LargerInput(contract.width, contract.height, len(rows), results[0].auroc, results[1].auroc, low, high, "")
    found = dataclasses.replace(found, seconds=time.monotonic() - started)
    if low > 0 and found.larger_auroc - found.auroc >= WORTH:
        found = dataclasses.replace(
            found,
            warning=f"the input may be too small: {found.describe()}; set [input] width and height to "
            f"{contract.width} and {contract.height}, or [input] roi to the part that matters",
        )
    log.info("event=larger_input_tried draws=%d what=%r", BOOTSTRAPS, found.describe())
    if found.warning:
        log.warning("event=input_too_small what=%r", found.warning)
    return found


def larger_contract(contract: InputContract, rows: Sequence[ImageRow]) -> InputContract | None:
    """The larger input to try; None when there is none to be had.

    Args:
        contract: of the line.
        rows: images whose smallest must still hold more pixels than the larger input.
    """
    roi = contract.roi
    width = min(roi.width if roi else row.width for row in rows)
    height = min(roi.height if roi else row.height for row in rows)
    factor = min(
        2.0, LARGEST_PX / max(contract.width, contract.height), width / contract.width, height / contract.height
    )
    if factor < LEAST_FACTOR:
        return None
    # Multiples of 32 px: every backbone halves its maps five times.
    sides = [int(side * factor // 32 * 32) for side in (contract.width, contract.height)]
    if sides[0] <= contract.width or sides[1] <= contract.height:
        return None
    return dataclasses.replace(contract, width=sides[0], height=sides[1])


def _some(rows: Sequence[ImageRow], seed: int) -> list[ImageRow]:
    """At most `IMAGES` of the rows, as many bad as good ones where there are."""
    generator = np.random.default_rng(seed)
    chosen: list[ImageRow] = []
    bad, good = ([row for row in rows if row.label == label] for label in ("bad", "good"))
    for few, others in ((bad, good), (good, bad)):
        share = max(IMAGES // 2, IMAGES - len(others))
        chosen += [few[index] for index in np.sort(generator.permutation(len(few))[:share])]
    return sorted(chosen, key=lambda row: row.uri)


def _training_set(rows: Sequence[ImageRow], pixels: Any) -> "TrainingSet":
    from inspection.model.examples import TrainingSet

    is_bad = np.array([row.label == "bad" for row in rows])
    return TrainingSet(pixels, is_bad, np.full(len(rows), -1), [row.group for row in rows])


def _read(settings: Settings, snapshot: Snapshot, rows: Sequence[ImageRow], contract: InputContract) -> np.ndarray:
    """Decode images at another size than the cache holds; uint8 [N, H, W, 3].

    Raises:
        DataError: one is no longer there.
    """
    source = open_images(settings, snapshot.location)
    return np.concatenate([prepare_file(read_original(source, row.uri), contract, row.uri).pixels for row in rows])
