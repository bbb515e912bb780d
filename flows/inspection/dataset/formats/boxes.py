"""What the formats with boxes share: a box is a defect, its category is the defect's type, no box is good."""

import posixpath
from collections.abc import Sequence
from dataclasses import replace

from inspection.dataset.formats.lists import ListBuilder
from inspection.dataset.images import Shipped, SourceImage, main_type
from inspection.dataset.manifest import Box
from inspection.dataset.options import SourceOptions, read_label
from inspection.dataset.places import is_absolute, with_slashes
from inspection.errors import DataError

Boxes = Sequence[tuple[str, Box | None]]  # category and place of each; None: a shape without a place


def boxed_image(
    uri: str, boxes: Boxes, options: SourceOptions, shipped: Shipped = "", human: bool | None = None
) -> SourceImage:
    """An image with the boxes that were drawn on it.

    Args:
        uri: of the image.
        boxes: in px. A category that is spelled like a good part's label is no defect.
        options: the spellings.
        shipped: the part of the division that it came in.
        human: whether people drew them.
    """
    good = {label.casefold() for label in options.good_labels}
    defects = [(name, box) for name, box in boxes if name.casefold() not in good]
    placed = [(name, box) for name, box in defects if box is not None]
    return SourceImage(
        uri=uri,
        version="",
        label="bad" if defects else "good",
        defect_type=main_type([name for name, _ in defects]),
        mask=None,
        group=uri,
        boxes=tuple(box for _, box in placed),
        box_types=tuple(name for name, _ in placed),
        shipped=shipped,
        human_annotated=human,
    )


def rectangle_around(points: Sequence[tuple[float, float]]) -> Box:
    """The smallest box around a shape's corners."""
    left, top = min(x for x, _ in points), min(y for _, y in points)
    return left, top, max(x for x, _ in points) - left, max(y for _, y in points) - top


def uri_below(builder: ListBuilder, folder: str, reference: str, entry: int) -> str:
    """The uri of a reference that is relative to a folder of the location."""
    reference = with_slashes(reference)
    return builder.uri(reference if is_absolute(reference) else posixpath.join(folder, reference), entry)


def with_labels(image: SourceImage, words: Sequence[str], options: SourceOptions, where: str) -> SourceImage:
    """The image with what was said of it as a whole, beside its boxes.

    Args:
        image: with its boxes.
        words: tags or choices, in the spellings of the options.
        options: which word means what.
        where: file and place in it, for messages.

    Raises:
        DataError: it was called good and has a defect, or a word is not known.
    """
    for label, kind in [read_label(word, options, where) for word in words]:
        if label == "good" and image.label == "bad":
            raise DataError(f"{where}: {image.uri!r} is labelled good and has defects; correct that and export again")
        if label == "bad":
            image = replace(image, label="bad", defect_type=image.defect_type or kind)
    return image
