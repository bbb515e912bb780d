"""The AWS clients that a Greengrass fleet works with.

Credentials and endpoints (`AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_GREENGRASSV2`, …) come from boto3's own environment and
files.
"""

import functools
from typing import Any

import boto3
from botocore.config import Config

from inspection.fleet.greengrass.errors import explained
from inspection.settings import Settings

ATTEMPTS = 8  # of a request that AWS throttles or fails, with growing pauses: about half a minute together
CONNECTIONS = 16


class Clients:
    """Clients of one region, made when they are first needed.

    Args:
        settings: `[fleet] region`; without it the environment's.

    Raises:
        RolloutError: there is no region.
    """

    def __init__(self, settings: Settings) -> None:
        self._wanted_region = settings.fleet.region or None
        with explained("opening the fleet", settings.fleet.region):
            self.region: str = self.greengrass.meta.region_name

    @functools.cached_property
    def greengrass(self) -> Any:
        """Components, deployments, core devices."""
        return self._client("greengrassv2")

    @functools.cached_property
    def iot(self) -> Any:
        """Things and thing groups."""
        return self._client("iot")

    @functools.cached_property
    def s3(self) -> Any:
        """Artifacts."""
        return self._client("s3")

    @functools.cached_property
    def identity(self) -> tuple[str, str]:
        """Partition, such as `aws`, and account that the credentials belong to."""
        with explained("asking whose credentials these are", self.region, "sts"):
            caller = self._client("sts").get_caller_identity()
        return caller["Arn"].split(":")[1], caller["Account"]

    def component_arn(self, name: str) -> str:
        """The ARN of a component; those that AWS provides belong to it."""
        partition, account = self.identity
        owner = "aws" if name.startswith("aws.greengrass.") else account
        return f"arn:{partition}:greengrass:{self.region}:{owner}:components:{name}"

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload]  # the stubs know some services only
            region_name=self._wanted_region,
            config=Config(
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                connect_timeout=10,
                read_timeout=60,
                max_pool_connections=CONNECTIONS,
            ),
        )
