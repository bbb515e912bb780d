"""Signals for the line as messages on the topic `output`."""

import json
import queue
import threading
import time
from typing import Any

from edge.errors import RefusedError, TransportError
from edge.line_output import SCHEMA, OutputSettings, signal_fields
from edge.results import Result
from edge.transports.interface import Transport

_WAITING = 16  # signals for a broker that is slow; older ones are worthless by then


class MqttOutput:
    """Messages on the topic `output`, published on a thread of its own so that the loop never waits for a broker.

    The newest signals win: when the broker is slow, those older than `stale_s` are dropped and counted. A heartbeat is
    `{"alive": true, "at": …}`; `close` publishes `{"alive": false}`. A program that died is noticed by the heartbeats
    that fail to come; a connection has one last will only, and that is on the topic `health`.
    """

    name = "mqtt"

    def __init__(self, transport: Transport, topic: str, settings: OutputSettings) -> None:
        self._transport = transport
        self._topic = topic
        self._stale_s = settings.stale_s
        self._waiting: queue.Queue[tuple[float, bytes] | None] = queue.Queue(_WAITING)
        self._fault: str | None = None
        self.dropped = 0  # signals and heartbeats that never left
        self._thread = threading.Thread(target=self._run, name="line-output", daemon=True)
        self._thread.start()

    def signal(self, result: Result, alarm: bool) -> None:
        """Hand the signal to the thread."""
        self._offer(signal_fields(result, alarm))

    def heartbeat(self, now_s: float) -> None:
        """Hand the heartbeat to the thread."""
        self._offer({"schema": SCHEMA, "alive": True, "at": round(now_s, 3)})

    def fault(self) -> str | None:
        """Why the last message did not leave."""
        return self._fault

    def close(self) -> None:
        """Say that the program stops, as far as the broker listens, and end the thread."""
        self._put(None)
        self._thread.join(timeout=2 * self._stale_s)

    def _offer(self, fields: dict[str, Any]) -> None:
        self._put((time.monotonic(), json.dumps(fields).encode()))

    def _put(self, item: tuple[float, bytes] | None) -> None:
        while True:
            try:
                self._waiting.put_nowait(item)
                return
            except queue.Full:
                try:
                    self._waiting.get_nowait()
                    self.dropped += 1
                except queue.Empty:
                    pass  # the thread took it just now

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            offered_s, payload = item
            if time.monotonic() - offered_s > self._stale_s:
                self.dropped += 1
                continue
            self._publish(payload)
        self._publish(goodbye())

    def _publish(self, payload: bytes) -> None:
        try:
            self._transport.publish(self._topic, payload, self._stale_s)
        except (TransportError, RefusedError) as error:
            self.dropped += 1
            self._fault = f"{self._topic}: {error}"
            return
        self._fault = None


def goodbye() -> bytes:
    """What the topic `output` says last when the program stops."""
    return json.dumps({"schema": SCHEMA, "alive": False}).encode()
