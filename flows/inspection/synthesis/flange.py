"""The product: a turned flange with a bore, three sleeved bolt holes and an ink-jet code, lit and shaded.

The turned faces reflect as fine concentric grooves do: bright where the groove runs across the light (the two
wedges that every turned disc shows), which makes dents and scratches visible by their slope alone.
Source of the reflection model: Ward, "Measuring and modeling anisotropic reflection", SIGGRAPH 1992, simplified.
"""

from dataclasses import dataclass, field

import numpy as np

from inspection.synthesis.scene import SIZE_PX, Array, Lot, Pose

OUTER_PX = 132.0
BOSS_PX = 62.0
BORE_PX = 33.0
SLEEVE_PX = 19.0
HOLE_PX = 10.0
HOLES = 3
HOLE_CIRCLE_PX = 96.0
FIRST_HOLE = np.pi / 6  # rad; the mark lies between two holes
CHAMFER_PX = 4.0
MARK_TOP_PX = 81.0  # of the mark's first row, below the centre
MARK_PITCH_PX = 3.5  # between dots
FACE_PX = (BOSS_PX + 6.0, OUTER_PX - 8.0)  # radii between which the face is flat

CODE = "LS40"
INK = (1.6, 0.3, 1.1)  # absorption of red, green, blue: the green of an ink-jet code
SLEEVE = (0.16, 0.40, 0.85)  # reflectance of the bearing sleeves in the bolt holes: blue polymer

FONT = {  # 5 x 7 dots, a row per string
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
}


def zeros() -> Array:
    """An empty layer of the picture, float32 [SIZE_PX, SIZE_PX]."""
    return np.zeros((SIZE_PX, SIZE_PX), np.float32)


@dataclass
class Damage:
    """What is wrong with a part, as layers that the shading takes in; the default is a good part."""

    mask: Array | None = None  # bool [SIZE_PX, SIZE_PX], where the defect is
    height: Array = field(default_factory=zeros)  # px, added to the surface
    film: Array = field(default_factory=zeros)  # optical density of what lies on the surface
    film_colour: tuple[float, float, float] = (1.0, 1.0, 1.0)  # absorption of red, green, blue
    matte: Array = field(default_factory=zeros)  # 0..1, share of the highlight that is lost
    bare: Array = field(default_factory=zeros)  # 0..1, freshly torn metal, bright from every side
    gap: Array = field(default_factory=zeros)  # 0..1, where the metal is open and light does not return
    missing_holes: frozenset[int] = frozenset()
    missing_characters: frozenset[int] = frozenset()


def mark_dots(text: str, missing: frozenset[int] = frozenset()) -> Array:
    """Centres of the mark's dots in the part's own frame, float [dots, 2], without the missing characters."""
    width = (6 * len(text) - 2) * MARK_PITCH_PX
    dots = [
        (6 * index + column, row)
        for index, character in enumerate(text)
        if index not in missing
        for row, line in enumerate(FONT[character].split())
        for column, dot in enumerate(line)
        if dot == "1"
    ]
    return np.array(dots, float).reshape(-1, 2) * MARK_PITCH_PX + [-width / 2, MARK_TOP_PX]


def hole_centre(index: int) -> tuple[float, float]:
    """Centre of a bolt hole in the part's own frame."""
    angle = FIRST_HOLE + index * 2 * np.pi / HOLES
    return HOLE_CIRCLE_PX * np.cos(angle), HOLE_CIRCLE_PX * np.sin(angle)


def print_dots(x: Array, y: Array, radius_px: float) -> Array:
    """Round dots of ink at the centres `x`, `y` in pixels: coverage 0..1, float32 [SIZE_PX, SIZE_PX]."""
    ink = zeros()
    reach = int(np.ceil(radius_px)) + 1
    window = np.arange(-reach, reach + 1)
    for cx, cy in zip(x, y, strict=True):
        left, top = round(cx), round(cy)
        distance = np.hypot((left + window - cx)[None, :], (top + window - cy)[:, None])
        area = ink[top - reach : top + reach + 1, left - reach : left + reach + 1]
        np.maximum(area, np.clip(radius_px + 0.5 - distance, 0, 1), out=area)
    return ink


def _holes(pose: Pose, missing: frozenset[int]) -> tuple[Array, Array, Array]:
    """Distance to the nearest bolt hole's centre and the unit vector away from it, in the picture's frame."""
    step = np.float32(2 * np.pi / HOLES)
    sector = np.rint((pose.angle - np.float32(FIRST_HOLE)) / step)
    x, y = pose.grid
    direction = sector * step + np.float32(FIRST_HOLE + pose.rotation)
    dx, dy = x - HOLE_CIRCLE_PX * np.cos(direction), y - HOLE_CIRCLE_PX * np.sin(direction)
    distance = np.sqrt(dx * dx + dy * dy) + np.float32(1e-3)
    away_x, away_y = dx / distance, dy / distance
    if missing:
        distance[np.isin(sector % HOLES, list(missing))] = SIZE_PX
    return distance, away_x, away_y


def _step(distance: Array) -> Array:
    """1 where `distance` > 0, 0 where < 0, with an edge one pixel wide."""
    return np.clip(distance + np.float32(0.5), 0, 1)


def _ridge(distance: Array, width: float) -> Array:
    """1 within `width` of 0, falling to 0 over a pixel."""
    return np.clip(np.float32(width / 2 + 0.5) - np.abs(distance), 0, 1)


def shade(lot: Lot, pose: Pose, damage: Damage, azimuth: float, elevation: float, rng: np.random.Generator) -> Array:
    """The light that comes back from the part and its belt.

    Args:
        lot: metal, tool marks, belt.
        pose: where the part lies.
        damage: what is wrong with it.
        azimuth, elevation: of the lamp (rad).
        rng: draws which piece of the belt and which turn of the tool marks is seen.

    Returns:
        float32 [SIZE_PX, SIZE_PX, 3], linear, about 0..1.
    """
    x, y = pose.grid
    r = pose.radius
    hole, away_x, away_y = _holes(pose, damage.missing_holes)
    dots = mark_dots(CODE, damage.missing_characters)
    ink = print_dots(*pose.to_picture(dots[:, 0], dots[:, 1]), 1.8)
    slope_y, slope_x = np.gradient(damage.height)
    edge = (  # slope outwards of what was turned: chamfers of the rim, the boss and the bore
        -0.9 * _ridge(r - (OUTER_PX - CHAMFER_PX / 2), CHAMFER_PX)
        - 0.7 * _ridge(r - BOSS_PX, 3.0)
        + 0.8 * _ridge(r - (BORE_PX + 1.5), 3.0)
    ) / r
    lamp = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    half = lamp + np.array([0.0, 0.0, 1.0])
    half = (half / np.linalg.norm(half)).astype(np.float32)
    glint = np.exp(-((slope_x + half[0] / half[2]) ** 2 + (slope_y + half[1] / half[2]) ** 2) / 0.012)
    slope_x += edge * x
    slope_y += edge * y
    along_x, along_y = -y / r, x / r  # direction of the grooves
    along = along_x * half[0] + along_y * half[1] + (along_x * slope_x + along_y * slope_y) * half[2]
    across = -along_y * half[0] + along_x * half[1] + (along_x * slope_y - along_y * slope_x) * half[2]
    marks = lot.streaks[_index(pose.angle * (512 / (2 * np.pi)) + rng.uniform(0, 512), 512), _index(r * 3, 640)]
    turned = np.exp(-((along / (0.55 * lot.gloss)) ** 2) - (across / 0.75) ** 2)
    turned *= 1 + 1.6 * lot.groove_depth * marks
    diffuse = (lamp[2] - slope_x * lamp[0] - slope_y * lamp[1]) / np.sqrt(1 + slope_x**2 + slope_y**2)
    diffuse = np.maximum(diffuse, 0) * (1 + 0.5 * lot.groove_depth * marks)
    light = lot.tone * (0.18 + 0.42 * diffuse + 0.62 * turned * (1 - damage.matte))
    light += 0.55 * glint
    light += damage.bare * (1.1 - light)
    light *= 1 - 0.98 * damage.gap

    towards = (x * np.float32(lamp[0]) + y * np.float32(lamp[1])) / r
    wall = 0.15 + 0.14 * np.clip(-towards, 0, 1) * np.clip((r - BORE_PX + 10) / 10, 0, 1)
    bore = _step(BORE_PX - r)
    light += bore * (wall - light)
    metal = light[..., None] * lot.tint
    density = damage.film[..., None] * np.array(damage.film_colour, np.float32)
    metal *= np.exp(-density - 1.2 * ink[..., None] * np.array(INK, np.float32))
    facing = away_x * np.float32(lamp[0]) + away_y * np.float32(lamp[1])
    sleeve = 0.5 + 0.22 * facing * _ridge(hole - (SLEEVE_PX - 2), 2.0) - 0.2 * facing * _ridge(hole - HOLE_PX - 1, 2.0)
    metal += _step(SLEEVE_PX - hole)[..., None] * (sleeve[..., None] * np.array(SLEEVE, np.float32) - metal)
    inside = 0.17 + 0.14 * np.clip(-facing, 0, 1) * np.clip((hole - HOLE_PX + 5) / 5, 0, 1)
    metal += _step(HOLE_PX - hole)[..., None] * (inside[..., None] - metal)
    shadow = _shadow(x, y, lamp)
    belt = _belt(lot, pose, rng) * shadow
    part = _step(OUTER_PX - r)[..., None]
    return belt[..., None] * np.array([0.94, 1.0, 1.03], np.float32) * (1 - part) + metal * part


def _index(position: Array, length: int) -> Array:
    return position.astype(np.int32) % length


def _belt(lot: Lot, pose: Pose, rng: np.random.Generator) -> Array:
    """The belt below the part: woven threads, worn unevenly."""
    top, left = rng.integers(0, SIZE_PX, 2)
    x, y = pose.grid
    phase = np.float32(2 * np.pi / lot.belt_pitch)
    weave = np.cos((x + y) * phase) * np.cos((x - y) * phase)
    return np.float32(lot.belt_tone) * (1 + 0.07 * weave + 0.06 * lot.belt[top : top + SIZE_PX, left : left + SIZE_PX])


def _shadow(x: Array, y: Array, lamp: Array) -> Array:
    """How much of the lamp reaches the belt beside the part."""
    length = 9.0 / np.tan(np.arcsin(lamp[2]))
    sx, sy = x + length * lamp[0] / np.hypot(lamp[0], lamp[1]), y + length * lamp[1] / np.hypot(lamp[0], lamp[1])
    return np.float32(0.55) + np.float32(0.45) * np.clip((np.sqrt(sx * sx + sy * sy) - OUTER_PX + 4) / 9, 0, 1)
