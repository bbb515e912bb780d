"""Thresholds from scores: how many group shares pass below, or fail above, each score that occurs.

Everything works on the distinct scores ("levels"): an int8 model has about 256, so ties are the rule. A verdict is
pass if score < lower, fail if score > upper, else review; a part at a threshold is reviewed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inspection.decision.bounds import group_weights

SLACK = 1e-9  # of sums of shares such as 3 * (1 / 3)


@dataclass(frozen=True)
class Thresholds:
    """A pair of thresholds, lower <= upper; equal thresholds between two levels leave nothing to review."""

    lower: float
    upper: float


@dataclass(frozen=True)
class ScoreTable:
    """Both classes of the calibration split, tabulated by level.

    Arrays have one entry per level, ascending. Shares sum to the number of groups of the class: an image weighs 1
    over the images that its group has in this class, so that every group counts once.
    """

    levels: np.ndarray  # float64 [L]
    bad_images: np.ndarray  # int64 [L]
    good_images: np.ndarray  # int64 [L]
    bad_passed: np.ndarray  # float64 [L], shares of bad groups with a score below the level
    good_failed: np.ndarray  # float64 [L], shares of good groups with a score above the level
    bad_groups: int
    good_groups: int
    bad_one_each: bool  # every bad group has a single bad image
    good_one_each: bool

    def lower_for(self, events: int) -> float:
        """The largest threshold below which at most `events` shares of bad groups lie."""
        return float(self.levels[np.flatnonzero(self.bad_passed <= events + SLACK)[-1]])

    def upper_for(self, events: int) -> float:
        """The smallest threshold above which at most `events` shares of good groups lie."""
        return float(self.levels[np.flatnonzero(self.good_failed <= events + SLACK)[0]])

    def shares_passed(self, lower: float) -> float:
        """Shares of bad groups that pass under this lower threshold."""
        index = int(np.searchsorted(self.levels, lower, side="left"))
        return float(self.bad_passed[index]) if index < len(self.levels) else float(self.bad_groups)

    def shares_failed(self, upper: float) -> float:
        """Shares of good groups that fail above this upper threshold."""
        index = int(np.searchsorted(self.levels, upper, side="right")) - 1
        return float(self.good_failed[index]) if index >= 0 else float(self.good_groups)

    def parts_at(self, defect_rate: float) -> np.ndarray:
        """Share of all parts that score at each level when `defect_rate` of them are bad; float64 [L]."""
        bad, good = self.bad_images / self.bad_images.sum(), self.good_images / self.good_images.sum()
        return np.asarray(defect_rate * bad + (1 - defect_rate) * good)

    def review_rate(self, thresholds: Thresholds, defect_rate: float) -> float:
        """Share of all parts that go to review when `defect_rate` of them are bad."""
        inside = (self.levels >= thresholds.lower) & (self.levels <= thresholds.upper)
        return float(self.parts_at(defect_rate)[inside].sum())

    def cut_between(self, low: float, high: float) -> float:
        """A point in (low, high) that is no level, in the middle or as near to it as the levels allow."""
        inside = self.levels[(self.levels > low) & (self.levels < high)]
        edges = np.concatenate(([low], inside, [high]))
        middles = (edges[:-1] + edges[1:]) / 2
        return float(middles[np.argmin(np.abs(middles - (low + high) / 2))])

    def cut_below(self, level: float) -> float:
        """A point just below a level, with no other level in between."""
        index = int(np.searchsorted(self.levels, level, side="left"))
        return self.cut_between(float(self.levels[index - 1]), level) if index > 0 else level - 1.0

    def cut_above(self, level: float) -> float:
        """A point just above a level, with no other level in between."""
        index = int(np.searchsorted(self.levels, level, side="right"))
        return self.cut_between(level, float(self.levels[index])) if index < len(self.levels) else level + 1.0


def tabulate_scores(scores: np.ndarray, is_bad: np.ndarray, groups: Sequence[str]) -> ScoreTable:
    """Tabulate both classes by level.

    Args:
        scores: float64 [N], finite.
        is_bad: bool [N], both classes present.
        groups: name of each image's group, length N; a group may hold images of both classes.
    """
    levels, level_of = np.unique(scores, return_inverse=True)
    names = np.asarray(groups, dtype=str)
    bad_weights, bad_groups = group_weights(names[is_bad])
    good_weights, good_groups = group_weights(names[~is_bad])
    size = len(levels)
    bad_shares = np.bincount(level_of[is_bad], weights=bad_weights, minlength=size)
    good_shares = np.bincount(level_of[~is_bad], weights=good_weights, minlength=size)
    return ScoreTable(
        levels=levels,
        bad_images=np.bincount(level_of[is_bad], minlength=size),
        good_images=np.bincount(level_of[~is_bad], minlength=size),
        bad_passed=np.concatenate(([0.0], np.cumsum(bad_shares)[:-1])),
        good_failed=np.concatenate((np.cumsum(good_shares[::-1])[::-1][1:], [0.0])),
        bad_groups=bad_groups,
        good_groups=good_groups,
        bad_one_each=bad_groups == len(bad_weights),
        good_one_each=good_groups == len(good_weights),
    )


def without_crossing(table: ScoreTable, lower: float, upper: float) -> Thresholds:
    """One point between the thresholds when they cross: both promises hold there, and nothing is reviewed."""
    if lower <= upper:
        return Thresholds(lower, upper)
    point = table.cut_between(upper, lower)
    return Thresholds(point, point)


def narrow_from_above(table: ScoreTable, thresholds: Thresholds, defect_rate: float, limit: float) -> Thresholds:
    """Lower the upper threshold, as little as needed, until at most `limit` of the parts go to review."""
    inside = (table.levels >= thresholds.lower) & (table.levels <= thresholds.upper)
    reviewed = np.cumsum(table.parts_at(defect_rate)[inside])  # with the upper threshold at each level
    kept = np.flatnonzero(reviewed <= limit + SLACK)
    if len(kept):
        return Thresholds(thresholds.lower, float(table.levels[inside][kept[-1]]))
    point = table.cut_below(thresholds.lower)
    return Thresholds(point, point)


def narrow_from_below(table: ScoreTable, thresholds: Thresholds, defect_rate: float, limit: float) -> Thresholds:
    """Raise the lower threshold, as little as needed, until at most `limit` of the parts go to review."""
    inside = (table.levels >= thresholds.lower) & (table.levels <= thresholds.upper)
    reviewed = np.cumsum(table.parts_at(defect_rate)[inside][::-1])[::-1]  # with the lower threshold at each level
    kept = np.flatnonzero(reviewed <= limit + SLACK)
    if len(kept):
        return Thresholds(float(table.levels[inside][kept[0]]), thresholds.upper)
    point = table.cut_above(thresholds.upper)
    return Thresholds(point, point)
