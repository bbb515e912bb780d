"""Real sets: cookies by their Lookout for Vision manifests and by folders, aliens by folders."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from inspection.dataset.annotations import decode_mask
from inspection.dataset.images import MISSING, SourceImage
from inspection.dataset.options import SourceOptions, parse_maps
from inspection.dataset.sources import Source, open_source
from inspection.errors import DataError

pytestmark = pytest.mark.real

PREFIX = "s3://lookoutvision-us-east-1-0e205be246/getting-started"


@pytest.fixture
def by_folder(real_data: Path, tmp_path: Path) -> Source:
    """Cookies in folders named by their labels, masks beside."""
    cookies = real_data / "cookies"
    for path in (cookies / "training-images").iterdir():
        folder = tmp_path / ("good" if path.name.startswith("normal") else "cracked")
        folder.mkdir(exist_ok=True)
        (folder / path.name).symlink_to(path)
    (tmp_path / "masks" / "cracked").mkdir(parents=True)
    for path in (cookies / "mask-images").iterdir():
        (tmp_path / "masks" / "cracked" / path.name).symlink_to(path)
    return open_source(str(tmp_path))


def by_manifest(real_data: Path, name: str) -> Source:
    maps = parse_maps([f"{PREFIX}={real_data / 'cookies'}"])
    return open_source(str(real_data / "cookies" / "manifests" / name), SourceOptions(maps=maps))


def told(source: Source, with_masks: bool) -> dict[str, tuple]:
    """What a source says of each image, by the digest of its content."""
    found = {}
    for image in source.images():
        digest = hashlib.sha256(source.read(image.uri)).hexdigest()
        found[digest] = (image.label, image.defect_type, marked(source, image)) if with_masks else image.label
    return found


def marked(source: Source, image: SourceImage) -> bytes | None:
    """Which pixels an image's mask marks."""
    if image.mask is None:
        return None
    mask = decode_mask(source.read(image.mask), image.mask, [color for color, _ in image.mask_colors])
    assert 0.001 < mask.mean() < 0.5
    return np.packbits(mask).tobytes()


@pytest.mark.parametrize("name", ["train_segmentation.manifest", "template.manifest"])
def test_cookies_by_manifest_equal_cookies_by_folder(real_data: Path, by_folder: Source, name: str) -> None:
    folders, manifest = told(by_folder, True), told(by_manifest(real_data, name), True)
    assert len(folders) == 63
    assert sum(label == "bad" and mask is not None for label, _, mask in folders.values()) == 32
    assert manifest == folders


def test_the_classification_manifest_gives_the_same_labels(real_data: Path, by_folder: Source) -> None:
    assert told(by_manifest(real_data, "train_class.manifest"), False) == told(by_folder, False)
    images = by_manifest(real_data, "train_class.manifest").images()
    assert {image.human_annotated for image in images} == {True}
    assert {image.confidence for image in images if image.label == "good"} == {1.0}


def test_the_folder_of_cookies_says_which_manifests_it_holds(real_data: Path) -> None:
    with pytest.raises(DataError, match=r"manifests/train_segmentation\.manifest lists the images, give that file"):
        open_source(str(real_data / "cookies")).images()


def test_aliens_open_as_they_are(real_data: Path) -> None:
    images = open_source(str(real_data / "aliens")).images()
    assert [image.label for image in images].count("good") == 58
    assert [image.label for image in images].count("bad") == 60
    assert all(image.version != MISSING and image.defect_type is None for image in images)
