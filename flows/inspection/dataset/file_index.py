"""Which files of a location are known from earlier runs, so that unchanged ones are not read again."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence

from inspection.dataset.images import SourceImage
from inspection.dataset.manifest import check_schema, dump_document
from inspection.dataset.worker import FileFacts
from inspection.errors import DataError
from inspection.storage import Storage

_log = logging.getLogger(__name__)

SCHEMA = "1.0"


class FileIndex:
    """What is known of a location's files from earlier runs, so that unchanged ones are not read again."""

    def __init__(self, storage: Storage, location: str) -> None:
        self._storage = storage
        self._location = location
        self._key = f"cache/files/{hashlib.sha256(location.encode(errors='surrogateescape')).hexdigest()[:32]}.json"
        self._files = self._load()

    def facts(self, image: SourceImage) -> FileFacts | None:
        """Digest and size of the image's file; None if it is new or changed."""
        entry = self._files.get(image.uri)
        return entry[1] if entry and entry[0] == image.version else None

    def update(self, images: Sequence[SourceImage], facts: Mapping[str, FileFacts]) -> None:
        """Add what was read and forget files that are gone; written only if something changed."""
        known = {image.uri: (image.version, entry) for image in images if (entry := self.facts(image))}
        known |= {image.uri: (image.version, facts[image.uri]) for image in images if image.uri in facts}
        if known == self._files:
            return
        self._files = known
        files = {uri: [version, entry.sha256, entry.width, entry.height] for uri, (version, entry) in known.items()}
        document = {"schema": SCHEMA, "requires": [], "location": self._location, "files": files}
        self._storage.write(self._key, dump_document(document).encode())

    def _load(self) -> dict[str, tuple[str, FileFacts]]:
        if not self._storage.exists(self._key):
            return {}
        try:
            document = json.loads(self._storage.read(self._key))
            check_schema(document, self._key)
            return {uri: (version, FileFacts(*rest)) for uri, (version, *rest) in document["files"].items()}
        except (ValueError, LookupError, TypeError, AttributeError, DataError) as error:
            _log.warning("event=file_index_damaged key=%s error=%r every_file_is_read_again=true", self._key, error)
            return {}
