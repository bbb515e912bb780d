"""The fleet on AWS IoT Greengrass: what every fleet does, and what only this one must."""

import fnmatch
import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest
from fleet_contract import (
    CANARIES,
    CANARY,
    CHALLENGER,
    FLEET,
    MODEL,
    OTHER,
    REFUSAL,
    FleetContract,
    publish,
    state_of,
    tiny_component,
)
from greengrass_bench import REGION, GreengrassBench, arn_of, settings_of
from greengrass_double import ACCOUNT

from edge.topics import topics
from inspection.errors import RolloutError
from inspection.fleet.greengrass import clients as greengrass_clients
from inspection.fleet.greengrass.fleet import GreengrassFleet
from inspection.fleet.interface import ComponentSetting
from inspection.fleet.opening import open_fleet
from inspection.fleet.reports import health_key
from inspection.settings import parse_settings

pytest_plugins = ["s3_server", "greengrass_fixtures"]

STOCK = "aws.greengrass."


class TestGreengrassFleet(FleetContract):
    @pytest.fixture
    def bench(self, bench: GreengrassBench) -> GreengrassBench:
        return bench


def test_settings_choose_the_greengrass_fleet(bench: GreengrassBench) -> None:
    assert isinstance(open_fleet(settings_of()), GreengrassFleet)


# Publishing


def test_publishing_waits_until_the_service_has_looked_at_the_version(bench: GreengrassBench) -> None:
    bench.double.components.looks = 3
    bench.double.components.forgetful = 1
    published = bench.fleet.publish(tiny_component(bench, MODEL, "7.0.0"))
    assert published.version == "7.0.0"
    assert len(bench.asked("DescribeComponent")) > 6


def test_a_version_that_never_becomes_deployable_is_told(bench: GreengrassBench) -> None:
    bench.double.components.looks = 1_000_000
    with pytest.raises(RolloutError, match=r"want it DEPLOYABLE within 300 s, found REQUESTED; run again later"):
        bench.fleet.publish(tiny_component(bench, MODEL, "7.0.0"))
    assert bench.fleet.newest(MODEL) is None


def test_a_failed_version_is_told_in_the_services_words_and_replaced_when_it_is_mended(bench: GreengrassBench) -> None:
    bench.double.components.failing[MODEL] = "The artifact was eaten"
    with pytest.raises(
        RolloutError, match=r"FAILED in eu-central-1: The artifact was eaten; s3://.*cannot be accessed"
    ):
        bench.fleet.publish(tiny_component(bench, MODEL, "7.0.0"))
    assert bench.fleet.find(MODEL, "7.0.0") is None
    assert bench.fleet.versions(MODEL) == ()
    bench.double.components.failing.clear()
    assert bench.fleet.publish(tiny_component(bench, MODEL, "7.0.0", content="mended")).version == "7.0.0"


def test_somebody_elses_failed_version_is_not_replaced(bench: GreengrassBench) -> None:
    component = tiny_component(bench, MODEL, "7.0.0")
    bench.double.components.failing[MODEL] = "no"
    s3 = bench.double.s3
    s3.put_object(Bucket="parts", Key=f"plant/fleet/components/{MODEL}/7.0.0/package.zip", Body=b"theirs")
    bench.cloud.create_component_version(inlineRecipe=json.dumps(component.recipe).encode())
    arn = f"arn:aws:greengrass:{REGION}:{ACCOUNT}:components:{MODEL}:versions:7.0.0"
    while bench.cloud.describe_component(arn=arn)["status"]["componentState"] != "FAILED":
        pass
    with pytest.raises(RolloutError, match=r"taken by other content.*somebody else published it"):
        bench.fleet.publish(component)
    assert s3.get_object(Bucket="parts", Key=f"plant/fleet/components/{MODEL}/7.0.0/package.zip")["Body"].read()


def test_an_artifact_that_the_service_cannot_read_is_told_with_the_permission(bench: GreengrassBench) -> None:
    component = tiny_component(bench, MODEL, "7.0.0")

    def remove(operation: str, parameters: dict[str, Any]) -> None:
        if operation == "CreateComponentVersion":
            bench.double.s3.delete_object(Bucket="parts", Key=f"plant/fleet/components/{MODEL}/7.0.0/package.zip")

    bench.double.before = remove
    with pytest.raises(RolloutError, match=r"need s3:GetObject on it.*resource cannot be accessed"):
        bench.fleet.publish(component)


def test_an_artifact_that_was_overwritten_on_its_way_is_found_by_its_digest(bench: GreengrassBench) -> None:
    component = tiny_component(bench, MODEL, "7.0.0")

    def overwrite(operation: str, parameters: dict[str, Any]) -> None:
        if operation == "CreateComponentVersion":
            key = f"plant/fleet/components/{MODEL}/7.0.0/package.zip"
            bench.double.s3.put_object(Bucket="parts", Key=key, Body=b"of another publisher")

    bench.double.before = overwrite
    with pytest.raises(RolloutError, match=r"package\.zip was changed on its way.*at the same time"):
        bench.fleet.publish(component)


def test_artifacts_are_encrypted_by_the_key_that_is_set(bench: GreengrassBench) -> None:
    fleet = bench.reopen(kms_key="alias/lineside")
    bench.fleet = fleet
    fleet.publish(tiny_component(bench, MODEL, "7.0.0"))
    head = bench.double.s3.head_object(Bucket="parts", Key=f"plant/fleet/components/{MODEL}/7.0.0/package.zip")
    assert head["ServerSideEncryption"] == "aws:kms"
    assert "lineside" in head["SSEKMSKeyId"]


def test_a_lost_answer_makes_no_second_version(bench: GreengrassBench) -> None:
    bench.double.fail("ServiceUnavailable", operation="CreateComponentVersion", after=True)
    bench.fleet.publish(tiny_component(bench, MODEL, "7.0.0"))
    assert len(bench.asked("CreateComponentVersion")) == 2
    assert len(bench.fleet.versions(MODEL)) == 1


@pytest.mark.parametrize(("content", "refused"), [("a", False), ("b", True)])
def test_two_that_publish_one_version_at_once_agree_or_the_second_is_refused(
    bench: GreengrassBench, content: str, refused: bool
) -> None:
    rival = tiny_component(bench, MODEL, "7.0.0", content=content)
    ours = tiny_component(bench, MODEL, "7.0.0", content="a")
    rivals = bench.reopen()

    def be_faster(operation: str, parameters: dict[str, Any]) -> None:
        if operation == "CreateComponentVersion":
            bench.double.before = lambda operation, parameters: None
            rivals.publish(rival)

    bench.double.before = be_faster
    if refused:
        with pytest.raises(RolloutError, match="taken by other content"):
            bench.fleet.publish(ours)
    else:
        assert bench.fleet.publish(ours).digest == ours.digest
    found = bench.fleet.find(MODEL, "7.0.0")
    assert found is not None
    assert found.digest == rival.digest


def test_a_component_that_is_not_there_may_also_be_listed_as_nothing(bench: GreengrassBench) -> None:
    bench.double.components.unknown_is_empty = True
    assert bench.fleet.newest(MODEL) is None


def test_a_recipe_of_another_version_is_refused(bench: GreengrassBench) -> None:
    component = tiny_component(bench, MODEL, "7.0.0")
    wrong = type(component)(MODEL, "8.0.0", component.recipe, component.artifacts, component.digest)
    with pytest.raises(RolloutError, match=r"want a recipe of it, found one of .* 7\.0\.0"):
        bench.fleet.publish(wrong)


# Deployments


THEIRS = {
    "components": {
        OTHER: {
            "componentVersion": "1.2.3",
            "configurationUpdate": {"merge": '{"speed": 3}', "reset": ["/old"]},
            "runWith": {"posixUser": "plc:plc", "systemResourceLimits": {"memory": 1024, "cpus": 0.5}},
        },
        "aws.greengrass.TokenExchangeService": {"componentVersion": "2.0.0"},
    },
    "deploymentName": "the plant's own",
    "deploymentPolicies": {
        "failureHandlingPolicy": "DO_NOTHING",
        "componentUpdatePolicy": {"timeoutInSeconds": 600, "action": "NOTIFY_COMPONENTS"},
        "configurationValidationPolicy": {"timeoutInSeconds": 90},
    },
    "iotJobConfiguration": {
        "jobExecutionsRolloutConfig": {"maximumPerMinute": 7},
        "timeoutConfig": {"inProgressTimeoutInMinutes": 33},
    },
    "tags": {"owner": "plant"},
}


def test_what_others_deployed_is_kept_to_the_letter(bench: GreengrassBench) -> None:
    publish(bench, OTHER, "1.2.3")
    publish(bench, MODEL, "7.0.0")
    bench.add_group("site")
    bench.deploy_by_hand(CANARY, **THEIRS, parentTargetArn=arn_of("site"))
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7: canary")
    found = bench.deployment(CANARY)
    for name, entry in THEIRS["components"].items():
        assert found["components"][name] == entry
    assert found["deploymentPolicies"] == THEIRS["deploymentPolicies"]
    assert found["iotJobConfiguration"]["jobExecutionsRolloutConfig"] == {"maximumPerMinute": 7}
    assert found["iotJobConfiguration"]["timeoutConfig"] == {"inProgressTimeoutInMinutes": 33}
    assert found["tags"] == {"owner": "plant", "lineside-line": "dots", "lineside-settings": "theirs"}
    assert found["parentTargetArn"] == arn_of("site")
    assert found["deploymentName"] == "dots model 7: canary"
    publish(bench, MODEL, "8.0.0")
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("8.0.0")}, "dots model 8: canary")
    assert bench.deployment(CANARY)["deploymentPolicies"] == THEIRS["deploymentPolicies"]
    assert bench.deployment(CANARY)["iotJobConfiguration"] == found["iotJobConfiguration"]
    bench.fleet.deploy(CANARY, {MODEL: None}, "back", everywhere_at_once=True)
    assert bench.deployment(CANARY)["components"][OTHER] == THEIRS["components"][OTHER]
    assert bench.deployment(CANARY)["deploymentPolicies"] == THEIRS["deploymentPolicies"]


def test_tags_that_only_aws_may_set_are_not_carried_over(bench: GreengrassBench) -> None:
    publish(bench, OTHER, "1.2.3")
    publish(bench, MODEL, "7.0.0")
    number = bench.deploy_by_hand(CANARY, **THEIRS)
    bench.double.deployments[number]["tags"]["aws:cloudformation:stack-name"] = "plant"
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    assert bench.deployment(CANARY)["tags"]["owner"] == "plant"


def test_what_somebody_deploys_at_the_same_moment_is_carried_over(bench: GreengrassBench) -> None:
    publish(bench, OTHER, "1.2.3")
    publish(bench, MODEL, "7.0.0")

    def be_faster(operation: str, parameters: dict[str, Any]) -> None:
        if operation == "CreateDeployment":
            bench.double.before = lambda operation, parameters: None
            bench.deploy_by_hand(CANARY, **THEIRS)

    bench.double.before = be_faster
    made = bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    assert made.components[OTHER] == "1.2.3"
    assert made.components[MODEL] == "7.0.0"
    found = bench.deployment(CANARY)
    assert found["deploymentId"] == made.id
    assert found["components"][OTHER] == THEIRS["components"][OTHER]


def test_somebody_who_overwrites_ours_at_the_same_moment_does_not_win(bench: GreengrassBench) -> None:
    publish(bench, OTHER, "1.2.3")
    publish(bench, MODEL, "7.0.0")

    def overwrite(operation: str, parameters: dict[str, Any]) -> None:
        if operation == "GetDeployment" and bench.double.deployments:
            bench.double.before = lambda operation, parameters: None
            bench.deploy_by_hand(CANARY, **THEIRS)

    bench.double.before = overwrite
    made = bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    assert (made.components[MODEL], made.components[OTHER]) == ("7.0.0", "1.2.3")
    assert bench.fleet.deployed(CANARY) == made
    assert len(bench.double.deployments) == 3


def test_a_deployment_that_never_shows_is_told(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0", "8.0.0")
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")

    def lag(operation: str, parameters: dict[str, Any]) -> None:
        if operation == "CreateDeployment":
            bench.double.stale_lists = 1_000_000

    bench.double.before = lag
    with pytest.raises(RolloutError, match=r"is not the newest there within 30 s.*Run again"):
        bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("8.0.0")}, "dots model 8")


def test_somebody_who_never_stops_deploying_is_told(bench: GreengrassBench) -> None:
    publish(bench, OTHER, "1.0.0")
    publish(bench, MODEL, "7.0.0")
    count = iter(range(1000))

    def be_faster(operation: str, parameters: dict[str, Any]) -> None:
        if operation == "CreateDeployment" and "lineside-line" in parameters["tags"]:
            theirs = {"componentVersion": "1.0.0", "configurationUpdate": {"merge": json.dumps({"n": next(count)})}}
            bench.deploy_by_hand(CANARY, {OTHER: theirs}, tags={"owner": "plant"})

    bench.double.before = be_faster
    with pytest.raises(RolloutError, match="revised by others all the time; agree on who"):
        bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")


def test_a_deployment_carries_pace_abort_timeout_and_policies(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0")
    fleet = bench.reopen(devices_per_minute=5, max_failed_devices=0.25, wave_timeout_minutes=90.0)
    fleet.deploy(FLEET, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    asked = bench.asked("CreateDeployment")[-1]
    assert asked["iotJobConfiguration"] == {
        "jobExecutionsRolloutConfig": {"maximumPerMinute": 5},
        "abortConfig": {
            "criteriaList": [
                {
                    "failureType": "ALL",
                    "action": "CANCEL",
                    "thresholdPercentage": 25.0,
                    "minNumberOfExecutedThings": 1,
                }
            ]
        },
        "timeoutConfig": {"inProgressTimeoutInMinutes": 90},
    }
    assert asked["deploymentPolicies"]["failureHandlingPolicy"] == "ROLLBACK"
    assert asked["deploymentPolicies"]["componentUpdatePolicy"]["action"] == "SKIP_NOTIFY_COMPONENTS"
    bench.reopen(nucleus="classic").deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    asked = bench.asked("CreateDeployment")[-1]
    assert asked["deploymentPolicies"]["componentUpdatePolicy"]["action"] == "NOTIFY_COMPONENTS"


def test_going_back_does_not_wait_for_its_turn_and_the_next_one_does(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0", "8.0.0")
    bench.fleet.deploy(FLEET, {MODEL: ComponentSetting("8.0.0")}, "dots model 8")
    bench.fleet.deploy(FLEET, {MODEL: ComponentSetting("7.0.0")}, "back", everywhere_at_once=True)
    job = bench.deployment(FLEET)["iotJobConfiguration"]
    assert "jobExecutionsRolloutConfig" not in job
    assert "abortConfig" not in job
    bench.fleet.deploy(FLEET, {MODEL: ComponentSetting("8.0.0")}, "dots model 8 again")
    job = bench.deployment(FLEET)["iotJobConfiguration"]
    assert job["jobExecutionsRolloutConfig"] == {"maximumPerMinute": 50}
    assert job["abortConfig"]["criteriaList"][0]["thresholdPercentage"] == 0.01


def test_limits_and_configuration_are_set_and_then_stay(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0", "8.0.0")
    limits = {"systemResourceLimits": {"memory": 512 * 1024, "cpus": 1.0}}
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0", limits, {"speed": 1})}, "dots model 7")
    entry = bench.deployment(CANARY)["components"][MODEL]
    assert entry["runWith"] == limits
    assert json.loads(entry["configurationUpdate"]["merge"]) == {"speed": 1}
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("8.0.0")}, "dots model 8")
    assert bench.deployment(CANARY)["components"][MODEL] == {**entry, "componentVersion": "8.0.0"}
    other = {"systemResourceLimits": {"memory": 1024 * 1024, "cpus": 2.0}}
    first = bench.deployment(CANARY)["deploymentId"]
    assert bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("8.0.0", other)}, "more memory").id != first


@pytest.mark.parametrize(
    ("nucleus", "wanted"), [("lite", "aws.greengrass.SystemLogForwarder"), ("classic", "aws.greengrass.LogManager")]
)
def test_stock_components_come_along_by_kind_of_nucleus(bench: GreengrassBench, nucleus: str, wanted: str) -> None:
    publish(bench, MODEL, "7.0.0")
    fleet = bench.reopen(nucleus=nucleus)
    components = fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7").components
    assert {name for name in components if name.startswith(STOCK)} == {"aws.greengrass.TokenExchangeService", wanted}
    assert components["aws.greengrass.TokenExchangeService"] == "2.0.3"
    if nucleus == "classic":
        assert components[wanted] == "2.3.10"  # 3.0.0 is another major version
        merged = bench.deployment(CANARY)["components"][wanted]["configurationUpdate"]["merge"]
        logs = json.loads(merged)["logsUploaderConfiguration"]["componentLogsConfigurationMap"]
        assert list(logs) == ["lineside.Inspector.dots"]


def test_stock_components_that_are_there_stay_as_they_are(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0")
    bench.deploy_by_hand(CANARY, {"aws.greengrass.TokenExchangeService": {"componentVersion": "2.0.0"}})
    components = bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7").components
    assert components["aws.greengrass.TokenExchangeService"] == "2.0.0"


def test_removing_brings_no_stock_components(bench: GreengrassBench) -> None:
    assert bench.fleet.deploy(CANARY, {MODEL: None}, "nothing").components == {}


def test_a_list_that_lags_behind_is_waited_for(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0", "8.0.0")
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")

    def lag(operation: str, parameters: dict[str, Any]) -> None:
        if operation == "CreateDeployment":
            bench.double.stale_lists = 4

    bench.double.before = lag
    made = bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("8.0.0")}, "dots model 8")
    assert made.components[MODEL] == "8.0.0"
    assert bench.fleet.deployed(CANARY) == made


def test_a_lost_answer_makes_no_second_deployment(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0")
    bench.double.fail("ServiceUnavailable", operation="CreateDeployment", after=True)
    made = bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    assert list(bench.double.deployments) == [made.id]


def test_a_long_label_is_cut_to_what_the_service_takes(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0")
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "x" * 400)
    assert bench.deployment(CANARY)["deploymentName"] == "x" * 256


# Devices


def test_a_deployment_spreads_at_the_pace_that_is_set(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0")
    bench.reopen(devices_per_minute=1).deploy(FLEET, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    bench.double.minute()
    bench.double.minute()
    assert sorted(one.state for one in bench.fleet.status(FLEET)) == ["in-progress", "waiting"]
    bench.double.run()
    assert [one.state for one in bench.fleet.status(FLEET)] == ["succeeded", "succeeded"]


def test_a_failure_stops_the_deployment_before_it_reaches_all(bench: GreengrassBench) -> None:
    bench.fleet.publish(tiny_component(bench, MODEL, "8.0.0", refuses=REFUSAL))
    bench.reopen(devices_per_minute=1).deploy(FLEET, {MODEL: ComponentSetting("8.0.0")}, "dots model 8")
    bench.offline("device-3")
    bench.double.run()
    status = {one.thing: one for one in bench.fleet.status(FLEET)}
    assert status["device-2"].state == "failed"
    assert "lineside.Model.dots 8.0.0 is BROKEN" in status["device-2"].error
    assert "the device gives no reason; see its log" in status["device-2"].error
    assert status["device-3"].state == "failed"
    assert "cancelled before it reached this device" in status["device-3"].error
    deployed = bench.fleet.deployed(FLEET)
    assert deployed is not None
    assert not deployed.active


def test_a_classic_nucleus_goes_back_by_itself_and_says_why(bench: GreengrassBench) -> None:
    bench.double.devices["device-1"].runtime = "aws_nucleus_classic"
    publish(bench, MODEL, "7.0.0")
    bench.fleet.publish(tiny_component(bench, MODEL, "8.0.0", refuses=REFUSAL))
    fleet = bench.reopen(nucleus="classic")
    fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    bench.double.run()
    fleet.deploy(CANARY, {MODEL: ComponentSetting("8.0.0")}, "dots model 8")
    bench.double.run()
    status = state_of(bench, CANARY, "device-1")
    assert (status.state, status.components[MODEL]) == ("failed", "7.0.0")
    assert "FAILED_ROLLBACK_COMPLETE" in status.error
    assert "COMPONENT_UPDATE_ERROR" in status.error


def test_a_component_of_ours_that_breaks_after_the_deployment_makes_it_a_failure(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0")
    bench.double.devices["device-1"].breaks[MODEL] = "started three times, ended three times"
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    bench.double.run()
    status = state_of(bench, CANARY, "device-1")
    assert status.state == "failed"
    assert status.error == f"{MODEL} 7.0.0 is BROKEN: started three times, ended three times, RUN_ERROR"
    assert status.states[MODEL] == "BROKEN"


def test_a_broken_component_of_others_is_not_our_failure(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0")
    publish(bench, OTHER, "1.2.3")
    bench.double.devices["device-1"].breaks[OTHER] = "theirs"
    bench.deploy_by_hand(CANARY, {OTHER: {"componentVersion": "1.2.3"}})
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    bench.double.run()
    status = state_of(bench, CANARY, "device-1")
    assert (status.state, status.states[OTHER]) == ("succeeded", "BROKEN")


def test_what_a_device_last_reported_of_an_older_version_is_no_failure(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0", "8.0.0")
    bench.double.devices["device-1"].breaks[MODEL] = "it broke"
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("8.0.0")}, "dots model 8")
    bench.double.run()
    late = bench.double.devices["device-1"].installed[MODEL]
    bench.double.devices["device-1"].breaks.clear()
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "back", everywhere_at_once=True)
    bench.double.run()
    bench.double.devices["device-1"].installed[MODEL] = late
    status = state_of(bench, CANARY, "device-1")
    assert (status.state, status.error) == ("succeeded", "")


def test_a_component_that_is_started_again_is_told_but_no_failure_yet(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0")
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    bench.double.run()
    bench.double.devices["device-1"].installed[MODEL].state = "ERRORED"
    status = state_of(bench, CANARY, "device-1")
    assert (status.state, status.error) == ("succeeded", f"{MODEL} 7.0.0 is ERRORED")


@pytest.mark.parametrize(
    ("reported", "said"),
    [("TIMED_OUT", "did not finish in time"), ("REJECTED", "rejected the deployment"), ("FAILED", "see its log")],
)
def test_every_way_to_fail_is_told(bench: GreengrassBench, reported: str, said: str) -> None:
    publish(bench, MODEL, "7.0.0")
    made = bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    bench.double.minute()
    bench.double.devices["device-1"].executions[made.id].move(reported)
    status = state_of(bench, CANARY, "device-1")
    assert (status.state, status.deployment) == ("failed", made.id)
    assert said in status.error


def test_a_device_that_hangs_is_in_progress(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0")
    bench.double.devices["device-1"].hangs = True
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    bench.double.run()
    assert state_of(bench, CANARY, "device-1").state == "in-progress"


def test_a_thing_that_never_became_a_core_device_is_offline_with_what_to_do(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0")
    bench.iot.create_thing(thingName="device-9")
    bench.iot.add_thing_to_thing_group(thingGroupName=FLEET, thingName="device-9")
    bench.fleet.deploy(FLEET, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    bench.double.run()
    status = state_of(bench, FLEET, "device-9")
    assert (status.state, status.seen_at, status.components) == ("offline", None, {})
    assert "never connected as a Greengrass core device; install the nucleus" in status.error


def test_a_device_that_does_not_take_up_a_deployment_in_time_is_offline(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0")
    bench.double.devices["device-1"].online = False
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    bench.double.run()
    assert state_of(bench, CANARY, "device-1").state == "waiting"
    bench.now_s = 30 * 60
    status = state_of(bench, CANARY, "device-1")
    assert status.state == "offline"
    assert "did not take up the deployment within 15 minutes" in status.error


def test_a_large_group_is_read_page_by_page(bench: GreengrassBench) -> None:
    bench.add_group("wave-2", *(f"cam-{number:02}" for number in range(20)))
    for number in range(20):
        bench.double.add_device(f"cam-{number:02}")
    publish(bench, MODEL, *(f"{number}.0.0" for number in range(1, 6)))
    publish(bench, CHALLENGER, "5.0.0")
    wanted = {MODEL: ComponentSetting("5.0.0"), CHALLENGER: ComponentSetting("5.0.0")}
    bench.fleet.deploy("wave-2", wanted, "dots model 5")
    bench.double.run()
    assert len(bench.fleet.versions(MODEL)) == 5
    status = bench.fleet.status("wave-2")
    assert len(status) == 20
    assert {one.state for one in status} == {"succeeded"}
    assert all(len(one.components) == 4 for one in status)
    assert any("nextToken" in asked for asked in bench.asked("ListInstalledComponents"))


# Checks


def test_groups_that_share_a_device_are_refused(bench: GreengrassBench) -> None:
    bench.iot.add_thing_to_thing_group(thingGroupName=FLEET, thingName="device-1")
    with pytest.raises(RolloutError, match=r"found device-1 in 'canary' and 'fleet'.*remove-thing-from-thing-group"):
        bench.fleet.check([CANARY, FLEET])


def test_a_canary_group_without_devices_is_refused(bench: GreengrassBench) -> None:
    bench.iot.remove_thing_from_thing_group(thingGroupName=CANARY, thingName="device-1")
    with pytest.raises(RolloutError, match=r"'canary' has no devices.*add-thing-to-thing-group"):
        bench.fleet.check([CANARY, FLEET])


def test_a_wave_group_without_devices_is_refused(bench: GreengrassBench) -> None:
    for thing in bench.fleet.members(FLEET):
        bench.iot.remove_thing_from_thing_group(thingGroupName=FLEET, thingName=thing)
    with pytest.raises(RolloutError, match=r"'fleet' has no devices; a wave goes to devices.*wave_groups"):
        bench.fleet.check([CANARY, FLEET])


def test_canaries_that_never_connected_are_refused(bench: GreengrassBench) -> None:
    del bench.double.devices["device-1"]
    with pytest.raises(RolloutError, match=r"none of the canaries \(device-1\) ever connected"):
        bench.fleet.check([CANARY, FLEET])


def test_another_kind_of_nucleus_is_refused(bench: GreengrassBench) -> None:
    bench.double.devices["device-2"].runtime = "aws_nucleus_classic"
    with pytest.raises(RolloutError, match=r"want lite, found aws_nucleus_classic on device-2"):
        bench.fleet.check([CANARY, FLEET])


def test_an_old_classic_nucleus_is_refused(bench: GreengrassBench) -> None:
    for device in bench.double.devices.values():
        device.runtime, device.version = "aws_nucleus_classic", "2.9.3"
    with pytest.raises(RolloutError, match=r"device-1: want Greengrass nucleus 2\.14 or later, found 2\.9\.3"):
        bench.reopen(nucleus="classic").check([CANARY, FLEET])


def test_another_deployment_with_our_components_on_a_canary_is_refused(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0")
    bench.add_group("forgotten")
    bench.iot.add_thing_to_thing_group(thingGroupName="forgotten", thingName="device-1")
    bench.deploy_by_hand("forgotten", {MODEL: {"componentVersion": "7.0.0"}}, deploymentName="a trial")
    bench.double.run()
    with pytest.raises(RolloutError, match=r"'a trial' of thinggroup/forgotten brings lineside\.Model\.dots too"):
        bench.fleet.check([CANARY, FLEET])


def test_a_bucket_in_another_region_is_refused(bench: GreengrassBench) -> None:
    boto3.client("s3", region_name="ap-southeast-2").create_bucket(
        Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "ap-southeast-2"}
    )
    settings = parse_settings(
        {
            "line": {"name": "dots", "storage": "s3://far-away/plant"},
            "fleet": {"backend": "greengrass", "region": REGION},
        },
        "line.toml",
    )
    with pytest.raises(RolloutError, match=r"want the bucket far-away in eu-central-1.*found it in ap-southeast-2"):
        GreengrassFleet(settings).check([CANARY, FLEET])


def test_a_bucket_that_does_not_exist_is_told(bench: GreengrassBench) -> None:
    settings = parse_settings(
        {"line": {"name": "dots", "storage": "s3://nowhere"}, "fleet": {"backend": "greengrass", "region": REGION}},
        "line.toml",
    )
    with pytest.raises(
        RolloutError, match=r"no bucket 'nowhere'; create it in eu-central-1 or correct \[line\] storage"
    ):
        GreengrassFleet(settings).check([CANARY, FLEET])


# What AWS refuses


def test_an_expired_credential_is_told_with_what_to_do(bench: GreengrassBench) -> None:
    bench.double.fail("ExpiredTokenException", "The security token included in the request is expired", times=99)
    with pytest.raises(RolloutError, match=r"credentials have expired.*sign in again"):
        bench.fleet.newest(MODEL)


def test_credentials_that_aws_does_not_know_are_told(bench: GreengrassBench) -> None:
    bench.double.fail("UnrecognizedClientException", "The security token is invalid", times=99)
    with pytest.raises(RolloutError, match=r"does not know these credentials.*AWS_PROFILE"):
        bench.fleet.status(CANARY)


def test_the_wrong_region_is_told(bench: GreengrassBench) -> None:
    fleet = bench.reopen(region="us-west-2")
    with pytest.raises(RolloutError, match=r"in us-west-2: wrong region.*set \[fleet\] region"):
        fleet.newest(MODEL)


def test_a_group_of_another_region_is_missing_there(bench: GreengrassBench) -> None:
    with pytest.raises(RolloutError, match=r"no thing group 'canary' in us-west-2 of account .*or region"):
        bench.reopen(region="us-west-2").members(CANARY)


@pytest.mark.parametrize(
    ("message", "action"),
    [
        ("User: arn:aws:iam::1:user/x is not authorized to perform: iot:CreateJob on resource: y", "iot:CreateJob"),
        ("User: x is not authorized to perform: null", "greengrass:CreateDeployment"),
    ],
)
def test_a_denied_action_is_named(bench: GreengrassBench, message: str, action: str) -> None:
    publish(bench, MODEL, "7.0.0")
    bench.double.fail("AccessDeniedException", message, operation="CreateDeployment")
    with pytest.raises(RolloutError, match=rf"access denied: these credentials need {action}; see docs/greengrass\.md"):
        bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    assert bench.fleet.deployed(CANARY) is None


def test_throttling_and_faults_of_the_service_are_tried_again(bench: GreengrassBench) -> None:
    publish(bench, MODEL, "7.0.0")
    bench.double.fail("ThrottlingException", operation="CreateDeployment")
    bench.double.fail("InternalServerException", operation="ListDeployments")
    bench.double.fail("ServiceUnavailable", operation="GetDeployment")
    assert bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7").active


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("ThrottlingException", r"asks to slow down \(ThrottlingException\), also after 2 attempts; run again later"),
        ("InternalServerException", r"AWS has a fault \(InternalServerException.*also after 2 attempts"),
        ("ServiceUnavailable", r"AWS has a fault \(ServiceUnavailable.*run again later"),
    ],
)
def test_what_does_not_pass_is_told(
    bench: GreengrassBench, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    monkeypatch.setattr(greengrass_clients, "ATTEMPTS", 2)
    bench.double.fail(code, times=99)
    with pytest.raises(RolloutError, match=said):
        bench.reopen().newest(MODEL)


def test_a_used_up_quota_is_told(bench: GreengrassBench) -> None:
    bench.double.fail("ServiceQuotaExceededException", "1000 versions", operation="CreateComponentVersion")
    with pytest.raises(RolloutError, match=r"quota of the account is used up \(1000 versions\)"):
        bench.fleet.publish(tiny_component(bench, MODEL, "7.0.0"))


def test_an_aws_that_cannot_be_reached_is_told(bench: GreengrassBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greengrass_clients, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL_GREENGRASSV2", "http://127.0.0.1:9")
    with pytest.raises(RolloutError, match=r"Could not connect.*check the network, and that \[fleet\] region"):
        bench.reopen().newest(MODEL)


@pytest.fixture
def _fresh_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 remembers the credentials of its first client."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.mark.usefixtures("_fresh_session")
def test_missing_credentials_are_told(bench: GreengrassBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(RolloutError, match=r"no AWS credentials.*`aws configure` or set AWS_PROFILE"):
        bench.reopen().newest(MODEL)


@pytest.mark.usefixtures("_fresh_session")
def test_a_profile_that_does_not_exist_is_told(bench: GreengrassBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(RolloutError, match=r"profile \(nobody\).*correct AWS_PROFILE"):
        bench.reopen()


@pytest.mark.usefixtures("_fresh_session")
def test_a_missing_region_is_told(bench: GreengrassBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(RolloutError, match=r"set \[fleet\] region"):
        bench.reopen(region="")


def test_no_region_in_the_settings_means_the_environments(bench: GreengrassBench) -> None:
    assert bench.reopen(region="").members(CANARY) == CANARIES


# What the document promises


def blocks() -> dict[str, Any]:
    """The JSON of docs/greengrass.md, by the mark above it."""
    text = (Path(__file__).parents[1] / "docs" / "greengrass.md").read_text(encoding="utf-8")
    found = re.findall(r"<!-- ([a-z ]+) -->\n```json\n(.*?)```", text, re.DOTALL)
    return {name: json.loads(block) for name, block in found}


def actions_of(policy: dict[str, Any]) -> set[str]:
    listed = [statement["Action"] for statement in policy["Statement"]]
    return {action for one in listed for action in ([one] if isinstance(one, str) else one)}


def test_the_deployers_policy_has_every_action_that_is_used(bench: GreengrassBench) -> None:
    bench.double.components.failing[MODEL] = "no"
    with pytest.raises(RolloutError):
        bench.fleet.publish(tiny_component(bench, MODEL, "7.0.0"))
    bench.double.components.failing.clear()
    publish(bench, MODEL, "7.0.0")
    bench.fleet.check([CANARY, FLEET])
    bench.fleet.deploy(CANARY, {MODEL: ComponentSetting("7.0.0")}, "dots model 7")
    bench.fleet.status(CANARY)
    bench.fleet.cancel(CANARY)
    asked = {f"greengrass:{operation}" for operation, _ in bench.double.asked}
    allowed = actions_of(blocks()["deployer"])
    assert asked <= allowed
    tagging = {"greengrass:TagResource"}  # asked for by AWS when what is created has tags
    assert {action for action in allowed if action.startswith("greengrass:")} == asked | tagging


def test_the_health_rule_stores_messages_where_reports_are_read(bench: GreengrassBench) -> None:
    rule = blocks()["health rule"]
    topic = topics("lineside", "dots", "device-1").health
    pattern = re.search(r"FROM '(.*)'", rule["sql"])
    assert pattern is not None
    assert re.fullmatch(pattern[1].replace("+", "[^/]+"), topic)
    levels = topic.split("/")
    key = re.sub(r"\$\{topic\((\d)\)\}", lambda found: levels[int(found[1]) - 1], rule["actions"][0]["s3"]["key"])
    assert key == f"PREFIX/{health_key('dots', 'device-1')}"
    bench.iot.create_topic_rule(ruleName="lineside_health", topicRulePayload=rule)  # botocore takes its form
    bench.iot.delete_topic_rule(ruleName="lineside_health")
    resource = blocks()["rule role"]["Statement"][0]["Resource"].removeprefix("arn:aws:s3:::BUCKET/")
    assert fnmatch.fnmatchcase(key, resource)


def test_the_devices_may_do_what_they_do_and_only_as_themselves(bench: GreengrassBench) -> None:
    statements = {one["Sid"]: one for one in blocks()["device role"]["Statement"]}
    artifact = bench.fleet.artifact_uri(MODEL, "7.0.0", "package.zip").replace("s3://parts/plant", "BUCKET/PREFIX")
    assert fnmatch.fnmatchcase(f"arn:aws:s3:::{artifact}", statements["FetchComponents"]["Resource"])
    folder = "PREFIX/bottles/raw-images-for-review/${credentials-iot:ThingName}/*"
    assert statements["KeepImagesForReview"]["Resource"] == f"arn:aws:s3:::BUCKET/{folder}"
    named = json.dumps(blocks()["device policy"])
    mine = topics("lineside", "bottles", "THING")
    for topic in (mine.results, mine.metrics, mine.health, mine.trigger):
        assert f":topic/{topic.replace('THING', '${iot:Connection.Thing.ThingName}')}" in named
    assert "topic/lineside/*" not in named
