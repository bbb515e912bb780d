"""Images in folders that are named by their labels.

    train/good/…  train/bad/…  train/bad/<defect type>/…       divided by whoever made the set;
    validation/good/…  validation/bad/…                        validation (or val, test) becomes the holdout

    good/…  <defect type>/…  <defect type>/…                   or bad/… for bad parts of no known type

Any depth of folders below. `good` and `bad` may be spelled as in `[data] good_labels` and `bad_labels`. Masks, if there
are any, lie beside in `masks/<defect type>/<same path, .png>`.
"""

import logging
from collections.abc import Sequence
from pathlib import PurePosixPath

from inspection.dataset.files import SUFFIXES, File, shown
from inspection.dataset.formats.reading import Format, Reading
from inspection.dataset.images import Shipped, SourceImage
from inspection.dataset.options import SourceOptions
from inspection.errors import DataError

__all__ = ["FOLDER", "SUFFIXES", "is_mvtec", "shown"]

_log = logging.getLogger(__name__)

WANTED = (
    "train/good, train/bad (and validation/good, validation/bad if you divide yourself), or good/ beside one "
    "folder per defect type (or bad/), holding " + " ".join(sorted(SUFFIXES))
)
PARTS: dict[str, Shipped] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "validation",
}


def is_good(name: str, options: SourceOptions) -> bool:
    """Whether a folder of this name holds good parts."""
    return name.casefold() in {label.casefold() for label in options.good_labels}


def is_bad(name: str, options: SourceOptions) -> bool:
    """Whether a folder of this name holds bad parts of no known type."""
    return name.casefold() in {label.casefold() for label in options.bad_labels}


def is_mvtec(reading: Reading) -> bool:
    """Whether this is MVTec AD's layout: nothing but good parts to train on, and a test folder beside."""
    below = {tuple(file.uri.lower().split("/")[:2]) for file in reading.pictures if file.uri.count("/") >= 2}
    tops = {top for top, _ in below}
    return {name for top, name in below if top == "train"} == {"good"} and "test" in tops and "validation" not in tops


def _fits(reading: Reading) -> bool:
    if reading.is_list or is_mvtec(reading):
        return False
    folders = [file.uri.split("/")[:-1] for file in reading.pictures]
    return any(
        (bool(path) and is_good(path[0], reading.options))
        or (
            len(path) > 1
            and path[0].lower() in PARTS
            and (is_good(path[1], reading.options) or is_bad(path[1], reading.options))
        )
        for path in folders
    )


def _read(reading: Reading) -> list[SourceImage]:
    """Read the labels from the paths.

    What is left out is said in the log: which other files, which images have no label.

    Raises:
        DataError: there is no layout that is known here.
    """
    options, pictures = reading.options, reading.pictures
    if not pictures:
        raise DataError(f"{reading.location}: no images here; want {WANTED}; found {reading.describe()}")
    divided = _is_divided(pictures, reading)
    masks = {file.uri for file in pictures if _is_mask(file.uri, divided)}
    labelled, unlabelled = [], []
    for file in pictures:
        if file.uri in masks:
            continue
        item = _label(file, divided, masks, options)
        if item is None:
            unlabelled.append(file.uri)
        else:
            labelled.append(item)
    if not labelled:
        raise DataError(f"{reading.location}: no layout that is known here; want {WANTED}; found {shown(unlabelled)}")
    others = [file.uri for file in reading.files if not file.is_image]
    unused = masks - {item.mask for item in labelled}
    if unlabelled:
        _log.warning("event=images_without_label_ignored count=%d files=%s", len(unlabelled), shown(unlabelled))
    if others:
        _log.info("event=other_files_ignored count=%d files=%s", len(others), shown(others))
    if unused:
        _log.warning("event=masks_without_image count=%d files=%s", len(unused), shown(sorted(unused)))
    return labelled


def _is_divided(images: Sequence[File], reading: Reading) -> bool:
    """Whether the layout is train/ and validation/; the alternative is good/ beside defect types."""
    tops = {file.uri.split("/")[0] for file in images if "/" in file.uri}
    parts = {top for top in tops if top.lower() in PARTS}
    labels = {top for top in tops if is_good(top, reading.options)}
    if parts and labels:
        raise DataError(
            f"{reading.location}: both {sorted(parts)} and {sorted(labels)} are here, so the layout is not clear; "
            f"want {WANTED}"
        )
    if not parts and not labels:
        raise DataError(f"{reading.location}: no layout that is known here; want {WANTED}; found {reading.describe()}")
    return bool(parts)


def _is_mask(uri: str, divided: bool) -> bool:
    folders = uri.lower().split("/")[:-1]
    return folders[:1] == ["masks"] or (divided and folders[1:2] == ["masks"])


def _label(file: File, divided: bool, masks: set[str], options: SourceOptions) -> SourceImage | None:
    """What the path says; None if it has no place in the layout."""
    folders = file.uri.split("/")[:-1]
    shipped: Shipped = ""
    top = ""
    if divided:
        if not folders or folders[0].lower() not in PARTS:
            return None
        top, folders = folders[0] + "/", folders[1:]
        shipped = PARTS[top[:-1].lower()]
    if not folders:
        return None
    kind, below = folders[0], folders[1:]
    name = PurePosixPath(file.uri).stem + ".png"
    if is_good(kind, options):
        return SourceImage(file.uri, file.version, "good", None, None, file.uri, shipped=shipped)
    defect_type: str | None = kind
    if is_bad(kind, options):
        defect_type, below = (below[0], below[1:]) if below else (None, [])
    mask_path = "/".join(["masks", defect_type or kind, *below, name])
    mask = next((uri for uri in (top + mask_path, mask_path) if uri in masks), None)
    return SourceImage(file.uri, file.version, "bad", defect_type, mask, file.uri, shipped=shipped)


FOLDER = Format("folder", WANTED, _fits, _read)
