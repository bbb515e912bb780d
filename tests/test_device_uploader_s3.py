"""Uploads to S3 with the real client: against moto, and against a server that answers as S3 does in trouble."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from kept_images import image_bytes, make_spool

from edge.errors import UploadError
from edge.sidecar import parse_sidecar
from edge.spool.images import ImageQueue
from edge.uploader.__main__ import main
from edge.uploader.bandwidth import TokenBucket
from edge.uploader.s3 import S3Store
from edge.uploader.settings import UploadSettings

pytest_plugins = ["s3_server"]

ROOT = Path(__file__).resolve().parents[1]
PREFIX = "site/tiny/raw-images-for-review/press-3/fail/2026-02-02"
DATA = b"an image"
DIGEST = hashlib.sha256(DATA).hexdigest()
CHECKSUM = base64.b64encode(bytes.fromhex(DIGEST)).decode()


def upload(spool: Path, to: str, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
    """What the child does, in this process: starting boto3 for each test takes seconds."""
    code = main(["--spool", str(spool), "--to", to, *more])
    return code, json.loads(capsys.readouterr().out)


def waiting(spool: Path) -> int:
    queue = ImageQueue(spool)
    try:
        return len(queue.waiting(1000))
    finally:
        queue.close()


# --- moto


def test_the_child_puts_images_and_sidecars_into_the_bucket(s3: str, tmp_path: Path) -> None:
    spool = make_spool(tmp_path / "spool", 3)
    command = [sys.executable, "-m", "edge.uploader", "--spool", str(spool), "--to", f"s3://{s3}/site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert (done.returncode, report["state"], report["images"]) == (0, "done", 3)
    assert waiting(spool) == 0
    client = boto3.client("s3")
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket=s3, Prefix=PREFIX)["Contents"]]
    assert len(keys) == 6
    for index, key in enumerate(sorted(key for key in keys if key.endswith(".jpg"))):
        image = client.get_object(Bucket=s3, Key=key, ChecksumMode="ENABLED")
        data = image["Body"].read()
        assert data == image_bytes(index)
        assert image["ContentType"] == "image/jpeg"
        text = client.get_object(Bucket=s3, Key=key[:-4] + ".json")["Body"].read().decode()
        assert parse_sidecar(text).image.sha256 == hashlib.sha256(data).hexdigest()


def test_a_bucket_that_does_not_exist_is_told_and_nothing_is_lost(
    s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spool = make_spool(tmp_path / "spool", 2)
    code, report = upload(spool, "s3://no-such-bucket/site", capsys)
    assert (code, report["state"], report["images"]) == (75, "missing", 0)
    assert "there is no bucket no-such-bucket" in report["message"]
    assert waiting(spool) == 2


def test_a_profile_that_does_not_exist_is_told(s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = upload(make_spool(tmp_path / "spool", 1), f"s3://{s3}/site", capsys, "--profile=nobody")
    assert (code, report["state"]) == (75, "settings")
    assert "correct upload.profile" in report["message"]


def test_nothing_is_read_listed_or_asked_beyond_the_put(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's role needs s3:PutObject and nothing else."""
    store = S3Store(UploadSettings(to=f"s3://{s3}/site"), TokenBucket(0))
    called: list[str] = []
    store._client.meta.events.register("before-call.s3", lambda model, **_: called.append(model.name))
    store.put("a/b.jpg", DATA, DIGEST)
    assert called == ["PutObject"]


# --- a server that answers as told


class Answers(BaseHTTPRequestHandler):
    """Takes puts; answers with the server's script."""

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        server.puts.append((self.path, dict(self.headers), body))
        status, code, headers = server.script
        self._answer(status, code, headers)

    def do_HEAD(self) -> None:
        server: Any = self.server
        server.heads.append((self.path, dict(self.headers)))
        self._answer(*server.head)

    def do_GET(self) -> None:
        server: Any = self.server
        server.gets.append((self.path, dict(self.headers)))
        document = {
            "AccessKeyId": "ASIAFROMSERVICE",
            "SecretAccessKey": "secret",
            "Token": "session",
            "Expiration": "2999-01-01T00:00:00Z",
        }
        self._send(server.credentials_status, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, code: str, headers: dict[str, str]) -> None:
        text = f"<Error><Code>{code}</Code><Message>as told</Message></Error>" if code else ""
        self._send(status, text.encode() if self.command != "HEAD" else b"", headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: Any) -> None:
        pass


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.puts, server.heads, server.gets = [], [], []
    server.script = (200, "", {"x-amz-checksum-sha256": CHECKSUM})
    server.head = (200, "", {})
    server.credentials_status = 200
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def a_store(**changes: Any) -> S3Store:
    return S3Store(UploadSettings(**{"to": "s3://parts/site", **changes}), TokenBucket(0))


TROUBLE = (
    (403, "AccessDenied", "denied", "let the device's role do s3:PutObject"),
    (403, "InvalidAccessKeyId", "denied", "s3:PutObject"),
    (400, "ExpiredToken", "denied", "ExpiredToken"),
    (400, "KMS.DisabledException", "denied", "use its key"),
    (404, "NoSuchBucket", "missing", "there is no bucket parts"),
    (403, "RequestTimeTooSkewed", "clock", "set it by NTP"),
    (400, "AuthorizationHeaderMalformed", "settings", "correct upload.region"),
    (503, "SlowDown", "offline", "cannot take it now"),
    (500, "InternalError", "offline", "cannot take it now"),
    (400, "EntityTooLarge", "refused", "S3 refuses it"),
    (400, "BadDigest", "refused", "S3 refuses it"),
)


def test_what_s3_answers_becomes_a_state_with_advice(told: Any) -> None:
    store = a_store()
    for status, code, state, words in TROUBLE:
        told.script = (status, code, {})
        told.puts.clear()
        with pytest.raises(UploadError) as caught:
            store.put("a/b.jpg", DATA, DIGEST)
        assert caught.value.state == state, code
        assert words in str(caught.value)
        assert "s3://parts/site/a/b.jpg" in str(caught.value)
        assert len(told.puts) <= 2, code  # the supervisor waits, not the child


def test_the_checksum_goes_with_the_put_and_its_return_is_the_confirmation(told: Any) -> None:
    a_store().put("a/b.jpg", DATA, DIGEST)
    path, headers, body = told.puts[0]
    assert path == "/parts/site/a/b.jpg"
    assert body == DATA
    assert {name.lower(): value for name, value in headers.items()}["x-amz-checksum-sha256"] == CHECKSUM
    assert told.heads == []


def test_a_store_that_answers_without_checksum_is_asked_for_it(told: Any) -> None:
    told.script = (200, "", {})
    told.head = (200, "", {"x-amz-checksum-sha256": CHECKSUM})
    a_store().put("a/b.jpg", DATA, DIGEST)
    (head,) = told.heads
    assert {name.lower(): value for name, value in head[1].items()}["x-amz-checksum-mode"] == "ENABLED"


@pytest.mark.parametrize("checksum", [{}, {"x-amz-checksum-sha256": base64.b64encode(bytes(32)).decode()}])
def test_what_the_store_confirms_otherwise_or_not_at_all_is_not_confirmed(told: Any, checksum: dict[str, str]) -> None:
    told.script = (200, "", checksum)
    with pytest.raises(UploadError, match="want the store to confirm sha256") as caught:
        a_store().put("a/b.jpg", DATA, DIGEST)
    assert caught.value.state == "refused"


def test_access_that_is_denied_keeps_every_image(told: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spool = make_spool(tmp_path / "spool", 3)
    told.script = (403, "AccessDenied", {})
    code, report = upload(spool, "s3://parts/site", capsys)
    assert (code, report["state"]) == (75, "denied")
    assert waiting(spool) == 3
    assert len(told.puts) == 1  # one try, not one for each image


def test_no_network_is_offline_and_soon_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    spool = make_spool(tmp_path / "spool", 3)
    code, report = upload(spool, "s3://parts/site", capsys)
    assert (code, report["state"]) == (75, "offline")
    assert "cannot reach S3" in report["message"]
    assert waiting(spool) == 3


def service(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the nucleus gives a component that depends on the token exchange service."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.setenv(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{told.server_port}/2016-11-01/credentials"
    )
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of-the-component")


def test_credentials_come_from_the_token_exchange_service(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service(told, monkeypatch)
    a_store().put("a/b.jpg", DATA, DIGEST)
    path, headers = told.gets[0]
    assert path.endswith("/credentials")
    assert headers["Authorization"] == "of-the-component"
    signed = told.puts[0][1]["Authorization"]
    assert "Credential=ASIAFROMSERVICE/" in signed
    assert "/eu-north-1/s3/" in signed


def test_a_service_without_credentials_is_offline_and_leaks_no_token(
    told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service(told, monkeypatch)
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    told.credentials_status = 500
    with pytest.raises(UploadError, match="token exchange service gives no credentials") as caught:
        a_store().put("a/b.jpg", DATA, DIGEST)
    assert caught.value.state == "offline"
    assert "of-the-component" not in str(caught.value)


def test_no_credentials_at_all_says_where_they_come_from(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(UploadError, match=r"depend on the token exchange service, or set upload\.profile") as caught:
        a_store().put("a/b.jpg", DATA, DIGEST)
    assert caught.value.state == "settings"


def test_the_cap_holds_for_what_goes_over_the_network(told: Any) -> None:
    slept: list[float] = []
    data = bytes(40_000)
    digest = hashlib.sha256(data).digest()
    told.script = (200, "", {"x-amz-checksum-sha256": base64.b64encode(digest).decode()})
    store = S3Store(UploadSettings(to="s3://parts/site"), TokenBucket(10_000, clock=lambda: 0.0, sleep=slept.append))
    store.put("a/b.jpg", data, digest.hex())
    assert told.puts[0][2] == data
    assert max(slept) >= 3.0  # 40,000 bytes at 10,000 a second, less the burst
