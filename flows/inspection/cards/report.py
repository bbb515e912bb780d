"""The report card: what a quality engineer reads before a model goes to the line."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from metaflow.cards import Markdown, MetaflowCardComponent

from inspection.cards.charts import draw_outcomes, draw_rates, draw_scores
from inspection.cards.evidence import (
    describe_cases,
    describe_costs,
    describe_lots,
    describe_provenance,
    describe_recipe,
    describe_reliability,
    describe_robustness,
    describe_types,
    say_actions,
)
from inspection.cards.parity import parity_components
from inspection.cards.style import make_grid, make_table, show_amount, show_estimate, show_rate, to_picture
from inspection.decision.evaluation import Evaluation, contradicts_promise
from inspection.decision.promise import OperatingPointReport, Promise
from inspection.decision.rounding import percent
from inspection.decision.verdicts import VERDICTS

if TYPE_CHECKING:
    from inspection.export.parity import ParityGate
    from inspection.model.selection import RecipeChoice

CASES_SHOWN = 12
GROUPED = (
    " Rates and their intervals are for a part of a group drawn at random, as the promises are: every group counts "
    "once, however many images it holds."
)
NO_OVERLAP = (
    " The classes do not overlap on these images: the lower ends say how much of an overlap so few groups can miss."
)


def pictures_wanted(evaluation: Evaluation) -> list[int]:
    """Rows of the holdout whose pictures the report shows: the worst mistakes and the closest calls."""
    return [case.index for case in (*evaluation.mistakes[:CASES_SHOWN], *evaluation.closest_calls[:CASES_SHOWN])]


def report_components(
    evaluation: Evaluation,
    report: OperatingPointReport,
    pictures: Mapping[int, np.ndarray],
    *,
    title: str,
    parity: "ParityGate | None" = None,
    parity_pictures: Mapping[int, np.ndarray] | None = None,
    parity_names: Sequence[str] | None = None,
    threshold_pictures: Sequence[tuple[str, np.ndarray]] = (),
    recipe: "RecipeChoice | None" = None,
    dataset: Sequence[MetaflowCardComponent] = (),
    provenance: Mapping[str, str] | None = None,
) -> list[MetaflowCardComponent]:
    """The whole report.

    Args:
        evaluation: of the shipped artifact on the holdout.
        report: the operating point and its promises.
        pictures: uint8 [H, W, 3] by row of the holdout, for `pictures_wanted`.
        title: names the line and the version.
        parity: which artifact ships, and how it agrees with the trained model.
        parity_pictures: uint8 [H, W, 3] by source picture, for `inspection.cards.parity.pictures_wanted`.
        parity_names: of the source pictures; their numbers when not given.
        threshold_pictures: name and picture, uint8 [H, W, 3], of the calibration images that hold the thresholds
            (`setting_lower`, `setting_upper` of the report).
        recipe: how the recipes compared.
        dataset: `inspection.cards.dataset.dataset_components` of the snapshot.
        provenance: name to value, for whoever must repeat this.

    Returns:
        Components of one card, from the verdict down to the evidence.
    """
    components: list[MetaflowCardComponent] = [Markdown(f"# {title}"), *describe_verdict(evaluation, report)]
    components += _describe_promises(evaluation, report, threshold_pictures)
    components += _describe_holdout(evaluation, report)
    components += describe_cases(evaluation, pictures, CASES_SHOWN)
    components += describe_types(evaluation)
    components += describe_lots(evaluation)
    components += describe_robustness(evaluation)
    components += describe_reliability(evaluation)
    components += describe_costs(evaluation, report)
    if parity is not None:
        components += parity_components(parity, parity_pictures or {}, parity_names)
    if recipe is not None:
        components += describe_recipe(recipe)
    components += dataset
    components += describe_provenance(provenance or {})
    return components


def describe_verdict(evaluation: Evaluation, report: OperatingPointReport) -> list[MetaflowCardComponent]:
    """The headline: what will happen to 1,000 parts, and whether the model may decide alone."""
    defects = 1000 * report.expected_defect_rate
    if not report.autonomous:
        headline = (
            f"## Verdict: NOT autonomous, about {percent(report.review_rate)} of the parts would go to review\n\n"
            "This model sorts parts for people; it must not be left to decide alone. The scores of good and bad parts "
            "overlap too much for the limits in the settings: see below which images hold the thresholds, and what "
            "another limit would cost."
        )
    elif contradicts_promise(evaluation, report):
        headline = (
            "## Verdict: the holdout contradicts the promise\n\n"
            "More parts were judged wrongly on the holdout than the calibration set let expect. The two sets differ: "
            "look at the lots and the mistakes below before this model is approved."
        )
    elif report.gave_way:
        names = {"escape": "escapes", "overkill": "false alarms", "review": "reviews"}
        lost = " and on ".join(names[one.limit] for one in report.gave_way)
        headline = f"## Verdict: works on its own, but the limit on {lost} is not kept for certain\n\n" + "\n".join(
            f"- {names[one.limit]}: asked for at most {percent(one.asked)}, got **{percent(one.got, 'up')}**: {one.why}"
            for one in report.gave_way
        )
    else:
        headline = "## Verdict: works on its own, within all limits of the settings"
    predicted = evaluation.per_thousand
    rows = [
        ["bad parts that pass (escapes)", show_amount(predicted["escapes"])],
        ["good parts that fail (false alarms)", show_amount(predicted["false_alarms"])],
        ["parts that go to review", show_amount(predicted["reviews"])],
        [f"parts without a trustworthy score (errors: {evaluation.on_error})", show_amount(predicted["errors"])],
    ]
    promise = (
        f"**Promised with {percent(report.escape.confidence)} confidence:** at most "
        f"**{percent(report.escape.rate, 'up')}** of bad parts pass, and, with the same confidence, at most "
        f"**{percent(report.overkill.rate, 'up')}** of good parts fail."
    )
    return [
        Markdown(headline),
        Markdown(promise),
        Markdown(f"### What to expect of 1,000 parts, {defects:g} of them bad"),
        make_table(["of 1,000 parts", "expected (95% interval)"], rows),
        to_picture(draw_outcomes(evaluation), "Verdicts on the holdout, pictures that the model had never seen"),
    ]


def _describe_promises(
    evaluation: Evaluation, report: OperatingPointReport, threshold_pictures: Sequence[tuple[str, np.ndarray]]
) -> list[MetaflowCardComponent]:
    rows = [
        [
            name,
            percent(promise.limit),
            f"**{percent(promise.rate, 'up')}**",
            percent(promise.expected_rate, "up"),
            show_rate(measured),
            _say_whether_kept(promise, label),
        ]
        for name, label, promise, measured in (
            ("escapes", "bad", report.escape, evaluation.resolved.escape),
            ("false alarms", "good", report.overkill, evaluation.resolved.overkill),
        )
    ]
    reviews = evaluation.per_thousand["reviews"]
    kept = all(one.limit != "review" for one in report.gave_way)
    rows.append(
        [
            "reviews",
            percent(report.max_review_rate),
            "not promised",
            percent(report.review_rate),
            f"**{percent(reviews.value / 1000)}** "
            f"({percent(reviews.low / 1000, 'down')} to {percent(reviews.high / 1000, 'up')})",
            "yes" if kept else "**no**",
        ]
    )
    components: list[MetaflowCardComponent] = [
        Markdown("## What is promised, and what was measured"),
        to_picture(draw_rates(evaluation, report)),
        make_table(
            ["", "limit", "promised, at most", "on average, at most", "measured on the holdout", "limit kept"], rows
        ),
        Markdown(report.text),
    ]
    if threshold_pictures:
        components.append(
            Markdown("**The calibration images that hold the thresholds.** A wrong label here is costly.")
        )
        components.append(make_grid(threshold_pictures))
    if len(report.choices) > 1:
        choices = [
            [str(one.escapes), percent(one.escape_bound, "up"), f"{one.lower:.3f}", percent(one.review_rate)]
            for one in report.choices
        ]
        components.append(
            Markdown(
                "**What another limit on escapes would cost.** To choose one, change `max_escape_rate` or `priority` "
                "in the line's settings; a row picked from this table after a look at it is no longer a promise."
            )
        )
        components.append(
            make_table(["bad groups let through", "escapes, at most", "lower threshold", "parts to review"], choices)
        )
    return components


def _say_whether_kept(promise: Promise, label: str) -> str:
    if promise.kept:
        return "yes, proven"
    if promise.moved_for == "errors":
        return "**no**, the input guard refuses more good parts"
    if promise.moved_for == "outlets":
        return "**no**, one threshold serves both limits"
    if promise.moved:
        return "**no**, gave way to the limit on reviews"
    unit = "parts" if promise.one_image_each else "groups"
    return f"**not proven**, {promise.groups_missing} more {label} {unit} needed"


def _describe_holdout(evaluation: Evaluation, report: OperatingPointReport) -> list[MetaflowCardComponent]:
    confusion, rates, resolved = evaluation.confusion, evaluation.rates, evaluation.resolved
    grouped = evaluation.groups < evaluation.images
    components: list[MetaflowCardComponent] = [
        Markdown("## The holdout in figures"),
        Markdown(
            f"{evaluation.images} images in {evaluation.groups} independent groups: {evaluation.good} good, "
            f"{evaluation.bad} bad. AUROC {show_estimate(evaluation.auroc)}: how surely a bad part scores above a good "
            f"one. Average precision {show_estimate(evaluation.average_precision)}."
            + (GROUPED if grouped else "")
            + (NO_OVERLAP if math.isclose(evaluation.auroc.value, 1.0, abs_tol=1e-9) else "")
        ),
        to_picture(draw_scores(evaluation, report)),
        make_table(
            ["", "passed", "to review", "failed", "errors"],
            [
                ["**good parts**", *(str(confusion["good"][name]) for name in VERDICTS)],
                ["**bad parts**", *(str(confusion["bad"][name]) for name in VERDICTS)],
            ],
        ),
    ]
    header = ["", "rate (95% interval)"]
    rows = [
        ["escapes: bad, passed", show_rate(rates.escape)],
        ["false alarms: good, failed", show_rate(rates.overkill)],
        ["reviews of good parts", show_rate(rates.review_good)],
        ["reviews of bad parts", show_rate(rates.review_bad)],
        ["errors of good parts", show_rate(rates.error_good)],
        ["errors of bad parts", show_rate(rates.error_bad)],
    ]
    errors = rates.error_good.count + rates.error_bad.count
    if evaluation.review_action != "review" or errors:
        header.append(f"when {say_actions(evaluation)}")
        of_the_line = (resolved.escape, resolved.overkill, resolved.review_good, resolved.review_bad)
        for row, rate in zip(rows, of_the_line, strict=False):
            row.append(show_rate(rate) if rate.count or rate.total == 0 or rate in of_the_line[:2] else "none")
        for row in rows[4:]:
            row.append("none")
    if errors:
        components.append(
            Markdown(
                f"The input guard refuses {errors} pictures: light, contrast, sharpness or size are outside what "
                "training saw. The device makes errors of them, whatever their score."
            )
        )
    components.append(make_table(header, rows))
    return components
