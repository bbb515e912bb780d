"""Where the two thresholds go when the limits that they come from cannot all be kept.

A line that sends parts under review to one of its two outlets decides by one threshold: what lies up to the upper one
passes when review means pass, and only what lies below the lower one when review means fail. Both limits then ask for
the same threshold, and the one that comes first in `priority` gets it.
"""

from inspection.decision.promise import limit_that_moves
from inspection.decision.thresholds import (
    SLACK,
    ScoreTable,
    Thresholds,
    narrow_from_above,
    narrow_from_below,
    without_crossing,
)
from inspection.settings import OperatingPointSettings


def combine(table: ScoreTable, lower: float, upper: float, settings: OperatingPointSettings) -> Thresholds:
    """The thresholds that keep the limits on escapes and overkill, or the more important one of them.

    Args:
        table: of the calibration split.
        lower: the largest threshold below which the limit on escapes is kept.
        upper: the smallest threshold above which the limit on overkill is kept.
        settings: review_action, priority.
    """
    moves = limit_that_moves(settings)
    if lower <= upper and settings.review_action == "pass" and moves == "overkill":
        point = table.cut_below(lower)
        return Thresholds(point, point)
    if lower <= upper and settings.review_action == "fail" and moves == "escape":
        point = table.cut_above(upper)
        return Thresholds(point, point)
    return without_crossing(table, lower, upper)


def keep_review_limit(table: ScoreTable, thresholds: Thresholds, settings: OperatingPointSettings) -> Thresholds:
    """Let the limit that comes last in `priority` give way when too many parts would go to review.

    On a line with two outlets the threshold that does not decide is moved, which changes nothing but names of verdicts.
    """
    defect_rate, limit = settings.expected_defect_rate, settings.max_review_rate
    if table.review_rate(thresholds, defect_rate) <= limit + SLACK:
        return thresholds
    narrow = {
        "pass": narrow_from_below,
        "fail": narrow_from_above,
        "review": {"overkill": narrow_from_above, "escape": narrow_from_below}.get(settings.priority[-1]),
    }[settings.review_action]
    return thresholds if narrow is None else narrow(table, thresholds, defect_rate, limit)


def events_of(table: ScoreTable, thresholds: Thresholds, settings: OperatingPointSettings) -> tuple[float, float]:
    """Shares of bad groups that the line passes, and of good groups that it rejects."""
    if settings.review_action == "pass":
        return table.shares_passed(thresholds.upper, inclusive=True), table.shares_failed(thresholds.upper)
    if settings.review_action == "fail":
        return table.shares_passed(thresholds.lower), table.shares_failed(thresholds.lower, inclusive=True)
    return table.shares_passed(thresholds.lower), table.shares_failed(thresholds.upper)
