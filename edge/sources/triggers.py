"""What says that a part is there: a clock, a message. See gpio.py for an edge on a wire."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from edge.sources.answers import Answers
from edge.sources.settings import TriggerSettings
from edge.sources.trigger_message import BadTriggerError, TriggerMessage, read_trigger

if TYPE_CHECKING:
    from edge.results import Result
    from edge.transports.interface import Transport

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trigger:
    """A part is there."""

    key: str  # unique; the same key is the same inspection
    arrived_s: float  # time.monotonic()
    arrived_at: float  # unix seconds
    promised: bool  # somebody waits for a verdict: no picture is an error; False: then there is no part
    message: TriggerMessage = field(default_factory=TriggerMessage)
    fault: tuple[str, str] | None = None  # (code, message): the trigger cannot be followed


class Triggers(Protocol):
    """A source of triggers; one thread uses it."""

    def wait(self, timeout_s: float) -> Trigger | None:
        """The next trigger, or None when there is none within the timeout."""

    def answer(self, trigger: Trigger, result: Result) -> None:
        """Tell who asked. Returns at once."""

    def problem(self) -> str:
        """What is wrong; empty when nothing is."""

    def counts(self) -> dict[str, int]:
        """What happened so far."""

    def close(self) -> None:
        """Let go."""


class Keys:
    """Keys for triggers that bring none: never the same again, not after a restart either."""

    def __init__(self) -> None:
        self._session, self._number = f"{time.time_ns():x}{secrets.token_hex(3)}", 0

    def next(self) -> str:
        """The next key."""
        self._number += 1
        return f"trigger:{self._session}/{self._number}"


class IntervalTriggers:
    """One in each interval. Intervals that pass while nobody waits are skipped, not made up for."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next_s = time.monotonic()
        self._keys = Keys()
        self._counts: Counter[str] = Counter()

    def wait(self, timeout_s: float) -> Trigger | None:
        """The next trigger."""
        now = time.monotonic()
        pause_s = self._next_s - now
        if pause_s > 0:
            time.sleep(min(pause_s, max(0.0, timeout_s)))
            if pause_s > timeout_s:
                return None
            now = time.monotonic()
        if self._interval_s:
            late = int((now - self._next_s) / self._interval_s)
            self._counts["intervals_skipped"] += late
            self._next_s += (late + 1) * self._interval_s
        return Trigger(self._keys.next(), now, time.time(), promised=False)

    def answer(self, trigger: Trigger, result: Result) -> None:
        """Nobody asked."""

    def problem(self) -> str:
        """A clock has none."""
        return ""

    def counts(self) -> dict[str, int]:
        """Intervals skipped."""
        return dict(self._counts)

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass(frozen=True)
class _Arrival:
    payload: bytes
    arrived_s: float
    arrived_at: float
    trigger: Trigger | None = None  # already read, because its payload could not be kept


class TopicTriggers:
    """Messages on a topic. One that is no trigger is counted, and is an error if it says which part it means."""

    def __init__(self, transport: Transport, topic: str, settings: TriggerSettings) -> None:
        self._settings = settings
        self._images = transport.name != "greengrass"  # its inbound messages end at 4.9 kB
        self._arrived = threading.Condition()
        self._waiting: deque[_Arrival] = deque()
        self._waiting_bytes = 0
        self._counts: Counter[str] = Counter()
        self._problem = ""
        self._keys = Keys()
        self._answers = Answers(transport, f"{topic}/answer")
        transport.subscribe(topic, self._receive)

    def wait(self, timeout_s: float) -> Trigger | None:
        """The next message that is a trigger, or should be one."""
        end_s = time.monotonic() + timeout_s
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._waiting, max(0.0, end_s - time.monotonic()))
                if not self._waiting:
                    return None
                arrival = self._waiting.popleft()
                self._waiting_bytes -= len(arrival.payload)
            trigger = arrival.trigger or self._read(arrival)
            if trigger is not None:
                return trigger

    def answer(self, trigger: Trigger, result: Result) -> None:
        """Publish the verdict beside the trigger's topic."""
        if trigger.message.id is not None:
            self._answers.send(trigger.message, result)

    def problem(self) -> str:
        """Triggers were lost."""
        return self._problem

    def counts(self) -> dict[str, int]:
        """Messages by what became of them."""
        with self._arrived:
            return {**self._counts, **self._answers.counts(), "triggers_waiting": len(self._waiting)}

    def close(self) -> None:
        """Stop answering. The transport's owner closes the transport."""
        self._answers.close()

    def _receive(self, topic: str, payload: bytes) -> None:
        """Called from the transport's thread: keep the message and return."""
        arrival = _Arrival(payload, time.monotonic(), time.time())
        if len(payload) > self._settings.max_message_bytes:
            self._refuse(f"want at most {self._settings.max_message_bytes} bytes, found {len(payload)}")
            return
        with self._arrived:
            full = len(self._waiting) >= self._settings.max_waiting
            heavy = self._waiting_bytes + len(payload) > self._settings.max_waiting_bytes
        if full:
            self._counts["triggers_dropped"] += 1
            self._problem = f"{self._settings.max_waiting} triggers wait already; parts passed without a verdict"
            log.error("event=trigger_dropped waiting=%d", self._settings.max_waiting)
            return
        if heavy:
            trigger = self._read(
                arrival, ("trigger_overflow", "want fewer images waiting; see trigger.max_waiting_bytes")
            )
            if trigger is None:
                return
            arrival = _Arrival(b"", arrival.arrived_s, arrival.arrived_at, trigger)
        with self._arrived:
            self._waiting.append(arrival)
            self._waiting_bytes += len(arrival.payload)
            self._arrived.notify()

    def _read(self, arrival: _Arrival, fault: tuple[str, str] | None = None) -> Trigger | None:
        """The trigger in a message; None when it does not say for which part it is."""
        try:
            message = read_trigger(arrival.payload, self._images)
        except BadTriggerError as error:
            self._refuse(str(error))
            if error.id is None:
                return None
            message, fault = TriggerMessage(error.id), ("trigger_invalid", f"trigger {error.id}: {error}")
        if fault is not None and message.image is not None:
            message = TriggerMessage(message.id, message.part_id, message.lot, message.station, message.view)
        key = self._keys.next() if message.id is None else f"trigger:{message.id}"
        return Trigger(key, arrival.arrived_s, arrival.arrived_at, True, message, fault)

    def _refuse(self, reason: str) -> None:
        self._counts["triggers_invalid"] += 1
        log.warning("event=trigger_invalid reason=%s", reason)
