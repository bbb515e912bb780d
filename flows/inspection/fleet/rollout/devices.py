"""What a device lacks to be done with a stage, and what about it ends the rollout."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from inspection.fleet.interface import DeviceStatus
from inspection.fleet.reports import DeviceReport

SILENT_S = 600.0  # a device that gave no sign for longer is not taken for well; devices report every minute
SILENT_REPORTS = 3  # or that missed so many, where they are set to report less often
BROKEN = "BROKEN"  # the nucleus has given up; ERRORED is tried again
_ERRORED = "ERRORED"
STOPPED = "stopped"  # state in the last health message of an inspector that ended as it should


@dataclass(frozen=True)
class DeviceView:
    """How far a device is in the stage."""

    thing: str
    group: str
    state: str  # done, waiting, away, failed
    message: str  # what it lacks, or what is wrong; "" when done
    parts: int = 0  # judged in this stage
    version: str | None = None  # of the model that serves, as the package calls it

    @property
    def done(self) -> bool:
        """Whether nothing is lacking."""
        return self.state == "done"


@dataclass(frozen=True)
class Wish:
    """What a stage asks of each device."""

    deployment: str  # id
    names: Collection[str]  # our components
    digest: str  # of the model that is to serve; shadow: that is to run beside the champion
    champion: str  # shadow: digest of the model that is to serve; else ""
    parts: int  # that the device must have judged
    group: str
    serving_before: Mapping[str, str | None] = field(default_factory=dict)  # thing to deployed digest before the stage
    refused_at: Mapping[str, float] = field(default_factory=dict)  # thing to the time of the first report of a refusal


class Watch:
    """Tells which devices still report, whatever their clocks say.

    A report is fresh when its time is near now, or when it was another one not long ago: a device whose clock is wrong
    still changes the time in its reports.

    Args:
        before: thing to the time in its report when the stage started: that one says nothing about the stage.
        silent_s: a report that is older is not fresh, s.
    """

    def __init__(self, before: Mapping[str, float], silent_s: float = SILENT_S) -> None:
        self._before, self._silent_s = dict(before), silent_s
        self._seen: dict[str, tuple[float, float | None]] = {}  # thing to time in its report, our time when it changed

    def of_stage(self, reports: Mapping[str, DeviceReport]) -> dict[str, DeviceReport]:
        """The reports that were made during this stage, however old."""
        return {thing: report for thing, report in reports.items() if report.at != self._before.get(thing)}

    def fresh(self, reports: Mapping[str, DeviceReport], now: float) -> dict[str, DeviceReport]:
        """The reports that were made during this stage and not long ago.

        Args:
            reports: the newest of each device.
            now: unix time.
        """
        found = {}
        for thing, report in reports.items():
            at: float | None
            changed: float | None
            at, changed = self._seen.get(thing, (None, None))
            if report.at != at:
                changed = None if at is None else now  # the first look knows not when it came
                self._seen[thing] = (report.at, changed)
            recent = abs(now - report.at) <= self._silent_s
            if recent or (changed is not None and now - changed <= self._silent_s):
                found[thing] = report
        return self.of_stage(found)


def look_at(
    status: DeviceStatus, report: DeviceReport | None, fresh: DeviceReport | None, parts: int, wish: Wish
) -> DeviceView:
    """How far one device is.

    Args:
        status: what the fleet says.
        report: the device's newest health message, if there is any.
        fresh: the same when it is one of this stage, and not old.
        parts: that it judged in this stage.
        wish: what is asked.
    """
    ours = status.deployment == wish.deployment

    def view(state: str, message: str) -> DeviceView:
        return DeviceView(status.thing, wish.group, state, message, parts, fresh.version if fresh else None)

    if ours and status.state == "failed":
        return view("failed", f"the deployment failed: {status.error or 'the device gives no reason'}")
    broken = broken_components(status, wish.names)
    if ours and broken:
        return view("failed", broken)
    refusal = _refusal(fresh, wish)
    if refusal:
        return view("failed", refusal)
    if status.state == "offline":
        return view("away", f"offline since {_moment(status.seen_at)}")
    if not ours or status.state != "succeeded":
        return view("waiting", f"the deployment is {status.state}" if ours else "the deployment has not reached it")
    errored = sorted(name for name in wish.names if status.states.get(name) == _ERRORED)
    if errored:
        return view("waiting", f"{', '.join(errored)} had an error and is started again: {status.error}")
    if report is None:
        return view("away", "it has sent no health message; see whether its inspector runs and its messages are stored")
    if fresh is None:
        return view("away", f"no health message since {_moment(report.at)} by its clock")
    lacks = _lacks(fresh, parts, wish)
    return view("waiting", lacks) if lacks else view("done", "")


def broken_components(status: DeviceStatus, names: Collection[str]) -> str:
    """Which of these components the nucleus has given up on a device, in words; empty when none.

    Until a deployment has succeeded, states may be those of what was there before.
    """
    if status.state != "succeeded":
        return ""
    broken = sorted(name for name in names if status.states.get(name) == BROKEN)
    return f"{', '.join(broken)} does not stay up (it is {BROKEN}): {status.error}" if broken else ""


def _refusal(report: DeviceReport | None, wish: Wish) -> str:
    if report is None:
        return ""
    if wish.champion:
        shadow = report.shadow
        # It decides nothing and is tried again by itself, so a process that died by chance costs no rollout.
        if shadow is not None and refuses_challenger(report, wish.digest) and _again(report, wish):
            return f"it refuses the challenger: {shadow.message}"
        return ""
    fault = report.faults.get("model")
    if fault is None or report.serving == wish.digest:
        return ""
    if report.deployed == wish.digest or report.deployed != wish.serving_before.get(report.thing, report.deployed):
        return f"it refuses the model: {fault}"
    return ""


def refuses_challenger(report: DeviceReport, digest: str) -> bool:
    """Whether a device could not open the challenger, or its process died."""
    return report.shadow is not None and report.shadow.package == digest and report.shadow.state == "refused"


def _again(report: DeviceReport, wish: Wish) -> bool:
    return wish.refused_at.get(report.thing, report.at) != report.at


def _lacks(report: DeviceReport, parts: int, wish: Wish) -> str:
    """What is missing, in words; empty when nothing is."""
    faults = "; ".join(f"{name}: {message}" for name, message in sorted(report.faults.items()))
    more = f" ({faults})" if faults else ""
    serves = wish.champion or wish.digest
    if report.state == STOPPED:
        return "its inspector has stopped" + more
    if report.serving != serves:
        return f"it serves package {_short(report.serving)}, want {_short(serves)}{more}"
    if wish.champion:
        shadow = report.shadow
        if shadow is None:
            return "its inspector says nothing of a challenger; it may be older than shadow runs" + more
        if (shadow.package, shadow.champion) != (wish.digest, wish.champion):
            return f"the challenger beside it is {_short(shadow.package)}, want {_short(wish.digest)}{more}"
        if shadow.state != "running":
            return f"the challenger beside it is {shadow.state}: {shadow.message}{more}"
    else:
        if not report.serves_what_is_deployed:
            return f"package {_short(report.deployed)} is deployed, and {_short(report.serving)} serves{more}"
        if not report.self_test.startswith("passed"):
            return f"its self-test: {report.self_test or 'not run'}{more}"
    if parts < wish.parts:
        return f"{parts} of {wish.parts} parts{more}"
    return ""


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"


def _moment(at: float | None) -> str:
    return "always" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
