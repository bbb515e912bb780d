"""From settings to a transport. The libraries of MQTT and Greengrass are loaded only when chosen."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from edge.errors import TransportError
from edge.topics import Topics
from edge.transports.files import FileTransport
from edge.transports.interface import Transport
from edge.transports.settings import FileSettings, MqttSettings

if TYPE_CHECKING:
    from edge.transports.nucleus import Nucleus

WILL_SCHEMA = "1.0"


def parse_sink(text: str) -> tuple[str, dict[str, str]]:
    """Read what a person types as a sink.

    Args:
        text: `file:PATH`, `mqtt:HOST:PORT`, `mqtt:HOST`, `greengrass` or `none`.

    Returns:
        The kind, and settings of `FileSettings` or `MqttSettings` by name.

    Raises:
        TransportError: it is none of those.
    """
    kind, _, rest = text.partition(":")
    if kind == "file" and rest:
        return "file", {"path": rest}
    if kind == "mqtt" and rest:
        host, colon, port = rest.rpartition(":")
        if not colon:
            return "mqtt", {"host": rest}
        if host and port.isdigit():
            return "mqtt", {"host": host, "port": port}
    if text in ("greengrass", "none"):
        return text, {}
    raise TransportError(f"sink: want file:PATH, mqtt:HOST:PORT, greengrass or none, found {text!r}")


def open_transport(
    sink: str,
    topics: Topics,
    thing: str,
    line: str,
    file: FileSettings,
    mqtt: MqttSettings,
    nucleus: Nucleus | None = None,
) -> Transport:
    """Make the transport of a sink; `start` it next.

    Args:
        sink: `file`, `mqtt` or `greengrass`.
        topics: of this device.
        thing: name of this device.
        line: name of the line.
        file: settings for `file`.
        mqtt: settings for `mqtt`.
        nucleus: the connection for `greengrass`, if there is one already; made from the environment if not.

    Raises:
        NucleusError: there is no nucleus.
        TransportError: no such sink, or its library is not installed.
    """
    if sink == "file":
        return FileTransport(file)
    try:
        if sink == "mqtt":
            from edge.transports.mqtt import MqttTransport

            return MqttTransport(mqtt, thing, (topics.health, last_will(thing, line, time.time())))
        if sink == "greengrass":
            from edge.transports.greengrass import GreengrassTransport
            from edge.transports.nucleus import Nucleus

            local = {
                topics.trigger: topics.local_trigger,
                f"{topics.trigger}/answer": f"{topics.local_trigger}/answer",
                topics.output: topics.local_output,
            }
            return GreengrassTransport(nucleus or Nucleus.connect(), local)
    except ImportError as error:
        raise TransportError(f"sink {sink}: {error.name} is not installed; pip install awsiotsdk") from error
    raise TransportError(f"sink: want file, mqtt or greengrass, found {sink!r}")


def last_will(thing: str, line: str, connected_at: float) -> bytes:
    """The health message that the broker sends for a device that is gone without a goodbye.

    Args:
        thing: name of the device.
        line: name of the line.
        connected_at: when it started, unix seconds: a later health message makes the will worthless.
    """
    message = {
        "schema": WILL_SCHEMA,
        "requires": [],
        "thing": thing,
        "line": line,
        "state": "lost",
        "up_since": round(connected_at, 3),
        "message": "the connection broke without a goodbye: no power, no network, or the program died",
    }
    return json.dumps(message, separators=(",", ":")).encode()
