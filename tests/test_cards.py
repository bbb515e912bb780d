import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from card_reading import base64_of, make_picture, pictures_of, text_of
from metaflow.cards import Image as CardImage
from metaflow.cards import Table
from PIL import Image

from edge.contract import OperatingPoint
from inspection.cards import charts, evidence
from inspection.cards import dataset as dataset_card
from inspection.cards import intake as intake_card
from inspection.cards import parity as parity_card
from inspection.cards import report as report_card
from inspection.cards import training as training_card
from inspection.cards.style import make_grid, to_thumbnail
from inspection.dataset.findings import make_finding
from inspection.dataset.grouping import Repair
from inspection.dataset.intake_record import Intake
from inspection.dataset.manifest import ImageRow, Snapshot
from inspection.decision.calibration import fit_calibration
from inspection.decision.evaluation import Evaluation, contradicts_promise, evaluate
from inspection.decision.operating_point import OperatingPointReport, choose_operating_point
from inspection.decision.ranking import estimate_ranking
from inspection.decision.robustness import Disturbance, summarise_robustness
from inspection.export.agreement import check_parity
from inspection.export.parity import GateError, ParityGate
from inspection.model.progress import Epoch, Progress
from inspection.model.selection import Difference, RecipeChoice
from inspection.settings import ExportSettings, OperatingPointSettings


def judge(
    gap: float = 1.6, bad: int = 45, good: int = 120, **settings: Any
) -> tuple[Evaluation, OperatingPointReport, np.ndarray]:
    generator = np.random.default_rng(7)
    chosen = OperatingPointSettings(**settings)
    is_bad = np.repeat([False, True], [good, bad])
    groups = [str(index) for index in range(good + bad)]

    def draw() -> np.ndarray:
        return np.where(is_bad, gap, -gap) + generator.normal(size=good + bad)

    scores = draw()
    report = choose_operating_point(scores, is_bad, groups, chosen)
    calibration = fit_calibration(scores, is_bad)
    scores = draw()
    scores[-1] = -4.0  # an escape
    evaluation = evaluate(
        scores,
        is_bad,
        groups,
        [("dent", "scratch")[index % 2] if is_bad[index] else None for index in range(good + bad)],
        [f"lot-{index % 4}" for index in range(good + bad)],
        [f"holdout/{index}.png" for index in range(good + bad)],
        report.point,
        calibration,
        chosen,
    )
    return evaluation, report, scores


@pytest.fixture(scope="module")
def judged() -> tuple[Evaluation, OperatingPointReport, np.ndarray]:
    return judge()


def make_gate(passed_noise: float = 0.001) -> ParityGate:
    generator = np.random.default_rng(1)
    is_bad = np.arange(200) % 2 == 0
    trained = np.where(is_bad, 1.0, -1.0) + generator.normal(size=200)
    source = np.arange(200) % 50
    reports = [
        check_parity(trained, trained + noise * generator.normal(size=200), is_bad, ExportSettings(), kind, source)
        for kind, noise in (("float32", passed_noise), ("int8", 0.5))
    ]
    cost = {"p50_ms": 31.24, "p99_ms": 38.8, "rss_bytes": 2**26, "runtime": "ai-edge-litert 2.3.0"}
    return ParityGate(
        float=reports[0],
        int8=reports[1],
        artifact=Path("model.tflite"),
        kind="float32",
        reason="int8 failed the parity gate",
        source_index=source,
        copies=np.arange(200) >= 50,
        devices={"float32": cost, "int8": cost},
    )


def make_snapshot() -> Snapshot:
    rows = [
        ImageRow(
            uri=f"{name}/{index}.png",
            sha256="0" * 64,
            width=32,
            height=32,
            label="good" if name == "good" else "bad",
            defect_type=None if name == "good" else name,
            group=f"{name}-{index}",
            lot=f"lot-{index % 3}",
            split=("train", "calibration", "holdout")[index % 3],  # type: ignore[arg-type]
        )
        for name in ("dent", "good")
        for index in range(9)
    ]
    return Snapshot(id="ab" * 32, rows=tuple(rows), parent=None, location="the sample")


@pytest.fixture(scope="module")
def components(judged: tuple[Evaluation, OperatingPointReport, np.ndarray]) -> list[Any]:
    """One whole report, with everything that it can show."""
    evaluation, report, scores = judged
    kept = np.zeros(165, dtype=bool)
    rows = summarise_robustness(
        (scores, kept),
        [(Disturbance("blur", 1.0), scores - 0.5, kept), (Disturbance("jpeg", 50.0), scores, ~kept)],
        np.repeat([False, True], [120, 45]),
        [str(index) for index in range(165)],
        report.point,
    )
    return report_card.report_components(
        dataclasses.replace(evaluation, robustness=rows),
        report,
        {index: make_picture(index) for index in report_card.pictures_wanted(evaluation)},
        title="Report: line `sample`",
        parity=make_gate(),
        threshold_pictures=[("dent/3.png: holds the lower threshold", make_picture())],
        recipe=RecipeChoice(
            "frozen",
            "both",
            {"frozen": 0.962, "both": 0.967},
            (Difference("frozen", 0.005, 0.006, -0.004, 0.016),),
            "Chosen: frozen.",
        ),
        dataset=dataset_card.dataset_components(make_snapshot(), {}),
        provenance={"commit": "abc123"},
    )


def test_report_names_the_verdict_the_promise_and_the_rates(
    judged: tuple[Evaluation, OperatingPointReport, np.ndarray], components: list[Any]
) -> None:
    evaluation, report, _ = judged
    text = text_of(components)
    assert "Report: line `sample`" in text
    assert "Verdict: works on its own, but the limit on escapes" in text
    assert "**Promised with 95% confidence:** at most **6.45%** of bad parts pass" in text
    assert "14 more bad parts needed" in text
    assert "What to expect of 1,000 parts, 10 of them bad" in text
    escape = evaluation.rates.escape
    assert f"{escape.count} of {escape.total} = **{100 * escape.rate:.1f}%**" in text
    assert f"AUROC **{evaluation.auroc.value:.3f}**" in text
    assert report.text in text


def test_every_picture_of_the_report_is_a_png_with_something_in_it(components: list[Any]) -> None:
    pictures = pictures_of(components)
    assert len(pictures) >= 8  # outcomes, rates, scores, types, robustness, reliability, costs, counts
    for picture in pictures:
        with Image.open(io.BytesIO(base64_of(picture.render()["src"]))) as opened:
            assert min(opened.size) > 100
            assert np.asarray(opened.convert("L")).std() > 5


def test_worst_mistakes_are_shown_as_pictures_with_score_label_and_file(
    judged: tuple[Evaluation, OperatingPointReport, np.ndarray], components: list[Any]
) -> None:
    evaluation, _, scores = judged
    worst = report_card.pictures_wanted(evaluation)[0]
    assert worst == len(scores) - 1  # the planted escape
    row = next(
        row
        for one in components
        if isinstance(one, Table)
        for row in one._data
        if f"holdout/{worst}.png" in text_of(row)
    )
    assert isinstance(row[0], CardImage)
    assert "-4.00" in text_of(row)
    assert "bad: dent" in text_of(row)
    assert "**pass**" in text_of(row)


def test_types_and_lots_have_their_sections(
    judged: tuple[Evaluation, OperatingPointReport, np.ndarray], components: list[Any]
) -> None:
    evaluation, _, _ = judged
    worst = max(evaluation.per_type, key=lambda one: one.escape.rate).name
    other = ({"dent", "scratch"} - {worst}).pop()
    text = text_of(components)
    section = text[text.index("## Types of defect") :]
    assert section.index(worst) < section.index(other)
    assert "lot-0" in section


def test_robustness_recipes_thresholds_and_provenance_have_their_sections(components: list[Any]) -> None:
    text = text_of(components)
    assert "blur of 1 px" in text
    assert "JPEG quality 50" in text
    assert "dent/3.png: holds the lower threshold" in text
    assert "What ships: the float32 model" in text
    assert "**frozen**, chosen" in text
    assert "0.005 (-0.004 to +0.016)" in text
    assert "18 images from 3 lots" in text
    assert "`abc123`" in text


def test_model_that_reviews_most_parts_is_called_not_autonomous_in_the_headline() -> None:
    evaluation, report, _ = judge(gap=0.3)
    assert not report.autonomous
    text = text_of(report_card.describe_verdict(evaluation, report))
    assert "Verdict: NOT autonomous" in text


def test_model_within_all_limits_says_so() -> None:
    evaluation, report, _ = judge(gap=4.0, bad=200, good=200)
    assert "within all limits of the settings" in text_of(report_card.describe_verdict(evaluation, report))


def test_classes_without_overlap_have_intervals_with_a_width_that_is_explained() -> None:
    evaluation, report, scores = judge(gap=6.0)
    is_bad = np.repeat([False, True], [120, 45])
    separated = np.where(is_bad, np.abs(scores), -np.abs(scores))
    auroc, precision = estimate_ranking(separated, is_bad, [str(index) for index in range(165)])
    perfect = dataclasses.replace(evaluation, auroc=auroc, average_precision=precision)
    assert (auroc.value, precision.value) == (1.0, 1.0)
    assert max(auroc.low, precision.low) < 0.95
    assert "The classes do not overlap" in text_of(report_card.report_components(perfect, report, {}, title="Report"))


def test_holdout_that_contradicts_the_promise_is_the_headline() -> None:
    evaluation, report, _ = judge(gap=3.0)
    assert not contradicts_promise(evaluation, report)
    shifted = evaluate(
        np.repeat([-3.0, -3.0], [60, 40]),
        np.repeat([False, True], [60, 40]),
        [str(index) for index in range(100)],
        [None] * 100,
        [None] * 100,
        ["x.png"] * 100,
        report.point,
        fit_calibration(np.array([-1.0, 1.0]), np.array([False, True])),
        OperatingPointSettings(),
    )
    assert contradicts_promise(shifted, report)
    assert "the holdout contradicts the promise" in text_of(report_card.describe_verdict(shifted, report))


def test_review_that_means_fail_is_shown_beside() -> None:
    evaluation, report, _ = judge(review_action="fail")
    text = text_of(report_card.report_components(evaluation, report, {}, title="Report"))
    assert "when review means fail" in text
    assert "the lower threshold alone decides" in text


def judge_a_band(**point: Any) -> Evaluation:
    """Two lots, two types: half the bad parts of lot b lie in the band, and one of its good parts is refused."""
    count = 20
    return evaluate(
        np.array([-3.0] * 10 + [3.0] * 5 + [0.0] * 3 + [3.0] * 2),
        np.repeat([False, True], 10),
        [str(index) for index in range(count)],
        [None] * 10 + ["dent"] * 5 + ["scratch"] * 5,
        ["a"] * 5 + ["b"] * 5 + ["a"] * 5 + ["b"] * 5,
        [f"{index}.png" for index in range(count)],
        OperatingPoint(id="op", lower=-1.0, upper=1.0, **point),
        fit_calibration(np.array([-1.0, 1.0]), np.array([False, True])),
        OperatingPointSettings(),
        refused=np.arange(count) == 9,
    )


def test_types_and_lots_show_the_escapes_of_the_line_and_say_so() -> None:
    evaluation = judge_a_band(review_action="pass")
    text = text_of(evidence.describe_types(evaluation))
    assert text.index("scratch") < text.index("dent")
    assert "3 of 5 = **60.0%**" in text
    assert "review means pass and error means reject" in text
    lots = evidence.describe_lots(evaluation)
    rows = next(one._data for one in lots if isinstance(one, Table))
    assert [text_of(row[:1]) for row in rows] == ["b", "a"]
    assert "review means pass and error means reject" in text_of(lots)


@pytest.mark.parametrize("review_action", ["pass", "review", "fail"])
def test_bars_of_the_types_add_up_whatever_review_means(review_action: str) -> None:
    axes = charts.draw_types(judge_a_band(review_action=review_action)).axes[0]
    widths = [
        sum(bar.get_width() for container in axes.containers[start : start + 4] for bar in container)
        for start in (0, 4)
    ]
    assert widths == pytest.approx([100.0, 100.0])


def test_tables_without_reviews_resolved_and_errors_need_no_explanation() -> None:
    evaluation, _, _ = judge()
    assert "review means" not in text_of([*evidence.describe_types(evaluation), *evidence.describe_lots(evaluation)])


def test_parity_section_shows_agreement_latency_and_the_pictures_that_flipped() -> None:
    gate = make_gate()
    wanted = parity_card.pictures_wanted(gate)
    assert 0 < len(wanted) <= 2 * parity_card.FLIPS_SHOWN
    assert set(wanted) <= set(range(50))
    names = [f"train/{index}.png" for index in range(50)]
    components = parity_card.parity_components(gate, {index: make_picture(index) for index in wanted}, names)
    text = text_of(components)
    assert "What ships: the float32 model" in text
    assert "Why: int8 failed the parity gate" in text
    assert gate.int8.faults[0] in text
    assert "31.2 ms" in text
    assert "64 MiB" in text
    assert f"int8: train/{wanted[0]}.png" in text
    assert len(pictures_of(components)) == len(wanted)


def test_parity_without_flips_says_so() -> None:
    gate = make_gate(passed_noise=0.0)
    assert text_of(parity_card.show_flips([gate.float], gate.source_index, {}, None)) == "No picture changed sides."


def test_failed_parity_gate_has_its_card() -> None:
    gate = make_gate()
    error = GateError("no converted model passed", [gate.float, gate.int8], gate.source_index)
    components = parity_card.failed_parity_components(error, {})
    assert "Nothing ships" in text_of(components)
    assert "no converted model passed" in text_of(components)
    assert parity_card.pictures_wanted(GateError("x")) == []


def test_dataset_section_counts_classes_and_shows_them() -> None:
    snapshot = make_snapshot()
    wanted = dataset_card.pictures_wanted(snapshot)
    assert {row.label for row in wanted} == {"good", "bad"}
    components = dataset_card.dataset_components(snapshot, {row.uri: make_picture() for row in wanted})
    text = text_of(components)
    assert "18 images from 3 lots" in text
    assert "calibration: sets the thresholds" in text
    assert len(pictures_of(components)) == 1 + len(wanted)


def test_training_card_grows_with_the_epochs() -> None:
    early = training_card.training_components(Progress("frozen", "features", 10, 200))
    assert "10 of at most 200 images" in text_of(early)
    assert pictures_of(early) == []
    curves = tuple(Epoch(index, 1 / index, 1.2 / index, 1 - 0.3 / index, 20.0) for index in range(1, 4))
    later = training_card.training_components(Progress("finetune", "epochs", 3, 15, curves))
    assert "3 of at most 15 epochs" in text_of(later)
    assert "**3**" in text_of(later)  # the best epoch
    assert len(pictures_of(later)) == 1
    done = training_card.trained_components("finetune", curves, 61.0, ["stopped early"], {"inner_auroc": 0.9712})
    assert "in 61 s" in text_of(done)
    assert "- stopped early" in text_of(done)
    assert "inner auroc" in text_of(done)
    assert "0.9712" in text_of(done)


def test_thumbnail_keeps_the_aspect_ratio() -> None:
    picture = to_thumbnail(np.zeros((20, 40, 3), dtype=np.uint8), side_px=80)
    with Image.open(io.BytesIO(base64_of(picture.render()["src"]))) as opened:
        assert opened.size == (80, 40)


def test_grid_fills_its_last_row() -> None:
    grid = make_grid([(str(index), make_picture()) for index in range(6)])
    assert [len(row) for row in grid._data] == [4, 4]


class TestIntakeCard:
    def intake(self, **fields: Any) -> Intake:
        rows = tuple(
            ImageRow(uri, uri, 64, 48, "good", group=uri, split="train") for uri in ("good/a.png", "good/<b>|*.png")
        )
        return Intake(Snapshot("5" * 64, rows, None, "/here"), **fields)

    def test_warnings_stand_with_their_pictures_and_what_to_do(self):
        finding = make_finding("duplicate-images", "good/<b>|*.png twice", [("good/a.png", "good/<b>|*.png", "gone")])
        intake = self.intake(findings=(finding,))
        wanted = intake_card.pictures_wanted(intake)
        assert wanted == ["good/a.png", "good/<b>|*.png"], "those that are not in the snapshot have no picture"
        components = intake_card.intake_components(intake, {uri: make_picture() for uri in wanted})
        text = text_of(components)
        assert finding.title in text
        assert finding.advice in text
        assert r"good/&lt;b&gt;\|\*.png twice" in text
        assert len(pictures_of(components)) == 2

    def test_what_was_left_out_and_grouped_is_listed(self):
        repair = Repair((("good/a.png", "good/b.png"),), (), ())
        intake = self.intake(dropped={f"bad/{index}.png": "the file is empty" for index in range(60)}, repair=repair)
        text = text_of(intake_card.intake_components(intake, {}))
        assert "60 images that cannot be used are left out" in text
        assert "The first 50" in text
        assert "made 1 group" in text

    def test_a_clean_set_says_nothing(self):
        assert intake_card.intake_components(self.intake(), {}) == []

    def test_masks_and_boxes_tint_the_pictures_of_the_dataset(self):
        row = ImageRow("dent/a.png", "a", 64, 48, "bad", "dent", mask="masks/a.png", group="a", split="train")
        snapshot = Snapshot("5" * 64, (row,), None, "/here")
        plain, tinted = (
            pictures_of(dataset_card.dataset_components(snapshot, {row.uri: make_picture()}, marks))[-1]
            for marks in ({}, {row.uri: np.zeros(make_picture().shape[:2], dtype=np.uint8) + 255})
        )
        assert plain.render()["src"] != tinted.render()["src"]
        assert "1 have a mask or boxes" in text_of(dataset_card.dataset_components(snapshot, {}, {}))
