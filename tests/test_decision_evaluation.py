import dataclasses
import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from edge.contract import Calibration, OperatingPoint
from edge.verdict import decide
from inspection.decision.evaluation import NO_TYPE, Evaluation, evaluate
from inspection.decision.ranking import RESAMPLES, estimate_ranking
from inspection.decision.verdicts import decide_all
from inspection.errors import DataError
from inspection.settings import OperatingPointSettings

POINT = OperatingPoint(id="op-test", lower=-0.5, upper=0.5)
CALIBRATION = Calibration(temperature=1.0, prevalence=0.4)


def evaluate_simply(scores: np.ndarray, is_bad: np.ndarray, **changes: object) -> Evaluation:
    count = len(scores)
    arguments: dict[str, object] = {
        "groups": [str(index) for index in range(count)],
        "types": [None] * count,
        "lots": [None] * count,
        "uris": [f"{index}.png" for index in range(count)],
        "point": POINT,
        "calibration": CALIBRATION,
        "settings": OperatingPointSettings(),
    }
    return evaluate(scores, is_bad, **{**arguments, **changes})  # type: ignore[arg-type]


def draw(good: int = 120, bad: int = 80, gap: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return (
        np.concatenate([generator.normal(-gap, 1, good), generator.normal(gap, 1, bad)]),
        np.repeat([False, True], [good, bad]),
    )


def test_rates_are_those_of_the_definition() -> None:
    scores = np.array([-1.0, -1.0, 0.0, 1.0, -1.0, 0.0, 1.0, 1.0, 1.0])
    is_bad = np.array([False] * 4 + [True] * 5)
    evaluation = evaluate_simply(scores, is_bad)
    assert evaluation.confusion == {
        "good": {"pass": 2, "review": 1, "fail": 1, "error": 0},
        "bad": {"pass": 1, "review": 1, "fail": 3, "error": 0},
    }
    rates = evaluation.rates
    assert (rates.escape.count, rates.escape.total, rates.escape.rate) == (1, 5, 0.2)
    assert (rates.overkill.count, rates.overkill.total, rates.overkill.rate) == (1, 4, 0.25)
    assert (rates.review_bad.rate, rates.review_good.rate) == (0.2, 0.25)
    assert rates.escape.low < 0.2 < rates.escape.high
    assert rates.caught.count + rates.escape.count + rates.review_bad.count == 5


@pytest.mark.parametrize(("action", "escapes", "overkills"), [("review", 1, 1), ("fail", 1, 2), ("pass", 2, 1)])
def test_resolved_rates_follow_the_review_action(action: str, escapes: int, overkills: int) -> None:
    scores = np.array([-1.0, 0.0, 1.0, -1.0, 0.0, 1.0])
    is_bad = np.array([False] * 3 + [True] * 3)
    resolved = evaluate_simply(scores, is_bad, point=dataclasses.replace(POINT, review_action=action)).resolved
    assert (resolved.escape.count, resolved.overkill.count) == (escapes, overkills)
    assert (resolved.review_bad.count > 0) == (action == "review")


@pytest.mark.parametrize(("action", "overkills", "reviews"), [("reject", 3, 1), ("review", 1, 3)])
def test_a_good_part_that_the_guard_refuses_is_overkill_when_errors_are_rejected(
    action: str, overkills: int, reviews: int
) -> None:
    scores = np.array([-1.0, -1.0, -1.0, 0.0, 1.0, 1.0, -1.0])
    is_bad = np.repeat([False, True], [5, 2])
    refused = np.array([True, True, False, False, False, False, True])
    evaluation = evaluate_simply(
        scores, is_bad, point=dataclasses.replace(POINT, on_error=action, review_action="review"), refused=refused
    )
    assert evaluation.confusion == {
        "good": {"pass": 1, "review": 1, "fail": 1, "error": 2},
        "bad": {"pass": 0, "review": 0, "fail": 1, "error": 1},
    }
    assert (evaluation.rates.error_good.count, evaluation.rates.error_bad.count) == (2, 1)
    assert evaluation.rates.overkill.count == 1
    assert (evaluation.resolved.overkill.count, evaluation.resolved.review_good.count) == (overkills, reviews)
    assert evaluation.resolved.escape.count == 0, "a refused bad part does not pass, whatever its score"
    assert evaluation.per_thousand["errors"].value == pytest.approx(990 * 2 / 5 + 10 / 2)
    assert evaluation.per_thousand["false_alarms"].value == pytest.approx(990 * overkills / 5)


def test_an_error_is_not_passed_by_the_review_action() -> None:
    point = dataclasses.replace(POINT, on_error="review", review_action="pass")
    resolved = evaluate_simply(
        np.array([-1.0, -1.0]), np.array([False, True]), point=point, refused=np.array([False, True])
    ).resolved
    assert (resolved.escape.count, resolved.review_bad.count) == (0, 1)


def test_verdicts_agree_with_the_device() -> None:
    scores = np.array([-0.6, -0.5, 0.0, 0.5, 0.6])
    assert decide_all(scores, POINT).tolist() == [decide(float(score), POINT) for score in scores]


def test_predictions_are_re_weighted_to_the_defect_rate_of_the_line() -> None:
    scores, is_bad = draw()
    evaluation = evaluate_simply(scores, is_bad, settings=OperatingPointSettings(expected_defect_rate=0.02))
    rates, predicted = evaluation.rates, evaluation.per_thousand
    assert predicted["escapes"].value == pytest.approx(20 * rates.escape.rate)
    assert predicted["false_alarms"].value == pytest.approx(980 * rates.overkill.rate)
    assert predicted["reviews"].value == pytest.approx(20 * rates.review_bad.rate + 980 * rates.review_good.rate)
    for estimate in predicted.values():
        assert estimate.low <= estimate.value <= estimate.high


def test_ranking_is_sklearns_and_its_interval_holds_it() -> None:
    scores, is_bad = draw(gap=0.7)
    scores = scores.round(1)  # ties
    groups = [str(index) for index in range(len(scores))]
    auroc, precision = estimate_ranking(scores, is_bad, groups)
    assert auroc.value == pytest.approx(roc_auc_score(is_bad, scores))
    assert precision.value == pytest.approx(average_precision_score(is_bad, scores))
    assert auroc.low < auroc.value < auroc.high
    assert 0.03 < auroc.high - auroc.low < 0.2


def test_perfect_separation_claims_no_more_than_so_many_pairs_without_a_mistake() -> None:
    scores, is_bad = np.repeat([-1.0, 1.0], [60, 50]), np.repeat([False, True], [60, 50])
    auroc, precision = estimate_ranking(scores, is_bad, [str(index) for index in range(110)])
    assert (auroc.value, auroc.high) == (1.0, 1.0)
    assert auroc.low == pytest.approx(0.025 ** (1 / 50))
    assert 0.7 < precision.low < 0.95
    lots, _ = estimate_ranking(scores, is_bad, [str(index // 10) for index in range(110)])
    assert lots.low == pytest.approx(0.025 ** (1 / 5))


def test_one_pair_in_the_wrong_order_is_not_surer_than_none() -> None:
    scores, is_bad = np.linspace(-1, 1, 110), np.repeat([False, True], [60, 50])
    groups = [str(index) for index in range(110)]
    perfect, _ = estimate_ranking(scores, is_bad, groups)
    swapped = scores.copy()
    swapped[[59, 60]] = scores[[60, 59]]
    almost, _ = estimate_ranking(swapped, is_bad, groups)
    assert almost.value < perfect.value
    assert almost.low < perfect.low


@pytest.mark.parametrize("gap", [1.0, 1.8, 2.6])
def test_interval_holds_the_true_auroc_also_where_the_classes_hardly_overlap(gap: float) -> None:
    """Few pictures of a model that is nearly right: the bootstrap alone is sure of 1.000 then."""
    generator = np.random.default_rng(3)
    is_bad, groups = np.repeat([False, True], 30), [str(index) for index in range(60)]
    true, missed, sets = float(stats.norm.cdf(2 * gap / np.sqrt(2))), 0, 150
    for _ in range(sets):
        auroc, _ = estimate_ranking(np.where(is_bad, gap, -gap) + generator.normal(size=60), is_bad, groups)
        missed += not auroc.low <= true <= auroc.high
    assert missed <= stats.binom.ppf(0.999, sets, 0.05)


def test_bootstrap_weights_reproduce_sklearn_on_the_resampled_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each group drawn exactly once must give the plain figures: the fast weighted formula is the right one."""
    scores, is_bad = draw(gap=0.3)
    scores = scores.round(1)
    monkeypatch.setattr(
        "inspection.decision.ranking._draw_groups",
        lambda generator, holds_bad, draws: np.ones((draws, len(holds_bad))),
    )
    auroc, precision = estimate_ranking(scores, is_bad, [str(index) for index in range(len(scores))])
    assert (auroc.low, auroc.high) == pytest.approx((auroc.value, auroc.value))
    assert (precision.low, precision.high) == pytest.approx((precision.value, precision.value))
    assert RESAMPLES >= 1000


def test_bootstrap_is_wider_when_images_come_in_lots() -> None:
    generator = np.random.default_rng(2)
    is_bad = np.repeat([False, True], 100)
    shift = np.repeat(generator.normal(0, 1.5, 20), 10)
    scores = np.where(is_bad, 0.8, -0.8) + shift + 0.2 * generator.normal(size=200)
    apart, _ = estimate_ranking(scores, is_bad, [str(index) for index in range(200)])
    lots, _ = estimate_ranking(scores, is_bad, [str(index // 10) for index in range(200)])
    assert lots.high - lots.low > 1.3 * (apart.high - apart.low)


def test_each_type_of_defect_and_each_lot_has_its_rates() -> None:
    scores = np.array([-1.0, -1.0, 1.0, 1.0, -1.0, 0.0])
    is_bad = np.array([False, False, True, True, True, True])
    evaluation = evaluate_simply(
        scores,
        is_bad,
        types=[None, None, "scratch", "scratch", "dent", None],
        lots=["a", "b", "a", "b", "a", "b"],
    )
    by_name = {result.name: result for result in evaluation.per_type}
    assert set(by_name) == {"scratch", "dent", NO_TYPE}
    assert by_name["scratch"].caught.rate == 1.0
    assert by_name["dent"].escape.rate == 1.0
    assert by_name["scratch"].auroc == 1.0
    assert [(lot.name, lot.good, lot.bad) for lot in evaluation.per_lot] == [("a", 1, 2), ("b", 1, 2)]


@pytest.mark.parametrize(
    ("review_action", "on_error", "escapes", "caught", "overkills"),
    [
        ("review", "reject", 1, 2, 2),
        ("pass", "reject", 2, 2, 2),
        ("review", "review", 1, 1, 1),
        ("fail", "review", 1, 2, 2),
    ],
)
def test_types_and_lots_count_what_the_line_does(
    review_action: str, on_error: str, escapes: int, caught: int, overkills: int
) -> None:
    """One part of either class passes, is reviewed, fails, is refused; reviews and errors stay verdicts."""
    scores = np.array([-1.0, 0.0, 1.0, -1.0] * 4)
    is_bad = np.repeat([False, True], 8)
    evaluation = evaluate_simply(
        scores,
        is_bad,
        types=[None] * 8 + ["dent", "scratch"] * 4,
        lots=["a"] * 4 + ["b"] * 4 + ["a"] * 4 + ["b"] * 4,
        point=dataclasses.replace(POINT, review_action=review_action, on_error=on_error),
        refused=np.array([False, False, False, True] * 4),
    )
    line = evaluation.resolved
    for lot in evaluation.per_lot:
        assert (lot.escape.count, lot.overkill.count) == (escapes, overkills)
        assert (lot.review.count, lot.error.count) == (2, 2)
    assert sum(lot.escape.count for lot in evaluation.per_lot) == line.escape.count
    assert sum(lot.overkill.count for lot in evaluation.per_lot) == line.overkill.count
    assert sum(one.escape.count for one in evaluation.per_type) == line.escape.count == 2 * escapes
    assert sum(one.caught.count for one in evaluation.per_type) == line.caught.count == 2 * caught
    assert sum(one.review.count for one in evaluation.per_type) == evaluation.rates.review_bad.count == 2
    assert sum(one.error.count for one in evaluation.per_type) == evaluation.rates.error_bad.count == 2


def test_no_types_and_a_single_lot_leave_the_tables_out() -> None:
    evaluation = evaluate_simply(*draw())
    assert evaluation.per_type == ()
    assert evaluation.per_lot == ()


def test_mistakes_are_ordered_escapes_first_and_worst_first() -> None:
    scores = np.array([-2.0, 0.7, 3.0, -0.6, -4.0, 2.0])
    is_bad = np.array([False, False, False, True, True, True])
    mistakes = evaluate_simply(scores, is_bad).mistakes
    assert [mistake.index for mistake in mistakes] == [4, 3, 2, 1]
    assert (mistakes[0].uri, mistakes[0].verdict, mistakes[0].label) == ("4.png", "pass", "bad")
    assert mistakes[0].distance == pytest.approx(3.5)


def test_mistakes_are_those_of_the_line() -> None:
    """Bad parts that review lets pass are among them, and good ones whose picture is refused."""
    scores = np.array([-2.0, -2.0, 0.9, 0.2, -0.8, 2.0])
    is_bad = np.array([False, False, False, True, True, True])
    refused = np.array([False, True, False, False, False, False])
    point = dataclasses.replace(POINT, review_action="pass")
    mistakes = evaluate_simply(scores, is_bad, point=point, refused=refused).mistakes
    assert [(case.index, case.verdict) for case in mistakes] == [(4, "pass"), (3, "review"), (2, "fail"), (1, "error")]
    assert mistakes[1].distance == pytest.approx(0.3)


def test_closest_calls_are_right_verdicts_nearest_to_a_threshold() -> None:
    scores = np.array([-2.0, -0.6, 0.0, 0.9, 5.0])
    is_bad = np.array([False, False, False, True, True])
    assert [case.index for case in evaluate_simply(scores, is_bad).closest_calls] == [1, 3, 0, 4]


def test_reliability_finds_overconfidence() -> None:
    generator = np.random.default_rng(4)
    scores = generator.normal(0, 3, 4000)
    is_bad = generator.random(4000) < 1 / (1 + np.exp(-scores))
    honest = evaluate_simply(scores, is_bad).reliability
    sure = evaluate_simply(scores, is_bad, calibration=Calibration(temperature=0.2, prevalence=0.5)).reliability
    assert honest.expected_calibration_error < 0.03 < sure.expected_calibration_error
    assert honest.brier < sure.brier
    assert sum(entry.observed.total for entry in honest.bins) == 4000


def test_cost_curve_counts_escapes_false_alarms_and_reviews() -> None:
    scores = np.array([-1.0, 0.0, 1.0, -1.0, 0.0, 1.0])
    is_bad = np.array([False] * 3 + [True] * 3)
    settings = OperatingPointSettings(expected_defect_rate=0.1, escape_cost=10.0, review_cost=0.5)
    cost = evaluate_simply(scores, is_bad, settings=settings).cost
    assert cost.operating_point == pytest.approx(10 * 100 / 3 + 900 / 3 + 0.5 * 1000 / 3)
    assert (cost.pass_everything, cost.fail_everything) == (1000.0, 900.0)
    assert cost.cost[0] == pytest.approx(cost.fail_everything)
    assert cost.cost[-1] == pytest.approx(cost.pass_everything)
    assert cost.best == min(cost.cost)


def test_metrics_json_has_a_schema_and_finite_numbers() -> None:
    scores, is_bad = draw()
    document = json.loads(evaluate_simply(scores, is_bad).to_json())
    assert document["schema"] == "1.1"
    assert document["auroc"]["low"] <= document["auroc"]["value"] <= document["auroc"]["high"]
    assert sum(document["histogram"]["good"]) == 120
    assert sum(document["histogram"]["bad"]) == 80


@pytest.mark.parametrize("scores", [np.full(20, 0.5), np.repeat([-9.0, 9.0], 10), np.repeat([9.0, -9.0], 10)])
def test_degenerate_scores_do_not_break_it(scores: np.ndarray) -> None:
    json.loads(evaluate_simply(scores, np.repeat([False, True], 10)).to_json())


def test_columns_of_another_length_are_refused() -> None:
    scores, is_bad = draw()
    with pytest.raises(DataError, match="holdout: want 200 lots, one per image, found 3"):
        evaluate_simply(scores, is_bad, lots=["a"] * 3)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="holdout: want finite scores"):
        evaluate_simply(np.array([0.0, np.nan]), np.array([False, True]))
