"""How every card looks: colours that the colour-blind tell apart, pictures as PNG, thumbnails, tables of text.

Pictures are drawn on matplotlib figures of their own, without pyplot's global state, and stand inside the card, so
that a card is one file that opens without a network.
"""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from metaflow.cards import Image as CardImage
from metaflow.cards import Markdown, Table
from PIL import Image

from inspection.decision.rounding import Toward, show_rounded

if TYPE_CHECKING:  # they take seconds to import, which every step with a card would wait for
    from inspection.decision.bounds import Rate
    from inspection.decision.ranking import Estimate

# Source: Okabe and Ito (2008), "Color universal design".
GOOD = "#0072B2"  # blue
BAD = "#D55E00"  # vermilion
PASS = "#56B4E9"  # sky blue
REVIEW = "#F0E442"  # yellow
FAIL = "#E69F00"  # orange
ERROR = "#CC79A7"  # reddish purple
PROMISE = "#009E73"  # bluish green
INK = "#333333"
FAINT = "#BBBBBB"
VERDICT_COLOURS = {"pass": PASS, "review": REVIEW, "fail": FAIL, "error": ERROR}

DOTS_PER_INCH = 110
WIDTH_IN = 9.0
THUMBNAIL_PX = 176
GRID_WIDTH = 4  # pictures side by side


def make_axes(height_in: float, width_in: float = WIDTH_IN) -> tuple[Figure, Axes]:
    """One empty picture in the house style."""
    figure = Figure(figsize=(width_in, height_in), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    clean_axes(axes)
    return figure, axes


def clean_axes(axes: Axes) -> None:
    """No frame above and to the right, quiet ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)


def to_picture(figure: Figure, label: str | None = None) -> CardImage:
    """A figure as a component of a card."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor=figure.get_facecolor())
    return CardImage(src=stream.getvalue(), label=label)


def to_thumbnail(pixels: np.ndarray, label: str | None = None, side_px: int = THUMBNAIL_PX) -> CardImage:
    """A picture of a part, at most `side_px` on its longer side.

    Args:
        pixels: uint8 [H, W, 3], RGB.
        label: text below it.
        side_px: of the longer side.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scale = side_px / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    stream = io.BytesIO()
    picture.resize(size, Image.Resampling.BILINEAR).save(stream, "PNG")
    return CardImage(src=stream.getvalue(), label=label)


def make_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table; text cells may hold Markdown, other components stay as they are."""
    return Table(
        [[Markdown(cell) if isinstance(cell, str) else cell for cell in row] for row in rows],
        headers=list(headers),
    )


def show_rate(rate: "Rate") -> str:
    """A measured rate as text: 3 of 45 = 6.7% (1.4% to 18.3%)."""
    if rate.total == 0:
        return "no images"
    low, high = show_rounded(100 * rate.low, 1, "down"), show_rounded(100 * rate.high, 1, "up")
    counted = (
        "=" if math.isclose(rate.count / rate.total, rate.rate) else f"images; every one of {rate.groups} groups alike:"
    )
    return f"{show_count(rate)} {counted} **{100 * rate.rate:.1f}%** ({low}% to {high}%)"


def show_count(rate: "Rate") -> str:
    """A count as text: 3 of 45."""
    return f"{rate.count} of {rate.total}"


def show_estimate(estimate: "Estimate") -> str:
    """A figure with its interval as text."""
    return (
        f"**{estimate.value:.3f}** ({show_rounded(estimate.low, 3, 'down')} to {show_rounded(estimate.high, 3, 'up')})"
    )


def show_amount(estimate: "Estimate") -> str:
    """A number of parts with its interval as text: 0.25 (0.03 to 1.2), 877 (737 to 958)."""

    def show(value: float, toward: Toward) -> str:
        return show_rounded(value, 0 if value >= 10 or value == 0 else 1 if value >= 1 else 2, toward)

    low, high = show(estimate.low, "down"), show(estimate.high, "up")
    return f"**{show(estimate.value, 'nearest')}** ({low} to {high})"


def make_grid(pictures: Sequence[tuple[str, np.ndarray]]) -> Table:
    """Named pictures side by side.

    Args:
        pictures: name and uint8 [H, W, 3].
    """
    cells: list[object] = [to_thumbnail(pixels, name) for name, pixels in pictures]
    width = min(GRID_WIDTH, len(cells))
    cells += [""] * (-len(cells) % width)
    return make_table([""] * width, [cells[start : start + width] for start in range(0, len(cells), width)])
