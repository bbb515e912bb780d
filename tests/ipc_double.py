"""A double of the Greengrass nucleus for one component: the protocol and the limits of nucleus lite, and levers.

What speaks is the nucleus of the devices on this machine (`inspection.fleet.local.ipc`, standard library only). The
devices' environments do not have `inspection` installed; it is found in the checkout.
"""

import asyncio
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_FLOWS = str(Path(__file__).resolve().parents[1] / "flows")
if _FLOWS not in sys.path:
    sys.path.append(_FLOWS)

from inspection.fleet.local.ipc import MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES, IpcServer  # noqa: E402
from inspection.fleet.local.ipc_application import RefusalError  # noqa: E402
from inspection.fleet.local.ipc_frames import MAX_FRAME_BYTES  # noqa: E402
from inspection.fleet.local.ipc_streams import MAX_INCOMING_BYTES  # noqa: E402

_NAME = "component"


class _Server(IpcServer):
    """Insists on QoS 1."""

    async def _on_PublishToIoTCore(self, request: dict[str, Any], *more: Any) -> Any:  # noqa: N802
        assert request["qos"] == "1", "a QoS 0 message may be lost"
        return await super()._on_PublishToIoTCore(request, *more)


class _Behind:
    """What stands behind the socket: the levers of the double."""

    def __init__(self, double: "IpcDouble") -> None:
        self._double = double

    def component(self, token: str) -> str | None:
        return _NAME if token == self._double.token else None

    def configuration(self, component: str) -> Mapping[str, Any]:
        return self._double.configuration

    def access_control(self, component: str) -> Mapping[str, Any] | None:
        return self._double.access_control

    def is_online(self) -> bool:
        return self._double.online

    async def publish(self, component: str, topic: str, payload: bytes) -> bool:
        await asyncio.sleep(self._double.answer_delay_s)
        if self._double.silent:
            return False
        self._double.published.append((topic, payload))
        return True

    def heard_locally(self, component: str, topic: str, payload: bytes) -> None:
        self._double.published_locally.append((topic, payload))

    def state_reported(self, component: str, state: str) -> None:
        self._double.states.append(state)


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
        self.server = _Server(str(self.socket), _Behind(self))
        self.server.operations = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> "IpcDouble":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *exception: object) -> None:
        self._in_loop(self.server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    @property
    def most_in_flight(self) -> int:
        """Unacknowledged publishes at once, so far."""
        return self.server.most_in_flight

    @property
    def operations(self) -> list[str]:
        """Everything that was asked for."""
        return self.server.operations or []

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
        self._call(self.server.drop)

    def update_configuration(self, **changes: Any) -> None:
        """A deployment changes values; those who subscribed get an event without the values."""
        self.configuration = {**self.configuration, **changes}
        self._call(self.server.streams.tell_configuration, None, list(changes))

    def send_core(self, topic: str, payload: bytes) -> None:
        """A message comes from IoT Core."""
        self._call(self.server.streams.tell_core, topic, payload)

    def send_local(self, topic: str, message: bytes | dict[str, Any]) -> None:
        """Another component speaks on the device's bus."""
        self._call(self.server.streams.tell_locally, topic, message)

    def subscribed(self, operation: str) -> list[str]:
        """Topics (or nothing) of the open streams of an operation."""
        return self.server.streams.topics(operation)

    def lose_subscriptions(self) -> None:
        """Forget the subscriptions to IoT Core without a word, as when nucleus lite's MQTT process restarts."""
        self.server.streams.lose("SubscribeToIoTCore")

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.server.start())
        self._ready.set()
        self._loop.run_forever()

    def _in_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        async def call() -> None:
            function(*arguments)

        self._in_loop(call())


__all__ = ["MAX_FRAME_BYTES", "MAX_INCOMING_BYTES", "MAX_IN_FLIGHT", "MAX_IN_FLIGHT_BYTES", "IpcDouble", "RefusalError"]
