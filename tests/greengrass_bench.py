"""A fleet on the Greengrass double with its thing groups, for tests; the fixture is in `greengrass_fixtures`."""

import functools
import time
from pathlib import Path
from typing import Any

import boto3
from fleet_contract import CANARIES, CANARY, FLEET, REST
from greengrass_double import ACCOUNT, GreengrassDouble

from inspection.fleet.greengrass.fleet import GreengrassFleet
from inspection.fleet.interface import Fleet
from inspection.settings import Settings, parse_settings

REGION = "eu-central-1"


def settings_of(line: str = "dots", **fleet: Any) -> Settings:
    registry = {"kms_key": fleet.pop("kms_key", "")}
    return parse_settings(
        {
            "line": {"name": line, "storage": "s3://parts/plant"},
            "fleet": {"backend": "greengrass", "region": REGION, **fleet},
            "registry": registry,
        },
        "line.toml",
    )


class GreengrassBench:
    """The double with its thing groups, and a fleet on it."""

    def __init__(self, double: GreengrassDouble, folder: Path) -> None:
        self.double = double
        self.folder = folder
        self.iot = double.iot
        self.now_s = 0.0  # ahead of the real time
        for group, things in ((CANARY, CANARIES), (FLEET, REST)):
            self.add_group(group, *things)
            for thing in things:
                double.add_device(thing)
        self.fleet: Fleet = self.reopen()

    def reopen(self, **fleet: Any) -> GreengrassFleet:
        return GreengrassFleet(settings_of(**fleet), clock=lambda: time.time() + self.now_s, sleep=lambda seconds: None)

    @functools.cached_property
    def cloud(self) -> Any:
        """The service as somebody else uses it."""
        return boto3.client("greengrassv2")

    def add_group(self, group: str, *things: str) -> None:
        self.iot.create_thing_group(thingGroupName=group)
        for thing in things:
            self.iot.create_thing(thingName=thing)
            self.iot.add_thing_to_thing_group(thingGroupName=group, thingName=thing)

    def settle(self, group: str) -> None:
        self.double.run()

    def offline(self, thing: str) -> None:
        self.double.devices[thing].leave()

    def online(self, thing: str) -> None:
        self.double.devices[thing].come_back()

    def deployment(self, group: str) -> dict[str, Any]:
        """The newest, as somebody else reads it."""
        found = self.cloud.list_deployments(targetArn=arn_of(group))["deployments"]
        answer: dict[str, Any] = self.cloud.get_deployment(deploymentId=found[0]["deploymentId"])
        return answer

    def deploy_by_hand(self, group: str, components: dict[str, Any], **about: Any) -> str:
        """What somebody else deploys."""
        made = self.cloud.create_deployment(targetArn=arn_of(group), components=components, **about)
        number: str = made["deploymentId"]
        return number

    def asked(self, operation: str) -> list[dict[str, Any]]:
        return [parameters for name, parameters in self.double.asked if name == operation]


def arn_of(group: str) -> str:
    return f"arn:aws:iot:{REGION}:{ACCOUNT}:thinggroup/{group}"
