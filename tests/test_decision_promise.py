"""The promise itself: over many calibration sets the true rate exceeds the promised one in at most 1 - confidence."""

import numpy as np
import pytest
from scipy import stats

from inspection.decision.operating_point import choose_operating_point
from inspection.decision.promise import OperatingPointReport
from inspection.settings import OperatingPointSettings

SETS = 2000
BAD_MEAN, GOOD_MEAN = 1.5, -1.5


def most_excesses(confidence: float) -> int:
    """More than this many excesses in SETS sets would disprove the promise (one chance in a thousand if it is true)."""
    return int(stats.binom.ppf(0.999, SETS, 1 - confidence))


class Process:
    """Draws calibration sets from a known process: a lot's shift plus an image's own, rounded to steps."""

    def __init__(self, *, step: float = 0.0, lot_spread: float = 0.0, images_per_lot: int = 1):
        self.step, self.lot_spread, self.images_per_lot = step, lot_spread, images_per_lot
        self.own_spread = float(np.sqrt(1 - lot_spread**2))  # the sum has a spread of 1

    def draw(self, generator: np.random.Generator, lots: int, mean: float) -> np.ndarray:
        shape = (lots, self.images_per_lot)
        scores = (
            mean + self.lot_spread * generator.normal(size=(lots, 1)) + self.own_spread * generator.normal(size=shape)
        )
        return np.round(scores / self.step) * self.step if self.step else scores

    def rate_below(self, threshold: float, mean: float) -> float:
        """True share of scores below the threshold; rounding moves the edge by half a step."""
        if not self.step:
            return float(stats.norm.cdf(threshold - mean))
        first_not_below = np.ceil(threshold / self.step - 1e-9) * self.step
        return float(stats.norm.cdf(first_not_below - self.step / 2 - mean))

    def rate_up_to(self, threshold: float, mean: float) -> float:
        """True share of scores at the threshold or below it."""
        if not self.step:
            return float(stats.norm.cdf(threshold - mean))
        last_not_above = np.floor(threshold / self.step + 1e-9) * self.step
        return float(stats.norm.cdf(last_not_above + self.step / 2 - mean))

    def true_rates(self, report: OperatingPointReport) -> tuple[float, float]:
        """True rates of bad parts that the line passes and of good parts that it rejects (by mirroring the scores)."""
        lower, upper, action = report.point.lower, report.point.upper, report.point.review_action
        escape = self.rate_up_to(upper, BAD_MEAN) if action == "pass" else self.rate_below(lower, BAD_MEAN)
        overkill = self.rate_up_to(-lower, -GOOD_MEAN) if action == "fail" else self.rate_below(-upper, -GOOD_MEAN)
        return escape, overkill


def count_excesses(process: Process, settings: OperatingPointSettings, bad_lots: int, good_lots: int) -> dict[str, int]:
    generator = np.random.default_rng(20261122)
    is_bad = np.repeat([True, False], [bad_lots * process.images_per_lot, good_lots * process.images_per_lot])
    groups = np.repeat(np.arange(bad_lots + good_lots), process.images_per_lot).astype(str).tolist()
    counts = {"escape": 0, "overkill": 0, "escape_limit": 0, "overkill_limit": 0}
    expected = {"escape": 0.0, "overkill": 0.0}
    for _ in range(SETS):
        scores = np.concatenate(
            [process.draw(generator, bad_lots, BAD_MEAN).ravel(), process.draw(generator, good_lots, GOOD_MEAN).ravel()]
        )
        report = choose_operating_point(scores, is_bad, groups, settings)
        for name, promise, rate in zip(
            ("escape", "overkill"), (report.escape, report.overkill), process.true_rates(report), strict=True
        ):
            counts[name] += rate > promise.rate
            counts[f"{name}_limit"] += promise.kept and rate > promise.limit
            expected[name] += (rate - promise.expected_rate) / SETS
    assert expected["escape"] < 0.002, "the conformal bound is on the mean true rate"
    assert expected["overkill"] < 0.002
    return counts


@pytest.mark.parametrize(
    ("process", "bad_lots", "good_lots", "confidence"),
    [
        pytest.param(Process(), 70, 100, 0.95, id="single-images"),
        pytest.param(Process(step=0.05), 70, 100, 0.95, id="int8-steps"),
        pytest.param(Process(step=0.5), 150, 150, 0.9, id="coarse-ties"),
        pytest.param(Process(lot_spread=0.8, images_per_lot=4), 70, 70, 0.95, id="lots"),
        pytest.param(Process(lot_spread=0.6, images_per_lot=3, step=0.1), 150, 130, 0.9, id="lots-with-ties"),
        pytest.param(Process(), 20, 25, 0.95, id="too-few-for-the-limits"),
    ],
)
def test_true_rates_exceed_the_promised_ones_in_at_most_one_minus_confidence(
    process: Process, bad_lots: int, good_lots: int, confidence: float
) -> None:
    settings = OperatingPointSettings(confidence=confidence)
    counts = count_excesses(process, settings, bad_lots, good_lots)
    assert max(counts.values()) <= most_excesses(confidence), counts
    if not process.step and process.images_per_lot == 1:
        # Not wastefully careful either: with single images the bound is exact, up to crossing thresholds.
        assert counts["escape"] > 0.5 * (1 - confidence) * SETS


@pytest.mark.parametrize("last", ["escape", "overkill"])
def test_the_promise_holds_when_its_limit_gave_way_after_a_look_at_the_scores(last: str) -> None:
    first = "overkill" if last == "escape" else "escape"
    settings = OperatingPointSettings(
        priority=[first, "review", last], max_review_rate=0.02, confidence=0.9, expected_defect_rate=0.3
    )
    counts = count_excesses(Process(step=0.05), settings, 100, 100)
    assert max(counts.values()) <= most_excesses(0.9), counts


@pytest.mark.parametrize("step", [0.0, 0.3])
@pytest.mark.parametrize("first", ["escape", "overkill"])
@pytest.mark.parametrize("action", ["pass", "fail"])
def test_the_promise_holds_for_a_line_with_two_outlets(
    action: str, first: str, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.BAD_MEAN", 1.0)  # so near that one threshold cannot keep both limits
    monkeypatch.setattr(f"{__name__}.GOOD_MEAN", -1.0)
    second = "overkill" if first == "escape" else "escape"
    settings = OperatingPointSettings(priority=[first, second, "review"], review_action=action, confidence=0.9)
    counts = count_excesses(Process(step=step), settings, 70, 100)
    assert max(counts.values()) <= most_excesses(0.9), counts


@pytest.mark.parametrize("share", [0.004, 0.02, 0.06])
def test_the_promise_on_overkill_holds_when_the_guard_refuses_good_parts(share: float) -> None:
    generator = np.random.default_rng(11)
    is_bad = np.repeat([True, False], [70, 100])
    groups = [str(index) for index in range(170)]
    excesses, beyond = 0, 0
    for _ in range(SETS):
        scores = np.concatenate([generator.normal(BAD_MEAN, 1, 70), generator.normal(GOOD_MEAN, 1, 100)])
        refused = ~is_bad & (generator.random(170) < share)
        report = choose_operating_point(scores, is_bad, groups, OperatingPointSettings(), refused)
        rate = share + (1 - share) * Process().true_rates(report)[1]
        excesses += rate > report.overkill.rate
        beyond += report.overkill.moved_for == "errors"
    assert excesses <= most_excesses(0.95)
    assert beyond > 0


def test_counting_images_instead_of_groups_would_break_the_promise() -> None:
    """The same lots, each image its own group: this is why groups are counted."""
    process = Process(lot_spread=0.95, images_per_lot=8)
    settings = OperatingPointSettings(confidence=0.95)
    generator = np.random.default_rng(5)
    is_bad = np.repeat([True, False], [20 * 8, 20 * 8])
    own_groups = [str(index) for index in range(len(is_bad))]
    lots = np.repeat(np.arange(40), 8).astype(str).tolist()
    wrong = {"images": 0, "lots": 0}
    for _ in range(400):
        scores = np.concatenate(
            [process.draw(generator, 20, BAD_MEAN).ravel(), process.draw(generator, 20, GOOD_MEAN).ravel()]
        )
        for name, groups in (("images", own_groups), ("lots", lots)):
            report = choose_operating_point(scores, is_bad, groups, settings)
            wrong[name] += process.true_rates(report)[0] > report.escape.rate
    assert wrong["images"] > 0.15 * 400
    assert wrong["lots"] <= stats.binom.ppf(0.999, 400, 0.05)
