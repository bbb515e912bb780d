"""MQTT 5 over TLS with a certificate on both sides, through awscrt.

The client reconnects by itself, with backoff and jitter, and takes its session up again: what came for this device
while it was away arrives, and subscriptions stand. With a subscriber to whom old messages are of no use, each
connection begins a new session: an MQTT session keeps all its subscriptions or none. Results wait in the spool, never
in the client: while there is no connection a publish fails at once.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from pathlib import Path
from typing import Any

from awscrt import mqtt5
from awscrt.exceptions import AwsCrtError

from edge.backoff import Backoff
from edge.errors import NotAuthorizedError, RefusedError, TransportError
from edge.transports.interface import OnMessage, TransportState
from edge.transports.mqtt_connection import connection_options, matches, name_of, say
from edge.transports.settings import MqttSettings

logger = logging.getLogger(__name__)

_MESSAGE_REFUSED = {
    mqtt5.PubackReasonCode.TOPIC_NAME_INVALID,
    mqtt5.PubackReasonCode.PAYLOAD_FORMAT_INVALID,
}


class MqttTransport:
    """A connection to one broker.

    Args:
        settings: where to and how.
        client_id: names this device at the broker when the settings do not.
        will: topic and payload that the broker publishes when this device is gone without a goodbye.
    """

    name = "mqtt"
    max_payload_bytes = 128_000  # Source: AWS IoT Core quotas, 128 KB for a payload

    def __init__(self, settings: MqttSettings, client_id: str, will: tuple[str, bytes] | None = None) -> None:
        self._settings = settings
        self._client_id = settings.client_id or client_id
        self._will = will
        self._lock = threading.Lock()
        self._client: mqtt5.Client | None = None
        self._made_of: tuple[Any, ...] = ()  # what the files were when the client was made
        self._connected = False
        self._message = "not started"
        self._subscriptions: dict[str, tuple[OnMessage, OnMessage | None]] = {}  # and who takes what was kept
        self._missing: set[str] = set()  # topics that the broker has yet to confirm
        self._work = threading.Event()
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._under_way: set[threading.Event] = set()  # one for each publish that waits
        self._goodbye: mqtt5.DisconnectReasonCode | None = None  # what the broker said when it hung up
        self._thread = threading.Thread(target=self._maintain, name="mqtt", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._message = f"connecting to {self._settings.host}:{self._settings.port}"
        self._thread.start()

    def publish(self, topic: str, payload: bytes, timeout_s: float) -> None:
        """Publish with QoS 1, and wait for the broker's acknowledgement.

        Raises:
            NotAuthorizedError: the broker does not let this device publish on the topic.
            RefusedError: the broker will never take this message.
            TransportError: no connection, or no acknowledgement in time.
        """
        client = self._client
        if client is None or not self._connected:
            raise TransportError(self._message)
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE)
        settled = threading.Event()
        with self._lock:
            self._under_way.add(settled)
        try:
            future = client.publish(packet)
            future.add_done_callback(lambda _: settled.set())
            # A lost connection settles it too: the client keeps the message to send it again when its session goes on,
            # and so does the spool. The receiver drops the repeat.
            if not settled.wait(timeout_s):
                raise TransportError(f"{topic}: no acknowledgement in {timeout_s:g} s")
            if not future.done():
                if self._goodbye == mqtt5.DisconnectReasonCode.NOT_AUTHORIZED:  # as IoT Core answers a closed topic
                    raise NotAuthorizedError(self._not_authorized(topic))
                raise TransportError(self._message)
            answer = future.result()
        except AwsCrtError as error:
            if "PACKET_VALIDATION" in error.name:
                raise RefusedError(f"{topic}: {error.message} ({len(payload)} bytes)") from error
            raise TransportError(f"{topic}: {error.name}: {error.message}") from error
        except RuntimeError as error:  # from awscrt's binding, while it shuts down
            raise TransportError(f"{topic}: {error}") from error
        finally:
            with self._lock:
                self._under_way.discard(settled)
        code = answer.puback.reason_code
        if code == mqtt5.PubackReasonCode.NOT_AUTHORIZED:
            raise NotAuthorizedError(self._not_authorized(topic))
        if code in _MESSAGE_REFUSED:
            raise RefusedError(f"{topic}: the broker refuses this message: {name_of(code)}")
        if code is None or code >= 0x80:
            raise TransportError(f"{topic}: the broker does not take it now: {name_of(code)}")

    def subscribe(self, topic: str, on_message: OnMessage, on_kept: OnMessage | None = None) -> None:
        """Hear a topic; tried until the broker confirms, and again when it has lost the session."""
        with self._lock:
            self._subscriptions[topic] = (on_message, on_kept)
            self._missing.add(topic)
        self._work.set()

    def _not_authorized(self, topic: str) -> str:
        return f"{topic}: the broker does not let {self._client_id} publish here; see its policy"

    def state(self) -> TransportState:
        """How the connection stands; it is never fatal: certificates and networks get mended."""
        with self._lock:
            missing = sorted(self._missing) if self._connected else []
        more = f"; not subscribed to {', '.join(missing)}" if missing else ""
        return TransportState(self._connected, self._message + more)

    def close(self) -> None:
        """Say goodbye, so that the broker does not publish the will, and keep the session."""
        self._stopping.set()
        self._work.set()
        if self._thread.is_alive():
            self._thread.join(self._settings.ack_timeout_s + 5)
        self._let_go()

    def _let_go(self) -> None:
        client, self._client = self._client, None
        self._connected = False
        if client is not None:
            self._stopped.clear()
            client.stop(mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.NORMAL_DISCONNECTION))
            self._stopped.wait(5)

    def _maintain(self) -> None:
        """Make the client, make it anew when the files of its certificate have changed, and subscribe."""
        backoff = Backoff(self._settings.reconnect_min_s, self._settings.reconnect_max_s)
        while not self._stopping.is_set():
            self._work.clear()
            if not self._connected and self._files() != self._made_of:
                self._let_go()
                if not self._make():
                    self._stopping.wait(backoff.fail())
                    continue
            if self._connected and not self._subscribe_missing():
                self._stopping.wait(backoff.fail())
                continue
            backoff.succeed()
            # Connected, the client's events wake this thread; if not, a changed file may be what helps.
            self._work.wait(None if self._connected else self._settings.reconnect_max_s)

    def _make(self) -> bool:
        files = self._files()
        with self._lock:
            keep_session = all(on_kept is None for _, on_kept in self._subscriptions.values())
        try:
            options = connection_options(self._settings, self._client_id, self._will, keep_session)
            options.on_publish_callback_fn = self._on_publish
            options.on_lifecycle_event_connection_success_fn = self._on_connected
            options.on_lifecycle_event_connection_failure_fn = self._on_failure
            options.on_lifecycle_event_disconnection_fn = self._on_disconnected
            options.on_lifecycle_event_stopped_fn = self._on_stopped
            client = mqtt5.Client(options)
        except (OSError, AwsCrtError, ValueError, RuntimeError) as error:  # awscrt's binding raises RuntimeError
            message = f"cannot use the certificate files: {say(error)}"
            if message != self._message:
                logger.error("event=mqtt_unusable error=%r", message)
            self._message = message
            return False
        self._made_of = files
        self._client = client
        client.start()
        return True

    def _files(self) -> tuple[Any, ...]:
        """When the certificate's files were changed: renewed ones are taken up at the next connection."""
        stamps = []
        for name in (self._settings.certificate, self._settings.key, self._settings.ca):
            try:
                stamps.append(Path(name).stat().st_mtime_ns if name else 0)
            except OSError:
                stamps.append(-1)
        return tuple(stamps)

    def _subscribe_missing(self) -> bool:
        client = self._client
        with self._lock:
            missing = sorted(self._missing)
        for topic in missing:
            packet = mqtt5.SubscribePacket(
                subscriptions=[mqtt5.Subscription(topic_filter=topic, qos=mqtt5.QoS.AT_LEAST_ONCE)]
            )
            try:
                assert client is not None
                code = client.subscribe(packet).result(self._settings.ack_timeout_s).reason_codes[0]
            except (AwsCrtError, RuntimeError, concurrent.futures.TimeoutError) as error:
                logger.warning("event=not_subscribed topic=%s error=%r", topic, say(error))
                return False
            if code is None or code >= 0x80:
                logger.error("event=not_subscribed topic=%s reason=%s", topic, name_of(code))
                return False
            with self._lock:
                self._missing.discard(topic)
            logger.info("event=subscribed topic=%s", topic)
        return True

    # What follows runs in the client's network thread: it must not wait.

    def _on_connected(self, data: mqtt5.LifecycleConnectSuccessData) -> None:
        rejoined = bool(data.negotiated_settings and data.negotiated_settings.rejoined_session)
        if not rejoined:
            with self._lock:
                self._missing = set(self._subscriptions)
        self._message = f"connected to {self._settings.host}:{self._settings.port} as {self._client_id}"
        self._goodbye = None
        self._connected = True
        logger.info("event=connected host=%s session_kept=%s", self._settings.host, rejoined)
        self._work.set()

    def _on_failure(self, data: mqtt5.LifecycleConnectFailureData) -> None:
        why = say(data.exception) if data.exception is not None else "unknown"
        if data.connack_packet is not None:
            why = f"the broker refuses the connection: {name_of(data.connack_packet.reason_code)}"
        self._told(f"no connection to {self._settings.host}:{self._settings.port}: {why}")

    def _on_disconnected(self, data: mqtt5.LifecycleDisconnectData) -> None:
        why = say(data.exception) if data.exception is not None else "unknown"
        if data.disconnect_packet is not None:
            self._goodbye = data.disconnect_packet.reason_code
            why = f"the broker said goodbye: {name_of(self._goodbye)}"
            if self._goodbye == mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER:
                why += f" - another program connects as {self._client_id}; give each its own client_id"
        self._told(f"connection to {self._settings.host}:{self._settings.port} lost: {why}")

    def _on_stopped(self, data: mqtt5.LifecycleStoppedData) -> None:
        self._stopped.set()

    def _told(self, message: str) -> None:
        self._connected = False
        if message != self._message and not self._stopping.is_set():
            logger.warning("event=not_connected error=%r", message)
        self._message = message
        with self._lock:
            for settled in self._under_way:
                settled.set()
        self._work.set()

    def _on_publish(self, data: mqtt5.PublishReceivedData) -> None:
        packet = data.publish_packet
        with self._lock:
            handlers = [
                on_kept if packet.retain and on_kept is not None else on_message
                for topic, (on_message, on_kept) in self._subscriptions.items()
                if matches(packet.topic, topic)
            ]
        for handler in handlers:
            try:
                handler(packet.topic, packet.payload or b"")
            except Exception:  # awscrt would lose it without a word
                logger.exception("event=listener_fault topic=%s", packet.topic)
