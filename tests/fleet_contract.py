"""What every fleet does, whatever carries it: the test class that each back end passes, and tiny components for it.

A back end's test module makes a class of its own that inherits from `FleetContract` and gives the fixture `bench`.
"""

import hashlib
import json
import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from inspection.errors import RolloutError
from inspection.fleet.interface import ComponentSetting, ComponentVersion, DeviceStatus, Fleet

MODEL = "lineside.Model.dots"
CHALLENGER = "lineside.Challenger.dots"
OTHER = "com.example.Other"  # somebody else's

CANARY = "canary"
FLEET = "fleet"
CANARIES = ("device-1",)
REST = ("device-2", "device-3")

REFUSAL = "want sha256 aa11 of model.tflite, found bb22"  # what a failing install says on the device


class Bench(Protocol):
    """A fleet with the groups `canary` (device-1) and `fleet` (device-2, device-3), none of which has a deployment."""

    fleet: Fleet
    folder: Path  # for the files of components

    def reopen(self) -> Fleet:
        """The same fleet as another process would see it."""
        ...

    def settle(self, group: str) -> None:
        """Wait until every device of the group that is online is done with the group's newest deployment."""
        ...

    def offline(self, thing: str) -> None:
        """Take a device off the network; it keeps what it has."""
        ...

    def online(self, thing: str) -> None:
        """Bring it back."""
        ...


def tiny_component(
    bench: Bench,
    name: str,
    version: str,
    content: str = "a",
    refuses: str = "",
    dependencies: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> ComponentVersion:
    """A component whose artifact is one zip with an install script, and whose `run` ends at once.

    Args:
        bench: whose fleet gives the URIs.
        name: of the component.
        version: of the component.
        content: goes into the artifact and so into the digest.
        refuses: what the install script says before it fails; "" = it succeeds.
        dependencies: `ComponentDependencies` of the recipe.
        tags: beside the digest.
    """
    folder = bench.folder / name / version / hashlib.sha256(f"{content}{refuses}".encode()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "package.zip"
    with zipfile.ZipFile(archive, "w") as file:
        script = f"echo {shlex.quote(refuses)} >&2\nexit 1\n" if refuses else "echo installed\n"
        file.writestr(zipfile.ZipInfo("install.sh", (1980, 1, 1, 0, 0, 0)), script)
        file.writestr(zipfile.ZipInfo("content.txt", (1980, 1, 1, 0, 0, 0)), content)
    recipe: dict[str, Any] = {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": name,
        "ComponentVersion": version,
        "ComponentDescription": "A component for tests",
        "ComponentPublisher": "Tests",
        "Manifests": [
            {
                "Platform": {"os": "linux", "runtime": "*"},
                "Artifacts": [{"Uri": bench.fleet.artifact_uri(name, version, "package.zip"), "Unarchive": "ZIP"}],
                "Lifecycle": {
                    "install": {"Script": "sh {artifacts:decompressedPath}/package/install.sh"},
                    "run": {"Script": "echo ok"},
                },
            }
        ],
    }
    if dependencies:
        recipe["ComponentDependencies"] = dict(dependencies)
    digest = hashlib.sha256(archive.read_bytes() + json.dumps(dependencies or {}).encode()).hexdigest()
    return ComponentVersion(name, version, recipe, {"package.zip": archive}, digest, tags or {})


def publish(bench: Bench, name: str, *versions: str, **more: Any) -> None:
    """Publish tiny versions of a component."""
    for version in versions:
        bench.fleet.publish(tiny_component(bench, name, version, content=version, **more))


def state_of(bench: Bench, group: str, thing: str) -> DeviceStatus:
    """The status of one device."""
    return {status.thing: status for status in bench.fleet.status(group)}[thing]


class FleetContract:
    """Inherit, and give the fixture `bench`."""

    @pytest.fixture
    def bench(self) -> Bench:
        """A fresh bench for each test."""
        raise NotImplementedError

    # Component versions

    def test_a_fleet_without_components_says_so(self, bench: Bench) -> None:
        assert bench.fleet.newest(MODEL) is None
        assert bench.fleet.find(MODEL, "1.0.0") is None
        assert bench.fleet.versions(MODEL) == ()

    def test_a_published_version_is_found_with_its_digest_and_tags(self, bench: Bench) -> None:
        component = tiny_component(bench, MODEL, "7.0.0", tags={"lineside-model": "ab" * 32})
        published = bench.fleet.publish(component)
        assert (published.name, published.version, published.digest) == (MODEL, "7.0.0", component.digest)
        assert published.tags["lineside-model"] == "ab" * 32
        assert bench.fleet.find(MODEL, "7.0.0") == published
        assert bench.fleet.newest(MODEL) == published
        assert bench.reopen().versions(MODEL) == (published,)

    def test_publishing_the_same_again_gives_what_is_there(self, bench: Bench) -> None:
        first = bench.fleet.publish(tiny_component(bench, MODEL, "7.0.0"))
        assert bench.fleet.publish(tiny_component(bench, MODEL, "7.0.0")) == first
        assert bench.reopen().publish(tiny_component(bench, MODEL, "7.0.0")) == first
        assert len(bench.fleet.versions(MODEL)) == 1

    def test_a_version_that_is_taken_by_other_content_is_refused_and_stays(self, bench: Bench) -> None:
        first = bench.fleet.publish(tiny_component(bench, MODEL, "7.0.0", content="a"))
        with pytest.raises(RolloutError, match=rf"{MODEL} 7\.0\.0.*other content"):
            bench.fleet.publish(tiny_component(bench, MODEL, "7.0.0", content="b"))
        assert bench.fleet.find(MODEL, "7.0.0") == first

    def test_versions_are_ordered_by_number_not_by_text(self, bench: Bench) -> None:
        publish(bench, MODEL, "9.0.0", "10.0.0", "9.0.1")
        assert [found.version for found in bench.fleet.versions(MODEL)] == ["9.0.0", "9.0.1", "10.0.0"]
        newest = bench.fleet.newest(MODEL)
        assert newest is not None
        assert newest.version == "10.0.0"

    def test_components_whose_names_begin_alike_are_told_apart(self, bench: Bench) -> None:
        publish(bench, MODEL, "1.0.0")
        publish(bench, f"{MODEL}-2", "2.0.0")
        assert [found.version for found in bench.fleet.versions(MODEL)] == ["1.0.0"]
        assert bench.fleet.find(MODEL, "2.0.0") is None

    def test_an_artifact_has_a_place_of_its_own_for_each_version(self, bench: Bench) -> None:
        uris = {
            bench.fleet.artifact_uri(name, version, file)
            for name in (MODEL, OTHER)
            for version in ("1.0.0", "1.0.1")
            for file in ("a.zip", "b.zip")
        }
        assert len(uris) == 8
        assert all(uri.startswith("s3://") for uri in uris)
        assert bench.fleet.artifact_uri(MODEL, "1.0.0", "a.zip").endswith(f"/{MODEL}/1.0.0/a.zip")

    def test_an_artifact_that_the_recipe_does_not_name_is_refused(self, bench: Bench) -> None:
        component = tiny_component(bench, MODEL, "1.0.0")
        strange = ComponentVersion(
            MODEL, "1.0.0", component.recipe, {"other.zip": component.artifacts["package.zip"]}, component.digest
        )
        with pytest.raises(RolloutError, match=r"package\.zip"):
            bench.fleet.publish(strange)
        assert bench.fleet.find(MODEL, "1.0.0") is None

    # Groups

    def test_members_of_a_group_are_sorted(self, bench: Bench) -> None:
        assert bench.fleet.members(CANARY) == CANARIES
        assert bench.fleet.members(FLEET) == REST

    def test_groups_that_are_there_pass_the_check(self, bench: Bench) -> None:
        bench.fleet.check([CANARY, FLEET])

    def test_a_missing_group_is_named_with_what_to_do(self, bench: Bench) -> None:
        for ask in (
            lambda: bench.fleet.check([CANARY, "wave-2"]),
            lambda: bench.fleet.members("wave-2"),
            lambda: bench.fleet.deployed("wave-2"),
            lambda: bench.fleet.status("wave-2"),
            lambda: bench.fleet.deploy("wave-2", {}, "to nowhere"),
            lambda: bench.fleet.cancel("wave-2"),
        ):
            with pytest.raises(RolloutError, match=r"(?s)wave-2.*(create|add|correct|\[fleet)"):
                ask()

    def test_a_group_that_never_had_a_deployment_says_so(self, bench: Bench) -> None:
        assert bench.fleet.deployed(CANARY) is None
        bench.fleet.cancel(CANARY)
        status = bench.fleet.status(CANARY)
        assert [one.thing for one in status] == list(CANARIES)
        assert [one.deployment for one in status] == [""]
        assert MODEL not in status[0].components

    # Deployments

    def test_a_deployment_arrives_on_every_device_of_its_group_only(self, bench: Bench) -> None:
        publish(bench, MODEL, "7.0.0")
        made = bench.fleet.deploy(FLEET, {MODEL: ComponentSetting("7.0.0")}, "dots model 7: fleet")
        assert made.group == FLEET
        assert made.active
        assert made.components[MODEL] == "7.0.0"
        assert bench.fleet.deployed(FLEET) == made
        bench.settle(FLEET)
        status = bench.fleet.status(FLEET)
        assert [(one.thing, one.group, one.deployment, one.state, one.error) for one in status] == [
            (thing, FLEET, made.id, "succeeded", "") for thing in REST
        ]
        assert [one.components[MODEL] for one in status] == ["7.0.0", "7.0.0"]
        assert [one.states[MODEL] for one in status] == ["FINISHED", "FINISHED"]
        assert all(one.seen_at is not None for one in status)
        assert bench.fleet.deployed(CANARY) is None
        assert MODEL not in state_of(bench, CANARY, "device-1").components

    def test_the_state_of_a_device_is_one_of_those_before_it_is_done(self, bench: Bench) -> None:
        publish(bench, MODEL, "7.0.0")
        bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
        assert state_of(bench, CANARY, "device-1").state in ("waiting", "in-progress", "succeeded")

    def test_the_same_deployment_again_is_not_made(self, bench: Bench) -> None:
        publish(bench, MODEL, "7.0.0")
        first = bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
        assert bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7, again").id == first.id
        assert bench.reopen().deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "after a crash").id == first.id
        bench.settle(CANARY)
        assert bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "when it is done").id == first.id

    def test_a_component_is_added_replaced_and_removed_beside_others(self, bench: Bench) -> None:
        publish(bench, MODEL, "7.0.0", "8.0.0")
        publish(bench, CHALLENGER, "8.0.0")
        publish(bench, OTHER, "1.2.3")
        deploy = bench.fleet.deploy
        deploy(CANARY, {OTHER: ComponentSetting("1.2.3")}, "somebody else's")
        deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "first")
        deploy(CANARY, {CHALLENGER: ComponentSetting("8.0.0")}, "shadow")
        components = deploy(CANARY, {MODEL: ComponentSetting("8.0.0"), CHALLENGER: None}, "canary").components
        assert components[OTHER] == "1.2.3"
        assert components[MODEL] == "8.0.0"
        assert CHALLENGER not in components
        bench.settle(CANARY)
        installed = state_of(bench, CANARY, "device-1").components
        assert installed[OTHER] == "1.2.3"
        assert installed[MODEL] == "8.0.0"
        assert CHALLENGER not in installed

    def test_removing_what_is_not_there_changes_nothing(self, bench: Bench) -> None:
        publish(bench, MODEL, "7.0.0")
        first = bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
        assert bench.fleet.deploy(CANARY, {CHALLENGER: None}, "no shadow").id == first.id

    def test_a_version_that_was_never_published_cannot_be_deployed(self, bench: Bench) -> None:
        publish(bench, MODEL, "7.0.0")
        first = bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
        with pytest.raises(RolloutError, match=rf"{MODEL}.*9\.0\.0"):
            bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("9.0.0")}, "dots model 9")
        assert bench.fleet.deployed(CANARY) == first

    def test_going_back_brings_the_version_before(self, bench: Bench) -> None:
        publish(bench, MODEL, "7.0.0", "8.0.0")
        bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
        bench.settle(CANARY)
        newer = bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("8.0.0")}, "dots model 8")
        bench.settle(CANARY)
        assert state_of(bench, CANARY, "device-1").components[MODEL] == "8.0.0"
        back = bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "back", everywhere_at_once=True)
        assert back.id != newer.id
        bench.settle(CANARY)
        status = state_of(bench, CANARY, "device-1")
        assert (status.deployment, status.state, status.components[MODEL]) == (back.id, "succeeded", "7.0.0")

    def test_going_back_to_nothing_removes_the_component(self, bench: Bench) -> None:
        publish(bench, MODEL, "7.0.0")
        publish(bench, OTHER, "1.2.3")
        bench.fleet.deploy(CANARY, {OTHER: ComponentSetting("1.2.3")}, "somebody else's")
        bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
        bench.settle(CANARY)
        bench.fleet.deploy(CANARY, {MODEL: None}, "back", everywhere_at_once=True)
        bench.settle(CANARY)
        status = state_of(bench, CANARY, "device-1")
        assert status.state == "succeeded"
        assert MODEL not in status.components
        assert status.components[OTHER] == "1.2.3"

    # What goes wrong on devices

    def test_a_failed_install_is_told_with_the_devices_error_and_mended_by_the_version_before(
        self, bench: Bench
    ) -> None:
        publish(bench, MODEL, "7.0.0")
        bench.fleet.publish(tiny_component(bench, MODEL, "8.0.0", refuses=REFUSAL))
        bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
        bench.settle(CANARY)
        bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("8.0.0")}, "dots model 8")
        bench.settle(CANARY)
        status = state_of(bench, CANARY, "device-1")
        assert status.state == "failed"
        assert MODEL in status.error
        bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "back", everywhere_at_once=True)
        bench.settle(CANARY)
        status = state_of(bench, CANARY, "device-1")
        assert (status.state, status.error, status.components[MODEL]) == ("succeeded", "", "7.0.0")

    def test_an_offline_device_is_told_apart_and_catches_up(self, bench: Bench) -> None:
        publish(bench, MODEL, "7.0.0")
        bench.offline("device-3")
        bench.fleet.deploy(FLEET, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
        bench.settle(FLEET)
        assert state_of(bench, FLEET, "device-2").state == "succeeded"
        away = state_of(bench, FLEET, "device-3")
        assert away.state == "offline"
        assert MODEL not in away.components
        bench.online("device-3")
        bench.settle(FLEET)
        back = state_of(bench, FLEET, "device-3")
        assert (back.state, back.components[MODEL]) == ("succeeded", "7.0.0")

    def test_a_cancelled_deployment_does_not_arrive_later_and_is_made_anew(self, bench: Bench) -> None:
        publish(bench, MODEL, "7.0.0")
        bench.offline("device-3")
        first = bench.fleet.deploy(FLEET, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
        bench.settle(FLEET)
        bench.fleet.cancel(FLEET)
        bench.fleet.cancel(FLEET)  # once more, by a retry
        cancelled = bench.fleet.deployed(FLEET)
        assert cancelled is not None
        assert not cancelled.active
        bench.online("device-3")
        bench.settle(FLEET)
        assert MODEL not in state_of(bench, FLEET, "device-3").components
        assert state_of(bench, FLEET, "device-3").state != "succeeded"
        again = bench.fleet.deploy(FLEET, {MODEL: ComponentSetting("7.0.0")}, "dots model 7 again")
        assert again.id != first.id
        assert again.active
        bench.settle(FLEET)
        assert [one.components[MODEL] for one in bench.fleet.status(FLEET)] == ["7.0.0", "7.0.0"]

    def test_a_cancelled_deployment_still_keeps_the_components_of_others(self, bench: Bench) -> None:
        publish(bench, MODEL, "7.0.0")
        publish(bench, OTHER, "1.2.3")
        bench.fleet.deploy(CANARY, {OTHER: ComponentSetting("1.2.3")}, "somebody else's")
        bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
        bench.fleet.cancel(CANARY)
        again = bench.fleet.deploy(CANARY, {MODEL: None}, "back")
        assert again.components[OTHER] == "1.2.3"
        assert MODEL not in again.components
