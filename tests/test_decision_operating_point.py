import json
import math
import time

import numpy as np
import pytest
from scipy import stats

from inspection.decision.bounds import (
    clopper_pearson_interval,
    clopper_pearson_upper,
    events_allowed,
    group_upper_bound,
    groups_needed,
    measure_rate,
)
from inspection.decision.operating_point import OperatingPointReport, choose_operating_point
from inspection.errors import DataError
from inspection.settings import OperatingPointSettings


def choose(
    good: list[float], bad: list[float], refused: np.ndarray | None = None, **settings: object
) -> OperatingPointReport:
    scores = np.array([*good, *bad], dtype=np.float64)
    is_bad = np.repeat([False, True], [len(good), len(bad)])
    return choose_operating_point(
        scores, is_bad, [str(index) for index in range(len(scores))], OperatingPointSettings(**settings), refused
    )


def overlapping(bad: int = 200, good: int = 300, seed: int = 0, gap: float = 1.2) -> tuple[list[float], list[float]]:
    generator = np.random.default_rng(seed)
    return generator.normal(-gap, 1, good).tolist(), generator.normal(gap, 1, bad).tolist()


@pytest.mark.parametrize(("limit", "groups"), [(0.05, 59), (0.02, 149), (0.01, 299), (0.005, 598)])
def test_zero_escapes_need_59_149_299_598_groups(limit: float, groups: int) -> None:
    assert groups_needed(limit, 0.95) == groups
    assert clopper_pearson_upper(0, groups, 0.95) <= limit < clopper_pearson_upper(0, groups - 1, 0.95)
    report = choose([-1.0] * 10, [1.0] * groups, max_escape_rate=limit)
    assert report.escape.kept
    assert report.escape.groups_missing == 0
    report = choose([-1.0] * 10, [1.0] * (groups - 1), max_escape_rate=limit)
    assert not report.escape.kept
    assert report.escape.groups_missing == 1


@pytest.mark.parametrize(("events", "trials"), [(0, 45), (1, 45), (7, 120), (119, 120)])
def test_bound_is_where_the_binomial_tail_equals_the_risk(events: int, trials: int) -> None:
    bound = clopper_pearson_upper(events, trials, 0.95)
    assert stats.binom.cdf(events, trials, bound) == pytest.approx(0.05, rel=1e-6)
    reference = stats.binomtest(events, trials).proportion_ci(0.95, method="exact")
    assert clopper_pearson_interval(events, trials) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_events_allowed_is_the_most_that_keeps_the_limit() -> None:
    allowed = events_allowed(200, 0.05, 0.95, True)
    assert group_upper_bound(allowed, 200, 0.95, True) <= 0.05 < group_upper_bound(allowed + 1, 200, 0.95, True)
    assert events_allowed(58, 0.05, 0.95, True) == -1
    assert events_allowed(59, 0.05, 0.95, False) == 0


def test_several_images_per_group_cost_a_factor_e_of_risk_but_not_without_events() -> None:
    assert group_upper_bound(0, 80, 0.95, False) == group_upper_bound(0, 80, 0.95, True)
    assert group_upper_bound(2, 80, 0.95, False) == pytest.approx(clopper_pearson_upper(2, 80, 1 - 0.05 / math.e))


def test_bounds_without_anything_known_are_zero_and_one() -> None:
    assert clopper_pearson_upper(0, 0, 0.95) == 1.0
    assert clopper_pearson_interval(0, 0) == (0.0, 1.0)
    assert measure_rate(np.array([], dtype=bool), []).high == 1.0


def test_interval_of_a_rate_counts_groups_not_images() -> None:
    events = np.zeros(40, dtype=bool)
    apart = measure_rate(events, [str(index) for index in range(40)])
    together = measure_rate(events, [str(index // 10) for index in range(40)])
    assert apart.high == pytest.approx(1 - 0.025 ** (1 / 40))
    assert together.high == pytest.approx(1 - 0.025 ** (1 / 4))


def test_a_rate_counts_every_group_once() -> None:
    events = np.array([True, True, True, False, False])
    rate = measure_rate(events, ["a", "a", "a", "b", "c"])
    assert (rate.count, rate.total, rate.groups) == (3, 5, 3)
    assert rate.rate == pytest.approx(1 / 3)
    assert rate.low < rate.rate < rate.high


def test_interval_of_single_images_is_clopper_and_pearsons() -> None:
    for events in (0, 1, 7, 39, 40):
        rate = measure_rate(np.arange(40) < events, [str(index) for index in range(40)])
        assert (rate.low, rate.high) == pytest.approx(clopper_pearson_interval(events, 40))
        assert rate.rate == events / 40


@pytest.mark.parametrize("likeness", [0.0, 0.2, 0.7], ids=lambda value: f"correlation-{value}")
@pytest.mark.parametrize(
    "sizes",
    [[300, 300, 50, 50, 50], [300, 300, *[3] * 50], [1000, *[1] * 99], [200, *[5] * 19], [12] * 20, [1] * 60],
    ids=lambda sizes: f"{len(sizes)}-lots-up-to-{max(sizes)}",
)
def test_interval_holds_the_true_rate_of_lots_of_any_size(sizes: list[int], likeness: float) -> None:
    """A lot's own rate is drawn so that two images of it correlate by `likeness`."""
    generator = np.random.default_rng(8)
    true, sets = 0.1, 400
    groups = np.repeat(np.arange(len(sizes)), sizes).astype(str).tolist()
    missed = 0
    for _ in range(sets):
        rates = np.full(len(sizes), true)
        if likeness:
            strength = 1 / likeness - 1
            rates = generator.beta(true * strength, (1 - true) * strength, len(sizes))
        rate = measure_rate(generator.random(sum(sizes)) < np.repeat(rates, sizes), groups)
        missed += not rate.low <= true <= rate.high
    assert missed <= stats.binom.ppf(0.999, sets, 0.05)


def test_lower_threshold_lets_through_exactly_what_the_bound_allows() -> None:
    good, bad = overlapping()
    report = choose(good, bad)
    allowed = events_allowed(200, 0.05, 0.95, True)
    assert report.point.lower == sorted(bad)[allowed]
    assert report.calibration_rates["escape"].count == allowed
    assert report.escape.kept
    assert report.escape.rate <= 0.05
    assert report.overkill.kept
    assert report.point.upper == sorted(good, reverse=True)[events_allowed(300, 0.05, 0.95, True)]


def test_conformal_bound_stands_beside_and_is_smaller_than_the_promise() -> None:
    report = choose(*overlapping())
    allowed = events_allowed(200, 0.05, 0.95, True)
    assert report.escape.expected_rate == pytest.approx((allowed + 1) / 201)
    assert report.escape.expected_rate < report.escape.rate


def test_too_few_bad_parts_give_the_rate_that_can_be_promised_and_the_number_missing() -> None:
    good, bad = overlapping(bad=45, good=200, gap=2)
    report = choose(good, bad, max_review_rate=0.5)
    assert report.escape.rate == pytest.approx(0.0644, abs=1e-4)
    assert (report.escape.groups, report.escape.groups_needed, report.escape.groups_missing) == (45, 59, 14)
    assert report.point.lower == min(bad)
    assert report.review_rate < 0.5
    assert [lost.limit for lost in report.gave_way] == ["escape"]
    assert "at most 6.45% of bad parts pass" in report.text
    assert "14 are missing" in report.text


def test_score_at_a_threshold_is_reviewed() -> None:
    report = choose([-1.0] * 100 + [0.0] * 50, [0.0] * 50 + [1.0] * 100, max_review_rate=0.5)
    assert (report.point.lower, report.point.upper) == (0.0, 0.0)
    assert report.calibration_rates["escape"].count == 0
    assert report.calibration_rates["overkill"].count == 0
    assert report.calibration_rates["review_bad"].count == 50
    assert report.has_band


def test_crossing_thresholds_become_one_point_between_them_without_review() -> None:
    report = choose([-3.0, -2.0, -1.0] * 50, [1.0, 2.0, 3.0] * 50)
    assert report.point.lower == report.point.upper
    assert -1.0 < report.point.lower < 1.0
    assert not report.has_band
    assert report.review_rate == 0.0
    assert report.gave_way == ()
    assert "All three limits of the settings are kept" in report.text


def test_crossing_point_is_no_score_that_occurs() -> None:
    good, bad = overlapping(bad=4000, good=4000, gap=2.5)
    report = choose(np.round(good, 1).tolist(), np.round(bad, 1).tolist())
    assert report.point.lower == report.point.upper
    assert report.point.lower not in set(np.round(good, 1)) | set(np.round(bad, 1))
    assert report.review_rate == 0.0


def test_review_gives_way_first_by_default() -> None:
    report = choose(*overlapping(gap=0.8))
    assert [lost.limit for lost in report.gave_way] == ["review"]
    assert report.escape.kept
    assert report.overkill.kept
    assert report.review_rate > report.max_review_rate


def test_overkill_gives_way_when_it_comes_last() -> None:
    good, bad = overlapping(gap=0.8)
    report = choose(good, bad, priority=["escape", "review", "overkill"])
    assert [lost.limit for lost in report.gave_way] == ["overkill"]
    assert report.review_rate <= 0.10
    assert report.point.lower == choose(good, bad).point.lower
    assert report.overkill.rate > report.calibration_rates["overkill"].rate > 0.05
    assert "come last in priority" in report.text


def test_escape_gives_way_when_it_comes_last_and_no_more_than_needed() -> None:
    good, bad = overlapping(gap=0.8)
    report = choose(good, bad, priority=["overkill", "review", "escape"])
    assert [lost.limit for lost in report.gave_way] == ["escape"]
    assert report.review_rate <= 0.10
    levels = np.unique(good + bad)
    before = levels[np.searchsorted(levels, report.point.lower) - 1]
    scores = np.array(good)
    of_good = np.mean((scores >= before) & (scores <= report.point.upper))
    of_bad = np.mean((np.array(bad) >= before) & (np.array(bad) <= report.point.upper))
    assert 0.99 * of_good + 0.01 * of_bad > 0.10
    assert report.escape.rate > report.calibration_rates["escape"].rate


def test_ties_that_alone_exceed_the_review_limit_leave_one_point() -> None:
    good, bad = [-1.0] * 60 + [0.0] * 40, [0.0] * 40 + [1.0] * 60
    by_overkill = choose(good, bad, priority=["escape", "review", "overkill"])
    assert -1.0 < by_overkill.point.lower == by_overkill.point.upper < 0.0
    assert by_overkill.calibration_rates["overkill"].count == 40
    by_escape = choose(good, bad, priority=["overkill", "review", "escape"])
    assert 0.0 < by_escape.point.lower == by_escape.point.upper < 1.0
    assert by_escape.calibration_rates["escape"].count == 40


def test_all_scores_equal_is_not_autonomous_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    report = choose([0.5] * 100, [0.5] * 100)
    assert not report.autonomous
    assert not report.point.autonomous
    assert report.review_rate == 1.0
    assert report.text.startswith("**NOT AUTONOMOUS")
    assert "more than half of the parts" in caplog.text
    for last in ("escape", "overkill"):
        first = "overkill" if last == "escape" else "escape"
        assert choose([0.5] * 100, [0.5] * 100, priority=[first, "review", last]).review_rate == 0.0


def test_perfectly_separated_scores_with_few_images_still_have_one_point() -> None:
    report = choose([-1.0, -2.0], [1.0, 2.0])
    assert report.point.lower == report.point.upper == 0.0
    assert report.escape.groups_missing == 57


def test_separated_the_wrong_way_round_goes_to_review() -> None:
    report = choose([1.0, 2.0] * 50, [-1.0, -2.0] * 50)
    assert (report.point.lower, report.point.upper) == (-2.0, 2.0)
    assert not report.autonomous


def test_group_with_several_images_counts_once() -> None:
    scores = np.concatenate([np.linspace(-3, -1, 60), np.linspace(1, 3, 60)])
    is_bad = np.repeat([False, True], 60)
    lots = [str(index // 6) for index in range(120)]
    report = choose_operating_point(scores, is_bad, lots, OperatingPointSettings())
    assert report.escape.groups == 10
    assert report.escape.rate == pytest.approx(1 - 0.05 ** (1 / 10))
    assert report.escape.groups_missing == 49
    assert "independent bad groups" in report.text


def test_group_that_holds_both_classes_counts_for_both() -> None:
    scores = np.array([-1.0, 1.0] * 60)
    report = choose_operating_point(
        scores, scores > 0, [str(index // 2) for index in range(120)], OperatingPointSettings()
    )
    assert (report.escape.groups, report.overkill.groups) == (60, 60)


def test_images_that_hold_the_thresholds_are_named() -> None:
    good, bad = overlapping(bad=45, good=100)
    report = choose(good, bad)
    assert report.setting_lower == (100 + int(np.argmin(bad)),)
    assert good[report.setting_upper[0]] == report.point.upper


def test_choices_show_what_each_further_escape_would_buy() -> None:
    report = choose(*overlapping(bad=45, good=200))
    assert [choice.escapes for choice in report.choices] == list(range(len(report.choices)))
    reviews = [choice.review_rate for choice in report.choices]
    assert reviews == sorted(reviews, reverse=True)
    assert report.choices[1].escape_bound == pytest.approx(clopper_pearson_upper(1, 45, 0.95))


@pytest.mark.parametrize("priority", [["escape", "overkill", "review"], ["review", "overkill", "escape"]])
@pytest.mark.parametrize("action", ["pass", "fail"])
def test_promises_count_what_a_line_with_two_outlets_does(action: str, priority: list[str]) -> None:
    report = choose(*overlapping(gap=0.8), review_action=action, priority=priority)
    first, second = sorted(("escape", "overkill"), key=priority.index)
    promises = {"escape": report.escape, "overkill": report.overkill}
    assert promises[first].kept
    assert promises[second].moved_for == "outlets"
    assert not promises[second].kept
    assert [lost.limit for lost in report.gave_way] == [second]
    assert report.escape.events == report.resolved_escape.count
    assert report.overkill.events == report.resolved_overkill.count
    assert report.escape.rate > report.resolved_escape.rate
    assert report.overkill.rate > report.resolved_overkill.rate
    assert report.review_rate <= report.max_review_rate
    assert f"The settings {action} every part under review" in report.text


def test_two_outlets_cost_nothing_where_both_limits_are_kept_by_one_threshold() -> None:
    report = choose(*overlapping(gap=3.0), review_action="pass")
    assert report.escape.kept
    assert report.overkill.kept
    assert report.gave_way == ()


def test_good_parts_that_the_guard_refuses_use_up_the_limit_on_overkill() -> None:
    good, bad = overlapping(good=300)
    refused = np.zeros(500, dtype=bool)
    refused[[0, 1, 2]] = True
    rejected = choose(good, bad, refused=refused)
    assert rejected.overkill.events > 3
    assert rejected.overkill.kept
    assert rejected.point.upper > choose(good, bad).point.upper, "fewer are left for the threshold"
    assert rejected.calibration_rates["error_good"].count == 3
    assert rejected.resolved_overkill.count == rejected.calibration_rates["overkill"].count + 3
    assert "refuses 3 of 300 good and 0 of 200 bad" in rejected.text
    reviewed = choose(good, bad, refused=refused, on_error="review")
    assert reviewed.overkill.events <= rejected.overkill.events
    assert reviewed.review_rate > 0.99 * 3 / 300


def test_more_refused_good_parts_than_the_limit_allows_are_said_to_break_it() -> None:
    good, bad = overlapping(good=300)
    refused = np.arange(500) % 300 < 30
    report = choose(good, bad, refused=refused & (np.arange(500) < 300))
    assert not report.overkill.kept
    assert report.overkill.rate > 0.1
    assert report.overkill.moved_for == "errors"
    assert [lost.limit for lost in report.gave_way if "input guard" in lost.why] == ["overkill"]
    assert "the input guard refuses more good parts" in report.text


def test_a_bad_part_that_the_guard_refuses_is_no_escape() -> None:
    good, bad = overlapping()
    refused = np.zeros(500, dtype=bool)
    refused[300 + int(np.argmin(bad))] = True
    report = choose(good, bad, refused=refused)
    assert report.calibration_rates["error_bad"].count == 1
    assert report.point.lower > choose(good, bad).point.lower


def test_a_class_that_the_guard_refuses_as_a_whole_is_named() -> None:
    good, bad = overlapping()
    with pytest.raises(DataError, match="without the 300 images that the input guard refuses: want good and bad"):
        choose(good, bad, refused=np.arange(500) < 300)


def test_point_id_names_its_content() -> None:
    good, bad = overlapping()
    assert choose(good, bad).point == choose(good, bad).point
    assert choose(good, bad).point.id != choose(good, bad, review_action="fail").point.id


def test_report_is_finite_json() -> None:
    document = json.loads(json.dumps(choose(*overlapping()).to_dict(), allow_nan=False))
    assert document["point"]["lower"] < document["point"]["upper"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(DataError, match=r"calibration split: want finite scores, found 1 of 4 .* image 1"):
        choose([0.0, value], [1.0, 2.0])


def test_one_class_only_is_refused() -> None:
    with pytest.raises(DataError, match="want good and bad images, found 3 good and 0 bad"):
        choose([0.0, 1.0, 2.0], [])


def test_groups_of_another_length_are_refused() -> None:
    with pytest.raises(DataError, match="want one group per image, found 1 for 2 images"):
        choose_operating_point(np.array([0.0, 1.0]), np.array([False, True]), ["a"], OperatingPointSettings())


def test_random_scores_never_break_the_order_of_the_thresholds() -> None:
    generator = np.random.default_rng(3)
    for _ in range(200):
        good = np.round(generator.normal(0, 1, generator.integers(1, 80)), int(generator.integers(0, 3))).tolist()
        bad = np.round(generator.normal(1, 1, generator.integers(1, 80)), int(generator.integers(0, 3))).tolist()
        priority = generator.permutation(["escape", "overkill", "review"]).tolist()
        report = choose(good, bad, priority=priority)
        assert report.point.lower <= report.point.upper
        assert priority[-1] == "review" or report.review_rate <= 0.10
        assert report.escape.rate >= report.calibration_rates["escape"].rate
        assert report.overkill.rate >= report.calibration_rates["overkill"].rate


@pytest.mark.parametrize("last", ["escape", "overkill", "review"])
def test_hundred_thousand_different_scores_take_no_minutes(last: str) -> None:
    """Giving way looks at every level: it must not look at every pair of them."""
    generator = np.random.default_rng(0)
    is_bad = np.arange(100_000) % 10 == 0
    scores = np.where(is_bad, 0.8, -0.8) + generator.normal(size=100_000)
    priority = [name for name in ("escape", "overkill", "review") if name != last] + [last]
    started = time.perf_counter()
    report = choose_operating_point(
        scores, is_bad, [str(index) for index in range(100_000)], OperatingPointSettings(priority=priority)
    )
    assert time.perf_counter() - started < 20
    assert [lost.limit for lost in report.gave_way] == [last]
    assert last == "review" or 0.099 < report.review_rate <= 0.1
