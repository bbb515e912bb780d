"""Reads what a card says and shows."""

import base64
from typing import Any

import numpy as np
from metaflow.cards import Image as CardImage
from metaflow.cards import Markdown, Table

PNG = b"\x89PNG\r\n\x1a\n"


def flatten(components: Any) -> list[Any]:
    """All components, those inside of tables too."""
    found = []
    for one in components:
        found.append(one)
        if isinstance(one, Table):
            found += flatten(cell for row in one._data for cell in row)
    return found


def text_of(components: Any) -> str:
    """All text of a card, table headers too."""
    texts = []
    for one in flatten(components):
        if isinstance(one, Markdown):
            texts.append(one._text)
        if isinstance(one, Table):
            texts.append(" | ".join(one._headers))
        if isinstance(one, CardImage) and one._label:
            texts.append(one._label)
    return "\n".join(texts)


def pictures_of(components: Any) -> list[CardImage]:
    return [one for one in flatten(components) if isinstance(one, CardImage)]


def make_picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (32, 32, 3)).astype(np.uint8)


def base64_of(source: str) -> bytes:
    data = base64.b64decode(source.split(",", 1)[1])
    assert data.startswith(PNG)
    return data
