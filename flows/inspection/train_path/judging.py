"""What the device makes of images of the data set: the scores of the artifact that ships, and which pictures its
input guard refuses. One batch of pictures is in memory at a time, however many there are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge.contract import InputGuard
from edge.judge import find_fault
from edge.statistics import image_statistics
from inspection.dataset.manifest import ImageRow
from inspection.settings import Settings
from inspection.storage import open_storage
from inspection.train_path.learning import open_cache
from inspection.train_path.stored_models import fetch_model

if TYPE_CHECKING:
    from inspection.export.device import DeviceScores
    from inspection.train_path.proving import Exported

BATCH = 64  # pictures in memory at once

Change = Callable[[np.ndarray, int], np.ndarray]  # pictures uint8 [n, H, W, 3] and the batch's number -> the same


@dataclass(frozen=True)
class Judged:
    """Images as the device sees them, in the order given."""

    device: "DeviceScores"
    refused: np.ndarray  # bool [N]; such a part is an error, whatever its score

    @property
    def scores(self) -> np.ndarray:
        """Logits, float64 [N]."""
        return self.device.scores


def learn_input_guard(settings: Settings, rows: Sequence[ImageRow]) -> InputGuard:
    """The input guard that ships, learnt from these images: those of the training split."""
    from inspection.export.guard import learn_guard, measure

    batches = open_cache(settings).iter_batches([row.sha256 for row in rows], BATCH)
    return learn_guard(measure(batches), [(row.width, row.height) for row in rows], settings.input.guard_margin)


def open_artifact(settings: Settings, exported: "Exported") -> Path:
    """The artifact's file, with the very content that was exported.

    Raises:
        StorageError: it is gone or was changed.
    """
    return fetch_model(open_storage(settings.storage_root), exported.key, exported.sha256, "export")


def judge_rows(
    settings: Settings,
    exported: "Exported",
    rows: Sequence[ImageRow],
    guard: InputGuard,
    change: Change | None = None,
) -> Judged:
    """Score images with the artifact, on the device's packages, and ask the input guard about each.

    Args:
        settings: of the line.
        exported: the artifact.
        rows: images that are in the cache.
        guard: that ships with the artifact.
        change: what to do to the pictures first.

    Raises:
        DataError: an image is not in the cache.
        ConversionError: the artifact cannot be run.
        StorageError: the artifact is gone or was changed.
    """
    from inspection.export.device import score_on_device

    pictures = _Pictures(settings, rows, guard, change)
    contract, types = settings.input.contract(), exported.defect_types
    device = score_on_device(open_artifact(settings, exported), pictures, contract, settings.export, types)
    return Judged(device, np.array(pictures.refused, dtype=bool))


class _Pictures:
    """Pictures of images, read and changed as they are gone over, once; each is shown to the input guard."""

    def __init__(self, settings: Settings, rows: Sequence[ImageRow], guard: InputGuard, change: Change | None) -> None:
        self.shape = (len(rows), settings.input.height, settings.input.width, 3)
        self.refused: list[bool] = []
        self._cache = open_cache(settings)
        self._rows, self._guard, self._change = rows, guard, change

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        for number, start in enumerate(range(0, len(self._rows), BATCH)):
            some = self._rows[start : start + BATCH]
            pixels = self._cache.read([row.sha256 for row in some])
            if self._change is not None:
                pixels = self._change(pixels, number)
            for index, row in enumerate(some):
                statistics = image_statistics(pixels[index : index + 1])
                self.refused.append(find_fault(self._guard, statistics, row.width, row.height) is not None)
                yield pixels[index]
