"""Runs a rollout: shadow, canary, waves, or back. Killed anywhere and started again, it goes on where it was."""

import logging
import time
from collections.abc import Callable
from typing import Any

from inspection.errors import RolloutError, StorageError
from inspection.fleet.interface import Fleet
from inspection.fleet.rollout.comparison import Comparison
from inspection.fleet.rollout.devices import DeviceView
from inspection.fleet.rollout.events import Event, decision, find_event
from inspection.fleet.rollout.observer import Look, Observer
from inspection.fleet.rollout.record import RolloutRecord, TakenOverError
from inspection.fleet.rollout.rollback import served_after, undo, wait_for_devices
from inspection.fleet.rollout.stages import Stage, before_stage, describe_stage
from inspection.fleet.rollout.tally import Tally
from inspection.fleet.rollout.timeline import OnChange, Outcome, View, outcome_of
from inspection.registry.interface import Registry
from inspection.settings import Settings
from inspection.storage import Storage

_log = logging.getLogger(__name__)
GRACE_S = 150.0  # after a pause, devices with a wrong clock need two reports before they count
BLIND_LOOKS = 10  # looks that may fail one after the other, since networks do, before the run fails


class Rollout:
    """A rollout at work. Each of `shadow`, `canary` and `waves` does nothing when the plan has no such stage, when it
    passed before, or when the rollout has ended.

    Args:
        fleet: the fleet.
        storage: of the line.
        settings: of the line.
        record: the rollout, owned by this process.
        registry: of the line's models.
        by: who withdraws a model that is rolled back.
        clock: gives the unix time.
        sleep: waits so many seconds.
        on_change: called after every look.
    """

    def __init__(
        self,
        fleet: Fleet,
        storage: Storage,
        settings: Settings,
        record: RolloutRecord,
        registry: Registry,
        by: str = "deploy flow",
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        on_change: OnChange | None = None,
    ) -> None:
        self._fleet, self._storage, self._settings, self.record = fleet, storage, settings, record
        self._registry, self._by, self._clock, self._sleep = registry, by, clock, sleep
        self._on_change = on_change
        self._poll_s = settings.fleet.poll_seconds
        self._devices: tuple[DeviceView, ...] = ()
        self._comparison: Comparison | None = None

    def run(self) -> Outcome:
        """All stages."""
        self.shadow()
        self.canary()
        return self.waves()

    def shadow(self) -> Outcome:
        """Compare the challenger with the champion on the canaries' parts.

        Raises:
            RolloutError: the fleet cannot be asked or changed; started again, the rollout goes on.
        """
        return self._stages("shadow")

    def canary(self) -> Outcome:
        """Let the canaries serve the new model."""
        return self._stages("canary")

    def waves(self) -> Outcome:
        """Bring it to the rest of the fleet, and end the rollout."""
        outcome = self._stages("wave")
        if not outcome.ended:
            plan = self.record.plan
            passed = {event.stage for event in self.record.events() if event.what == "passed"}
            missing = [stage for stage in plan.stages if stage not in passed]
            if missing:
                raise RolloutError(f"rollout {self.record.number}: want all stages passed, found {missing} to do")
            if plan.stages:
                self.record.finish("deployed", f"model {plan.model_version} serves in {', '.join(plan.groups)}")
            else:
                self.record.finish("unchanged", f"every group has model {plan.model_version} already")
            self._show("")
        return outcome_of(self.record)

    def roll_back(self, reason: str, outcome: str = "rolled-back") -> Outcome:
        """Undo the rollout: every touched group gets back what it had, and the model is marked rolled back.

        Args:
            reason: why.
            outcome: rolled-back or aborted.

        Raises:
            RolloutError: something could not be undone; started again, it goes on.
        """
        record, plan = self.record, self.record.plan
        if record.end() is not None:
            return outcome_of(record)
        decided = decision(record.events())
        if decided is None:
            record.check_owner()
            details = {"comparison": self._comparison.to_document()} if self._comparison else {}
            decided = record.add("back", "rolling-back", reason=reason, outcome=outcome, **details)
        self._show("back")
        reason = decided.details["reason"]
        undo(self._fleet, self._registry, record, self._by, reason, self._sleep, self._poll_s)
        missing = wait_for_devices(
            self._fleet,
            record,
            served_after(plan, record.events()),
            self._clock,
            self._sleep,
            self._poll_s,
            lambda: self._show("back"),
        )
        record.finish(decided.details["outcome"], reason, not_there=list(missing))
        self._show("back")
        return outcome_of(record)

    def _stages(self, kind: str) -> Outcome:
        if self.record.end() is not None or decision(self.record.events()) is not None:
            return self.roll_back("")  # what was decided is finished, also after a crash
        for name in self.record.plan.stages:
            if name.split(" ")[0] != kind:
                continue
            outcome = self._stage(name)
            if outcome.ended:
                return outcome
        return outcome_of(self.record)

    def _stage(self, name: str) -> Outcome:
        record, plan = self.record, self.record.plan
        events = record.events()
        passed = {event.stage for event in events if event.what == "passed"}
        if name in passed:
            return outcome_of(record)
        missing = [stage for stage in plan.stages[: plan.stages.index(name)] if stage not in passed]
        if missing:
            raise RolloutError(f"rollout {record.number}: {name}: want {', '.join(missing)} passed first")
        wanted = record.abort_request()
        if wanted is not None:
            return self.roll_back(wanted, "aborted")
        stage = self._describe(name)
        started = find_event(events, name, "started") or self._start(stage)
        deployed = find_event(record.events(), name, "deployed") or self._deploy(stage)
        return self._watch(stage, started, deployed.details["id"])

    def _describe(self, name: str) -> Stage:
        plan = self.record.plan
        group = name.removeprefix("wave ") if name.startswith("wave ") else plan.canary_group
        return describe_stage(plan, name, self._settings.fleet, len(self._fleet.members(group)))

    def _start(self, stage: Stage) -> Event:
        canary = find_event(self.record.events(), "canary", "started")
        before = before_stage(
            self._storage,
            self._fleet,
            self.record.plan,
            stage.name,
            stage.group,
            canary.details["baseline"] if canary is not None else {},
        )
        self.record.check_owner()
        return self.record.add(stage.name, "started", **before)

    def _deploy(self, stage: Stage) -> Event:
        """Deploy what the stage is about; the intention is recorded first, so that a rollback knows of it."""
        plan, record = self.record.plan, self.record
        record.check_owner()
        if find_event(record.events(), stage.name, "deploying") is None:
            record.add(stage.name, "deploying", group=stage.group)
        label = f"{plan.line} model {plan.model_version}: {stage.name}"
        deployment = self._fleet.deploy(stage.group, plan.target(stage.name), label)
        return record.add(stage.name, "deployed", group=stage.group, id=deployment.id)

    def _watch(self, stage: Stage, started: Event, deployment: str) -> Outcome:
        record, plan = self.record, self.record.plan
        tally = self._tally(stage, started)
        observer = Observer(self._fleet, self._storage, plan, stage, started.details, tally)
        kept: dict[str, Any] = {}
        blind, since = 0, self._clock()
        while True:
            try:
                record.check_owner()
                record.beat()
                wanted = record.abort_request()
                look = None if wanted is not None else self._look(observer, stage, deployment)
                if tally.to_document() != kept:
                    kept = tally.to_document()
                    record.keep_tally({"stage": stage.name, "counters": kept})
                blind = 0
            except TakenOverError:
                raise
            except (RolloutError, StorageError) as error:
                blind += 1
                if blind >= BLIND_LOOKS:
                    raise
                _log.warning("event=look_failed stage=%r attempt=%d error=%r", stage.name, blind, str(error))
                self._sleep(self._poll_s)
                continue
            if look is None:
                return self.roll_back(str(wanted), "aborted")
            now = self._clock()
            if look.verdict == "continue" and now - started.at > stage.timeout_s and now - since >= GRACE_S:
                look = observer.too_late(look)
            self._devices, self._comparison = look.devices, look.comparison
            if look.verdict == "breach":
                return self.roll_back(f"{stage.name}: {look.reason}")
            if look.verdict == "pass":
                comparison = look.comparison.to_document()
                record.add(stage.name, "passed", reason=look.reason, comparison=comparison)
                self._show(stage.name)
                return outcome_of(record)
            self._show(stage.name)
            self._sleep(self._poll_s)

    def _look(self, observer: Observer, stage: Stage, deployment: str) -> Look:
        """One look, after a look at whether the group still has what this stage gave it."""
        plan = self.record.plan
        newest = self._fleet.deployed(stage.group)
        ours = newest is not None and plan.is_in(newest.components, stage.name)
        look = observer.look(newest.id if newest is not None and ours else deployment, self._clock())
        if newest is None or not newest.active or not ours:
            found = "none" if newest is None else f"{newest.id}, which has other versions of our components"
            if newest is not None and not newest.active:
                found = f"{newest.id}, which was cancelled"
            failures = "; ".join(f"{one.thing}: {one.message}" for one in look.devices if one.state == "failed")
            reason = f"group {stage.group}: want deployment {deployment} to be the newest, found {found}"
            return Look("breach", f"{reason} {failures}".strip(), look.devices, look.comparison)
        return look

    def _tally(self, stage: Stage, started: Event) -> Tally:
        kept = self.record.tally()
        if kept.get("stage") == stage.name:
            return Tally(kept["counters"])
        tally = Tally()
        for thing, counts in started.details["counts"].items():
            tally.begin(thing, counts)
        return tally

    def _show(self, stage: str) -> None:
        if self._on_change is None:
            return
        record = self.record
        self._on_change(
            View(
                number=record.number,
                plan=record.plan,
                at=self._clock(),
                stage=stage,
                events=record.events(),
                devices=self._devices,
                comparison=self._comparison,
                end=record.end(),
            )
        )
