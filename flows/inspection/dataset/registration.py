"""Laying one picture over another: which part of it shows the same, and how much is left when it is taken away.

The map is a scale and a shift in each direction: what re-encoding, resizing and cropping do. It is found from coarse to
fine by Gauss-Newton steps on the difference of the grey levels.

Source: Lucas and Kanade (1981), "An iterative image registration technique with an application to stereo vision".
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import affine_transform, gaussian_filter, uniform_filter

COARSEST_PX = 40  # longer side at which the search begins
BLUR_PX = 1.0  # of both pictures before they are compared: evens out what encoders and filters do to single pixels
BLOCK_PX = 9  # side of the patches whose differences are looked at one by one
MARGIN_PX = 3  # at the edge, where filters see beyond the picture
_STEPS, _FINE_STEPS = 12, 4  # per level, at most; of pictures above `_FINE_PX`
_FINE_PX = 200
HOPELESS = 6.0  # grey levels that remain on a level of this size or a finer one: no need to look closer
_JUDGED_PX = 80
_SMALL_STEP_PX = 0.01  # a step that moves no corner by more ends a level
_LARGEST_STEP_PX = 4.0
_LEAST_PX = 16  # side of an overlap that can be compared

Region = tuple[float, float, float, float]  # left, top, width, height, as shares of a picture
WHOLE: Region = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Match:
    """One picture laid over a region of another."""

    region: Region  # of the other picture
    residual: float  # root mean square difference, grey levels of 255
    worst: float  # that of the patch that differs most, grey levels
    typical: float  # that of the patch in the middle of all patches, each relative to what its own edges explain
    oddest: float  # that of the patch that differs most relative to its own edges


def register(picture: np.ndarray, other: np.ndarray, start: Region = WHOLE, hopeless: float = HOPELESS) -> Match | None:
    """Find the region of `other` that looks like the whole of `picture`, and compare the two.

    Args:
        picture: grey levels, float32 [H, W].
        other: likewise, of any size.
        start: where the region is, roughly.
        hopeless: residual in grey levels from which on the search ends: halving evens differences out, so a finer
            level leaves no less.

    Returns:
        None if the search leaves `other` or there is too little to compare.
    """
    picture, other = _same_scale(picture, other, start)
    height, width = picture.shape
    if min(height, width, *other.shape) < _LEAST_PX:
        return None
    # x' = scale * x + shift, in pixels of these two pictures; in this order: x scale, x shift, y scale, y shift
    place = np.array([start[2] * other.shape[1] / width, 0.0, start[3] * other.shape[0] / height, 0.0])
    place[1] = start[0] * other.shape[1] + (place[0] - 1) / 2
    place[3] = start[1] * other.shape[0] + (place[2] - 1) / 2
    levels = _pyramid(picture), _pyramid(other)
    for level in reversed(range(min(len(levels[0]), len(levels[1])))):
        found = _refine(levels[0][level], levels[1][level], place, 2**level)
        if found is None:
            return None
        place, left = found
        if left > hopeless and max(levels[0][level].shape) >= _JUDGED_PX:
            return Match(_region(place, picture.shape, other.shape), left, left, left, math.inf)
    return _compare(picture, other, place)


def _same_scale(picture: np.ndarray, other: np.ndarray, start: Region) -> tuple[np.ndarray, np.ndarray]:
    """Shrink the finer of the two, so that a pixel of both shows the same width of the part."""
    ratio = (picture.shape[1] / (start[2] * other.shape[1]) * picture.shape[0] / (start[3] * other.shape[0])) ** 0.5
    if ratio > 1:
        return _shrink(picture, 1 / ratio), other
    return picture, _shrink(other, ratio)


def _shrink(picture: np.ndarray, factor: float) -> np.ndarray:
    size = max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor))
    if size == picture.shape[::-1]:
        return picture
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def _pyramid(picture: np.ndarray) -> list[np.ndarray]:
    """The picture blurred, and halved again and again."""
    levels = [gaussian_filter(picture, BLUR_PX)]
    while max(levels[-1].shape) > COARSEST_PX and min(levels[-1].shape) >= _LEAST_PX // 2:
        height, width = levels[-1].shape
        even = levels[-1][: height // 2 * 2, : width // 2 * 2]
        halved = even.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
        levels.append(halved)
    return levels


def _refine(picture: np.ndarray, other: np.ndarray, place: np.ndarray, factor: int) -> tuple[np.ndarray, float] | None:
    """Gauss-Newton steps on one level.

    Args:
        picture: of this level.
        other: likewise.
        place: scale and shift in pixels of the finest level.
        factor: by which this level is coarser than the finest.

    Returns:
        the better place and the root mean square difference before the last step; None if the search leaves `other`.
    """
    centre = (factor - 1) / 2  # pixel centres: x_fine = factor * x + (factor - 1) / 2
    local = place.copy()
    local[[1, 3]] = (place[[1, 3]] + place[[0, 2]] * centre - centre) / factor
    height, width = picture.shape
    half = max(height, width) / 2
    # derivatives by the scales are taken about the middle, so that the four are nearly independent
    across = ((np.arange(width) - half) / half).astype(np.float32)[None, :]
    down = ((np.arange(height) - half) / half).astype(np.float32)[:, None]
    left = math.inf
    for _ in range(_FINE_STEPS if max(height, width) > _FINE_PX else _STEPS):
        warped = _warp(other, local, picture.shape)
        inside = _inside(other.shape, local, picture.shape)
        inside[[0, -1]] = inside[:, [0, -1]] = False
        count = int(inside.sum())
        if count < 0.5 * inside.size:
            return None
        grad_x, grad_y = np.zeros_like(warped), np.zeros_like(warped)
        grad_x[:, 1:-1] = (warped[:, 2:] - warped[:, :-2]) / 2
        grad_y[1:-1] = (warped[2:] - warped[:-2]) / 2
        grad_x *= inside
        grad_y *= inside
        slopes = np.stack([grad_x * across, grad_x, grad_y * down, grad_y]).reshape(4, -1)
        difference = ((picture - warped) * inside).ravel()
        left = math.sqrt(float(difference @ difference) / count)
        normal = (slopes @ slopes.T).astype(np.float64)
        normal[np.diag_indices(4)] += 1e-3 * max(1e-6, float(np.trace(normal))) / 4
        step = np.linalg.solve(normal, (slopes @ difference).astype(np.float64))
        step *= min(1.0, _LARGEST_STEP_PX / max(1e-9, float(np.abs(step).max())))
        # the slopes are those of the warped picture, in its own pixels
        moved = np.array([step[0] / half, step[1] - step[0], step[2] / half, step[3] - step[2]])
        local = local + moved * np.array([local[0], local[0], local[2], local[2]])
        if np.abs(step).max() < _SMALL_STEP_PX:
            break
    result = local.copy()
    result[[1, 3]] = factor * local[[1, 3]] + centre - local[[0, 2]] * centre
    return result, left


def _warp(other: np.ndarray, place: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(
        affine_transform(
            other,
            np.array([place[2], place[0]]),
            offset=(place[3], place[1]),
            output_shape=shape,
            order=1,
            mode="nearest",
        )
    )


def _inside(size: tuple[int, ...], place: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which pixels of the picture lie on the other one; bool [H, W]."""
    xs = place[0] * np.arange(shape[1]) + place[1]
    ys = place[2] * np.arange(shape[0]) + place[3]
    return np.outer((ys >= 0) & (ys <= size[0] - 1), (xs >= 0) & (xs <= size[1] - 1))


def _compare(picture: np.ndarray, other: np.ndarray, place: np.ndarray) -> Match | None:
    height, width = picture.shape
    one = gaussian_filter(picture, BLUR_PX)
    # interpolated on the sharp picture, by a cubic: a line interpolated on a blurred one would add blur of its own
    two = gaussian_filter(
        affine_transform(
            other,
            np.array([place[2], place[0]]),
            offset=(place[3], place[1]),
            output_shape=(height, width),
            order=3,
            mode="nearest",
        ),
        BLUR_PX,
    )
    inside = _inside(other.shape, place, (height, width))
    inside[:MARGIN_PX] = inside[-MARGIN_PX:] = False
    inside[:, :MARGIN_PX] = inside[:, -MARGIN_PX:] = False
    if inside.sum() < max(_LEAST_PX**2, 0.5 * inside.size):
        return None
    squared = np.where(inside, (one - two) ** 2, 0.0)
    share = uniform_filter(inside.astype(np.float32), BLOCK_PX, mode="constant")
    block = np.sqrt(np.maximum(uniform_filter(squared, BLOCK_PX, mode="constant"), 0) / np.maximum(share, 1e-6))
    edges = np.minimum(_edges(one), _edges(two))  # of the one with fewer: a scratch is no excuse for itself
    counted = inside & (share > 0.5)
    relative = block[counted] / (1.0 + 0.25 * edges[counted])
    return Match(
        region=_region(place, picture.shape, other.shape),
        residual=float(np.sqrt(squared[inside].mean())),
        worst=float(block[counted].max()),
        typical=float(np.median(relative)),
        oddest=float(relative.max()),
    )


def _region(place: np.ndarray, size: tuple[int, ...], other: tuple[int, ...]) -> Region:
    """What a place covers, as shares of the other picture."""
    left = (place[1] - (place[0] - 1) / 2) / other[1]
    top = (place[3] - (place[2] - 1) / 2) / other[0]
    return float(left), float(top), float(place[0] * size[1] / other[1]), float(place[2] * size[0] / other[0])


def _edges(picture: np.ndarray) -> np.ndarray:
    """Root mean square gradient around each pixel."""
    grad_y, grad_x = np.gradient(picture)
    return np.sqrt(np.maximum(uniform_filter(grad_x**2 + grad_y**2, BLOCK_PX), 0))  # its running sum may end below 0
