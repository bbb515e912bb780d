"""Storage in an S3 prefix, by boto3.

Credentials, region and endpoint (`AWS_ENDPOINT_URL`) come from boto3's own environment and files.
"""

import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypedDict

import boto3
from boto3.exceptions import Boto3Error, S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
)

from inspection.errors import StorageError
from inspection.storage import Data, ObjectExistsError, check_key

_MISSING = {"404", "NoSuchKey"}
_DENIED = {"403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_TAKEN = {"412", "PreconditionFailed"}
_BUSY = {"409", "ConditionalRequestConflict"}  # another conditional write of the same key is under way


class _Encryption(TypedDict, total=False):
    ServerSideEncryption: Literal["aws:kms"]
    SSEKMSKeyId: str


class S3Storage:
    """Objects below `s3://bucket/prefix`.

    Args:
        root: `s3://bucket` or `s3://bucket/prefix`.
        copies: local folder for `local_copy`; default `~/.cache/lineside`. Copies are named by the object's content
            tag, so that a replaced object is fetched again.
        kms_key: key (id, alias or ARN) that encrypts what is written (SSE-KMS); "" = the bucket's default.
    """

    def __init__(self, root: str, copies: Path | None = None, kms_key: str = "") -> None:
        match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*?))?/*", root)
        if match is None:
            raise StorageError(f"storage {root!r}: want s3://bucket or s3://bucket/prefix")
        self._bucket, self._prefix = match[1], f"{check_key(match[2])}/" if match[2] else ""
        self.root = f"s3://{self._bucket}/{self._prefix}".rstrip("/")
        self._encryption: _Encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
        place = hashlib.sha256(self.root.encode()).hexdigest()[:16]
        self._copies = (copies or Path.home() / ".cache" / "lineside") / place
        with self._explained("opening it"):
            self._client = boto3.client(
                "s3", config=Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10)
            )

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        return self._tag(key) is not None

    def read(self, key: str) -> bytes:
        """The object's content."""
        with self._explained(f"reading {key}"):
            return self._client.get_object(Bucket=self._bucket, Key=self._key(key))["Body"].read()

    def write(self, key: str, data: Data) -> None:
        """Write the object, replacing what was there in one step."""
        with self._explained(f"writing {len(data):,} bytes to {key}"):
            self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=bytes(data), **self._encryption)

    def create(self, key: str, data: Data) -> None:
        """Write the object if it is not there; of several writers at once exactly one succeeds."""
        with self._explained(f"creating {key}"):
            while True:
                try:
                    self._client.put_object(
                        Bucket=self._bucket, Key=self._key(key), Body=bytes(data), IfNoneMatch="*", **self._encryption
                    )
                    return
                except ClientError as error:
                    code = _code(error)
                    if code in _TAKEN:
                        raise ObjectExistsError(
                            f"{key}: is in storage {self.root} already and may not be replaced"
                        ) from None
                    if code not in _BUSY or self.exists(key):  # the other writer may fail: only then try again
                        raise

    def upload(self, path: Path, key: str) -> None:
        """Write a local file's content as the object, in parts if it is large."""
        with self._explained(f"uploading {path} to {key}"):
            self._client.upload_file(str(path), self._bucket, self._key(key), ExtraArgs=dict(self._encryption))

    def local_copy(self, key: str) -> Path:
        """A local file with the object's content; fetched once."""
        tag = self._tag(key)
        if tag is None:
            raise StorageError(f"{key}: is not in storage {self.root}")
        path = self._copies / tag / key.rpartition("/")[2]
        if path.is_file():
            return path
        staged = path.parent / f".{uuid.uuid4().hex}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._explained(f"fetching {key} into {path.parent}"):
                self._client.download_file(self._bucket, self._key(key), str(staged))
            with staged.open("rb") as copy:
                os.fsync(copy.fileno())  # a copy that is there is trusted, also after a power cut
            staged.replace(path)
        except OSError as error:
            raise StorageError(
                f"{key}: cannot copy it from {self.root} to {path}: {error.strerror or error}; free some space there"
            ) from error
        finally:
            staged.unlink(missing_ok=True)
        return path

    def list(self, prefix: str) -> list[str]:
        """Keys that begin with `prefix`, sorted."""
        return list(self.sizes(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Keys that begin with `prefix`, sorted, with the size of each object in bytes."""
        found = {}
        with self._explained(f"listing {prefix}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                for entry in page.get("Contents", []):
                    found[entry["Key"][len(self._prefix) :]] = entry["Size"]
        return dict(sorted(found.items()))

    def free_bytes(self) -> int | None:
        """None: S3 has no end."""
        return None

    def _key(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _tag(self, key: str) -> str | None:
        """The object's content tag as a file name; None if there is no such object."""
        with self._explained(f"looking for {key}"):
            try:
                head = self._client.head_object(Bucket=self._bucket, Key=self._key(key))
            except ClientError as error:
                if _code(error) == "400":  # expired credentials: HEAD has no body to say so, GET has
                    self._client.get_object(Bucket=self._bucket, Key=self._key(key))
                if _code(error) != "404":
                    raise
                # HEAD has no body to tell a missing key from a missing bucket
                self._client.head_bucket(Bucket=self._bucket)
                return None
        return re.sub(r"[^A-Za-z0-9-]", "", head["ETag"])

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        """Turn boto3's errors into StorageErrors that say what to do."""
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise self._error(doing, "no AWS credentials; run `aws configure` or set AWS_PROFILE") from error
        except EndpointConnectionError as error:
            raise self._error(doing, f"{error}; check the network, AWS_REGION and AWS_ENDPOINT_URL") from error
        except ClientError as error:
            raise self._error(doing, self._advice(error)) from error
        except S3UploadFailedError as error:
            cause = error.__context__
            raise self._error(doing, self._advice(cause) if isinstance(cause, ClientError) else str(error)) from error
        except (BotoCoreError, Boto3Error) as error:
            raise self._error(doing, str(error)) from error

    def _error(self, doing: str, why: str) -> StorageError:
        return StorageError(f"storage {self.root}: {doing}: {why}")

    def _advice(self, error: ClientError) -> str:
        code = _code(error)
        if code == "NoSuchBucket" or (code == "404" and error.operation_name == "HeadBucket"):
            return f"the bucket {self._bucket!r} does not exist; create it or correct [line] storage"
        if code in _MISSING:
            return "there is no such object"
        if code in _EXPIRED:
            return f"the AWS credentials have expired ({code}); sign in again, for instance with `aws sso login`"
        if code in _DENIED:
            advice = f"access denied ({code}); these credentials need s3:GetObject, s3:PutObject and s3:ListBucket here"
            key = self._encryption.get("SSEKMSKeyId")
            return f"{advice}, and kms:GenerateDataKey and kms:Decrypt for the key {key}" if key else advice
        if code.startswith("KMS."):
            return f"{code}: {error.response['Error'].get('Message', '')}; check [registry] kms_key"
        return f"{code}: {error.response['Error'].get('Message', '')}"


def _code(error: ClientError) -> str:
    return error.response["Error"].get("Code", "")
