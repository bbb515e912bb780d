"""Thing groups of AWS IoT, and the things in them."""

from botocore.exceptions import ClientError

from inspection.errors import RolloutError
from inspection.fleet.greengrass.clients import Clients
from inspection.fleet.greengrass.errors import code_of, explained, is_missing


class ThingGroups:
    """The thing groups of the account and region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def arn(self, group: str) -> str:
        """The ARN of a group, which deployments name as their target.

        Raises:
            RolloutError: there is no such group.
        """
        with explained(f"looking for the thing group {group}", self._clients.region, "iot"):
            try:
                answer = self._clients.iot.describe_thing_group(thingGroupName=group)
            except ClientError as error:
                self._refuse_missing(group, error)
                raise
        arn: str = answer["thingGroupArn"]
        return arn

    def members(self, group: str) -> tuple[str, ...]:
        """Things of a group and of the groups in it, sorted.

        Raises:
            RolloutError: there is no such group.
        """
        things: set[str] = set()
        with explained(f"listing the things of the group {group}", self._clients.region, "iot"):
            pages = self._clients.iot.get_paginator("list_things_in_thing_group")
            try:
                for page in pages.paginate(thingGroupName=group, recursive=True):
                    things.update(page.get("things", []))
            except ClientError as error:
                self._refuse_missing(group, error)
                raise
        return tuple(sorted(things))

    def _refuse_missing(self, group: str, error: ClientError) -> None:
        if is_missing(error) or code_of(error) == "InvalidRequestException":
            account = self._clients.identity[1]
            raise RolloutError(
                f"there is no thing group {group!r} in {self._clients.region} of account {account}; create it by "
                f"`aws iot create-thing-group --thing-group-name {group} --region {self._clients.region}` and add "
                f"devices by `aws iot add-thing-to-thing-group --thing-group-name {group} --thing-name …`, or correct "
                "[fleet] canary_group, wave_groups or region"
            ) from error
