"""The pictures of the rollout card."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from inspection.cards.style import BAD, FAIL, FAINT, INK, PASS, PROMISE, REVIEW, make_axes

if TYPE_CHECKING:
    from inspection.deploy_path.view import RolloutView, StageView

VERDICTS = ("pass", "review", "fail", "error")
COLOURS = {"pass": PASS, "review": REVIEW, "fail": FAIL, "error": "#CC79A7"}  # the last: reddish purple of the same set
STAGES = {
    "done": (PROMISE, "✔"),
    "now": ("#0072B2", "…"),
    "later": (FAINT, ""),
    "failed": (BAD, "✖"),
    "skipped": (FAINT, "–"),  # noqa: RUF001
}
WORDS = {"done": "done", "now": "now", "later": "not yet", "failed": "stopped here", "skipped": "not needed"}


BANNERS = {
    "running": ("#0072B2", "UNDER WAY"),
    "done": (PROMISE, "DONE"),
    "rolled-back": (BAD, "ROLLED BACK"),
    "failed": (BAD, "STOPPED"),
}


def draw_result(view: "RolloutView") -> Figure:
    """The result, to be read from across the room."""
    colour, word = BANNERS[view.state]
    figure, axes = make_axes(0.95)
    axes.axis("off")
    figure.set_facecolor(colour)
    axes.text(0.0, 0.5, word, ha="left", va="center", fontsize=25, fontweight="bold", color="white")
    axes.text(1.0, 0.5, view.short, ha="right", va="center", fontsize=15, color="white")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(0, 1)
    return figure


def draw_way(view: "RolloutView") -> Figure:
    """The stages from left to right: which are done, where it is now, where it stopped."""
    stages = list(view.stages)
    figure, axes = make_axes(1.75)
    axes.axis("off")
    width, gap = 1.0, 0.28
    for place, stage in enumerate(stages):
        left = place * (width + gap)
        _draw_stage(axes, stage, left, width)
        if place:
            axes.annotate(
                "",
                xy=(left - 0.02, 0.5),
                xytext=(left - gap + 0.02, 0.5),
                arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.6},
            )
    axes.set_xlim(-0.05, max(3, len(stages)) * (width + gap) - gap + 0.05)
    axes.set_ylim(-0.05, 1.05)
    return figure


def _draw_stage(axes: Axes, stage: "StageView", left: float, width: float) -> None:
    colour, _ = STAGES[stage.state]
    dim = stage.state in ("later", "skipped")
    box = FancyBboxPatch(
        (left, 0.04),
        width,
        0.92,
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor="white" if dim else colour,
        edgecolor=colour,
        linewidth=1.8,
        alpha=1.0 if dim else 0.16,
    )
    axes.add_patch(box)
    if not dim:
        axes.add_patch(
            FancyBboxPatch(
                (left, 0.04),
                width,
                0.92,
                boxstyle="round,pad=0,rounding_size=0.06",
                facecolor="none",
                edgecolor=colour,
                linewidth=2.2 if stage.state == "now" else 1.8,
            )
        )
    ink = "#888888" if dim else INK
    middle = left + width / 2
    axes.text(middle, 0.82, stage.title, ha="center", va="center", fontsize=11, fontweight="bold", color=ink)
    axes.text(middle, 0.62, stage.group, ha="center", va="center", fontsize=9, color=ink)
    if stage.devices:
        text = f"{stage.healthy} of {stage.devices} devices" if stage.devices > 1 else f"{stage.healthy} of 1 device"
        axes.text(middle, 0.44, text, ha="center", va="center", fontsize=9, color=ink)
    axes.text(middle, 0.28, stage.note, ha="center", va="center", fontsize=8.5, color=ink)
    axes.text(
        middle,
        0.13,
        WORDS[stage.state],
        ha="center",
        va="center",
        fontsize=9,
        fontweight="bold" if not dim else "normal",
        color=colour if not dim else ink,
    )


def draw_shares(rows: Sequence[tuple[str, Mapping[str, int]]]) -> Figure:
    """What each model said, as shares of its parts.

    Args:
        rows: name of the model, and verdict to parts.
    """
    figure, axes = make_axes(0.95 + 0.45 * len(rows))
    for place, (_, counts) in enumerate(rows):
        total, left = sum(counts.values()), 0.0
        for verdict in VERDICTS:
            share = counts.get(verdict, 0) / total if total else 0.0
            axes.barh(
                place,
                100 * share,
                left=100 * left,
                height=0.6,
                color=COLOURS[verdict],
                edgecolor="white",
                linewidth=0.8,
            )
            if share >= 0.045:
                text = f"{100 * share:.1f} %"
                axes.text(100 * (left + share / 2), place, text, ha="center", va="center", fontsize=9, color=INK)
            left += share
    axes.set_yticks(range(len(rows)), [f"{name}\n({sum(counts.values()):,} parts)" for name, counts in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the parts (%)", fontsize=9, color=INK)
    handles = [Patch(facecolor=COLOURS[name], label=name) for name in VERDICTS]
    axes.legend(handles=handles, ncols=4, fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    return figure
