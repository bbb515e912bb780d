"""Opens a model package: a folder with the model, its contract, golden images and their digests."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edge.contract import Contract, parse_contract
from edge.detector import Detector
from edge.digest import sha256_of
from edge.errors import ContractError, PackageError

CONTRACT_FILE = "contract.json"


@dataclass(frozen=True)
class Package:
    """A package whose every file was found as its maker left it."""

    folder: Path
    contract: Contract

    def open_detector(self, threads: int = 1) -> Detector:
        """A detector of its own for the package's model.

        Raises:
            ContractError: the model does not fit the contract.
            RuntimeMissingError: no TFLite runtime is installed.
        """
        contract = self.contract
        detector = Detector(self.folder / contract.artifact.file, contract.input, contract.defect_types, threads)
        if detector.kind != contract.artifact.kind:
            raise ContractError(f"{self.folder}: want a model of kind {contract.artifact.kind}, found {detector.kind}")
        return detector


def open_package(folder: Path) -> Package:
    """Verify a package, file by file, and open its model once.

    Raises:
        PackageError: as `verify_package`; or the model does not fit the contract.
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
    """
    package = Package(folder, _read_contract(folder))
    _check_files(package)
    return package


def _read_contract(folder: Path) -> Contract:
    path = folder / CONTRACT_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PackageError(f"{path}: cannot read the contract ({error}); fetch the package again") from error
    try:
        return parse_contract(text, str(path))
    except ContractError as error:
        raise PackageError(str(error)) from error


def _check_files(package: Package) -> None:
    """Compare the folder with the contract's list of files."""
    folder, contract = package.folder, package.contract
    for name in contract.files:
        _check_name(name, folder)
    found = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise PackageError(f"{folder}: {name} is a link, which may lead anywhere; fetch the package again")
        if not path.is_dir():
            found.add(name)
    wanted = {*contract.files, CONTRACT_FILE}
    if found != wanted:
        missing, unknown = sorted(wanted - found), sorted(found - wanted)
        raise PackageError(f"{folder}: missing files {missing}, unknown files {unknown}; fetch the package again")
    for name, digest in contract.files.items():
        actual = sha256_of(folder / name)
        if actual != digest:
            raise PackageError(
                f"{folder / name}: want sha256 {digest}, found {actual}: changed after the package was made; "
                "fetch the package again"
            )
    for name in (contract.artifact.file, *(image.file for image in contract.self_test.images)):
        if name not in contract.files:
            raise PackageError(f"{folder}: the contract uses {name!r} but lists no digest for it")


def _check_name(name: str, folder: Path) -> None:
    """Refuse names that are not plain paths below the folder."""
    path = PurePosixPath(name)
    plain = path.parts and not path.is_absolute() and ".." not in path.parts and str(path) == name
    if not plain or "\\" in name or ":" in name or name == CONTRACT_FILE:
        raise PackageError(f"{folder}: {name!r} is no name for a file of a package; fetch the package again")
