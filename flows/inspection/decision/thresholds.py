"""Thresholds from scores: how many group shares pass below, or fail above, each score that occurs.

Everything works on the distinct scores ("levels"): an int8 model has about 256, so ties are the rule. A verdict is
pass if score < lower, fail if score > upper, else review; a part at a threshold is reviewed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inspection.decision.bounds import SLACK as SLACK
from inspection.decision.bounds import group_weights


@dataclass(frozen=True)
class Thresholds:
    """A pair of thresholds, lower <= upper; equal thresholds between two levels leave nothing to review."""

    lower: float
    upper: float


@dataclass(frozen=True)
class ScoreTable:
    """Both classes of the calibration split, tabulated by level.

    Arrays have one entry per level, ascending. Shares sum to the number of groups of the class: an image weighs 1
    over the images that its group has in this class, so that every group counts once. A picture that the input guard
    refuses has no level: it is rejected or reviewed wherever the thresholds lie.
    """

    levels: np.ndarray  # float64 [L]
    bad_images: np.ndarray  # int64 [L]
    good_images: np.ndarray  # int64 [L]
    bad_passed: np.ndarray  # float64 [L], shares of bad groups with a score below the level
    good_failed: np.ndarray  # float64 [L], shares of good groups with a score above the level, or rejected unjudged
    bad_refused: int  # images
    good_refused: int
    refused_are_reviewed: bool  # else they are rejected
    bad_judged: float  # shares of bad groups that have a level
    good_judged: float
    good_rejected: float  # shares of good groups that are rejected unjudged
    bad_groups: int
    good_groups: int
    bad_one_each: bool  # every bad group has a single bad image
    good_one_each: bool

    def lower_for(self, events: int) -> float:
        """The largest threshold below which at most `events` shares of bad groups lie."""
        return float(self.levels[np.flatnonzero(self.bad_passed <= events + SLACK)[-1]])

    def upper_for(self, events: int) -> float:
        """The smallest threshold above which at most `events` shares of good groups fail.

        Where more than that are rejected unjudged: above which no good image lies that has a level.
        """
        return float(self.levels[np.flatnonzero(self.good_failed <= max(events, self.good_rejected) + SLACK)[0]])

    def shares_passed(self, threshold: float, inclusive: bool = False) -> float:
        """Shares of bad groups below this threshold, or at it too."""
        index = int(np.searchsorted(self.levels, threshold, side="right" if inclusive else "left"))
        return float(self.bad_passed[index]) if index < len(self.levels) else self.bad_judged

    def shares_failed(self, threshold: float, inclusive: bool = False) -> float:
        """Shares of good groups above this threshold, or at it too, and of those that are rejected unjudged."""
        index = int(np.searchsorted(self.levels, threshold, side="left" if inclusive else "right")) - 1
        return float(self.good_failed[index]) if index >= 0 else self.good_judged + self.good_rejected

    def parts_at(self, defect_rate: float) -> np.ndarray:
        """Share of all parts that score at each level when `defect_rate` of them are bad; float64 [L]."""
        bad = self.bad_images / (self.bad_images.sum() + self.bad_refused)
        good = self.good_images / (self.good_images.sum() + self.good_refused)
        return np.asarray(defect_rate * bad + (1 - defect_rate) * good)

    def reviewed_unjudged(self, defect_rate: float) -> float:
        """Share of all parts that go to review wherever the thresholds lie."""
        return max(0.0, 1 - float(self.parts_at(defect_rate).sum())) if self.refused_are_reviewed else 0.0

    def review_rate(self, thresholds: Thresholds, defect_rate: float) -> float:
        """Share of all parts that go to review when `defect_rate` of them are bad."""
        inside = (self.levels >= thresholds.lower) & (self.levels <= thresholds.upper)
        return float(self.parts_at(defect_rate)[inside].sum()) + self.reviewed_unjudged(defect_rate)

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


def tabulate_scores(
    scores: np.ndarray,
    is_bad: np.ndarray,
    groups: Sequence[str],
    refused: np.ndarray | None = None,
    refused_are_reviewed: bool = False,
) -> ScoreTable:
    """Tabulate both classes by level.

    Args:
        scores: float64 [N], finite.
        is_bad: bool [N], both classes present.
        groups: name of each image's group, length N; a group may hold images of both classes.
        refused: bool [N], pictures that the input guard refuses; None = none of them.
        refused_are_reviewed: whether such a part goes to review; else it is rejected.
    """
    judged = np.ones(len(scores), dtype=bool) if refused is None else ~refused
    names = np.asarray(groups, dtype=str)
    weights = np.empty(len(scores))
    weights[is_bad], bad_groups = group_weights(names[is_bad])
    weights[~is_bad], good_groups = group_weights(names[~is_bad])
    bad, good = is_bad & judged, ~is_bad & judged
    levels = np.unique(scores[judged])
    level_of = np.searchsorted(levels, scores)
    size = len(levels)
    bad_shares = np.bincount(level_of[bad], weights=weights[bad], minlength=size)
    good_shares = np.bincount(level_of[good], weights=weights[good], minlength=size)
    good_rejected = 0.0 if refused_are_reviewed else float(weights[~is_bad & ~judged].sum())
    return ScoreTable(
        levels=levels,
        bad_images=np.bincount(level_of[bad], minlength=size),
        good_images=np.bincount(level_of[good], minlength=size),
        bad_passed=np.concatenate(([0.0], np.cumsum(bad_shares)[:-1])),
        good_failed=np.concatenate((np.cumsum(good_shares[::-1])[::-1][1:], [0.0])) + good_rejected,
        bad_refused=int(np.count_nonzero(is_bad & ~judged)),
        good_refused=int(np.count_nonzero(~is_bad & ~judged)),
        refused_are_reviewed=refused_are_reviewed,
        bad_judged=float(bad_shares.sum()),
        good_judged=float(good_shares.sum()),
        good_rejected=good_rejected,
        bad_groups=bad_groups,
        good_groups=good_groups,
        bad_one_each=bad_groups == int(np.count_nonzero(is_bad)),
        good_one_each=good_groups == int(np.count_nonzero(~is_bad)),
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
    reviewed += table.reviewed_unjudged(defect_rate)
    kept = np.flatnonzero(reviewed <= limit + SLACK)
    if len(kept):
        return Thresholds(thresholds.lower, float(table.levels[inside][kept[-1]]))
    point = table.cut_below(thresholds.lower)
    return Thresholds(point, point)


def narrow_from_below(table: ScoreTable, thresholds: Thresholds, defect_rate: float, limit: float) -> Thresholds:
    """Raise the lower threshold, as little as needed, until at most `limit` of the parts go to review."""
    inside = (table.levels >= thresholds.lower) & (table.levels <= thresholds.upper)
    reviewed = np.cumsum(table.parts_at(defect_rate)[inside][::-1])[::-1]  # with the lower threshold at each level
    reviewed = reviewed + table.reviewed_unjudged(defect_rate)
    kept = np.flatnonzero(reviewed <= limit + SLACK)
    if len(kept):
        return Thresholds(float(table.levels[inside][kept[0]]), thresholds.upper)
    point = table.cut_above(thresholds.upper)
    return Thresholds(point, point)
