"""Finding close 64-bit hashes among many: multi-index hashing.

Two hashes that differ in at most `radius` bits agree, in at least one of their four 16-bit bands, up to a quarter of
that. So only hashes that share such a band are compared, and none is missed. Work goes block by block, so memory does
not grow with the number of pairs looked at.

Source: Norouzi, Punjani, Fleet (2012), "Fast search in Hamming space with multi-index hashing".
"""

from itertools import combinations

import numpy as np

BANDS, BAND_BITS = 4, 16
_BLOCK = 1 << 20  # pairs compared at once: 50 MB
_PAIRS_PER_BAND = 4_000_000  # about; queries share them
_LEAST_SEEN = 32  # hashes of a bucket that every query sees, however many queries there are


def find_close(queries: np.ndarray, hashes: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of a query and a hash that differ in at most `radius` bits.

    Args:
        queries: uint64, [Q].
        hashes: uint64, [N].
        radius: bits, 0..15.

    Returns:
        Index of the query, index of the hash (int64) and their distance in bits (int64), each [M], each pair once.
        Where very many hashes share a band, as those of a thousand equal pictures do, each query sees only some of
        them, spread over the bucket, so that neither time nor memory explode.
    """
    if not len(queries) or not len(hashes):
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty
    if len(queries) * len(hashes) <= _PAIRS_PER_BAND // 8:  # so few are all compared
        bits = np.bitwise_count(queries[:, None] ^ hashes)
        query, other = np.nonzero(bits <= radius)
        return query, other, bits[query, other].astype(np.int64)
    found: list[np.ndarray] = []
    seen = max(_LEAST_SEEN, _PAIRS_PER_BAND // len(queries))
    for band in range(BANDS):
        shift = np.uint64(band * BAND_BITS)
        keys = _band(hashes, shift)
        order = np.argsort(keys, kind="stable")
        sizes = np.bincount(keys, minlength=1 << BAND_BITS)
        starts = np.cumsum(sizes) - sizes
        for flips in _flips(radius // BANDS):
            wanted = _band(queries, shift) ^ flips
            found += _close_in_buckets(queries, hashes, wanted, (order, starts, sizes), radius, seen)
    pairs = np.unique(np.concatenate(found))
    rows, others = pairs // len(hashes), pairs % len(hashes)
    return rows, others, np.bitwise_count(queries[rows] ^ hashes[others]).astype(np.int64)


def _close_in_buckets(
    queries: np.ndarray,
    hashes: np.ndarray,
    wanted: np.ndarray,
    buckets: tuple[np.ndarray, np.ndarray, np.ndarray],
    radius: int,
    seen: int,
) -> list[np.ndarray]:
    """Compare every query with what lies in its bucket.

    Args:
        queries: uint64, [Q].
        hashes: uint64, [N].
        wanted: bucket of each query, [Q].
        buckets: indices of the hashes in the order of their buckets, and where each bucket begins and how large it is.
        radius: bits.
        seen: hashes of a bucket that a query is compared with, at most.

    Returns:
        arrays of query * N + hash, of those that are close.
    """
    order, starts, sizes = buckets
    found = []
    taken = np.minimum(sizes[wanted], seen)
    ends = np.cumsum(taken)
    first = 0
    while first < len(queries):
        begun = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, begun + _BLOCK, side="right")))
        counts = taken[first:last]
        rows = np.repeat(np.arange(first, last), counts)
        inside = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        size = sizes[wanted[rows]]
        crowded = size > seen
        inside[crowded] = (rows[crowded] + inside[crowded] * (size[crowded] // seen)) % size[crowded]
        others = order[starts[wanted[rows]] + inside]
        close = np.bitwise_count(queries[rows] ^ hashes[others]) <= radius
        found.append(rows[close] * len(hashes) + others[close])
        first = last
    return found


def _band(hashes: np.ndarray, shift: np.uint64) -> np.ndarray:
    return ((hashes >> shift) & np.uint64((1 << BAND_BITS) - 1)).astype(np.int64)


def _flips(most: int) -> list[int]:
    """Every change of a band by at most `most` bits."""
    return [
        sum(1 << place for place in places)
        for count in range(most + 1)
        for places in combinations(range(BAND_BITS), count)
    ]
