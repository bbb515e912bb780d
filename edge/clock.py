"""Whether this machine's clock is set by somebody who knows the time."""

import ctypes
import time

_EVERY_S = 60.0
_TIME_ERROR = 5  # Source: adjtimex(2): the clock is not synchronised
_BUFFER_BYTES = 512  # more than struct timex takes on any architecture


class Clock:
    """Asks the kernel once a minute."""

    def __init__(self) -> None:
        self._asked_at_s = -_EVERY_S
        self._synced: bool | None = None

    def synced(self) -> bool | None:
        """Whether the wall clock is synchronised (NTP, PTP); None where the kernel does not say."""
        now_s = time.monotonic()
        if now_s - self._asked_at_s >= _EVERY_S:
            self._asked_at_s = now_s
            self._synced = _ask_kernel()
        return self._synced


def _ask_kernel() -> bool | None:
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):  # not Linux
        return None
    state = adjtimex(ctypes.create_string_buffer(_BUFFER_BYTES))  # zeros: modes = 0, which only reads
    return None if state < 0 else state != _TIME_ERROR
