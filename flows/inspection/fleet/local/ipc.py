"""The nucleus' side of Greengrass IPC: what components ask through a Unix socket, with the limits of nucleus lite.

Limits as observed on nucleus lite 2.6.0: ten unacknowledged publishes and 15,000 bytes in flight, a frame over
10,000 bytes (a payload over about 7.3 kB in base64) closes the connection, incoming messages over 4.9 kB never arrive,
a publish while offline fails at once, a scalar configuration value comes wrapped, another token is refused.

Framing, big-endian: u32 total, u32 length of headers, u32 crc32 of these 8, headers, payload, u32 crc32 of all before;
a header is u8 length of its name, name, u8 type (4: int32, 7: text with u16 length), value.
Only the standard library is imported, so that tests in the devices' own environments can use it.
"""

import asyncio
import base64
import binascii
import contextlib
import json
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

log = logging.getLogger(__name__)

MAX_FRAME_BYTES = 10_000
MAX_IN_FLIGHT = 10
MAX_IN_FLIGHT_BYTES = 15_000
MAX_INCOMING_BYTES = 4_900

APPLICATION, ERROR, CONNECT, CONNECT_ACK = 0, 1, 4, 5
ACCEPTED, TERMINATE = 1, 2
_MQTT, _BUS = "aws.greengrass.ipc.mqttproxy", "aws.greengrass.ipc.pubsub"


class RefusalError(Exception):
    """An error that the nucleus answers with.

    Args:
        code: name of the error in Greengrass' IPC model, such as ServiceError.
        message: what went wrong.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class FrameError(ConnectionError):
    """What came is no frame, or too large a one: the connection ends."""


class Application(Protocol):
    """What stands behind the socket."""

    def component(self, token: str) -> str | None:
        """Which component has this token; None: nobody."""
        ...

    def configuration(self, component: str) -> Mapping[str, Any]:
        """The configuration of a component."""
        ...

    def access_control(self, component: str) -> Mapping[str, Any] | None:
        """Its policies by service; None: everything is allowed."""
        ...

    def is_online(self) -> bool:
        """Whether IoT Core can be reached."""
        ...

    async def publish(self, component: str, topic: str, payload: bytes) -> bool:
        """Hand a message to IoT Core; returns when that has it. False: it never answers.

        Raises:
            RefusalError: it does not take it.
        """
        ...

    def heard_locally(self, component: str, topic: str, payload: bytes) -> None:
        """A component said something on the device's bus."""
        ...

    def state_reported(self, component: str, state: str) -> None:
        """A component told how it does: RUNNING or ERRORED."""
        ...


@dataclass(eq=False)
class _Stream:
    """A subscription."""

    operation: str
    topic: str
    id: int
    connection: "_Connection"


@dataclass(eq=False)
class _Connection:
    component: str
    writer: asyncio.StreamWriter

    def send(self, stream: int, shape: str, body: Mapping[str, Any], kind: int = APPLICATION, flags: int = 0) -> None:
        headers: dict[str, int | str] = {
            ":message-type": kind,
            ":message-flags": flags,
            ":stream-id": stream,
            ":content-type": "application/json",
            "service-model-type": f"aws.greengrass#{shape}",
        }
        self.writer.write(pack_frame(headers, json.dumps(body).encode()))


class IpcServer:
    """The socket. Everything happens in the event loop that called `start`.

    Args:
        path: of the socket, at most 107 bytes (a limit of Linux).
        application: what is behind it.
    """

    def __init__(self, path: str, application: Application) -> None:
        self._path = path
        self._application = application
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._streams: list[_Stream] = []
        self._in_flight: list[int] = []  # bytes of each
        self.most_in_flight = 0
        self.operations: list[str] | None = None  # a list remembers every operation asked for

    async def start(self) -> None:
        """Begin to listen; a socket that a killed process left is replaced."""
        self._server = await asyncio.start_unix_server(self._connected, path=self._path)
        os.chmod(self._path, 0o600)  # noqa: PTH101 - a path as text

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        self.drop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # noqa: PTH108 - a path as text

    def drop(self, component: str | None = None) -> None:
        """End the connections of a component, or all."""
        for connection in list(self._connections):
            if component in (None, connection.component):
                connection.writer.close()
                self._forget(connection)

    def subscribed(self, operation: str) -> list[str]:
        """Topics (or "") of the open streams of an operation."""
        return [stream.topic for stream in self._streams if stream.operation == operation]

    def lose(self, operation: str) -> None:
        """Forget the streams of an operation without a word, as when lite's MQTT process restarts."""
        self._streams = [stream for stream in self._streams if stream.operation != operation]

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

    def _of(self, operation: str) -> list[_Stream]:
        return [stream for stream in self._streams if stream.operation == operation]

    def _forget(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._streams = [stream for stream in self._streams if stream.connection is not connection]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # callbacks of a server run in tasks
        self._tasks.add(task)
        pending: set[asyncio.Task[None]] = set()
        connection: _Connection | None = None
        try:
            connection = await self._greet(reader, writer)
            if connection is None:
                return
            self._connections.add(connection)
            while True:
                headers, payload = await read_frame(reader)
                if int(headers.get(":message-flags", 0)) & TERMINATE:
                    closed = headers[":stream-id"]
                    self._streams = [s for s in self._streams if (s.id, s.connection) != (closed, connection)]
                    continue
                answer = asyncio.ensure_future(self._answer(headers, json.loads(payload), connection))
                pending.add(answer)
                answer.add_done_callback(pending.discard)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return  # the component is gone, or broke the rules: its connection ends, for good
        except (ValueError, KeyError, TypeError) as error:
            log.warning("event=ipc_request_malformed component=%s error=%r", connection, str(error))
        finally:
            for answer in pending:
                answer.cancel()
            if connection is not None:
                self._forget(connection)
            writer.close()
            self._tasks.discard(task)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Connection | None:
        headers, payload = await read_frame(reader)
        name = None
        if headers.get(":message-type") == CONNECT:
            name = self._application.component(str(json.loads(payload).get("authToken", "")))
        accepted = int(name is not None)
        writer.write(pack_frame({":message-type": CONNECT_ACK, ":message-flags": accepted, ":stream-id": 0}, b""))
        return _Connection(name, writer) if name is not None else None

    async def _answer(self, headers: Mapping[str, Any], request: dict[str, Any], connection: _Connection) -> None:
        name = str(headers.get("operation")).removeprefix("aws.greengrass#")
        stream = int(headers.get(":stream-id", 0))
        if self.operations is not None:
            self.operations.append(name)
        handler: Callable[..., Any] | None = getattr(self, f"_on_{name}", None)
        try:
            if handler is None:
                raise RefusalError("ServiceError", f"{name} is not supported")
            try:
                response = await handler(request, stream, connection)
            except (KeyError, TypeError, AttributeError, binascii.Error) as error:
                raise RefusalError("InvalidArgumentsError", f"{name}: cannot read the request: {error!r}") from error
        except RefusalError as error:
            body = {"_message": str(error), "_errorCode": error.code, "message": str(error)}
            connection.send(stream, error.code, body, ERROR, TERMINATE)
            return
        if response is not None:
            streams = name.startswith("SubscribeTo")
            connection.send(stream, f"{name}Response", response, flags=0 if streams else TERMINATE)

    async def _on_PublishToIoTCore(  # noqa: N802
        self, request: dict[str, Any], stream: int, connection: _Connection
    ) -> dict[str, Any] | None:
        topic, payload = request["topicName"], base64.b64decode(request["payload"])
        self._authorize(connection.component, _MQTT, "PublishToIoTCore", topic)
        full = len(self._in_flight) >= MAX_IN_FLIGHT or sum(self._in_flight) + len(payload) > MAX_IN_FLIGHT_BYTES
        if full or not self._application.is_online():
            raise RefusalError("ServiceError", "Failed to publish the message.")
        self._in_flight.append(len(payload))
        self.most_in_flight = max(self.most_in_flight, len(self._in_flight))
        try:
            taken = await self._application.publish(connection.component, topic, payload)
        finally:
            self._in_flight.remove(len(payload))
        if not taken:
            return None
        self.tell_core(topic, payload)
        return {}

    async def _on_PublishToTopic(  # noqa: N802
        self, request: dict[str, Any], stream: int, connection: _Connection
    ) -> dict[str, Any]:
        topic, message = request["topic"], request["publishMessage"]
        self._authorize(connection.component, _BUS, "PublishToTopic", topic)
        if "binaryMessage" in message:
            payload = base64.b64decode(message["binaryMessage"]["message"])
            self.tell_locally(topic, payload)
        else:
            payload = json.dumps(message["jsonMessage"]["message"]).encode()
            self.tell_locally(topic, message["jsonMessage"]["message"])
        self._application.heard_locally(connection.component, topic, payload)
        return {}

    async def _on_SubscribeToIoTCore(  # noqa: N802
        self, request: dict[str, Any], stream: int, connection: _Connection
    ) -> dict[str, Any]:
        self._authorize(connection.component, _MQTT, "SubscribeToIoTCore", request["topicName"])
        if not self._application.is_online():
            raise RefusalError("ServiceError", "Failed to subscribe to the topic.")
        self._streams.append(_Stream("SubscribeToIoTCore", request["topicName"], stream, connection))
        return {}

    async def _on_SubscribeToTopic(  # noqa: N802
        self, request: dict[str, Any], stream: int, connection: _Connection
    ) -> dict[str, Any]:
        self._authorize(connection.component, _BUS, "SubscribeToTopic", request["topic"])
        self._streams.append(_Stream("SubscribeToTopic", request["topic"], stream, connection))
        return {"topicName": request["topic"]}

    async def _on_SubscribeToConfigurationUpdate(  # noqa: N802
        self, request: dict[str, Any], stream: int, connection: _Connection
    ) -> dict[str, Any]:
        self._streams.append(_Stream("SubscribeToConfigurationUpdate", "", stream, connection))
        return {}

    async def _on_GetConfiguration(  # noqa: N802
        self, request: dict[str, Any], stream: int, connection: _Connection
    ) -> dict[str, Any]:
        name = request.get("componentName") or connection.component
        value: Any = self._application.configuration(name)
        path = request.get("keyPath") or []
        for key in path:
            if not isinstance(value, Mapping) or key not in value:
                raise RefusalError("ResourceNotFoundError", "Key not found.")
            value = value[key]
        if not isinstance(value, Mapping):
            value = {path[-1]: value}
        return {"componentName": name, "value": value}

    async def _on_UpdateState(  # noqa: N802
        self, request: dict[str, Any], stream: int, connection: _Connection
    ) -> dict[str, Any]:
        self._application.state_reported(connection.component, str(request["state"]))
        return {}

    def _authorize(self, component: str, service: str, operation: str, topic: str) -> None:
        control = self._application.access_control(component)
        if control is None:
            return
        for policy in control.get(service, {}).values():
            if f"aws.greengrass#{operation}" in policy["operations"] and any(
                matches(topic, resource) for resource in policy["resources"]
            ):
                return
        raise RefusalError("UnauthorizedError", f"not authorized to {operation} on {topic}")


def matches(topic: str, allowed: str) -> bool:
    """Whether an MQTT filter matches a topic. `*` is not known: a recipe should not need it."""
    topics, levels = topic.split("/"), allowed.split("/")
    return len(topics) == len(levels) and all(b in ("+", a) for a, b in zip(topics, levels, strict=True))


async def read_frame(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """The next frame's headers and payload.

    Raises:
        FrameError: it is too large or damaged.
        asyncio.IncompleteReadError: the other side is gone.
    """
    prelude = await reader.readexactly(12)
    total, headers_length, crc = struct.unpack(">III", prelude)
    if not 16 <= total <= MAX_FRAME_BYTES or headers_length > total - 16 or crc != zlib.crc32(prelude[:8]):
        raise FrameError("the frame is too large or damaged: the nucleus closes the connection")
    rest = await reader.readexactly(total - 12)
    if struct.unpack(">I", rest[-4:])[0] != zlib.crc32(prelude + rest[:-4]):
        raise FrameError("the frame's checksum is wrong")
    try:
        return dict(_headers(rest[:headers_length])), rest[headers_length:-4]
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise FrameError("the frame's headers cannot be read") from error


def pack_frame(headers: Mapping[str, int | str], payload: bytes) -> bytes:
    """A frame as bytes."""
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
            raise FrameError(f"a header of type {kind}")
