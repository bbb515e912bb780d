"""A rollout's life in storage, so that whoever runs it may be killed and replaced.

    fleet/<line>/rollouts/000007/plan.json            what it is to do; written once: this makes the rollout
    fleet/<line>/rollouts/000007/owners/0001.json     who runs it; the highest number does; each written once
    fleet/<line>/rollouts/000007/owners/0001.beat     that owner's last sign of life; replaced at every look
    fleet/<line>/rollouts/000007/events/0001.json     what happened, in order; each written once
    fleet/<line>/rollouts/000007/tally.json           what each device counted; replaced at every look
    fleet/<line>/rollouts/000007/abort/0001.json      somebody wants it stopped; written once
    fleet/<line>/rollouts/000007/end.json             how it ended; written once: without it the rollout is open

What is written once is created exclusively: of two that try, one succeeds. Rollouts are numbered without gaps, and one
begins only when the one before has ended, so a line has one open rollout at most.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from inspection.errors import RolloutError
from inspection.fleet.rollout.documents import dump_document, parse_document, take
from inspection.fleet.rollout.events import End, Event, parse_end, parse_event
from inspection.fleet.rollout.owners import Owner, dump_owner, parse_owner
from inspection.fleet.rollout.plan import RolloutPlan, dump_plan, parse_plan
from inspection.storage import ObjectExistsError, Storage

_log = logging.getLogger(__name__)
_ATTEMPTS = 100


class TakenOverError(RolloutError):
    """Another process runs this rollout now."""


class RolloutRecord:
    """One rollout in storage.

    Args:
        storage: of the line.
        line: its name.
        number: of the rollout.
        token: number of the owner that this process is; 0: it only reads.
        clock: gives the unix time.
    """

    def __init__(
        self, storage: Storage, line: str, number: int, token: int = 0, clock: Callable[[], float] = time.time
    ) -> None:
        self.storage, self.line, self.number, self.token = storage, line, number, token
        self.clock = clock
        self._known: dict[str, Event] = {}
        self.prefix = f"{rollouts_prefix(line)}{number:06d}/"
        self.plan: RolloutPlan = parse_plan(self._read("plan.json"), self._where("plan.json"))

    # What anybody may ask

    def events(self) -> tuple[Event, ...]:
        """All events, oldest first."""
        return tuple(self._read_event(name) for name in self._numbered("events", ".json"))

    def end(self) -> End | None:
        """How it ended; None while it is open."""
        if not self.storage.exists(f"{self.prefix}end.json"):
            return None
        return parse_end(self._read("end.json"), self._where("end.json"))

    def started_at(self) -> float:
        """Unix time at which the plan was made."""
        where = self._where("plan.json")
        return take(parse_document(self._read("plan.json"), where), "at", float, where)

    def owners(self) -> tuple[tuple[Owner, float], ...]:
        """Who ran it, and since when each did; the last one runs it."""
        return tuple(parse_owner(self._read(name), self._where(name)) for name in self._numbered("owners", ".json"))

    def last_beat(self) -> float | None:
        """Unix time of the newest owner's last sign of life; None when there is no owner."""
        names = self._numbered("owners", ".json")
        if not names:
            return None
        beat = names[-1].removesuffix(".json") + ".beat"
        if self.storage.exists(f"{self.prefix}{beat}"):
            return take(parse_document(self._read(beat), self._where(beat)), "at", float, self._where(beat))
        return self.owners()[-1][1]

    def abort_request(self) -> str | None:
        """Who wants it stopped and why; None when nobody does."""
        names = self._numbered("abort", ".json")
        if not names:
            return None
        where = self._where(names[0])
        document = parse_document(self._read(names[0]), where)
        return f"aborted by {take(document, 'by', str, where)}: {take(document, 'why', str, where)}"

    def tally(self) -> dict[str, Any]:
        """What was kept of the devices' counts; {} when nothing was."""
        if not self.storage.exists(f"{self.prefix}tally.json"):
            return {}
        return parse_document(self._read("tally.json"), self._where("tally.json"))

    # What its owner may do

    def own(self, owner: Owner, seen: int) -> bool:
        """Become its newest owner; False when another was faster.

        Args:
            owner: who.
            seen: owners that it had when it was found to be free; one that came since keeps it.
        """
        token = seen + 1
        try:
            self.storage.create(f"{self.prefix}owners/{token:04d}.json", dump_owner(owner, self.clock()))
        except ObjectExistsError:
            return False
        self.token = token
        _log.info("event=rollout_owned line=%s rollout=%d owner=%d run=%s", self.line, self.number, token, owner.run)
        return True

    def check_owner(self) -> None:
        """Refuse to go on when another process has taken the rollout over.

        Raises:
            TakenOverError: it has.
        """
        owners = self._numbered("owners", ".json")
        if len(owners) != self.token:
            raise TakenOverError(
                f"rollout {self.number} of line {self.line}: {self.owners()[-1][0]} has taken it over; this run stops, "
                f"and the other goes on; see `lineside fleet status`"
            )

    def beat(self) -> None:
        """Give a sign of life."""
        self.storage.write(f"{self.prefix}owners/{self.token:04d}.beat", dump_document({"at": self.clock()}))

    def add(self, stage: str, what: str, **details: Any) -> Event:
        """Record an event.

        Raises:
            TakenOverError: another process runs the rollout now.
        """
        self.check_owner()
        event = Event(self.clock(), stage, what, details)
        self._create("events", {"at": event.at, "stage": stage, "what": what, "details": details, "owner": self.token})
        _log.info("event=rollout line=%s rollout=%d stage=%s what=%s", self.line, self.number, stage, what)
        return event

    def keep_tally(self, tally: Mapping[str, Any]) -> None:
        """Keep what the devices counted."""
        self.storage.write(f"{self.prefix}tally.json", dump_document(dict(tally)))

    def finish(self, outcome: str, reason: str, **details: Any) -> End:
        """Close the rollout; one that is closed already stays as it is."""
        self.check_owner()
        end = {"at": self.clock(), "outcome": outcome, "reason": reason, "details": details}
        try:
            self.storage.create(f"{self.prefix}end.json", dump_document(end))
        except ObjectExistsError:
            pass  # a retry whose first answer was lost
        else:
            _log.info(
                "event=rollout_ended line=%s rollout=%d outcome=%s reason=%r", self.line, self.number, outcome, reason
            )
        found = self.end()
        assert found is not None
        return found

    def request_abort(self, by: str, why: str) -> str:
        """Ask the owner to stop and roll back; the first who asked is the one on record."""
        if self.abort_request() is None:
            self._create("abort", {"at": self.clock(), "by": by, "why": why})
        return self.abort_request() or ""

    def _create(self, kind: str, fields: dict[str, Any]) -> None:
        for _ in range(_ATTEMPTS):
            number = len(self._numbered(kind, ".json")) + 1
            try:
                self.storage.create(f"{self.prefix}{kind}/{number:04d}.json", dump_document(fields))
                return
            except ObjectExistsError:
                if self.token:
                    self.check_owner()
        raise RolloutError(
            f"{self.prefix}{kind}: no number could be had in {_ATTEMPTS} attempts; see what writes there"
        )

    def _numbered(self, kind: str, suffix: str) -> list[str]:
        keys = self.storage.list(f"{self.prefix}{kind}/")
        names = [key.removeprefix(self.prefix) for key in keys]
        return sorted(
            (name for name in names if re.fullmatch(rf"{kind}/\d{{4,}}{re.escape(suffix)}", name)),
            key=lambda name: int(name.rpartition("/")[2].removesuffix(suffix)),
        )

    def _read(self, name: str) -> bytes:
        return self.storage.read(f"{self.prefix}{name}")

    def _read_event(self, name: str) -> Event:
        """An event; each is written once, and read once."""
        if name not in self._known:
            self._known[name] = parse_event(self._read(name), self._where(name))
        return self._known[name]

    def _where(self, name: str) -> str:
        return f"{self.storage.root}/{self.prefix}{name}"


def rollouts_prefix(line: str) -> str:
    """Where a line's rollouts are."""
    return f"fleet/{line}/rollouts/"


def rollout_numbers(storage: Storage, line: str) -> tuple[int, ...]:
    """Numbers of a line's rollouts, ascending."""
    prefix = rollouts_prefix(line)
    matches = (re.fullmatch(r"(\d{6,})/plan\.json", key.removeprefix(prefix)) for key in storage.list(prefix))
    return tuple(sorted(int(match[1]) for match in matches if match))


def latest_record(storage: Storage, line: str, clock: Callable[[], float] = time.time) -> RolloutRecord | None:
    """The newest rollout of a line, open or ended; None when there is none."""
    numbers = rollout_numbers(storage, line)
    return RolloutRecord(storage, line, numbers[-1], clock=clock) if numbers else None


def create_record(
    storage: Storage, plan: RolloutPlan, number: int, clock: Callable[[], float] = time.time
) -> RolloutRecord | None:
    """A new rollout with this number; None when another process made one meanwhile."""
    try:
        storage.create(f"{rollouts_prefix(plan.line)}{number:06d}/plan.json", dump_plan(plan, clock()))
    except ObjectExistsError:
        return None
    return RolloutRecord(storage, plan.line, number, clock=clock)
