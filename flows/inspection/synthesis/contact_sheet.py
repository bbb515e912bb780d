"""A picture of the sample for people: a row of good parts, then a row for each kind of defect, outlined.

`python -m inspection.synthesis.contact_sheet docs/pictures/sample.jpg` makes the one in the documentation.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation

from inspection.sample import DEFECT_TYPES, plan_sample, render_part
from inspection.synthesis.scene import Array, draw_lot

COLUMNS = 5
TILE_PX = 176
OUTLINE = (255, 220, 0)  # RGB


def draw_contact_sheet(images: int = 400, seed: int = 0) -> Image.Image:
    """Show parts of a sample; in a row, defects go from plain on the left to subtle on the right."""
    parts = plan_sample(images, seed)
    lots = {number: draw_lot(seed, number) for number in {part.lot for part in parts}}
    rows = []
    for kind in (None, *DEFECT_TYPES):
        shown = sorted((part for part in parts if part.defect_type == kind), key=lambda part: -part.severity)
        tiles = []
        for index in np.linspace(0, len(shown) - 1, COLUMNS).astype(int):
            picture, mask = render_part(shown[index], lots[shown[index].lot], seed)
            tiles.append(picture if mask is None else _outline(picture, mask))
        rows.append(np.hstack([np.asarray(Image.fromarray(tile).resize((TILE_PX, TILE_PX))) for tile in tiles]))
    return Image.fromarray(np.vstack(rows))


def _outline(picture: Array, mask: Array) -> Array:
    """The picture with a line of two pixels a little outside of the mask."""
    inner = binary_dilation(mask, iterations=8)
    outlined = picture.copy()
    outlined[binary_dilation(inner, iterations=2) & ~inner] = OUTLINE
    return outlined


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path, help="JPEG to write")
    target = parser.parse_args().picture
    target.parent.mkdir(parents=True, exist_ok=True)
    draw_contact_sheet().save(target, quality=88)
