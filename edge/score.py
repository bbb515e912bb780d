"""Scores a file of prepared pictures in a process of its own: `python -m edge.score`.

The train flow runs this with the device's packages, so that what is judged is what ships.
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edge.contract import InputContract
from edge.detector import Detector
from edge.errors import ContractError, EdgeError
from edge.memory import peak_rss_bytes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        score_file(
            options.model, options.pixels, options.out, options.types, options.threads, options.width, options.height
        )
    except (EdgeError, OSError) as error:
        print(f"edge.score: {error}", file=sys.stderr)
        return 1
    return 0


def score_file(
    model: Path,
    pixels: Path,
    out: Path,
    defect_types: tuple[str, ...] = (),
    threads: int = 1,
    width: int | None = None,
    height: int | None = None,
) -> None:
    """Score every picture of a .npy file, one at a time.

    Args:
        model: a .tflite file.
        pixels: .npy, uint8, shape (N, H, W, 3), RGB.
        out: .npz to write, whole or not at all: scores float64 (N,), type_logits float32 (N, T), latency_s float64
            (N,), and the scalars rss_bytes, runtime, kind, score_step.
        defect_types: names of the model's T type outputs.
        threads: CPU threads for one picture.
        width: px that the pictures must have; None = as they come.
        height: likewise.

    Raises:
        ContractError: the pictures or the model are of another type or shape.
        RuntimeMissingError: no TFLite runtime is installed.
    """
    with pixels.open("rb") as stream:
        count, size = _read_header(stream, pixels)
        want = height or size[0], width or size[1]
        if size != want:
            raise ContractError(f"{pixels}: want pictures of {want[1]}x{want[0]} px, found {size[1]}x{size[0]}")
        detector = Detector(model, InputContract(width=size[1], height=size[0]), defect_types, threads)
        scores = np.empty(count)
        type_logits = np.empty((count, len(defect_types)), np.float32)
        latency_s = np.empty(count)
        for index, picture in enumerate(_read_pictures(stream, count, size, pixels)):
            start = time.perf_counter()
            detection = detector.detect(picture)
            latency_s[index] = time.perf_counter() - start
            scores[index] = detection.score
            if detection.type_logits is not None:
                type_logits[index] = detection.type_logits
    partial = out.with_name(out.name + ".partial")
    with partial.open("wb") as target:
        np.savez(
            target,
            scores=scores,
            type_logits=type_logits,
            latency_s=latency_s,
            rss_bytes=np.int64(peak_rss_bytes()),
            runtime=np.str_(detector.runtime),
            kind=np.str_(detector.kind),
            score_step=np.float64(detector.score_step),
        )
    partial.replace(out)


def _read_header(stream: io.BufferedReader, name: Path) -> tuple[int, tuple[int, int]]:
    """Number of pictures and their (height, width); leaves the stream at the first picture."""
    try:
        version = np.lib.format.read_magic(stream)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = reader(stream)
    except (ValueError, KeyError) as error:
        raise ContractError(f"{name}: not a .npy file that this program reads: {error}") from error
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or fortran_order:
        raise ContractError(f"{name}: want uint8 in C order of shape (N, H, W, 3), found {dtype} {shape}")
    return shape[0], (shape[1], shape[2])


def _read_pictures(stream: io.BufferedReader, count: int, size: tuple[int, int], name: Path) -> Iterator[np.ndarray]:
    """Each picture, uint8 (1, H, W, 3), always in the same memory.

    Read and not memory-mapped: pages of a map would count as memory of the model.
    """
    picture = np.empty((1, *size, 3), np.uint8)
    for index in range(count):
        if stream.readinto(picture.data) != picture.nbytes:
            raise ContractError(f"{name}: want {count} pictures, the file ends within number {index + 1}")
        yield picture


def _names(text: str) -> tuple[str, ...]:
    """Names joined by commas, or a JSON list, which may hold names with commas."""
    names = json.loads(text) if text.startswith("[") else text.split(",")
    return tuple(str(name) for name in names if name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge.score", description="Score a file of prepared pictures.")
    parser.add_argument("--model", type=Path, required=True, help="model.tflite")
    parser.add_argument("--pixels", type=Path, required=True, help=".npy, uint8, shape (N, H, W, 3)")
    parser.add_argument("--out", type=Path, required=True, help=".npz to write")
    parser.add_argument("--types", type=_names, default=(), help="names of the defect types: a,b or a JSON list")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for one picture")
    parser.add_argument("--width", type=int, help="px that the pictures must have")
    parser.add_argument("--height", type=int, help="px that the pictures must have")
    return parser


if __name__ == "__main__":
    sys.exit(main())
