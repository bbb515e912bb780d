"""The pictures of the report card."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from inspection.cards.style import (
    BAD,
    FAINT,
    GOOD,
    INK,
    PASS,
    PROMISE,
    REVIEW,
    VERDICT_COLOURS,
    make_axes,
)
from inspection.decision.evaluation import Evaluation
from inspection.decision.promise import OperatingPointReport
from inspection.decision.robustness import RobustnessRow
from inspection.decision.verdicts import VERDICTS

WRONG = "////"  # hatching of verdicts that are mistakes


def draw_outcomes(evaluation: Evaluation) -> Figure:
    """Share of good and of bad parts that pass, are reviewed, fail, are errors; mistakes are hatched."""
    rates = evaluation.rates
    rows = [
        (
            f"good parts\n({evaluation.good} images)",
            (rates.cleared.rate, rates.review_good.rate, rates.overkill.rate, rates.error_good.rate),
            "fail",
        ),
        (
            f"bad parts\n({evaluation.bad} images)",
            (rates.escape.rate, rates.review_bad.rate, rates.caught.rate, rates.error_bad.rate),
            "pass",
        ),
    ]
    figure, axes = make_axes(1.9)
    draw_verdict_bars(axes, rows)
    return figure


def draw_types(evaluation: Evaluation) -> Figure:
    """What the line does with each type of defect, the type that escapes most on top."""
    ordered = sorted(evaluation.per_type, key=lambda one: (-one.escape.rate, -one.review.rate, one.name))
    rows = [
        (
            f"{one.name}\n({one.images} images)",
            (one.escape.rate, max(0.0, 1 - one.escape.rate - one.caught.rate), one.caught.rate, 0.0),
            "pass",
        )
        for one in ordered  # the line has no outlet for an error: it is among the others, by on_error
    ]
    figure, axes = make_axes(0.9 + 0.5 * len(rows))
    draw_verdict_bars(axes, rows)
    return figure


def draw_verdict_bars(axes: Axes, rows: Sequence[tuple[str, tuple[float, float, float, float], str]]) -> None:
    """Stacked bars of the verdicts.

    Args:
        axes: where to draw.
        rows: name, shares of `VERDICTS`, and which of these verdicts is a mistake.
    """
    for place, (_, shares, wrong) in enumerate(rows):
        left = 0.0
        for verdict, share in zip(VERDICTS, shares, strict=True):
            axes.barh(
                place,
                100 * share,
                left=100 * left,
                height=0.62,
                color=VERDICT_COLOURS[verdict],
                hatch=WRONG if verdict == wrong else None,
                edgecolor=BAD if verdict == wrong else "white",
                linewidth=0.8,
            )
            if share >= 0.045:
                axes.text(
                    100 * (left + share / 2),
                    place,
                    f"{100 * share:.0f}%",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color=INK,
                    bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
                    if verdict == wrong
                    else None,
                )
            left += share
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the parts (%)", fontsize=9, color=INK)
    handles = [Patch(facecolor=VERDICT_COLOURS[name], label=name) for name in VERDICTS]
    handles.append(Patch(facecolor="white", edgecolor=BAD, hatch=WRONG, label="a mistake"))
    axes.legend(handles=handles, ncols=5, fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0))


def draw_rates(evaluation: Evaluation, report: OperatingPointReport) -> Figure:
    """Measured rates with their intervals, beside what was promised and what the settings ask for."""
    reviews = evaluation.per_thousand["reviews"]
    escape, overkill = evaluation.resolved.escape, evaluation.resolved.overkill
    rows = [
        (
            "escapes\n(bad parts that pass)",
            escape.rate,
            escape.low,
            escape.high,
            report.escape.limit,
            report.escape.rate,
        ),
        (
            "false alarms\n(good parts that fail)",
            overkill.rate,
            overkill.low,
            overkill.high,
            report.overkill.limit,
            report.overkill.rate,
        ),
        (
            "reviews\n(of all parts)",
            reviews.value / 1000,
            reviews.low / 1000,
            reviews.high / 1000,
            report.max_review_rate,
            None,
        ),
    ]
    figure, axes = make_axes(2.5)
    for place, (_, rate, low, high, limit, promised) in enumerate(rows):
        axes.plot([100 * low, 100 * high], [place, place], color=INK, linewidth=2, solid_capstyle="butt", zorder=2)
        axes.plot(100 * rate, place, "o", color=INK, markersize=8, zorder=3)
        axes.plot([100 * limit] * 2, [place - 0.32, place + 0.32], color=BAD, linewidth=2.5, zorder=1)
        if promised is not None:
            axes.plot(100 * promised, place, "D", color=PROMISE, markersize=8, zorder=3, markeredgecolor="white")
    axes.plot([], [], "o-", color=INK, label="measured on the holdout, 95% interval")
    axes.plot([], [], "D", color=PROMISE, linestyle="none", label="at most this is promised")
    axes.plot(
        [], [], "|", color=BAD, linestyle="none", markersize=12, markeredgewidth=2.5, label="limit in the settings"
    )
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("rate (%)", fontsize=9, color=INK)
    axes.grid(axis="x", color=FAINT, linewidth=0.5, alpha=0.6)
    axes.legend(ncols=3, fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    return figure


def draw_scores(evaluation: Evaluation, report: OperatingPointReport) -> Figure:
    """Scores of both classes, the thresholds and the review band."""
    histogram, point = evaluation.histogram, report.point
    edges = np.array(histogram.edges)
    figure, axes = make_axes(3.2)
    for counts, colour, name in ((histogram.good, GOOD, "good parts"), (histogram.bad, BAD, "bad parts")):
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.45)
        axes.stairs(counts, edges, color=colour, linewidth=1.6, label=name)
    low, high = min(edges[0], point.lower), max(edges[-1], point.upper)
    margin = 0.03 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    axes.axvspan(point.lower, point.upper, color=REVIEW, alpha=0.3, linewidth=0, zorder=0)
    for threshold in {point.lower, point.upper}:
        axes.axvline(threshold, color=INK, linewidth=1.5, linestyle="--")
    top = axes.get_ylim()[1]
    axes.set_ylim(0, 1.18 * top)
    zones = [(low - margin + point.lower) / 2, (point.upper + high + margin) / 2]
    texts = ["◄ pass", "fail ►"]
    if report.has_band:
        zones.append((point.lower + point.upper) / 2)
        texts.append("review")
    for place, text in zip(zones, texts, strict=True):
        axes.text(place, 1.08 * top, text, ha="center", va="center", fontsize=10, color=INK, fontweight="bold")
    axes.set_xlabel("score (logit; higher looks more defective)", fontsize=9, color=INK)
    axes.set_ylabel("images of the holdout", fontsize=9, color=INK)
    axes.legend(fontsize=9, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw_reliability(evaluation: Evaluation) -> Figure:
    """Predicted probability against what the images were."""
    figure, axes = make_axes(3.6, width_in=5.0)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.5, label="honest probabilities")
    for entry in evaluation.reliability.bins:
        axes.plot(
            [entry.predicted] * 2, [entry.observed.low, entry.observed.high], color=GOOD, linewidth=1.5, alpha=0.6
        )
    axes.plot(
        [entry.predicted for entry in evaluation.reliability.bins],
        [entry.observed.rate for entry in evaluation.reliability.bins],
        "o-",
        color=GOOD,
        label="this model, 95% interval",
    )
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("predicted probability of a defect", fontsize=9, color=INK)
    axes.set_ylabel("share that is bad", fontsize=9, color=INK)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def draw_costs(evaluation: Evaluation, report: OperatingPointReport) -> Figure:
    """Cost per 1,000 parts over a single threshold, and at the operating point."""
    cost, point = evaluation.cost, report.point
    figure, axes = make_axes(3.2)
    axes.plot(cost.threshold, cost.cost, color=GOOD, linewidth=2, label="one threshold, no review")
    axes.axhline(cost.pass_everything, color=FAINT, linewidth=1.2, linestyle="--", label="pass everything")
    axes.axhline(cost.fail_everything, color=FAINT, linewidth=1.2, linestyle=":", label="fail everything")
    centre = (point.lower + point.upper) / 2
    axes.plot([point.lower, point.upper], [cost.operating_point] * 2, color=PROMISE, linewidth=4, alpha=0.5)
    axes.plot(centre, cost.operating_point, "D", color=PROMISE, markersize=9, label="this operating point")
    axes.plot(cost.best_threshold, cost.best, "v", color=BAD, markersize=8, label="cheapest single threshold")
    axes.set_ylim(0, 1.25 * max(min(cost.pass_everything, cost.fail_everything), cost.operating_point))
    axes.set_xlabel("threshold (logit)", fontsize=9, color=INK)
    axes.set_ylabel("cost per 1,000 parts\n(1 = one false alarm)", fontsize=9, color=INK)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw_robustness(rows: Sequence[RobustnessRow]) -> Figure:
    """Share of verdicts that each disturbance changes, with intervals."""
    changed = rows[1:]
    figure, axes = make_axes(0.8 + 0.34 * len(changed))
    for place, row in enumerate(changed):
        axes.barh(place, 100 * row.changed.rate, color=PASS, height=0.6)
        axes.plot([100 * row.changed.low, 100 * row.changed.high], [place, place], color=INK, linewidth=1.8)
    axes.set_yticks(range(len(changed)), [row.name for row in changed])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("verdicts that change (%, 95% interval)", fontsize=9, color=INK)
    return figure
