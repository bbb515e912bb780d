"""Logs: one event per line as `key=value`, without secrets, and not too many of one kind.

A camera that fails ten times a second must not fill the disk of a device that nobody looks at for months: after a few
lines of one kind the rest are counted, and the next line says how many were left out.
"""

import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

from edge.printing import Printer
from edge.redaction import redact

_BURST = 5  # lines of one kind that pass at once
_EVERY_S = 10.0  # after them, one in so many seconds
_MAX_KINDS = 500
_MAX_LINE = 2000  # characters


class LineFormatter(logging.Formatter):
    """`time=… level=… logger=… event=…`, always one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line; a traceback follows as `traceback="…"`."""
        message = record.getMessage()
        suppressed = getattr(record, "suppressed", 0)
        if suppressed:
            message += f" suppressed={suppressed}"
        if record.exc_info:
            message += f" traceback={self.formatException(record.exc_info)!r}"
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = f"time={moment}.{int(record.msecs):03d}Z level={record.levelname.lower()} logger={record.name} {message}"
        line = redact(line).replace("\r", "\\r").replace("\n", "\\n")
        return line if len(line) <= _MAX_LINE else line[: _MAX_LINE - 1] + "…"


class RateLimit(logging.Filter):
    """Lets a few lines of one kind through; a kind is a place in the code."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, int, str], list[float]] = {}  # [tokens, when, left out]

    def filter(self, record: logging.LogRecord) -> bool:
        """False when there were too many of this kind."""
        now_s = self._clock()
        kind = (record.name, record.levelno, str(record.msg))
        if kind not in self._kinds and len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()  # messages without a fixed form would grow it for ever
        state = self._kinds.setdefault(kind, [float(_BURST), now_s, 0.0])
        state[0] = min(float(_BURST), state[0] + (now_s - state[1]) / _EVERY_S)
        state[1] = now_s
        if state[0] < 1.0:
            state[2] += 1
            return False
        state[0] -= 1.0
        record.suppressed = int(state[2])
        state[2] = 0.0
        return True


def set_up_logs(level: str, stream: TextIO | Printer | None = None) -> None:
    """Send the logs of this process to a stream, by default stdout.

    Args:
        level: debug, info, warning or error.
        stream: where to; stderr when stdout carries JSON.
    """
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(LineFormatter())
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.raiseExceptions = False  # a stream that is gone (a closed pipe) must not stop a line
