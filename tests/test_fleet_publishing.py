"""Versions of published components: what is new, what is the same, what is taken."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from building import contract_digest, line_settings, register_model
from memory_fleet import MemoryFleet

from inspection.errors import RolloutError
from inspection.fleet.components.build import build_components
from inspection.fleet.components.built import Built
from inspection.fleet.components.publishing import model_choice, publish_all, publish_component, rising_choice
from inspection.fleet.interface import MODEL_TAG, ComponentVersion, PublishedVersion
from inspection.fleet.recipe_checks import recipe_faults
from inspection.registry.local import LocalRegistry
from inspection.storage import open_storage

pytest_plugins = ["building_fixtures"]
RUNTIME, INSPECTOR = "lineside.Runtime", "lineside.Inspector.tiny"
MODEL, CHALLENGER = "lineside.Model.tiny", "lineside.Challenger.tiny"


def test_the_first_of_everything_is_published_and_the_same_again_is_not(
    build: Callable[..., Built], registry: LocalRegistry, tmp_path: Path
) -> None:
    fleet = MemoryFleet()
    built = build()
    first = publish_all(fleet, built)
    assert (first.runtime, first.inspector, first.model, first.challenger) == ("1.0.0", "1.0.0", "1.0.0", "1.0.0")
    assert set(first.new) == {RUNTIME, INSPECTOR, MODEL, CHALLENGER} == set(first.sizes)
    assert first.digest == contract_digest(tmp_path / "first")
    for name in (MODEL, CHALLENGER):
        assert fleet.published[name]["1.0.0"].tags[MODEL_TAG] == registry.get("tiny", 1).archive_sha256
    calls = len(fleet.calls)
    assert publish_all(fleet, build(1, scratch="another")) == replace(first, new=())
    assert len(fleet.calls) == calls


def test_every_published_recipe_is_one_that_both_nuclei_run(build: Callable[..., Built]) -> None:
    fleet = MemoryFleet()
    publish_all(fleet, build())
    for versions in fleet.published.values():
        for component in versions.values():
            assert recipe_faults(dict(component.recipe)) == []
            assert component.recipe["ComponentName"] == component.name
            assert component.recipe["ComponentVersion"] == component.version
            uris = [artifact["Uri"] for each in component.recipe["Manifests"] for artifact in each["Artifacts"]]
            wanted = [fleet.artifact_uri(component.name, component.version, file) for file in component.artifacts]
            assert sorted(uris) == sorted(wanted)


def test_a_new_model_leaves_runtime_and_inspector_as_they_are(
    build: Callable[..., Built], registry: LocalRegistry, tmp_path: Path
) -> None:
    fleet = MemoryFleet()
    publish_all(fleet, build())
    second = publish_all(fleet, build(register_model(registry, tmp_path / "second", "float32")))
    assert second.new == (MODEL, CHALLENGER)
    assert (second.runtime, second.inspector, second.model, second.challenger) == ("1.0.0", "1.0.0", "2.0.0", "2.0.0")


def test_another_configuration_is_another_inspector_and_nothing_else(build: Callable[..., Built]) -> None:
    fleet = MemoryFleet()
    publish_all(fleet, build())
    changed = publish_all(fleet, build(1, inspector={"deadline_ms": 500}))
    assert changed.new == (INSPECTOR,)
    assert changed.inspector == "1.1.0"
    configuration = fleet.published[INSPECTOR]["1.1.0"].recipe["ComponentConfiguration"]["DefaultConfiguration"]
    assert configuration["deadline_ms"] == "500"
    back = publish_all(fleet, build(1))
    assert back.inspector == "1.2.0", "versions only rise, also on the way back"


def test_another_runtime_brings_another_inspector_which_waits_for_it(
    build: Callable[..., Built], tmp_path: Path
) -> None:
    fleet = MemoryFleet()
    publish_all(fleet, build())
    wheel = next((tmp_path / "wheels").glob("tqdm-*.whl"))
    data = wheel.read_bytes()
    sums = tmp_path / "wheels" / "SHA256SUMS"
    wheel.write_bytes(data + b"\0")
    sums.write_text(sums.read_text() + f"{hashlib.sha256(data + bytes(1)).hexdigest()}  {wheel.name}\n")
    changed = publish_all(fleet, build(1))
    assert changed.new == (RUNTIME, INSPECTOR)
    assert (changed.runtime, changed.inspector) == ("1.1.0", "1.1.0")
    recipe = fleet.published[INSPECTOR]["1.1.0"].recipe
    assert recipe["Manifests"][0]["Lifecycle"]["run"]["Script"].endswith(" 1.1.0")
    assert recipe["ComponentDependencies"][RUNTIME]["VersionRequirement"] == ">=1.1.0 <2.0.0"


def test_another_packing_of_the_same_model_is_its_next_patch(build: Callable[..., Built]) -> None:
    fleet = MemoryFleet()
    publish_all(fleet, build())
    changed = publish_all(fleet, build(1, publisher="Somebody Else"))
    assert (changed.model, changed.challenger) == ("1.0.1", "1.0.1")
    assert publish_all(fleet, build(1, publisher="Somebody Else")).new == ()


def test_a_models_version_that_another_model_has_is_refused_before_anything_is_published(
    build: Callable[..., Built],
) -> None:
    fleet = MemoryFleet()
    built = build()
    stranger = ComponentVersion(MODEL, "1.0.0", {}, {}, "other", {MODEL_TAG: "f" * 64})
    fleet.publish(stranger)
    with pytest.raises(RolloutError, match=f"{MODEL} 1.0.0: taken by other content: want the model whose archive"):
        publish_all(fleet, built)
    assert fleet.calls == [(MODEL, "1.0.0")]


def test_a_models_version_of_somebody_else_is_refused(build: Callable[..., Built]) -> None:
    fleet = MemoryFleet()
    fleet.publish(ComponentVersion(MODEL, "1.0.3", {}, {}, "", {}))
    with pytest.raises(RolloutError, match=r"not from this registry.*component_prefix"):
        publish_all(fleet, build())


def test_versions_of_other_models_are_no_hindrance(build: Callable[..., Built], registry: LocalRegistry) -> None:
    fleet = MemoryFleet()
    fleet.publish(ComponentVersion(MODEL, "10.0.0", {}, {}, "", {MODEL_TAG: "f" * 64}))
    assert publish_all(fleet, build()).model == "1.0.0"


def test_versions_count_on_from_the_newest_whoever_published_it(build: Callable[..., Built]) -> None:
    fleet = MemoryFleet()
    fleet.publish(ComponentVersion(RUNTIME, "3.9.4", {}, {}, "", {}))
    assert publish_all(fleet, build()).runtime == "3.10.0"
    assert fleet.newest(RUNTIME).version == "3.10.0", "in the order of numbers, not of letters"


class OvertakenFleet(MemoryFleet):
    """Somebody else publishes each version a moment before us."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def publish(self, component: ComponentVersion) -> PublishedVersion:
        if self.times:
            self.times -= 1
            super().publish(replace(component, digest=f"of somebody else {self.times}"))
        return super().publish(component)


def test_of_two_who_publish_at_once_the_second_takes_the_next_version(build: Callable[..., Built]) -> None:
    built = build()
    fleet = OvertakenFleet(2)
    assert publish_component(fleet, built.runtime, rising_choice).version == "1.2.0"
    fleet = OvertakenFleet(1)
    assert publish_component(fleet, built.model, partial(model_choice, number=1)).version == "1.0.1"
    with pytest.raises(RolloutError, match="somebody else was faster each time"):
        publish_component(OvertakenFleet(1000), built.runtime, rising_choice)


def test_what_a_fleet_refuses_is_not_tried_again(build: Callable[..., Built]) -> None:
    class RefusingFleet(MemoryFleet):
        def publish(self, component: ComponentVersion) -> PublishedVersion:
            self.calls.append((component.name, component.version))
            raise RolloutError("access denied")

    fleet = RefusingFleet()
    with pytest.raises(RolloutError, match="access denied"):
        publish_component(fleet, build().runtime, rising_choice)
    assert len(fleet.calls) == 1


def test_a_publishing_that_was_killed_goes_on_where_it_was(build: Callable[..., Built]) -> None:
    fleet = MemoryFleet()
    built = build()
    publish_component(fleet, built.model, partial(model_choice, number=1))
    publish_component(fleet, built.runtime, rising_choice)
    done = publish_all(fleet, built)
    assert done.new == (INSPECTOR, CHALLENGER)
    assert (done.runtime, done.model) == ("1.0.0", "1.0.0")


def test_lines_share_the_runtime(tmp_path: Path, build: Callable[..., Built]) -> None:
    fleet = MemoryFleet()
    publish_all(fleet, build())
    other = line_settings(tmp_path)
    other = replace(other, line=replace(other.line, name="other"))
    registry = LocalRegistry(open_storage(other.storage_root))
    number = register_model(registry, tmp_path / "other", line="other")
    built = build_components(other, registry, number, tmp_path / "scratch", tmp_path / "cache")
    published = publish_all(fleet, built)
    assert published.runtime == "1.0.0"
    assert RUNTIME not in published.new
