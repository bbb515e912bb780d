"""Bringing the pixels of images into the cache that were looked at before, but for another cache or for none."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge.contract import InputContract
from inspection.dataset.images import Source, SourceImage
from inspection.dataset.looking import Target, look_at_all
from inspection.dataset.worker import FileFacts


@dataclass(frozen=True)
class Read:
    """What became of the images of a run."""

    facts: dict[str, FileFacts]  # by uri
    faults: dict[str, str]  # by uri: why it could not be read or decoded


def read_images(
    images: Sequence[SourceImage],
    source: Source,
    contract: InputContract,
    target: Target,
    workers: int | None = None,
    progress: bool = True,
) -> Read:
    """Read every image once and bring those that are not in the cache into it.

    Args:
        images: of the source.
        source: reads them.
        contract: how they become pixels.
        target: the cache; images that are in it are hashed but not decoded.
        workers: threads or processes; default one per core that this process may use.
        progress: show a bar on stderr if that is a terminal.

    Raises:
        StorageError: the cache cannot be written.
        DataError: a worker process died.
    """
    read = Read({}, {})
    for looked in look_at_all(images, source, contract, workers, progress, target, measured=False):
        if looked.fault is not None:
            read.faults[looked.uri] = looked.fault.reason
        elif looked.file is not None:
            there = target.cached.get(looked.file.sha256)
            read.facts[looked.uri] = FileFacts(looked.file.sha256, there.width, there.height) if there else looked.file
    return read
