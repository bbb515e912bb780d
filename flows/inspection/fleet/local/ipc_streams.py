"""Connections of components to their nucleus, and what they subscribed to."""

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inspection.fleet.local.ipc_frames import APPLICATION, pack_frame

MAX_INCOMING_BYTES = 4_900
"""Of a message from IoT Core; larger ones never arrive. Source: observed on nucleus lite 2.6.0."""


@dataclass(eq=False)
class Stream:
    """A subscription."""

    operation: str
    topic: str
    id: int
    connection: "Connection"


@dataclass(eq=False)
class Connection:
    """A component that has shown its token."""

    component: str
    writer: asyncio.StreamWriter

    def send(self, stream: int, shape: str, body: Mapping[str, Any], kind: int = APPLICATION, flags: int = 0) -> None:
        """Write a message; the answer to a request, or an event of a stream."""
        headers: dict[str, int | str] = {
            ":message-type": kind,
            ":message-flags": flags,
            ":stream-id": stream,
            ":content-type": "application/json",
            "service-model-type": f"aws.greengrass#{shape}",
        }
        self.writer.write(pack_frame(headers, json.dumps(body).encode()))


class Streams:
    """Everybody's subscriptions."""

    def __init__(self) -> None:
        self._streams: list[Stream] = []

    def add(self, operation: str, topic: str, id: int, connection: Connection) -> None:
        """Somebody subscribes."""
        self._streams.append(Stream(operation, topic, id, connection))

    def close(self, id: int, connection: Connection) -> None:
        """A component ends one subscription."""
        self._streams = [one for one in self._streams if (one.id, one.connection) != (id, connection)]

    def forget(self, connection: Connection) -> None:
        """A connection ends, and its subscriptions with it."""
        self._streams = [one for one in self._streams if one.connection is not connection]

    def topics(self, operation: str) -> list[str]:
        """Topics (or "") of the open streams of an operation."""
        return [one.topic for one in self._of(operation)]

    def lose(self, operation: str) -> None:
        """Forget the streams of an operation without a word, as when lite's MQTT process restarts."""
        self._streams = [one for one in self._streams if one.operation != operation]

    def tell_configuration(self, component: str | None, keys: list[str]) -> None:
        """A deployment changed a component's configuration (None: every component's); the event has no values."""
        for stream in self._of("SubscribeToConfigurationUpdate"):
            name = stream.connection.component
            if component in (None, name):
                event = {"configurationUpdateEvent": {"componentName": name, "keyPath": keys}}
                stream.connection.send(stream.id, "ConfigurationUpdateEvents", event)

    def tell_core(self, topic: str, payload: bytes) -> None:
        """A message comes from IoT Core."""
        if len(payload) > MAX_INCOMING_BYTES:
            return
        message = {"message": {"topicName": topic, "payload": base64.b64encode(payload).decode()}}
        for stream in self._of("SubscribeToIoTCore"):
            if matches(topic, stream.topic):
                stream.connection.send(stream.id, "IoTCoreMessage", message)

    def tell_locally(self, topic: str, message: bytes | Mapping[str, Any]) -> None:
        """A component of this device speaks on its bus."""
        if isinstance(message, bytes):
            event: dict[str, Any] = {"binaryMessage": {"message": base64.b64encode(message).decode()}}
        else:
            event = {"jsonMessage": {"message": message}}
        for stream in self._of("SubscribeToTopic"):
            if matches(topic, stream.topic):
                stream.connection.send(stream.id, "SubscriptionResponseMessage", event)

    def _of(self, operation: str) -> list[Stream]:
        return [stream for stream in self._streams if stream.operation == operation]


def matches(topic: str, allowed: str) -> bool:
    """Whether an MQTT filter matches a topic. `*` is not known: a recipe should not need it."""
    topics, levels = topic.split("/"), allowed.split("/")
    return len(topics) == len(levels) and all(b in ("+", a) for a, b in zip(topics, levels, strict=True))
