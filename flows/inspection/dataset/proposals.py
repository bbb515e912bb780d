"""Which images might show the same capture: proposals from small grey pictures, for pixels to confirm.

Whole pictures. Parts in a fixture all look alike, so a hash of the picture itself would propose every pair. The hash
here is relative to the set: what is common to all pictures is taken away, the directions in which they differ are made
more equally wide, and 64 random directions in that space give a bit each. Pictures of different parts then differ in
about half of the bits, however alike they look, and a copy keeps nearly all.

Crops. A picture is compared with 139 regions of every other by its lowest frequencies. It may be a crop if it is
clearly more like a region than like any whole picture of the set.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inspection.dataset.hash_index import find_close
from inspection.dataset.image_facts import THUMBNAIL_PX
from inspection.dataset.registration import WHOLE, Region

RADII = ((4_000, 15), (30_000, 11), (math.inf, 7))  # images, bits of 64: the larger the set, the closer a copy must be
_LEAST_SPREAD = 6.0  # grey levels in a frequency: several times what strong compression changes there
_EVENNESS = 0.5  # 1 would make all directions equally wide, and the narrow ones, where copies differ, as loud as others
_SAMPLE = 20_000  # pictures from which the directions are learnt
_PER_IMAGE = 4  # proposals for each image, the nearest

_CROP_SIZES = (1.0, 0.9, 0.8, 0.7, 0.6)  # of each side
_CROP_PLACES = 3  # along each side
_CROP_STRETCH = 1.35  # of the sides of a region, relative to the picture's
_CROP_LIKENESS = 0.75  # correlation of a crop with the nearest region, at least
_CROP_GAIN = 0.03  # by which it must be above that with the nearest whole picture
_ASPECT_TOLERANCE = 0.08  # relative: pictures are not stretched when they are cropped
_BLOCK = 512  # pictures whose regions are compared at once
_FREQUENCIES = 8


@dataclass(frozen=True)
class Proposal:
    """Two images that may show the same capture."""

    one: int  # index of the image that may be the copy
    other: int  # index of the image that it may be a copy of
    region: Region  # of the other image, roughly


def propose_copies(thumbnails: np.ndarray, hashes: np.ndarray) -> list[Proposal]:
    """Pairs of whole pictures that may be copies, the likeliest first.

    Args:
        thumbnails: uint8, [N, 32, 32].
        hashes: of `relative_hashes`, [N].
    """
    one, other, bits = find_close(hashes, hashes, radius_for(len(hashes)))
    ahead = one < other
    one, other, bits = one[ahead], other[ahead], bits[ahead]
    distance = np.concatenate(
        [np.zeros(0), *(thumbnail_distance(thumbnails[one[p]], thumbnails[other[p]]) for p in _parts(len(one)))]
    )
    taken = np.zeros(len(thumbnails), dtype=np.int64)
    proposals = []
    for index in np.lexsort((distance, bits)):
        first, second = int(one[index]), int(other[index])
        if min(taken[first], taken[second]) < _PER_IMAGE:
            taken[first] += 1
            taken[second] += 1
            proposals.append(Proposal(first, second, WHOLE))
    return proposals


def radius_for(count: int) -> int:
    """Bits that a copy may change in a set of so many images."""
    return next(radius for most, radius in RADII if count <= most)


def propose_crops(
    thumbnails: np.ndarray, aspect_ratios: np.ndarray, queries: Sequence[int], usual: np.ndarray
) -> list[Proposal]:
    """The likeliest original of each image that looks like a crop.

    Where parts lie in a fixture many originals look alike; this gives one of them, with the right region.

    Args:
        thumbnails: uint8, [N, 32, 32].
        aspect_ratios: width by height, [N].
        queries: indices of the images that may be crops.
        usual: which images have the set's usual size, bool [N]: an image of another size is compared with these only,
            since other crops look like it.
    """
    if len(thumbnails) < 2 or not len(queries):
        return []
    regions, maps_y, maps_x = _regions(_ASPECT_TOLERANCE + float(np.ptp(np.log(aspect_ratios))))
    stretch = np.log([region[2] / region[3] for region in regions]).astype(np.float32)
    aspects = np.log(aspect_ratios).astype(np.float32)
    asked = np.array(queries, dtype=np.int64)
    own = _describe(thumbnails[asked], maps_y[:1], maps_x[:1])[:, 0]
    likeness = np.full(len(asked), -1.0, dtype=np.float32)
    whole = likeness.copy()
    original, kind = np.zeros_like(asked), np.zeros_like(asked)
    for part in _parts(len(thumbnails), _BLOCK):
        views = _describe(thumbnails[part], maps_y, maps_x)
        places = np.arange(part.start, part.start + len(views))
        for rows in _parts(len(asked), _BLOCK):
            alike = np.einsum("qd,nrd->qnr", own[rows], views, optimize=True)
            alike[asked[rows, None] == places] = -1
            alike[~(usual[asked[rows], None] | usual[places][None, :])] = -1
            whole[rows] = np.maximum(whole[rows], alike[:, :, 0].max(axis=1))
            stretched = aspects[places] - aspects[asked[rows], None]
            if stretched.any():  # where all pictures have one aspect ratio, the regions have it too
                alike[np.abs(stretched[:, :, None] + stretch) > _ASPECT_TOLERANCE] = -1
            flat = alike.reshape(len(alike), -1)
            best = flat.argmax(axis=1)
            value = flat[np.arange(len(flat)), best]
            better = np.flatnonzero(value > likeness[rows])
            likeness[rows][better] = value[better]
            original[rows][better] = places[best[better] // len(regions)]
            kind[rows][better] = best[better] % len(regions)
    found = np.flatnonzero((kind > 0) & (likeness > _CROP_LIKENESS) & (likeness > whole + _CROP_GAIN))
    return [Proposal(int(asked[row]), int(original[row]), regions[int(kind[row])]) for row in found]


def relative_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each picture, relative to what the pictures have in common.

    Args:
        thumbnails: uint8, [N, 32, 32].

    Returns:
        uint64, [N].
    """
    transform = _cosines(THUMBNAIL_PX)
    frequencies = np.concatenate(
        [
            (transform @ thumbnails[part].astype(np.float32) @ transform.T).reshape(-1, _FREQUENCIES**2)
            for part in _parts(len(thumbnails))
        ]
    )
    if len(frequencies) < 2:
        return np.zeros(len(frequencies), dtype=np.uint64)
    some = frequencies[:: math.ceil(len(frequencies) / _SAMPLE)]
    middle = np.median(some, axis=0)
    values, vectors = np.linalg.eigh(np.cov((some - middle).T.astype(np.float64)))
    spread = np.sqrt(np.maximum(values, 0))
    wide = spread > _LEAST_SPREAD
    if not wide.any():
        return np.zeros(len(thumbnails), dtype=np.uint64)
    whiten = vectors[:, wide] / spread[wide] ** _EVENNESS
    directions = np.random.default_rng(0).normal(size=(whiten.shape[1], 64))
    return _pack((frequencies - middle) @ (whiten @ directions) > 0)


def thumbnail_distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Root mean square difference of small pictures, grey levels, [M]; uint8 [M, 32, 32] each."""
    difference = one.astype(np.float32) - other
    return np.sqrt((difference**2).mean(axis=(1, 2)))


def _regions(stretch: float) -> tuple[list[Region], np.ndarray, np.ndarray]:
    """Regions of a picture and the maps that give their lowest frequencies; the whole comes first.

    Args:
        stretch: by which the logarithm of a region's aspect ratio may differ from the picture's.

    Returns:
        the regions, and for each the map of rows and that of columns, float32 [R, 8, 32].
    """
    spans = [(0.0, 1.0)] + [
        (start * (1 - size) / (_CROP_PLACES - 1), size) for size in _CROP_SIZES[1:] for start in range(_CROP_PLACES)
    ]
    most = min(stretch, math.log(_CROP_STRETCH))
    pairs = [(y, x) for y in spans for x in spans if abs(math.log(x[1] / y[1])) <= most]
    maps = {span: _cosines(2 * _FREQUENCIES) @ _resampling(*span) for span in spans}
    regions = [(x[0], y[0], x[1], y[1]) for y, x in pairs]
    return regions, np.stack([maps[y] for y, _ in pairs]), np.stack([maps[x] for _, x in pairs])


def _describe(thumbnails: np.ndarray, maps_y: np.ndarray, maps_x: np.ndarray) -> np.ndarray:
    """The lowest frequencies of every region without the mean grey, at length 1; float32 [N, R, 63]."""
    rows = np.einsum("rij,njk->nrik", maps_y, thumbnails.astype(np.float32), optimize=True)
    frequencies = np.matmul(rows, maps_x.transpose(0, 2, 1)).reshape(len(thumbnails), len(maps_y), -1)[:, :, 1:]
    return np.asarray(frequencies / np.maximum(np.linalg.norm(frequencies, axis=2, keepdims=True), 1e-6))


def _resampling(start: float, size: float) -> np.ndarray:
    """Map of a thumbnail's rows to 16 cells of a part of it, by area; float32 [16, 32]."""
    cells = 2 * _FREQUENCIES
    edges = (start + size * np.arange(cells + 1) / cells) * THUMBNAIL_PX
    pixels = np.arange(THUMBNAIL_PX)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    overlap = np.maximum(overlap, 0)
    return np.asarray(overlap / overlap.sum(axis=1, keepdims=True), dtype=np.float32)


def _cosines(size: int) -> np.ndarray:
    """The lowest frequencies of an orthonormal cosine transform (DCT-II); float32 [8, size]."""
    frequency, place = np.arange(_FREQUENCIES)[:, None], np.arange(size)[None, :]
    waves = np.cos(np.pi * (2 * place + 1) * frequency / (2 * size)) * np.sqrt(2 / size)
    waves[0] /= np.sqrt(2)
    return waves.astype(np.float32)


def _pack(bits: np.ndarray) -> np.ndarray:
    """64 bits to a number; bool [N, 64] to uint64 [N]."""
    return np.packbits(bits, axis=1, bitorder="little").view("<u8").astype(np.uint64).ravel()


def _parts(count: int, size: int = 1 << 15) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]
