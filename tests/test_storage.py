"""Storage: the same behaviour in a folder and in S3, where S3 is a real HTTP server with the real client."""

import os
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import boto3
import pytest
from faulty_s3 import error, serve_faulty_s3
from small_disk import mount, small_disk, unmount

from inspection.errors import StorageError
from inspection.storage import LocalStorage, ObjectExistsError, Storage, open_storage
from inspection.storage_s3 import S3Storage

pytest_plugins = ["s3_server"]
EXPIRED = error("400 Bad Request", "ExpiredToken")


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return LocalStorage(tmp_path / "root")
    bucket = request.getfixturevalue("s3")
    return S3Storage(f"s3://{bucket}/{tmp_path.name}", copies=tmp_path / "copies")


class TestEveryBackend:
    def test_what_was_written_is_read(self, storage: Storage) -> None:
        storage.write("datasets/a/rows.jsonl", b"one")
        storage.write("datasets/a/rows.jsonl", memoryview(b"two"))
        assert storage.read("datasets/a/rows.jsonl") == b"two"
        assert storage.exists("datasets/a/rows.jsonl")

    def test_a_missing_object_is_named(self, storage: Storage) -> None:
        assert not storage.exists("datasets/none")
        with pytest.raises(StorageError, match="datasets/none"):
            storage.read("datasets/none")
        with pytest.raises(StorageError, match="datasets/none"):
            storage.local_copy("datasets/none")

    def test_an_object_is_created_only_once(self, storage: Storage) -> None:
        storage.create("line/1.json", b"first")
        with pytest.raises(ObjectExistsError, match=r"line/1\.json"):
            storage.create("line/1.json", b"second")
        assert storage.read("line/1.json") == b"first"

    def test_of_many_creators_at_once_one_succeeds(self, storage: Storage) -> None:
        outcomes: list[bytes] = []
        start = threading.Barrier(6)

        def create(content: bytes) -> None:
            start.wait()
            try:
                storage.create("line/2.json", content)
            except ObjectExistsError:
                return
            outcomes.append(content)

        threads = [threading.Thread(target=create, args=(b"%d" % index,)) for index in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 1
        assert storage.read("line/2.json") == outcomes[0]

    def test_a_file_is_uploaded_and_copied_back(self, storage: Storage, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x" * 100_000)
        storage.upload(tmp_path / "file", "packages/p.zip")
        assert storage.local_copy("packages/p.zip").read_bytes() == b"x" * 100_000

    def test_a_local_copy_follows_the_object(self, storage: Storage) -> None:
        storage.write("cache/x", b"old")
        assert storage.local_copy("cache/x").read_bytes() == b"old"
        storage.write("cache/x", b"new")
        assert storage.local_copy("cache/x").read_bytes() == b"new"

    def test_list_gives_sorted_keys_with_the_prefix_only(self, storage: Storage) -> None:
        for key in ("a/2", "a/10", "ab/1", "b/1", "a/sub/3"):
            storage.write(key, b"x" * len(key))
        assert storage.list("a/") == ["a/10", "a/2", "a/sub/3"]
        assert storage.list("a") == ["a/10", "a/2", "a/sub/3", "ab/1"]
        assert storage.sizes("b/") == {"b/1": 3}
        assert storage.list("nothing/") == []

    @pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "a\\b", "a/./b", "a\0b"])
    def test_keys_never_leave_the_root(self, storage: Storage, key: str) -> None:
        for use in (storage.exists, storage.read, storage.local_copy, lambda key: storage.write(key, b"")):
            with pytest.raises(StorageError, match="relative path"):
                use(key)


def test_list_goes_on_after_a_page_of_s3(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")  # of the server, which runs in this process
    storage = S3Storage(f"s3://{s3}/pages")
    for index in range(25):
        storage.write(f"many/{index:02d}", b"")
    first_page = boto3.client("s3").list_objects_v2(Bucket=s3, Prefix="pages/many/")
    assert first_page["KeyCount"] == 10
    assert storage.list("many/") == [f"many/{index:02d}" for index in range(25)]


def test_open_storage_knows_both_backends(s3: str, tmp_path: Path) -> None:
    assert isinstance(open_storage(str(tmp_path / "new" / "folder")), LocalStorage)
    opened = open_storage(f"s3://{s3}/some/prefix/")
    assert opened.root == f"s3://{s3}/some/prefix"
    assert open_storage(f"s3://{s3}").root == f"s3://{s3}"


@pytest.mark.parametrize("root", ["gs://bucket/x", "s3://", "s3://Not_A_Bucket/x", "s3://bucket/../x"])
def test_an_unknown_root_is_refused(root: str) -> None:
    with pytest.raises(StorageError, match="want"):
        open_storage(root)


def test_a_missing_bucket_is_named(s3: str) -> None:
    storage = S3Storage("s3://no-such-bucket/x")
    for use in (storage.exists, storage.read, storage.list, lambda key: storage.create(key, b"")):
        with pytest.raises(StorageError, match=r"bucket 'no-such-bucket' does not exist.*\[line\] storage"):
            use("key")


def test_upload_to_a_missing_bucket_is_named(s3: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError, match="bucket 'no-such-bucket' does not exist"):
        S3Storage("s3://no-such-bucket/x").upload(tmp_path / "file", "key")


def test_missing_credentials_are_explained(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with pytest.raises(StorageError, match="no AWS credentials"):
        S3Storage(f"s3://{s3}/x").read("key")


def test_denied_access_is_explained(s3_server: str, s3: str) -> None:
    def let_in(actions: bytes) -> None:
        """How many requests the server answers before it asks who may."""
        headers = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{s3_server}/moto-api/reset-auth", data=actions, headers=headers)
        urllib.request.urlopen(request).close()

    let_in(b"0")
    try:
        with pytest.raises(StorageError, match=r"access denied .*s3:GetObject"):
            S3Storage(f"s3://{s3}/x").read("key")
    finally:
        let_in(b"inf")


@pytest.mark.parametrize("use", ["exists", "read", "list", "create", "upload"])
def test_expired_credentials_are_told_apart(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with serve_faulty_s3() as (server, address):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        storage = S3Storage(f"s3://{s3}/x")
        # the answer to HEAD has no body, so that its code is the bare status
        server.answer = lambda method, key: ("400 Bad Request", b"") if method == "HEAD" else EXPIRED
        calls = {
            "create": lambda: storage.create("key", b""),
            "upload": lambda: storage.upload(tmp_path / "file", "key"),
        }
        with pytest.raises(StorageError, match=r"the AWS credentials have expired \(ExpiredToken\); sign in again"):
            calls.get(use, lambda: getattr(storage, use)("key"))()


def test_what_is_written_is_encrypted_with_the_key_given(s3: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    storage = open_storage(f"s3://{s3}/{tmp_path.name}", "alias/line")
    storage.write("written", b"")
    storage.create("created", b"")
    storage.upload(tmp_path / "file", "uploaded")
    for name in ("written", "created", "uploaded"):
        head = boto3.client("s3").head_object(Bucket=s3, Key=f"{tmp_path.name}/{name}")
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/line")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AccessDenied", r"kms:GenerateDataKey and kms:Decrypt for the key alias/line"),
        ("KMS.NotFoundException", "kms_key"),
    ],
)
def test_a_key_that_cannot_be_used_is_named(s3: str, monkeypatch: pytest.MonkeyPatch, code: str, message: str) -> None:
    with serve_faulty_s3() as (server, address):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        server.answer = lambda method, key: error("400 Bad Request", code)
        with pytest.raises(StorageError, match=message):
            S3Storage(f"s3://{s3}/x", kms_key="alias/line").write("key", b"")


def test_an_endpoint_that_does_not_answer_is_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9"):
        S3Storage(f"s3://{s3}/x").read("key")


def test_a_full_disk_says_how_much_was_wanted_and_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "small"
    with small_disk(root, 256 * 1024):
        storage = LocalStorage(root)
        storage.write("cache/kept", b"k" * 1000)
        full = r"cache/big: cannot write 1,000,000 bytes to storage .*small: (No space|File too large)"
        with pytest.raises(StorageError, match=full):
            storage.write("cache/big", b"b" * 1_000_000)
        with pytest.raises(StorageError, match=full):
            storage.create("cache/big", b"b" * 1_000_000)
        assert storage.list("") == ["cache/kept"]
        assert storage.read("cache/kept") == b"k" * 1000
        assert [path for path in root.rglob("*") if path.is_file()] == [root / "cache" / "kept"]


def test_a_writer_that_is_killed_leaves_no_object(tmp_path: Path) -> None:
    """Kill a real process while it writes: the object is not there, and the rest is swept a day later."""
    code = (
        "import sys; from inspection.storage import LocalStorage\n"
        "storage = LocalStorage(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "while True: storage.write('cache/one', b'x' * 30_000_000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    staging = tmp_path / ".staging"
    while not list(staging.iterdir()):
        time.sleep(0.001)
    process.kill()
    process.wait()
    process.stdout.close()
    storage = LocalStorage(tmp_path)
    assert storage.list("") in ([], ["cache/one"])
    if storage.exists("cache/one"):
        assert len(storage.read("cache/one")) == 30_000_000
    for left in staging.iterdir():
        os.utime(left, (time.time() - 90_000,) * 2)
    LocalStorage(tmp_path)
    assert list(staging.iterdir()) == []


def test_a_folder_without_permission_is_explained(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    mounted = mount(closed, "ro")  # root may write anywhere else
    try:
        with pytest.raises(StorageError, match=r"(Permission denied|Read-only).*\[line\] storage"):
            LocalStorage(closed / "root")
    finally:
        if mounted:
            unmount(closed)


def test_a_root_that_is_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match=r"file.*cannot make the folder: .*; a file is in .*\[line\] storage"):
            LocalStorage(root)
