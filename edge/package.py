"""Opens a model package: a folder with the model, its contract, golden images and their digests."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NoReturn

from edge.contract import Contract, parse_contract
from edge.detector import Detector
from edge.digest import sha256_of
from edge.errors import ContractError, PackageError

CONTRACT_FILE = "contract.json"


@dataclass(frozen=True)
class Package:
    """A package whose every file was found as its maker left it.

    Every detector is opened from the bytes that were verified: the file may change or go at any time after.
    """

    folder: Path
    contract: Contract
    model: bytes = field(repr=False)  # content of the model's file

    def open_detector(self, threads: int = 1) -> Detector:
        """A detector of its own for the package's model.

        Raises:
            ContractError: the model does not fit the contract.
            RuntimeMissingError: no TFLite runtime is installed.
        """
        contract = self.contract
        file = self.folder / contract.artifact.file
        detector = Detector(file, contract.input, contract.defect_types, threads, self.model)
        if detector.kind != contract.artifact.kind:
            raise ContractError(f"{self.folder}: want a model of kind {contract.artifact.kind}, found {detector.kind}")
        return detector


def open_package(folder: Path) -> Package:
    """Verify a package, file by file, and open its model once.

    Raises:
        PackageError, OSError: as `verify_package`; or the model does not fit the contract.
        RuntimeMissingError: no TFLite runtime is installed.
    """
    package = verify_package(folder)
    try:
        package.open_detector()
    except ContractError as error:
        raise PackageError(f"{folder}: the model does not fit the contract: {error}") from error
    return package


def verify_package(folder: Path) -> Package:
    """Verify a package, file by file, without opening its model.

    Raises:
        PackageError: a file is missing, changed, unknown or outside the folder; the contract is unreadable or of
            another version.
        OSError: the disk or this process cannot read now, which says nothing about the package.
    """
    contract = _read_contract(folder)
    return Package(folder, contract, _check_files(folder, contract))


def _read_contract(folder: Path) -> Contract:
    path = folder / CONTRACT_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, UnicodeDecodeError) as error:
        raise PackageError(f"{path}: cannot read the contract ({error}); fetch the package again") from error
    try:
        return parse_contract(text, str(path))
    except ContractError as error:
        raise PackageError(str(error)) from error


def _check_files(folder: Path, contract: Contract) -> bytes:
    """Compare the folder with the contract's list of files; returns the model's content."""
    for name in contract.files:
        _check_name(name, folder)
    for name in (contract.artifact.file, *(image.file for image in contract.self_test.images)):
        if name not in contract.files:
            raise PackageError(f"{folder}: the contract uses {name!r} but lists no digest for it")
    found = _list_files(folder)
    wanted = {*contract.files, CONTRACT_FILE}
    if found != wanted:
        missing, unknown = sorted(wanted - found), sorted(found - wanted)
        raise PackageError(f"{folder}: missing files {missing}, unknown files {unknown}; fetch the package again")
    model = b""
    for name, digest in contract.files.items():
        if name == contract.artifact.file:
            model = (folder / name).read_bytes()
            actual = hashlib.sha256(model).hexdigest()
        else:
            actual = sha256_of(folder / name)
        if actual != digest:
            raise PackageError(
                f"{folder / name}: want sha256 {digest}, found {actual}: changed after the package was made; "
                "fetch the package again"
            )
    return model


def _list_files(folder: Path) -> set[str]:
    """Names of all files below a folder."""

    def fail(error: OSError) -> NoReturn:  # a folder that cannot be read now is not an empty one
        raise error

    found = set()
    for parent, folders, files in os.walk(folder, onerror=fail):
        for entry in (*folders, *files):
            path = Path(parent, entry)
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                raise PackageError(f"{folder}: {name} is a link, which may lead anywhere; fetch the package again")
            if entry in files:
                found.add(name)
    return found


def _check_name(name: str, folder: Path) -> None:
    """Refuse names that are not plain paths below the folder."""
    path = PurePosixPath(name)
    plain = path.parts and not path.is_absolute() and ".." not in path.parts and str(path) == name
    if not plain or "\\" in name or ":" in name or name == CONTRACT_FILE:
        raise PackageError(f"{folder}: {name!r} is no name for a file of a package; fetch the package again")
