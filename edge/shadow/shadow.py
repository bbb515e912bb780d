"""Runs a challenger beside the champion: finds its package, keeps its process at work, compares verdicts.

The challenger's package is watched where its link points, as the champion's is. It is judged by the same code on the
same pictures, after the line has had its signal, and what comes of it changes nothing but counts and which images are
kept. Which parts it sees depends on how busy it is, never on a verdict, so the pairs are a fair sample of the parts.

No part of the comparison: parts without a picture and parts of a stuck camera (no package is to blame), and those whose
deadline passed (the machine was busy, perhaps with the challenger): they count as skipped.
"""

import errno
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.backoff import Backoff
from edge.last_good import package_digest
from edge.package import CONTRACT_FILE
from edge.review import STUCK
from edge.shadow.pairs import Pairs
from edge.shadow.settings import ShadowSettings

if TYPE_CHECKING:
    from edge.pool import Slot
    from edge.results import Result
    from edge.shadow.session import Job, Session
    from edge.shadow.wire import Answer

_log = logging.getLogger(__name__)

_POLL_S = 1.0  # between two looks at the link
_RETRY_S = (5.0, 600.0)  # first and longest wait after a refusal, while the package's files stay the same
_NO_PICTURE = ("source", STUCK, "poison", "pixels")  # codes of errors that no package is to blame for
_SKIPPED = "deadline"


@dataclass(frozen=True)
class _Found:
    """What the link leads to; equal as long as nothing changed there."""

    folder: str  # with links resolved
    stamp: tuple[int, int, int]  # inode, size and time of the contract
    digest: str = field(compare=False)


class Shadow:
    """A shadow run. `judged` is called by the keeper's thread, all else by the loop's.

    Args:
        link: the challenger's package, or a link to it; may appear later.
        line: that challengers must be for.
        settings: bounds.
        keep: keeps the image of a part on which both disagree, if there is room: takes the counts, the part, the
            answer, and the challenger's digest and version; called in the session's thread.
        kept: what `dump` gave to an earlier program.
    """

    def __init__(
        self,
        link: Path,
        line: str,
        settings: ShadowSettings,
        keep: "Callable[[Pairs, Job, Answer, str, str], None] | None" = None,
        kept: Mapping[str, Any] | None = None,
    ) -> None:
        self._link = link
        self._line = line
        self._settings = settings
        self._keep = keep
        self._pairs = Pairs(kept)
        self._champion: str | None = None
        self._found: _Found | None = None
        self._session: Session | None = None
        self._opening: _Found | None = None  # what the session is for
        self._refused: _Found | None = None
        self._refused_version: str | None = None
        self._reason = ""  # of the refusal
        self._backoff = Backoff(*_RETRY_S)
        self._poll_at_s = 0.0
        self._state, self._message = "none", ""

    @property
    def state(self) -> str:
        """One of none, loading, running and refused."""
        return self._state

    def tick(self, now_s: float, champion: str | None) -> None:
        """Look for a challenger now and then, and after its process.

        Args:
            now_s: time.monotonic().
            champion: digest of the package that serves; None: none does.
        """
        changed = champion != self._champion
        self._champion = champion
        if now_s >= self._poll_at_s:
            self._poll_at_s = now_s + _POLL_S
            self._look()
        elif not changed and self._session is None:
            return
        wanted = self._found
        if wanted is not None and wanted.digest == champion:
            wanted = None
            self._message = "the challenger serves now"
            self._pairs.forget()  # should it be taken back, both are compared anew
        if wanted is not None and champion is None:
            wanted = None
            self._message = "waits until a champion serves"
        session = self._session
        if session is not None:
            session.check(now_s)
            if wanted != self._opening or wanted is None:
                session.stop()
            if not session.alive:
                self._after(session)
        if self._session is None and wanted is not None:
            self._open(wanted)
        self._tell(wanted)

    def judged(self, slot: "Slot", result: "Result", kept: bool) -> None:
        """The line has its signal for a part: have the challenger judge it too, unless it is behind.

        Args:
            slot: with picture and judgement.
            result: with its number.
            kept: whether its image is kept already.
        """
        session = self._session
        if session is None or session.opened is None or slot.served is None or slot.part.fault is not None:
            return
        if result.error in _NO_PICTURE:
            return
        from edge.shadow.session import Job

        champion = slot.served.digest
        lost = result.error == _SKIPPED or not slot.part.picture_bytes  # or there was no room for the picture
        if lost or not session.offer(Job(slot.part, result, champion, kept)):
            self._pairs.skip(champion, session.digest)

    def message(self) -> dict[str, Any]:
        """How the challenger does, as JSON values for the health message."""
        session, found = self._session, self._found
        named = self._state in ("loading", "running", "refused")
        opened = session.opened if session is not None and self._state == "running" else None
        counts = self._pairs.message()
        return {
            "package": found.digest if named and found is not None and found.digest else None,
            "version": opened.version if opened is not None else self._refused_version if named else None,
            "champion": self._champion,
            "state": self._state,
            "message": self._message,
            "self_test": opened.self_test if opened is not None else "not run",
            **counts,
        }

    def dump(self) -> dict[str, Any]:
        """What an inspector that is started later goes on from."""
        return self._pairs.dump()

    def finish(self, timeout_s: float) -> None:
        """Let the challenger judge the parts that it was handed, for a run that ends by itself."""
        if self._session is not None:
            self._session.drain(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """End the challenger's process."""
        if self._session is not None:
            self._session.stop()
            self._session.join(timeout_s)

    def _look(self) -> None:
        """What the link leads to now."""
        folder = os.path.realpath(self._link)
        try:
            status = os.stat(os.path.join(folder, CONTRACT_FILE))  # noqa: PTH116,PTH118  asked every second
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._found is None or (folder, stamp) != (self._found.folder, self._found.stamp):
                self._found = _Found(folder, stamp, package_digest(Path(folder)))
                _log.info("event=challenger_found digest=%s folder=%s", self._found.digest[:12], folder)
            self._message = ""
        except OSError as error:
            if self._found is not None:
                _log.info("event=challenger_gone digest=%s", self._found.digest[:12])
                self._pairs.forget()
            self._found = None
            away = error.errno in (errno.ENOENT, errno.ENOTDIR)  # as on every device most of the time
            self._message = "" if away else f"cannot read {folder}: {error.strerror}"

    def _open(self, wanted: _Found) -> None:
        if wanted == self._refused and self._backoff.remaining_s() > 0:
            return
        from edge.shadow.session import Session

        assert self._champion is not None
        if wanted != self._refused:
            self._backoff.succeed()
        self._opening = wanted
        self._refused_version = None
        settings = self._settings
        self._session = Session(
            Path(wanted.folder), wanted.digest, self._line, settings.nice, settings.memory_bytes, self._compare
        )

    def _after(self, session: "Session") -> None:
        """A session has ended."""
        self._session = None
        if session.reason:
            self._refused, self._refused_version = self._opening, session.version
            self._reason = session.reason
            wait_s = self._backoff.fail()
            _log.warning(
                "event=challenger_refused digest=%s retry_s=%.0f reason=%r", session.digest[:12], wait_s, session.reason
            )
        self._opening = None

    def _tell(self, wanted: _Found | None) -> None:
        """Say how it stands."""
        session, before = self._session, self._state
        if wanted is None:
            self._state = "none"
        elif session is not None and self._opening == wanted:
            running = session.opened is not None
            if running and self._champion is not None:
                self._pairs.begin(self._champion, session.digest)
                self._refused = None
            # A second try of what was refused is no news until it succeeds.
            self._state = "running" if running else "refused" if wanted == self._refused else "loading"
        elif wanted == self._refused:
            self._state = "refused"
        else:
            self._state = "loading"  # the one before is still ending
        if self._state == "refused":
            self._message = self._reason
        if self._state != before:
            _log.info("event=challenger_state state=%s message=%r", self._state, self._message)

    def _compare(self, session: "Session", job: "Job", answer: "Answer") -> None:
        """Both have judged a part. Runs in the session's thread."""
        pair = f"{job.result.verdict}/{answer.verdict}"
        if not self._pairs.count(job.champion, session.digest, pair):
            return
        differ = (job.result.verdict, job.result.action) != (answer.verdict, answer.action)
        if differ and self._keep is not None:
            self._keep(self._pairs, job, answer, session.digest, session.version or "")
