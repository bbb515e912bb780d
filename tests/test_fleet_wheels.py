"""The device's packages: locks, which wheel fits which device, the cache, the folder, and an index that fails."""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tiny_wheels import tiny_wheel, tiny_wheels

from inspection.errors import RolloutError
from inspection.fleet.components import wheels as wheels_module
from inspection.fleet.components.locks import (
    BASE,
    EDGE,
    EXTRAS,
    MAKE_LOCKS,
    Pin,
    lock_path,
    read_lock,
    read_pins,
    requirements_path,
)
from inspection.fleet.components.targets import Target, needed_glibc, targets_of, this_architecture, this_python
from inspection.fleet.components.wheels import SUMS, find_wheels
from inspection.settings import FleetSettings

PI = Target("aarch64", "3.13")
PC = Target("amd64", "3.11")
ALL = [Target(architecture, python) for architecture in ("aarch64", "amd64") for python in ("3.10", "3.11", "3.13")]


def requirements(name: str) -> list[Requirement]:
    lines = requirements_path(name).read_text().splitlines()
    return [Requirement(line.partition(" #")[0]) for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("name", [BASE, *EXTRAS])
def test_a_lock_agrees_with_its_requirements(name: str) -> None:
    locked = read_lock(lock_path(name))
    for target in [*ALL, Target("arm", "3.11")]:
        pins = {canonicalize_name(each.name): str(each.specifier) for each, _ in locked if target.holds(each.marker)}
        wanted = {
            canonicalize_name(each.name): str(each.specifier)
            for each in requirements(name)
            if target.holds(each.marker)
        }
        assert wanted.items() <= pins.items(), f"{MAKE_LOCKS} ({target})"
        if name == BASE:
            assert set(pins) == set(wanted), (
                f"{requirements_path(name)}: pin what the packages bring with them ({target})"
            )


def test_locks_of_extras_go_with_the_base() -> None:
    for target in ALL:
        pins = read_pins(target, EXTRAS)
        assert {"numpy", "boto3", "gpiod", "opencv-python-headless"} <= {pin.name for pin in pins}
        assert list(pins) == sorted(pins, key=lambda pin: pin.name)


def test_markers_are_evaluated_for_the_device_and_not_for_this_machine() -> None:
    of_pi = {pin.name: pin.version for pin in read_pins(Target("aarch64", "3.10"))}
    assert of_pi["numpy"] == "2.2.6"
    assert {pin.name: pin.version for pin in read_pins(PI)}["numpy"] != "2.2.6"
    old = {pin.name for pin in read_pins(Target("arm", "3.11"))}
    assert "tflite-runtime" in old
    assert "ai-edge-litert" not in old
    assert not PI.holds(Marker("sys_platform == 'win32'"))


def test_two_locks_that_want_different_versions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    for name, version in ((BASE, "1.0"), ("upload", "2.0")):
        lock_path(name, tmp_path).write_text(f"numpy=={version} \\\n    --hash=sha256:{'0' * 64}\n")
    with pytest.raises(RolloutError, match=r"upload.txt: want numpy==1.0 as in the other locks, found numpy==2.0"):
        read_pins(PI, ["upload"], tmp_path)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("numpy==1.0\n", "want hashes for numpy"),
        (f"numpy>=1.0 --hash=sha256:{'0' * 64}\n", "want one version"),
        (f"numpy==; --hash=sha256:{'0' * 64}\n", "want requirements"),
        (None, "cannot read the lock"),
    ],
)
def test_a_lock_with_faults_is_refused(tmp_path: Path, text: str | None, want: str) -> None:
    if text is not None:
        (tmp_path / "base.txt").write_text(text)
    with pytest.raises(RolloutError, match=want):
        read_lock(tmp_path / "base.txt")


def test_the_usual_devices_follow_the_back_end() -> None:
    assert targets_of(FleetSettings()) == (Target(this_architecture(), this_python()),)
    cloud = targets_of(FleetSettings(backend="greengrass"))
    assert [str(target) for target in cloud] == [
        "aarch64, Python 3.11",
        "aarch64, Python 3.13",
        "amd64, Python 3.11",
        "amd64, Python 3.13",
    ]
    assert targets_of(FleetSettings(architectures=["arm"], pythons=["3.13", "3.10"])) == (
        Target("arm", "3.10"),
        Target("arm", "3.13"),
    )


@pytest.mark.parametrize(
    ("wheel", "fits"),
    [
        ("a-1-cp313-cp313-manylinux_2_28_aarch64.whl", True),
        ("a-1-cp313-cp313-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl", True),
        ("a-1-cp310-abi3-manylinux2014_aarch64.whl", True),
        ("a-1-py3-none-any.whl", True),
        ("a-1-py3-none-manylinux2014_aarch64.whl", True),
        ("a-1-cp313-cp313-linux_aarch64.whl", True),
        ("a-1-cp313-cp313-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp311-cp311-manylinux_2_28_aarch64.whl", False),
        ("a-1-cp313-cp313t-manylinux_2_28_aarch64.whl", False),
        ("a-1-cp313-cp313-manylinux_2_39_aarch64.whl", False),
        ("a-1-cp313-cp313-musllinux_1_2_aarch64.whl", False),
        ("a-1-cp314-abi3-manylinux2014_aarch64.whl", False),
        ("a-1-cp313-cp313-win_arm64.whl", False),
    ],
)
def test_a_wheel_fits_by_python_architecture_and_c_library(wheel: str, fits: bool) -> None:
    assert (PI.rank(wheel) is not None) is fits


def test_the_needed_c_library_is_the_newest_that_any_wheel_needs() -> None:
    many = [
        "a-1-cp313-cp313-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl",
        "b-1-cp310-abi3-manylinux2014_aarch64.whl",
    ]
    assert needed_glibc(many) == (2, 27)
    assert needed_glibc(["a-1-py3-none-any.whl"]) is None


# From a folder


def test_a_folder_gives_the_best_wheel_of_each_package(tmp_path: Path) -> None:
    folder = tiny_wheels(tmp_path, ALL)
    pins = read_pins(PI)
    found = find_wheels(PI, pins, tmp_path / "cache", folder)
    assert [wheel.pin for wheel in found] == list(pins)
    numpy = next(wheel for wheel in found if wheel.pin.name == "numpy")
    assert re.search(r"cp313-cp313-manylinux\w+_aarch64", numpy.file)
    assert not numpy.is_shared
    assert next(wheel for wheel in found if wheel.pin.name == "protobuf").is_shared
    assert not (tmp_path / "cache").exists()


def test_a_folder_without_wheels_for_a_device_is_told_which_are_missing(tmp_path: Path) -> None:
    folder = tiny_wheels(tmp_path, [PC])
    with pytest.raises(
        RolloutError, match=r"want wheels for aarch64, Python 3.13 of ai-edge-litert==[\d.]+, awscrt.*numpy"
    ):
        find_wheels(PI, read_pins(PI), tmp_path / "cache", folder)
    with pytest.raises(RolloutError, match="want a folder of wheels, found none"):
        find_wheels(PI, read_pins(PI), tmp_path / "cache", tmp_path / "nowhere")


def test_a_wheel_that_the_lock_does_not_know_is_refused(tmp_path: Path) -> None:
    folder = tiny_wheels(tmp_path, [PI])
    pins = read_pins(PI)
    numpy = next(folder.glob("numpy-*.whl"))
    numpy.write_bytes(numpy.read_bytes() + b"more")
    with pytest.raises(RolloutError, match=r"numpy.*the lock knows no file of numpy==.*SHA256SUMS"):
        find_wheels(PI, pins, tmp_path / "cache", folder)
    (folder / SUMS).write_text("what is this\n")
    with pytest.raises(RolloutError, match=r"want lines of `sha256sum \*.whl`"):
        find_wheels(PI, pins, tmp_path / "cache", folder)
    (folder / SUMS).unlink()
    with pytest.raises(RolloutError, match="the lock knows no file"):
        find_wheels(PI, pins, tmp_path / "cache", folder)


# From an index


def index_of(folder: Path, wheels: list[Path]) -> Path:
    """A package index as files."""
    for wheel in wheels:
        name = canonicalize_name(wheel.name.split("-")[0])
        place = folder / "simple" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / wheel.name).write_bytes(wheel.read_bytes())
        links = "".join(f'<a href="{path.name}">{path.name}</a>\n' for path in sorted(place.glob("*.whl")))
        (place / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    requests: ClassVar[list[str]] = []

    def log_message(self, format: str, *arguments: object) -> None:
        self.requests.append(self.path)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an index that pip uses, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    _Quiet.requests.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    use_index(monkeypatch, f"http://127.0.0.1:{server.server_port}/simple/")
    try:
        yield folder
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def use_index(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("PIP_RETRIES", "0")


def pins_of(wheels: list[Path]) -> list[Pin]:
    """Pins with the hashes of these files."""
    pins: dict[tuple[str, str], set[str]] = {}
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        pins.setdefault((canonicalize_name(name), version), set()).add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    return [Pin(name, version, frozenset(hashes)) for (name, version), hashes in sorted(pins.items())]


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Wheels of two packages for two kinds of devices."""
    folder = tmp_path / "made"
    folder.mkdir()
    packages = [Pin("numpy", "1.0", frozenset()), Pin("tqdm", "2.0", frozenset())]
    return sorted({tiny_wheel(folder, pin, target) for pin in packages for target in (PI, PC)})


def test_wheels_for_another_architecture_are_fetched_once(index: Path, two: list[Path], tmp_path: Path) -> None:
    index_of(index, two)
    pins, cache = pins_of(two), tmp_path / "cache"
    found = find_wheels(PI, pins, cache)
    assert [wheel.file for wheel in found] == [
        "numpy-1.0-cp313-cp313-manylinux_2_28_aarch64.whl",
        "tqdm-2.0-py3-none-any.whl",
    ]
    for wheel in found:
        assert wheel.path.parent == cache / wheel.sha256
        assert hashlib.sha256(wheel.path.read_bytes()).hexdigest() == wheel.sha256
    asked = len(_Quiet.requests)
    assert find_wheels(PI, pins, cache) == found
    assert len(_Quiet.requests) == asked, "a second build asks nobody"
    found[0].path.write_bytes(b"damaged")
    assert find_wheels(PI, pins, cache) == found, "what is damaged is fetched again"
    assert found[0].path.read_bytes() != b"damaged"
    for record in (cache / "sets").iterdir():
        record.write_text("{")
    assert find_wheels(PC, pins, cache)[0].file == "numpy-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert sorted(path.name for path in cache.iterdir() if path.name.startswith(".")) == []


def test_a_file_that_is_not_the_locked_one_is_refused(index: Path, two: list[Path], tmp_path: Path) -> None:
    pins = pins_of(two)
    for wheel in two:
        wheel.write_bytes(wheel.read_bytes() + b"\0")
    index_of(index, two)
    with pytest.raises(RolloutError, match="gave a file that is not the one that the lock names"):
        find_wheels(PI, pins, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/*.whl"))


def test_an_index_without_a_fitting_wheel_is_told_apart_from_one_that_is_away(
    index: Path, two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_of(index, [wheel for wheel in two if "aarch64" not in wheel.name])
    pins = pins_of(two)
    with pytest.raises(RolloutError, match=r"aarch64, Python 3.13: the package index has no wheel of numpy==1.0"):
        find_wheels(PI, pins, tmp_path / "cache")
    use_index(monkeypatch, "http://127.0.0.1:1/simple/")
    with pytest.raises(RolloutError, match=r"the package index cannot be reached; see the network"):
        find_wheels(PI, pins, tmp_path / "cache")


def test_a_python_without_pip_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RolloutError, match="ensurepip"):
        find_wheels(PI, [Pin("numpy", "1.0", frozenset("0"))], tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(RolloutError, match=f"{tmp_path}/cache.*cannot be built there"):
        find_wheels(PI, [], tmp_path / "cache")


def test_choosing_says_json_that_old_pythons_read(tmp_path: Path) -> None:
    """The script that chooses is run by whatever Python a device has: nothing newer than 3.6 in it."""
    script = EDGE / "recipes" / "runtime-choose.py"
    ast.parse(script.read_text(), feature_version=(3, 6))
    (tmp_path / "sets.json").write_text(json.dumps({"machine": PC.machine, "sets": {}}))
    done = subprocess.run([sys.executable, script, tmp_path / "sets.json"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "event=runtime_refused" in done.stderr
