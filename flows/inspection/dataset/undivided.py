"""A set as it lies somewhere, to be compared with a snapshot: read, but neither decoded nor divided nor stored."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

from inspection.dataset.files import shown
from inspection.dataset.images import Source, SourceImage, make_row
from inspection.dataset.intake import open_images
from inspection.dataset.location import locate
from inspection.dataset.manifest import Snapshot
from inspection.dataset.mask_cache import digest_masks
from inspection.dataset.parallel import available_cores, map_ahead
from inspection.errors import DataError
from inspection.settings import Settings

_AHEAD = 64


def read_undivided(settings: Settings, location: str) -> Snapshot:
    """The rows of a set with the digests of its files; sizes, splits and the snapshot's id are empty.

    Raises:
        DataError: nothing is there, or a file cannot be read.
    """
    source = open_images(settings, locate(location))
    images = source.images()
    source.fetch([uri for image in images for uri in (image.uri, image.mask) if uri is not None])
    masks = digest_masks(images, source)
    with ThreadPoolExecutor(available_cores()) as pool:
        digests = list(map_ahead(pool, lambda image: _digest(source, image), images, _AHEAD))
    unreadable = [image.uri for image, digest in zip(images, digests, strict=True) if not digest]
    if unreadable:
        raise DataError(f"{source.location}: {len(unreadable)} images cannot be read: {shown(unreadable)}")
    rows = [make_row(image, digest, 0, 0, masks) for image, digest in zip(images, digests, strict=True)]
    return Snapshot("", tuple(sorted(rows, key=lambda row: row.uri)), None, source.location)


def _digest(source: Source, image: SourceImage) -> str:
    try:
        return hashlib.sha256(source.read(image.uri)).hexdigest()
    except OSError:
        return ""
