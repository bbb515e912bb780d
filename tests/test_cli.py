"""The `lineside` program as a person and a program meet it."""

import fcntl
import hashlib
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from golden_package import make_package
from typer.testing import CliRunner, Result

from inspection.cli import app
from inspection.commands import output
from inspection.dataset.manifest import ImageRow, make_snapshot, store_snapshot
from inspection.export.archive import archive_package
from inspection.registry.interface import PackageReference
from inspection.registry.local import LocalRegistry
from inspection.storage import open_storage

PROGRAM = Path(sys.executable).with_name("lineside")


def rate(count: int, total: int, low: float, high: float) -> dict[str, float]:
    return {"count": count, "total": total, "rate": count / total, "low": low, "high": high}


def add_version(root: Path, content: str, line: str = "bottles", **metrics) -> None:
    data = content.encode()
    archive = root.parent / f"{content}.zip"
    archive.write_bytes(data)
    figures = {
        "auroc": {"value": 0.98765, "low": 0.97, "high": 0.998},
        "escape_rate": rate(2, 50, 0.004, 0.1371),
        "overkill_rate": rate(3, 52, 0.012, 0.159),
        "review_rate": rate(9, 102, 0.041, 0.161),
    }
    LocalRegistry(open_storage(str(root))).register(
        PackageReference(
            line=line,
            archive=archive,
            archive_sha256=hashlib.sha256(data).hexdigest(),
            contract_version="0123456789abcdef",
            metrics=figures | metrics,
            snapshot="5" * 64,
            run="TrainFlow/17",
            commit="abc1234",
            tags={"backbone": "resnet18"},
        )
    )


def run(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--storage", str(root)])


def answer(root: Path, *arguments: str) -> str:
    result = run(root, *arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def answer_json(root: Path, *arguments: str):
    return json.loads(answer(root, *arguments, "--json"))


def refusal(root: Path, *arguments: str) -> str:
    """The one line on standard error with which a command fails."""
    result = run(root, *arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Storage with two versions of one line, the first approved."""
    folder = tmp_path / "store"
    add_version(folder, "one")
    LocalRegistry(open_storage(str(folder))).approve("bottles", 1, "anna [QA]", "the first one")
    add_version(folder, "two")
    return folder


class TestList:
    def test_it_shows_status_figures_and_who_decided(self, root):
        text = answer(root, "registry", "list", "bottles")
        (newest,) = re.findall(r"^ +2 +pending .*$", text, re.MULTILINE)
        (oldest,) = re.findall(r"^ +1 +approved .*$", text, re.MULTILINE)
        assert "0.988  4.0 (0.4-13.8)  5.8 (1.2-15.9)  8.8 (4.1-16.1)" in newest
        assert oldest.rstrip().endswith("anna [QA]")
        assert text.index(newest) < text.index(oldest)

    def test_it_names_the_next_command_for_what_waits_for_a_decision(self, root):
        text = answer(root, "registry", "list")
        assert f"lineside registry approve bottles 2 --by NAME --why REASON --storage {root}" in text

    def test_without_a_line_it_lists_all(self, root):
        add_version(root, "three", "caps")
        text = answer(root, "registry", "list")
        assert text.index("line bottles") < text.index("line caps")
        assert [entry["line"] for entry in answer_json(root, "registry", "list")] == ["bottles", "bottles", "caps"]

    def test_a_version_without_figures_is_listed_all_the_same(self, tmp_path):
        add_version(tmp_path / "store", "one", escape_rate={"count": 0, "total": 0, "rate": 0.0, "low": 0, "high": 1})
        assert "unknown" in answer(tmp_path / "store", "registry", "list")

    def test_an_empty_registry_says_how_to_fill_it(self, tmp_path):
        text = answer(tmp_path, "registry", "list")
        assert f"no model versions in {tmp_path}" in text
        assert "python flows/train_flow.py run" in text
        assert answer_json(tmp_path, "registry", "list") == []

    def test_an_unknown_line_is_told_which_there_are(self, root):
        assert "Lines there: bottles." in answer(root, "registry", "list", "botles")

    def test_a_model_that_reviews_more_than_half_is_announced_loudly(self, root):
        add_version(root, "three", autonomous=False)
        for command in (["list"], ["show", "bottles", "3"]):
            assert "version 3 is NOT AUTONOMOUS" in answer(root, "registry", *command)
        approval = answer(root, "registry", "approve", "bottles", "3", "--by", "anna", "--why", "for a trial")
        assert "NOT AUTONOMOUS" in approval


class TestShow:
    def test_it_shows_everything_in_full(self, root):
        text = answer(root, "registry", "show", "bottles", "1")
        for part in [
            "line bottles version 1  approved",
            hashlib.sha256(b"one").hexdigest(),
            "5" * 64,
            "0123456789abcdef",
            "TrainFlow/17",
            "abc1234",
            "resnet18",
            "0.988 (0.97-0.998)",
            "4.0 % (0.4-13.8)",
            "approved by anna [QA]",
            "the first one",
        ]:
            assert part in text

    def test_json_has_the_same_for_programs(self, root):
        version = answer_json(root, "registry", "show", "bottles", "1")
        assert version["status"] == "approved"
        assert version["archive_sha256"] == hashlib.sha256(b"one").hexdigest()
        assert version["history"][0]["by"] == "anna [QA]"
        assert datetime.fromisoformat(version["created_at"]).tzinfo is not None

    def test_a_version_that_is_not_there_is_one_clear_line(self, root):
        assert refusal(root, "registry", "show", "bottles", "7").startswith(
            "error: line bottles: want version 7, found versions 1 to 2"
        )


class TestDecide:
    def test_approval_and_roll_back_answer_with_what_changed(self, root):
        text = answer(root, "registry", "approve", "bottles", "2", "--by", "bert", "--why", "beats version 1")
        assert "line bottles version 2: pending -> approved (by bert: beats version 1)" in text
        text = answer(root, "registry", "roll-back", "bottles", "2", "--by", "bert", "--why", "reviews doubled")
        assert "approved -> rolled-back" in text
        assert answer_json(root, "registry", "latest", "bottles")["version"] == 1

    def test_rejection_answers_as_json_too(self, root):
        version = answer_json(root, "registry", "reject", "bottles", "2", "--by", "bert", "--why", "misses dents")
        assert version["status"] == "rejected"

    def test_a_decision_that_is_not_allowed_is_one_clear_line(self, root):
        line = refusal(root, "registry", "reject", "bottles", "1", "--by", "bert", "--why", "changed my mind")
        assert "found approved (by anna [QA]" in line
        assert "`lineside registry roll-back bottles 1`" in line

    def test_an_empty_reason_is_refused(self, root):
        assert "why: want the reason" in refusal(
            root, "registry", "approve", "bottles", "2", "--by", "bert", "--why", ""
        )

    @pytest.mark.parametrize("missing", ["--by", "--why"])
    def test_who_and_why_have_no_default(self, root, missing):
        given = {"--by": "bert", "--why": "good"}
        del given[missing]
        result = run(root, "registry", "approve", "bottles", "2", *(part for pair in given.items() for part in pair))
        assert result.exit_code == 2
        assert missing in result.stderr


class TestLatestAndLineage:
    def test_latest_is_the_approved_one(self, root):
        assert "line bottles version 1  approved" in answer(root, "registry", "latest", "bottles")
        assert "version 2  pending" in answer(root, "registry", "latest", "bottles", "--status", "pending")

    def test_no_approved_version_is_an_error_that_says_what_there_is(self, root):
        assert "want a version that is rejected, found none (versions: 1 approved, 2 pending)" in refusal(
            root, "registry", "latest", "bottles", "--status", "rejected"
        )

    def test_lineage_names_run_code_images_and_champion(self, root):
        text = answer(root, "registry", "lineage", "bottles", "2")
        for part in ["TrainFlow/17", "abc1234", "version 1", f"{'5' * 64} (not in this storage)"]:
            assert part in text

    def test_lineage_follows_the_images_back_to_their_first_snapshot(self, tmp_path):
        storage = open_storage(str(tmp_path / "store"))
        first, second = store_two_snapshots(tmp_path / "store")
        archive = tmp_path / "a.zip"
        archive.write_bytes(b"a")
        digest = hashlib.sha256(b"a").hexdigest()
        LocalRegistry(storage).register(PackageReference("bottles", archive, digest, "v", {}, second, "TrainFlow/1"))
        assert answer_json(tmp_path / "store", "registry", "lineage", "bottles", "1")["snapshots"] == [second, first]
        assert f"grown from  {first}" in answer(tmp_path / "store", "registry", "lineage", "bottles", "1")


class TestFetch:
    def test_it_unpacks_and_names_the_device_command(self, tmp_path):
        archive = tmp_path / "built.zip"
        digest = archive_package(make_package(tmp_path / "built", line="bottles", version="tiny"), archive)
        reference = PackageReference("bottles", archive, digest, "tiny", {}, "5" * 64, "TrainFlow/1")
        LocalRegistry(open_storage(str(tmp_path / "store"))).register(reference)
        folder = tmp_path / "package"
        text = answer(tmp_path / "store", "registry", "fetch", "bottles", "1", "--to", str(folder))
        assert (folder / "contract.json").is_file()
        assert f"python -m edge --model {folder} --self-test" in text
        line = refusal(tmp_path / "store", "registry", "fetch", "bottles", "1", "--to", str(folder))
        assert f"{folder}: exists already" in line

    def test_a_tampered_package_is_refused_with_both_digests(self, root, tmp_path):
        digest = hashlib.sha256(b"one").hexdigest()
        (root / f"packages/{digest}.zip").write_bytes(b"other")
        line = refusal(root, "registry", "fetch", "bottles", "1", "--to", str(tmp_path / "package"))
        assert f"want sha256 {digest}, found {hashlib.sha256(b'other').hexdigest()}" in line
        assert not (tmp_path / "package").exists()


def store_two_snapshots(root: Path) -> tuple[str, str]:
    parent = None
    for count in (8, 12):
        rows = [
            ImageRow(
                uri=f"{kind}/{number}.jpg",
                sha256=hashlib.sha256(f"{kind}{number}".encode()).hexdigest(),
                width=320,
                height=240,
                label="good" if kind == "good" else "bad",
                defect_type=None if kind == "good" else kind,
                group=f"{kind}-{number // 2}",
                lot=f"lot-{number % 2}",
                split=("train", "calibration", "holdout", "train")[number % 4],
            )
            for kind in ("good", "dent")
            for number in range(count)
        ]
        snapshot = make_snapshot(rows, parent, "images")
        store_snapshot(open_storage(str(root)), "bottles", snapshot)
        first, parent = parent, snapshot.id
    assert first is not None
    assert parent is not None
    return first, parent


class TestDataset:
    def test_snapshots_are_listed_with_their_splits_newest_first(self, tmp_path):
        first, second = store_two_snapshots(tmp_path)
        text = answer(tmp_path, "dataset", "snapshots", "bottles")
        assert re.search(rf"2  {second[:12]} +24 +6/6 +3/3 +3/3", text)
        assert text.index(second[:12]) < text.index(first[:12])
        assert [entry["images"] for entry in answer_json(tmp_path, "dataset", "snapshots", "bottles")] == [24, 16]

    def test_one_is_shown_by_the_first_digits_of_its_id_or_the_latest(self, tmp_path):
        first, second = store_two_snapshots(tmp_path)
        assert second in answer(tmp_path, "dataset", "show", "bottles")
        text = answer(tmp_path, "dataset", "show", "bottles", first[:8])
        assert first in text
        assert "16 in 8 groups and 2 lots" in text
        assert re.search(r"dent +4 +2 +2 +8", text)

    def test_an_unknown_snapshot_or_line_is_one_clear_line(self, tmp_path):
        store_two_snapshots(tmp_path)
        assert "want one snapshot whose id begins with 'xyz', found none" in refusal(
            tmp_path, "dataset", "show", "bottles", "xyz"
        )
        assert "line caps: want a dataset snapshot, found none" in refusal(tmp_path, "dataset", "snapshots", "caps")


class TestProgram:
    def test_a_storage_folder_that_is_not_there_is_refused_and_not_made(self, tmp_path):
        assert "found no such folder" in refusal(tmp_path / "typo", "registry", "list")
        assert not (tmp_path / "typo").exists()

    def test_a_damaged_entry_is_one_clear_line(self, root):
        (root / "registry/bottles/000002.json").write_text("{")
        assert "registry/bottles/000002.json: want a registry document in JSON" in refusal(root, "registry", "list")

    def test_version_is_that_of_the_package(self):
        result = CliRunner().invoke(app, ["version"])
        assert re.fullmatch(r"lineside \d+\.\d+\.\d+ \(Python 3\.\d+\.\d+\)\n", result.stdout)

    @pytest.mark.parametrize("group", [[], ["registry"], ["dataset"]])
    def test_every_command_has_one_line_of_help(self, group):
        result = CliRunner().invoke(app, [*group, "--help"])
        assert result.exit_code == 0
        commands = re.findall(r"^│ ([a-z-]+) +(\S.*?) *│$", result.stdout, re.MULTILINE)
        assert len(commands) >= 2

    def test_the_installed_program_fails_without_a_traceback(self, tmp_path):
        process = subprocess.run(
            [PROGRAM, "registry", "show", "bottles", "1", "--storage", tmp_path], capture_output=True, text=True
        )
        assert process.returncode == 1
        assert process.stdout == ""
        assert process.stderr.startswith("error: line bottles: want version 1")
        assert process.stderr.count("\n") == 1

    def test_neither_pytorch_nor_boto3_is_loaded_to_look_at_a_folder(self, root):
        script = (
            "import sys; from typer.testing import CliRunner; from inspection.cli import app; "
            f"CliRunner().invoke(app, ['registry', 'list', '--storage', {str(root)!r}]); "
            "print([name for name in ('torch', 'boto3', 'metaflow', 'matplotlib', 'sklearn') if name in sys.modules])"
        )
        process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert process.stdout == "[]\n"


def in_terminal(columns: int, *arguments: str) -> str:
    """What the program writes to a terminal so wide."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [PROGRAM, *arguments], stdout=follower, env=environment | {"TERM": "xterm-256color"}, stdin=follower
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # Linux says so when the last writer is gone
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait() == 0
    return shown.decode()


class TestTerminal:
    def test_colours_are_for_a_terminal_only(self, root):
        assert "\x1b[33mpending" in in_terminal(100, "registry", "list", "--storage", str(root))
        assert "\x1b" not in answer(root, "registry", "list")

    @pytest.mark.parametrize(("columns", "intervals"), [(100, True), (80, False)])
    def test_a_table_fits_the_terminal_without_cutting_anything(self, root, columns, intervals):
        shown = re.sub(r"\x1b\[[0-9;]*m", "", in_terminal(columns, "registry", "list", "--storage", str(root)))
        table = [line.rstrip() for line in shown.splitlines() if not line.lstrip().startswith(("next", "lineside"))]
        assert max(map(len, table)) <= columns
        assert "…" not in shown
        assert ("(0.4-13.8)" in shown) == intervals

    def test_a_command_to_copy_is_never_broken_over_lines(self, root):
        shown = in_terminal(60, "registry", "list", "--storage", str(root))
        assert f"lineside registry approve bottles 2 --by NAME --why REASON --storage {root}" in shown


class TestFormats:
    @pytest.mark.parametrize(
        ("age", "text"),
        [
            (timedelta(seconds=5), "just now"),
            (timedelta(minutes=3), "3 min ago"),
            (timedelta(hours=5), "5 h ago"),
            (timedelta(days=12), "12 d ago"),
            (timedelta(days=40), "2026-10-13"),
        ],
    )
    def test_ages_read_at_a_glance(self, age, text):
        now = datetime(2026, 11, 22, 12, tzinfo=UTC)
        assert output.format_age(now - age, now) == text

    @pytest.mark.parametrize(
        ("name", "value", "text"),
        [
            ("escape_rate", 0.0512, "5.1 %"),
            ("int8_agreement", 0.998, "99.8 %"),
            ("auroc", 0.98765, "0.988"),
            ("images", 400, "400"),
            ("autonomous", False, "no"),
            ("kind", "int8", "int8"),
            ("auroc", {"value": 0.9, "low": 0.85, "high": 0.95}, "0.9 (0.85-0.95)"),
            ("escape_rate", {"rate": 0.02, "low": 0.0, "high": 0.071}, "2.0 % (0.0-7.1)"),
            ("sizes", {"a": 1}, '{"a": 1}'),
        ],
    )
    def test_figures_carry_their_unit_and_interval(self, name, value, text):
        assert output.format_figure(name, value) == text


class TestConfig:
    """`--config` names the settings of a line, and with them its storage and registry."""

    @pytest.fixture
    def config(self, root, tmp_path) -> Path:
        path = tmp_path / "bottles.toml"
        path.write_text(f'[line]\nname = "bottles"\nstorage = "{root}"\n')
        return path

    def ask(self, config: Path, *arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--config", str(config)])

    def test_the_registry_of_the_settings_is_meant(self, config):
        result = self.ask(config, "registry", "list", "bottles", "--json")
        assert [version["version"] for version in json.loads(result.stdout)] == [2, 1]

    def test_every_command_takes_it_and_hands_it_on(self, config):
        approved = self.ask(config, "registry", "approve", "bottles", "2", "--by", "anna", "--why", "good")
        assert f"next: lineside registry fetch bottles 2 --to FOLDER --config {config}" in approved.stdout
        for command in (["show", "bottles", "2"], ["latest", "bottles"]):
            shown = self.ask(config, "registry", *command)
            assert f"registry fetch bottles 2 --to FOLDER --config {config}" in shown.stdout
        assert f"registry show bottles 2 --config {config}" in self.ask(config, "registry", "list").stdout
        lineage = self.ask(config, "registry", "lineage", "bottles", "2")
        assert f"dataset show bottles {'5' * 12} --storage" in lineage.stdout

    def test_a_storage_beside_it_beats_its_own(self, config, tmp_path):
        (tmp_path / "other").mkdir()
        result = self.ask(config, "registry", "list", "--storage", str(tmp_path / "other"))
        assert f"no model versions in {tmp_path / 'other'}" in result.stdout

    def test_settings_of_a_storage_that_is_not_there_are_refused(self, config):
        config.write_text('[line]\nname = "bottles"\nstorage = "nowhere/at/all"\n')
        result = self.ask(config, "registry", "list")
        assert result.exit_code == 1
        assert "[line] storage: want a folder or s3://bucket/prefix, found no such folder" in result.stderr

    @pytest.mark.parametrize(
        ("content", "message"),
        [(None, "cannot read the line's settings"), ("[line]\nnom = 1", "[line] nom: unknown key")],
    )
    def test_settings_that_are_missing_or_wrong_are_refused(self, config, content, message):
        config.unlink() if content is None else config.write_text(content)
        result = self.ask(config, "registry", "show", "bottles", "1")
        assert result.exit_code == 1
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
