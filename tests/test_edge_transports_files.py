"""The file transport, sinks, topics and backoff."""

import errno
import json
import os
from pathlib import Path

import pytest

from edge.backoff import Backoff
from edge.errors import RefusedError, TopicError, TransportError
from edge.topics import topics
from edge.transports.files import FileTransport
from edge.transports.opening import open_transport, parse_sink
from edge.transports.settings import FileSettings, MqttSettings, SenderSettings

TOPICS = topics("lineside", "cookies", "thing-1")


def transport(path: Path, **settings: object) -> FileTransport:
    made = FileTransport(FileSettings(str(path), **settings))  # type: ignore[arg-type]
    made.start()
    return made


def lines(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_kind_of_message_goes_to_its_own_file_of_a_folder(tmp_path: Path) -> None:
    sink = transport(tmp_path / "sink")
    sink.publish(TOPICS.results, b'{"id":"a-1"}', 1)
    sink.publish(TOPICS.metrics, b'{"parts": 1}', 1)
    sink.close()
    assert lines(tmp_path / "sink" / "results.jsonl") == [{"id": "a-1"}]
    assert lines(tmp_path / "sink" / "metrics.jsonl") == [{"parts": 1}]


def test_a_file_takes_results_and_other_messages_go_beside_it(tmp_path: Path) -> None:
    sink = transport(tmp_path / "out.jsonl")
    sink.publish(TOPICS.results, b'{"id":"a-1"}', 1)
    sink.publish(TOPICS.health, b'{"ok":true}', 1)
    sink.close()
    assert lines(tmp_path / "out.jsonl") == [{"id": "a-1"}]
    assert lines(tmp_path / "out-health.jsonl") == [{"ok": True}]


def test_a_batch_becomes_one_line_per_result(tmp_path: Path) -> None:
    sink = transport(tmp_path / "out.jsonl")
    sink.publish(TOPICS.results, '[{"id":"ä-1"},\n{"id":"a-2"}]'.encode(), 1)
    sink.close()
    assert lines(tmp_path / "out.jsonl") == [{"id": "ä-1"}, {"id": "a-2"}]


def test_a_message_is_on_the_disk_before_publish_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    write, sync = os.write, os.fdatasync
    monkeypatch.setattr(os, "write", lambda *a: (events.append("write"), write(*a))[1])
    monkeypatch.setattr(os, "fdatasync", lambda *a: (events.append("sync"), sync(*a))[1])
    sink = transport(tmp_path / "out.jsonl")
    sink.publish(TOPICS.results, b"{}", 1)
    assert events == ["write", "sync"]
    sink.close()


def test_a_line_cut_by_a_power_loss_spoils_no_later_one(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"id":"a-1"}\n{"id":"a-')
    sink = transport(path)
    sink.publish(TOPICS.results, b'{"id":"a-2"}', 1)
    sink.close()
    assert path.read_text().splitlines() == ['{"id":"a-1"}', '{"id":"a-', '{"id":"a-2"}']


def test_a_full_disk_is_told_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = transport(tmp_path / "out.jsonl")
    sink.publish(TOPICS.results, b'{"id":"a-1"}', 1)
    write = os.write

    def half_then_full(descriptor: int, data: bytes) -> int:
        if len(data) > 4:
            return write(descriptor, data[:4])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda d, data: half_then_full(d, data[-9:] if len(data) > 9 else data[:4]))
        with pytest.raises(TransportError, match="No space left"):
            sink.publish(TOPICS.results, b'{"id":"a-2"}', 1)
    assert "No space left" in sink.state().message
    assert sink.state().connected, "the sender must try again"
    sink.publish(TOPICS.results, b'{"id":"a-3"}', 1)
    assert "writing to" in sink.state().message
    sink.close()
    assert lines(tmp_path / "out.jsonl") == [{"id": "a-1"}, {"id": "a-3"}]


def test_a_folder_that_cannot_be_made_is_told_and_tried_again(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    sink = transport(blocked / "sink")
    assert "cannot make this folder" in sink.state().message
    with pytest.raises(TransportError, match="cannot write"):
        sink.publish(TOPICS.results, b"{}", 1)
    blocked.unlink()
    sink.publish(TOPICS.results, b"{}", 1)
    sink.close()


def test_a_file_that_has_grown_is_rotated_and_the_oldest_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = transport(tmp_path / "out.jsonl", rotate_bytes=1000, keep_files=2)
    for number in range(40):
        sink.publish(TOPICS.results, json.dumps({"n": number, "text": "x" * 80}).encode(), 1)
    sink.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["out.jsonl", "out.jsonl.1", "out.jsonl.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    kept = [item["n"] for name in ("out.jsonl.2", "out.jsonl.1", "out.jsonl") for item in lines(tmp_path / name)]
    assert kept == list(range(kept[0], 40))
    assert "event=file_dropped" in caplog.text


def test_a_message_larger_than_a_file_still_gets_written(tmp_path: Path) -> None:
    sink = transport(tmp_path / "out.jsonl", rotate_bytes=1000)
    sink.publish(TOPICS.results, json.dumps({"text": "x" * 3000}).encode(), 1)
    sink.publish(TOPICS.results, b"{}", 1)
    sink.close()
    assert len(lines(tmp_path / "out.jsonl.1")) == len(lines(tmp_path / "out.jsonl")) == 1


@pytest.mark.parametrize("payload", [b"not json", b"\xff\xfe", b"", b"{"])
def test_what_is_no_json_is_refused(tmp_path: Path, payload: bytes) -> None:
    sink = transport(tmp_path / "out.jsonl")
    with pytest.raises(RefusedError, match="want JSON"):
        sink.publish(TOPICS.results, payload, 1)
    sink.close()


def test_files_bring_no_messages(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="files bring no messages"):
        transport(tmp_path / "out.jsonl").subscribe(TOPICS.trigger, lambda topic, payload: None)


def test_the_topics_of_a_device() -> None:
    assert TOPICS.results == "lineside/cookies/thing-1/results"
    assert TOPICS.local_trigger == "lineside/cookies/trigger"


@pytest.mark.parametrize(
    ("root", "line", "thing"),
    [
        ("", "cookies", "a"),
        ("lineside/#", "cookies", "a"),
        ("$aws", "cookies", "a"),
        ("a/b/c/d", "cookies", "a"),
        ("lineside", "Cookies", "a"),
        ("lineside", "co/okies", "a"),
        ("lineside", "cookies", "a/b"),
        ("lineside", "cookies", "+"),
        ("lineside", "cookies", ""),
        ("lineside", "cookies", "x" * 129),
    ],
)
def test_names_that_would_change_a_topic_are_refused(root: str, line: str, thing: str) -> None:
    with pytest.raises(TopicError, match="want"):
        topics(root, line, thing)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("file:results.jsonl", ("file", {"path": "results.jsonl"})),
        ("file:/data/a:b", ("file", {"path": "/data/a:b"})),
        ("mqtt:broker.example:8883", ("mqtt", {"host": "broker.example", "port": "8883"})),
        ("mqtt:broker.example", ("mqtt", {"host": "broker.example"})),
        ("greengrass", ("greengrass", {})),
        ("none", ("none", {})),
    ],
)
def test_sinks_as_people_type_them(text: str, want: tuple[str, dict[str, str]]) -> None:
    assert parse_sink(text) == want


@pytest.mark.parametrize("text", ["", "file:", "mqtt:", "mqtt::8883", "mqtt:host:port", "kafka:x", "greengrass:x"])
def test_other_sinks_are_refused(text: str) -> None:
    with pytest.raises(TransportError, match="want file:PATH"):
        parse_sink(text)


def test_a_sink_that_nobody_knows_cannot_be_opened() -> None:
    with pytest.raises(TransportError, match="want file, mqtt or greengrass"):
        open_transport("kafka", TOPICS, "thing-1", "cookies", FileSettings(), MqttSettings())


def test_every_fault_of_the_settings_is_named() -> None:
    faults = MqttSettings(host="mqtt://x", port=0, keep_alive_s=1, reconnect_min_s=9, reconnect_max_s=1).check()
    text = "\n".join(faults)
    for name in ("host", "port", "certificate", "key", "keep_alive_s", "ping_timeout_s", "reconnect_min_s"):
        assert f"mqtt.{name}" in text
    assert MqttSettings("broker", certificate="a", key="b").check() == []
    assert len(FileSettings("", 1, 0).check()) == 3
    assert len(SenderSettings(batch_bytes=10, poll_s=0, retry_min_s=100, retry_max_s=1).check()) == 3
    assert SenderSettings().check() == []


def test_waits_double_to_the_longest_and_vary_at_random() -> None:
    now = 0.0
    shares = iter([0.0, 0.0, 1.0, 0.5, 0.0])
    backoff = Backoff(1.0, 4.0, clock=lambda: now, jitter=lambda: next(shares))
    assert [backoff.fail() for _ in range(4)] == [1.0, 2.0, 2.0, 3.0]
    assert backoff.remaining_s() == 3.0
    now = 2.0
    assert backoff.remaining_s() == 1.0
    backoff.succeed()
    assert backoff.remaining_s() == 0
    assert backoff.fail() == 1.0
