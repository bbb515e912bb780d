"""Images that lie in S3: listed by the page, fetched many at once, verified, kept until they change."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from faulty_s3 import FaultyS3, error, serve_faulty_s3
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from pictures import write_picture, write_set

from inspection.dataset import s3_fetch
from inspection.dataset.images import MISSING
from inspection.dataset.intake import prepare_dataset
from inspection.dataset.options import SourceOptions
from inspection.dataset.sources import Source, open_source
from inspection.errors import DataError, StorageError
from inspection.settings import parse_settings
from inspection.storage import LocalStorage

pytest_plugins = ["s3_server"]


@pytest.fixture
def server(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """The same buckets behind a server that a test may make faulty."""
    with serve_faulty_s3() as (application, address):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield application


@pytest.fixture(params=["threads", pytest.param("metaflow", marks=pytest.mark.slow)])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Few objects are fetched by threads, many by Metaflow's client; tests have few."""
    if request.param == "metaflow":
        monkeypatch.setattr(s3_fetch, "DIRECT_OBJECTS", 0)
        monkeypatch.setenv("METAFLOW_S3_WORKER_COUNT", "2")
    return request.param


@pytest.fixture
def prefix(s3: str) -> str:
    """An address that no other test uses."""
    return f"s3://{s3}/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def upload(folder: Path, prefix: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            put(prefix, str(path.relative_to(folder)), path.read_bytes())


def put(prefix: str, name: str, data: bytes) -> None:
    """Straight into the server's memory, since a request takes a while."""
    bucket, _, start = prefix.removeprefix("s3://").partition("/")
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, f"{start}/{name}", data)


def open_in(store: Path, location: str, **options: object) -> Source:
    return open_source(location, SourceOptions(store=str(store), **options))  # type: ignore[arg-type]


def fetch_all(source: Source) -> list[str]:
    uris = [image.uri for image in source.images()]
    source.fetch(uris, progress=False)
    return uris


def stored(store: Path) -> list[Path]:
    return [path for path in store.rglob("*") if path.is_file() and ".staging" not in path.parts]


def test_a_folder_in_s3_is_the_same_as_here(
    way: str, server: FaultyS3, prefix: str, tmp_path: Path, store: Path
) -> None:
    here = write_set(tmp_path / "set", {"train/good": 2, "train/bad/dent": 2, "masks/dent": 1})
    upload(here, prefix)
    source = open_in(store, prefix)
    there = {image.uri: image for image in source.images()}
    local = {image.uri: image for image in open_source(str(here)).images()}
    assert list(there) == list(local)
    for uri, image in there.items():
        assert (image.label, image.defect_type, image.mask) == (
            local[uri].label,
            local[uri].defect_type,
            local[uri].mask,
        )
    assert server.fetched == [], "listing reads nothing"
    source.fetch([*there, "masks/dent/000.png"], progress=False)
    asked = len(server.fetched)
    assert all(source.read(uri) == (here / uri).read_bytes() for uri in [*there, "masks/dent/000.png"])
    assert len(server.fetched) == asked, "what was fetched is read from here"


def test_only_what_changed_is_fetched_again(server: FaultyS3, prefix: str, tmp_path: Path, store: Path) -> None:
    upload(write_set(tmp_path / "set", {"good": 3, "dent": 3}), prefix)
    versions = {image.uri: image.version for image in open_in(store, prefix).images()}
    fetch_all(open_in(store, prefix))
    server.fetched.clear()
    data = write_picture(tmp_path / "new.png", 99).read_bytes()
    put(prefix, "dent/001.png", data)
    source = open_in(store, prefix)
    changed = [image.uri for image in source.images() if versions[image.uri] != image.version]
    assert changed == ["dent/001.png"]
    fetch_all(source)
    assert [key.rpartition("/")[2] for key in server.fetched] == ["001.png"]
    assert source.read("dent/001.png") == data


def test_listing_takes_every_page(server: FaultyS3, prefix: str, store: Path) -> None:
    for index in range(1005):
        put(prefix, f"{'good' if index % 2 else 'dent'}/{index}.png", b"x")
    assert len(open_in(store, prefix).images()) == 1005


def test_names_that_no_url_carries_are_fetched(
    way: str, server: FaultyS3, prefix: str, tmp_path: Path, store: Path
) -> None:
    names = ["a b.png", "größe.png", "what?.png", "semi;colon.png", "hash#1.png", "100%.png", "+.png"]
    for index, name in enumerate(names):
        put(prefix, f"good/{name}", write_picture(tmp_path / "p.png", index).read_bytes())
    put(prefix, "dent/0.png", b"x")
    source = open_in(store, prefix)
    assert sorted(fetch_all(source)) == sorted(["dent/0.png", *(f"good/{name}" for name in names)])
    for index, name in enumerate(names):
        assert source.read(f"good/{name}") == write_picture(tmp_path / "p.png", index).read_bytes(), name


def test_a_manifest_in_s3_names_images_in_s3(server: FaultyS3, prefix: str, tmp_path: Path, store: Path) -> None:
    upload(write_set(tmp_path, {"images": 3}), prefix)
    rows = [
        {
            "source-ref": f"{prefix}/images/{index:03d}.png",
            "label": index % 2,
            "label-metadata": {"type": "groundtruth/image-classification"},
        }
        for index in range(4)
    ]
    put(prefix, "lists/train.manifest", "\n".join(json.dumps(row) for row in rows).encode())
    source = open_in(store, f"{prefix}/lists/train.manifest")
    images = source.images()
    assert [image.version == MISSING for image in images] == [False, False, False, True]
    source.fetch([image.uri for image in images if image.version != MISSING], progress=False)
    assert source.read(rows[0]["source-ref"]) == (tmp_path / "images" / "000.png").read_bytes()
    with pytest.raises(FileNotFoundError):
        source.read(rows[3]["source-ref"])


def test_a_list_in_s3_names_images_beside_it(server: FaultyS3, prefix: str, tmp_path: Path, store: Path) -> None:
    upload(write_set(tmp_path, {"images": 40}), prefix)
    lines = [f"images/{index:03d}.png,{'good' if index % 2 else 'bad'}" for index in range(40)]
    put(prefix, "lists/all.csv", "\n".join(["path,label", *lines]).encode())
    source = open_in(store, f"{prefix}/lists/all.csv")
    assert all(image.version != MISSING for image in source.images())
    fetch_all(source)
    assert source.read("images/039.png") == (tmp_path / "images" / "039.png").read_bytes()


def test_a_prefix_may_stand_for_another_bucket(server: FaultyS3, prefix: str, tmp_path: Path, store: Path) -> None:
    upload(write_set(tmp_path, {"images": 1}), prefix)
    (tmp_path / "list.csv").write_text("path,label\ns3://old/x/000.png,good\n")
    source = open_in(store, str(tmp_path / "list.csv"), maps=(("s3://old/x", f"{prefix}/images"),))
    assert fetch_all(source) == ["s3://old/x/000.png"]
    assert source.read("s3://old/x/000.png") == (tmp_path / "images" / "000.png").read_bytes()


def test_a_later_step_reads_without_listing(server: FaultyS3, prefix: str, tmp_path: Path, store: Path) -> None:
    upload(write_set(tmp_path, {"good": 1, "dent": 1}), prefix)
    assert open_in(store, prefix).read("good/000.png") == (tmp_path / "good" / "000.png").read_bytes()
    source = open_in(store, prefix)
    fetch_all(source)
    again = pickle.loads(pickle.dumps(source))
    asked = len(server.fetched)
    assert again.read("dent/000.png") == (tmp_path / "dent" / "000.png").read_bytes()
    assert len(server.fetched) == asked
    with pytest.raises(FileNotFoundError, match="no such object in S3"):
        again.read("dent/lost.png")


# --- what goes wrong


def test_a_missing_bucket_is_named(server: FaultyS3, store: Path) -> None:
    with pytest.raises(StorageError, match=r"the bucket 'nowhere-at-all' does not exist; correct \[data\] source"):
        open_in(store, "s3://nowhere-at-all/images").images()
    with pytest.raises((StorageError, DataError), match=r"nowhere-at-all.*does not exist|cannot read the list"):
        open_in(store, "s3://nowhere-at-all/list.csv").images()


def test_an_empty_prefix_says_what_was_wanted(server: FaultyS3, prefix: str, store: Path) -> None:
    with pytest.raises(DataError, match=r"no images here; want .*found nothing"):
        open_in(store, prefix).images()


def test_denied_listing_says_which_rights_are_needed(server: FaultyS3, prefix: str, store: Path) -> None:
    server.answer = lambda method, key: error("403 Forbidden", "AccessDenied")
    with pytest.raises(StorageError, match=r"access denied \(AccessDenied\); these credentials need s3:GetObject and"):
        open_in(store, prefix).images()


def test_denied_reading_says_which_rights_are_needed(
    way: str, server: FaultyS3, prefix: str, tmp_path: Path, store: Path
) -> None:
    upload(write_set(tmp_path, {"good": 2, "dent": 2}), prefix)
    source = open_in(store, prefix)
    uris = [image.uri for image in source.images()]
    server.answer = lambda method, key: error("403 Forbidden", "AccessDenied") if key and method == "GET" else None
    with pytest.raises(StorageError, match=r"fetching.*: access denied .*need s3:GetObject"):
        source.fetch(uris, progress=False)
    assert stored(store) == []


def test_throttled_objects_are_asked_for_again(
    way: str, server: FaultyS3, prefix: str, tmp_path: Path, store: Path
) -> None:
    here = write_set(tmp_path, {"good": 2, "dent": 2})
    upload(here, prefix)
    left = {f"{prefix.rpartition('/')[2]}/good/{index:03d}.png": 2 for index in range(2)}

    def slow_down(method: str, key: str) -> tuple[str, bytes] | None:
        if method == "GET" and left.get(key, 0) > 0:
            left[key] -= 1
            return error("503 Slow Down", "SlowDown")
        return None

    server.answer = slow_down
    source = open_in(store, prefix)
    for uri in fetch_all(source):
        assert source.read(uri) == (here / uri).read_bytes()
    assert set(left.values()) == {0}


@pytest.mark.parametrize("data", [b"another picture", b""])
def test_an_object_that_changes_during_the_run_is_named(
    way: str, server: FaultyS3, prefix: str, tmp_path: Path, store: Path, data: bytes
) -> None:
    upload(write_set(tmp_path, {"good": 2, "dent": 2}), prefix)
    source = open_in(store, prefix)
    uris = [image.uri for image in source.images()]
    put(prefix, "dent/001.png", data)
    with pytest.raises(DataError, match=r"dent/001\.png: changed or was deleted since it was listed .*run again"):
        source.fetch(uris, progress=False)
    with pytest.raises(DataError, match=r"dent/001\.png: changed or was deleted"):
        source.read("dent/001.png")


def test_an_object_that_is_deleted_during_the_run_is_named(
    way: str, server: FaultyS3, prefix: str, tmp_path: Path, store: Path
) -> None:
    upload(write_set(tmp_path, {"good": 2, "dent": 2}), prefix)
    source = open_in(store, prefix)
    uris = [image.uri for image in source.images()]
    bucket, _, start = prefix.removeprefix("s3://").partition("/")
    boto3.client("s3").delete_object(Bucket=bucket, Key=f"{start}/good/000.png")
    with pytest.raises(DataError, match=r"good/000\.png: changed or was deleted since it was listed"):
        source.fetch(uris, progress=False)


def test_what_arrives_damaged_is_fetched_again(
    way: str, server: FaultyS3, prefix: str, tmp_path: Path, store: Path
) -> None:
    here = write_set(tmp_path, {"good": 2, "dent": 2})
    upload(here, prefix)
    hit: list[str] = []

    def damage(key: str, body: bytes) -> bytes:
        if key.endswith("good/001.png") and len(hit) < 1:
            hit.append(key)
            return body[:-1] + b"x"
        return body

    server.change = damage
    source = open_in(store, prefix)
    fetch_all(source)
    assert hit
    assert source.read("good/001.png") == (here / "good" / "001.png").read_bytes()


def test_what_breaks_off_is_fetched_again(way: str, server: FaultyS3, prefix: str, tmp_path: Path, store: Path) -> None:
    here = write_set(tmp_path, {"good": 2, "dent": 2})
    upload(here, prefix)
    hit: list[str] = []

    def break_off(key: str, body: bytes) -> bytes:
        hit.append(key)
        return body[: len(body) // 2] if len(hit) == 1 else body

    server.change = break_off
    source = open_in(store, prefix)
    assert all(source.read(uri) == (here / uri).read_bytes() for uri in fetch_all(source))
    assert len(hit) == 5


def test_what_always_arrives_damaged_is_named(server: FaultyS3, prefix: str, tmp_path: Path, store: Path) -> None:
    upload(write_set(tmp_path, {"good": 2, "dent": 2}), prefix)
    server.change = lambda key, body: body[:-1] + b"x" if key.endswith("good/001.png") else body
    with pytest.raises(StorageError, match=r"good/001\.png: arrived damaged 3 times: want .* run again"):
        fetch_all(open_in(store, prefix))
    assert not any(path.read_bytes().endswith(b"x") for path in stored(store))


def test_an_object_of_several_parts_is_verified(server: FaultyS3, prefix: str, store: Path) -> None:
    bucket, _, start = prefix.removeprefix("s3://").partition("/")
    data = os.urandom(6 << 20)
    client = boto3.client("s3")
    for label in ("good", "dent"):
        key = f"{start}/{label}/large.png"
        upload_id = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        parts = [
            {
                "PartNumber": number,
                "ETag": client.upload_part(Bucket=bucket, Key=key, PartNumber=number, UploadId=upload_id, Body=piece)[
                    "ETag"
                ],
            }
            for number, piece in ((1, data[: 5 << 20]), (2, data[5 << 20 :]))
        ]
        client.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts})
    source = open_in(store, prefix)
    fetch_all(source)
    assert len(server.fetched) == 2, "proven by the tag of its parts, not fetched twice"
    assert source.read("good/large.png") == data


def test_a_stored_file_that_lost_its_end_is_fetched_again(
    server: FaultyS3, prefix: str, tmp_path: Path, store: Path
) -> None:
    here = write_set(tmp_path, {"good": 1, "dent": 1})
    upload(here, prefix)
    source = open_in(store, prefix)
    fetch_all(source)
    for path in stored(store):
        path.write_bytes(path.read_bytes()[:-10])
    assert all(source.read(uri) == (here / uri).read_bytes() for uri in fetch_all(open_in(store, prefix)))


FETCH = """
import sys
from inspection.dataset import s3_fetch
from inspection.dataset.options import SourceOptions
from inspection.dataset.sources import open_source
s3_fetch.CHUNK_OBJECTS = 4
s3_fetch.DIRECT_OBJECTS = int(sys.argv[3])
source = open_source(sys.argv[1], SourceOptions(store=sys.argv[2]))
source.fetch([image.uri for image in source.images()], progress=False)
"""


@pytest.mark.slow
def test_a_killed_fetch_goes_on_where_it_was(server: FaultyS3, prefix: str, tmp_path: Path, store: Path) -> None:
    here = write_set(tmp_path, {"good": 10, "dent": 10})
    upload(here, prefix)

    def stop_late(key: str, body: bytes) -> bytes:
        if len(server.fetched) > 10:
            time.sleep(60)
        return body

    server.change = stop_late
    process = subprocess.Popen([sys.executable, "-c", FETCH, prefix, str(store), "0"], start_new_session=True)
    deadline = time.monotonic() + 120
    while not stored(store) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = stored(store)
    assert kept, "finished chunks stay"
    assert all(path.stat().st_size == int(path.name.rpartition("-")[2]) for path in kept), "no half file has a name"
    server.change = lambda key, body: body
    server.fetched.clear()
    source = open_in(store, prefix)
    uris = fetch_all(source)
    assert len(server.fetched) == 20 - len(kept)
    assert all(source.read(uri) == (here / uri).read_bytes() for uri in uris)


def test_what_a_killed_run_had_fetched_is_taken(server: FaultyS3, prefix: str, tmp_path: Path, store: Path) -> None:
    here = write_set(tmp_path, {"good": 2, "dent": 2})
    upload(here, prefix)
    left = store / ".staging" / "metaflow.s3.killed"
    left.mkdir(parents=True)
    (left / "whole").write_bytes((here / "good" / "000.png").read_bytes())
    (left / "half").write_bytes((here / "good" / "001.png").read_bytes()[:-1])
    source = open_in(store, prefix)
    assert all(source.read(uri) == (here / uri).read_bytes() for uri in fetch_all(source))
    assert sorted(key.rpartition(prefix.rpartition("/")[2])[2] for key in server.fetched) == [
        "/dent/000.png",
        "/dent/001.png",
        "/good/001.png",
    ]


def test_two_runs_at_once_share_one_store(server: FaultyS3, prefix: str, tmp_path: Path, store: Path) -> None:
    here = write_set(tmp_path, {"good": 6, "dent": 6})
    upload(here, prefix)
    runs = [subprocess.Popen([sys.executable, "-c", FETCH, prefix, str(store), "100"]) for _ in range(2)]
    assert [run.wait(timeout=300) for run in runs] == [0, 0]
    source = open_in(store, prefix)
    server.fetched.clear()
    assert all(source.read(uri) == (here / uri).read_bytes() for uri in fetch_all(source))
    assert server.fetched == []
    assert list((store / ".staging").iterdir()) == []


def test_a_store_that_cannot_be_written_is_named(server: FaultyS3, prefix: str, tmp_path: Path) -> None:
    upload(write_set(tmp_path / "set", {"good": 1, "dent": 1}), prefix)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"file/.*cannot (store|look)"):
        fetch_all(open_in(tmp_path / "file" / "store", prefix))


def test_a_set_in_s3_makes_the_snapshot_that_its_folder_makes(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where fetched images are kept
    folder = write_set(tmp_path / "images", {"good": 16, "dent": 8, "scratch": 8})
    upload(folder, prefix)
    settings = parse_settings({"line": {"name": "bottles"}, "input": {"width": 32, "height": 32}}, "test")
    here = prepare_dataset(settings, str(folder), LocalStorage(tmp_path / "here"), progress=False)
    there = prepare_dataset(settings, prefix, LocalStorage(tmp_path / "there"), progress=False)
    assert there.id == here.id
    assert there.location == prefix
    fetched = sorted(path.stat().st_mtime_ns for path in (tmp_path / "home").rglob("*") if path.is_file())
    assert fetched
    again = prepare_dataset(settings, prefix, LocalStorage(tmp_path / "there"), progress=False)
    assert again.id == here.id
    assert sorted(path.stat().st_mtime_ns for path in (tmp_path / "home").rglob("*") if path.is_file()) == fetched
