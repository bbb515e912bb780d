"""Which images go back for review, and whether the camera still gives new pictures.

Parts are never dropped for being similar to others: a rare defect on parts that look alike is what the review is for.
"""

import hashlib
import io
import os
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
from PIL import Image

from edge.part import Part
from edge.results import Result
from edge.selection import Counts, Selector
from edge.sidecar import ImageFacts, Sidecar, sidecar_fields
from edge.spool.images import KeptImage

STUCK = "stuck"  # the error's code
USUALLY_STUCK_AFTER = 3  # equal pictures in a row, where the settings leave it open
_LARGEST_STEP = 2  # grey levels by which one pixel may differ: a speck of a defect on a rendered picture is larger
_MAX_CAMERAS = 16  # of which the last pictures are remembered
_REMEMBERED = 8  # pictures of a camera: a driver's ring of buffers that is never filled anew repeats so many at most
_SUFFIXES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"II+\0", ".tif"),
    (b"MM\0+", ".tif"),
)


@dataclass(frozen=True)
class ReviewSettings:
    """What goes back for review."""

    audit_share: float = 0.005  # of the passes, drawn at random; 0: escapes cannot be measured
    max_per_hour: int = 100  # images of one reason (review, fail, error, audit); above half of it they are thinned
    max_per_day: int = 1000  # likewise; 0: keep no images
    frame_format: str = "jpeg"  # of images from raw frames: jpeg or png; files are kept as they came
    jpeg_quality: int = 95  # 95 to 100, without colour subsampling
    stuck_after: int = -1  # so many equal pictures in a row: stuck; 0: never; -1: 3, and for folders never
    stuck_residual: float = 0.01  # grey levels of 255: mean difference below which two pictures are the same

    def check(self) -> list[str]:
        """Faults in words; empty when there are none."""
        faults = []
        if not 0 <= self.audit_share <= 1:
            faults.append(f"audit_share: want 0 to 1, found {self.audit_share}")
        for name in ("max_per_hour", "max_per_day"):
            if getattr(self, name) < 0:
                faults.append(f"{name}: want 0 or more, found {getattr(self, name)}")
        if self.frame_format not in ("jpeg", "png"):
            faults.append(f"frame_format: want jpeg or png, found {self.frame_format!r}")
        if not 95 <= self.jpeg_quality <= 100:
            faults.append(f"jpeg_quality: want 95 to 100 (less hides fine defects), found {self.jpeg_quality}")
        if self.stuck_after < -1 or self.stuck_after == 1:
            faults.append(f"stuck_after: want 0 (never), 2 and more, or -1 (usual), found {self.stuck_after}")
        if not 0 <= self.stuck_residual <= 0.5:
            faults.append(f"stuck_residual: want 0 to 0.5 grey levels, found {self.stuck_residual}")
        return faults


class ReviewPolicy:
    """Keeps the images that people should see; see `edge.selection` for the draw.

    Args:
        settings: caps, audit share and format.
        seed: makes the draws repeatable, for tests.
    """

    def __init__(self, settings: ReviewSettings, seed: int | None = None) -> None:
        self._settings = settings
        self._selector = Selector(settings.audit_share, settings.max_per_hour, settings.max_per_day, seed)

    def change(self, settings: ReviewSettings) -> None:
        """Follow changed settings from the next part on."""
        self._settings = settings
        self._selector.change(settings.audit_share, settings.max_per_hour, settings.max_per_day)

    @property
    def counts(self) -> Counts:
        """What was kept and dropped so far, by stratum."""
        return self._selector.counts

    def keep(self, result: Result, part: Part, now_s: float) -> KeptImage | None:
        """The image to keep of a part, or None. Call it once for every part, after the line has its signal.

        An error's image is kept when there is one that a person can look at: not when the source gave none, when the
        data is no picture's, or when the camera is stuck, since that picture was seen before.

        Args:
            result: the part's result; the spool numbers it later.
            part: with the file as captured, or the raw frame.
            now_s: `time.monotonic()`; caps count with it.
        """
        there = _suffix(part) is not None and result.error != STUCK
        selection = self._selector.select(result.verdict, result.label, there, now_s)
        picture = self.picture(part) if selection is not None else None
        if selection is None or picture is None:
            return None
        data, suffix = picture
        facts = ImageFacts(hashlib.sha256(data).hexdigest(), suffix, as_captured=part.data is not None)
        fields = sidecar_fields(Sidecar(result, facts, selection))
        return KeptImage(data, suffix, selection.reason, selection.probability, fields)

    def picture(self, part: Part) -> tuple[bytes, str] | None:
        """The part's image as it is kept: the file as captured or the encoded frame, and its suffix.

        None when there is nothing that a person can look at. May be called from any thread.
        """
        suffix = _suffix(part)
        if suffix is None:
            return None
        return (part.data, suffix) if part.data is not None else self._encode(part)

    def _encode(self, part: Part) -> tuple[bytes, str]:
        """The raw frame as a file, and its suffix."""
        assert part.frame is not None
        image = Image.fromarray(part.frame)
        with _memory_file() as stream:
            if self._settings.frame_format == "png":
                image.save(stream, "PNG", compress_level=1)  # higher levels cost seconds on a board and save little
            else:
                image.save(stream, "JPEG", quality=self._settings.jpeg_quality, subsampling=0)
            stream.seek(0)
            return stream.read(), f".{self._settings.frame_format}".replace("jpeg", "jpg")


def _memory_file() -> BinaryIO:
    """A file in memory. Into one of the system's Pillow writes without Python's lock, so that verdicts go on."""
    return os.fdopen(os.memfd_create("image"), "w+b") if sys.platform == "linux" else io.BytesIO()


def _suffix(part: Part) -> str | None:
    """Suffix of the part's picture by its content; None when there is nothing to look at."""
    if part.data is not None:
        return next((suffix for magic, suffix in _SUFFIXES if part.data.startswith(magic)), None)
    return None if part.frame is None else ".raw"


@dataclass
class _Seen:
    """The last pictures of a camera."""

    last: np.ndarray
    mark: int  # of the last: equal for pictures that are equal to the bit; 64 bit, of this process only
    marks: deque[int]  # of the last and those before
    times: int = 1  # the last came so many times in a row
    repeats: int = 0  # so many pictures in a row were none that is new
    repeated: set[int] = field(default_factory=set)  # these


class StuckCamera:
    """Notices a camera that gives the same picture again and again, or the same few in turn.

    Two exposures never agree to the last bit: even of a part that lies still, light and sensor differ. The mean
    difference of two exposures is 1.13 times the noise's standard deviation, whatever the rounding to whole grey
    levels does, since that shifts single pixels up as often as down. A sensor has at least half a grey level of noise
    (less would vanish in its own rounding), and averaging a picture of 3,584 px to the model's 224 px divides it by
    16, to 0.03: so pictures that differ by less than a third of that, 0.01 on average, and nowhere by more than 2 come
    from one exposure. The floor is fixed and not estimated from the stream: what is steady in a picture (texture, fixed
    patterns, a denoising camera) would pass for noise and make a still part look stuck. Pixels at 0 or 255 in both
    pictures are left out: they show no noise. A stuck video stream that keeps being compressed anew may differ by more
    and is not noticed.

    A driver may also hand out a ring of buffers that it no longer fills: the same few pictures in any order. With the
    pictures before the last one only equality to the bit counts, and each of the few must have come so many times.

    Args:
        settings: how many times in a row, and the residual.
        usual: how many times in a row when the settings leave that open. 0 for files: a folder may hold copies.
    """

    def __init__(self, settings: ReviewSettings, usual: int = USUALLY_STUCK_AFTER) -> None:
        self._settings = settings
        self._usual = usual
        self._seen: dict[str, _Seen] = {}  # by camera

    def change(self, settings: ReviewSettings) -> None:
        """Follow changed settings from the next picture on."""
        self._settings = settings

    def check(self, pixels: np.ndarray, camera: str = "") -> str | None:
        """Why the picture must not be judged: the camera is stuck; None when it may.

        Args:
            pixels: the model's input, uint8, any shape.
            camera: which one, when a source has several.
        """
        after = self._usual if self._settings.stuck_after < 0 else self._settings.stuck_after
        if not after:
            return None
        mark = hash((pixels.shape, pixels.tobytes()))
        seen = self._seen.pop(camera, None)
        if seen is None:
            seen = _Seen(pixels, mark, deque(maxlen=_REMEMBERED))
        else:
            same = _residual(pixels, seen.last, self._settings.stuck_residual) is not None
            mark = seen.mark if same else mark
            seen.times = seen.times + 1 if same else 1
            if mark in seen.marks:
                seen.repeats += 1
                seen.repeated.add(mark)
            else:
                seen.repeats, seen.repeated = 0, set()
        seen.last, seen.mark = pixels.copy(), mark  # the caller may use its memory again
        seen.marks.append(mark)
        if len(self._seen) >= _MAX_CAMERAS:
            self._seen.pop(next(iter(self._seen)))
        self._seen[camera] = seen
        few = len(seen.repeated)
        if seen.times >= after:
            what = f"the same picture came {seen.times} times in a row"
        elif few > 1 and seen.repeats >= few * (after - 1):
            what = f"the same {few} pictures came again and again, {seen.repeats + few} times in a row"
        else:
            return None
        return f"{what}, closer than sensor noise allows; check the camera, its cable and its light"


def _residual(pixels: np.ndarray, last: np.ndarray, limit: float) -> float | None:
    """Mean difference of two pictures in grey levels, or None when it is above the limit."""
    if pixels.shape != last.shape:
        return None
    if np.array_equal(pixels, last):
        return 0.0
    a, b = pixels.ravel()[::97], last.ravel()[::97]  # a glance settles nearly every case
    if np.abs(a.astype(np.int16) - b).mean() > 0.5:
        return None
    alive = ((pixels > 0) & (pixels < 255)) | ((last > 0) & (last < 255))
    difference = np.abs(pixels.astype(np.int16) - last)[alive | (pixels != last)]
    if difference.max() > _LARGEST_STEP:
        return None
    mean = float(difference.mean())
    return mean if mean <= limit else None
