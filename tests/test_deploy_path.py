"""What the deploy flow's steps do, on devices that run the real inspector: in order, and when something is wrong."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from card_reading import pictures_of, text_of
from deploying import Card, Deploying, broken_inspector, flow_run, plant, quick_build
from local_fleet import LINE, NAMES, Rig, fleet_of, register, wait_until

from inspection.deploy_path import choosing, publishing, reporting
from inspection.deploy_path.rolling import _open
from inspection.errors import RegistryError, RolloutError, SettingsError
from inspection.fleet.local import devices
from inspection.fleet.overview import look_over
from inspection.fleet.rollout.record import rollout_numbers
from inspection.fleet.rollout.timeline import Outcome
from inspection.registry.interface import ModelVersion
from inspection.settings import parse_settings

pytestmark = pytest.mark.slow


def models(deploying: Deploying, rig: Rig) -> dict[str, int | None]:
    """Which model serves on each device."""
    return {one.thing: one.model for one in look_over(rig.fleet, rig.storage, deploying.settings)}


def told(rig: Rig) -> list[dict[str, Any]]:
    """The notifications, oldest first."""
    return [json.loads(rig.storage.read(key)) for key in rig.storage.list(f"fleet/{LINE}/notifications/")]


def version(rig: Rig, number: int) -> ModelVersion:
    return rig.registry.get(LINE, number)


def test_models_go_out_one_after_the_other_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with plant(tmp_path, monkeypatch, "good") as (deploying, rig):
        first = deploying.run()
        assert (first.outcome, first.serving) == ("deployed", 1), first.reason
        assert models(deploying, rig) == {"device-1": 1, "device-2": 1, "device-3": 1}
        assert "Model 1 serves on the whole fleet" in deploying.said

        again = deploying.run(number=2)
        assert again.outcome == "unchanged"
        assert len(told(rig)) == 1

        register(deploying.settings, rig.folder / "packages", "float")
        second = deploying.run(number=3)
        assert (second.outcome, second.serving) == ("deployed", 2), second.reason
        assert models(deploying, rig) == {"device-1": 2, "device-2": 2, "device-3": 2}
        text = text_of(deploying.card.components)
        assert "The new model beside the old one" in text
        assert "Both models judged the same" in text
        assert "Model 2 serves on the whole fleet" in text
        assert len(pictures_of(deploying.card.components)) >= 4
        assert [one["outcome"] for one in told(rig)] == ["deployed", "deployed"]

        back = deploying.run(number=4, rollback=True, why="it fails good parts")
        assert (back.outcome, back.serving) == ("went-back", 1), back.reason
        assert models(deploying, rig) == {"device-1": 1, "device-2": 1, "device-3": 1}
        assert version(rig, 2).status == "rolled-back"
        assert "it fails good parts" in version(rig, 2).history[-1].why
        assert deploying.choose(number=5).version == 1  # what was withdrawn is not deployed again by itself
        assert [one["outcome"] for one in told(rig)][-1] == "went-back"


def test_a_model_that_fails_its_self_test_is_taken_back_while_the_old_one_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plant(tmp_path, monkeypatch, "good", comparison="none") as (deploying, rig):
        assert deploying.run().outcome == "deployed"
        before = rig.report("device-1")
        register(deploying.settings, rig.folder / "packages", "tampered")
        outcome = deploying.run(number=2)
        assert outcome.outcome == "rolled-back"
        assert "self-test" in outcome.reason
        assert models(deploying, rig) == {"device-1": 1, "device-2": 1, "device-3": 1}
        after = rig.report("device-1")
        assert before is not None
        assert after is not None
        assert after.serving == before.serving
        assert after.up_s >= before.up_s  # it never stopped
        deployed = rig.fleet.deployed("canary")
        assert deployed is not None
        assert deployed.components[NAMES.model] == "1.0.0"
        rest = rig.fleet._cloud.newest("fleet")
        assert rest is not None
        assert rest.id == "fleet-000001"  # one deployment ever, the first model's
        assert version(rig, 2).status == "rolled-back"
        assert "self-test" in version(rig, 2).history[-1].why
        (_, message) = told(rig)
        assert message["subject"].startswith(f"Line {LINE}: Model 2 was taken back, and model 1 serves")
        assert "self-test" in message["text"]
        assert message["facts"]["serving"] == 1
        text = text_of(deploying.card.components)
        assert "the rest of the fleet was never touched" in text
        assert f"lineside registry approve {LINE} 2" in text


def test_a_challenger_that_decides_otherwise_is_found_before_it_decides_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plant(tmp_path, monkeypatch, "good", "other") as (deploying, rig):
        assert deploying.run("1").outcome == "deployed"
        outcome = deploying.run(number=2)
        assert outcome.outcome == "rolled-back"
        assert "accepts what the champion does not, or the reverse, on 100.0% of the parts" in outcome.reason
        assert models(deploying, rig) == {"device-1": 1, "device-2": 1, "device-3": 1}
        status = {one.thing: one for one in look_over(rig.fleet, rig.storage, deploying.settings)}["device-1"]
        assert status.verdicts["fail"] == 0  # every verdict was the old model's
        wait_until(lambda: NAMES.challenger not in rig.fleet.status("canary")[0].components)
        text = text_of(deploying.card.components)
        assert "model 2 says fail" in text
        assert "**beyond**" in text
        assert "Who is right?" in text or "none has arrived" in text


def test_an_inspector_that_ends_again_and_again_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with plant(tmp_path, monkeypatch, "good", "float") as (deploying, rig):
        assert deploying.run("1").outcome == "deployed"
        with monkeypatch.context() as patch:
            broken_inspector(tmp_path, patch)
            outcome = deploying.run(number=2)
        assert outcome.outcome == "rolled-back"
        assert NAMES.inspector in outcome.reason
        wait_until(lambda: models(deploying, rig) == {"device-1": 1, "device-2": 1, "device-3": 1})
        assert all(one.well for one in look_over(rig.fleet, rig.storage, deploying.settings))


def test_a_canary_that_is_away_ends_in_a_rollback_when_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plant(tmp_path, monkeypatch, "good", canary_timeout_minutes=0.05) as (deploying, rig):
        rig.fleet.set_online("device-1", False)
        outcome = deploying.run()
        assert outcome.outcome == "rolled-back"
        assert "time is over" in outcome.reason
        assert "device-1: offline" in outcome.reason
        assert rig.fleet.deployed("fleet") is None


def test_a_device_that_is_away_holds_no_wave_up_when_the_settings_allow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plant(tmp_path, monkeypatch, "good", max_failed_devices=0.5) as (deploying, rig):
        rig.fleet.set_online("device-3", False)
        outcome = deploying.run()
        assert outcome.outcome == "deployed", outcome.reason
        assert models(deploying, rig) == {"device-1": 1, "device-2": 1, "device-3": None}
        states = {one.thing: one.state for one in look_over(rig.fleet, rig.storage, deploying.settings)}
        assert states == {"device-1": "ok", "device-2": "ok", "device-3": "offline"}
        assert "offline" in text_of(deploying.card.components)


class TestRefusals:
    """All before anything is changed, each with what to do."""

    @pytest.fixture
    def quiet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """A line whose devices do not run."""
        monkeypatch.setattr(devices, "start", lambda settings, things=(): ())
        with fleet_of(tmp_path, start=False) as rig:
            yield Deploying(rig.settings), rig

    def test_an_empty_registry_says_how_to_fill_it(self, quiet) -> None:
        with pytest.raises(RegistryError, match=r"want an approved model, found no version; train one with"):
            quiet[0].choose()

    def test_a_pending_model_says_how_it_is_approved(self, quiet) -> None:
        deploying, rig = quiet
        register(rig.settings, rig.folder / "packages", approve=False)
        for model in ("", "1"):
            with pytest.raises(RegistryError, match=r"lineside registry approve tiny 1 --by"):
                deploying.choose(model)

    def test_a_model_that_was_rolled_back_says_by_whom_and_why(self, quiet) -> None:
        deploying, rig = quiet
        rig.register("good")
        rig.registry.roll_back(LINE, 1, "bob", "too many false alarms")
        with pytest.raises(RegistryError, match=r"rolled-back \(by bob, .*too many false alarms"):
            deploying.choose("1")

    def test_a_version_that_is_none_is_refused(self, quiet) -> None:
        deploying, rig = quiet
        rig.register("good")
        with pytest.raises(RegistryError, match="want version 9, found versions 1 to 1"):
            deploying.choose("9")
        with pytest.raises(RegistryError, match="want the number of a version such as 7"):
            deploying.choose("seven")
        with pytest.raises(SettingsError, match="--rollback and --model: want one of them"):
            deploying.choose("1", rollback=True)

    def test_a_thing_group_without_devices_is_named(self, quiet) -> None:
        deploying, rig = quiet
        rig.register("good")
        document = {
            "line": {"name": LINE, "storage": rig.settings.line.storage},
            "fleet": {"local": {"groups": {"canary": [], "fleet": ["device-2"]}}},
        }
        deploying.settings = parse_settings(document, "a test")
        with pytest.raises(RolloutError, match=r"group canary: want a thing group with devices.*add it to"):
            deploying.choose()

    def test_a_rollback_without_a_model_to_go_back_to_is_refused(self, quiet) -> None:
        deploying, rig = quiet
        with pytest.raises(RolloutError, match=r"--rollback: want a deployed model, found none.*deploy one with"):
            deploying.choose(rollback=True)
        rig.register("good")
        published = rig.publish(1)
        rig.fleet.deploy("canary", rig.wanted(published), "by hand")
        with pytest.raises(RegistryError, match=r"--rollback: want an approved version below 1"):
            deploying.choose(rollback=True)

    def test_a_component_version_that_is_taken_is_refused(self, quiet, monkeypatch: pytest.MonkeyPatch) -> None:
        deploying, rig = quiet
        rig.register("good")
        monkeypatch.setattr(publishing, "build_components", quick_build)
        publishing.publish(deploying.settings, deploying.choose())
        elsewhere = dict(line={"name": LINE, "storage": str(rig.folder / "elsewhere")})
        elsewhere["fleet"] = {"local": {"folder": str(rig.settings.local_fleet_folder)}}
        other = Deploying(parse_settings(elsewhere, "a test"))  # the same devices, another registry
        register(other.settings, rig.folder / "packages-elsewhere", "float")
        with pytest.raises(RolloutError, match=rf"{NAMES.model} 1\.0\.0: taken by other content.*component_prefix"):
            publishing.publish(other.settings, other.choose())
        assert [one.version for one in rig.fleet.versions(NAMES.inspector)] == ["1.0.0"]  # nothing was changed

    def test_the_second_of_two_runs_is_refused_until_the_first_is_gone(
        self, quiet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deploying, rig = quiet
        rig.register("good", "float")
        monkeypatch.setattr(publishing, "build_components", quick_build)
        choice = deploying.choose()
        published = publishing.publish(deploying.settings, choice)
        assert published is not None
        first = _open(deploying.settings, choice, published, flow_run(1), lambda view: None)
        with pytest.raises(RolloutError, match=r"DeployFlow/1 .*deploying model 2 since .*lineside fleet abort tiny"):
            deploying.choose(number=2)
        with pytest.raises(RolloutError, match=r"lineside fleet abort tiny"):
            deploying.choose(number=2, rollback=True)
        assert deploying.choose(number=1).version == 2  # a retry of the first goes on
        # It is killed without a word, and gave no sign of life for long.
        monkeypatch.setattr(type(first.record), "last_beat", lambda self: 0.0)
        assert deploying.choose(number=2).version == 2
        with pytest.raises(RolloutError, match=r"want to deploy model 1, found rollout 1 of model 2 unfinished"):
            deploying.choose("1", number=2)
        undo = deploying.choose(number=2, rollback=True)
        assert (undo.withdrawn, undo.version, undo.back) == (2, None, True)
        assert rollout_numbers(rig.storage, LINE) == (1,)

    def test_what_is_half_undone_is_finished_by_the_next_run(self, quiet, monkeypatch: pytest.MonkeyPatch) -> None:
        deploying, rig = quiet
        rig.register("good", "float")
        monkeypatch.setattr(publishing, "build_components", quick_build)
        rig.fleet.deploy("canary", rig.wanted(rig.publish(1)), "before")
        choice = deploying.choose()
        published = publishing.publish(deploying.settings, choice)
        assert published is not None
        rollout = _open(deploying.settings, choice, published, flow_run(1), lambda view: None)
        rollout.record.add("back", "rolling-back", reason="it rejects more", outcome="rolled-back")
        rig.registry.roll_back(LINE, 2, "deploy flow", "it rejects more")
        monkeypatch.setattr(type(rollout.record), "last_beat", lambda self: 0.0)  # killed here
        found = deploying.choose(number=2)  # as on a schedule
        assert (found.version, found.withdrawn, found.back) == (1, 2, True)

    def test_an_outcome_that_nobody_was_told_is_told_by_the_next_run(
        self, quiet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deploying, rig = quiet
        monkeypatch.setattr(publishing, "build_components", quick_build)
        rig.register("good", "float")
        choice = deploying.choose()
        published = publishing.publish(deploying.settings, choice)
        assert published is not None
        rollout = _open(deploying.settings, choice, published, flow_run(1), lambda view: None)
        rollout.record.finish("rolled-back", "it rejects more")  # killed here
        assert told(rig) == []
        reporting.watch(Card(), deploying.settings, choice, published)
        reporting.watch(Card(), deploying.settings, choice, published)
        assert [(one["outcome"], one["rollout"]) for one in told(rig)] == [("rolled-back", 1)]

    def test_a_model_that_was_withdrawn_since_it_was_chosen_begins_no_rollout(
        self, quiet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from deploying import quick_build

        from inspection.deploy_path.rolling import _open

        deploying, rig = quiet
        rig.register("good", "float")
        monkeypatch.setattr(publishing, "build_components", quick_build)
        choice = deploying.choose()
        published = publishing.publish(deploying.settings, choice)
        assert published is not None
        rig.registry.roll_back(LINE, 2, "bob", "false alarms")
        with pytest.raises(RegistryError, match=r"version 2: want an approved model, found it rolled-back .by bob"):
            _open(deploying.settings, choice, published, flow_run(1), lambda view: None)
        assert rollout_numbers(rig.storage, LINE) == ()

    def test_a_withdrawn_model_that_still_serves_is_left_at_once(self, quiet) -> None:
        deploying, rig = quiet
        rig.register("good", "float")
        published = rig.publish(2)
        rig.fleet.deploy("canary", rig.wanted(published), "by hand")
        assert not deploying.choose("1").back  # approved, and somebody wants the older one: compared like any other
        rig.registry.roll_back(LINE, 2, "bob", "false alarms")
        choice = deploying.choose()
        assert (choice.version, choice.back, choice.withdrawn) == (1, True, 2)


def test_who_runs_a_rollout_is_the_run_and_what_it_resumes() -> None:
    resumed = choosing.owner_of(flow_run(2, origin=1))
    assert resumed.belongs_to(choosing.owner_of(flow_run(1)))
    assert not resumed.belongs_to(choosing.owner_of(flow_run(3)))


@pytest.mark.parametrize(("back", "outcome", "red"), [(False, "rolled-back", True), (True, "rolled-back", False)])
def test_a_run_is_red_when_its_model_was_taken_back_unless_that_was_asked_for(
    back: bool, outcome: str, red: bool
) -> None:
    choice = choosing.Choice(LINE, 7, "ab" * 32, back, None, "ann", "complaints")
    ended = Outcome(outcome, "why", LINE, 3, 7, 6, (), None)
    with pytest.raises(RolloutError, match="model 7 was not deployed") if red else nullcontext():
        reporting.refuse_unless_deployed(choice, ended)
