"""A rollout that is killed anywhere, at every single change it makes, and started again ends as if nothing had been."""

from collections.abc import Callable
from typing import Any

import pytest
from fake_fleet import MODEL, MemoryStorage
from test_rollout import GROUPS, Plant, publish

from inspection.errors import RolloutError
from inspection.fleet.rollout.record import rollout_numbers
from inspection.fleet.rollout.timeline import Outcome


class KilledError(BaseException):
    """The process is gone."""


class Killer:
    """Kills at one change, before or after it took effect; without a number it only counts."""

    def __init__(self, at: int | None = None, after: bool = False) -> None:
        self.at, self.after, self.changes = at, after, 0

    def wrap(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*args: Any, **options: Any) -> Any:
            self.changes += 1
            mine = self.changes == self.at
            if mine and not self.after:
                raise KilledError
            result = change(*args, **options)
            if mine:
                raise KilledError
            return result

        return changed


class WatchedStorage(MemoryStorage):
    """What the rollout writes; the devices write to the same objects unwatched."""

    def __init__(self, other: MemoryStorage, killer: Killer) -> None:
        super().__init__()
        self.objects = other.objects
        self.write = killer.wrap(other.write)  # type: ignore[method-assign]
        self.create = killer.wrap(other.create)  # type: ignore[method-assign]


def arm(plant: Plant, killer: Killer) -> tuple[Any, ...]:
    """Watch every change that a rollout makes; gives what was there before."""
    before = (plant.storage, plant.fleet.deploy, plant.registry.roll_back)
    plant.storage = WatchedStorage(plant.storage, killer)
    plant.fleet.deploy = killer.wrap(plant.fleet.deploy)  # type: ignore[method-assign]
    plant.registry.roll_back = killer.wrap(plant.registry.roll_back)  # type: ignore[method-assign]
    return before


def disarm(plant: Plant, before: tuple[Any, ...]) -> None:
    plant.storage, plant.fleet.deploy, plant.registry.roll_back = before  # type: ignore[method-assign]


def make(scene: str) -> Plant:
    """A plant in which a rollout goes well, or goes wrong late, or goes back."""
    plant = Plant(groups=GROUPS, shadow_parts=60, canary_parts=20)
    for device in plant.fleet.devices.values():
        device.parts_per_tick = 30
    if scene == "breach":
        plant.fleet.devices["device-3"].fails[f"{MODEL} 7.0.0"] = "no space left"
    if scene == "back":
        publish(plant, "5.0.0")
    return plant


def act(plant: Plant, scene: str, run: str) -> Outcome:
    return plant.back(run) if scene == "back" else plant.deploy(run=run)


def left_behind(plant: Plant, outcome: Outcome) -> tuple[Any, ...]:
    return (
        (outcome.outcome, outcome.reason, outcome.number, outcome.serving),
        plant.fleet.made,
        plant.models(),
        plant.registry.statuses,
        plant.registry.calls,
        rollout_numbers(plant.storage, "dots"),
    )


@pytest.mark.parametrize("scene", ["good", "breach", "back"])
def test_a_rollout_killed_at_any_change_ends_as_if_nothing_had_been(scene: str) -> None:
    counter = Killer()
    plant = make(scene)
    before = arm(plant, counter)
    outcome = act(plant, scene, "DeployFlow/1")
    disarm(plant, before)
    wanted = left_behind(plant, outcome)
    assert wanted[0][0] == {"good": "deployed", "breach": "rolled-back", "back": "went-back"}[scene]
    assert counter.changes > 10
    for number in range(1, counter.changes + 1):
        for after in (False, True):
            plant = make(scene)
            before = arm(plant, Killer(number, after))
            with pytest.raises(KilledError):
                act(plant, scene, "DeployFlow/1")
            disarm(plant, before)
            outcome = act(plant, scene, "DeployFlow/1")
            assert left_behind(plant, outcome) == wanted, f"killed {'after' if after else 'before'} change {number}"


def test_another_run_goes_on_when_the_first_was_killed_for_good() -> None:
    counter = Killer()
    plant = make("good")
    before = arm(plant, counter)
    wanted = left_behind(plant, act(plant, "good", "DeployFlow/1"))
    disarm(plant, before)
    for number in range(1, counter.changes, 3):
        plant = make("good")
        before = arm(plant, Killer(number))
        with pytest.raises(KilledError):
            act(plant, "good", "DeployFlow/1")
        disarm(plant, before)
        unowned = not any("/owners/" in key for key in plant.storage.objects)
        if not unowned:
            with pytest.raises(RolloutError, match=r"DeployFlow/1 \(process \d+ on .*has been deploying model 7"):
                act(plant, "good", "DeployFlow/2")
        plant.fleet.now += 200
        assert left_behind(plant, act(plant, "good", "DeployFlow/2")) == wanted


def test_a_run_that_was_taken_over_changes_nothing_more() -> None:
    plant = make("good")
    first = plant.open(run="DeployFlow/1")
    first.shadow()
    plant.fleet.now += 3600
    second = plant.open(run="DeployFlow/2")
    made = len(plant.fleet.made)
    with pytest.raises(RolloutError, match=r"DeployFlow/2 .*has taken it over"):
        first.canary()
    with pytest.raises(RolloutError, match="has taken it over"):
        first.roll_back("no reason")
    assert len(plant.fleet.made) == made
    assert second.run().outcome == "deployed"


@pytest.mark.parametrize("scene", ["good", "breach"])
def test_a_rollout_killed_at_any_change_can_be_undone_wholly(scene: str) -> None:
    counter = Killer()
    plant = make(scene)
    had = {group: dict(found.components) for group, found in plant.fleet.newest_deployment.items()}
    before = arm(plant, counter)
    act(plant, scene, "DeployFlow/1")
    disarm(plant, before)
    undone = 0
    for number in range(1, counter.changes + 1):
        for after in (False, True):
            plant = make(scene)
            before = arm(plant, Killer(number, after))
            with pytest.raises(KilledError):
                act(plant, scene, "DeployFlow/1")
            disarm(plant, before)
            if not rollout_numbers(plant.storage, "dots") or "end.json" in " ".join(plant.storage.objects):
                continue  # nothing was begun, or all was over
            plant.fleet.now += 200
            outcome = plant.back("DeployFlow/2")
            assert outcome.number == 1
            assert outcome.outcome == "rolled-back", f"killed {'after' if after else 'before'} change {number}"
            assert {group: found.components for group, found in plant.fleet.newest_deployment.items()} == had
            assert plant.registry.statuses[7] == "rolled-back"
            assert set(plant.models().values()) == {"6"}
            undone += 1
    assert undone > 10
