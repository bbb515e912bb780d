"""Images in folders that are named by their labels.

    train/good/…  train/bad/…  train/bad/<defect type>/…       divided by whoever made the set;
    validation/good/…  validation/bad/…                        validation becomes the holdout

    good/…  <defect type>/…  <defect type>/…                   or bad/… for bad parts of no known type

Any depth of folders below. Masks, if there are any, lie beside in `masks/<defect type>/<same path, .png>`.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from inspection.dataset.manifest import Label
from inspection.errors import DataError

_log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
WANTED = (
    "want train/good, train/bad (and validation/good, validation/bad if you divide yourself), or good/ beside one "
    "folder per defect type (or bad/), holding " + " ".join(sorted(SUFFIXES))
)
Shipped = Literal["train", "validation", ""]
_PARTS: dict[str, Shipped] = {"train": "train", "validation": "validation"}
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Labelled:
    """A file of a folder with what its path says of it."""

    uri: str
    size: int  # bytes
    mtime_ns: int
    label: Label
    defect_type: str | None
    mask: str | None
    shipped: Shipped


@dataclass(frozen=True, slots=True)
class _File:
    uri: str
    size: int
    mtime_ns: int


def find_images(root: Path) -> list[Labelled]:
    """Find the images below a folder and read their labels from their paths.

    What is left out is said in the log: how many hidden files, which other files, which images have no label.

    Returns:
        Sorted by uri.

    Raises:
        DataError: the folder is missing, cannot be read, is empty or has no layout that is known here.
    """
    files = sorted(_walk(root), key=lambda file: file.uri)
    images = [file for file in files if PurePosixPath(file.uri).suffix.lower() in SUFFIXES]
    if not images:
        found = shown([file.uri for file in files]) if files else "nothing"
        raise DataError(f"{root}: no images here; {WANTED}; found {found}")
    divided = _is_divided(images, root)
    masks = {file.uri for file in images if _is_mask(file.uri, divided)}
    others = [file.uri for file in files if PurePosixPath(file.uri).suffix.lower() not in SUFFIXES]
    labelled, unlabelled = [], []
    for file in images:
        if file.uri in masks:
            continue
        item = _label(file, divided, masks)
        if item is None:
            unlabelled.append(file.uri)
        else:
            labelled.append(item)
    if not labelled:
        raise DataError(f"{root}: no layout that is known here; {WANTED}; found {shown(unlabelled)}")
    if unlabelled:
        _log.warning("event=images_without_label_ignored count=%d files=%s", len(unlabelled), shown(unlabelled))
    if others:
        _log.info("event=other_files_ignored count=%d files=%s", len(others), shown(others))
    unused = masks - {item.mask for item in labelled}
    if unused:
        _log.warning("event=masks_without_image count=%d files=%s", len(unused), shown(sorted(unused)))
    return labelled


def _is_divided(images: list[_File], root: Path) -> bool:
    """Whether the layout is train/ and validation/; the alternative is good/ beside defect types."""
    tops = {file.uri.split("/")[0] for file in images if "/" in file.uri}
    parts, labels = {top for top in tops if top.lower() in _PARTS}, {top for top in tops if top.lower() == "good"}
    if parts and labels:
        raise DataError(
            f"{root}: both {sorted(parts)} and {sorted(labels)} are here, so the layout is not clear; {WANTED}"
        )
    if not parts and not labels:
        raise DataError(
            f"{root}: no layout that is known here; {WANTED}; found {shown(sorted(tops) or ['files only'])}"
        )
    return bool(parts)


def _is_mask(uri: str, divided: bool) -> bool:
    folders = uri.lower().split("/")[:-1]
    return folders[:1] == ["masks"] or (divided and folders[1:2] == ["masks"])


def _label(file: _File, divided: bool, masks: set[str]) -> Labelled | None:
    """What the path says; None if it has no place in the layout."""
    folders = file.uri.split("/")[:-1]
    shipped: Shipped = ""
    top = ""
    if divided:
        if not folders or folders[0].lower() not in _PARTS:
            return None
        top, folders = folders[0] + "/", folders[1:]
        shipped = _PARTS[top[:-1].lower()]
    if not folders:
        return None
    kind, below = folders[0], folders[1:]
    name = PurePosixPath(file.uri).stem + ".png"
    if kind.lower() == "good":
        return Labelled(file.uri, file.size, file.mtime_ns, "good", None, None, shipped)
    defect_type: str | None = kind
    if kind.lower() == "bad":
        defect_type, below = (below[0], below[1:]) if below else (None, [])
    mask_path = "/".join(["masks", defect_type or kind, *below, name])
    mask = next((uri for uri in (top + mask_path, mask_path) if uri in masks), None)
    return Labelled(file.uri, file.size, file.mtime_ns, "bad", defect_type, mask, shipped)


def _walk(root: Path) -> Iterator[_File]:
    """Every file below the folder but hidden ones; links are followed, each folder once."""
    hidden, seen = 0, set()
    folders = [""]
    while folders:
        folder = folders.pop()
        path = root / folder
        try:
            place = path.stat()
            if (place.st_dev, place.st_ino) in seen:
                continue  # a link back to a folder above
            seen.add((place.st_dev, place.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    uri = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.name.startswith("."):
                        hidden += 1
                    elif entry.is_dir():
                        folders.append(uri)
                    else:
                        status = entry.stat()
                        yield _File(uri, status.st_size, status.st_mtime_ns)
        except OSError as error:
            raise DataError(
                f"{error.filename or path}: cannot read the images ({error.strerror}); "
                "give a folder with [data] source or --data"
            ) from error
    if hidden:
        _log.info("event=hidden_files_ignored count=%d", hidden)


def shown(uris: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(uris) - SHOWN} more" if len(uris) > SHOWN else ""
    return ", ".join(uris[:SHOWN]) + more
