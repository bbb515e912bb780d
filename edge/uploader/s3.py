"""A store in an S3 prefix. The only module of the device that imports boto3, in the uploader's process.

The device's role needs `s3:PutObject` on the line's prefix and nothing else: S3 checks the sha256 before it answers,
and the answer carries it. A store that answers without it is asked again by `HeadObject` (`s3:GetObject`).
"""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)

from edge.errors import UploadError
from edge.uploader.bandwidth import ThrottledBody, TokenBucket
from edge.uploader.settings import S3_URL, UploadSettings

_CLOCK = {"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"}
_DENIED = {
    "403",
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "ExpiredToken",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
}
_ELSEWHERE = {"301", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}


class S3Store:
    """Objects below `s3://bucket/prefix`.

    Args:
        settings: bucket, prefix, profile and region.
        bucket: cap on bytes a second.

    Raises:
        UploadError: the settings name no bucket or a profile that does not exist.
    """

    def __init__(self, settings: UploadSettings, bucket: TokenBucket) -> None:
        match = S3_URL.fullmatch(settings.to)
        if match is None:
            raise UploadError("settings", f"upload.to: want s3://bucket/prefix, found {settings.to!r}")
        self._bucket_name, self._prefix = match[1], f"{match[2]}/" if match[2] else ""
        self._throttle = bucket
        with self._explained("opening"):
            session = boto3.Session(
                profile_name=settings.profile or None,
                # The nucleus names the region in AWS_REGION, which boto3 does not read.
                region_name=settings.region or os.environ.get("AWS_REGION") or None,
            )
            self._client = session.client(
                "s3",
                config=Config(
                    # Waiting is the supervisor's part: it holds no memory meanwhile.
                    retries={"mode": "standard", "total_max_attempts": 2},
                    connect_timeout=10,
                    read_timeout=60,
                    # Only what is asked for: some stores know no other checksums.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )

    def put(self, key: str, data: bytes, sha256: str) -> None:
        """One PutObject, checked by its sha256."""
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        name = self._prefix + key
        with self._explained(name):
            answer: Any = self._client.put_object(
                Bucket=self._bucket_name,
                Key=name,
                Body=ThrottledBody(data, self._throttle),
                ContentLength=len(data),
                ContentType=_content_type(key),
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
            )
            confirmed = answer.get("ChecksumSHA256")
            if confirmed is None:
                head: Any = self._client.head_object(Bucket=self._bucket_name, Key=name, ChecksumMode="ENABLED")
                confirmed = head.get("ChecksumSHA256")
        if confirmed != checksum:
            raise UploadError(
                "refused",
                f"s3://{self._bucket_name}/{name}: want the store to confirm sha256 {checksum}, found {confirmed}; "
                "use a store that knows SHA-256 checksums",
            )

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turn boto3's errors into UploadErrors that say what to do."""
        where = f"s3://{self._bucket_name}/{key}"
        try:
            yield
        except ProfileNotFound as error:
            raise UploadError("settings", f"{error}; correct upload.profile or the AWS configuration") from error
        except CredentialRetrievalError as error:
            raise UploadError(
                "offline", f"{where}: the token exchange service gives no credentials ({error}); is the device online?"
            ) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise UploadError(
                "settings", f"{where}: no AWS credentials; depend on the token exchange service, or set upload.profile"
            ) from error
        except SSLError as error:
            raise UploadError(
                "offline", f"{where}: no secure connection ({error}); check the device's clock and certificates"
            ) from error
        except ClientError as error:
            raise self._of_answer(where, error) from error
        except BotoCoreError as error:
            raise UploadError("offline", f"{where}: cannot reach S3: {error}") from error

    def _of_answer(self, where: str, error: ClientError) -> UploadError:
        response: Any = error.response
        code = str(response.get("Error", {}).get("Code", ""))
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _CLOCK:
            return UploadError("clock", f"{where}: {code}: the device's clock is wrong; set it by NTP")
        if code in _DENIED or code.startswith("KMS."):
            return UploadError(
                "denied", f"{where}: {code}: let the device's role do s3:PutObject there (and use its key)"
            )
        if code == "NoSuchBucket":
            return UploadError(
                "missing", f"{where}: there is no bucket {self._bucket_name}; make it or correct upload.to"
            )
        if code in _ELSEWHERE:
            return UploadError("settings", f"{where}: {code}: the bucket is in another region; correct upload.region")
        if status >= 500 or status == 429 or code in ("SlowDown", "RequestTimeout"):
            return UploadError("offline", f"{where}: S3 cannot take it now: {code}")
        return UploadError("refused", f"{where}: S3 refuses it: {error}")


def _content_type(key: str) -> str:
    suffix = key.rpartition(".")[2]
    return {"jpg": "image/jpeg", "json": "application/json"}.get(suffix, f"image/{suffix}")
