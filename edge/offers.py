"""Messages of which only the newest are worth sending: metrics and health."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Offer:
    """One message that waits."""

    topic: str
    payload: bytes
    on_sent: Callable[[], None] | None = None
    on_dropped: Callable[[], None] | None = None


class Offers:
    """A short queue for each topic; the newest push out the oldest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[Offer]] = {}

    def add(self, offer: Offer, keep: int) -> list[Offer]:
        """Queue a message; returns the older ones of its topic that gave way to keep `keep`."""
        with self._lock:
            waiting = self._waiting.setdefault(offer.topic, deque())
            waiting.append(offer)
            return [waiting.popleft() for _ in range(len(waiting) - max(1, keep))]

    def first_of_each(self) -> list[Offer]:
        """The oldest message of each topic that has any."""
        with self._lock:
            return [waiting[0] for waiting in self._waiting.values() if waiting]

    def remove(self, offer: Offer) -> None:
        """The message is settled. It may have given way in the meantime."""
        with self._lock:
            waiting = self._waiting[offer.topic]
            if waiting and waiting[0] is offer:
                waiting.popleft()
