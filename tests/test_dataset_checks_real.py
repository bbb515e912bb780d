"""The checks on real parts: nothing is called an error that is none, and what is planted is found."""

import io
import shutil
from pathlib import Path

import pytest
from examined import make_settings
from PIL import Image

from inspection.dataset.examine import Examination, examine
from inspection.dataset.sources import open_source

pytestmark = pytest.mark.real


@pytest.fixture
def cookies(real_data: Path, tmp_path: Path) -> Path:
    """Cookies by folder, divided as they were shipped."""
    root = tmp_path / "cookies"
    for split, folder in (("train", "training-images"), ("validation", "test-images")):
        for path in sorted((real_data / "cookies" / folder).glob("*.jpg")):
            target = root / split / ("good" if "normal" in path.name else "bad") / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return root


@pytest.fixture
def aliens(real_data: Path, tmp_path: Path) -> Path:
    root = tmp_path / "aliens"
    for folder, label in (("normal", "good"), ("anomaly", "bad")):
        shutil.copytree(real_data / "aliens" / folder, root / label)
    return root


def _examine(folder: Path, **training: object) -> Examination:
    source = open_source(str(folder))
    settings = make_settings(training=training)
    return examine(source.images(), source, settings, progress=False, suspicious_labels=bool(training))


def _recompress(path: Path, target: Path, quality: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.open(path).save(target, "JPEG", quality=quality)


@pytest.mark.parametrize("name", ["cookies", "aliens"])
def test_real_sets_have_no_errors_and_no_copies(name: str, request: pytest.FixtureRequest) -> None:
    examination = _examine(request.getfixturevalue(name))
    assert examination.errors == ()
    assert examination.alike == ()
    assert not examination.faults


def test_planted_leaks_are_found(cookies: Path) -> None:
    train = cookies / "train" / "good"
    shutil.copy(train / "normal-5.jpg", cookies / "validation" / "good" / "same.jpg")
    _recompress(train / "normal-7.jpg", cookies / "validation" / "good" / "again.jpg", 70)
    image = Image.open(train / "normal-9.jpg")
    width, height = image.size
    image.crop((30, 40, width - 40, height - 20)).save(cookies / "validation" / "good" / "cropped.jpg", quality=90)
    found = {one.code: one.images for one in _examine(cookies).findings}
    assert found["duplicate-across-splits"] == (("train/good/normal-5.jpg", "validation/good/same.jpg"),)
    assert sorted(found["near-duplicates-across-splits"]) == [
        ("train/good/normal-7.jpg", "validation/good/again.jpg"),
        ("train/good/normal-9.jpg", "validation/good/cropped.jpg"),
    ]


def test_a_planted_shortcut_is_found(aliens: Path) -> None:
    for path in sorted(aliens.rglob("*.png")):
        _recompress(path, path.with_suffix(".jpg"), 95 if path.parent.name == "good" else 80)
        path.unlink()
    properties = {one.figures["property"] for one in _examine(aliens).findings if one.code == "shortcut"}
    assert "JPEG quality" in properties


@pytest.mark.slow
@pytest.mark.parametrize(("name", "flips"), [("cookies", ("train/good/normal-12.jpg", "train/bad/anomaly-20.jpg"))])
def test_planted_label_flips_are_doubted(
    name: str, flips: tuple[str, ...], real_weights: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    planted = set()
    for uri in flips:
        other = uri.replace("/good/", "/BAD/").replace("/bad/", "/good/").replace("/BAD/", "/bad/")
        (folder / uri).rename(folder / other)
        planted.add(other)
    examination = _examine(folder, weights=str(real_weights))
    (finding,) = (one for one in examination.findings if one.code == "doubtful-label")
    doubted = [group[0] for group in finding.images]
    assert planted <= set(doubted)
    assert len(doubted) <= 8


def test_a_truncated_copy_of_a_real_picture_is_damaged(cookies: Path) -> None:
    path = cookies / "train" / "good" / "normal-3.jpg"
    path.write_bytes(path.read_bytes()[:200_000])
    assert {one.code for one in _examine(cookies).errors} == {"damaged"}
    assert io.BytesIO(path.read_bytes()).getbuffer().nbytes == 200_000, "nothing is rewritten"
