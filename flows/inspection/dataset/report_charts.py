"""The charts of the report, as SVG: how sizes and brightness are spread over each class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

# Source: Okabe and Ito (2008), "Color universal design"; the first is good, the others are kinds of defects.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A")
_WIDTH, _ROW, _LEFT, _BOTTOM = 560, 46, 130, 34  # px: of the chart, of a class, of the names, of the axis
_BINS = 40
_MOST_ROWS = 12


@dataclass(frozen=True)
class Axis:
    """What is on the horizontal axis."""

    title: str
    unit: str = ""
    whole: bool = True  # show whole numbers


def draw_histograms(values: Mapping[str, Sequence[float]], axis: Axis) -> Markup:
    """One small histogram per class, below each other on one axis, so that a shifted class is seen at once.

    Args:
        values: of the images of each class; the first class is good.
        axis: their meaning.

    Returns:
        an SVG element; a sentence where there is nothing to draw.
    """
    present = {name: np.asarray(of_class, dtype=float) for name, of_class in values.items() if len(of_class)}
    if not present:
        return Markup("<p>No image could be read.</p>")
    everything = np.concatenate(list(present.values()))
    low, high = float(everything.min()), float(everything.max())
    if low == high:
        return Markup("<p>{}: {}{} in all images.</p>").format(axis.title, _number(low, axis), _unit(axis))
    shown = list(present.items())[:_MOST_ROWS]
    height = _ROW * len(shown) + _BOTTOM
    parts = [Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(_WIDTH + _LEFT, height, axis.title)]
    edges = np.linspace(low, high, _BINS + 1)
    for place, (name, of_class) in enumerate(shown):
        parts.append(_draw_row(name, np.histogram(of_class, edges)[0], place))
    parts.append(_draw_axis(low, high, axis, height))
    parts.append(Markup("</svg>"))
    if len(present) > _MOST_ROWS:
        parts.append(Markup("<p>The {} classes with the fewest images are not drawn.</p>").format(len(present) - 12))
    return Markup("").join(parts)


def _draw_row(name: str, counts: np.ndarray, place: int) -> Markup:
    """Bars of one class; their heights are shares of its highest bar."""
    colour = COLOURS[min(place, len(COLOURS) - 1)]
    base, room = _ROW * (place + 1) - 4, _ROW - 12
    wide = _WIDTH / _BINS
    bars = Markup("").join(
        Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}"/>').format(
            _LEFT + index * wide, base - room * count / counts.max(), wide - 1, room * count / counts.max(), colour
        )
        for index, count in enumerate(counts)
        if count
    )
    short = name if len(name) <= 18 else name[:17] + "…"
    label = Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(_LEFT - 10, base - room / 2 + 4, short)
    line = Markup('<line x1="{0}" x2="{1}" y1="{2}" y2="{2}" class="axis"/>').format(_LEFT, _LEFT + _WIDTH, base)
    return Markup("<g><title>{}: {} images</title>").format(name, int(counts.sum())) + bars + label + line + "</g>"


def _draw_axis(low: float, high: float, axis: Axis, height: int) -> Markup:
    places = np.linspace(low, high, 5)
    ticks = Markup("").join(
        Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
            _LEFT + _WIDTH * (value - low) / (high - low),
            height - 19,
            "start" if value == low else "end" if value == high else "middle",
            _number(value, axis),
        )
        for value in places
    )
    title = Markup('<text x="{}" y="{}" text-anchor="middle">{}{}</text>').format(
        _LEFT + _WIDTH / 2, height - 3, axis.title, Markup(" ({})").format(axis.unit) if axis.unit else ""
    )
    return ticks + title


def _number(value: float, axis: Axis) -> str:
    return f"{value:,.0f}" if axis.whole else f"{value:.2g}"


def _unit(axis: Axis) -> Markup:
    return Markup(" ") + escape(axis.unit) if axis.unit else Markup("")
