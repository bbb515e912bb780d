"""The result of an inspection as a message."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge.errors import ResultError
from edge.results import MAX_MESSAGE_BYTES, Result, canonical_key, dump_result, parse_result

GOLDEN = Path(__file__).parent / "golden" / "result-1.0.json"


def full_result() -> Result:
    return Result(
        thing="press-3",
        sequence=217_565_020_397,
        source_key="folder:part-0001.jpg@1700000000",
        line="sample",
        captured_at=1_700_000_000.25,
        clock_synced=True,
        verdict="fail",
        action="reject",
        score=3.25,
        probability=0.96,
        label="scratch",
        package="0f" * 32,
        operating_point="op-1",
        artifact="int8",
        runtime="ai-edge-litert 2.3.0",
        image_sha256="ab" * 32,
        part_id="P-17",
        lot="L-4",
        station="end",
        view="top",
        latency_ms={"queue": 0.5, "decode": 11.0, "preprocess": 2.0, "detect": 4.0, "total": 17.5},
    )


def test_a_result_survives_the_way_through_text() -> None:
    result = full_result()
    assert parse_result(dump_result(result)) == result
    document = json.loads(dump_result(result))
    assert document["id"] == "press-3-217565020397"
    assert (document["schema"], document["requires"]) == ("1.0", [])


def test_text_is_the_same_for_the_same_result_and_leaves_out_what_is_not_known() -> None:
    bare = Result(
        thing="t", sequence=1, source_key="k", line="l", captured_at=0.0, verdict="error", action="reject", error="e"
    )
    assert dump_result(bare) == dump_result(replace(bare))
    assert "score" not in json.loads(dump_result(bare))
    assert parse_result(dump_result(bare)) == bare


def test_fail_review_and_error_are_urgent() -> None:
    urgent = {
        verdict: replace(full_result(), verdict=verdict).urgent for verdict in ("pass", "fail", "review", "error")
    }
    assert urgent == {"pass": False, "fail": True, "review": True, "error": True}


def test_the_message_of_schema_1_0_is_read() -> None:
    assert parse_result(GOLDEN.read_text()) == full_result()
    assert GOLDEN.read_text() == dump_result(full_result()) + "\n"


def test_a_newer_minor_is_read_and_its_unknown_fields_are_ignored() -> None:
    document = json.loads(dump_result(full_result())) | {"schema": "1.7", "humidity": 0.3}
    assert parse_result(json.dumps(document)) == full_result()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "2.0"}, "another major version"),
        ({"schema": None}, "major.minor"),
        ({"requires": ["signed"]}, "update this program"),
        ({"requires": "signed"}, "update this program"),
        ({"verdict": "maybe"}, "want one of"),
        ({"verdict": ["pass"]}, "want one of"),
        ({"sequence": "7"}, "want int"),
        ({"sequence": True}, "want int"),
        ({"score": "high"}, "want float"),
        ({"latency_ms": [1]}, "want an object"),
        ({"latency_ms": {"total": None}}, "want float"),
        ({"source_key": 3}, "want str"),
    ],
)
def test_what_is_not_a_result_of_this_major_is_refused(change: dict[str, object], message: str) -> None:
    document = json.loads(dump_result(full_result())) | change
    with pytest.raises(ResultError, match=message):
        parse_result(json.dumps(document), "spool row 7")


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '{"schema": "1.0"}'])
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(ResultError):
        parse_result(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_makes_no_result(value: float) -> None:
    with pytest.raises(ResultError, match="finite"):
        replace(full_result(), score=value)
    text = dump_result(full_result()).replace("3.25", {"nan": "NaN", "inf": "Infinity"}.get(str(value), "-Infinity"))
    with pytest.raises(ResultError, match="finite"):
        parse_result(text)


@pytest.mark.parametrize("character", ['"', "\\", "\x00", "ä", "漢", "\udc80", "😀", " "])
def test_no_text_makes_a_message_too_long_or_impossible(character: str) -> None:
    long = character * 3000
    names = ("line", "label", "error", "package", "operating_point", "artifact", "runtime", "part_id", "lot", "station")
    result = replace(
        full_result(),
        source_key=long,
        detail=long,
        image_sha256=long,
        thing=long,
        view=long,
        **dict.fromkeys(names, long),
    )
    text = dump_result(result)
    assert len(text.encode()) <= MAX_MESSAGE_BYTES
    assert parse_result(text) == result


def test_a_source_key_is_stable_and_tells_long_ones_apart() -> None:
    first, second = "x" * 4000 + "1", "x" * 4000 + "2"
    assert canonical_key(first) != canonical_key(second)
    for key in (first, "part-1.jpg", "\udcff.jpg", "tab\t.jpg"):
        assert canonical_key(canonical_key(key)) == canonical_key(key)
    assert replace(full_result(), source_key=first).source_key == canonical_key(first)
