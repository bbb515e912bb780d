"""Manifests of Amazon Ground Truth and of Lookout for Vision: one JSON object per line, with a `source-ref`.

A label is the value of an attribute whose `…-metadata` tells its type: image classification (also with several labels),
object detection (a box is a defect, no box is good), semantic segmentation (`…-ref` names a mask whose colours mean
types). Lookout for Vision gives a classification, `anomaly-label`, and a mask, `anomaly-mask-ref`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge.errors import ImageError
from inspection.dataset.annotations import decode_mask
from inspection.dataset.files import shown
from inspection.dataset.formats.lists import ListBuilder
from inspection.dataset.formats.reading import Format, Reading
from inspection.dataset.images import SourceImage, main_type
from inspection.dataset.manifest import Box, Label
from inspection.dataset.options import Columns, SourceOptions, read_label
from inspection.errors import DataError

_log = logging.getLogger(__name__)

_METADATA = "-metadata"
_CLASS, _MULTI = "groundtruth/image-classification", "groundtruth/image-classification-multilabel"
_BOXES, _MASK = "groundtruth/object-detection", "groundtruth/semantic-segmentation"
_BACKGROUND = "background"


@dataclass(frozen=True)
class _Told:
    """What one attribute of a line says."""

    label: Label | None = None  # None: only the mask's pixels tell
    types: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    mask: str | None = None
    colors: tuple[tuple[str, str], ...] = ()
    confidence: float | None = None
    human: bool | None = None


def _read(reading: Reading) -> list[SourceImage]:
    names = reading.lists(".manifest", ".jsonl")
    if len(names) != 1:
        found = shown(names) if names else reading.describe()
        raise DataError(f"{reading.location}: want one manifest, found {found}; give the manifest's file itself")
    builder = ListBuilder(reading, names[0])
    unlabelled, undecided = [], []
    for line, row in reading.rows(names[0]):
        where = builder.where(line)
        reference = row.get("source-ref")
        if not isinstance(reference, str) or not reference:
            raise DataError(f"{where}: want a source-ref that names an image, found {reference!r}")
        uri = builder.uri(reference, line)
        told = [_tell(name, row, reading.options, where) for name in _attributes(row, reading.options.columns, where)]
        if not told:
            unlabelled.append(f"{line} ({reference})")
            continue
        image = _image(uri, told, builder, line)
        builder.add(image, line)
        if all(one.label is None for one in told):
            undecided.append(image)
    if not builder.images:
        raise DataError(f"{reading.name(names[0])}: no labelled images in this manifest")
    if unlabelled:
        _log.warning("event=lines_without_label_ignored count=%d lines=%s", len(unlabelled), shown(unlabelled))
    return _decide_by_masks(builder.images, undecided, reading) if undecided else builder.images


def _attributes(row: Mapping[str, Any], columns: Columns, where: str) -> list[str]:
    """Names of the attributes that label the image: one, or a label and a mask of the same job."""
    chosen = columns.label if columns.label != "label" else ""
    found = {}
    for name in row:
        metadata = row.get(name + _METADATA)
        if isinstance(metadata, dict) and "failure-reason" not in metadata and row[name] is not None:
            found[name] = metadata.get("type")
    known = {name: kind for name, kind in found.items() if kind in (_CLASS, _MULTI, _BOXES, _MASK)}
    if found and not known:
        listed = ", ".join(f"{name} ({kind})" for name, kind in found.items())
        raise DataError(
            f"{where}: no label of a type that is known here; want {_CLASS}, {_MULTI}, {_BOXES} or {_MASK}, "
            f"found {listed}"
        )
    if chosen:
        known = {name: kind for name, kind in known.items() if name == chosen or kind == _MASK}
        if found and chosen not in known:
            raise DataError(
                f"{where}: no attribute {chosen!r}, which [data.columns] label names; found {', '.join(found)}"
            )
    deciding = [name for name, kind in known.items() if kind != _MASK]
    masks = [name for name, kind in known.items() if kind == _MASK]
    if len(deciding) > 1 or len(masks) > 1:
        raise DataError(
            f"{where}: several attributes label the image: {', '.join(deciding + masks)}; say which counts with "
            "[data.columns] label"
        )
    return deciding + masks


def _tell(name: str, row: Mapping[str, Any], options: SourceOptions, where: str) -> _Told:
    value, metadata = row[name], row[name + _METADATA]
    where = f"{where}: {name}"
    human = {"yes": True, "no": False}.get(metadata.get("human-annotated"))
    kind = metadata["type"]
    try:
        if kind == _CLASS:
            spelled = str(metadata.get("class-name", value))
            label, type_ = read_label(spelled, options, where)
            return _Told(label, (type_,) if type_ else (), confidence=_number(metadata.get("confidence")), human=human)
        if kind == _MULTI:
            return _tell_several(value, metadata, options, where, human)
        if kind == _BOXES:
            return _tell_boxes(value, metadata, human)
        return _tell_mask(value, metadata, human)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise DataError(f"{where}: not as {kind} is written: {type(error).__name__} {error}") from None


def _tell_several(
    value: Sequence[Any], metadata: Mapping[str, Any], options: SourceOptions, where: str, human: bool | None
) -> _Told:
    names = [metadata["class-map"][str(number)] for number in value]
    read = [read_label(name, options, where) for name in names]
    confidences = [_number(number) for number in metadata.get("confidence-map", {}).values()]
    types = tuple(type_ for _, type_ in read if type_)
    bad = any(label == "bad" for label, _ in read)
    return _Told("bad" if bad else "good", types, confidence=_least(confidences), human=human)


def _tell_boxes(value: Mapping[str, Any], metadata: Mapping[str, Any], human: bool | None) -> _Told:
    names = metadata.get("class-map", {})
    boxes, types = [], []
    for box in value["annotations"]:
        left, top, width, height = (float(box[side]) for side in ("left", "top", "width", "height"))
        boxes.append((left, top, width, height))
        types.append(str(names[str(box["class_id"])]))
    confidence = _least([_number(each.get("confidence")) for each in metadata.get("objects", [])])
    return _Told("bad" if boxes else "good", tuple(types), tuple(boxes), confidence=confidence, human=human)


def _tell_mask(value: str, metadata: Mapping[str, Any], human: bool | None) -> _Told:
    entries = [entry for entry in metadata["internal-color-map"].values()]
    defects = [entry for entry in entries if entry["class-name"].casefold() != _BACKGROUND]
    colors = tuple((entry["hex-color"].lower(), entry["class-name"]) for entry in defects)
    if not colors:
        return _Told("good", human=human)  # a mask of nothing but background
    confidence = _least([_number(entry.get("confidence")) for entry in defects])
    return _Told(None, tuple(name for _, name in colors), mask=value, colors=colors, confidence=confidence, human=human)


def _image(uri: str, told: Sequence[_Told], builder: ListBuilder, line: int) -> SourceImage:
    """What the attributes of a line say together; a label beats what a mask suggests."""
    label: Label = next((one.label for one in told if one.label is not None), "bad")
    types = next((one.types for one in told if one.types), ())
    mask = next((one for one in told if one.mask), None) if label == "bad" else None
    boxes = next((one.boxes for one in told if one.boxes), ())
    return SourceImage(
        uri=uri,
        version="",
        label=label,
        defect_type=main_type(types) if label == "bad" else None,
        mask=builder.uri(mask.mask, line) if mask and mask.mask else None,
        group=uri,
        boxes=boxes,
        box_types=types if boxes else (),
        mask_colors=mask.colors if mask else (),
        confidence=next((one.confidence for one in told if one.confidence is not None), None),
        human_annotated=next((one.human for one in told if one.human is not None), None),
    )


def _decide_by_masks(
    images: Sequence[SourceImage], undecided: Sequence[SourceImage], reading: Reading
) -> list[SourceImage]:
    """Read the masks of a segmentation job, whose colour map may name types that the picture has not."""
    masks = [image.mask for image in undecided if image.mask]
    reading.places.fetch(masks, progress=True)
    decided = {}
    for image in undecided:
        assert image.mask is not None
        try:
            data = reading.places.read(image.mask)
        except OSError as error:
            raise DataError(
                f"{reading.location}: the mask {image.mask!r} of {image.uri!r} cannot be read "
                f"({error.strerror or error}), and nothing else says whether the part is good"
            ) from error
        types = _types_in_mask(data, image)
        if types:
            colors = tuple(pair for pair in image.mask_colors if pair[1] in types)
            decided[image.uri] = replace(image, defect_type=types[0], mask_colors=colors)
        else:
            decided[image.uri] = replace(image, label="good", defect_type=None, mask=None, mask_colors=())
    return [decided.get(image.uri, image) for image in images]


def _types_in_mask(data: bytes, image: SourceImage) -> list[str]:
    """Defect types whose colour is in the mask, the one with the largest area first."""
    assert image.mask is not None
    try:
        areas = [(int(decode_mask(data, image.mask, [color]).sum()), name) for color, name in image.mask_colors]
    except ImageError as error:
        raise DataError(f"{error}; nothing else says whether the part is good: replace the mask") from error
    return [name for area, name in sorted(areas, key=lambda item: (-item[0], item[1])) if area]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _least(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None


def _fits(reading: Reading) -> bool:
    names = reading.lists(".manifest", ".jsonl")
    return any(_is_manifest(reading, name) for name in names)


def _is_manifest(reading: Reading, name: str) -> bool:
    if name.lower().endswith(".manifest"):
        return True
    try:
        first = next(iter(reading.rows(name)), None)
    except DataError:
        return False
    return first is not None and "source-ref" in first[1]


MANIFEST = Format("manifest", "a Ground Truth or Lookout for Vision manifest (source-ref on each line)", _fits, _read)
