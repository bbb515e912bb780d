"""Components: what is in the zips, that the same input makes the same bytes, and what cannot be built."""

import errno
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from building import contract_digest, line_settings, register_model
from tiny_wheels import tiny_wheels
from typer.testing import CliRunner

from inspection.cli import app
from inspection.errors import PackageError, RegistryError, RolloutError
from inspection.fleet.components import zips
from inspection.fleet.components.build import build_components, size_table
from inspection.fleet.components.built import Built
from inspection.fleet.components.configuration import group_configuration, inspector_configuration, needed_extras
from inspection.fleet.components.folder import build_folder
from inspection.fleet.components.locks import EDGE
from inspection.fleet.components.targets import Target, this_architecture, this_python
from inspection.fleet.components.zips import write_zip
from inspection.fleet.interface import MODEL_TAG
from inspection.fleet.recipe_checks import MAX_RECIPE_BYTES, recipe_faults
from inspection.registry.interface import ModelVersion
from inspection.registry.local import LocalRegistry
from inspection.settings import LineSettings, Settings

pytest_plugins = ["building_fixtures"]
ME = "cp" + this_python().replace(".", "")


def names_in(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as file:
        return set(file.namelist())


def text_in(archive: Path, name: str) -> str:
    with zipfile.ZipFile(archive) as file:
        return file.read(name).decode()


# What is built


def test_the_runtime_has_a_set_of_wheels_for_each_python_and_shares_what_it_can(
    build: Callable[..., Built], tmp_path: Path
) -> None:
    targets = [Target(architecture, python) for architecture in ("aarch64", "amd64") for python in ("3.11", "3.13")]
    wheels = tiny_wheels(tmp_path / "more", targets)
    built = build(wheels=str(wheels), architectures=["amd64", "aarch64"], pythons=["3.13", "3.11"])
    assert set(built.runtime.artifacts) == {"runtime-aarch64.zip", "runtime-amd64.zip"}
    names = names_in(built.runtime.artifacts["runtime-aarch64.zip"])
    assert {"install.sh", "choose.py", "sets.json", "requirements-cp311.txt", "requirements-cp313.txt"} <= names
    inside = {name for name in names if name.endswith(".whl")}
    assert not any("x86_64" in name for name in inside)
    for name in inside:
        folder, file = name.split("/")[1:]
        assert (folder == "any") is ("abi3" in file or "none" in file)
        assert folder in ("any", *[tag for tag in ("cp311", "cp313") if tag in file])
    assert sum("awsiotsdk" in name for name in inside) == 1
    assert sum("numpy" in name for name in inside) == 2
    assert json.loads(text_in(built.runtime.artifacts["runtime-aarch64.zip"], "sets.json")) == {
        "machine": "aarch64",
        "sets": {"cp311": {"glibc": [2, 28]}, "cp313": {"glibc": [2, 28]}},
    }
    recipe = built.runtime.make_recipe("1.0.0", {file: f"s3://bucket/{file}" for file in built.runtime.artifacts})
    assert recipe_faults(recipe) == []
    for manifest in recipe["Manifests"]:
        architecture = manifest["Platform"]["architecture"]
        assert manifest["Artifacts"][0]["Uri"] == f"s3://bucket/runtime-{architecture}.zip"
        assert f"/runtime-{architecture}/install.sh" in manifest["Lifecycle"]["install"]["Script"]


def test_old_boards_get_the_older_runtime_from_a_folder_of_wheels(build: Callable[..., Built], tmp_path: Path) -> None:
    wheels = tiny_wheels(tmp_path / "arm", [Target("arm", "3.11")])
    built = build(wheels=str(wheels), architectures=["arm"], pythons=["3.11"])
    names = " ".join(names_in(built.runtime.artifacts["runtime-arm.zip"]))
    assert "tflite_runtime-2.14.0-cp311" in names
    assert "ai_edge_litert" not in names
    assert json.loads(text_in(built.runtime.artifacts["runtime-arm.zip"], "sets.json"))["machine"] == "armv7l"


def test_every_requirement_of_the_runtime_names_the_one_wheel_that_is_there(build: Callable[..., Built]) -> None:
    archive = build().runtime.artifacts[f"runtime-{this_architecture()}.zip"]
    wanted = {line.partition("--hash=sha256:")[2] for line in text_in(archive, f"requirements-{ME}.txt").splitlines()}
    with zipfile.ZipFile(archive) as file:
        wheels = [name for name in file.namelist() if name.endswith(".whl")]
        assert {hashlib.sha256(file.read(name)).hexdigest() for name in wheels} == wanted


def test_the_inspector_is_the_devices_code_and_nothing_else(build: Callable[..., Built]) -> None:
    names = names_in(build().inspector.artifacts["inspector.zip"])
    assert {"run.sh", "edge/__main__.py", "edge/sources/camera.py", "edge/uploader/__main__.py"} <= names
    assert not [name for name in names if not name.endswith(".py") and name != "run.sh"]
    assert not [name for name in names if "recipes" in name or "__pycache__" in name]


def test_the_inspectors_zip_runs_without_the_checkout(build: Callable[..., Built], tmp_path: Path) -> None:
    with zipfile.ZipFile(build().inspector.artifacts["inspector.zip"]) as file:
        file.extractall(tmp_path / "inspector")
    done = subprocess.run(
        [sys.executable, "-m", "edge", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "inspector"), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--challenger" in done.stdout


def test_model_and_challenger_are_the_verified_package_under_two_names(
    build: Callable[..., Built], registry: LocalRegistry, tmp_path: Path
) -> None:
    built = build()
    assert (built.model.name, built.challenger.name) == ("lineside.Model.tiny", "lineside.Challenger.tiny")
    assert built.model.artifacts == built.challenger.artifacts
    assert built.model.digest != built.challenger.digest
    assert built.model.tags == {MODEL_TAG: registry.get("tiny", 1).archive_sha256}
    assert built.digest == contract_digest(tmp_path / "first")
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(built.model.artifacts["model.zip"]) as file:
        file.extractall(folder)
    verify = ["sh", str(folder / "verify.sh"), str(folder)]
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)  # a nucleus need not let a component write there
    assert subprocess.run(verify, check=False).returncode == 0
    model = folder / "package" / "model.tflite"
    model.chmod(0o644)
    model.write_bytes(b"tampered")
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "package/model.tflite: FAILED" in done.stderr
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)


def test_sizes_say_what_a_device_downloads(build: Callable[..., Built]) -> None:
    built = build()
    (row,) = size_table(built)
    sizes = {path.name: path.stat().st_size for path in built.runtime.artifacts.values()}
    assert row["architecture"] == this_architecture()
    assert row["runtime"] == sizes[f"runtime-{this_architecture()}.zip"] == built.runtime.size_bytes
    assert row["first deployment"] == row["runtime"] + row["inspector"] + row["model"]
    assert row["new model"] == built.model.artifacts["model.zip"].stat().st_size


# The same input makes the same bytes


def test_the_same_input_makes_the_same_bytes_anywhere_and_at_any_time(
    settings: Settings, registry: LocalRegistry, build: Callable[..., Built], tmp_path: Path
) -> None:
    first = build()
    code = tmp_path / "copy"
    shutil.copytree(EDGE, code)  # read in another order, with other times and modes
    for number, path in enumerate(sorted(code.rglob("*"), reverse=True)):
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
        if path.is_file():
            path.chmod(0o755)
    before = os.umask(0o077)
    try:
        again = build(1, scratch="elsewhere/deep", edge_folder=code)
    finally:
        os.umask(before)
    for name in ("runtime", "inspector", "model", "challenger"):
        one, two = getattr(first, name), getattr(again, name)
        assert one.digest == two.digest
        for file in one.artifacts:
            assert one.artifacts[file] != two.artifacts[file]
            assert one.artifacts[file].read_bytes() == two.artifacts[file].read_bytes()


def test_a_digest_does_not_depend_on_version_or_place_but_on_all_else(build: Callable[..., Built]) -> None:
    digest = build().model.digest
    assert build(1, publisher="Somebody Else").model.digest != digest
    assert build(1, inspector={"threads": 2}).model.digest == digest


def test_zips_hold_plain_files_in_order_and_compress_what_shrinks(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    entries: dict[str, Path | bytes] = {"z": b"last", "b/c": tmp_path / "large", "b/a": b"", "x.whl": bytes(1000)}
    digest = write_zip(tmp_path / "a.zip", entries)
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        assert file.testzip() is None
        assert file.namelist() == ["b/a", "b/c", "x.whl", "z"]
        for entry in file.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert entry.external_attr >> 16 == stat.S_IFREG | 0o644
            assert entry.compress_type == (zipfile.ZIP_STORED if entry.filename == "x.whl" else zipfile.ZIP_DEFLATED)
            assert not entry.flag_bits & 0x08, "sizes come first: some readers take no data descriptors"
    assert (tmp_path / "a.zip").stat().st_size < 10_000
    assert write_zip(tmp_path / "b.zip", dict(reversed(entries.items()))) == digest
    assert write_zip(tmp_path / "c.zip", {**entries, "z": b"more"}) != digest
    assert write_zip(tmp_path / "c.zip", {**entries, "y": entries["z"]}) != digest


def test_a_digest_is_of_the_content_and_not_of_its_compression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = write_zip(tmp_path / "a.zip", {"a": b"content" * 100})
    monkeypatch.setattr(zips, "LEVEL", 0)  # as another version of the compressor may pack it
    assert write_zip(tmp_path / "b.zip", {"a": b"content" * 100}) == digest
    assert (tmp_path / "a.zip").read_bytes() != (tmp_path / "b.zip").read_bytes()


# What cannot be built


def test_a_full_disk_is_named_and_leaves_no_half_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(zips, "_write_entry", full)
    with pytest.raises(RolloutError, match=r"out/a.zip: no space is left"):
        write_zip(tmp_path / "out" / "a.zip", {"x": tmp_path / "file"})
    assert list((tmp_path / "out").iterdir()) == []


def test_a_scratch_folder_that_cannot_be_written_is_named(build: Callable[..., Built], tmp_path: Path) -> None:
    (tmp_path / "scratch").write_text("a file")
    with pytest.raises(RolloutError, match=r"/scratch: the components cannot be built there"):
        build()


def test_a_code_folder_that_is_missing_is_refused(
    build: Callable[..., Built], registry: LocalRegistry, tmp_path: Path
) -> None:
    number = register_model(registry, tmp_path / "first")
    for folder in (tmp_path / "nothing", tmp_path):
        with pytest.raises(RolloutError, match=r"want the inspector's code \(edge/\), found no __main__.py"):
            build(number, edge_folder=folder)


def test_an_archive_that_was_changed_is_refused(
    build: Callable[..., Built], registry: LocalRegistry, settings: Settings, tmp_path: Path
) -> None:
    number = register_model(registry, tmp_path / "first")
    archive = Path(settings.storage_root) / registry.get("tiny", number).archive
    archive.chmod(0o644)
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(PackageError, match="the archive was changed after it was registered: want sha256"):
        build(number)


class CarelessRegistry:
    """Gives a folder without a look at it."""

    def __init__(self, registry: LocalRegistry, spoil: Callable[[Path], object], **changes: Any) -> None:
        self._registry, self._spoil, self._changes = registry, spoil, changes

    def get(self, line: str, version: int) -> ModelVersion:
        return replace(self._registry.get(line, version), **self._changes)

    def fetch(self, line: str, version: int, folder: Path) -> Path:
        self._registry.fetch(line, version, folder)
        self._spoil(folder)
        return folder


@pytest.mark.parametrize(
    ("spoil", "changes", "want"),
    [
        (lambda folder: (folder / "model.tflite").write_bytes(b"other"), {}, "model.tflite: want sha256"),
        (lambda folder: (folder / "more").write_bytes(b""), {}, r"unknown files \['more'\]"),
        (lambda folder: None, {"contract_version": "other"}, "want the package of line tiny, model other, found one"),
        (lambda folder: None, {"line": "other"}, "want the package of line other"),
    ],
)
def test_a_package_that_is_not_the_registered_one_is_refused(
    spoil: Callable[[Path], object],
    changes: dict[str, Any],
    want: str,
    settings: Settings,
    registry: LocalRegistry,
    tmp_path: Path,
) -> None:
    number = register_model(registry, tmp_path / "first")
    careless: Any = CarelessRegistry(registry, spoil, **changes)
    with pytest.raises(PackageError, match=want):
        build_components(settings, careless, number, tmp_path / "scratch", tmp_path / "cache")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_package_for_another_line_is_refused(
    build: Callable[..., Built], registry: LocalRegistry, tmp_path: Path
) -> None:
    number = register_model(registry, tmp_path / "other", line="other")
    with pytest.raises(RegistryError, match="line tiny: want version 1, found no version of this line"):
        build(number)


def test_a_recipe_that_is_too_large_is_refused(build: Callable[..., Built]) -> None:
    with pytest.raises(RolloutError, match=f"recipe: want at most {MAX_RECIPE_BYTES} bytes, found"):
        build(inspector={"source": {"folder": {"suffixes": [f".{number:07d}" for number in range(2000)]}}})


def test_extras_that_an_architecture_has_not_are_refused(build: Callable[..., Built], tmp_path: Path) -> None:
    wheels = tiny_wheels(tmp_path / "arm", [Target("arm", "3.11")])
    with pytest.raises(RolloutError, match=r"requirements-camera.txt: no package is to be had for arm, Python 3.11"):
        build(
            wheels=str(wheels),
            architectures=["arm"],
            pythons=["3.11"],
            inspector={"source": {"uri": "v4l2:/dev/video0"}},
        )


# The inspector's settings


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({"deadline": 500}, "deadline: no such setting; want one of"),
        ({"deadline_ms": "soon"}, "deadline_ms: want float, found 'soon'"),
        ({"deadline_ms": 1}, "deadline_ms: want 5 to"),
        ({"source": {"uri": "trigger:", "trigger": {"kind": "often"}}}, "source.trigger.kind: want one of"),
        ({"line": "other"}, r"want none of line, which come from \[line\]"),
        ({"model": "/somewhere"}, "want none of model, which are given by the component itself"),
        ({"upload": "s3://bucket"}, "upload: want a table"),
    ],
)
def test_a_slip_in_the_inspectors_settings_fails_first(
    build: Callable[..., Built], given: dict[str, Any], want: str
) -> None:
    with pytest.raises(RolloutError, match=rf"\[fleet.inspector\]: (.|\n)*{want}"):
        build(99, inspector=given)


def cloud_settings(**fleet: Any) -> Settings:
    line = LineSettings(name="tiny", storage="s3://a-bucket/lines")
    local = line_settings(Path("/nowhere"), wheels="x", backend="greengrass", **fleet)
    return replace(local, line=line)


def test_devices_of_the_cloud_send_their_pictures_to_the_lines_bucket() -> None:
    settings = cloud_settings(inspector={"source": {"uri": "trigger:"}}, region="eu-central-1")
    assert inspector_configuration(settings) == {
        "source": {"uri": "trigger:"},
        "upload": {"to": "s3://a-bucket/lines", "region": "eu-central-1"},
    }
    assert needed_extras(settings) == ("upload",)
    elsewhere = cloud_settings(inspector={"source": {"uri": "trigger:"}, "upload": {"to": ""}})
    assert inspector_configuration(elsewhere)["upload"]["to"] == ""
    assert needed_extras(elsewhere) == ()


def test_devices_of_the_cloud_must_be_told_their_source() -> None:
    with pytest.raises(RolloutError, match=r"source.uri: want a source such as"):
        inspector_configuration(cloud_settings())


def test_a_source_of_a_kind_that_no_device_knows_is_refused_before_anything_is_built() -> None:
    with pytest.raises(RolloutError, match=r"\[fleet.inspector\]: source: want one of folder:PATH.*found 'ftp://x'"):
        inspector_configuration(cloud_settings(inspector={"source": {"uri": "ftp://x"}}))


def test_devices_on_this_machine_know_their_own_source(settings: Settings) -> None:
    assert inspector_configuration(settings) == {}
    assert needed_extras(settings) == ()


@pytest.mark.parametrize(
    ("inspector", "extras"),
    [
        ({"source": {"uri": "v4l2:/dev/video0"}}, {"camera"}),
        ({"source": {"uri": "rtsp://camera/1"}}, {"camera"}),
        ({"output": {"gpio_chip": "/dev/gpiochip0", "accept_pin": 4}}, {"gpio"}),
        ({"source": {"uri": "v4l2:/dev/video0", "trigger": {"kind": "gpio"}}}, {"camera", "gpio"}),
        ({"upload": {"to": "s3://a-bucket"}}, {"upload"}),
    ],
)
def test_the_runtime_brings_what_the_settings_need(
    settings: Settings, inspector: dict[str, Any], extras: set[str]
) -> None:
    changed = replace(settings, fleet=replace(settings.fleet, inspector=inspector))
    assert set(needed_extras(changed)) == extras
    more = replace(changed, fleet=replace(changed.fleet, runtime_extras=["gpio", "upload"]))
    assert set(needed_extras(more)) == extras | {"gpio", "upload"}


def test_a_group_is_told_by_its_deployment() -> None:
    assert group_configuration("canary") == {"metrics": {"group": "canary"}}


# By hand


def test_a_folder_for_the_nuclei_own_tools_has_their_layout(build: Callable[..., Built], tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        done = build_folder(build(), tmp_path / "by-hand", challenger=True)
    finally:
        os.umask(before)
    place = done.folder / "artifacts"
    wanted = {
        ("lineside.Runtime", "1.0.0", f"runtime-{this_architecture()}", "install.sh"),
        ("lineside.Inspector.tiny", "1.0.0", "inspector", "run.sh"),
        ("lineside.Model.tiny", "1.0.0", "model", "verify.sh"),
        ("lineside.Challenger.tiny", "1.0.0", "model", "verify.sh"),
    }
    for name, version, stem, file in wanted:
        assert (place / name / version / stem / file).is_file()
        recipe = json.loads((done.folder / "recipes" / f"{name}-{version}.json").read_text())
        assert (recipe["ComponentName"], recipe["ComponentVersion"]) == (name, version)
        assert recipe_faults(recipe) == []
        for manifest in recipe["Manifests"]:
            assert "Artifacts" not in manifest, "a nucleus would fetch them"
            scripts = " ".join(step["Script"] for step in manifest["Lifecycle"].values())
            assert f"{{artifacts:path}}/{stem}/{file}" in scripts
            assert "decompressedPath" not in scripts
    assert {path.name for path in (done.folder / "recipes").iterdir()} == {
        f"{name}-{version}.json" for name, version, _, _ in wanted
    }
    assert {path.name for path in place.iterdir()} == {name for name, _, _, _ in wanted}
    for path in place.glob("*/*/*"):
        for inside in (path, *path.rglob("*")):
            assert stat.S_IMODE(inside.stat().st_mode) & 0o444 == 0o444, "the components' user reads them"


def test_a_second_folder_by_hand_has_higher_versions_of_what_changed(
    build: Callable[..., Built], registry: LocalRegistry, tmp_path: Path
) -> None:
    folder = tmp_path / "by-hand"
    first = build_folder(build(), folder)
    assert build_folder(build(1), folder) == first
    changed = build_folder(build(1, inspector={"threads": 2}), folder)
    assert changed.versions == {**first.versions, "lineside.Inspector.tiny": "1.1.0"}
    model = register_model(registry, tmp_path / "second", "float32")
    assert build_folder(build(model), folder).versions["lineside.Model.tiny"] == "2.0.0"
    assert sorted(path.name for path in (folder / "recipes").iterdir()) == [
        "lineside.Inspector.tiny-1.2.0.json",
        "lineside.Model.tiny-2.0.0.json",
        "lineside.Runtime-1.0.0.json",
    ]
    assert [path.name for path in (folder / "artifacts" / "lineside.Inspector.tiny").iterdir()] == ["1.2.0"]
    (folder / "versions.json").write_text("{")
    with pytest.raises(RolloutError, match=r"versions.json: cannot read it"):
        build_folder(build(1), folder)


def test_the_command_for_each_nucleus_names_all_components(build: Callable[..., Built], tmp_path: Path) -> None:
    done = build_folder(build(), tmp_path / "by-hand")
    folder = Path("/home/me/by-hand")
    components = ["lineside.Runtime=1.0.0", "lineside.Model.tiny=1.0.0", "lineside.Inspector.tiny=1.0.0"]
    lite = done.command("lite", folder)
    assert lite[:4] == ["ggl-cli", "deploy", "--recipe-dir", f"{folder}/recipes"]
    assert lite[4:6] == ["--artifacts-dir", f"{folder}/artifacts"]
    assert lite[6:] == [part for name in components for part in ("--add-component", name)]
    classic = done.command("classic", folder)
    assert classic[:3] == ["greengrass-cli", "deployment", "create"]
    assert classic[3:7] == ["--recipeDir", f"{folder}/recipes", "--artifactDir", f"{folder}/artifacts"]
    assert classic[7:] == [part for name in components for part in ("--merge", name)]
    with pytest.raises(RolloutError, match="nucleus: want lite or classic"):
        done.command("heavy")  # type: ignore[arg-type]


def test_what_is_built_by_hand_installs_and_runs_where_it_lies(build: Callable[..., Built], tmp_path: Path) -> None:
    """The scripts of the folder's recipes, with the variables that a nucleus fills in."""
    folder = build_folder(build(), tmp_path / "by-hand").folder
    root = tmp_path / "root"
    for part in ("recipes", "artifacts"):  # as both tools merge them
        (root / "packages" / part).mkdir(parents=True)
        subprocess.run(["cp", "-RP", f"{folder / part}/.", root / "packages" / part], check=True)
    model = json.loads((root / "packages" / "recipes" / "lineside.Model.tiny-1.0.0.json").read_text())
    script = model["Manifests"][0]["Lifecycle"]["install"]["Script"]
    work = root / "work" / "lineside.Model.tiny"
    work.mkdir(parents=True)
    script = script.replace("{artifacts:path}", str(root / "packages" / "artifacts" / "lineside.Model.tiny" / "1.0.0"))
    done = subprocess.run(["sh", "-c", script.replace("{work:path}", str(work))], check=False)
    assert done.returncode == 0
    assert (work / "current" / "contract.json").is_file()


def test_the_program_writes_the_folder_and_says_what_to_type(
    registry: LocalRegistry, settings: Settings, tmp_path: Path
) -> None:
    registry.approve("tiny", register_model(registry, tmp_path / "first"), "anna", "good")
    line = tmp_path / "line.toml"
    line.write_text(
        f'[line]\nname = "tiny"\nstorage = "{settings.storage_root}"\n\n[fleet]\nwheels = "{settings.fleet.wheels}"\n'
    )
    folder = tmp_path / "by-hand"
    done = CliRunner().invoke(app, ["fleet", "build", "--to", str(folder), "--config", str(line)])
    assert done.exit_code == 0, done.output
    assert f"line tiny, model 1 (approved): {folder}" in done.output
    assert this_architecture() in done.output
    assert f"ggl-cli deploy --recipe-dir {folder}/recipes" in done.output
    assert f"greengrass-cli deployment create --recipeDir {folder}/recipes" in done.output
    assert (folder / "recipes" / "lineside.Model.tiny-1.0.0.json").is_file()
