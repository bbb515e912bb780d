"""Model packages: built, archived, opened, and proved with the device's own code and interpreter."""

import dataclasses
import hashlib
import io
import json
import stat
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_pictures import picture, pictures
from golden_package import DEFECT_TYPES, GOLDEN, INPUT
from PIL import Image

from edge.contract import Calibration, OperatingPoint, parse_contract
from edge.package import open_package
from edge.selftest import run_self_test
from edge.statistics import image_statistics
from edge.verdict import check_guard
from inspection.errors import PackageError
from inspection.export.golden import choose
from inspection.export.guard import drift_reference, learn_guard, measure
from inspection.export.package import Candidates, PackageContent, archive_package, build_package, read_archive
from inspection.settings import ExportSettings

ROOT = Path(__file__).resolve().parents[1]
THIS = ExportSettings(device_python=sys.executable)
POINT = OperatingPoint("op-1", lower=-2.0, upper=1.0)
PIXELS, IS_BAD = pictures(30)
SCORES = np.where(IS_BAD, 5.0, -4.0) + np.linspace(-2, 2, 30)


def original(index: int) -> bytes:
    """The file of a picture as a camera left it: larger than the model's input, JPEG or PNG."""
    stream = io.BytesIO()
    Image.fromarray(picture(index, 100, 80)).save(stream, "JPEG" if index % 2 else "PNG")
    return stream.getvalue()


def content(kind: Any = "int8", **changes: Any) -> PackageContent:
    parts = PackageContent(
        line="tiny",
        artifact=GOLDEN / f"tiny_{kind}.tflite",
        kind=kind,
        input=INPUT,
        defect_types=DEFECT_TYPES,
        calibration=Calibration(temperature=1.5, prevalence=0.5),
        operating_point=POINT,
        guard=learn_guard(measure([PIXELS[:20], PIXELS[20:]]), [(100, 80)] * 30, 0.5),
        calibration_batches=[PIXELS],
        calibration_scores=SCORES,
        golden=Candidates([f"part-{index}" for index in range(30)], SCORES, original),
        provenance={"snapshot": "a" * 64, "metrics": {"auroc": {"value": 1.0, "low": 0.9, "high": 1.0}}},
    )
    return dataclasses.replace(parts, **changes)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_package(tmp_path_factory.mktemp("packages") / "tiny", content(), THIS)


@pytest.fixture(scope="module")
def archive(package: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("archives") / "tiny.zip"
    return path, archive_package(package, path)


def test_package_opens_and_passes_its_self_test(package: Path) -> None:
    opened = open_package(package)
    assert opened.contract.line == "tiny"
    assert opened.contract.artifact.kind == "int8"
    assert opened.contract.version == hashlib.sha256((package / "model.tflite").read_bytes()).hexdigest()[:16]
    report = run_self_test(opened)
    assert report.passed
    assert report.images >= 8
    assert not list(package.parent.glob(".*"))  # nothing half-done stays behind


def test_tolerance_is_never_exact(package: Path, tmp_path: Path) -> None:
    int8 = open_package(package)
    assert int8.contract.self_test.tolerance >= 2 * int8.open_detector().score_step > 0
    contract = parse_contract(
        (build_package(tmp_path / "float", content("float32"), THIS) / "contract.json").read_text()
    )
    assert contract.self_test.tolerance >= 1e-3


def test_golden_images_are_whole_originals_as_png_with_scores_on_both_sides_of_the_thresholds(package: Path) -> None:
    golden = open_package(package).contract.self_test.images
    for image in golden:
        with Image.open(package / image.file) as opened:
            assert (opened.format, opened.size) == ("PNG", (100, 80))
    scores = [image.score for image in golden]
    assert min(scores) < POINT.lower
    assert max(scores) > POINT.upper


def test_metrics_go_along_and_are_covered_by_the_digests(package: Path, tmp_path: Path) -> None:
    assert not (package / "metrics.json").exists()  # none were given
    built = build_package(tmp_path / "tiny", content(metrics_json='{"schema": "1.0"}\n'), THIS)
    assert json.loads((built / "metrics.json").read_text()) == {"schema": "1.0"}
    assert "metrics.json" in open_package(built).contract.files


def test_provenance_tells_origin_and_how_far_runtimes_differ(package: Path) -> None:
    found = json.loads((package / "provenance.json").read_text())
    assert found["snapshot"] == "a" * 64
    assert found["golden"]["runs"][0].endswith("1 thread(s)")
    assert found["golden"]["spread"] >= 0


def test_guard_lets_training_pictures_pass_and_stops_what_is_no_part(package: Path) -> None:
    guard = open_package(package).contract.guard
    for index in range(30):
        assert check_guard(guard, image_statistics(PIXELS[index : index + 1]), 100, 80) is None
    for level in (0, 128, 255):
        flat = np.full((1, 32, 32, 3), level, np.uint8)
        assert check_guard(guard, image_statistics(flat), 100, 80) is not None
    usual = image_statistics(PIXELS[:1])
    assert "aspect ratio" in (check_guard(guard, usual, 80, 100) or "")
    assert "smaller" in (check_guard(guard, usual, 50, 40) or "")


def test_guard_of_pictures_that_are_all_alike_still_stops_a_covered_lens() -> None:
    statistics = np.array([[120.0, 40.0, 9.0]] * 5)
    guard = learn_guard(statistics, [(100, 80)] * 5, 0.5)
    assert guard.brightness.low <= 120 <= guard.brightness.high
    assert guard.contrast.low > 0
    assert guard.aspect_ratio.low < 1.25 < guard.aspect_ratio.high


def test_guard_without_pictures_is_refused() -> None:
    with pytest.raises(PackageError, match="input guard"):
        learn_guard(measure([]), [], 0.5)
    with pytest.raises(PackageError, match="drift reference"):
        drift_reference(measure([]), np.array([]))


def test_drift_reference_holds_eleven_quantiles_of_the_calibration_split(package: Path) -> None:
    reference = open_package(package).contract.drift_reference
    assert len(reference.score) == len(reference.sharpness) == 11
    assert reference.score[0] == SCORES.min()
    assert reference.score[5] == np.median(SCORES)
    assert list(reference.brightness) == sorted(reference.brightness)


def test_golden_images_lie_nearest_to_the_thresholds_and_over_the_whole_range() -> None:
    scores = np.linspace(-10, 10, 200)
    chosen = choose(scores, POINT, 12)
    assert len(chosen) == len(set(chosen)) == 12
    for threshold in (POINT.lower, POINT.upper):
        gaps = np.sort(np.abs(scores - threshold))
        assert {index for index in range(200) if abs(scores[index] - threshold) in gaps[:2]} <= set(chosen)
    assert {0, 199} <= set(chosen)


def test_too_few_pictures_for_a_self_test_are_refused(tmp_path: Path) -> None:
    few = Candidates(["a"] * 5, SCORES[:5], original)
    with pytest.raises(PackageError, match="want at least 8 pictures to choose from, found 5"):
        build_package(tmp_path / "package", content(golden=few), THIS)
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_not_touched(package: Path) -> None:
    with pytest.raises(PackageError, match="exists already"):
        build_package(package, content(), THIS)


def test_model_that_does_not_fit_its_contract_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="want a model of kind float32, found int8"):
        build_package(tmp_path / "package", content(artifact=GOLDEN / "tiny_int8.tflite", kind="float32"), THIS)
    assert list(tmp_path.iterdir()) == []


def test_provenance_that_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"provenance\.json: want JSON values"):
        build_package(tmp_path / "package", content(provenance={"auroc": float("nan")}), THIS)


def test_same_package_gives_the_same_archive(package: Path, archive: tuple[Path, str], tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    assert archive_package(package, again) == archive[1]
    assert again.read_bytes() == archive[0].read_bytes()
    rebuilt = build_package(tmp_path / "tiny", content(), THIS)
    assert archive_package(rebuilt, tmp_path / "rebuilt.zip") == archive[1]


def test_archive_is_verified_and_opened(archive: tuple[Path, str], package: Path, tmp_path: Path) -> None:
    opened = read_archive(*archive, tmp_path / "package")
    assert opened.folder == tmp_path / "package"
    assert opened.contract == open_package(package).contract
    assert run_self_test(opened).passed


def test_folder_that_is_no_package_is_not_archived(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(PackageError, match="cannot read the contract"):
        archive_package(tmp_path / "folder", tmp_path / "archive.zip")
    assert not (tmp_path / "archive.zip").exists()


def test_archive_changed_after_it_was_registered_is_refused(archive: tuple[Path, str], tmp_path: Path) -> None:
    data = bytearray(archive[0].read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "archive.zip").write_bytes(data)
    with pytest.raises(PackageError, match="changed after it was registered"):
        read_archive(tmp_path / "archive.zip", archive[1], tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"nothing\.zip: cannot read"):
        read_archive(tmp_path / "nothing.zip", "0" * 64, tmp_path / "package")


def repack(archive: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> str:
    """Copy an archive with its files changed; its own digest, as a registry that was fooled would hold it."""
    with zipfile.ZipFile(archive) as source:
        files = {name: source.read(name) for name in source.namelist()}
    change(files)
    with zipfile.ZipFile(target, "w") as sink:
        for name, data in files.items():
            sink.writestr(name, data)
    return hashlib.sha256(target.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["model.tflite", "golden/00.png", "provenance.json"])
def test_tampered_file_inside_a_package_is_refused(archive: tuple[Path, str], tmp_path: Path, name: str) -> None:
    digest = repack(archive[0], tmp_path / "archive.zip", lambda files: files.update({name: files[name] + b"x"}))
    with pytest.raises(PackageError, match="changed after the package was made"):
        read_archive(tmp_path / "archive.zip", digest, tmp_path / "package")
    assert [path.name for path in tmp_path.iterdir()] == ["archive.zip"]


def test_thresholds_cannot_be_crossed_by_hand(archive: tuple[Path, str], tmp_path: Path) -> None:
    def cross(files: dict[str, bytes]) -> None:
        contract = json.loads(files["contract.json"])
        contract["operating_point"]["lower"] = 99.0
        files["contract.json"] = json.dumps(contract).encode()

    digest = repack(archive[0], tmp_path / "archive.zip", cross)
    with pytest.raises(PackageError, match="want lower <= upper"):
        read_archive(tmp_path / "archive.zip", digest, tmp_path / "package")


@pytest.mark.parametrize("name", ["../evil", "/evil", "golden/../../evil", "a\\b", "c:evil", "golden//00"])
def test_archive_that_would_write_outside_its_folder_is_refused(
    archive: tuple[Path, str], tmp_path: Path, name: str
) -> None:
    digest = repack(archive[0], tmp_path / "archive.zip", lambda files: files.update({name: b"x"}))
    with pytest.raises(PackageError, match="is no plain file below the package's folder"):
        read_archive(tmp_path / "archive.zip", digest, tmp_path / "deep" / "package")
    assert not (tmp_path / "evil").exists()


def test_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    entry = zipfile.ZipInfo("model.tflite")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as sink:
        sink.writestr(entry, "/etc/passwd")
    with pytest.raises(PackageError, match="no plain file"):
        read_archive(path, hashlib.sha256(path.read_bytes()).hexdigest(), tmp_path / "package")


def test_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    path.write_bytes(b"no zip")
    with pytest.raises(PackageError, match="cannot be unpacked"):
        read_archive(path, hashlib.sha256(b"no zip").hexdigest(), tmp_path / "package")


@pytest.mark.parametrize("environment", [".venv-edge", ".venv-edge-tflite"])
def test_devices_own_environment_opens_the_package_and_passes(package: Path, environment: str) -> None:
    from inspection.export.device import run_edge

    python = ROOT / environment / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"{environment} is not here: run `make setup`")
    run_edge(["--model", package, "--self-test"], "self-test", ExportSettings(device_python=str(python)))


@pytest.mark.parametrize(
    ("mode", "want"), [("L", "L"), ("P", "RGB"), ("RGBA", "RGB"), ("CMYK", "RGB"), ("1", "L"), ("I;16", "I;16")]
)
def test_golden_png_of_any_camera_file_gives_the_same_model_input(mode: str, want: str, tmp_path: Path) -> None:
    from edge.preprocess import prepare_file
    from inspection.export.golden import _as_png

    grey = Image.fromarray(picture(2, 64, 48)).convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = Image.fromarray(picture(2, 64, 48)).convert(mode)
    image.save(tmp_path / "file.tiff")
    data = (tmp_path / "file.tiff").read_bytes()
    png = _as_png(data)
    with Image.open(io.BytesIO(png)) as opened:
        assert opened.mode == want
    np.testing.assert_array_equal(prepare_file(png, INPUT).pixels, prepare_file(data, INPUT).pixels)


def test_golden_png_is_upright(tmp_path: Path) -> None:
    from inspection.export.golden import _as_png

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(1, 64, 48)).save(tmp_path / "file.jpg", exif=exif)
    with Image.open(io.BytesIO(_as_png((tmp_path / "file.jpg").read_bytes()))) as opened:
        assert opened.size == (48, 64)
        assert not opened.getexif()
