"""The sender: what leaves when, what stays, and what a fault costs."""

import threading
import time
from collections.abc import Iterator

import pytest
from sending import TOPICS, Recorder, Spool, result, until

import edge.sender
from edge.errors import NotAuthorizedError, RefusedError, ResultError, TransportError
from edge.messages import fill_batch, read_results
from edge.results import Result, dump_result
from edge.sender import Sender
from edge.transports.settings import SenderSettings

FAST = SenderSettings(
    batch_within_s=0.05, publish_timeout_s=5, retry_min_s=0.01, retry_max_s=0.05, refused_max_s=0.05, poll_s=0.02
)


class Rig:
    def __init__(self) -> None:
        self.spool = Spool()
        self.transport = Recorder()
        self.sender = Sender(self.spool, self.transport, TOPICS, FAST)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.transport.connected = False
    made.sender.close(0)


def test_urgent_results_go_first_and_alone_and_passes_in_a_batch(rig: Rig) -> None:
    rig.spool.results = [
        result(1), result(2, "fail"), result(3), result(4, "review"), result(5), result(6, "error")
    ]  # fmt: skip
    rig.sender.start()
    until(lambda: len(rig.spool.marked) == 6)
    assert rig.transport.sequences() == [2, 4, 6, 1, 3, 5]
    payloads = [payload for _, payload in rig.transport.taken]
    assert [payload[:1] for payload in payloads] == [b"{", b"{", b"{", b"["]
    assert rig.sender.figures().results == 6
    assert rig.sender.figures().messages == 4


def test_passes_wait_for_others_until_their_time_is_up(rig: Rig) -> None:
    rig.sender = Sender(
        rig.spool, rig.transport, TOPICS, SenderSettings(batch_within_s=3600, poll_s=0.01, retry_min_s=0.01)
    )
    rig.spool.results = [result(1), result(2)]
    rig.sender.start()
    until(lambda: rig.spool.looks > 10)
    assert rig.transport.taken == []
    rig.spool.results += [result(sequence) for sequence in range(3, 40)]
    until(lambda: rig.transport.taken)
    assert rig.transport.sequences()[:3] == [1, 2, 3]
    assert len(rig.transport.taken[0][1]) <= 5000


def test_a_full_batch_keeps_within_its_limit_and_loses_nothing() -> None:
    results = [result(sequence, detail="ä" * 100) for sequence in range(64)]
    seen: list[int] = []
    while results:
        batch, payload = fill_batch(results, 5000)
        assert len(payload) <= 5000
        assert batch
        assert read_results(payload) == batch
        assert len(batch) == len(results) or len(fill_batch(results, 10**9)[1]) > 5000
        seen += [one.sequence for one in batch]
        results = results[len(batch) :]
    assert seen == list(range(64))


def test_both_forms_of_a_message_are_read_and_others_refused() -> None:
    one = result(1)
    assert read_results(dump_result(one)) == [one]
    assert read_results(f"[{dump_result(one)},{dump_result(result(2))}]".encode()) == [one, result(2)]
    for bad in (b'"text"', b"[1]", b'{"schema":"2.0"}'):
        with pytest.raises(ResultError):
            read_results(bad)
    with pytest.raises(ValueError, match="Expecting value"):
        read_results(b"garbage")


def test_nothing_is_marked_before_it_is_acknowledged(rig: Rig) -> None:
    rig.transport.fault = lambda topic, payload: TransportError("broker does not answer")
    rig.spool.results = [result(1, "fail"), result(2)]
    rig.sender.start()
    until(lambda: rig.sender.figures().failures >= 3)
    assert rig.spool.marked == []
    assert rig.sender.figures().error == "broker does not answer"
    rig.transport.fault = lambda topic, payload: None
    until(lambda: len(rig.spool.marked) == 2)
    assert rig.sender.figures().error == ""


def test_a_result_is_not_sent_twice_while_its_mark_is_on_the_way(rig: Rig) -> None:
    rig.spool.late_by = 7
    rig.spool.results = [result(sequence, "fail" if sequence % 3 else "pass") for sequence in range(60)]
    rig.sender.start()
    until(lambda: not rig.spool.results)
    assert sorted(rig.transport.sequences()) == list(range(60))
    assert len(rig.spool.marked) == 60


def test_without_a_connection_nothing_is_tried_and_the_thread_rests(rig: Rig) -> None:
    rig.transport.connected = False
    rig.spool.results = [result(1, "fail")]
    rig.sender.start()
    began = time.thread_time_ns()
    time.sleep(0.3)
    assert rig.transport.tries == 0
    assert rig.spool.looks == 0
    assert time.thread_time_ns() >= began
    rig.transport.connected = True
    until(lambda: rig.spool.marked == [1])


def test_a_transport_that_keeps_failing_is_tried_ever_more_rarely() -> None:
    rig = Rig()
    rig.sender = Sender(
        rig.spool,
        rig.transport,
        TOPICS,
        SenderSettings(retry_min_s=0.01, retry_max_s=30, refused_max_s=30, poll_s=0.01),
    )
    rig.transport.fault = lambda topic, payload: TransportError("offline")
    rig.spool.results = [result(1, "fail")]
    rig.sender.start()
    for _ in range(50):  # whatever wakes it
        rig.sender.wake()
        time.sleep(0.01)
    assert 1 <= rig.transport.tries <= 9
    rig.transport.connected = False
    rig.sender.close(0)


def test_the_backlog_drains_oldest_first_with_new_urgent_results_ahead(rig: Rig) -> None:
    rig.spool.results = [result(sequence) for sequence in range(300)]
    once = threading.Event()

    def fault(topic: str, payload: bytes) -> Exception | None:
        if len(rig.transport.taken) == 3 and not once.is_set():
            once.set()
            rig.spool.results.append(result(1000, "fail"))
        return None

    rig.transport.fault = fault
    rig.sender.start()
    until(lambda: len(rig.spool.marked) == 301)
    order = rig.transport.sequences()
    assert [sequence for sequence in order if sequence != 1000] == list(range(300))
    assert order.index(1000) < 150


def test_a_refused_message_is_counted_and_set_aside(rig: Rig) -> None:
    rig.transport.fault = lambda topic, payload: (
        RefusedError("payload not valid") if b'"sequence":2,' in payload else None
    )
    rig.spool.results = [result(1, "fail"), result(2, "fail"), result(3, "fail")]
    rig.sender.start()
    until(lambda: len(rig.spool.marked) == 3)
    assert rig.transport.sequences() == [1, 3]
    assert rig.sender.figures().refused == 1
    assert rig.sender.figures().results == 2


def test_one_refused_pass_does_not_take_its_batch_along(rig: Rig) -> None:
    rig.transport.fault = lambda topic, payload: (
        RefusedError("payload not valid") if b'"sequence":2,' in payload else None
    )
    rig.spool.results = [result(sequence) for sequence in range(5)]
    rig.sender.start()
    until(lambda: len(rig.spool.marked) == 5)
    assert rig.transport.sequences() == [0, 1, 3, 4]
    assert all(payload.startswith(b"[") for _, payload in rig.transport.taken)
    assert rig.sender.figures().refused == 1


def test_a_message_over_the_limit_of_the_transport_never_reaches_it(rig: Rig) -> None:
    rig.transport.max_payload_bytes = 600
    rig.spool.results = [result(1, "fail", "x" * 390), result(2, "fail"), result(3, detail="x" * 390), result(4)]
    rig.sender.start()
    until(lambda: len(rig.spool.marked) == 4)
    assert sorted(rig.transport.sequences()) == [2, 4]
    assert rig.sender.figures().refused == 2


def test_a_topic_closed_by_policy_keeps_its_results_and_blocks_no_other(rig: Rig) -> None:
    rig.transport.fault = lambda topic, payload: (
        NotAuthorizedError("may not publish") if topic == TOPICS.results else None
    )
    rig.spool.results = [result(1, "fail"), result(2)]
    rig.sender.start()
    rig.sender.offer(TOPICS.health, b"{}")
    until(lambda: rig.transport.taken and rig.sender.figures().failures >= 2)
    assert {topic for topic, _ in rig.transport.taken} == {TOPICS.health}
    assert rig.spool.marked == []
    assert rig.sender.figures().error == "may not publish"
    rig.transport.fault = lambda topic, payload: None
    until(lambda: len(rig.spool.marked) == 2)
    assert rig.sender.figures().refused == 0
    assert rig.sender.figures().error == ""


def test_newer_offers_push_out_older_ones(rig: Rig) -> None:
    rig.transport.connected = False
    rig.sender.start()
    sent: list[int] = []
    for number in range(5):
        rig.sender.offer(TOPICS.health, b"%d" % number, on_sent=lambda number=number: sent.append(number))
        rig.sender.offer(TOPICS.metrics, b"%d" % number, keep=3)
    rig.transport.connected = True
    until(lambda: len(rig.transport.taken) == 4)
    assert [payload for topic, payload in rig.transport.taken if topic == TOPICS.health] == [b"4"]
    assert [payload for topic, payload in rig.transport.taken if topic == TOPICS.metrics] == [b"2", b"3", b"4"]
    assert sent == [4]
    assert rig.sender.figures().dropped == 4 + 2


def test_a_refused_offer_is_dropped_and_counted(rig: Rig) -> None:
    rig.sender.start()
    rig.sender.offer(TOPICS.metrics, b"x" * 6000)
    rig.sender.offer(TOPICS.metrics, b"{}", keep=2)
    until(lambda: rig.transport.taken)
    assert rig.transport.taken == [(TOPICS.metrics, b"{}")]
    assert rig.sender.figures().dropped == 1


def test_a_fault_of_the_spool_is_counted_and_sending_goes_on(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.spool.results = [result(1, "fail")]
    unsent = rig.spool.unsent
    faults = iter([OSError("disk I/O error"), OSError("disk I/O error")])

    def failing(urgent: bool, limit: int) -> list[Result]:
        for fault in faults:
            raise fault
        return unsent(urgent, limit)

    rig.spool.unsent = failing  # type: ignore[method-assign]
    rig.sender.start()
    until(lambda: rig.spool.marked == [1])
    assert rig.sender.figures().failures == 2
    assert "event=sender_fault" in caplog.text


def test_closing_sends_unfinished_batches(rig: Rig) -> None:
    rig.sender = Sender(rig.spool, rig.transport, TOPICS, SenderSettings(batch_within_s=3600))
    rig.spool.results = [result(sequence) for sequence in range(3)]
    rig.sender.start()
    rig.sender.offer(TOPICS.health, b"{}")
    assert rig.sender.close(30)
    assert rig.transport.sequences() == [0, 1, 2]


def test_closing_without_a_connection_gives_up_after_its_time(rig: Rig) -> None:
    rig.transport.connected = False
    rig.spool.results = [result(1, "fail")]
    rig.sender.start()
    assert not rig.sender.close(0.1)
    assert rig.spool.marked == []


def test_closing_does_not_wait_for_a_network_that_is_away(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.sender, "_OFFLINE_S", 0.2)
    rig.transport.connected = False
    rig.spool.results = [result(1, "fail")]
    rig.sender.start()
    assert not rig.sender.close(3600)
    assert rig.spool.marked == []
