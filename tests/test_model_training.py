import io
import os
import platform
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from inspection.errors import TrainingError
from inspection.model import recipes, training
from inspection.model.checkpoints import FolderCheckpoints, StoredCheckpoints
from inspection.model.classifier import Scorer
from inspection.model.examples import TrainingSet, folds_of, learnable_types, thin_out, validation_fold
from inspection.model.frozen import fit_common_scale
from inspection.model.storing import load_model, save_model
from inspection.model.training import cross_validate, recipes_to_compare, train
from inspection.settings import AugmentationSettings, TrainingSettings
from inspection.storage import open_storage

SMALL = TrainingSettings(
    backbone="squeezenet1_1",
    weights="none",
    epochs=3,
    batch_size=8,
    views=1,
    folds=2,
    learning_rate=1e-3,
    augmentation=AugmentationSettings(horizontal_flip=False, vertical_flip=False, shift=0.0, rotation_deg=0.0),
)


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums of one thread have one order, whatever else the machine does; and tiny pictures are fastest so."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _set(count=24, size=36, seed=0, types=("dark", "light")):
    """Grey pictures; a bad one has a dark or a light square somewhere."""
    random = np.random.default_rng(seed)
    pixels = random.integers(110, 130, (count, size, size, 3)).astype(np.uint8)
    is_bad = np.arange(count) % 2 == 1
    kinds = np.where(is_bad, (np.arange(count) // 2) % 2, -1).astype(np.int64)
    for row in np.flatnonzero(is_bad):
        top, left = random.integers(2, size - 14, 2)
        pixels[row, top : top + 12, left : left + 12] = (10, 240)[kinds[row]]
    return TrainingSet(pixels, is_bad, kinds, [f"part-{row}" for row in range(count)], types)


def _settings(**fields):
    return TrainingSettings(**{**vars(SMALL), **fields})


def test_the_frozen_recipe_finds_defects_and_tells_their_types():
    learned, unseen = _set(), _set(seed=1)
    trained = train("frozen", learned, SMALL)
    scores = trained.model.score_pixels(unseen.pixels)
    assert scores[unseen.is_bad].min() > scores[~unseen.is_bad].max()
    types = trained.model.score_types(unseen.pixels)
    assert (types.argmax(1) == unseen.types)[unseen.is_bad].all()


def test_fine_tuning_records_every_epoch_and_learns():
    seen = []
    trained = train("finetune", _set(), _settings(epochs=4, patience=4), progress=seen.append)
    assert [epoch.epoch for epoch in trained.curves] == [1, 2, 3, 4]
    assert [update.done for update in seen] == [1, 2, 3, 4]
    assert trained.curves[-1].loss < trained.curves[0].loss
    assert all(epoch.images_per_s > 0 for epoch in trained.curves)


@pytest.mark.parametrize("recipe", ["frozen", "finetune"])
def test_the_same_seed_gives_the_same_model(recipe):
    one, same = (train(recipe, _set(), _settings(epochs=2)).model.state_dict() for _ in range(2))
    assert all(torch.equal(one[key], same[key]) for key in one)


def test_another_seed_gives_another_model():
    one, other = (train("frozen", _set(), _settings(seed=seed)).model.score_pixels(_set().pixels) for seed in (0, 1))
    assert not np.allclose(one, other)


def test_both_is_the_average_of_the_two_recipes():
    learned = _set()
    both = train("both", learned, _settings(epochs=1)).model.score_pixels(learned.pixels)
    members = [
        train(recipe, learned, _settings(epochs=1)).model.score_pixels(learned.pixels)
        for recipe in ("frozen", "finetune")
    ]
    assert np.allclose(both, np.mean(members, axis=0), atol=1e-4)


def test_a_fixed_pose_finds_a_part_out_of_place_that_pooling_cannot_see():
    random = np.random.default_rng(0)
    pixels = random.integers(110, 130, (40, 36, 36, 3)).astype(np.uint8)
    is_bad = np.arange(40) % 2 == 1
    for row, bad in enumerate(is_bad):  # the same spot, at its place or elsewhere
        top, left = random.integers(16, 26, 2) if bad else (6, 6)
        pixels[row, top : top + 8, left : left + 8] = 220
    learned = TrainingSet(pixels[:28], is_bad[:28], np.full(28, -1), [str(row) for row in range(28)])
    model = train("frozen", learned, _settings(fixed_pose=True)).model
    scores = model.score_pixels(pixels[28:])
    assert scores[is_bad[28:]].min() > scores[~is_bad[28:]].max()


def test_an_unknown_recipe_is_refused():
    with pytest.raises(TrainingError, match="found 'magic'"):
        train("magic", _set(), SMALL)


@pytest.mark.parametrize(("bad", "message"), [(0, "found 8 good and 0 bad"), (1, "found 7 good and 1 bad")])
def test_a_class_with_too_few_images_is_refused(bad, message):
    with pytest.raises(TrainingError, match=message):
        TrainingSet(np.zeros((8, 32, 32, 3), np.uint8), np.arange(8) < bad, np.full(8, -1), ["a"] * 8)


def test_labels_that_do_not_match_the_pixels_are_refused():
    with pytest.raises(TrainingError, match="found pixels"):
        TrainingSet(np.zeros((8, 32, 32, 3), np.uint8), np.arange(7) < 3, np.full(7, -1), ["a"] * 7)


def test_max_minutes_stops_in_good_order_with_a_model():
    trained = train("finetune", _set(), _settings(epochs=50, patience=50, max_minutes=0.001))
    assert len(trained.curves) < 50
    assert any("max_minutes" in note for note in trained.notes)
    assert np.isfinite(trained.model.score_pixels(_set().pixels)).all()


def test_a_training_that_goes_on_has_only_the_time_that_it_had_left(tmp_path):
    checkpoints = FolderCheckpoints(tmp_path)
    train("finetune", _set(), _settings(epochs=50, patience=50, max_minutes=0.001), checkpoints)
    saved = checkpoints.load("finetune")
    checkpoints.save("finetune", {**saved, "finished": False, "seconds": 3600.0})
    trained = train("finetune", _set(), _settings(epochs=50, patience=50, max_minutes=59), checkpoints)
    assert len(trained.curves) == len(saved["curves"])
    assert trained.seconds >= 3600
    assert any("max_minutes" in note for note in trained.notes)
    checkpoints.save("finetune", {**saved, "finished": False, "seconds": 3600.0})
    going_on = train("finetune", _set(), _settings(epochs=50, patience=50, max_minutes=61), checkpoints)
    assert len(going_on.curves) > len(saved["curves"])


def test_pixels_are_read_in_batches_and_never_whole():
    class Reader:
        def __init__(self, pixels):
            self.pixels, self.shape, self.largest = pixels, pixels.shape, 0

        def __len__(self):
            return len(self.pixels)

        def __getitem__(self, indices):
            self.largest = max(self.largest, len(indices))
            return self.pixels[indices]

    whole = _set(80)
    reader = Reader(whole.pixels)
    train("both", TrainingSet(reader, whole.is_bad, whole.types, whole.groups, whole.defect_types), _settings(epochs=1))
    assert 0 < reader.largest <= 64  # the digest for checkpoints reads the most at once


def test_too_many_images_are_thinned_out_by_label_and_type():
    whole = _set(90)
    some = thin_out(whole, 30, 0)
    assert len(some) <= 30
    assert [sum(some.types == kind) for kind in (-1, 0, 1)] == [15, 7, 7]
    assert (some.types[some.is_bad] >= 0).all()
    assert list(some.groups) == list(thin_out(whole, 30, 0).groups) != list(thin_out(whole, 30, 1).groups)
    assert [some.groups.index(group) for group in some.groups] == list(range(len(some)))
    assert thin_out(whole, 90, 0) is whole
    rare = TrainingSet(whole.pixels, np.arange(90) < 2, np.full(90, -1), whole.groups)
    assert thin_out(rare, 20, 0).is_bad.sum() == 2


def test_types_that_can_be_learnt_can_be_learnt_from_fewer_images_too():
    types = np.array([-1] * 60 + [0] * 15 + [1] * 11 + [2] * 4)  # of the last as many as it takes, and no more
    whole = TrainingSet(
        np.zeros((90, 8, 8, 3), np.uint8), types >= 0, types, [str(n) for n in range(90)], ("a", "b", "c")
    )
    assert learnable_types(thin_out(whole, 30, 0)) == learnable_types(whole) == ("a", "b", "c")


def test_frozen_features_never_take_more_rows_than_allowed_and_the_notes_say_so(monkeypatch):
    rows = []

    class Watched(recipes.LogisticFits):
        def __init__(self, features, views):
            rows.append(len(features))
            super().__init__(features, views)

    monkeypatch.setattr(recipes, "MAX_ROWS", 30)
    monkeypatch.setattr(recipes, "LogisticFits", Watched)
    trained = train("frozen", _set(60), SMALL)
    assert max(rows) <= 30
    assert any("learned from 29 of 60 images" in note for note in trained.notes)
    assert not any("learned from" in note for note in train("frozen", _set(24), SMALL).notes)


def test_folds_are_scored_where_the_model_was_trained(monkeypatch):
    moved = []

    class Elsewhere(Scorer):
        def forward(self, x):
            return x.mean((1, 2, 3))[:, None]

        def cpu(self):
            moved.append("cpu")
            return super().cpu()

        def _score(self, pixels, batch):
            return np.arange(len(pixels), dtype=float), np.zeros((len(pixels), 0))

    monkeypatch.setattr(training, "train_frozen", lambda *_: (Elsewhere(), {"images": 12.0}))
    cross_validate("frozen", _set(), SMALL)
    assert moved == []


def test_a_terminal_shows_a_bar_that_moves(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    train("both", _set(), _settings(epochs=2, patience=2))
    shown = sys.stderr.getvalue()
    assert "features" in shown
    assert "48/48" in shown  # 24 images, as they are and varied
    assert "fine-tuning" in shown
    assert shown.index("1/2") < shown.index("2/2")
    assert "validation AUROC" in shown


def test_no_terminal_no_bar(capsys):
    train("frozen", _set(), SMALL)
    assert "features" not in capsys.readouterr().err


def test_cross_validation_never_scores_an_image_with_its_own_group_in_training():
    learned = _set()
    pairs = TrainingSet(learned.pixels, learned.is_bad, learned.types, [f"lot-{row // 4}" for row in range(24)])
    for rest, part in folds_of(pairs, 3, 0):
        assert not {pairs.groups[row] for row in rest} & {pairs.groups[row] for row in part}
    validation = cross_validate("frozen", learned, SMALL)
    assert validation.scores.shape == (24,)
    assert validation.auroc > 0.9


def test_one_group_for_all_is_divided_by_images_and_said(caplog):
    learned = _set()
    lump = TrainingSet(learned.pixels, learned.is_bad, learned.types, ["lot"] * 24)
    assert len(folds_of(lump, 3, 0)) == 3
    assert "groups_ignored" in caplog.text


def test_only_auto_compares_recipes():
    assert recipes_to_compare(_settings(recipe="auto"), _set()) == ["frozen", "finetune"]
    assert recipes_to_compare(_settings(recipe="frozen"), _set()) == []


def test_fine_tuning_is_compared_only_where_every_fold_has_images_enough_for_it():
    for count in range(4, 30, 2):
        few = _set(count)
        recipes = recipes_to_compare(_settings(recipe="auto"), few)
        assert recipes == (["frozen", "finetune"] if count >= 16 else ["frozen"])
        for rest, _ in folds_of(few, SMALL.folds, 0) if "finetune" in recipes else ():
            learn, judge = validation_fold(few.select(rest), 5, 0)
            assert len(few.select(rest).select(learn)) + len(few.select(rest).select(judge)) == len(rest)


@pytest.mark.parametrize("recipe", ["finetune", "both"])
def test_eight_images_are_enough_to_fine_tune(recipe):
    trained = train(recipe, _set(8), _settings(epochs=1))
    assert np.isfinite(trained.model.score_pixels(_set(8).pixels)).all()


def test_types_with_too_few_images_are_not_learned():
    learned = _set()
    types = learned.types.copy()
    types[np.flatnonzero(types == 1)[2:]] = -1
    assert learnable_types(TrainingSet(learned.pixels, learned.is_bad, types, learned.groups, ("dark", "light"))) == ()


def test_the_common_scale_stays_finite_when_the_classes_are_apart():
    is_bad = np.arange(20) >= 10
    slope, offset = fit_common_scale(np.where(is_bad, 1000.0, -1000.0), is_bad)
    logits = slope * np.array([-1000.0, 1000.0]) + offset
    assert np.allclose(logits, [-np.log(11), np.log(11)], atol=0.05)


@pytest.mark.parametrize("place", ["folder", "storage"])
def test_a_finished_training_is_not_repeated(tmp_path, place):
    checkpoints = (
        FolderCheckpoints(tmp_path)
        if place == "folder"
        else StoredCheckpoints(open_storage(str(tmp_path)), "checkpoints/x")
    )
    first = train("finetune", _set(), _settings(epochs=2), checkpoints)
    again = train("finetune", _set(), _settings(epochs=2), checkpoints)
    assert again.curves == first.curves
    assert np.array_equal(again.model.score_pixels(_set().pixels), first.model.score_pixels(_set().pixels))


def test_a_checkpoint_of_other_settings_is_not_continued(tmp_path, caplog):
    train("finetune", _set(), _settings(epochs=1), tmp_path)
    again = train("finetune", _set(), _settings(epochs=1, learning_rate=5e-3), tmp_path)
    assert len(again.curves) == 1
    assert "checkpoint_ignored" in caplog.text


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_model_training as here

class Hangs:
    "Pixels that stop coming in the middle of the second epoch."
    def __init__(self, pixels):
        self.pixels, self.shape, self.hang = pixels, pixels.shape, False
    def __len__(self):
        return len(self.pixels)
    def __getitem__(self, indices):
        if self.hang:
            Path({ready!r}).touch()
            time.sleep(600)
        return self.pixels[indices]

here.torch.set_num_threads(1)
whole = here._set()
pixels = Hangs(whole.pixels)
learned = here.TrainingSet(pixels, whole.is_bad, whole.types, whole.groups, whole.defect_types)
def watch(update):
    pixels.hang = True
here.train("finetune", learned, here.SMALL, Path({folder!r}), watch)
"""


def test_a_training_killed_in_the_middle_goes_on_and_ends_with_the_same_model(tmp_path):
    ready = tmp_path / "ready"
    script = KILLED.format(tests=str(Path(__file__).parent), ready=str(ready), folder=str(tmp_path / "checkpoints"))
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    try:
        while not ready.exists():
            assert child.poll() is None, "the training ended before it could be killed"
            time.sleep(0.05)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    updates = []
    resumed = train("finetune", _set(), SMALL, tmp_path / "checkpoints", updates.append)
    whole = train("finetune", _set(), SMALL)
    assert updates[0].done == 1  # the first epoch came from the checkpoint
    assert len(updates) == len(whole.curves)
    assert [epoch.loss for epoch in resumed.curves] == [epoch.loss for epoch in whole.curves]
    assert np.array_equal(resumed.model.score_pixels(_set().pixels), whole.model.score_pixels(_set().pixels))


def test_a_trained_model_survives_saving(tmp_path):
    model = train("both", _set(), _settings(epochs=1, fixed_pose=True)).model
    save_model(model, tmp_path / "model.pt")
    assert np.array_equal(
        load_model(tmp_path / "model.pt").score_pixels(_set().pixels), model.score_pixels(_set().pixels)
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
def test_freed_memory_is_kept_for_the_next_batch():
    """In a process of its own, since it changes the whole process."""
    program = (
        "import resource\n"
        "import numpy as np\n"
        "from inspection.model.allocator import keep_freed_memory\n"
        "assert keep_freed_memory()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "np.ones(50_000_000 // 8)\n"
        "before = faults()\n"
        "for _ in range(20): np.ones(50_000_000 // 8)\n"
        "print((faults() - before) * resource.getpagesize())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000_000
