"""Sections of the report card below the figures: pictures, types, lots, robustness, probabilities, costs, origin."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from metaflow.cards import Markdown, MetaflowCardComponent

from inspection.cards.charts import draw_costs, draw_reliability, draw_robustness, draw_types
from inspection.cards.style import make_table, show_count, show_rate, to_picture, to_thumbnail
from inspection.decision.cases import Case
from inspection.decision.evaluation import Evaluation
from inspection.decision.promise import OperatingPointReport
from inspection.decision.rounding import percent

if TYPE_CHECKING:
    from inspection.model.selection import RecipeChoice

LOTS_SHOWN = 20


def describe_cases(
    evaluation: Evaluation, pictures: Mapping[int, np.ndarray], shown: int
) -> list[MetaflowCardComponent]:
    """The worst mistakes and the closest calls, as pictures.

    Args:
        evaluation: of the holdout.
        pictures: uint8 [H, W, 3] by row of the holdout.
        shown: of either kind, at most.
    """
    count = len(evaluation.mistakes)
    components: list[MetaflowCardComponent] = [Markdown("## The worst mistakes")]
    if count == 0:
        components.append(Markdown("No bad part passed, and no good part failed or was refused, on the holdout."))
    else:
        components.append(
            Markdown(
                f"{min(shown, count)} of {count}: escapes first, the farthest beyond the threshold on top; good parts "
                "that the input guard refuses (error) last. Look for wrong labels before you look for a wrong model."
            )
        )
        components.append(_show_cases(evaluation.mistakes[:shown], pictures))
    if evaluation.closest_calls:
        components.append(Markdown("### Right, but only just"))
        components.append(_show_cases(evaluation.closest_calls[: min(shown, 6)], pictures))
    return components


def _show_cases(cases: Sequence[Case], pictures: Mapping[int, np.ndarray]) -> MetaflowCardComponent:
    rows = [
        [
            to_thumbnail(pictures[case.index]) if case.index in pictures else "",
            f"`{case.uri}`",
            f"{case.label}" + (f": {case.defect_type}" if case.defect_type else ""),
            f"**{case.verdict}**",
            f"{case.score:.2f}",
            f"{case.distance:.2f}",
            percent(case.probability),
        ]
        for case in cases
    ]
    return make_table(
        ["picture", "file", "label", "verdict", "score (logit)", "beyond the threshold", "p(defect)"], rows
    )


def say_actions(evaluation: Evaluation) -> str:
    """What the line makes of verdicts that are neither pass nor fail."""
    review = "" if evaluation.review_action == "review" else f"review means {evaluation.review_action} and "
    return f"{review}error means {evaluation.on_error}"


def _say_what_counts(evaluation: Evaluation, errors: int) -> str:
    """Why columns of a table overlap; "" when they do not."""
    if evaluation.review_action == "review" and not errors:
        return ""
    return (
        f"Passed and failed parts, escapes and false alarms are those of the line, where {say_actions(evaluation)}. "
        "Reviews and errors are the verdicts before that: such a part may count twice."
    )


def describe_types(evaluation: Evaluation) -> list[MetaflowCardComponent]:
    """Each type of defect; nothing when no image has one."""
    if not evaluation.per_type:
        return []
    rows = [
        [
            one.name,
            str(one.images),
            show_rate(one.escape),
            show_rate(one.review),
            show_rate(one.caught),
            show_count(one.error),
            f"{one.auroc:.3f}",
        ]
        for one in sorted(evaluation.per_type, key=lambda one: (-one.escape.rate, -one.review.rate, one.name))
    ]
    note = _say_what_counts(evaluation, sum(one.error.count for one in evaluation.per_type))
    return [
        Markdown(f"## Types of defect\n\n{note}"),
        to_picture(draw_types(evaluation), "What the line does with each type"),
        make_table(
            ["type", "images", "passed (escapes)", "to review", "failed (caught)", "errors", "AUROC against good"], rows
        ),
    ]


def describe_lots(evaluation: Evaluation) -> list[MetaflowCardComponent]:
    """Each lot, the one with most escapes and false alarms on top; nothing when there are fewer than two."""
    if not evaluation.per_lot:
        return []
    ordered = sorted(
        evaluation.per_lot, key=lambda one: (-(one.escape.count + one.overkill.count), -one.review.rate, one.name)
    )
    rows = [
        [
            one.name,
            str(one.good),
            str(one.bad),
            show_count(one.escape),
            show_count(one.overkill),
            show_count(one.review),
            show_count(one.error),
        ]
        for one in ordered[:LOTS_SHOWN]
    ]
    note = f"{min(LOTS_SHOWN, len(ordered))} of {len(ordered)} lots, those with most escapes and false alarms first. "
    note += _say_what_counts(evaluation, sum(one.error.count for one in evaluation.per_lot))
    return [
        Markdown(f"## Lots\n\n{note}"),
        make_table(["lot", "good", "bad", "escapes", "false alarms", "reviews", "errors"], rows),
    ]


def describe_robustness(evaluation: Evaluation) -> list[MetaflowCardComponent]:
    """What changes of light, focus, noise, compression and position do; nothing when it was not measured."""
    if not evaluation.robustness:
        return []
    rows = [
        [
            row.name,
            f"{row.auroc:.3f}",
            show_rate(row.escape),
            show_rate(row.overkill),
            percent(row.review.rate),
            percent(row.error.rate),
            "" if row.kind == "none" else show_rate(row.changed),
        ]
        for row in evaluation.robustness
    ]
    return [
        Markdown(
            "## When the pictures change\n\n"
            f"{evaluation.robustness_images} of {evaluation.images} images of the holdout judged again after each "
            "change, with the same thresholds and the same input guard, whose refusals are errors. A change that moves "
            "many verdicts is one to keep stable at the station, or to add to training. "
            + _say_what_counts(evaluation, sum(row.error.count for row in evaluation.robustness))
        ),
        to_picture(draw_robustness(evaluation.robustness)),
        make_table(["pictures", "AUROC", "escapes", "false alarms", "reviews", "errors", "verdicts that change"], rows),
    ]


def describe_reliability(evaluation: Evaluation) -> list[MetaflowCardComponent]:
    """Whether the probabilities mean what they say."""
    reliability = evaluation.reliability
    return [
        Markdown(
            "## Are the probabilities honest?\n\n"
            "Of the parts given a probability of 30%, about 30% should be bad. On average the prediction is "
            f"**{100 * reliability.expected_calibration_error:.1f} percentage points** off (Brier score "
            f"{reliability.brier:.3f}, 0 is perfect). Probabilities are for the calibration set's share of bad parts, "
            "which is far higher than the line's; verdicts do not use them."
        ),
        to_picture(draw_reliability(evaluation)),
    ]


def describe_costs(evaluation: Evaluation, report: OperatingPointReport) -> list[MetaflowCardComponent]:
    """What the operating point costs beside other ways to run the line."""
    cost = evaluation.cost
    rows = [
        ["this operating point", f"**{cost.operating_point:.1f}**"],
        [f"cheapest single threshold on the holdout, {cost.best_threshold:.2f}", f"{cost.best:.1f}"],
        ["pass everything", f"{cost.pass_everything:.1f}"],
        ["fail everything", f"{cost.fail_everything:.1f}"],
    ]
    return [
        Markdown(
            f"## Cost\n\nPer 1,000 parts when {percent(report.expected_defect_rate)} are bad, in units of one false "
            "alarm, with `escape_cost` and `review_cost` of the settings."
        ),
        to_picture(draw_costs(evaluation, report)),
        make_table(["", "cost per 1,000 parts"], rows),
    ]


def describe_recipe(recipe: "RecipeChoice") -> list[MetaflowCardComponent]:
    """How the recipes of training compared, and why one was taken."""
    differences = {one.recipe: one for one in recipe.differences}
    rows = []
    for name, auroc in recipe.aurocs.items():
        one = differences.get(name)
        behind = f"{one.difference:.3f} ({one.low:+.3f} to {one.high:+.3f})" if one else "the best"
        rows.append([f"**{name}**, chosen" if name == recipe.recipe else name, f"{auroc:.3f}", behind])
    return [
        Markdown(f"## How it was trained\n\n{recipe.explanation}"),
        make_table(["recipe", "cross-validated AUROC", "behind the best (95% interval)"], rows),
    ]


def describe_provenance(provenance: Mapping[str, str]) -> list[MetaflowCardComponent]:
    """Where this model comes from; nothing when nothing was given."""
    if not provenance:
        return []
    return [
        Markdown("## Where it comes from"),
        make_table(["", ""], [[name, f"`{value}`"] for name, value in provenance.items()]),
    ]
