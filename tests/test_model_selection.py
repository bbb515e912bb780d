import tracemalloc

import numpy as np
import pytest
import torch

from edge.contract import InputContract
from inspection.model import selection
from inspection.model.augmentation import augment
from inspection.model.examples import TrainingSet
from inspection.model.features import standardisation
from inspection.model.loading import load_batches, shuffled_batches
from inspection.model.places import Moments, Places
from inspection.model.resolution import defect_side_px, input_size_warning
from inspection.model.selection import CrossValidation, auroc, bootstrap_aurocs, choose_recipe, weighted_aurocs
from inspection.settings import AugmentationSettings

NOTHING = AugmentationSettings(
    horizontal_flip=False, vertical_flip=False, rotation_deg=0, scale=0, shift=0, brightness=0, contrast=0, noise=0
)
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(60, 190, (4, 24, 32, 3)).astype(np.float32))


def _labels(count=60, per_group=1):
    return TrainingSet(
        np.zeros((count, 8, 8, 3), np.uint8),
        np.arange(count) % 2 == 1,
        np.full(count, -1),
        [f"part-{row // per_group}" for row in range(count)],
    )


def _validation(recipe, labels, separation, seed):
    noise = np.random.default_rng(seed).normal(size=len(labels))
    scores = noise + separation * labels.is_bad
    return CrossValidation(recipe, scores, auroc(scores, labels.is_bad), 1.0, 3)


def test_a_clearly_better_recipe_is_chosen_and_the_interval_is_said():
    labels = _labels(200)
    choice = choose_recipe([_validation("frozen", labels, 0.5, 0), _validation("finetune", labels, 4.0, 1)], labels)
    assert choice.recipe != "frozen"
    assert set(choice.aurocs) == {"frozen", "finetune", "both"}
    assert "95 % interval" in choice.explanation
    behind = next(one for one in choice.differences if one.recipe == "frozen")
    assert 0 < behind.low < behind.difference < behind.high


def test_of_equally_good_recipes_the_simplest_is_kept():
    labels = _labels(600)
    one = _validation("frozen", labels, 2.0, 0)
    jitter = np.random.default_rng(1).normal(size=len(labels))
    hardly_better = one.scores + 0.05 * jitter + 0.02 * labels.is_bad
    other = CrossValidation("finetune", hardly_better, auroc(hardly_better, labels.is_bad), 1.0, 3)
    assert choose_recipe([other, one], labels).recipe == "frozen"


def test_few_images_do_not_prove_that_a_simpler_recipe_is_as_good():
    labels = _labels(40)
    simple, better = _validation("frozen", labels, 1.0, 0), _validation("finetune", labels, 1.0, 1)
    choice = choose_recipe([simple, better], labels)
    assert choice.recipe == choice.best
    assert all(one.difference + one.error > 0.01 for one in choice.differences)


def test_the_weighted_auroc_agrees_with_a_reference_with_ties():
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(0)
    scores, is_bad = random.integers(0, 6, 80).astype(float), random.random(80) < 0.4
    weights = random.integers(0, 4, (5, 80)).astype(float)
    expected = [roc_auc_score(is_bad, scores, sample_weight=row) for row in weights]
    assert weighted_aurocs(scores, is_bad, weights) == pytest.approx(expected)


def test_one_recipe_alone_is_chosen():
    labels = _labels()
    choice = choose_recipe([_validation("finetune", labels, 2.0, 0)], labels)
    assert (choice.recipe, choice.differences) == ("finetune", ())


def test_the_averaged_recipe_needs_no_training_of_its_own():
    labels = _labels()
    one, other = _validation("frozen", labels, 1.0, 0), _validation("finetune", labels, 1.0, 1)
    choice = choose_recipe([one, other], labels)
    assert choice.aurocs["both"] == pytest.approx(auroc((one.scores + other.scores) / 2, labels.is_bad))


def test_images_of_one_part_make_the_comparison_less_certain():
    few, many = _labels(120, per_group=12), _labels(120)
    recipes = [_validation("frozen", many, 1.0, 0), _validation("finetune", many, 1.2, 1)]
    errors = []
    for labels in (few, many):
        bias = np.repeat(np.random.default_rng(2).normal(size=120 // 12), 12)
        shaken = [CrossValidation(one.recipe, one.scores + bias, one.auroc, 1.0, 3) for one in recipes]
        errors.append(max(one.error for one in choose_recipe(shaken, labels).differences))
    assert all(error > 0 for error in errors)


def test_without_any_change_allowed_a_picture_stays_as_it_is():
    assert torch.allclose(augment(IMAGES, NOTHING, torch.Generator().manual_seed(0)), IMAGES)


def test_flips_alone_only_mirror():
    flips = AugmentationSettings(**{**vars(NOTHING), "horizontal_flip": True, "vertical_flip": True})
    changed = augment(IMAGES, flips, torch.Generator().manual_seed(1))
    for image, original in zip(changed, IMAGES, strict=True):
        assert any(torch.allclose(image, original.flip(axes)) for axes in ([], [0], [1], [0, 1]))


def test_every_picture_of_a_batch_gets_its_own_change():
    same = IMAGES[:1].expand(6, -1, -1, -1)
    changed = augment(same, AugmentationSettings(), torch.Generator().manual_seed(0))
    assert all(not torch.allclose(changed[0], other) for other in changed[1:])
    assert changed.min() >= 0
    assert changed.max() <= 255


def test_the_same_generator_state_gives_the_same_change():
    one, same = (augment(IMAGES, AugmentationSettings(), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, same)


def test_a_rotation_keeps_shapes_when_the_picture_is_not_square():
    images = torch.zeros(64, 40, 80, 3)
    images[:, 15:25, 35:45] = 255.0
    turned = augment(images, AugmentationSettings(**{**vars(NOTHING), "rotation_deg": 45.0}), torch.Generator())
    areas = (turned[..., 0] / 255).sum((1, 2))
    assert areas.std() < 2
    assert areas.mean() == pytest.approx(100, abs=2)


def test_batches_come_in_the_order_asked_for_and_hold_every_image_once():
    pixels = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    batches = shuffled_batches(10, 3, 0, 1)
    assert sorted(np.concatenate(batches)) == list(range(10))
    assert min(map(len, batches)) > 1
    for indices, images in load_batches(pixels, batches, torch.device("cpu")):
        assert images[:, 0, 0, 0].tolist() == indices.tolist()


def test_epochs_come_in_different_orders():
    assert shuffled_batches(20, 20, 0, 1)[0].tolist() != shuffled_batches(20, 20, 0, 2)[0].tolist()


def test_a_channel_that_varies_less_than_an_8_bit_step_is_not_blown_up():
    features = np.stack([np.linspace(0, 255, 50), np.linspace(0, 0.01, 50)], axis=1).astype(np.float32)
    _, std = standardisation(features, [2])
    assert std[1] == pytest.approx(1.0)
    assert std[0] > 50


def test_places_notice_what_good_parts_never_show_there_and_only_there():
    good = torch.randn(50, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    good[:, :, 2, 2] += 10.0  # normal at this place
    moments = Moments()
    moments.add(good[:20])
    moments.add(good[20:])
    assert torch.allclose(moments.variance, good.double().var(0, correction=0))
    places = Places(2, 8, 8)
    places.set_statistics(moments.mean, moments.variance)
    odd = good[:1].clone()
    odd[:, :, 5, 5] += 10.0
    assert places(good[:1])[0].max() < 5
    assert places(odd)[0].max() > 8


def test_fine_maps_are_averaged_down_for_places():
    assert Places(3, 255, 255).get_buffer("mean").shape == (1, 3, 85, 85)
    assert Places(3, 112, 100).get_buffer("mean").shape == (1, 3, 112, 100)


@pytest.mark.parametrize(("resize", "side"), [("squash", 5.0), ("letterbox", 5.0), ("center-crop", 10.0)])
def test_a_defect_is_measured_in_pixels_of_the_input(resize, side):
    mask = np.zeros((200, 400), bool)
    mask[50:70, 100:120] = True
    assert defect_side_px(mask, InputContract(width=100, height=100, resize=resize)) == pytest.approx(side)


def test_an_input_too_small_for_a_defect_is_warned_about_with_a_size_that_would_do():
    contract = InputContract(width=224, height=224)
    warning = input_size_warning({"scratch": [1.5, 2.0, 9.0], "stain": [20.0]}, contract)
    assert warning is not None
    assert "scratch (2.0 px)" in warning
    assert "stain" not in warning
    assert "448" in warning
    assert input_size_warning({"stain": [20.0], "none": []}, contract) is None


def test_the_bootstrap_holds_as_much_memory_for_many_images_as_for_few(monkeypatch):
    monkeypatch.setattr(selection, "BOOTSTRAPS", 60)
    monkeypatch.setattr(selection, "CHUNK", 20_000)

    def peak(count):
        scores, is_bad = np.random.default_rng(0).normal(size=count), np.arange(count) % 2 == 1
        groups = [str(row) for row in range(count)]
        tracemalloc.start()
        assert bootstrap_aurocs([scores], is_bad, groups, 0).shape == (60, 1)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(100)  # imports
    assert peak(8000) < peak(1000) + 7000 * 200  # bytes an image; a thousand draws of it were 46 kB


def test_draws_in_chunks_are_as_many_and_alike(monkeypatch):
    scores, is_bad = np.random.default_rng(0).normal(size=200) + (np.arange(200) % 2), np.arange(200) % 2 == 1
    groups = [str(row // 2) for row in range(200)]
    whole = bootstrap_aurocs([scores], is_bad, groups, 0)
    monkeypatch.setattr(selection, "CHUNK", 7 * 200)
    chunked = bootstrap_aurocs([scores], is_bad, groups, 0)
    assert whole.shape == chunked.shape == (selection.BOOTSTRAPS, 1)
    assert chunked.mean() == pytest.approx(whole.mean(), abs=0.005)
    assert chunked.std() == pytest.approx(whole.std(), rel=0.1)
