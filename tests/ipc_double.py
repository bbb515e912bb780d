"""A double of the Greengrass nucleus: its Unix socket, its framing, and the limits of nucleus lite.

Limits as observed on nucleus lite 2.6.0: ten unacknowledged publishes and 15,000 bytes in flight, a frame over
10,000 bytes (a payload over about 7.3 kB in base64) closes the connection, incoming messages over 4.9 kB never arrive,
a publish while offline fails at once, a scalar configuration value comes wrapped, another token is refused.
"""

import asyncio
import base64
import json
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

MAX_FRAME_BYTES = 10_000
MAX_IN_FLIGHT = 10
MAX_IN_FLIGHT_BYTES = 15_000
MAX_INCOMING_BYTES = 4_900

APPLICATION, ERROR, CONNECT, CONNECT_ACK = 0, 1, 4, 5
ACCEPTED, TERMINATE = 1, 2


class RefusalError(Exception):
    """An error that the nucleus answers with."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class IpcDouble:
    """A nucleus for one component. Use as a context manager; change its attributes while it runs."""

    def __init__(self, folder: Path, configuration: dict[str, Any] | None = None) -> None:
        self.socket = folder / "ipc.socket"
        self.token = "token-of-the-first-start"
        self.configuration: dict[str, Any] = configuration or {}
        self.access_control: Mapping[str, Any] | None = None  # None: everything is allowed
        self.online = True
        self.answer_delay_s = 0.0  # time until IoT Core acknowledges a publish
        self.silent = False  # publishes are never answered
        self.published: list[tuple[str, bytes]] = []  # to IoT Core, acknowledged
        self.published_locally: list[tuple[str, bytes]] = []
        self.states: list[str] = []
        self.most_in_flight = 0
        self.operations: list[str] = []
        self._in_flight: list[int] = []
        self._streams: list[tuple[str, str, int, asyncio.StreamWriter]] = []  # operation, topic, stream, connection
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> "IpcDouble":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *exception: object) -> None:
        self._in_loop(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def environment(self) -> dict[str, str]:
        """What a nucleus puts into a component's environment."""
        return {
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(self.socket),
            "SVCUID": self.token,
            "AWS_IOT_THING_NAME": "thing-1",
        }

    def restart(self) -> None:
        """Close all connections and forget the tokens given so far."""
        self.token = "token-of-a-later-start"
        self._in_loop(self._drop())

    def update_configuration(self, **changes: Any) -> None:
        """A deployment changes values; those who subscribed get an event without the values."""
        self.configuration = {**self.configuration, **changes}
        event = {"configurationUpdateEvent": {"componentName": "component", "keyPath": list(changes)}}
        self._tell("SubscribeToConfigurationUpdate", None, "ConfigurationUpdateEvents", event)

    def send_core(self, topic: str, payload: bytes) -> None:
        """A message comes from IoT Core."""
        if len(payload) <= MAX_INCOMING_BYTES:
            message = {"topicName": topic, "payload": base64.b64encode(payload).decode()}
            self._tell("SubscribeToIoTCore", topic, "IoTCoreMessage", {"message": message})

    def send_local(self, topic: str, message: bytes | dict[str, Any]) -> None:
        """Another component speaks on the device's bus."""
        if isinstance(message, bytes):
            event: dict[str, Any] = {"binaryMessage": {"message": base64.b64encode(message).decode()}}
        else:
            event = {"jsonMessage": {"message": message}}
        self._tell("SubscribeToTopic", topic, "SubscriptionResponseMessage", event)

    def subscribed(self, operation: str) -> list[str]:
        """Topics (or nothing) of the open streams of an operation."""
        return [topic for name, topic, _, _ in self._streams if name == operation]

    def lose_subscriptions(self) -> None:
        """Forget the subscriptions to IoT Core without a word, as when nucleus lite's MQTT process restarts."""
        self._streams = [stream for stream in self._streams if stream[0] != "SubscribeToIoTCore"]

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)

        async def begin() -> None:
            self._server = await asyncio.start_unix_server(self._connection, path=str(self.socket))
            self._ready.set()

        self._loop.run_until_complete(begin())
        self._loop.run_forever()

    def _in_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _drop(self) -> None:
        for writer in list(self._writers):
            writer.close()
        self._streams.clear()

    async def _shut(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._drop()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _tell(self, operation: str, topic: str | None, shape: str, event: dict[str, Any]) -> None:
        async def send() -> None:
            for name, subscribed, stream, writer in self._streams:
                if name == operation and (topic is None or matches(topic, subscribed)):
                    writer.write(_message(stream, shape, event))

        self._in_loop(send())

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        pending: set[asyncio.Task[None]] = set()
        try:
            kind, _, payload = await self._frame(reader)
            accepted = kind[":message-type"] == CONNECT and json.loads(payload) == {"authToken": self.token}
            writer.write(_frame({":message-type": CONNECT_ACK, ":message-flags": int(accepted), ":stream-id": 0}, b""))
            if not accepted:
                return
            while True:
                headers, _, payload = await self._frame(reader)
                if headers.get(":message-flags", 0) & TERMINATE:
                    stream = headers[":stream-id"]
                    self._streams = [one for one in self._streams if (one[2], one[3]) != (stream, writer)]
                    continue
                task = asyncio.ensure_future(self._answer(headers, json.loads(payload), writer))
                pending.add(task)
                task.add_done_callback(pending.discard)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            self._streams = [one for one in self._streams if one[3] is not writer]
            for task in pending:
                task.cancel()
            self._writers.discard(writer)
            writer.close()

    async def _frame(self, reader: asyncio.StreamReader) -> tuple[dict[str, Any], int, bytes]:
        prelude = await reader.readexactly(12)
        total, headers_length, crc = struct.unpack(">III", prelude)
        if total > MAX_FRAME_BYTES:
            raise ConnectionError("frame too large: the nucleus closes the connection")
        rest = await reader.readexactly(total - 12)
        assert crc == zlib.crc32(prelude[:8])
        assert struct.unpack(">I", rest[-4:])[0] == zlib.crc32(prelude + rest[:-4])
        return dict(_headers(rest[:headers_length])), total, rest[headers_length:-4]

    async def _answer(self, headers: dict[str, Any], request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        name = headers["operation"].removeprefix("aws.greengrass#")
        stream = headers[":stream-id"]
        self.operations.append(name)
        handler: Callable[..., Any] | None = getattr(self, f"_on_{name}", None)
        try:
            if handler is None:
                raise RefusalError("ServiceError", f"{name} is not supported")
            response = await handler(request, stream, writer)
        except RefusalError as error:
            body = {"_message": str(error), "_errorCode": error.code, "message": str(error)}
            writer.write(_message(stream, error.code, body, ERROR, TERMINATE))
            return
        if response is not None:
            streams = name.startswith("SubscribeTo")
            writer.write(_message(stream, f"{name}Response", response, flags=0 if streams else TERMINATE))

    async def _on_PublishToIoTCore(self, request: dict[str, Any], stream: int, writer: Any) -> dict | None:  # noqa: N802
        topic, payload = request["topicName"], base64.b64decode(request["payload"])
        assert request["qos"] == "1", "a QoS 0 message may be lost"
        self._authorize("aws.greengrass.ipc.mqttproxy", "PublishToIoTCore", topic)
        if not self.online:
            raise RefusalError("ServiceError", "Failed to publish the message.")
        if len(self._in_flight) >= MAX_IN_FLIGHT or sum(self._in_flight) + len(payload) > MAX_IN_FLIGHT_BYTES:
            raise RefusalError("ServiceError", "Failed to publish the message.")
        self._in_flight.append(len(payload))
        self.most_in_flight = max(self.most_in_flight, len(self._in_flight))
        try:
            await asyncio.sleep(self.answer_delay_s)
        finally:
            self._in_flight.remove(len(payload))
        if self.silent:
            return None
        self.published.append((topic, payload))
        return {}

    async def _on_PublishToTopic(self, request: dict[str, Any], stream: int, writer: Any) -> dict:  # noqa: N802
        self._authorize("aws.greengrass.ipc.pubsub", "PublishToTopic", request["topic"])
        payload = base64.b64decode(request["publishMessage"]["binaryMessage"]["message"])
        self.published_locally.append((request["topic"], payload))
        return {}

    async def _on_SubscribeToIoTCore(self, request: dict[str, Any], stream: int, writer: Any) -> dict:  # noqa: N802
        self._authorize("aws.greengrass.ipc.mqttproxy", "SubscribeToIoTCore", request["topicName"])
        if not self.online:
            raise RefusalError("ServiceError", "Failed to subscribe to the topic.")
        self._streams.append(("SubscribeToIoTCore", request["topicName"], stream, writer))
        return {}

    async def _on_SubscribeToTopic(self, request: dict[str, Any], stream: int, writer: Any) -> dict:  # noqa: N802
        self._authorize("aws.greengrass.ipc.pubsub", "SubscribeToTopic", request["topic"])
        self._streams.append(("SubscribeToTopic", request["topic"], stream, writer))
        return {"topicName": request["topic"]}

    async def _on_SubscribeToConfigurationUpdate(  # noqa: N802
        self, request: dict[str, Any], stream: int, writer: Any
    ) -> dict:
        self._streams.append(("SubscribeToConfigurationUpdate", "", stream, writer))
        return {}

    async def _on_GetConfiguration(self, request: dict[str, Any], stream: int, writer: Any) -> dict:  # noqa: N802
        value: Any = self.configuration
        path = request.get("keyPath") or []
        for key in path:
            if not isinstance(value, dict) or key not in value:
                raise RefusalError("ResourceNotFoundError", "Key not found.")
            value = value[key]
        if not isinstance(value, dict):
            value = {path[-1]: value}
        return {"componentName": "component", "value": value}

    async def _on_UpdateState(self, request: dict[str, Any], stream: int, writer: Any) -> dict:  # noqa: N802
        self.states.append(request["state"])
        return {}

    def _authorize(self, service: str, operation: str, topic: str) -> None:
        if self.access_control is None:
            return
        for policy in self.access_control.get(service, {}).values():
            if f"aws.greengrass#{operation}" in policy["operations"] and any(
                matches(topic, resource) for resource in policy["resources"]
            ):
                return
        raise RefusalError("UnauthorizedError", f"not authorized to {operation} on {topic}")


def matches(topic: str, allowed: str) -> bool:
    """Whether an MQTT filter matches a topic. `*` is not known: a recipe should not need it."""
    topics, levels = topic.split("/"), allowed.split("/")
    return len(topics) == len(levels) and all(b in ("+", a) for a, b in zip(topics, levels, strict=True))


def _message(stream: int, shape: str, body: dict[str, Any], kind: int = APPLICATION, flags: int = 0) -> bytes:
    headers = {
        ":message-type": kind,
        ":message-flags": flags,
        ":stream-id": stream,
        ":content-type": "application/json",
        "service-model-type": f"aws.greengrass#{shape}",
    }
    return _frame(headers, json.dumps(body).encode())


def _frame(headers: dict[str, Any], payload: bytes) -> bytes:
    packed = b""
    for name, value in headers.items():
        packed += struct.pack(">B", len(name)) + name.encode()
        if isinstance(value, int):
            packed += struct.pack(">Bi", 4, value)
        else:
            packed += struct.pack(">BH", 7, len(value)) + value.encode()
    start = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    frame = start + struct.pack(">I", zlib.crc32(start)) + packed + payload
    return frame + struct.pack(">I", zlib.crc32(frame))


def _headers(packed: bytes) -> Iterator[tuple[str, Any]]:
    at = 0
    while at < len(packed):
        length = packed[at]
        name = packed[at + 1 : at + 1 + length].decode()
        at += 1 + length
        kind = packed[at]
        if kind == 4:
            yield name, struct.unpack_from(">i", packed, at + 1)[0]
            at += 5
        elif kind == 7:
            (size,) = struct.unpack_from(">H", packed, at + 1)
            yield name, packed[at + 3 : at + 3 + size].decode()
            at += 3 + size
        else:
            raise AssertionError(f"header of type {kind}")
