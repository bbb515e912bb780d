"""Preparing a folder of large JPEGs: ours against torchvision's ImageFolder + Resize, on the same cores.

    python bench/data_prep.py [--images 400] [--rounds 3]

Ours is the pass over the images in the flow's first step: read, hash, decode, measure what the checks need, resize,
write the cache durably. The peer lists, decodes, resizes and collects tensors in memory, by a DataLoader with a worker
per core. Both run in every round, each from nothing, in processes of their own, on as many cores as they have workers;
files are in the page cache for both. The first step as a whole (with the search for copies, the splits and the
snapshot), and the same step again, are timed beside it.
Claims: at least 2.5x the peer; at least 0.9 of the time shared out over the cores; a second run at least 50x the first,
where the first counts with its pass alone.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

WIDTH, HEIGHT, SIZE = 1600, 1200, 224  # px
FASTER_THAN_PEER, CORE_EFFICIENCY, SECOND_RUN = 2.5, 0.9, 50.0  # what is claimed


def make_picture(seed: int, noise: np.ndarray) -> Image.Image:
    """A turned metal part on a belt: uneven light, brushed texture, an edge, a hole, camera noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    centre_x, centre_y = random.uniform(700, 900), random.uniform(500, 700)
    radius = np.hypot(x - centre_x, y - centre_y)
    grain = random.normal(0, 6, HEIGHT).astype(np.float32)[:, None]
    rings = 8 * np.sin(radius / random.uniform(3, 9))
    grey = np.where(radius < 420, 150 + rings, 70 + grain) + 40 * np.sin(x / 700 + seed)
    grey = np.where(radius < 90, 20, grey)
    shift = int(random.integers(noise.shape[0] - HEIGHT))
    colour = grey[..., None] * np.array([1.0, 0.97, 0.9], dtype=np.float32) + noise[shift : shift + HEIGHT]
    return Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8))


def make_folder(folder: Path, images: int) -> float:
    """Write half good, half bad pictures.

    Returns:
        mean file size in kB.
    """
    noise = np.random.default_rng(0).normal(0, 4, (HEIGHT + 512, WIDTH, 3)).astype(np.float32)
    for label in ("good", "scratch"):
        (folder / label).mkdir(parents=True)
    for index in range(images):
        make_picture(index, noise).save(folder / ("good", "scratch")[index % 2] / f"{index:05d}.jpg", quality=92)
    return statistics.mean(path.stat().st_size for path in folder.rglob("*.jpg")) / 1000


def run_peer(folder: str, workers: int) -> None:
    """ImageFolder + Resize into one uint8 tensor."""
    import torch
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    _start_cpu_clock()
    started = time.perf_counter()
    transform = transforms.Compose([transforms.Resize((SIZE, SIZE)), transforms.PILToTensor()])
    loader = torch.utils.data.DataLoader(ImageFolder(folder, transform), batch_size=32, num_workers=workers)
    pixels = torch.cat([batch for batch, _ in loader])
    _print_result([time.perf_counter() - started], len(pixels))


def run_pass(folder: str, storage_root: str, workers: int) -> None:
    """The pass over the images that the flow's first step makes, into an empty cache."""
    from inspection.dataset.looking import Target, look_at_all
    from inspection.dataset.sources import open_source
    from inspection.settings import parse_settings
    from inspection.storage import open_storage

    settings = parse_settings({"line": {"name": "bench"}, "input": {"width": SIZE, "height": SIZE}}, "bench")
    _start_cpu_clock()
    started = time.perf_counter()
    source, target = open_source(folder), Target(open_storage(storage_root), {})
    looked = list(
        look_at_all(source.images(), source, settings.input.contract(), workers, progress=False, target=target)
    )
    _print_result([time.perf_counter() - started], sum(one.facts is not None for one in looked))


def run_decoding(folder: str) -> None:
    """Nothing but the decoding of every file at the scale that preprocessing wants, one after the other."""
    from edge.contract import InputContract
    from edge.preprocess import load_file

    contract, files = InputContract(SIZE, SIZE), [path.read_bytes() for path in sorted(Path(folder).rglob("*.jpg"))]
    _start_cpu_clock()
    started = time.perf_counter()
    for data in files:
        load_file(data, contract)
    _print_result([time.perf_counter() - started], len(files))


def run_step(folder: str, storage_root: str, workers: int, times: int) -> None:
    """The flow's whole first step, so many times in a row."""
    from inspection.dataset.intake import prepare_dataset
    from inspection.settings import parse_settings
    from inspection.storage import open_storage

    settings = parse_settings({"line": {"name": "bench"}, "input": {"width": SIZE, "height": SIZE}}, "bench")
    seconds = []
    _start_cpu_clock()
    for _ in range(times):
        started = time.perf_counter()
        snapshot = prepare_dataset(settings, folder, open_storage(storage_root), progress=False, workers=workers)
        seconds.append(time.perf_counter() - started)
    _print_result(seconds, len(snapshot.rows))


_cpu_before_s = 0.0  # of this process, importing


def _start_cpu_clock() -> None:
    global _cpu_before_s
    _cpu_before_s = time.process_time()


def _print_result(seconds: list[float], images: int) -> None:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(one.ru_utime + one.ru_stime for one in used) - _cpu_before_s
    print(json.dumps({"seconds": seconds, "images": images, "cpu_s": cpu_s}))


def measure(*arguments: object, cores: int, watch: bool = False) -> dict:
    """Run this script's peer or ours in a process of its own, on so many cores.

    Returns:
        seconds of each pass, CPU seconds and, if watched, the peak of the memory that it and its workers hold, in MB.
    """
    command = [sys.executable, __file__, *(str(argument) for argument in arguments)]
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    process = subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, allowed)), *command], stdout=subprocess.PIPE, text=True
    )
    peak = [0.0]
    if watch:
        threading.Thread(target=_watch_memory, args=(psutil.Process(process.pid), peak), daemon=True).start()
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return {**json.loads(out), "peak_mb": peak[0]}


def _watch_memory(process: psutil.Process, peak: list[float]) -> None:
    while True:
        try:
            # USS: a page that several processes share does not count for each of them
            held = sum(one.memory_full_info().uss for one in [process, *process.children(recursive=True)])
        except psutil.Error:  # a process ended in the middle of this
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return
            continue
        peak[0] = max(peak[0], held / 1e6)
        time.sleep(0.01)


def compare(images: int, rounds: int, cores: int) -> None:
    """Print the claims' ratios, measured in alternation."""
    with tempfile.TemporaryDirectory(prefix="lineside-bench-") as temporary:
        folder = Path(temporary) / "images"
        size_kb = make_folder(folder, images)
        print(f"{images} JPEGs of {WIDTH}x{HEIGHT}, {size_kb:.0f} kB each; {cores} cores; {rounds} rounds")
        peer, ours, alone, decoding, whole, again = [], [], [], [], [], []
        for number in range(rounds):
            their = measure("--peer", folder, "--workers", cores, cores=cores)
            our = measure("--pass", folder, "--storage", f"{temporary}/all-{number}", "--workers", cores, cores=cores)
            single = measure("--pass", folder, "--storage", f"{temporary}/one-{number}", "--workers", 1, cores=1)
            bare = measure("--decode", folder, cores=1)
            step = measure(
                "--step",
                folder,
                "--storage",
                f"{temporary}/step-{number}",
                "--workers",
                cores,
                "--times",
                4,
                cores=cores,
            )
            peer.append(their["seconds"][0])
            ours.append(our["seconds"][0])
            alone.append(single["seconds"][0])
            decoding.append(bare["seconds"][0])
            whole.append(step["seconds"][0])
            again.append(statistics.median(step["seconds"][1:]))
            print(
                f"round {number + 1}: peer {peer[-1]:.2f} s (CPU {their['cpu_s']:.2f}), ours {ours[-1]:.2f} s "
                f"(CPU {our['cpu_s']:.2f}), on one core {alone[-1]:.2f} s (CPU {single['cpu_s']:.2f}); whole first "
                f"step {whole[-1]:.2f} s (CPU {step['cpu_s']:.2f}), again {again[-1] * 1000:.0f} ms; "
                f"load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        _report("torchvision ImageFolder + Resize / ours", peer, ours, FASTER_THAN_PEER)
        _report(f"one core / {cores} cores / {cores}", alone, [seconds * cores for seconds in ours], CORE_EFFICIENCY)
        _report("pass of the first run / second run", ours, again, SECOND_RUN)
        share = statistics.median(decoding) / statistics.median(alone)
        print(f"libjpeg's decoding alone takes {share:.2f} of our pass on one core: what is ours in it is the rest")
        step_ratio = statistics.median(peer) / statistics.median(whole)
        print(f"torchvision ImageFolder + Resize / whole first step: {step_ratio:.2f}")
        watched = measure(
            "--step", folder, "--storage", f"{temporary}/watched", "--workers", cores, cores=cores, watch=True
        )
        print(f"ours: {images / statistics.median(ours):.0f} images/s, peak memory {watched['peak_mb']:.0f} MB")


def _report(name: str, slower: list[float], faster: list[float], want: float) -> None:
    """Ratio of the medians, and the range of the rounds' own ratios."""
    ratio = statistics.median(slower) / statistics.median(faster)
    each = [one / other for one, other in zip(slower, faster, strict=True)]
    print(f"{name}: {ratio:.2f} (rounds {min(each):.2f} to {max(each):.2f}), want >= {want}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="cores to use")
    parser.add_argument("--peer", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--pass", metavar="FOLDER", dest="one_pass", help=argparse.SUPPRESS)
    parser.add_argument("--decode", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--step", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--storage", help=argparse.SUPPRESS)
    parser.add_argument("--times", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        run_peer(options.peer, options.workers)
    elif options.one_pass:
        run_pass(options.one_pass, options.storage, options.workers)
    elif options.decode:
        run_decoding(options.decode)
    elif options.step:
        run_step(options.step, options.storage, options.workers, options.times)
    else:
        compare(options.images, options.rounds, options.workers)


if __name__ == "__main__":
    main()
