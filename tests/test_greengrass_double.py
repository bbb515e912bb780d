"""The double of AWS IoT Greengrass refuses what the service refuses, and cannot answer what the service cannot."""

import base64
import datetime
import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from greengrass_double import ACCOUNT, GreengrassDouble, serve_greengrass
from rest_json import BadAnswerError, BadRequestError, RestJson, shape_faults

pytest_plugins = ["s3_server"]

REGION = "eu-central-1"
GROUP = f"arn:aws:iot:{REGION}:{ACCOUNT}:thinggroup/line"
PROTOCOL = RestJson("greengrassv2")


@pytest.fixture(scope="module")
def others(s3_server: str) -> tuple[Any, Any]:
    about = {
        "endpoint_url": s3_server,
        "region_name": REGION,
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
    }
    return boto3.client("s3", **about), boto3.client("iot", **about)


@pytest.fixture
def double(s3: str, others: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[GreengrassDouble]:
    iot = others[1]
    iot.create_thing_group(thingGroupName="line")
    iot.create_thing(thingName="cam-1")
    iot.add_thing_to_thing_group(thingGroupName="line", thingName="cam-1")
    try:
        with serve_greengrass(REGION, *others) as (double, address):
            monkeypatch.setenv("AWS_ENDPOINT_URL_GREENGRASSV2", address)
            yield double
    finally:
        iot.remove_thing_from_thing_group(thingGroupName="line", thingName="cam-1")
        iot.delete_thing(thingName="cam-1")
        iot.delete_thing_group(thingGroupName="line")


@pytest.fixture
def cloud(double: GreengrassDouble) -> Any:
    """boto3's own client, which leaves all checks to the service and does not try again."""
    return boto3.client("greengrassv2", config=Config(parameter_validation=False, retries={"total_max_attempts": 1}))


def recipe_of(name: str = "com.example.A", version: str = "1.0.0", **more: Any) -> bytes:
    manifest = {"Platform": {"os": "linux", "runtime": "*"}, "Lifecycle": {"run": {"Script": "echo ok"}}}
    recipe = {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": name,
        "ComponentVersion": version,
        "ComponentPublisher": "Tests",
        "Manifests": [manifest],
    }
    return json.dumps({**recipe, **more}).encode()


def arn_of(name: str, version: str) -> str:
    return f"arn:aws:greengrass:{REGION}:{ACCOUNT}:components:{name}:versions:{version}"


def make(cloud: Any, double: GreengrassDouble, name: str = "com.example.A", version: str = "1.0.0") -> None:
    cloud.create_component_version(inlineRecipe=recipe_of(name, version))
    while cloud.describe_component(arn=arn_of(name, version))["status"]["componentState"] != "DEPLOYABLE":
        pass


def refused(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"components": {}}, "targetArn: is required"),
        ({"targetArn": "line"}, "targetArn: want arn:"),
        ({"targetArn": GROUP, "components": {"A": {}}}, "componentVersion: is required"),
        ({"targetArn": GROUP, "deploymentName": ""}, "deploymentName: want at least 1"),
        ({"targetArn": GROUP, "deploymentName": "x" * 257}, "deploymentName: want at most 256"),
        ({"targetArn": GROUP, "clientToken": "not a token!"}, "clientToken: want"),
        ({"targetArn": GROUP, "deploymentPolicies": {"failureHandlingPolicy": "PANIC"}}, "want one of"),
        (
            {
                "targetArn": GROUP,
                "iotJobConfiguration": {"jobExecutionsRolloutConfig": {"maximumPerMinute": 1001}},
            },
            "maximumPerMinute: want at most 1000",
        ),
        (
            {"targetArn": GROUP, "iotJobConfiguration": {"abortConfig": {"criteriaList": []}}},
            "criteriaList: want at least 1",
        ),
        (
            {"targetArn": GROUP, "components": {"A": {"componentVersion": "1.0.0", "runWith": {"posixUser": 7}}}},
            "posixUser: want string",
        ),
    ],
)
def test_a_request_that_breaks_the_model_is_refused(cloud: Any, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ClientError) as error:
        cloud.create_deployment(**asked)
    assert refused(error) == "ValidationException"
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        (
            {"components": {"com.example.A": {"componentVersion": "1.0.0", "configurationUpdate": {"merge": "x"}}}},
            "merge is not JSON",
        ),
        (
            {"components": {"com.example.A": {"componentVersion": "1.0.0", "configurationUpdate": {"merge": "[]"}}}},
            "merge is not a JSON object",
        ),
        ({"iotJobConfiguration": {"timeoutConfig": {"inProgressTimeoutInMinutes": 0}}}, "want 1 to 10080"),
        (
            {
                "iotJobConfiguration": {
                    "abortConfig": {
                        "criteriaList": [
                            {
                                "failureType": "ALL",
                                "action": "CANCEL",
                                "thresholdPercentage": 0.0,
                                "minNumberOfExecutedThings": 1,
                            }
                        ]
                    }
                }
            },
            "want more than 0",
        ),
        ({"tags": {"aws:owner": "x"}}, "reserved"),
        ({"tags": {"owner": "what?"}}, "reserved, too long"),
    ],
)
def test_rules_that_the_model_does_not_tell_hold_too(
    cloud: Any, double: GreengrassDouble, about: dict[str, Any], said: str
) -> None:
    make(cloud, double)
    with pytest.raises(ClientError) as error:
        cloud.create_deployment(targetArn=GROUP, **about)
    assert refused(error) == "ValidationException"
    assert said in str(error.value)


def test_a_rate_of_two_kinds_is_refused(cloud: Any) -> None:
    exponential = {
        "baseRatePerMinute": 1,
        "incrementFactor": 2.0,
        "rateIncreaseCriteria": {"numberOfNotifiedThings": 1},
    }
    both = {"maximumPerMinute": 5, "exponentialRate": exponential}
    with pytest.raises(ClientError, match="not both"):
        cloud.create_deployment(targetArn=GROUP, iotJobConfiguration={"jobExecutionsRolloutConfig": both})


def test_what_a_request_may_not_carry_is_refused() -> None:
    operation, path = PROTOCOL.operation("POST", "/greengrass/v2/deployments/d-1/cancel")
    assert path == {"deploymentId": "d-1"}
    with pytest.raises(BadRequestError, match=r"CancelDeployment has no \['force'\]"):
        PROTOCOL.parse(operation, path, "force=true", {}, b"")
    with pytest.raises(BadRequestError, match="not JSON"):
        PROTOCOL.parse(operation, path, "", {"content-type": "application/json"}, b"{")
    with pytest.raises(BadRequestError, match="content-type"):
        PROTOCOL.parse(operation, path, "", {"content-type": "text/plain"}, b"{}")
    with pytest.raises(BadRequestError, match="no operation is GET"):
        PROTOCOL.operation("GET", "/greengrass/v2/deployments/d-1/cancel")


def test_members_are_found_where_the_model_binds_them() -> None:
    arn = "arn%3Aaws%3Agreengrass%3Aeu-central-1%3A1%3Acomponents%3AA"
    operation, path = PROTOCOL.operation("GET", f"/greengrass/v2/components/{arn}/versions")
    found = PROTOCOL.parse(operation, path, "maxResults=7&nextToken=from-7", {}, b"")
    assert found == {
        "arn": "arn:aws:greengrass:eu-central-1:1:components:A",
        "maxResults": 7,
        "nextToken": "from-7",
    }
    with pytest.raises(BadRequestError, match="want integer, found 'many'"):
        PROTOCOL.parse(operation, path, "maxResults=many", {}, b"")
    with pytest.raises(BadRequestError, match="maxResults: want at most 100"):
        PROTOCOL.parse(operation, path, "maxResults=101", {}, b"")


def test_an_answer_of_another_shape_cannot_be_given() -> None:
    operation = PROTOCOL.model.operation_model("CreateComponentVersion")
    with pytest.raises(BadAnswerError, match="status: is required"):
        PROTOCOL.answer(operation, {"componentName": "A"})
    good: dict[str, Any] = {
        "componentName": "A",
        "componentVersion": "1.0.0",
        "creationTimestamp": datetime.datetime.now(datetime.UTC),
        "status": {"componentState": "REQUESTED"},
    }
    assert PROTOCOL.answer(operation, good)[0] == 201
    for wrong, said in (
        ({"status": {"componentState": "LOST"}}, "want one of"),
        ({"creationTimestamp": 12.5}, "want timestamp"),
        ({"arn": "x"}, "arn: want arn:"),
        ({"more": 1}, "more: is unknown"),
        ({"arn": None}, "want a value, found null"),
    ):
        with pytest.raises(BadAnswerError, match=said):
            PROTOCOL.answer(operation, {**good, **wrong})
    with pytest.raises(BadAnswerError, match="does not answer ThingMissing"):
        PROTOCOL.error(operation, "ThingMissing", {"message": "x"})
    with pytest.raises(BadAnswerError, match="resourceId: is required"):
        PROTOCOL.error(operation, "ConflictException", {"message": "x"})


def test_kinds_of_values_are_told_apart() -> None:
    shape = PROTOCOL.model.shape_for("SystemResourceLimits")
    assert list(shape_faults({"memory": 1, "cpus": 1}, shape)) == []
    assert "want long, found True" in next(iter(shape_faults({"memory": True}, shape)))
    assert "want at least 0" in next(iter(shape_faults({"memory": -1}, shape)))
    assert "want a structure" in next(iter(shape_faults([], shape)))
    assert "want a list" in next(iter(shape_faults({}, PROTOCOL.model.shape_for("DeploymentList"))))
    assert "want a map" in next(iter(shape_faults([], PROTOCOL.model.shape_for("TagMap"))))


def test_a_version_is_never_changed(cloud: Any, double: GreengrassDouble) -> None:
    make(cloud, double)
    with pytest.raises(ClientError) as error:
        cloud.create_component_version(inlineRecipe=recipe_of(ComponentPublisher="Others"))
    assert refused(error) == "ConflictException"
    kept = json.loads(cloud.get_component(arn=arn_of("com.example.A", "1.0.0"))["recipe"])
    assert kept["ComponentPublisher"] == "Tests"


def test_a_version_becomes_deployable_step_by_step(cloud: Any, double: GreengrassDouble) -> None:
    made = cloud.create_component_version(inlineRecipe=recipe_of(), tags={"a": "b"})
    assert made["status"]["componentState"] == "REQUESTED"
    with pytest.raises(ClientError, match="not DEPLOYABLE"):
        cloud.create_deployment(targetArn=GROUP, components={"com.example.A": {"componentVersion": "1.0.0"}})
    states = [cloud.describe_component(arn=made["arn"])["status"]["componentState"] for _ in range(4)]
    assert states == ["REQUESTED", "INITIATED", "DEPLOYABLE", "DEPLOYABLE"]


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (b"no", "not JSON"),
        (recipe_of(name="aws.greengrass.Mine"), "ComponentName"),
        (recipe_of(version="1"), "ComponentVersion"),
        (recipe_of(RecipeFormatVersion="2021-01-01"), "RecipeFormatVersion"),
        (recipe_of(Manifests=[]), "no Manifests"),
        (recipe_of(ComponentDescription="x" * 16_000), "bytes"),
    ],
)
def test_a_recipe_that_the_service_refuses_is_refused(cloud: Any, recipe: bytes, said: str) -> None:
    with pytest.raises(ClientError, match=said):
        cloud.create_component_version(inlineRecipe=recipe)


def test_artifacts_must_be_readable_and_get_digests(cloud: Any, double: GreengrassDouble) -> None:
    manifest = {
        "Platform": {"os": "linux"},
        "Artifacts": [{"Uri": "s3://parts/artifacts/a.zip", "Unarchive": "ZIP"}],
        "Lifecycle": {},
    }
    with pytest.raises(ClientError, match="Specified artifact resource cannot be accessed"):
        cloud.create_component_version(inlineRecipe=recipe_of(Manifests=[manifest]))
    double.s3.put_object(Bucket="parts", Key="artifacts/a.zip", Body=b"abc")
    cloud.create_component_version(inlineRecipe=recipe_of(Manifests=[manifest]))
    recipe = json.loads(cloud.get_component(arn=arn_of("com.example.A", "1.0.0"))["recipe"])
    artifact = recipe["Manifests"][0]["Artifacts"][0]
    assert artifact["Algorithm"] == "SHA-256"
    assert artifact["Digest"] == base64.b64encode(hashlib.sha256(b"abc").digest()).decode()


def test_versions_are_listed_page_by_page_highest_first(cloud: Any, double: GreengrassDouble) -> None:
    for version in ("1.0.0", "10.0.0", "9.0.0"):
        make(cloud, double, version=version)
    arn = arn_of("com.example.A", "").partition(":versions:")[0]
    first = cloud.list_component_versions(arn=arn)
    assert [one["componentVersion"] for one in first["componentVersions"]] == ["10.0.0", "9.0.0"]
    second = cloud.list_component_versions(arn=arn, nextToken=first["nextToken"])
    assert [one["componentVersion"] for one in second["componentVersions"]] == ["1.0.0"]
    assert "nextToken" not in second
    with pytest.raises(ClientError, match="nextToken"):
        cloud.list_component_versions(arn=arn, nextToken="made up")


def test_a_target_must_exist_and_be_of_this_region(cloud: Any) -> None:
    with pytest.raises(ClientError) as error:
        cloud.create_deployment(targetArn=f"{GROUP}-2")
    assert refused(error) == "ResourceNotFoundException"
    with pytest.raises(ClientError, match="not of this account and region"):
        cloud.create_deployment(targetArn=GROUP.replace(REGION, "us-east-1"))
    with pytest.raises(ClientError) as error:
        cloud.create_deployment(targetArn=GROUP, components={"com.example.A": {"componentVersion": "1.0.0"}})
    assert refused(error) == "ResourceNotFoundException"


def test_a_deployment_replaces_the_one_before_and_withdraws_it(cloud: Any, double: GreengrassDouble) -> None:
    make(cloud, double)
    device = double.add_device("cam-1")
    device.online = False
    first = cloud.create_deployment(targetArn=GROUP, components={"com.example.A": {"componentVersion": "1.0.0"}})
    double.run()
    second = cloud.create_deployment(targetArn=GROUP)
    assert first["iotJobId"] != second["iotJobId"]
    old, new = (cloud.get_deployment(deploymentId=one["deploymentId"]) for one in (first, second))
    assert (old["deploymentStatus"], old["isLatestForTarget"], old["revisionId"]) == ("INACTIVE", False, "1")
    assert (new["deploymentStatus"], new["isLatestForTarget"], new["revisionId"]) == ("ACTIVE", True, "2")
    assert new["components"] == {}
    assert device.executions[first["deploymentId"]].status == "CANCELED"
    listed = cloud.list_deployments(targetArn=GROUP)["deployments"]
    assert [one["deploymentId"] for one in listed] == [second["deploymentId"]]
    assert len(cloud.list_deployments(targetArn=GROUP, historyFilter="ALL")["deployments"]) == 2


def test_the_same_token_makes_one_deployment_and_takes_no_other_request(cloud: Any) -> None:
    first = cloud.create_deployment(targetArn=GROUP, clientToken="t-1")
    assert cloud.create_deployment(targetArn=GROUP, clientToken="t-1")["deploymentId"] == first["deploymentId"]
    with pytest.raises(ClientError, match="used for another request"):
        cloud.create_deployment(targetArn=GROUP, clientToken="t-1", deploymentName="other")


def test_an_ended_deployment_cannot_be_cancelled(cloud: Any) -> None:
    number = cloud.create_deployment(targetArn=GROUP)["deploymentId"]
    cloud.cancel_deployment(deploymentId=number)
    with pytest.raises(ClientError) as error:
        cloud.cancel_deployment(deploymentId=number)
    assert refused(error) == "ConflictException"
    with pytest.raises(ClientError) as error:
        cloud.cancel_deployment(deploymentId="none")
    assert refused(error) == "ResourceNotFoundException"


def test_a_device_moves_on_state_by_state_and_installs_dependencies(cloud: Any, double: GreengrassDouble) -> None:
    device = double.add_device("cam-1")
    needs = {"aws.greengrass.TokenExchangeService": {"VersionRequirement": ">=2.0.0", "DependencyType": "SOFT"}}
    cloud.create_component_version(inlineRecipe=recipe_of(ComponentDependencies=needs))
    for _ in range(3):
        cloud.describe_component(arn=arn_of("com.example.A", "1.0.0"))
    made = cloud.create_deployment(targetArn=GROUP, components={"com.example.A": {"componentVersion": "1.0.0"}})
    seen = []
    while double.minute():
        seen.append(device.executions[made["deploymentId"]].status)
    assert seen == ["QUEUED", "IN_PROGRESS", "SUCCEEDED"]
    roots = cloud.list_installed_components(coreDeviceThingName="cam-1")["installedComponents"]
    assert [one["componentName"] for one in roots] == ["com.example.A"]
    everything = cloud.list_installed_components(coreDeviceThingName="cam-1", topologyFilter="ALL")
    assert {one["componentName"]: one["isRoot"] for one in everything["installedComponents"]} == {
        "com.example.A": True,
        "aws.greengrass.TokenExchangeService": False,
    }
    listed = cloud.list_core_devices(thingGroupArn=GROUP, runtime="aws_nucleus_lite")["coreDevices"]
    assert [one["coreDeviceThingName"] for one in listed] == ["cam-1"]
    assert cloud.list_core_devices(status="UNHEALTHY")["coreDevices"] == []
    assert cloud.get_core_device(coreDeviceThingName="cam-1")["coreVersion"] == "2.6.0"


def test_a_thing_without_a_nucleus_is_no_core_device(cloud: Any) -> None:
    for ask in (cloud.get_core_device, cloud.list_installed_components, cloud.list_effective_deployments):
        with pytest.raises(ClientError) as error:
            ask(coreDeviceThingName="cam-1")
        assert refused(error) == "ResourceNotFoundException"


def test_a_request_signed_for_another_region_or_not_at_all_is_refused(double: GreengrassDouble, cloud: Any) -> None:
    elsewhere = boto3.client("greengrassv2", region_name="us-west-2")
    with pytest.raises(ClientError, match=r"scoped to a valid region, not 'us-west-2'"):
        elsewhere.list_components()
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{cloud.meta.endpoint_url}/greengrass/v2/components", timeout=60)
    with error.value as answer:
        assert answer.code == 403
        assert answer.headers["x-amzn-ErrorType"] == "MissingAuthenticationTokenException"


def test_failures_are_given_as_often_as_asked_for(double: GreengrassDouble, cloud: Any) -> None:
    double.fail("ThrottlingException", times=2, operation="ListComponents")
    cloud.list_deployments()
    for _ in range(2):
        with pytest.raises(ClientError) as error:
            cloud.list_components()
        assert refused(error) == "ThrottlingException"
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert cloud.list_components()["components"] == []


def test_what_the_double_does_not_play_is_not_taken_for_an_answer(cloud: Any) -> None:
    with pytest.raises(ClientError, match="does not play GetConnectivityInfo"):
        cloud.get_connectivity_info(thingName="cam-1")
