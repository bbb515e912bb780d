"""The layout of MVTec AD.

    train/good/000.png    test/good/000.png    test/<defect type>/000.png    ground_truth/<defect type>/000_mask.png

Its training part has good parts only, so it is not used as a division: see `leave_undivided`.
"""

import logging

from inspection.dataset.files import shown
from inspection.dataset.folders import is_mvtec
from inspection.dataset.formats.reading import Format, Reading, stem
from inspection.dataset.images import Shipped, SourceImage, leave_undivided
from inspection.errors import DataError

_log = logging.getLogger(__name__)

_WANTED = "MVTec AD's train/good, test/<defect type> and ground_truth/<defect type>"
_SHIPPED: dict[str, Shipped] = {"train": "train", "test": "validation"}


def _fits(reading: Reading) -> bool:
    return not reading.is_list and is_mvtec(reading)


def _read(reading: Reading) -> list[SourceImage]:
    masks: dict[tuple[str, str], str] = {}
    images, others = [], []
    for file in reading.pictures:
        top, kind, *below = file.uri.split("/")[:-1] + [""] * 2
        if top.lower() == "ground_truth":
            masks[kind, stem(file.uri).removesuffix("_mask")] = file.uri
        elif top.lower() in _SHIPPED and kind and not any(below):
            images.append((file, kind, _SHIPPED[top.lower()]))
        else:
            others.append(file.uri)
    if not images:
        raise DataError(f"{reading.location}: want {_WANTED}, found {reading.describe()}")
    if others:
        _log.warning("event=images_without_label_ignored count=%d files=%s", len(others), shown(others))
    found = [
        SourceImage(file.uri, file.version, "good", None, None, file.uri, shipped=shipped)
        if kind.lower() == "good"
        else SourceImage(
            file.uri, file.version, "bad", kind, masks.pop((kind, stem(file.uri)), None), file.uri, shipped=shipped
        )
        for file, kind, shipped in images
    ]
    if masks:
        _log.warning("event=masks_without_image count=%d files=%s", len(masks), shown(sorted(masks.values())))
    return leave_undivided(found, reading.location)


MVTEC = Format("mvtec", _WANTED, _fits, _read)
