"""Masks on their way from a source to the cache.

A mask is prepared exactly as its picture: cut, reduced and filtered the same way, so that it still lies over it. In the
cache it is one more picture under a digest of its own, 255 where everything below a pixel is defect, 0 where nothing
is. Only classification learns today; nothing of the masks is lost until something else does.
"""

import hashlib
import io
import itertools
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from edge.contract import InputContract
from edge.errors import ImageError
from edge.preprocess import prepare_file
from inspection.dataset.annotations import decode_mask
from inspection.dataset.cache import PixelCache, ShardBuffer, cache_prefix
from inspection.dataset.files import shown
from inspection.dataset.images import Source, SourceImage
from inspection.dataset.manifest import ImageRow
from inspection.dataset.parallel import available_cores, map_ahead
from inspection.storage import Storage

_log = logging.getLogger(__name__)

_ROWS = 64  # masks of a shard
Colors = Sequence[tuple[str, str]]  # "#rrggbb" and the defect type; empty = all but black


def digest_masks(images: Iterable[SourceImage], source: Source) -> dict[str, str]:
    """Sha256 (hex) by uri of the masks that can be read; the examination tells of the others."""
    uris = list(dict.fromkeys(image.mask for image in images if image.mask is not None))
    with ThreadPoolExecutor(available_cores()) as pool:
        found = map_ahead(pool, lambda uri: _digest(source, uri), uris, _ROWS)
        return {uri: digest for uri, digest in zip(uris, found, strict=True) if digest}


def mask_key(mask_sha256: str, colors: Colors) -> str:
    """The digest under which a mask lies in the cache: of its file and of the colours that count."""
    counting = ",".join(sorted({color.lower() for color, _ in colors}))
    return hashlib.sha256(f"mask\n{mask_sha256}\n{counting}".encode()).hexdigest()


def prepare_masks(
    rows: Sequence[ImageRow], source: Source, contract: InputContract, storage: Storage, cache: PixelCache
) -> int:
    """Bring the masks of these images into the cache; those that are there stay.

    A mask that cannot be read or that does not hold the region of interest is left out and logged.

    Returns:
        how many were added.
    """
    wanted = {
        mask_key(row.mask_sha256, row.mask_colors): row
        for row in rows
        if row.mask is not None and row.mask_sha256 is not None
    }
    missing = [wanted[key] for key in cache.missing(list(wanted))]
    added, refused = 0, []
    with ThreadPoolExecutor(available_cores()) as pool:
        prepared = map_ahead(pool, lambda row: _prepare(row, source, contract), missing, _ROWS)
        for start in range(0, len(missing), _ROWS):
            chunk = missing[start : start + _ROWS]
            buffer = ShardBuffer(len(chunk), contract)
            for row, pixels in zip(chunk, itertools.islice(prepared, len(chunk)), strict=True):
                assert row.mask is not None
                assert row.mask_sha256 is not None
                if pixels is None:
                    refused.append(row.mask)
                    continue
                buffer.add(mask_key(row.mask_sha256, row.mask_colors), pixels, row.width, row.height)
                added += 1
            buffer.store(storage, cache_prefix(contract))
    if refused:
        _log.warning("event=masks_not_prepared count=%d files=%s", len(refused), shown(sorted(refused)))
    if added:
        cache.refresh()
    return added


def read_masks(cache: PixelCache, rows: Sequence[ImageRow]) -> dict[str, np.ndarray]:
    """Prepared masks by the uri of their image; an image without one is not among them.

    Returns:
        uint8 [H, W], 0..255: the share of a pixel that is defect.
    """
    keys = {
        row.uri: mask_key(row.mask_sha256, row.mask_colors)
        for row in rows
        if row.mask is not None and row.mask_sha256 is not None
    }
    present = {uri: key for uri, key in keys.items() if key in cache.images}
    pixels = cache.read(list(present.values()))
    return {uri: mask[:, :, 0] for uri, mask in zip(present, pixels, strict=True)}


def box_mask(row: ImageRow, contract: InputContract) -> np.ndarray:
    """The boxes of an image as it is prepared.

    Returns:
        uint8 [H, W] of the model's input, 255 inside of a box.
    """
    painted = np.zeros((row.height, row.width), dtype=np.uint8)
    for left, top, width, height in row.boxes:
        rows = slice(max(0, round(top)), max(0, round(top + height)))
        painted[rows, max(0, round(left)) : max(0, round(left + width))] = 255
    return _as_input(painted, contract, row.uri)[0, :, :, 0]


def _digest(source: Source, uri: str) -> str:
    try:
        return hashlib.sha256(source.read(uri)).hexdigest()
    except OSError:
        return ""


def _prepare(row: ImageRow, source: Source, contract: InputContract) -> np.ndarray | None:
    """uint8 [1, H, W, 3]; None if the mask cannot be prepared."""
    assert row.mask is not None
    try:
        marked = decode_mask(source.read(row.mask), row.mask, [color for color, _ in row.mask_colors])
        return _as_input(marked.astype(np.uint8) * 255, contract, row.mask)
    except (OSError, ImageError):
        return None


def _as_input(painted: np.ndarray, contract: InputContract, where: str) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(painted).save(stream, "PNG", compress_level=1)
    return prepare_file(stream.getvalue(), contract, where).pixels
