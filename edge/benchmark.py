"""How fast this machine is with a model, by stage, and how much memory it takes.

The JSON form goes back to whoever trains: with it in `[export] device_benchmark`, the artifact is chosen by what the
device measured. One line of JSON describes one model; a file may hold several.
"""

import io
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from edge.contract import InputContract
from edge.detector import Detector, read_sizes
from edge.digest import sha256_of
from edge.memory import peak_rss_bytes
from edge.package import Package
from edge.preprocess import decode_file, finish

SCHEMA = "1.0"
_WARM_UP = 5  # rounds that are not counted
_SYNTHETIC_SIZE = (1600, 1200)  # px, of the picture that stands in when there is no package with golden images


@dataclass(frozen=True)
class StageLatency:
    """Milliseconds of one stage."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Benchmark:
    """What was measured, and on what."""

    schema: str
    machine: str  # architecture: aarch64, armv7l, x86_64
    system: str
    python: str
    runtime: str  # name and version of the TFLite runtime
    kind: str  # int8 or float32
    model_sha256: str
    width: int  # px, of the model's input
    height: int
    threads: int
    rounds: int
    source: str  # "golden images" or "synthetic picture"
    stages: dict[str, StageLatency]  # decode, preprocess, detect, total
    load_s: float  # opening the model, with its first run
    rss_bytes: int  # peak, of the whole process


def benchmark_package(package: Package, threads: int = 1, rounds: int = 200) -> Benchmark:
    """Measure a package on its golden images.

    Raises:
        ContractError: the model does not fit the contract.
        ImageError: a golden image cannot be decoded.
        RuntimeMissingError: no TFLite runtime is installed.
    """
    contract = package.contract
    pictures = [(package.folder / golden.file).read_bytes() for golden in contract.self_test.images]
    model = package.folder / contract.artifact.file
    return _measure(model, contract.input, package.open_detector, threads, rounds, pictures, "golden images")


def benchmark_model(model: Path, threads: int = 1, rounds: int = 200) -> Benchmark:
    """Measure a model file that came without a package, on a synthetic JPEG.

    Raises:
        ContractError: the file is no model of ours.
        RuntimeMissingError: no TFLite runtime is installed.
    """
    contract, types = read_sizes(model)

    def open_detector(threads: int) -> Detector:
        return Detector(model, contract, types, threads)

    return _measure(model, contract, open_detector, threads, rounds, [_synthetic_jpeg()], "synthetic picture")


def describe(benchmark: Benchmark) -> str:
    """The benchmark as text for a person."""
    lines = [
        f"{benchmark.kind} {benchmark.width}x{benchmark.height} on {benchmark.runtime}, {benchmark.machine}, "
        f"Python {benchmark.python}, {benchmark.threads} thread(s), {benchmark.rounds} rounds on {benchmark.source}",
        f"{'stage':<12}{'p50 ms':>10}{'p99 ms':>10}",
    ]
    lines += [f"{name:<12}{stage.p50_ms:>10.2f}{stage.p99_ms:>10.2f}" for name, stage in benchmark.stages.items()]
    lines.append(f"load {benchmark.load_s:.2f} s, peak memory {benchmark.rss_bytes / 1e6:.0f} MB")
    return "\n".join(lines)


def _measure(
    model: Path,
    contract: InputContract,
    open_detector: Callable[[int], Detector],
    threads: int,
    rounds: int,
    pictures: list[bytes],
    source: str,
) -> Benchmark:
    start = time.perf_counter()
    detector = open_detector(threads)
    load_s = time.perf_counter() - start
    marks = np.empty((rounds + _WARM_UP, 4))  # seconds, before and after each stage
    for index in range(len(marks)):
        data = pictures[index % len(pictures)]
        marks[index, 0] = time.perf_counter()
        decoded = decode_file(data, contract)
        marks[index, 1] = time.perf_counter()
        prepared = finish(decoded, contract)
        marks[index, 2] = time.perf_counter()
        detector.detect(prepared.pixels)
        marks[index, 3] = time.perf_counter()
    marks = marks[_WARM_UP:]
    spent = {
        name: marks[:, index + 1] - marks[:, index] for index, name in enumerate(("decode", "preprocess", "detect"))
    }
    spent["total"] = marks[:, 3] - marks[:, 0]
    stages = {name: StageLatency(*(np.percentile(values, (50, 99)) * 1e3).tolist()) for name, values in spent.items()}
    return Benchmark(
        schema=SCHEMA,
        machine=platform.machine(),
        system=platform.system(),
        python=".".join(str(part) for part in sys.version_info[:3]),
        runtime=detector.runtime,
        kind=detector.kind,
        model_sha256=sha256_of(model),
        width=contract.width,
        height=contract.height,
        threads=threads,
        rounds=rounds,
        source=source,
        stages=stages,
        load_s=load_s,
        rss_bytes=peak_rss_bytes(),
    )


def _synthetic_jpeg() -> bytes:
    """A JPEG with about as much detail as a photograph."""
    generator = np.random.default_rng(0)
    width, height = _SYNTHETIC_SIZE
    coarse = Image.fromarray(generator.integers(0, 240, (height // 20, width // 20, 3), dtype=np.uint8))
    smooth = np.array(coarse.resize(_SYNTHETIC_SIZE, Image.Resampling.BILINEAR))
    noise = generator.integers(0, 16, (200, 200, 3), dtype=np.uint8)
    smooth += np.tile(noise, (height // 200, width // 200, 1))  # small arrays: they count in the peak memory
    stream = io.BytesIO()
    Image.fromarray(smooth).save(stream, "JPEG", quality=90)
    return stream.getvalue()
