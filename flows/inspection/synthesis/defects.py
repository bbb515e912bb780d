"""Defects of the flange, each graded by a severity: 0 is hard to see, 1 is plain."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from inspection.synthesis.flange import (
    BORE_PX,
    BOSS_PX,
    CODE,
    FACE_PX,
    FIRST_HOLE,
    HOLE_CIRCLE_PX,
    HOLES,
    MARK_PITCH_PX,
    OUTER_PX,
    SLEEVE_PX,
    Damage,
    hole_centre,
    mark_dots,
)
from inspection.synthesis.scene import SIZE_PX, Array, Pose

OVERSAMPLING = 4


def scratch(pose: Pose, severity: float, rng: np.random.Generator) -> Damage:
    """A gouge by a sharp edge: a bright core of torn metal in a groove, slightly bent, tapering at both ends."""
    height, bare = np.zeros((2, SIZE_PX, SIZE_PX), np.float32)
    centre_x, centre_y = _place_on_face(pose, rng)
    length = _grade(severity, 40, 100) * rng.uniform(0.85, 1.15)
    width = _grade(severity, 1.4, 2.1)
    direction = rng.uniform(0, np.pi)
    bend = rng.normal(0, 0.0016)
    for line in range(1 + (rng.random() < severity * 0.6)):
        turn = direction + line * rng.normal(0, 0.06)
        x = np.arange(SIZE_PX, dtype=np.float32)[None, :] - (centre_x + line * rng.uniform(-9, 9))
        y = np.arange(SIZE_PX, dtype=np.float32)[:, None] - (centre_y + line * rng.uniform(-9, 9))
        along = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))
        across = y * np.float32(np.cos(turn)) - x * np.float32(np.sin(turn)) - bend * along**2
        taper = np.clip((length / 2 - np.abs(along)) / (0.3 * length), 0, 1)
        core = np.exp(-((across / width) ** 2)) * taper
        core[core < 1e-3] = 0
        height -= _grade(severity, 0.5, 1.1) * core
        bare = np.maximum(bare, _grade(severity, 0.72, 1.0) * core)
    return _on_metal(Damage(height=height, bare=bare), pose, bare > 0.12)


def dent(pose: Pose, severity: float, rng: np.random.Generator) -> Damage:
    """A blow: a smooth hollow with a slightly raised lip."""
    damage = Damage()
    radius = _grade(severity, 8.0, 16.0) * rng.uniform(0.9, 1.1)
    x0, y0 = _place_on_face(pose, rng, radius)
    stretch, turn = rng.uniform(1.0, 1.35), rng.uniform(0, np.pi)
    x = np.arange(SIZE_PX, dtype=np.float32)[None, :] - x0
    y = np.arange(SIZE_PX, dtype=np.float32)[:, None] - y0
    along = (x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))) / (radius * stretch)
    across = (y * np.float32(np.cos(turn)) - x * np.float32(np.sin(turn))) / radius
    distance = np.asarray(along * along + across * across)
    hollow = np.exp(-1.6 * distance) - 0.25 * np.exp(-3.0 * (np.sqrt(distance) - 1.15) ** 2)
    hollow[np.abs(hollow) < 1e-3] = 0
    damage.height = -_grade(severity, 0.24, 0.5) * radius * hollow.astype(np.float32)
    return _on_metal(damage, pose, np.abs(hollow) > 0.1)


STAINS = ((0.3, 1.0, 2.0), (0.5, 0.9, 1.9), (1.0, 1.4, 2.0))  # rust, dried coolant, grease: red, green, blue


def stain(pose: Pose, severity: float, rng: np.random.Generator) -> Damage:
    """Rust, dried coolant or grease: an uneven blot, darkest at its rim."""
    damage = Damage(film_colour=STAINS[rng.integers(len(STAINS))])
    radius = _grade(severity, 13, 24) * rng.uniform(0.9, 1.1)
    x0, y0 = _place_on_face(pose, rng, 0.4 * radius)
    x = np.arange(SIZE_PX, dtype=np.float32)[None, :] - x0
    y = np.arange(SIZE_PX, dtype=np.float32)[:, None] - y0
    lumps = gaussian_filter(rng.standard_normal((SIZE_PX // 4, SIZE_PX // 4), dtype=np.float32), 1.6)
    lumps = (lumps / lumps.std()).repeat(4, axis=0).repeat(4, axis=1)
    inside = 1 - np.sqrt(x * x + y * y) / radius + 0.22 * gaussian_filter(lumps, 2.0)
    body = np.clip(inside / 0.12, 0, 1)
    rim = np.exp(-(((inside - 0.12) / 0.12) ** 2)) * body
    damage.film = (_grade(severity, 0.62, 0.9) * (0.7 * body + 0.6 * rim)).astype(np.float32)
    damage.matte = 0.35 * body
    return _on_metal(damage, pose, body > 0.3)


def crack(pose: Pose, severity: float, rng: np.random.Generator) -> Damage:
    """A crack that starts where stress is highest (a hole, the bore, the rim) and wanders, perhaps with a branch."""
    damage = Damage()
    start, heading = _stress_raiser(pose, rng)
    length = _grade(severity, 42, 78) * rng.uniform(0.9, 1.1)
    trunk = _wander(start, heading, length, rng)
    width = _grade(severity, 3.0, 4.0)
    drawing = Image.new("L", (SIZE_PX * OVERSAMPLING, SIZE_PX * OVERSAMPLING))
    pen = ImageDraw.Draw(drawing)
    branches = [trunk]
    if rng.random() < 0.25 + 0.6 * severity:
        fork = len(trunk) // 2
        branches.append(_wander(trunk[fork], heading + rng.choice([-1, 1]) * rng.uniform(0.5, 0.9), length * 0.4, rng))
    for branch in branches:
        for index, (a, b) in enumerate(pairwise(branch)):
            thin = 1 - 0.65 * index / len(branch)
            line = [tuple((OVERSAMPLING * (p + 0.5)).tolist()) for p in (a, b)]
            pen.line(line, fill=255, width=max(1, round(OVERSAMPLING * width * thin)))
    ink = np.asarray(drawing.reduce(OVERSAMPLING), np.float32) / 255
    damage.gap = _grade(severity, 0.9, 1.0) * ink
    damage.height = 0.35 * gaussian_filter(ink, 1.2)  # lips that stand up a little
    return _on_metal(damage, pose, ink > 0.2)


def missing_feature(pose: Pose, severity: float, rng: np.random.Generator) -> Damage:
    """A bolt hole that was not drilled, or a mark that was not (or not wholly) peened."""
    damage = Damage()
    if rng.random() < 0.5:
        index = int(rng.integers(HOLES))
        x, y = pose.to_picture(*hole_centre(index))
        damage.missing_holes = frozenset([index])
        damage.mask = _disc(float(x), float(y), SLEEVE_PX)
    else:
        count = 2 if severity < 0.2 else 3 if severity < 0.5 else 4
        first = int(rng.integers(0, 5 - count))
        damage.missing_characters = frozenset(range(first, first + count))
        dots = mark_dots(CODE, frozenset(range(4)) - damage.missing_characters)
        x, y = pose.to_picture(dots[:, 0], dots[:, 1])
        damage.mask = np.zeros((SIZE_PX, SIZE_PX), bool)
        for dot_x, dot_y in zip(x, y, strict=True):
            damage.mask |= _disc(float(dot_x), float(dot_y), 1.5 * MARK_PITCH_PX)
    return damage


DEFECTS: dict[str, Callable[[Pose, float, np.random.Generator], Damage]] = {
    "scratch": scratch,
    "dent": dent,
    "stain": stain,
    "crack": crack,
    "missing-feature": missing_feature,
}


def _grade(severity: float, subtle: float, plain: float) -> float:
    return subtle + severity * (plain - subtle)


def _disc(x_px: float, y_px: float, radius_px: float) -> Array:
    axis = np.arange(SIZE_PX)
    return (axis[None, :] - x_px) ** 2 + (axis[:, None] - y_px) ** 2 < radius_px**2


def _place_on_face(pose: Pose, rng: np.random.Generator, reach_px: float = 0.0) -> tuple[float, float]:
    """A point of the face in the picture whose surroundings (`reach_px`) are not all bolt hole."""
    while True:
        radius = rng.uniform(FACE_PX[0] + 0.5 * reach_px, FACE_PX[1] - 0.5 * reach_px)
        angle = rng.uniform(0, 2 * np.pi)
        nearest = np.rint((angle - FIRST_HOLE) / (2 * np.pi / HOLES)) * 2 * np.pi / HOLES + FIRST_HOLE
        if (
            np.hypot(
                radius * np.cos(angle) - HOLE_CIRCLE_PX * np.cos(nearest),
                radius * np.sin(angle) - HOLE_CIRCLE_PX * np.sin(nearest),
            )
            > SLEEVE_PX + 2 + 0.7 * reach_px
        ):
            x, y = pose.to_picture(radius * np.cos(angle), radius * np.sin(angle))
            return float(x), float(y)


def _stress_raiser(pose: Pose, rng: np.random.Generator) -> tuple[Array, float]:
    """Where a crack starts, in the picture, and which way it goes (rad)."""
    kind = rng.integers(3)
    angle = rng.uniform(0, 2 * np.pi)
    if kind == 0:  # a bolt hole
        u, v = hole_centre(int(rng.integers(HOLES)))
        u, v = u + SLEEVE_PX * np.cos(angle), v + SLEEVE_PX * np.sin(angle)
        heading = angle
    elif kind == 1:  # the foot of the boss
        u, v = BOSS_PX * np.cos(angle), BOSS_PX * np.sin(angle)
        heading = angle + rng.normal(0, 0.5)
    else:  # the rim
        u, v = OUTER_PX * np.cos(angle), OUTER_PX * np.sin(angle)
        heading = angle + np.pi + rng.normal(0, 0.5)
    return np.array(pose.to_picture(u, v)), heading + pose.rotation


def _wander(start: Array, heading: float, length_px: float, rng: np.random.Generator) -> list[Array]:
    """A jagged path of steps of about 4 px."""
    points, way = [start], heading
    for _ in range(max(2, round(length_px / 4))):
        way = heading + 0.6 * (way - heading) + rng.normal(0, 0.42)
        points.append(points[-1] + rng.uniform(3, 5) * np.array([np.cos(way), np.sin(way)]))
    return points


def _on_metal(damage: Damage, pose: Pose, mask: Array) -> Damage:
    """Give the damage its mask, without what falls off the part or into a hole."""
    metal = (pose.radius < OUTER_PX) & (pose.radius > BORE_PX)
    for index in range(HOLES):
        hole_x, hole_y = pose.to_picture(*hole_centre(index))
        metal &= ~_disc(float(hole_x), float(hole_y), SLEEVE_PX)
    damage.mask = np.asarray(mask & metal)
    return damage
