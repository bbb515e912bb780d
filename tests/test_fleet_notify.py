"""Who hears of a rollout's outcome: exactly once, whatever happens on the way."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from inspection.errors import RolloutError, SettingsError
from inspection.fleet import notify
from inspection.fleet.notify import Notice, check_topic, send_notice, to_subject
from inspection.settings import FleetSettings, parse_settings
from inspection.storage import Storage, open_storage

pytest_plugins = ["s3_server"]

NOTICE = Notice(
    line="dots",
    rollout=12,
    outcome="rolled-back",
    at=1_795_000_000.0,
    subject="Line dots: model 7 was rolled back",
    text="Model 7 was rolled back: it rejects more (ä) 9 % of the parts instead of 2 %.\nModel 6 serves.",
    facts={"model": 7, "serving": 6},
)
FOLDER = "fleet/dots/notifications/"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "store"))


@pytest.fixture
def topic(s3: str) -> Iterator[tuple[str, Any]]:
    """A topic and the queue that hears it."""
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    arn = sns.create_topic(Name="line-dots")["TopicArn"]
    queue = sqs.create_queue(QueueName="heard")["QueueUrl"]
    sqs.purge_queue(QueueUrl=queue)
    sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint="arn:aws:sqs:eu-central-1:123456789012:heard")

    def heard() -> list[dict[str, Any]]:
        found = []
        while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
            for message in messages:
                found.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return found

    yield arn, heard
    sns.delete_topic(TopicArn=arn)
    sqs.delete_queue(QueueUrl=queue)


def test_without_a_topic_the_message_is_a_file_and_there_is_one_of_it(storage: Storage) -> None:
    first, second = (send_notice(storage, FleetSettings(), NOTICE) for _ in range(2))
    assert first == second
    assert first.sent
    (key,) = storage.list(FOLDER)
    assert key == f"{FOLDER}20261118T110640Z-000012-rolled-back.json"
    assert first.describe() == f"told {storage.root}/{key}"
    document = json.loads(storage.read(key))
    assert document["schema"] == "1.0"
    assert document["id"] == "dots-000012-rolled-back"
    assert document["facts"] == {"model": 7, "serving": 6}
    assert "rejects more (ä) 9 %" in document["text"]


def test_other_outcomes_of_a_rollout_are_messages_of_their_own(storage: Storage) -> None:
    for outcome in ("rolled-back", "done"):
        send_notice(storage, FleetSettings(), Notice("dots", 12, outcome, 1.0, "s", "t"))
    assert len(storage.list(FOLDER)) == 2


def test_a_topic_hears_the_outcome_once_however_often_the_step_runs(storage: Storage, topic: Any) -> None:
    arn, heard = topic
    settings = FleetSettings(notify=arn)
    for _ in range(3):
        assert send_notice(storage, settings, NOTICE).sent
    (message,) = heard()
    assert message["Subject"] == "Line dots: model 7 was rolled back"
    text, _, facts = message["Message"].partition("\n\n")
    assert text.startswith("Model 7 was rolled back: it rejects more (ä) 9 %")
    assert json.loads(facts) == {"model": 7, "serving": 6}
    assert message["MessageAttributes"]["id"]["Value"] == "dots-000012-rolled-back"
    assert message["MessageAttributes"]["outcome"]["Value"] == "rolled-back"


def test_a_topic_that_refuses_is_told_and_tried_again(storage: Storage, topic: Any) -> None:
    arn, heard = topic
    missing = FleetSettings(notify=arn.replace("line-dots", "nobody"))
    sent = send_notice(storage, missing, NOTICE)
    assert not sent.sent
    assert "create the topic, or correct the ARN" in sent.error
    assert sent.describe().startswith(f"NOT told {missing.notify}: ")
    kept = {key.rpartition(".")[0].rpartition(".")[2]: key for key in storage.list(FOLDER)}
    assert "error" in kept
    assert "NotFound" in json.loads(storage.read(kept["error"]))["error"]
    assert heard() == []
    assert send_notice(storage, FleetSettings(notify=arn), NOTICE).sent  # the topic was made meanwhile
    assert len(heard()) == 1


def test_a_server_that_does_not_answer_is_told(storage: Storage, topic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arn, _ = topic
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(notify, "ATTEMPTS", 1)
    sent = send_notice(storage, FleetSettings(notify=arn), NOTICE)
    assert not sent.sent
    assert "SNS cannot be reached" in sent.error
    assert "see the network, the region and the credentials" in sent.error


def test_credentials_that_are_missing_are_told(storage: Storage, topic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arn, _ = topic
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers them
    sent = send_notice(storage, FleetSettings(notify=arn), NOTICE)
    assert "SNS cannot be reached (Unable to locate credentials)" in sent.error


def test_the_topic_is_looked_for_before_a_rollout_begins(topic: Any) -> None:
    arn, _ = topic
    check_topic(FleetSettings())
    check_topic(FleetSettings(notify=arn))
    with pytest.raises(RolloutError, match="create the topic"):
        check_topic(FleetSettings(notify=arn.replace("line-dots", "nobody")))


def test_the_topic_is_asked_in_the_region_that_its_arn_names(
    storage: Storage, topic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arn, heard = topic
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert send_notice(storage, FleetSettings(notify=arn, region="ap-south-1"), NOTICE).sent
    assert len(heard()) == 1


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("Line dots: model 7 ä 9 %", "Line dots: model 7 ? 9 %"),
        ("two\nlines", "two lines"),
        ("x" * 200, "x" * 97 + "..."),
    ],
)
def test_a_subject_is_what_sns_takes(text: str, subject: str) -> None:
    assert to_subject(text) == subject
    assert len(to_subject(text)) <= 100


@pytest.mark.parametrize("wrong", ["me@example.com", "arn:aws:sns:eu-central-1:123456789012:line.fifo", "line"])
def test_a_topic_that_is_none_is_refused_with_the_settings(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"\[fleet\] notify: want the ARN of a standard SNS topic"):
        parse_settings({"line": {"name": "dots"}, "fleet": {"notify": wrong}}, "dots.toml")
