"""What a worker does: reads, hashes and decodes images, and writes them to the cache as one shard.

It imports little, since every worker process imports it anew.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edge.contract import InputContract
from edge.errors import ImageError
from edge.preprocess import prepare_file
from inspection.dataset.cache import ShardBuffer, cache_prefix
from inspection.dataset.parallel import end_with_parent
from inspection.dataset.sources import Source
from inspection.storage import open_storage


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What reading an image's file told."""

    sha256: str
    width: int  # px, upright
    height: int  # px


@dataclass(frozen=True)
class Read:
    """What became of the images of a run."""

    facts: dict[str, FileFacts]  # by uri
    faults: dict[str, str]  # by uri: why it could not be read or decoded


@dataclass(frozen=True, slots=True)
class Looked:
    """One image that was read."""

    uri: str
    facts: FileFacts | None = None  # None: it could not be read or decoded
    pixels: np.ndarray | None = None  # uint8 (1, H, W, 3); None: they are in the cache
    fault: str = ""


@dataclass(frozen=True)
class Job:
    """What a worker must know; sent to it once."""

    source: Source
    contract: InputContract
    storage_root: str
    known: str  # .npy file with the sorted digests that are in the cache, S64


class Worker:
    """Prepares chunks; several threads may look at images with one."""

    def __init__(self, job: Job) -> None:
        self._source, self._contract = job.source, job.contract
        self._storage = open_storage(job.storage_root)
        self._prefix = cache_prefix(job.contract)
        self._known = np.load(job.known, mmap_mode="r")

    def prepare(self, uris: list[str]) -> Read:
        """Read a chunk of images; those that are new become one shard."""
        return self.gather(map(self.look, uris), len(uris))

    def look(self, uri: str) -> Looked:
        """Read one image, and decode it if it is new."""
        try:
            data = self._source.read(uri)
            sha256 = hashlib.sha256(data).hexdigest()
            if self._is_known(sha256):
                return Looked(uri, FileFacts(sha256, 0, 0))  # the size is in the cache's index
            prepared = prepare_file(data, self._contract, uri)
        except ImageError as error:
            return Looked(uri, fault=str(error).removeprefix(f"{uri}: "))
        except OSError as error:
            return Looked(uri, fault=error.strerror or str(error))
        return Looked(uri, FileFacts(sha256, prepared.width_px, prepared.height_px), prepared.pixels)

    def gather(self, images: Iterable[Looked], most: int) -> Read:
        """Write the pixels of these images, at most so many, as one shard."""
        read = Read({}, {})
        buffer = ShardBuffer(most, self._contract)
        added = set()
        for image in images:
            if image.facts is None:
                read.faults[image.uri] = image.fault
                continue
            read.facts[image.uri] = image.facts
            if image.pixels is not None and image.facts.sha256 not in added:
                added.add(image.facts.sha256)
                buffer.add(image.facts.sha256, image.pixels, image.facts.width, image.facts.height)
        buffer.store(self._storage, self._prefix)
        return read

    def _is_known(self, sha256: str) -> bool:
        wanted = sha256.encode()
        place = int(np.searchsorted(self._known, wanted))
        return place < len(self._known) and self._known[place] == wanted


_worker: Worker | None = None  # of this worker process


def start_worker(job: Job) -> None:
    """Make this process ready to prepare chunks."""
    global _worker
    end_with_parent()
    _worker = Worker(job)


def prepare_chunk(uris: list[str]) -> Read:
    """Prepare a chunk with this process's worker."""
    assert _worker is not None
    return _worker.prepare(uris)
