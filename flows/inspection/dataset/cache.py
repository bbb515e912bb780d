"""The pixel cache: every image as the model's input, in shards that are memory-mapped.

    cache/<digest>/<sha256 of the shard>.npy    uint8 [N, H, W, 3], never changed
    cache/<digest>/<sha256 of the shard>.json   which image each row holds, written after the shard

The digest names the input contract and the version of preprocessing. A shard counts when its index is there and its
size is right, so a crash leaves nothing that can be taken for pixels, and two flows that write the same shard at once
write the same bytes. Rows are checked against their crc32 when they are read.
"""

import hashlib
import json
import logging
import math
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edge.contract import InputContract
from inspection.dataset.folders import shown
from inspection.dataset.manifest import check_schema, dump_document
from inspection.errors import DataError, StorageError
from inspection.storage import Storage

_log = logging.getLogger(__name__)

SCHEMA = "1.0"
PREPROCESSING_VERSION = 1  # raise it when `edge.preprocess` gives other pixels for the same file
SHARD_BYTES = 64 << 20  # largest shard that is written; a worker holds one in memory
_HEADER_BYTES = 128  # of a .npy file of this kind
_OPEN_MAPS = 64  # each holds a file descriptor
_READERS = 16  # shard indices read at once; matters on S3


@dataclass(frozen=True, slots=True)
class CachedImage:
    """Where an image's pixels are."""

    shard: str  # key of the .npy file
    row: int
    crc32: int
    width: int  # px, of the original picture upright
    height: int  # px


def cache_prefix(contract: InputContract) -> str:
    """Prefix of the keys of everything prepared under this contract."""
    content = json.dumps([PREPROCESSING_VERSION, contract.digest_fields()], sort_keys=True)
    return f"cache/{hashlib.sha256(content.encode()).hexdigest()[:32]}/"


class ShardBuffer:
    """A shard that is being filled, in memory.

    Args:
        rows: how many images fit.
        contract: for their size.
    """

    def __init__(self, rows: int, contract: InputContract) -> None:
        self._shape = (contract.height, contract.width, 3)
        self._row_bytes = contract.height * contract.width * 3
        self._data = bytearray(_HEADER_BYTES + rows * self._row_bytes)
        self._index: list[dict[str, str | int]] = []

    def add(self, sha256: str, pixels: np.ndarray, width: int, height: int) -> None:
        """Append one image: uint8 pixels of shape (1, H, W, 3), its file's digest, the original's size in px."""
        content = np.ascontiguousarray(pixels).tobytes()
        start = _HEADER_BYTES + len(self._index) * self._row_bytes
        self._data[start : start + self._row_bytes] = content
        self._index.append({"sha256": sha256, "crc32": zlib.crc32(content), "width": width, "height": height})

    def store(self, storage: Storage, prefix: str) -> None:
        """Write the shard, then its index; nothing if it is empty."""
        if not self._index:
            return
        self._data[:_HEADER_BYTES] = _npy_header((len(self._index), *self._shape))
        shard = memoryview(self._data)[: _HEADER_BYTES + len(self._index) * self._row_bytes]
        key = f"{prefix}{hashlib.sha256(shard).hexdigest()}.npy"
        storage.write(key, shard)
        index = {"schema": SCHEMA, "requires": [], "bytes": len(shard), "rows": self._index}
        storage.write(_index_key(key), dump_document(index).encode())


class PixelCache:
    """Reads prepared pixels by the digests of their files.

    The index is read when the first image is asked for; `refresh` reads it again.
    """

    def __init__(self, storage: Storage, contract: InputContract) -> None:
        self.prefix = cache_prefix(contract)
        self._storage = storage
        self._shape = (contract.height, contract.width, 3)
        self._images: Mapping[str, CachedImage] | None = None
        self._maps: OrderedDict[str, np.ndarray] = OrderedDict()  # those used last

    @property
    def images(self) -> Mapping[str, CachedImage]:
        """Every image that is in the cache, by sha256."""
        if self._images is None:
            self._images = _read_indices(self._storage, self.prefix)
        return self._images

    def refresh(self) -> None:
        """Forget the index, so that what was written since is found."""
        self._images = None
        self._maps.clear()

    def missing(self, sha256s: Sequence[str]) -> list[str]:
        """Those that are not in the cache, each once, in their order."""
        return list(dict.fromkeys(sha256 for sha256 in sha256s if sha256 not in self.images))

    def check_space(self, unread: int) -> None:
        """Check that so many more images fit, before hours of work; those in the cache may be among them.

        Raises:
            StorageError: they do not.
        """
        free = self._storage.free_bytes()
        wanted = (unread - len(self.images)) * math.prod(self._shape)
        if free is not None and wanted > free:
            raise StorageError(
                f"storage {self._storage.root}: preparing {unread} images takes at least {wanted:,} bytes, "
                f"{free:,} are free; free some space or set [line] storage to a folder on a larger disk"
            )

    def read(self, sha256s: Sequence[str]) -> np.ndarray:
        """The pixels of these images.

        Returns:
            uint8, shape (N, H, W, 3), in the order asked for; a copy in memory.

        Raises:
            DataError: an image is not in the cache, or a shard was changed after it was written.
        """
        absent = self.missing(sha256s)
        if absent:
            raise DataError(
                f"{self._storage.root}/{self.prefix}: {len(absent)} images are not in the cache: {shown(absent)}; "
                "run the flow's first step (prepare the data) again"
            )
        pixels = np.empty((len(sha256s), *self._shape), dtype=np.uint8)
        by_shard: dict[str, list[int]] = {}
        for position, sha256 in enumerate(sha256s):
            by_shard.setdefault(self.images[sha256].shard, []).append(position)
        for shard, positions in by_shard.items():
            mapped = self._map(shard)
            for position in positions:
                image = self.images[sha256s[position]]
                pixels[position] = mapped[image.row]
                if zlib.crc32(pixels[position].data) != image.crc32:
                    raise self._corrupted(shard, f"row {image.row} was changed after it was written")
        return pixels

    def iter_batches(self, sha256s: Sequence[str], batch_size: int) -> Iterator[np.ndarray]:
        """The pixels of these images in batches of at most `batch_size`, each as `read` gives it."""
        for start in range(0, len(sha256s), batch_size):
            yield self.read(sha256s[start : start + batch_size])

    def _map(self, shard: str) -> np.ndarray:
        """The shard, memory-mapped."""
        if shard in self._maps:
            self._maps.move_to_end(shard)
            return self._maps[shard]
        try:
            mapped = np.load(self._storage.local_copy(shard), mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise self._corrupted(shard, str(error)) from error
        if mapped.dtype != np.uint8 or mapped.shape[1:] != self._shape:
            raise self._corrupted(shard, f"want uint8 [N, {self._shape}], found {mapped.dtype} {mapped.shape}")
        self._maps[shard] = mapped
        if len(self._maps) > _OPEN_MAPS:
            self._maps.popitem(last=False)
        return mapped

    def _corrupted(self, shard: str, found: str) -> DataError:
        path = self._storage.local_copy(shard)
        also = "" if str(path).startswith(self._storage.root) else f", and {self._storage.root}/{shard}"
        return DataError(f"{path}: this shard of the cache is corrupted: {found}; delete it{also} and run again")


@dataclass(frozen=True, slots=True)
class _Index:
    """What a shard's index says."""

    bytes: int  # size of the shard
    images: dict[str, CachedImage]


def _read_indices(storage: Storage, prefix: str) -> dict[str, CachedImage]:
    """Images of all shards that are whole; a shard that is not is named in the log if that loses images."""
    sizes = storage.sizes(prefix)
    keys = [key for key in sizes if key.endswith(".json")]
    images: dict[str, CachedImage] = {}
    damaged: list[tuple[str, str, _Index | None]] = []
    with ThreadPoolExecutor(_READERS) as pool:
        for key, index in zip(keys, pool.map(lambda key: _read_index(storage, key), keys), strict=True):
            shard = key.removesuffix(".json") + ".npy"
            if index is None:
                damaged.append((key, "", None))
            elif sizes.get(shard) != index.bytes:
                damaged.append((shard, f"{sizes.get(shard, 0)} bytes, want {index.bytes}", index))
            else:
                images |= {sha256: found for sha256, found in index.images.items() if sha256 not in images}
    for key, found, index in damaged:
        if index is None:
            _log.warning("event=cache_index_damaged key=%s its_images_are_prepared_again=true delete_it=true", key)
        elif lost := len(index.images.keys() - images.keys()):
            _log.warning(
                "event=cache_shard_damaged key=%s found=%r images_lost=%d they_are_prepared_again=true",
                key,
                found,
                lost,
            )
    return images


def _read_index(storage: Storage, key: str) -> _Index | None:
    """The index; None if it is damaged, which the caller reports."""
    try:
        document = json.loads(storage.read(key))
        check_schema(document, key)
        shard = key.removesuffix(".json") + ".npy"
        images = {
            entry["sha256"]: CachedImage(shard, row, entry["crc32"], entry["width"], entry["height"])
            for row, entry in enumerate(document["rows"])
        }
        return _Index(document["bytes"], images)
    except (ValueError, LookupError, TypeError, AttributeError, DataError):
        return None


def _index_key(shard: str) -> str:
    return shard.removesuffix(".npy") + ".json"


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """Header of a .npy file of version 1.0 that holds uint8.

    Source: numpy.lib.format.
    """
    fields = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    return (
        b"\x93NUMPY\x01\x00"
        + (_HEADER_BYTES - 10).to_bytes(2, "little")
        + fields.ljust(_HEADER_BYTES - 11).encode()
        + b"\n"
    )
