"""Which package serves: the deployed one when it proves good, else the last good one.

A new package is noticed where the link points, copied, opened beside the old one on a thread of its own, self-tested,
and switched to between two parts. Opening a model runs native code, which could end the process; so while there is a
last good package, a new one is first opened in a child process.
"""

import dataclasses
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from edge.backoff import Backoff
from edge.errors import EdgeError, PackageError
from edge.last_good import LastGood, package_digest
from edge.package import CONTRACT_FILE, verify_package
from edge.package_trial import try_in_child, version_in
from edge.selftest import run_self_test
from edge.served import Served, ServingState

_log = logging.getLogger(__name__)

_POLL_S = 1.0  # between two looks at the link
_RETRY_S = (5.0, 600.0)  # first and longest wait after a refusal, while the package's files stay the same


@dataclass(frozen=True)
class _Deployed:
    """What the link leads to; equal as long as nothing changed there."""

    folder: str  # with links resolved
    stamp: tuple[int, int, int]  # inode, size and time of the contract
    digest: str = dataclasses.field(compare=False)


class Serving:
    """Keeps the best package at hand. `start`, `tick` and `close` belong to the loop's thread; `current` to any."""

    def __init__(
        self, link: Path, keep: Path, threads: int = 1, workers: int = 1, line: str = "", trial_in_child: bool = True
    ) -> None:
        """Watch a package.

        Args:
            link: the package's folder, or a link to it that moves when another is deployed; may appear later.
            keep: folder for the inspector's own copies.
            threads: CPU threads for one picture.
            workers: detectors to open before a switch.
            line: the line that packages must be for; "" = any.
            trial_in_child: open a new package in a child process first, while there is a last good one.
        """
        self._link = link
        self._kept = LastGood(keep)
        self._threads = threads
        self._workers = workers
        self._line = line
        self._trial_in_child = trial_in_child
        self._served: Served | None = None
        self._state = ServingState(False, f"waiting for a package at {link}")
        self.refusals = 0  # since the start; a package that is tried again counts again
        self._refused: _Deployed | None = None
        self._backoff = Backoff(*_RETRY_S)
        self._poll_at_s = 0.0
        self._loader: threading.Thread | None = None
        self._loaded: tuple[_Deployed, Served | None, ServingState] | None = None

    def current(self) -> Served | None:
        """What serves now; None while there is no good package."""
        return self._served

    def state(self) -> ServingState:
        """What serves, what was deployed, and why they differ."""
        return self._state

    def hold_to(self, line: str) -> None:
        """From now on packages must be for this line."""
        self._line = line

    def start(self) -> None:
        """Open the deployed package; when it is bad or not there, the last good one."""
        deployed = self._look()
        if deployed is not None:
            self._take(deployed, *self._load(deployed))
        if self._served is None:
            self._serve_last_good()

    def tick(self, now_s: float) -> bool:
        """Look for a new package now and then; switch to it once it has proved good.

        Args:
            now_s: time.monotonic().

        Returns:
            True when another package serves from now on.
        """
        loaded = self._loaded
        if loaded is not None:
            self._loaded = self._loader = None
            return self._take(*loaded)
        if self._loader is not None or now_s < self._poll_at_s:
            return False
        self._poll_at_s = now_s + _POLL_S
        deployed = self._look()
        if deployed is None:
            return False
        if self._served is not None and deployed.digest == self._served.digest:
            if self._state.ok:
                return False
            return self._take(deployed, self._served, self._good_state(deployed))
        if deployed == self._refused and self._backoff.remaining_s() > 0:
            return False
        if deployed != self._refused:
            _log.info("event=package_found digest=%s folder=%s", deployed.digest[:12], deployed.folder)
        self._loader = threading.Thread(target=self._load_aside, args=(deployed,), name="package", daemon=True)
        self._loader.start()
        return False

    def close(self, timeout_s: float = 5.0) -> None:
        """Give a package that is being opened a little time to be done with."""
        if self._loader is not None:
            self._loader.join(timeout_s)

    def _look(self) -> _Deployed | None:
        """What the link leads to now; None when there is nothing, which the state then says."""
        folder = os.path.realpath(self._link)
        try:
            found = os.stat(os.path.join(folder, CONTRACT_FILE))  # noqa: PTH116,PTH118  not a Path: asked every second
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
            if self._refused is not None and (folder, stamp) == (self._refused.folder, self._refused.stamp):
                return self._refused
            return _Deployed(folder, stamp, package_digest(Path(folder)))
        except OSError as error:
            serves = "the last good package serves" if self._served else "nothing serves"
            message = f"no package at {self._link} ({error.strerror}); {serves}"
            self._set_state(dataclasses.replace(self._state, ok=False, message=message, deployed=None))
            return None

    def _load_aside(self, deployed: _Deployed) -> None:
        self._loaded = (deployed, *self._load(deployed))

    def _load(self, deployed: _Deployed) -> tuple[Served | None, ServingState]:
        """Copy, verify, open and self-test a deployed package; never raises."""
        digest = deployed.digest
        note = ""
        try:
            folder = self._whole_copy(digest)
            if folder is None:
                verify_package(Path(deployed.folder))  # before anything is written: a bad one is tried again and again
                try:
                    folder = self._kept.copy(Path(deployed.folder), digest)
                except OSError as error:
                    note = f"; no copy of it could be kept: {error}"
                    folder = Path(deployed.folder)
            died = self._kept.died_trying(digest)
            if self._trial_in_child and (died or (self._has_other(digest) and self._kept.find() != folder)):
                try_in_child(folder, self._threads)
            self._kept.begin_trial(digest)
            served, tested = self._open(folder, digest)
        except Exception as error:  # noqa: BLE001  a bad package, however bad, must not stop the line
            self._kept.end_trial()
            self._kept.discard(digest)
            reason = str(error) if isinstance(error, EdgeError | OSError) else f"{type(error).__name__}: {error}"
            return None, ServingState(False, reason, deployed=digest, deployed_version=version_in(deployed.folder))
        self._kept.end_trial()
        state = self._good_state(deployed, served, tested)
        try:
            if self._kept.get(digest) is not None:
                self._kept.bless(digest)
        except OSError as error:
            note = f"; no copy of it could be kept: {error}"
        return served, dataclasses.replace(state, message=state.message + note)

    def _whole_copy(self, digest: str) -> Path | None:
        """The inspector's own copy of that package, if every file of it is as it was."""
        folder = self._kept.get(digest)
        if folder is not None:
            try:
                verify_package(folder)
            except (EdgeError, OSError) as error:
                _log.warning("event=copy_damaged digest=%s reason=%r", digest[:12], str(error))
                self._kept.discard(digest)
                return None
        return folder

    def _has_other(self, digest: str) -> bool:
        serves_other = self._served is not None and self._served.digest != digest
        return serves_other or self._kept.find() is not None

    def _open(self, folder: Path, digest: str) -> tuple[Served, str]:
        """A package with its detectors, and what its self-test found.

        Raises:
            EdgeError: it is bad.
            OSError: it cannot be read.
        """
        package = verify_package(folder)
        if package_digest(folder) != digest:
            raise PackageError(f"{folder}: the contract is not the one with sha256 {digest}; fetch the package again")
        if self._line and package.contract.line != self._line:
            raise PackageError(
                f"{folder}: want a package of line {self._line!r}, found one of line {package.contract.line!r}"
            )
        detector = package.open_detector(self._threads)
        report = run_self_test(package, self._threads, detector)
        if not report.passed:
            raise PackageError(f"{folder}: the self-test failed: {'; '.join(report.failures[:3])}")
        served = Served(package, digest, detector, self._threads)
        if self._served is not None:  # at the first start the others can wait until they are needed
            for worker in range(1, self._workers):
                served.detector(worker)
        tested = f"passed: {report.images} images, difference {report.largest_difference:.3g} of {report.tolerance:.3g}"
        return served, tested

    def _take(self, deployed: _Deployed, served: Served | None, state: ServingState) -> bool:
        """Switch to a package that proved good, or say why it does not serve."""
        before = self._served
        if served is None:
            self._refused = deployed
            self.refusals += 1
            wait_s = self._backoff.fail()
            _log.error(
                "event=package_refused digest=%s retry_s=%.0f reason=%r", deployed.digest[:12], wait_s, state.message
            )
            serving = self._state if before is not None else ServingState(False, "")
            consequence = "the last good package serves on" if before is not None else "nothing serves"
            self._set_state(
                dataclasses.replace(
                    serving,
                    ok=False,
                    message=f"the deployed package is refused ({consequence}): {state.message}",
                    deployed=state.deployed,
                    deployed_version=state.deployed_version,
                )
            )
            return False
        self._refused = None
        self._backoff.succeed()
        self._served = served
        self._set_state(state)
        return before is None or before.digest != served.digest

    def _serve_last_good(self) -> None:
        """At the start, when nothing deployed is good: open the inspector's own copy, verified again."""
        folder = self._kept.find()
        if folder is None or (self._state.deployed is not None and folder.name == self._state.deployed):
            return
        why = self._state.message
        try:
            if self._trial_in_child and self._kept.died_trying(folder.name):
                try_in_child(folder, self._threads)
            self._kept.begin_trial(folder.name)
            served, tested = self._open(folder, folder.name)
        except Exception as error:  # noqa: BLE001  without a package the device still answers: every part is an error
            _log.error("event=last_good_refused digest=%s reason=%r", folder.name[:12], str(error))
            self._set_state(dataclasses.replace(self._state, message=f"{why}; the last good package: {error}"))
            return
        finally:
            self._kept.end_trial()
        self._served = served
        message = why.replace("nothing serves", "the last good package serves")
        self._set_state(
            dataclasses.replace(
                self._state,
                message=message,
                serving=served.digest,
                serving_version=served.contract.version,
                self_test=tested,
            )
        )

    def _good_state(self, deployed: _Deployed, served: Served | None = None, tested: str = "") -> ServingState:
        served = served or self._served
        assert served is not None
        version = served.contract.version
        tested = tested or self._state.self_test
        return ServingState(True, f"serving {version}", served.digest, version, deployed.digest, version, tested)

    def _set_state(self, state: ServingState) -> None:
        if state != self._state:
            level = logging.INFO if state.ok else logging.WARNING
            _log.log(
                level,
                "event=package_state ok=%s serving=%s deployed=%s message=%r",
                state.ok,
                (state.serving or "none")[:12],
                (state.deployed or "none")[:12],
                state.message,
            )
        self._state = state
