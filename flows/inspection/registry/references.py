"""Checks a finished package before it is registered."""

from edge.digest import sha256_of
from inspection.errors import PackageError, RegistryError
from inspection.registry.interface import SHA256, PackageReference, check_line


def check_reference(package: PackageReference) -> None:
    """Refuse a package that could not be traced or is not what it says.

    Raises:
        RegistryError: its lineage is incomplete, or its line or digest is none.
        PackageError: the archive is missing or was changed.
    """
    check_line(package.line)
    for name in ("contract_version", "snapshot", "run"):
        if not getattr(package, name):
            raise RegistryError(f"package of line {package.line}: {name}: want text, found nothing; lineage needs it")
    if not SHA256.fullmatch(package.archive_sha256):
        raise RegistryError(
            f"package of line {package.line}: archive_sha256: want 64 hexadecimal digits, "
            f"found {package.archive_sha256!r}"
        )
    if not package.archive.is_file():
        raise PackageError(f"{package.archive}: want the package's archive, found no file; build the package again")
    found = sha256_of(package.archive)
    if found != package.archive_sha256:
        raise PackageError(
            f"{package.archive}: the archive was changed after it was made: want sha256 {package.archive_sha256}, "
            f"found {found}; build the package again"
        )
