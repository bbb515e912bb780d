"""Finding close 64-bit hashes among many: multi-index hashing.

Two hashes that differ in at most `radius` bits agree, in at least one of their four 16-bit bands, up to a quarter of
that. So only hashes that share such a band are compared, and none is missed. Work goes block by block, so memory does
not grow with the number of pairs looked at.

Source: Norouzi, Punjani, Fleet (2012), "Fast search in Hamming space with multi-index hashing".
"""

from itertools import combinations

import numpy as np

BANDS, BAND_BITS = 4, 16
_BLOCK = 1 << 21  # pairs compared at once: 50 MB
CROWDED = 256  # hashes in a bucket; of a larger one each query sees this many, spread over it


def find_close(
    queries: np.ndarray, hashes: np.ndarray, radius: int, most: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of a query and a hash that differ in at most `radius` bits.

    Args:
        queries: uint64, [Q].
        hashes: uint64, [N].
        radius: bits, 0..15.
        most: give up after this many pairs; None = all of them.

    Returns:
        Index of the query, index of the hash (int64) and their distance in bits (int64), each [M], each pair once.
        Where more than `CROWDED` hashes share a band, some of their pairs may be missing.
    """
    if not len(queries) or not len(hashes):
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty
    found: list[np.ndarray] = []
    count = 0
    for band in range(BANDS):
        shift = np.uint64(band * BAND_BITS)
        keys = _band(hashes, shift)
        order = np.argsort(keys, kind="stable")
        sizes = np.bincount(keys, minlength=1 << BAND_BITS)
        starts = np.cumsum(sizes) - sizes
        for flips in _flips(radius // BANDS):
            wanted = _band(queries, shift) ^ flips
            for pairs in _close_in_buckets(queries, hashes, wanted, order, starts, sizes, radius):
                found.append(pairs)
                count += len(pairs)
                if most is not None and count > 4 * most:
                    return _unique(found, queries, hashes, most)
    return _unique(found, queries, hashes, most)


def _close_in_buckets(
    queries: np.ndarray,
    hashes: np.ndarray,
    wanted: np.ndarray,
    order: np.ndarray,
    starts: np.ndarray,
    sizes: np.ndarray,
    radius: int,
) -> list[np.ndarray]:
    """Compare every query with what lies in its bucket; gives int64 [M, 2] arrays of those that are close."""
    found = []
    taken = np.minimum(sizes[wanted], CROWDED)
    ends = np.cumsum(taken)
    first, last = 0, 0
    while first < len(queries):
        begun = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, begun + _BLOCK, side="right")))
        counts = taken[first:last]
        rows = np.repeat(np.arange(first, last), counts)
        inside = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        size, start = sizes[wanted[rows]], starts[wanted[rows]]
        crowded = size > CROWDED
        inside[crowded] = (rows[crowded] + inside[crowded] * (size[crowded] // CROWDED)) % size[crowded]
        others = order[start + inside]
        close = np.bitwise_count(queries[rows] ^ hashes[others]) <= radius
        found.append(np.stack([rows[close], others[close]], axis=1))
        first = last
    return found


def _unique(
    found: list[np.ndarray], queries: np.ndarray, hashes: np.ndarray, most: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pairs = np.concatenate(found)
    keys = np.unique(pairs[:, 0] * len(hashes) + pairs[:, 1])[:most]
    rows, others = keys // len(hashes), keys % len(hashes)
    return rows, others, np.bitwise_count(queries[rows] ^ hashes[others]).astype(np.int64)


def _band(hashes: np.ndarray, shift: np.uint64) -> np.ndarray:
    return ((hashes >> shift) & np.uint64((1 << BAND_BITS) - 1)).astype(np.int64)


def _flips(most: int) -> list[int]:
    """Every change of a band by at most `most` bits."""
    return [
        sum(1 << place for place in places)
        for count in range(most + 1)
        for places in combinations(range(BAND_BITS), count)
    ]
