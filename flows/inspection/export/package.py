"""Build the model package: a folder with all that a device needs, verified by the device's own code."""

import dataclasses
import json
import logging
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge import contract as contracts
from edge.contract import Artifact, Calibration, Contract, InputContract, InputGuard, OperatingPoint
from edge.digest import sha256_of
from edge.errors import EdgeError
from edge.package import CONTRACT_FILE, open_package
from inspection.errors import ConversionError, PackageError
from inspection.export.archive import archive_package, read_archive
from inspection.export.device import run_edge
from inspection.export.golden import Candidates, write_golden
from inspection.export.guard import drift_reference, measure
from inspection.settings import ExportSettings

__all__ = ["Candidates", "PackageContent", "archive_package", "build_package", "read_archive"]

log = logging.getLogger(__name__)

MODEL_FILE = "model.tflite"
PROVENANCE_FILE = "provenance.json"
METRICS_FILE = "metrics.json"
VERSION_DIGITS = 16  # of the model file's sha256 that name it


@dataclass(frozen=True, kw_only=True)
class PackageContent:
    """What goes into a package."""

    line: str
    artifact: Path  # the .tflite file that ships
    kind: Literal["int8", "float32"]  # of the artifact
    input: InputContract
    defect_types: Sequence[str]  # names of the model's type outputs, in order
    calibration: Calibration
    operating_point: OperatingPoint
    guard: InputGuard  # the one that calibration split and holdout were judged with
    calibration_batches: Iterable[np.ndarray]  # uint8 [n, H, W, 3] each: the calibration split, for the drift reference
    calibration_scores: np.ndarray  # float64 [N], logits of the artifact on it
    golden: Candidates  # pictures of the training or calibration split
    provenance: Mapping[str, Any]  # JSON: snapshot, run, commit, versions, metrics with intervals, parity, latency
    metrics_json: str = ""  # text of metrics.json: the figures on the holdout; "" = none go along


def build_package(folder: Path, content: PackageContent, settings: ExportSettings) -> Path:
    """Write a package and prove that the device's code opens it and reproduces its golden scores.

    Args:
        folder: where the package will be; it must not exist yet, and appears only when it is whole.
        content: what goes in.
        settings: which interpreter stands for the device.

    Returns:
        The folder.

    Raises:
        PackageError: the folder exists, or the device's code refuses what was built.
        ConversionError: the artifact cannot be run.
    """
    if folder.exists():
        raise PackageError(f"{folder}: exists already; build the package into a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside its final place, so that renaming it is one step.
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        try:
            _fill(work, content, settings)
            open_package(work)
        except EdgeError as error:
            raise PackageError(f"the package built for {folder} cannot be used: {error}") from error
        _self_test(work, folder, settings)
        work.chmod(0o755)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    log.info("event=package_built folder=%s bytes=%d", folder, sum(p.stat().st_size for p in folder.rglob("*.*")))
    return folder


def _fill(work: Path, content: PackageContent, settings: ExportSettings) -> None:
    model = work / MODEL_FILE
    shutil.copyfile(content.artifact, model)
    golden = write_golden(
        work, content.golden, model, content.input, content.operating_point, content.defect_types, settings
    )
    spread = {name: value for name, value in dataclasses.asdict(golden).items() if name != "self_test"}
    provenance = {**content.provenance, "golden": {**spread, "tolerance": golden.self_test.tolerance}}
    try:
        text = json.dumps(provenance, indent=2, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PackageError(f"{PROVENANCE_FILE}: want JSON values, found others ({error})") from error
    (work / PROVENANCE_FILE).write_text(text + "\n", encoding="utf-8")
    if content.metrics_json:
        (work / METRICS_FILE).write_text(content.metrics_json, encoding="utf-8")
    files = {path.relative_to(work).as_posix(): sha256_of(path) for path in sorted(work.rglob("*")) if path.is_file()}
    contract = Contract(
        schema=contracts.SCHEMA,
        requires=(),
        line=content.line,
        version=files[MODEL_FILE][:VERSION_DIGITS],
        task="classify",
        defect_types=tuple(content.defect_types),
        artifact=Artifact(MODEL_FILE, content.kind),
        input=content.input,
        guard=content.guard,
        calibration=content.calibration,
        operating_point=content.operating_point,
        self_test=golden.self_test,
        drift_reference=drift_reference(measure(content.calibration_batches), content.calibration_scores),
        files=files,
    )
    (work / CONTRACT_FILE).write_text(contracts.dump_contract(contract), encoding="utf-8")


def _self_test(work: Path, folder: Path, settings: ExportSettings) -> None:
    """Let the device's interpreter open the package and score its golden images."""
    try:
        run_edge(["--model", work.absolute(), "--self-test"], "the self-test of the new package", settings)
    except ConversionError as error:
        raise PackageError(f"the package built for {folder} fails its own self-test: {error}") from error
