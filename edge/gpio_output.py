"""Signals on the pins of a board, by libgpiod (an extra: edge/requirements-gpio.txt).

A pulse begins at once and ends by a timer thread. The heartbeat pin changes level with every heartbeat, so a controller
watches for edges: they stop when the loop hangs, when the program stops and when it is killed (the kernel then lets go
of the pins).
"""

import importlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from edge.errors import OutputError
from edge.line_output import OutputSettings
from edge.results import Result

_log = logging.getLogger(__name__)


class Pins(Protocol):
    """Output pins that a process holds."""

    def write(self, pin: int, high: bool) -> None:
        """Set a level.

        Raises:
            OSError: the chip is gone.
        """

    def release(self) -> None:
        """Let go of all pins."""


class ChipPins:
    """Pins of a GPIO character device, all low at first.

    Raises:
        OutputError: gpiod is missing, or the chip or a pin cannot be had.
    """

    def __init__(self, chip: str, pins: Sequence[int]) -> None:
        try:
            gpiod: Any = importlib.import_module("gpiod")  # not on every device
        except ImportError as error:
            raise OutputError(f"pins of {chip} need gpiod ({error}); install edge/requirements-gpio.txt") from error
        self._value = gpiod.line.Value
        low = gpiod.LineSettings(direction=gpiod.line.Direction.OUTPUT, output_value=self._value.INACTIVE)
        try:
            self._request = gpiod.request_lines(chip, consumer="lineside", config={tuple(pins): low})
        except (OSError, ValueError) as error:
            raise OutputError(
                f"pins {list(pins)} of {chip}: cannot have them: {error}; check the chip's name, that the pins are "
                "free (gpioinfo) and that this user may open the chip"
            ) from error

    def write(self, pin: int, high: bool) -> None:
        """Set a level."""
        self._request.set_value(pin, self._value.ACTIVE if high else self._value.INACTIVE)

    def release(self) -> None:
        """Let go of all pins."""
        self._request.release()


def open_gpio_output(settings: OutputSettings) -> "GpioOutput":
    """The pins that the settings name.

    Raises:
        OutputError: they cannot be had.
    """
    named = (settings.accept_pin, settings.reject_pin, settings.review_pin, settings.alarm_pin, settings.heartbeat_pin)
    return GpioOutput(ChipPins(settings.gpio_chip, [pin for pin in named if pin >= 0]), settings)


class GpioOutput:
    """A pulse for each part on the pin of its action, a level for the alarm, edges for the heartbeat.

    A part that comes while the pulse of the one before still lasts ends that pulse and begins its own, after a gap of
    one millisecond on the same pin, so that a controller counts two.

    Args:
        pins: held by this output from now on.
        settings: which pin is what, and how long a pulse is.
        clock: seconds that do not jump.
    """

    name = "gpio"

    def __init__(self, pins: Pins, settings: OutputSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._pins = pins
        self._settings = settings
        self._clock = clock
        self._by_action = {
            "accept": settings.accept_pin,
            "reject": settings.reject_pin,
            "review": settings.review_pin,
        }
        self._change = threading.Condition()
        self._pulsing: int | None = None
        self._until_s = 0.0
        self._beat = False
        self._closed = False
        self._fault: str | None = None
        self._thread = threading.Thread(target=self._end_pulses, name="line-pins", daemon=True)
        self._thread.start()

    def signal(self, result: Result, alarm: bool) -> None:
        """Begin the part's pulse."""
        pin = self._by_action[result.action]
        with self._change:
            if self._pulsing is not None:
                self._write(self._pulsing, False)
                if self._pulsing == pin:
                    time.sleep(0.001)
            self._pulsing = pin if pin >= 0 else None
            self._write(pin, True)
            self._write(self._settings.alarm_pin, alarm)
            self._until_s = self._clock() + self._settings.pulse_ms / 1000
            self._change.notify()

    def heartbeat(self, now_s: float) -> None:
        """Change the heartbeat's level."""
        with self._change:
            self._beat = not self._beat
            self._write(self._settings.heartbeat_pin, self._beat)

    def fault(self) -> str | None:
        """Why the last write failed."""
        return self._fault

    def close(self) -> None:
        """All pins low, then let go of them."""
        with self._change:
            if self._closed:
                return
            self._closed = True
            for pin in (*self._by_action.values(), self._settings.alarm_pin, self._settings.heartbeat_pin):
                self._write(pin, False)
            self._pins.release()
            self._change.notify()
        self._thread.join(timeout=1)

    def _write(self, pin: int, high: bool) -> None:
        if pin < 0:
            return
        try:
            self._pins.write(pin, high)
        except OSError as error:
            self._fault = f"pin {pin}: cannot set it: {error}; check the chip"
            return
        self._fault = None

    def _end_pulses(self) -> None:
        with self._change:
            while not self._closed:
                if self._pulsing is None:
                    self._change.wait()
                    continue
                left_s = self._until_s - self._clock()
                if left_s > 0:
                    self._change.wait(left_s)
                    continue
                self._write(self._pulsing, False)
                self._pulsing = None
