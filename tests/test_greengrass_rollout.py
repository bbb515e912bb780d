"""What is built is published, deployed and rolled out on AWS IoT Greengrass, with boto3's own client throughout."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from building import register_model
from fake_fleet import FakeDevice, digest_of
from fleet_contract import CANARY, CHALLENGER, FLEET, MODEL, OTHER, REFUSAL, publish
from greengrass_bench import GreengrassBench, settings_of

from inspection.errors import RolloutError
from inspection.fleet.components.built import Built
from inspection.fleet.components.publishing import publish_all
from inspection.fleet.greengrass.fleet import GreengrassFleet
from inspection.fleet.interface import ComponentSetting, Deployment
from inspection.fleet.recipes import run_with
from inspection.fleet.reports import health_key
from inspection.fleet.rollout.opening import open_or_continue
from inspection.fleet.rollout.owners import Owner
from inspection.fleet.rollout.planning import Release, make_plan
from inspection.fleet.rollout.rollout import Rollout
from inspection.fleet.rollout.timeline import Outcome
from inspection.registry.local import LocalRegistry
from inspection.storage import open_storage

pytest_plugins = ["s3_server", "greengrass_fixtures", "building_fixtures"]

LINE = "dots"
INSPECTOR, RUNTIME = "lineside.Inspector.dots", "lineside.Runtime"


def test_what_is_built_is_published_once_and_installed_by_a_device(
    bench: GreengrassBench, build: Callable[..., Built], tmp_path: Path
) -> None:
    fleet = GreengrassFleet(settings_of("tiny"), sleep=lambda seconds: None)
    built = build()
    published = publish_all(fleet, built)
    assert len(published.new) == 4
    assert publish_all(fleet, built) == replace(published, new=())
    device = bench.double.devices["device-1"]
    device.root = tmp_path / "greengrass"
    device.passes = {RUNTIME}  # it would make a virtual environment
    inspector, model = "lineside.Inspector.tiny", "lineside.Model.tiny"
    wanted: dict[str, ComponentSetting | None] = {
        RUNTIME: ComponentSetting(published.runtime),
        inspector: ComponentSetting(published.inspector, run_with(512, 1.0)),
        model: ComponentSetting(published.model),
    }
    fleet.deploy(CANARY, wanted, "tiny model 1: canary")
    bench.double.run()
    (status,) = fleet.status(CANARY)
    assert (status.state, status.error) == ("succeeded", "")
    assert (device.root / "work" / model / "current" / "contract.json").is_file()
    limits = bench.deployment(CANARY)["components"][inspector]["runWith"]["systemResourceLimits"]
    assert limits == {"memory": 512 * 1024, "cpus": 1.0}


def test_a_model_that_was_changed_in_the_bucket_is_not_installed(
    bench: GreengrassBench, build: Callable[..., Built], registry: LocalRegistry, tmp_path: Path
) -> None:
    fleet = GreengrassFleet(settings_of("tiny"), sleep=lambda seconds: None)
    device, model = bench.double.devices["device-1"], "lineside.Model.tiny"
    device.root = tmp_path / "greengrass"
    first = publish_all(fleet, build())
    second = publish_all(fleet, build(register_model(registry, tmp_path / "second", "float32")))
    fleet.deploy(CANARY, {model: ComponentSetting(first.model)}, "tiny model 1")
    bench.double.run()
    serving = (device.root / "work" / model / "current").resolve()
    (key,) = [
        entry["Key"]
        for entry in bench.double.s3.list_objects_v2(Bucket="parts")["Contents"]
        if f"{model}/{second.model}/" in entry["Key"]
    ]
    bench.double.s3.put_object(Bucket="parts", Key=key, Body=b"tampered")
    fleet.deploy(CANARY, {model: ComponentSetting(second.model)}, "tiny model 2")
    bench.double.run()
    (status,) = fleet.status(CANARY)
    assert status.state == "failed"
    assert f"{model} {second.model} is BROKEN" in status.error
    assert (device.root / "work" / model / "current").resolve() == serving


class Plant:
    """A line on the double: its devices take what is deployed, judge parts, and report into S3 as the rule does."""

    def __init__(self, bench: GreengrassBench, **options: Any) -> None:
        self.bench = bench
        bench.double.page_size = 100
        self.settings = settings_of(
            shadow_parts=100, canary_parts=20, canary_timeout_minutes=30.0, wave_timeout_minutes=30.0, **options
        )
        self.storage = open_storage(self.settings.storage_root)
        self.now = time.time()
        self.fleet = GreengrassFleet(self.settings, clock=self.clock, sleep=lambda seconds: None)
        bench.fleet = self.fleet
        self.inspectors = {
            thing: FakeDevice(thing, CANARY if thing == "device-1" else FLEET) for thing in bench.double.devices
        }
        self.withdrawn: dict[int, str] = {}
        publish(bench, OTHER, "1.2.3")
        publish(bench, RUNTIME, "1.0.0")
        publish(bench, INSPECTOR, "1.0.0")
        publish(bench, MODEL, "6.0.0", "7.0.0")
        publish(bench, CHALLENGER, "7.0.0")
        for group in (CANARY, FLEET):
            bench.deploy_by_hand(group, {OTHER: {"componentVersion": "1.2.3"}}, tags={"owner": "plant"})
            wanted = {RUNTIME: "1.0.0", INSPECTOR: "1.0.0", MODEL: "6.0.0"}
            self.fleet.deploy(group, {name: ComponentSetting(version) for name, version in wanted.items()}, "champion")
        for _ in range(4):
            self.sleep(30.0)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass in the cloud, on the devices and in the storage."""
        self.now += seconds
        self.bench.double.minute()
        for thing, inspector in self.inspectors.items():
            installed = self.bench.double.devices[thing].installed
            whole = {name: one.version for name, one in installed.items() if one.state != "BROKEN"}
            if whole != inspector.installed:
                if MODEL not in whole and MODEL in inspector.installed:
                    whole[MODEL] = inspector.installed[MODEL]  # the last good package serves on
                inspector.receive(Deployment("", inspector.group, whole, True))
            inspector.inspect()
            message = json.dumps(inspector.health(self.now)).encode()
            self.storage.write(health_key(LINE, thing), message)

    def serving(self) -> dict[str, int]:
        return {thing: int(inspector.serving or "0", 16) for thing, inspector in self.inspectors.items()}

    def deploy(self) -> Outcome:
        components = {MODEL: "7.0.0", INSPECTOR: "1.0.0", RUNTIME: "1.0.0"}
        release = Release(
            model_version=7,
            archive_sha256="ab" * 32,
            digest=digest_of(7),
            model=MODEL,
            challenger=CHALLENGER,
            components={name: ComponentSetting(version) for name, version in components.items()},
            challenger_version="7.0.0",
        )
        record = open_or_continue(
            self.storage,
            LINE,
            7,
            Owner.here("DeployFlow/1"),
            lambda: make_plan(self.fleet, self.settings, release, digest_of),
            self.settings.fleet.poll_seconds,
            self.clock,
        )
        registry: Any = self
        return Rollout(
            self.fleet, self.storage, self.settings, record, registry, clock=self.clock, sleep=self.sleep
        ).run()

    # What a rollout asks of a registry

    def get(self, line: str, version: int) -> Any:
        status = "rolled-back" if version in self.withdrawn else "approved"
        return type("Version", (), {"version": version, "status": status, "archive_sha256": "ab" * 32})

    def list(self, line: str) -> tuple[Any, ...]:
        return tuple(self.get(line, version) for version in (6, 7))

    def roll_back(self, line: str, version: int, by: str, why: str) -> None:
        self.withdrawn[version] = why


def test_a_good_model_gets_from_the_canary_to_the_fleet_beside_what_others_deployed(bench: GreengrassBench) -> None:
    plant = Plant(bench)
    assert plant.serving() == {"device-1": 6, "device-2": 6, "device-3": 6}
    plant.fleet.check([CANARY, FLEET])
    outcome = plant.deploy()
    assert outcome.outcome == "deployed", outcome.reason
    assert plant.serving() == {"device-1": 7, "device-2": 7, "device-3": 7}
    assert plant.withdrawn == {}
    for group in (CANARY, FLEET):
        found = bench.deployment(group)
        assert found["components"][OTHER] == {"componentVersion": "1.2.3"}
        assert found["tags"]["owner"] == "plant"
        assert CHALLENGER not in found["components"]


def test_a_model_that_a_canary_cannot_install_goes_back_and_the_fleet_is_untouched(bench: GreengrassBench) -> None:
    plant = Plant(bench, comparison="none")
    recipe = bench.double.components.recipe(MODEL, "7.0.0")
    recipe["Manifests"][0]["Lifecycle"]["install"]["Script"] = f"echo '{REFUSAL}' >&2; exit 1"
    before = bench.deployment(FLEET)["deploymentId"]
    outcome = plant.deploy()
    assert outcome.outcome == "rolled-back"
    assert f"{MODEL} 7.0.0 is BROKEN" in outcome.reason
    assert list(plant.withdrawn) == [7]
    assert plant.serving() == {"device-1": 6, "device-2": 6, "device-3": 6}
    assert bench.deployment(FLEET)["deploymentId"] == before
    back = bench.deployment(CANARY)["components"]
    assert (back[MODEL]["componentVersion"], back[OTHER]["componentVersion"]) == ("6.0.0", "1.2.3")


def test_a_rollout_goes_on_after_the_service_was_down(bench: GreengrassBench) -> None:
    plant = Plant(bench, comparison="none")
    bench.double.fail("ExpiredTokenException", operation="CreateDeployment")
    with pytest.raises(RolloutError, match="credentials have expired"):
        plant.deploy()
    bench.double.fail("ThrottlingException", operation="ListInstalledComponents", times=2)
    bench.double.fail("ServiceUnavailable", operation="CreateDeployment", after=True)
    outcome = plant.deploy()
    assert outcome.outcome == "deployed", outcome.reason
    assert plant.serving() == {"device-1": 7, "device-2": 7, "device-3": 7}
