"""What tests of the inspector share: a source that a test fills, a detector that a test slows down."""

import io
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from golden_package import GOLDEN
from PIL import Image

from edge.detector import Detection, Detector
from edge.inspection import Limits
from edge.inspector import Inspector
from edge.line_output import Outputs
from edge.part import Part, SourceHealth
from edge.results import Result
from edge.review import ReviewPolicy, ReviewSettings, StuckCamera
from edge.served import Served
from edge.serving import Serving
from edge.spool.settings import SpoolSettings
from edge.spool.spool import Spool

GOOD = np.asarray(Image.open(GOLDEN / "part-2.jpg").convert("RGB"))  # the tiny model passes this one
BAD = np.asarray(Image.open(GOLDEN / "part-1.png").convert("RGB"))  # and fails this one


def picture(seed: int, of: np.ndarray = GOOD) -> bytes:
    """A PNG of the part under a little noise: no two are alike."""
    noise = np.random.default_rng(seed).integers(-2, 3, of.shape)
    stream = io.BytesIO()
    Image.fromarray(np.clip(of + noise, 0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def part(number: int, **more: Any) -> Part:
    """A part with a picture of its own; what says `more` replaces that."""
    if not {"data", "frame", "fault"} & set(more):
        more["data"] = picture(number)
    key = more.pop("source_key", f"part-{number}")
    return Part(key, key, time.time(), time.monotonic(), **more)


class ListSource:
    """Gives the parts of a list; each starts when it is taken."""

    name = "list"

    def __init__(self, parts: Iterable[Part] = (), keeps_parts: bool = True) -> None:
        self.keeps_parts = keeps_parts
        self.waiting = deque(parts)
        self.acknowledged: list[tuple[str, Result]] = []
        self.endless = False
        self.taken = 0
        self.closed = False

    def next_part(self, timeout_s: float) -> Part | None:
        if not self.waiting:
            time.sleep(min(timeout_s, 0.005))
            return None
        self.taken += 1
        found = self.waiting.popleft()
        object.__setattr__(found, "started_s", time.monotonic())
        return found

    def acknowledge(self, part: Part, result: Result) -> None:
        self.acknowledged.append((part.source_key, result))

    def finished(self) -> bool:
        return not self.waiting and not self.endless

    def health(self) -> SourceHealth:
        return SourceHealth(True, "fine", {})

    def close(self) -> None:
        self.closed = True


class Slowed:
    """A detector that a test slows down, or breaks."""

    def __init__(self, detector: Detector, before: Callable[[np.ndarray], None]) -> None:
        self._detector = detector
        self._before = before
        self.runtime = detector.runtime

    def detect(self, pixels: np.ndarray) -> Detection:
        self._before(pixels)
        return self._detector.detect(pixels)


def slow(serving: Serving, before: Callable[[np.ndarray], None]) -> None:
    """Have `before` called ahead of each run of the model."""
    served = serving.current()
    assert served is not None
    real = served.detector
    served.detector = lambda worker: Slowed(real(worker), before)  # type: ignore[method-assign, assignment, return-value]


class Hears:
    """An output that remembers."""

    name = "test"

    def __init__(self) -> None:
        self.heard: list[Result] = []
        self.alarms: list[bool] = []

    def signal(self, result: Result, alarm: bool) -> None:
        self.heard.append(result)
        self.alarms.append(alarm)

    def heartbeat(self, now_s: float) -> None:
        pass

    def fault(self) -> str | None:
        return None

    def close(self) -> None:
        pass


class Rig:
    """An inspector around a list of parts, with everything within reach."""

    def __init__(
        self,
        folder: Path,
        serving: Serving,
        parts: Iterable[Part] = (),
        keeps_parts: bool = True,
        store: Any = None,
        alarm_after: int = 0,
        review: ReviewSettings | None = None,
        **more: Any,
    ) -> None:
        self.serving = serving
        self.source = ListSource(parts, keeps_parts)
        self.spool = Spool(folder / "spool", "cam-1", SpoolSettings()) if store is None else store
        self.output = Hears()
        self.results: list[Result] = []
        review = review or ReviewSettings(audit_share=0.0, max_per_day=0)
        self.inspector = Inspector(
            self.source,
            serving,
            self.spool,
            Outputs([self.output], 1.0, alarm_after),
            ReviewPolicy(review),
            StuckCamera(review),
            "cam-1",
            on_result=lambda pending, result: self.results.append(result),
            **more,
        )
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Inspect all parts."""
        try:
            assert self.inspector.run() is None
        finally:
            self.close()

    def start(self) -> None:
        """Inspect on another thread until `end`."""
        self.source.endless = True
        self._thread = threading.Thread(target=self.inspector.run)
        self._thread.start()

    def end(self) -> None:
        """Stop, and wait for it."""
        self.inspector.stop()
        assert self._thread is not None
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.close()

    def close(self) -> None:
        if isinstance(self.spool, Spool):
            self.spool.close()

    @property
    def verdicts(self) -> list[str]:
        return [result.verdict for result in self.results]

    @property
    def errors(self) -> list[str | None]:
        return [result.error for result in self.results]


def wait_until(done: Callable[[], bool], timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


__all__ = ["BAD", "GOOD", "Hears", "Limits", "ListSource", "Rig", "Served", "part", "picture", "slow", "wait_until"]
