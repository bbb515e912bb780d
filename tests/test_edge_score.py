"""`python -m edge.score` in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from golden_package import GOLDEN, INPUT, KNOWN, PICTURES, tolerance_of

from edge import score
from edge.memory import peak_rss_bytes
from edge.preprocess import prepare_file

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    pictures = [prepare_file((GOLDEN / name).read_bytes(), INPUT, name).pixels for name in PICTURES]
    path = tmp_path / "pixels.npy"
    np.save(path, np.concatenate(pictures))
    return path


def arguments(pixels: Path, out: Path, kind: str = "int8", types: str = "a,b") -> list[str]:
    model = GOLDEN / f"tiny_{kind}.tflite"
    return ["--model", str(model), "--pixels", str(pixels), "--out", str(out), "--types", types]


@pytest.mark.parametrize("kind", ["int8", "float32"])
def test_scores_latencies_and_memory_come_back_from_a_process_of_its_own(
    pixels: Path, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "scores.npz"
    done = subprocess.run(
        [sys.executable, "-m", "edge.score", *arguments(pixels, out, kind), "--width", "32", "--height", "32"],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        known = KNOWN[kind]["pictures"]
        tolerance = tolerance_of(kind)
        np.testing.assert_allclose(found["scores"], [known[name]["score"] for name in PICTURES], atol=tolerance)
        np.testing.assert_allclose(
            found["type_logits"], [known[name]["type_logits"] for name in PICTURES], atol=max(0.2, tolerance)
        )
        assert found["scores"].dtype == np.float64
        assert found["type_logits"].dtype == np.float32
        assert found["latency_s"].shape == (len(PICTURES),)
        assert (found["latency_s"] > 0).all()
        assert str(found["kind"]) == kind
        assert " " in str(found["runtime"])
        assert float(found["score_step"]) == pytest.approx(KNOWN[kind]["score_step"])
        assert 5e6 < int(found["rss_bytes"]) < 500e6
    assert list(tmp_path.glob("*.partial")) == []


def test_a_process_that_comes_from_a_large_one_reports_its_own_memory() -> None:
    ballast = np.ones(30_000_000)  # 240 MB, resident
    code = "from edge.memory import peak_rss_bytes; print(peak_rss_bytes())"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 100e6 < ballast.nbytes < peak_rss_bytes()


def test_names_with_commas_come_as_a_json_list(pixels: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.npz"
    assert score.main(arguments(pixels, out, types=json.dumps(["scratch, deep", "stain"]))) == 0
    with np.load(out) as found:
        assert found["type_logits"].shape == (len(PICTURES), 2)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 32, 32, 3), np.float32), "want uint8 in C order"),
        (np.zeros((32, 32, 3), np.uint8), "want uint8 in C order"),
        (np.asfortranarray(np.zeros((2, 32, 32, 3), np.uint8)), "want uint8 in C order"),
        (np.zeros((2, 16, 16, 3), np.uint8), "want an input of shape"),
    ],
)
def test_pictures_that_do_not_fit_end_with_one_line_and_no_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], array: np.ndarray, message: str
) -> None:
    path, out = tmp_path / "pixels.npy", tmp_path / "scores.npz"
    np.save(path, array)
    assert score.main(arguments(path, out)) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_file_that_is_cut_short_or_no_array_is_refused(
    pixels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.npz"
    pixels.write_bytes(pixels.read_bytes()[:-100])
    assert score.main(arguments(pixels, out)) == 1
    assert f"want {len(PICTURES)} pictures, the file ends within number {len(PICTURES)}" in capsys.readouterr().err
    pixels.write_bytes(b"text")
    assert score.main(arguments(pixels, out)) == 1
    assert "not a .npy file" in capsys.readouterr().err
    assert score.main(arguments(tmp_path / "none.npy", out)) == 1
    assert not out.exists()


def test_pictures_of_another_size_than_asked_for_are_refused(
    pixels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score.main([*arguments(pixels, tmp_path / "scores.npz"), "--width", "64"]) == 1
    assert "want pictures of 64x32 px, found 32x32" in capsys.readouterr().err
