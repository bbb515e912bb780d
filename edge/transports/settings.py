"""Settings of the transports and of the sender."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FileSettings:
    """Messages to files of JSON lines."""

    path: str = "results.jsonl"  # a folder, or a file that ends in .jsonl: results there, other topics beside it
    rotate_bytes: int = 50_000_000  # a file that has grown beyond this is renamed to <name>.1, .1 to .2, ...
    keep_files: int = 20  # rotated files of one topic that stay; older ones are deleted
    sync: bool = True  # wait for the disk at each message: the spool forgets what was delivered here

    def check(self) -> list[str]:
        """Faults in words; none when all is well."""
        faults = []
        if not self.path:
            faults.append("file.path: want a folder or a file that ends in .jsonl, found nothing")
        if self.rotate_bytes < 1000:
            faults.append(f"file.rotate_bytes: want 1000 or more, found {self.rotate_bytes}")
        if self.keep_files < 1:
            faults.append(f"file.keep_files: want 1 or more, found {self.keep_files}")
        return faults


@dataclass(frozen=True)
class MqttSettings:
    """MQTT 5 over TLS in which both sides show a certificate."""

    host: str = ""  # of the broker
    port: int = 8883  # 443 needs ALPN at AWS IoT Core, see `alpn`
    certificate: str = ""  # file, PEM: this device's
    key: str = ""  # file, PEM: its private key, not encrypted
    ca: str = ""  # file, PEM: who signed the broker's certificate; empty: the system's list
    client_id: str = ""  # empty: the thing's name. Unique at the broker: two with one name throw each other out
    alpn: str = ""  # protocol name for TLS; empty: `x-amzn-mqtt-ca` on port 443, none elsewhere
    keep_alive_s: int = 30  # a silent connection is probed this often
    ping_timeout_s: int = 10  # and given up when no answer came in this time
    connect_timeout_s: int = 15  # TCP, TLS and MQTT handshakes, each
    ack_timeout_s: int = 20  # a message without acknowledgement in this time is sent again
    session_expiry_s: int = 86_400  # the broker keeps so long what came for a device that is away; for cameras nothing
    reconnect_min_s: float = 1.0  # first wait before connecting again; doubled, with jitter
    reconnect_max_s: float = 60.0  # longest wait
    will_delay_s: int = 10  # a device gone for longer than this is reported lost on its health topic

    def check(self) -> list[str]:
        """Faults in words; none when all is well."""
        faults = []
        if not self.host or any(character.isspace() or character in "/:" for character in self.host):
            faults.append(f"mqtt.host: want the broker's name or address alone, found {self.host!r}")
        if not 1 <= self.port <= 65535:
            faults.append(f"mqtt.port: want 1 to 65535, found {self.port}")
        for name, why in (("certificate", "this device's certificate"), ("key", "its private key")):
            if not getattr(self, name):
                faults.append(f"mqtt.{name}: want a PEM file, {why}, found nothing (--{name.replace('ificate', '')})")
        if len(self.client_id.encode()) > 128:
            faults.append(f"mqtt.client_id: want at most 128 bytes, found {len(self.client_id.encode())}")
        if not 5 <= self.keep_alive_s <= 1200:
            faults.append(f"mqtt.keep_alive_s: want 5 to 1200, found {self.keep_alive_s}")
        if not 1 <= self.ping_timeout_s < self.keep_alive_s:
            faults.append(f"mqtt.ping_timeout_s: want 1 to less than keep_alive_s, found {self.ping_timeout_s}")
        for name in ("connect_timeout_s", "ack_timeout_s"):
            if not 1 <= getattr(self, name) <= 600:
                faults.append(f"mqtt.{name}: want 1 to 600, found {getattr(self, name)}")
        for name in ("session_expiry_s", "will_delay_s"):
            if not 0 <= getattr(self, name) <= 0xFFFFFFFF:
                faults.append(f"mqtt.{name}: want 0 to 4294967295, found {getattr(self, name)}")
        if not 0.1 <= self.reconnect_min_s <= self.reconnect_max_s <= 3600:
            faults.append(
                "mqtt.reconnect_min_s, reconnect_max_s: want 0.1 <= min <= max <= 3600, "
                f"found {self.reconnect_min_s} and {self.reconnect_max_s}"
            )
        return faults


@dataclass(frozen=True)
class SenderSettings:
    """When results leave the spool."""

    batch_bytes: int = 5000  # largest message of pass results; AWS IoT counts messages by 5 kB
    batch_within_s: float = 10.0  # a pass result waits no longer than this for others
    publish_timeout_s: float = 20.0  # for the other side to acknowledge one message
    retry_min_s: float = 0.5  # first wait after a failure; doubled, with jitter
    retry_max_s: float = 60.0  # longest wait after a failure
    refused_max_s: float = 300.0  # longest wait for a topic on which this device may not publish
    poll_s: float = 0.5  # how often the spool is looked at when nobody says that there is something

    def check(self) -> list[str]:
        """Faults in words; none when all is well."""
        faults = []
        if not 1000 <= self.batch_bytes <= 128_000:
            faults.append(f"sender.batch_bytes: want 1000 to 128000, found {self.batch_bytes}")
        for name in ("batch_within_s", "publish_timeout_s", "poll_s"):
            if not 0.01 <= getattr(self, name) <= 3600:
                faults.append(f"sender.{name}: want 0.01 to 3600, found {getattr(self, name)}")
        if not 0.01 <= self.retry_min_s <= self.retry_max_s <= self.refused_max_s <= 86_400:
            faults.append(
                "sender.retry_min_s, retry_max_s, refused_max_s: want 0.01 <= min <= max <= refused <= 86400, "
                f"found {self.retry_min_s}, {self.retry_max_s} and {self.refused_max_s}"
            )
        return faults
