"""Objects of S3 on this machine: listed with their content tags, fetched once, kept until they change there.

    <store>/<bucket>/<2 digits>/<sha256 of the key>-<tag>-<size>     a fetched object; it is whole, or it is not there

Nothing in the store is ever changed; all of it may be deleted at any time and is fetched again.
"""

import hashlib
import posixpath
import re
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspection.dataset.files import File
from inspection.errors import DataError, StorageError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ADDRESS = re.compile(r"s3://([^/]+)(?:/(.*))?", re.DOTALL)
_FEW = 32  # objects that are asked for one by one; more are listed by the page
_MOST_PREFIXES = 500  # folders that are listed one by one; more are listed as one tree


class S3Mirror:
    """Reads objects by their `s3://bucket/key` address. It is sent to worker processes.

    Args:
        store: folder of what is fetched; default `~/.cache/lineside/fetched`.
    """

    def __init__(self, store: Path | None = None) -> None:
        self.store = store or Path.home() / ".cache" / "lineside" / "fetched"
        self._listed: dict[str, tuple[int, str]] = {}  # address -> size in bytes, "<tag>-<size>"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "client"}

    @cached_property
    def client(self) -> "S3Client":
        """Client with boto3's own credentials, region and endpoint; it retries when S3 throttles."""
        from inspection.dataset.s3_errors import explained, make_client

        with explained("s3", "opening it"):
            return make_client()

    def walk(self, address: str) -> list[File]:
        """Every object below a prefix but hidden and empty-named ones, sorted by name.

        Raises:
            StorageError: access denied, no such bucket, no network.
        """
        bucket, prefix = split_address(address)
        prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        files = []
        for key, size, tag in self._list(bucket, prefix, ""):
            uri = key[len(prefix) :]
            if uri and not uri.endswith("/") and not any(part.startswith(".") for part in uri.split("/")):
                files.append(File(uri, size, self._remember(bucket, key, size, tag)))
        return sorted(files, key=lambda file: file.uri)

    def find(self, addresses: Iterable[str]) -> dict[str, tuple[int, str]]:
        """Size and version of each object; those that are not there are left out.

        Raises:
            StorageError: access denied, no such bucket, no network.
        """
        wanted = set(addresses)
        unknown = [address for address in wanted if address not in self._listed]
        if len(unknown) <= _FEW:
            with ThreadPoolExecutor(16) as pool:
                for address, head in zip(unknown, pool.map(self.head, unknown), strict=True):
                    if head is not None:
                        self._remember(*split_address(address), *head)
        else:
            self._list_folders(unknown)
        return {address: self._listed[address] for address in wanted if address in self._listed}

    def fetch(self, addresses: Sequence[str], progress: bool = True) -> None:
        """Bring objects that were listed into the store, many at once; those that are there stay.

        Raises:
            DataError: one changed since it was listed.
            StorageError: S3 refuses, the disk is full, an object arrives damaged again and again.
        """
        from inspection.dataset.s3_fetch import fetch_objects
        from inspection.dataset.s3_object import Remote

        missing = []
        for address in dict.fromkeys(addresses):
            size, _ = self._listed[address]
            place = self._place(address)
            if not _has_size(place, size):
                missing.append(Remote(address, size, self._tag(address), place))
        if missing:
            fetch_objects(missing, self.store, self.client, progress)

    def read(self, address: str) -> bytes:
        """The content of one object, from the store, or fetched now.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: the disk refuses.
            DataError: it changed since it was listed.
        """
        if address not in self._listed and address not in self.find([address]):
            raise FileNotFoundError(2, "no such object in S3", address)
        place = self._place(address)
        if _has_size(place, self._listed[address][0]):
            return place.read_bytes()
        from inspection.dataset.s3_object import Remote, fetch_one

        data = fetch_one(Remote(address, self._listed[address][0], self._tag(address), place), self.client)
        staged = place.parent / f".{uuid.uuid4().hex}"
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            staged.write_bytes(data)
            staged.replace(place)
        finally:
            staged.unlink(missing_ok=True)
        return data

    def head(self, address: str) -> tuple[int, str] | None:
        """Size and content tag of an object as it is now; None if it is not there."""
        from inspection.dataset.s3_errors import explained, is_missing

        bucket, key = split_address(address)
        with explained(address, "looking for it"):
            try:
                head = self.client.head_object(Bucket=bucket, Key=key)
            except self.client.exceptions.ClientError as error:
                if not is_missing(error):
                    raise
                self.client.head_bucket(Bucket=bucket)  # HEAD has no body to tell a missing key from a missing bucket
                return None
        return head["ContentLength"], _clean(head["ETag"])

    def _list_folders(self, addresses: Sequence[str]) -> None:
        keys: dict[str, list[str]] = defaultdict(list)
        for address in addresses:
            bucket, key = split_address(address)
            keys[bucket].append(key)
        for bucket, wanted in keys.items():
            folders = sorted({key[: key.rfind("/") + 1] for key in wanted})
            delimiter = "/"
            if len(folders) > _MOST_PREFIXES:
                common = posixpath.commonprefix(folders)
                folders, delimiter = [common[: common.rfind("/") + 1]], ""
            found = set(wanted)
            for folder in folders:
                for key, size, tag in self._list(bucket, folder, delimiter):
                    if key in found:
                        self._remember(bucket, key, size, tag)

    def _list(self, bucket: str, prefix: str, delimiter: str) -> Iterable[tuple[str, int, str]]:
        from inspection.dataset.s3_errors import explained

        with explained(f"s3://{bucket}/{prefix}", "listing it"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix, Delimiter=delimiter
            )
            for page in pages:
                for entry in page.get("Contents", []):
                    yield entry["Key"], entry["Size"], _clean(entry["ETag"])

    def _remember(self, bucket: str, key: str, size: int, tag: str) -> str:
        version = f"{tag}-{size}"
        self._listed[f"s3://{bucket}/{key}"] = (size, version)
        return version

    def _tag(self, address: str) -> str:
        return self._listed[address][1].rpartition("-")[0]

    def _place(self, address: str) -> Path:
        bucket, key = split_address(address)
        name = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
        return self.store / bucket / name[:2] / f"{name}-{self._listed[address][1]}"


def split_address(address: str) -> tuple[str, str]:
    """Bucket and key of an `s3://bucket/key` address.

    Raises:
        DataError: it is none.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise DataError(f"{address!r}: want s3://bucket/prefix")
    return match[1], match[2] or ""


def _clean(tag: str) -> str:
    """A content tag without its quotation marks, fit for a file's name."""
    return re.sub(r"[^A-Za-z0-9-]", "", tag)


def _has_size(path: Path, size: int) -> bool:
    """Whether a whole file is there; one of another size was damaged after it was stored."""
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(f"{path}: cannot look into the store of fetched images ({error.strerror})") from error
