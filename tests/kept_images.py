"""A spool with kept images that wait for the uploader."""

import hashlib
from pathlib import Path
from typing import Any

from edge.results import Result
from edge.sidecar import ImageFacts, Selection, Sidecar, sidecar_fields
from edge.spool.images import KeptImage
from edge.spool.settings import SpoolSettings
from edge.spool.spool import Spool

CAPTURED_AT = 1_770_000_000.0  # 2026-02-02 in UTC


def image_bytes(index: int, size: int = 2000) -> bytes:
    """Bytes that no other index has; no uploader looks into an image."""
    return hashlib.sha256(str(index).encode()).digest() * (size // 32)


def keep_images(spool: Spool, count: int, start: int = 0, size: int = 2000) -> None:
    """Put fails with images, and wait until they are on disk."""
    for index in range(start, start + count):
        result = Result(
            thing="press-3",
            sequence=0,
            source_key=f"part-{index}",
            line="tiny",
            captured_at=CAPTURED_AT + index,
            verdict="fail",
            action="reject",
            score=2.0,
        )
        data = image_bytes(index, size)
        facts = ImageFacts(hashlib.sha256(data).hexdigest(), ".jpg", as_captured=True)
        fields: dict[str, Any] = sidecar_fields(Sidecar(result, facts, Selection("fail", 1.0, 0.005, "fail/-/fail")))
        spool.put(result, KeptImage(data, ".jpg", "fail", 1.0, fields))
    assert spool.flush(30)


def make_spool(folder: Path, count: int, size: int = 2000) -> Path:
    """A spool folder that nobody uses, with so many images."""
    spool = Spool(folder, "press-3", SpoolSettings())
    keep_images(spool, count, size=size)
    spool.close()
    return folder
