"""Which messages mean the same part: an id alone does not tell, since counters begin again."""

from __future__ import annotations

import hashlib
import json
import threading

from edge.sources.trigger_message import TriggerMessage
from edge.sources.triggers import Keys

_MAX_REMEMBERED = 10_000  # triggers for a camera


class Identities:
    """Gives messages their source keys. May be used from any thread.

    Args:
        repeat_within_s: a camera's trigger that comes again within this time is the same one, delivered twice.
    """

    def __init__(self, repeat_within_s: float) -> None:
        self._repeat_within_s = repeat_within_s
        self._lock = threading.Lock()
        self._keys = Keys()
        self._seen: dict[tuple[str, str], tuple[float, str]] = {}  # id and names: when first, and its key; oldest first

    def of_content(self, message: TriggerMessage, unread: bytes = b"") -> str:
        """The key of a message that says all about its part: the same only for the same id, names and picture.

        Args:
            message: what was read.
            unread: the whole message, when no more than its id could be read.
        """
        if message.id is None:
            with self._lock:
                return self._keys.next()
        content = unread if message.image is None else message.image
        return f"trigger:{message.id}#{_digest(message, hashlib.sha256(content).hexdigest())}"

    def of_moment(self, message: TriggerMessage, arrived_s: float) -> str:
        """The key of a message for which a camera looks: the picture is of the moment, whatever the message says.

        Args:
            message: what was read.
            arrived_s: time.monotonic().
        """
        with self._lock:
            if message.id is None:
                return self._keys.next()
            what = message.id, _digest(message)
            first_s, key = self._seen.get(what, (float("-inf"), ""))
            if arrived_s - first_s < self._repeat_within_s:
                return key
            self._seen.pop(what, None)
            if len(self._seen) >= _MAX_REMEMBERED:
                self._seen.pop(next(iter(self._seen)))
            key = f"{self._keys.next()}#{message.id}"
            self._seen[what] = (arrived_s, key)
            return key


def _digest(message: TriggerMessage, picture: str = "") -> str:
    names = json.dumps([message.part_id, message.lot, message.station, message.view, picture])
    return hashlib.sha256(names.encode()).hexdigest()[:32]
