"""Read what a device measured: the lines of JSON that `python -m edge --benchmark --json` prints.

A useful file holds one line for the int8 and one for the float32 model of the same input size, appended one after the
other on the same device:

    python -m edge --model model-int8.tflite --benchmark --json >> benchmark.json
    python -m edge --model model-float32.tflite --benchmark --json >> benchmark.json
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.contract import InputContract
from inspection.errors import SettingsError

KINDS = ("int8", "float32")
SCHEMA_MAJOR = "1"


@dataclass(frozen=True)
class DeviceBenchmark:
    """Inference of one model on a device."""

    kind: str
    machine: str
    runtime: str
    p50_ms: float
    p99_ms: float
    rss_bytes: int


def read_benchmarks(path: Path, input: InputContract) -> dict[str, DeviceBenchmark]:
    """Both kinds' benchmarks, by kind; of several of one kind the last counts.

    Args:
        path: a JSON list of benchmarks, or one benchmark per line.
        input: the size that they must have been measured at.

    Raises:
        SettingsError: unreadable, of another version or size, from two machines, or one kind is missing.
    """
    found: dict[str, DeviceBenchmark] = {}
    for entry in _entries(path):
        benchmark = _read(entry, path, input)
        found[benchmark.kind] = benchmark
    missing = [kind for kind in KINDS if kind not in found]
    if missing:
        raise SettingsError(
            f"{path}: want a benchmark of each of {', '.join(KINDS)}, found none of {', '.join(missing)}; run "
            "`python -m edge --model MODEL --benchmark --json` on the device for both and append what it prints"
        )
    machines = {(benchmark.machine, benchmark.runtime) for benchmark in found.values()}
    if len(machines) > 1:
        raise SettingsError(f"{path}: want both benchmarks from one device and runtime, found {sorted(machines)}")
    return found


def _entries(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"[export] device_benchmark: cannot read {path} ({error})") from error
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if document is not None:
        return document if isinstance(document, list) else [document]
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise SettingsError(f"{path}: want JSON, one benchmark per line, found something else: {error}") from None


def _read(entry: Any, path: Path, input: InputContract) -> DeviceBenchmark:
    try:
        if entry["schema"].split(".")[0] != SCHEMA_MAJOR:
            raise SettingsError(f"{path}: schema: want {SCHEMA_MAJOR}.x, found {entry['schema']!r}")
        size = int(entry["width"]), int(entry["height"])
        detect = entry["stages"]["detect"]
        benchmark = DeviceBenchmark(
            kind=str(entry["kind"]),
            machine=str(entry["machine"]),
            runtime=str(entry["runtime"]),
            p50_ms=float(detect["p50_ms"]),
            p99_ms=float(detect["p99_ms"]),
            rss_bytes=int(entry["rss_bytes"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SettingsError(
            f"{path}: want the JSON of `python -m edge --benchmark --json`, found an entry without a readable "
            f"{error}; run it again"
        ) from None
    if size != (input.width, input.height):
        raise SettingsError(
            f"{path}: want a benchmark at {input.width}x{input.height} px, found {size[0]}x{size[1]}; measure again at "
            "this line's input size"
        )
    return benchmark
