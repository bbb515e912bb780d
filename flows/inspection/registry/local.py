"""The registry on this machine or in a bucket: plain objects under the line's storage root.

    packages/<sha256>.zip                          the archive, named by its content
    packages/<sha256>.html                         the card that reports its model, when it could be had
    packages/<sha256>.metrics.json                 its figures on the holdout, as in the package
    registry/<line>/000001.json                    entry of version 1, written once
    registry/<line>/000001/events/0001.json        first decision on it, written once

Nothing is ever changed or deleted. Entries and events are numbered without gaps and each is created exclusively, so
of two writers one gets the number; the other reads what was written meanwhile and decides anew. The archive goes
first: a registration killed half-way leaves an archive that nobody sees, and its retry goes on from there.
"""

import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path

from edge.digest import sha256_of
from inspection.errors import PackageError, RegistryError
from inspection.registry.choosing import parse_number
from inspection.registry.entries import Entry, dump_entry, dump_event
from inspection.registry.interface import (
    Lineage,
    ModelVersion,
    PackageReference,
    Status,
    StatusChange,
    check_line,
    check_person,
    check_transition,
    is_retry,
)
from inspection.registry.objects import (
    READERS,
    archive_key,
    card_key,
    entry_key,
    event_key,
    list_lines,
    list_numbers,
    read_entries,
    read_versions,
)
from inspection.registry.references import check_reference
from inspection.storage import ObjectExistsError, Storage

ATTEMPTS = 1000  # each lost attempt means that another writer won one, so this many writers would have to be at it

logger = logging.getLogger(__name__)


class LocalRegistry:
    """Model versions as objects in a `Storage`."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def register(self, package: PackageReference) -> ModelVersion:
        """Store the archive and make a pending version of it, or return the version that this archive has already.

        Raises:
            RegistryError: the reference is incomplete or the metrics are not JSON.
            PackageError: the archive is missing or is not the one that the reference names.
        """
        check_reference(package)
        dump_entry(package, 1, "", None, datetime.now(UTC))  # refuse what is not JSON before anything is stored
        key = self._store_archive(package)
        entries: dict[int, Entry] = {}
        for _ in range(ATTEMPTS):
            numbers = [number for number in list_numbers(self.storage, package.line) if number not in entries]
            entries |= zip(numbers, read_entries(self.storage, package.line, numbers), strict=True)
            for number in sorted(entries):
                if entries[number].archive_sha256 == package.archive_sha256:
                    logger.info("event=registered_already line=%s version=%d", package.line, number)
                    return self.get(package.line, number)
            version = max(entries, default=0) + 1
            champion = self.latest(package.line)
            document = dump_entry(package, version, key, champion.version if champion else None, datetime.now(UTC))
            try:
                self.storage.create(entry_key(package.line, version), document)
            except ObjectExistsError:
                continue
            logger.info(
                "event=registered line=%s version=%d archive_sha256=%s", package.line, version, package.archive_sha256
            )
            return self.get(package.line, version)
        raise RegistryError(
            f"line {package.line}: no version number could be had in {ATTEMPTS} attempts, other writers were faster "
            f"each time; see what writes to {self.storage.root}/registry/{package.line} and try again"
        )

    def approve(self, line: str, version: int, by: str, why: str) -> ModelVersion:
        """Let a version be deployed."""
        return self.record(line, version, "approved", by, why)

    def reject(self, line: str, version: int, by: str, why: str) -> ModelVersion:
        """Refuse a pending version."""
        return self.record(line, version, "rejected", by, why)

    def roll_back(self, line: str, version: int, by: str, why: str) -> ModelVersion:
        """Withdraw an approved version."""
        return self.record(line, version, "rolled-back", by, why)

    def get(self, line: str, version: int) -> ModelVersion:
        """One version."""
        check_line(line)
        key = entry_key(line, version)
        if version < 1 or not self.storage.exists(key):
            raise RegistryError(self._describe_missing(line, version))
        return read_versions(self.storage, line, [version])[0]

    def find(self, line: str, name: str) -> ModelVersion:
        """The version that a person names by its number.

        Raises:
            RegistryError: it is no number, or there is no such version.
        """
        if name.startswith("arn:"):
            raise RegistryError(
                f'model {name}: want the number of a version, found an ARN, which [registry] backend = "local" does '
                'not know; set backend = "sagemaker" in the line\'s settings, or give the number'
            )
        return self.get(line, parse_number(name))

    def latest(self, line: str, status: Status = "approved") -> ModelVersion | None:
        """The highest version that has this status; None when there is none."""
        check_line(line)
        numbers = list_numbers(self.storage, line)
        for end in range(len(numbers), 0, -READERS):  # the latest is near the end: older ones are rarely read
            for version in reversed(read_versions(self.storage, line, numbers[max(0, end - READERS) : end])):
                if version.status == status:
                    return version
        return None

    def list(self, line: str) -> tuple[ModelVersion, ...]:
        """All versions of a line, oldest first."""
        check_line(line)
        return read_versions(self.storage, line, list_numbers(self.storage, line))

    def lines(self) -> tuple[str, ...]:
        """Names of the lines that have versions, sorted."""
        return list_lines(self.storage)

    def fetch(self, line: str, version: int, folder: Path) -> Path:
        """Unpack a version's package into `folder`, verifying every digest.

        Args:
            line: name of the line.
            version: its number.
            folder: must not exist yet; it appears only when all is verified.

        Raises:
            PackageError: the archive is missing, or it or a file in it is not what was registered.
        """
        entry = self.get(line, version)
        where = f"line {line} version {version}: {self.storage.root}/{entry.archive}"
        if not self.storage.exists(entry.archive):
            raise PackageError(
                f"{where}: the archive is missing; restore it, or train again and register a new version"
            )
        archive = self.storage.local_copy(entry.archive)
        found = sha256_of(archive)
        if found != entry.archive_sha256:
            raise PackageError(
                f"{where}: the archive was changed after it was registered: want sha256 {entry.archive_sha256}, "
                f"found {found}; restore it from a backup and do not deploy it"
            )
        from inspection.export.archive import read_archive  # opens the package, which needs a TFLite runtime

        contract = read_archive(archive, entry.archive_sha256, folder).contract
        if (contract.line, contract.version) != (line, entry.contract_version):
            shutil.rmtree(folder)
            raise PackageError(
                f"{where}: want the package of line {line}, model {entry.contract_version}, found one of line "
                f"{contract.line}, model {contract.version}; it was registered under a wrong name: "
                "reject it, or roll it back if it is approved"
            )
        return folder

    def lineage(self, line: str, version: int) -> Lineage:
        """What a version was made from."""
        return self.get(line, version).lineage

    def record(
        self, line: str, version: int, status: Status, by: str, why: str, at: datetime | None = None
    ) -> ModelVersion:
        """Write a decision into the history, unless this very decision is its last one.

        Args:
            line: name of the line.
            version: its number.
            status: after the decision.
            by: who decides.
            why: the reason.
            at: when it was decided, UTC; None = now.

        Raises:
            RegistryError: the version may not change so.
        """
        check_person(by, why)
        for _ in range(ATTEMPTS):
            current = self.get(line, version)
            if is_retry(current, status, by, why):
                return current
            check_transition(current, status)
            event = dump_event(StatusChange(status, by, why, at or datetime.now(UTC)))
            try:
                self.storage.create(event_key(line, version, len(current.history) + 1), event)
            except ObjectExistsError:
                continue  # somebody decided meanwhile: what was allowed may not be any more
            logger.info("event=status_changed line=%s version=%d status=%s by=%r", line, version, status, by)
            return self.get(line, version)
        raise RegistryError(
            f"line {line} version {version}: the decision could not be recorded in {ATTEMPTS} attempts, other writers "
            f"were faster each time; see what writes to {self.storage.root}/registry/{line} and try again"
        )

    def _store_archive(self, package: PackageReference) -> str:
        """Put the archive and its card in their places; an archive that is there is kept unless it is damaged."""
        key = archive_key(package.archive_sha256)
        if package.card_html is not None:
            self.storage.write(card_key(package.archive_sha256), package.card_html)
        if self.storage.exists(key):
            found = sha256_of(self.storage.local_copy(key))
            if found == package.archive_sha256:
                return key
            logger.warning("event=archive_replaced key=%s found_sha256=%s", key, found)
        self.storage.upload(package.archive, key)
        return key

    def _describe_missing(self, line: str, version: int) -> str:
        numbers = list_numbers(self.storage, line)
        if numbers:
            return (
                f"line {line}: want version {version}, found versions {numbers[0]} to {numbers[-1]} in "
                f"{self.storage.root}; see `lineside registry list {line}`"
            )
        others = ", ".join(self.lines())
        return (
            f"line {line}: want version {version}, found no version of this line in {self.storage.root}"
            + (f" (lines there: {others})" if others else "")
            + "; train one with `python flows/train_flow.py run`, or name another --storage"
        )
