"""Which results the sender has in hand: they may arrive at any moment, so they are not evicted.

A pass that is sent and folded would be counted twice, a fail that is sent and evicted would be told as given up. What
the sender listed last is in its hand until it lists anew. None of that is evicted, and what is being evicted is not
listed.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager


class Handed:
    """Results in the sender's hand, and results that are being evicted: none is ever both.

    Args:
        lock: the spool's; held by whoever calls a method, but for `evicting`.
        marks: sequences that were sent, which is not yet noted on disk.
    """

    def __init__(self, lock: threading.Lock, marks: Set[int]) -> None:
        self._lock = lock
        self._marks = marks
        self._in_hand: dict[bool, frozenset[int]] = {}  # sequences by whether they are urgent
        self._leaving: frozenset[int] = frozenset()
        self.changes = 0  # of what is being evicted: what was read while this changed must be read again

    def take(self, urgent: bool, sequences: Iterable[int]) -> None:
        """The sender gets these now, and is done with those that it got before."""
        self._in_hand[urgent] = frozenset(sequences)

    def holds(self, sequence: int) -> bool:
        """Whether the sender has it in hand, or has sent it."""
        return sequence in self._marks or any(sequence in sequences for sequences in self._in_hand.values())

    def leaves(self, sequence: int) -> bool:
        """Whether it is being evicted."""
        return sequence in self._leaving

    def count(self) -> int:
        """How many results it may hold; any thread may ask."""
        return len(self._marks) + sum(len(sequences) for sequences in self._in_hand.values())

    @contextmanager
    def evicting(self, sequences: Sequence[int], most: int) -> Iterator[frozenset[int]]:
        """Keep results from the sender while they are evicted; takes the lock, but does not hold it meanwhile.

        Args:
            sequences: of results on disk.
            most: how many at most.

        Yields:
            those that may go: the first ones that the sender does not have.
        """
        with self._lock:
            self._leaving = frozenset([sequence for sequence in sequences if not self.holds(sequence)][:most])
            self.changes += 1
        try:
            yield self._leaving
        finally:
            with self._lock:
                self._leaving = frozenset()
                self.changes += 1
