"""The inspector's end of a challenger's process: one thread that hands it parts and takes its answers.

A process and not a thread: it stands back for the champion without holding Python's lock meanwhile, and native code
that a bad model crashes ends only itself.
"""

import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.part import Part
from edge.results import Result
from edge.shadow.wire import Answer, Opened, Refused, read_message, write_part

_log = logging.getLogger(__name__)

_OPEN_S = 600.0  # for starting, verifying and self-testing, on a machine that is busy with other things
_ANSWER_S = 120.0  # for one part, likewise
_END_S = 10.0  # for a process that has closed its pipe
_MOST_WAITING = 64  # parts
CRASHED = Answer("error", "reject", error="crashed")


@dataclass(frozen=True, eq=False)
class Job:
    """A part that the champion has decided on."""

    part: Part  # with its picture
    result: Result  # the champion's
    champion: str  # digest of its contract
    kept: bool  # its image is kept for another reason


class Session:
    """One challenger from its opening to its end; never started again.

    Args:
        package: folder of the challenger's package.
        digest: of its contract.
        line: that it must be for.
        nice: how far it stands back.
        memory_bytes: of pictures that wait; with more, the next part is skipped.
        compare: called in the session's thread with itself, the part and the answer.
        command: runs the challenger's process; for tests.
    """

    def __init__(
        self,
        package: Path,
        digest: str,
        line: str,
        nice: int,
        memory_bytes: int,
        compare: Callable[["Session", Job, Answer], None],
        command: Sequence[str] | None = None,
    ) -> None:
        self.digest = digest
        self.opened: Opened | None = None  # it judges
        self.reason = ""  # why it ended, unless it was told to
        self.version: str | None = None
        self._command = list(command or _command(package, digest, line, nice))
        self._memory_bytes = memory_bytes
        self._compare = compare
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._waiting_bytes = 0
        self._at_work = False
        self._stopping = False
        self._gone = False  # the process ended while it had nothing to judge
        self._late = ""  # why the process was killed
        self._child: subprocess.Popen[bytes] | None = None
        self._due_s: float | None = time.monotonic() + _OPEN_S  # when the process must have answered; None: nothing
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def offer(self, job: Job) -> bool:
        """Hand it a part; returns at once. False: it is behind, the part is skipped."""
        with self._changed:
            # By what waits already, and not by this part's size: large files may be those of bad parts.
            full = len(self._waiting) >= _MOST_WAITING or self._waiting_bytes >= self._memory_bytes
            if self.opened is None or self._stopping or full:
                return False
            self._waiting.append(job)
            self._waiting_bytes += _size(job.part)
            self._changed.notify_all()
        return True

    def check(self, now_s: float) -> None:
        """End a process that does not answer, notice one that ended without a part in hand; call it now and then.

        Args:
            now_s: time.monotonic().
        """
        with self._changed:
            if self._due_s is not None and now_s > self._due_s and not self._late:
                limit_s = _OPEN_S if self.opened is None else _ANSWER_S
                self._late = f"its process did not answer within {limit_s:.0f} s"
                self._kill()
            if not self._at_work and self._child is not None and self._child.poll() is not None:
                self._gone = True
                self._changed.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Wait until every part that was handed over is judged; False when it takes longer."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._waiting or self._at_work) or not self.alive, timeout_s if self.opened else 0.0
            )

    def stop(self) -> None:
        """Have it end; returns at once."""
        with self._changed:
            self._stopping = True
            self._waiting.clear()
            self._kill()
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)

    def _kill(self) -> None:
        """Under the lock."""
        if self._child is not None and self._child.returncode is None:
            self._child.kill()

    def _run(self) -> None:
        try:
            reason = self._start_and_talk()
        except Exception as error:  # noqa: BLE001  a fault here must not look like a challenger that still judges
            _log.exception("event=shadow_fault")
            reason = f"{type(error).__name__}: {error}"
        with self._changed:
            self.reason = "" if self._stopping else self._late or reason
            self._waiting.clear()
            self._at_work = False
            self._due_s = None
            self._changed.notify_all()

    def _start_and_talk(self) -> str:
        """Returns why it ended."""
        home = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))}
        try:
            child = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
            )
        except OSError as error:
            return f"cannot start a process for it: {error.strerror or error}; check memory and disk"
        assert child.stdin is not None
        assert isinstance(child.stdout, io.FileIO)
        with self._changed:
            self._child = child
            if self._stopping:
                child.kill()
        with io.BufferedReader(child.stdout) as answers, child.stdin as parts:
            try:
                return self._talk(child, _Pipe(parts.fileno()), answers)
            finally:
                child.kill()
                child.wait()

    def _talk(self, child: "subprocess.Popen[bytes]", parts: "_Pipe", answers: "io.BufferedReader[io.FileIO]") -> str:
        first = answers.readline()
        if not first:
            return _how_it_ended(child)
        opened = read_message(first)
        if isinstance(opened, Refused):
            self.version = opened.version
            return opened.reason
        assert isinstance(opened, Opened)
        with self._changed:
            self.version = opened.version
            self.opened = opened
            self._due_s = None
        while (job := self._next()) is not None:
            try:
                write_part(parts, job.part)  # type: ignore[arg-type]
            except BrokenPipeError:  # it was gone before
                return _how_it_ended(child)
            line = answers.readline()
            if not line:
                how = _how_it_ended(child)
                # As the inspector's process it would have ended the inspection; unless somebody killed it.
                if not (self._stopping or self._late or child.returncode == -signal.SIGKILL):
                    self._guarded(job, CRASHED)
                return f"{how} while it judged {job.part.name}"
            answer = read_message(line)
            assert isinstance(answer, Answer)
            self._guarded(job, answer)
        return "" if self._stopping else _how_it_ended(child)

    def _next(self) -> Job | None:
        """The part that waits longest; None when the session or the process has ended."""
        with self._changed:
            self._at_work, self._due_s = False, None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._stopping or self._gone)
            if self._stopping or self._gone:
                return None
            job = self._waiting.popleft()
            self._waiting_bytes -= _size(job.part)
            self._at_work, self._due_s = True, time.monotonic() + _ANSWER_S
            return job

    def _guarded(self, job: Job, answer: Answer) -> None:
        try:
            self._compare(self, job, answer)
        except Exception:  # noqa: BLE001  whatever goes wrong with one part, the next one is compared
            _log.exception("event=shadow_fault part=%r", job.part.name)


class _Pipe:
    """The writing end of a pipe: writes all of what it is given, without a copy."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes | memoryview) -> None:
        left = memoryview(data).cast("B")
        while left:
            left = left[os.write(self._descriptor, left) :]

    def flush(self) -> None:
        pass


def _size(part: Part) -> int:
    return len(part.data) if part.data is not None else part.frame.nbytes if part.frame is not None else 0


def _how_it_ended(child: "subprocess.Popen[bytes]") -> str:
    try:
        code = child.wait(_END_S)
    except subprocess.TimeoutExpired:
        return "its process closed its pipe"
    return f"its process was ended by signal {-code}" if code < 0 else f"its process exited with {code}"


def _command(package: Path, digest: str, line: str, nice: int) -> list[str]:
    program = [sys.executable, "-m", "edge.shadow"]
    return [*program, "--package", str(package), "--digest", digest, "--line", line, "--nice", str(nice)]
