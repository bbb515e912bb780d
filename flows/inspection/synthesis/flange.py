"""The product: a turned flange with a bore, three sleeved bolt holes and an ink-jet code, lit and shaded.

The turned faces reflect as fine concentric grooves do: bright where the groove runs across the light (the two
wedges that every turned disc shows), which makes dents and scratches visible by their slope alone.
Source of the reflection model: Ward, "Measuring and modeling anisotropic reflection", SIGGRAPH 1992, simplified.
"""

from dataclasses import dataclass

import numpy as np

from inspection.synthesis.scene import SIZE_PX, Array, Lot, Pose

OUTER_PX = 132.0
BOSS_PX = 62.0
BORE_PX = 33.0
SLEEVE_PX = 22.0
HOLE_PX = 10.0
HOLES = 3
HOLE_CIRCLE_PX = 96.0
FIRST_HOLE = np.pi / 6  # rad; the mark lies between two holes
CHAMFER_PX = 4.0
MARK_TOP_PX = 81.0  # of the mark's first row, below the centre
MARK_PITCH_PX = 3.5  # between dots
FACE_PX = (BOSS_PX + 6.0, OUTER_PX - 8.0)  # radii between which the face is flat

CODE = "LS40"
DOT_PX = 2.0
THICKNESS_PX = 9.0
BELT = (0.94, 1.0, 1.03)  # colour of the belt: red, green, blue
INK = (2.3, 0.36, 1.6)  # absorption of red, green, blue: the green of an ink-jet code
SLEEVE = (0.10, 0.36, 0.92)  # reflectance of the bearing sleeves in the bolt holes: blue polymer

FONT = {  # 5 x 7 dots, a row per string
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
}


@dataclass
class Damage:
    """What is wrong with a part, as layers that the shading takes in; the default is a good part."""

    mask: Array | None = None  # bool [SIZE_PX, SIZE_PX], where the defect is
    height: Array | None = None  # px, added to the surface
    film: Array | None = None  # optical density of what lies on the surface
    film_colour: tuple[float, float, float] = (1.0, 1.0, 1.0)  # absorption of red, green, blue
    matte: Array | None = None  # 0..1, share of the highlight that is lost
    bare: Array | None = None  # 0..1, freshly torn metal, bright from every side
    gap: Array | None = None  # 0..1, where the metal is open and light does not return
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


def shade(lot: Lot, pose: Pose, damage: Damage, azimuth: float, elevation: float, rng: np.random.Generator) -> Array:
    """The light that comes back from the part and its belt.

    Args:
        lot: metal, tool marks, belt.
        pose: where the part lies.
        damage: what is wrong with it.
        azimuth: direction of the lamp in the picture (rad).
        elevation: of the lamp above the belt (rad).
        rng: draws which piece of the belt and which turn of the tool marks is seen.

    Returns:
        float32 [3, SIZE_PX, SIZE_PX], red, green and blue; linear, about 0..1.
    """
    lamp = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    lamp = lamp.astype(np.float32)
    metal = _metal(lot, pose, damage, lamp, rng)
    belt = _belt(lot, pose, lamp, rng)
    cover = _step(OUTER_PX - pose.radius)
    belt *= 1 - cover
    metal *= cover
    picture = np.stack([belt * shade + metal * tint for shade, tint in zip(BELT, lot.tint, strict=True)])
    if damage.film is not None:
        _absorb(picture, damage.film * cover, damage.film_colour)
    _print_code(picture, pose, damage.missing_characters)
    for index in sorted(set(range(HOLES)) - damage.missing_holes):
        _fit_sleeve(picture, pose.to_picture(*hole_centre(index)), lamp)
    return picture


def _metal(lot: Lot, pose: Pose, damage: Damage, lamp: Array, rng: np.random.Generator) -> Array:
    """The turned faces and the bore, in grey."""
    x, y = pose.grid
    r = pose.radius
    unit_x, unit_y = x / r, y / r
    half = lamp + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    edge = -0.9 * _ridge(r - (OUTER_PX - CHAMFER_PX / 2), CHAMFER_PX)  # slope outwards of rim, boss and bore
    edge += -0.7 * _ridge(r - BOSS_PX, 3.0)
    edge += 0.8 * _ridge(r - (BORE_PX + 1.5), 3.0)
    slope_x, slope_y = edge * unit_x, edge * unit_y
    glint = None
    if damage.height is not None:
        bump_y, bump_x = np.gradient(damage.height)
        glint = np.exp(-((bump_x + half[0] / half[2]) ** 2 + (bump_y + half[1] / half[2]) ** 2) / np.float32(0.012))
        glint[(bump_x == 0) & (bump_y == 0)] = 0  # flat metal must not tell that there is a defect elsewhere
        slope_x += bump_x
        slope_y += bump_y
    tilt_x, tilt_y = half[0] + slope_x * half[2], half[1] + slope_y * half[2]
    along = unit_x * tilt_y - unit_y * tilt_x  # of the half vector, along the grooves
    across = unit_x * tilt_x + unit_y * tilt_y
    turned = np.exp(-((along * np.float32(1 / (0.55 * lot.gloss))) ** 2) - (across * np.float32(1 / 0.75)) ** 2)
    turns = _index(pose.angle * np.float32(512 / (2 * np.pi)) + np.float32(rng.uniform(512, 1024)), 512)
    marks = np.float32(lot.groove_depth) * lot.streaks[turns, _index(r * 3, 640)]
    turned *= 1 + np.float32(1.6) * marks
    if damage.matte is not None:
        turned *= 1 - damage.matte
    diffuse = (lamp[2] - slope_x * lamp[0] - slope_y * lamp[1]) / np.sqrt(1 + slope_x**2 + slope_y**2)
    np.maximum(diffuse, 0, out=diffuse)
    diffuse *= 1 + np.float32(0.5) * marks
    light: Array = np.float32(lot.tone) * (np.float32(0.18) + np.float32(0.42) * diffuse + np.float32(0.62) * turned)
    if glint is not None:
        light += np.float32(0.55) * glint
    if damage.bare is not None:
        light += damage.bare * (np.float32(1.1) - light)
    if damage.gap is not None:
        light *= 1 - np.float32(0.98) * damage.gap
    towards = np.maximum(-(unit_x * lamp[0] + unit_y * lamp[1]), 0)
    wall = np.float32(0.15) + np.float32(0.14) * towards * np.clip((r - BORE_PX + 10) / 10, 0, 1)
    light += _step(BORE_PX - r) * (wall - light)
    return light


def _belt(lot: Lot, pose: Pose, lamp: Array, rng: np.random.Generator) -> Array:
    """The belt below the part, woven and worn, with the part's shadow on it, in grey."""
    top, left = rng.integers(0, SIZE_PX, 2)
    x, y = pose.grid
    phase = np.float32(2 * np.pi / lot.belt_pitch)
    weave = np.cos(2 * phase * x) + np.cos(2 * phase * y)  # threads that cross at right angles
    belt = np.float32(lot.belt_tone) * (
        1 + np.float32(0.035) * weave + np.float32(0.06) * lot.belt[top : top + SIZE_PX, left : left + SIZE_PX]
    )
    flat = float(np.hypot(lamp[0], lamp[1]))
    length = THICKNESS_PX * flat / float(lamp[2])
    away = np.hypot(x + np.float32(length / flat * lamp[0]), y + np.float32(length / flat * lamp[1]))
    belt *= np.float32(0.55) + np.float32(0.45) * np.clip((away - OUTER_PX + 4) / 9, 0, 1)
    return belt


def _absorb(picture: Array, density: Array, colour: tuple[float, float, float]) -> None:
    """Let a film of this optical density [H, W] take its share of each colour of `picture` [3, H, W], in place."""
    for channel, share in zip(picture, colour, strict=True):
        channel *= np.exp(np.float32(-share) * density)


def _window(x_px: float, y_px: float, reach_px: float) -> tuple[slice, slice, Array, Array]:
    """Rows and columns about a point, and the coordinates there relative to it."""
    left, top = max(0, int(x_px - reach_px)), max(0, int(y_px - reach_px))
    columns = np.arange(left, min(SIZE_PX, int(x_px + reach_px) + 2), dtype=np.float32)
    rows = np.arange(top, min(SIZE_PX, int(y_px + reach_px) + 2), dtype=np.float32)
    where = slice(top, top + len(rows)), slice(left, left + len(columns))
    return *where, (columns - np.float32(x_px))[None, :], (rows - np.float32(y_px))[:, None]


def _print_code(picture: Array, pose: Pose, missing: frozenset[int]) -> None:
    """Print the code in dots of ink onto `picture` [3, H, W], in place."""
    ink = np.zeros((SIZE_PX, SIZE_PX), np.float32)
    dots = mark_dots(CODE, missing)
    for x_px, y_px in zip(*pose.to_picture(dots[:, 0], dots[:, 1]), strict=True):
        rows, columns, x, y = _window(x_px, y_px, DOT_PX + 1)
        np.maximum(ink[rows, columns], np.clip(DOT_PX + 0.5 - np.hypot(x, y), 0, 1), out=ink[rows, columns])
    if len(dots):
        (x_px,), (y_px,) = (np.atleast_1d(value) for value in pose.to_picture(0.0, MARK_TOP_PX + 3 * MARK_PITCH_PX))
        rows, columns, _, _ = _window(x_px, y_px, 14 * MARK_PITCH_PX)
        _absorb(picture[:, rows, columns], ink[rows, columns], INK)


def _fit_sleeve(picture: Array, centre: tuple[Array, Array], lamp: Array) -> None:
    """Put a polymer sleeve with its bolt hole at `centre` (px) into `picture` [3, H, W], in place."""
    rows, columns, x, y = _window(float(centre[0]), float(centre[1]), SLEEVE_PX + 1)
    distance = np.hypot(x, y) + np.float32(1e-3)
    facing = (x * lamp[0] + y * lamp[1]) / distance  # 1 on the side of the lamp
    bevel = _ridge(distance - (SLEEVE_PX - 2), 2.0) - 0.9 * _ridge(distance - HOLE_PX - 1, 2.0)
    rim = 0.5 + 0.22 * facing * bevel
    inside = 0.17 + 0.14 * np.clip(-facing, 0, 1) * np.clip((distance - HOLE_PX + 5) / 5, 0, 1)
    for channel, tint in zip(picture[:, rows, columns], SLEEVE, strict=True):
        channel += _step(SLEEVE_PX - distance) * (rim * tint - channel)
        channel += _step(HOLE_PX - distance) * (inside - channel)


def _step(distance: Array) -> Array:
    """1 where `distance` > 0, 0 where < 0, with an edge one pixel wide."""
    return np.clip(distance + np.float32(0.5), 0, 1)


def _ridge(distance: Array, width: float) -> Array:
    """1 within `width` about 0, falling to 0 over a pixel."""
    return np.clip(np.float32(width / 2 + 0.5) - np.abs(distance), 0, 1)


def _index(position: Array, length: int) -> Array:
    """Positions (>= 0) as indices into a table that repeats."""
    return position.astype(np.int32) % length
