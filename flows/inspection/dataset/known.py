"""What earlier runs found out about a set, so that images that did not change are neither read nor decoded again.

    cache/facts/<digest>.jsonl         what was measured of each image, then the thumbnails
    cache/examinations/<digest>.json   what a whole set's examination found; the digest names every image and setting

Both can be made again: what is damaged costs a reading. Files that the system refused to give are not remembered, as
permissions change without a trace in the file.
"""

import dataclasses
import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from inspection.dataset.annotations import MaskFacts
from inspection.dataset.examine import Examination, examine
from inspection.dataset.findings import Finding
from inspection.dataset.image_facts import THUMBNAIL_PX, ImageFacts
from inspection.dataset.images import MISSING, Source, SourceImage
from inspection.dataset.looking import Target
from inspection.dataset.manifest import check_schema, dump_document
from inspection.errors import DataError
from inspection.settings import Settings
from inspection.storage import Storage

_log = logging.getLogger(__name__)

SCHEMA = "1.0"
CHECKS_VERSION = 2  # raise it when the checks measure or find something else in the same images
_PASSING = frozenset({"unreadable-file", "mask-unreadable"})  # findings that may be gone though no file changed
_UNRELATED = ("source", "drop_bad_images", "group_near_duplicates", "sample_images", "sample_seed")  # keys of [data]
_THUMBNAIL_BYTES = THUMBNAIL_PX * THUMBNAIL_PX
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, DataError)


def examine_known(
    images: Sequence[SourceImage],
    source: Source,
    settings: Settings,
    storage: Storage,
    masks: Mapping[str, str],
    workers: int | None = None,
    progress: bool = True,
    with_facts: bool = True,
    target: Target | None = None,
) -> Examination:
    """Examine a set, reading only what is new or changed since the last time.

    Args:
        images: as the source lists them.
        source: reads them.
        settings: of the line.
        storage: remembers.
        masks: sha256 by uri of the masks that could be read.
        workers: threads or processes; default one per core.
        progress: show bars on stderr if that is a terminal.
        with_facts: False: an examination that is known comes without its facts, which are large.
        target: cache that the pixels of the images that are read go into; None: nowhere.
    """
    versions = {image.uri: _version(image, masks) for image in images}
    key = _examination_key(images, versions, source.location, settings)
    before = _load_examination(storage, key)
    if before is not None and not with_facts:
        return before
    memory = _Memory(storage, source.location, settings)
    known = memory.load(versions)
    if before is not None and len(known) + len(before.faults) == len(images):
        return dataclasses.replace(
            before, facts={image.uri: known[image.uri] for image in images if image.uri in known}
        )
    found = examine(
        images,
        source,
        settings,
        workers=workers,
        progress=progress,
        suspicious_labels=settings.data.suspicious_labels,
        known=known,
        target=target,
    )
    if found.facts.keys() != known.keys():
        memory.store(found.facts, versions)
    if not any(finding.code in _PASSING for finding in found.findings):
        _store_examination(storage, key, found)
    return found


def _version(image: SourceImage, masks: Mapping[str, str]) -> str:
    """Changes when the image or its mask does; empty where that cannot be known."""
    if image.version == MISSING:
        return ""
    mask = f"{masks.get(image.mask, '')}{image.mask_colors or ''}" if image.mask else ""
    return f"{image.version}|{mask}" if mask else image.version


def _examination_key(
    images: Sequence[SourceImage], versions: Mapping[str, str], location: str, settings: Settings
) -> str:
    data = {
        name: value for name, value in dataclasses.asdict(cast(Any, settings.data)).items() if name not in _UNRELATED
    }
    sections = ["input", "operating_point", *(["training"] if settings.data.suspicious_labels else [])]
    digest = hashlib.sha256(
        json.dumps([CHECKS_VERSION, location, data, settings.digest(*sections)], sort_keys=True).encode()
    )
    for image in images:
        digest.update(repr((image, versions[image.uri])).encode(errors="surrogateescape"))
    return f"cache/examinations/{digest.hexdigest()[:32]}.json"


def _load_examination(storage: Storage, key: str) -> Examination | None:
    if not storage.exists(key):
        return None
    try:
        document = json.loads(storage.read(key))
        check_schema(document, key)
        findings = tuple(
            Finding(**{**fields, "images": tuple(tuple(uris) for uris in fields["images"])})
            for fields in document["findings"]
        )
        alike = tuple(tuple(uris) for uris in document["alike"])
        return Examination({}, document["faults"], findings, document["seconds"], alike)
    except _DAMAGE as error:
        _log.warning("event=examination_damaged key=%s error=%r examined_again=true", key, error)
        return None


def _store_examination(storage: Storage, key: str, examination: Examination) -> None:
    document = {
        "schema": SCHEMA,
        "requires": [],
        "faults": examination.faults,
        "findings": [dataclasses.asdict(finding) for finding in examination.findings],
        "alike": examination.alike,
        "seconds": round(examination.seconds, 3),
    }
    storage.write(key, dump_document(document).encode())


class _Memory:
    """What was measured of the images of a location, on pictures decoded under one contract."""

    def __init__(self, storage: Storage, location: str, settings: Settings) -> None:
        contract = settings.input.contract()
        content = repr([CHECKS_VERSION, location, contract.digest_fields()])
        self._storage = storage
        self._location = location
        self._key = f"cache/facts/{hashlib.sha256(content.encode(errors='surrogateescape')).hexdigest()[:32]}.jsonl"

    def load(self, versions: Mapping[str, str]) -> dict[str, ImageFacts]:
        """Facts of the images that have the same version still."""
        if not self._storage.exists(self._key):
            return {}
        try:
            return self._read(self._storage.local_copy(self._key), versions)
        except _DAMAGE as error:
            _log.warning("event=facts_damaged key=%s error=%r every_image_is_read_again=true", self._key, error)
            return {}

    def store(self, facts: Mapping[str, ImageFacts], versions: Mapping[str, str]) -> None:
        """Replace what is remembered of this location."""
        kept = {uri: fact for uri, fact in facts.items() if versions[uri]}
        header = {"schema": SCHEMA, "requires": [], "location": self._location, "rows": len(kept)}
        with tempfile.TemporaryDirectory(prefix="lineside-") as folder:
            path = Path(folder) / "facts.jsonl"
            with path.open("wb") as file:  # not in memory: 200,000 images are 300 MB
                file.write(dump_document(header).encode() + b"\n")
                for uri, fact in kept.items():
                    file.write(json.dumps([versions[uri], *_to_row(fact)]).encode() + b"\n")
                for fact in kept.values():
                    file.write(fact.thumbnail)
            self._storage.upload(path, self._key)

    def _read(self, path: Path, versions: Mapping[str, str]) -> dict[str, ImageFacts]:
        known: dict[str, ImageFacts] = {}
        with path.open("rb") as file:
            header = json.loads(file.readline())
            check_schema(header, self._key)
            rows = [json.loads(file.readline()) for _ in range(header["rows"])]
            for version, *row in rows:
                thumbnail = file.read(_THUMBNAIL_BYTES)
                if len(thumbnail) != _THUMBNAIL_BYTES:
                    raise DataError(f"{self._key}: ends too early")
                fact = _from_row(row, thumbnail)
                if version and versions.get(fact.uri) == version:
                    known[fact.uri] = fact
        return known


_FIELDS = tuple(one.name for one in dataclasses.fields(ImageFacts) if one.name not in ("thumbnail", "mask"))


def _to_row(fact: ImageFacts) -> list[Any]:
    mask = None if fact.mask is None else dataclasses.astuple(fact.mask)
    return [*(getattr(fact, name) for name in _FIELDS), mask]


def _from_row(row: list[Any], thumbnail: bytes) -> ImageFacts:
    *values, mask = row
    fields = dict(zip(_FIELDS, values, strict=True))
    return ImageFacts(**fields, thumbnail=thumbnail, mask=None if mask is None else MaskFacts(*mask))
