"""AWS IoT Greengrass v2 as an HTTP server on loopback, for boto3's own client.

Every request and every answer is held against botocore's service model. What the model does not say follows the API
reference and the developer guide: versions are never changed, artifacts must be readable and get digests, a thing group
has one deployment whose revisions replace each other, devices take it up in their own time. Thing groups and artifacts
are those of another server (moto's), by the clients that are given.
"""

import hashlib
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError
from greengrass_components import Components
from greengrass_devices import DONE, CoreDevice, Execution, now
from greengrass_failures import Failure, ServiceError, conflict, missing
from rest_json import BadAnswerError, BadRequestError, RestJson
from wsgi_server import serve

ACCOUNT = "123456789012"  # moto's
_RESERVED = "aws:"


class GreengrassDouble:
    """The service as a WSGI application.

    Args:
        region: that it is in; requests signed for another one are refused.
        s3: client of a server that has the artifacts.
        iot: client of a server that has the thing groups.

    Attributes:
        page_size: at most so many entries in one page, whatever is asked for.
        before: called with (operation, parameters) before an operation, outside of any lock.
        asked: operations with their parameters, in order.
        stale_lists: so many listings of deployments still show what was there before the newest deployment.
        bad_answers: what the double itself did wrong; a test that ends with some fails.
    """

    def __init__(self, region: str, s3: Any, iot: Any) -> None:
        self.region = region
        self.protocol = RestJson("greengrassv2")
        self.s3 = s3
        self.iot = iot
        self.components = Components(region, ACCOUNT, self.s3)
        self.devices: dict[str, CoreDevice] = {}
        self.deployments: dict[str, dict[str, Any]] = {}
        self.page_size = 2
        self.stale_lists = 0
        self.before: Callable[[str, dict[str, Any]], None] = lambda operation, parameters: None
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.bad_answers: list[str] = []
        self._failures: list[Failure] = []
        self._tokens: dict[str, tuple[str, dict[str, Any]]] = {}
        self._lock = threading.RLock()

    # Faults

    def fail(
        self, code: str, message: str = "as the test wants", times: int = 1, operation: str = "", after: bool = False
    ) -> None:
        """Let the next requests fail.

        Args:
            code: of the error.
            message: of the error.
            times: so many requests.
            operation: only of this one; "" = of any.
            after: when it has been done, as if the answer were lost.
        """
        self._failures.append(Failure(code, message, times, operation, after))

    # Devices

    def add_device(self, thing: str, **about: Any) -> CoreDevice:
        """Connect a thing as a core device for the first time."""
        self.devices[thing] = CoreDevice(thing, **about)
        return self.devices[thing]

    def minute(self) -> bool:
        """What happens in a minute: executions are queued at the rollout's pace and devices move on by one state.

        Returns:
            Whether anything changed.
        """
        with self._lock:
            changed = False
            for deployment in list(self.deployments.values()):
                if deployment["deploymentStatus"] == "ACTIVE" and deployment["isLatestForTarget"]:
                    changed |= self._roll_out(deployment)
                    self._abort_if_due(deployment)
            return changed

    def run(self) -> None:
        """Let minutes pass until nothing changes any more."""
        while self.minute():
            pass

    # HTTP

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        path, _, query = environ["RAW_URI"].partition("?")
        headers = {key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key[:5] == "HTTP_"}
        headers["content-type"] = environ.get("CONTENT_TYPE", "")
        status, extra, answer = self._respond(environ["REQUEST_METHOD"], path, query, headers, body)
        start_response(
            f"{status} x",
            [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(answer))),
                ("x-amzn-RequestId", str(uuid.uuid4())),
                *extra,
            ],
        )
        return [answer]

    def _respond(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        try:
            operation, in_path = self.protocol.operation(method, path)
        except BadRequestError as error:
            return _plain(404, "UnknownOperationException", str(error))
        try:
            self._check_signature(headers)
            parameters = self.protocol.parse(operation, in_path, query, headers, body)
            self.asked.append((operation.name, parameters))
            self._fail_if_due(operation.name, after=False)
            self.before(operation.name, parameters)
            handler = getattr(self, f"_{_snake(operation.name)}", None)
            if handler is None:
                return _plain(501, "NotImplemented", f"the double does not play {operation.name}")
            with self._lock:
                status, answer = self.protocol.answer(operation, handler(**parameters))
            self._fail_if_due(operation.name, after=True)
            return status, [], answer
        except BadRequestError as error:
            status, answer = self.protocol.error(
                operation, "ValidationException", {"message": str(error), "reason": "FIELD_VALIDATION_FAILED"}
            )
            return status, [("x-amzn-ErrorType", "ValidationException")], answer
        except BadAnswerError as error:
            self.bad_answers.append(str(error))
            return _plain(500, "BadAnswer", str(error))
        except ServiceError as error:
            if error.status:
                return _plain(error.status, error.code, str(error.content["message"]))
            status, answer = self.protocol.error(operation, error.code, error.content)
            return status, [("x-amzn-ErrorType", error.code)], answer

    def _check_signature(self, headers: Mapping[str, str]) -> None:
        scope = re.search(r"Credential=[^/]+/\d{8}/([^/]+)/([^/]+)/aws4_request", headers.get("authorization", ""))
        if scope is None:
            raise ServiceError("MissingAuthenticationTokenException", {"message": "Missing Authentication Token"}, 403)
        if scope[1] != self.region:
            said = f"Credential should be scoped to a valid region, not '{scope[1]}'. "
            raise ServiceError("InvalidSignatureException", {"message": said}, 403)
        if scope[2] != "greengrass":
            said = f"Credential should be scoped to correct service: 'greengrass', not '{scope[2]}'. "
            raise ServiceError("InvalidSignatureException", {"message": said}, 403)

    def _fail_if_due(self, operation: str, after: bool) -> None:
        for failure in self._failures:
            if failure.times > 0 and failure.operation in ("", operation) and failure.after == after:
                failure.times -= 1
                raise failure.error(operation)

    # Components

    def _create_component_version(
        self,
        inlineRecipe: bytes | None = None,  # noqa: N803 (named as the service names it)
        lambdaFunction: dict[str, Any] | None = None,  # noqa: N803
        tags: dict[str, str] | None = None,
        clientToken: str = "",  # noqa: N803
    ) -> dict[str, Any]:
        if (inlineRecipe is None) == (lambdaFunction is None) or inlineRecipe is None:
            raise ServiceError("ValidationException", {"message": "want inlineRecipe or lambdaFunction, one of both"})
        _check_tags(tags or {})
        return self._once(
            clientToken, [inlineRecipe.decode(), tags], lambda: self.components.create(inlineRecipe, tags)
        )

    def _describe_component(self, arn: str) -> dict[str, Any]:
        return self.components.describe(arn)

    def _get_component(self, arn: str, recipeOutputFormat: str = "JSON") -> dict[str, Any]:  # noqa: N803
        return self.components.get(arn, recipeOutputFormat)

    def _delete_component(self, arn: str) -> dict[str, Any]:
        self.components.delete(arn)
        return {}

    def _list_component_versions(self, arn: str, **paging: Any) -> dict[str, Any]:
        return self._page("componentVersions", self.components.versions(arn), paging)

    def _list_components(self, scope: str = "PRIVATE", **paging: Any) -> dict[str, Any]:
        return self._page("components", self.components.all(scope), paging)

    # Deployments

    def _create_deployment(self, targetArn: str, clientToken: str = "", **about: Any) -> dict[str, Any]:  # noqa: N803
        self._check_target(targetArn)
        _check_deployment(about)
        for name, entry in about.get("components", {}).items():
            self.components.require(name, entry["componentVersion"])

        def make() -> dict[str, Any]:
            revisions = [one for one in self.deployments.values() if one["targetArn"] == targetArn]
            for earlier in revisions:
                earlier["isLatestForTarget"] = False
                if earlier["deploymentStatus"] in ("ACTIVE", "COMPLETED"):
                    earlier["deploymentStatus"] = "INACTIVE"
                self._withdraw(earlier)
            number, job = str(uuid.uuid4()), str(uuid.uuid4())
            self.deployments[number] = {
                "deploymentPolicies": {
                    "failureHandlingPolicy": "ROLLBACK",
                    "componentUpdatePolicy": {"timeoutInSeconds": 60, "action": "NOTIFY_COMPONENTS"},
                    "configurationValidationPolicy": {"timeoutInSeconds": 60},
                },
                "iotJobConfiguration": {},
                "components": {},
                **about,
                "targetArn": targetArn,
                "revisionId": str(len(revisions) + 1),
                "deploymentId": number,
                "deploymentStatus": "ACTIVE",
                "iotJobId": job,
                "iotJobArn": f"arn:aws:iot:{self.region}:{ACCOUNT}:job/{job}",
                "creationTimestamp": now(),
                "isLatestForTarget": True,
            }
            return {"deploymentId": number, "iotJobId": job, "iotJobArn": self.deployments[number]["iotJobArn"]}

        return self._once(clientToken, [targetArn, about], make)

    def _get_deployment(self, deploymentId: str) -> dict[str, Any]:  # noqa: N803
        return self._deployment(deploymentId)

    def _list_deployments(
        self,
        targetArn: str = "",  # noqa: N803
        historyFilter: str = "LATEST_ONLY",  # noqa: N803
        parentTargetArn: str = "",  # noqa: N803
        **paging: Any,
    ) -> dict[str, Any]:
        known = list(self.deployments.values())
        if self.stale_lists:
            self.stale_lists -= 1
            hidden = known.pop()
            for one in known:
                if int(one["revisionId"]) == int(hidden["revisionId"]) - 1 and one["targetArn"] == hidden["targetArn"]:
                    known[known.index(one)] = {**one, "isLatestForTarget": True, "deploymentStatus": "ACTIVE"}
        keys = ("targetArn", "revisionId", "deploymentId", "deploymentName", "creationTimestamp", "deploymentStatus")
        found = [
            {key: one[key] for key in (*keys, "isLatestForTarget", "parentTargetArn") if key in one}
            for one in known
            if targetArn in ("", one["targetArn"])
            and parentTargetArn in ("", one.get("parentTargetArn"))
            and (historyFilter == "ALL" or one["isLatestForTarget"])
        ]
        return self._page("deployments", found, paging)

    def _cancel_deployment(self, deploymentId: str) -> dict[str, Any]:  # noqa: N803
        deployment = self._deployment(deploymentId)
        if deployment["deploymentStatus"] != "ACTIVE":
            raise conflict(f"Deployment is {deployment['deploymentStatus']}", deploymentId, "deployment")
        self._stop(deployment)
        return {"message": "The deployment was canceled."}

    # Core devices

    def _get_core_device(self, coreDeviceThingName: str) -> dict[str, Any]:  # noqa: N803
        device = self._device(coreDeviceThingName)
        return {**self._listed(device), "coreVersion": device.version}

    def _list_core_devices(
        self,
        thingGroupArn: str = "",  # noqa: N803
        status: str = "",
        runtime: str = "",
        **paging: Any,
    ) -> dict[str, Any]:
        things = self._members(thingGroupArn) if thingGroupArn else list(self.devices)
        found = [
            self._listed(self.devices[thing])
            for thing in things
            if thing in self.devices
            and status in ("", self.devices[thing].status)
            and runtime in ("", self.devices[thing].runtime)
        ]
        return self._page("coreDevices", found, paging)

    def _list_installed_components(
        self,
        coreDeviceThingName: str,  # noqa: N803
        topologyFilter: str = "ROOT",  # noqa: N803
        **paging: Any,
    ) -> dict[str, Any]:
        installed = self._device(coreDeviceThingName).installed
        found = [one.listed(name) for name, one in installed.items() if one.root or topologyFilter == "ALL"]
        return self._page("installedComponents", found, paging)

    def _list_effective_deployments(self, coreDeviceThingName: str, **paging: Any) -> dict[str, Any]:  # noqa: N803
        device = self._device(coreDeviceThingName)
        found = []
        for number, execution in device.executions.items():
            deployment = self.deployments[number]
            entry: dict[str, Any] = {
                "deploymentId": number,
                "deploymentName": deployment.get("deploymentName", ""),
                "iotJobId": deployment["iotJobId"],
                "iotJobArn": deployment["iotJobArn"],
                "targetArn": deployment["targetArn"],
                "coreDeviceExecutionStatus": execution.status,
                "creationTimestamp": execution.created,
                "modifiedTimestamp": execution.modified,
            }
            if execution.reason:
                entry["reason"] = execution.reason
            if execution.errors:
                entry["statusDetails"] = {"errorStack": execution.errors, "errorTypes": execution.types}
            found.append(entry)
        return self._page("effectiveDeployments", found, paging)

    # What happens over time

    def _roll_out(self, deployment: dict[str, Any]) -> bool:
        number = deployment["deploymentId"]
        rate = deployment["iotJobConfiguration"].get("jobExecutionsRolloutConfig", {}).get("maximumPerMinute", 1000)
        changed = False
        for thing in self._members(deployment["targetArn"]):
            device = self.devices.get(thing)
            if device is None or deployment["deploymentStatus"] != "ACTIVE":
                continue
            execution = device.executions.get(number)
            if execution is None:
                if rate > 0:
                    device.executions[number] = Execution()
                    rate, changed = rate - 1, True
            elif not device.online or execution.status in DONE:
                continue
            elif execution.status == "QUEUED":
                execution.move("IN_PROGRESS")
                device.seen, changed = now(), True
            elif not device.hangs:
                device.accepted[deployment["targetArn"]] = number
                policy = deployment["deploymentPolicies"]["failureHandlingPolicy"]
                device.apply(self._wanted(device), policy, self.s3, execution)
                changed = True
        return changed

    def _abort_if_due(self, deployment: dict[str, Any]) -> None:
        number = deployment["deploymentId"]
        done = [one.executions[number].status for one in self.devices.values() if number in one.executions]
        executed = [status for status in done if status in DONE]
        for criteria in deployment["iotJobConfiguration"].get("abortConfig", {}).get("criteriaList", []):
            kinds = (
                {"FAILED", "REJECTED", "TIMED_OUT"} if criteria["failureType"] == "ALL" else {criteria["failureType"]}
            )
            failed = sum(status in kinds for status in executed)
            enough = len(executed) >= criteria["minNumberOfExecutedThings"]
            if failed and enough and 100 * failed / len(executed) >= criteria["thresholdPercentage"]:
                self._stop(deployment)

    def _stop(self, deployment: dict[str, Any]) -> None:
        deployment["deploymentStatus"] = "CANCELED"
        self._withdraw(deployment)

    def _withdraw(self, deployment: Mapping[str, Any]) -> None:
        for device in self.devices.values():
            execution = device.executions.get(deployment["deploymentId"])
            if execution is not None and execution.status == "QUEUED":
                execution.move("CANCELED")

    def _wanted(self, device: CoreDevice) -> dict[str, dict[str, Any]]:
        """All components of the deployments that the device has taken up, and what they depend on."""
        wanted: dict[str, dict[str, Any]] = {}
        for number in device.accepted.values():
            for name, entry in self.deployments[number]["components"].items():
                recipe = self.components.recipe(name, entry["componentVersion"])
                wanted[name] = {"version": entry["componentVersion"], "root": True, "recipe": recipe}
        for component in list(wanted.values()):
            for name in component["recipe"].get("ComponentDependencies", {}):
                newest = self.components.newest(name)
                if name not in wanted and newest is not None:
                    wanted[name] = {"version": newest, "root": False, "recipe": self.components.recipe(name, newest)}
        return wanted

    # Bits

    def _listed(self, device: CoreDevice) -> dict[str, Any]:
        return {
            "coreDeviceThingName": device.thing,
            "status": device.status,
            "lastStatusUpdateTimestamp": device.seen,
            "platform": "linux",
            "architecture": "aarch64",
            "runtime": device.runtime,
        }

    def _device(self, thing: str) -> CoreDevice:
        if thing not in self.devices:
            raise missing("Core device does not exist.", thing, "coreDevice")
        return self.devices[thing]

    def _deployment(self, number: str) -> dict[str, Any]:
        if number not in self.deployments:
            raise missing("Deployment does not exist.", number, "deployment")
        return self.deployments[number]

    def _members(self, group_arn: str) -> list[str]:
        group = group_arn.rpartition("/")[2]
        if ":thing/" in group_arn:
            return [group]
        found: list[str] = self.iot.list_things_in_thing_group(thingGroupName=group)["things"]
        return found

    def _check_target(self, arn: str) -> None:
        _, _, _, region, account, resource = arn.split(":", 5)
        kind, _, name = resource.partition("/")
        if (region, account) != (self.region, ACCOUNT):
            raise ServiceError(
                "ValidationException", {"message": f"The target {arn} is not of this account and region"}
            )
        try:
            if kind == "thinggroup":
                self.iot.describe_thing_group(thingGroupName=name)
            else:
                self.iot.describe_thing(thingName=name)
        except ClientError:
            raise missing("The target does not exist.", arn, kind) from None

    def _once(self, token: str, content: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The answer to the first request with this token."""
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        if token in self._tokens:
            before, answer = self._tokens[token]
            if before != digest:
                raise ServiceError("ValidationException", {"message": "clientToken was used for another request"})
            return answer
        answer = make()
        if token:
            self._tokens[token] = (digest, answer)
        return answer

    def _page(self, key: str, found: list[dict[str, Any]], paging: Mapping[str, Any]) -> dict[str, Any]:
        token = paging.get("nextToken", "")
        if token and not re.fullmatch(r"from-\d+", token):
            raise ServiceError("ValidationException", {"message": f"nextToken {token!r} is not one of this service"})
        start = int(token[5:]) if token else 0
        end = start + min(self.page_size, paging.get("maxResults", 50))
        page: dict[str, Any] = {key: found[start:end]}
        if end < len(found):
            page["nextToken"] = f"from-{end}"
        return page


def _check_deployment(about: Mapping[str, Any]) -> None:
    """Rules of the service that its model does not tell.

    Source: AWS IoT Greengrass V2 API reference, and AWS IoT's for jobs.
    """
    faults = []
    _check_tags(about.get("tags", {}))
    for name, entry in about.get("components", {}).items():
        merge = entry.get("configurationUpdate", {}).get("merge", "{}")
        try:
            if not isinstance(json.loads(merge), dict):
                faults.append(f"components.{name}: merge is not a JSON object")
        except ValueError:
            faults.append(f"components.{name}: merge is not JSON")
    job = about.get("iotJobConfiguration", {})
    rollout = job.get("jobExecutionsRolloutConfig", {})
    if len(rollout) > 1:
        faults.append("jobExecutionsRolloutConfig: want exponentialRate or maximumPerMinute, not both")
    for criteria in job.get("abortConfig", {}).get("criteriaList", []):
        share = criteria["thresholdPercentage"]
        if share <= 0 or abs(round(share, 2) - share) > 1e-9:
            faults.append("thresholdPercentage: want more than 0, with two decimals at most")
    minutes = job.get("timeoutConfig", {}).get("inProgressTimeoutInMinutes", 1)
    if not 1 <= minutes <= 10080:
        faults.append("inProgressTimeoutInMinutes: want 1 to 10080")
    if faults:
        raise ServiceError("ValidationException", {"message": "; ".join(faults)})


def _check_tags(tags: Mapping[str, str]) -> None:
    wrong = [
        key
        for key, value in tags.items()
        if key.startswith(_RESERVED) or not re.fullmatch(r"[\w\s+\-=.:/@]{0,256}", value) or len(key) > 128
    ]
    if wrong or len(tags) > 50:
        raise ServiceError("ValidationException", {"message": f"tags: reserved, too long or too many: {wrong}"})


def _plain(status: int, code: str, message: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """An error that every service may answer, whatever the operation."""
    return status, [("x-amzn-ErrorType", code)], json.dumps({"message": message}).encode()


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@contextmanager
def serve_greengrass(region: str, s3: Any, iot: Any) -> Iterator[tuple[GreengrassDouble, str]]:
    """The server and its address.

    Args:
        region: that it is in.
        s3: client of a server that has the artifacts.
        iot: client of a server that has the thing groups.
    """
    double = GreengrassDouble(region, s3, iot)
    with serve(double) as address:
        yield double, address
    assert not double.bad_answers
