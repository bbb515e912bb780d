"""COCO: one JSON file with images, annotations and categories, or one for each part of a division.

    annotations/instances_train.json    train/…     CVAT, COCO itself
    train/_annotations.coco.json        train/…     Roboflow
    result.json                         images/…    Label Studio

Boxes are read; of a shape without a box the rectangle around it.
"""

import posixpath
import re
from collections import defaultdict
from typing import Any

from inspection.dataset.folders import PARTS
from inspection.dataset.formats.boxes import boxed_image, rectangle_around, uri_below
from inspection.dataset.formats.lists import ListBuilder
from inspection.dataset.formats.reading import Format, Reading, stem
from inspection.dataset.images import Shipped, SourceImage
from inspection.dataset.manifest import Box
from inspection.errors import DataError

_KEYS = {"images", "annotations", "categories"}
_WANTED = "COCO's .json with images, annotations and categories"


def _names(reading: Reading) -> list[str]:
    """Uris of the COCO files of the location."""
    folders = {"", "annotations", *(file.uri.split("/")[0] for file in reading.files if file.uri.count("/") == 1)}
    return [name for name in reading.documents(tuple(folders)) if _is_coco(reading, name)]


def _is_coco(reading: Reading, name: str) -> bool:
    try:
        document = reading.document(name)
    except DataError:
        return False
    return isinstance(document, dict) and document.keys() >= _KEYS


def _fits(reading: Reading) -> bool:
    return bool(_names(reading))


def _read(reading: Reading) -> list[SourceImage]:
    names = _names(reading)
    if not names:
        raise DataError(f"{reading.location}: want {_WANTED}, found {reading.describe()}")
    return [image for name in names for image in _read_one(reading, name)]


def _read_one(reading: Reading, name: str) -> list[SourceImage]:
    document = reading.document(name)
    try:
        categories = {category["id"]: str(category["name"]) for category in document["categories"]}
        images = {image["id"]: str(image["file_name"]) for image in document["images"]}
        boxes = defaultdict(list)
        for entry, annotation in enumerate(document["annotations"]):
            where = f"{reading.name(name)}: annotations[{entry}]"
            if annotation["image_id"] not in images:
                raise DataError(f"{where}: no image has the id {annotation['image_id']!r}")
            if annotation["category_id"] not in categories:
                raise DataError(f"{where}: no category has the id {annotation['category_id']!r}")
            boxes[annotation["image_id"]].append((categories[annotation["category_id"]], _box(annotation)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{reading.name(name)}: not as COCO writes it: {type(error).__name__} {error}; export it again"
        ) from None
    shipped = _part(name)
    folder = reading.folder_of(list(images.values()), _folders(name, shipped))
    builder = ListBuilder(reading, name, entries="images")
    for entry, (number, file_name) in enumerate(images.items()):
        uri = uri_below(builder, folder, file_name, entry)
        builder.add(boxed_image(uri, boxes[number], reading.options, shipped), entry)
    return builder.images


def _box(annotation: dict[str, Any]) -> Box | None:
    if annotation.get("bbox"):
        left, top, width, height = (float(number) for number in annotation["bbox"])
        return left, top, width, height
    outlines = annotation.get("segmentation")
    if isinstance(outlines, list) and outlines:
        numbers = [float(number) for outline in outlines for number in outline]
        return rectangle_around(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return None


def _part(name: str) -> Shipped:
    """The part of a division that a file's name or folder tells."""
    words = [*re.split(r"[^a-z]+", stem(name).lower()), posixpath.dirname(name).lower()]
    return next((PARTS[word] for word in words if word in PARTS), "")


def _folders(name: str, shipped: Shipped) -> list[str]:
    """Where the images of a file may lie, relative to the location, the likeliest first."""
    own = posixpath.dirname(name)
    last = re.split(r"_", stem(name))[-1]  # instances_train2017 -> train2017, instances_default -> default
    parts = [last, *(part for part, meaning in PARTS.items() if shipped and meaning == shipped)]
    folders = [own, posixpath.join(own, "images"), "", "images"]
    return list(dict.fromkeys([*folders, *(f"images/{part}" for part in parts), *parts]))


COCO = Format("coco", _WANTED, _fits, _read)
