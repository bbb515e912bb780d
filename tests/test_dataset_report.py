"""What a check of a set tells a person: counts, findings, next steps, and one page that needs nothing else."""

import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import write_picture, write_set
from PIL import Image

from inspection.dataset.checking import check_dataset
from inspection.dataset.grouping import Repair
from inspection.dataset.report import Report, count_classes, count_lots, next_steps, printable, to_json
from inspection.dataset.report_charts import Axis, draw_histograms
from inspection.dataset.report_page import render_page
from inspection.dataset.report_pictures import difference, fit, mark_defects
from inspection.settings import parse_settings
from inspection.storage import LocalStorage


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def check(folder: Path, **data: object) -> tuple[Report, Page]:
    settings = parse_settings({"line": {"name": "bottles"}, "data": data, "input": {"width": 32, "height": 32}}, "test")
    report, source = check_dataset(settings, str(folder), LocalStorage(folder.parent / "storage"), progress=False)
    return report, Page(render_page(report, source))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path / "images", {"good": 14, "dent": 12})


def test_the_page_needs_nothing_else(folder: Path) -> None:
    _, page = check(folder)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value is not None
                assert value.startswith(("data:image/jpeg;base64,", "#"))
    policy = next(attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<script>alert(1)<%2Fscript>.png", "<script>alert(1)<%2Fscript>.png"),
        ('" onerror="alert(1).png', '" onerror="alert(1).png'),
        ("two\nlines.png", r"two\nlines.png"),
        ("späne & öl 鋼.png", "späne & öl 鋼.png"),
        ("turn\u202egnp.png", r"turn\u202egnp.png"),
        ("esc\x1b[31m.png", r"esc\x1b[31m.png"),
    ],
)
def test_names_may_hold_anything(folder: Path, name: str, shown: str) -> None:
    (folder / "good" / "000.png").rename(folder / "good" / name)
    (folder / "good" / "001.png").write_bytes((folder / "good" / name).read_bytes())  # so that both are in a finding
    report, page = check(folder)
    assert any(f"good/{name}" in finding.uris for finding in report.findings)
    assert f"good/{shown}" in page.text
    assert name == shown or f"good/{name}" not in page.text
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]


def test_a_name_that_is_no_text_is_shown_too(folder: Path) -> None:
    (folder / "good" / "000.png").rename(folder / "good" / "latin-\udce9.png")
    _, page = check(folder)
    assert r"latin-\udce9.png" in page.text
    assert printable("latin-\udce9") == r"latin-\udce9"


def test_every_class_has_its_count_and_pictures(folder: Path) -> None:
    report, page = check(folder)
    assert [(count.name, count.images) for count in count_classes(report.images)] == [("good", 14), ("dent", 12)]
    assert len([tag for tag, _ in page.tags if tag == "img"]) >= 12
    assert len([tag for tag, _ in page.tags if tag == "svg"]) >= 1


def test_lots_are_counted_the_largest_first(folder: Path) -> None:
    report, page = check(folder, group_pattern=r"(?P<group>(?P<lot>0[01])\d\.)")
    assert count_lots(report.images) == [("00", 10, 10), ("01", 4, 2)]
    assert "Images of each lot" in page.text


def test_a_broken_file_is_an_error_with_its_name_and_reason(folder: Path) -> None:
    (folder / "good" / "000.png").write_bytes(b"")
    report, page = check(folder)
    assert report.stops
    assert report.verdict.startswith("1 error")
    assert "good/000.png" in page.text
    assert "the file is empty" in page.text
    assert any("--drop-bad-images" in step for step in next_steps(report))


def test_broken_files_that_are_left_out_are_listed_and_no_error(folder: Path) -> None:
    (folder / "good" / "000.png").write_bytes(b"")
    (folder / "good" / "001.png").write_text("no picture")
    report, page = check(folder, drop_bad_images=True)
    assert not report.stops
    assert sorted(report.dropped) == ["good/000.png", "good/001.png"]
    assert "2 broken pictures are left out" in page.text
    assert next_steps(report)[-1].endswith("--drop-bad-images")
    assert (folder / "good" / "000.png").exists(), "nothing is deleted"


def test_copies_are_shown_side_by_side(folder: Path) -> None:
    (folder / "good" / "copy.png").write_bytes((folder / "good" / "000.png").read_bytes())
    report, page = check(folder)
    (finding,) = [one for one in report.findings if one.code == "duplicate-images"]
    assert finding.images == (("good/000.png", "good/copy.png"),)
    assert page.text.count("good/copy.png") >= 1


def test_what_grouping_changed_is_told(folder: Path) -> None:
    report, _ = check(folder)
    repaired = replace(
        report, repair=Repair((("good/000.png", "good/001.png"),), (), (("good/001.png", "holdout", "train"),))
    )
    text = Page(render_page(repaired, _NoSource())).text
    assert "2 pictures of the same captures were made 1 group" in text
    assert "good/001.png: holdout → train" in text


class _NoSource:
    def read(self, uri: str) -> bytes:
        raise FileNotFoundError(uri)


def test_pictures_that_are_gone_by_now_leave_a_place(folder: Path) -> None:
    report, _ = check(folder)
    page = Page(render_page(report, _NoSource()))
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert "no picture" in page.text


def test_the_report_for_programs_is_json(folder: Path) -> None:
    report, _ = check(folder)
    document = json.loads(json.dumps(to_json(report)))
    assert document["images"] == 26
    assert document["errors"] == 0
    assert {finding["severity"] for finding in document["findings"]} <= {"warning"}


def test_a_set_without_one_readable_picture_has_a_page(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "images", {"good": 2, "dent": 2})
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    report, page = check(folder)
    assert report.stops
    assert "None could be decoded" in page.text


def test_masks_and_boxes_are_drawn() -> None:
    pixels = np.full((40, 60, 3), 100, dtype=np.uint8)
    mask = np.zeros((40, 60), dtype=bool)
    mask[:10] = True
    marked = mark_defects(pixels, mask, [(300.0, 200.0, 100.0, 100.0)], (600, 400))
    assert (marked[5, 5] != 100).any(), "the mask"
    assert (marked[20, 30] != 100).any(), "the box's corner, scaled"
    assert (marked[35, 5] == 100).all()


def test_alike_pictures_differ_in_nothing_and_a_scratch_stands_out() -> None:
    one = np.full((40, 60, 3), 100, dtype=np.uint8)
    other = one.copy()
    other[20, 10:30] = 180
    assert difference(one, one).max() == 0
    apart = difference(one, np.asarray(Image.fromarray(other)))
    assert apart[20, 20].min() > 200
    assert apart[5, 5].max() == 0


def test_what_differs_is_told_after_the_pictures_are_laid_over_each_other() -> None:
    part = np.asarray(
        Image.fromarray(np.random.default_rng(3).integers(0, 255, (15, 20, 3), dtype=np.uint8)).resize(
            (200, 150), Image.Resampling.BICUBIC
        )
    )
    shifted = part[3:143, 2:192]
    plain = np.abs(part[:140, :190].astype(int) - shifted).mean()
    assert difference(shifted, part).mean() < plain / 5


def test_thumbnails_are_never_larger_than_the_picture() -> None:
    assert fit((50, 40), 220) == (50, 40)
    assert fit((2200, 1100), 220) == (220, 110)
    assert fit((5000, 2), 220) == (220, 8)


def test_a_chart_of_equal_values_is_a_sentence() -> None:
    assert (
        draw_histograms({"good": [5.0, 5.0], "dent": [5.0]}, Axis("size", "kB")) == "<p>size: 5 kB in all images.</p>"
    )
    chart = draw_histograms({"good": [1.0, 2.0], "<dent>": [3.0]}, Axis("size"))
    assert "&lt;dent&gt;" in chart
    assert len(re.findall("<g>", chart)) == 2


def test_a_large_set_is_rendered_with_a_few_of_its_pictures(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "images", {"good": 3, "dent": 3})
    write_picture(folder / "good" / "other.png", 99, (64, 64))
    report, _ = check(folder)
    image, fact = report.images[0], next(iter(report.facts.values()))
    images = [replace(image, uri=f"good/{index}.png") for index in range(20_000)]
    large = replace(report, images=images, facts={one.uri: fact for one in images}, findings=())
    text = render_page(large, _NoSource())
    assert len(text) < 200_000
    assert "20,000" in text
