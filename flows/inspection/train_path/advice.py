"""What a person should know of the images before they are trained on."""

import io
import logging

import numpy as np
from PIL import Image

from edge.contract import InputContract
from inspection.dataset.intake import open_images
from inspection.dataset.manifest import Snapshot
from inspection.errors import DataError
from inspection.model.resolution import defect_side_px, input_size_warning
from inspection.settings import Settings

log = logging.getLogger(__name__)

MASKS_PER_TYPE = 50  # more do not move a median


def warn_of_small_defects(settings: Settings, snapshot: Snapshot) -> str:
    """Say when the input is too small for the defects that the training part has masks of; "" when it is not.

    Raises:
        DataError: a mask cannot be read.
    """
    source = open_images(settings, snapshot.location)
    contract = settings.input.contract()
    sides: dict[str, list[float]] = {}
    for row in snapshot.select("train"):
        of_type = sides.setdefault(row.defect_type or "bad", [])
        if row.mask is None or len(of_type) >= MASKS_PER_TYPE:
            continue
        of_type.append(defect_side_px(_read_mask(source.read(row.mask), contract, row.mask), contract))
    warning = input_size_warning(sides, contract)
    if warning:
        log.warning("event=input_too_small what=%r", warning)
    return warning or ""


def _read_mask(data: bytes, contract: InputContract, where: str) -> np.ndarray:
    """The part of a mask that lies in the region of interest, bool [h, w]."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            mask = np.asarray(picture)
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: want a mask that can be decoded, found {error}; replace it or remove it") from error
    defective: np.ndarray = (mask.reshape(*mask.shape[:2], -1) != 0).any(axis=2)
    if contract.roi is None:
        return defective
    roi = contract.roi
    return defective[roi.top : roi.top + roi.height, roi.left : roi.left + roi.width]
