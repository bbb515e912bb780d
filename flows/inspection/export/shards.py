"""Pictures on their way to the device's process: through files of bounded size, one after the other."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from inspection.errors import ConversionError
from inspection.export.child import no_room

SHARD_BYTES = 256 * 2**20  # of pictures in a temporary file at once


class Pictures(Protocol):
    """Pictures to go over one by one: an array, a memory map, or something that makes them meanwhile."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, H, W, 3]."""

    def __len__(self) -> int:
        """How many pictures."""

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each picture, uint8 [H, W, 3]."""


def write_shards(pixels: Pictures, path: Path) -> Iterator[int]:
    """Write pictures to a .npy file of at most `SHARD_BYTES`, then the next ones in its place; yields their number.

    Raises:
        ConversionError: the pictures are of another type.
        StorageError: there is no room for the file.
    """
    pictures, size = iter(pixels), math.prod(pixels.shape[1:])
    most = max(1, SHARD_BYTES // size)
    for start in range(0, len(pixels), most):
        count = min(most, len(pixels) - start)
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *pixels.shape[1:])}
        with path.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for picture in itertools.islice(pictures, count):
                if picture.dtype != np.uint8:
                    raise ConversionError(f"pictures to score: want uint8, found {picture.dtype}")
                try:
                    stream.write(np.ascontiguousarray(picture).data)
                except OSError as error:
                    raise no_room(path, count * size, error) from error
        yield count
