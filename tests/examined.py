"""Sets of small pictures for tests of what the checks find: parts in a fixture, and a source that reads from memory."""

import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from inspection.dataset.examine import Examination, examine
from inspection.dataset.images import SourceImage
from inspection.settings import Settings, parse_settings


@dataclass
class MemorySource:
    """A source whose files are in memory."""

    files: dict[str, bytes]
    listed: list[SourceImage] = field(default_factory=list)
    location: str = "memory"

    def images(self) -> list[SourceImage]:
        return self.listed

    def fetch(self, uris: object, progress: bool = True) -> None:
        pass

    def read(self, uri: str) -> bytes:
        if uri not in self.files:
            raise FileNotFoundError(2, "No such file or directory", uri)
        return self.files[uri]

    def add(self, uri: str, data: bytes, **fields: object) -> None:
        """An image of this content; good unless its uri begins with another folder's name."""
        label = "good" if "good" in uri.split("/") else "bad"
        values: dict = {"version": "1", "label": label, "defect_type": None, "mask": None, "group": uri, **fields}
        self.files[uri] = data
        self.listed.append(SourceImage(uri=uri, **values))

    def codes(self, **options: object) -> dict[str, tuple[tuple[str, ...], ...]]:
        """What is found in these images: code to groups of uris."""
        return {finding.code: finding.images for finding in self.examine(**options).findings}

    def examine(self, workers: int = 1, suspicious_labels: bool = False, **sections: dict) -> Examination:
        return examine(
            self.listed, self, make_settings(**sections), workers, progress=False, suspicious_labels=suspicious_labels
        )


def make_settings(**sections: dict) -> Settings:
    return parse_settings({"line": {"name": "bottles"}, **sections}, "test")


def encode(picture: Image.Image | np.ndarray, suffix: str = "PNG", **options: object) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, suffix, **options)
    return buffer.getvalue()


def smooth_picture(seed: int, size: tuple[int, int] = (96, 72), cells: int = 6) -> Image.Image:
    """A smooth random picture with a little noise, another one for each seed."""
    rng = np.random.default_rng([seed, 1])
    blobs = rng.integers(20, 235, (cells, cells, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(blobs).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    return Image.fromarray(np.clip(pixels + rng.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8))


def fixtured_part(seed: int, size: tuple[int, int] = (160, 120), shift: float = 0.4) -> Image.Image:
    """A part in its fixture: all alike but for camera noise, a little light, texture and play."""
    rng = np.random.default_rng([seed, 2])
    y, x = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float32)
    centre = size[0] / 2 + rng.normal(0, shift), size[1] / 2 + rng.normal(0, shift)
    radius = np.hypot(x - centre[0], y - centre[1])
    grey = 60 + 90 / (1 + np.exp((radius - 0.38 * size[1]) / 1.2)) - 70 / (1 + np.exp((radius - 0.12 * size[1]) / 1.2))
    grey += rng.normal(0, 3) + rng.normal(0, 4) * (x / size[0] - 0.5) + rng.normal(0, 4) * (y / size[1] - 0.5)
    texture = np.asarray(Image.fromarray(rng.normal(0, 6, (15, 20)).astype(np.float32)).resize(size), np.float32)
    grey = grey + texture + rng.normal(0, 4, grey.shape)
    colour = grey[..., None] * np.array([1.0, 0.97, 0.9], dtype=np.float32)
    return Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8))
