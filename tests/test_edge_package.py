"""Packages: whole ones open, changed or incomplete ones do not; the self-test catches what digests cannot."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from golden_package import GOLDEN, PICTURES, digests, make_package

from edge.contract import Artifact, GoldenImage, InputContract, SelfTest
from edge.errors import PackageError
from edge.package import open_package
from edge.selftest import run_self_test


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return make_package(tmp_path / "package")


def rewrite(package: Path, **changes: Any) -> None:
    """Change the contract's JSON by hand, as a tamperer would."""
    path = package / "contract.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content.update(changes)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("kind", ["int8", "float32"])
def test_a_whole_package_opens_and_passes_its_self_test(tmp_path: Path, kind: str) -> None:
    opened = open_package(make_package(tmp_path / "package", kind))
    assert opened.contract.artifact.kind == kind
    report = run_self_test(opened)
    assert report.passed
    assert report.failures == ()
    assert report.images == len(PICTURES)
    assert report.largest_difference <= report.tolerance


@pytest.mark.parametrize("name", ["model.tflite", "golden/part-1.png", "provenance.json"])
def test_a_changed_file_is_refused(package: Path, name: str) -> None:
    content = bytearray((package / name).read_bytes())
    content[-1] ^= 1
    (package / name).write_bytes(bytes(content))
    with pytest.raises(PackageError, match=rf"{name}: want sha256 [0-9a-f]{{64}}, found .*changed after"):
        open_package(package)


def test_a_missing_and_an_extra_file_are_refused(package: Path) -> None:
    (package / "golden" / "extra.png").write_bytes(b"x")
    with pytest.raises(PackageError, match=r"missing files \[\], unknown files \['golden/extra.png'\]"):
        open_package(package)
    (package / "golden" / "extra.png").unlink()
    (package / "golden" / "part-0.png").unlink()
    with pytest.raises(PackageError, match=r"missing files \['golden/part-0.png'\], unknown files \[\]"):
        open_package(package)


def test_a_package_without_a_readable_contract_is_refused(package: Path) -> None:
    (package / "contract.json").write_bytes(b"\xff\xfe")
    with pytest.raises(PackageError, match="cannot read the contract"):
        open_package(package)
    (package / "contract.json").unlink()
    with pytest.raises(PackageError, match="cannot read the contract"):
        open_package(package)
    with pytest.raises(PackageError, match="cannot read the contract"):
        open_package(package / "nowhere")


def test_a_contract_of_another_major_version_is_refused(package: Path) -> None:
    rewrite(package, schema="2.0")
    with pytest.raises(PackageError, match=r"contract\.json: schema 2\.0 has another major version"):
        open_package(package)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "golden/../../secret", "", ".", "golden//x", "a\\b", "c:x", "contract.json"]
)
def test_a_name_that_climbs_out_of_the_folder_is_refused(package: Path, name: str) -> None:
    (package.parent / "secret").write_bytes(b"s")
    rewrite(package, files={**digests(package), name: "0" * 64})
    with pytest.raises(PackageError, match="is no name for a file of a package"):
        open_package(package)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_is_refused_wherever_it_leads(package: Path, what: str) -> None:
    outside = package.parent / "outside"
    if what == "file":
        shutil.move(package / "model.tflite", outside)
        (package / "model.tflite").symlink_to(outside)
    else:
        outside.mkdir()
        (package / "more").symlink_to(outside, target_is_directory=True)
    with pytest.raises(PackageError, match="is a link"):
        open_package(package)


def test_a_file_that_is_used_but_not_listed_is_refused(package: Path) -> None:
    listed = digests(package)
    (package / "golden" / "part-0.png").unlink()
    del listed["golden/part-0.png"]
    rewrite(package, files=listed)
    with pytest.raises(PackageError, match=r"uses 'golden/part-0\.png' but lists no digest"):
        open_package(package)


def test_a_model_that_does_not_fit_its_contract_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"does not fit the contract.*shape"):
        open_package(make_package(tmp_path / "size", input=InputContract(width=64, height=64)))
    with pytest.raises(PackageError, match=r"does not fit the contract.*output"):
        open_package(make_package(tmp_path / "types", defect_types=()))
    with pytest.raises(PackageError, match="want a model of kind float32, found int8"):
        open_package(make_package(tmp_path / "kind", artifact=Artifact("model.tflite", "float32")))


def test_the_self_test_fails_when_this_machine_scores_otherwise(package: Path) -> None:
    opened = open_package(package)
    images = tuple(dataclasses.replace(image, score=image.score + 1.0) for image in opened.contract.self_test.images)
    wrong = dataclasses.replace(opened.contract, self_test=SelfTest(0.1, (*opened.contract.self_test.images, *images)))
    report = run_self_test(dataclasses.replace(opened, contract=wrong))
    assert not report.passed
    assert len(report.failures) == len(images)
    assert report.largest_difference == pytest.approx(1.0, abs=0.1)
    assert "want score" in report.failures[0]


def test_the_self_test_fails_when_a_golden_image_cannot_be_read(package: Path) -> None:
    opened = open_package(package)
    (package / "provenance.json").write_text("not a picture")
    images = (*opened.contract.self_test.images, GoldenImage("provenance.json", 0.0))
    broken = dataclasses.replace(opened.contract, self_test=SelfTest(0.5, images))
    report = run_self_test(dataclasses.replace(opened, contract=broken))
    assert not report.passed
    assert report.largest_difference == float("inf")
    assert "provenance.json: want a JPEG" in report.failures[0]


def test_the_golden_files_of_the_tests_are_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.glob("*") if path.is_file()) < 100_000


def test_a_detector_runs_the_model_that_was_verified_whatever_becomes_of_the_file(package: Path) -> None:
    opened = open_package(package)
    model = (package / "model.tflite").read_bytes()
    (package / "model.tflite").write_bytes(model[:2000])
    assert run_self_test(opened).passed
    (package / "model.tflite").unlink()
    assert run_self_test(opened).passed


@pytest.mark.parametrize("what", ["contract", "model", "folder"])
def test_a_package_that_cannot_be_read_now_is_not_called_bad(
    package: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> bytes:
        raise OSError(24, "Too many open files", str(path))

    target, name = {"contract": (Path, "read_text"), "model": (Path, "read_bytes"), "folder": (os, "scandir")}[what]
    monkeypatch.setattr(target, name, refuse)
    with pytest.raises(OSError, match="Too many open files"):
        open_package(package)
