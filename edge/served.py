"""A package at work, and what is told about it."""

import threading
from dataclasses import dataclass

from edge.contract import Contract
from edge.detector import Detector
from edge.package import Package


class Served:
    """A package that proved good, with a detector for each worker."""

    def __init__(self, package: Package, digest: str, first: Detector, threads: int) -> None:
        self.package = package
        self.digest = digest  # of the contract: sha256, hex
        self.runtime = first.runtime
        self._threads = threads
        self._detectors = {0: first}
        self._opening = threading.Lock()

    @property
    def contract(self) -> Contract:
        """The package's contract."""
        return self.package.contract

    def detector(self, worker: int) -> Detector:
        """The detector of that worker, opened when it is first asked for, from the bytes that were verified.

        Raises:
            ContractError: the runtime cannot open the model another time.
        """
        detector = self._detectors.get(worker)
        if detector is None:
            with self._opening:  # one after the other: opening takes memory
                detector = self._detectors[worker] = self.package.open_detector(self._threads)
        return detector


@dataclass(frozen=True)
class ServingState:
    """What serves and what was deployed, for health messages."""

    ok: bool  # what was deployed serves
    message: str
    serving: str | None = None  # digest of the package that serves
    serving_version: str | None = None
    deployed: str | None = None  # digest of the package that the link leads to; None: unreadable or not there
    deployed_version: str | None = None
    self_test: str = "not run"  # of the package that serves: images, largest difference, tolerance
