"""What a person should know of the images before they are trained on."""

import logging

import numpy as np

from edge.contract import InputContract
from edge.errors import ImageError
from inspection.dataset.annotations import decode_mask
from inspection.dataset.images import Source
from inspection.dataset.intake import open_images
from inspection.dataset.manifest import ImageRow, Snapshot
from inspection.model.resolution import defect_side_px, input_size_warning
from inspection.settings import Settings

log = logging.getLogger(__name__)

MASKS_PER_TYPE = 50  # more do not move a median


def warn_of_small_defects(settings: Settings, snapshot: Snapshot) -> str:
    """Say when the input is too small for the defects that the training part has masks of; "" when it is not."""
    source = open_images(settings, snapshot.location)
    contract = settings.input.contract()
    sides: dict[str, list[float]] = {}
    for row in snapshot.select("train"):
        of_type = sides.setdefault(row.defect_type or "bad", [])
        mask = _read_mask(source, row, contract) if len(of_type) < MASKS_PER_TYPE else None
        if mask is not None:
            of_type.append(defect_side_px(mask, contract))
    warning = input_size_warning(sides, contract)
    if warning:
        log.warning("event=input_too_small what=%r", warning)
    return warning or ""


def _read_mask(source: Source, row: ImageRow, contract: InputContract) -> np.ndarray | None:
    """The part of an image's mask that lies in the region of interest, bool [h, w].

    None where there is no mask or none that can be read, of which the examination has warned.
    """
    if row.mask is None:
        return None
    try:
        defective = decode_mask(source.read(row.mask), row.mask, [color for color, _ in row.mask_colors])
    except (OSError, ImageError):
        return None
    if contract.roi is None:
        return defective
    roi = contract.roi
    return defective[roi.top : roi.top + roi.height, roi.left : roi.left + roi.width]
