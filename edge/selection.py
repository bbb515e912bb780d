"""Which inspected parts' images are kept, and with what probability.

Every review, fail and error is a candidate. Of the passes a random share is: the **audit**, drawn first, before any
cap, from a generator that moves on by the same two numbers for every part, whatever its verdict and whenever it came.
Without the audit nobody would ever see an escape.

Caps keep a bad day from filling disk and network. A cap that lets the first hundred of an hour through and drops the
rest would make an estimate depend on when in the hour defects come. So caps **thin**: while fewer than half of a
window's places are taken, every candidate is kept; then the probability falls with every place taken, from 1 to 2^-16
at the last. It depends only on what was kept before, so the draw of a part never depends on the part itself, and

    probability = audit share (passes only) x thinning (the smaller of the hour's and the day's)

is known before the draw and is written into the sidecar. Weighing each kept image by 1 / probability gives totals
without bias, however the stream of parts changes (Horvitz and Thompson, 1952; that the probabilities follow the past
does no harm, since each weighted term keeps its expectation given the past):

    escapes     = sum of 1/probability over kept images with verdict pass that a person calls bad
    bad parts   = sum of 1/probability over all kept images that a person calls bad
    escape rate = escapes / bad parts

Only after about 3,000 candidates for each place of a cap, in one window, are all places taken and the probability is
0: those parts are counted as `capped`, apart from `thinned`, because no weight can stand for them. Reasons have their
own places, so a flood of fails takes none from the audit. Images that the spool evicted or nobody labelled are
missing at random within a verdict; then scale by the known number of parts N of each verdict:
N x sum(bad/probability) / sum(1/probability), both over the images at hand (Hájek, 1971).
"""

import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from edge.sidecar import Selection
from edge.spool.images import Reason

HOUR_S = 3600.0
DAY_S = 24 * 3600.0
HALVINGS = 16  # of the probability over the second half of a window's places


@dataclass
class Counts:
    """What became of the candidates so far, by stratum: verdict/label/reason."""

    kept: Counter[str] = field(default_factory=Counter)
    thinned: Counter[str] = field(default_factory=Counter)  # dropped by a cap, with a probability that others carry
    capped: Counter[str] = field(default_factory=Counter)  # dropped with all places taken: no image stands for them
    no_picture: Counter[str] = field(default_factory=Counter)  # errors without a picture to keep


def thinning(taken: int, places: int) -> float:
    """Probability that a candidate is kept when so many of a window's places are taken.

    1 for the first half of the places, then falling evenly on the logarithmic scale to 2^-16, and 0 after the last.
    """
    if taken >= places:
        return 0.0
    freely = (places + 1) // 2
    if taken < freely:
        return 1.0
    return 2.0 ** (-HALVINGS * (taken - freely + 1) / (places - freely))


class Window:
    """How many places are taken since the window began."""

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._began_s: float | None = None
        self._taken = 0

    def probability(self, now_s: float, places: int) -> float:
        """Of keeping a candidate now."""
        if self._began_s is None or not 0 <= now_s - self._began_s < self._length_s:  # also after a clock went back
            self._began_s, self._taken = now_s, 0
        return thinning(self._taken, places)

    def take(self) -> None:
        """A candidate was kept."""
        self._taken += 1


class Selector:
    """Draws which parts' images are kept.

    Args:
        audit_share: of the passes: 0 to 1.
        max_per_hour: places of one reason in an hour.
        max_per_day: likewise in a day.
        seed: makes the draws repeatable, for tests; by default nobody can foresee them.
    """

    def __init__(self, audit_share: float, max_per_hour: int, max_per_day: int, seed: int | None = None) -> None:
        self._lock = threading.Lock()  # parts come from workers, changes and questions from the loop
        self._counts = Counts()
        self.change(audit_share, max_per_hour, max_per_day)
        self._windows: dict[str, tuple[Window, Window]] = {}
        self._random: random.Random = random.SystemRandom() if seed is None else random.Random(seed)

    @property
    def counts(self) -> Counts:
        """What became of the candidates up to now."""
        with self._lock:
            found = self._counts
            return Counts(found.kept.copy(), found.thinned.copy(), found.capped.copy(), found.no_picture.copy())

    def change(self, audit_share: float, max_per_hour: int, max_per_day: int) -> None:
        """Draw by other settings from the next part on; places that are taken stay taken."""
        with self._lock:
            self._audit_share = audit_share
            self._places = (max_per_hour, max_per_day)

    def select(
        self, verdict: Literal["pass", "fail", "review", "error"], label: str | None, picture: bool, now_s: float
    ) -> Selection | None:
        """Decide on one part; call it once for each, with or without a picture.

        Args:
            verdict: of the part.
            label: likeliest defect type, for the counts.
            picture: whether there is an image to keep.
            now_s: seconds of a clock that does not jump, from any start.
        """
        with self._lock:
            audit_draw, thinning_draw = self._random.random(), self._random.random()
            reason: Reason = "audit" if verdict == "pass" else verdict
            if verdict == "pass" and audit_draw >= self._audit_share:
                return None
            stratum = f"{verdict}/{label or '-'}/{reason}"
            if not picture:
                self._counts.no_picture[stratum] += 1
                return None
            windows = self._windows.setdefault(reason, (Window(HOUR_S), Window(DAY_S)))
            chance = min(
                window.probability(now_s, places) for window, places in zip(windows, self._places, strict=True)
            )
            if thinning_draw >= chance:
                (self._counts.thinned if chance else self._counts.capped)[stratum] += 1
                return None
            for window in windows:
                window.take()
            self._counts.kept[stratum] += 1
            probability = chance * (self._audit_share if verdict == "pass" else 1.0)
            return Selection(reason, probability, self._audit_share, stratum)
