"""Results between `put` and the disk: the writer's queue, and all there is while the disk refuses.

Bounded in bytes. Over the bound goes first what was sent, then images, which are large: of shadow runs and audits, of
reviews and errors, of fails. Then results: passes are folded into counts, then reviews and errors; fails last. What
the writer is about to write or the sender has in hand stays.

Results of parts that come again (`keeps_results`) are never dropped, since their parts would be inspected and counted
twice: when they fill the memory it is `full`, and the source has to wait.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable

from edge.results import Result
from edge.spool.eviction import fold
from edge.spool.handed import Handed
from edge.spool.records import Entry, FoldedCounts

OVERHEAD_BYTES = 3000  # of an entry beside its JSON and image: measured with sys.getsizeof, rounded up

log = logging.getLogger(__name__)


class Waiting:
    """Entries by sequence; every method is called under the spool's lock."""

    def __init__(self, limit_bytes: int, handed: Handed) -> None:
        self._limit_bytes = limit_bytes
        self._handed = handed
        # Room is made until an eighth of the bound is free, so that it is not done for every entry.
        self._target_bytes = limit_bytes - limit_bytes // 8
        self.entries: dict[int, Entry] = {}
        self.keys: dict[str, Entry] = {}
        self.reserved: set[int] = set()  # numbers of results that the line has heard and that will be put
        self.folded: list[FoldedCounts] = []
        self.dropped: Counter[str] = Counter()  # by class, as evicted on disk
        self.bytes = 0
        self.image_bytes = 0  # of them
        self.keeps_results = False
        self.urgent = False  # there is one that must not wait for others

    @property
    def full(self) -> bool:
        """Whether no more results may come, because none may be dropped."""
        results = self.bytes - self.image_bytes
        return self.keeps_results and (self.bytes > self._limit_bytes or results > self._target_bytes)

    def add(self, entry: Entry) -> None:
        """Take an entry in, and drop the least valuable ones if that is over the bound."""
        self.entries[entry.result.sequence] = entry
        self.keys[entry.result.source_key] = entry
        self.urgent = self.urgent or entry.result.urgent
        self._count(entry)
        if self.bytes > self._limit_bytes:
            self._make_room()

    def add_image(self, entry: Entry) -> None:
        """Take in an image of a result that is on disk already, or take one more into an entry that is here.

        Args:
            entry: with the image, and marked as stored and sent.
        """
        assert entry.image is not None
        here = self.entries.get(entry.result.sequence)
        if here is None:
            self.entries[entry.result.sequence] = entry
            self._count(entry)
        elif here.image is None:  # also when it is being written: the image follows with the next round
            here.image = entry.image
            here.bytes += len(entry.image.data)
            self.bytes += len(entry.image.data)
            self.image_bytes += len(entry.image.data)
        if self.bytes > self._limit_bytes:
            self._make_room()

    def lowest(self, otherwise: int) -> int:
        """The lowest sequence whose result is not on disk."""
        held = next((sequence for sequence, entry in self.entries.items() if not entry.stored), otherwise)
        return min(held, *self.reserved) if self.reserved else held

    def remove(self, entry: Entry) -> None:
        """Let an entry go."""
        self.entries.pop(entry.result.sequence, None)
        self.forget_key(entry)
        self.bytes -= entry.bytes
        self.image_bytes -= _image_bytes(entry)

    def forget_key(self, entry: Entry) -> None:
        """The entry is found in the database now."""
        if self.keys.get(entry.result.source_key) is entry:
            del self.keys[entry.result.source_key]

    def drop_image(self, entry: Entry) -> None:
        """Let go of an entry's image, and of the entry when its result is on disk."""
        size = _image_bytes(entry)
        self.bytes -= size
        self.image_bytes -= size
        entry.bytes -= size
        entry.image = None
        if entry.stored:
            self.remove(entry)

    def _count(self, entry: Entry) -> None:
        self.bytes += entry.bytes
        self.image_bytes += _image_bytes(entry)

    def _make_room(self) -> None:
        before = Counter(self.dropped)
        if not self.keeps_results:
            self._drop_results(lambda entry: entry.sent)
        for reasons in (("shadow", "audit"), ("review", "error"), ("fail",)):
            self._drop_images(reasons)
        if not self.keeps_results:
            self._drop_results(lambda entry: entry.sent or entry.result.verdict == "pass")
            self._drop_results(lambda entry: entry.result.verdict in ("review", "error"))
            self._drop_results(lambda entry: True)
        if dropped := self.dropped - before:
            log.warning("event=spool_memory_full dropped=%s", json.dumps(dropped))

    def _drop_results(self, chosen: Callable[[Entry], bool]) -> None:
        passes: list[Result] = []
        for entry in list(self.entries.values()):
            if self.bytes <= self._target_bytes:
                break
            if entry.taken or entry.stored or entry.image is not None or not chosen(entry):
                continue
            if not entry.sent and self._handed.holds(entry.result.sequence):
                continue
            self.remove(entry)
            entry.dropped = True
            if not entry.sent:
                self.dropped[entry.result.verdict] += 1
                if entry.result.verdict == "pass":
                    passes.append(entry.result)
        self.folded += fold(passes)

    def _drop_images(self, reasons: tuple[str, ...]) -> None:
        for entry in list(self.entries.values()):
            if self.bytes <= self._target_bytes:
                break
            if not entry.taken and entry.image is not None and entry.image.reason in reasons:
                self.dropped[f"{entry.image.reason}-image"] += 1
                self.drop_image(entry)


def _image_bytes(entry: Entry) -> int:
    return 0 if entry.image is None else len(entry.image.data)
