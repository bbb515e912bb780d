"""Triggers from a wire: edges on a line of a GPIO chip."""

from __future__ import annotations

import datetime
import importlib
import logging
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from edge.backoff import Backoff
from edge.errors import SourceError
from edge.sources.settings import TriggerSettings
from edge.sources.triggers import Keys, Trigger
from edge.sources.trouble import Trouble

if TYPE_CHECKING:
    from edge.results import Result

log = logging.getLogger(__name__)

_REOPEN_MIN_S, _REOPEN_MAX_S = 0.5, 30.0
_BIAS = {"as-is": "AS_IS", "disabled": "DISABLED", "pull-up": "PULL_UP", "pull-down": "PULL_DOWN"}


class GpioTriggers:
    """Edges on a line of a GPIO chip, through libgpiod, an extra that is loaded when chosen."""

    def __init__(self, settings: TriggerSettings, gpiod: Any = None) -> None:
        """Ask the kernel for the line; again and again while it is not there or in use.

        Raises:
            SourceError: gpiod is not installed, or the chip's name is none of a GPIO chip.
        """
        self._settings, self._gpiod = settings, gpiod or _load_gpiod()
        self._keys = Keys()
        self._counts: Counter[str] = Counter()
        self._problem = ""  # why there is no line
        self._trouble = Trouble()
        self._backoff = Backoff(_REOPEN_MIN_S, _REOPEN_MAX_S)
        self._edges: deque[Any] = deque()
        self._last_number: int | None = None
        self._request: Any = None
        self._ask()

    def wait(self, timeout_s: float) -> Trigger | None:
        """The next edge."""
        end_s = time.monotonic() + timeout_s
        if self._request is None and not self._reopen(timeout_s):
            return None
        try:
            if not self._edges and self._request.wait_edge_events(max(0.0, end_s - time.monotonic())):
                self._edges.extend(self._request.read_edge_events())
        except OSError as error:
            self._lose(f"{self._where}: {error.strerror}")
            return None
        if not self._edges:
            return None
        edge = self._edges.popleft()
        if self._last_number is not None and edge.line_seqno > self._last_number + 1:
            self._counts["triggers_dropped"] += edge.line_seqno - self._last_number - 1
            self._trouble.note(f"{self._where}: edges came faster than they were read; parts passed without a verdict")
        self._last_number = edge.line_seqno
        arrived_s = edge.timestamp_ns / 1e9  # CLOCK_MONOTONIC, which time.monotonic() is
        arrived_at = time.time() - (time.monotonic() - arrived_s)
        return Trigger(self._keys.next(), arrived_s, arrived_at, promised=True)

    def answer(self, trigger: Trigger, result: Result) -> None:
        """A wire takes no answer; the line's output does."""

    def problem(self) -> str:
        """The line is gone, or edges were lost lately."""
        return self._problem or self._trouble.message()

    def counts(self) -> dict[str, int]:
        """Edges dropped."""
        return dict(self._counts)

    def close(self) -> None:
        """Give the line back."""
        if self._request is not None:
            self._request.release()

    @property
    def _where(self) -> str:
        return f"{self._settings.gpio_chip} line {self._settings.gpio_line}"

    def _open(self) -> Any:
        line, settings = self._gpiod.line, self._settings
        wanted = self._gpiod.LineSettings(
            direction=line.Direction.INPUT,
            edge_detection=line.Edge.RISING if settings.gpio_edge == "rising" else line.Edge.FALLING,
            bias=getattr(line.Bias, _BIAS[settings.gpio_bias]),
            debounce_period=datetime.timedelta(milliseconds=settings.gpio_debounce_ms),
            event_clock=line.Clock.MONOTONIC,
        )
        try:
            return self._gpiod.request_lines(
                settings.gpio_chip, consumer="lineside", config={settings.gpio_line: wanted}
            )
        except ValueError as error:
            raise SourceError(f"{self._where}: cannot be used as a trigger: {error}") from error

    def _lose(self, reason: str) -> None:
        self._counts["gpio_lost"] += 1
        self._problem = reason
        log.warning("event=gpio_lost reason=%s", reason)
        self._request.release()
        self._request, self._last_number = None, None
        self._backoff.fail()

    def _reopen(self, timeout_s: float) -> bool:
        if self._backoff.remaining_s() > timeout_s:
            time.sleep(timeout_s)
            return False
        time.sleep(self._backoff.remaining_s())
        try:
            return self._ask()
        except SourceError as error:  # another device took its place
            self._problem = str(error)
            self._backoff.fail()
            return False

    def _ask(self) -> bool:
        try:
            self._request = self._open()
        except OSError as error:
            self._problem = f"{self._where}: cannot be used as a trigger: {error}; check the chip and who uses the line"
            self._backoff.fail()
            return False
        self._backoff.succeed()
        self._problem = ""
        return True


def _load_gpiod() -> Any:
    try:
        return importlib.import_module("gpiod")
    except ImportError as error:
        raise SourceError(f"GPIO triggers need gpiod ({error}); pip install -r edge/requirements-gpio.txt") from error
