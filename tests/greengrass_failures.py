"""Errors of the Greengrass double."""

from dataclasses import dataclass
from typing import Any

_COMMON = {  # that every service may answer, with the status they come with
    "ExpiredTokenException": 403,
    "UnrecognizedClientException": 403,
    "InvalidSignatureException": 403,
    "ServiceUnavailable": 503,
    "BadGateway": 502,
}


class ServiceError(Exception):
    """An error that is answered.

    Args:
        code: of the error.
        content: members of its shape.
        status: of HTTP, for errors that are not in the operation's model; 0 = as the model says.
    """

    def __init__(self, code: str, content: dict[str, Any], status: int = 0) -> None:
        super().__init__(code)
        self.code = code
        self.content = content
        self.status = status


def conflict(message: str, name: str, kind: str) -> ServiceError:
    return ServiceError("ConflictException", {"message": message, "resourceId": name, "resourceType": kind})


def missing(message: str, name: str, kind: str) -> ServiceError:
    return ServiceError("ResourceNotFoundException", {"message": message, "resourceId": name, "resourceType": kind})


@dataclass
class Failure:
    """An error that the next requests get."""

    code: str
    message: str
    times: int
    operation: str
    after: bool

    def error(self, operation: str) -> ServiceError:
        content: dict[str, Any] = {"message": self.message}
        if self.code in ("ConflictException", "ResourceNotFoundException"):
            content |= {"resourceId": operation, "resourceType": "any"}
        if self.code == "ServiceQuotaExceededException":
            content |= {"quotaCode": "L-0", "serviceCode": "greengrass"}
        return ServiceError(self.code, content, _COMMON.get(self.code, 0))
