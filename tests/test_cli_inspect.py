"""`lineside inspect` runs the device's program with the newest approved model."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from golden_package import GOLDEN, PICTURES, make_package

from inspection.commands.inspecting import describe_worth, make_parts
from inspection.export.archive import archive_package
from inspection.registry.interface import PackageReference
from inspection.registry.local import LocalRegistry
from inspection.storage import open_storage

PROGRAM = Path(sys.executable).with_name("lineside")


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    return LocalRegistry(open_storage(str(tmp_path / "store")))


def register(registry: LocalRegistry, tmp_path: Path) -> int:
    folder = make_package(tmp_path / "package", line="bottles")
    contract = json.loads((folder / "contract.json").read_text())
    archive = tmp_path / "package.zip"
    digest = archive_package(folder, archive)
    assert digest == hashlib.sha256(archive.read_bytes()).hexdigest()
    reference = PackageReference("bottles", archive, digest, contract["version"], {}, "5" * 64, "TrainFlow/17")
    return registry.register(reference).version


def inspect(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, "inspect", *arguments, "--storage", str(tmp_path / "store")]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_parts_of_a_folder_are_inspected_with_the_newest_approved_model(registry, tmp_path: Path) -> None:
    version = register(registry, tmp_path)
    registry.approve("bottles", version, "mia", "holdout looks right")
    parts = tmp_path / "parts"
    parts.mkdir()
    for name in PICTURES:
        shutil.copy(GOLDEN / name, parts / name)
    results = tmp_path / "results.jsonl"
    done = inspect(tmp_path, "bottles", "--source", f"folder:{parts}", "--sink", f"file:{results}", "--once")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in results.read_text().splitlines()]
    assert len(found) == len(PICTURES)
    assert {result["line"] for result in found} == {"bottles"}
    assert not list(parts.glob("*.png")) + list(parts.glob("*.jpg"))  # moved when their results were on the disk
    assert f"all{len(PICTURES):>19}" in done.stdout


def test_a_model_that_nobody_approved_does_not_inspect(registry, tmp_path: Path) -> None:
    register(registry, tmp_path)
    done = inspect(tmp_path, "bottles", "--source", f"folder:{tmp_path}", "--once")
    assert done.returncode == 1
    assert "version 1 pending" in done.stderr
    assert "lineside registry approve bottles 1" in done.stderr


def test_a_line_without_models_says_how_to_train_one(registry, tmp_path: Path) -> None:
    done = inspect(tmp_path)
    assert done.returncode == 1
    assert "make run" in done.stderr


def test_a_line_of_ones_own_needs_a_source(registry, tmp_path: Path) -> None:
    registry.approve("bottles", register(registry, tmp_path), "mia", "holdout looks right")
    done = inspect(tmp_path, "bottles")
    assert done.returncode == 1
    assert "--source folder:PATH" in done.stderr


def test_new_parts_of_the_sample_do_not_tell_what_they_are(tmp_path: Path) -> None:
    truth = make_parts(tmp_path / "parts", 24, seed=7)
    assert {path.name for path in (tmp_path / "parts").iterdir()} == set(truth)
    assert 0 < sum(truth.values()) < len(truth)


def test_verdicts_are_held_against_what_the_parts_were(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    verdicts = {"part-0000.jpg": "pass", "part-0001.jpg": "fail", "part-0002.jpg": "pass"}
    lines = [json.dumps({"source_key": f"file:{name}#1", "verdict": verdict}) for name, verdict in verdicts.items()]
    results.write_text("\n".join(lines) + "\n")
    truth = {"part-0000.jpg": False, "part-0001.jpg": True, "part-0002.jpg": True, "part-0003.jpg": False}
    assert describe_worth(results, truth) == ["2 bad parts: 1 pass, 1 fail", "2 good parts: 1 pass, 1 none"]
