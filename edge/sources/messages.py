"""Triggers by message: what comes on a topic says that a part is there, and may bring its picture."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge.sources.answers import Answers
from edge.sources.identity import Identities
from edge.sources.settings import TriggerSettings
from edge.sources.trigger_message import BadTriggerError, TriggerMessage, read_trigger
from edge.sources.triggers import Trigger
from edge.sources.trouble import Trouble

if TYPE_CHECKING:
    from edge.results import Result
    from edge.transports.interface import Transport

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Arrival:
    payload: bytes
    arrived_s: float
    arrived_at: float
    kept: bool = False  # on the way, nobody knows for how long
    trigger: Trigger | None = None  # already read, because its payload could not be kept


class TopicTriggers:
    """Messages on a topic. One that is no trigger is counted, and is an error if it says which part it means.

    A message that brings its picture is good whenever it comes. One for which a camera has to look is good only while
    its part is there: old ones are counted and reported, and make no part.
    """

    def __init__(self, transport: Transport, topic: str, settings: TriggerSettings, camera: bool = False) -> None:
        """Listen.

        Args:
            transport: not started yet.
            topic: where triggers come.
            settings: limits.
            camera: whether a camera takes the pictures that messages do not bring.
        """
        self._settings, self._camera = settings, camera
        self._images = transport.name != "greengrass"  # its inbound messages end at 4.9 kB
        self._arrived = threading.Condition()
        self._waiting: deque[_Arrival] = deque()
        self._waiting_bytes = 0
        self._counts: Counter[str] = Counter()
        self._trouble = Trouble()
        self._identities = Identities(settings.repeat_within_s)
        self._answers = Answers(transport, f"{topic}/answer")
        transport.subscribe(topic, self._receive, self._receive_kept if camera else None)

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
        """Triggers were lost lately."""
        return self._trouble.message()

    def counts(self) -> dict[str, int]:
        """Messages by what became of them."""
        with self._arrived:
            return {**self._counts, **self._answers.counts(), "triggers_waiting": len(self._waiting)}

    def close(self) -> None:
        """Stop answering. The transport's owner closes the transport."""
        self._answers.close()

    def _receive(self, topic: str, payload: bytes) -> None:
        """Called from the transport's thread: keep the message and return."""
        self._take(_Arrival(payload, time.monotonic(), time.time()))

    def _receive_kept(self, topic: str, payload: bytes) -> None:
        """Likewise, of a message that somebody kept on the way."""
        self._take(_Arrival(payload, time.monotonic(), time.time(), kept=True))

    def _take(self, arrival: _Arrival) -> None:
        payload = arrival.payload
        if len(payload) > self._settings.max_message_bytes:
            self._refuse(f"want at most {self._settings.max_message_bytes} bytes, found {len(payload)}")
            return
        with self._arrived:
            full = len(self._waiting) >= self._settings.max_waiting
            heavy = self._waiting_bytes + len(payload) > self._settings.max_waiting_bytes
        if full:
            self._counts["triggers_dropped"] += 1
            self._trouble.note(f"{self._settings.max_waiting} triggers wait already; parts passed without a verdict")
            log.error("event=trigger_dropped waiting=%d", self._settings.max_waiting)
            return
        if heavy:
            trigger = self._read(
                arrival, ("trigger_overflow", "want fewer images waiting; see trigger.max_waiting_bytes")
            )
            if trigger is None:
                return
            arrival = _Arrival(b"", arrival.arrived_s, arrival.arrived_at, trigger=trigger)
        with self._arrived:
            self._waiting.append(arrival)
            self._waiting_bytes += len(arrival.payload)
            self._arrived.notify()

    def _read(self, arrival: _Arrival, fault: tuple[str, str] | None = None) -> Trigger | None:
        """The trigger in a message; None when it does not say for which part it is, or its part is gone."""
        unread = b""
        try:
            message = read_trigger(arrival.payload, self._images)
        except BadTriggerError as error:
            self._refuse(str(error))
            if error.id is None or arrival.kept:
                return None
            message, fault = TriggerMessage(error.id), ("trigger_invalid", f"trigger {error.id}: {error}")
            unread = arrival.payload
        looks = self._camera and message.image is None and not unread  # the camera, for this part
        old = self._too_old(message, arrival) if looks else ""
        if old:
            self._counts["triggers_stale"] += 1
            self._trouble.note(f"trigger {message.id or message.part_id or 'without id'}: not followed: {old}")
            log.warning("event=trigger_stale id=%s part_id=%s reason=%r", message.id, message.part_id, old)
            return None
        if looks:
            key = self._identities.of_moment(message, arrival.arrived_s)
        else:
            key = self._identities.of_content(message, unread)
        if fault is not None:
            message = replace(message, image=None)
        return Trigger(key, arrival.arrived_s, arrival.arrived_at, True, message, fault)

    def _refuse(self, reason: str) -> None:
        self._counts["triggers_invalid"] += 1
        log.warning("event=trigger_invalid reason=%s", reason)

    def _too_old(self, message: TriggerMessage, arrival: _Arrival) -> str:
        """Why another part may be before the camera than the one that the message means; empty when that one is."""
        if message.sent_at is None:
            return "it was kept on the way and does not say when it was sent; add sent_at" if arrival.kept else ""
        age_ms = (arrival.arrived_at - message.sent_at) * 1e3
        if age_ms > self._settings.max_age_ms:
            return (
                f"sent {age_ms:.0f} ms ago, want at most {self._settings.max_age_ms}; was the network or a clock off?"
            )
        if age_ms < -self._settings.max_age_ms:
            return f"sent_at is {-age_ms:.0f} ms ahead of this device's clock; set both clocks"
        return ""
