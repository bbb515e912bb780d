"""The sample line: whole or absent, the same for a seed, and neither trivial nor out of reach."""

import io
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

from edge.preprocess import prepare_file
from inspection.errors import DataError
from inspection.sample import DEFECT_TYPES, SUMMARY, make_sample, plan_sample
from inspection.settings import REPOSITORY, load_settings
from inspection.synthesis.contact_sheet import COLUMNS, TILE_PX, draw_contact_sheet
from inspection.synthesis.defects import DEFECTS
from inspection.synthesis.flange import Damage, shade
from inspection.synthesis.scene import SIZE_PX, draw_lot, draw_pose

IMAGES = 24  # of a small sample
UNSEEN_SEEDS = (211, 212, 213)  # the generator was developed on seeds 0 to 5, and 101 was looked at


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sample(tmp_path_factory.mktemp("sample") / "small", IMAGES, seed=7)


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("unseen")
    return {seed: make_sample(root / str(seed), seed=seed) for seed in UNSEEN_SEEDS}


def test_sample_has_good_parts_every_defect_type_and_a_mask_for_each_bad_part(small: Path) -> None:
    good = {path.stem for path in (small / "good").iterdir()}
    assert good
    for kind in DEFECT_TYPES:
        pictures = sorted(path.stem for path in (small / kind).iterdir())
        masks = sorted(path.stem for path in (small / "masks" / kind).iterdir())
        assert pictures
        assert pictures == masks
        for stem in masks:
            mask = np.asarray(Image.open(small / "masks" / kind / f"{stem}.png"))
            assert mask.shape == (SIZE_PX, SIZE_PX)
            assert set(np.unique(mask)) == {0, 255}
    assert {path.name for path in small.iterdir()} == {"good", *DEFECT_TYPES, "masks", SUMMARY}
    with Image.open(next((small / "good").iterdir())) as picture:
        assert (picture.size, picture.mode) == ((SIZE_PX, SIZE_PX), "RGB")


def test_default_sample_has_400_parts_nearly_half_bad_in_lots_that_hold_every_kind() -> None:
    parts = plan_sample()
    assert len(parts) == len({part.picture for part in parts}) == len({part.name for part in parts}) == 400
    assert 0.45 <= np.mean([part.defect_type is not None for part in parts]) <= 0.50
    counts = [sum(part.defect_type == kind for part in parts) for kind in DEFECT_TYPES]
    assert max(counts) - min(counts) <= 1
    for lot in {part.lot for part in parts}:
        kinds = {part.defect_type for part in parts if part.lot == lot}
        assert kinds == {None, *DEFECT_TYPES}


def test_severities_of_each_kind_are_spread_from_subtle_to_plain() -> None:
    for kind in DEFECT_TYPES:
        severities = np.array([part.severity for part in plan_sample() if part.defect_type == kind])
        assert np.histogram(severities, 4, (0, 1))[0].min() >= 8


def test_same_seed_gives_the_same_bytes_and_another_seed_other_pictures(small: Path, tmp_path: Path) -> None:
    again, other = make_sample(tmp_path / "again", IMAGES, seed=7), make_sample(tmp_path / "other", IMAGES, seed=8)
    assert _contents(again) == _contents(small)
    assert not set(_contents(other).values()) & set(_contents(small).values())


def test_pictures_of_a_lot_look_more_alike_than_those_of_two_lots() -> None:
    lots = [draw_lot(0, number) for number in range(1, 21)]
    assert len({lot.tone for lot in lots}) == 20
    assert np.std([lot.tint[0] for lot in lots]) > 0.004
    np.testing.assert_array_equal(draw_lot(0, 3).streaks, lots[2].streaks)


def test_ready_sample_is_not_made_twice(small: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    assert make_sample(small, IMAGES, seed=7) == small
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


@pytest.mark.parametrize(("images", "seed"), [(IMAGES + 1, 7), (IMAGES, 8)])
def test_folder_with_another_sample_is_refused(small: Path, images: int, seed: int) -> None:
    with pytest.raises(DataError, match=r"want the sample .* found .*'seed': 7.*name another folder"):
        make_sample(small, images, seed)


def test_folder_with_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(DataError, match=r"mine: want a sample with its sample\.json, found something else"):
        make_sample(tmp_path / "mine", IMAGES)
    assert (tmp_path / "mine" / "holiday.jpg").read_bytes() == b"precious"


def test_sample_with_a_missing_or_changed_picture_is_refused(tmp_path: Path) -> None:
    folder = make_sample(tmp_path / "sample", 12, seed=1)
    picture = next((folder / "good").iterdir())
    content = picture.read_bytes()
    picture.write_bytes(content[:-100])
    with pytest.raises(DataError, match="changed after it was made; delete the folder"):
        make_sample(folder, 12, seed=1)
    picture.unlink()
    with pytest.raises(DataError, match=f"1 files of the sample are missing, such as good/{picture.name}"):
        make_sample(folder, 12, seed=1)


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "sample").mkdir()
    assert (make_sample(tmp_path / "sample", 12) / SUMMARY).exists()


@pytest.mark.parametrize(
    ("images", "seed", "message"), [(11, 0, "at least 12 images, found 11"), (12, -1, "seed >= 0")]
)
def test_impossible_samples_are_refused(tmp_path: Path, images: int, seed: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_sample(tmp_path / "sample", images, seed)
    assert not (tmp_path / "sample").exists()


def test_killed_run_leaves_nothing_that_is_taken_for_a_sample_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    folder = tmp_path / "sample"
    code = (
        f"from pathlib import Path; from inspection.sample import make_sample; make_sample(Path({str(folder)!r}), 400)"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".sample-*.partial/good/*.jpg")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert list(tmp_path.glob(".sample-*.partial"))
    assert not folder.exists()
    make_sample(folder, 12)
    assert not list(tmp_path.glob(".sample-*.partial"))
    assert json.loads((folder / SUMMARY).read_text())["images"] == 12


def test_two_at_once_make_one_sample(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        made = [pool.submit(make_sample, tmp_path / "sample", 12, 3) for _ in range(2)]
    assert [one.result() for one in made] == [tmp_path / "sample"] * 2
    assert not list(tmp_path.glob(".sample-*.partial"))


@pytest.mark.parametrize("kind", DEFECT_TYPES)
def test_defect_lies_where_its_mask_is_and_grows_with_severity(kind: str) -> None:
    """Rendered with and without the defect, all else equal."""
    lot = draw_lot(0, 1)
    seen = {}
    for severity in (0.05, 0.95):
        amounts = []
        for seed in range(6):
            pose = draw_pose(np.random.default_rng(seed))
            damage = DEFECTS[kind](pose, severity, np.random.default_rng(seed))
            bad, good = (shade(lot, pose, one, -2.2, 1.0, np.random.default_rng(0)) for one in (damage, Damage()))
            change = np.abs(bad - good).mean(0)
            assert damage.mask is not None
            near = binary_dilation(damage.mask, iterations=14)
            assert change[near].sum() > 0.97 * change.sum()
            assert change[damage.mask].mean() > 10 * change[~damage.mask].mean()
            amounts.append(change.sum())
        seen[severity] = np.mean(amounts)
    assert seen[0.95] > 1.2 * seen[0.05]


def test_contact_sheet_shows_a_row_for_good_and_each_kind() -> None:
    sheet = draw_contact_sheet(images=60)
    assert sheet.size == (COLUMNS * TILE_PX, (1 + len(DEFECT_TYPES)) * TILE_PX)
    colours = np.asarray(sheet).reshape(1 + len(DEFECT_TYPES), -1, 3).astype(int)
    outlined = ((colours[..., 0] > 220) & (colours[..., 1] > 180) & (colours[..., 2] < 90)).sum(1)
    assert outlined[0] == 0
    assert outlined[1:].min() > 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", UNSEEN_SEEDS)
def test_sample_cannot_be_solved_by_colour_by_tiny_pictures_or_by_file_size(unseen: dict[int, Path], seed: int) -> None:
    """The best of several settings of each baseline counts, lots apart in the cross-validation."""
    from sklearn.metrics import roc_auc_score

    parts = plan_sample(seed=seed)
    is_bad = np.array([part.defect_type is not None for part in parts])
    lots = np.array([part.lot for part in parts])
    files = [(unseen[seed] / part.picture).read_bytes() for part in parts]
    pictures = [Image.open(io.BytesIO(data)) for data in files]
    colour = np.array([_colour_and_brightness(picture) for picture in pictures])
    tiny = np.array([np.asarray(picture.resize((32, 32), Image.Resampling.BOX)).ravel() for picture in pictures])

    size = roc_auc_score(is_bad, [len(data) for data in files])
    by_colour = max(_cross_validated(colour, is_bad, lots, (4,), (0.01, 1.0, 100.0)))
    penalties = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    by_pixels = max(_cross_validated(tiny.astype(np.float64), is_bad, lots, (20, 60, 300), penalties))
    print(f"seed {seed}: size {max(size, 1 - size):.3f} colour {by_colour:.3f} 32x32 {by_pixels:.3f}")
    assert max(size, 1 - size) <= 0.75
    assert by_colour <= 0.65
    assert by_pixels <= 0.80


@pytest.mark.slow
def test_default_recipe_learns_the_sample_without_pretrained_weights(unseen: dict[int, Path]) -> None:
    """Half of the parts train, as in the flow; the other half judges."""
    from sklearn.metrics import roc_auc_score

    from inspection.model.training import TrainingSet, train

    settings = load_settings(REPOSITORY / "flows" / "lines" / "sample.toml")
    assert settings.training.weights == "none"
    overall, by_kind = [], []
    for seed, folder in unseen.items():
        parts = plan_sample(seed=seed)
        pixels = np.concatenate(
            [prepare_file((folder / part.picture).read_bytes(), settings.input.contract()).pixels for part in parts]
        )
        is_bad = np.array([part.defect_type is not None for part in parts])
        kinds = np.array([part.defect_type or "good" for part in parts])
        training = _stratified_half(kinds, seed)
        training_set = TrainingSet(
            pixels=pixels[training],
            is_bad=is_bad[training],
            types=np.array([DEFECT_TYPES.index(kind) if kind in DEFECT_TYPES else -1 for kind in kinds[training]]),
            groups=[part.name for part, chosen in zip(parts, training, strict=True) if chosen],
            defect_types=DEFECT_TYPES,
        )
        model = train(settings.training.recipe, training_set, settings.training).model
        scores = model.score_pixels(pixels[~training])
        bad, kind = is_bad[~training], kinds[~training]
        overall.append(roc_auc_score(bad, scores))
        by_kind.append(
            [roc_auc_score(bad[rows], scores[rows]) for rows in (~bad | (kind == name) for name in DEFECT_TYPES)]
        )
        print(f"seed {seed}: AUROC {overall[-1]:.3f}", dict(zip(DEFECT_TYPES, np.round(by_kind[-1], 3), strict=True)))
    assert np.mean(overall) >= 0.95
    assert np.min(by_kind) >= 0.85


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.jpg")}


def _colour_and_brightness(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture, np.float64)
    return np.append(pixels.mean((0, 1)), pixels.mean())


def _cross_validated(
    features: np.ndarray,
    is_bad: np.ndarray,
    lots: np.ndarray,
    components: tuple[int, ...],
    penalties: tuple[float, ...],
) -> list[float]:
    """Out-of-fold AUROC of logistic regressions on principal components of the standardised features.

    As many components as rows are the features themselves, rotated, which changes no solution with an L2 penalty.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = {(count, penalty): np.zeros(len(is_bad)) for count in components for penalty in penalties}
    for rest, part in StratifiedGroupKFold(4, shuffle=True, random_state=0).split(features, is_bad, lots):
        rotation = make_pipeline(StandardScaler(), PCA(min(features.shape[1], len(rest) - 1), svd_solver="full"))
        known, asked = rotation.fit_transform(features[rest]), rotation.transform(features[part])
        for (count, penalty), score in scores.items():
            model = LogisticRegression(C=penalty, solver="newton-cholesky").fit(known[:, :count], is_bad[rest])
            score[part] = model.decision_function(asked[:, :count])
    return [float(roc_auc_score(is_bad, score)) for score in scores.values()]


def _stratified_half(kinds: np.ndarray, seed: int) -> np.ndarray:
    """Half of each kind, as a mask."""
    chosen = np.zeros(len(kinds), bool)
    rng = np.random.default_rng(seed)
    for kind in np.unique(kinds):
        rows = rng.permutation(np.flatnonzero(kinds == kind))
        chosen[rows[: len(rows) // 2]] = True
    return chosen
