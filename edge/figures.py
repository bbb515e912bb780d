"""Live figures: how many verdicts of each kind the package that serves has given, for whoever watches a deployment.

They go out with every health message and are totals, so that no message is missed when it is lost. They belong to one
time of serving: another package begins at zero, and so does one that served before and serves again.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from edge.since import Since

VERDICTS = ("pass", "fail", "review", "error")


class Figures:
    """Verdict counts of the package that serves. All methods belong to the loop's thread.

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
        self._serves = False
        self._package, self._counts, since = _read(kept or {})
        self._since = Since(since, *self._clocks)

    def begin(self, package: str | None) -> None:
        """From now on this package serves.

        Args:
            package: digest of its contract; None: nothing serves for now.
        """
        self._serves = package is not None
        if package is not None and package != self._package:
            self._package, self._counts, self._since = package, Counter(), Since(None, *self._clocks)

    def count(self, package: str | None, verdict: str) -> None:
        """Count a part.

        Args:
            package: digest of what judged it. A last part of the package before is left out: its figures are closed.
            verdict: of the part.
        """
        if self._serves and package == self._package:
            self._since.begin()
            self._counts[verdict] += 1

    def message(self) -> dict[str, Any] | None:
        """The figures as JSON values; None while nothing serves."""
        return self.dump() if self._serves else None

    def dump(self) -> dict[str, Any] | None:
        """What an inspector that is started later goes on from; None while nothing has served."""
        if not self._package:
            return None
        counts = {verdict: self._counts[verdict] for verdict in VERDICTS}
        return {"package": self._package, "since": self._since.value(), **counts}


def count_or_zero(value: Any) -> int:
    """A whole number of things; 0 when it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def time_or_none(value: Any) -> float | None:
    """Unix seconds; None when the value is no such time."""
    sensible = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e11
    return float(value) if sensible else None


def _read(kept: Mapping[str, Any]) -> tuple[str, Counter[str], float | None]:
    """Package, counts, and since when."""
    package, since = kept.get("package"), time_or_none(kept.get("since"))
    counts = Counter({verdict: count_or_zero(kept.get(verdict)) for verdict in VERDICTS})
    if not isinstance(package, str) or (since is None) != (counts.total() == 0):
        return "", Counter(), None
    return package, counts, since
