"""How an MQTT connection is made, and what its failures mean in words."""

from pathlib import Path
from typing import Any

from awscrt import io, mqtt5
from awscrt.exceptions import AwsCrtError

from edge.transports.settings import MqttSettings

AWS_ALPN = "x-amzn-mqtt-ca"
"""Makes port 443 of AWS IoT Core speak MQTT. Source: AWS IoT Core developer guide, device communication protocols."""

_HINTS = (
    ("TLS", "the broker refuses this certificate, or its own is not signed by the ca given; see certificate, key, ca"),
    ("DNS", "no such host, or no name server is reached; see host"),
    ("REFUSED", "nothing listens on that port; see host and port, or the broker is down"),
    ("TIMEOUT", "no answer; the network or a firewall drops it, or the broker hangs"),
    ("CLOSED", "the broker ended the connection; a certificate that it refuses looks like this too"),
)


def connection_options(
    settings: MqttSettings, client_id: str, will: tuple[str, bytes] | None, keep_session: bool = True
) -> mqtt5.ClientOptions:
    """All that a client needs but its callbacks.

    Args:
        settings: where to and how.
        client_id: names this device at the broker.
        will: topic and payload that the broker publishes when this device is gone without a goodbye.
        keep_session: False: every connection begins a session of its own, and an earlier one is thrown away.

    Raises:
        OSError: a certificate's file cannot be read.
        ValueError: it is not what it should be.
        AwsCrtError: the TLS library cannot use it.
    """
    tls = io.TlsContextOptions.create_client_with_mtls(
        _read_pem(settings.certificate, "certificate"), _read_pem(settings.key, "key")
    )
    if settings.ca:
        tls.override_default_trust_store(_read_pem(settings.ca, "ca"))
    tls.min_tls_ver = io.TlsVersion.TLSv1_2
    alpn = settings.alpn or (AWS_ALPN if settings.port == 443 else "")
    if alpn:
        tls.alpn_list = [alpn]
    socket = io.SocketOptions()
    socket.connect_timeout_ms = settings.connect_timeout_s * 1000
    connect = mqtt5.ConnectPacket(
        client_id=client_id,
        keep_alive_interval_sec=settings.keep_alive_s,
        # The end of a session lets the will out: without one to come back to, it lasts as long as the will's delay.
        session_expiry_interval_sec=settings.session_expiry_s if keep_session else settings.will_delay_s,
    )
    if will is not None:
        connect.will = mqtt5.PublishPacket(topic=will[0], payload=will[1], qos=mqtt5.QoS.AT_LEAST_ONCE)
        connect.will_delay_interval_sec = settings.will_delay_s
    behaviour = mqtt5.ClientSessionBehaviorType
    return mqtt5.ClientOptions(
        host_name=settings.host,
        port=settings.port,
        tls_ctx=io.ClientTlsContext(tls),
        socket_options=socket,
        connect_options=connect,
        session_behavior=behaviour.REJOIN_ALWAYS if keep_session else behaviour.CLEAN,
        # Results wait in the spool, which outlives this process, and not in the client.
        offline_queue_behavior=mqtt5.ClientOperationQueueBehaviorType.FAIL_ALL_ON_DISCONNECT,
        retry_jitter_mode=mqtt5.ExponentialBackoffJitterMode.DECORRELATED,
        min_reconnect_delay_ms=int(settings.reconnect_min_s * 1000),
        max_reconnect_delay_ms=int(settings.reconnect_max_s * 1000),
        min_connected_time_to_reset_reconnect_delay_ms=5000,
        ping_timeout_ms=settings.ping_timeout_s * 1000,
        connack_timeout_ms=settings.connect_timeout_s * 1000,
        ack_timeout_sec=settings.ack_timeout_s,
        disable_metrics=True,  # they would go into the user name, which a broker may check
    )


def matches(topic: str, topic_filter: str) -> bool:
    """Whether a filter of MQTT matches a topic."""
    levels, wanted = topic.split("/"), topic_filter.split("/")
    for at, want in enumerate(wanted):
        if want == "#":
            return True
        if at >= len(levels) or want not in ("+", levels[at]):
            return False
    return len(levels) == len(wanted)


def name_of(code: Any) -> str:
    """A reason code in words."""
    return str(getattr(code, "name", code)).lower().replace("_", " ")


def say(error: BaseException) -> str:
    """What happened, and what to look at."""
    if isinstance(error, AwsCrtError):
        hint = next((hint for mark, hint in _HINTS if mark in error.name), "")
        return f"{error.name}: {error.message}" + (f" - {hint}" if hint else "")
    if "TLS_CTX_ERROR" in str(error):
        return f"{error} - the key does not belong to the certificate, or a file is damaged; see certificate, key, ca"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _read_pem(path: str, what: str) -> bytes:
    data = Path(path).read_bytes()
    if b"-----BEGIN" not in data:
        raise ValueError(f"{what}: {path}: want a PEM file, found {data[:20]!r}")
    if what == "key" and b"ENCRYPTED" in data:
        raise ValueError(f"{what}: {path}: want a key without a passphrase; a device has nobody to type it")
    return data
