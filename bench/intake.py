"""Checking a set of large JPEGs: the pass over the images against plain Pillow decoding, and the search for copies.

    python bench/intake.py [--images 300] [--rounds 3] [--hashes 100000]

The pass reads, hashes, decodes and measures every image (`inspection.dataset.looking`), without the features that
comparing labels takes. The peer opens and fully decodes every image with Pillow in as many threads, or processes where
we use them. Both run in every round, each in a process of its own; files are in the page cache for both.
Claims: at least 0.85 of plain decoding; 100,000 hashes searched in seconds, within 500 MB.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from data_prep import HEIGHT, WIDTH, make_folder
from PIL import Image

OF_PLAIN_DECODING, SEARCH_S, SEARCH_MB = 0.85, 10.0, 500.0  # what is claimed
PLANTED = 1000  # copies among the hashes


def decode(path: str) -> int:
    """Plain Pillow: open and decode all pixels."""
    with Image.open(path) as image:
        image.load()
        return image.width


def run_peer(folder: str, workers: int) -> None:
    """Pillow in a pool of the kind that ours uses for so many images."""
    from inspection.dataset.parallel import PROCESSES_FROM

    paths = sorted(str(path) for path in Path(folder).rglob("*.jpg"))
    started = time.perf_counter()
    if len(paths) < PROCESSES_FROM * workers:
        with ThreadPoolExecutor(workers) as pool:
            count = sum(1 for _ in pool.map(decode, paths))
    else:
        with ProcessPoolExecutor(workers) as processes:
            count = sum(1 for _ in processes.map(decode, paths, chunksize=64))
    print(json.dumps({"seconds": time.perf_counter() - started, "images": count}))


def run_ours(folder: str, workers: int, whole: bool) -> None:
    """The pass alone, or the whole examination with its search for copies."""
    from inspection.dataset.examine import examine
    from inspection.dataset.looking import look_at_all
    from inspection.dataset.sources import open_source
    from inspection.settings import parse_settings

    settings = parse_settings({"line": {"name": "bench"}}, "bench")
    source = open_source(folder)
    images = source.images()
    started = time.perf_counter()
    if whole:
        count = len(examine(images, source, settings, workers, progress=False).facts)
    else:
        contract = settings.input.contract()
        count = sum(one.facts is not None for one in look_at_all(images, source, contract, workers, progress=False))
    print(json.dumps({"seconds": time.perf_counter() - started, "images": count}))


def run_search(count: int) -> None:
    """Random hashes with planted copies of up to 7 changed bits; all must be found."""
    from inspection.dataset.hash_index import find_close
    from inspection.dataset.proposals import radius_for

    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    for place in range(PLANTED):
        flips = rng.choice(64, rng.integers(0, 8), replace=False).astype(np.uint64)
        hashes[count - 1 - place] = hashes[place] ^ np.bitwise_or.reduce(np.uint64(1) << flips, initial=0)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    started = time.perf_counter()
    one, other, _ = find_close(hashes, hashes, radius_for(count))
    seconds = time.perf_counter() - started
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    found = sum((place, count - 1 - place) in pairs for place in range(PLANTED))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps({"seconds": seconds, "found": found, "peak_mb": peak_mb, "before_mb": before_mb}))


def measure(*arguments: object) -> dict:
    """Run a part of this script in a process of its own."""
    command = [sys.executable, __file__, *(str(argument) for argument in arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict = json.loads(done.stdout)
    return result


def compare(images: int, rounds: int, workers: int, hashes: int) -> None:
    """Print the claims' figures, measured in alternation."""
    with tempfile.TemporaryDirectory(prefix="lineside-bench-") as temporary:
        folder = Path(temporary) / "images"
        size_kb = make_folder(folder, images)
        print(f"{images} JPEGs of {WIDTH}x{HEIGHT}, {size_kb:.0f} kB each; {workers} cores; {rounds} rounds")
        plain, ours, whole = [], [], []
        for number in range(rounds):
            plain.append(images / measure("--peer", folder, "--workers", workers)["seconds"])
            ours.append(images / measure("--ours", folder, "--workers", workers)["seconds"])
            whole.append(images / measure("--whole", folder, "--workers", workers)["seconds"])
            print(
                f"round {number + 1}: Pillow {plain[-1]:.0f} images/s, our pass {ours[-1]:.0f}, with the search for "
                f"copies {whole[-1]:.0f}, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        each = [one / other for one, other in zip(ours, plain, strict=True)]
        ratio = statistics.median(ours) / statistics.median(plain)
        print(f"pass / Pillow: {ratio:.2f} (rounds {min(each):.2f} to {max(each):.2f}), want >= {OF_PLAIN_DECODING}")
    for count in (hashes, 2 * hashes):
        search = measure("--search", count)
        print(
            f"{count} hashes: {search['seconds']:.1f} s, peak {search['peak_mb']:.0f} MB "
            f"({search['before_mb']:.0f} MB before), {search['found']} of {PLANTED} planted copies found, "
            f"want <= {SEARCH_S} s and {SEARCH_MB:.0f} MB at {hashes}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hashes", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="cores to use")
    parser.add_argument("--peer", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--ours", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--whole", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--search", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        run_peer(options.peer, options.workers)
    elif options.ours or options.whole:
        run_ours(options.ours or options.whole, options.workers, whole=bool(options.whole))
    elif options.search:
        run_search(options.search)
    else:
        compare(options.images, options.rounds, options.workers, options.hashes)


if __name__ == "__main__":
    main()
