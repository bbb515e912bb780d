import logging
import pickle
from pathlib import Path

import pytest
from pictures import write_picture, write_set

from inspection.dataset.sources import OPENERS, OpenedSource, SourceImage, open_source
from inspection.errors import DataError


def _listed(root: Path, pattern: str = "") -> dict[str, SourceImage]:
    return {image.uri: image for image in open_source(str(root), pattern).images()}


def test_train_and_validation_folders_are_read(tmp_path: Path) -> None:
    write_set(tmp_path, {"train/good": 2, "train/bad": 1, "validation/good": 1, "validation/bad/scratch": 1})
    images = _listed(tmp_path)
    assert list(images) == sorted(images)
    assert images["train/good/000.png"].label == "good"
    assert images["train/good/000.png"].shipped == "train"
    assert (images["train/bad/000.png"].label, images["train/bad/000.png"].defect_type) == ("bad", None)
    held = images["validation/bad/scratch/000.png"]
    assert (held.label, held.defect_type, held.shipped) == ("bad", "scratch", "validation")
    assert len(images) == 5


def test_good_beside_defect_types_is_read(tmp_path: Path) -> None:
    write_set(tmp_path, {"good": 2, "dent": 1, "deep scratch/2026/line 1": 1, "bad": 1, "bad/stain": 1})
    images = _listed(tmp_path)
    assert images["dent/000.png"].defect_type == "dent"
    assert images["deep scratch/2026/line 1/000.png"].defect_type == "deep scratch"
    assert (images["bad/000.png"].label, images["bad/000.png"].defect_type) == ("bad", None)
    assert images["bad/stain/000.png"].defect_type == "stain"
    assert all(image.shipped == "" for image in images.values())


def test_every_format_is_found_whatever_its_case(tmp_path: Path) -> None:
    for index, suffix in enumerate((".jpg", ".JPEG", ".Png", ".bmp", ".tif", ".TIFF")):
        write_picture(tmp_path / "Good" / f"{index}{suffix}", index)
    write_picture(tmp_path / "dent" / "0.jpg", 9)
    assert len(_listed(tmp_path)) == 7


def test_masks_beside_are_found(tmp_path: Path) -> None:
    write_set(tmp_path, {"good": 1, "dent": 2, "dent/deep": 1, "masks/dent": 1, "masks/dent/deep": 1})
    images = _listed(tmp_path)
    assert images["dent/000.png"].mask == "masks/dent/000.png"
    assert images["dent/deep/000.png"].mask == "masks/dent/deep/000.png"
    assert images["dent/001.png"].mask is None
    assert len(images) == 4, "a mask is not an image"


@pytest.mark.parametrize("masks", ["masks/dent", "train/masks/dent"])
def test_masks_of_divided_sets_are_found(tmp_path: Path, masks: str) -> None:
    write_set(tmp_path, {"train/good": 1, "train/bad/dent": 1, masks: 1})
    assert _listed(tmp_path)["train/bad/dent/000.png"].mask == f"{masks}/000.png"


def test_masks_of_bad_parts_without_a_type_are_found(tmp_path: Path) -> None:
    write_set(tmp_path, {"good": 1, "bad": 1, "masks/bad": 1})
    assert _listed(tmp_path)["bad/000.png"].mask == "masks/bad/000.png"


def test_what_is_left_out_is_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_set(tmp_path, {"train/good": 1, "train/bad": 1, "spare/good": 1, "masks/dent": 1})
    (tmp_path / "train" / "good" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "train" / ".DS_Store").write_bytes(b"x")
    write_picture(tmp_path / "loose.png", 5)
    with caplog.at_level(logging.INFO):
        assert len(_listed(tmp_path)) == 2
    assert "images_without_label_ignored count=2 files=loose.png, spare/good/000.png" in caplog.text
    assert "other_files_ignored count=1 files=train/good/Thumbs.db" in caplog.text
    assert "hidden_files_ignored count=1" in caplog.text
    assert "masks_without_image count=1 files=masks/dent/000.png" in caplog.text


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    write_set(tmp_path / "elsewhere", {"good": 2, "dent": 1})
    root = tmp_path / "set"
    root.mkdir()
    (root / "good").symlink_to(tmp_path / "elsewhere" / "good")
    (root / "dent").symlink_to(tmp_path / "elsewhere" / "dent")
    (tmp_path / "elsewhere" / "good" / "back").symlink_to(root)  # a circle
    assert len(_listed(root)) == 3


def test_names_that_are_not_unicode_are_read(tmp_path: Path) -> None:
    write_set(tmp_path, {"good": 1, "dent": 1})
    strange = str(tmp_path / "good" / "caf").encode() + b"\xe9.png"
    with open(strange, "wb") as file:  # noqa: PTH123
        file.write((tmp_path / "good" / "000.png").read_bytes())
    source = open_source(str(tmp_path))
    (uri,) = [image.uri for image in source.images() if "caf" in image.uri]
    assert source.read(uri) == (tmp_path / "good" / "000.png").read_bytes()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: cannot read the images \(No such file.*--data"):
        open_source(str(tmp_path / "nowhere")).images()


def test_no_location_says_where_to_set_it() -> None:
    with pytest.raises(DataError, match=r"\[data\] source.*--data"):
        open_source("")


def test_an_empty_folder_says_which_layouts_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images here; want train/good.*good/ beside.*found nothing"):
        open_source(str(tmp_path)).images()


def test_a_folder_without_images_says_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"no images here.*found good/notes\.txt"):
        open_source(str(tmp_path)).images()


@pytest.mark.parametrize("folders", [["pictures"], ["left", "right"], ["."]])
def test_an_unknown_layout_says_what_it_found(tmp_path: Path, folders: list[str]) -> None:
    write_set(tmp_path, dict.fromkeys(folders, 2))
    with pytest.raises(
        DataError, match=r"no layout that is known here; want .* found (pictures/|left/|2 images in no folder)"
    ):
        open_source(str(tmp_path)).images()


def test_a_layout_that_is_not_clear_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, {"train/good": 1, "good": 1})
    with pytest.raises(DataError, match=r"both \['train'\] and \['good'\]"):
        open_source(str(tmp_path)).images()


def test_a_divided_set_without_good_and_bad_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "train" / "0.png", 0)
    with pytest.raises(DataError, match=r"no layout that is known here.*found train/ "):
        open_source(str(tmp_path)).images()


def test_the_pattern_names_group_and_lot(tmp_path: Path) -> None:
    for name in ("L1-p1-a", "L1-p1-b", "L2-p1-a"):
        write_picture(tmp_path / "good" / f"{name}.png", 1)
    by_lot = _listed(tmp_path, r"(?P<lot>L\d+)-p\d+")
    assert [(image.group, image.lot) for image in by_lot.values()] == [("L1", "L1"), ("L1", "L1"), ("L2", "L2")]
    by_part = _listed(tmp_path, r"(?P<group>(?P<lot>L\d+)-p\d+)")
    assert [(image.group, image.lot) for image in by_part.values()] == [("L1-p1", "L1")] * 2 + [("L2-p1", "L2")]
    assert [image.group for image in _listed(tmp_path).values()] == list(by_lot)


def test_images_without_a_group_are_their_own_and_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_picture(tmp_path / "good" / "L1-a.png", 1)
    write_picture(tmp_path / "good" / "other.png", 2)
    images = _listed(tmp_path, r"(L\d)")
    assert images["good/other.png"].group == "good/other.png"
    assert "images_without_group count=1 first=['good/other.png']" in caplog.text


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, {"good": 2})
    with pytest.raises(DataError, match=r"group_pattern 'lot\(.*matches none of 2 images, such as 'good/000\.png'"):
        _listed(tmp_path, r"lot(\d)")


def test_another_source_plugs_in_by_its_scheme(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(OPENERS, "camera", lambda rest, options: OpenedSource(f"/cameras/{rest}", options))
    assert open_source("camera:left").location == "/cameras/left"
    with pytest.raises(DataError, match=r"ftp://host/x: want a folder.* one of \['camera', 'folder', 's3'\]"):
        open_source("ftp://host/x")


def test_a_source_travels_to_worker_processes(tmp_path: Path) -> None:
    write_set(tmp_path, {"good": 1})
    source = pickle.loads(pickle.dumps(open_source(str(tmp_path))))
    assert source.read("good/000.png") == (tmp_path / "good" / "000.png").read_bytes()
