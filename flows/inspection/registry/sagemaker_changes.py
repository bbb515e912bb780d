"""Tells decisions that were made in SageMaker from ours that it does not know yet."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from inspection.errors import RegistryError
from inspection.registry.interface import ModelVersion, Status
from inspection.registry.sagemaker_documents import APPROVAL, DECISIONS, describe_decision, plain

NO_REASON = "no reason given in SageMaker"
LONGEST = 1024  # characters of a name or reason


@dataclass(frozen=True)
class Change:
    """A decision that the history lacks."""

    status: Status
    by: str
    why: str
    at: datetime  # UTC


def find_change(version: ModelVersion, package: Mapping[str, Any]) -> Change | None:
    """The decision that was made in SageMaker since it was told ours; None = there is none.

    Args:
        version: as the history has it, read after the package.
        package: as DescribeModelPackage gives it.

    Raises:
        RegistryError: SageMaker knows decisions that the history lacks.
    """
    found = package.get("ModelApprovalStatus", "")
    told = count_told(version, package)
    if found in (APPROVAL[_status_after(version, told)], APPROVAL[version.status]):
        return None
    changed_at = _changed_at(package)
    if told < len(version.history) and changed_at < version.history[-1].at:
        return None  # ours is the later one, and SageMaker was not told yet
    status = _mean(version.status, found)
    if status is None:
        return None
    return Change(status, _name_decider(package), _give_reason(version, package, told, found), changed_at)


def find_withdrawal(version: ModelVersion, arn: str) -> Change | None:
    """The decision that the deletion of a model package means; None when the version does not serve anyway."""
    status: Status | None = {"pending": "rejected", "approved": "rolled-back"}.get(version.status)  # type: ignore[assignment]
    if status is None:
        return None
    return Change(status, "SageMaker", f"its model package {arn} was deleted there", datetime.now(UTC))


def is_told(version: ModelVersion, package: Mapping[str, Any]) -> bool:
    """Whether SageMaker knows the last decision.

    A package set back to pending that is rejected here stays as it is: it does not serve either way.
    """
    found = package.get("ModelApprovalStatus", "")
    known = package.get("CustomerMetadataProperties", {}).get(DECISIONS) == str(len(version.history))
    return known and (found == APPROVAL[version.status] or _mean(version.status, found) is None)


def count_told(version: ModelVersion, package: Mapping[str, Any]) -> int:
    """How many decisions of the history SageMaker was told.

    Raises:
        RegistryError: more than there are.
    """
    text = package.get("CustomerMetadataProperties", {}).get(DECISIONS, "")
    count = len(version.history)
    if not re.fullmatch(r"\d{1,6}", text):  # somebody's update replaced the metadata: that came after all of ours
        untold = bool(version.history) and _changed_at(package) < version.history[-1].at
        return count - 1 if untold else count
    if int(text) > count:
        raise RegistryError(
            f"line {version.line} version {version.version}: want the {text} decisions that "
            f"{package['ModelPackageArn']} was told, found {count} in the history; restore the objects under "
            f"registry/{version.line}/ from a backup"
        )
    return int(text)


def _status_after(version: ModelVersion, decisions: int) -> Status:
    return version.history[decisions - 1].status if decisions else "pending"


def _mean(ours: Status, found: str) -> Status | None:
    """What another approval status in SageMaker means for a version of this status; None = nothing."""
    if found == "Approved":
        return "approved" if ours != "approved" else None
    if ours == "approved":
        return "rolled-back"  # rejected, or set back to pending: it may not serve any more
    return "rejected" if (found, ours) == ("Rejected", "pending") else None


def _changed_at(package: Mapping[str, Any]) -> datetime:
    moment: datetime = package.get("LastModifiedTime") or package["CreationTime"]
    return moment.astimezone(UTC)


def _name_decider(package: Mapping[str, Any]) -> str:
    """Who changed the package last, as far as SageMaker keeps it."""
    context = package.get("LastModifiedBy", {})
    name = context.get("UserProfileName") or context.get("IamIdentity", {}).get("Arn", "").rpartition(":")[2]
    return plain(f"{name} (in SageMaker)", LONGEST) if name else "somebody in SageMaker"


def _give_reason(version: ModelVersion, package: Mapping[str, Any], told: int, found: str) -> str:
    text = plain(package.get("ApprovalDescription", ""), LONGEST).strip()
    ours = {describe_decision(replace(version, history=version.history[:told])), ""}
    reason = NO_REASON if text in ours else text
    return f"set back to pending: {reason}" if found == "PendingManualApproval" else reason
