"""Which format a location is in: found by looking, or as a person says."""

from collections.abc import Iterable

from inspection.dataset.folders import FOLDER
from inspection.dataset.formats.coco import COCO
from inspection.dataset.formats.cvat import CVAT
from inspection.dataset.formats.labelstudio import LABEL_STUDIO
from inspection.dataset.formats.lists import CSV, JSONL
from inspection.dataset.formats.manifests import MANIFEST
from inspection.dataset.formats.mvtec import MVTEC
from inspection.dataset.formats.reading import Format, Reading
from inspection.dataset.formats.visa import VISA
from inspection.dataset.formats.yolo import YOLO
from inspection.errors import DataError

FORMATS: tuple[Format, ...] = (FOLDER, MVTEC, VISA, MANIFEST, CSV, JSONL, COCO, YOLO, CVAT, LABEL_STUDIO)


def detect(reading: Reading) -> Format:
    """The format of a location.

    Raises:
        DataError: nothing or more than one format fits, or a person named one that does not exist; says what was
            looked for and what is there.
    """
    wanted = reading.options.format
    if wanted:
        by_name = {one.name: one for one in FORMATS}
        if wanted not in by_name:
            raise DataError(f"format {wanted!r}: want one of {', '.join(sorted(by_name))}")
        return by_name[wanted]
    fitting = [one for one in FORMATS if one.fits(reading)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(
            f"{reading.location}: could be read as {_listed(fitting)}; say which with --format "
            f"{'|'.join(one.name for one in fitting)}, or give the list's file itself"
        )
    what = "no images here" if not reading.is_list and not reading.pictures else "no layout that is known here"
    lists = reading.lists(".manifest", ".jsonl", ".csv", ".tsv", ".json", folders=("", "manifests", "lists"))
    advice = f"; if one of {', '.join(lists[:5])} lists the images, give that file itself" if lists else ""
    raise DataError(f"{reading.location}: {what}; want {_listed(FORMATS)}; found {reading.describe()}{advice}")


def _listed(formats: Iterable[Format]) -> str:
    return "; or ".join(f"{one.wants} ({one.name})" for one in formats)
