"""The digest of a file."""

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Sha256 (hex) of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
