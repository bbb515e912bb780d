"""What a person sees of a run: a line for each part, and a table at the end."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.results import Result

_KEPT = 100_000  # latencies; of a longer run the last ones count
_VERDICTS = ("pass", "fail", "review", "error")
_STAGES = ("queue", "decode", "preprocess", "detect", "total")
_COLOURS = {"pass": "\033[32m", "fail": "\033[31m", "review": "\033[33m", "error": "\033[35m"}
_PLAIN = "\033[0m"


@dataclass
class Tally:
    """Figures of one run."""

    started_s: float = field(default_factory=time.monotonic)
    first_s: float | None = None  # time.monotonic() of the first and the last verdict
    last_s: float | None = None
    verdicts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)  # by code
    actions: Counter[str] = field(default_factory=Counter)
    latency_ms: dict[str, array[float]] = field(default_factory=lambda: {stage: array("f") for stage in _STAGES})

    def record(self, result: Result) -> None:
        """Count a result."""
        self.last_s = time.monotonic()
        self.first_s = self.first_s if self.first_s is not None else self.last_s
        self.verdicts[result.verdict] += 1
        self.actions[result.action] += 1
        if result.error is not None:
            self.errors[result.error] += 1
        number = self.verdicts.total() - 1
        for stage, values in self.latency_ms.items():
            value = result.latency_ms.get(stage, 0.0)
            if number < _KEPT:
                values.append(value)
            else:
                values[number % _KEPT] = value


def verdict_line(result: Result, name: str, colour: bool = False) -> str:
    """One part's verdict for a person."""
    before, after = (_COLOURS[result.verdict], _PLAIN) if colour else ("", "")
    total = result.latency_ms.get("total", 0.0)
    head = f"{before}{result.verdict:<7}{after}{total:>8.1f} ms  "
    if result.score is None:
        return f"{head}{result.error}: {result.detail or name}"
    label = f"  {result.label}" if result.label else ""
    return f"{head}score {result.score:+8.3f}  p(bad) {result.probability or 0.0:.3f}  {name}{label}"


def describe(
    tally: Tally, repeated: int, late: int, faults: Counter[str], package: str, waiting: Sequence[str] = ()
) -> str:
    """The table at the end.

    Args:
        tally: of the run.
        repeated: parts that had a stored result already.
        late: results that came after their deadline and were discarded.
        faults: of the program, by place.
        package: what served.
        waiting: what was not delivered, and why.
    """
    total = tally.verdicts.total()
    lines = ["", f"{'verdict':<12}{'parts':>10}{'share':>10}"]
    for verdict in _VERDICTS:
        count = tally.verdicts[verdict]
        codes = ", ".join(f"{code} {number}" for code, number in tally.errors.most_common(5))
        note = f"   {codes}" if verdict == "error" and codes else ""
        lines.append(f"{verdict:<12}{count:>10,}{_share(count, total):>10}{note}")
    lines.append(f"{'all':<12}{total:>10,}{'':>10}   " + ", ".join(_pace(tally, repeated, late)))
    if total:
        lines.append("to the line: " + ", ".join(f"{action} {n:,}" for action, n in sorted(tally.actions.items())))
        lines += ["", f"{'latency':<12}{'p50':>10}{'p99':>10}{'longest':>10}"]
        for stage, values in tally.latency_ms.items():
            p50, p99, longest = np.percentile(np.frombuffer(values, np.float32), (50, 99, 100))
            lines.append(f"{stage:<12}{p50:>7.1f} ms{p99:>7.1f} ms{longest:>7.1f} ms")
    lines += ["", f"package     {package}"]
    lines += [f"waiting     {text}" for text in waiting]
    if faults:
        lines.append("faults      " + ", ".join(f"{place} {number}" for place, number in faults.most_common()))
    return "\n".join(lines)


def _pace(tally: Tally, repeated: int, late: int) -> list[str]:
    """Duration and rate; the first part's wait for the model is no part of the rate."""
    total = tally.verdicts.total()
    notes = []
    if tally.first_s is not None and tally.last_s is not None:
        seconds = tally.last_s - tally.first_s
        rate = f", {(total - 1) / seconds:,.1f} parts/s" if seconds > 0 and total > 1 else ""
        notes.append(f"{tally.last_s - tally.started_s:.1f} s{rate}")
    if repeated:
        notes.append(f"{repeated:,} more had their verdict already")
    if late:
        notes.append(f"{late:,} came too late and were discarded")
    return notes or ["no part came"]


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"
