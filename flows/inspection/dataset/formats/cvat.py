"""CVAT's own export, "CVAT for images 1.1": annotations.xml beside images/.

A box, outline or mask is a defect, and its label the type. A tag is a label of the whole picture. In a file with tags a
picture without any is not labelled yet; in a file without tags it is good.
"""

import io
import logging
from typing import Any
from xml.etree import ElementTree

from inspection.dataset.files import shown
from inspection.dataset.folders import PARTS
from inspection.dataset.formats.boxes import boxed_image, rectangle_around, uri_below, with_labels
from inspection.dataset.formats.lists import ListBuilder
from inspection.dataset.formats.reading import Format, Reading
from inspection.dataset.images import SourceImage
from inspection.dataset.manifest import Box
from inspection.errors import DataError

_log = logging.getLogger(__name__)

_WANTED = "CVAT's annotations.xml"
_OUTLINES = frozenset({"polygon", "polyline", "points"})
_SHAPES = frozenset({"box", "mask", "ellipse", "cuboid", *_OUTLINES})


def _fits(reading: Reading) -> bool:
    names = reading.lists(".xml")
    return any("<annotations>" in reading.text(name)[:2000] for name in names)


def _read(reading: Reading) -> list[SourceImage]:
    names = reading.lists(".xml")
    if len(names) != 1:
        raise DataError(f"{reading.location}: want one annotations.xml, found {shown(names) or reading.describe()}")
    name = names[0]
    pictures, has_tags = _parse(reading, name)
    builder = ListBuilder(reading, name, entries="images")
    folder = reading.folder_of([str(picture["name"]) for picture in pictures], ["images", ""])
    unlabelled = []
    for entry, picture in enumerate(pictures):
        if has_tags and not picture["tags"] and not picture["boxes"]:
            unlabelled.append(str(picture["name"]))
            continue
        subset = str(picture["subset"] or "")
        below = f"{folder}/{subset}" if subset and folder else folder
        reference = str(picture["name"])
        place = reading.folder_of([reference], [below, folder])
        image = boxed_image(
            uri_below(builder, place, reference, entry),
            picture["boxes"],
            reading.options,
            PARTS.get(subset.lower(), ""),
            human=picture["human"],
        )
        builder.add(with_labels(image, picture["tags"], reading.options, f"{reading.name(name)}: {reference}"), entry)
    if unlabelled:
        _log.warning("event=images_without_label_ignored count=%d files=%s", len(unlabelled), shown(unlabelled))
    return builder.images


def _parse(reading: Reading, name: str) -> tuple[list[dict[str, Any]], bool]:
    """Pictures with their tags and boxes, and whether the file has any tag."""
    text = reading.text(name)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(f"{reading.name(name)}: has a document type, which CVAT does not write; export it again")
    pictures, has_tags = [], False
    try:
        for _, element in ElementTree.iterparse(io.BytesIO(text.encode())):
            if element.tag == "track":
                raise DataError(f'{reading.name(name)}: is "CVAT for video"; export as "CVAT for images"')
            if element.tag != "image":
                continue
            shapes = [shape for shape in element if shape.tag in _SHAPES]
            tags = [tag.attrib["label"] for tag in element if tag.tag == "tag"]
            has_tags = has_tags or bool(tags)
            sources = {shape.attrib.get("source") for shape in element} - {None}
            pictures.append(
                {
                    "name": element.attrib["name"],
                    "subset": element.attrib.get("subset"),
                    "tags": tags,
                    "boxes": [(shape.attrib["label"], _box(shape)) for shape in shapes],
                    "human": "auto" not in sources if sources else None,
                }
            )
            element.clear()
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise DataError(f"{reading.name(name)}: not as CVAT writes it ({error!r}); export it again") from None
    return pictures, has_tags


def _box(shape: ElementTree.Element) -> Box | None:
    """The rectangle around a shape, in px; a rotated box is taken as it was before it was turned."""
    values = shape.attrib
    if shape.tag == "box":
        left, top, right, bottom = (float(values[side]) for side in ("xtl", "ytl", "xbr", "ybr"))
        return left, top, right - left, bottom - top
    if shape.tag == "mask":
        left, top, width, height = (float(values[side]) for side in ("left", "top", "width", "height"))
        return left, top, width, height
    if shape.tag == "ellipse":
        x, y, wide, high = (float(values[side]) for side in ("cx", "cy", "rx", "ry"))
        return x - wide, y - high, 2 * wide, 2 * high
    if shape.tag in _OUTLINES:
        points = [tuple(float(number) for number in point.split(",")) for point in values["points"].split(";")]
        return rectangle_around([(x, y) for x, y in points])
    return None


CVAT = Format("cvat", _WANTED, _fits, _read)
