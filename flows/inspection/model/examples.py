"""What a classifier learns from, and how it is divided into folds."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inspection.errors import TrainingError
from inspection.model.classifier import Pixels

log = logging.getLogger(__name__)

MIN_IMAGES_PER_TYPE = 4  # of a defect type, to be told from the others
MIN_PER_CLASS = 2  # good, and bad, images of a training set
MIN_TO_FINETUNE = 2 * MIN_PER_CLASS  # of each class: some to learn from, as many to say when to stop


class Rows:
    """Some of the images of a larger source, read only when asked for."""

    def __init__(self, source: Pixels, rows: np.ndarray) -> None:
        self._source = source
        self._rows = rows
        self.shape = (len(rows), *source.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return self._source[self._rows[indices]]


@dataclass(frozen=True)
class TrainingSet:
    """Images with their labels."""

    pixels: Pixels  # uint8 [N, H, W, 3]: an array, a memory map or anything that reads by index
    is_bad: np.ndarray  # bool [N]
    types: np.ndarray  # int64 [N], index into defect_types, -1 = none
    groups: Sequence[str]  # [N], part or lot: images of one group never lie on both sides of a fold
    defect_types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = {len(self.pixels), len(self.is_bad), len(self.types), len(self.groups)}
        if len(counts) != 1 or len(self.pixels.shape) != 4 or self.pixels.shape[3] != 3:
            raise TrainingError(
                "training set: want pixels [N, H, W, 3] and N labels, types and groups, found pixels "
                f"{tuple(self.pixels.shape)}, {len(self.is_bad)} labels, {len(self.types)} types, "
                f"{len(self.groups)} groups"
            )
        bad = int(np.sum(self.is_bad))
        if not _enough(np.asarray(self.is_bad, dtype=bool)):
            raise TrainingError(
                f"training set: want at least {MIN_PER_CLASS} good and {MIN_PER_CLASS} bad images, found "
                f"{len(self.is_bad) - bad} good and {bad} bad; add images of the rarer class, or lower [data] "
                "calibration_fraction and holdout_fraction"
            )

    def __len__(self) -> int:
        return len(self.is_bad)

    def select(self, rows: np.ndarray) -> "TrainingSet":
        """The images of these indices; pixels are still read from the same source."""
        rows = np.asarray(rows, dtype=np.int64)
        return TrainingSet(
            Rows(self.pixels, rows),
            self.is_bad[rows],
            self.types[rows],
            [self.groups[row] for row in rows],
            self.defect_types,
        )


def learnable_types(training_set: TrainingSet) -> tuple[str, ...]:
    """The defect types with enough images; () when there are not at least two of them."""
    counts = np.bincount(training_set.types[training_set.types >= 0], minlength=len(training_set.defect_types))
    names = tuple(
        name for name, count in zip(training_set.defect_types, counts, strict=True) if count >= MIN_IMAGES_PER_TYPE
    )
    return names if len(names) >= 2 else ()


def thin_out(training_set: TrainingSet, limit: int, seed: int) -> TrainingSet:
    """A seeded choice of at most `limit` images, in their order; each label and defect type keeps its share.

    Of each as many images stay, while there are that many, as it takes to learn a defect type: none is lost.
    """
    if len(training_set) <= limit:
        return training_set
    generator = np.random.default_rng(seed)
    kinds = np.where(training_set.is_bad, training_set.types + 1, -1)  # good; bad of no type; each type
    chosen = []
    for kind in np.unique(kinds):
        members = generator.permutation(np.flatnonzero(kinds == kind))
        chosen.append(members[: max(MIN_IMAGES_PER_TYPE, len(members) * limit // len(training_set))])
    return training_set.select(np.sort(np.concatenate(chosen)))


def folds_of(training_set: TrainingSet, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Divide by groups, stratified by label; the indices (rest, part) of each fold.

    There are fewer folds when a class has fewer groups. When groups cannot be kept together with both classes in
    every rest, each image counts as a group of its own, which is said in the log: scores are then too optimistic.
    """
    is_bad = np.asarray(training_set.is_bad, dtype=bool)
    _, groups = np.unique(np.asarray(training_set.groups, dtype=str), return_inverse=True)
    found = _divide(is_bad, groups, folds, seed)
    if found and all(_both(is_bad[rest]) for rest, _ in found):
        return found
    _warn_groups_ignored()
    return _divide(is_bad, np.arange(len(is_bad)), folds, seed)


def validation_fold(training_set: TrainingSet, folds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One fold, (rest, part), with enough good and bad images on both sides for a training set each.

    A larger part is kept aside when there are few images.
    """
    is_bad = np.asarray(training_set.is_bad, dtype=bool)
    for count in range(folds, 1, -1):
        for rest, part in folds_of(training_set, count, seed):
            if _enough(is_bad[part]) and _enough(is_bad[rest]):
                return rest, part
    _warn_groups_ignored()
    return _divide(is_bad, np.arange(len(is_bad)), 2, seed)[0]


def can_finetune(training_set: TrainingSet, folds: int, seed: int) -> bool:
    """Whether fine-tuning has images enough in every fold of a comparison."""
    found = folds_of(training_set, folds, seed)
    return bool(found) and all(_enough(training_set.is_bad[rest], MIN_TO_FINETUNE) for rest, _ in found)


def _divide(is_bad: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedGroupKFold

    smallest = min(len(np.unique(groups[is_bad])), len(np.unique(groups[~is_bad])))
    if smallest < 2:
        return []
    splitter = StratifiedGroupKFold(n_splits=min(folds, smallest), shuffle=True, random_state=seed)
    return [(rest, part) for rest, part in splitter.split(np.zeros(len(is_bad)), is_bad, groups) if len(part)]


def _enough(is_bad: np.ndarray, least: int = MIN_PER_CLASS) -> bool:
    bad = int(is_bad.sum())
    return min(bad, len(is_bad) - bad) >= least


def _both(is_bad: np.ndarray) -> bool:
    return bool(is_bad.any()) and not bool(is_bad.all())


def _warn_groups_ignored() -> None:
    log.warning(
        "event=groups_ignored reason='too few groups hold good or bad training images' effect='comparisons of recipes "
        "are too optimistic; see [data] group_pattern'"
    )
