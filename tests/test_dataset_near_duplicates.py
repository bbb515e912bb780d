"""Copies of one capture are found; parts that only look alike are not."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from examined import MemorySource, encode, fixtured_part, smooth_picture
from PIL import Image, ImageDraw

from inspection.dataset import hash_index
from inspection.dataset.hash_index import find_close
from inspection.dataset.near_duplicates import group_pairs
from inspection.dataset.registration import register

NEAR = {"near-duplicates", "near-duplicates-across-splits", "near-duplicate-labels-differ"}
Change = Callable[[Image.Image], bytes]


def _recompressed(image: Image.Image) -> bytes:
    return encode(image, "JPEG", quality=60)


def _halved(image: Image.Image) -> bytes:
    return encode(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS))


def _cropped(image: Image.Image) -> bytes:
    width, height = image.size
    return encode(image.crop((width // 10, height // 20, width * 9 // 10, height * 17 // 20)), "JPEG", quality=90)


def _trimmed(image: Image.Image) -> bytes:
    return encode(image.crop((4, 3, image.width - 2, image.height - 3)))


def _cropped_and_enlarged(image: Image.Image) -> bytes:
    width, height = image.size
    return encode(image.crop((width // 10, height // 10, width * 9 // 10, height * 9 // 10)).resize(image.size))


def _fixture(count: int = 14) -> MemorySource:
    source = MemorySource({})
    for seed in range(count):
        source.add(f"{'good' if seed % 2 else 'bad'}/{seed:02d}.png", encode(fixtured_part(seed)))
    return source


@pytest.fixture(scope="module")
def parts() -> MemorySource:
    return _fixture()


def _near(source: MemorySource) -> dict[str, tuple[tuple[str, ...], ...]]:
    return {code: groups for code, groups in source.codes().items() if code in NEAR}


def _with(source: MemorySource, uri: str, data: bytes, **fields: object) -> MemorySource:
    other = MemorySource(dict(source.files), list(source.listed))
    other.add(uri, data, **fields)
    return other


def test_parts_in_a_fixture_are_no_near_duplicates(parts: MemorySource) -> None:
    assert _near(parts) == {}


@pytest.mark.parametrize("change", [_recompressed, _halved, _cropped, _trimmed, _cropped_and_enlarged])
def test_a_copy_of_a_part_in_a_fixture_is_found(parts: MemorySource, change: Change) -> None:
    found = _near(_with(parts, "good/copy.jpg", change(fixtured_part(3))))
    assert found == {"near-duplicates": (("good/03.png", "good/copy.jpg"),)}


@pytest.mark.parametrize("change", [_recompressed, _halved, _cropped])
def test_a_copy_among_pictures_of_all_kinds_is_found(change: Change) -> None:
    source = MemorySource({})
    for seed in range(10):
        source.add(f"good/{seed}.png", encode(smooth_picture(seed, (160, 120))))
    source.add("good/copy.jpg", change(smooth_picture(7, (160, 120))))
    assert _near(source) == {"near-duplicates": (("good/7.png", "good/copy.jpg"),)}


def test_a_scratch_makes_another_picture(parts: MemorySource) -> None:
    scratched = fixtured_part(3)
    ImageDraw.Draw(scratched).line((70, 50, 92, 64), fill=(60, 58, 54), width=1)
    assert _near(_with(parts, "bad/scratch.png", encode(scratched))) == {}


def test_a_second_shot_of_a_part_that_was_not_moved_counts_as_a_copy(parts: MemorySource) -> None:
    pixels = np.asarray(fixtured_part(3), dtype=np.float32)
    noise = np.random.default_rng(0).normal(0, 4, (*pixels.shape[:2], 1))
    again = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    found = _near(_with(parts, "good/again.png", encode(again)))
    assert found == {"near-duplicates": (("good/03.png", "good/again.png"),)}


def test_copies_with_different_labels_are_a_warning_of_their_own(parts: MemorySource) -> None:
    source = _with(parts, "bad/copy.jpg", _recompressed(fixtured_part(3)))
    (finding,) = (one for one in source.examine().findings if one.code in NEAR)
    assert (finding.code, finding.severity) == ("near-duplicate-labels-differ", "warning")
    assert finding.images == (("bad/copy.jpg", "good/03.png"),)
    assert "good/03.png (good) and bad/copy.jpg (bad): differs from it by" in finding.summary


def test_copies_on_both_sides_of_a_shipped_split_are_a_leak() -> None:
    source = MemorySource({})
    for seed in range(8):
        source.add(f"train/good/{seed}.png", encode(smooth_picture(seed)), shipped="train")
    source.add("validation/good/x.jpg", encode(smooth_picture(5), "JPEG", quality=80), shipped="validation")
    examination = source.examine()
    (finding,) = (one for one in examination.findings if one.code in NEAR)
    assert finding.code == "near-duplicates-across-splits"
    assert examination.alike == (("train/good/5.png", "validation/good/x.jpg"),)


def test_a_lossless_copy_of_another_format_is_an_exact_duplicate() -> None:
    source = MemorySource({})
    for seed in range(6):
        source.add(f"good/{seed}.jpg", encode(smooth_picture(seed), "JPEG", quality=90))
    decoded = Image.open(io.BytesIO(source.files["good/2.jpg"]))
    source.add("bad/two.png", encode(decoded))
    found = source.codes()
    assert found["duplicate-labels-differ"] == (("bad/two.png", "good/2.jpg"),)
    assert not NEAR & set(found)


def test_registration_finds_the_region_of_a_crop() -> None:
    whole = np.asarray(smooth_picture(1, (200, 150)).convert("L"), dtype=np.float32)
    match = register(whole[20:130, 30:180], whole, (0.1, 0.1, 0.8, 0.8))
    assert match is not None
    assert match.region == pytest.approx((30 / 200, 20 / 150, 150 / 200, 110 / 150), abs=0.002)
    assert match.residual < 0.5


def test_registration_of_different_pictures_leaves_much() -> None:
    one, other = (np.asarray(smooth_picture(seed).convert("L"), dtype=np.float32) for seed in (1, 2))
    match = register(one, other)
    assert match is None or match.residual > 10


@pytest.mark.parametrize("bands", [True, False])
@pytest.mark.parametrize("radius", [0, 3, 7, 11])
def test_the_index_finds_every_pair_within_the_radius(
    radius: int, bands: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bands:
        monkeypatch.setattr(hash_index, "_PAIRS_PER_BAND", 300 * 300)
    rng = np.random.default_rng(radius)
    hashes = rng.integers(0, 2**64, 300, dtype=np.uint64)
    for place in range(150, 300):
        flips = rng.choice(64, rng.integers(0, 14), replace=False)
        hashes[place] = hashes[place - 150] ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64), initial=0)
    query, other, bits = find_close(hashes, hashes, radius)
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    assert {*zip(query.tolist(), other.tolist(), strict=True)} == {
        *zip(*map(list, np.nonzero(distance <= radius)), strict=True)
    }
    assert (bits == distance[query, other]).all()


def test_work_on_identical_hashes_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_index, "_PAIRS_PER_BAND", 1)
    same = np.zeros(1000, np.uint64)
    query, other, _ = find_close(same, same, 3)
    assert len(query) <= 1000 * 4 * 32
    assert len(np.unique(query)) == len(np.unique(other)) == 1000


def test_an_empty_index_finds_nothing() -> None:
    assert [len(part) for part in find_close(np.zeros(0, np.uint64), np.zeros(3, np.uint64), 3)] == [0, 0, 0]


def test_pairs_that_share_a_member_become_one_group() -> None:
    assert group_pairs([("b", "a"), ("d", "c"), ("b", "c"), ("x", "y")]) == [("a", "b", "c", "d"), ("x", "y")]
