"""The spool: results per second and megabytes written, for grouped commits against one commit per result.

    python bench/spool.py [--parts 2000] [--rate 20] [--rounds 3] [--folder /path/on/the/card]

Ours is the device's spool as it is: a result is put, a writer thread commits. The peer is the usual way: one row of
JSON, one commit per result, SQLite with its default page, a unique text key, write-ahead log, synchronous=FULL. Both
run in every round, each from nothing, in processes of their own, on the folder's file system.

Two questions. At a line's pace (`--rate` parts/s, 1 in 20 a fail): what is written to disk per 10,000 parts, in bytes
that the process handed to the block layer (write_bytes of /proc/self/io; without the file system's own journal), how
often it syncs, how soon a result is durable, and what `put` costs the inspection? (A faster pace than the line's would
flatter groups.) And flat out: how many results per second?
"""

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edge.results import Result, dump_result
from edge.spool import Spool, SpoolSettings

WITHIN_MS = (0, 50, 200, 1000)
FAIL_EVERY = 20
PEER = "one commit per result"


def make_result(number: int) -> Result:
    """A result of usual size, with the key that a folder source gives."""
    return Result(
        thing="press-3",
        sequence=number,
        source_key=f"folder:/data/incoming/part-{number * 7919 % 1_000_003:07d}.jpg@1790000000",
        line="sample",
        captured_at=1_790_000_000.0 + number / 20,
        clock_synced=True,
        verdict="fail" if number % FAIL_EVERY == FAIL_EVERY - 1 else "pass",
        action="reject" if number % FAIL_EVERY == FAIL_EVERY - 1 else "accept",
        score=-3.25 + number % 17 / 10,
        probability=0.031,
        package="0f" * 32,
        operating_point="op-20260901",
        artifact="int8",
        runtime="ai-edge-litert 2.3.0",
        image_sha256="ab" * 32,
        latency_ms={"queue": 0.41, "decode": 11.02, "preprocess": 2.13, "detect": 4.55, "total": 18.4},
    )


def written_bytes() -> int:
    """What this process has sent to disk so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def run_ours(folder: Path, parts: int, rate: float, within_ms: int) -> dict[str, float]:
    results = [make_result(number) for number in range(parts)]
    spool = Spool(folder, "press-3", SpoolSettings(durable_within_ms=within_ms))
    before, start, puts, tickets = written_bytes(), time.perf_counter(), [], []
    for number, result in enumerate(results):
        if rate:
            time.sleep(max(0.0, start + number / rate - time.perf_counter()))
        begin = time.perf_counter()
        tickets.append(spool.put(result))
        puts.append(time.perf_counter() - begin)
    while not spool.flush(60):
        pass
    took = time.perf_counter() - start
    figures = spool.figures()
    report = {
        "seconds": took,
        "megabytes": (written_bytes() - before) / 1e6,
        "syncs": figures.commits,
        "commit_ms": figures.commit_ms,
        "put_us": statistics.median(puts) * 1e6,
        "put_p99_us": sorted(puts)[len(puts) * 99 // 100] * 1e6,
    }
    spool.close()
    return report


def run_peer(folder: Path, parts: int, rate: float) -> dict[str, float]:
    results = [make_result(number) for number in range(parts)]
    connection = sqlite3.connect(folder / "peer.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE results(id INTEGER PRIMARY KEY, source_key TEXT UNIQUE, verdict TEXT, sent INTEGER, body TEXT)"
    )
    before, start, puts = written_bytes(), time.perf_counter(), []
    for number, result in enumerate(results):
        if rate:
            time.sleep(max(0.0, start + number / rate - time.perf_counter()))
        begin = time.perf_counter()
        connection.execute(
            "INSERT INTO results VALUES (?, ?, ?, 0, ?)",
            (result.sequence, result.source_key, result.verdict, dump_result(result)),
        )
        puts.append(time.perf_counter() - begin)
    took = time.perf_counter() - start
    report = {
        "seconds": took,
        "megabytes": (written_bytes() - before) / 1e6,
        "syncs": parts,
        "commit_ms": statistics.mean(puts) * 1e3,
        "put_us": statistics.median(puts) * 1e6,
        "put_p99_us": sorted(puts)[len(puts) * 99 // 100] * 1e6,
    }
    connection.close()
    return report


def measure(way: str, arguments: argparse.Namespace, rate: float) -> dict[str, float]:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        values = [sys.executable, __file__, "--one", way, "--folder", folder]
        values += ["--parts", str(arguments.parts), "--rate", str(rate)]
        return json.loads(subprocess.run(values, check=True, capture_output=True, text=True).stdout)


def median(runs: list[dict[str, float]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def table(title: str, ways: list[str], arguments: argparse.Namespace, rate: float) -> None:
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(arguments.rounds):
        for way in ways:
            runs[way].append(measure(way, arguments, rate))
    peer = runs[PEER]
    per = 10_000 / arguments.parts
    print(title)
    print(f"{'':24}{'results/s':>11}{'MB/10,000':>11}{'of peer':>9}{'syncs/10,000':>14}{'of peer':>9}", end="")
    print(f"{'sync ms':>9}{'put us':>9}{'p99':>9}")
    for way in ways:
        megabytes, syncs = median(runs[way], "megabytes"), median(runs[way], "syncs")
        label = way if way == PEER else f"ours within {way} ms"
        print(
            f"{label:24}{arguments.parts / median(runs[way], 'seconds'):11.0f}{megabytes * per:11.1f}"
            f"{megabytes / max(median(peer, 'megabytes'), 1e-9):9.2f}{syncs * per:14.0f}"
            f"{syncs / median(peer, 'syncs'):9.2f}{median(runs[way], 'commit_ms'):9.2f}"
            f"{median(runs[way], 'put_us'):9.0f}{median(runs[way], 'put_p99_us'):9.0f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20.0, help="parts/s of the line")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", help="on the disk or card to measure; default: the system's temporary folder")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        folder = Path(arguments.folder)
        if arguments.one == PEER:
            report = run_peer(folder, arguments.parts, arguments.rate)
        else:
            report = run_ours(folder, arguments.parts, arguments.rate, int(arguments.one))
        print(json.dumps(report))
        return
    ways = [PEER, *map(str, WITHIN_MS)]
    table(f"at {arguments.rate:g} parts/s, 1 fail in {FAIL_EVERY}", ways, arguments, arguments.rate)
    table("flat out", ways, arguments, 0.0)


if __name__ == "__main__":
    main()
