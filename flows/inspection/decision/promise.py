"""What a chosen operating point promises, as data."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from edge.contract import OperatingPoint
from inspection.decision.bounds import Rate

MOST_REVIEWED = 0.5  # a model that sends more than this to review does not decide on its own


@dataclass(frozen=True)
class Promise:
    """What can be promised of one rate."""

    limit: float  # asked for in the settings
    rate: float  # promised: the true rate is at most this, at `confidence`
    confidence: float
    kept: bool  # rate <= limit
    groups: int  # independent groups of this class in the calibration split
    groups_needed: int  # for the limit, when none of them shows the event
    groups_missing: int
    events: float  # shares of groups that show the event at the chosen point
    expected_rate: float  # conformal: the expected true rate is at most this
    one_image_each: bool  # every group holds a single image of this class
    moved: bool  # the threshold was moved past the limit to keep max_review_rate


@dataclass(frozen=True)
class GaveWay:
    """A limit of the settings that is not kept."""

    limit: Literal["escape", "overkill", "review"]
    asked: float
    got: float
    why: str


@dataclass(frozen=True)
class Choice:
    """Another lower threshold, to show what a different limit on escapes would cost.

    An indication: the promise covers the rule that was fixed before the scores were seen, not a pick from this list.
    """

    escapes: int  # shares of bad groups let through
    escape_bound: float  # upper bound on the escape rate, at the confidence of the settings
    lower: float
    upper: float
    review_rate: float  # of all parts, at expected_defect_rate


@dataclass(frozen=True)
class OperatingPointReport:
    """The operating point, what it promises, and why it is where it is."""

    point: OperatingPoint
    escape: Promise
    overkill: Promise
    review_rate: float  # of all parts, at expected_defect_rate, measured on the calibration split
    max_review_rate: float
    expected_defect_rate: float
    autonomous: bool
    has_band: bool  # False: one point, every part passes or fails
    gave_way: tuple[GaveWay, ...]
    calibration_rates: dict[str, Rate]  # escape, overkill, review_good, review_bad: measured on the calibration split
    resolved_escape: Rate  # with parts under review treated as review_action says
    resolved_overkill: Rate
    setting_lower: tuple[int, ...]  # indices of the bad images that hold the lower threshold where it is
    setting_upper: tuple[int, ...]  # indices of the good images that hold the upper threshold where it is
    choices: tuple[Choice, ...]
    text: str  # for a quality engineer, in Markdown paragraphs

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return dataclasses.asdict(self)
