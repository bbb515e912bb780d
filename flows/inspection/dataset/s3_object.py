"""One object of S3, fetched and verified.

Its content is the listed one when its size is and its MD5 is the content tag. Where the tag is no MD5 (parts of an odd
size, KMS), the object must still have the listed tag afterwards, and boto3 has checked the checksum that S3 keeps.
"""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inspection.dataset.s3_errors import BROKEN_OFF, code_of, explained, is_missing
from inspection.errors import DataError, StorageError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ATTEMPTS = 3  # of one object that arrives damaged
_PART_SIZES_MB = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512)  # that upload programs use


@dataclass(frozen=True, slots=True)
class Remote:
    """An object as it was listed, and where its content goes."""

    address: str
    size: int  # bytes
    tag: str  # S3's ETag without quotation marks
    place: Path


def fetch_one(remote: Remote, client: "S3Client") -> bytes:
    """The content of one object, if it is still the one that was listed.

    Raises:
        DataError: it changed or is gone.
        StorageError: S3 refuses, or it arrives damaged again and again.
    """
    bucket, _, key = remote.address.removeprefix("s3://").partition("/")
    arrived = ""
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt)  # s
        with explained(remote.address, "fetching it"):
            try:
                # AWS answers 412 when the object changed; what does not know this condition is checked below
                data = client.get_object(Bucket=bucket, Key=key, IfMatch=f'"{remote.tag}"')["Body"].read()
            except client.exceptions.ClientError as error:
                if is_missing(error) or code_of(error) in ("412", "PreconditionFailed"):
                    raise changed(remote) from error
                raise
            except BROKEN_OFF as error:
                arrived = str(error)
                continue
        if len(data) == remote.size and matches(data, remote):
            return data
        if _is_unchanged(remote, client) and len(data) == remote.size:
            return data
        arrived = f"{len(data):,} bytes with another content"
    raise StorageError(
        f"{remote.address}: arrived damaged {_ATTEMPTS} times: want {remote.size:,} bytes with content tag "
        f"{remote.tag}, found {arrived}; check the network and run again: what was fetched so far stays"
    )


def matches(data: bytes, remote: Remote) -> bool:
    """Whether the content tag is the MD5 of the content, or of the MD5s of parts of a usual size."""
    digest, _, parts = remote.tag.partition("-")
    if not parts:
        return hashlib.md5(data, usedforsecurity=False).hexdigest() == digest
    for part_size in (size << 20 for size in _PART_SIZES_MB):
        if -(-len(data) // part_size) == int(parts):
            pieces = (data[start : start + part_size] for start in range(0, len(data), part_size))
            whole = b"".join(hashlib.md5(piece, usedforsecurity=False).digest() for piece in pieces)
            if hashlib.md5(whole, usedforsecurity=False).hexdigest() == digest:
                return True
    return False


def _is_unchanged(remote: Remote, client: "S3Client") -> bool:
    """Whether content that is not proven by its tag may be trusted; boto3 has checked the checksum that S3 keeps.

    Raises:
        DataError: the object is another one now.
    """
    bucket, _, key = remote.address.removeprefix("s3://").partition("/")
    with explained(remote.address, "looking whether it changed"):
        try:
            head = client.head_object(Bucket=bucket, Key=key)
        except client.exceptions.ClientError as error:
            if is_missing(error):
                raise changed(remote) from error
            raise
    if head["ETag"].strip('"') != remote.tag:
        raise changed(remote)
    encrypted = head.get("ServerSideEncryption", "").startswith("aws:kms") or "SSECustomerAlgorithm" in head
    return encrypted or "-" in remote.tag  # else the tag is an MD5, which the content does not have


def changed(remote: Remote) -> DataError:
    """The error that names an object which is not the listed one any more."""
    return DataError(
        f"{remote.address}: changed or was deleted since it was listed (content tag {remote.tag}, "
        f"{remote.size:,} bytes then); run again when nobody writes there"
    )
