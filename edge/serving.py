"""Which package serves: the deployed one when it proves good, else the last good one.

A new package is noticed where the link points, copied, opened beside the old one on a thread of its own, self-tested,
and switched to between two parts. Opening a model runs native code, which could end the process; so while there is a
last good package, a new one is first opened in a child process. What fails is tried again, later and later.
"""

import dataclasses
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from edge.backoff import Backoff
from edge.last_good import LastGood, package_digest
from edge.loading import Attempt, Deployed, Loader, good_state
from edge.package import CONTRACT_FILE
from edge.polled import Polled
from edge.served import Served, ServingState

_log = logging.getLogger(__name__)

_POLL_S = 1.0  # between two looks at the link
_RETRY_S = (5.0, 600.0)  # first and longest wait after a refusal, while the package's files stay the same


@dataclass(frozen=True)
class _Seen:
    """What a look at the disk found."""

    deployed: Deployed | None
    fault: OSError | None = None  # why there is none
    last_good: bool = False  # whether there is one; only looked for without a deployed package


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
        self._loader = Loader(self._kept, threads, workers, line, trial_in_child)
        self._served: Served | None = None
        self._state = ServingState(False, f"waiting for a package at {link}")
        self.refusals = 0  # since the start; a package that is tried again counts again
        self._refused: Deployed | None = None
        self._last_good_fault = ""  # why the last good package cannot be opened, when it is needed
        self._backoff = Backoff(*_RETRY_S)
        self._poll_at_s = 0.0
        self._looks = Polled(self._look, "package-link")
        self._loading: threading.Thread | None = None
        self._loaded: Attempt | None = None

    def current(self) -> Served | None:
        """What serves now; None while there is no good package."""
        return self._served

    def state(self) -> ServingState:
        """What serves, what was deployed, and why they differ."""
        return self._state

    def hold_to(self, line: str) -> None:
        """From now on packages must be for this line."""
        self._loader.line = line

    def start(self) -> None:
        """Open the deployed package; when it is bad or not there, the last good one."""
        self._take(self._loader.attempt(self._note(self._look()), None))

    def tick(self, now_s: float) -> bool:
        """Look for a new package now and then; switch to it once it has proved good.

        The disk is read on another thread; what it holds is followed at a later tick.

        Args:
            now_s: time.monotonic().

        Returns:
            True when another package serves from now on.
        """
        loading = self._loading is not None and self._loading.is_alive()
        loaded = self._loaded
        if loaded is not None:
            self._loaded = None
            return self._take(loaded)
        if loading:
            return False
        if now_s >= self._poll_at_s:
            self._poll_at_s = now_s + _POLL_S
            self._looks.ask()
        seen = self._looks.take()
        return seen is not None and self._follow(seen)

    def _follow(self, seen: _Seen) -> bool:
        """Begin to open what was found, if it is new; True when another package serves from now on."""
        deployed = self._note(seen)
        if deployed is None and (self._served is not None or not seen.last_good):
            return False
        if deployed is not None and self._served is not None and deployed.digest == self._served.digest:
            if self._state.ok:
                return False
            return self._take(
                Attempt(deployed, self._served, good_state(self._served, deployed.digest, self._state.self_test))
            )
        if deployed == self._refused and self._backoff.remaining_s() > 0:
            return False
        if deployed is not None and deployed != self._refused:
            _log.info("event=package_found digest=%s folder=%s", deployed.digest[:12], deployed.folder)
        thread = threading.Thread(target=self._attempt_aside, args=(deployed,), name="package", daemon=True)
        thread.start()
        self._loading = thread
        return False

    def close(self, timeout_s: float = 5.0) -> None:
        """Give a package that is being opened a little time to be done with."""
        self._looks.close()
        if self._loading is not None:
            self._loading.join(timeout_s)

    def _look(self) -> _Seen:
        """What the link leads to now. Runs in a thread of its own, but for the first time."""
        folder = os.path.realpath(self._link)
        refused = self._refused
        try:
            found = os.stat(os.path.join(folder, CONTRACT_FILE))  # noqa: PTH116,PTH118  not a Path: asked every second
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
            if refused is not None and (folder, stamp) == (refused.folder, refused.stamp):
                return _Seen(refused)
            return _Seen(Deployed(folder, stamp, package_digest(Path(folder))))
        except OSError as error:
            return _Seen(None, error, self._kept.find() is not None)

    def _note(self, seen: _Seen) -> Deployed | None:
        """What was found; when that is nothing, the state says so."""
        if seen.fault is not None:
            serves = "the last good package serves" if self._served else f"nothing serves{self._last_good_fault}"
            message = f"no package at {self._link} ({seen.fault.strerror}); {serves}"
            self._set_state(dataclasses.replace(self._state, ok=False, message=message, deployed=None))
        return seen.deployed

    def _attempt_aside(self, deployed: Deployed | None) -> None:
        self._loaded = self._loader.attempt(deployed, self._served)

    def _take(self, attempt: Attempt) -> bool:
        """Switch to a package that proved good, or say why it does not serve."""
        before, served, state = self._served, attempt.served, attempt.state
        if served is not None and state is not None:
            self._refused = None
            self._backoff.succeed()
            self._served = served
            self._set_state(state)
            return before is None or before.digest != served.digest
        self._refused = attempt.deployed
        if attempt.deployed is not None and state is not None:
            self._refuse(attempt.deployed, state, self._backoff.fail())
        elif attempt.last_good_said:
            self._backoff.fail()
        if before is None:
            self._take_last_good(attempt.last_good, attempt.last_good_said)
        return self._served is not before

    def _refuse(self, deployed: Deployed, state: ServingState, wait_s: float) -> None:
        """Say why the deployed package does not serve."""
        self.refusals += 1
        _log.error(
            "event=package_refused digest=%s retry_s=%.0f reason=%r", deployed.digest[:12], wait_s, state.message
        )
        serving = self._state if self._served is not None else ServingState(False, "")
        consequence = "the last good package serves on" if self._served is not None else "nothing serves"
        self._set_state(
            dataclasses.replace(
                serving,
                ok=False,
                message=f"the deployed package is refused ({consequence}): {state.message}",
                deployed=state.deployed,
                deployed_version=state.deployed_version,
            )
        )

    def _take_last_good(self, served: Served | None, said: str) -> None:
        """Serve the inspector's own copy, or say why not."""
        why = self._state.message.removesuffix(self._last_good_fault)
        self._last_good_fault = f"; the last good package: {said}" if served is None and said else ""
        if served is None:
            self._set_state(dataclasses.replace(self._state, message=why + self._last_good_fault))
            return
        self._served = served
        self._set_state(
            dataclasses.replace(
                self._state,
                message=why.replace("nothing serves", "the last good package serves"),
                serving=served.digest,
                serving_version=served.contract.version,
                self_test=said,
            )
        )

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
