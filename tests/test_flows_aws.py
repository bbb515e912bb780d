"""The same flow with its data on S3, and as a Step Functions state machine; against a real server on loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from parts import draw_parts, write_line

from inspection.registry.opening import open_registry
from inspection.settings import load_settings

pytest_plugins = ["s3_server"]
pytestmark = pytest.mark.slow

FLOW = Path(__file__).parents[1] / "flows" / "train_flow.py"
DEPLOY_FLOW = FLOW.with_name("deploy_flow.py")


def run_flow(
    folder: Path, *arguments: str, flow: Path = FLOW, **environment: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(flow), *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=folder,
        env={**os.environ, "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder), **environment},
    )


def test_a_run_keeps_everything_of_the_line_on_s3(s3: str, tmp_path: Path) -> None:
    line = write_line(tmp_path, draw_parts(tmp_path / "parts", good=40, bad=40), storage=f"s3://{s3}/plant-7")
    done = run_flow(tmp_path, "--config", "line", str(line), "run", HOME=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    registry = open_registry(load_settings(line))
    (version,) = registry.list("dots")
    assert registry.fetch("dots", version.version, tmp_path / "package").is_dir()
    listed = boto3.client("s3").list_objects_v2(Bucket=s3, Prefix="plant-7/")["Contents"]
    kept = {entry["Key"].split("/")[1] for entry in listed}
    assert {"cache", "checkpoints", "datasets", "packages", "registry"} <= kept
    assert not (tmp_path / "store").exists()


@pytest.fixture
def batch_queue(s3: str) -> str:
    """A Batch queue, which Metaflow wants to see before it makes a state machine."""
    iam, ec2, batch = (boto3.client(name) for name in ("iam", "ec2", "batch"))
    if batch.describe_job_queues(jobQueues=["lineside"])["jobQueues"]:  # another test made it: they share the server
        return "lineside"
    role = iam.create_role(RoleName="batch", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    profile = iam.create_instance_profile(InstanceProfileName="batch")["InstanceProfile"]["Arn"]
    environment = batch.create_compute_environment(
        computeEnvironmentName="lineside",
        type="MANAGED",
        state="ENABLED",
        serviceRole=role,
        computeResources={
            "type": "EC2",
            "minvCpus": 0,
            "maxvCpus": 8,
            "instanceTypes": ["m5.large"],
            "instanceRole": profile,
            "subnets": [ec2.describe_subnets()["Subnets"][0]["SubnetId"]],
            "securityGroupIds": [ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]],
        },
    )
    queue = batch.create_job_queue(
        jobQueueName="lineside",
        state="ENABLED",
        priority=1,
        computeEnvironmentOrder=[{"order": 1, "computeEnvironment": environment["computeEnvironmentArn"]}],
    )
    return queue["jobQueueName"]


def make_state_machine(s3: str, batch_queue: str, folder: Path, flow: Path) -> dict[str, Any]:
    """The states of a flow's state machine."""
    done = run_flow(
        folder,
        "--datastore",
        "s3",
        "step-functions",
        "create",
        "--only-json",
        flow=flow,
        METAFLOW_DATASTORE_SYSROOT_S3=f"s3://{s3}/metaflow",
        METAFLOW_S3_ENDPOINT_URL=os.environ["AWS_ENDPOINT_URL"],
        METAFLOW_BATCH_JOB_QUEUE=batch_queue,
        METAFLOW_BATCH_CONTAINER_IMAGE="lineside:1",
        METAFLOW_ECS_S3_ACCESS_IAM_ROLE="arn:aws:iam::123456789012:role/tasks",
        METAFLOW_SFN_IAM_ROLE="arn:aws:iam::123456789012:role/states",
        METAFLOW_SFN_DYNAMO_DB_TABLE="metaflow",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    states: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])["States"]
    return states


def test_the_train_flow_becomes_a_state_machine_of_batch_jobs(s3: str, batch_queue: str, tmp_path: Path) -> None:
    states = make_state_machine(s3, batch_queue, tmp_path, FLOW)
    assert {"start", "train", "export", "decide", "evaluate", "register", "end"} <= set(states)
    assert states["train"]["Resource"].startswith("arn:aws:states:::batch:submitJob")
    assert states["train"]["Retry"][0]["MaxAttempts"] >= 3


def test_the_deploy_flow_becomes_a_state_machine_of_batch_jobs(s3: str, batch_queue: str, tmp_path: Path) -> None:
    states = make_state_machine(s3, batch_queue, tmp_path, DEPLOY_FLOW)
    assert {"start", "publish", "canary", "fleet", "end"} <= set(states)
    assert states["canary"]["Resource"].startswith("arn:aws:states:::batch:submitJob")
    assert states["canary"]["Retry"][0]["MaxAttempts"] >= 3
