"""Cameras (V4L2) and network streams (RTSP, MJPEG over HTTP) through OpenCV, an extra that is loaded when chosen.

pip install -r edge/requirements-camera.txt
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from edge.errors import SourceError
from edge.redaction import redact
from edge.sources.settings import CameraSettings

_FOURCC = {"mjpeg": "MJPG", "yuyv": "YUYV", "grey": "GREY", "rgb24": "RGB3"}
_OPEN_TIMEOUT_MS = 10_000


def load_opencv() -> Any:
    """The library.

    Raises:
        SourceError: it is not installed.
    """
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise SourceError(
            f"cameras and streams need OpenCV ({error}); pip install -r edge/requirements-camera.txt"
        ) from error


class V4l2Capture:
    """A camera of this machine. MJPEG frames stay the files that the camera made; others become RGB."""

    def __init__(self, device: str, settings: CameraSettings, cv2: Any) -> None:
        """Open the camera as the settings say.

        Raises:
            SourceError: no such device, it is in use, or it has no such format or size.
        """
        if not Path(device).exists():
            raise SourceError(f"{device}: no such camera; check its cable and power, and /dev/v4l/by-id")
        self._cv2, self._raw = cv2, settings.format == "mjpeg"
        self._video = cv2.VideoCapture(device, cv2.CAP_V4L2)
        try:
            self._set_up(device, settings)
        except BaseException:  # also what OpenCV raises: the device must be free for the next attempt
            self._video.release()
            raise
        self.buffers = settings.buffers

    def grab(self) -> bool:
        """Wait for a frame and take it off the queue."""
        return bool(self._video.grab())

    def taken_s(self) -> float | None:
        """The driver's time of the frame."""
        milliseconds = self._video.get(self._cv2.CAP_PROP_POS_MSEC)
        return milliseconds / 1000 if milliseconds > 0 else None

    def retrieve(self) -> bytes | np.ndarray | None:
        """The grabbed frame: a JPEG file, or uint8 RGB."""
        good, frame = self._video.retrieve()
        if not good or frame is None or frame.size == 0:
            return None
        if self._raw:
            return bytes(frame.tobytes())
        return _to_rgb(frame, self._cv2)

    def close(self) -> None:
        """Let go of the device."""
        self._video.release()

    def _set_up(self, device: str, settings: CameraSettings) -> None:
        video, cv2 = self._video, self._cv2
        if not video.isOpened():
            raise SourceError(
                f"{device}: cannot be opened; is another program using it, and may this user read and write it "
                "(group video)?"
            )
        video.set(cv2.CAP_PROP_BUFFERSIZE, settings.buffers)
        fourcc = _FOURCC.get(settings.format)
        if fourcc is not None:
            video.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*fourcc))
        if settings.width:
            video.set(cv2.CAP_PROP_FRAME_WIDTH, settings.width)
            video.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.height)
        if settings.fps:
            video.set(cv2.CAP_PROP_FPS, settings.fps)
        video.set(cv2.CAP_PROP_CONVERT_RGB, 0 if self._raw else 1)
        found = _fourcc_text(video.get(cv2.CAP_PROP_FOURCC))
        if fourcc is not None and found != fourcc:
            raise SourceError(
                f"{device}: want format {settings.format} ({fourcc}), the camera gives {found!r}; list what it has "
                "with v4l2-ctl --list-formats-ext and set camera.format"
            )
        size = int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if settings.width and size != (settings.width, settings.height):
            raise SourceError(
                f"{device}: want {settings.width}x{settings.height} px, the camera gives {size[0]}x{size[1]}; list "
                "what it has with v4l2-ctl --list-formats-ext and set camera.width and height"
            )


class StreamCapture:
    """A network stream, decoded to RGB."""

    def __init__(self, url: str, settings: CameraSettings, cv2: Any) -> None:
        """Connect.

        Raises:
            SourceError: no answer, or not a stream.
        """
        self._cv2 = cv2
        self.buffers = settings.buffers
        options = [
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_TIMEOUT_MS),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(settings.stall_s * 1000)),
            *(cv2.CAP_PROP_N_THREADS, 1),  # each further decoding thread holds back a frame
        ]
        started_s = time.monotonic()
        self._video = cv2.VideoCapture(url, cv2.CAP_FFMPEG, options)
        if not self._video.isOpened():
            self._video.release()
            raise SourceError(
                f"{without_secrets(url)}: cannot be opened after {time.monotonic() - started_s:.1f} s; check the "
                "address, the password and the network"
            )

    def grab(self) -> bool:
        """Wait for a frame and decode it."""
        return bool(self._video.grab())

    def taken_s(self) -> float | None:
        """Not known: a stream's times are of the sender's clock."""
        return None

    def retrieve(self) -> np.ndarray | None:
        """The grabbed frame: uint8 RGB."""
        good, frame = self._video.retrieve()
        if not good or frame is None or frame.size == 0:
            return None
        return _to_rgb(frame, self._cv2)

    def close(self) -> None:
        """Hang up."""
        self._video.release()


def without_secrets(url: str) -> str:
    """An address without user, password and query."""
    parts = urlsplit(redact(url))  # a password may hold what ends a host's name
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _to_rgb(frame: np.ndarray, cv2: Any) -> np.ndarray:
    """A frame as OpenCV gives it, as uint8 RGB.

    Raises:
        SourceError: it is neither grey nor colour with 8 bits, as when a driver ignores what format it was asked for.
    """
    channels = 1 if frame.ndim == 2 else frame.shape[2]
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    if frame.dtype != np.uint8 or channels not in codes:
        raise SourceError(
            f"camera: want frames of 8 bits with 1, 3 or 4 channels, found {frame.dtype} with {channels}; set "
            "camera.format to one that the camera has (v4l2-ctl --list-formats-ext)"
        )
    rgb: np.ndarray = cv2.cvtColor(frame, codes[channels])
    return rgb


def _fourcc_text(value: float) -> str:
    number = int(value)
    return "".join(chr(number >> shift & 0xFF) for shift in (0, 8, 16, 24))
