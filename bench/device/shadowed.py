"""The whole inspector on parts at a steady pace, alone or with a challenger beside it.

    python bench/device/shadowed.py PACKAGE PICTURES PARTS PARTS_PER_S [CHALLENGER]

Prints one JSON object: milliseconds from part to verdict of every part, the verdicts, and the challenger's pairs.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sustained import WARM_UP, Memory

from edge.inspector import Inspector, Limits
from edge.line_output import Outputs
from edge.part import Part
from edge.results import Result
from edge.review import ReviewPolicy, ReviewSettings, StuckCamera
from edge.serving import Serving
from edge.shadow.disagreements import Disagreements
from edge.shadow.settings import ShadowSettings
from edge.shadow.shadow import Shadow
from edge.spool.settings import SpoolSettings
from edge.spool.spool import Spool


class Paced(Memory):
    """Gives a part at every tick of a clock, like a line."""

    def __init__(self, pictures: list[bytes], count: int, per_s: float) -> None:
        super().__init__(pictures, count)
        self._every_s, self._due_s = 1 / per_s, time.monotonic()

    def next_part(self, timeout_s: float) -> Part | None:
        """The next part, once it is time."""
        wait_s = self._due_s - time.monotonic()
        if wait_s > timeout_s:
            time.sleep(timeout_s)
            return None
        time.sleep(max(0.0, wait_s))
        self._due_s += self._every_s
        return super().next_part(timeout_s)


def run(package: Path, pictures: Path, parts: int, per_s: float, challenger: Path | None) -> dict[str, Any]:
    """Inspect at that pace on one core."""
    files = [path.read_bytes() for path in sorted(pictures.glob("*.jpg"))]
    with tempfile.TemporaryDirectory(prefix="lineside-bench-") as temporary:
        serving = Serving(package, Path(temporary) / "packages")
        serving.start()
        served = serving.current()
        if served is None:
            raise SystemExit(serving.state().message)
        spool = Spool(Path(temporary) / "spool", "bench", SpoolSettings())
        review = ReviewPolicy(ReviewSettings())
        settings = ShadowSettings()
        keep = Disagreements(settings, review, spool).keep
        shadow = Shadow(challenger or Path(temporary) / "none", served.contract.line, settings, keep)
        while challenger is not None and shadow.state != "running":
            shadow.tick(time.monotonic(), served.digest)
            if shadow.state == "refused":
                raise SystemExit(shadow.message()["message"])
            time.sleep(0.05)
        results: list[Result] = []
        inspector = Inspector(
            Paced(files, parts + WARM_UP, per_s),
            serving,
            spool,
            Outputs((), heartbeat_s=1.0, alarm_after=0),
            review,
            StuckCamera(ReviewSettings()),
            "bench",
            limits=Limits(deadline_ms=600_000),
            on_result=lambda pending, result: results.append(result),
            on_turn=lambda now_s: shadow.tick(now_s, served.digest),
            on_judged=shadow.judged,
        )
        inspector.run()
        shadow.finish(60.0)
        message = shadow.message()
        shadow.close()
        spool.close()
        serving.close()
    counted = results[WARM_UP:]
    return {
        "total_ms": [one.latency_ms["total"] for one in counted],
        "verdicts": "".join(one.verdict[0] for one in counted),
        "pairs": message["pairs"],
        "skipped": message["skipped"],
    }


if __name__ == "__main__":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    beside = Path(sys.argv[5]) if len(sys.argv) > 5 else None
    print(json.dumps(run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), beside)))
