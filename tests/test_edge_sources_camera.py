"""Cameras: fresh frames only, opened again when they vanish, reported when they do not come."""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.errors import SourceError
from edge.sources import opencv as opencv_module
from edge.sources import trouble
from edge.sources.camera import Camera
from edge.sources.opencv import StreamCapture, V4l2Capture, without_secrets
from edge.sources.opening import open_source
from edge.sources.settings import CameraSettings, SourceSettings, TriggerSettings
from edge.sources.triggered import TriggeredSource
from edge.sources.triggers import IntervalTriggers, Trigger

LONG_S = 20.0
FRAME_S = 0.01


class Driver:
    """A camera driver: so many buffers, filled in order, new frames dropped while all are full."""

    def __init__(self, buffers: int = 3, tells_time: bool = True) -> None:
        self.buffers, self.tells_time = buffers, tells_time
        self.filled: deque[float] = deque()
        self.next_s = time.monotonic()
        self.fails = False
        self.silent = False
        self.damaged = 0
        self.closed = 0
        self.grabbed_s = 0.0

    def _fill(self) -> None:
        now = time.monotonic()
        while self.next_s <= now:
            if len(self.filled) < self.buffers:
                self.filled.append(self.next_s)
            self.next_s += FRAME_S

    def grab(self) -> bool:
        while not self.fails:
            self._fill()
            if self.filled and not self.silent:
                self.grabbed_s = self.filled.popleft()
                return True
            time.sleep(FRAME_S / 4)
        return False

    def taken_s(self) -> float | None:
        return self.grabbed_s if self.tells_time else None

    def retrieve(self) -> bytes | np.ndarray | None:
        if self.damaged:
            self.damaged -= 1
            return None
        return repr(self.grabbed_s).encode()  # the "picture" shows when it was taken

    def close(self) -> None:
        self.closed += 1


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("tells_time", [True, False], ids=["driver tells time", "driver tells no time"])
def test_a_frame_is_never_older_than_its_trigger(tells_time: bool) -> None:
    driver = Driver(tells_time=tells_time)
    time.sleep(5 * FRAME_S)  # all buffers hold old frames
    camera = Camera("camera", lambda: driver, reopen_min_s=0.01)
    for _ in range(10):
        after_s = time.monotonic()
        shot = camera.capture(after_s, LONG_S)
        assert shot is not None
        assert float(shot.picture) >= after_s  # type: ignore[arg-type]
        assert after_s <= shot.captured_s <= time.monotonic()
        time.sleep(FRAME_S * 1.3)
    camera.close()
    assert driver.closed == 1


def test_a_time_from_another_clock_is_not_believed() -> None:
    driver = Driver()
    driver.taken_s = time.time  # type: ignore[method-assign]
    camera = Camera("camera", lambda: driver)
    after_s = time.monotonic()
    shot = camera.capture(after_s, LONG_S)
    camera.close()
    assert shot is not None
    assert after_s <= shot.captured_s <= time.monotonic()


def test_a_delay_makes_frames_older() -> None:
    camera = Camera("camera", Driver, delay_s=0.2)
    after_s = time.monotonic()
    shot = camera.capture(after_s, LONG_S)
    camera.close()
    assert shot is not None
    assert float(shot.picture) >= after_s + 0.2  # type: ignore[arg-type]


def test_a_damaged_frame_is_passed_over_and_counted() -> None:
    driver = Driver()
    driver.damaged = 2
    camera = Camera("camera", lambda: driver)
    assert camera.capture(time.monotonic(), LONG_S) is not None
    assert camera.state().counts["damaged"] == 2
    camera.close()


def test_a_camera_that_vanishes_is_opened_again() -> None:
    drivers: list[Driver] = []
    missing = [3]

    def open_capture() -> Driver:
        if drivers and missing[0]:
            missing[0] -= 1
            raise SourceError("/dev/video0: no such camera")
        drivers.append(Driver())
        return drivers[-1]

    camera = Camera("camera", open_capture, reopen_min_s=0.01)
    assert camera.capture(time.monotonic(), LONG_S) is not None
    assert not camera.state().error
    drivers[0].fails = True
    wait_until(lambda: camera.state().error)
    wait_until(lambda: len(drivers) == 2)
    shot = None
    while shot is None:
        shot = camera.capture(time.monotonic(), LONG_S)
    state = camera.state()
    assert (state.error, drivers[0].closed) == ("", 1)
    assert (state.counts["opened"], state.counts["lost"], state.counts["open_failed"]) == (2, 1, 3)
    camera.close()


class DriverError(Exception):
    """Of a library that has errors of its own."""


@pytest.mark.parametrize("where", ["open", "grab", "taken_s", "retrieve", "close"])
def test_a_driver_that_raises_is_counted_reported_and_opened_again(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = [2]  # times that the driver fails

    def fail(*_: object) -> Any:
        faulty[0] -= 1
        raise DriverError("assertion failed in rtsp://user:geheim@host/stream\n  !buf.empty()")

    def open_capture() -> Driver:
        if not faulty[0]:
            return Driver()
        if where == "open":
            fail()
        driver = Driver()
        setattr(driver, where, fail)
        if where == "close":
            driver.fails = True
        return driver

    camera = Camera("camera", open_capture, reopen_min_s=0.01)
    shot = None
    end_s = time.monotonic() + LONG_S
    while shot is None and time.monotonic() < end_s:
        shot = camera.capture(time.monotonic(), 0.2)
    assert shot is not None
    state = camera.state()
    assert state.counts["driver_failed"] == 2
    assert state.error == "camera: its driver failed: DriverError: assertion failed in … !buf.empty()"
    assert camera.gone == ""
    monkeypatch.setattr(trouble, "RECENT_S", 0.0)
    assert camera.state().error == ""
    camera.close()


def test_a_driver_that_fails_with_every_picture_is_opened_ever_more_rarely() -> None:
    opened: list[float] = []

    def open_capture() -> Driver:
        opened.append(time.monotonic())
        driver = Driver()
        driver.retrieve = lambda: [][0]  # type: ignore[assignment, method-assign]
        return driver

    camera = Camera("camera", open_capture, reopen_min_s=0.02, reopen_max_s=60)
    end_s = time.monotonic() + 1.5
    while time.monotonic() < end_s:
        camera.capture(time.monotonic(), 0.05)
        time.sleep(0.01)
    camera.close()
    assert 3 <= len(opened) < 15


class OneTrigger:
    """Promised triggers, as many as were put in."""

    def __init__(self, *triggers: Trigger) -> None:
        self.waiting = deque(triggers)
        self.answered: list[str] = []

    def wait(self, timeout_s: float) -> Trigger | None:
        if self.waiting:
            return self.waiting.popleft()
        time.sleep(timeout_s)
        return None

    def answer(self, trigger: Trigger, result: object) -> None:
        self.answered.append(trigger.key)

    def problem(self) -> str:
        return ""

    def counts(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


def promised(key: str = "trigger:1") -> Trigger:
    return Trigger(key, time.monotonic(), time.time(), promised=True)


def test_a_trigger_gets_the_frame_that_follows_it() -> None:
    settings = SourceSettings(station="s", view="v")
    source = TriggeredSource("camera", OneTrigger(trigger := promised()), Camera("camera", Driver), settings)  # type: ignore[arg-type]
    part = source.next_part(LONG_S)
    assert part is not None
    assert part.data is not None
    assert float(part.data) >= trigger.arrived_s
    assert (part.started_s, part.source_key) == (trigger.arrived_s, "trigger:1")  # the deadline counts from the trigger
    assert (part.station, part.view) == ("s", "v")
    assert part.captured_at >= trigger.arrived_at
    assert source.health().ok
    assert not source.finished()
    source.acknowledge(part, SimpleNamespace())  # type: ignore[arg-type]
    source.close()


def test_a_trigger_without_a_camera_is_an_error_at_once() -> None:
    def open_capture() -> Driver:
        raise SourceError("/dev/video0: no such camera")

    camera = Camera("camera", open_capture, reopen_min_s=60)
    source = TriggeredSource("camera", OneTrigger(promised()), camera, SourceSettings())  # type: ignore[arg-type]
    part = source.next_part(LONG_S)
    assert part is not None
    assert part.fault == ("camera_gone", "/dev/video0: no such camera")
    health = source.health()
    assert not health.ok
    assert "no such camera" in health.message
    assert health.counts["camera_gone"] == 1
    source.close()


def test_a_trigger_whose_frame_does_not_come_is_an_error_and_the_next_part_may_be_asked_in_short_waits() -> None:
    driver = Driver()
    driver.silent = True
    settings = SourceSettings(camera=CameraSettings(timeout_ms=200))
    source = TriggeredSource("camera", OneTrigger(promised()), Camera("camera", lambda: driver), settings)  # type: ignore[arg-type]
    waits, part = 0, None
    while part is None:
        part = source.next_part(0.02)
        waits += 1
        assert waits < 1000
    assert waits > 2
    assert part.fault == ("camera_timeout", "camera: no frame within 200 ms")
    driver.fails = True
    source.close()


@pytest.mark.parametrize(
    ("timeout_ms", "deadline_ms", "wanted_ms"), [(0, 200.0, 190), (150, 200.0, 150), (2000, 100.0, 90), (0, 20.0, 18)]
)
def test_the_error_of_a_part_without_a_frame_comes_by_the_deadline(
    timeout_ms: int, deadline_ms: float, wanted_ms: int
) -> None:
    driver = Driver()
    camera = Camera("camera", lambda: driver)
    assert camera.capture(time.monotonic(), LONG_S) is not None
    driver.silent = True
    settings = SourceSettings(camera=CameraSettings(timeout_ms=timeout_ms))
    trigger = promised()
    source = TriggeredSource("camera", OneTrigger(trigger), camera, settings, lambda: deadline_ms)  # type: ignore[arg-type]
    part = source.next_part(LONG_S)
    took_ms = (time.monotonic() - trigger.arrived_s) * 1e3
    assert part is not None
    assert part.fault == ("camera_timeout", f"camera: no frame within {wanted_ms} ms")
    assert wanted_ms <= took_ms < 1000  # and not 2 s: a machine that is busy is late by less
    driver.fails = True
    source.close()


def test_a_changed_deadline_counts_for_the_next_trigger_and_a_clocks_frames_need_none() -> None:
    driver = Driver()
    camera = Camera("camera", lambda: driver)
    assert camera.capture(time.monotonic(), LONG_S) is not None
    driver.silent = True
    deadline_ms = [50.0]
    triggers = OneTrigger(promised("a"))
    source = TriggeredSource("camera", triggers, camera, SourceSettings(), lambda: deadline_ms[0])  # type: ignore[arg-type]
    part = source.next_part(LONG_S)
    assert part is not None
    assert part.fault == ("camera_timeout", "camera: no frame within 45 ms")
    deadline_ms[0] = 100.0
    triggers.waiting.append(promised("b"))
    part = source.next_part(LONG_S)
    assert part is not None
    assert part.fault == ("camera_timeout", "camera: no frame within 90 ms")
    driver.silent, deadline_ms[0] = False, 1e-3
    triggers.waiting.append(Trigger("c", time.monotonic(), time.time(), promised=False))
    part = source.next_part(LONG_S)
    assert part is not None
    assert part.fault is None
    source.close()


def test_a_silent_camera_is_reported() -> None:
    driver = Driver()
    settings = SourceSettings(camera=CameraSettings(timeout_ms=50))
    camera = Camera("camera", lambda: driver)
    source = TriggeredSource("camera", OneTrigger(), camera, settings)  # type: ignore[arg-type]
    assert camera.capture(time.monotonic(), LONG_S) is not None
    driver.silent = True
    wait_until(lambda: "no frame for" in source.health().message)
    assert not source.health().ok
    driver.fails = True
    source.close()


def test_an_interval_makes_parts_with_keys_that_never_repeat() -> None:
    keys = []
    for _ in range(2):
        triggers = IntervalTriggers(0.01)
        source = TriggeredSource("camera", triggers, Camera("camera", Driver), SourceSettings())
        for _ in range(3):
            part = source.next_part(LONG_S)
            assert part is not None
            keys.append(part.source_key)
        source.close()
    assert len(set(keys)) == 6


def test_intervals_that_passed_are_skipped_not_made_up_for() -> None:
    triggers = IntervalTriggers(0.05)
    assert triggers.wait(1) is not None
    time.sleep(0.3)
    assert triggers.wait(1) is not None
    assert triggers.counts()["intervals_skipped"] >= 3
    assert triggers.wait(0) is None


def test_an_interval_without_a_camera_makes_no_part() -> None:
    def open_capture() -> Driver:
        raise SourceError("gone")

    camera = Camera("camera", open_capture, reopen_min_s=60)
    source = TriggeredSource("camera", IntervalTriggers(0.0), camera, SourceSettings())
    assert source.next_part(0.3) is None
    health = source.health()
    assert not health.ok
    assert 1 <= health.counts["without_frame"] < 10  # no busy loop
    source.close()


def test_closing_does_not_wait_for_a_pause() -> None:
    def open_capture() -> Driver:
        raise SourceError("gone")

    camera = Camera("camera", open_capture, reopen_min_s=3600, reopen_max_s=3600)
    wait_until(lambda: camera.gone)
    camera.close()
    assert not camera._thread.is_alive()


class FakeVideo:
    """What cv2.VideoCapture does, as far as it is used."""

    def __init__(self, library: "FakeOpenCv", source: str) -> None:
        self.library, self.source, self.values, self.released = library, source, dict(library.found), False
        library.opened.append(self)

    def isOpened(self) -> bool:  # noqa: N802
        return self.library.opens

    def set(self, name: str, value: float) -> bool:
        if name not in self.library.fixed:
            self.values[name] = value
        return True

    def get(self, name: str) -> float:
        return self.values.get(name, 0.0)

    def grab(self) -> bool:
        return True

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        return self.library.frame is not None, self.library.frame

    def release(self) -> None:
        self.released = True


class FakeOpenCv:
    """The names of cv2 that are used."""

    CAP_V4L2, CAP_FFMPEG = 200, 1900
    COLOR_BGR2RGB, COLOR_GRAY2RGB, COLOR_BGRA2RGB = 4, 8, 3

    def __init__(self) -> None:
        self.opened: list[FakeVideo] = []
        self.opens, self.found, self.fixed = True, {}, set[str]()  # type: ignore[var-annotated]
        self.frame: np.ndarray | None = None

    def __getattr__(self, name: str) -> str:
        if name.startswith("CAP_PROP_"):
            return name
        raise AttributeError(name)

    def VideoCapture(self, source: str, backend: int, options: object = None) -> FakeVideo:  # noqa: N802
        self.backend, self.options = backend, options
        return FakeVideo(self, source)

    @staticmethod
    def VideoWriter_fourcc(*signs: str) -> int:  # noqa: N802
        return sum(ord(sign) << 8 * index for index, sign in enumerate(signs))

    def cvtColor(self, frame: np.ndarray, code: int) -> np.ndarray:  # noqa: N802
        if code == self.COLOR_GRAY2RGB:
            return np.stack([frame.reshape(frame.shape[:2])] * 3, axis=-1)
        return frame[..., 2::-1].copy()


@pytest.fixture
def device(tmp_path: Path) -> str:
    path = tmp_path / "video0"
    path.touch()
    return str(path)


def test_mjpeg_frames_stay_as_the_camera_made_them(device: str) -> None:
    library = FakeOpenCv()
    settings = CameraSettings(width=1600, height=1200, fps=15, buffers=4)
    capture = V4l2Capture(device, settings, library)
    library.frame = np.frombuffer(b"\xff\xd8jpeg", np.uint8)[np.newaxis]
    assert capture.grab()
    assert capture.retrieve() == b"\xff\xd8jpeg"
    values = library.opened[0].values
    assert values["CAP_PROP_CONVERT_RGB"] == 0
    assert (values["CAP_PROP_FPS"], values["CAP_PROP_BUFFERSIZE"], capture.buffers) == (15, 4, 4)
    assert capture.taken_s() is None
    values["CAP_PROP_POS_MSEC"] = 12_345.0
    assert capture.taken_s() == pytest.approx(12.345)
    library.frame = None
    assert capture.retrieve() is None
    capture.close()
    assert library.opened[0].released


@pytest.mark.parametrize("format", ["yuyv", "grey", "rgb24", "any"])
def test_other_formats_become_rgb(device: str, format: str) -> None:
    library = FakeOpenCv()
    capture = V4l2Capture(device, CameraSettings(format=format), library)
    library.frame = np.array([[[1, 2, 3]]], np.uint8)
    np.testing.assert_array_equal(capture.retrieve(), [[[3, 2, 1]]])
    library.frame = np.array([[7]], np.uint8)
    np.testing.assert_array_equal(capture.retrieve(), [[[7, 7, 7]]])
    library.frame = np.array([[[7]]], np.uint8)
    np.testing.assert_array_equal(capture.retrieve(), [[[7, 7, 7]]])
    library.frame = np.array([[[1, 2, 3, 255]]], np.uint8)
    np.testing.assert_array_equal(capture.retrieve(), [[[3, 2, 1]]])
    assert library.opened[0].values["CAP_PROP_CONVERT_RGB"] == 1


@pytest.mark.parametrize("frame", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4), np.uint16)], ids=["yuyv", "grey16"])
def test_frames_that_are_no_pictures_are_refused_in_words(device: str, frame: np.ndarray) -> None:
    library = FakeOpenCv()
    library.frame = frame
    camera = Camera("camera", lambda: V4l2Capture(device, CameraSettings(format="any"), library), reopen_min_s=0.01)
    assert camera.capture(time.monotonic(), 0.1) is None
    wait_until(lambda: "want frames of 8 bits" in camera.state().error)
    assert camera.state().counts["lost"] >= 1
    camera.close()


def test_a_camera_that_cannot_be_set_up_is_let_go(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeOpenCv()

    def fail(*_: object) -> bool:
        raise DriverError

    monkeypatch.setattr(FakeVideo, "set", fail)
    with pytest.raises(DriverError):
        V4l2Capture(device, CameraSettings(), library)
    assert library.opened[0].released


def test_a_camera_without_the_wanted_format_or_size_is_refused_with_what_it_has(device: str) -> None:
    library = FakeOpenCv()
    library.found, library.fixed = {"CAP_PROP_FOURCC": FakeOpenCv.VideoWriter_fourcc(*"YUYV")}, {"CAP_PROP_FOURCC"}
    with pytest.raises(SourceError, match="the camera gives 'YUYV'"):
        V4l2Capture(device, CameraSettings(), library)
    assert library.opened[0].released
    library.found = {"CAP_PROP_FRAME_WIDTH": 640, "CAP_PROP_FRAME_HEIGHT": 480}
    library.fixed = set(library.found)
    with pytest.raises(SourceError, match="want 1600x1200 px, the camera gives 640x480"):
        V4l2Capture(device, CameraSettings(width=1600, height=1200), library)


def test_a_camera_that_is_missing_or_in_use_is_refused(device: str) -> None:
    with pytest.raises(SourceError, match="no such camera"):
        V4l2Capture("/dev/video-none", CameraSettings(), FakeOpenCv())
    library = FakeOpenCv()
    library.opens = False
    with pytest.raises(SourceError, match="another program"):
        V4l2Capture(device, CameraSettings(), library)


def test_a_stream_is_opened_with_limits_and_its_password_stays_out_of_messages() -> None:
    library = FakeOpenCv()
    url = "rtsp://user:geheim@10.0.0.7:554/stream?token=abc"
    capture = StreamCapture(url, CameraSettings(stall_s=3.0), library)
    assert library.opened[0].source == url
    assert library.options[:6] == [  # type: ignore[index]
        *("CAP_PROP_OPEN_TIMEOUT_MSEC", 10_000),
        *("CAP_PROP_READ_TIMEOUT_MSEC", 3000),
        *("CAP_PROP_N_THREADS", 1),
    ]
    library.frame = np.array([[[1, 2, 3]]], np.uint8)
    np.testing.assert_array_equal(capture.retrieve(), [[[3, 2, 1]]])
    assert capture.taken_s() is None
    capture.close()
    library.opens = False
    with pytest.raises(SourceError, match="cannot be opened") as caught:
        StreamCapture(url, CameraSettings(), library)
    assert "geheim" not in str(caught.value)
    assert "abc" not in str(caught.value)
    assert without_secrets(url) == "rtsp://10.0.0.7:554/stream"


def test_cameras_are_opened_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeOpenCv()
    monkeypatch.setattr(opencv_module.importlib, "import_module", lambda _: library)
    library.frame = np.zeros((4, 4, 3), np.uint8)
    settings = SourceSettings(trigger=TriggerSettings(interval_s=0.0))
    source = open_source("rtsp://user:geheim@host/stream", settings)
    part = source.next_part(LONG_S)
    assert part is not None
    assert part.frame is not None
    assert source.name == part.name == "rtsp://host/stream"
    source.close()
    source = open_source("v4l2:/dev/video-none", settings)
    wait_until(lambda: "no such camera" in source.health().message)
    source.close()
    with pytest.raises(SourceError, match="want v4l2:/dev/"):
        open_source("v4l2:0", settings)
    with pytest.raises(SourceError, match="need a transport"):
        open_source("v4l2:/dev/video0", SourceSettings(trigger=TriggerSettings(kind="topic")))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(opencv_module.importlib, "import_module", refuse)
    with pytest.raises(SourceError, match="pip install -r"):
        open_source("v4l2:/dev/video0", SourceSettings())


@pytest.mark.parametrize(
    "values",
    [{"width": 1600}, {"width": -1}, {"format": "h264"}, {"buffers": 0}, {"timeout_ms": -1}, {"fps": float("inf")}],
)
def test_bad_camera_settings_are_named(values: dict[str, Any]) -> None:
    assert any(next(iter(values)) in fault for fault in SourceSettings(camera=CameraSettings(**values)).check())
