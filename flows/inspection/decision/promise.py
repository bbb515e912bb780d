"""What a chosen operating point promises, as data."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from edge.contract import OperatingPoint
from inspection.decision.bounds import Rate
from inspection.settings import OperatingPointSettings

MOVED_RISK = 0.5  # share of the risk of a threshold that may be moved
REFUSED_RISK = 0.05  # of good parts that are rejected unjudged
MOST_REVIEWED = 0.5  # a model that sends more than this to review does not decide on its own
MOVED_FOR = {  # why a limit gave way, in words
    "reviews": "it gave way to the limit on reviews",
    "outlets": "the line has two outlets, so one threshold decides, and the other limit comes first in priority",
    "errors": "the input guard refuses more good parts than that, and on_error rejects them",
}


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
    moved: bool  # more events than the limit allows were found or let happen
    moved_for: Literal["", "reviews", "outlets", "errors"] = ""  # what for: see MOVED_FOR


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
    calibration_rates: dict[str, Rate]  # of the verdicts, measured on the calibration split
    resolved_escape: Rate  # with parts under review treated as review_action says
    resolved_overkill: Rate
    setting_lower: tuple[int, ...]  # indices of the bad images that hold the lower threshold where it is
    setting_upper: tuple[int, ...]  # indices of the good images that hold the upper threshold where it is
    choices: tuple[Choice, ...]
    text: str  # for a quality engineer, in Markdown paragraphs

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return dataclasses.asdict(self)


def limit_that_moves(settings: OperatingPointSettings) -> str:
    """The limit whose threshold may be moved after a look at the scores: "escape", "overkill", or "review" for neither.

    With three outlets it is the last in `priority`; with two, where one threshold serves both limits, the later one of
    escapes and overkill.
    """
    if settings.review_action == "review":
        return settings.priority[-1]
    return [limit for limit in settings.priority if limit != "review"][-1]


def share_late_risk(settings: OperatingPointSettings) -> tuple[float, float]:
    """Shares of the risk, for escapes and overkill, that are kept for thresholds which follow from the scores.

    A threshold that may be moved after a look at the scores keeps half. Good parts that are rejected unjudged may be
    more than the limit allows, which shows only in the scores too, but seldom: overkill keeps a twentieth for it.
    """
    moves = limit_that_moves(settings)
    rejected = REFUSED_RISK if settings.on_error == "reject" else 0.0
    return MOVED_RISK if moves == "escape" else 0.0, MOVED_RISK if moves == "overkill" else rejected


def first_confidences(settings: OperatingPointSettings) -> tuple[float, float]:
    """Confidences of the bounds on escapes and overkill at thresholds that nothing has moved."""
    escape, overkill = (1 - (1 - settings.confidence) * (1 - late) for late in share_late_risk(settings))
    return escape, overkill
