"""Random changes of a batch on the device: each image gets its own."""

import math

import torch
import torch.nn.functional as F

from inspection.settings import AugmentationSettings


def augment(images: torch.Tensor, settings: AugmentationSettings, generator: torch.Generator) -> torch.Tensor:
    """Flip, rotate, scale, shift, brighten and roughen each image of a batch by its own random amounts.

    What leaves the picture is lost; what enters repeats the border. Which changes are harmless to the product is the
    line's choice (`[training.augmentation]`).

    Args:
        images: float [N, H, W, 3], 0..255.
        settings: the largest change of each kind; 0 or false switches it off.
        generator: on the images' device; the same state gives the same result.

    Returns:
        float [N, H, W, 3], 0..255.
    """
    images = _move(images, settings, generator)
    return _relight(images, settings, generator).clamp(0, 255)


def _move(images: torch.Tensor, settings: AugmentationSettings, generator: torch.Generator) -> torch.Tensor:
    """Flips, rotation, scale and shift as one bilinear resampling."""
    count, height, width, _ = images.shape

    def flips(wanted: bool) -> torch.Tensor:
        coins = torch.rand(count, generator=generator, device=images.device)
        return torch.where(coins < 0.5, -1.0, 1.0) if wanted else torch.ones_like(coins)

    angle = _uniform(count, math.radians(settings.rotation_deg), generator, images)
    size = torch.exp(_uniform(count, math.log1p(settings.scale), generator, images))
    shift_x = _uniform(count, 2 * settings.shift, generator, images)  # grid coordinates span -1..1
    shift_y = _uniform(count, 2 * settings.shift, generator, images)
    flip_x, flip_y = flips(settings.horizontal_flip), flips(settings.vertical_flip)
    if not (settings.rotation_deg or settings.scale or settings.shift):  # flips alone need no resampling
        images = torch.where(flip_x.view(-1, 1, 1, 1) < 0, images.flip(2), images)
        return torch.where(flip_y.view(-1, 1, 1, 1) < 0, images.flip(1), images)
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    aspect = height / width  # so that a rotation stays one when the picture is not square
    rows = [
        torch.stack([cos * flip_x, -sin * aspect * flip_y, shift_x], dim=1),
        torch.stack([sin / aspect * flip_x, cos * flip_y, shift_y], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), [count, 3, height, width], align_corners=False)
    moved = F.grid_sample(images.permute(0, 3, 1, 2), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return moved.permute(0, 2, 3, 1)


def _relight(images: torch.Tensor, settings: AugmentationSettings, generator: torch.Generator) -> torch.Tensor:
    """Brightness and contrast of each image, noise of each pixel."""
    count = len(images)
    gain = 1 + _uniform(count, settings.contrast, generator, images).view(-1, 1, 1, 1)
    lift = 255 * _uniform(count, settings.brightness, generator, images).view(-1, 1, 1, 1)
    centre = images.mean((1, 2, 3), keepdim=True)
    images = (images - centre) * gain + centre + lift
    if settings.noise:
        strength = settings.noise * torch.rand(count, generator=generator, device=images.device).view(-1, 1, 1, 1)
        grain = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        images = images + strength * grain
    return images


def _uniform(count: int, largest: float, generator: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    """Uniform in -largest..largest, float [count]."""
    return largest * (2 * torch.rand(count, generator=generator, device=like.device) - 1)
