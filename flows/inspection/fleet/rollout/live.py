"""Compares a model's live figures with what the champion did before, on other parts.

The champion's rate is known only within bounds, so the limit is its exact bound plus the allowed change; half of the
error goes to that bound, which is fixed when the stage starts, and half to the test. Parts come at another time and
perhaps at another place: what changes on the line meanwhile looks like the model's doing. Comparing on the same parts
(`comparison = "shadow"`) is better.
"""

from collections.abc import Mapping
from dataclasses import replace

from inspection.decision.bounds import clopper_pearson_upper
from inspection.fleet.rollout.comparison import Comparison, Finding, Limits, concluded, finding
from inspection.fleet.rollout.power import smallest_change
from inspection.fleet.rollout.sequential import BettingTest

LIVE_TESTS = 4
ENOUGH_PARTS = 200  # of the stage's own devices; with fewer, those of all devices with the champion are the baseline

_SAYS = {
    "rejects more": "{share} of the parts are not accepted",
    "rejects less": "{share} of the parts are accepted",
    "reviews more": "{share} of the parts go to review",
    "fails more": "{share} of the parts have no trustworthy score",
}


def live_tests(baseline: Mapping[str, int], limits: Limits, alpha: float, all_rates: bool) -> dict[str, BettingTest]:
    """The tests of a model's live figures; a rate that no test could find anything about has none.

    Args:
        baseline: the champion's verdicts to parts; empty when there is no champion.
        limits: margins.
        alpha: probability, at most, that any of them finds something wrong with a model within all margins.
        all_rates: whether the shares of rejects and reviews are tested too, not only errors.
    """
    parts = sum(baseline.values())
    if parts == 0:
        return {"fails more": BettingTest(limits.max_error_rate, False, alpha)}
    each = alpha / (LIVE_TESTS if all_rates else 1)
    accepted = baseline.get("pass", 0)

    def highest(count: int) -> float:
        return clopper_pearson_upper(count, parts, 1 - each / 2)

    margins = {"fails more": highest(baseline.get("error", 0)) + limits.max_error_rate}
    if all_rates:
        margins |= {
            "rejects more": highest(parts - accepted) + limits.max_reject_shift,
            "rejects less": highest(accepted) + limits.max_reject_shift,
            "reviews more": highest(baseline.get("review", 0)) + limits.max_review_shift,
        }
    return {name: BettingTest(margin, False, each / 2) for name, margin in margins.items() if margin < 1}


def compare_live(
    figures: Mapping[str, Mapping[str, int]],
    baseline: Mapping[str, int],
    limits: Limits,
    alpha: float,
    wanted: int,
    all_rates: bool = True,
) -> Comparison:
    """Compare a model's live figures with the champion's before.

    Args:
        figures: device to verdicts to parts.
        baseline: the champion's verdicts to parts, as they were when the stage started; empty: no champion, then only
            errors are tested.
        limits: margins.
        alpha: probability, at most, of a rollback of a model within all margins, however often this is asked.
        wanted: parts that are waited for, of all devices.
        all_rates: whether the shares of rejects and reviews are tested too, not only errors.
    """
    sums: dict[str, int] = {}
    for counts in figures.values():
        for name, count in counts.items():
            sums[name] = sums.get(name, 0) + count
    parts = sum(sums.values())
    seen = {
        "rejects more": parts - sums.get("pass", 0),
        "rejects less": sums.get("pass", 0),
        "reviews more": sums.get("review", 0),
        "fails more": sums.get("error", 0),
    }
    known = sum(baseline.values())
    findings: list[Finding] = []
    for name, test in live_tests(baseline, limits, alpha, all_rates).items():
        finds = smallest_change(test, wanted)
        one = finding(name, test, seen[name], parts, 0, _SAYS[name], finds)
        if known:
            before = {"rejects more": known - baseline.get("pass", 0), "rejects less": baseline.get("pass", 0)}
            count = before.get(name, baseline.get({"reviews more": "review", "fails more": "error"}.get(name, ""), 0))
            one = replace(one, text=f"{one.text} (the champion: {count / known:.1%} of {known:,})")
        findings.append(one)
    return replace(
        concluded("live" if all_rates and known else "errors", findings, parts, wanted),
        figures=dict(sorted(sums.items())),
        baseline=dict(sorted(baseline.items())),
        devices={thing: sum(counts.values()) for thing, counts in sorted(figures.items())},
    )


def choose_baseline(own: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    """The champion's figures that a stage is compared with.

    Args:
        own: its verdicts to parts on the stage's devices, at the same place.
        others: on all other devices.
    """
    if sum(own.values()) >= ENOUGH_PARTS:
        return dict(own)
    return {name: own.get(name, 0) + others.get(name, 0) for name in sorted({*own, *others})}
