"""Tells people what became of a rollout: a message to an SNS topic, and always a file in the line's storage.

    fleet/<line>/notifications/<time>-<rollout>-<outcome>.json         the message, written once
    fleet/<line>/notifications/<time>-<rollout>-<outcome>.sent.json    that the topic took it, and under which id
    fleet/<line>/notifications/<time>-<rollout>-<outcome>.error.json   why it did not, the last time it was tried

The message of an outcome is written once and sent until the topic takes it; a step that is repeated sends nothing that
was sent. Should this program die between the topic's answer and its note, the message comes a second time with the
same `id`. A topic that does not answer undoes nothing: the error is kept, told, and the next attempt tries again.
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from inspection.errors import RolloutError
from inspection.settings import FleetSettings
from inspection.settings_faults import TOPIC
from inspection.storage import ObjectExistsError, Storage

SCHEMA = "1.0"
ATTEMPTS = 6  # of one call, with a growing pause between them
MAX_SUBJECT = 100  # characters, ASCII. Source: Amazon SNS API reference, Publish

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notice:
    """What is told of one outcome of one rollout."""

    line: str
    rollout: int
    outcome: str  # done, rolled-back, aborted, …
    at: float  # unix time of the outcome; part of the message's name, so a retry must give the same
    subject: str
    text: str  # for people, some lines
    facts: Mapping[str, Any] = field(default_factory=dict)  # JSON, for programs

    @property
    def id(self) -> str:
        """What a receiver tells repeated messages by, such as `bottles-000012-done`."""
        return f"{self.line}-{self.rollout:06d}-{self.outcome}"


@dataclass(frozen=True)
class Sent:
    """What became of a notice."""

    where: str  # the topic's ARN, or the file
    sent: bool  # False: the topic did not take it
    error: str = ""

    def describe(self) -> str:
        """One line for people."""
        if self.sent:
            return f"told {self.where}"
        return f"NOT told {self.where}: {self.error}"


def send_notice(storage: Storage, settings: FleetSettings, notice: Notice) -> Sent:
    """Tell an outcome once.

    Args:
        storage: of the line.
        settings: where it goes.
        notice: what to tell.

    Returns:
        What became of it. A topic that refuses is no exception: the rollout is over, whoever is told.

    Raises:
        StorageError: the message cannot be kept.
    """
    key = f"fleet/{notice.line}/notifications/{_stamp(notice.at)}-{notice.rollout:06d}-{notice.outcome}"
    document = {"schema": SCHEMA, "requires": [], "id": notice.id, **asdict(notice)}
    try:
        storage.create(f"{key}.json", _dump(document))
        log.info("event=outcome_noted id=%s key=%s.json", notice.id, key)
    except ObjectExistsError:
        document = json.loads(storage.read(f"{key}.json"))  # what was written first is what everybody is told
    if not settings.notify:
        return Sent(f"{storage.root}/{key}.json", True)
    if storage.exists(f"{key}.sent.json"):
        return Sent(settings.notify, True)
    try:
        message_id = _publish(settings, document)
    except RolloutError as error:
        storage.write(f"{key}.error.json", _dump({"schema": SCHEMA, "at": _now(), "error": str(error)}))
        log.error("event=outcome_not_told id=%s topic=%s error=%s", notice.id, settings.notify, error)
        return Sent(settings.notify, False, str(error))
    storage.write(
        f"{key}.sent.json",
        _dump({"schema": SCHEMA, "at": _now(), "topic": settings.notify, "message_id": message_id}),
    )
    log.info("event=outcome_told id=%s topic=%s message_id=%s", notice.id, settings.notify, message_id)
    return Sent(settings.notify, True)


def check_topic(settings: FleetSettings) -> None:
    """Refuse a topic that is not there, before a rollout begins whose outcome nobody would hear of.

    Who may publish need not be allowed to look: a denied look is taken for a topic that is there.

    Raises:
        RolloutError: there is no such topic, or SNS cannot be reached.
    """
    if not settings.notify:
        return
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        _client(settings).get_topic_attributes(TopicArn=settings.notify)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("AuthorizationError", "AccessDenied", "AccessDeniedException"):
            raise RolloutError(_explain(settings, error)) from None
        log.info("event=topic_not_seen topic=%s reason=denied", settings.notify)
    except BotoCoreError as error:
        raise RolloutError(_explain(settings, error)) from None


def _publish(settings: FleetSettings, document: Mapping[str, Any]) -> str:
    """Send the message; its id at SNS."""
    from botocore.exceptions import BotoCoreError, ClientError

    attributes = {name: str(document[name]) for name in ("id", "line", "outcome")}
    body = f"{document['text'].rstrip()}\n\n{json.dumps(document['facts'], indent=2, ensure_ascii=False)}\n"
    try:
        answer = _client(settings).publish(
            TopicArn=settings.notify,
            Subject=to_subject(document["subject"]),
            Message=body,
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
            },
        )
    except (ClientError, BotoCoreError) as error:
        raise RolloutError(_explain(settings, error)) from None
    return str(answer["MessageId"])


def _client(settings: FleetSettings) -> Any:
    import boto3
    from botocore.config import Config

    match = TOPIC.fullmatch(settings.notify)
    region = settings.notify_region or (match["region"] if match else settings.region)
    retries: Any = {"mode": "standard", "total_max_attempts": ATTEMPTS}
    return boto3.client(
        "sns", region_name=region or None, config=Config(retries=retries, connect_timeout=10, read_timeout=20)
    )


def to_subject(text: str) -> str:
    """Text as SNS takes a subject: printable ASCII on one line, at most 100 characters."""
    plain = re.sub(r"[^\x20-\x7e]+", "?", re.sub(r"\s+", " ", text.replace("…", "..."))).strip()
    return plain if len(plain) <= MAX_SUBJECT else f"{plain[: MAX_SUBJECT - 3]}..."


def _explain(settings: FleetSettings, error: Exception) -> str:
    where = f"[fleet] notify {settings.notify}"
    response = getattr(error, "response", None)
    if response is None:
        return f"{where}: SNS cannot be reached ({error}); see the network, the region and the credentials"
    code, message = response["Error"].get("Code", ""), response["Error"].get("Message", "")
    advice = {
        "NotFound": "create the topic, or correct the ARN and [fleet] notify_region",
        "NotFoundException": "create the topic, or correct the ARN and [fleet] notify_region",
        "InvalidParameter": "correct the ARN; the topic must be in the region that it names",
        "AuthorizationError": "allow sns:Publish on this topic to who runs the flow",
        "ExpiredToken": "renew the credentials",
        "InvalidClientTokenId": "renew or correct the credentials",
    }.get(code, "see the message of SNS, then run the flow again")
    return f"{where}: SNS refuses with {code} ({message}); {advice}"


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _dump(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
