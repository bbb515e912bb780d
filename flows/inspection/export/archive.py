"""A package as one file: a zip whose bytes depend on the package alone, and its safe opening."""

import shutil
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from edge.digest import sha256_of
from edge.errors import EdgeError
from edge.package import Package, open_package
from inspection.errors import PackageError

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
UNIX = 3  # the system that an entry's permissions are meant for
PERMISSIONS = 0o644
MAX_BYTES = 2_000_000_000  # unpacked; beyond it an archive is no package of ours


def archive_package(folder: Path, archive: Path) -> str:
    """Pack a folder; the same files give the same bytes on every machine and at any time.

    Entries are stored, not compressed: a compressor's output changes with its version, and a model and PNG images
    would shrink little.

    Args:
        folder: an opened or built package.
        archive: the zip to write, whole or not at all; replaced when it exists.

    Returns:
        Its sha256 (hex), which the registry keeps.

    Raises:
        PackageError: the folder is not a package that the device opens.
    """
    _open(folder)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".archive-", dir=archive.parent) as name:
        partial = Path(name) / archive.name
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as target:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), EPOCH)
                entry.create_system = UNIX
                entry.external_attr = (stat.S_IFREG | PERMISSIONS) << 16
                target.writestr(entry, path.read_bytes())
        digest = sha256_of(partial)
        partial.replace(archive)
    return digest


def read_archive(archive: Path, sha256: str, folder: Path) -> Package:
    """Verify an archive, unpack it and open the package.

    Args:
        archive: the zip.
        sha256: what the registry keeps of it, hex.
        folder: where to unpack; it must not exist yet, and appears only when all is verified.

    Raises:
        PackageError: the archive or a file in it was changed, an entry would leave the folder, or it is no package.
    """
    if folder.exists():
        raise PackageError(f"{folder}: exists already; unpack the archive into a new folder")
    try:
        found = sha256_of(archive)
    except OSError as error:
        raise PackageError(f"{archive}: cannot read the package's archive ({error})") from error
    if found != sha256:
        raise PackageError(
            f"{archive}: want sha256 {sha256}, found {found}: changed after it was registered; fetch it again"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _unpack(archive, work)
        _open(work)
        work.chmod(0o755)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _open(folder)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as source:
            entries = source.infolist()
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise PackageError(f"{archive}: unpacks to more than {MAX_BYTES:,} bytes; this is no model package")
            for entry in entries:
                target = folder / _safe_name(entry, archive)
                target.parent.mkdir(parents=True, exist_ok=True)
                with source.open(entry) as stream, target.open("xb") as sink:
                    shutil.copyfileobj(stream, sink)
    except (zipfile.BadZipFile, FileExistsError, NotImplementedError, OSError) as error:
        raise PackageError(f"{archive}: cannot be unpacked ({error}); fetch it again") from error


def _safe_name(entry: zipfile.ZipInfo, archive: Path) -> str:
    """The entry's path when it is a plain file below the folder."""
    path = PurePosixPath(entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    plain = kind in (0, stat.S_IFREG) and not entry.is_dir() and str(path) == entry.filename
    if not plain or path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in entry.filename:
        raise PackageError(f"{archive}: {entry.filename!r} is no plain file below the package's folder; refused")
    return entry.filename


def _open(folder: Path) -> Package:
    try:
        return open_package(folder)
    except EdgeError as error:
        raise PackageError(str(error)) from error
