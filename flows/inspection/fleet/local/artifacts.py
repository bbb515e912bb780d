"""Brings a component version onto a device: its artifacts checked and unpacked, whole or not at all."""

import logging
import shutil
import stat
import uuid
import zipfile
from pathlib import Path, PurePosixPath

from edge.digest import sha256_of
from inspection.errors import RolloutError
from inspection.fleet.local.cloud import Cloud
from inspection.fleet.local.documents import read_document, write_document
from inspection.fleet.local.folders import DeviceFolder
from inspection.fleet.local.recipe_reading import ComponentRecipe, read_recipe

log = logging.getLogger(__name__)


def fetch(cloud: Cloud, folder: DeviceFolder, thing: str, name: str, version: str) -> ComponentRecipe:
    """Have a component version on the device; what is there already is used.

    Everything is unpacked beside its place and renamed, the recipe comes last: a kill leaves nothing half done that
    would count.

    Raises:
        RolloutError: there is no such version, an artifact is not what was published, or not for this machine.
        OSError: the disk refuses.
    """
    there = load(folder, thing, name, version)
    if there is not None:
        return there
    document = cloud.document(name, version)
    if document is None:
        raise RolloutError(f"{name}: want version {version}, found none in the cloud; publish it first")
    recipe = cloud.recipe(name, version)
    wanted = read_recipe(recipe, folder, thing)
    staged = folder.staging / uuid.uuid4().hex
    fetched = 0
    try:
        for kind in ("plain", "unpacked"):
            (staged / kind).mkdir(parents=True)
        for artifact in wanted.artifacts:
            source = cloud.artifact(name, version, artifact.file)
            found = sha256_of(source) if source.is_file() else "no file"
            if found != document["artifacts"].get(artifact.file):
                raise RolloutError(
                    f"{name} {version}: {artifact.file}: want sha256 {document['artifacts'].get(artifact.file)}, "
                    f"found {found}; it was changed after it was published: publish the component again under a higher "
                    "version"
                )
            fetched += source.stat().st_size
            if artifact.unpack:
                _unpack(source, staged / "unpacked" / Path(artifact.file).stem, f"{name} {version}: {artifact.file}")
            else:
                shutil.copyfile(source, staged / "plain" / artifact.file)
        _replace(staged / "plain", folder.artifacts(name, version))
        _replace(staged / "unpacked", folder.unpacked(name, version))
        note = folder.recipe(name, version)
        note.parent.mkdir(parents=True, exist_ok=True)
        write_document(note, {"recipe": recipe})
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    log.info("event=component_fetched name=%s version=%s bytes=%d", name, version, fetched)
    return wanted


def load(folder: DeviceFolder, thing: str, name: str, version: str) -> ComponentRecipe | None:
    """A component version that is on the device; None when it is not, or not whole."""
    document = read_document(folder.recipe(name, version))
    whole = document is not None and folder.unpacked(name, version).is_dir()
    return read_recipe(document["recipe"], folder, thing) if document is not None and whole else None


def remove_others(folder: DeviceFolder, keep: set[tuple[str, str]]) -> None:
    """Delete every component version but these; the recipe goes first, so that a kill leaves none that would count."""
    for kind in ("recipes", "artifacts", "artifacts-unarchived"):
        for version in (folder.root / "packages" / kind).glob("*/*"):
            if (version.parent.name, version.name) not in keep:
                shutil.rmtree(version, ignore_errors=True)
                log.info("event=artifacts_deleted kind=%s name=%s version=%s", kind, version.parent.name, version.name)
        for name in (folder.root / "packages" / kind).glob("*"):
            if name.is_dir() and not any(name.iterdir()):
                name.rmdir()


def _replace(staged: Path, place: Path) -> None:
    if place.exists():  # of a fetch that was killed before its recipe came
        shutil.rmtree(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(place)


def _unpack(archive: Path, target: Path, what: str) -> None:
    """Unpack a zip of plain files; nothing leaves the target.

    Raises:
        RolloutError: it is no zip, or has links or names that lead elsewhere.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            for entry in file.infolist():
                path = PurePosixPath(entry.filename)
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or stat.S_ISLNK(kind):
                    raise RolloutError(f"{what}: want plain files below the archive, found {entry.filename!r}")
                file.extract(entry, target)
            target.mkdir(parents=True, exist_ok=True)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise RolloutError(f"{what}: cannot unpack it ({error}); build the component again") from error
