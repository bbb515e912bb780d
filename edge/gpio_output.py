"""Signals on the pins of a board, by libgpiod (an extra: edge/requirements-gpio.txt).

A pulse begins at once and ends by a timer thread. The heartbeat pin changes level with every heartbeat, so a controller
watches for edges: they stop when the loop hangs, when the program stops and when it is killed (the kernel then lets go
of the pins).

A chip that is not there, at the start or later, is asked for with each heartbeat and each part. Meanwhile no pin moves:
no part is accepted, and the heartbeat stands still.
"""

import contextlib
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
        OutputError: gpiod is missing, or the name is none of a GPIO chip.
        OSError: the chip or a pin cannot be had now.
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
        except ValueError as error:
            raise OutputError(
                f"output.gpio_chip {chip}: want a GPIO chip with the pins {list(pins)}: {error}; see gpioinfo"
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
        OutputError: the settings can never be followed here. A chip that is not there is no such error: it may come.
    """
    named = (settings.accept_pin, settings.reject_pin, settings.review_pin, settings.alarm_pin, settings.heartbeat_pin)
    pins = [pin for pin in named if pin >= 0]
    return GpioOutput(lambda: ChipPins(settings.gpio_chip, pins), settings)


class GpioOutput:
    """A pulse for each part on the pin of its action, a level for the alarm, edges for the heartbeat.

    A part that comes while the pulse of the one before still lasts ends that pulse and begins its own, after a gap of
    one millisecond on the same pin, so that a controller counts two.

    Args:
        open_pins: asks for the pins, all low; called again when they were lost.
        settings: which pin is what, and how long a pulse is.
        clock: seconds that do not jump.

    Raises:
        OutputError: the pins can never be had here.
    """

    name = "gpio"

    def __init__(
        self, open_pins: Callable[[], Pins], settings: OutputSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._open_pins = open_pins
        self._pins: Pins | None = None
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
        self._alarm = False
        self._closed = False
        self._fault: str | None = None
        self._hold()
        self._thread = threading.Thread(target=self._end_pulses, name="line-pins", daemon=True)
        self._thread.start()

    def signal(self, result: Result, alarm: bool) -> None:
        """Begin the part's pulse."""
        pin = self._by_action[result.action]
        with self._change:
            self._alarm = alarm
            self._hold_again()
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
            self._hold_again()
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
            self._let_go()
            self._change.notify()
        self._thread.join(timeout=1)

    def _hold(self) -> None:
        """Ask for the pins if they are not held; a chip that is not there is a fault that may pass."""
        if self._pins is not None or self._closed:
            return
        try:
            self._pins = self._open_pins()
        except OSError as error:
            self._fault = (
                f"{self._settings.gpio_chip}: cannot have its pins: {error}; check the chip's name, that the pins are "
                "free (gpioinfo) and that this user may open the chip; it is tried again"
            )
            return
        self._fault = None
        self._write(self._settings.alarm_pin, self._alarm)

    def _hold_again(self) -> None:
        """The same while parts pass: whatever is at the chip's place now, inspection goes on."""
        try:
            self._hold()
        except OutputError as error:
            self._fault = str(error)

    def _let_go(self) -> None:
        if self._pins is not None:
            with contextlib.suppress(OSError):  # the kernel has let go already
                self._pins.release()
        self._pins = self._pulsing = None

    def _write(self, pin: int, high: bool) -> None:
        if pin < 0 or self._pins is None:
            return
        try:
            self._pins.write(pin, high)
        except OSError as error:
            self._fault = f"pin {pin}: cannot set it: {error}; check the chip"
            self._let_go()  # so that no level stays, and a chip that comes back is another one
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
