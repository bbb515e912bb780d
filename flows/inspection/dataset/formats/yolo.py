"""YOLO: beside each image a text file with a line for each box: class, centre x, centre y, width, height (0 to 1).

    data.yaml    images/train/a.jpg  labels/train/a.txt       or train/images/a.jpg  train/labels/a.txt
    obj.names    obj_train_data/a.jpg  obj_train_data/a.txt   as CVAT exports it (YOLO 1.1)

A line with more numbers is an outline, whose surrounding rectangle is taken. An image without a text file, or with an
empty one, has no box and is good.
"""

import io
import logging
import math
import posixpath
import re
from concurrent.futures import ThreadPoolExecutor

import yaml  # type: ignore[import-untyped]
from PIL import Image, UnidentifiedImageError

from inspection.dataset.files import File, shown
from inspection.dataset.folders import PARTS
from inspection.dataset.formats.boxes import boxed_image, rectangle_around
from inspection.dataset.formats.reading import Format, Reading
from inspection.dataset.images import Shipped, SourceImage
from inspection.dataset.manifest import Box
from inspection.errors import DataError

_log = logging.getLogger(__name__)

_WANTED = "YOLO's images/ and labels/ with one .txt per image, or obj.names"
_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "classes.txt", "obj.names")
_TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations in which width and height change places
_EXIF_ORIENTATION = 0x0112


def _label_file(uri: str) -> str:
    """The text file of an image."""
    *folders, name = uri.split("/")
    for place in reversed(range(len(folders))):
        if folders[place].lower() == "images":
            folders[place] = "labels"
            break
    return "/".join([*folders, name[: name.rfind(".")] + ".txt"])


def _fits(reading: Reading) -> bool:
    if reading.is_list:
        return bool(reading.lists(".yaml", ".yml")) and "names" in _document(reading, reading.list_name)
    texts = {file.uri for file in reading.files if file.uri.endswith(".txt")}
    return bool(texts) and any(
        _label_file(file.uri) in texts and ("images" in file.uri.lower().split("/")[:-1] or _is_darknet(reading))
        for file in reading.pictures
    )


def _is_darknet(reading: Reading) -> bool:
    return any(file.uri == "obj.names" for file in reading.files)


def _read(reading: Reading) -> list[SourceImage]:
    if reading.is_list:
        raise DataError(f"{reading.location}: give the folder in which {reading.list_name} lies")
    names = _class_names(reading)
    texts = {file.uri for file in reading.files if file.uri.endswith(".txt")}
    pictures = [file for file in reading.pictures if "labels" not in file.uri.lower().split("/")[:-1]]
    labels = [_label_file(file.uri) for file in pictures if _label_file(file.uri) in texts]
    if not labels:
        raise DataError(f"{reading.location}: want {_WANTED}, found {reading.describe()}")
    lacking = [file.uri for file in pictures if _label_file(file.uri) not in texts]
    if lacking:
        _log.warning("event=images_without_label_file_are_good count=%d files=%s", len(lacking), shown(lacking))
    reading.places.fetch(labels, progress=True)
    with ThreadPoolExecutor(8) as pool:
        lines = dict(zip(labels, pool.map(reading.text, labels), strict=True))
    boxed = [file.uri for file in pictures if lines.get(_label_file(file.uri), "").strip()]
    reading.places.fetch(boxed, progress=True)  # their sizes turn shares into pixels
    return [_image(reading, file, lines.get(_label_file(file.uri), ""), names) for file in pictures]


def _image(reading: Reading, file: File, text: str, names: dict[int, str]) -> SourceImage:
    size = _size(reading, file.uri) if text.strip() else None
    boxes: list[tuple[str, Box | None]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{reading.name(_label_file(file.uri))}: line {number}"
        name, shares = _parse(line, names, where)
        boxes.append((name, _to_pixels(shares, *size) if size else None))
    words = re.split(r"[/_]", posixpath.dirname(file.uri).lower())
    shipped: Shipped = next((PARTS[word] for word in words if word in PARTS), "")
    return boxed_image(file.uri, boxes, reading.options, shipped)


def _parse(line: str, names: dict[int, str], where: str) -> tuple[str, Box]:
    """The class and the box of a line, left, top, width, height as shares."""
    try:
        number, *values = line.split()
        shares = [float(value) for value in values]
        index = int(number)
    except ValueError:
        raise DataError(f"{where}: want a class number and numbers from 0 to 1, found {line[:80]!r}") from None
    if len(shares) in (4, 5):  # a fifth is a model's confidence
        x, y, width, height = shares[:4]
        box = (x - width / 2, y - height / 2, width, height)
    elif len(shares) >= 6 and len(shares) % 2 == 0:
        box = rectangle_around(list(zip(shares[::2], shares[1::2], strict=True)))
    else:
        raise DataError(f"{where}: want 4 numbers of a box or the corners of an outline, found {len(shares)} numbers")
    if not all(math.isfinite(share) for share in shares):
        raise DataError(f"{where}: want numbers from 0 to 1, found {line[:80]!r}")
    if max(abs(share) for share in shares) > 2:
        raise DataError(f"{where}: want shares from 0 to 1, found {line[:80]!r}, which look like pixels")
    if names and index not in names:
        raise DataError(f"{where}: no class has the number {index}; there are {len(names)}")
    return names.get(index, f"class-{index}"), box


def _to_pixels(box: Box, width: int, height: int) -> Box:
    left, top, wide, high = box
    return left * width, top * height, wide * width, high * height


def _size(reading: Reading, uri: str) -> tuple[int, int] | None:
    """Width and height in px as a person sees the picture; None if it cannot be decoded, which the checks report."""
    try:
        with Image.open(io.BytesIO(reading.places.read(uri))) as picture:
            turned = picture.getexif().get(_EXIF_ORIENTATION) in _TURNED
            return (picture.height, picture.width) if turned else picture.size
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        _log.warning("event=boxes_without_place file=%s reason=the_picture_cannot_be_decoded", uri)
        return None


def _class_names(reading: Reading) -> dict[int, str]:
    """Names of the classes by number; empty where none are given."""
    for file in reading.files:
        name = posixpath.basename(file.uri).lower()
        if name not in _NAMES or file.uri.count("/") > 1:
            continue
        if name.endswith((".yaml", ".yml")):
            names = _document(reading, file.uri).get("names") or {}
            pairs = names.items() if isinstance(names, dict) else enumerate(names)
            return {int(number): str(text) for number, text in pairs}
        lines = [line.strip() for line in reading.text(file.uri).split("\n")]
        return dict(enumerate(line for line in lines if line))
    _log.warning("event=no_class_names where=%s types_are_numbered=true", reading.location)
    return {}


def _document(reading: Reading, uri: str) -> dict:
    try:
        document = yaml.safe_load(reading.text(uri))
    except yaml.YAMLError as error:
        raise DataError(f"{reading.name(uri)}: not valid YAML ({error})") from None
    return document if isinstance(document, dict) else {}


YOLO = Format("yolo", _WANTED, _fits, _read)
