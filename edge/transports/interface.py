"""What every transport can do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

OnMessage = Callable[[str, bytes], None]
"""Called with topic and payload, from a thread of the transport: hand the message on and return."""


@dataclass(frozen=True)
class TransportState:
    """How a transport does now."""

    connected: bool  # a publish may be tried
    message: str  # for people: what is wrong and what to do, or where it is connected to
    fatal: bool = False  # it will never work again in this process: exit non-zero, so that the supervisor restarts it


class Transport(Protocol):
    """Where messages go and come from. All methods may be called from any thread."""

    name: str
    max_payload_bytes: int

    def start(self) -> None:
        """Begin to connect. Never waits for the network; `state` says how it goes."""

    def publish(self, topic: str, payload: bytes, timeout_s: float) -> None:
        """Hand a message over; when this returns the other side has taken it (QoS 1).

        Raises:
            NotAuthorizedError: this device may not publish on the topic (until somebody changes that).
            RefusedError: this message will never be taken; others will.
            TransportError: not now: offline, timeout. Try again later.
        """

    def subscribe(self, topic: str, on_message: OnMessage, on_kept: OnMessage | None = None) -> None:
        """Hear a topic as soon as connected, and again after each reconnection. Call it before `start`.

        Args:
            topic: which.
            on_message: takes what comes: also what the other side kept while this device was away.
            on_kept: given where only what is sent now is of use. Then nothing is kept for this device; and what may
                have been kept on the way all the same (a retained message) goes here, not to `on_message`.
        """

    def state(self) -> TransportState:
        """How it does now."""

    def close(self) -> None:
        """Say goodbye and let go. The session stays where the other side keeps sessions."""
