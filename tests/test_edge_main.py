"""The device's command line: verdicts, self-test, benchmark."""

import json
from pathlib import Path

import pytest
from golden_package import GOLDEN, PICTURES, make_package

from edge.__main__ import main
from edge.contract import InputGuard, Range
from edge.judge import judge_file
from edge.package import open_package


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return make_package(tmp_path / "package")


def images(*names: str) -> list[str]:
    return ["--image", *(str(GOLDEN / name) for name in names)]


def test_images_get_a_line_with_verdict_score_and_label(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(package), *images(*PICTURES)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["review", "fail", "pass", "fail"]
    assert lines[1].endswith("part-1.png  scratch")
    assert lines[3].endswith("part-3.png  stain")
    assert lines[2].endswith("part-2.jpg")  # a good part has no label
    assert "p(bad) 0.9" in lines[1]


def test_a_bad_image_is_an_error_and_the_others_are_still_judged(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, cut = tmp_path / "text.jpg", tmp_path / "cut.jpg"
    text.write_text("not a picture")
    cut.write_bytes((GOLDEN / "part-2.jpg").read_bytes()[:900])
    files = [str(text), str(cut), str(tmp_path / "none.png"), str(GOLDEN / "part-1.png")]
    assert main(["--model", str(package), "--json", "--image", *files]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["verdict"] for line in lines] == ["error", "error", "error", "fail"]
    assert "want a JPEG, PNG, BMP or TIFF" in lines[0]["reason"]
    assert "truncated" in lines[1]["reason"]
    assert "cannot read" in lines[2]["reason"]
    assert lines[0]["score"] is None
    assert lines[3]["latency"]["detect_s"] > 0


def test_an_image_outside_the_guard_is_an_error(tmp_path: Path) -> None:
    narrow = InputGuard(Range(250.0, 255.0), Range(0.0, 128.0), Range(0.0, 255.0), Range(0.1, 9.0), 1, 1)
    package = open_package(make_package(tmp_path / "package", guard=narrow))
    judgement = judge_file((GOLDEN / "part-1.png").read_bytes(), package.contract, package.open_detector(), "part-1")
    assert judgement.verdict == "error"
    assert judgement.score is None
    assert judgement.reason is not None
    assert judgement.reason.startswith("part-1: brightness")


def test_the_self_test_passes_or_fails_with_its_exit_status(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(package), "--self-test"]) == 0
    assert capsys.readouterr().out.startswith("self-test passed: 4 golden images")
    contract = package / "contract.json"
    content = json.loads(contract.read_text(encoding="utf-8"))
    content["self_test"]["images"][0]["score"] += 3.0
    contract.write_text(json.dumps(content), encoding="utf-8")
    assert main(["--model", str(package), "--self-test", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False
    assert "part-0.png: want score" in report["failures"][0]


def test_the_benchmark_tells_stages_memory_and_machine(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(package), "--benchmark", "--json"]) == 0
    benchmark = json.loads(capsys.readouterr().out)
    assert set(benchmark["stages"]) == {"decode", "preprocess", "detect", "total"}
    for stage in benchmark["stages"].values():
        assert 0 < stage["p50_ms"] <= stage["p99_ms"]
    assert (benchmark["kind"], benchmark["width"], benchmark["height"]) == ("int8", 32, 32)
    assert benchmark["source"] == "golden images"
    assert benchmark["machine"]
    assert benchmark["rss_bytes"] > 0


def test_the_benchmark_takes_a_model_without_a_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(GOLDEN / "tiny_float32.tflite"), "--benchmark"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("float32 32x32 on ")
    assert "synthetic picture" in text
    assert "peak memory" in text


def test_a_package_that_cannot_be_opened_ends_with_one_line(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (package / "model.tflite").write_bytes(b"changed")
    assert main(["--model", str(package), "--self-test"]) == 2
    error = capsys.readouterr().err
    assert "changed after the package was made" in error
    assert "Traceback" not in error


def test_a_task_and_a_sensible_number_of_threads_are_asked_for(package: Path) -> None:
    for wrong in ([], ["--self-test", "--benchmark"], ["--self-test", "--threads", "0"]):
        with pytest.raises(SystemExit):
            main(["--model", str(package), *wrong])
