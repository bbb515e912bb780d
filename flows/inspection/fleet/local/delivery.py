"""What a device publishes, in the line's storage: its newest health message, and its last results."""

import json
import logging
import threading
import time
from collections import deque
from pathlib import Path

from inspection.fleet.reports import health_key
from inspection.storage import LocalStorage, check_key, open_storage

log = logging.getLogger(__name__)

RESULTS_BYTES = 5_000_000  # of results.jsonl; then it becomes results.1.jsonl, over the one before
_IN_S3 = 1000  # results that are kept in S3, where nothing can be added to an object
_IN_S3_EVERY_S = 10.0


class Delivery:
    """Messages of one device to storage. May be called from any thread.

    Args:
        root: of the line's storage.
        topic_root: first part of every topic.
        thing: name of the device.
    """

    def __init__(self, root: str, topic_root: str, thing: str) -> None:
        self._storage = open_storage(root)
        self._topic_root = topic_root
        self._thing = thing
        self._lock = threading.Lock()
        self._last: deque[bytes] = deque(maxlen=_IN_S3)
        self._written_s = 0.0

    def deliver(self, topic: str, payload: bytes) -> bool:
        """Store a message.

        Returns:
            Whether this device may publish on the topic, as its policy in AWS would say.

        Raises:
            StorageError: it cannot be stored now.
        """
        root, _, rest = topic.rpartition(f"/{self._thing}/")
        line = root.removeprefix(f"{self._topic_root}/")
        if not rest or "/" in rest or "/" in line or root == line:
            return False
        with self._lock:
            if rest == "health":
                self._storage.write(health_key(line, self._thing), payload)
            elif rest == "results":
                self._add(f"{line}/live/{self._thing}/results", payload)
        return True

    def _add(self, key: str, payload: bytes) -> None:
        """One line for each result; passes come several in a message."""
        found = json.loads(payload)
        lines = [json.dumps(one).encode() + b"\n" for one in (found if isinstance(found, list) else [found])]
        if isinstance(self._storage, LocalStorage):
            path = Path(self._storage.root) / check_key(f"{key}.jsonl")
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size > RESULTS_BYTES:
                path.replace(path.with_name("results.1.jsonl"))
            with path.open("ab") as file:
                file.write(b"".join(lines))
            return
        self._last.extend(lines)
        if time.monotonic() - self._written_s > _IN_S3_EVERY_S:
            self._storage.write(f"{key}.jsonl", b"".join(self._last))
            self._written_s = time.monotonic()
