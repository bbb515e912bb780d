"""Evaluate the shipped artifact on the holdout, once: everything the report card and `metrics.json` say."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from edge.contract import Calibration, OperatingPoint
from inspection.decision.bounds import Rate, measure_rate, measure_rates
from inspection.decision.calibration import check_scores, probability
from inspection.decision.cases import Case, list_cases
from inspection.decision.curves import (
    CostCurve,
    Histogram,
    Reliability,
    draw_cost_curve,
    make_histogram,
    measure_reliability,
)
from inspection.decision.promise import OperatingPointReport
from inspection.decision.ranking import Estimate, estimate_ranking
from inspection.decision.robustness import RobustnessRow
from inspection.decision.verdicts import (
    VerdictRates,
    count_verdicts,
    decide_all,
    measure_verdicts,
    predict_per_thousand,
    resolve_all,
    resolve_errors,
)
from inspection.errors import DataError
from inspection.settings import OperatingPointSettings

SCHEMA = "1.1"  # of metrics.json
NO_TYPE = "(no type given)"


@dataclass(frozen=True)
class TypeResult:
    """How one type of defect fares: what the line does (escape, caught), and verdicts (review, error)."""

    name: str
    images: int
    auroc: float  # of this type against all good images
    escape: Rate
    review: Rate
    caught: Rate
    error: Rate


@dataclass(frozen=True)
class LotResult:
    """How one lot fares: what the line does (escape, overkill), and verdicts of both classes (review, error)."""

    name: str
    good: int
    bad: int
    escape: Rate
    overkill: Rate
    review: Rate
    error: Rate


@dataclass(frozen=True)
class Evaluation:
    """All figures of the holdout. `to_json` gives metrics.json.

    Ranking, reliability and histogram are those of all scores, also of pictures that the input guard refuses; rates,
    confusion, costs and predictions are those of the line, where such a picture is an error.
    """

    images: int
    good: int
    bad: int
    groups: int
    auroc: Estimate
    average_precision: Estimate  # at the holdout's share of bad images
    rates: VerdictRates
    resolved: VerdictRates  # what the line does: review and error treated as review_action and on_error say
    review_action: str
    on_error: str
    confusion: dict[str, dict[str, int]]  # label to verdict to images
    per_type: tuple[TypeResult, ...]  # () when no image has a type
    per_lot: tuple[LotResult, ...]  # () when there are fewer than two lots
    reliability: Reliability
    cost: CostCurve
    expected_defect_rate: float
    per_thousand: dict[str, Estimate]  # escapes, false_alarms, reviews, errors at expected_defect_rate
    histogram: Histogram
    mistakes: tuple[Case, ...]  # escapes, farthest from the threshold first, false alarms likewise, good parts refused
    closest_calls: tuple[Case, ...]  # right verdicts, nearest to a threshold first
    robustness: tuple[RobustnessRow, ...] = ()
    robustness_images: int = 0  # of the holdout, on which robustness was measured

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    def to_json(self) -> str:
        """The text of metrics.json; every number is finite."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n"


def evaluate(
    scores: np.ndarray,
    is_bad: np.ndarray,
    groups: Sequence[str],
    types: Sequence[str | None],
    lots: Sequence[str | None],
    uris: Sequence[str],
    point: OperatingPoint,
    calibration: Calibration,
    settings: OperatingPointSettings,
    seed: int = 0,
    refused: np.ndarray | None = None,
) -> Evaluation:
    """Measure everything on the holdout.

    Args:
        scores: float [N], logits of the shipped artifact.
        is_bad: bool [N].
        groups: name of each image's part or lot, length N.
        types: type of defect of each image, None where there is none, length N.
        lots: lot of each image, None or "" where there is none, length N.
        uris: where each image is, length N.
        point: thresholds, chosen on the calibration split, and what follows from a review or an error.
        calibration: score to probability, fitted on the calibration split.
        settings: expected_defect_rate, costs.
        seed: of the bootstrap.
        refused: bool [N], pictures that the input guard refuses; None = none of them.

    Raises:
        DataError: a score is not finite, one class is missing, lengths differ.
    """
    scores = np.asarray(scores, dtype=np.float64)
    is_bad = np.asarray(is_bad, dtype=bool)
    check_scores(scores, is_bad, "holdout")
    for name, column in (("groups", groups), ("types", types), ("lots", lots), ("uris", uris)):
        if len(column) != len(scores):
            raise DataError(f"holdout: want {len(scores)} {name}, one per image, found {len(column)}")
    verdicts = decide_all(scores, point, refused)
    outlets = resolve_all(verdicts, point)
    rates, resolved = measure_verdicts(verdicts, is_bad, groups), measure_verdicts(outlets, is_bad, groups)
    reviewed = measure_verdicts(resolve_errors(verdicts, point), is_bad, groups)
    auroc, average_precision = estimate_ranking(scores, is_bad, groups, seed)
    probabilities = probability(scores, calibration)
    mistakes, closest_calls = list_cases(scores, is_bad, types, uris, probabilities, verdicts, outlets, point)
    return Evaluation(
        images=len(scores),
        good=int(np.count_nonzero(~is_bad)),
        bad=int(np.count_nonzero(is_bad)),
        groups=len(set(groups)),
        auroc=auroc,
        average_precision=average_precision,
        rates=rates,
        resolved=resolved,
        review_action=point.review_action,
        on_error=point.on_error,
        confusion=count_verdicts(verdicts, is_bad),
        per_type=_measure_types(scores, is_bad, groups, types, verdicts, outlets),
        per_lot=_measure_lots(is_bad, groups, lots, verdicts, outlets),
        reliability=measure_reliability(probabilities, is_bad, groups),
        cost=draw_cost_curve(scores, is_bad, outlets, settings),
        expected_defect_rate=settings.expected_defect_rate,
        per_thousand=predict_per_thousand(resolved, reviewed, rates, settings.expected_defect_rate),
        histogram=make_histogram(scores, is_bad),
        mistakes=mistakes,
        closest_calls=closest_calls,
    )


def contradicts_promise(evaluation: Evaluation, report: OperatingPointReport) -> bool:
    """Whether the holdout shows, beyond chance, that the line does worse than promised; both are rates per group."""
    done = evaluation.resolved
    return done.escape.low > report.escape.rate or done.overkill.low > report.overkill.rate


def _measure_types(
    scores: np.ndarray,
    is_bad: np.ndarray,
    groups: Sequence[str],
    types: Sequence[str | None],
    verdicts: np.ndarray,
    outlets: np.ndarray,
) -> tuple[TypeResult, ...]:
    names = np.array([name or NO_TYPE for name in types])
    present = sorted(set(names[is_bad].tolist()))
    if present == [NO_TYPE]:
        return ()
    results = []
    for name in present:
        chosen = is_bad & (names == name)
        done, said = outlets[chosen], verdicts[chosen]
        escape, caught, review, error = measure_rates(
            [done == "pass", done == "fail", said == "review", said == "error"],
            np.asarray(groups, dtype=str)[chosen].tolist(),
        )
        against_good = chosen | ~is_bad
        results.append(
            TypeResult(
                name=name,
                images=int(np.count_nonzero(chosen)),
                auroc=float(roc_auc_score(is_bad[against_good], scores[against_good])),
                escape=escape,
                review=review,
                caught=caught,
                error=error,
            )
        )
    return tuple(results)


def _measure_lots(
    is_bad: np.ndarray,
    groups: Sequence[str],
    lots: Sequence[str | None],
    verdicts: np.ndarray,
    outlets: np.ndarray,
) -> tuple[LotResult, ...]:
    names = np.array([name or "" for name in lots])
    present = sorted(set(names.tolist()) - {""})
    if len(present) < 2:
        return ()
    results = []
    for name in present:
        chosen = names == name
        members = np.asarray(groups, dtype=str)[chosen].tolist()
        done = measure_verdicts(outlets[chosen], is_bad[chosen], members)
        results.append(
            LotResult(
                name=name,
                good=int(np.count_nonzero(chosen & ~is_bad)),
                bad=int(np.count_nonzero(chosen & is_bad)),
                escape=done.escape,
                overkill=done.overkill,
                review=measure_rate(verdicts[chosen] == "review", members),
                error=measure_rate(verdicts[chosen] == "error", members),
            )
        )
    return tuple(results)
