"""The MQTT transport and the sender against a real Mosquitto with TLS and client certificates."""

import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from awscrt import mqtt5
from mosquitto import Authority, Identity, Mosquitto
from sending import TOPICS, result, until

from edge.errors import NotAuthorizedError, RefusedError, TransportError
from edge.messages import read_results
from edge.results import Result
from edge.sender import Sender
from edge.spool.settings import SpoolSettings
from edge.spool.spool import Spool
from edge.transports.mqtt import MqttTransport
from edge.transports.opening import last_will
from edge.transports.settings import MqttSettings, SenderSettings

SENDING = SenderSettings(batch_within_s=0.1, publish_timeout_s=2, retry_min_s=0.05, retry_max_s=0.3, poll_s=0.02)
Connect = Callable[..., MqttTransport]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as running:
        yield running


def settings_of(broker: Mosquitto, identity: Identity, **changes: object) -> MqttSettings:
    values = {
        "host": broker.host,
        "port": broker.port,
        "certificate": str(identity.certificate),
        "key": str(identity.key),
        "ca": str(broker.authority.certificate),
        "keep_alive_s": 2,
        "ping_timeout_s": 1,
        "ack_timeout_s": 2,
        "connect_timeout_s": 2,
        "reconnect_min_s": 0.1,
        "reconnect_max_s": 0.5,
        "will_delay_s": 0,
        **changes,
    }
    return MqttSettings(**values)  # type: ignore[arg-type]


@pytest.fixture
def connect(broker: Mosquitto) -> Iterator[Connect]:
    made: list[MqttTransport] = []

    def connect(
        name: str,
        will: tuple[str, bytes] | None = None,
        wait: bool = True,
        listen: Callable[[MqttTransport], None] = lambda transport: None,
        **changes: object,
    ) -> MqttTransport:
        transport = MqttTransport(settings_of(broker, broker.authority.sign(name), **changes), name, will)
        made.append(transport)
        listen(transport)
        transport.start()
        if wait:
            until(lambda: transport.state().connected)
        return transport

    yield connect
    for transport in made:
        transport.close()


def subscribed(transport: MqttTransport) -> bool:
    return transport.state().connected and "not subscribed" not in transport.state().message


def retain(transport: MqttTransport, payload: bytes) -> None:
    """Publish a trigger that the broker hands to everybody who subscribes later."""
    assert transport._client is not None
    packet = mqtt5.PublishPacket(topic=TOPICS.trigger, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True)
    transport._client.publish(packet).result(10)


def published(transport: MqttTransport) -> bool:
    try:
        transport.publish(TOPICS.results, b"{}", 10)
    except TransportError:
        return False
    return True


def test_every_verdict_of_a_long_run_arrives_though_the_broker_stops_and_hangs(
    broker: Mosquitto, connect: Connect, tmp_path: Path
) -> None:
    arrived: list[Result] = []
    reader = connect("reader")
    reader.subscribe(TOPICS.results, lambda topic, payload: arrived.extend(read_results(payload)))
    until(lambda: subscribed(reader))
    spool = Spool(tmp_path / "spool", "thing-1", SpoolSettings(durable_within_ms=20))
    device = connect("thing-1")
    sender = Sender(spool, device, TOPICS, SENDING)
    spool.on_committed = sender.wake
    sender.start()
    put: list[Result] = []
    for number in range(2000):
        verdict = ("fail", "review", "error")[number % 3] if number % 7 == 0 else "pass"
        put.append(spool.put(result(number, verdict)).result)
        if number == 400:
            until(lambda: sender.figures().results > 50)
            broker.stop()
        elif number == 800:
            until(lambda: not device.state().connected)
            broker.start()
        elif number == 1200:
            until(lambda: sender.figures().results > 900, 120)
            broker.freeze()
        elif number == 1600:
            until(lambda: sender.figures().error)
            broker.thaw()
        time.sleep(0.0005)
    assert spool.flush(60)
    assert sender.close(120)
    until(lambda: len({one.id for one in arrived}) == 2000, 120)
    by_id = {one.id: one for one in arrived}
    assert by_id == {one.id: one for one in put}
    assert all(by_id[one.id] == one for one in arrived), "a repeat is the same result"
    assert sender.figures().results == 2000
    assert sender.figures().failures > 0, "the broker was away in the middle of sending"
    until(lambda: spool.figures().queue_length == 0)
    spool.close()


def test_triggers_sent_while_the_device_was_away_arrive_later(broker: Mosquitto, connect: Connect) -> None:
    heard: list[bytes] = []
    device = connect("thing-1")
    device.subscribe(TOPICS.trigger, lambda topic, payload: heard.append(payload))
    until(lambda: subscribed(device))
    device.close()
    controller = connect("controller")
    controller.publish(TOPICS.trigger, b'{"part_id":"7"}', 10)
    assert heard == []
    again = connect("thing-1", wait=False)
    again.subscribe(TOPICS.trigger, lambda topic, payload: heard.append(payload))
    until(lambda: heard)
    assert heard == [b'{"part_id":"7"}']


def test_triggers_for_a_camera_are_heard_at_once_or_never(broker: Mosquitto, connect: Connect) -> None:
    heard: list[bytes] = []
    kept: list[bytes] = []

    def connect_camera() -> MqttTransport:
        return connect(
            "thing-1",
            wait=False,
            listen=lambda device: device.subscribe(
                TOPICS.trigger,
                lambda topic, payload: heard.append(payload),
                lambda topic, payload: kept.append(payload),
            ),
        )

    before = connect("thing-1")  # the same device as it was before it had a camera: with a session
    before.subscribe(TOPICS.trigger, lambda topic, payload: None)
    until(lambda: subscribed(before))
    before.close()
    controller = connect("controller")
    controller.publish(TOPICS.trigger, b'{"part_id":"before the first start"}', 10)
    device = connect_camera()
    until(lambda: subscribed(device))
    controller.publish(TOPICS.trigger, b'{"part_id":"live"}', 10)
    until(lambda: heard)
    device.close()
    controller.publish(TOPICS.trigger, b'{"part_id":"while away"}', 10)
    retain(controller, b'{"part_id":"retained"}')
    again = connect_camera()
    until(lambda: subscribed(again))
    controller.publish(TOPICS.trigger, b'{"part_id":"live again"}', 10)
    until(lambda: len(heard) == 2 and kept)
    assert heard == [b'{"part_id":"live"}', b'{"part_id":"live again"}']
    assert kept == [b'{"part_id":"retained"}']


def test_a_camera_hears_no_trigger_of_the_time_in_which_its_connection_was_lost(
    broker: Mosquitto, connect: Connect
) -> None:
    heard: list[bytes] = []

    def listen(device: MqttTransport) -> None:
        device.subscribe(TOPICS.trigger, lambda topic, payload: heard.append(payload), lambda topic, payload: None)

    device = connect("thing-1", listen=listen)
    until(lambda: subscribed(device))
    controller = connect("controller")
    controller.publish(TOPICS.trigger, b"1", 10)
    until(lambda: heard == [b"1"])
    assert device._client is not None
    device._client.stop()  # as if the cable were pulled: the broker keeps its session
    until(lambda: not device.state().connected)
    controller.publish(TOPICS.trigger, b"2", 10)
    device._client.start()
    until(lambda: subscribed(device))
    controller.publish(TOPICS.trigger, b"3", 10)
    until(lambda: b"3" in heard)
    assert heard == [b"1", b"3"]


def test_subscriptions_stand_again_at_a_broker_that_forgot_the_session(broker: Mosquitto, connect: Connect) -> None:
    heard: list[bytes] = []
    device = connect("thing-1")
    device.subscribe(TOPICS.trigger, lambda topic, payload: heard.append(payload))
    until(lambda: subscribed(device))
    broker.stop()
    until(lambda: not device.state().connected)
    (broker.folder / "mosquitto.db").unlink(missing_ok=True)
    broker.start()
    until(lambda: subscribed(device))
    connect("controller").publish(TOPICS.trigger, b"{}", 10)
    until(lambda: heard)


def test_a_broker_that_hangs_costs_a_timeout_and_the_connection_comes_back(broker: Mosquitto, connect: Connect) -> None:
    device = connect("thing-1")
    broker.freeze()
    with pytest.raises(TransportError):
        device.publish(TOPICS.results, b"{}", 1)
    until(lambda: not device.state().connected)
    with pytest.raises(TransportError, match=r"no connection|lost"):
        device.publish(TOPICS.results, b"{}", 1)
    broker.thaw()
    until(lambda: device.state().connected)
    device.publish(TOPICS.results, b"{}", 10)


def test_a_device_that_dies_leaves_its_will_and_one_that_says_goodbye_does_not(
    broker: Mosquitto, connect: Connect, tmp_path: Path
) -> None:
    wills: list[dict] = []
    watcher = connect("watcher")
    watcher.subscribe("lineside/cookies/+/health", lambda topic, payload: wills.append(json.loads(payload)))
    until(lambda: subscribed(watcher))
    polite = connect("thing-1", (TOPICS.health, last_will("thing-1", "cookies", 1.0)))
    polite.close()
    identity = broker.authority.sign("thing-2")
    program = f"""
import time
from edge.transports.mqtt import MqttTransport
from edge.transports.opening import last_will
from edge.transports.settings import MqttSettings
settings = {settings_of(broker, identity)!r}
will = ("lineside/cookies/thing-2/health", last_will("thing-2", "cookies", 2.0))
transport = MqttTransport(settings, "thing-2", will)
transport.start()
while not transport.state().connected:
    time.sleep(0.01)
print("connected", flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"connected\n"
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    until(lambda: wills)
    assert [(will["thing"], will["state"]) for will in wills] == [("thing-2", "lost")]


def test_a_certificate_that_the_broker_does_not_know_is_a_clear_state(
    broker: Mosquitto, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "other-authority").sign("thing-1")
    device = connect("thing-1", wait=False, certificate=str(stranger.certificate), key=str(stranger.key))
    until(lambda: "no connection to" in device.state().message)
    assert not device.state().connected
    assert not device.state().fatal
    assert "certificate" in device.state().message
    with pytest.raises(TransportError, match="certificate"):
        device.publish(TOPICS.results, b"{}", 1)


@pytest.mark.slow  # the TLS library waits ten to thirty seconds before it tells, against timing attacks
def test_a_broker_that_the_ca_did_not_sign_is_a_clear_state(
    broker: Mosquitto, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other-authority")
    device = connect("thing-1", wait=False, ca=str(other.certificate))
    until(lambda: "no connection to" in device.state().message, 120)
    assert "see certificate, key, ca" in device.state().message


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"host": "nowhere.invalid"}, "see host"),
        ({"port": 1}, "see host and port"),
        ({"certificate": "/nowhere/device.pem"}, "No such file or directory: '/nowhere/device.pem'"),
        ({"ca": "/nowhere/ca.pem"}, "No such file or directory: '/nowhere/ca.pem'"),
    ],
)
def test_wrong_settings_are_a_clear_state(
    broker: Mosquitto, connect: Connect, changes: dict[str, object], want: str
) -> None:
    device = connect("thing-1", wait=False, **changes)
    until(lambda: want in device.state().message)
    assert not device.state().connected
    assert not device.state().fatal


def test_files_that_are_no_certificates_are_a_clear_state(broker: Mosquitto, connect: Connect, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not a certificate")
    device = connect("thing-1", wait=False, certificate=str(garbage))
    until(lambda: "want a PEM file" in device.state().message)
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    device = connect("thing-2", wait=False, certificate=str(damaged))
    until(lambda: "cannot use the certificate files" in device.state().message)
    locked = tmp_path / "locked.pem"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    device = connect("thing-3", wait=False, key=str(locked))
    until(lambda: "without a passphrase" in device.state().message)


def test_a_key_of_another_certificate_is_a_clear_state(broker: Mosquitto, connect: Connect) -> None:
    other = broker.authority.sign("somebody-else")
    device = connect("thing-1", wait=False, key=str(other.key))
    until(lambda: "the key does not belong to the certificate" in device.state().message)


def test_a_certificate_renewed_in_place_is_taken_up(broker: Mosquitto, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    mine = Authority(tmp_path / "other", "other-authority").sign("thing-9")
    device = connect("thing-9", wait=False, certificate=str(mine.certificate), key=str(mine.key))
    until(lambda: "no connection to" in device.state().message)
    good = broker.authority.sign("thing-9")
    shutil.copy(good.key, mine.key)
    shutil.copy(good.certificate, mine.certificate)
    until(lambda: device.state().connected)


def test_a_topic_that_the_broker_closes_to_this_device_is_told_apart(tmp_path: Path) -> None:
    access = "user thing-1\ntopic readwrite lineside/cookies/thing-1/#\n"
    with Mosquitto(tmp_path, access) as broker:
        device = MqttTransport(settings_of(broker, broker.authority.sign("thing-1")), "thing-1")
        device.start()
        until(lambda: device.state().connected)
        device.publish(TOPICS.results, b"{}", 10)
        with pytest.raises(NotAuthorizedError, match="see its policy"):
            device.publish("lineside/cookies/thing-2/results", b"{}", 10)
        until(lambda: published(device))  # some releases of mosquitto hang up after such a message
        device.close()


@pytest.mark.parametrize(
    ("reason", "error", "want"),
    [
        (0x87, NotAuthorizedError, "not authorized"),  # a topic that is not allowed, as IoT Core tells it
        (0x8E, TransportError, "another program connects as thing-1"),
        (0x8B, TransportError, "server shutting down"),
    ],
)
def test_the_reason_with_which_a_broker_hangs_up_is_told(
    broker: Mosquitto, connect: Connect, reason: int, error: type[TransportError], want: str
) -> None:
    server = broker.authority.sign("server-that-hangs-up")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    context.load_verify_locations(broker.authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True) as secured:
                secured.recv(4096)
                secured.sendall(bytes([0x20, 3, 0, 0, 0]))  # CONNACK: welcome, no properties
                secured.recv(4096)
                secured.sendall(bytes([0xE0, 2, reason, 0]))  # DISCONNECT
                secured.recv(4096)  # until the client has hung up too

        thread = threading.Thread(target=serve)
        thread.start()
        device = connect("thing-1", port=listener.getsockname()[1], reconnect_min_s=20, reconnect_max_s=20)
        with pytest.raises(error) as raised:
            device.publish(TOPICS.results, b"{}", 10)
        assert type(raised.value) is error
        assert want in device.state().message
        thread.join(30)


def test_a_message_larger_than_the_broker_takes_is_refused_and_the_connection_stands(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, more="max_packet_size 2000") as broker:
        device = MqttTransport(settings_of(broker, broker.authority.sign("thing-1")), "thing-1")
        device.start()
        until(lambda: device.state().connected)
        with pytest.raises(RefusedError, match="3000 bytes"):
            device.publish(TOPICS.results, b"x" * 3000, 10)
        device.publish(TOPICS.results, b"{}", 10)
        device.close()


def test_a_failing_listener_does_not_end_the_connection(
    broker: Mosquitto, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes] = []

    def listener(topic: str, payload: bytes) -> None:
        heard.append(payload)
        raise ValueError("garbage in a trigger")

    device = connect("thing-1")
    device.subscribe(TOPICS.trigger, listener)
    until(lambda: subscribed(device))
    device.publish(TOPICS.trigger, b"\x00\xff", 10)
    until(lambda: len(heard) == 1)
    device.publish(TOPICS.trigger, b"{}", 10)
    until(lambda: len(heard) == 2)
    assert "event=listener_fault" in caplog.text


@pytest.mark.parametrize(("alpn", "want"), [("x-amzn-mqtt-ca", "x-amzn-mqtt-ca"), ("", None)])
def test_the_protocol_name_for_port_443_is_offered(
    broker: Mosquitto, connect: Connect, tmp_path: Path, alpn: str, want: str | None
) -> None:
    server = broker.authority.sign("server-with-alpn")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    context.load_verify_locations(broker.authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED  # without it the client hangs up: it is there to show its certificate
    context.set_alpn_protocols(["x-amzn-mqtt-ca"])
    seen: list[str | None] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True) as secured:
                seen.append(secured.selected_alpn_protocol())

        thread = threading.Thread(target=serve)
        thread.start()
        connect("thing-1", wait=False, port=listener.getsockname()[1], alpn=alpn)
        thread.join(30)
    assert seen == [want]
