"""What varies from lot to lot and from part to part, drawn from a seed.

A lot shares its bar of metal, its tool, its lamp's age and its belt; a part adds its place under the camera, what
the lamp and the camera do at that moment, and perhaps a defect. Lengths are in pixels of the finished picture, and
the origin is the centre of the part.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

SIZE_PX = 320

Array = np.ndarray


@dataclass(frozen=True)
class Lot:
    """One lot of parts: metal, tool marks, lamp and belt."""

    number: int
    tone: float  # reflectance of the metal
    tint: Array  # float32 [3], colour of the metal under the lamp
    groove_depth: float  # strength of the turning marks, 0..1
    gloss: float  # width of the highlight of the turned face; small = sharp
    light_azimuth: float  # rad
    light_elevation: float  # rad
    light_level: float
    belt_tone: float
    belt_pitch: float  # px between the threads of the belt
    streaks: Array  # float32 [angles, radii], turning marks about 0, standard deviation 1
    belt: Array  # float32 [2 * SIZE_PX, 2 * SIZE_PX], texture of the belt about 0


def draw_lot(seed: int, number: int) -> Lot:
    """The lot with this number, the same for the same seed."""
    rng = np.random.default_rng([seed, number])
    pitch = rng.uniform(0.7, 1.6)  # px, of the tool's feed
    streaks = gaussian_filter(rng.standard_normal((512, 640), dtype=np.float32), (22, pitch), mode="wrap", truncate=2.0)
    rings = gaussian_filter1d(rng.standard_normal(640).astype(np.float32), pitch)
    streaks = streaks / streaks.std() + 0.9 * rings / rings.std()
    belt = gaussian_filter(rng.standard_normal((2 * SIZE_PX, 2 * SIZE_PX), dtype=np.float32), 0.8, mode="wrap")
    warmth = rng.normal(0.0, 0.010)
    return Lot(
        number=number,
        tone=rng.uniform(0.44, 0.50),
        tint=np.array([1.0 + warmth, 1.0, 1.0 - warmth + rng.uniform(0.01, 0.03)], np.float32),
        groove_depth=rng.uniform(0.032, 0.050),
        gloss=rng.uniform(0.38, 0.44),
        light_azimuth=rng.normal(-2.2, 0.08),
        light_elevation=rng.uniform(0.96, 1.02),
        light_level=rng.uniform(0.96, 1.04),
        belt_tone=rng.uniform(0.24, 0.28),
        belt_pitch=rng.uniform(5.4, 6.0),
        streaks=(streaks / streaks.std()).astype(np.float32),
        belt=belt / belt.std(),
    )


@dataclass(frozen=True)
class Pose:
    """Where a part lies: its centre in the picture (px) and its rotation (rad)."""

    x_px: float
    y_px: float
    rotation: float

    @cached_property
    def grid(self) -> tuple[Array, Array]:
        """Picture coordinates about the part's centre: x [1, SIZE_PX] and y [SIZE_PX, 1], float32."""
        axis = np.arange(SIZE_PX, dtype=np.float32)
        return (axis - self.x_px)[None, :], (axis - self.y_px)[:, None]

    @cached_property
    def radius(self) -> Array:
        """Distance to the part's centre, float32 [SIZE_PX, SIZE_PX]."""
        x, y = self.grid
        return np.sqrt(x * x + y * y) + np.float32(1e-3)

    @cached_property
    def angle(self) -> Array:
        """Angle in the part's own frame (rad), float32 [SIZE_PX, SIZE_PX]."""
        x, y = self.grid
        return np.arctan2(y, x) - np.float32(self.rotation)

    def to_picture(self, u: Array | float, v: Array | float) -> tuple[Array, Array]:
        """Points of the part's own frame in pixels of the picture."""
        c, s = np.cos(self.rotation), np.sin(self.rotation)
        return np.asarray(self.x_px + c * u - s * v), np.asarray(self.y_px + s * u + c * v)


def draw_pose(rng: np.random.Generator) -> Pose:
    """A part as the feeder lays it down: nearly centred, nearly straight."""
    x, y = SIZE_PX / 2 + rng.uniform(-7.0, 7.0, 2)
    return Pose(float(x), float(y), float(np.deg2rad(rng.uniform(-6.0, 6.0))))
