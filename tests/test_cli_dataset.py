"""`lineside dataset check, import, snapshot, diff, lineage` as a person and a program meet them."""

import json
import shutil
from pathlib import Path

import pytest
from pictures import write_picture, write_set
from typer.testing import CliRunner, Result

from inspection.cli import app
from inspection.dataset.manifest import load_snapshot
from inspection.storage import open_storage

pytest_plugins = ["s3_server"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path / "images", {"good": 14, "dent": 12})


@pytest.fixture
def line(tmp_path: Path) -> Path:
    path = tmp_path / "bottles.toml"
    path.write_text(f'[line]\nname = "bottles"\nstorage = "{tmp_path / "store"}"\n[input]\nwidth = 32\nheight = 32\n')
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["dataset", *(str(argument) for argument in arguments)])


def answer(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    return line


class TestCheck:
    def test_warnings_alone_exit_with_0_and_the_page_is_below_the_storage(self, folder: Path, line: Path) -> None:
        shutil.copy(folder / "good" / "000.png", folder / "good" / "copy.png")
        text = answer("check", folder, "--line", line)
        assert "good       15" in text
        assert "duplicate-images: good/000.png, good/copy.png" in text
        assert "No errors;" in text
        (page,) = (line.parent / "store" / "reports").glob("*.html")
        assert f"page with pictures: {page}" in text

    def test_errors_exit_with_1_name_the_files_and_still_give_the_page(self, folder: Path, line: Path) -> None:
        (folder / "good" / "000.png").write_bytes(b"")
        (folder / "dent" / "000.png").write_text("no picture")
        page = folder.parent / "report.html"
        result = run("check", folder, "--line", line, "--html", page)
        assert result.exit_code == 1
        assert "empty-file: good/000.png" in result.stdout
        assert "not-a-picture: dent/000.png" in result.stdout
        assert "2 errors" in result.stdout
        assert "good/000.png" in page.read_text()

    def test_broken_images_can_be_left_out_and_are_listed(self, folder: Path, line: Path) -> None:
        (folder / "good" / "000.png").write_bytes(b"")
        text = answer("check", folder, "--line", line, "--drop-bad-images")
        assert "left out (1):\n  good/000.png (the file is empty)" in text
        assert "run --data" in text
        assert "--drop-bad-images" in text

    def test_json_is_for_programs_and_writes_no_page_unless_asked(self, folder: Path, line: Path) -> None:
        (folder / "good" / "000.png").write_bytes(b"")
        result = run("check", folder, "--line", line, "--json")
        assert result.exit_code == 1
        document = json.loads(result.stdout)
        assert [one["code"] for one in document["findings"] if one["severity"] == "error"] == ["empty-file"]
        assert document["page"] is None
        assert not (line.parent / "store" / "reports").exists()

    def test_without_a_path_the_lines_own_source_is_checked(self, folder: Path, line: Path) -> None:
        line.write_text(line.read_text() + f'[data]\nsource = "{folder}"\n')
        assert "good       14" in answer("check", "--line", line)

    def test_names_with_markup_and_newlines_are_shown_as_they_are(self, folder: Path, line: Path) -> None:
        (folder / "good" / "[red]a\nb[red].png").write_bytes(b"")
        result = run("check", folder, "--line", line)
        assert r"empty-file: good/[red]a\nb[red].png" in result.stdout

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere"], "nowhere: cannot read the images"),
            ([], "want a folder of images, found none"),
            (["images", "--line", "missing.toml"], "--line missing.toml: want a settings file"),
            (["images", "--map", "x"], "[data] map: want s3://bucket/prefix=folder, found 'x'"),
            (["images", "--format", "zip"], "format 'zip': want one of"),
            (["images", "--html", "no/such/folder/x.html"], "cannot write the page"),
        ],
    )
    def test_what_cannot_be_done_is_one_clear_line(
        self, folder: Path, line: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder.parent)
        extra = [] if "--line" in arguments else ["--line", line]
        assert message in refusal("check", *arguments, *extra)

    def test_too_large_a_group_of_near_duplicates_is_refused(
        self, folder: Path, line: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for index in range(4):
            shutil.copy(folder / "good" / "000.png", folder / "good" / f"copy-{index}.png")
        result = run("check", folder, "--line", line, "--group-near-duplicates")
        assert result.exit_code == 1
        assert "one group of 5 of the 30 images" in result.stdout


class TestImport:
    def test_a_set_is_brought_into_the_layout_that_all_know(self, folder: Path, line: Path) -> None:
        text = answer("import", folder, "--line", line)
        place = line.parent / "store" / "bottles" / "labeled-data"
        assert str(place) in text
        assert len(list((place / "train" / "good").iterdir())) == 14
        copy = place / "train" / "bad" / "dent" / "003.png"
        assert copy.read_bytes() == (folder / "dent" / "003.png").read_bytes()
        assert "train/bad/dent" in text

    def test_again_nothing_is_copied_and_what_is_new_is_added(self, folder: Path, line: Path) -> None:
        answer("import", folder, "--line", line)
        place = line.parent / "store" / "bottles" / "labeled-data"
        before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
        assert json.loads(answer("import", folder, "--line", line, "--json"))["copied"] == 0
        assert {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()} == before
        write_set(folder, {"good": 2}, start=50, seed=900)
        again = json.loads(answer("import", folder, "--line", line, "--json"))
        assert (again["copied"], again["already"]) == (2, 26)

    def test_another_picture_of_the_same_name_gets_a_name_of_its_own(self, folder: Path, line: Path) -> None:
        answer("import", folder, "--line", line)
        place = line.parent / "store" / "bottles" / "labeled-data" / "train" / "good"
        first = (place / "000.png").read_bytes()
        write_picture(folder / "good" / "000.png", 4321)
        for _ in range(2):
            answer("import", folder, "--line", line)
        assert (place / "000.png").read_bytes() == first
        (other,) = place.glob("000-*.png")
        assert other.read_bytes() == (folder / "good" / "000.png").read_bytes()

    def test_groups_and_masks_come_along(self, folder: Path, line: Path) -> None:
        mask = write_picture(folder / "masks" / "dent" / "000.png", 7)
        line.write_text(line.read_text() + "[data]\ngroup_pattern = '(?P<group>(?P<lot>0[01])\\d)'\n")
        answer("import", folder, "--line", line)
        place = line.parent / "store" / "bottles" / "labeled-data"
        assert (place / "train" / "masks" / "dent" / "000.png").exists()
        assert mask.exists()
        rows = [json.loads(row) for row in (place / "lists" / "imported.jsonl").read_text().splitlines()]
        row = next(row for row in rows if row["path"] == "train/bad/dent/000.png")
        assert (row["lot"], row["group"], row["mask"]) == ("00", "00", "train/masks/dent/000.png") or row["lot"] == "00"
        line.write_text(line.read_text().split("[data]")[0])
        checked = json.loads(answer("check", place / "lists" / "imported.jsonl", "--line", line, "--json"))
        assert {lot["lot"] for lot in checked["lots"]} == {"00", "01"}
        folders = json.loads(answer("check", place, "--line", line, "--json"))
        assert folders["images"] == checked["images"] == 26
        assert sum(one["masks"] for one in folders["classes"]) == 1

    def test_a_set_with_errors_is_not_brought(self, folder: Path, line: Path) -> None:
        (folder / "good" / "000.png").write_bytes(b"")
        assert "good/000.png (the file is empty)" in refusal("import", folder, "--line", line)
        assert not (line.parent / "store" / "bottles").exists()
        text = answer("import", folder, "--line", line, "--drop-bad-images")
        assert "left out: good/000.png (the file is empty)" in text
        assert "25 images copied" in text

    def test_it_goes_to_s3_too(
        self, folder: Path, line: Path, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        root = f"s3://{s3}/imported"
        answer("import", folder, "--line", line, "--storage", root)
        keys = open_storage(root).list("bottles/labeled-data/train/bad/dent/")
        assert len(keys) == 12
        assert json.loads(answer("import", folder, "--line", line, "--storage", root, "--json"))["copied"] == 0


class TestSnapshotDiffAndLineage:
    def test_a_relabelled_image_is_told_from_one_that_came(self, folder: Path, line: Path) -> None:
        first = json.loads(answer("snapshot", folder, "--line", line, "--json"))["id"]
        shutil.move(folder / "good" / "000.png", folder / "dent" / "was-good.png")
        write_set(folder, {"good": 1}, start=70, seed=700)
        second = json.loads(answer("snapshot", folder, "--line", line, "--json"))["id"]
        store = line.parent / "store"
        text = answer("diff", first[:10], second[:10], "--storage", store)
        assert "added: 1\n  good/070.png (good)" in text
        assert "relabelled: 1\n  good/000.png -> dent/was-good.png (good -> bad: dent)" in text
        assert "removed" not in text
        document = json.loads(answer("diff", "bottles@1", "bottles", "--storage", store, "--json"))
        assert document["counts"]["relabelled"] == 1
        assert document["relabelled"][0]["after"]["defect_type"] == "dent"

    def test_a_folder_is_compared_with_a_snapshot_of_it(self, folder: Path, line: Path) -> None:
        answer("snapshot", folder, "--line", line)
        assert "nothing changed" in answer("diff", "bottles", folder, "--line", line)
        (folder / "good" / "000.png").unlink()
        text = answer("diff", "bottles", folder, "--line", line)
        assert "removed: 1\n  good/000.png (good)" in text

    def test_the_same_set_elsewhere_in_another_order_has_the_same_id(self, folder: Path, line: Path) -> None:
        first = json.loads(answer("snapshot", folder, "--line", line, "--json"))["id"]
        shutil.copytree(folder, folder.parent / "moved")
        other = line.parent / "other"
        moved = json.loads(answer("snapshot", folder.parent / "moved", "--line", line, "--storage", other, "--json"))[
            "id"
        ]
        assert moved == first

    def test_lineage_shows_what_each_step_changed_and_left_out(self, folder: Path, line: Path) -> None:
        store = line.parent / "store"
        answer("snapshot", folder, "--line", line)
        (folder / "good" / "000.png").write_bytes(b"")
        assert "left out: good/000.png (the file is empty)" in answer(
            "snapshot", folder, "--line", line, "--drop-bad-images"
        )
        steps = json.loads(answer("lineage", "bottles", "--storage", store, "--json"))
        assert [step["images"] for step in steps] == [26, 25]
        assert steps[1]["dropped"] == {"good/000.png": "the file is empty"}
        assert steps[1]["changes"]["removed"] == 1
        assert steps[1]["parent"] == steps[0]["id"]
        text = answer("lineage", "bottles", "--storage", store)
        assert text.index(steps[1]["id"][:12]) < text.index(steps[0]["id"][:12])
        assert "dataset diff bottles@1 bottles@2" in text
        assert load_snapshot(open_storage(str(store)), steps[1]["id"]).parent == steps[0]["id"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["diff", "feed", "beef"], "feed: want one snapshot whose id begins so, a line, or a place with images"),
            (["diff", "bottles@9", "bottles"], "bottles@9: line bottles has the steps 1 to 1"),
            (["lineage", "caps"], "line caps: want a dataset snapshot, found none"),
        ],
    )
    def test_unknown_names_are_one_clear_line(
        self, folder: Path, line: Path, arguments: list[str], message: str
    ) -> None:
        answer("snapshot", folder, "--line", line)
        assert message in refusal(*arguments, "--storage", line.parent / "store")

    def test_a_snapshot_without_enough_images_is_refused(self, folder: Path, line: Path) -> None:
        for path in sorted((folder / "dent").iterdir())[3:]:
            path.unlink()
        assert "at least 10 of each class, found 3 bad" in refusal("snapshot", folder, "--line", line)
