"""Adds up what devices counted during a stage, though a device may begin to count anew.

Devices count from when a package first served them, so what a counter showed before the stage is taken off; and a
counter that goes back (a new card, a device that was replaced) keeps what it had and counts on from there. What was
counted until the stage's deployment had arrived is taken off too: it was the program before that counted it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Counts = dict[str, int]


@dataclass
class _Counter:
    carried: Counts = field(default_factory=dict)  # of counters that began anew since
    offset: Counts = field(default_factory=dict)  # what this one showed before the stage
    last: Counts = field(default_factory=dict)  # what it showed last
    arrived: bool = False  # whether the stage's deployment was there when it began

    def counted(self) -> Counts:
        names = {*self.carried, *self.last}
        return {
            name: self.carried.get(name, 0) + self.last.get(name, 0) - self.offset.get(name, 0)
            for name in sorted(names)
        }


class Tally:
    """Counters of a stage by device.

    Args:
        kept: what `to_document` gave, for a stage that goes on after a crash.
    """

    def __init__(self, kept: Mapping[str, Any] | None = None) -> None:
        self._counters = {
            thing: _Counter(
                carried=dict(part.get("carried", {})),
                offset=dict(part.get("offset", {})),
                last=dict(part.get("last", {})),
                arrived=part.get("arrived") is True,
            )
            for thing, part in (kept or {}).items()
        }

    def begin(self, thing: str, counts: Mapping[str, int]) -> None:
        """Say what a device's counter shows before the stage; it does not count."""
        self._counters[thing] = _Counter(offset=dict(counts), last=dict(counts))

    def arrive(self, thing: str, counts: Mapping[str, int]) -> None:
        """Say what a device's counter shows when the stage's deployment is there; the first time, it counts from then.

        Without it a new inspector would pass on parts that the one before inspected.
        """
        if not self._counters.setdefault(thing, _Counter()).arrived:
            self._counters[thing] = _Counter(offset=dict(counts), last=dict(counts), arrived=True)

    def update(self, thing: str, counts: Mapping[str, int]) -> None:
        """Say what a device's counter shows now."""
        counter = self._counters.setdefault(thing, _Counter())
        if any(counts.get(name, 0) < shown for name, shown in counter.last.items()):
            self._counters[thing] = counter = _Counter(carried=counter.counted(), arrived=counter.arrived)
        counter.last = dict(counts)

    def of(self, thing: str) -> Counts:
        """What a device counted during the stage."""
        counter = self._counters.get(thing)
        return {} if counter is None else counter.counted()

    def total(self) -> Counts:
        """What all devices counted during the stage."""
        sums: Counts = {}
        for thing in self._counters:
            for name, count in self.of(thing).items():
                sums[name] = sums.get(name, 0) + count
        return sums

    @property
    def things(self) -> tuple[str, ...]:
        """Devices that have a counter, sorted."""
        return tuple(sorted(self._counters))

    def to_document(self) -> dict[str, Any]:
        """JSON values."""
        return {
            thing: {
                "carried": counter.carried,
                "offset": counter.offset,
                "last": counter.last,
                "arrived": counter.arrived,
            }
            for thing, counter in sorted(self._counters.items())
        }
