"""A small JSON file in the state folder, written beside the loop: a card that hangs must not hold up a verdict."""

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.spool.files import replace_file

_log = logging.getLogger(__name__)

SCHEMA = "1.0"


class StateFile:
    """Values that a program may lose without harm. All methods belong to one thread.

    The file holds the old values or the new ones, whole, after a power loss too; a file that is gone, cut or of
    another major version counts as empty.

    Args:
        path: of the file. Its folder may not be there or not be writable: then nothing is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: threading.Thread | None = None
        self._written = ""
        self._fault = ""

    def read(self) -> dict[str, Any]:
        """The values of an earlier program."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            _log.warning("event=state_not_read path=%s reason=%r", self._path.name, str(error))
            return {}
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        schema = document.get("schema") if isinstance(document, dict) else None
        if not isinstance(schema, str) or schema.partition(".")[0] != SCHEMA.partition(".")[0]:
            _log.warning("event=state_not_read path=%s reason='cut, or of another version'", self._path.name)
            return {}
        return dict(document)

    def write(self, values: Mapping[str, Any]) -> None:
        """Have the values written, unless they are on the disk; returns at once.

        While the disk is still at the values before, these are left out: newer ones will come.
        """
        if self._thread is not None and self._thread.is_alive():
            return
        text = json.dumps({"schema": SCHEMA, **values}, allow_nan=False)
        if text != self._written:
            self._thread = threading.Thread(target=self._put, args=(text,), name="state-file", daemon=True)
            self._thread.start()

    def close(self, values: Mapping[str, Any], timeout_s: float = 5.0) -> None:
        """Write the last values, and wait a little for the disk."""
        self.wait(timeout_s)
        self.write(values)
        self.wait(timeout_s)

    def wait(self, timeout_s: float) -> None:
        """Wait a little for the values that are being written."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _put(self, text: str) -> None:
        try:
            replace_file(self._path, text.encode())
        except OSError as error:  # full or read-only: the next values try again
            reason = str(error)
            if reason != self._fault:
                _log.warning("event=state_not_kept path=%s reason=%r", self._path.name, reason)
            self._fault = reason
            return
        self._written, self._fault = text, ""
