"""Pictures of parts in folders, and settings of a line that inspects them; small enough for tests of whole flows."""

from pathlib import Path

import numpy as np
from PIL import Image

LINE = """
[line]
name = "dots"
storage = "{storage}"
[data]
source = "{source}"
[input]
width = 64
height = 64
[training]
backbone = "squeezenet1_1"
weights = "none"
recipe = "{recipe}"
epochs = 3
folds = 2
patience = 8
views = 1
[export]
parity_images = 200
{export}
"""


def draw_part(generator: np.random.Generator, bad: bool) -> Image.Image:
    """A grey plate, 96 px square; a bad one has a dark spot somewhere."""
    plate = generator.normal(150 + generator.normal(0, 4), 4, (96, 96, 1)).repeat(3, axis=2)
    if bad:
        top, left = generator.integers(10, 70, 2)
        plate[top : top + 14, left : left + 14] -= 90
    return Image.fromarray(np.clip(plate, 0, 255).astype(np.uint8))


def draw_parts(folder: Path, good: int, bad: int, seed: int = 0) -> Path:
    """`good/` and `spot/` with that many pictures; the folder."""
    generator = np.random.default_rng(seed)
    for label, count in (("good", good), ("spot", bad)):
        (folder / label).mkdir(parents=True)
        for index in range(count):
            draw_part(generator, label != "good").save(folder / label / f"part-{index:03}.png")
    return folder


def write_line(folder: Path, source: Path, recipe: str = "frozen", export: str = "", storage: str = "") -> Path:
    """A settings file in that folder; storage lies there too unless another is named."""
    path = folder / "dots.toml"
    text = LINE.format(storage=storage or folder / "store", source=source, recipe=recipe, export=export)
    path.write_text(text)
    return path
