"""The nucleus' side of Greengrass IPC: what components ask through a Unix socket, with the limits of nucleus lite.

Limits as observed on nucleus lite 2.6.0: ten unacknowledged publishes and 15,000 bytes in flight, a frame over
10,000 bytes (a payload over about 7.3 kB in base64) closes the connection, incoming messages over 4.9 kB never arrive,
a publish while offline fails at once, a scalar configuration value comes wrapped, another token is refused.

Only the standard library is imported, so that tests in the devices' own environments can use it.
"""

import asyncio
import base64
import binascii
import contextlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from inspection.fleet.local.ipc_application import Application, RefusalError
from inspection.fleet.local.ipc_frames import (
    CONNECT,
    CONNECT_ACK,
    ERROR,
    TERMINATE,
    pack_frame,
    read_frame,
)
from inspection.fleet.local.ipc_streams import Connection, Streams, matches

log = logging.getLogger(__name__)

MAX_IN_FLIGHT = 10
MAX_IN_FLIGHT_BYTES = 15_000

_MQTT, _BUS = "aws.greengrass.ipc.mqttproxy", "aws.greengrass.ipc.pubsub"


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
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.streams = Streams()
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

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.streams.forget(connection)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # callbacks of a server run in tasks
        self._tasks.add(task)
        pending: set[asyncio.Task[None]] = set()
        connection: Connection | None = None
        try:
            connection = await self._greet(reader, writer)
            if connection is None:
                return
            self._connections.add(connection)
            while True:
                headers, payload = await read_frame(reader)
                if int(headers.get(":message-flags", 0)) & TERMINATE:
                    self.streams.close(headers[":stream-id"], connection)
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

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Connection | None:
        headers, payload = await read_frame(reader)
        name = None
        if headers.get(":message-type") == CONNECT:
            name = self._application.component(str(json.loads(payload).get("authToken", "")))
        accepted = int(name is not None)
        writer.write(pack_frame({":message-type": CONNECT_ACK, ":message-flags": accepted, ":stream-id": 0}, b""))
        return Connection(name, writer) if name is not None else None

    async def _answer(self, headers: Mapping[str, Any], request: dict[str, Any], connection: Connection) -> None:
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
        self, request: dict[str, Any], stream: int, connection: Connection
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
        self.streams.tell_core(topic, payload)
        return {}

    async def _on_PublishToTopic(  # noqa: N802
        self, request: dict[str, Any], stream: int, connection: Connection
    ) -> dict[str, Any]:
        topic, message = request["topic"], request["publishMessage"]
        self._authorize(connection.component, _BUS, "PublishToTopic", topic)
        if "binaryMessage" in message:
            payload = base64.b64decode(message["binaryMessage"]["message"])
            self.streams.tell_locally(topic, payload)
        else:
            payload = json.dumps(message["jsonMessage"]["message"]).encode()
            self.streams.tell_locally(topic, message["jsonMessage"]["message"])
        self._application.heard_locally(connection.component, topic, payload)
        return {}

    async def _on_SubscribeToIoTCore(  # noqa: N802
        self, request: dict[str, Any], stream: int, connection: Connection
    ) -> dict[str, Any]:
        self._authorize(connection.component, _MQTT, "SubscribeToIoTCore", request["topicName"])
        if not self._application.is_online():
            raise RefusalError("ServiceError", "Failed to subscribe to the topic.")
        self.streams.add("SubscribeToIoTCore", request["topicName"], stream, connection)
        return {}

    async def _on_SubscribeToTopic(  # noqa: N802
        self, request: dict[str, Any], stream: int, connection: Connection
    ) -> dict[str, Any]:
        self._authorize(connection.component, _BUS, "SubscribeToTopic", request["topic"])
        self.streams.add("SubscribeToTopic", request["topic"], stream, connection)
        return {"topicName": request["topic"]}

    async def _on_SubscribeToConfigurationUpdate(  # noqa: N802
        self, request: dict[str, Any], stream: int, connection: Connection
    ) -> dict[str, Any]:
        self.streams.add("SubscribeToConfigurationUpdate", "", stream, connection)
        return {}

    async def _on_GetConfiguration(  # noqa: N802
        self, request: dict[str, Any], stream: int, connection: Connection
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
        self, request: dict[str, Any], stream: int, connection: Connection
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
