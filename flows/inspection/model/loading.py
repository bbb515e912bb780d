"""Batches for training: read ahead by a thread, so that the device does not wait for the disk."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from inspection.model.classifier import Pixels

READ_AHEAD = 2  # batches


def load_batches(
    pixels: Pixels, batches: list[np.ndarray], device: torch.device
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Read batches in order; yields the indices and the images, float32 [N, H, W, 3] on the device, 0..255.

    Images travel to the device in 8 bits and become floats there.
    """

    def read(indices: np.ndarray) -> torch.Tensor:
        images = torch.from_numpy(np.ascontiguousarray(pixels[indices]))
        return images.pin_memory() if device.type == "cuda" else images

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as reader:
        ahead = [reader.submit(read, indices) for indices in batches[:READ_AHEAD]]
        for number, indices in enumerate(batches):
            images = ahead.pop(0).result()
            if number + READ_AHEAD < len(batches):
                ahead.append(reader.submit(read, batches[number + READ_AHEAD]))
            yield indices, images.to(device, non_blocking=True).float()


def shuffled_batches(count: int, size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """All indices below `count` in random order, cut into batches; a last batch of one joins its neighbour."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    batches = [order[start : start + size] for start in range(0, count, size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches
