"""What the line hears of each verdict, and that the heartbeat drops when the program stops."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_disk import small_disk

from edge.errors import OutputError, RefusedError, TransportError
from edge.gpio_output import ChipPins, GpioOutput
from edge.line_output import (
    Alarm,
    FileOutput,
    Outputs,
    OutputSettings,
    open_outputs,
    signal_fields,
)
from edge.message_output import MqttOutput, goodbye
from edge.results import Result
from edge.transports.interface import OnMessage, TransportState


def a_result(verdict: str = "pass", action: str | None = None, sequence: int = 1) -> Result:
    return Result(
        thing="press-3",
        sequence=sequence,
        source_key=f"part-{sequence}",
        line="tiny",
        captured_at=1_770_000_000.0,
        verdict=verdict,  # type: ignore[arg-type]
        action=action or {"pass": "accept", "review": "review"}.get(verdict, "reject"),  # type: ignore[arg-type]
        part_id="P-7",
    )


def eventually(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("did not come true within 20 s")


class Noted:
    """An output that notes what it is told."""

    name = "noted"

    def __init__(self) -> None:
        self.signals: list[tuple[str, bool]] = []
        self.beats: list[float] = []
        self.closed = False
        self.trouble: str | None = None

    def signal(self, result: Result, alarm: bool) -> None:
        self.signals.append((result.verdict, alarm))

    def heartbeat(self, now_s: float) -> None:
        self.beats.append(now_s)

    def fault(self) -> str | None:
        return self.trouble

    def close(self) -> None:
        self.closed = True


# --- alarm and heartbeat


def test_rejected_parts_in_a_row_raise_the_alarm_until_a_pass() -> None:
    output = Noted()
    outputs = Outputs([output], heartbeat_s=1.0, alarm_after=3)
    for verdict in ("fail", "fail", "pass", "fail", "error", "review", "fail", "fail", "review", "pass", "fail"):
        outputs.signal(a_result(verdict))
    alarms = [alarm for _, alarm in output.signals]
    assert alarms == [False] * 6 + [True, True, True] + [False, False]


def test_zero_never_raises_the_alarm() -> None:
    alarm = Alarm(0)
    assert not any(alarm.record(a_result("fail")) for _ in range(100))
    alarm.change(5)
    assert alarm.raised


def test_the_heart_beats_at_its_pace_however_often_the_loop_turns() -> None:
    output = Noted()
    outputs = Outputs([output], heartbeat_s=1.0, alarm_after=0)
    for tick in range(40):
        outputs.heartbeat(100.0 + tick * 0.25)
    assert output.beats == [100.0 + second for second in range(10)]
    outputs.heartbeat(5.0)  # the clock was set back
    assert output.beats[-1] == 5.0


def test_faults_name_the_output_and_close_reaches_all() -> None:
    well, ill = Noted(), Noted()
    ill.trouble = "broken"
    outputs = Outputs([well, ill], 1.0, 0)
    assert outputs.faults() == ["noted: broken"]
    outputs.close()
    assert well.closed
    assert ill.closed


# --- files


def test_the_file_holds_the_last_verdict_whole_at_any_moment(tmp_path: Path) -> None:
    output = FileOutput(tmp_path / "line")
    path = tmp_path / "line" / "verdict.json"
    output.signal(a_result("pass"), alarm=False)
    seen, stop = set(), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.add(json.loads(path.read_text(encoding="utf-8"))["verdict"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    for index in range(300):
        output.signal(a_result(("pass", "fail")[index % 2], sequence=index), alarm=False)
    stop.set()
    watcher.join()
    assert seen <= {"pass", "fail"}
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document == {
        "schema": "1.0",
        "id": "press-3-299",
        "part_id": "P-7",
        "verdict": "fail",
        "action": "reject",
        "label": None,
        "error": None,
        "captured_at": 1_770_000_000.0,
        "alarm": False,
    }


def test_the_heartbeat_file_moves_and_goes_away_with_the_program(tmp_path: Path) -> None:
    output = FileOutput(tmp_path)
    beat = tmp_path / "heartbeat"
    output.heartbeat(100.0)
    first = beat.stat().st_mtime_ns, beat.read_text()
    time.sleep(0.02)
    output.heartbeat(101.0)
    second = beat.stat().st_mtime_ns, beat.read_text()
    assert second > first
    output.close()
    assert not beat.exists()


def test_the_heartbeat_of_a_killed_program_grows_old(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from edge.line_output import FileOutput, Outputs\n"
        "outputs = Outputs([FileOutput(Path(sys.argv[1]))], 0.05, 0)\n"
        "while True: outputs.heartbeat(time.time()); time.sleep(0.01)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=Path(__file__).parents[1])
    beat = tmp_path / "heartbeat"
    try:
        eventually(beat.exists)
        before = beat.read_text()
        eventually(lambda: beat.read_text() != before)
    finally:
        child.kill()
        child.wait()
    last = beat.read_text()
    time.sleep(0.3)
    assert beat.read_text() == last


def test_a_full_disk_is_a_fault_that_passes(tmp_path: Path) -> None:
    folder = tmp_path / "line"
    with small_disk(folder, 64 * 1024):
        output = FileOutput(folder)
        filler = folder / "filler"
        try:
            filler.write_bytes(bytes(64 * 1024))
        except OSError:
            pytest.skip("this user cannot fill a disk of its own")
        try:
            with (folder / "more").open("wb") as file:
                file.write(bytes(100))
            pytest.skip("files are limited here, and not the disk")
        except OSError:
            pass
        output.signal(a_result(), alarm=False)
        fault = output.fault()
        assert fault is not None
        assert "verdict.json: cannot write" in fault
        filler.unlink()
        output.signal(a_result(), alarm=False)
        assert output.fault() is None


def test_a_folder_that_is_away_is_written_to_when_it_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.mkdir

    def away(path: Path, *arguments: Any, **more: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", away)
    folder = tmp_path / "line"
    output = FileOutput(folder)
    assert "line: cannot write: Permission denied" in str(output.fault())
    output.heartbeat(1.0)
    output.signal(a_result("pass"), alarm=False)
    assert not folder.exists()
    monkeypatch.setattr(Path, "mkdir", real)
    output.heartbeat(2.0)
    assert output.fault() is None
    assert [path.name for path in folder.iterdir()] == ["heartbeat"]
    output.close()


def test_a_verdict_of_another_part_is_gone_before_the_heart_beats_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = FileOutput(tmp_path)
    output.signal(a_result("pass"), alarm=False)
    real = Path.write_text

    def full(path: Path, *arguments: Any, **more: Any) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", full)
    output.signal(a_result("fail"), alarm=False)
    assert output.fault() is not None
    monkeypatch.setattr(Path, "write_text", real)
    output.heartbeat(1.0)
    assert not (tmp_path / "verdict.json").exists()
    output.signal(a_result("fail", sequence=2), alarm=False)
    output.heartbeat(2.0)
    assert json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8"))["verdict"] == "fail"


def test_a_folder_that_cannot_be_made_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"output\.folder .*file/line: cannot make it"):
        open_outputs(OutputSettings(folder=str(tmp_path / "file" / "line")), None, "t")


# --- messages


class FakeTransport:
    """Takes messages, or refuses them, or takes its time."""

    name = "fake"
    max_payload_bytes = 5000

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def start(self) -> None:
        pass

    def publish(self, topic: str, payload: bytes, timeout_s: float) -> None:
        assert topic == "lineside/tiny/press-3/output"
        self.gate.wait(20)
        if self.error is not None:
            raise self.error
        self.taken.append(json.loads(payload))

    def subscribe(self, topic: str, on_message: OnMessage, on_kept: OnMessage | None = None) -> None:
        raise AssertionError("outputs hear nothing")

    def state(self) -> TransportState:
        return TransportState(True, "")

    def close(self) -> None:
        raise AssertionError("the transport is not the output's")


TOPIC = "lineside/tiny/press-3/output"


def test_a_signal_is_published_and_the_end_is_told() -> None:
    transport = FakeTransport()
    outputs = open_outputs(OutputSettings(mqtt=True, alarm_after=1), transport, TOPIC)
    result = a_result("fail")
    outputs.signal(result)
    outputs.heartbeat(123.0)
    outputs.close()
    assert transport.taken == [
        signal_fields(result, alarm=True),
        {"schema": "1.0", "alive": True, "at": 123.0},
        json.loads(goodbye()),
    ]
    assert transport.taken[-1]["alive"] is False


def test_a_slow_broker_never_holds_up_the_loop_and_gets_the_newest() -> None:
    transport = FakeTransport()
    transport.gate.clear()
    output = MqttOutput(transport, TOPIC, OutputSettings())
    for index in range(500):
        output.signal(a_result(sequence=index), alarm=False)  # returns, though the broker takes nothing
    transport.gate.set()
    output.close()
    ids = [message["id"] for message in transport.taken if "id" in message]
    assert ids[-1] == "press-3-499"
    assert len(ids) < 30
    assert len(ids) + output.dropped == 500


def test_old_signals_are_dropped_and_not_told_late() -> None:
    transport = FakeTransport()
    transport.gate.clear()
    output = MqttOutput(transport, TOPIC, OutputSettings(stale_s=0.05))
    output.signal(a_result(sequence=1), alarm=False)
    eventually(output._waiting.empty)  # the thread holds it
    output.signal(a_result(sequence=2), alarm=False)
    time.sleep(0.2)
    transport.gate.set()
    eventually(lambda: output.dropped == 1)
    output.close()
    assert [message["id"] for message in transport.taken if "id" in message] == ["press-3-1"]


@pytest.mark.parametrize("error", [TransportError("offline"), RefusedError("not allowed")])
def test_a_broker_that_takes_nothing_is_a_fault_that_passes(error: Exception) -> None:
    transport = FakeTransport()
    transport.error = error
    output = MqttOutput(transport, TOPIC, OutputSettings())
    output.signal(a_result(), alarm=False)
    eventually(lambda: output.fault() is not None)
    assert str(error) in str(output.fault())
    transport.error = None
    output.signal(a_result(sequence=2), alarm=False)
    eventually(lambda: output.fault() is None)
    output.close()


def test_messages_without_a_transport_are_refused_at_the_start() -> None:
    with pytest.raises(OutputError, match="there is no transport to publish with"):
        open_outputs(OutputSettings(mqtt=True), None, TOPIC)


# --- pins


class FakePins:
    """Notes levels and their changes."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, bool]] = []
        self.levels: dict[int, bool] = {}
        self.released = False
        self.error: OSError | None = None

    def write(self, pin: int, high: bool) -> None:
        assert not self.released
        if self.error is not None:
            raise self.error
        self.changes.append((pin, high))
        self.levels[pin] = high

    def release(self) -> None:
        self.released = True


class Chip:
    """A chip that can be pulled out; what is asked for its pins while it is away gets an error."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.given: list[FakePins] = []

    def open(self) -> FakePins:
        if self.fault is not None:
            raise self.fault
        self.given.append(FakePins())
        return self.given[-1]


PINS = OutputSettings(
    gpio_chip="/dev/gpiochip0",
    accept_pin=4,
    reject_pin=5,
    review_pin=6,
    alarm_pin=7,
    heartbeat_pin=8,
    pulse_ms=30,
)


@pytest.mark.parametrize(
    ("verdict", "action", "pin"),
    [
        ("pass", "accept", 4),
        ("fail", "reject", 5),
        ("error", "reject", 5),
        ("review", "review", 6),
        ("review", "accept", 4),
    ],
)
def test_a_part_pulses_the_pin_of_its_action(verdict: str, action: str, pin: int) -> None:
    pins = FakePins()
    output = GpioOutput(lambda: pins, PINS)
    output.signal(a_result(verdict, action), alarm=False)
    assert pins.levels[pin] is True
    eventually(lambda: pins.levels[pin] is False)
    assert [change for change in pins.changes if change[0] in (4, 5, 6)] == [(pin, True), (pin, False)]
    output.close()


def test_two_parts_within_one_pulse_are_two_pulses() -> None:
    pins = FakePins()
    output = GpioOutput(lambda: pins, PINS)
    output.signal(a_result("pass"), alarm=False)
    output.signal(a_result("pass"), alarm=False)
    output.signal(a_result("fail"), alarm=False)
    eventually(lambda: pins.levels[5] is False)
    output.close()
    assert [change for change in pins.changes if change[0] == 4][:4] == [(4, True), (4, False), (4, True), (4, False)]
    up, down = pins.changes.index((5, True)), pins.changes.index((5, False))
    assert pins.changes[:up].count((4, False)) == 2  # never two actions at once
    assert up < down


def test_the_alarm_is_a_level() -> None:
    pins = FakePins()
    output = GpioOutput(lambda: pins, PINS)
    output.signal(a_result("fail"), alarm=True)
    assert pins.levels[7] is True
    output.signal(a_result("pass"), alarm=False)
    assert pins.levels[7] is False
    output.close()


def test_every_heartbeat_is_an_edge_and_the_end_lets_go_of_pins_that_are_low() -> None:
    pins = FakePins()
    output = GpioOutput(lambda: pins, PINS)
    for second in range(3):
        output.heartbeat(float(second))
    assert [high for pin, high in pins.changes if pin == 8] == [True, False, True]
    output.signal(a_result("fail"), alarm=True)
    output.close()
    output.close()
    assert pins.released
    assert not any(pins.levels.values())


def test_pins_that_are_not_connected_are_left_alone() -> None:
    pins = FakePins()
    output = GpioOutput(lambda: pins, OutputSettings(gpio_chip="/dev/gpiochip0", reject_pin=5, pulse_ms=1))
    output.signal(a_result("pass"), alarm=True)
    output.heartbeat(1.0)
    output.close()
    assert {pin for pin, _ in pins.changes} == {5}


def test_a_chip_that_fails_is_a_fault_that_passes() -> None:
    chip = Chip()
    output = GpioOutput(chip.open, PINS)
    chip.given[0].error = OSError(5, "Input/output error")
    output.signal(a_result("fail"), alarm=False)
    assert "cannot set it" in str(output.fault())
    output.signal(a_result("fail"), alarm=False)
    assert output.fault() is None
    output.close()


def test_a_chip_that_is_not_there_at_the_start_is_asked_for_with_each_heartbeat() -> None:
    chip = Chip()
    chip.fault = FileNotFoundError(2, "No such file or directory")
    output = GpioOutput(chip.open, PINS)
    output.heartbeat(1.0)
    output.signal(a_result("pass"), alarm=False)
    assert "/dev/gpiochip0: cannot have its pins: [Errno 2] No such file" in str(output.fault())
    chip.fault = OutputError("output.gpio_chip /dev/gpiochip0: want a GPIO chip")  # something else came in its place
    output.heartbeat(2.0)
    assert "want a GPIO chip" in str(output.fault())
    chip.fault = None
    output.heartbeat(3.0)
    (pins,) = chip.given
    assert output.fault() is None
    assert pins.levels[8] in (True, False)
    assert 4 not in pins.levels  # the part before is past: nothing is said of it
    output.signal(a_result("pass"), alarm=False)
    assert pins.levels[4] is True
    output.close()


def test_a_chip_that_was_pulled_out_is_taken_again_with_its_alarm_and_without_the_pulse() -> None:
    chip = Chip()
    output = GpioOutput(chip.open, PINS)
    output.signal(a_result("fail"), alarm=True)
    chip.given[0].error = chip.fault = OSError(19, "No such device")
    output.heartbeat(1.0)
    assert chip.given[0].released  # so that the kernel drops its levels
    output.heartbeat(2.0)
    assert "No such device" in str(output.fault())
    chip.fault = None
    output.heartbeat(3.0)
    assert chip.given[1].levels[7] is True
    time.sleep(2 * PINS.pulse_ms / 1000)
    assert 5 not in chip.given[1].levels
    output.close()


def test_what_is_no_chip_is_refused_at_the_start() -> None:
    chip = Chip()
    chip.fault = OutputError("output.gpio_chip /dev/null: want a GPIO chip")
    with pytest.raises(OutputError, match="want a GPIO chip"):
        GpioOutput(chip.open, PINS)


def test_pins_without_gpiod_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises((OutputError, OSError), match=r"need gpiod .*requirements-gpio\.txt|No such file"):
        ChipPins(str(tmp_path / "gpiochip9"), [1])


# --- settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accept_pin": 4}, "gpio_chip: want the chip of pins"),
        ({"gpio_chip": "/dev/gpiochip0"}, "gpio_chip: /dev/gpiochip0 is named but no pin is"),
        ({"gpio_chip": "/dev/gpiochip0", "accept_pin": 4, "reject_pin": 4}, "pins: want each used once"),
        ({"gpio_chip": "/dev/gpiochip0", "accept_pin": 4, "reject_pin": -2}, "pins: want a line offset"),
        ({"pulse_ms": 0}, "pulse_ms: want 1 to 10000"),
        ({"heartbeat_s": 0.0}, "heartbeat_s: want 0.05 to 3600 s"),
        ({"alarm_after": -1}, "alarm_after: want 0 (never) or more"),
        ({"stale_s": float("nan")}, "stale_s: want"),
    ],
)
def test_settings_without_sense_are_named(changes: dict[str, Any], message: str) -> None:
    faults = OutputSettings(**changes).check()
    assert len(faults) == 1
    assert faults[0].startswith(message)
    assert OutputSettings().check() == []


def test_no_output_at_all_is_well() -> None:
    outputs = open_outputs(OutputSettings(), None, TOPIC)
    outputs.signal(a_result())
    outputs.heartbeat(1.0)
    assert outputs.faults() == []
    outputs.close()
