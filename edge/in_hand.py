"""Notes which parts are being judged, so that one that ends the process is not tried again and again.

A picture may take more memory than there is, or meet a fault in native code. The process is then started anew, and a
folder offers the same file first. The notes lie in one small file with a line for each worker: written before a part
is judged, blanked after it, never synced, since the file of a process that dies is whole without that. A start that
finds notes counts them; a part that was in hand at two ends is an error from then on.

With several workers the notes of innocent parts stand beside that of the one to blame. So all of them are suspects,
and a suspect is judged alone: no other part is in hand meanwhile. Only a note that stood alone counts as a second end.
"""

import contextlib
import hashlib
import json
import logging
import os
import threading
import time
from pathlib import Path

from edge.spool.files import replace_file

_log = logging.getLogger(__name__)

ENDS = 2  # of the process with the part in hand: then it is not judged again
_NOTES, _SUSPECTS = "in-hand", "in-hand.json"
_DIGEST = 32  # characters for a part's key
_MOST = 100  # suspects that are remembered


class InHand:
    """The notes of one state folder. `begin` and `end` may be called from any thread.

    Args:
        folder: exists; when it cannot be written to, no notes are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._suspects = _read_suspects(folder / _SUSPECTS)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # a part is no longer in hand
        self._noted: set[int] = set()  # workers with a part in hand
        self._alone: tuple[int, float, str] | None = None  # worker, deadline and digest of the suspect whose turn it is
        self._file: int | None = None
        try:
            noted = _read_notes(folder / _NOTES)
            if noted:
                self._count(noted)
                replace_file(folder / _SUSPECTS, json.dumps(self._suspects).encode())
            self._file = os.open(folder / _NOTES, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            _log.warning("event=in_hand_not_noted reason=%r", str(error))

    def begin(self, worker: int, source_key: str, deadline_s: float) -> str | None:
        """Note that a worker begins with a part; or why it must not. Waits while a suspect is judged alone.

        Args:
            worker: number.
            source_key: of the part.
            deadline_s: time.monotonic() by which the part needs its verdict.

        Raises:
            TimeoutError: it could not begin by its deadline.
        """
        digest = _digest(source_key)
        with self._lock:
            ends = self._suspects.get(digest, 0)
            if ends >= ENDS:
                return f"this program ended {ends} times while it judged this part; look at the picture by hand"
            self._wait_for_suspect(deadline_s)
            if ends:
                self._wait_for_others((worker, deadline_s, digest))
            self._noted.add(worker)
            self._write(worker, digest)
        return None

    def end(self, worker: int) -> None:
        """The part has its judgement, and this process lives."""
        with self._lock:
            self._noted.discard(worker)
            self._write(worker, "")
            if self._alone is not None and self._alone[0] == worker:
                self._suspects.pop(self._alone[2], None)
                self._alone = None
            self._changed.notify_all()

    def _wait_for_suspect(self, deadline_s: float) -> None:
        """Until no suspect has its turn; one that hangs loses it at its own deadline."""
        while self._alone is not None and (now_s := time.monotonic()) < self._alone[1]:
            if now_s >= deadline_s:
                raise TimeoutError("another part was judged alone: this program ended while it was in hand")
            self._changed.wait(min(deadline_s, self._alone[1]) - now_s)

    def _wait_for_others(self, turn: tuple[int, float, str]) -> None:
        """Take the turn and wait until no other part is in hand; give it back when that takes too long."""
        self._alone = turn
        left_s = max(0.0, turn[1] - time.monotonic())
        if self._changed.wait_for(lambda: not self._noted, left_s):
            return
        if self._alone is turn:  # else another suspect has it, as this one's deadline has come
            self._alone = None
            self._changed.notify_all()
        raise TimeoutError("it is to be judged alone, and another part was still in hand")

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                os.close(file)

    def _write(self, worker: int, digest: str) -> None:
        # Under the lock. A full disk: then there is no note.
        with contextlib.suppress(OSError):
            if self._file is not None:
                os.pwrite(self._file, f"{digest:<{_DIGEST}}\n".encode(), worker * (_DIGEST + 1))

    def _count(self, noted: list[str]) -> None:
        most = ENDS if len(noted) == 1 else ENDS - 1  # among several it is not known which is to blame
        for digest in noted:
            before = self._suspects.pop(digest, 0)
            ends = max(before, min(before + 1, most))
            self._suspects[digest] = ends
            _log.warning("event=ended_with_part_in_hand key_digest=%s times=%d", digest, ends)
        while len(self._suspects) > _MOST:
            del self._suspects[next(iter(self._suspects))]


def _digest(source_key: str) -> str:
    return hashlib.blake2b(source_key.encode("utf-8", "surrogatepass"), digest_size=_DIGEST // 2).hexdigest()


def _read_notes(path: Path) -> list[str]:
    """Digests of the parts that were in hand when the last process ended.

    Raises:
        OSError: the disk refuses.
    """
    try:
        words = path.read_bytes().decode("ascii", "replace").replace("\0", " ").split()
    except FileNotFoundError:
        return []
    return sorted({word for word in words if len(word) == _DIGEST})


def _read_suspects(path: Path) -> dict[str, int]:
    """How often the process ended with a part in hand, by the key's digest; what cannot be read counts as nothing."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(digest): ends for digest, ends in found.items() if type(ends) is int and ends > 0}
