"""Bringing a set to the line's own place, in the layout that all of Lineside knows.

    <line>/labeled-data/train/good/…            images that are not divided lie in train/ too
    <line>/labeled-data/train/bad/<defect type>/…
    <line>/labeled-data/validation/…
    <line>/labeled-data/<part>/masks/…          255 where the defect is
    <line>/labeled-data/lists/imported.jsonl    what folders cannot say: group, lot, station, view, boxes

Files are copied byte for byte and nothing that is there is ever replaced: another picture of the same name gets the
first digits of its digest behind its own. Bringing the same set again copies nothing.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from edge.errors import ImageError
from inspection.dataset.annotations import decode_mask
from inspection.dataset.files import SUFFIXES, shown
from inspection.dataset.images import Source, SourceImage
from inspection.dataset.manifest import dump_document
from inspection.dataset.parallel import available_cores, map_ahead, progress_bar
from inspection.errors import DataError
from inspection.storage import ObjectExistsError, Storage

_AHEAD = 16
_DIGITS = 12  # of a digest in a name
_SUFFIX_OF = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"BM": ".bmp"}
_NO_TYPE = "bad"  # folder of masks whose image has no defect type


@dataclass(frozen=True)
class Brought:
    """What bringing a set did."""

    place: str  # key prefix of the labelled data
    list_key: str
    copied: int  # images
    already: int  # images that were there with the same content
    renamed: int  # of the copied: another picture had the name
    masks: int  # copied
    counts: dict[str, int]  # images of the set by part and class, such as "train/bad/scratch"


@dataclass(frozen=True)
class _Placed:
    image: SourceImage
    key: str
    state: str  # "copied", "renamed" or "already"
    sha256: str
    mask: str | None = None
    is_mask_new: bool = False


def bring(images: Sequence[SourceImage], source: Source, storage: Storage, line: str, progress: bool = True) -> Brought:
    """Copy a set into the line's labelled data.

    Args:
        images: of the source.
        source: reads them.
        storage: where to.
        line: name of the line.
        progress: show a bar on stderr if that is a terminal.

    Raises:
        DataError: an image cannot be read.
        StorageError: storage cannot be written.
    """
    place = f"{line}/labeled-data"
    placed: list[_Placed] = []
    with (
        ThreadPoolExecutor(available_cores()) as pool,
        progress_bar(len(images), progress, "copying images") as advance,
    ):
        for one in map_ahead(pool, lambda image: _bring_one(image, source, storage, place), list(images), _AHEAD):
            placed.append(one)
            advance(1)
    list_key = f"{place}/lists/imported.jsonl"
    _write_list(storage, place, list_key, placed)
    return Brought(
        place=place,
        list_key=list_key,
        copied=sum(one.state != "already" for one in placed),
        already=sum(one.state == "already" for one in placed),
        renamed=sum(one.state == "renamed" for one in placed),
        masks=sum(one.is_mask_new for one in placed),
        counts=dict(sorted(Counter(_folder(one.image) for one in placed).items())),
    )


def _bring_one(image: SourceImage, source: Source, storage: Storage, place: str) -> _Placed:
    try:
        data = source.read(image.uri)
    except OSError as error:
        raise DataError(
            f"{source.location}: cannot read {image.uri} ({error.strerror or error}); correct that, or leave it out "
            "with --drop-bad-images"
        ) from error
    sha256 = hashlib.sha256(data).hexdigest()
    name = _file_name(image.uri, data)
    key, state = _put(storage, f"{place}/{_folder(image)}", name, data, sha256)
    mask, is_new = _bring_mask(image, source, storage, place, key)
    return _Placed(image, key, state, sha256, mask, is_new)


def _put(storage: Storage, folder: str, name: str, data: bytes, sha256: str) -> tuple[str, str]:
    """Key and what became of it: "copied", "renamed" (copied under another name) or "already" (there)."""
    path = PurePosixPath(name)
    for key, state in (
        (f"{folder}/{name}", "copied"),
        (f"{folder}/{path.stem}-{sha256[:_DIGITS]}{path.suffix}", "renamed"),
    ):
        try:
            storage.create(key, data)
        except ObjectExistsError:
            if hashlib.sha256(storage.read(key)).hexdigest() == sha256:
                return key, "already"
            continue
        return key, state
    raise DataError(f"{storage.root}/{folder}/{name}: two other pictures bear this name and digest; remove one of them")


def _bring_mask(
    image: SourceImage, source: Source, storage: Storage, place: str, image_key: str
) -> tuple[str | None, bool]:
    """Key of the mask, and whether it was not there before; no key if the mask cannot be read, as the check tells."""
    if image.mask is None or image.label == "good":
        return None, False
    try:
        marked = decode_mask(source.read(image.mask), image.mask, [color for color, _ in image.mask_colors])
    except (OSError, ImageError):
        return None, False
    stream = io.BytesIO()
    Image.fromarray(marked.astype(np.uint8) * 255).save(stream, "PNG")
    kind = _folder_name(image.defect_type) if image.defect_type else _NO_TYPE
    key = f"{place}/{_part(image)}/masks/{kind}/{PurePosixPath(image_key).stem}.png"
    try:
        storage.create(key, stream.getvalue())
    except ObjectExistsError:
        if storage.read(key) != stream.getvalue():
            raise DataError(
                f"{storage.root}/{key}: another mask of this picture is there; nothing is overwritten: "
                "remove the one that is wrong, then import again"
            ) from None
        return key, False
    return key, True


def _write_list(storage: Storage, place: str, key: str, placed: Sequence[_Placed]) -> None:
    """Add the images to the list of all that were ever brought."""
    rows: dict[str, dict[str, Any]] = {}
    if storage.exists(key):
        for line in storage.read(key).decode().splitlines():
            row = json.loads(line)
            rows[row["path"]] = row
    for one in placed:
        row = _describe(one, place)
        before = rows.setdefault(row["path"], row)
        if before["sha256"] == row["sha256"]:
            rows[row["path"]] = row
    text = "\n".join([*(dump_document(row) for _, row in sorted(rows.items())), ""])
    if not storage.exists(key) or storage.read(key) != text.encode():
        storage.write(key, text.encode())


def _describe(one: _Placed, place: str) -> dict[str, Any]:
    image = one.image
    row = {
        "path": one.key.removeprefix(f"{place}/"),
        "label": image.label,
        "defect_type": image.defect_type,
        "mask": one.mask and one.mask.removeprefix(f"{place}/"),
        "group": image.group if image.group != image.uri else None,
        "lot": image.lot,
        "station": image.station,
        "view": image.view,
        "split": image.shipped or None,
        "boxes": [list(box) for box in image.boxes] or None,
        "box_types": list(image.box_types) or None,
        "confidence": image.confidence,
        "human_annotated": image.human_annotated,
        "imported_from": image.uri,
        "sha256": one.sha256,
    }
    return {name: value for name, value in row.items() if value is not None}


def _part(image: SourceImage) -> str:
    return image.shipped or "train"


def _folder(image: SourceImage) -> str:
    """Where the image belongs, below the labelled data."""
    if image.label == "good":
        return f"{_part(image)}/good"
    return f"{_part(image)}/bad" + (f"/{_folder_name(image.defect_type)}" if image.defect_type else "")


def _folder_name(name: str) -> str:
    """A defect type as the name of one folder."""
    return _plain(name).lstrip(".") or "_"


def _file_name(uri: str, data: bytes) -> str:
    """The file's own name, with a suffix that says which kind of picture it is."""
    name = _plain(uri.rpartition("/")[2]).lstrip(".") or "_"
    if PurePosixPath(name).suffix.lower() in SUFFIXES:
        return name
    return name + next((suffix for magic, suffix in _SUFFIX_OF.items() if data.startswith(magic)), ".tif")


def _plain(name: str) -> str:
    return "".join("_" if character in "/\\\0" else character for character in name)


def describe(brought: Brought) -> str:
    """One line."""
    again = f", {brought.already:,} were there already" if brought.already else ""
    other = f", {brought.renamed:,} of them under another name" if brought.renamed else ""
    masks = f", {brought.masks:,} masks" if brought.masks else ""
    return f"{brought.copied:,} images copied{other}{masks}{again}: {shown(list(brought.counts))}"
