"""Notes which parts are being judged, so that one that ends the process is not tried again and again.

A picture may take more memory than there is, or meet a fault in native code. The process is then started anew, and a
folder offers the same file first. The notes lie in one small file with a line for each worker: written before a part
is judged, blanked after it, never synced, since the file of a process that dies is whole without that. A start that
finds notes counts them; a part that was in hand at two ends is an error from then on.
"""

import contextlib
import hashlib
import json
import logging
import os
import threading
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
        self._file: int | None = None
        try:
            noted = _read_notes(folder / _NOTES)
            if noted:
                self._count(noted)
                replace_file(folder / _SUSPECTS, json.dumps(self._suspects).encode())
            self._file = os.open(folder / _NOTES, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            _log.warning("event=in_hand_not_noted reason=%r", str(error))

    def begin(self, worker: int, source_key: str) -> str | None:
        """Note that a worker begins with a part; or why it must not.

        Args:
            worker: number.
            source_key: of the part.
        """
        digest = _digest(source_key)
        ends = self._suspects.get(digest, 0)
        if ends >= ENDS:
            return f"this program ended {ends} times while it judged this part; look at the picture by hand"
        self._write(worker, digest)
        return None

    def end(self, worker: int) -> None:
        """The part has its judgement, and this process lives."""
        self._write(worker, "")

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                os.close(file)

    def _write(self, worker: int, digest: str) -> None:
        # A full disk: then there is no note.
        with self._lock, contextlib.suppress(OSError):
            if self._file is not None:
                os.pwrite(self._file, f"{digest:<{_DIGEST}}\n".encode(), worker * (_DIGEST + 1))

    def _count(self, noted: list[str]) -> None:
        for digest in noted:
            ends = self._suspects.pop(digest, 0) + 1
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
