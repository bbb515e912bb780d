"""The rollout card: what a plant manager reads."""

import io
from typing import Any

import numpy as np
from card_reading import base64_of, make_picture, pictures_of, text_of
from PIL import Image

from inspection.cards.deploy import rollout_components
from inspection.deploy_path.view import (
    CheckView,
    ComparisonView,
    DeviceRow,
    DisagreementView,
    PlaceView,
    RolloutView,
    SizeView,
    StageView,
)


def make_view(**changes: Any) -> RolloutView:
    fields: dict[str, Any] = {
        "line": "bottles",
        "model": 7,
        "champion": 6,
        "state": "rolled-back",
        "short": "model 6 serves on all 3 devices",
        "headline": "Model 7 was taken back, and model 6 serves",
        "reasons": ["it rejects 7 % more of the parts"],
        "advice": ["look at the parts below"],
        "stages": [
            StageView("beside the old", "canary", "failed", 1, 1, "312 of 500 parts"),
            StageView("canaries", "canary", "later", 1, 0),
            StageView("wave 1", "fleet", "skipped", 2, 0),
        ],
        "places": [PlaceView("fleet", tuple(f"cam-{number}" for number in range(9)), "", "model 7", "not touched")],
        "sizes": [SizeView("lineside.Model.bottles", "7.0.0", True, 812_000), SizeView("x", "1.0.0", False, 5)],
        "devices": [
            DeviceRow("cam-1", "canary", "well", True, 12),
            DeviceRow("cam-2", "fleet", "failed", False, 0, "why"),
        ],
        "comparisons": [
            ComparisonView(
                paired=True,
                champion={"pass": 300, "fail": 12},
                challenger={"pass": 276, "fail": 36},
                pairs={("pass", "pass"): 275, ("pass", "fail"): 25, ("fail", "pass"): 1, ("fail", "fail"): 11},
                parts=312,
                wanted=500,
                skipped=4,
                checks=[CheckView("not accepted", 0.038, 0.115, "at most 2 %", "**beyond**", "3.9 % more")],
                reasons=["One may look after every part."],
            )
        ],
        "disagreements": [DisagreementView(make_picture(seed), "cam-1", "pass", "fail") for seed in range(5)],
        "timeline": [(1_795_000_000.0 + 60 * number, f"event {number}") for number in range(3)],
        "facts": {"rollout": "fleet/bottles/rollouts/000003"},
    }
    return RolloutView(**{**fields, **changes})


def test_the_card_tells_result_reason_and_what_to_do_first() -> None:
    text = text_of(rollout_components(make_view()))
    order = ["# Line bottles: model 7", "## Model 7 was taken back", "7 % more of the parts", "What to do now"]
    assert [text.index(words) for words in order] == sorted(text.index(words) for words in order)


def test_both_models_stand_side_by_side_with_the_parts_on_which_they_differ() -> None:
    text = text_of(rollout_components(make_view()))
    assert "Both models judged the same **312 parts**" in text
    assert "4 more were not compared" in text
    assert "286 of 312 parts (91.7\u00a0%)" in text
    assert "**25**" in text
    assert "Who is right?" in text
    assert "cam-1: old pass, new fail" in text


def test_every_picture_shows_something() -> None:
    pictures = pictures_of(rollout_components(make_view()))
    assert len(pictures) == 3 + 5
    for picture in pictures:
        with Image.open(io.BytesIO(base64_of(picture.render()["src"]))) as opened:
            assert np.asarray(opened.convert("L")).std() > 5


def test_devices_with_trouble_are_on_top_and_long_lists_are_cut() -> None:
    text = text_of(rollout_components(make_view()))
    assert text.index("✖ cam-2") < text.index("✔ cam-1")
    assert "1 of 2 are well" in text
    assert "cam-0, cam-1, cam-2, cam-3 and 5 more (9 devices)" in text
    many = make_view(timeline=[(float(number), f"event {number}") for number in range(200)])
    assert "140 more" in text_of(rollout_components(many))


def test_sizes_say_what_a_device_fetches() -> None:
    text = text_of(rollout_components(make_view()))
    assert "fetches at most 0.8 MB" in text
    assert "Nothing new" in text_of(rollout_components(make_view(sizes=[SizeView("x", "1.0.0", False, 5)])))


def test_differences_without_pictures_say_so() -> None:
    assert "none has arrived from the devices yet" in text_of(rollout_components(make_view(disagreements=())))


def test_a_first_deployment_has_no_model_beside_it() -> None:
    live = ComparisonView(False, {}, {"pass": 5}, {}, 5, 5, 0, [], [])
    view = make_view(champion=None, comparisons=[live], disagreements=(), state="done", progress=(3, 5, "parts"))
    text = text_of(rollout_components(view))
    assert "no model was there" in text
    assert "The new model on the line" in text
    assert "says" not in text
