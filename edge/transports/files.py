"""Messages to files of JSON lines: the default on a workstation, and for devices that nobody connects.

One file per kind of message. A line is a message; a list (a batch of passes) becomes one line per element, so that
`results.jsonl` is results, one per line. A result may stand there twice, after a crash between the write and the note
that it was written: its `id` tells.
"""

import json
import logging
import os
import threading
from pathlib import Path

from edge.errors import RefusedError, TransportError
from edge.transports.interface import OnMessage, TransportState
from edge.transports.settings import FileSettings

logger = logging.getLogger(__name__)


class FileTransport:
    """Writes each message to a file named after the last part of its topic."""

    name = "file"
    max_payload_bytes = 1_000_000

    def __init__(self, settings: FileSettings) -> None:
        self._settings = settings
        path = Path(settings.path)
        self._one_file = path.suffix == ".jsonl"
        self._folder = path.parent if self._one_file else path
        self._stem = path.stem if self._one_file else ""
        self._lock = threading.Lock()
        self._open: dict[Path, int] = {}
        self._fault = ""

    def start(self) -> None:
        """Make the folder. A folder that cannot be made is told by `state` and tried again with each message."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._fault = f"{self._folder}: cannot make this folder: {error.strerror}"

    def publish(self, topic: str, payload: bytes, timeout_s: float) -> None:
        """Append a message, and wait until it is on the disk.

        The wait is what `delivered` means: the spool may drop a result once it stands here. It costs one sync per
        message: passes come in batches, so about one in seven of them.

        Raises:
            RefusedError: the message is not JSON.
            TransportError: the disk is full, read-only or gone.
        """
        try:
            message = json.loads(payload)
        except ValueError as error:
            raise RefusedError(f"{topic}: want JSON, found {payload[:60]!r}: {error}") from error
        if len(payload) > self.max_payload_bytes:
            raise RefusedError(f"{topic}: want at most {self.max_payload_bytes} bytes, found {len(payload)}")
        items = message if isinstance(message, list) else [message]
        lines = "".join(json.dumps(item, ensure_ascii=False, separators=(",", ":")) + "\n" for item in items)
        path = self.path_of(topic)
        with self._lock:
            try:
                self._append(path, lines.encode())
            except OSError as error:
                self._forget(path)
                self._fault = f"{path}: cannot write: {error.strerror}; make room or check the disk"
                raise TransportError(self._fault) from error
            self._fault = ""

    def path_of(self, topic: str) -> Path:
        """The file that a topic's messages go to."""
        kind = topic.rsplit("/", 1)[-1]
        if self._one_file:
            return self._folder / (f"{self._stem}.jsonl" if kind == "results" else f"{self._stem}-{kind}.jsonl")
        return self._folder / f"{kind}.jsonl"

    def subscribe(self, topic: str, on_message: OnMessage, on_kept: OnMessage | None = None) -> None:
        """Files bring no messages.

        Raises:
            TransportError: always.
        """
        raise TransportError(f"{topic}: files bring no messages; choose a sink mqtt:… or greengrass, or no such source")

    def state(self) -> TransportState:
        """Always connected, unless the last write failed."""
        fault = self._fault
        # A fault leaves `connected` true: only a further write can tell whether the disk is well again.
        return TransportState(True, fault or f"writing to {self._folder}")

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            for path in list(self._open):
                self._forget(path)

    def _append(self, path: Path, data: bytes) -> None:
        descriptor = self._open.get(path)
        if descriptor is None:
            descriptor = self._open[path] = _open_whole(path)
        size = os.fstat(descriptor).st_size
        if size and size + len(data) > self._settings.rotate_bytes:
            self._forget(path)
            self._rotate(path)
            descriptor = self._open[path] = _open_whole(path)
            size = 0
        try:
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            if self._settings.sync:
                os.fdatasync(descriptor)
        except OSError:
            # Take back what was half written; if even that fails, the next opening completes the line.
            os.ftruncate(descriptor, size)
            raise

    def _rotate(self, path: Path) -> None:
        keep = self._settings.keep_files
        oldest = _numbered(path, keep)
        if oldest.exists():
            oldest.unlink()
            logger.warning("event=file_dropped path=%s keep_files=%d", oldest, keep)
        for number in range(keep - 1, 0, -1):
            if _numbered(path, number).exists():
                _numbered(path, number).replace(_numbered(path, number + 1))
        path.replace(_numbered(path, 1))
        _sync_folder(path.parent)

    def _forget(self, path: Path) -> None:
        descriptor = self._open.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _open_whole(path: Path) -> int:
    """Open for appending; a line that a power cut left unfinished is ended, so that it spoils no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            _sync_folder(path.parent)
        elif os.pread(descriptor, 1, size - 1) != b"\n":
            os.write(descriptor, b"\n")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sync_folder(folder: Path) -> None:
    """Make a file's name as durable as its content."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
