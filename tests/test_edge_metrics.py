"""The minute's message: embedded metric format, its limits, drift, and the machine's figures."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.contract import DriftReference
from edge.drift import drift_distance
from edge.metrics import (
    DRIFT_LEAST,
    EARLIEST_S,
    FOLDED_AT_ONCE,
    MAX_MESSAGE_BYTES,
    MAX_METRICS,
    Around,
    Metrics,
    MetricsSettings,
    dump_metrics,
)
from edge.minute import SCORE_EDGES
from edge.results import Result
from edge.selection import Counts
from edge.spool.records import FoldedCounts, SpoolFigures
from edge.statistics import ImageStatistics
from edge.uploader.supervisor import UploadState
from edge.vitals import Vitals, cpu_temperature_c, read_vitals, rss_bytes

NOW_S = 1_790_000_000.0
DECILES = tuple(float(value) for value in range(0, 110, 10))
REFERENCE = DriftReference(score=DECILES, brightness=DECILES, contrast=DECILES, sharpness=DECILES)
# Source: the list of units in the Amazon CloudWatch API reference, MetricDatum.
UNITS = {"Count", "Milliseconds", "Seconds", "Megabytes", "Gigabytes", "Percent", "None"}


def check_format(message: dict[str, Any]) -> dict[str, Any]:
    """Hold a message against the published rules of the embedded metric format; returns its metric directive."""
    assert set(message["_aws"]) == {"Timestamp", "CloudWatchMetrics"}
    assert type(message["_aws"]["Timestamp"]) is int
    assert message["_aws"]["Timestamp"] > 1_000_000_000_000  # milliseconds
    (directive,) = message["_aws"]["CloudWatchMetrics"]
    assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
    assert 1 <= len(directive["Namespace"]) <= 1024
    for dimensions in directive["Dimensions"]:
        assert len(dimensions) <= 30
        for name in dimensions:
            assert isinstance(message[name], str)
            assert 1 <= len(message[name]) <= 1024
    names = [metric["Name"] for metric in directive["Metrics"]]
    assert 0 < len(names) <= 100
    assert len(set(names)) == len(names)
    for metric in directive["Metrics"]:
        assert set(metric) <= {"Name", "Unit"}
        assert metric.get("Unit", "None") in UNITS
        value = message[metric["Name"]]
        values = value if isinstance(value, list) else [value]
        assert 1 <= len(values) <= 100
        assert all(type(number) in (int, float) and np.isfinite(number) for number in values)
    return dict(directive)


def a_result(verdict: str = "pass", score: float | None = -3.0, **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "thing": "press-3",
        "sequence": 1,
        "source_key": "k",
        "line": "tiny",
        "captured_at": NOW_S,
        "verdict": verdict,
        "action": "accept",
        "score": score,
        "latency_ms": {"queue": 0.5, "decode": 20.25, "preprocess": 3.0, "detect": 11.125, "total": 36.0},
    }
    return Result(**{**fields, **changes})


def figures(**changes: Any) -> SpoolFigures:
    fields: dict[str, Any] = {
        "state": "ok",
        "reason": None,
        "notice": None,
        "queue_length": 7,
        "oldest_age_s": 12.5,
        "in_memory": 0,
        "bytes": 1_000_000,
        "quota_bytes": 500_000_000,
        "evicted": {"pass": 0},
        "folded": 0,
        "upload_backlog": 3,
        "next_sequence": 100,
        "gaps": 0,
        "lost": 0,
        "duplicates": 0,
        "commits": 5,
        "commit_ms": 4.0,
    }
    return SpoolFigures(**{**fields, **changes})


def everything(labels: int = 3) -> Around:
    counts = Counts()
    for index in range(labels):
        counts.kept[f"fail/label-{index}/fail"] = 5 + index
        counts.thinned[f"fail/label-{index}/fail"] = 3
        counts.capped[f"fail/label-{index}/fail"] = 2
    folded = [FoldedCounts("press-3", "tiny", int(NOW_S), "p" * 64, "op", 500, 1, 600) for _ in range(10)]
    return Around(
        spool=figures(evicted={"pass": 1, "audit-image": 2, "review-image": 3, "fail-image": 4}),
        review=counts,
        upload=UploadState(False, "offline", "x", 5, 1_000_000, 0, 0),
        vitals=Vitals(55.5, 80_000_000, 12_000_000_000, 32_000_000_000),
        folded=folded,
        degraded=True,
    )


def some_metrics(**changes: Any) -> Metrics:
    return Metrics("tiny", "press-3", MetricsSettings(**changes), seed=0)


def fill(metrics: Metrics, parts: int, labels: int = 0) -> None:
    draw = np.random.default_rng(0)
    for index in range(parts):
        latency = {name: float(draw.gamma(9, 4.321)) for name in ("queue", "decode", "preprocess", "detect", "total")}
        label = f"label-{index % labels}" if labels else None
        metrics.record(
            a_result("pass", float(draw.normal()), latency_ms=latency, label=label),
            ImageStatistics(*(float(value) for value in draw.uniform(0, 100, 3))),
        )


def test_a_full_minute_keeps_to_the_format_and_to_its_own_limits() -> None:
    metrics = some_metrics(group="canary")
    metrics.use_model("int8-abc", REFERENCE)
    fill(metrics, 5000, labels=40)
    message = metrics.message(NOW_S, everything(labels=40))
    directive = check_format(message)
    assert directive["Dimensions"] == [["line"], ["line", "group"]]
    assert (message["line"], message["group"], message["thing"]) == ("tiny", "canary", "press-3")
    assert 25 <= len(directive["Metrics"]) <= MAX_METRICS
    assert len(dump_metrics(message)) <= MAX_MESSAGE_BYTES
    assert len(message["TotalLatency"]) >= 10


def test_an_ordinary_minute_has_a_hundred_latencies_of_the_whole_and_some_of_each_stage() -> None:
    metrics = some_metrics()
    fill(metrics, 600)
    message = metrics.message(NOW_S, Around(spool=figures(), vitals=Vitals(50.0, 1, 1, 1)))
    assert len(message["TotalLatency"]) == 100
    for stage in ("Queue", "Decode", "Preprocess", "Detect"):
        assert 20 <= len(message[f"{stage}Latency"]) <= 100
    check_format(message)


def test_the_smallest_messages_keep_to_the_format() -> None:
    metrics = some_metrics()
    quiet = metrics.message(NOW_S)
    assert check_format(quiet)
    assert quiet["Inspections"] == 0
    assert "TotalLatency" not in quiet  # the format knows no empty list
    assert "ScoreMean" not in quiet
    metrics.record(a_result("error", score=None, error="decode", latency_ms={}), None)
    message = metrics.message(NOW_S + 60, Around(vitals=Vitals(None, None, None, None)))
    check_format(message)
    assert (message["Inspections"], message["Error"], message["errors"]) == (1, 1, {"decode": 1})
    assert "CpuTemperature" not in message


def test_each_minute_counts_its_own_parts() -> None:
    metrics = some_metrics()
    for verdict in ("pass", "pass", "fail", "review"):
        metrics.record(a_result(verdict, label=None if verdict == "pass" else "dent"), ImageStatistics(100, 20, 5))
    message = metrics.message(NOW_S)
    assert [message[name] for name in ("Inspections", "Pass", "Fail", "Review", "Error")] == [4, 2, 1, 1, 0]
    assert message["labels"] == {"dent": 2}
    assert (message["ScoreMean"], message["BrightnessMean"], message["ContrastMean"], message["SharpnessMean"]) == (
        -3.0,
        100.0,
        20.0,
        5.0,
    )
    after = metrics.message(NOW_S + 60)
    assert (after["Inspections"], after["labels"], after["period_s"]) == (0, {}, 60.0)


def test_the_score_histogram_counts_every_score_once() -> None:
    metrics = some_metrics()
    for score in (-1e9, -3.5, -3.0, 0.0, 9.99, 10.0, 1e9):
        metrics.record(a_result(score=score), None)
    message = metrics.message(NOW_S)
    counts = message["score_counts"]
    assert len(counts) == len(SCORE_EDGES) + 1
    assert sum(counts) == 7
    assert counts[0] == 1
    assert counts[SCORE_EDGES.index(-4.0) + 1] == 1  # -4 <= -3.5 < -3
    assert counts[SCORE_EDGES.index(-3.0) + 1] == 1
    assert counts[-1] == 2


def test_totals_of_the_spool_become_counts_of_the_minute() -> None:
    metrics = some_metrics()
    first = metrics.message(NOW_S, Around(spool=figures(evicted={"pass": 900}, lost=4)))
    assert (first["Evictions"], first["Lost"]) == (0, 0)  # of long ago
    second = metrics.message(NOW_S + 60, Around(spool=figures(evicted={"pass": 905, "audit-image": 2}, lost=5)))
    assert (second["Evictions"], second["Lost"]) == (7, 1)
    assert second["evicted_total"] == {"pass": 905, "audit-image": 2}
    made_anew = metrics.message(NOW_S + 120, Around(spool=figures(evicted={"pass": 3}, lost=0)))
    assert (made_anew["Evictions"], made_anew["Lost"]) == (3, 0)


def test_what_was_lost_before_the_start_is_in_the_first_message() -> None:
    metrics = some_metrics()
    metrics.begin(figures(evicted={"pass": 900}, lost=11, newly_lost=7))  # four were told by programs before
    first = metrics.message(NOW_S, Around(spool=figures(evicted={"pass": 903}, lost=11, newly_lost=7)))
    assert (first["Lost"], first["Evictions"], first["lost_total"]) == (7, 3, 11)
    second = metrics.message(NOW_S + 60, Around(spool=figures(evicted={"pass": 903}, lost=11, newly_lost=7)))
    assert (second["Lost"], second["Evictions"]) == (0, 0)


def test_folded_passes_that_do_not_fit_are_left_for_another_message() -> None:
    metrics = some_metrics()
    long = [FoldedCounts("t" * 96, "l" * 32, int(NOW_S), "p" * 96, "o" * 96, 5, n, n) for n in range(FOLDED_AT_ONCE)]
    counts = Counts()
    for index in range(40):
        counts.kept[f"fail/{'ü' * 10}-{index}/fail"] = counts.capped[f"fail/{'ü' * 10}-{index}/fail"] = 5
    message = metrics.message(NOW_S, Around(spool=figures(), review=counts, folded=long))
    assert len(dump_metrics(message)) <= MAX_MESSAGE_BYTES
    assert 0 < len(message["folded"]) < FOLDED_AT_ONCE


def test_kept_and_dropped_images_are_counted_and_told_by_stratum() -> None:
    metrics = some_metrics()
    counts = Counts(Counter({"pass/-/audit": 2}), Counter({"fail/dent/fail": 3}), Counter({"fail/dent/fail": 1}))
    message = metrics.message(NOW_S, Around(review=counts))
    assert (message["ImagesKept"], message["ImagesDropped"]) == (2, 4)
    assert message["images_thinned_total"] == {"fail/dent/fail": 3}
    counts.kept["pass/-/audit"] += 1
    assert metrics.message(NOW_S + 60, Around(review=counts))["ImagesKept"] == 1


def test_latencies_are_a_fair_sample_of_the_minute() -> None:
    early = 0
    for seed in range(200):
        metrics = Metrics("tiny", "t", MetricsSettings(), seed=seed)
        for index in range(400):
            metrics.record(a_result(latency_ms={"total": float(index), "queue": float(index)}), None)
        message = metrics.message(NOW_S)
        early += sum(value < 200 for value in message["TotalLatency"][:10])
    assert abs(early / 2000 - 0.5) < 0.05


def test_folded_passes_are_told_with_their_hour_and_never_as_metrics_of_now() -> None:
    metrics = some_metrics()
    fresh = FoldedCounts("press-3", "tiny", int(NOW_S - 3600), "p", "op", 10, 1, 12)
    stale = FoldedCounts("press-3", "tiny", int(NOW_S - 14 * 24 * 3600), "p", "op", 20, 13, 40)
    message = metrics.message(NOW_S, Around(folded=[fresh, stale] * 5))
    assert len(message["folded"]) == FOLDED_AT_ONCE
    assert [(entry["count"], entry["storage_only"]) for entry in message["folded"][:2]] == [(10, False), (20, True)]
    assert message["folded"][0]["id"] == "press-3-folded-12"
    assert message["Inspections"] == 0
    check_format(message)


def test_a_clock_that_was_never_set_makes_no_metrics_for_cloudwatch() -> None:
    message = some_metrics().message(1000.0)
    assert message["storage_only"] is True
    assert "_aws" not in message
    assert "storage_only" not in some_metrics().message(EARLIEST_S + 1)


def test_the_message_is_json_without_infinities() -> None:
    metrics = some_metrics()
    fill(metrics, 50)
    assert json.loads(dump_metrics(metrics.message(NOW_S, everything())))["Inspections"] == 50


@pytest.mark.parametrize("bad", ["", "AWS/EC2", "x" * 200, "grüppe", "a\nb", ":x"])
def test_names_that_cloudwatch_refuses_are_refused(bad: str) -> None:
    assert MetricsSettings(namespace=bad).check()[0].startswith("namespace: want 1 to 128 printable ASCII")
    assert MetricsSettings(group=bad).check()[0].startswith("group: want")
    assert MetricsSettings().check() == []


# --- drift


def test_no_drift_is_near_nothing_and_another_world_is_one() -> None:
    draw = np.random.default_rng(0)
    same = draw.uniform(0, 100, 1000)
    assert drift_distance(same, DECILES) < 1.36 / 1000**0.5
    assert drift_distance(same + 1000, DECILES) == 1.0
    assert drift_distance(same - 1000, DECILES) == 1.0
    assert drift_distance(same / 2, DECILES) == pytest.approx(0.5, abs=0.06)
    assert drift_distance(same + 30, DECILES) == pytest.approx(0.3, abs=0.06)
    assert drift_distance(np.full(50, 55.0), DECILES) == pytest.approx(0.5)


def test_a_reference_that_jumps_counts_only_what_lies_outside_the_jump() -> None:
    constant = (7.0,) * 11
    assert drift_distance(np.full(100, 7.0), constant) == 0.0
    assert drift_distance(np.full(100, 7.1), constant) == 1.0
    assert drift_distance(np.full(100, 6.9), constant) == 1.0
    half = (0.0,) * 6 + (1.0, 2.0, 3.0, 4.0, 5.0)  # half of the calibration values or more are 0
    live = np.concatenate([np.zeros(500), np.random.default_rng(0).uniform(0, 5, 500)])
    assert drift_distance(live, half) < 0.05


def test_drift_is_told_of_enough_parts_and_forgets_those_of_another_model() -> None:
    metrics = some_metrics()
    metrics.use_model("one", REFERENCE)
    fill(metrics, DRIFT_LEAST - 1)
    assert "BrightnessDrift" not in metrics.message(NOW_S)
    fill(metrics, 500)
    message = metrics.message(NOW_S)
    assert message["BrightnessDrift"] < 0.1
    assert message["ScoreDrift"] > 0.3  # scores around 0, where the reference goes from 0 to 100
    assert message["drift_parts"] == 599
    metrics.use_model("one", REFERENCE)
    assert metrics.message(NOW_S)["drift_parts"] == 599
    metrics.use_model("two", REFERENCE)
    assert metrics.message(NOW_S)["drift_parts"] == 0


# --- the machine


def zone(folder: Path, number: int, kind: str, temperature: str) -> None:
    path = folder / f"thermal_zone{number}"
    path.mkdir()
    (path / "type").write_text(f"{kind}\n")
    (path / "temp").write_text(temperature)


def test_the_temperature_is_that_of_the_processor(tmp_path: Path) -> None:
    zone(tmp_path, 0, "acpitz", "27800\n")
    zone(tmp_path, 1, "iwlwifi_1", "99000\n")
    assert cpu_temperature_c(tmp_path) == 27.8
    zone(tmp_path, 2, "cpu-thermal", "61250\n")
    zone(tmp_path, 3, "CPU-therm", "63000\n")
    assert cpu_temperature_c(tmp_path) == 63.0
    zone(tmp_path, 4, "cpu-broken", "not a number")
    assert cpu_temperature_c(tmp_path) == 63.0


def test_a_machine_that_tells_nothing_has_no_figures(tmp_path: Path) -> None:
    assert cpu_temperature_c(tmp_path / "none") is None
    assert rss_bytes(tmp_path / "none") is None
    gone = read_vitals(tmp_path / "gone")
    assert (gone.disk_free_bytes, gone.disk_bytes) == (None, None)


def test_memory_and_disk_are_told(tmp_path: Path) -> None:
    vitals = read_vitals(tmp_path)
    assert vitals.rss_bytes is not None
    assert 5_000_000 < vitals.rss_bytes < 10_000_000_000
    assert vitals.disk_free_bytes is not None
    assert vitals.disk_bytes is not None
    assert 0 <= vitals.disk_free_bytes <= vitals.disk_bytes
