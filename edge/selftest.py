"""The self-test: a device must reproduce the golden images' scores before it serves a package."""

import math
from dataclasses import dataclass

from edge.detector import Detector
from edge.errors import ImageError
from edge.package import Package
from edge.preprocess import prepare_file


@dataclass(frozen=True)
class SelfTestReport:
    """What became of the golden images."""

    passed: bool
    largest_difference: float  # of a score from its golden score, in logits; inf when a score is missing
    tolerance: float  # largest difference allowed, in logits
    failures: tuple[str, ...]  # one line for each golden image that failed
    images: int  # golden images tried


def run_self_test(package: Package, threads: int = 1, detector: Detector | None = None) -> SelfTestReport:
    """Score every golden image of a package on this machine.

    Args:
        package: verified.
        threads: CPU threads for one picture, of the detector to open.
        detector: of this package, when one is open already.

    Raises:
        ContractError: the model does not fit the contract.
        RuntimeMissingError: no TFLite runtime is installed.
    """
    contract = package.contract
    detector = detector or package.open_detector(threads)
    largest, failures = 0.0, []
    for golden in contract.self_test.images:
        try:
            prepared = prepare_file((package.folder / golden.file).read_bytes(), contract.input, golden.file)
        except ImageError as error:
            largest = math.inf
            failures.append(str(error))
            continue
        score = detector.detect(prepared.pixels).score
        difference = abs(score - golden.score)
        if math.isnan(difference):
            difference = math.inf
        largest = max(largest, difference)
        if difference > contract.self_test.tolerance:
            failures.append(
                f"{golden.file}: want score {golden.score:.6g} within {contract.self_test.tolerance:.3g}, "
                f"found {score:.6g} on {detector.runtime}"
            )
    return SelfTestReport(
        not failures, largest, contract.self_test.tolerance, tuple(failures), len(contract.self_test.images)
    )
