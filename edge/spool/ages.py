"""How long a result has waited, by a clock that nobody sets."""

from bisect import bisect_right

LIMIT = 4096


class Ages:
    """Remembers when which sequence was given out, at most once a second, ever coarser over days."""

    def __init__(self, now_s: float) -> None:
        self._start_s = now_s
        self._sequences: list[int] = []
        self._times: list[float] = []
        self._step_s = 1.0

    def note(self, sequence: int, now_s: float) -> None:
        """A sequence was given out.

        Args:
            sequence: larger than all before.
            now_s: time.monotonic().
        """
        if self._times and now_s - self._times[-1] < self._step_s:
            return
        self._sequences.append(sequence)
        self._times.append(now_s)
        if len(self._times) > LIMIT:
            self._step_s *= 2
            del self._sequences[1::2], self._times[1::2]

    def age_s(self, sequence: int, now_s: float, wall_age_s: float) -> float:
        """Seconds since the sequence was given out.

        Args:
            sequence: of a result.
            now_s: time.monotonic().
            wall_age_s: age by the wall clock; taken for results of an earlier run, and never as less than this run.
        """
        index = bisect_right(self._sequences, sequence) - 1
        if index >= 0:
            return now_s - self._times[index]
        return max(now_s - self._start_s, wall_age_s)
