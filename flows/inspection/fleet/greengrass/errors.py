"""What AWS refuses, in words that say what to do.

boto3 has tried again already by the time an error comes here: see `clients.ATTEMPTS`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from boto3.exceptions import Boto3Error, S3UploadFailedError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    ReadTimeoutError,
    SSOError,
    TokenRetrievalError,
)

from inspection.errors import RolloutError

DOCUMENT = "docs/greengrass.md"

_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_UNKNOWN = frozenset(
    {"UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "InvalidToken", "AuthFailure"}
)
_SIGNATURE = frozenset(
    {
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        "AuthorizationHeaderMalformed",
        "RequestTimeTooSkewed",
    }
)
_DENIED = frozenset({"AccessDeniedException", "AccessDenied", "UnauthorizedException", "Forbidden", "403"})
_THROTTLED = frozenset(
    {
        "ThrottlingException",
        "Throttling",
        "ThrottledException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "SlowDown",
        "429",
    }
)
_MISSING = frozenset({"ResourceNotFoundException"})
_SIGN_IN = (SSOError, TokenRetrievalError, CredentialRetrievalError)
_NETWORK = (
    EndpointConnectionError,
    ConnectTimeoutError,
    ReadTimeoutError,
    ConnectionClosedError,
    ProxyConnectionError,
)
_IAM_ACTIONS = {"HeadBucket": "ListBucket", "HeadObject": "GetObject", "CreateMultipartUpload": "PutObject"}
_IAM_PREFIX = {"greengrassv2": "greengrass"}  # of an action's name, where it differs from the service's


def code_of(error: ClientError) -> str:
    """The error's code, such as `ConflictException`."""
    return error.response["Error"].get("Code", "")


def message_of(error: ClientError) -> str:
    """What the service says."""
    return error.response["Error"].get("Message", "") or "no reason given"


def is_missing(error: ClientError) -> bool:
    """Whether the error says that what was named does not exist."""
    return code_of(error) in _MISSING


@contextmanager
def explained(doing: str, region: str, service: str = "greengrassv2") -> Iterator[None]:
    """Turn boto3's errors into RolloutErrors that say what to do.

    Args:
        doing: what is done, such as "publishing lineside.Runtime 1.0.0".
        region: where.
        service: whose action is denied, for the message.

    Raises:
        RolloutError: boto3 raised an error.
    """
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise _error(doing, region, f"no AWS credentials ({error}); run `aws configure` or set AWS_PROFILE") from error
    except ProfileNotFound as error:
        raise _error(doing, region, f"{error}; correct AWS_PROFILE or add the profile to ~/.aws/config") from error
    except _SIGN_IN as error:
        raise _error(
            doing, region, f"the sign-in has ended or cannot be renewed ({error}); run `aws sso login`"
        ) from error
    except (NoRegionError, InvalidRegionError) as error:
        raise _error(doing, region, f'{error}; set [fleet] region, such as "eu-central-1", or AWS_REGION') from error
    except _NETWORK as error:
        raise _error(
            doing,
            region,
            f"{error}; check the network, and that [fleet] region or AWS_REGION names a region that has AWS IoT "
            "Greengrass v2",
        ) from error
    except ClientError as error:
        raise _error(doing, region, advice(error, service)) from error
    except S3UploadFailedError as error:
        cause = error.__context__
        why = advice(cause, "s3") if isinstance(cause, ClientError) else str(error)
        raise _error(doing, region, why) from error
    except (BotoCoreError, Boto3Error) as error:
        raise _error(doing, region, str(error)) from error


def advice(error: ClientError, service: str) -> str:
    """What the error means and what to do about it."""
    code, message = code_of(error), message_of(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _EXPIRED:
        return f"the AWS credentials have expired ({code}); sign in again, such as by `aws sso login`, and run again"
    if code in _UNKNOWN:
        return (
            f"AWS does not know these credentials ({code}: {message}); check AWS_PROFILE, AWS_ACCESS_KEY_ID and "
            "AWS_SESSION_TOKEN, and that the account has this region switched on"
        )
    if code in _SIGNATURE:
        if "region" in message.lower():
            return f"wrong region ({code}: {message}); set [fleet] region to the region of the devices"
        return f"the signature is refused ({code}: {message}); check the secret key and this machine's clock"
    if code in _DENIED:
        return f"access denied: these credentials need {_action(error, service)}; see {DOCUMENT}. AWS says: {message}"
    if code in _THROTTLED or status == 429:
        return (
            f"AWS asks to slow down ({code}), also after {_attempts(error)} attempts; run again later: it goes on "
            "where it stopped"
        )
    if code == "ServiceQuotaExceededException":
        return f"a quota of the account is used up ({message}); ask AWS to raise it or delete old component versions"
    if status >= 500:
        return (
            f"AWS has a fault ({code or status}: {message}), also after {_attempts(error)} attempts; see its health "
            "dashboard and run again later: it goes on where it stopped"
        )
    return f"{code}: {message}"


def _action(error: ClientError, service: str) -> str:
    """The permission that is missing, as IAM calls it."""
    named = re.search(r"not authorized to perform:? ?([a-z0-9-]+:[A-Za-z0-9*]+)", message_of(error))
    if named:
        return named[1]
    action = _IAM_ACTIONS.get(error.operation_name, error.operation_name)
    return f"{_IAM_PREFIX.get(service, service)}:{action}"


def _attempts(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)) + 1


def _error(doing: str, region: str, why: str) -> RolloutError:
    return RolloutError(f"{doing} in {region or 'AWS'}: {why}")
