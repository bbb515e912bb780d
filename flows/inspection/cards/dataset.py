"""The section on the images: how many of what, in which split, and what they look like."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from metaflow.cards import Markdown, MetaflowCardComponent

from inspection.cards.style import BAD, GOOD, INK, make_axes, make_table, to_picture, to_thumbnail

if TYPE_CHECKING:
    from inspection.dataset.manifest import ImageRow, Snapshot

PURPOSES = {
    "train": "learns the model",
    "calibration": "sets the thresholds",
    "holdout": "judges the model, once",
    "": "not used",
}
SHOWN_PER_CLASS = 4
TINT = 0.5  # how much of a marked pixel is covered


def class_of(row: "ImageRow") -> str:
    """What the card calls a row's class: good, its type of defect, or bad."""
    return row.defect_type or row.label if row.label == "bad" else "good"


def pictures_wanted(snapshot: "Snapshot") -> list["ImageRow"]:
    """Rows whose pictures the card shows: some of each class, spread over the snapshot."""
    wanted: list[ImageRow] = []
    for name in _classes(snapshot):
        rows = [row for row in snapshot.rows if class_of(row) == name]
        step = max(1, len(rows) // SHOWN_PER_CLASS)
        wanted += rows[::step][:SHOWN_PER_CLASS]
    return wanted


def dataset_components(
    snapshot: "Snapshot", pictures: Mapping[str, np.ndarray], marks: Mapping[str, np.ndarray] | None = None
) -> list[MetaflowCardComponent]:
    """Counts per class and split, and pictures of each class.

    Args:
        snapshot: of the data set.
        pictures: uint8 [H, W, 3] by uri, for `pictures_wanted`.
        marks: uint8 [H, W] by uri: how much of each pixel is defect, as the set's masks and boxes say.
    """
    marks = marks or {}
    pictures = {uri: tint(pixels, marks[uri]) if uri in marks else pixels for uri, pixels in pictures.items()}
    classes = _classes(snapshot)
    splits = [split for split in PURPOSES if any(row.split == split for row in snapshot.rows)]
    counts: Counter[tuple[str, str]] = Counter((class_of(row), row.split) for row in snapshot.rows)
    rows = [
        [name, *(str(counts[name, split]) for split in splits), str(sum(counts[name, split] for split in splits))]
        for name in classes
    ]
    groups = [str(len({row.group for row in snapshot.rows if row.split == split})) for split in splits]
    rows.append(["independent groups", *groups, str(len({row.group for row in snapshot.rows}))])
    located = sum(row.mask is not None or bool(row.boxes) for row in snapshot.rows)
    lots = len({row.lot for row in snapshot.rows if row.lot})
    headers = ["", *(f"{split or 'none'}: {PURPOSES[split]}" for split in splits), "all"]
    shown = []
    for name in classes:
        pictured = [row for row in pictures_wanted(snapshot) if class_of(row) == name and row.uri in pictures]
        cells: list[object] = [f"**{name}**", *(to_thumbnail(pictures[row.uri]) for row in pictured)]
        shown.append([*cells, *([""] * (1 + SHOWN_PER_CLASS - len(cells)))])
    components: list[MetaflowCardComponent] = [
        Markdown(
            f"## The images\n\nSnapshot `{snapshot.id[:12]}` of `{snapshot.location}`: {len(snapshot.rows)} images"
            + (f" from {lots} lots." if lots else ".")
            + (f" {located} have a mask or boxes; these are drawn in orange below." if located else "")
        ),
        to_picture(draw_counts(snapshot)),
        make_table(headers, rows),
    ]
    if pictures:
        components.append(make_table(["class", *([""] * SHOWN_PER_CLASS)], shown))
    return components


def tint(pixels: np.ndarray, mark: np.ndarray) -> np.ndarray:
    """A picture with what is marked tinted.

    Args:
        pixels: uint8 [H, W, 3].
        mark: uint8 [H, W]; 255 where all of a pixel is marked.
    """
    colour = np.array([int(BAD[place : place + 2], 16) for place in (1, 3, 5)], dtype=np.float32)
    strength = TINT * (mark.astype(np.float32) / 255)[:, :, None]
    return (pixels + strength * (colour - pixels)).astype(np.uint8)


def draw_counts(snapshot: "Snapshot") -> Figure:
    """Good and bad images of each split."""
    splits = [split for split in PURPOSES if any(row.split == split for row in snapshot.rows)]
    counts: Counter[tuple[str, str]] = Counter((row.label, row.split) for row in snapshot.rows)
    figure, axes = make_axes(0.9 + 0.42 * len(splits))
    for place, split in enumerate(splits):
        good, bad = counts["good", split], counts["bad", split]
        axes.barh(place, good, color=GOOD, height=0.62, label="good" if place == 0 else None)
        axes.barh(
            place,
            bad,
            left=good,
            color=BAD,
            height=0.62,
            edgecolor="white",
            label="bad" if place == 0 else None,
        )
        for left, count in ((0, good), (good, bad)):
            if count:
                axes.text(left + count / 2, place, str(count), ha="center", va="center", fontsize=9, color="white")
    axes.set_yticks(range(len(splits)), [split or "none" for split in splits])
    axes.invert_yaxis()
    axes.set_xlabel("images", fontsize=9, color=INK)
    axes.legend(ncols=2, fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    return figure


def _classes(snapshot: "Snapshot") -> list[str]:
    """Good first, then the others by name."""
    return sorted({class_of(row) for row in snapshot.rows}, key=lambda name: (name != "good", name))
