"""Network cameras through the real OpenCV, from real servers on loopback."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from stream_servers import HttpCamera, NetworkCamera, RtspCamera

from edge.part import Part
from edge.sources.opening import open_source
from edge.sources.settings import CameraSettings, SourceSettings, TriggerSettings

pytest.importorskip("cv2", reason="needs OpenCV: pip install -r edge/requirements-camera.txt")

LONG_S = 30.0
SETTINGS = SourceSettings(
    camera=CameraSettings(timeout_ms=20_000, stall_s=2.0), trigger=TriggerSettings(interval_s=0.0)
)


@pytest.fixture(params=[HttpCamera, RtspCamera], ids=["http", "rtsp"])
def server(request: pytest.FixtureRequest) -> Iterator[NetworkCamera]:
    camera = request.param()
    yield camera
    camera.close()


def next_part(source: object, good: Callable[[Part], bool]) -> Part:
    end = time.monotonic() + LONG_S
    while time.monotonic() < end:
        part = source.next_part(1.0)  # type: ignore[attr-defined]
        if part is not None and good(part):
            return part
    raise AssertionError(source.health())  # type: ignore[attr-defined]


def red_of(part: Part) -> float:
    assert part.frame is not None
    assert (part.frame.dtype, part.frame.shape) == (np.uint8, (48, 64, 3))
    return float(part.frame[..., 0].mean())


def test_a_stream_gives_rgb_frames_as_they_are_now_and_comes_back_when_it_breaks(server: NetworkCamera) -> None:
    source = open_source(server.url, SETTINGS)  # type: ignore[attr-defined]
    try:
        part = next_part(source, lambda part: True)
        assert part.frame is not None
        np.testing.assert_allclose(part.frame.mean(axis=(0, 1)), (200, 128, 64), atol=6)  # red, green, blue
        server.level = 40
        next_part(source, lambda part: abs(red_of(part) - 40) < 8)
        assert source.health().ok
        server.hang_up()
        server.level = 90
        next_part(source, lambda part: abs(red_of(part) - 90) < 8)
        counts = source.health().counts
        assert counts["opened"] >= 2
        assert counts["lost"] >= 1
    finally:
        source.close()


def test_a_stream_with_a_wrong_password_is_reported_without_it(capfd: pytest.CaptureFixture[str]) -> None:
    server = RtspCamera()
    source = open_source(server.url.replace("geheim", "falsch"), SETTINGS)
    try:
        end = time.monotonic() + LONG_S
        while "cannot be opened" not in source.health().message:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert "falsch" not in source.health().message
        assert not source.health().ok
        assert source.next_part(0.1) is None
    finally:
        source.close()
        server.close()
    said = capfd.readouterr()
    assert "falsch" not in said.out + said.err


def test_a_server_that_is_not_there_is_reported() -> None:
    server = HttpCamera()
    url = server.url
    server.close()
    source = open_source(url, SETTINGS)
    try:
        end = time.monotonic() + LONG_S
        while "cannot be opened" not in source.health().message:
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        source.close()
