"""The layout of VisA: the folder of one object, or one of the set's lists of a division.

    <object>/Data/Images/Normal/0000.JPG    <object>/Data/Images/Anomaly/000.JPG    <object>/Data/Masks/Anomaly/000.png
    <object>/image_anno.csv                 image,label,mask: the label names the kinds of defect
    split_csv/2cls_highshot.csv             object,split,label,image,mask: paths from the set's root

The list `1cls.csv` trains on good parts only and is not used as a division: see `leave_undivided`.
"""

import csv
import io
import logging

from inspection.dataset.files import shown
from inspection.dataset.folders import PARTS
from inspection.dataset.formats.lists import VISA_COLUMNS, ListBuilder, has_header
from inspection.dataset.formats.reading import Format, Reading, stem
from inspection.dataset.images import SourceImage, leave_undivided
from inspection.dataset.options import read_label
from inspection.errors import DataError

_log = logging.getLogger(__name__)

_NORMAL, _ANOMALY, _MASKS = "data/images/normal/", "data/images/anomaly/", "data/masks/anomaly/"
_WANTED = "VisA's Data/Images/Normal and Data/Images/Anomaly, or one of its split_csv/*.csv"


def _fits(reading: Reading) -> bool:
    if reading.is_list:
        return any(has_header(reading, name, VISA_COLUMNS) for name in reading.lists(".csv"))
    return any(file.uri.lower().startswith((_NORMAL, _ANOMALY)) for file in reading.pictures)


def _read(reading: Reading) -> list[SourceImage]:
    if reading.is_list:
        return _read_division(reading)
    types = _types(reading)
    masks = {stem(file.uri): file.uri for file in reading.pictures if file.uri.lower().startswith(_MASKS)}
    found, others = [], []
    for file in reading.pictures:
        place = file.uri.lower()
        if place.startswith(_NORMAL):
            found.append(SourceImage(file.uri, file.version, "good", None, None, file.uri))
        elif place.startswith(_ANOMALY):
            name = stem(file.uri)
            found.append(SourceImage(file.uri, file.version, "bad", types.get(name), masks.pop(name, None), file.uri))
        elif not place.startswith(_MASKS):
            others.append(file.uri)
    if not found:
        raise DataError(f"{reading.location}: want {_WANTED}, found {reading.describe()}")
    if others:
        _log.warning("event=images_without_label_ignored count=%d files=%s", len(others), shown(others))
    if masks:
        _log.warning("event=masks_without_image count=%d files=%s", len(masks), shown(sorted(masks.values())))
    return found


def _types(reading: Reading) -> dict[str, str]:
    """First kind of defect of each anomalous image, by the name of its file; empty without `image_anno.csv`."""
    if not any(file.uri == "image_anno.csv" for file in reading.files):
        return {}
    rows = csv.DictReader(io.StringIO(reading.text("image_anno.csv")))
    return {
        stem(row["image"]): row["label"].split(",")[0].strip()
        for row in rows
        if row.get("image") and row.get("label") and f"/{_ANOMALY}" in f"/{row['image'].lower()}"
    }


def _read_division(reading: Reading) -> list[SourceImage]:
    (name,) = reading.lists(".csv")
    builder, objects = ListBuilder(reading, name), set()
    for number, row in enumerate(csv.DictReader(io.StringIO(reading.text(name))), start=2):
        where = builder.where(number)
        values = {str(key).strip().lower(): (value or "").strip() for key, value in row.items()}
        absent = VISA_COLUMNS - values.keys()
        if absent or not values["image"]:
            raise DataError(f"{where}: want values for {', '.join(sorted(VISA_COLUMNS))}, found {row}")
        if values["split"] not in PARTS:
            raise DataError(f"{where}: unknown split {values['split']!r}; want train or test")
        uri = builder.uri(values["image"], number)
        label, kind = read_label(values["label"], reading.options, where)
        mask = builder.uri(values["mask"], number) if values["mask"] and label == "bad" else None
        objects.add(values["object"])
        builder.add(
            SourceImage(uri, "", label, kind, mask, uri, shipped=PARTS[values["split"]]),
            number,
        )
    if len(objects) > 1:
        _log.warning(
            "event=several_objects_in_one_set objects=%s give_the_folder_of_one_object_for_a_line=true",
            ",".join(sorted(objects)),
        )
    return leave_undivided(builder.images, reading.location)


VISA = Format("visa", _WANTED, _fits, _read)
