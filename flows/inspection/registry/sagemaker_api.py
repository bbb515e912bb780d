"""The few calls of SageMaker that a registry needs: paged, retried, and with errors that say what to do."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from inspection.errors import RegistryError
from inspection.registry.arns import parse_package

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import (
        CreateModelPackageInputTypeDef,
        DescribeModelPackageOutputTypeDef,
        UpdateModelPackageInputTypeDef,
    )

ATTEMPTS = 8  # per call, in botocore's standard mode: throttling, 5xx and lost connections, with growing pauses
CONFLICTS = 5  # attempts when another change of the same package is under way, which botocore does not repeat
PAGE = 100  # packages per answer, the most that SageMaker gives

EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
UNKNOWN = {
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "IncompleteSignature",
    "MissingAuthenticationToken",
}
DENIED = {"AccessDenied", "AccessDeniedException", "NotAuthorized", "403"}
THROTTLED = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
}
MISSING = re.compile(r"does not exist|not found|cannot find|could not find", re.IGNORECASE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """A version in a model package group."""

    version: int
    arn: str
    status: str  # ModelApprovalStatus


class SageMakerApi:
    """A client of SageMaker.

    Args:
        region: "" = the environment's.
    """

    def __init__(self, region: str) -> None:
        self.region = region
        with self._explained("opening it"):
            self._client = boto3.client(
                "sagemaker",
                region_name=region or None,
                config=Config(
                    retries={"mode": "standard", "max_attempts": ATTEMPTS}, connect_timeout=10, read_timeout=60
                ),
            )
            self.region = self._client.meta.region_name

    def find_group(self, name: str) -> str | None:
        """ARN of a group; None when there is no such group."""
        with self._explained(f"looking for model package group {name}"):
            try:
                return self._client.describe_model_package_group(ModelPackageGroupName=name)["ModelPackageGroupArn"]
            except ClientError as error:
                if not _is_missing(error):
                    raise
                return None

    def create_group(self, name: str, line: str) -> str:
        """Make a group; one that is there already is as good.

        Returns:
            Its ARN.
        """
        with self._explained(f"making model package group {name}"):
            try:
                return self._client.create_model_package_group(
                    ModelPackageGroupName=name,
                    ModelPackageGroupDescription=f"Models of the inspection line {line}, registered by Lineside",
                    Tags=[{"Key": "lineside:line", "Value": line}],
                )["ModelPackageGroupArn"]
            except ClientError as error:
                found = self.find_group(name) if _code(error) in {"ValidationException", "ConflictException"} else None
                if found is None:
                    raise
                return found

    def list_packages(self, group: str) -> dict[int, Summary]:
        """The versions of a group by their numbers, all pages; empty when there is no such group."""
        found = {}
        with self._explained(f"listing model package group {group}"):
            pages = self._client.get_paginator("list_model_packages").paginate(
                ModelPackageGroupName=group, PaginationConfig={"PageSize": PAGE}
            )
            try:
                for page in pages:
                    for entry in page["ModelPackageSummaryList"]:
                        arn = entry["ModelPackageArn"]
                        version = entry.get("ModelPackageVersion") or parse_package(arn)[1]
                        found[version] = Summary(version, arn, entry.get("ModelApprovalStatus", ""))
            except ClientError as error:
                if not _is_missing(error):
                    raise
        return found

    def describe(self, arn: str) -> "DescribeModelPackageOutputTypeDef | None":
        """Everything about a model package; None when it does not exist."""
        with self._explained(f"reading {arn}"):
            try:
                return self._client.describe_model_package(ModelPackageName=arn)
            except ClientError as error:
                if not _is_missing(error):
                    raise
                return None

    def create(self, request: "CreateModelPackageInputTypeDef") -> str:
        """Make a model package.

        Returns:
            Its ARN.
        """
        with self._explained(f"making a model package in group {request.get('ModelPackageGroupName')}"):
            for attempt in range(CONFLICTS):
                try:
                    return self._client.create_model_package(**request)["ModelPackageArn"]
                except ClientError as error:
                    _wait_for_other(error, attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def update(self, request: "UpdateModelPackageInputTypeDef") -> None:
        """Change a model package's approval and metadata."""
        with self._explained(f"changing {request['ModelPackageArn']}"):
            for attempt in range(CONFLICTS):
                try:
                    self._client.update_model_package(**request)
                    return
                except ClientError as error:
                    _wait_for_other(error, attempt)

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        """Turn boto3's errors into a RegistryError that says what to do."""
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
            raise self._error(doing, f"no AWS credentials ({error}); run `aws configure` or set AWS_PROFILE") from error
        except (UnauthorizedSSOTokenError, TokenRetrievalError) as error:
            raise self._error(doing, f"{_EXPIRED_ADVICE} ({error})") from error
        except NoRegionError as error:
            raise self._error(doing, "no AWS region; set [registry] region or AWS_REGION") from error
        except (EndpointConnectionError, ConnectTimeoutError) as error:
            raise self._error(doing, f"{error}; check the network and [registry] region") from error
        except ClientError as error:
            raise self._error(doing, _advise(error)) from error
        except BotoCoreError as error:
            raise self._error(doing, f"{error}; check [registry] region") from error

    def _error(self, doing: str, why: str) -> RegistryError:
        return RegistryError(f"SageMaker Model Registry in {self.region or 'no region'}: {doing}: {why}")


_EXPIRED_ADVICE = "the AWS credentials have expired; sign in again, for instance with `aws sso login`"


def _advise(error: ClientError) -> str:
    code, message = _code(error), error.response["Error"].get("Message", "")
    if code in EXPIRED:
        return f"{_EXPIRED_ADVICE} ({code})"
    if code in UNKNOWN:
        return f"AWS does not know these credentials ({code}); check the keys and AWS_PROFILE, and the clock"
    if code in DENIED:
        return (
            f"access denied ({message or code}); these credentials need sagemaker:{error.operation_name}, "
            "see the policy in docs/registry.md"
        )
    if code in THROTTLED:
        return f"AWS still throttles after {ATTEMPTS} attempts ({code}); try again in a minute"
    if code == "ResourceLimitExceeded":
        return f"a quota of the account is used up ({message}); ask for a higher one in Service Quotas"
    status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    if status >= 500:
        return f"AWS has a fault of its own, {ATTEMPTS} attempts failed ({code} {message}); try again later"
    return f"{code}: {message}"


def _wait_for_other(error: ClientError, attempt: int) -> None:
    """Wait while another change of the package is under way; any other error is raised again."""
    if _code(error) != "ConflictException" or attempt == CONFLICTS - 1:
        raise error
    logger.info("event=conflict_repeated operation=%s attempt=%d", error.operation_name, attempt + 1)
    time.sleep(0.2 * 2**attempt)


def _is_missing(error: ClientError) -> bool:
    """Whether the error says that a group or package is not there: SageMaker tells it in the message only."""
    code = _code(error)
    if code in {"ResourceNotFound", "ResourceNotFoundException"}:
        return True
    return code in {"ValidationException", "ValidationError"} and bool(
        MISSING.search(error.response["Error"].get("Message", ""))
    )


def _code(error: ClientError) -> str:
    return error.response["Error"].get("Code", "")
