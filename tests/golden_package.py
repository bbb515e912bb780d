"""Makes a model package around the tiny model, for tests of what opens packages."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from edge.contract import (
    SCHEMA,
    Artifact,
    Calibration,
    Contract,
    DriftReference,
    GoldenImage,
    InputContract,
    InputGuard,
    OperatingPoint,
    Range,
    SelfTest,
    dump_contract,
)

GOLDEN = Path(__file__).with_name("golden")
INPUT = InputContract(width=32, height=32)
DEFECT_TYPES = ("scratch", "stain")
KNOWN: dict[str, Any] = json.loads((GOLDEN / "tiny_scores.json").read_text(encoding="utf-8"))
PICTURES = tuple(KNOWN["int8"]["pictures"])


def tolerance_of(kind: str) -> float:
    """Largest difference of a score between machines and runtimes, in logits."""
    return max(2 * float(KNOWN[kind]["score_step"]), 1e-3)


def make_package(folder: Path, kind: str = "int8", **changes: Any) -> Path:
    """Write a whole package with the tiny model of that kind; `changes` replace fields of its contract."""
    (folder / "golden").mkdir(parents=True)
    shutil.copy(GOLDEN / f"tiny_{kind}.tflite", folder / "model.tflite")
    for name in PICTURES:
        shutil.copy(GOLDEN / name, folder / "golden" / name)
    (folder / "provenance.json").write_text("{}\n", encoding="utf-8")
    contract = dataclasses.replace(_contract(kind, digests(folder)), **changes)
    (folder / "contract.json").write_text(dump_contract(contract), encoding="utf-8")
    return folder


def digests(folder: Path) -> dict[str, str]:
    """Sha256 of every file but the contract."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names if name != "contract.json"}


def _contract(kind: Any, files: dict[str, str]) -> Contract:
    scores = {name: known["score"] for name, known in KNOWN[kind]["pictures"].items()}
    quantiles = tuple(float(value) for value in range(11))
    return Contract(
        schema=SCHEMA,
        requires=(),
        line="tiny",
        version=files["model.tflite"][:12],
        task="classify",
        defect_types=DEFECT_TYPES,
        artifact=Artifact("model.tflite", kind),
        input=INPUT,
        guard=InputGuard(Range(20.0, 235.0), Range(3.0, 120.0), Range(0.2, 60.0), Range(0.5, 2.0), 32, 32),
        calibration=Calibration(temperature=1.5, prevalence=0.5),
        operating_point=OperatingPoint("op-1", lower=-4.0, upper=1.0),
        self_test=SelfTest(
            tolerance=tolerance_of(kind),
            images=tuple(GoldenImage(f"golden/{name}", score) for name, score in scores.items()),
        ),
        drift_reference=DriftReference(quantiles, quantiles, quantiles, quantiles),
        files=files,
    )
