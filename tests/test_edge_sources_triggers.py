"""Triggers by message and by wire: each gets one part, garbage is counted, and the loop goes on."""

import base64
import datetime
import enum
import json
import random
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from edge.errors import RefusedError, SourceError, TransportError
from edge.sources import answers as answers_module
from edge.sources import identity, trouble
from edge.sources.gpio import GpioTriggers
from edge.sources.messages import TopicTriggers
from edge.sources.opening import open_source
from edge.sources.settings import SourceSettings, TriggerSettings
from edge.sources.trigger_message import BadTriggerError, TriggerMessage, read_trigger
from edge.sources.triggered import TriggeredSource

LONG_S = 20.0
JPEG = b"\xff\xd8\xff\xe0 not really a picture"
TOPIC = "lineside/dots/thing-1/trigger"


class FakeTransport:
    """Loopback: hands messages to the subscriber, keeps what is published."""

    max_payload_bytes = 100_000

    def __init__(self, name: str = "mqtt") -> None:
        self.name = name
        self.published: list[tuple[str, dict[str, Any]]] = []
        self.failures: list[Exception] = []
        self.receive: Callable[[str, bytes], None] = lambda topic, payload: None
        self.receive_kept: Callable[[str, bytes], None] | None = None

    def subscribe(
        self,
        topic: str,
        on_message: Callable[[str, bytes], None],
        on_kept: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self.topic, self.receive, self.receive_kept = topic, on_message, on_kept

    def publish(self, topic: str, payload: bytes, timeout_s: float) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.published.append((topic, json.loads(payload)))

    def send(self, message: object, kept: bool = False) -> None:
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        receive = self.receive_kept if kept else self.receive
        assert receive is not None
        receive(self.topic, payload)


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def source(transport: FakeTransport) -> Iterator[TriggeredSource]:
    opened = open_source("trigger:", SourceSettings(station="press"), transport, TOPIC)  # type: ignore[arg-type]
    assert isinstance(opened, TriggeredSource)
    yield opened
    opened.close()


@pytest.fixture
def triggers(transport: FakeTransport) -> Iterator[TopicTriggers]:
    """Messages for which a camera looks."""
    opened = TopicTriggers(transport, TOPIC, TriggerSettings(max_age_ms=500), camera=True)  # type: ignore[arg-type]
    yield opened
    opened.close()


def iso(at: float, zone: str) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.timezone.utc).isoformat().replace("+00:00", zone)  # noqa: UP017


def result(**values: object) -> Any:
    fields = {"id": "thing-1-5", "verdict": "pass", "action": "accept", "label": None, "score": -1.5}
    return SimpleNamespace(**{**fields, "error": None, "detail": None, **values})


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_message_brings_a_part_with_its_names_and_image(transport: FakeTransport, source: TriggeredSource) -> None:
    assert transport.topic == TOPIC
    transport.send({"id": "a-1", "part_id": "p7", "lot": 33, "view": "top", "image": base64.b64encode(JPEG).decode()})
    part = source.next_part(LONG_S)
    assert part is not None
    assert (part.part_id, part.lot, part.station, part.view) == ("p7", "33", "press", "top")
    assert (part.data, part.fault) == (JPEG, None)
    assert part.source_key.startswith("trigger:a-1#")
    assert part.started_s <= time.monotonic()
    assert part.handle.message.image is None  # type: ignore[attr-defined]  # the picture is not kept twice


def test_an_image_alone_is_a_trigger(transport: FakeTransport, source: TriggeredSource) -> None:
    keys = set()
    for _ in range(2):
        transport.send(JPEG)
        part = source.next_part(LONG_S)
        assert part is not None
        assert part.data == JPEG
        keys.add(part.source_key)
    assert len(keys) == 2


def test_the_same_id_names_and_image_are_the_same_inspection(transport: FakeTransport, source: TriggeredSource) -> None:
    keys = set()
    for trigger_id in ("7", 7, "7"):
        transport.send({"id": trigger_id, "part_id": "p", "image": base64.b64encode(JPEG).decode()})
        part = source.next_part(LONG_S)
        assert part is not None
        keys.add(part.source_key)
    assert len(keys) == 1


def test_an_id_that_is_used_again_means_another_part(transport: FakeTransport, source: TriggeredSource) -> None:
    """Counters begin again: yesterday's verdict must not answer for today's part."""
    keys = set()
    messages: list[dict[str, object]] = [
        {"image": base64.b64encode(JPEG).decode()},
        {"image": base64.b64encode(JPEG + b"another").decode()},
        {"image": base64.b64encode(JPEG).decode(), "part_id": "A-1"},
        {"image": base64.b64encode(JPEG).decode(), "part_id": "B-9"},
        {"image": base64.b64encode(JPEG).decode(), "lot": "A-1"},
        {"part_id": "A-1"},  # without an image: an error, and so are the next two
        {"part_id": ["garbage"]},
        {"part_id": ["other garbage"]},
    ]
    for message in messages:
        transport.send({"id": "17", **message})
        part = source.next_part(LONG_S)
        assert part is not None
        keys.add(part.source_key)
    assert len(keys) == len(messages)


def test_a_camera_looks_again_when_an_id_comes_again_later_or_with_other_names(transport: FakeTransport) -> None:
    settings = TriggerSettings(repeat_within_s=0.3)
    triggers = TopicTriggers(transport, TOPIC, settings, camera=True)  # type: ignore[arg-type]

    def key(message: dict[str, object]) -> str:
        transport.send(message)
        trigger = triggers.wait(LONG_S)
        assert trigger is not None
        return trigger.key

    first = key({"id": 17, "part_id": "A-1"})
    assert key({"id": 17, "part_id": "A-1"}) == first  # delivered twice
    assert key({"id": 17, "part_id": "B-9"}) != first
    assert key({"id": 17, "part_id": "A-1", "lot": "2"}) != first
    assert key({"id": 18, "part_id": "A-1"}) != first
    time.sleep(0.35)
    later = key({"id": 17, "part_id": "A-1"})
    assert later != first
    triggers.close()
    triggers = TopicTriggers(transport, TOPIC, settings, camera=True)  # type: ignore[arg-type]
    assert key({"id": 17, "part_id": "A-1"}) not in (first, later)  # the program was started anew
    triggers.close()


def test_what_a_camera_remembers_of_its_triggers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_MAX_REMEMBERED", 5)
    identities = identity.Identities(60.0)
    keys = [identities.of_moment(TriggerMessage(str(number)), 0.0) for number in range(20)]
    assert len(set(keys)) == 20
    assert len(identities._seen) == 5
    assert identities.of_moment(TriggerMessage("19"), 1.0) == keys[19]


def test_the_verdict_is_answered(transport: FakeTransport, source: TriggeredSource) -> None:
    transport.send({"id": "a-1", "part_id": "p7", "image": base64.b64encode(JPEG).decode()})
    part = source.next_part(LONG_S)
    assert part is not None
    assert transport.published == []  # not before it is durable
    transport.failures = [TransportError("offline")]  # passes
    source.acknowledge(part, result())
    wait_until(lambda: transport.published)
    ((topic, answer),) = transport.published
    assert topic == f"{TOPIC}/answer"
    assert answer == {
        **{"schema": "1.0", "trigger": "a-1", "part_id": "p7", "result": "thing-1-5"},
        **{"verdict": "pass", "action": "accept", "score": -1.5},
    }


def test_a_refused_or_stale_answer_is_dropped_and_counted(
    transport: FakeTransport, source: TriggeredSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport.send({"id": "a-1", "image": base64.b64encode(JPEG).decode()})
    part = source.next_part(LONG_S)
    assert part is not None
    transport.failures = [RefusedError("no such topic")]
    source.acknowledge(part, result())
    wait_until(lambda: source.health().counts.get("answers_refused") == 1)
    monkeypatch.setattr(answers_module, "_STALE_S", -1.0)
    source.acknowledge(part, result())
    wait_until(lambda: source.health().counts.get("answers_dropped") == 1)
    assert transport.published == []


def test_a_trigger_without_an_image_is_an_error_where_no_camera_is(
    transport: FakeTransport, source: TriggeredSource
) -> None:
    transport.send({"id": "a-1"})
    part = source.next_part(LONG_S)
    assert part is not None
    assert part.fault is not None
    assert part.fault[0] == "trigger_without_image"


@pytest.mark.parametrize("write", [float, lambda at: iso(at, "+00:00"), lambda at: iso(at, "Z")], ids=["s", "iso", "Z"])
def test_a_camera_follows_no_trigger_whose_part_is_gone(
    transport: FakeTransport, triggers: TopicTriggers, write: Callable[[float], object]
) -> None:
    transport.send({"id": "old", "part_id": "p1", "sent_at": write(time.time() - 3600)})
    assert triggers.wait(0.05) is None
    assert triggers.counts()["triggers_stale"] == 1
    assert "trigger old: not followed: sent 3600" in triggers.problem()
    transport.send({"id": "ahead", "sent_at": write(time.time() + 3600)})
    assert triggers.wait(0.05) is None
    assert "set both clocks" in triggers.problem()
    transport.send({"id": "new", "part_id": "p2", "sent_at": write(time.time() - 0.1)})
    trigger = triggers.wait(LONG_S)
    assert trigger is not None
    assert (trigger.message.part_id, trigger.fault) == ("p2", None)
    assert triggers.counts()["triggers_stale"] == 2


def test_a_camera_follows_what_was_kept_on_the_way_only_if_it_says_that_it_is_new(
    transport: FakeTransport, triggers: TopicTriggers
) -> None:
    transport.send({"id": "retained"}, kept=True)
    transport.send({"id": "garbage", "lot": {}}, kept=True)
    transport.send(b"garbage", kept=True)
    assert triggers.wait(0.05) is None
    assert (triggers.counts()["triggers_stale"], triggers.counts()["triggers_invalid"]) == (1, 2)
    assert "add sent_at" in triggers.problem()
    transport.send({"id": "quick", "sent_at": time.time()}, kept=True)
    assert triggers.wait(LONG_S) is not None
    transport.send({"id": "live"})
    assert triggers.wait(LONG_S) is not None


def test_a_trigger_that_brings_its_image_is_good_whenever_it_comes(
    transport: FakeTransport, source: TriggeredSource, triggers: TopicTriggers
) -> None:
    late = {"id": "late", "sent_at": time.time() - 3600, "image": base64.b64encode(JPEG).decode()}
    transport.send(late, kept=True)
    trigger = triggers.wait(LONG_S)
    assert trigger is not None
    assert trigger.message.image == JPEG


def test_without_a_camera_the_transport_hands_on_all_that_it_kept(
    transport: FakeTransport, source: TriggeredSource
) -> None:
    assert transport.receive_kept is None
    transport.send({"id": "late", "sent_at": time.time() - 3600, "image": base64.b64encode(JPEG).decode()})
    part = source.next_part(LONG_S)
    assert part is not None
    assert (part.data, part.fault) == (JPEG, None)


GARBAGE: list[object] = [
    b"",
    b"\0",
    b"not json",
    b"\xc3\x28",
    b"null",
    b"[]",
    b'"text"',
    b"{" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"id": NaN}',
    b'{"id": 1e999}',
    b'{"id": ' + b"9" * 5000 + b"}",
    {"id": ["a"]},
    {"id": True},
    {"id": ""},
    {"id": "x" * 129},
    {"id": "new\nline"},
    {"schema": "2.0"},
    {"image": "AAAA", "lot": {}},
]
WITH_ID: list[dict[str, object]] = [
    {"part_id": 1.5},
    {"part_id": ["a"]},
    {"lot": "x" * 97},
    {"lot": "\ud800"},
    {"view": "\0"},
    {"image": ""},
    {"image": 7},
    {"image": "not base64!"},
    {"image": "AAA"},
    {"schema": "2.0"},
    {"schema": 1},
    {"requires": ["warp"]},
    {"requires": "warp"},
    {"requires": [[]]},
    {"sent_at": "yesterday"},
    {"sent_at": "2026-11-23T10:15:00"},  # of which zone?
    {"sent_at": 1_796_055_119_860},  # milliseconds
    {"sent_at": -1},
    {"sent_at": True},
    {"sent_at": []},
]


@pytest.mark.parametrize("message", GARBAGE, ids=lambda message: repr(message)[:30])
def test_garbage_is_counted_and_the_next_trigger_is_served(
    transport: FakeTransport, source: TriggeredSource, message: object
) -> None:
    transport.send(message)
    transport.send({"id": "good", "image": base64.b64encode(JPEG).decode()})
    part = source.next_part(LONG_S)
    assert part is not None
    assert part.source_key.startswith("trigger:good#")
    assert source.health().counts["triggers_invalid"] == 1


@pytest.mark.parametrize("fields", WITH_ID, ids=lambda fields: repr(fields)[:30])
def test_garbage_that_names_its_trigger_is_an_error_that_is_answered(
    transport: FakeTransport, source: TriggeredSource, fields: dict[str, object]
) -> None:
    transport.send({"id": "bad-1", **fields})
    part = source.next_part(LONG_S)
    assert part is not None
    assert part.source_key.startswith("trigger:bad-1#")
    assert part.fault is not None
    assert part.fault[0] == "trigger_invalid"
    assert part.fault[1].isprintable()
    source.acknowledge(part, result(verdict="error", action="reject", error="trigger_invalid"))
    wait_until(lambda: transport.published)
    assert transport.published[0][1]["trigger"] == "bad-1"
    assert source.health().counts["triggers_invalid"] == 1


def test_an_image_that_is_none_is_for_the_decoder_to_refuse(transport: FakeTransport, source: TriggeredSource) -> None:
    transport.send({"id": "a", "image": base64.b64encode(b"no picture").decode()})
    part = source.next_part(LONG_S)
    assert part is not None
    assert part.data == b"no picture"


def test_fields_of_a_newer_minor_version_are_ignored() -> None:
    message = read_trigger(b'{"schema": "1.7", "id": "a", "weight": 3, "requires": []}')
    assert message.id == "a"


def test_random_bytes_and_broken_messages_are_triggers_or_refused_never_a_crash() -> None:
    generator = random.Random(4)
    whole = json.dumps({"schema": "1.0", "id": "a", "part_id": "p", "image": base64.b64encode(JPEG).decode()}).encode()
    outcomes = set()
    for _ in range(5000):
        data = bytearray(whole if generator.random() < 0.7 else generator.randbytes(generator.randrange(60)))
        for _ in range(generator.randrange(4)):
            if data:
                data[generator.randrange(len(data))] = generator.randrange(256)
        data = data[: generator.randrange(len(data) + 1)] if generator.random() < 0.3 else data
        try:
            outcomes.add(type(read_trigger(bytes(data))).__name__)
        except BadTriggerError as error:
            outcomes.add("refused" if str(error) else "refused without a reason")
    assert outcomes == {"TriggerMessage", "refused"}


def test_random_values_in_every_field_are_triggers_or_refused() -> None:
    generator = random.Random(5)
    values: list[object] = [
        None,
        True,
        0,
        -1,
        2.5,
        "",
        "a",
        "\0",
        "x" * 1000,
        [],
        [1],
        {},
        {"a": {"b": []}},
        "1.0",
        "AAAA",
        1e300,
        10**400,
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
    ]
    names = ["schema", "requires", "id", "part_id", "lot", "station", "view", "image", "sent_at", "other"]
    for _ in range(5000):
        document = {name: generator.choice(values) for name in generator.sample(names, generator.randrange(len(names)))}
        try:
            message = read_trigger(json.dumps(document).encode())
        except BadTriggerError as error:
            assert error.id is None or isinstance(error.id, str)  # noqa: PT017
        else:
            assert message.id is None or 1 <= len(message.id) <= 128


def test_a_message_that_is_too_large_is_counted_unread(transport: FakeTransport) -> None:
    settings = SourceSettings(trigger=TriggerSettings(max_message_bytes=1000))
    source = open_source("trigger:", settings, transport, TOPIC)  # type: ignore[arg-type]
    transport.send(b'{"id": "' + b"a" * 2000)
    assert source.next_part(0.05) is None
    assert source.health().counts["triggers_invalid"] == 1
    source.close()


def test_too_many_waiting_triggers_are_reported_as_lost_for_a_while(
    transport: FakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SourceSettings(trigger=TriggerSettings(max_waiting=3))
    source = open_source("trigger:", settings, transport, TOPIC)  # type: ignore[arg-type]
    for number in range(5):
        transport.send({"id": str(number), "image": "AAAA"})
    health = source.health()
    assert not health.ok
    assert "without a verdict" in health.message
    assert (health.counts["triggers_dropped"], health.counts["triggers_waiting"]) == (2, 3)
    parts = [source.next_part(LONG_S) for _ in range(3)]
    assert [part.handle.message.id for part in parts if part] == ["0", "1", "2"]  # type: ignore[attr-defined]
    monkeypatch.setattr(trouble, "RECENT_S", 0.0)
    assert source.health().ok  # nothing was lost lately
    source.close()


def test_images_beyond_the_memory_for_them_become_errors_not_losses(transport: FakeTransport) -> None:
    settings = SourceSettings(trigger=TriggerSettings(max_waiting_bytes=1000))
    source = open_source("trigger:", settings, transport, TOPIC)  # type: ignore[arg-type]
    image = base64.b64encode(bytes(500)).decode()
    for number in range(3):
        transport.send({"id": str(number), "image": image})
    parts = [source.next_part(LONG_S) for _ in range(3)]
    assert [(part.source_key.split("#")[0], part.fault and part.fault[0]) for part in parts if part] == [
        ("trigger:0", None),
        ("trigger:1", "trigger_overflow"),
        ("trigger:2", "trigger_overflow"),
    ]
    source.close()


def test_images_are_refused_where_messages_are_small() -> None:
    transport = FakeTransport("greengrass")
    source = open_source("trigger:", SourceSettings(), transport, TOPIC)  # type: ignore[arg-type]
    transport.send({"id": "a", "image": base64.b64encode(JPEG).decode()})
    part = source.next_part(LONG_S)
    assert part is not None
    assert part.fault is not None
    assert "plain MQTT only" in part.fault[1]
    transport.send(JPEG)
    assert source.next_part(0.05) is None
    assert source.health().counts["triggers_invalid"] == 2
    source.close()


def test_a_topic_of_ones_own_and_wrong_names(transport: FakeTransport) -> None:
    settings = SourceSettings(trigger=TriggerSettings(topic="plc/trigger"))
    open_source("trigger:", settings, transport, TOPIC).close()  # type: ignore[arg-type]
    assert transport.topic == "plc/trigger"
    with pytest.raises(SourceError, match="nothing after it"):
        open_source("trigger:plc/trigger", settings, transport, TOPIC)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="need a transport"):
        open_source("trigger:", settings)
    assert TriggerSettings(topic="plc/#").check()


class Line(enum.Enum):
    """Stands for any of gpiod's names."""

    INPUT = RISING = FALLING = AS_IS = DISABLED = PULL_UP = PULL_DOWN = MONOTONIC = 1


class FakeGpiod:
    """What libgpiod 2 does, as far as it is used: one line that gives edges or breaks."""

    line = SimpleNamespace(Direction=Line, Edge=Line, Bias=Line, Clock=Line)

    def __init__(self) -> None:
        self.edges: list[SimpleNamespace] = []
        self.broken: OSError | ValueError | None = None
        self.asked: list[tuple[str, dict[int, Any]]] = []
        self.released = 0

    def LineSettings(self, **values: Any) -> dict[str, Any]:  # noqa: N802
        return values

    def request_lines(self, path: str, consumer: str, config: dict[int, Any]) -> "FakeGpiod":
        if self.broken:
            raise self.broken
        self.asked.append((path, config))
        return self

    def wait_edge_events(self, timeout: float) -> bool:
        if self.broken:
            raise self.broken
        if not self.edges:
            time.sleep(min(timeout, 0.01))
        return bool(self.edges)

    def read_edge_events(self) -> list[SimpleNamespace]:
        edges, self.edges = self.edges, []
        return edges

    def release(self) -> None:
        self.released += 1

    def pulse(self, number: int) -> float:
        now = time.monotonic_ns()
        self.edges.append(SimpleNamespace(timestamp_ns=now, line_seqno=number))
        return now / 1e9


def test_an_edge_is_a_trigger_of_its_own_time() -> None:
    gpiod = FakeGpiod()
    settings = TriggerSettings(kind="gpio", gpio_line=17, gpio_bias="pull-up", gpio_debounce_ms=5)
    triggers = GpioTriggers(settings, gpiod)
    ((path, config),) = gpiod.asked
    assert path == "/dev/gpiochip0"
    assert config[17]["debounce_period"] == datetime.timedelta(milliseconds=5)
    assert triggers.wait(0.02) is None
    times = [gpiod.pulse(1), gpiod.pulse(2)]
    found = [triggers.wait(LONG_S) for _ in range(2)]
    assert [trigger.arrived_s for trigger in found if trigger] == times
    assert len({trigger.key for trigger in found if trigger}) == 2
    assert triggers.problem() == ""
    triggers.close()
    assert gpiod.released == 1


def test_edges_that_came_too_fast_are_reported_as_lost_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    gpiod = FakeGpiod()
    triggers = GpioTriggers(TriggerSettings(kind="gpio"), gpiod)
    gpiod.pulse(1)
    gpiod.pulse(5)
    assert triggers.wait(LONG_S)
    assert triggers.wait(LONG_S)
    assert triggers.counts()["triggers_dropped"] == 3
    assert "without a verdict" in triggers.problem()
    monkeypatch.setattr(trouble, "RECENT_S", 0.0)
    assert triggers.problem() == ""


def test_a_line_that_breaks_is_asked_for_again() -> None:
    gpiod = FakeGpiod()
    triggers = GpioTriggers(TriggerSettings(kind="gpio"), gpiod)
    gpiod.broken = OSError(19, "No such device")
    assert triggers.wait(0.01) is None
    assert "No such device" in triggers.problem()
    assert triggers.wait(0.7) is None  # tried once more
    gpiod.broken = None
    gpiod.pulse(1)
    wait_until(lambda: triggers.wait(0.1))
    assert triggers.problem() == ""
    assert triggers.counts()["gpio_lost"] == 1


def test_a_line_that_is_not_there_at_the_start_is_asked_for_again() -> None:
    gpiod = FakeGpiod()
    gpiod.broken = OSError(2, "No such file or directory")
    triggers = GpioTriggers(TriggerSettings(kind="gpio"), gpiod)
    assert triggers.wait(0.01) is None
    assert "/dev/gpiochip0 line 0: cannot be used" in triggers.problem()
    gpiod.broken = None
    gpiod.pulse(1)
    wait_until(lambda: triggers.wait(0.1))
    assert triggers.problem() == ""
    triggers.close()


def test_what_is_no_chip_is_refused_at_the_start() -> None:
    gpiod = FakeGpiod()
    gpiod.broken = ValueError("not a GPIO character device")
    with pytest.raises(SourceError, match="/dev/gpiochip0 line 0: cannot be used"):
        GpioTriggers(TriggerSettings(kind="gpio"), gpiod)


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "bell"},
        {"interval_s": -1.0},
        {"max_waiting": 0},
        {"max_age_ms": 0},
        {"repeat_within_s": -1.0},
        {"gpio_edge": "both"},
        {"gpio_bias": "up"},
        {"topic": "a/+"},
    ],
)
def test_bad_trigger_settings_are_named(values: dict[str, Any]) -> None:
    assert any(next(iter(values)) in fault for fault in SourceSettings(trigger=TriggerSettings(**values)).check())
