"""Rollouts on a fleet in memory: what goes where, what stops them, and what is left behind."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from fake_fleet import CHALLENGER, INSPECTOR, LINE, MODEL, OTHER, RUNTIME, FakeFleet, MemoryStorage, digest_of, give

from inspection.deploy_path.seeing import advice, headline
from inspection.errors import RegistryError, RolloutError
from inspection.fleet.interface import ComponentSetting, PublishedVersion
from inspection.fleet.reports import health_key
from inspection.fleet.rollout.opening import open_or_continue, request_abort
from inspection.fleet.rollout.owners import Owner
from inspection.fleet.rollout.planning import Release, make_plan
from inspection.fleet.rollout.returning import roll_back_to_previous
from inspection.fleet.rollout.rollout import Rollout
from inspection.fleet.rollout.timeline import Outcome, View, read_view, sentence
from inspection.settings import FleetSettings, LineSettings, Settings

TIMES = {"canary_timeout_minutes": 30.0, "wave_timeout_minutes": 30.0}
GROUPS = {"canary": ["device-1"], "fleet": ["device-2", "device-3"]}


class Statuses:
    """A registry that knows statuses only."""

    def __init__(self, statuses: Mapping[int, str]) -> None:
        self.statuses = dict(statuses)
        self.reasons: dict[int, str] = {}
        self.calls = 0

    def get(self, line: str, version: int) -> Any:
        if version not in self.statuses:
            raise RegistryError(f"line {line}: no version {version}")
        return type("Version", (), {"version": version, "status": self.statuses[version], "archive_sha256": "ab" * 32})

    def list(self, line: str) -> tuple[Any, ...]:
        return tuple(self.get(line, version) for version in sorted(self.statuses))

    def roll_back(self, line: str, version: int, by: str, why: str) -> None:
        assert why.isprintable()
        assert self.statuses[version] == "approved"
        self.statuses[version] = "rolled-back"
        self.reasons[version] = why
        self.calls += 1


class Plant:
    """A line with a fleet, a registry and settings, and what a test does with them."""

    def __init__(self, champion: int | None = 6, groups: Mapping[str, Any] = GROUPS, **options: Any) -> None:
        self.storage = MemoryStorage()
        self.fleet = FakeFleet(self.storage, groups)
        waves = [group for group in groups if group != "canary"]
        self.settings = Settings(
            line=LineSettings(name=LINE),
            fleet=FleetSettings(**{"wave_groups": waves, "shadow_parts": 200, "canary_parts": 20, **TIMES, **options}),
        )
        self.registry = Statuses({5: "approved", 6: "approved", 7: "approved"})
        self.views: list[View] = []
        if champion is not None:
            give(self.fleet, champion)
        self.begun = self.fleet.now

    def release(self, version: int = 7, inspector: str = "1.1.0") -> Release:
        components = {MODEL: f"{version}.0.0", INSPECTOR: inspector, RUNTIME: "1.0.0"}
        return Release(
            model_version=version,
            archive_sha256="ab" * 32,
            digest=digest_of(version),
            model=MODEL,
            challenger=CHALLENGER,
            components={name: ComponentSetting(found) for name, found in components.items()},
            challenger_version=f"{version}.0.0",
        )

    def open(self, version: int = 7, run: str = "DeployFlow/1", inspector: str = "1.1.0") -> Rollout:
        record = open_or_continue(
            self.storage,
            LINE,
            version,
            Owner.here(run),
            lambda: make_plan(self.fleet, self.settings, self.release(version, inspector), digest_of),
            self.settings.fleet.poll_seconds,
            self.fleet.clock,
        )
        return Rollout(
            self.fleet,
            self.storage,
            self.settings,
            record,
            self.registry,  # type: ignore[arg-type]
            clock=self.fleet.clock,
            sleep=self.fleet.sleep,
            on_change=self.views.append,
        )

    def deploy(self, version: int = 7, run: str = "DeployFlow/1") -> Outcome:
        return self.open(version, run).run()

    def models(self) -> dict[str, str | None]:
        """What serves on each device."""
        found = {thing: device.serving for thing, device in sorted(self.fleet.devices.items())}
        return {thing: None if digest is None else str(int(digest, 16)) for thing, digest in found.items()}

    def back(self, run: str = "DeployFlow/9", to: int | None = None) -> Outcome:
        return roll_back_to_previous(
            self.fleet,
            self.storage,
            self.settings,
            self.registry,  # type: ignore[arg-type]
            Owner.here(run),
            MODEL,
            CHALLENGER,
            digest_of,
            by="ann",
            why="complaints",
            clock=self.fleet.clock,
            sleep=self.fleet.sleep,
            to=to,
        )


@pytest.fixture
def plant() -> Plant:
    return Plant()


def test_a_good_model_goes_from_shadow_to_canary_to_the_fleet(plant: Plant) -> None:
    outcome = plant.deploy()
    assert outcome.outcome == "deployed", outcome.reason
    assert outcome.serving == 7
    assert plant.models() == {"device-1": "7", "device-2": "7", "device-3": "7"}
    assert [(group, CHALLENGER in components, components[MODEL]) for group, components in plant.fleet.made] == [
        ("canary", True, "6.0.0"),
        ("canary", False, "7.0.0"),
        ("fleet", False, "7.0.0"),
    ]
    assert all(components[OTHER] == "2.0.0" for _, components in plant.fleet.made)
    assert plant.registry.statuses[7] == "approved"


# Forward


def test_the_first_model_goes_without_a_comparison() -> None:
    plant = Plant(champion=None)
    outcome = plant.deploy()
    assert outcome.outcome == "deployed", outcome.reason
    assert [group for group, _ in plant.fleet.made] == ["canary", "fleet"]
    assert plant.models() == {"device-1": "7", "device-2": "7", "device-3": "7"}


def test_what_every_group_has_already_is_left_alone(plant: Plant) -> None:
    assert plant.deploy().outcome == "deployed"
    made = len(plant.fleet.made)
    outcome = plant.deploy(run="DeployFlow/2")
    assert (outcome.outcome, outcome.serving, outcome.number) == ("unchanged", 7, 2)
    assert len(plant.fleet.made) == made


def test_a_group_that_lacks_the_model_gets_it_and_no_other_group_is_touched() -> None:
    plant = Plant(champion=None, groups={**GROUPS, "new": ["device-4"]})
    give(plant.fleet, 7, ["canary", "fleet"])
    outcome = plant.open(inspector="1.0.0").run()
    assert outcome.outcome == "deployed", outcome.reason
    assert [group for group, _ in plant.fleet.made] == ["new"]


def test_waves_follow_one_after_the_other() -> None:
    plant = Plant(groups={"canary": ["a"], "first": ["b"], "second": ["c"]})
    plant.deploy()
    assert [group for group, _ in plant.fleet.made] == ["canary", "canary", "first", "second"]
    stages = [(event.stage, event.what) for event in plant.views[-1].events if event.what in ("deploying", "passed")]
    assert stages.index(("wave first", "passed")) < stages.index(("wave second", "deploying"))


def test_time_alone_never_promotes(plant: Plant) -> None:
    plant.fleet.devices["device-1"].parts_per_tick = 0
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert "time is over after 30 minutes" in outcome.reason
    assert "device-1: 0 of 20 parts" in outcome.reason
    assert plant.models() == {"device-1": "6", "device-2": "6", "device-3": "6"}


def test_every_canary_must_have_seen_its_parts() -> None:
    plant = Plant(groups={"canary": ["a", "b"], "fleet": ["c"]})
    plant.fleet.devices["b"].parts_per_tick = 0
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert "1 of 2 devices not done, at most 0 may (b: 0 of 20 parts)" in outcome.reason


def test_a_canary_that_is_offline_at_the_start_may_come_in_time(plant: Plant) -> None:
    plant.fleet.devices["device-1"].online = False
    plant.fleet.at.append(lambda: _online_after(plant, "device-1", 600))
    outcome = plant.deploy()
    assert outcome.outcome == "deployed", outcome.reason


def test_a_canary_that_stays_away_ends_the_rollout_and_is_named(plant: Plant) -> None:
    plant.fleet.devices["device-1"].online = False
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert "device-1: offline since" in outcome.reason
    assert plant.models()["device-2"] == "6"
    assert any("offline; it gets it when it comes back" in text for text in outcome.not_there)


def test_a_canary_that_says_nothing_more_is_not_taken_for_well(plant: Plant) -> None:
    plant.fleet.devices["device-1"].reports = False
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert "no health message since" in outcome.reason


def test_a_canary_whose_clock_is_wrong_is_believed_when_it_keeps_reporting(plant: Plant) -> None:
    plant.fleet.devices["device-1"].clock_off_s = -40_000_000.0
    outcome = plant.deploy()
    assert outcome.outcome == "deployed", outcome.reason


def test_after_a_long_pause_a_canary_with_a_wrong_clock_is_given_time_to_report(plant: Plant) -> None:
    plant.fleet.devices["device-1"].clock_off_s = -40_000_000.0

    def killed() -> None:
        if plant.fleet.newest_deployment["canary"].components[MODEL] == "7.0.0":
            raise KeyboardInterrupt

    plant.fleet.at.append(killed)
    with pytest.raises(KeyboardInterrupt):
        plant.deploy()
    plant.fleet.at.clear()
    for _ in range(80):
        plant.fleet.sleep(30.0)
    outcome = plant.deploy()
    assert outcome.outcome == "deployed", outcome.reason


def test_a_wave_may_miss_as_many_devices_as_the_settings_allow() -> None:
    plant = Plant(groups={"canary": ["a"], "fleet": ["b", "c", "d", "e"]}, max_failed_devices=0.25)
    plant.fleet.devices["e"].online = False
    outcome = plant.deploy()
    assert outcome.outcome == "deployed", outcome.reason
    assert "without e: offline" in _passed(plant, "wave fleet")


def test_one_device_too_many_missing_undoes_every_group() -> None:
    plant = Plant(groups={"canary": ["a"], "fleet": ["b", "c", "d", "e"]}, max_failed_devices=0.25)
    for thing in ("d", "e"):
        plant.fleet.devices[thing].online = False
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert "2 of 4 devices not done, at most 1 may" in outcome.reason
    assert plant.models()["a"] == plant.models()["b"] == "6"


# What stops a model


def test_a_challenger_that_swaps_the_verdicts_never_decides_anything(plant: Plant) -> None:
    def swapped(digest: str, part: int) -> str:
        odd = part % 2 == 0
        return "fail" if odd != (digest == digest_of(7)) else "pass"

    plant.fleet.devices["device-1"].judge = swapped
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert "accepts what the champion does not, or the reverse, on 100.0%" in outcome.reason
    assert all(components.get(MODEL) == "6.0.0" for _, components in plant.fleet.made)
    assert {group for group, _ in plant.fleet.made} == {"canary"}
    assert CHALLENGER not in plant.fleet.newest_deployment["canary"].components
    assert plant.registry.statuses[7] == "rolled-back"
    assert "accepts what the champion does not" in plant.registry.reasons[7]
    assert outcome.comparison is not None
    assert outcome.comparison["pairs"]


def test_a_rolled_back_group_has_exactly_what_it_had(plant: Plant) -> None:
    before = dict(plant.fleet.newest_deployment["canary"].components)
    plant.fleet.devices["device-1"].fails[f"{MODEL} 7.0.0"] = "want sha256 aa11, found bb22"
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert "device-1: the deployment failed: want sha256 aa11, found bb22" in outcome.reason
    assert_at_once(outcome)
    assert plant.fleet.newest_deployment["canary"].components == before
    assert plant.models() == {"device-1": "6", "device-2": "6", "device-3": "6"}
    assert not any(group == "fleet" for group, _ in plant.fleet.made)


def test_a_challenger_that_the_inspector_refuses_goes_back_at_once(plant: Plant) -> None:
    plant.fleet.devices["device-1"].refuses[digest_of(7)] = "the self-test failed"
    outcome = plant.deploy()
    assert "it refuses the challenger: the self-test failed" in outcome.reason
    assert_at_once(outcome)


def test_a_challenger_whose_process_dies_once_is_tried_again(plant: Plant) -> None:
    device = plant.fleet.devices["device-1"]

    def stumble() -> None:
        if device.shadow is not None:
            device.shadow["state"], device.shadow["message"] = "refused", "its process died of signal 9"
            plant.fleet.at[:] = [recover]

    def recover() -> None:
        if device.shadow is not None and device.shadow["state"] == "refused":
            device.shadow["state"] = "running"

    plant.fleet.at.append(stumble)
    outcome = plant.deploy()
    assert outcome.outcome == "deployed", outcome.reason
    assert any("its process died" in device.message for view in plant.views for device in view.devices)


def test_a_model_that_the_inspector_refuses_goes_back_at_once() -> None:
    plant = Plant(comparison="live")
    plant.fleet.devices["device-1"].refuses[digest_of(7)] = "the self-test failed"
    outcome = plant.deploy()
    assert "it refuses the model: the deployed package is refused: the self-test failed" in outcome.reason
    assert_at_once(outcome)
    assert plant.models()["device-1"] == "6"


def test_an_inspector_that_crashes_in_a_loop_ends_the_rollout(plant: Plant) -> None:
    plant.fleet.devices["device-1"].crashes.add(digest_of(7))
    outcome = plant.deploy()
    assert f"{INSPECTOR} does not stay up (it is BROKEN)" in outcome.reason
    assert_at_once(outcome)
    assert plant.models()["device-1"] == "6"
    assert plant.models()["device-2"] == "6"


def test_what_was_broken_before_the_deployment_arrived_is_not_held_against_it(plant: Plant) -> None:
    device = plant.fleet.devices["device-1"]
    plant.fleet.at.append(lambda: device.crashes.clear() if plant.fleet.now > plant.begun + 200 else None)
    device.crashes.add(digest_of(6))
    device.online = False
    plant.fleet.at.append(lambda: _online_after(plant, "device-1", 300))
    outcome = plant.deploy()
    assert outcome.outcome == "deployed", outcome.reason


def test_a_failure_in_the_last_wave_undoes_all_groups_and_withdraws_the_model() -> None:
    plant = Plant(groups={"canary": ["a"], "first": ["b"], "second": ["c"]})
    plant.fleet.devices["c"].fails[f"{MODEL} 7.0.0"] = "no space left"
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert plant.models() == {"a": "6", "b": "6", "c": "6"}
    assert plant.registry.statuses[7] == "rolled-back"


def test_a_canary_that_breaks_while_a_wave_runs_undoes_all_groups(plant: Plant) -> None:
    def leak() -> None:
        if plant.fleet.newest_deployment["fleet"].components[MODEL] == "7.0.0":
            plant.fleet.devices["device-1"].crashes.add(digest_of(7))

    plant.fleet.devices["device-2"].parts_per_tick = 0
    plant.fleet.at.append(leak)
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert "group canary, which passed before: 1 of 1 devices failed, at most 0 may" in outcome.reason
    assert plant.models() == {"device-1": "6", "device-2": "6", "device-3": "6"}


def test_what_happened_can_be_read_later_in_words(plant: Plant) -> None:
    plant.fleet.devices["device-3"].fails[f"{MODEL} 7.0.0"] = "no space left"
    plant.deploy()
    view = read_view(plant.storage, LINE, plant.fleet.clock)
    assert view is not None
    assert view.end is not None
    assert (view.end.outcome, view.plan.model_version, view.stage) == ("rolled-back", 7, "back")
    told = [sentence(event) for event in view.events]
    assert told[:3] == ["shadow: started", "shadow: deploying to group canary", told[2]]
    assert any(text.startswith("canary: passed: 1 of 1 devices done; ") for text in told)
    assert "back: model 7 is marked rolled back in the registry" in told
    assert read_view(MemoryStorage(), LINE) is None


def test_live_figures_that_drift_end_the_rollout() -> None:
    plant = Plant(comparison="live")

    def harsh(digest: str, part: int) -> str:
        return "fail" if digest == digest_of(7) and part % 4 == 0 else "pass"

    plant.fleet.devices["device-1"].judge = harsh
    for _ in range(40):
        plant.fleet.sleep(30.0)
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert "of the parts are not accepted" in outcome.reason
    assert "the champion: " in outcome.reason


def test_live_figures_like_the_champions_pass() -> None:
    plant = Plant(comparison="live")
    for _ in range(40):
        plant.fleet.sleep(30.0)
    outcome = plant.deploy()
    assert outcome.outcome == "deployed", outcome.reason
    assert "figures are within the limits" in _passed(plant, "canary")


def test_a_first_model_that_gives_errors_is_taken_off_again() -> None:
    plant = Plant(champion=None)
    plant.fleet.devices["device-1"].judge = lambda digest, part: "error" if part % 3 == 0 else "pass"
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert "have no trustworthy score" in outcome.reason
    assert_at_once(outcome)
    assert outcome.serving is None
    assert MODEL not in plant.fleet.newest_deployment["canary"].components


def test_a_new_inspector_does_not_pass_on_parts_that_the_one_before_inspected(plant: Plant) -> None:
    """It comes up and serves the model, but sees no part: the camera's address in the new settings is wrong."""
    device = plant.fleet.devices["device-1"]
    begun = plant.fleet.now

    def stop_seeing() -> None:
        """The old one goes on for a while, since the deployment takes its time to arrive; the new one sees nothing."""
        newest = plant.fleet.newest_deployment["canary"]
        late = plant.fleet.now - begun < 120
        device.online = not late or newest.components[INSPECTOR] != "1.1.0"
        if late:
            device.inspect()
            plant.storage.write(health_key(LINE, device.thing), json.dumps(device.health(plant.fleet.now)).encode())
        elif newest.components[INSPECTOR] == "1.1.0":
            device.parts_per_tick = 0

    plant.fleet.at.append(stop_seeing)
    outcome = plant.open(version=6).run()
    assert outcome.outcome == "rolled-back"
    assert "0 of 20 parts" in outcome.reason
    assert plant.registry.statuses[6] == "approved"  # the model served before, and does again
    assert plant.fleet.newest_deployment["canary"].components[INSPECTOR] == "1.0.0"


def test_a_new_inspector_that_fails_is_not_held_against_the_model(plant: Plant) -> None:
    plant.fleet.devices["device-1"].fails[f"{INSPECTOR} 1.1.0"] = "no such file"
    outcome = plant.deploy(version=6)
    assert outcome.outcome == "rolled-back"
    assert plant.registry.statuses[6] == "approved"
    assert plant.fleet.newest_deployment["canary"].components[INSPECTOR] == "1.0.0"
    view = plant.views[-1]
    assert headline(view).startswith("What was new around model 6 was taken back, and what was there before serves")
    told = " ".join(advice(view))
    assert "not to blame" in told
    assert "registry approve" not in told


def test_a_deployment_of_somebody_else_to_the_group_ends_the_rollout(plant: Plant) -> None:
    def meddle() -> None:
        newest = plant.fleet.newest_deployment["canary"]
        if CHALLENGER in newest.components:
            plant.fleet.deploy("canary", {MODEL: ComponentSetting("5.0.0"), CHALLENGER: None}, "by hand")
            plant.fleet.at.clear()

    plant.fleet.at.append(meddle)
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert "which has other versions of our components" in outcome.reason


def test_a_revision_of_other_components_of_the_group_is_nothing_to_us(plant: Plant) -> None:
    def revise() -> None:
        if CHALLENGER in plant.fleet.newest_deployment["canary"].components:
            plant.fleet.deploy("canary", {OTHER: ComponentSetting("3.0.0")}, "by hand")
            plant.fleet.at.clear()

    plant.fleet.at.append(revise)
    outcome = plant.deploy()
    assert outcome.outcome == "deployed", outcome.reason
    assert plant.fleet.newest_deployment["canary"].components[OTHER] == "3.0.0"


def test_a_cancelled_deployment_ends_the_rollout(plant: Plant) -> None:
    def cancel() -> None:
        if CHALLENGER in plant.fleet.newest_deployment["canary"].components:
            plant.fleet.cancel("canary")
            plant.fleet.at.clear()

    plant.fleet.at.append(cancel)
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert "which was cancelled" in outcome.reason
    assert CHALLENGER not in plant.fleet.newest_deployment["canary"].components


def test_a_deployment_that_was_cancelled_while_nobody_looked_is_not_made_again(plant: Plant) -> None:
    def killed() -> None:
        if CHALLENGER in plant.fleet.newest_deployment["canary"].components:
            raise KeyboardInterrupt

    plant.fleet.at.append(killed)
    with pytest.raises(KeyboardInterrupt):
        plant.deploy()
    plant.fleet.at.clear()
    plant.fleet.cancel("canary")
    outcome = plant.deploy()
    assert "which was cancelled" in outcome.reason
    assert [CHALLENGER in components for _, components in plant.fleet.made] == [True, False]


def test_a_group_without_devices_is_refused_before_anything_is_changed() -> None:
    plant = Plant(champion=None, groups={"canary": [], "fleet": ["b"]})
    with pytest.raises(RolloutError, match=r"thing group canary: want one device or more"):
        plant.deploy()
    assert plant.fleet.made == []


# Aborting


def test_an_abort_undoes_the_rollout_at_the_next_look(plant: Plant) -> None:
    def abort() -> None:
        if plant.fleet.newest_deployment["canary"].components[MODEL] == "7.0.0":
            text = request_abort(plant.storage, LINE, "ann", "wrong lot", 30.0, plant.fleet.clock)
            assert "at its next look" in text
            plant.fleet.at.clear()

    plant.fleet.at.append(abort)
    outcome = plant.deploy()
    assert (outcome.outcome, outcome.reason) == ("aborted", "aborted by ann: wrong lot")
    assert plant.models() == {"device-1": "6", "device-2": "6", "device-3": "6"}
    assert plant.registry.statuses[7] == "rolled-back"


def test_an_abort_without_a_rollout_says_what_to_do_instead(plant: Plant) -> None:
    with pytest.raises(RolloutError, match=r"want an open rollout to abort, found none.*--rollback"):
        request_abort(plant.storage, LINE, "ann", "why", 30.0, plant.fleet.clock)


# Going back


def test_going_back_brings_the_approved_model_before_to_all_groups_at_once(plant: Plant) -> None:
    assert plant.deploy().outcome == "deployed"
    plant.fleet.published = {MODEL: {}}
    for version in ("6.0.0", "7.0.0", "6.0.1"):
        publish(plant, version)
    outcome = plant.back()
    assert (outcome.outcome, outcome.serving) == ("went-back", 6)
    assert plant.models() == {"device-1": "6", "device-2": "6", "device-3": "6"}
    assert plant.fleet.newest_deployment["fleet"].components[MODEL] == "6.0.1"
    assert plant.registry.statuses == {5: "approved", 6: "approved", 7: "rolled-back"}
    assert plant.registry.reasons[7] == "rolled back by ann: complaints"
    assert plant.back().serving == 6, "the same run goes one step back, however often it is retried"


def test_going_back_to_a_named_model_passes_over_those_between(plant: Plant) -> None:
    assert plant.deploy().outcome == "deployed"
    plant.fleet.published = {MODEL: {}}
    for version in ("5.0.0", "6.0.0", "7.0.0"):
        publish(plant, version)
    assert plant.back(to=5).serving == 5
    assert plant.models() == {"device-1": "5", "device-2": "5", "device-3": "5"}


def test_going_back_to_a_model_that_serves_by_now_changes_nothing(plant: Plant) -> None:
    """Another run went back meanwhile: one step is enough."""
    with pytest.raises(RolloutError, match=r"want model 6, approved, before 6, which serves, .* found 5 approved"):
        plant.back(to=6)
    assert plant.fleet.made == []


def test_a_run_whose_rollout_another_one_undid_does_not_begin_it_again(plant: Plant) -> None:
    assert plant.open(run="DeployFlow/1").shadow().outcome == "open"
    plant.fleet.now += 3600
    assert plant.back(run="DeployFlow/2").outcome == "rolled-back"
    made = len(plant.fleet.made)
    assert plant.deploy(run="DeployFlow/1").outcome == "rolled-back"  # a retry, or a resume
    assert plant.registry.statuses[7] == "rolled-back"
    assert len(plant.fleet.made) == made


def test_going_back_without_an_earlier_approved_model_changes_nothing(plant: Plant) -> None:
    plant.registry.statuses = {6: "approved", 5: "rejected"}
    with pytest.raises(RolloutError, match="want an approved model before 6"):
        plant.back()
    assert plant.fleet.made == []


def test_going_back_without_a_deployed_model_says_so() -> None:
    with pytest.raises(RolloutError, match="want a deployed model to go back from"):
        Plant(champion=None).back()


def test_going_back_ends_a_rollout_that_nobody_is_at(plant: Plant) -> None:
    rollout = plant.open(run="DeployFlow/1")
    assert rollout.shadow().outcome == "open"
    plant.fleet.now += 3600
    outcome = plant.back()
    assert (outcome.outcome, outcome.serving, outcome.number) == ("rolled-back", 6, 1)
    assert CHALLENGER not in plant.fleet.newest_deployment["canary"].components
    assert plant.registry.statuses[7] == "rolled-back"


def test_going_back_does_not_wait_for_a_device_that_is_away(plant: Plant) -> None:
    publish(plant, "5.0.0")
    plant.fleet.devices["device-3"].online = False
    outcome = plant.back()
    assert outcome.outcome == "went-back"
    assert outcome.not_there == ("device-3: offline; it gets it when it comes back",)
    assert plant.models()["device-2"] == "5"


def test_what_cannot_be_undone_yet_is_told_and_the_next_run_goes_on_with_it(plant: Plant) -> None:
    plant.fleet.devices["device-3"].fails[f"{MODEL} 7.0.0"] = "no space left"
    deploy, broken = plant.fleet.deploy, [True]

    def flaky(group: str, wanted: Any, label: str, everywhere_at_once: bool = False) -> Any:
        if everywhere_at_once and group == "canary" and broken[0]:
            raise RolloutError("AWS answers 503")
        return deploy(group, wanted, label, everywhere_at_once)

    plant.fleet.deploy = flaky  # type: ignore[method-assign]
    with pytest.raises(RolloutError, match=r"not all of it could be: group canary: AWS answers 503"):
        plant.deploy()
    assert plant.models()["device-2"] == "6", "the other group was restored all the same"
    assert plant.registry.statuses[7] == "rolled-back"
    broken[0] = False
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert "no space left" in outcome.reason
    assert plant.models() == {"device-1": "6", "device-2": "6", "device-3": "6"}
    assert plant.registry.calls == 1


def test_a_device_whose_inspector_is_not_up_again_is_waited_for_and_named(plant: Plant) -> None:
    device = plant.fleet.devices["device-1"]
    device.fails[f"{MODEL} 7.0.0"] = "no space left"
    health = device.health

    def stopped(now: float) -> dict[str, Any]:
        back = device.installed.get(CHALLENGER) is None and len(plant.fleet.made) > 2
        return {**health(now), "state": "stopped"} if back else health(now)

    device.health = stopped  # type: ignore[method-assign]
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert outcome.not_there == ("device-1: its inspector does not run yet",)


def test_a_look_that_fails_now_and_then_does_not_end_the_run(plant: Plant) -> None:
    status, calls = plant.fleet.status, [0]

    def flaky(group: str) -> Any:
        calls[0] += 1
        if calls[0] % 5 in (1, 2):
            raise RolloutError("throttled")
        return status(group)

    plant.fleet.status = flaky  # type: ignore[method-assign]
    outcome = plant.deploy()
    assert outcome.outcome == "deployed", outcome.reason


def test_a_fleet_that_cannot_be_asked_at_all_ends_the_run_and_leaves_the_rollout_open(plant: Plant) -> None:
    rollout = plant.open()

    def away(group: str) -> Any:
        raise RolloutError("the credentials have expired; renew them")

    status, plant.fleet.status = plant.fleet.status, away  # type: ignore[method-assign]
    with pytest.raises(RolloutError, match="renew them"):
        rollout.run()
    plant.fleet.status = status  # type: ignore[method-assign]
    assert plant.deploy().outcome == "deployed"


def test_what_was_decided_is_done_even_if_the_fault_is_gone_by_then(plant: Plant) -> None:
    device = plant.fleet.devices["device-3"]
    device.fails[f"{MODEL} 7.0.0"] = "no space left"
    deploy = plant.fleet.deploy

    def killed(group: str, wanted: Any, label: str, everywhere_at_once: bool = False) -> Any:
        if everywhere_at_once:
            raise KeyboardInterrupt
        return deploy(group, wanted, label, everywhere_at_once)

    plant.fleet.deploy = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        plant.deploy()
    plant.fleet.deploy = deploy  # type: ignore[method-assign]
    device.fails.clear()
    device.receive(plant.fleet.newest_deployment["fleet"])
    plant.fleet.tick()
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert "no space left" in outcome.reason
    assert plant.models() == {"device-1": "6", "device-2": "6", "device-3": "6"}


def assert_at_once(outcome: Outcome) -> None:
    """It did not end because time was over."""
    assert "time is over" not in outcome.reason


def publish(plant: Plant, version: str) -> None:
    """Let the fleet know a version of the model's component."""
    for name, found in {MODEL: version, INSPECTOR: "1.0.0", RUNTIME: "1.0.0", OTHER: "2.0.0"}.items():
        plant.fleet.published.setdefault(name, {})[found] = PublishedVersion(name, found, "", {})


def _online_after(plant: Plant, thing: str, seconds: float) -> None:
    plant.fleet.devices[thing].online = plant.fleet.now > plant.begun + seconds


def _passed(plant: Plant, stage: str) -> str:
    found = [event for event in plant.views[-1].events if (event.stage, event.what) == (stage, "passed")]
    return str(found[0].details["reason"])
