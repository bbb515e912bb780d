"""A client for reading images from S3, and its errors in plain words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    FlexibleChecksumError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from inspection.errors import StorageError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_DENIED = frozenset(
    {
        "403",
        "AccessDenied",
        "Forbidden",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "AllAccessDisabled",
    }
)
_THROTTLED = frozenset({"503", "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "429"})
# Raised while an object arrives, which boto3 does not retry
BROKEN_OFF = (FlexibleChecksumError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
ATTEMPTS = 8  # of one request that S3 throttles or drops, with growing pauses: about a minute together


def make_client() -> "S3Client":
    """A client with boto3's own credentials, region and endpoint (`AWS_ENDPOINT_URL`)."""
    return boto3.client(
        "s3",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS}, connect_timeout=10, max_pool_connections=16
        ),
    )


def is_missing(error: ClientError) -> bool:
    """Whether the error says that there is no such object."""
    return code_of(error) in _MISSING


def code_of(error: ClientError) -> str:
    """The error's code, such as `NoSuchBucket`."""
    return error.response["Error"].get("Code", "")


@contextmanager
def explained(address: str, doing: str) -> Iterator[None]:
    """Turn boto3's errors into StorageErrors that say what to do.

    Args:
        address: what is read.
        doing: what is done with it, such as "listing it".
    """
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise _error(address, doing, "no AWS credentials; run `aws configure` or set AWS_PROFILE") from error
    except EndpointConnectionError as error:
        raise _error(address, doing, f"{error}; check the network, AWS_REGION and AWS_ENDPOINT_URL") from error
    except ClientError as error:
        raise _error(address, doing, _advice(address, error)) from error
    except (BotoCoreError, Boto3Error) as error:
        raise _error(address, doing, str(error)) from error


def _error(address: str, doing: str, why: str) -> StorageError:
    return StorageError(f"{address}: {doing}: {why}")


def _advice(address: str, error: ClientError) -> str:
    code = code_of(error)
    if code == "NoSuchBucket" or (code in _MISSING and error.operation_name == "HeadBucket"):
        bucket = address.removeprefix("s3://").split("/")[0]
        return f"the bucket {bucket!r} does not exist; correct [data] source or --data"
    if code in _DENIED:
        return f"access denied ({code}); these credentials need s3:GetObject and s3:ListBucket there"
    if code in _THROTTLED:
        return f"S3 asks to slow down ({code}) after {ATTEMPTS} attempts; run again later: what was fetched stays"
    return f"{code}: {error.response['Error'].get('Message', '')}"
