"""The last words of a run: they claim no more than is known."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.contract import Calibration
from inspection.decision.evaluation import evaluate
from inspection.decision.operating_point import choose_operating_point
from inspection.decision.rounding import percent, show_rounded
from inspection.settings import OperatingPointSettings
from inspection.train_path.releasing import summary_metrics
from inspection.train_path.summary import summarise


def finish(gap: float, bad: int = 200, good: int = 300, per_group: int = 1, refuse: int = 0, **settings: Any) -> Any:
    """What a run leaves whose scores overlap by so much; `refuse` good parts are refused by the input guard."""
    chosen, generator = OperatingPointSettings(**settings), np.random.default_rng(0)
    is_bad = np.repeat([False, True], [good, bad])
    scores = np.where(is_bad, gap, -gap) + generator.normal(size=good + bad)
    groups = [str(index // per_group) for index in range(good + bad)]
    nothing: list[str | None] = [None] * (good + bad)
    refused = np.arange(good + bad) < refuse
    report = choose_operating_point(scores, is_bad, groups, chosen, refused)
    uris = [str(index) for index in range(good + bad)]
    calibration = Calibration(1.0, 0.5)
    evaluation = evaluate(
        scores, is_bad, groups, nothing, nothing, uris, report.point, calibration, chosen, refused=refused
    )
    shipped = SimpleNamespace(flip_rate=0.004, flip_rate_upper=0.009167, images=1000, groups=200, confidence=0.95)
    device = {"p50_ms": 2.2, "p99_ms": 2.7, "rss_bytes": 53e6, "runtime": "ai-edge-litert 2.3.0"}
    return SimpleNamespace(
        release=SimpleNamespace(
            line="dots", version=1, storage="/store", archive="packages/a.zip", metrics="packages/a.metrics.json"
        ),
        decision=SimpleNamespace(report=report, device=device, jpeg=SimpleNamespace(passed=True, agreement=1.0)),
        evaluation=evaluation,
        exported=SimpleNamespace(kind="int8", shipped=shipped),
        larger_input=None,
    )


def lines_of(run: Any, name: str) -> list[str]:
    return [line.split("| ", 1)[1] for line in summarise(run, "17").splitlines() if line.startswith(name)]


def test_a_limit_that_gave_way_is_not_blamed_on_missing_parts() -> None:
    run = finish(0.3, priority=["overkill", "review", "escape"])
    (text, _) = lines_of(run, "promised")
    assert text.endswith("5.0% were asked for: it gave way to the limit on reviews")
    assert "needed" not in text


def test_missing_groups_are_called_groups() -> None:
    (text, _) = lines_of(finish(3.0, bad=40, per_group=4), "promised")
    assert "49 more independent bad groups needed for 5.0%" in text
    (text, _) = lines_of(finish(3.0, bad=40), "promised")
    assert "19 more independent bad parts needed for 5.0%" in text


def test_bounds_are_rounded_outwards() -> None:
    assert show_rounded(5.12, 1, "up") == "5.2"
    assert show_rounded(5.18, 1, "down") == "5.1"
    assert show_rounded(100 * 0.07, 1, "up") == "7.0", "7.000000000000001"
    assert show_rounded(100 * (1 - 0.95), 1, "up") == "5.0"
    assert percent(0.06441, "up") == "6.45%"
    assert percent(0.05, "up") == "5%"
    run = finish(3.0)
    (agreement,) = lines_of(run, "agreement")
    assert "at least 99.08%, with" in agreement
    (escape, _) = lines_of(run, "promised")
    assert float(escape.split("%")[0].split()[-1]) >= 100 * run.decision.report.escape.rate


def test_a_holdout_that_contradicts_the_promise_is_said_loudly() -> None:
    run = finish(3.0)
    assert not lines_of(run, "ATTENTION")
    worse = finish(3.0, refuse=60).evaluation  # under another lamp than the calibration split
    run.evaluation = worse
    assert lines_of(run, "ATTENTION") == [
        "the holdout contradicts the promise: it shows more mistakes than chance explains"
    ]


@pytest.mark.parametrize("action", ["pass", "fail"])
def test_summary_and_registry_tell_the_rates_of_the_line(action: str) -> None:
    run = finish(0.8, review_action=action, refuse=12)
    line, metrics = run.evaluation.resolved, summary_metrics(run)
    assert metrics["escape_rate"]["value"] == line.escape.rate
    assert metrics["overkill_rate"]["value"] == line.overkill.rate
    assert metrics["overkill_rate"]["value"] >= 12 / 300
    assert metrics["error_rate"]["value"] == pytest.approx(0.99 * 12 / 300)
    assert metrics["promised_escape_rate"] >= line.escape.rate
    (escape,), (overkill,) = lines_of(run, "escape"), lines_of(run, "overkill")
    assert escape.startswith(f"{line.escape.rate:.1%} [")
    assert overkill.startswith(f"{line.overkill.rate:.1%} [")
    assert f"; the line makes each a {action}" in lines_of(run, "review")[0]
    assert "4.0% [" in lines_of(run, "error")[0]
