"""What a rollout shows while it runs and afterwards: for the live card, the command line and notifications."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from inspection.fleet.rollout.comparison import Comparison
from inspection.fleet.rollout.devices import DeviceView
from inspection.fleet.rollout.events import End, Event
from inspection.fleet.rollout.plan import RolloutPlan
from inspection.fleet.rollout.record import RolloutRecord, latest_record
from inspection.storage import Storage

OUTCOMES = ("open", "deployed", "unchanged", "rolled-back", "aborted", "went-back")


@dataclass(frozen=True)
class Outcome:
    """What became of a rollout."""

    outcome: str  # one of OUTCOMES; open: there is more to do
    reason: str  # for people
    line: str
    number: int  # of the rollout
    model_version: int  # that was to be deployed
    serving: int | None  # registry version that the fleet has at the end; None: no model
    not_there: tuple[str, ...] = ()  # devices that do not serve it yet, with why
    comparison: dict[str, Any] | None = None  # the last one, see `Comparison.to_document`

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.outcome != "open"

    @property
    def good(self) -> bool:
        """Whether what was asked for is there."""
        return self.outcome in ("deployed", "unchanged", "went-back")


@dataclass(frozen=True)
class View:
    """How a rollout stands at one look."""

    number: int
    plan: RolloutPlan
    at: float  # unix time
    stage: str  # that runs, or ran last; "" before the first
    events: tuple[Event, ...]
    devices: tuple[DeviceView, ...] = ()  # of the stage's group
    comparison: Comparison | None = None
    end: End | None = None


OnChange = Callable[[View], None]


def outcome_of(record: RolloutRecord) -> Outcome:
    """What became of a rollout, from its record."""
    plan, end = record.plan, record.end()
    events = record.events()
    compared = [event.details["comparison"] for event in events if event.details.get("comparison")]
    serving = plan.model_version if end and end.outcome in ("deployed", "unchanged", "went-back") else plan.champion
    return Outcome(
        outcome="open" if end is None else end.outcome,
        reason="" if end is None else end.reason,
        line=plan.line,
        number=record.number,
        model_version=plan.model_version,
        serving=serving,
        not_there=tuple(end.details.get("not_there", ())) if end else (),
        comparison=compared[-1] if compared else None,
    )


def read_view(storage: Storage, line: str, clock: Callable[[], float] = time.time) -> View | None:
    """The newest rollout of a line as it is on record; None when there is none."""
    record = latest_record(storage, line, clock)
    if record is None:
        return None
    events = record.events()
    return View(record.number, record.plan, clock(), events[-1].stage if events else "", events, end=record.end())


def sentence(event: Event) -> str:
    """An event in words."""
    details = event.details
    where = f"{event.stage}: " if event.stage else ""
    texts = {
        "started": "started",
        "deploying": f"deploying to group {details.get('group', '')}",
        "deployed": f"deployment {details.get('id', '')} made for group {details.get('group', '')}",
        "passed": f"passed: {details.get('reason', '')}",
        "rolling-back": f"going back: {details.get('reason', '')}",
        "restored": f"group {details.get('group', '')} gets back what it had",
        "withdrawn": f"model {details.get('version', '')} is marked rolled back in the registry",
        "restore-failed": f"could not undo everything yet: {details.get('reason', '')}",
    }
    return where + texts.get(event.what, event.what)
