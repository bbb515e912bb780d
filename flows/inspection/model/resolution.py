"""Is the model's input large enough for the defects?"""

from collections.abc import Mapping, Sequence

import numpy as np

from edge.contract import InputContract

MIN_SIDE_PX = 4.0  # a backbone's first layers halve the picture twice: below this a defect is one pixel there


def defect_side_px(mask: np.ndarray, contract: InputContract) -> float:
    """Smaller side of a defect's bounding box, in pixels of the model's input.

    Args:
        mask: bool or 0/non-zero [h, w], on the original picture (on its region of interest, if there is one).
        contract: how the picture is resized.

    Returns:
        pixels of the model's input; 0.0 for an empty mask.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0.0
    scale_y, scale_x = contract.height / mask.shape[0], contract.width / mask.shape[1]
    if contract.resize == "letterbox":
        scale_x = scale_y = min(scale_x, scale_y)
    elif contract.resize == "center-crop":
        scale_x = scale_y = max(scale_x, scale_y)
    return float(min((rows[-1] - rows[0] + 1) * scale_y, (columns[-1] - columns[0] + 1) * scale_x))


def input_size_warning(sides_px: Mapping[str, Sequence[float]], contract: InputContract) -> str | None:
    """Say when the input is too small for a kind of defect.

    Args:
        sides_px: for each defect type the values of `defect_side_px` of its images.
        contract: the model's input.

    Returns:
        a text that names the types, their size and the input that would do; None when all are large enough.
    """
    medians = {name: float(np.median(sides)) for name, sides in sides_px.items() if len(sides)}
    small = {name: median for name, median in sorted(medians.items()) if 0 < median < MIN_SIDE_PX}
    if not small:
        return None
    factor = MIN_SIDE_PX / min(small.values())
    wanted = int(np.ceil(max(contract.width, contract.height) * factor / 32) * 32)
    kinds = ", ".join(f"{name} ({median:.1f} px)" for name, median in small.items())
    advice = (
        f"set [input] width and height to about {wanted}"
        if wanted <= 512
        else "set [input] roi to the part that matters, and width and height up to 512"
    )
    return (
        f"the input of {contract.width}x{contract.height} px is small for these defects (median of the smaller side, "
        f"want at least {MIN_SIDE_PX:g} px): {kinds}; {advice}"
    )
