"""Pairs of verdicts: what the champion and the challenger said of the same parts, by both verdicts."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from edge.figures import VERDICTS, count_or_zero, time_or_none
from edge.since import Since

_PAIR = re.compile("({0})/({0})".format("|".join(VERDICTS)))


class Pairs:
    """Counts for one champion and one challenger, named by the digests of their contracts; any thread may call.

    Args:
        kept: what `dump` gave to an earlier program; what makes no sense in it counts as nothing.
        wall: unix seconds.
        steady: seconds of a clock that nobody sets.
    """

    def __init__(
        self,
        kept: Mapping[str, Any] | None = None,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clocks = wall, steady
        self._lock = threading.Lock()
        self._names = "", ""
        self._pairs: Counter[str] = Counter()
        self._images: Counter[str] = Counter()
        self._skipped = 0
        self._since = Since(None, wall, steady)
        kept = kept or {}
        names, since = (kept.get("champion"), kept.get("challenger")), time_or_none(kept.get("since"))
        pairs, images = _counter(kept.get("pairs")), _counter(kept.get("images"))
        if all(isinstance(name, str) for name in names) and (since is None) == (pairs.total() == 0):
            self._names = str(names[0]), str(names[1])
            self._pairs, self._images, self._since = pairs, images, Since(since, *self._clocks)
            self._skipped = count_or_zero(kept.get("skipped"))

    def begin(self, champion: str, challenger: str) -> None:
        """From now on these two are compared; the counts of any other two are dropped."""
        with self._lock:
            if self._names != (champion, challenger):
                self._clear(champion, challenger)

    def forget(self) -> None:
        """The challenger was taken away: should it come back, its counts begin anew."""
        with self._lock:
            self._clear("", "")

    def count(self, champion: str, challenger: str, pair: str) -> bool:
        """Count a part; False when these two are no longer compared.

        Args:
            champion: digest of what decided on the part.
            challenger: digest of what judged it besides.
            pair: `<champion's verdict>/<challenger's verdict>`.
        """
        with self._lock:
            if self._names != (champion, challenger):
                return False
            self._since.begin()
            self._pairs[pair] += 1
            return True

    def skip(self, champion: str, challenger: str) -> None:
        """A part came while the challenger was behind."""
        with self._lock:
            if self._names == (champion, challenger):
                self._skipped += 1

    def images(self, pair: str) -> int:
        """Images kept of that pair of verdicts."""
        with self._lock:
            return self._images[pair]

    def count_image(self, champion: str, challenger: str, pair: str) -> None:
        """An image of such a part was kept."""
        with self._lock:
            if self._names == (champion, challenger):
                self._images[pair] += 1

    def message(self) -> dict[str, Any]:
        """Since when, pairs and skipped parts, as JSON values."""
        with self._lock:
            pairs = {name: count for name, count in sorted(self._pairs.items()) if count}
            return {"since": self._since.value(), "pairs": pairs, "skipped": self._skipped}

    def dump(self) -> dict[str, Any]:
        """What an inspector that is started later goes on from."""
        message = self.message()
        with self._lock:
            images = {name: count for name, count in sorted(self._images.items()) if count}
            return {"champion": self._names[0], "challenger": self._names[1], **message, "images": images}

    def _clear(self, champion: str, challenger: str) -> None:
        self._names = champion, challenger
        self._pairs, self._images, self._skipped = Counter(), Counter(), 0
        self._since = Since(None, *self._clocks)


def _counter(value: Any) -> Counter[str]:
    """Counts by pair; what is none is left out."""
    if not isinstance(value, dict):
        return Counter()
    return Counter({name: count_or_zero(count) for name, count in value.items() if _PAIR.fullmatch(name)})
