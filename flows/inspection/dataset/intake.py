"""From a set of images to a snapshot whose pixels are in the cache: the flows' first step."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from inspection.dataset.cache import PixelCache
from inspection.dataset.checks import (
    check_classes,
    check_findings,
    check_labels_agree,
    check_readable,
    check_splits,
    find_broken,
    leave_out,
)
from inspection.dataset.file_index import FileIndex
from inspection.dataset.files import shown
from inspection.dataset.grouping import Grouping, Repair, describe_repair, group_alike
from inspection.dataset.image_facts import ImageFacts
from inspection.dataset.images import Source, SourceImage, make_row
from inspection.dataset.intake_record import Intake, load_intake, store_intake
from inspection.dataset.known import examine_known
from inspection.dataset.looking import Target
from inspection.dataset.manifest import (
    SPLITS,
    Assignment,
    HistoryEntry,
    ImageRow,
    Snapshot,
    latest_entry,
    load_snapshot,
    make_snapshot,
    store_snapshot,
    update_location,
)
from inspection.dataset.mask_cache import digest_masks, prepare_masks
from inspection.dataset.options import Columns, SourceOptions, parse_maps
from inspection.dataset.preparation import read_images
from inspection.dataset.sources import open_source
from inspection.dataset.splits import Quotas, divide
from inspection.dataset.worker import FileFacts
from inspection.errors import DataError
from inspection.settings import Settings
from inspection.storage import ObjectExistsError, Storage

_log = logging.getLogger(__name__)


def source_options(settings: Settings) -> SourceOptions:
    """How the line's settings say its images are to be understood."""
    data = settings.data
    return SourceOptions(
        format=data.format,
        group_pattern=data.group_pattern,
        maps=parse_maps(data.map),
        columns=Columns(**dataclasses.asdict(cast(Any, data.columns))),
        good_labels=tuple(data.good_labels),
        bad_labels=tuple(data.bad_labels),
    )


def open_images(settings: Settings, location: str) -> Source:
    """The source at a location, understood as the line's settings say.

    Raises:
        DataError: nothing opens such an address.
    """
    return open_source(location, source_options(settings))


def read_original(source: Source, uri: str) -> bytes:
    """An image's own file, for what the cache does not hold.

    Raises:
        DataError: it cannot be read any more.
    """
    try:
        return source.read(uri)
    except OSError as error:
        raise DataError(
            f"{source.location}: want the image {uri}, which was there when the run began, found no way to read it "
            f"({error.strerror or error}); put the images back where they were and go on with "
            "`python flows/train_flow.py resume`, or start a new run with what is there"
        ) from error


def prepare_dataset(
    settings: Settings, location: str, storage: Storage, progress: bool = True, workers: int | None = None
) -> Snapshot:
    """`take_in` for those who need the snapshot only."""
    return take_in(settings, location, storage, progress, workers).snapshot


def take_in(
    settings: Settings, location: str, storage: Storage, progress: bool = True, workers: int | None = None
) -> Intake:
    """Check the images, bring their pixels into the cache, divide them and store the snapshot.

    What needs no decoding is checked first. Images that did not change since the last run are not read again.

    Args:
        settings: of the line.
        location: folder of the images, or another source's address.
        storage: for snapshots and cache.
        progress: show bars on stderr if that is a terminal.
        workers: threads or processes that decode; default one per core.

    Raises:
        DataError: no images, no known layout, too few of a class, an error of the examination (the message names the
            files), near duplicates that would make too large a group, too few groups to divide.
        StorageError: no space, no access.
    """
    source, least = open_images(settings, location), settings.data.min_images_per_class
    images: Sequence[SourceImage] = source.images()
    check_classes(images, least, source.location)
    cache = PixelCache(storage, settings.input.contract())
    seen = FileIndex(storage, source.location)
    unready = {image.uri for image in images if not _is_ready(image, seen, cache)}
    cache.check_space(len(unready))
    masks_of = [image.mask for image in images if image.mask is not None]
    source.fetch([*(image.uri for image in images if image.uri in unready), *masks_of], progress)

    masks = digest_masks(images, source)
    target = Target(storage, cache.images)
    examination = examine_known(
        images, source, settings, storage, masks, workers, progress, with_facts=bool(unready), target=target
    )
    dropped = find_broken(examination.findings, examination.faults) if settings.data.drop_bad_images else {}
    images = [image for image in images if image.uri not in dropped]
    findings = leave_out(examination.findings, dropped)
    if dropped:
        check_classes(images, least, source.location)
    check_findings(findings, examination.faults, images, source.location)

    if unready:
        cache.refresh()
        seen.update(images, _file_facts(examination.facts))
    left = [image for image in images if not _is_ready(image, seen, cache)]  # examined before, for another cache
    read = read_images(left, source, settings.input.contract(), Target(storage, cache.images), workers, progress)
    _check_unchanged(examination.facts, read.facts, source.location)
    if left:
        seen.update(images, read.facts)
    if settings.data.drop_bad_images:
        dropped |= read.faults
        images = [image for image in images if image.uri not in read.faults]
    else:
        check_readable(read.faults, len(images), source.location)
    if read.faults:
        check_classes(images, least, source.location)

    grouping = Grouping(tuple(images), ())
    if settings.data.group_near_duplicates:
        grouping = group_alike(images, examination.alike, source.location)
    rows = [_row(image, seen.facts(image), masks) for image in grouping.images]
    check_labels_agree(rows, source.location)
    if left:
        cache.refresh()
    prepare_masks(rows, source, settings.input.contract(), storage, cache)
    intake = _divide_and_store(settings, source.location, storage, images, rows, grouping, dropped)
    intake = replace(intake, findings=tuple(findings))
    store_intake(storage, settings.line.name, intake)
    _log_intake(intake, len(unready))
    return intake


def _log_intake(intake: Intake, read: int) -> None:
    """One line on the snapshot, one on each warning, one on what was left out."""
    for finding in intake.findings:
        _log.warning("event=dataset_warning code=%s what=%r", finding.code, finding.summary)
    if intake.dropped:
        listed = sorted(f"{uri} ({reason})" for uri, reason in intake.dropped.items())
        _log.warning("event=broken_images_left_out count=%d files=%s", len(listed), shown(listed))
    if intake.repair is not None:
        _log.info(
            "event=near_duplicates_grouped groups=%d torn_apart_without=%d images_moved=%d",
            len(intake.repair.merged),
            len(intake.repair.leaks),
            len(intake.repair.moved),
        )
    snapshot = intake.snapshot
    counts = Counter((row.split, row.label) for row in snapshot.rows)
    _log.info(
        "event=dataset_prepared snapshot=%s images=%d read=%d %s",
        snapshot.id[:12],
        len(snapshot.rows),
        read,
        " ".join(f"{split}={counts[split, 'good']}+{counts[split, 'bad']}" for split in SPLITS),
    )


def _is_ready(image: SourceImage, seen: FileIndex, cache: PixelCache) -> bool:
    facts = seen.facts(image)
    return facts is not None and facts.sha256 in cache.images


def _file_facts(facts: Mapping[str, ImageFacts]) -> dict[str, FileFacts]:
    return {uri: FileFacts(fact.sha256, fact.width, fact.height) for uri, fact in facts.items()}


def _check_unchanged(examined: Mapping[str, ImageFacts], read: Mapping[str, FileFacts], where: str) -> None:
    """Check that what was examined is what went into the cache.

    Raises:
        DataError: a file changed between the two.
    """
    changed = [uri for uri, facts in read.items() if uri in examined and examined[uri].sha256 != facts.sha256]
    if changed:
        raise DataError(
            f"{where}: {len(changed)} images changed while they were read: {shown(changed)}; "
            "wait until they are all written, then run again"
        )


def _row(image: SourceImage, facts: FileFacts | None, masks: Mapping[str, str]) -> ImageRow:
    assert facts is not None  # every image was read, or was left out, or an error was raised
    return make_row(image, facts.sha256, facts.width, facts.height, masks)


def _divide_and_store(
    settings: Settings,
    location: str,
    storage: Storage,
    images: Sequence[SourceImage],
    rows: Sequence[ImageRow],
    grouping: Grouping,
    dropped: Mapping[str, str],
) -> Intake:
    """Divide with the line's latest snapshot as parent; again if another flow stores one meanwhile.

    Args:
        settings: of the line.
        location: of the source.
        storage: for the snapshot.
        images: as they were before near duplicates were grouped.
        rows: of the images, in the same order.
        grouping: what was grouped.
        dropped: uri to reason of images that are left out.
    """
    line, data = settings.line.name, settings.data
    shipped: dict[str, str] = {image.uri: image.shipped for image in images if image.shipped}
    quotas = Quotas(data.calibration_fraction, data.holdout_fraction)
    while True:
        latest = latest_entry(storage, line)
        parent = load_snapshot(storage, latest.snapshot) if latest else None
        earlier = _assignments(parent, latest)
        divided = divide(rows, shipped, earlier, quotas, seed=line)
        check_splits(divided.rows, location)
        snapshot = make_snapshot(divided.rows, parent.id if parent else None, location)
        repair: Repair | None = None
        if data.group_near_duplicates:
            apart = [replace(row, group=image.group) for row, image in zip(rows, images, strict=True)]
            without = divide(apart, shipped, earlier, quotas, seed=line).rows if grouping.merged else divided.rows
            repair = describe_repair(grouping.merged, without, divided.rows)
        if parent is not None and snapshot.id == parent.id:
            if parent.location != location:
                update_location(storage, snapshot)
            if repair is not None:
                repair = _repaired_before(storage, line, parent.id, repair)
            return Intake(Snapshot(parent.id, parent.rows, parent.parent, location), (), dropped, repair)
        try:
            store_snapshot(storage, line, snapshot, divided.retired, dropped, grouping.merged)
        except ObjectExistsError:
            _log.info("event=snapshot_stored_meanwhile line=%s divided_again=true", line)
            continue
        return Intake(snapshot, (), dropped, repair)


def _repaired_before(storage: Storage, line: str, snapshot_id: str, now: Repair) -> Repair:
    """What the grouping changed when this snapshot was made; dividing again changes nothing any more."""
    before = load_intake(storage, line, snapshot_id)
    return before.repair if before and before.repair and before.repair.merged == now.merged else now


def line_assignments(storage: Storage, line: str) -> list[Assignment]:
    """Every assignment that the line has made so far."""
    latest = latest_entry(storage, line)
    return _assignments(load_snapshot(storage, latest.snapshot) if latest else None, latest)


def _assignments(parent: Snapshot | None, latest: HistoryEntry | None) -> list[Assignment]:
    """Every assignment that the line has made."""
    if parent is None or latest is None:
        return []
    return [*latest.retired, *(Assignment(row.group, row.sha256, row.split) for row in parent.rows)]
