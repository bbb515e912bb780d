"""Messages through the Greengrass nucleus, classic or lite.

Nucleus lite keeps nothing while it is offline and takes at most ten unacknowledged messages, so one QoS 1 message goes
at a time and the spool waits. A message over about 7.3 kB would close the connection for good: none over 5 kB leaves.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from awsiot.greengrasscoreipc import model

from edge.backoff import Backoff
from edge.errors import RefusedError, TransportError
from edge.results import MAX_MESSAGE_BYTES
from edge.transports.interface import OnMessage, TransportState
from edge.transports.nucleus import Nucleus

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Subscription:
    topic: str
    local: bool
    on_message: OnMessage
    operation: Any = None  # of the client, while it stands
    error: str = ""


class GreengrassTransport:
    """Publishes to IoT Core, and to the device's own bus.

    Args:
        nucleus: connected.
        local: topics that have a name on the device's bus, for example `Topics.output: Topics.local_output`. Messages
            to them stay on the device; a subscription hears both the bus and IoT Core.
    """

    name = "greengrass"
    max_payload_bytes = MAX_MESSAGE_BYTES

    def __init__(self, nucleus: Nucleus, local: Mapping[str, str] | None = None) -> None:
        self.nucleus = nucleus
        self._local = dict(local or {})
        self._one_at_a_time = threading.Lock()
        self._offline = ""
        self._lock = threading.Lock()
        self._subscriptions: list[_Subscription] = []
        self._work = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_subscribed, name="subscriptions", daemon=True)

    def start(self) -> None:
        """Begin to subscribe, in a thread."""
        self._thread.start()

    def publish(self, topic: str, payload: bytes, timeout_s: float) -> None:
        """Hand a message to IoT Core, or to the device's bus, and wait until it is taken.

        Raises:
            NotAuthorizedError: the recipe does not allow the topic.
            RefusedError: larger than `max_payload_bytes`, or the nucleus finds it wrong.
            TransportError: offline, too much at once, no answer in time.
        """
        if len(payload) > self.max_payload_bytes:
            raise RefusedError(f"{topic}: want at most {self.max_payload_bytes} bytes, found {len(payload)}")
        client = self.nucleus.client
        if topic in self._local:
            message = model.PublishMessage(binary_message=model.BinaryMessage(message=payload))
            self.nucleus.call(
                f"PublishToTopic {self._local[topic]}",
                lambda: client.publish_to_topic_async(topic=self._local[topic], publish_message=message),
                timeout_s,
            )
            return
        with self._one_at_a_time:
            try:
                self.nucleus.call(
                    f"PublishToIoTCore {topic}",
                    lambda: client.publish_to_iot_core_async(
                        topic_name=topic, qos=model.QOS.AT_LEAST_ONCE, payload=payload
                    ),
                    timeout_s,
                )
            except TransportError as error:
                self._offline = str(error)
                raise
        if self._offline:
            self._offline = ""
            self._renew()

    def subscribe(self, topic: str, on_message: OnMessage, on_kept: OnMessage | None = None) -> None:
        """Hear a topic of IoT Core, and of the device's bus if it has a name there; tried until it stands.

        Messages over about 4.9 kB never arrive through nucleus lite. The nucleus has a session of its own with IoT
        Core, which may keep messages: all that come from there count as kept. The bus keeps none.
        """
        with self._lock:
            self._subscriptions.append(_Subscription(topic, False, on_kept or on_message))
            if topic in self._local:
                self._subscriptions.append(_Subscription(self._local[topic], True, on_message))
        self._work.set()

    def state(self) -> TransportState:
        """Connected as long as the nucleus is there; the message tells of its trouble with the network."""
        if self.nucleus.lost:
            return TransportState(False, self.nucleus.lost, fatal=True)
        with self._lock:
            waiting = [f"not subscribed to {one.topic}: {one.error}" for one in self._subscriptions if one.error]
        troubles = [text for text in (self._offline, *waiting) if text]
        return TransportState(True, "; ".join(troubles) or "connected to the nucleus")

    def close(self) -> None:
        """End the connection to the nucleus."""
        self._stopping.set()
        self._work.set()
        if self._thread.is_alive():
            self._thread.join(5)
        self.nucleus.close()

    def _renew(self) -> None:
        """Subscribe to IoT Core anew after an outage.

        Nucleus lite loses subscriptions without a word when its MQTT process restarts; the first message that goes
        through after failures is the only sign. A message heard twice is told by its id.
        """
        with self._lock:
            for one in self._subscriptions:
                if not one.local and one.operation is not None:
                    one.operation.close()
                    one.operation = None
        self._work.set()

    def _keep_subscribed(self) -> None:
        backoff = Backoff(0.5, 60.0)
        while not self._stopping.is_set():
            self._work.clear()
            with self._lock:
                missing = [one for one in self._subscriptions if one.operation is None]
            failed = [one for one in missing if not self._subscribed(one)]
            if not failed:
                backoff.succeed()
                self._work.wait()
            elif self.nucleus.lost:
                return
            else:
                self._stopping.wait(backoff.fail())

    def _subscribed(self, one: _Subscription) -> bool:
        client = self.nucleus.client

        def closed() -> None:
            if one.operation is operation and not self.nucleus.lost:
                logger.warning("event=subscription_closed topic=%s", one.topic)
                one.operation = None
                self._work.set()

        operation = None
        try:
            if one.local:
                operation = self.nucleus.stream(
                    f"SubscribeToTopic {one.topic}",
                    lambda **handlers: client.subscribe_to_topic_async(topic=one.topic, **handlers),
                    lambda event: _hand_on_local(event, one),
                    closed,
                )
            else:
                operation = self.nucleus.stream(
                    f"SubscribeToIoTCore {one.topic}",
                    lambda **handlers: client.subscribe_to_iot_core_async(
                        topic_name=one.topic, qos=model.QOS.AT_LEAST_ONCE, **handlers
                    ),
                    lambda event: _hand_on(event, one),
                    closed,
                )
        except (TransportError, RefusedError) as error:
            if one.error != str(error):
                logger.warning("event=not_subscribed topic=%s error=%r", one.topic, str(error))
            one.error = str(error)
            return False
        one.operation, one.error = operation, ""
        logger.info("event=subscribed topic=%s local=%s", one.topic, one.local)
        return True


def _hand_on(event: model.IoTCoreMessage, one: _Subscription) -> None:
    if event.message is not None:
        one.on_message(event.message.topic_name or one.topic, event.message.payload or b"")


def _hand_on_local(event: model.SubscriptionResponseMessage, one: _Subscription) -> None:
    if event.binary_message is not None:
        one.on_message(one.topic, event.binary_message.message or b"")
    elif event.json_message is not None:
        one.on_message(one.topic, json.dumps(event.json_message.message).encode())
