"""What one pass over the images finds, and in what words."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from examined import MemorySource, encode, make_settings, smooth_picture
from PIL import Image

from edge.contract import RESIZE_MODES, InputContract, Roi
from inspection.dataset import looking
from inspection.dataset.examine import examine
from inspection.dataset.findings import CODES, make_finding
from inspection.dataset.image_facts import estimate_jpeg_quality, measure
from inspection.dataset.sources import open_source
from inspection.errors import DataError

LARGE = 30_000  # px


def large_png() -> bytes:
    """A valid header of 30,000 x 30,000 pixels and hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", LARGE, LARGE, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def animated_gif() -> bytes:
    frames = [smooth_picture(seed, (32, 24)) for seed in range(3)]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


def some_pictures(count: int = 4) -> MemorySource:
    source = MemorySource({})
    for seed in range(count):
        source.add(f"{'good' if seed % 2 else 'bad'}/{seed}.png", encode(smooth_picture(seed)))
    return source


WHOLE_JPEG = encode(smooth_picture(99, (200, 150)), "JPEG", quality=90)


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "empty-file", "the file is empty"),
        (b"this is a shopping list\n", "not-a-picture", "want a JPEG, PNG, BMP or TIFF picture, found text"),
        (b"%PDF-1.7 \xe2\xe3", "not-a-picture", "found a PDF document"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "not-a-picture", "found a WebP picture"),
        (bytes(range(200, 240)), "not-a-picture", "found data that begins with"),
        (WHOLE_JPEG[: len(WHOLE_JPEG) // 2], "damaged", "cannot decode this JPEG"),
        (encode(smooth_picture(98))[:300], "damaged", "cannot decode this PNG"),
        (large_png(), "too-large", "found 30000x30000"),
        (animated_gif(), "animation", "an animated GIF of 3 pictures"),
        (encode(smooth_picture(97), "GIF"), "not-a-picture", "a GIF; want a JPEG"),
        (b"GIF89a\xff\xff", "damaged", "a damaged GIF"),
    ],
)
def test_a_file_that_is_no_usable_picture_is_an_error_that_says_why(data: bytes, code: str, words: str) -> None:
    source = some_pictures()
    source.add("good/broken.jpg", data)
    examination = source.examine()
    (finding,) = (one for one in examination.errors if one.code not in ("too-few-images",))
    assert (finding.code, finding.images) == (code, (("good/broken.jpg",),))
    assert words in examination.faults["good/broken.jpg"]
    assert words in finding.summary
    assert "good/broken.jpg" not in examination.facts
    assert len(examination.facts) == 4


def test_a_huge_picture_is_refused_without_allocating_it() -> None:
    import tracemalloc

    source = some_pictures(0)
    source.add("good/huge.png", large_png())
    tracemalloc.start()
    source.examine()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


def test_a_file_that_is_gone_is_an_error() -> None:
    source = some_pictures()
    source.add("good/gone.png", b"")
    del source.files["good/gone.png"]
    assert source.codes()["unreadable-file"] == (("good/gone.png",),)


def test_a_picture_that_does_not_hold_the_region_of_interest_is_an_error() -> None:
    source = some_pictures()
    source.add("good/small.png", encode(smooth_picture(9, (40, 30))))
    assert source.codes(input={"roi": [30, 10, 60, 60]})["outside-region"] == (("good/small.png",),)


@pytest.mark.parametrize(("level", "noise", "code"), [(128, 0, "constant"), (0, 0, "constant"), (6, 2, "nearly-black")])
def test_pictures_without_content_are_found(level: int, noise: int, code: str) -> None:
    source = some_pictures()
    pixels = np.clip(np.random.default_rng(0).normal(level, noise, (60, 80, 3)), 0, 255).astype(np.uint8)
    source.add("good/empty.png", encode(pixels))
    assert source.codes()[code] == (("good/empty.png",),)


def test_a_dark_field_picture_is_neither_constant_nor_nearly_black() -> None:
    source = some_pictures()
    pixels = np.zeros((60, 80), np.uint8)
    pixels[20:40, 30:50] = 90
    source.add("good/dark.png", encode(pixels))
    assert not {"constant", "nearly-black"} & set(source.codes())


def test_the_same_file_with_both_labels_is_an_error() -> None:
    source = some_pictures()
    source.add("good/copy.png", source.files["bad/0.png"])
    assert source.codes()["duplicate-labels-differ"] == (("bad/0.png", "good/copy.png"),)


def test_the_same_pixels_in_another_file_with_both_labels_are_an_error() -> None:
    source = some_pictures()
    source.add("good/copy.bmp", encode(smooth_picture(0), "BMP"))
    assert source.codes()["duplicate-labels-differ"] == (("bad/0.png", "good/copy.bmp"),)


def test_the_same_picture_on_both_sides_of_a_shipped_split_is_an_error() -> None:
    source = MemorySource({})
    for seed in range(4):
        source.add(f"train/good/{seed}.png", encode(smooth_picture(seed)), shipped="train")
    source.add("validation/good/x.png", encode(smooth_picture(2)), shipped="validation")
    found = source.codes()
    assert found["duplicate-across-splits"] == (("train/good/2.png", "validation/good/x.png"),)
    assert "duplicate-images" not in found


def test_the_same_picture_twice_in_one_split_is_a_warning() -> None:
    source = some_pictures()
    source.add("good/copy.png", source.files["good/1.png"])
    examination = source.examine()
    assert [(one.code, one.images) for one in examination.warnings if "duplicate" in one.code] == [
        ("duplicate-images", (("good/1.png", "good/copy.png"),))
    ]
    assert examination.alike == (("good/1.png", "good/copy.png"),)


def test_the_same_picture_with_two_defect_types_is_a_warning() -> None:
    source = MemorySource({})
    source.add("dent/0.png", encode(smooth_picture(0)), defect_type="dent")
    source.add("scratch/0.png", encode(smooth_picture(0)), defect_type="scratch")
    assert source.codes()["duplicate-types-differ"] == (("dent/0.png", "scratch/0.png"),)


def test_a_group_on_both_sides_of_a_shipped_split_is_an_error() -> None:
    source = MemorySource({})
    for seed in range(4):
        split = "validation" if seed == 3 else "train"
        source.add(f"{split}/good/{seed}.png", encode(smooth_picture(seed)), shipped=split, group=f"lot-{seed // 2}")
    (finding,) = (one for one in source.examine().errors if one.code == "group-across-splits")
    assert "lot-1 (1 in train, 1 in validation)" in finding.summary


def test_too_few_images_say_how_many_more_are_needed() -> None:
    source = some_pictures(4)
    source.add("dent/9.png", encode(smooth_picture(9)), defect_type="dent")
    found = {(one.code, one.summary) for one in source.examine().findings}
    assert ("too-few-images", "2 good pictures; want at least 10: add 8 more") in found
    assert ("few-of-defect-type", "fewer than 10 pictures of 1 of 1 defect types: dent: 1, add 9") in found
    (promise,) = (text for code, text in found if code == "few-images" and "escapes" in text)
    assert promise.startswith(
        "3 independent bad parts; to prove at most 5.0% escapes at 95% confidence takes about 236"
    )
    assert promise.endswith("add 233")


def test_one_class_only_is_an_error() -> None:
    source = MemorySource({})
    source.add("good/0.png", encode(smooth_picture(0)))
    assert "one-class" in source.codes()


def test_mixed_sizes_ratios_and_pixel_types_are_warnings_with_an_example_of_each() -> None:
    source = some_pictures()
    source.add("good/other.png", encode(smooth_picture(8, (80, 80)).convert("L")))
    found = source.codes()
    for code in ("mixed-sizes", "mixed-aspect-ratios", "mixed-modes"):
        assert found[code] == (("bad/0.png", "good/other.png"),) or found[code] == (("good/other.png", "bad/0.png"),)


def test_strong_compression_is_a_warning() -> None:
    source = some_pictures()
    source.add("good/soft.jpg", encode(smooth_picture(8), "JPEG", quality=30))
    assert source.codes()["overcompressed"] == (("good/soft.jpg",),)


def test_a_file_with_several_pictures_is_a_warning() -> None:
    source = some_pictures()
    pages = [smooth_picture(seed) for seed in (10, 11)]
    source.add("good/pages.tif", encode(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert source.codes()["extra-frames"] == (("good/pages.tif",),)


@pytest.mark.parametrize("quality", [20, 40, 60, 75, 85, 92, 98])
def test_the_quality_of_a_jpeg_is_estimated_from_its_table(quality: int) -> None:
    image = Image.open(io.BytesIO(encode(smooth_picture(1), "JPEG", quality=quality)))
    assert estimate_jpeg_quality(image.quantization) == pytest.approx(quality, abs=1.5)  # type: ignore[attr-defined]


def test_camera_and_time_are_read_from_exif() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Acme", "Eye 3", 6
    exif.get_ifd(0x8769)[0x9003] = "2026:03:04 05:06:07"
    facts = measure("x.jpg", encode(smooth_picture(1), "JPEG", exif=exif))
    assert (facts.camera, facts.taken_at) == ("Acme Eye 3", "2026-03-04T05:06:07")
    assert (facts.width, facts.height) == (72, 96), "upright"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("block", [b"Exif\0\0garbage", b"", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_damaged_exif_harms_nothing(block: bytes) -> None:
    facts = measure("x.jpg", encode(smooth_picture(1), "JPEG", exif=block))
    assert (facts.camera, facts.taken_at) == (None, None)


def test_a_clock_that_was_never_set_is_no_date() -> None:
    exif = Image.Exif()
    exif[0x0132] = "0000:00:00 00:00:00"
    assert measure("x.jpg", encode(smooth_picture(1), "JPEG", exif=exif)).taken_at is None


def test_sixteen_bit_grey_is_measured() -> None:
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    facts = measure("x.png", encode(Image.fromarray(ramp)))
    assert facts.mode.startswith("I;16")
    assert facts.brightness == pytest.approx(127.5, abs=1)


def test_names_with_spaces_and_other_letters_are_told_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "good"
    folder.mkdir(parents=True)
    (tmp_path / "images" / "kratzer").mkdir()
    for name in ("mit leer zeichen.png", "größe.png", "zwei\nzeilen.png"):
        (folder / name).write_text("no picture")
    (tmp_path / "images" / "kratzer" / "1.png").write_bytes(encode(smooth_picture(1)))
    source = open_source(str(tmp_path / "images"))
    faults = examine(source.images(), source, make_settings(), 1, progress=False).faults
    assert set(faults) == {"good/mit leer zeichen.png", "good/größe.png", "good/zwei\nzeilen.png"}


def test_processes_find_what_one_thread_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(12):
        path = tmp_path / ("good" if seed % 2 else "dent") / f"{seed}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(smooth_picture(seed)) if seed != 5 else b"broken")
    source = open_source(str(tmp_path))
    alone = examine(source.images(), source, make_settings(), 1, progress=False)
    monkeypatch.setattr(looking, "PROCESSES_FROM", 1)
    together = examine(source.images(), source, make_settings(), 2, progress=False)
    assert (alone.facts, alone.faults, alone.findings) == (together.facts, together.faults, together.findings)


@pytest.mark.parametrize("side", [24, 64, 224])
@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_the_models_input_hardly_changes_what_is_measured(side: int, mode: str) -> None:
    data = encode(smooth_picture(3, (1200, 900)), "JPEG", quality=92)
    usual = measure("x.jpg", data)
    facts = measure("x.jpg", data, InputContract(side, side, resize=mode))
    assert facts.brightness == pytest.approx(usual.brightness, abs=0.3)
    assert facts.contrast == pytest.approx(usual.contrast, abs=0.3)
    assert (facts.width, facts.height, facts.sha256) == (1200, 900, usual.sha256)
    assert facts.darkest == pytest.approx(usual.darkest, abs=8)
    small = np.frombuffer(facts.thumbnail, np.uint8).astype(int) - np.frombuffer(usual.thumbnail, np.uint8)
    assert np.abs(small).max() <= 6  # at its edges: a decoder and a filter shrink a little differently
    assert np.abs(small).mean() < 1


def test_a_picture_is_measured_as_a_whole_whatever_region_the_model_sees() -> None:
    data = encode(smooth_picture(3, (300, 200)), "PNG")
    cut = measure("x.png", data, InputContract(32, 32, roi=Roi(10, 20, 64, 64)))
    assert cut == measure("x.png", data)


def test_known_images_are_not_read_again() -> None:
    source = some_pictures()
    before = source.examine()
    source.files.clear()
    after = examine(source.listed, source, make_settings(), 1, progress=False, known=before.facts)
    assert (after.facts, after.findings) == (before.facts, before.findings)


def test_errors_come_first() -> None:
    source = some_pictures()
    source.add("good/soft.jpg", encode(smooth_picture(8), "JPEG", quality=30))
    source.add("good/broken.jpg", b"")
    severities = [one.severity for one in source.examine().findings]
    assert severities == sorted(severities)


def test_an_empty_list_of_images_is_examined() -> None:
    assert MemorySource({}).examine().facts == {}


def test_a_finding_takes_severity_and_advice_from_the_table() -> None:
    finding = make_finding("near-duplicates", "two", [["a", "b"], ["a", "c"]])
    assert (finding.severity, finding.advice) == ("warning", CODES["near-duplicates"].advice)
    assert finding.uris == ("a", "b", "c")


def test_a_worker_that_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "PROCESSES_FROM", 1)
    source = MortalSource({})
    for seed in range(4):
        source.add(f"good/{seed}.png", encode(smooth_picture(seed)))
    with pytest.raises(DataError, match=r"a worker process died while it looked at one of .*good/"):
        source.examine(workers=2)


class MortalSource(MemorySource):
    """Reading it ends the process, as a decoder's crash does."""

    def read(self, uri: str) -> bytes:
        import os

        os._exit(9)


def test_the_page_of_the_checks_lists_every_code() -> None:
    page = (Path(__file__).parents[1] / "docs" / "dataset-checks.md").read_text(encoding="utf-8")
    for code, known in CODES.items():
        assert f"| `{code}` | {known.severity} | {known.title}. {known.meaning} | {known.advice} |" in page
    listed = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert listed == list(CODES)
