"""Both error rates of the tests that decide a rollout, by simulation with fixed seeds, and how they are computed."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom
from test_rollout_record import make_plan

from inspection.fleet.rollout.comparison import Limits, paired_tests
from inspection.fleet.rollout.live import live_tests
from inspection.fleet.rollout.power import probability_found, smallest_change
from inspection.fleet.rollout.sequential import BettingTest
from inspection.fleet.rollout.stages import stage_alpha

RUNS = 2000
LIMITS = Limits(
    shadow_parts=500,
    canary_parts=50,
    wave_parts=1,
    max_disagreement=0.05,
    max_reject_shift=0.02,
    max_review_shift=0.05,
    max_error_rate=0.01,
    false_rollback_rate=0.01,
    max_failed_devices=0.0,
)
PAIRED = BettingTest(0.02, True, 0.01)
SINGLE = BettingTest(0.05, False, 0.01)


def at_most(rate: float, runs: int = RUNS) -> int:
    """Runs out of so many that an event of this rate does not exceed, but for one chance in 100,000."""
    return int(binom.ppf(1 - 1e-5, runs, rate))


def draw(rng: np.random.Generator, plus: Any, minus: Any, parts: int, runs: int = RUNS) -> Any:
    """Values of X, int8 (runs, parts); the probabilities may differ from part to part."""
    uniform = rng.random((runs, parts))
    return (uniform < plus).astype(np.int8) - (uniform > 1 - np.asarray(minus)).astype(np.int8)


def ever_found(test: BettingTest, drawn: Any, every: int) -> Any:
    """Whether a test that is looked at after every so many parts ever finds something, bool (runs,)."""
    looks = np.arange(every, drawn.shape[1] + 1, every)
    ups = np.cumsum(drawn > 0, axis=1)[:, looks - 1]
    downs = np.cumsum(drawn < 0, axis=1)[:, looks - 1]
    return (test.log_e(ups, looks[None, :], downs) >= test.log_threshold).any(axis=1)


# Error of the first kind: a good model is rolled back


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("every", [5, 20])
def test_a_shift_at_the_margin_is_found_in_one_of_a_hundred_runs_at_most(noise: float, every: int) -> None:
    drawn = draw(np.random.default_rng([1, every, int(noise * 100)]), PAIRED.margin + noise / 2, noise / 2, 500, 2000)
    assert ever_found(PAIRED, drawn, every).sum() <= at_most(0.01, 2000)


@pytest.mark.parametrize("margin", [0.01, 0.05, 0.3])
def test_a_rate_at_the_margin_is_found_in_one_of_a_hundred_runs_at_most(margin: float) -> None:
    test = BettingTest(margin, False, 0.01)
    drawn = draw(np.random.default_rng([2, int(margin * 100)]), margin, 0.0, 800)
    assert ever_found(test, drawn, 10).sum() <= at_most(0.01)


def test_the_margin_is_not_so_wide_that_the_rate_says_nothing() -> None:
    """The bound is not far from the truth: a test that never found anything would pass the tests above as well."""
    drawn = draw(np.random.default_rng(3), SINGLE.margin, 0.0, 3000, 2000)
    assert ever_found(SINGLE, drawn, 25).sum() >= 2


def test_a_model_that_gets_worse_within_the_margin_is_found_no_more_often() -> None:
    plus = np.where(np.arange(600) < 300, 0.01, PAIRED.margin + 0.01)
    drawn = draw(np.random.default_rng(4), plus, 0.01, 600)
    assert ever_found(PAIRED, drawn, 6).sum() <= at_most(0.01)


def test_devices_of_different_noise_that_take_turns_are_found_no_more_often() -> None:
    noise = np.resize([0.0, 0.02, 0.2], 600)
    drawn = draw(np.random.default_rng(5), PAIRED.margin + noise / 2, noise / 2, 600)
    assert ever_found(PAIRED, drawn, 6).sum() <= at_most(0.01)


def simulated_table(rng: np.random.Generator, cells: dict[str, float], parts: int, runs: int = RUNS) -> dict[str, Any]:
    """Verdict pairs counted after each part, int (runs, parts) by pair; what is left of the probability agrees."""
    names = [*cells, "pass/pass"]
    edges = np.cumsum([*cells.values()])
    drawn = np.searchsorted(edges, rng.random((runs, parts)), side="right")
    return {name: np.cumsum(drawn == number, axis=1) for number, name in enumerate(names)}


def ever_rolled_back(table: dict[str, Any], every: int) -> Any:
    """Whether any of the paired tests ever finds something, as `compare_pairs` adds up; bool (runs,)."""
    shape = table["pass/pass"].shape
    looks = np.arange(every, shape[1] + 1, every)

    def count(champion: tuple[str, ...], challenger: tuple[str, ...]) -> Any:
        zero = np.zeros(shape, dtype=np.int64)
        pairs = itertools.product(champion, challenger)
        return sum((table.get(f"{one}/{other}", zero) for one, other in pairs), zero)[:, looks - 1]

    out, no_review, no_error = ("fail", "review", "error"), ("pass", "fail", "error"), ("pass", "fail", "review")
    more, less = count(("pass",), out), count(out, ("pass",))
    counts = {
        "rejects more": (more, less),
        "rejects less": (less, more),
        "reviews more": (count(no_review, ("review",)), count(("review",), no_review)),
        "decides differently": (more + less, 0 * more),
        "fails more": (count(no_error, ("error",)), count(("error",), no_error)),
    }
    found = np.zeros(shape[0], dtype=bool)
    for name, test in paired_tests(LIMITS, LIMITS.false_rollback_rate).items():
        plus, minus = counts[name]
        found |= (test.log_e(plus, looks[None, :], minus) >= test.log_threshold).any(axis=1)
    return found


@pytest.mark.parametrize(
    "cells",
    [
        {"pass/fail": 0.02},  # rejects more, at the margin
        {"pass/fail": 0.035, "fail/pass": 0.015},  # the same, and differing as often as is allowed
        {"fail/pass": 0.02, "fail/fail": 0.3},  # rejects less, at the margin, on a bad line
        {"fail/review": 0.05, "fail/fail": 0.2},  # reviews more, at the margin
        {"review/error": 0.01, "review/review": 0.1},  # fails more, at the margin
        {
            "fail/review": 0.03,
            "pass/review": 0.02,
            "pass/error": 0.0,
            "fail/error": 0.01,
            "fail/pass": 0.0,
        },  # all of it
    ],
)
def test_a_model_within_all_limits_is_rolled_back_in_one_of_a_hundred_rollouts_at_most(cells: dict[str, float]) -> None:
    table = simulated_table(np.random.default_rng([6, len(cells)]), cells, LIMITS.shadow_parts)
    assert ever_rolled_back(table, 10).sum() <= at_most(LIMITS.false_rollback_rate)


def test_a_challenger_exactly_like_the_champion_is_never_rolled_back() -> None:
    same = {"fail/fail": 0.2, "review/review": 0.2, "error/error": 0.2}
    table = simulated_table(np.random.default_rng(7), same, 500, runs=50)
    assert not ever_rolled_back(table, 1).any()


@pytest.mark.parametrize(("rate", "known", "parts"), [(0.02, 300, 400), (0.3, 1000, 400), (0.1, 100, 2500)])
def test_live_figures_at_the_margin_are_found_in_one_of_a_hundred_rollouts_at_most(
    rate: float, known: int, parts: int
) -> None:
    """The champion's rate is drawn too: half of the error is for its bound."""
    rng, runs = np.random.default_rng([8, known]), 2000
    before = rng.binomial(known, rate, runs)
    drawn = draw(rng, rate + LIMITS.max_reject_shift, 0.0, parts, runs)
    found = 0
    for count in np.unique(before):
        tests = live_tests({"pass": known - int(count), "fail": int(count)}, LIMITS, 0.01, True)
        found += ever_found(tests["rejects more"], drawn[before == count], parts // 50).sum()
    assert found <= at_most(0.01, runs)


# Error of the second kind: a bad model is not found


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("name", ["rejects more", "reviews more", "decides differently", "fails more"])
def test_the_stated_smallest_change_is_found_in_nine_of_ten_rollouts(name: str, noise: float) -> None:
    test = paired_tests(LIMITS, LIMITS.false_rollback_rate)[name]
    noise = noise if test.paired else 0.0
    change = smallest_change(test, LIMITS.shadow_parts, noise)
    assert change is not None
    assert change > test.margin
    drawn = draw(np.random.default_rng([9, len(name)]), change + noise / 2, noise / 2, LIMITS.shadow_parts, 2000)
    found = ever_found(test, drawn, 10).sum()
    assert found >= 2000 - at_most(0.1, 2000)
    assert probability_found(test, LIMITS.shadow_parts, change, noise) == pytest.approx(0.9, abs=0.02)


def test_the_stated_change_is_not_stated_too_large() -> None:
    test = paired_tests(LIMITS, LIMITS.false_rollback_rate)["rejects more"]
    change = smallest_change(test, LIMITS.shadow_parts)
    assert change is not None
    drawn = draw(np.random.default_rng(10), change * 0.8, 0.0, LIMITS.shadow_parts, 2000)
    assert ever_found(test, drawn, 10).mean() < 0.9


def test_swapped_verdicts_are_found_after_a_handful_of_parts() -> None:
    """As many rejects as before, on other parts: only the disagreement tells."""
    table = simulated_table(np.random.default_rng(11), {"pass/fail": 0.5, "fail/pass": 0.5}, 60)
    assert ever_rolled_back(table, 1).all()
    few = simulated_table(np.random.default_rng(12), {"pass/fail": 0.08, "fail/pass": 0.08}, 500)
    assert ever_rolled_back(few, 10).mean() > 0.9


# What it is computed from


def test_the_evidence_depends_on_the_counts_only() -> None:
    rng = np.random.default_rng(13)
    drawn = draw(rng, 0.1, 0.05, 200, 1)[0]
    money = 0.0
    shares = np.geomspace(0.005, 0.95, 24) / (1 + PAIRED.margin)
    money = np.mean([np.prod(1 + share * (rng.permutation(drawn) - PAIRED.margin)) for share in shares])
    counted = PAIRED.log_e(int((drawn > 0).sum()), 200, int((drawn < 0).sum()))
    assert counted == pytest.approx(math.log(money))


def test_the_evidence_is_a_fair_game_at_the_margin_and_a_losing_one_below() -> None:
    """E[E] over all outcomes of a few parts, exactly: 1 at the margin, less below."""
    for test, noise in ((PAIRED, 0.1), (SINGLE, 0.0)):
        for mean, wanted in ((test.margin, 1.0), (test.margin / 2, 0.0)):
            plus, minus = mean + noise / 2, noise / 2
            total = 0.0
            for outcome in itertools.product((1, 0, -1), repeat=4):
                ups, downs = outcome.count(1), outcome.count(-1)
                chance = plus**ups * minus**downs * (1 - plus - minus) ** (4 - ups - downs)
                total += chance * math.exp(test.log_e(ups, 4, downs)) if chance else 0.0
            assert total == pytest.approx(1.0) if wanted else total < 1


def test_the_evidence_stays_finite_after_ten_million_parts() -> None:
    for plus in (0, 10, 10_000_000):
        assert math.isfinite(PAIRED.log_e(plus, 10_000_000, 0))
    assert math.isfinite(PAIRED.log_e(0, 10_000_000, 10_000_000))
    assert PAIRED.log_e(0, 0, 0) == pytest.approx(0.0)


def test_nothing_is_found_before_the_first_part() -> None:
    assert not PAIRED.finds(0, 0)
    assert not SINGLE.finds(0, 0)


@pytest.mark.parametrize("parts", [20, 60])
def test_the_probability_of_finding_something_is_exact(parts: int) -> None:
    for test, plus, minus in ((PAIRED, 0.35, 0.05), (SINGLE, 0.3, 0.0)):
        noise = 2 * minus
        total = 0.0
        for downs in range(parts + 1):
            for ups in range(parts + 1 - downs):
                if test.finds(ups, parts, downs):
                    ways = math.comb(parts, downs) * math.comb(parts - downs, ups)
                    total += ways * plus**ups * minus**downs * (1 - plus - minus) ** (parts - ups - downs)
        assert probability_found(test, parts, plus - minus, noise) == pytest.approx(total, abs=1e-6)


def test_more_parts_find_smaller_changes_and_too_few_find_none() -> None:
    changes = [smallest_change(PAIRED, parts, 0.02) for parts in (100, 500, 2000, 20_000)]
    assert None not in changes
    assert changes == sorted(changes, reverse=True)  # type: ignore[type-var]
    assert changes[-1] is not None
    assert changes[-1] < 0.03
    assert smallest_change(PAIRED, 5) is None
    assert smallest_change(SINGLE, 1) is None


def test_the_documented_changes_are_those_that_the_code_computes() -> None:
    rows = (Path(__file__).parents[1] / "docs/rollout.md").read_text(encoding="utf-8").splitlines()
    tests = paired_tests(LIMITS, stage_alpha(make_plan(), "shadow"))
    for parts in (100, 500, 2000):
        cells = []
        for name in ("rejects more", "reviews more", "decides differently", "fails more"):
            noises = (0.0, 0.02) if tests[name].paired else (0.0,)
            cells.append(" / ".join(f"{smallest_change(tests[name], parts, noise):.1%}" for noise in noises))
        assert f"| {parts:,} | {' | '.join(cells)} |" in rows
