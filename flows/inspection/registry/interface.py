"""What a model registry is, whatever keeps it: versions of a line's model packages and who decided what on them.

A version is born `pending` and changes its status only so, each change with who and why:

    pending ──► approved ──► rolled-back
       │           ▲ ▲            │
       ▼           │ └────────────┘  approve again, explicitly
    rejected ──────┘                 approve after all, explicitly

`rejected` says that it never served, `rolled-back` that it did and was withdrawn; no version is ever deleted, and the
history keeps every decision. One archive is one version of a line: registering it again returns that version, so a
retried flow step makes no second one, and registering cannot get around a rejection.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from inspection.errors import RegistryError
from inspection.settings_faults import LINE_NAME
from inspection.storage import Storage

Status = Literal["pending", "approved", "rejected", "rolled-back"]
STATUSES: tuple[Status, ...] = get_args(Status)
TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    "pending": frozenset({"approved", "rejected"}),
    "approved": frozenset({"rolled-back"}),
    "rejected": frozenset({"approved"}),
    "rolled-back": frozenset({"approved"}),
}
COMMANDS: Mapping[Status, str] = {"approved": "approve", "rejected": "reject", "rolled-back": "roll-back"}
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PackageReference:
    """A finished model package, ready to be registered."""

    line: str
    archive: Path  # the zip on this machine
    archive_sha256: str  # hex
    contract_version: str  # `version` of the package's contract.json
    metrics: Mapping[str, Any]  # JSON; a rate is {"value": …, "low": …, "high": …}
    snapshot: str  # id of the dataset snapshot
    run: str  # pathspec of the flow's run, such as TrainFlow/17
    commit: str = ""  # of the code, hex; "" = the code was no git checkout
    card: str = ""  # pathspec of the step whose card reports the model
    tags: Mapping[str, str] = field(default_factory=dict)  # for people: backbone, recipe, artifact kind, …
    card_html: bytes | None = None  # that card itself, kept beside the archive; None = it could not be had


@dataclass(frozen=True)
class Lineage:
    """What a version was made from."""

    snapshot: str
    run: str
    commit: str
    card: str
    champion: int | None  # the latest approved version when this one was registered; None = there was none


@dataclass(frozen=True)
class StatusChange:
    """One decision on a version."""

    status: Status  # after the change
    by: str
    why: str
    at: datetime  # UTC


@dataclass(frozen=True)
class ModelVersion:
    """A registered package."""

    line: str
    version: int  # 1, 2, … within the line
    status: Status
    archive: str  # key of the archive in the registry's storage
    archive_sha256: str
    contract_version: str
    created_at: datetime  # UTC
    metrics: Mapping[str, Any]
    lineage: Lineage
    tags: Mapping[str, str]
    history: tuple[StatusChange, ...]  # oldest first; empty while pending


class Registry(Protocol):
    """Keeps the versions of every line; each back end passes the same tests.

    Every method raises `RegistryError` for a line or version that does not exist or an entry that cannot be read.
    """

    storage: Storage  # where the archives are

    def register(self, package: PackageReference) -> ModelVersion:
        """Store the archive and make a pending version of it, or return the version that this archive has already."""
        ...

    def approve(self, line: str, version: int, by: str, why: str) -> ModelVersion:
        """Let a version be deployed. Approving again what was rejected or rolled back takes this explicit call."""
        ...

    def reject(self, line: str, version: int, by: str, why: str) -> ModelVersion:
        """Refuse a pending version."""
        ...

    def roll_back(self, line: str, version: int, by: str, why: str) -> ModelVersion:
        """Withdraw an approved version; `latest` is then the approved one before it."""
        ...

    def get(self, line: str, version: int) -> ModelVersion:
        """One version."""
        ...

    def find(self, line: str, name: str) -> ModelVersion:
        """The version that a person names: by its number, or in SageMaker by the ARN of its model package."""
        ...

    def latest(self, line: str, status: Status = "approved") -> ModelVersion | None:
        """The highest version that has this status; None when there is none."""
        ...

    def list(self, line: str) -> tuple[ModelVersion, ...]:
        """All versions of a line, oldest first; empty for a line that has none."""
        ...

    def lines(self) -> tuple[str, ...]:
        """Names of the lines that have versions, sorted."""
        ...

    def fetch(self, line: str, version: int, folder: Path) -> Path:
        """Unpack a version's package into `folder`, which must not exist yet, verifying every digest.

        Returns:
            The folder.

        Raises:
            PackageError: the archive or a file in it is not what was registered.
        """
        ...

    def lineage(self, line: str, version: int) -> Lineage:
        """What a version was made from."""
        ...


def check_line(line: str) -> None:
    """Refuse a name that no line can have.

    Raises:
        RegistryError: it is not a line's name.
    """
    if not LINE_NAME.fullmatch(line):
        raise RegistryError(
            f"line: want 1-32 of a-z, 0-9 and hyphens, no hyphen at either end, found {line!r}; "
            "use [line] name of its settings"
        )


def check_person(by: str, why: str) -> None:
    """Refuse a decision without a name or a reason.

    Raises:
        RegistryError: one is empty, or has characters that are not printable (they would garble every later listing).
    """
    for name, text in (("by", by), ("why", why)):
        if not text.strip() or not text.isprintable():
            raise RegistryError(
                f"{name}: want {'who decides' if name == 'by' else 'the reason'} as printable text on one line, "
                f"found {text!r}"
            )


def is_retry(version: ModelVersion, status: Status, by: str, why: str) -> bool:
    """Whether this very decision is the last one on record: its answer was lost and it came again."""
    last = version.history[-1] if version.history else None
    return last is not None and (last.status, last.by, last.why) == (status, by, why)


def check_transition(version: ModelVersion, status: Status) -> None:
    """Refuse a change of status that the registry does not allow.

    Raises:
        RegistryError: the version may not change so; the message lists the commands that would.
    """
    allowed = TRANSITIONS[version.status]
    if status in allowed:
        return
    since = ""
    if version.history:
        last = version.history[-1]
        since = f" (by {last.by}, {last.at:%Y-%m-%d %H:%M} UTC: {last.why})"
    sources = " or ".join(name for name in STATUSES if status in TRANSITIONS[name])
    commands = " or ".join(
        f"`lineside registry {COMMANDS[name]} {version.line} {version.version}`" for name in sorted(allowed)
    )
    raise RegistryError(
        f"line {version.line} version {version.version}: to become {status} it must be {sources}, "
        f"found {version.status}{since}; what it may do: {commands}"
    )
