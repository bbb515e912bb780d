"""Pooled features of a set of images, and the statistics that go with them."""

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from inspection.model.allocator import keep_freed_memory
from inspection.model.augmentation import augment
from inspection.model.classifier import Classifier, Pixels, batches_of
from inspection.model.places import Moments, Places
from inspection.settings import AugmentationSettings

log = logging.getLogger(__name__)

MAX_ROWS = 20_000  # of features held in memory: 320 MB at 4,000 features
STATISTICS_IMAGES = 256  # enough for the mean and variance of a channel over all positions


@torch.inference_mode()
def pooled_features(
    model: Classifier,
    pixels: Pixels,
    batch: int,
    augmentation: AugmentationSettings | None = None,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Run a frozen backbone over images.

    Args:
        model: its `pool` is used; left in eval mode.
        pixels: uint8 [N, H, W, 3].
        batch: images held as floats at once.
        augmentation: change each image at random first; None = as they are.
        seed: of the changes.
        advance: called with the number of images done since the last call.

    Returns:
        float32 [N, F], in the order of `Classifier.pool`.
    """
    model.eval()
    keep_freed_memory()
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    parts = []
    for rows in batches_of(np.arange(len(pixels)), batch):
        images = torch.from_numpy(np.ascontiguousarray(pixels[rows])).to(device).float()
        if augmentation is not None:
            images = augment(images, augmentation, generator)
        parts.append(torch.cat(model.pool(images), dim=1).flatten(1).cpu().numpy())
        if advance:
            advance(len(rows))
    return np.concatenate(parts)


@torch.no_grad()
def estimate_batch_norm(model: Classifier, pixels: Pixels, batch: int, seed: int) -> None:
    """Set the statistics of every batch norm from images, as random weights need: theirs say nothing yet.

    One forward pass over at most `STATISTICS_IMAGES` images; each layer sees inputs that the layers before it have
    already normalised, batch by batch.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    started = time.monotonic()
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()
    device = next(model.parameters()).device
    rows = np.random.default_rng(seed).permutation(len(pixels))[:STATISTICS_IMAGES]
    for some in batches_of(np.sort(rows), max(batch, 8)):
        model.pool(torch.from_numpy(np.ascontiguousarray(pixels[some])).to(device).float())
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    log.info("event=batch_norm_estimated images=%d seconds=%.1f", len(rows), time.monotonic() - started)


@torch.no_grad()
def learn_places(model: Classifier, pixels: Pixels, batch: int) -> None:
    """Learn from good parts what is normal at each place; pixels: uint8 [N, H, W, 3]."""
    model.eval()
    device = next(model.parameters()).device
    moments = {tap: Moments() for tap in model.design.place_taps}
    for rows in batches_of(np.arange(len(pixels)), batch):
        for tap, map_ in model.maps(torch.from_numpy(np.ascontiguousarray(pixels[rows])).to(device).float()):
            place = model.places[str(tap)] if tap in moments else None
            if isinstance(place, Places):
                moments[tap].add(place.shrink(map_))
    for tap, found in moments.items():
        place = model.places[str(tap)]
        assert isinstance(place, Places)
        place.set_statistics(found.mean, found.variance)


def standardisation(features: np.ndarray, widths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of each feature.

    A pooled tensor is 8-bit on the device, with one step for all its channels. A channel that varies by less than
    that step cannot be seen there, so its spread is taken to be at least one step: it is not blown up in training
    either.

    Args:
        features: float32 [N, F].
        widths: channels of each pooled tensor; they sum to F.

    Returns:
        mean and spread, float64 [F] each.
    """
    mean, std = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    start = 0
    for width in widths:
        part = slice(start, start := start + width)
        low, high = min(float(features[:, part].min()), 0.0), max(float(features[:, part].max()), 0.0)
        step = (high - low) / 255
        std[part] = np.maximum(std[part], step if step > 0 else 1.0)
    return mean, std
