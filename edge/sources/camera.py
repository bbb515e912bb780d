"""A camera or stream that is always read, so that no frame waits in a queue and grows old.

A thread takes every frame off the driver and throws it away, unless somebody wants one: then the first frame captured
after that moment is converted and handed over. A camera that fails is opened again, with growing pauses.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge.backoff import Backoff
from edge.errors import SourceError
from edge.sources.trouble import Trouble

log = logging.getLogger(__name__)

_REOPEN_MIN_S = 0.5
_ADDRESS = re.compile(r"\S+://\S+")  # may hold user and password
_MAX_TEXT = 200  # characters of what a driver says
_PLAUSIBLE_AGE_S = 10.0  # a driver's time outside of this is from another clock


@dataclass(frozen=True)
class Shot:
    """One frame."""

    captured_s: float  # time.monotonic(), at the earliest
    picture: bytes | np.ndarray  # a JPEG file as the camera gave it, or uint8, shape (H, W, 3), RGB


class Capture(Protocol):
    """An open camera: the seam to the library that drives it."""

    buffers: int  # frames that it may hold back before it gives them

    def grab(self) -> bool:
        """Wait for a frame and take it off the queue. False: the camera is gone, or gave none for too long."""

    def taken_s(self) -> float | None:
        """When the grabbed frame was captured, on the clock of time.monotonic(); None when that is not known."""

    def retrieve(self) -> bytes | np.ndarray | None:
        """The grabbed frame, as in Shot.picture; None when it is damaged."""

    def close(self) -> None:
        """Let go of the device."""


@dataclass(frozen=True)
class CameraState:
    """How a camera does."""

    error: str  # why there are no frames, or lately were none; empty: there are
    frame_age_s: float | None  # since the last frame; None: there was none yet
    counts: dict[str, int]


class Camera:
    """A capture that is kept open and read by a thread."""

    def __init__(
        self,
        name: str,
        open_capture: Callable[[], Capture],
        delay_s: float = 0.0,
        reopen_max_s: float = 30.0,
        reopen_min_s: float = _REOPEN_MIN_S,
    ) -> None:
        """Begin to open and read.

        Args:
            name: for messages.
            open_capture: opens the device; raises SourceError when it cannot. Whatever else the driver raises, here or
                later, is counted and reported, and the device is opened again.
            delay_s: frames are that much older than they seem.
            reopen_max_s: longest pause between two attempts to open.
            reopen_min_s: the first pause.
        """
        self._name, self._open_capture, self._delay_s = name, open_capture, delay_s
        self._backoff = Backoff(reopen_min_s, reopen_max_s)
        self._changed = threading.Condition()
        self._wanted_s: float | None = None  # somebody waits for a frame captured after this
        self._shot: Shot | None = None
        self._error = f"{name}: not open yet"
        self._opening = True  # the first attempt has not ended
        self._last_frame_s: float | None = None
        self._counts: Counter[str] = Counter()
        self._trouble = Trouble()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    def capture(self, after_s: float, timeout_s: float) -> Shot | None:
        """The first frame captured after a moment.

        Args:
            after_s: of time.monotonic().
            timeout_s: how long to wait.

        Returns:
            None when there was none within the timeout, or at once when the camera is not open.
        """
        with self._changed:
            self._shot, self._wanted_s = None, after_s
            self._changed.wait_for(lambda: self._shot or (self._error and not self._opening), timeout_s)
            shot, self._shot, self._wanted_s = self._shot, None, None
            return shot

    @property
    def gone(self) -> str:
        """Why the camera is not open; empty when it is, or is being opened for the first time."""
        with self._changed:
            return "" if self._opening else self._error

    def state(self) -> CameraState:
        """How it does now."""
        with self._changed:
            age = None if self._last_frame_s is None else time.monotonic() - self._last_frame_s
            return CameraState(self._error or self._trouble.message(), age, dict(self._counts))

    def close(self) -> None:
        """End the thread; one that the device holds ends when the device lets go."""
        self._closing.set()
        with self._changed:
            self._opening, self._error = False, f"{self._name}: closed"
            self._changed.notify_all()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._closing.is_set():
            what, reason = self._open_and_read()
            if not self._closing.is_set():
                self._lost(what, reason)

    def _open_and_read(self) -> tuple[str, str]:
        """Take frames until the camera fails; what happened, and in words."""
        capture = None
        try:
            capture = self._open_capture()
            with self._changed:
                self._error, self._opening = "", False
                self._counts["opened"] += 1
                if self._counts["opened"] > 1:
                    log.info("event=camera_back camera=%s", self._name)
            try:
                self._read(capture)
            finally:
                capture.close()
        except SourceError as error:
            if capture is None:
                return "open_failed", str(error)
            what, reason = "lost", str(error)
        except Exception as error:  # noqa: BLE001  a driver raises what it likes; without this thread there is no camera
            text = _ADDRESS.sub("…", " ".join(str(error).split()))[:_MAX_TEXT]
            what, reason = "driver_failed", f"{self._name}: its driver failed: {type(error).__name__}: {text}"
        else:
            return "lost", f"{self._name}: gives no frames any more; check its cable and power"
        self._trouble.note(reason)  # it may open well each time, and fail with the first picture
        return what, reason

    def _lost(self, what: str, reason: str) -> None:
        with self._changed:
            first = self._error != reason
            self._error, self._opening = reason, False
            self._counts[what] += 1
            self._changed.notify_all()
        pause_s = self._backoff.fail()
        if first:  # not a line at each attempt
            log.warning("event=camera_%s next_try_s=%.1f reason=%s", what, pause_s, reason)
        self._closing.wait(pause_s)

    def _read(self, capture: Capture) -> None:
        """Take frames until there are no more."""
        starts: deque[float] = deque(maxlen=capture.buffers + 1)
        while not self._closing.is_set():
            starts.append(time.monotonic())
            if not capture.grab():
                return
            if not self._trouble.message():
                self._backoff.succeed()
            arrived_s = time.monotonic()
            # Without a time from the driver: this frame's buffer was handed to the driver `buffers` grabs ago or later.
            taken_s = capture.taken_s()
            known = taken_s is not None and 0 <= arrived_s - taken_s < _PLAUSIBLE_AGE_S
            captured_s = (taken_s if known and taken_s is not None else starts[0]) - self._delay_s
            with self._changed:
                self._last_frame_s = arrived_s
                self._counts["frames"] += 1
                if self._wanted_s is None or captured_s < self._wanted_s:
                    continue
            picture = capture.retrieve()
            if picture is not None:
                self._backoff.succeed()
            with self._changed:
                if picture is None:
                    self._counts["damaged"] += 1
                elif self._wanted_s is not None and captured_s >= self._wanted_s:
                    self._shot, self._wanted_s = Shot(captured_s, picture), None
                    self._changed.notify_all()
