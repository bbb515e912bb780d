"""What the tests of the sender and the transports share: results, a spool in memory, a transport with chosen faults."""

import time
from collections.abc import Callable, Sequence

from edge.messages import read_results
from edge.results import Result
from edge.topics import topics
from edge.transports.interface import OnMessage, TransportState

TOPICS = topics("lineside", "cookies", "thing-1")


def result(sequence: int, verdict: str = "pass", detail: str | None = None) -> Result:
    return Result(
        thing="thing-1",
        sequence=sequence,
        source_key=f"key-{sequence}",
        line="cookies",
        captured_at=1.0 + sequence,
        verdict=verdict,  # type: ignore[arg-type]
        action="accept",
        detail=detail,
    )


class Spool:
    """Results in memory; marks arrive late, as from a writer thread."""

    def __init__(self, results: Sequence[Result] = ()) -> None:
        self.results = list(results)
        self.marked: list[int] = []
        self.late_by = 0  # calls of unsent until a mark shows
        self._late: list[tuple[int, int]] = []
        self.looks = 0

    def unsent(self, urgent: bool, limit: int) -> list[Result]:
        self.looks += 1
        gone = {sequence for at, sequence in self._late if self.looks >= at}
        self.results = [one for one in self.results if one.sequence not in gone]
        return [one for one in self.results if one.urgent == urgent][:limit]

    def mark_sent(self, ids: Sequence[int]) -> None:
        self.marked.extend(ids)
        self._late.extend((self.looks + self.late_by, sequence) for sequence in ids)


class Recorder:
    """A transport whose faults the tests choose."""

    name = "recorder"
    max_payload_bytes = 5000

    def __init__(self) -> None:
        self.connected = True
        self.taken: list[tuple[str, bytes]] = []
        self.tries = 0
        self.fault: Callable[[str, bytes], Exception | None] = lambda topic, payload: None

    def start(self) -> None: ...

    def publish(self, topic: str, payload: bytes, timeout_s: float) -> None:
        self.tries += 1
        fault = self.fault(topic, payload)
        if fault is not None:
            raise fault
        self.taken.append((topic, payload))

    def subscribe(self, topic: str, on_message: OnMessage, on_kept: OnMessage | None = None) -> None: ...

    def state(self) -> TransportState:
        return TransportState(self.connected, "")

    def close(self) -> None: ...

    def sequences(self) -> list[int]:
        return [
            one.sequence for topic, payload in self.taken if topic == TOPICS.results for one in read_results(payload)
        ]


def until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
