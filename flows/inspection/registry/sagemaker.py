"""The registry in SageMaker: each version is a model package too, and decisions made there count.

Entries and decisions are the same objects in the line's storage as everywhere (`LocalRegistry`): they keep the
numbers exclusive and the whole history, which SageMaker does not. Each version is mirrored to a model package of the
group `<prefix>-<line>`, under the same number. Both ways a change may be lost half-way, and the next call makes up
for it:

- A decision made here is written first, then told to SageMaker together with how many decisions it now knows. Where
  SageMaker knows fewer, it is told again.
- A decision made there (in the console, by a pipeline) shows as an approval status that differs from the one told
  last. It is written into the history with who and why, as far as SageMaker keeps it.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from inspection.errors import RegistryError
from inspection.registry.arns import parse_package
from inspection.registry.choosing import parse_number
from inspection.registry.interface import (
    Lineage,
    ModelVersion,
    PackageReference,
    Status,
    check_line,
    check_person,
)
from inspection.registry.local import LocalRegistry
from inspection.registry.sagemaker_api import SageMakerApi, Summary
from inspection.registry.sagemaker_changes import Change, find_change, find_withdrawal, is_told
from inspection.registry.sagemaker_documents import (
    APPROVAL,
    describe_decision,
    make_metadata,
    merge_metadata,
)
from inspection.registry.sagemaker_mirror import Mirror
from inspection.settings import RegistrySettings
from inspection.storage import Storage

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import UpdateModelPackageInputTypeDef

ATTEMPTS = 100  # each lost attempt means that somebody else decided meanwhile

logger = logging.getLogger(__name__)


class SageMakerRegistry:
    """Model versions as model packages.

    Args:
        storage: an S3 prefix, for archives, entries and decisions.
        settings: `[registry]` of the line.

    Raises:
        RegistryError: the settings cannot work, or AWS cannot be reached.
    """

    def __init__(self, storage: Storage, settings: RegistrySettings) -> None:
        if not storage.root.startswith("s3://"):
            raise RegistryError(
                f"SageMaker Model Registry: want [line] storage in S3, found {storage.root}; SageMaker refers to it"
            )
        if not settings.container_image:
            raise RegistryError(
                "SageMaker Model Registry: want [registry] container_image, found none; see docs/registry.md"
            )
        self.storage = storage
        self._local = LocalRegistry(storage)
        self._api = SageMakerApi(settings.region)
        self._mirror = Mirror(storage, self._api, settings.prefix, settings.container_image)

    def register(self, package: PackageReference) -> ModelVersion:
        """Store the archive and make a pending version and its model package, or return those it has already."""
        line = package.line
        check_line(line)
        packages = self._mirror.list_alone(line)
        self._see(line, self._local.list(line), packages)  # decisions made there, so that the champion is right
        version = self._local.register(package)
        self._mirror.ensure(line, version.version, packages)
        fresh = version.version not in packages and not version.history
        return version if fresh else self.get(line, version.version)

    def approve(self, line: str, version: int, by: str, why: str) -> ModelVersion:
        """Let a version be deployed."""
        return self._decide(line, version, "approved", by, why)

    def reject(self, line: str, version: int, by: str, why: str) -> ModelVersion:
        """Refuse a pending version."""
        return self._decide(line, version, "rejected", by, why)

    def roll_back(self, line: str, version: int, by: str, why: str) -> ModelVersion:
        """Withdraw an approved version; in SageMaker it is then rejected."""
        return self._decide(line, version, "rolled-back", by, why)

    def get(self, line: str, version: int) -> ModelVersion:
        """One version, with what was decided on it in SageMaker."""
        return self._see(line, (self._local.get(line, version),))[0]

    def latest(self, line: str, status: Status = "approved") -> ModelVersion | None:
        """The highest version that has this status, here and in SageMaker; None when there is none."""
        return next((version for version in reversed(self.list(line)) if version.status == status), None)

    def list(self, line: str) -> tuple[ModelVersion, ...]:
        """All versions of a line, oldest first, with what was decided on them in SageMaker."""
        return self._see(line, self._local.list(line))

    def lines(self) -> tuple[str, ...]:
        """Names of the lines that have versions, sorted."""
        return self._local.lines()

    def fetch(self, line: str, version: int, folder: Path) -> Path:
        """Unpack a version's package into `folder`, verifying every digest."""
        return self._local.fetch(line, version, folder)

    def lineage(self, line: str, version: int) -> Lineage:
        """What a version was made from."""
        return self._local.lineage(line, version)

    def find(self, line: str, name: str) -> ModelVersion:
        """The version that a person names by its number or by the ARN of its model package.

        Raises:
            RegistryError: it is neither, an ARN of another region, account or group, or there is no such version.
        """
        if not name.startswith("arn:"):
            return self.get(line, parse_number(name))
        check_line(line)
        place, number = parse_package(name)
        wanted = self._mirror.find_place(line)
        if wanted is None:
            raise RegistryError(
                f"{name}: want a version of line {line}, found that the line has no model package group yet; register "
                "a model first, or name the settings of the line that it belongs to"
            )
        if place != wanted:
            raise RegistryError(
                f"{name}: want a version of line {line}, so of {wanted}, found one of {place}; give one of that group, "
                "or the settings of the line that it belongs to"
            )
        return self.get(line, number)

    def _decide(self, line: str, version: int, status: Status, by: str, why: str) -> ModelVersion:
        check_person(by, why)
        self._local.get(line, version)  # refuses what is not there before anything is made
        arn = self._find_or_make(line, version)
        there = self._settle(line, version, arn)[1]
        if not there and status == "approved":
            raise RegistryError(
                f"line {line} version {version}: want its model package {arn}, found that it was deleted in SageMaker; "
                "such a version cannot be approved again: train and register a new one"
            )
        self._local.record(line, version, status, by, why)
        return self._settle(line, version, arn)[0]

    def _find_or_make(self, line: str, version: int) -> str:
        """ARN of a version's package. Only to make one the group must be ours alone: a roll-back cannot wait."""
        packages = self._mirror.list_packages(line)
        found = packages[version].arn if version in packages else self._mirror.find_package(line, version)
        return found or self._mirror.ensure(line, version, self._mirror.list_alone(line))

    def _see(
        self, line: str, versions: tuple[ModelVersion, ...], packages: dict[int, Summary] | None = None
    ) -> tuple[ModelVersion, ...]:
        """Versions with the decisions that were made in SageMaker meanwhile."""
        if packages is None:
            packages = self._mirror.list_packages(line) if versions else {}
        return tuple(
            version
            if version.version in packages and packages[version.version].status == APPROVAL[version.status]
            else self._look_closer(version, packages[version.version].arn if version.version in packages else None)
            for version in versions
        )

    def _look_closer(self, version: ModelVersion, arn: str | None) -> ModelVersion:
        arn = arn or self._mirror.find_package(version.line, version.version)
        if arn is None:
            logger.warning("event=no_model_package_yet line=%s version=%d", version.line, version.version)
            return version
        return self._settle(version.line, version.version, arn)[0]

    def _settle(self, line: str, number: int, arn: str) -> tuple[ModelVersion, bool]:
        """Bring the history and the model package together, each learning what the other lacks.

        Returns:
            The version, and whether its model package exists.
        """
        for _ in range(ATTEMPTS):
            package = self._api.describe(arn)
            current = self._local.get(line, number)  # after the package, which never knows more than the history
            if package is None and self._mirror.is_fresh(line, number):
                logger.warning("event=model_package_not_visible_yet line=%s version=%d arn=%s", line, number, arn)
                return current, True
            if package is None:
                change: Change | None = find_withdrawal(current, arn)
                if change is None:
                    return current, False
            else:
                self._mirror.check_ours(line, number, current.archive, package)
                change = find_change(current, package)
                if change is None:
                    if not is_told(current, package):
                        self._tell(current, arn, package.get("CustomerMetadataProperties", {}))
                    return current, True
            try:
                self._local.record(line, number, change.status, change.by, change.why, change.at)
            except RegistryError:
                if self._local.get(line, number).history == current.history:
                    raise
                continue  # somebody decided meanwhile; look again
            logger.info("event=decided_in_sagemaker line=%s version=%d status=%s", line, number, change.status)
        raise RegistryError(
            f"line {line} version {number}: the decisions here and of {arn} could not be brought together in "
            f"{ATTEMPTS} attempts, others change them all the time; see who decides there and try again"
        )

    def _tell(self, version: ModelVersion, arn: str, found: dict[str, str]) -> None:
        """Tell SageMaker the status, with who and why."""
        metadata = merge_metadata(make_metadata(version, version.status, len(version.history)), found)
        request: UpdateModelPackageInputTypeDef = {
            "ModelPackageArn": arn,
            "ModelApprovalStatus": APPROVAL[version.status],
            "ApprovalDescription": describe_decision(version),
            "CustomerMetadataProperties": metadata,
        }
        dropped = sorted(set(found) - set(metadata))
        if dropped:
            request["CustomerMetadataPropertiesToRemove"] = dropped
        self._api.update(request)
        logger.info("event=told_sagemaker line=%s version=%d status=%s", version.line, version.version, version.status)
