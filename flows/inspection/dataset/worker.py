"""What a worker does: it reads an image once, hashes, decodes and measures it, and writes its pixels to the cache.

It imports little, since every worker process imports it anew.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from edge.contract import InputContract
from edge.errors import ImageError
from edge.preprocess import cut, finish, load_file
from inspection.dataset.annotations import measure_mask
from inspection.dataset.cache import ShardBuffer, cache_prefix
from inspection.dataset.image_facts import ImageFacts, measure, working_contract
from inspection.dataset.image_faults import Fault, explain, find_outside_region
from inspection.dataset.images import Source, SourceImage
from inspection.dataset.parallel import end_with_parent
from inspection.storage import open_storage


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What reading an image's file told."""

    sha256: str
    width: int  # px, upright
    height: int  # px


@dataclass(frozen=True, slots=True)
class Looked:
    """One image that was read."""

    uri: str
    file: FileFacts | None = None  # None: see the fault
    facts: ImageFacts | None = None  # None: it was not to be measured, or see the fault
    fault: Fault | None = None
    pixels: np.ndarray | None = None  # uint8 (1, H, W, 3), on their way into the cache


@dataclass(frozen=True)
class Job:
    """What a worker must know; sent to it once."""

    source: Source
    contract: InputContract
    measured: bool  # False: the images are known, only their pixels are wanted
    storage_root: str  # of the cache; empty: pixels are not wanted
    known: str  # .npy file with the sorted digests that are in the cache, S64


class Worker:
    """Reads images; several threads may look at images with one."""

    def __init__(self, job: Job) -> None:
        self._source, self._contract, self._measured = job.source, job.contract, job.measured
        self._storage = open_storage(job.storage_root) if job.storage_root else None
        self._prefix = cache_prefix(job.contract)
        self._known = np.load(job.known, mmap_mode="r") if job.storage_root else np.zeros(0, "S64")

    def look_at_chunk(self, images: list[SourceImage]) -> list[Looked]:
        """Read a chunk of images; the pixels of those that are new become one shard."""
        return self.store(map(self.look, images), len(images))

    def look(self, image: SourceImage) -> Looked:
        """Read one image and its mask."""
        try:
            data = self._source.read(image.uri)
        except OSError as error:
            return Looked(image.uri, fault=Fault("unreadable-file", error.strerror or str(error)))
        if not data:
            return Looked(image.uri, fault=Fault("empty-file", "the file is empty"))
        try:
            looked = self._decode(image.uri, data)
        except ImageError as error:
            return Looked(image.uri, fault=explain(data, str(error).removeprefix(f"{image.uri}: ")))
        if looked.facts is None or image.mask is None:
            return looked
        mask = measure_mask(image.mask, self._source.read, image.mask_colors)
        return replace(looked, facts=replace(looked.facts, mask=mask))

    def store(self, images: Iterable[Looked], most: int) -> list[Looked]:
        """Write the pixels of these images, at most so many, as one shard; the images come back without them."""
        if self._storage is None:
            return list(images)
        buffer = ShardBuffer(most, self._contract)
        done, added = [], set()
        for image in images:
            if image.pixels is not None and image.file is not None and image.file.sha256 not in added:
                added.add(image.file.sha256)
                buffer.add(image.file.sha256, image.pixels, image.file.width, image.file.height)
            done.append(image if image.pixels is None else replace(image, pixels=None))
        buffer.store(self._storage, self._prefix)
        return done

    def _decode(self, uri: str, data: bytes) -> Looked:
        """Hash an image and do with it what is wanted: once decoded, it is measured and brought to the model's size.

        Raises:
            ImageError: it cannot be decoded.
        """
        sha256, contract = hashlib.sha256(data).hexdigest(), self._contract
        wanted = self._storage is not None and not self._is_known(sha256)
        if not (wanted or self._measured):
            return Looked(uri, FileFacts(sha256, 0, 0))  # the size is in the cache's index
        try:
            loaded = load_file(data, contract, uri)
        except ImageError:
            whole = load_file(data, working_contract(contract.white_level), uri)
            fault = find_outside_region(whole.width_px, whole.height_px, contract)
            if fault is None:
                raise
            return Looked(uri, fault=fault)
        facts = measure(uri, data, contract, loaded, sha256) if self._measured else None
        pixels = finish(cut(loaded, contract, uri), contract).pixels if wanted else None
        return Looked(uri, FileFacts(sha256, loaded.width_px, loaded.height_px), facts, None, pixels)

    def _is_known(self, sha256: str) -> bool:
        wanted = sha256.encode()
        place = int(np.searchsorted(self._known, wanted))
        return place < len(self._known) and self._known[place] == wanted


_worker: Worker | None = None  # of this worker process


def start_worker(job: Job) -> None:
    """Make this process ready to look at images."""
    global _worker
    end_with_parent()
    _worker = Worker(job)


def look_at_chunk(images: list[SourceImage]) -> list[Looked]:
    """Look at a chunk of images with this process's worker."""
    assert _worker is not None
    return _worker.look_at_chunk(images)
