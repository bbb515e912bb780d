"""Small pictures for the report: thumbnails with their masks and boxes, and what differs between two pictures."""

import base64
import io
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from edge.contract import InputContract
from edge.errors import ImageError
from edge.preprocess import prepare_file
from inspection.dataset.annotations import decode_mask
from inspection.dataset.registration import WHOLE, register

SIDE_PX = 220  # of a thumbnail's longer side
MARK = (213, 94, 0)  # vermilion; Source: Okabe and Ito (2008), "Color universal design"
_JPEG_QUALITY = 82
_MASK_STRENGTH = 0.45  # how much of the mark's colour covers the masked part
_LEAST_SIDE_PX = 8  # of a very long picture's shorter side


class Reader(Protocol):
    """What reads the file of an image or of its mask: a `Source`."""

    def read(self, uri: str) -> bytes:
        """The content of one file."""


def read_thumbnail(
    source: Reader, uri: str, size: tuple[int, int], white_level: int = 65535, side_px: int = SIDE_PX
) -> np.ndarray | None:
    """A picture of at most `side_px` on its longer side.

    Args:
        source: reads it.
        uri: of the image.
        size: width and height in px of the upright original.
        white_level: `[input] white_level`.
        side_px: of the longer side.

    Returns:
        uint8, shape (H, W, 3); None where it cannot be read or decoded, which a finding says.
    """
    width, height = fit(size, side_px)
    try:
        contract = InputContract(width=width, height=height, white_level=white_level)
        return prepare_file(source.read(uri), contract, uri).pixels[0]
    except (ImageError, OSError):
        return None


def fit(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    """Width and height of a thumbnail, in px; never larger than the original."""
    scale = min(1.0, side_px / max(size))
    return max(_LEAST_SIDE_PX, round(size[0] * scale)), max(_LEAST_SIDE_PX, round(size[1] * scale))


def read_mask(
    source: Reader, uri: str, size: tuple[int, int], colors: Sequence[tuple[str, str]] = ()
) -> np.ndarray | None:
    """Where a mask marks a defect.

    Args:
        source: reads it.
        uri: of the mask.
        size: width and height in px that it is wanted in.
        colors: those that count, as "#rrggbb" and defect type; empty = all but black.

    Returns:
        bool, shape (height, width); None where the mask cannot be read, which a finding says.
    """
    try:
        marked = decode_mask(source.read(uri), uri, [color for color, _ in colors])
    except (OSError, ImageError):
        return None
    # a thin scratch must not vanish in the thumbnail: any marked pixel marks its cell
    small = Image.fromarray(marked.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    return np.asarray(small) > 0


def mark_defects(
    pixels: np.ndarray,
    mask: np.ndarray | None,
    boxes: Sequence[tuple[float, float, float, float]],
    size: tuple[int, int],
) -> np.ndarray:
    """The picture with its mask tinted and its boxes drawn.

    Args:
        pixels: uint8 [H, W, 3].
        mask: bool [H, W], or None.
        boxes: left, top, width, height in px of the original.
        size: width and height in px of the original.
    """
    marked = pixels.astype(np.float32)
    if mask is not None and mask.shape == pixels.shape[:2]:
        marked[mask] += _MASK_STRENGTH * (np.array(MARK, dtype=np.float32) - marked[mask])
    picture = Image.fromarray(marked.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    across, down = pixels.shape[1] / size[0], pixels.shape[0] / size[1]
    for left, top, width, height in boxes:
        edges = (left * across, top * down, (left + max(0.0, width)) * across, (top + max(0.0, height)) * down)
        draw.rectangle(edges, outline=MARK, width=2)
    return np.asarray(picture)


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where two pictures differ when they are laid over each other, stretched so that the largest difference is white.

    Args:
        one: uint8 [H, W, 3].
        other: uint8 of any size.

    Returns:
        uint8 [H, W, 3]: black where they are alike.
    """
    height, width = one.shape[:2]
    match = register(_grey(one), _grey(other))
    left, top, across, down = match.region if match else WHOLE
    rows, columns = other.shape[:2]
    extent = (left * columns, top * rows, (left + across) * columns, (top + down) * rows)
    laid = np.asarray(
        Image.fromarray(other).transform((width, height), Image.Transform.EXTENT, extent, Image.Resampling.BICUBIC)
    )
    covered = np.asarray(  # what lies outside of the other picture cannot be compared
        Image.new("L", (columns, rows), 255).transform((width, height), Image.Transform.EXTENT, extent)
    )
    apart = np.abs(one.astype(np.float32) - laid.astype(np.float32)).mean(axis=2) * (covered == 255)
    stretched = apart * (255 / max(float(apart.max()), 32.0))  # the rounding of a JPEG stays nearly black
    return np.repeat(stretched.astype(np.uint8)[:, :, None], 3, axis=2)


def _grey(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("L")).astype(np.float32)


def to_data_uri(pixels: np.ndarray) -> str:
    """The picture as a JPEG inside an address, so that the page needs no other file."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
