"""The deploy flow's steps against AWS: Greengrass by the double, all else by moto's server, devices that are played."""

import hashlib
import json
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from card_reading import text_of
from deploying import Deploying, quick_build
from greengrass_bench import REGION, GreengrassBench
from local_fleet import LINE, NAMES, register
from sagemaker_server import serve_sagemaker

from inspection.deploy_path import publishing
from inspection.errors import InspectionError, RolloutError
from inspection.fleet.greengrass.fleet import GreengrassFleet
from inspection.fleet.overview import look_over
from inspection.fleet.reports import health_key
from inspection.registry.opening import open_registry
from inspection.settings import Settings, parse_settings
from inspection.storage import open_storage

pytest_plugins = ["greengrass_fixtures", "s3_server"]
pytestmark = pytest.mark.slow

IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/lineside:1"


def settings_of(**fleet: Any) -> Settings:
    registry = fleet.pop("registry", {})
    options = {"poll_seconds": 0.05, "shadow_parts": 30, "canary_parts": 5, "wave_parts": 2, **fleet}
    options |= {"canary_timeout_minutes": 5.0, "wave_timeout_minutes": 5.0}
    options.setdefault("inspector", {"source": {"uri": "folder:/var/parts"}})
    return parse_settings(
        {
            "line": {"name": LINE, "storage": "s3://parts/plant"},
            "fleet": {"backend": "greengrass", "region": REGION, **options},
            "registry": registry,
        },
        "line.toml",
    )


class Players:
    """Devices that take up deployments and say what the inspector would.

    Args:
        bench: whose devices.
        settings: of the line.
    """

    def __init__(self, bench: GreengrassBench, settings: Settings) -> None:
        self._bench, self._settings = bench, settings
        self._storage = open_storage(settings.storage_root)
        self._digests: dict[str, str] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self.stop = threading.Event()
        for device in bench.double.devices.values():
            device.passes |= {NAMES.runtime, NAMES.inspector, NAMES.model, NAMES.challenger}

    def run(self) -> None:
        while not self.stop.wait(0.05):
            self._bench.double.run()
            for thing, device in self._bench.double.devices.items():
                installed = {name: one.version for name, one in device.installed.items()}
                if device.online and NAMES.inspector in installed and NAMES.model in installed:
                    self._storage.write(health_key(LINE, thing), json.dumps(self._say(thing, installed)).encode())

    def _say(self, thing: str, installed: dict[str, str]) -> dict[str, Any]:
        serving = self._digest(installed[NAMES.model])
        count = self._count(thing, serving)
        said: dict[str, Any] = {
            "schema": "1.1",
            "thing": thing,
            "line": LINE,
            "at": time.time(),
            "state": "ok",
            "up_s": 10,
            "versions": {},
            "components": {},
            "package": {"serving": serving, "deployed": serving, "version": "x", "self_test": "passed: 4 images"},
            "figures": {"package": serving, "since": 1.0, "pass": count},
        }
        if NAMES.challenger in installed:
            version = installed[NAMES.challenger]
            beside = self._digest(version)
            judged = self._count(thing, f"{serving}/{beside}")
            said["shadow"] = {
                "package": beside,
                "champion": serving,
                "state": "running",
                "message": "",
                "pairs": {"pass/pass": judged},
                "skipped": 0,
            }
        return said

    def _count(self, thing: str, what: str) -> int:
        self._counts[thing, what] = self._counts.get((thing, what), 0) + 3
        return self._counts[thing, what]

    def _digest(self, version: str) -> str:
        """Of a model's contract, from the artifact in S3: as a device finds it."""
        if version not in self._digests:
            registry = open_registry(self._settings)
            with tempfile.TemporaryDirectory() as scratch:
                folder = registry.fetch(LINE, int(version.split(".")[0]), Path(scratch) / "package")
                self._digests[version] = hashlib.sha256((folder / "contract.json").read_bytes()).hexdigest()
        return self._digests[version]


@contextmanager
def playing(bench: GreengrassBench, settings: Settings) -> Iterator[Players]:
    players = Players(bench, settings)
    thread = threading.Thread(target=players.run)
    thread.start()
    try:
        yield players
    finally:
        players.stop.set()
        thread.join(60)


@pytest.fixture
def line(bench: GreengrassBench, monkeypatch: pytest.MonkeyPatch, tmp_path) -> Deploying:
    """A line on AWS with two approved models, of which none is deployed."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where local copies of objects go
    monkeypatch.setattr(publishing, "build_components", quick_build)
    deploying = Deploying(settings_of())
    for kind in ("good", "float"):
        register(deploying.settings, tmp_path / "packages", kind)
    return deploying


def models(deploying: Deploying) -> list[int | None]:
    fleet, storage = GreengrassFleet(deploying.settings), open_storage(deploying.settings.storage_root)
    return [one.model for one in look_over(fleet, storage, deploying.settings)]


def test_models_go_out_by_stages_and_the_topic_hears_of_it(bench: GreengrassBench, line: Deploying) -> None:
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    topic = sns.create_topic(Name="line-tiny")["TopicArn"]
    queue = sqs.create_queue(QueueName="heard-tiny")["QueueUrl"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:{REGION}:123456789012:heard-tiny")
    line.settings = settings_of(notify=topic)
    with playing(bench, line.settings):
        first = line.run("1")
        assert (first.outcome, first.serving) == ("deployed", 1), first.reason
        assert models(line) == [1, 1, 1]
        second = line.run(number=2)
        assert (second.outcome, second.serving) == ("deployed", 2), second.reason
        assert models(line) == [2, 2, 2]
        assert "Both models judged the same" in text_of(line.card.components)
        assert re.search(rf"^told +\| {topic}$", line.said, re.MULTILINE)
        back = line.run(number=3, rollback=True)
        assert back.outcome == "went-back", back.reason
        assert models(line) == [1, 1, 1]
    heard = []
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
        for message in messages:
            heard.append(json.loads(message["Body"])["Subject"])
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert sorted(heard) == [
        "Line tiny: Back to model 1 on the whole fleet",
        "Line tiny: Model 1 serves on the whole fleet",
        "Line tiny: Model 2 serves on the whole fleet",
    ]


def test_a_model_of_sagemakers_registry_is_named_by_its_arn(
    bench: GreengrassBench, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(publishing, "build_components", quick_build)
    with serve_sagemaker() as (server, address):
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", address)
        settings = settings_of(
            registry={"backend": "sagemaker", "prefix": "plant-deploy", "container_image": IMAGE, "region": REGION}
        )
        register(settings, tmp_path / "packages", "good")
        deploying = Deploying(settings)
        arn = f"arn:aws:sagemaker:{REGION}:123456789012:model-package/plant-deploy-{LINE}/1"
        with playing(bench, settings):
            outcome = deploying.run(arn)
        assert (outcome.outcome, outcome.serving) == ("deployed", 1), outcome.reason
        assert server.refused == []
        with pytest.raises(InspectionError, match="plant-deploy"):
            deploying.choose(arn.replace(LINE, "other"))


def test_throttling_and_server_errors_are_borne_at_every_step(bench: GreengrassBench, line: Deploying) -> None:
    calls, codes = 0, ("ThrottlingException", "InternalServerException")

    def sometimes(operation: str, parameters: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if calls % 7 == 0:
            bench.double.fail(codes[calls % 2], "as it happens")

    bench.double.before = sometimes
    with playing(bench, line.settings):
        outcome = line.run("1")
    assert (outcome.outcome, outcome.serving) == ("deployed", 1), outcome.reason


class TestRefusals:
    def test_an_expired_credential_says_so_before_anything_is_changed(
        self, bench: GreengrassBench, line: Deploying
    ) -> None:
        bench.double.fail("ExpiredTokenException", "The security token included in the request is expired", times=99)
        with pytest.raises(RolloutError, match=r"(?i)expired.*sign in again"):
            line.choose()
        assert not bench.asked("CreateComponentVersion")

    def test_a_region_without_these_groups_is_told(self, bench: GreengrassBench, line: Deploying) -> None:
        line.settings = settings_of(region="us-east-1")
        with pytest.raises(RolloutError, match=r"us-east-1") as error:
            line.choose()
        assert "region" in str(error.value)

    def test_a_missing_thing_group_is_named_with_what_to_do(self, bench: GreengrassBench, line: Deploying) -> None:
        line.settings = settings_of(wave_groups=["fleet", "night-shift"])
        with pytest.raises(RolloutError, match=r"night-shift.*(create|correct)"):
            line.choose()

    def test_a_slip_in_the_inspectors_settings_is_told(self, bench: GreengrassBench, line: Deploying) -> None:
        line.settings = settings_of(inspector={"source": {"uri": "folder:/var/parts"}, "deadline": 3})
        with pytest.raises(RolloutError, match=r"(?s)\[fleet\.inspector\].*deadline: no such setting"):
            line.choose()

    def test_a_topic_that_is_not_there_is_told_before_anything_is_changed(
        self, bench: GreengrassBench, line: Deploying
    ) -> None:
        line.settings = settings_of(notify=f"arn:aws:sns:{REGION}:123456789012:nobody")
        with pytest.raises(RolloutError, match=r"nobody.*create the topic"):
            line.choose()

    def test_credentials_that_expire_in_the_middle_leave_a_rollout_that_goes_on(
        self, bench: GreengrassBench, line: Deploying, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def late(operation: str, parameters: dict[str, Any]) -> None:
            if operation == "CreateDeployment":
                bench.double.fail("ExpiredTokenException", "The security token is expired", times=999)

        with playing(bench, line.settings):
            bench.double.before = late
            with pytest.raises(RolloutError) as error:
                line.run("1")
            assert "stands where it was" in str(error.value)
            assert "python flows/deploy_flow.py resume" in str(error.value)
            bench.double.before = lambda operation, parameters: None
            bench.double._failures.clear()
            outcome = line.run("1")
        assert outcome.outcome == "deployed"
        assert outcome.number == 1
