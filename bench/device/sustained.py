"""The whole inspector on parts from memory, as fast as it goes.

    python bench/device/sustained.py PACKAGE PICTURES PARTS WORKERS CORES STORE

STORE is `spool` (on disk, synced) or `memory` (kept nowhere: what syncing costs is the difference).
Prints one JSON object: seconds, and milliseconds by stage (medians of the results' own figures).
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edge.inspector import Inspector, Limits
from edge.line_output import Outputs
from edge.package import open_package
from edge.part import Part, SourceHealth
from edge.preprocess import decode_file, finish
from edge.results import Result
from edge.review import ReviewPolicy, ReviewSettings, StuckCamera
from edge.serving import Serving
from edge.spool.settings import SpoolSettings
from edge.spool.spool import Spool

WARM_UP = 20  # parts that are not counted


class Memory:
    """Gives parts of a few pictures, each under a new key."""

    name, keeps_parts = "memory", True

    def __init__(self, pictures: list[bytes], count: int) -> None:
        self._pictures, self._count, self._given = pictures, count, 0

    def next_part(self, timeout_s: float) -> Part | None:
        """The next part."""
        if self._given >= self._count:
            time.sleep(min(timeout_s, 0.005))
            return None
        self._given += 1
        data = self._pictures[self._given % len(self._pictures)]
        return Part(f"part-{self._given}", "picture", time.time(), time.monotonic(), data)

    def acknowledge(self, part: Part, result: Result) -> None:
        """Nothing to put away."""

    def finished(self) -> bool:
        """Whether all were given."""
        return self._given >= self._count

    def health(self) -> SourceHealth:
        """Always fine."""
        return SourceHealth(True, "fine")

    def close(self) -> None:
        """Nothing to let go of."""


class Nowhere:
    """A store that keeps nothing."""

    class Ticket:
        """Of a result that counts as stored."""

        durable, dropped = True, False

        def __init__(self, result: Result) -> None:
            self.result = result

        def done(self) -> bool:
            """At once."""
            return True

        def wait(self, timeout_s: float) -> bool:
            """At once."""
            return True

    is_full = False

    def reserve(self) -> int:
        """Any number."""
        return 1

    def find(self, source_key: str) -> None:
        """Nothing was stored."""
        return None

    def put(self, result: Result, image: Any = None, reserved: bool = False) -> "Nowhere.Ticket":
        """Take it, and forget it."""
        return Nowhere.Ticket(result)

    def close(self) -> None:
        """Nothing to let go of."""


def measure_bare(package: Path, files: list[bytes]) -> list[float]:
    """Seconds of decoding, resizing and the model alone, for one part on this core."""
    opened = open_package(package)
    detector, size, seconds = opened.open_detector(1), opened.contract.input, []
    for data in files * 3:
        start = time.perf_counter()
        finish(decode_file(data, size), size)
        detector._interpreter.invoke()
        seconds.append(time.perf_counter() - start)
    return seconds


def run(package: Path, pictures: Path, parts: int, workers: int, store: str) -> dict[str, Any]:
    """Inspect, and measure from the first counted verdict to the last."""
    files = [path.read_bytes() for path in sorted(pictures.glob("*.jpg"))]
    with tempfile.TemporaryDirectory(prefix="lineside-bench-") as temporary:
        serving = Serving(package, Path(temporary) / "packages", workers=workers)
        serving.start()
        while serving.current() is None:
            serving.tick(time.monotonic())
            time.sleep(0.01)
        keeper: Any = Spool(Path(temporary) / "spool", "bench", SpoolSettings()) if store == "spool" else Nowhere()
        times: list[float] = []
        results: list[Result] = []

        def on_result(pending: object, result: Result) -> None:
            times.append(time.perf_counter())
            results.append(result)

        inspector = Inspector(
            Memory(files, parts + WARM_UP),
            serving,
            keeper,
            Outputs((), heartbeat_s=1.0, alarm_after=0),
            ReviewPolicy(ReviewSettings()),
            StuckCamera(ReviewSettings()),
            "bench",
            workers=workers,
            limits=Limits(deadline_ms=600_000),
            on_result=on_result,
        )
        before = measure_bare(package, files)
        cpu_s = time.process_time()
        inspector.run()
        cpu_s = time.process_time() - cpu_s
        bare_s = statistics.median([*before, *measure_bare(package, files)])
        keeper.close()
        serving.close()
    if len(results) != parts + WARM_UP or any(result.verdict != "pass" for result in results):
        raise SystemExit(f"want {parts + WARM_UP} passes, found {[result.detail for result in results][:3]}")
    counted = results[WARM_UP:]
    stages = {name: statistics.median(one.latency_ms[name] for one in counted) for name in counted[0].latency_ms}
    seconds = times[-1] - times[WARM_UP - 1]
    own = statistics.median(own_share(one.latency_ms) for one in counted)
    return {"seconds": seconds, "cpu_s": cpu_s, "parts": parts, "bare_s": bare_s, "own": own, "stages_ms": stages}


def own_share(latency_ms: dict[str, float]) -> float:
    """Share of a part's way to its verdict beside decoding, resizing and the model; waiting in line does not count."""
    way_ms = latency_ms["total"] - latency_ms["queue"]
    return 1 - (latency_ms["decode"] + latency_ms["preprocess"] + latency_ms["detect"]) / way_ms


if __name__ == "__main__":
    cores = int(sys.argv[5])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    print(json.dumps(run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[6])))
