"""Brings results from the spool to the transport, in its own thread.

`fail`, `review` and `error` go at once, one message each. Passes go in batches, when a batch is full or the first of it
has waited long enough. Metrics and health pass through a short queue in which newer messages push out older ones. A
result leaves the spool's queue only after the other side has acknowledged it, so it arrives at least once; its id tells
repeats.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from edge.backoff import Backoff
from edge.errors import NotAuthorizedError, RefusedError, TransportError
from edge.messages import fill_batch
from edge.offers import Offer, Offers
from edge.results import Result, dump_result
from edge.topics import Topics
from edge.transports.interface import Transport
from edge.transports.settings import SenderSettings

logger = logging.getLogger(__name__)

URGENT_AT_ONCE = 32
"""Urgent results taken from the spool at a time."""
PASSES_AT_ONCE = 64
"""Pass results looked at for one batch: more than fit into it."""
_OFFLINE_S = 5.0  # while closing: a connection that is away for longer is not waited for


class ResultQueue(Protocol):
    """What the sender needs of the spool."""

    def unsent(self, urgent: bool, limit: int) -> list[Result]:
        """Committed and not sent, oldest first."""

    def mark_sent(self, ids: Sequence[int]) -> None:
        """These sequence numbers have arrived."""


@dataclass(frozen=True)
class SenderFigures:
    """What the sender did since the start."""

    results: int = 0  # acknowledged by the other side
    messages: int = 0  # acknowledged messages, of results and offered ones
    failures: int = 0  # tries that did not go through
    refused: int = 0  # results that the other side will never take: set aside, so that they block no others
    dropped: int = 0  # offered messages pushed out by newer ones, or refused
    error: str = ""  # the last failure; empty when all goes well


class Sender:
    """Sends what the spool holds; never stops for a fault of the network.

    Args:
        spool: where results wait.
        transport: where they go; the sender neither starts nor closes it.
        topics: of this device.
        settings: when to send.
    """

    def __init__(self, spool: ResultQueue, transport: Transport, topics: Topics, settings: SenderSettings) -> None:
        self._spool = spool
        self._transport = transport
        self._topics = topics
        self._settings = settings
        self._offers = Offers()
        self._figures = SenderFigures()
        self._figures_lock = threading.Lock()
        self._backoff = Backoff(settings.retry_min_s, settings.retry_max_s)
        self._closed_topics: dict[str, Backoff] = {}  # on which this device may not publish now
        # Sent, but still listed by the spool, whose writer notes it a moment later: not to be sent twice.
        self._noting: dict[bool, set[int]] = {True: set(), False: set()}
        self._passes_since_s: float | None = None
        self._something = threading.Event()
        self._closing = threading.Event()
        self._stopping = threading.Event()
        self._empty = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def wake(self) -> None:
        """Say that the spool has committed something, so that an urgent result leaves at once."""
        self._something.set()

    def offer(
        self,
        topic: str,
        payload: bytes,
        keep: int = 1,
        on_sent: Callable[[], None] | None = None,
        on_dropped: Callable[[], None] | None = None,
    ) -> None:
        """Queue a message that newer ones make worthless.

        Args:
            topic: where to.
            payload: what.
            keep: how many messages of this topic may wait; the oldest give way.
            on_sent: called in the sender's thread when this message has arrived.
            on_dropped: called when this message gave way to newer ones (in the thread that offers those) or was refused
                (in the sender's). A message that gave way while it was under way may arrive after all.
        """
        self._drop(self._offers.add(Offer(topic, payload, on_sent, on_dropped), keep))
        self._something.set()

    def figures(self) -> SenderFigures:
        """What was done so far."""
        with self._figures_lock:
            return self._figures

    def close(self, timeout_s: float = 10.0) -> bool:
        """Send what can be sent within the time, unfinished batches too, and stop.

        Returns:
            True when nothing was left.
        """
        self._closing.set()
        self._something.set()
        if self._thread.is_alive():
            self._wait_until_empty(timeout_s)
        self._stopping.set()
        self._something.set()
        if self._thread.is_alive():
            self._thread.join(self._settings.publish_timeout_s + 5)
        return self._empty.is_set()

    def _wait_until_empty(self, timeout_s: float) -> None:
        """Wait for the rest to leave, but not for a network that is away: what is left is in the spool."""
        now_s = time.monotonic()
        end_s, offline_s = now_s + timeout_s, now_s
        while now_s < end_s and now_s - offline_s < _OFFLINE_S:
            if self._empty.wait(min(0.1, end_s - now_s)):
                return
            now_s = time.monotonic()
            if self._transport.state().connected:
                offline_s = now_s

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._something.clear()
            try:
                idle = self._round()
            except TransportError as error:
                delay = self._backoff.fail()
                self._failed(str(error))
                logger.warning("event=send_failed retry_in_s=%.1f error=%r", delay, str(error))
                self._stopping.wait(delay)
            except Exception as error:  # like the inspector's loop: counts it, tells it, goes on
                delay = self._backoff.fail()
                self._failed(f"{type(error).__name__}: {error}")
                logger.exception("event=sender_fault retry_in_s=%.1f", delay)
                self._stopping.wait(delay)
            else:
                if idle:
                    self._something.wait(self._settings.poll_s)

    def _round(self) -> bool:
        """Send what is due: urgent results, offered messages, one batch of passes; True when nothing was."""
        if not self._transport.state().connected:
            # Asks the transport and not the network: it reconnects by its own backoff, and this costs nothing.
            return True
        sent = self._send_urgent()
        sent = self._send_offers() or sent
        sent = self._send_passes() or sent
        if not sent and self._closing.is_set():
            self._empty.set()
        return not sent

    def _send_urgent(self) -> bool:
        sent = False
        for result in self._waiting(urgent=True, limit=URGENT_AT_ONCE):
            if self._stopping.is_set() or not self._send([result], dump_result(result).encode(), urgent=True):
                break
            sent = True
        return sent

    def _send_passes(self) -> bool:
        results = self._waiting(urgent=False, limit=PASSES_AT_ONCE)
        if not results or self._stopping.is_set():
            self._passes_since_s = None
            return False
        now_s = time.monotonic()
        if self._passes_since_s is None:
            self._passes_since_s = now_s
        batch, payload = fill_batch(results, min(self._settings.batch_bytes, self._transport.max_payload_bytes))
        due = now_s - self._passes_since_s >= self._settings.batch_within_s or self._closing.is_set()
        if len(batch) == len(results) and not due:
            return False
        if not self._send(batch, payload, urgent=False):
            return False
        self._passes_since_s = None
        return True

    def _send_offers(self) -> bool:
        sent = False
        for offer in self._offers.first_of_each():
            if self._stopping.is_set() or self._is_closed(offer.topic):
                continue
            try:
                self._publish(offer.topic, offer.payload)
            except NotAuthorizedError:
                continue
            except RefusedError as error:
                logger.error("event=message_refused topic=%s error=%r", offer.topic, str(error))
                self._drop([offer])
            else:
                if offer.on_sent is not None:
                    offer.on_sent()
            self._offers.remove(offer)
            sent = True
        return sent

    def _drop(self, offers: Sequence[Offer]) -> None:
        self._count(dropped=len(offers))
        for offer in offers:
            if offer.on_dropped is not None:
                offer.on_dropped()

    def _waiting(self, urgent: bool, limit: int) -> list[Result]:
        noting = self._noting[urgent]
        listed = self._spool.unsent(urgent, limit + len(noting))
        noting.intersection_update(result.sequence for result in listed)
        return [result for result in listed if result.sequence not in noting]

    def _send(self, results: Sequence[Result], payload: bytes, urgent: bool) -> bool:
        """Publish results and note it; False when this device may not publish on their topic now."""
        if self._is_closed(self._topics.results):
            return False
        try:
            self._publish(self._topics.results, payload)
        except NotAuthorizedError:
            return False
        except RefusedError as error:
            if len(results) > 1:
                # One of them is to blame; alone, the others go through.
                return all(self._send([one], fill_batch([one], 0)[1], urgent) for one in results)
            logger.error("event=result_refused id=%s error=%r", results[0].id, str(error))
            self._count(refused=1)
        else:
            self._count(results=len(results))
        sequences = [result.sequence for result in results]
        self._noting[urgent].update(sequences)
        self._spool.mark_sent(sequences)
        return True

    def _publish(self, topic: str, payload: bytes) -> None:
        limit = self._transport.max_payload_bytes
        if len(payload) > limit:
            raise RefusedError(f"{topic}: want at most {limit} bytes for {self._transport.name}, found {len(payload)}")
        try:
            self._transport.publish(topic, payload, self._settings.publish_timeout_s)
        except NotAuthorizedError as error:
            # Not this message's fault: what waits stays in the spool until somebody mends the device's policy.
            closed = self._closed_topics.get(topic)
            if closed is None:
                closed = Backoff(self._settings.retry_min_s, self._settings.refused_max_s)
                self._closed_topics[topic] = closed
            delay = closed.fail()
            self._failed(str(error))
            logger.error("event=not_authorized topic=%s retry_in_s=%.1f error=%r", topic, delay, str(error))
            raise
        self._backoff.succeed()
        self._closed_topics.pop(topic, None)
        self._count(messages=1)
        if not self._closed_topics:
            self._note_error("")

    def _is_closed(self, topic: str) -> bool:
        closed = self._closed_topics.get(topic)
        return closed is not None and closed.remaining_s() > 0

    def _failed(self, error: str) -> None:
        self._count(failures=1)
        self._note_error(error)

    def _note_error(self, error: str) -> None:
        with self._figures_lock:
            self._figures = replace(self._figures, error=error)

    def _count(self, **more: int) -> None:
        with self._figures_lock:
            counted = {name: getattr(self._figures, name) + number for name, number in more.items()}
            self._figures = replace(self._figures, **counted)
