"""From a folder of images to a snapshot whose pixels are in the cache: the flows' first step."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from inspection.dataset.cache import PixelCache
from inspection.dataset.checks import check_classes, check_labels_agree, check_readable, check_splits
from inspection.dataset.manifest import (
    SPLITS,
    Assignment,
    HistoryEntry,
    ImageRow,
    Snapshot,
    check_schema,
    dump_document,
    latest_entry,
    load_snapshot,
    make_snapshot,
    store_snapshot,
    update_location,
)
from inspection.dataset.preparation import read_images
from inspection.dataset.sources import SourceImage, open_source
from inspection.dataset.splits import Quotas, divide
from inspection.dataset.worker import FileFacts
from inspection.errors import DataError
from inspection.settings import Settings
from inspection.storage import ObjectExistsError, Storage

_log = logging.getLogger(__name__)

SCHEMA = "1.0"


def prepare_dataset(
    settings: Settings, location: str, storage: Storage, progress: bool = True, workers: int | None = None
) -> Snapshot:
    """Check the images, bring their pixels into the cache, divide them and store the snapshot.

    What needs no decoding is checked first. Images that did not change since the last run are not read again.

    Args:
        settings: of the line.
        location: folder of the images, or another source's address.
        storage: for snapshots and cache.
        progress: show a bar on stderr if that is a terminal.
        workers: threads or processes that decode; default one per core.

    Raises:
        DataError: no images, no known layout, too few of a class, files that cannot be decoded, contradicting labels,
            too few groups to divide.
        StorageError: no space, no access.
    """
    source = open_source(location, settings.data.group_pattern)
    images = source.images()
    check_classes(images, settings.data.min_images_per_class, source.location)

    cache = PixelCache(storage, settings.input.contract())
    seen = _FileIndex(storage, source.location)
    unread = [image.uri for image in images if not _is_ready(image, seen, cache)]
    cache.check_space(len(unread))
    read = read_images(
        unread, source, settings.input.contract(), storage, cache.images, workers=workers, progress=progress
    )
    seen.update(images, read.facts)
    check_readable(read.faults, len(images), source.location)

    rows = [_row(image, seen.facts(image)) for image in images]
    check_labels_agree(rows, source.location)
    shipped = {image.uri: image.shipped for image in images if image.shipped}
    snapshot = _divide_and_store(settings, source.location, storage, rows, shipped)
    counts = Counter((row.split, row.label) for row in snapshot.rows)
    _log.info(
        "event=dataset_prepared snapshot=%s images=%d read=%d %s",
        snapshot.id[:12],
        len(snapshot.rows),
        len(unread),
        " ".join(f"{split}={counts[split, 'good']}+{counts[split, 'bad']}" for split in SPLITS),
    )
    return snapshot


def _is_ready(image: SourceImage, seen: "_FileIndex", cache: PixelCache) -> bool:
    facts = seen.facts(image)
    return facts is not None and facts.sha256 in cache.images


def _row(image: SourceImage, facts: FileFacts | None) -> ImageRow:
    assert facts is not None  # every image was read, or check_readable has raised
    return ImageRow(
        uri=image.uri,
        sha256=facts.sha256,
        width=facts.width,
        height=facts.height,
        label=image.label,
        defect_type=image.defect_type,
        mask=image.mask,
        boxes=image.boxes,
        group=image.group,
        lot=image.lot,
        station=image.station,
        view=image.view,
        box_types=image.box_types,
        mask_colors=image.mask_colors,
        confidence=image.confidence,
        human_annotated=image.human_annotated,
    )


def _divide_and_store(
    settings: Settings, location: str, storage: Storage, rows: Sequence[ImageRow], shipped: dict[str, str]
) -> Snapshot:
    """Divide with the line's latest snapshot as parent; again if another flow stores one meanwhile."""
    line, data = settings.line.name, settings.data
    while True:
        latest = latest_entry(storage, line)
        parent = load_snapshot(storage, latest.snapshot) if latest else None
        earlier = _assignments(parent, latest)
        quotas = Quotas(data.calibration_fraction, data.holdout_fraction)
        divided = divide(rows, shipped, earlier, quotas, seed=line)
        check_splits(divided.rows, location)
        snapshot = make_snapshot(divided.rows, parent.id if parent else None, location)
        if parent is not None and snapshot.id == parent.id:
            if parent.location != location:
                update_location(storage, snapshot)
            return Snapshot(parent.id, parent.rows, parent.parent, location)
        try:
            store_snapshot(storage, line, snapshot, divided.retired)
        except ObjectExistsError:
            _log.info("event=snapshot_stored_meanwhile line=%s divided_again=true", line)
            continue
        return snapshot


def _assignments(parent: Snapshot | None, latest: HistoryEntry | None) -> list[Assignment]:
    """Every assignment that the line has made."""
    if parent is None or latest is None:
        return []
    return [*latest.retired, *(Assignment(row.group, row.sha256, row.split) for row in parent.rows)]


class _FileIndex:
    """What is known of a location's files from earlier runs, so that unchanged ones are not read again."""

    def __init__(self, storage: Storage, location: str) -> None:
        self._storage = storage
        self._location = location
        self._key = f"cache/files/{hashlib.sha256(location.encode(errors='surrogateescape')).hexdigest()[:32]}.json"
        self._files = self._load()

    def facts(self, image: SourceImage) -> FileFacts | None:
        """Digest and size of the image's file; None if it is new or changed."""
        entry = self._files.get(image.uri)
        return entry[1] if entry and entry[0] == image.version else None

    def update(self, images: Sequence[SourceImage], facts: Mapping[str, FileFacts]) -> None:
        """Add what was read and forget files that are gone; written only if something changed."""
        known = {image.uri: (image.version, entry) for image in images if (entry := self.facts(image))}
        known |= {image.uri: (image.version, facts[image.uri]) for image in images if image.uri in facts}
        if known == self._files:
            return
        self._files = known
        files = {uri: [version, entry.sha256, entry.width, entry.height] for uri, (version, entry) in known.items()}
        document = {"schema": SCHEMA, "requires": [], "location": self._location, "files": files}
        self._storage.write(self._key, dump_document(document).encode())

    def _load(self) -> dict[str, tuple[str, FileFacts]]:
        if not self._storage.exists(self._key):
            return {}
        try:
            document = json.loads(self._storage.read(self._key))
            check_schema(document, self._key)
            return {uri: (version, FileFacts(*rest)) for uri, (version, *rest) in document["files"].items()}
        except (ValueError, LookupError, TypeError, AttributeError, DataError) as error:
            _log.warning("event=file_index_damaged key=%s error=%r every_file_is_read_again=true", self._key, error)
            return {}
