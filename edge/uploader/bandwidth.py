"""A cap on bytes a second."""

import io
import time
from collections.abc import Callable


class TokenBucket:
    """Lets a number of bytes through each second, with a burst of one second's worth.

    Args:
        bytes_per_s: 0: no cap.
        clock: seconds that do not jump.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        bytes_per_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._tokens = bytes_per_s
        self._at_s = clock()

    def take(self, size: int) -> None:
        """Wait until so many bytes may pass."""
        if not self._bytes_per_s:
            return
        now = self._clock()
        self._tokens = min(self._bytes_per_s, self._tokens + (now - self._at_s) * self._bytes_per_s) - size
        self._at_s = now
        if self._tokens < 0:  # the debt is paid by waiting, so that a piece may be larger than the burst
            self._sleep(-self._tokens / self._bytes_per_s)


class ThrottledBody(io.BytesIO):
    """Data that can be read, and read again after `seek`, no faster than the bucket allows."""

    def __init__(self, data: bytes, bucket: TokenBucket) -> None:
        super().__init__(data)
        self._bucket = bucket

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file; waits first."""
        piece = super().read(size)
        self._bucket.take(len(piece))
        return piece
