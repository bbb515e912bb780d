"""The command line of a flow names its line."""

import os
from pathlib import Path

import pytest
from metaflow.util import get_username

from inspection.arguments import METAFLOW_USERS, check_line, name_user, with_line, with_values
from inspection.errors import SettingsError


@pytest.fixture
def flow_file(tmp_path: Path) -> Path:
    lines = tmp_path / "flows" / "lines"
    lines.mkdir(parents=True)
    for name in ("sample", "line", "bottles"):
        (lines / f"{name}.toml").write_text("")
    return tmp_path / "flows" / "train_flow.py"


def test_sample_line_is_the_default(flow_file: Path) -> None:
    lines = flow_file.parent.resolve() / "lines"
    assert with_line(["run"], flow_file) == ["--config", "line", str(lines / "sample.toml"), "run"]


@pytest.mark.parametrize("flag", [["--data", "images"], ["--data=images"]])
def test_images_of_ones_own_do_not_run_under_the_sample_settings(flow_file: Path, flag: list[str]) -> None:
    lines = flow_file.parent.resolve() / "lines"
    assert with_line(["run", *flag], flow_file) == ["--config", "line", str(lines / "line.toml"), "run", *flag]


def test_a_line_file_is_found_beside_the_flow_from_any_folder(flow_file: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = with_line(["--config", "line", "lines/bottles.toml", "run"], flow_file)
    assert arguments == ["--config", "line", str(flow_file.parent.resolve() / "lines/bottles.toml"), "run"]


def test_the_working_directory_comes_before_the_flows_folder(flow_file: Path, monkeypatch, tmp_path: Path) -> None:
    here = tmp_path / "here" / "lines"
    here.mkdir(parents=True)
    (here / "bottles.toml").write_text("")
    monkeypatch.chdir(here.parent)
    arguments = with_line(["--config", "line", "lines/bottles.toml", "run"], flow_file)
    assert arguments[2] == str((here / "bottles.toml").resolve())


def test_a_missing_line_file_is_named_with_the_places_looked_at(flow_file: Path) -> None:
    with pytest.raises(SettingsError, match=r"lines/none\.toml.*found none.*copy .*line\.toml"):
        with_line(["--config", "line", "lines/none.toml", "run"], flow_file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[line\nname = 3", r"dots\.toml: not valid TOML: .*line 1.*correct that place"),
        ('[line]\nname = "dots"\n[input]\nwidth = "wide"', r"dots\.toml: line 4: \[input\] width: .*correct it.*= 224"),
        ('[line]\nname = "dots"\nplace = 3', r"dots\.toml: line 3: \[line\] place: unknown key, found 3; remove it"),
        ('[line]\nname = "dots"\n[trainin]\nepochs = 3', r"dots\.toml: line 3: \[trainin\]: .*did you mean training"),
        ('[line]\nname = "Dots"', r"dots\.toml: line 2: \[line\] name: want .*found 'Dots'"),
        (
            '[line]\nname = "dots"\n[training]\nbackbone = "resnet50"',
            r"dots\.toml: line 4: \[training\] backbone: .*found 'resnet50'; did you mean \"resnet18\"",
        ),
        (
            '[line]\nname = "dots"\n[training]\nbackbone = "vgg"',
            r"dots\.toml: line 4: \[training\] backbone: .*'mobilenet_v2'.*found 'vgg'; write one of these",
        ),
    ],
)
def test_a_wrong_settings_file_is_named_with_the_line_and_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dots.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        check_line(["--config", "line", str(tmp_path / "dots.toml"), "run"])


def test_command_lines_without_a_settings_file_have_none_to_check() -> None:
    check_line(["resume"])
    check_line(["--config-value", "line", "{}", "run"])
    check_line(["run", "--config", "line"])


def test_a_resumed_run_keeps_its_own_settings(flow_file: Path) -> None:
    assert with_line(["resume"], flow_file) == ["resume"]


def test_inline_settings_are_left_alone(flow_file: Path) -> None:
    arguments = ["--config-value", "line", "{}", "run", "--data", "x"]
    assert with_line(arguments, flow_file) == arguments


def test_root_gets_a_name_that_metaflow_takes(monkeypatch) -> None:
    for variable in METAFLOW_USERS:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("USER", "root")
    name_user()
    assert get_username() == "container"
    monkeypatch.delenv("USERNAME")


def test_a_named_user_stays_who_they_are(monkeypatch) -> None:
    monkeypatch.setenv("USER", "mia")
    monkeypatch.delenv("USERNAME", raising=False)
    name_user()
    assert "USERNAME" not in os.environ


@pytest.mark.parametrize(
    ("typed", "handed_on"),
    [
        (["run", "--drop-bad-images"], ["run", "--drop-bad-images", "True"]),
        (["run", "--drop-bad-images", "--data", "x"], ["run", "--drop-bad-images", "True", "--data", "x"]),
        (["run", "--drop-bad-images", "false"], ["run", "--drop-bad-images", "false"]),
        (["run", "--group-near-duplicates"], ["run", "--group-near-duplicates", "True"]),
        (["run", "--rollback", "--by", "ann"], ["run", "--rollback", "True", "--by", "ann"]),
        (["run", "--map", "s3://b/x=./my images"], ["run", "--map", "s3://b/x=./my images"]),
        (["run", "--map", "a=b", "--data", "x", "--map=c=d"], ["run", "--data", "x", "--map", "a=b;c=d"]),
        (["run", "--map"], ["run", "--map"]),
        (["run", "--mapping", "a=b"], ["run", "--mapping", "a=b"]),
    ],
)
def test_flags_are_written_as_metaflow_takes_them(typed, handed_on):
    assert with_values(typed) == handed_on
