"""Makes the model packages: one per version, in the order of the numbers, exactly once.

What this module keeps beside a line's entries, so that a call that was killed is continued by the next one:

    registry/<line>/sagemaker/<group>.json                     ARN of the group, written once
    registry/<line>/000001/sagemaker/<group>/package.json      ARN of the version's model package, written once
    registry/<line>/000001/sagemaker/<group>/claim-0001.json   who is making it, and since when
    registry/<line>/000001/metrics.json                        metrics in the form that SageMaker shows

SageMaker numbers packages itself and never deletes a number, so two callers must not make the same one: a claim is
an object that only one can create. A claim that is given up, or older than `CLAIM_S`, lets the next one try; should
the first be alive after all, both send the same client token, which SageMaker answers with the same package.
"""

import logging
import re
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from inspection.errors import RegistryError
from inspection.registry.arns import Place, group_name, parse_group, parse_package
from inspection.registry.marks import age_s, dump_mark, read_mark
from inspection.registry.objects import card_key, entry_key, read_entries
from inspection.registry.sagemaker_api import SageMakerApi, Summary
from inspection.registry.sagemaker_documents import archive_uri, dump_metrics, make_package, metrics_key, package_uri
from inspection.storage import ObjectExistsError, Storage

CLAIM_S = 120.0  # after this long a claim counts as that of a killed caller
POLL_S = 0.2
FRESH_S = 600.0  # so long after a package was made, not finding it does not mean that somebody deleted it

logger = logging.getLogger(__name__)


class Mirror:
    """The model packages of every line's versions.

    Args:
        storage: where the entries are, an S3 prefix.
        api: client.
        prefix: of the names of groups.
        image: container image that packages name.
    """

    def __init__(self, storage: Storage, api: SageMakerApi, prefix: str, image: str) -> None:
        self.storage, self.api, self.prefix, self.image = storage, api, prefix, image
        self._groups: dict[str, Place] = {}  # by line: a group never moves

    def group(self, line: str) -> str:
        """Name of a line's group."""
        return group_name(self.prefix, line)

    def list_packages(self, line: str) -> dict[int, Summary]:
        """The versions in a line's group; empty for a line whose versions were never registered in one.

        Raises:
            RegistryError: the group in which this line's versions were registered is not there: another account or
                region, or it was deleted.
        """
        return self._list(line) if self.find_place(line) else {}

    def list_alone(self, line: str) -> dict[int, Summary]:
        """The versions in a line's group, which must all be this storage's, or the numbers would not agree.

        Raises:
            RegistryError: as `list_packages`, or the group holds a version that this storage does not know.
        """
        packages = self._list(line)  # before the entries: an entry comes before its package
        unknown = sorted(set(packages) - set(self._scan(line)[0]))
        if unknown:
            raise self._not_alone(line, packages[unknown[-1]].arn, unknown[-1])
        return packages

    def find_package(self, line: str, version: int) -> str | None:
        """ARN of the package that was made of a version, whether it still exists or not; None = none was made."""
        key = self._package_key(line, version)
        return read_mark(self.storage, key)["arn"] if self.storage.exists(key) else None

    def is_fresh(self, line: str, version: int) -> bool:
        """Whether a version's package was made so lately that SageMaker may not show it everywhere yet."""
        key = self._package_key(line, version)
        return self.storage.exists(key) and age_s(read_mark(self.storage, key)) < FRESH_S

    def ensure(self, line: str, version: int, packages: dict[int, Summary]) -> str:
        """Make what is missing up to a version.

        Args:
            line: name of the line.
            version: its number.
            packages: what `list_alone` gave.

        Returns:
            ARN of the version's package.

        Raises:
            RegistryError: others register in the group too; SageMaker refuses.
        """
        self._ensure_group(line)
        numbers, made = self._scan(line)
        for number in numbers:
            if number <= version and number not in made:
                self._make(line, number, packages)
        arn = packages[version].arn if version in packages else self.find_package(line, version)
        assert arn is not None
        return arn

    def check_ours(self, line: str, version: int, archive: str, package: Any) -> None:
        """Refuse a package that was not made of this version's archive.

        Raises:
            RegistryError: it was made by somebody else.
        """
        if package_uri(package) != archive_uri(archive, self.storage.root):
            raise self._not_alone(line, package["ModelPackageArn"], version)

    def _list(self, line: str) -> dict[int, Summary]:
        packages, wanted = self.api.list_packages(self.group(line)), self.find_place(line)
        if wanted is None:
            return packages
        if packages:
            found = parse_package(next(iter(packages.values())).arn)[0]
        else:
            arn = self.api.find_group(self.group(line))
            if arn is None:
                raise RegistryError(
                    f"line {line}: want {wanted}, found no such group in {self.api.region} with these credentials; "
                    "check [registry] region and AWS_PROFILE, or, if it was deleted, set another [registry] prefix"
                )
            found = parse_group(arn)
        if found != wanted:
            raise RegistryError(
                f"line {line}: want {wanted}, in which its versions were registered, found {found}; check [registry] "
                "region and AWS_PROFILE"
            )
        return packages

    def _ensure_group(self, line: str) -> None:
        if self.find_place(line) is None:
            name = self.group(line)
            arn = self.api.find_group(name) or self.api.create_group(name, line)
            with suppress(ObjectExistsError):  # another caller was faster; what it wrote is checked like ours
                self.storage.create(self._group_key(line), dump_mark(arn=arn))
            logger.info("event=group_ready line=%s arn=%s", line, arn)

    def find_place(self, line: str) -> Place | None:
        """Where the group is that this line's versions were registered in; None = in none yet."""
        if line not in self._groups:
            key = self._group_key(line)
            if not self.storage.exists(key):
                return None
            self._groups[line] = parse_group(read_mark(self.storage, key)["arn"])
        return self._groups[line]

    def _scan(self, line: str) -> tuple[list[int], set[int]]:
        """Numbers of the line's versions, and which of them have a package."""
        group = re.escape(self.group(line))
        numbers, made = [], set()
        for key in self.storage.list(f"registry/{line}/"):
            if match := re.fullmatch(r"registry/[^/]+/(\d{6,})\.json", key):
                numbers.append(int(match[1]))
            elif match := re.fullmatch(rf"registry/[^/]+/(\d{{6,}})/sagemaker/{group}/package\.json", key):
                made.add(int(match[1]))
        return sorted(numbers), made

    def _make(self, line: str, version: int, packages: dict[int, Summary]) -> None:
        """Make one version's package, or wait until another caller has."""
        attempt = 0
        while True:
            attempt += 1
            claim = f"{self._folder(line, version)}/claim-{attempt:04d}.json"
            try:
                self.storage.create(claim, dump_mark(at=datetime.now(UTC).isoformat()))
            except ObjectExistsError:
                if self._wait_for(line, version, claim):
                    return
                continue
            done = False
            try:
                self._make_claimed(
                    line, version, packages if attempt == 1 else self.api.list_packages(self.group(line))
                )
                done = True
            finally:
                if not done:  # refused or interrupted, not killed: the next caller need not wait
                    self.storage.write(claim, dump_mark(given_up=True))
            return

    def _make_claimed(self, line: str, version: int, packages: dict[int, Summary]) -> None:
        (entry,) = read_entries(self.storage, line, [version])
        if version in packages:  # made by a caller that was killed before it could say so
            arn = packages[version].arn
            package = self.api.describe(arn)
            if package is not None:
                self.check_ours(line, version, entry.archive, package)
        else:
            metrics = dump_metrics(entry.metrics)
            self.storage.write(metrics_key(line, version), metrics)
            key = card_key(entry.archive_sha256)
            card = self.storage.read(key) if self.storage.exists(key) else None
            request = make_package(entry, self.group(line), self.storage.root, self.image, metrics, card)
            arn = self.api.create(request)
            if parse_package(arn)[1] != version:
                raise self._not_alone(line, arn, version)
            logger.info("event=model_package_made line=%s version=%d arn=%s", line, version, arn)
        with suppress(ObjectExistsError):  # a caller whose claim had run out was alive, and made this very package
            self.storage.create(self._package_key(line, version), dump_mark(arn=arn, at=datetime.now(UTC).isoformat()))

    def _wait_for(self, line: str, version: int, claim: str) -> bool:
        """Wait for another caller; False when it gave up or was killed."""
        deadline = time.monotonic() + CLAIM_S
        told = False
        while time.monotonic() < deadline:
            if self.storage.exists(self._package_key(line, version)):
                return True
            document = read_mark(self.storage, claim)
            if document.get("given_up"):
                return False
            if age_s(document) > CLAIM_S:
                return False
            if not told:
                logger.info("event=waiting_for_model_package line=%s version=%d at_most_s=%.0f", line, version, CLAIM_S)
                told = True
            time.sleep(POLL_S)
        return False

    def _not_alone(self, line: str, arn: str, version: int) -> RegistryError:
        return RegistryError(
            f"line {line}: want model package group {self.group(line)} for the versions in {self.storage.root} alone, "
            f"found {arn}, which is not version {version} of this line there, so that the numbers no longer agree; "
            "another storage or another program registers in this group: set another [registry] prefix"
        )

    def _folder(self, line: str, version: int) -> str:
        return f"{entry_key(line, version).removesuffix('.json')}/sagemaker/{self.group(line)}"

    def _package_key(self, line: str, version: int) -> str:
        return f"{self._folder(line, version)}/package.json"

    def _group_key(self, line: str) -> str:
        return f"registry/{line}/sagemaker/{self.group(line)}.json"
