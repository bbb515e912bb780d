"""Tells who sent a trigger what became of it. Best effort: the results topic is what may be relied on."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from edge.errors import RefusedError, TransportError
from edge.sources.trigger_message import TriggerMessage

if TYPE_CHECKING:
    from edge.results import Result
    from edge.transports.interface import Transport

log = logging.getLogger(__name__)

SCHEMA = "1.0"  # of an answer
_MAX_WAITING = 1000
_PUBLISH_TIMEOUT_S = 5.0
_AGAIN_S = 1.0
_STALE_S = 60.0  # an answer that is older helps no machine


class Answers:
    """A short queue and a thread that publishes it, so that inspection never waits for the network."""

    def __init__(self, transport: Transport, topic: str) -> None:
        self._transport, self._topic = transport, topic
        self._changed = threading.Condition()
        self._waiting: deque[tuple[float, bytes]] = deque(maxlen=_MAX_WAITING)
        self._counts: Counter[str] = Counter()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="trigger-answers", daemon=True)
        self._thread.start()

    def send(self, message: TriggerMessage, result: Result) -> None:
        """Queue an answer."""
        fields = {
            "schema": SCHEMA,
            "trigger": message.id,
            "part_id": message.part_id,
            "result": result.id,
            "verdict": result.verdict,
            "action": result.action,
            "label": result.label,
            "score": result.score,
            "error": result.error,
            "detail": result.detail,
        }
        answer = json.dumps({name: value for name, value in fields.items() if value is not None}).encode()
        with self._changed:
            if len(self._waiting) == _MAX_WAITING:
                self._counts["answers_dropped"] += 1
            self._waiting.append((time.monotonic(), answer))
            self._changed.notify()

    def counts(self) -> dict[str, int]:
        """Answers sent and dropped."""
        with self._changed:
            return dict(self._counts)

    def close(self) -> None:
        """Stop; what waits is dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_PUBLISH_TIMEOUT_S + 1)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                since, answer = self._waiting.popleft()
            outcome = self._publish(since, answer)
            with self._changed:
                if outcome == "again":
                    self._waiting.appendleft((since, answer))
                    self._changed.wait_for(lambda: self._closing, _AGAIN_S)
                else:
                    self._counts[outcome] += 1

    def _publish(self, since: float, answer: bytes) -> str:
        if time.monotonic() - since > _STALE_S:
            return "answers_dropped"
        try:
            self._transport.publish(self._topic, answer, _PUBLISH_TIMEOUT_S)
        except TransportError:
            return "again"
        except RefusedError as error:
            log.warning("event=answer_refused topic=%s reason=%s", self._topic, error)
            return "answers_refused"
        return "answers_sent"
