"""Fixture `bench`: a fleet on the Greengrass double, with S3 and IoT on moto's server. Name it in `pytest_plugins`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from greengrass_bench import REGION, GreengrassBench
from greengrass_double import serve_greengrass


def _forget_things(iot: Any) -> None:
    for group in iot.list_thing_groups()["thingGroups"]:
        for thing in iot.list_things_in_thing_group(thingGroupName=group["groupName"])["things"]:
            iot.remove_thing_from_thing_group(thingGroupName=group["groupName"], thingName=thing)
        iot.delete_thing_group(thingGroupName=group["groupName"])
    for thing in iot.list_things()["things"]:
        iot.delete_thing(thingName=thing["thingName"])


def _forget_objects(s3: Any) -> None:
    for entry in s3.list_objects_v2(Bucket="parts").get("Contents", []):
        s3.delete_object(Bucket="parts", Key=entry["Key"])


@pytest.fixture(scope="module")
def others(s3_server: str) -> tuple[Any, Any]:
    """Clients of S3 and IoT, for the double and the tests; making one takes longer than most tests."""
    about = {"endpoint_url": s3_server, "aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client("s3", region_name=REGION, **about), boto3.client("iot", region_name=REGION, **about)


@pytest.fixture
def bench(
    s3: str, others: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GreengrassBench]:
    _forget_objects(others[0])
    _forget_things(others[1])
    with serve_greengrass(REGION, *others) as (double, address):
        monkeypatch.setenv("AWS_ENDPOINT_URL_GREENGRASSV2", address)
        yield GreengrassBench(double, tmp_path)
