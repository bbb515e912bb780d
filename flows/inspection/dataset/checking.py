"""A check of a set for a person: everything that taking it in would look at, without storing a snapshot."""

import shlex
from collections.abc import Sequence
from dataclasses import replace

from inspection.dataset.checks import find_broken, leave_out
from inspection.dataset.examine import Examination
from inspection.dataset.grouping import Grouping, Repair, describe_repair, group_alike
from inspection.dataset.images import Source, SourceImage
from inspection.dataset.intake import line_assignments, open_images
from inspection.dataset.known import examine_known
from inspection.dataset.manifest import ImageRow
from inspection.dataset.mask_cache import digest_masks
from inspection.dataset.report import Report
from inspection.dataset.splits import Quotas, divide
from inspection.errors import DataError
from inspection.settings import Settings
from inspection.storage import Storage


def check_dataset(
    settings: Settings, location: str, storage: Storage, progress: bool = True, workers: int | None = None
) -> tuple[Report, Source]:
    """Look a set over and tell what was found.

    Args:
        settings: of the line.
        location: of the set.
        storage: remembers what was measured, so that the flow after it need not measure again.
        progress: show bars on stderr if that is a terminal.
        workers: threads or processes; default one per core.

    Returns:
        the report, and the source that reads its pictures.

    Raises:
        DataError: nothing is there, or not in a form that is understood.
    """
    source = open_images(settings, location)
    images = source.images()
    source.fetch([uri for image in images for uri in (image.uri, image.mask) if uri is not None], progress)
    masks = digest_masks(images, source)
    examination = examine_known(images, source, settings, storage, masks, workers, progress)
    dropped = find_broken(examination.findings, examination.faults) if settings.data.drop_bad_images else {}
    report = Report(
        location=source.location,
        images=images,
        facts=examination.facts,
        findings=tuple(leave_out(examination.findings, dropped)),
        faults=examination.faults,
        dropped=dropped,
        seconds=examination.seconds,
        flags=_flags(settings),
    )
    if not settings.data.group_near_duplicates:
        return report, source
    present = [image for image in images if image.uri in examination.facts and image.uri not in dropped]
    try:
        grouping = group_alike(present, examination.alike, source.location)
    except DataError as error:
        return replace(report, refusal=str(error)), source
    return replace(report, repair=_foresee(settings, storage, present, grouping, examination)), source


def _flags(settings: Settings) -> tuple[str, ...]:
    """What another command on this set needs to understand it."""
    named = ("--format", shlex.quote(settings.data.format)) if settings.data.format else ()
    return (*named, *(f"--map {shlex.quote(one)}" for one in settings.data.map))


def _foresee(
    settings: Settings, storage: Storage, images: Sequence[SourceImage], grouping: Grouping, examination: Examination
) -> Repair:
    """What the grouping would change if the set were taken in now."""
    if not grouping.merged:
        return Repair((), (), ())
    data, line = settings.data, settings.line.name
    quotas = Quotas(data.calibration_fraction, data.holdout_fraction)
    earlier = line_assignments(storage, line)
    shipped: dict[str, str] = {image.uri: image.shipped for image in images if image.shipped}
    apart, together = (
        divide([_row(image, examination) for image in some], shipped, earlier, quotas, seed=line).rows
        for some in (images, grouping.images)
    )
    return describe_repair(grouping.merged, apart, together)


def _row(image: SourceImage, examination: Examination) -> ImageRow:
    facts = examination.facts[image.uri]
    return ImageRow(
        uri=image.uri,
        sha256=facts.sha256,
        width=facts.width,
        height=facts.height,
        label=image.label,
        defect_type=image.defect_type,
        group=image.group,
    )
