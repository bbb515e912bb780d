"""Logs are one line an event, hold no secrets and do not flood; a run ends with a table."""

import io
import logging
import sys
from collections import Counter

import pytest

from edge.clock import Clock
from edge.logs import LineFormatter, RateLimit, set_up_logs
from edge.results import Result
from edge.summary import Tally, describe, verdict_line


def test_a_record_is_one_line_even_with_a_traceback() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("edge.test_one_line")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter())
    logger.addHandler(handler)
    try:
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logger.exception("event=broke part=%r", "a\nb")
        logger.error("event=long %s", "x" * 9000)
    finally:
        logger.removeHandler(handler)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("time=20")
    assert " level=error logger=edge.test_one_line event=broke part='a\\nb' traceback=" in lines[0]
    assert "ValueError: two" in lines[0]
    assert len(lines[1]) == 2000


def test_many_lines_of_one_kind_are_counted_instead() -> None:
    now = [0.0]
    limit = RateLimit(lambda: now[0])

    def passes(message: str) -> logging.LogRecord | None:
        record = logging.LogRecord("edge.camera", logging.WARNING, "file", 1, message, (), None)
        return record if limit.filter(record) else None

    assert sum(passes("event=gone n=%d") is not None for _ in range(100)) == 5
    assert passes("event=other") is not None  # another kind
    now[0] = 10.0
    record = passes("event=gone n=%d")
    assert record is not None
    assert record.suppressed == 95  # type: ignore[attr-defined]
    assert "suppressed=95" in LineFormatter().format(record)
    now[0] = 1000.0
    assert sum(passes("event=gone n=%d") is not None for _ in range(100)) == 5


def test_messages_without_a_fixed_form_do_not_fill_the_memory() -> None:
    limit = RateLimit(lambda: 0.0)
    for number in range(2000):
        limit.filter(logging.LogRecord("edge", logging.INFO, "file", 1, f"event={number}", (), None))
    assert len(limit._kinds) <= 500


def test_logs_go_to_stdout_unless_told_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level, raises = list(root.handlers), root.level, logging.raiseExceptions
    try:
        set_up_logs("info", sys.stdout)
        logging.getLogger("edge.x").info("event=hello")
        logging.getLogger("edge.x").debug("event=quiet")
        set_up_logs("info", sys.stderr)
        logging.getLogger("edge.x").info("event=there")
    finally:
        for handler in list(root.handlers):
            root.removeHandler(handler)
        for handler in before:
            root.addHandler(handler)
        root.setLevel(level)
        logging.raiseExceptions = raises
    captured = capsys.readouterr()
    assert captured.out.endswith("event=hello\n")
    assert captured.err.endswith("event=there\n")


def result(number: int, verdict: str, **more: object) -> Result:
    fields = {"score": 1.5, "probability": 0.8, "latency_ms": {"decode": 3.0, "total": 10.0 + number}, **more}
    action = {"pass": "accept", "review": "review"}.get(verdict, "reject")
    return Result(
        thing="cam-1", sequence=number, source_key=str(number), line="l", captured_at=1.0,
        verdict=verdict, action=action, **fields,
    )  # type: ignore[arg-type]  # fmt: skip


def test_the_table_tells_counts_rates_latency_and_faults() -> None:
    tally = Tally()
    for number in range(98):
        tally.record(result(number, "pass"))
    tally.record(result(98, "fail", label="scratch"))
    tally.record(result(99, "error", score=None, probability=None, error="decode", detail="cut"))
    text = describe(tally, 3, 1, Counter(store=2), "serving abc")
    lines = {line.split()[0]: line for line in text.splitlines() if line}
    assert lines["pass"].split()[1:] == ["98", "98.0%"]
    assert "decode 1" in lines["error"]
    assert "3 more had their verdict already" in lines["all"]
    assert "1 came too late" in lines["all"]
    assert lines["total"].split()[1] == "59.5"
    assert lines["total"].split()[-2] == "109.0"
    assert "accept 98, reject 2" in text
    assert lines["faults"].split() == ["faults", "store", "2"]


def test_a_run_without_parts_has_a_table_too() -> None:
    assert "no part came" in describe(Tally(), 0, 0, Counter(), "none")


def test_a_verdict_line_has_the_score_or_the_reason() -> None:
    assert verdict_line(result(0, "fail", label="scratch"), "a.png").endswith("a.png  scratch")
    error = result(0, "error", score=None, probability=None, error="decode", detail="a.png: cut")
    assert "decode: a.png: cut" in verdict_line(error, "a.png")
    assert "\033[" in verdict_line(result(0, "pass"), "a.png", colour=True)


def test_the_kernel_says_whether_the_clock_is_set() -> None:
    clock = Clock()
    assert clock.synced() in (True, False, None)
    assert clock.synced() is clock.synced()


def test_secrets_are_not_logged() -> None:
    record = logging.LogRecord("edge", logging.INFO, "file", 1, "event=x uri=%r", ("rtsp://admin:hunter2@cam",), None)
    assert "hunter2" not in LineFormatter().format(record)
