"""The challenger's process: `python -m edge.shadow --package FOLDER --digest SHA256 --line LINE`.

It verifies and self-tests a package, says so, and judges the pictures that come on its standard input until that ends.
Whatever a bad model does to it, the inspector lives on.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from edge.contract import Contract
from edge.detector import Detector
from edge.errors import EdgeError, PackageError
from edge.judge import failed, judge_part
from edge.last_good import package_digest
from edge.package import Package, verify_package
from edge.package_trial import version_in
from edge.part import Part
from edge.selftest import run_self_test
from edge.shadow.wire import Answer, Opened, Refused, read_part, write_message
from edge.verdict import action_for


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    with contextlib.suppress(OSError):
        os.nice(options.nice)
    with contextlib.suppress(OSError):  # when memory runs out, this process goes and not the inspector
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the inspector too, which ends this process in order
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    with contextlib.suppress(OSError):  # the inspector may run without a log
        os.dup2(2, 1)  # what native code prints is no answer
    with answers, contextlib.suppress(BrokenPipeError):
        return _run(options, sys.stdin.buffer, answers)
    return 0


def _run(options: argparse.Namespace, parts: BinaryIO, answers: BinaryIO) -> int:
    try:
        package, detector, opened = _open(options.package, options.digest, options.line)
    except (EdgeError, OSError) as error:
        write_message(answers, Refused(str(error), version_in(str(options.package))))
        return 1
    write_message(answers, opened)
    while (part := read_part(parts)) is not None:
        write_message(answers, _judge(part, package.contract, detector))
    return 0


def _open(folder: Path, digest: str, line: str) -> tuple[Package, Detector, Opened]:
    """Verify, open and self-test a package.

    Raises:
        EdgeError: it is bad.
        OSError: it cannot be read.
    """
    package = verify_package(folder)
    contract = package.contract
    if package_digest(folder) != digest:
        raise PackageError(f"{folder}: the contract changed while it was read; it is tried again")
    if contract.line != line:
        raise PackageError(f"{folder}: want a package of line {line!r}, found one of line {contract.line!r}")
    detector = package.open_detector(1)
    report = run_self_test(package, 1, detector)
    if not report.passed:
        raise PackageError(f"{folder}: the self-test failed: {'; '.join(report.failures[:3])}")
    tested = f"passed: {report.images} images, difference {report.largest_difference:.3g} of {report.tolerance:.3g}"
    return package, detector, Opened(contract.version, tested)


def _judge(part: Part, contract: Contract, detector: Detector) -> Answer:
    try:
        judgement = judge_part(part, contract, detector)
    except Exception as error:  # noqa: BLE001  as the inspector's own judges: an error, and on to the next part
        judgement = failed("internal", f"{type(error).__name__}: {error}")
    action = action_for(judgement.verdict, contract.operating_point)
    return Answer(judgement.verdict, action, judgement.score, judgement.label, judgement.code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge.shadow", description="Judge pictures without deciding.")
    parser.add_argument("--package", type=Path, required=True, metavar="FOLDER", help="the challenger's package")
    parser.add_argument("--digest", required=True, metavar="SHA256", help="of its contract")
    parser.add_argument("--line", required=True, help="that it must be for")
    parser.add_argument("--nice", type=int, default=19, help="how far to stand back for other programs, 0 to 19")
    return parser


if __name__ == "__main__":
    sys.exit(main())
