"""Compares a challenger with the champion by their verdicts on the same parts, and says what was found in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from inspection.errors import RolloutError
from inspection.fleet.reports import VERDICTS
from inspection.fleet.rollout.power import smallest_change
from inspection.fleet.rollout.sequential import BettingTest

Verdict = Literal["continue", "promote", "rollback"]
PAIRED_TESTS = 5  # that share the error: see `compare_pairs`
TYPICAL_NOISE = 0.02  # share of parts on which equally good models differ, for the smallest change that is stated


@dataclass(frozen=True)
class Limits:
    """What a model must keep to, as recorded in the plan; see `[fleet]` in the line's settings."""

    shadow_parts: int
    canary_parts: int
    wave_parts: int
    max_disagreement: float
    max_reject_shift: float
    max_review_shift: float
    max_error_rate: float
    false_rollback_rate: float
    max_failed_devices: float

    @classmethod
    def of(cls, values: Mapping[str, float]) -> "Limits":
        """From a plan's `limits`.

        Raises:
            RolloutError: one is missing.
        """
        wrong = sorted(name for name in cls.__dataclass_fields__ if not isinstance(values.get(name), int | float))
        if wrong:
            raise RolloutError(
                f"rollout plan: limits: want numbers for {', '.join(wrong)}, found none; see its plan.json"
            )
        return cls(
            shadow_parts=int(values["shadow_parts"]),
            canary_parts=int(values["canary_parts"]),
            wave_parts=int(values["wave_parts"]),
            max_disagreement=values["max_disagreement"],
            max_reject_shift=values["max_reject_shift"],
            max_review_shift=values["max_review_shift"],
            max_error_rate=values["max_error_rate"],
            false_rollback_rate=values["false_rollback_rate"],
            max_failed_devices=values["max_failed_devices"],
        )

    def widened(self, factor: float) -> "Limits":
        """The same with wider margins for rejects and reviews; errors are as wrong as ever."""
        return replace(
            self,
            max_reject_shift=self.max_reject_shift * factor,
            max_review_shift=self.max_review_shift * factor,
        )


@dataclass(frozen=True)
class Finding:
    """One test, for people."""

    name: str  # rejects more, rejects less, reviews more, decides differently, fails more
    share: float | None  # that was seen: of parts (single) or its change (paired); None: no parts yet
    limit: float  # largest that is allowed
    e_value: float  # evidence against the model; at `needed` it is rolled back
    needed: float
    beyond: bool
    finds: float | None  # smallest true share that is found in 9 of 10 cases; None: none in so few parts
    text: str


@dataclass(frozen=True)
class Comparison:
    """How the new model compares."""

    kind: str  # shadow, live, errors
    verdict: Verdict
    reasons: tuple[str, ...]  # of a rollback
    findings: tuple[Finding, ...]
    parts: int  # that were judged
    wanted: int  # parts after which nothing found means: good
    pairs: Mapping[str, int] = field(default_factory=dict)  # champion/challenger verdicts to parts; shadow only
    figures: Mapping[str, int] = field(default_factory=dict)  # the new model's verdicts to parts; live only
    baseline: Mapping[str, int] = field(default_factory=dict)  # the champion's; live only
    devices: Mapping[str, int] = field(default_factory=dict)  # parts of each device
    skipped: int = 0  # parts that the challenger did not see since it was busy

    def to_document(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def pair_table(self) -> list[list[int]]:
        """Parts, int (4, 4): a row for each verdict of the champion, a column for each of the challenger, in the
        order of `inspection.fleet.reports.VERDICTS`."""
        return [[self.pairs.get(f"{row}/{column}", 0) for column in VERDICTS] for row in VERDICTS]


def paired_tests(limits: Limits, alpha: float) -> dict[str, BettingTest]:
    """The tests of verdict pairs; the error is shared equally.

    Args:
        limits: margins.
        alpha: probability, at most, that any of them finds something wrong with a model within all margins.
    """
    each = alpha / PAIRED_TESTS
    return {
        "rejects more": BettingTest(limits.max_reject_shift, True, each),
        "rejects less": BettingTest(limits.max_reject_shift, True, each),
        "reviews more": BettingTest(limits.max_review_shift, True, each),
        "decides differently": BettingTest(limits.max_disagreement, False, each),
        "fails more": BettingTest(limits.max_error_rate, True, each),
    }


_SAYS = {
    "rejects more": "does not accept {share} more of the parts than the champion",
    "rejects less": "accepts {share} more of the parts than the champion",
    "reviews more": "sends {share} more of the parts to review than the champion",
    "decides differently": "accepts what the champion does not, or the reverse, on {share} of the parts",
    "fails more": "has no trustworthy score on {share} more of the parts than the champion",
}


def compare_pairs(
    pairs: Mapping[str, Mapping[str, int]],
    limits: Limits,
    alpha: float,
    skipped: int = 0,
) -> Comparison:
    """Compare two models by their verdicts on the same parts.

    Args:
        pairs: device to `champion/challenger` verdicts to parts.
        limits: margins and how many parts are enough.
        alpha: probability, at most, of a rollback of a model within all margins, however often this is asked.
        skipped: parts that only the champion judged.
    """
    table: dict[str, int] = {}
    for counts in pairs.values():
        for name, count in counts.items():
            table[name] = table.get(name, 0) + count
    parts = sum(table.values())
    rejected_more, rejected_less = _shift(table, ("fail", "review", "error"))
    reviewed_more, reviewed_less = _shift(table, ("review",))
    failed_more, failed_less = _shift(table, ("error",))
    counts_of = {
        "rejects more": (rejected_more, rejected_less),
        "rejects less": (rejected_less, rejected_more),
        "reviews more": (reviewed_more, reviewed_less),
        "decides differently": (rejected_more + rejected_less, 0),
        "fails more": (failed_more, failed_less),
    }
    findings = []
    for name, test in paired_tests(limits, alpha).items():
        plus, minus = counts_of[name]
        finds = smallest_change(test, limits.shadow_parts, TYPICAL_NOISE if test.paired else 0.0)
        findings.append(finding(name, test, plus, parts, minus, f"the challenger {_SAYS[name]}", finds))
    return replace(
        concluded("shadow", findings, parts, limits.shadow_parts),
        pairs=dict(sorted(table.items())),
        devices={thing: sum(counts.values()) for thing, counts in sorted(pairs.items())},
        skipped=skipped,
    )


def finding(name: str, test: BettingTest, plus: int, parts: int, minus: int, says: str, finds: float | None) -> Finding:
    """The outcome of one test in words.

    Args:
        name: of the test.
        test: the test.
        plus: parts with X = 1.
        parts: all of them.
        minus: parts with X = -1.
        says: what a share means, with the place `{share}`.
        finds: smallest change that the test finds.
    """
    log_e = test.log_e(plus, parts, minus) if parts else 0.0
    share = (plus - minus) / parts if parts else None
    counted = f"{plus} of {parts:,}" + (f", against {minus} the other way" if test.paired else "")
    text = says.format(share="?" if share is None else f"{share:.1%}")
    return Finding(
        name=name,
        share=share,
        limit=test.margin,
        e_value=math.exp(min(log_e, 300.0)),
        needed=1 / test.alpha,
        beyond=bool(log_e >= test.log_threshold),
        finds=finds,
        text=f"{text} ({counted}); want at most {test.margin:.1%}",
    )


def concluded(kind: str, findings: Sequence[Finding], parts: int, wanted: int) -> Comparison:
    """What follows from the tests: back when one found something, on when enough parts were judged."""
    reasons = tuple(found.text for found in findings if found.beyond)
    verdict: Verdict = "rollback" if reasons else "promote" if parts >= wanted else "continue"
    return Comparison(kind, verdict, reasons, tuple(findings), parts, wanted)


def _shift(table: Mapping[str, int], kinds: tuple[str, ...]) -> tuple[int, int]:
    """Parts that only the challenger, and that only the champion, gave a verdict among `kinds`."""
    more = less = 0
    for name, count in table.items():
        champion, _, challenger = name.partition("/")
        more += count * (challenger in kinds and champion not in kinds)
        less += count * (champion in kinds and challenger not in kinds)
    return more, less
