"""Deployments in AWS IoT Greengrass: one for each thing group, revised as a whole."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from inspection.errors import RolloutError
from inspection.fleet.greengrass.clients import Clients
from inspection.fleet.greengrass.errors import code_of, explained, is_missing
from inspection.fleet.greengrass.revision import same_components, versions_of
from inspection.fleet.interface import Deployment

_log = logging.getLogger(__name__)

Revise = Callable[[Mapping[str, Any] | None], dict[str, Any]]

_STANDS = frozenset({"ACTIVE", "COMPLETED"})
_VISIBLE_WITHIN_S = 30.0
_ROUNDS = 5


class DeploymentStore:
    """The deployments of thing groups.

    Args:
        clients: of the fleet.
        sleep: seconds; tests give their own.
    """

    def __init__(self, clients: Clients, sleep: Callable[[float], None] = time.sleep) -> None:
        self._clients = clients
        self._sleep = sleep

    def newest(self, target: str) -> dict[str, Any] | None:
        """The newest deployment of a thing group as `GetDeployment` answers; None when it never had one."""
        with explained(f"looking for the deployment of {_name(target)}", self._clients.region):
            found = self._list(target, "LATEST_ONLY")
        return self.read(found[0]["deploymentId"]) if found else None

    def read(self, number: str) -> dict[str, Any]:
        """One deployment as `GetDeployment` answers."""
        with explained(f"reading the deployment {number}", self._clients.region):
            answer: dict[str, Any] = self._clients.greengrass.get_deployment(deploymentId=number)
        return answer

    def revise(self, target: str, revise: Revise) -> dict[str, Any]:
        """Make the next revision of a group's deployment, unless the newest is as wanted.

        The service has no "only if nobody was faster". So what came between reading and writing is looked for
        afterwards, and carried over by one more revision.

        Args:
            target: ARN of the thing group.
            revise: gives the revision that follows a deployment.

        Returns:
            The newest deployment.

        Raises:
            RolloutError: the service refuses it, or others never stop revising it.
        """
        known = set(self._revisions(target))
        base = self.newest(target)
        for _ in range(_ROUNDS):
            revision = revise(base)
            if base is not None and base.get("deploymentStatus") in _STANDS and same_components(revision, base):
                return base
            made = self._create(target, revision, base)
            known |= {made} if base is None else {made, base["deploymentId"]}
            newest = self._settled(target, made)
            if newest["deploymentId"] != made:  # replaced already, by somebody who did not see ours
                lost = newest
            else:
                between = self._between(target, known, made)
                if between is None or same_components(revise(between), revision):
                    return newest
                lost = between
            _log.warning("event=revised_by_others target=%s deployment=%s", _name(target), lost["deploymentId"])
            known.add(lost["deploymentId"])
            base = lost
        raise RolloutError(
            f"the deployment of {_name(target)} in {self._clients.region} is revised by others all the time; agree on "
            "who deploys to this thing group, then run again"
        )

    def cancel(self, target: str) -> None:
        """Stop the newest deployment where it has not arrived."""
        newest = self.newest(target)
        if newest is None or newest.get("deploymentStatus") != "ACTIVE":
            return
        with explained(f"cancelling the deployment of {_name(target)}", self._clients.region):
            try:
                self._clients.greengrass.cancel_deployment(deploymentId=newest["deploymentId"])
            except ClientError as error:
                if code_of(error) != "ConflictException":  # it ended meanwhile
                    raise
        _log.info("event=deployment_cancelled target=%s deployment=%s", _name(target), newest["deploymentId"])

    def _create(self, target: str, revision: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
        """Id of the deployment made; the same request again, such as after a lost answer, makes no second one."""
        before = base["deploymentId"] if base is not None else ""
        content = json.dumps([target, before, revision], sort_keys=True)
        token = hashlib.sha256(content.encode()).hexdigest()
        waited, pause = 0.0, 0.5
        with explained(f"deploying to {_name(target)}", self._clients.region):
            while True:
                try:
                    answer = self._clients.greengrass.create_deployment(targetArn=target, clientToken=token, **revision)
                    break
                except ClientError as error:
                    if code_of(error) != "RequestAlreadyInProgressException" or waited >= _VISIBLE_WITHIN_S:
                        raise
                self._sleep(pause)
                waited, pause = waited + pause, min(2 * pause, 5.0)
        _log.info("event=deployment_created target=%s deployment=%s", _name(target), answer["deploymentId"])
        made: str = answer["deploymentId"]
        return made

    def _between(self, target: str, known: set[str], made: str) -> dict[str, Any] | None:
        """The newest deployment that somebody made since `known` and that ours replaced; None when there is none."""
        revisions = self._revisions(target)
        others = [
            (revision, number)
            for number, revision in revisions.items()
            if number not in known and revision < revisions.get(made, 0)
        ]
        return self.read(max(others)[1]) if others else None

    def _revisions(self, target: str) -> dict[str, int]:
        """Id and number of all revisions of a group's deployment."""
        with explained(f"looking for the deployments of {_name(target)}", self._clients.region):
            return {entry["deploymentId"]: int(entry["revisionId"]) for entry in self._list(target, "ALL")}

    def _settled(self, target: str, made: str) -> dict[str, Any]:
        """The group's newest deployment, when the service shows the one made or one after it."""
        waited, pause = 0.0, 0.25
        while True:
            with explained(f"reading the deployment {made}", self._clients.region):
                try:
                    found: dict[str, Any] | None = self._clients.greengrass.get_deployment(deploymentId=made)
                except ClientError as error:
                    if not is_missing(error):
                        raise
                    found = None
                newest = next(iter(self._list(target, "LATEST_ONLY")), None)
            if found is not None and newest is not None and int(newest["revisionId"]) >= int(found["revisionId"]):
                return found if newest["deploymentId"] == made else self.read(newest["deploymentId"])
            if waited >= _VISIBLE_WITHIN_S:
                raise RolloutError(
                    f"the deployment {made} of {_name(target)} was made in {self._clients.region}, but is not the "
                    f"newest there within {_VISIBLE_WITHIN_S:.0f} s; was it deleted? Run again: it goes on from there"
                )
            self._sleep(pause)
            waited, pause = waited + pause, min(2 * pause, 5.0)

    def _list(self, target: str, history: str) -> list[dict[str, Any]]:
        pages = self._clients.greengrass.get_paginator("list_deployments")
        return [
            entry
            for page in pages.paginate(targetArn=target, historyFilter=history)
            for entry in page.get("deployments", [])
        ]


def as_deployment(group: str, found: Mapping[str, Any]) -> Deployment:
    """A deployment as the rollout sees it."""
    return Deployment(
        id=found["deploymentId"],
        group=group,
        components=versions_of(found),
        active=found.get("deploymentStatus") in _STANDS,
    )


def _name(target: str) -> str:
    return target.rpartition("/")[2]
