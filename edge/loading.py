"""Opens packages to serve: copied, verified, self-tested, and first in a child process where a crash would cost.

A copy is thrown away only when the package itself is bad; no memory, no free descriptor or a disk that cannot be read
now say nothing about it.
"""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

from edge.errors import ContractError, EdgeError, PackageError
from edge.last_good import LastGood, package_digest
from edge.package import Package, verify_package
from edge.package_trial import try_in_child, version_in
from edge.selftest import run_self_test
from edge.served import Served, ServingState

_log = logging.getLogger(__name__)

_OF_THE_PACKAGE = (PackageError, ContractError)  # what is wrong with a package wherever it is opened


@dataclass(frozen=True)
class Deployed:
    """What the link leads to; equal as long as nothing changed there."""

    folder: str  # with links resolved
    stamp: tuple[int, int, int]  # inode, size and time of the contract
    digest: str = dataclasses.field(compare=False)


@dataclass(frozen=True)
class Attempt:
    """What became of opening packages."""

    deployed: Deployed | None  # None: there was nothing at the link
    served: Served | None = None  # the deployed package, if it proved good
    state: ServingState | None = None  # of the deployed package
    last_good: Served | None = None  # opened because otherwise nothing would serve
    last_good_said: str = ""  # of its self-test, or why it cannot be opened


class Loader:
    """Opens packages for the line. One thread at a time may use it.

    Args:
        kept: the inspector's own copies.
        threads: CPU threads for one picture.
        workers: detectors to open before a switch.
        line: the line that packages must be for; "" = any. May change.
        trial_in_child: open a new package in a child process first, while there is a last good one.
    """

    def __init__(self, kept: LastGood, threads: int, workers: int, line: str, trial_in_child: bool) -> None:
        self.line = line
        self._kept = kept
        self._threads = threads
        self._workers = workers
        self._trial_in_child = trial_in_child

    def attempt(self, deployed: Deployed | None, serving: Served | None) -> Attempt:
        """Open the deployed package; when that fails and nothing serves, the last good one. Never raises.

        Args:
            deployed: what the link leads to; None: nothing.
            serving: what serves meanwhile; None: nothing.
        """
        served, state = self._load(deployed, serving) if deployed is not None else (None, None)
        attempt = Attempt(deployed, served, state)
        if served is None and serving is None:
            last_good, said = self._load_last_good(deployed)
            attempt = dataclasses.replace(attempt, last_good=last_good, last_good_said=said)
        return attempt

    def _load(self, deployed: Deployed, serving: Served | None) -> tuple[Served | None, ServingState]:
        """Copy, verify, open and self-test a deployed package."""
        digest = deployed.digest
        note = ""
        try:
            package = self._whole_copy(digest)
            if package is None:  # verified before anything is written: a bad one is tried again and again
                package = verify_package(Path(deployed.folder))
                try:
                    package = verify_package(self._kept.copy(package.folder, digest))
                except OSError as error:
                    note = f"; no copy of it could be kept: {error}"
            folder = package.folder
            died = self._kept.died_trying(digest)
            if self._trial_in_child and (died or (self._has_other(digest, serving) and self._kept.find() != folder)):
                try_in_child(folder, self._threads)
            self._kept.begin_trial(digest)
            served, tested = self._open(package, digest)
            if serving is not None:  # at the first start the others can wait until they are needed
                for worker in range(1, self._workers):
                    served.detector(worker)
        except Exception as error:  # noqa: BLE001  a bad package, however bad, must not stop the line
            self._kept.end_trial()
            if isinstance(error, _OF_THE_PACKAGE):
                self._kept.discard(digest)
            reason = _reason(error)
            return None, ServingState(False, reason, deployed=digest, deployed_version=version_in(deployed.folder))
        self._kept.end_trial()
        state = good_state(served, digest, tested)
        try:
            if self._kept.get(digest) == folder:
                self._kept.bless(digest)
        except OSError as error:
            note = f"; no copy of it could be kept: {error}"
        return served, dataclasses.replace(state, message=state.message + note)

    def _whole_copy(self, digest: str) -> Package | None:
        """The inspector's own copy of that package, if every file of it is as it was."""
        folder = self._kept.get(digest)
        if folder is None:
            return None
        try:
            return verify_package(folder)
        except (EdgeError, OSError) as error:  # it stays until there is another to put in its place
            _log.warning("event=copy_damaged digest=%s reason=%r", digest[:12], str(error))
            return None

    def _has_other(self, digest: str, serving: Served | None) -> bool:
        serves_other = serving is not None and serving.digest != digest
        return serves_other or self._kept.find() is not None

    def _open(self, package: Package, digest: str) -> tuple[Served, str]:
        """A verified package with a detector, and what its self-test found.

        Raises:
            EdgeError: it is bad.
            OSError: it cannot be read.
        """
        folder = package.folder
        if package_digest(folder) != digest:
            raise PackageError(f"{folder}: the contract is not the one with sha256 {digest}; fetch the package again")
        if self.line and package.contract.line != self.line:
            raise PackageError(
                f"{folder}: want a package of line {self.line!r}, found one of line {package.contract.line!r}"
            )
        detector = package.open_detector(self._threads)
        report = run_self_test(package, self._threads, detector)
        if not report.passed:
            raise PackageError(f"{folder}: the self-test failed: {'; '.join(report.failures[:3])}")
        served = Served(package, digest, detector, self._threads)
        tested = f"passed: {report.images} images, difference {report.largest_difference:.3g} of {report.tolerance:.3g}"
        return served, tested

    def _load_last_good(self, deployed: Deployed | None) -> tuple[Served | None, str]:
        """Open the inspector's own copy, verified again; with what its self-test found, or why it cannot be opened."""
        folder = self._kept.find()
        if folder is None or (deployed is not None and folder.name == deployed.digest):
            return None, ""
        try:
            if self._trial_in_child and self._kept.died_trying(folder.name):
                try_in_child(folder, self._threads)
            self._kept.begin_trial(folder.name)
            return self._open(verify_package(folder), folder.name)
        except Exception as error:  # noqa: BLE001  without a package the device still answers: every part is an error
            _log.error("event=last_good_refused digest=%s reason=%r", folder.name[:12], _reason(error))
            return None, _reason(error)
        finally:
            self._kept.end_trial()


def good_state(served: Served, deployed: str, tested: str) -> ServingState:
    """The state when what was deployed serves."""
    version = served.contract.version
    return ServingState(True, f"serving {version}", served.digest, version, deployed, version, tested)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, EdgeError | OSError) else f"{type(error).__name__}: {error}"
