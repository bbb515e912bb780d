"""Choose the two thresholds on the scores of the calibration split, and say what can be promised of them.

The promise: over draws of the calibration split, the true escape rate (bad parts that the line passes, every group
counting once) exceeds the promised rate in at most 1 - confidence of them; the overkill rate (good parts that it
rejects) likewise. What the line does with a review or an error is part of it. It covers what the calibration split
held: not kinds of defect that it never saw.

How limits that cannot all be kept give way is in `docs/decisions/0006-operating-point.md`.
"""

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from edge.contract import OperatingPoint
from inspection.decision.bounds import events_allowed, group_upper_bound, groups_needed
from inspection.decision.calibration import check_scores
from inspection.decision.explanation import explain
from inspection.decision.placement import combine, events_of, keep_review_limit
from inspection.decision.promise import (
    MOST_REVIEWED,
    MOVED_FOR,
    Choice,
    GaveWay,
    Promise,
    first_confidences,
    share_late_risk,
)
from inspection.decision.promise import OperatingPointReport as OperatingPointReport
from inspection.decision.rounding import percent
from inspection.decision.thresholds import (
    SLACK,
    ScoreTable,
    Thresholds,
    tabulate_scores,
)
from inspection.decision.verdicts import decide_all, measure_verdicts, resolve_all
from inspection.errors import DataError
from inspection.settings import OperatingPointSettings

log = logging.getLogger(__name__)

CHOICES_SHOWN = 6
HOLDING_KEPT = 8  # images named as holding a threshold; ties can be many


def choose_operating_point(
    scores: np.ndarray,
    is_bad: np.ndarray,
    groups: Sequence[str],
    settings: OperatingPointSettings,
    refused: np.ndarray | None = None,
) -> OperatingPointReport:
    """Choose the thresholds and say what can be promised of them.

    Args:
        scores: float [N], logits that the shipped artifact gave the calibration split.
        is_bad: bool [N].
        groups: name of each image's part or lot, length N; groups are independent, images of one group are not.
        settings: the limits, the confidence, which limit gives way first, and what follows from a review or an error.
        refused: bool [N], pictures that the input guard refuses whatever their score; None = none of them.

    Raises:
        DataError: a score is not finite, one class is missing or all of it refused, lengths differ.

    Source: Clopper and Pearson (1934); fixed-sequence testing over thresholds as in Bauer (1991) and Angelopoulos et
        al. (2021), "Learn then test".
    """
    scores = np.asarray(scores, dtype=np.float64)
    is_bad = np.asarray(is_bad, dtype=bool)
    check_scores(scores, is_bad, "calibration split")
    if len(groups) != len(scores):
        raise DataError(f"calibration split: want one group per image, found {len(groups)} for {len(scores)} images")
    refused = np.zeros(len(scores), dtype=bool) if refused is None else np.asarray(refused, dtype=bool)
    if refused.any():
        what = f"calibration split without the {np.count_nonzero(refused)} images that the input guard refuses"
        check_scores(scores[~refused], is_bad[~refused], what)
    table = tabulate_scores(scores, is_bad, groups, refused, settings.on_error == "review")
    escape_late, overkill_late = share_late_risk(settings)
    escape_confidence, overkill_confidence = first_confidences(settings)
    escapes = max(0, events_allowed(table.bad_groups, settings.max_escape_rate, escape_confidence, table.bad_one_each))
    overkills = max(
        0, events_allowed(table.good_groups, settings.max_overkill_rate, overkill_confidence, table.good_one_each)
    )
    first = combine(table, table.lower_for(escapes), table.upper_for(overkills), settings)
    chosen = keep_review_limit(table, first, settings)
    passed, failed = events_of(table, chosen, settings)
    escape = _promise(
        limit=settings.max_escape_rate,
        settings=settings,
        late_share=escape_late,
        allowed=escapes,
        events=passed,
        groups=table.bad_groups,
        one_each=table.bad_one_each,
    )
    overkill = _promise(
        limit=settings.max_overkill_rate,
        settings=settings,
        late_share=overkill_late,
        allowed=overkills,
        refused=table.good_rejected,
        events=failed,
        groups=table.good_groups,
        one_each=table.good_one_each,
    )
    review_rate = table.review_rate(chosen, settings.expected_defect_rate)
    point = _name_point(chosen, settings, autonomous=review_rate <= MOST_REVIEWED)
    verdicts = decide_all(scores, point, refused)
    rates = measure_verdicts(verdicts, is_bad, groups)
    resolved = measure_verdicts(resolve_all(verdicts, point), is_bad, groups)
    report = OperatingPointReport(
        point=point,
        escape=escape,
        overkill=overkill,
        review_rate=review_rate,
        max_review_rate=settings.max_review_rate,
        expected_defect_rate=settings.expected_defect_rate,
        autonomous=point.autonomous,
        has_band=chosen.lower < chosen.upper or bool(np.any(table.levels == chosen.lower)),
        gave_way=_list_what_gave_way(escape, overkill, review_rate, settings),
        calibration_rates={
            "escape": rates.escape,
            "overkill": rates.overkill,
            "review_good": rates.review_good,
            "review_bad": rates.review_bad,
            "error_good": rates.error_good,
            "error_bad": rates.error_bad,
        },
        resolved_escape=resolved.escape,
        resolved_overkill=resolved.overkill,
        setting_lower=tuple(np.flatnonzero(is_bad & ~refused & (scores == chosen.lower))[:HOLDING_KEPT].tolist()),
        setting_upper=tuple(np.flatnonzero(~is_bad & ~refused & (scores == chosen.upper))[:HOLDING_KEPT].tolist()),
        choices=_list_choices(table, overkills, escape_confidence, settings),
        text="",
    )
    report = dataclasses.replace(report, text=explain(report))
    log.info(
        "operating_point lower=%.4f upper=%.4f promised_escape=%.4f promised_overkill=%.4f review=%.4f autonomous=%s",
        chosen.lower,
        chosen.upper,
        escape.rate,
        overkill.rate,
        review_rate,
        report.autonomous,
    )
    if not report.autonomous:
        log.warning(
            "operating_point autonomous=False review=%.4f: this model would send more than half of the parts to "
            "review; see the report card for the images that hold the thresholds",
            review_rate,
        )
    return report


def _promise(
    *,
    limit: float,
    settings: OperatingPointSettings,
    late_share: float,
    allowed: int,
    events: float,
    groups: int,
    one_each: bool,
    refused: float = 0.0,
) -> Promise:
    """The bound that holds at the chosen threshold.

    `allowed` was fixed before the scores were seen, so its bound holds as it is. A threshold that was moved beyond
    it, to j more events, was picked by looking: `late_share` of the risk is spread over all j as 1 / (j (j + 1)),
    so that the bounds hold for all of them at once.
    """
    gives_way_to: Literal["reviews", "outlets"] = "reviews" if settings.review_action == "review" else "outlets"
    risk = 1 - settings.confidence
    confidence = 1 - risk * (1 - late_share)
    moved = max(0, math.ceil(events - SLACK) - allowed)
    needed = groups_needed(limit, confidence)
    if moved:
        confidence = 1 - risk * late_share / (moved * (moved + 1))
    rate = group_upper_bound(allowed + moved, groups, confidence, one_each)
    return Promise(
        limit=limit,
        rate=rate,
        confidence=settings.confidence,
        kept=rate <= limit,
        groups=groups,
        groups_needed=needed,
        groups_missing=max(0, needed - groups),
        events=events,
        expected_rate=min(1.0, (allowed + moved + 1) / (groups + 1)),
        one_image_each=one_each,
        moved=moved > 0,
        moved_for="" if not moved else "errors" if refused > allowed + SLACK else gives_way_to,
    )


def _name_point(thresholds: Thresholds, settings: OperatingPointSettings, autonomous: bool) -> OperatingPoint:
    """The contract's operating point; its id is a digest, so that an id never means two points."""
    fields = {
        "lower": thresholds.lower,
        "upper": thresholds.upper,
        "review_action": settings.review_action,
        "on_error": settings.on_error,
        "autonomous": autonomous,
    }
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    return OperatingPoint(
        id=f"op-{digest[:12]}",
        lower=thresholds.lower,
        upper=thresholds.upper,
        review_action=settings.review_action,
        on_error=settings.on_error,
        autonomous=autonomous,
    )


def _list_what_gave_way(
    escape: Promise, overkill: Promise, review_rate: float, settings: OperatingPointSettings
) -> tuple[GaveWay, ...]:
    """Limits that are not kept, in the order of `priority`."""
    lost: dict[str, GaveWay] = {}
    kinds: tuple[tuple[Literal["escape", "overkill"], Promise, str], ...] = (
        ("escape", escape, "bad"),
        ("overkill", overkill, "good"),
    )
    for name, promise, label in kinds:
        if promise.kept:
            continue
        if promise.moved_for in ("errors", "outlets"):
            why = MOVED_FOR[promise.moved_for]
        elif promise.moved:
            why = f"it comes last in priority, and more than {percent(settings.max_review_rate)} would go to review"
        else:
            unit = f"{label} parts" if promise.one_image_each else f"independent {label} groups"
            why = (
                f"{promise.groups} {unit} cannot prove {percent(promise.limit)}; "
                f"{promise.groups_needed} without a mistake can, {promise.groups_missing} are missing"
            )
        lost[name] = GaveWay(name, promise.limit, promise.rate, why)
    if review_rate > settings.max_review_rate + SLACK:
        why = "it comes last in priority, and the scores of good and bad parts overlap too much"
        lost["review"] = GaveWay("review", settings.max_review_rate, review_rate, why)
    return tuple(lost[name] for name in settings.priority if name in lost)


def _list_choices(
    table: ScoreTable, overkills: int, confidence: float, settings: OperatingPointSettings
) -> tuple[Choice, ...]:
    """What 0, 1, 2, … escapes on the calibration split would mean."""
    allowed = np.unique(np.ceil(table.bad_passed[table.bad_images > 0] - SLACK)).astype(int)  # that move the threshold
    choices: list[Choice] = []
    for escapes in allowed[:CHOICES_SHOWN].tolist():
        thresholds = combine(table, table.lower_for(escapes), table.upper_for(overkills), settings)
        choices.append(
            Choice(
                escapes=escapes,
                escape_bound=group_upper_bound(escapes, table.bad_groups, confidence, table.bad_one_each),
                lower=thresholds.lower,
                upper=thresholds.upper,
                review_rate=table.review_rate(thresholds, settings.expected_defect_rate),
            )
        )
        if choices[-1].review_rate == 0:
            break  # without review, letting more bad parts through gains nothing
    return tuple(choices)
