"""A process that fills a spool and says what it did, for tests that kill it or record its writes.

    python tests/spool_writer.py fork                  one child per line of standard input: FOLDER SAYS RUN
    python tests/spool_writer.py write FOLDER SAYS N   write N results and end

SAYS is a file of lines: `put <sequence> <key>` when a number was given out, `ack <sequence> <key>` once it is durable.
"""

import os
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.results import Result
from edge.spool import KeptImage, Spool, SpoolSettings, Ticket

VERDICTS = ("pass", "pass", "pass", "pass", "pass", "fail", "review", "error")


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in memory where there is one: syncing costs nothing there."""
    place = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=place if os.access(place, os.W_OK) else None) as folder:
        yield Path(folder)


def result(key: str, verdict: str = "pass") -> Result:
    return Result(
        thing="press-3",
        sequence=0,
        source_key=key,
        line="sample",
        captured_at=time.time(),
        verdict=verdict,  # type: ignore[arg-type]
        action="accept" if verdict == "pass" else "reject",
        score=None if verdict == "error" else -3.25,
        package="0f" * 32,
        operating_point="op-1",
        image_sha256="ab" * 32,
        latency_ms={"decode": 11.0, "detect": 4.0, "total": 17.5},
    )


def image(key: str, reason: str = "review", size: int = 3000) -> KeptImage:
    return KeptImage((key.encode() + b"\n") * (size // (len(key) + 1)), ".jpg", reason, 1.0, {"why": reason})  # type: ignore[arg-type]


def fill(folder: Path, says: Path, run: str, more: Callable[[int], bool], pause_s: float) -> Spool:
    """Put results, with an image now and then, and say what became of them; leaves the spool open."""
    out = os.open(says, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    spool = Spool(folder, "press-3", SpoolSettings(durable_within_ms=5))
    tickets: deque[tuple[Ticket, str]] = deque()
    choose = random.Random(run)
    number = 0
    while more(number) or tickets:
        if more(number):
            key, verdict = f"{run}-{number}", choose.choice(VERDICTS)
            ticket = spool.put(result(key, verdict), image(key) if verdict == "review" else None)
            os.write(out, f"put {ticket.result.sequence} {key}\n".encode())
            tickets.append((ticket, key))
            number += 1
            if number % 7 == 0:
                spool.mark_sent([found.sequence for found in spool.unsent(True, 2)])
        time.sleep(pause_s)
        while tickets and tickets[0][0].durable:
            ticket, key = tickets.popleft()
            os.write(out, f"ack {ticket.result.sequence} {key}\n".encode())
    return spool


def fork_on_request() -> None:
    for line in sys.stdin:
        folder, says, run = line.split()
        pid = os.fork()
        if pid == 0:
            fill(Path(folder), Path(says), run, lambda _: True, 0.0005)
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("dead", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "fork":
        fork_on_request()
    else:
        count = int(sys.argv[4])
        fill(Path(sys.argv[2]), Path(sys.argv[3]), "w", lambda number: number < count, 0.002).close()
