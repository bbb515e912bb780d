"""Outputs for the line: what a controller or a sorting gate gets of each verdict, and a heartbeat.

The heartbeat is called by the inspector's loop while the pool keeps its deadlines, so it stops when either hangs, and
it drops when the program stops or dies: a controller that watches it never takes an old signal for a new one. Signals
are for the moment; the record of a verdict is its result in the spool.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edge.errors import OutputError
from edge.results import Result
from edge.transports.interface import Transport

_log = logging.getLogger(__name__)

SCHEMA = "1.0"


@dataclass(frozen=True)
class OutputSettings:
    """What the line hears."""

    folder: str = ""  # for verdict.json and heartbeat; best on a RAM disk such as /run; empty: no files
    mqtt: bool = False  # publish to the topic `output`
    gpio_chip: str = ""  # such as /dev/gpiochip0; empty: no pins
    accept_pin: int = -1  # line offset on the chip; -1: not connected
    reject_pin: int = -1  # likewise
    review_pin: int = -1  # likewise
    alarm_pin: int = -1  # high while the alarm lasts
    heartbeat_pin: int = -1  # changes level with every heartbeat
    pulse_ms: int = 100  # length of a signal on a pin
    heartbeat_s: float = 1.0  # between heartbeats
    alarm_after: int = 10  # rejected parts in a row (fail or error) that raise the alarm; 0: never
    stale_s: float = 5.0  # a message that the broker has not taken for so long is dropped

    def check(self) -> list[str]:
        """Faults in words; empty when there are none."""
        faults = []
        pins = [getattr(self, name) for name in _PINS]
        used = [pin for pin in pins if pin >= 0]
        if min(pins) < -1:
            faults.append(f"pins: want a line offset from 0, or -1 for none, found {pins}")
        if len(set(used)) < len(used):
            faults.append(f"pins: want each used once, found {pins}")
        if used and not self.gpio_chip:
            faults.append(f"gpio_chip: want the chip of pins {used}, such as /dev/gpiochip0")
        if self.gpio_chip and not used:
            faults.append(f"gpio_chip: {self.gpio_chip} is named but no pin is")
        if not 1 <= self.pulse_ms <= 10_000:
            faults.append(f"pulse_ms: want 1 to 10000, found {self.pulse_ms}")
        for name in ("heartbeat_s", "stale_s"):
            if not 0.05 <= getattr(self, name) <= 3600:
                faults.append(f"{name}: want 0.05 to 3600 s, found {getattr(self, name)}")
        if self.alarm_after < 0:
            faults.append(f"alarm_after: want 0 (never) or more, found {self.alarm_after}")
        return faults


_PINS = ("accept_pin", "reject_pin", "review_pin", "alarm_pin", "heartbeat_pin")


class Output(Protocol):
    """One way to the line. Its methods return at once, and a passing fault is told by `fault`, not raised."""

    name: str

    def signal(self, result: Result, alarm: bool) -> None:
        """A part has its verdict."""

    def heartbeat(self, now_s: float) -> None:
        """The loop is alive; `now_s` is unix time."""

    def fault(self) -> str | None:
        """What is wrong now; None when nothing is."""

    def close(self) -> None:
        """Drop the heartbeat and let go."""


class Alarm:
    """Raised when so many parts in a row were rejected: then it is the process and not the part.

    A fail or an error counts, a pass ends it, a review changes nothing.

    Args:
        after: parts in a row; 0: never.
    """

    def __init__(self, after: int) -> None:
        self._after = after
        self.in_a_row = 0

    def change(self, after: int) -> None:
        """Follow a changed setting."""
        self._after = after

    def record(self, result: Result) -> bool:
        """Count a part; True while the alarm lasts."""
        if result.verdict in ("fail", "error"):
            self.in_a_row += 1
        elif result.verdict == "pass":
            self.in_a_row = 0
        return self.raised

    @property
    def raised(self) -> bool:
        """Whether the alarm lasts now."""
        return bool(self._after) and self.in_a_row >= self._after


class Outputs:
    """All outputs of a line, the alarm, and the beat of the heart.

    Args:
        outputs: to serve, in this order.
        heartbeat_s: between heartbeats.
        alarm_after: rejected parts in a row that raise the alarm; 0: none.
    """

    def __init__(self, outputs: Sequence[Output], heartbeat_s: float, alarm_after: int) -> None:
        self._outputs = tuple(outputs)
        self._heartbeat_s = heartbeat_s
        self._beat_s: float | None = None
        self.alarm = Alarm(alarm_after)

    def signal(self, result: Result) -> None:
        """Tell the line at once."""
        before = self.alarm.raised
        alarm = self.alarm.record(result)
        if alarm and not before:
            _log.warning("event=alarm_raised rejected_in_a_row=%d", self.alarm.in_a_row)
        for output in self._outputs:
            output.signal(result, alarm)

    def heartbeat(self, now_s: float) -> None:
        """Beat when it is time; call it as often as the loop turns.

        Args:
            now_s: unix time.
        """
        if self._beat_s is not None and 0 <= now_s - self._beat_s < self._heartbeat_s:
            return
        self._beat_s = now_s
        for output in self._outputs:
            output.heartbeat(now_s)

    def faults(self) -> list[str]:
        """What is wrong now."""
        return [f"{output.name}: {fault}" for output in self._outputs if (fault := output.fault()) is not None]

    def close(self) -> None:
        """Drop every heartbeat."""
        for output in self._outputs:
            output.close()


def open_outputs(settings: OutputSettings, transport: Transport | None, topic: str) -> Outputs:
    """The outputs that the settings name; none is well, too.

    Args:
        settings: which and how.
        transport: for messages.
        topic: of the messages.

    Raises:
        OutputError: the settings can never be followed here: a folder's name is a file's, a library is missing, or
            there is no transport to publish with. A disk or a chip that is not there is no such error: it may come.
    """
    outputs: list[Output] = []
    try:
        if settings.folder:
            outputs.append(FileOutput(Path(settings.folder)))
        if settings.mqtt:
            if transport is None:
                raise OutputError("output.mqtt: there is no transport to publish with; set one, or mqtt = false")
            from edge.message_output import MqttOutput

            outputs.append(MqttOutput(transport, topic, settings))
        if settings.gpio_chip:
            from edge.gpio_output import open_gpio_output  # needs a library that only boards with pins have

            outputs.append(open_gpio_output(settings))
    except OutputError:
        for output in outputs:
            output.close()
        raise
    return Outputs(outputs, settings.heartbeat_s, settings.alarm_after)


def signal_fields(result: Result, alarm: bool) -> dict[str, Any]:
    """What a controller gets to know of a part."""
    return {
        "schema": SCHEMA,
        "id": result.id,
        "part_id": result.part_id,
        "verdict": result.verdict,
        "action": result.action,
        "label": result.label,
        "error": result.error,
        "captured_at": result.captured_at,
        "alarm": alarm,
    }


class FileOutput:
    """`verdict.json`, replaced whole with each part, and `heartbeat`, whose time of change moves.

    Nothing is synced: the files are for programs on this machine, now. On `close` the heartbeat goes away; when the
    program dies it stays and grows old. While the folder cannot be written to, the heartbeat grows old, too; with the
    first one after it a verdict goes away that was not replaced by its part's.

    Raises:
        OutputError: the folder's name, or one above it, is a file's.
    """

    name = "file"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fault: str | None = None
        self._outdated = False  # the verdict in the file is not that of the last part
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if isinstance(error, NotADirectoryError) or folder.is_file():
                raise OutputError(
                    f"output.folder {folder}: cannot make it: {error.strerror}; name a folder that this user may write "
                    "to"
                ) from error
            self._fault = self._cannot_write(folder, error)  # a mount that may come back

    def signal(self, result: Result, alarm: bool) -> None:
        """Replace the verdict."""
        self._outdated = not self._write("verdict.json", json.dumps(signal_fields(result, alarm)) + "\n")

    def heartbeat(self, now_s: float) -> None:
        """Replace the heartbeat."""
        if self._outdated:
            try:
                (self._folder / "verdict.json").unlink(missing_ok=True)
            except OSError as error:
                self._fault = self._cannot_write(self._folder, error)
                return
            self._outdated = False
        self._write("heartbeat", f"{now_s:.3f}\n")

    def fault(self) -> str | None:
        """Why the last write failed."""
        return self._fault

    def close(self) -> None:
        """Remove the heartbeat."""
        try:
            (self._folder / "heartbeat").unlink(missing_ok=True)
        except OSError as error:
            _log.warning("event=output_failed output=file error=%s", error)

    def _write(self, name: str, text: str) -> bool:
        staged = self._folder / f".{name}.part"
        try:
            if self._fault is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            staged.write_text(text, encoding="utf-8")
            staged.replace(self._folder / name)
        except OSError as error:
            self._fault = self._cannot_write(self._folder / name, error)
            return False
        self._fault = None
        return True

    @staticmethod
    def _cannot_write(path: Path, error: OSError) -> str:
        return f"{path}: cannot write: {error.strerror or error}; check the folder, its disk and that this user may"
