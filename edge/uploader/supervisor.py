"""Starts the uploader's process when images wait, and reports how it goes."""

import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edge
from edge.backoff import Backoff
from edge.uploader.settings import UploadSettings

_log = logging.getLogger(__name__)

_LOCK_FILE = "uploader.lock"  # touched by the child after each image
_LOOK_S = 2.0  # between looks at the backlog
_STOP_S = 5.0  # from asking a child to stop to killing it


@dataclass(frozen=True)
class UploadState:
    """How uploading goes."""

    ok: bool
    state: str  # off, idle, running, done, or what is wrong: offline, denied, missing, clock, full, refused, ...
    message: str
    images: int  # sent since the start
    image_bytes: int
    damaged: int
    gone: int


class UploadSupervisor:
    """One child at a time, with pauses between, and longer ones after a failure.

    Args:
        settings: where to and how gently.
        spool: the inspector's spool folder.
        backlog: how many images wait.
        command: runs the uploader; for tests.
        jitter: a random number from 0 to 1; for tests.
    """

    def __init__(
        self,
        settings: UploadSettings,
        spool: Path,
        backlog: Callable[[], int],
        command: Sequence[str] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._backlog = backlog
        self._command = list(command or _command(settings, spool))
        self._now_s = 0.0
        self._backoff = Backoff(settings.retry_min_s, settings.retry_max_s, lambda: self._now_s, jitter)
        self._child: subprocess.Popen[str] | None = None
        self._mark, self._moved_s = -1, 0.0  # the child's last sign of life, and when it was seen
        self._rest_until_s = 0.0
        self._totals = {"images": 0, "image_bytes": 0, "damaged": 0, "gone": 0}
        self._ok, self._state, self._message = True, "idle" if settings.to else "off", ""

    def tick(self, now_s: float) -> None:
        """Look after the child; call it about once a second.

        Args:
            now_s: `time.monotonic()`.
        """
        self._now_s = now_s
        if not self._settings.to:
            return
        if self._child is not None:
            self._watch(self._child)
            return
        if now_s < self._rest_until_s or self._backoff.remaining_s():
            return
        if self._backlog():
            self._start()
        else:
            self._rest_until_s = now_s + _LOOK_S

    def hurry(self) -> None:
        """Start as soon as there is something: for a run that ends by itself. The wait after a failure stays."""
        self._rest_until_s = self._now_s

    def state(self) -> UploadState:
        """How it goes now; a failure stays until an upload has succeeded."""
        state = "running" if self._child is not None and self._ok else self._state
        return UploadState(self._ok, state, self._message, **self._totals)

    def close(self) -> None:
        """Stop the child; it begins again where it was."""
        child = self._child
        if child is None:
            return
        child.terminate()
        try:
            child.communicate(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
        self._child = None

    def _start(self) -> None:
        # A component's process finds `edge` by its working directory, which the child may not share.
        home = str(Path(edge.__file__).resolve().parents[1])
        path = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
            )
        except OSError as error:
            self._fail("start", f"cannot start the uploader: {error.strerror or error}; check memory and disk")
            return
        self._mark, self._moved_s = -1, self._now_s
        _log.info("event=upload_started pid=%d", self._child.pid)

    def _watch(self, child: "subprocess.Popen[str]") -> None:
        if child.poll() is None:
            if self._idle_for_s() > self._settings.stalled_s:
                _log.warning("event=upload_stalled pid=%d", child.pid)
                child.kill()
                child.communicate()
                self._child = None
                self._fail("stalled", f"no image in {self._settings.stalled_s:.0f} s: the upload was stopped")
            return
        output = child.communicate()[0]  # one short line: it fits into the pipe
        self._child = None
        self._rest_until_s = self._now_s + self._settings.pause_s
        report = _report(output)
        if report is None:
            self._fail("crashed", f"the uploader ended with code {child.returncode} and no report; see its log above")
            return
        for name in self._totals:
            self._totals[name] += report[name]
        _log.info(
            "event=upload_ended state=%s images=%d bytes=%d", report["state"], report["images"], report["image_bytes"]
        )
        if report["state"] in ("done", "busy"):
            self._backoff.succeed()
            self._ok, self._state, self._message = True, "done", ""
        else:
            self._fail(report["state"], report["message"])

    def _idle_for_s(self) -> float:
        """Time since the child's last image, or since its start, by a clock that does not jump."""
        try:
            mark = (self._spool / _LOCK_FILE).stat().st_mtime_ns
        except OSError:
            mark = 0
        if mark != self._mark:
            self._mark, self._moved_s = mark, self._now_s
        return self._now_s - self._moved_s

    def _fail(self, state: str, message: str) -> None:
        wait_s = self._backoff.fail()
        self._ok, self._state, self._message = False, state, message
        _log.warning("event=upload_failed state=%s retry_s=%.0f message=%s", state, wait_s, message)


def _command(settings: UploadSettings, spool: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "edge.uploader", "--spool", str(spool), "--to", settings.to),
        *(f"--profile={settings.profile}", f"--region={settings.region}"),
        *(f"--max-kb-per-s={settings.max_kb_per_s}", f"--nice={settings.nice}"),
    ]


def _report(output: str) -> dict[str, Any] | None:
    """The child's line of JSON; None when it did not get so far."""
    try:
        report = json.loads(output)
    except ValueError:
        return None
    texts, numbers = ("state", "message"), ("images", "image_bytes", "damaged", "gone")
    whole = isinstance(report, dict) and all(isinstance(report.get(name), str) for name in texts)
    return report if whole and all(isinstance(report.get(name), int) for name in numbers) else None
