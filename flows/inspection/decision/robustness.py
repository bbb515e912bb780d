"""How verdicts change when the pictures do: light, focus, camera noise, compression, position."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from edge.contract import OperatingPoint
from inspection.decision.bounds import Rate, measure_rate
from inspection.decision.verdicts import decide_all, resolve_all
from inspection.errors import DataError

IMAGES_DISTURBED = 500  # at most

Kind = Literal["brightness", "blur", "noise", "jpeg", "shift"]


@dataclass(frozen=True)
class Disturbance:
    """One change of every picture.

    Strength: brightness, change as a share of full scale, -1..1; blur, standard deviation in px of the model's
    input; noise, standard deviation in grey levels of 255; jpeg, quality 1..100; shift, share of width and height.
    """

    kind: Kind
    strength: float

    @property
    def name(self) -> str:
        """What a person reads."""
        amount = f"{abs(self.strength):g}"
        if self.kind == "brightness":
            return f"{abs(self.strength):.0%} {'brighter' if self.strength > 0 else 'darker'}"
        if self.kind == "shift":
            return f"moved by {abs(self.strength):.0%}"
        return {
            "blur": f"blur of {amount} px",
            "noise": f"noise of {amount} grey levels",
            "jpeg": f"JPEG quality {amount}",
        }[self.kind]


DISTURBANCES: tuple[Disturbance, ...] = (
    Disturbance("brightness", -0.1),
    Disturbance("brightness", 0.1),
    Disturbance("blur", 1.0),
    Disturbance("noise", 5.0),
    Disturbance("jpeg", 50.0),
    Disturbance("shift", 0.03),
)


@dataclass(frozen=True)
class RobustnessRow:
    """What one disturbance of the holdout does."""

    name: str
    kind: str  # "none" for the pictures as they are
    strength: float
    auroc: float
    escape: Rate  # of the line: bad and passed, by review_action and on_error
    overkill: Rate  # of the line: good and failed
    review: Rate  # of both classes, at the share of bad images among these
    error: Rate  # of both classes: the input guard refuses the picture
    changed: Rate  # verdicts that differ from those of the pictures as they are


def choose_disturbed(is_bad: np.ndarray, seed: int = 0) -> np.ndarray:
    """Indices of the images that are disturbed: all, or a seeded choice that gives either class its half.

    Args:
        is_bad: bool [N].
        seed: of the choice.
    """
    shuffled = np.random.default_rng(seed).permutation(len(is_bad))
    bad, good = shuffled[is_bad[shuffled]], shuffled[~is_bad[shuffled]]
    bad_count = min(len(bad), max(IMAGES_DISTURBED // 2, IMAGES_DISTURBED - len(good)))
    return np.sort(np.concatenate([bad[:bad_count], good[: IMAGES_DISTURBED - bad_count]]))


def perturb(pixels: np.ndarray, kind: Kind, strength: float, seed: int | Sequence[int] = 0) -> np.ndarray:
    """Change every picture in one way.

    Args:
        pixels: uint8 [N, H, W, 3], RGB.
        kind: brightness, blur, noise, jpeg or shift.
        strength: see `Disturbance`.
        seed: of the noise and of the direction of the shift.

    Returns:
        uint8 [N, H, W, 3]; the input is left as it is.

    Raises:
        DataError: the pixels are not such an array, or the kind or its strength makes no sense.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise DataError(f"want uint8 pixels [N, H, W, 3], found {pixels.dtype} {pixels.shape}")
    generator = np.random.default_rng(seed)
    changed = np.empty_like(pixels, subok=False)
    for index, picture in enumerate(pixels):
        changed[index] = _perturb_one(np.asarray(picture), kind, strength, generator)
    return changed


def _perturb_one(picture: np.ndarray, kind: Kind, strength: float, generator: np.random.Generator) -> np.ndarray:
    """One picture, uint8 [H, W, 3]."""
    if kind == "brightness" and -1 <= strength <= 1:
        return _to_bytes(picture + 255.0 * strength)
    if kind == "blur" and strength >= 0:
        return _to_bytes(ndimage.gaussian_filter(picture.astype(np.float32), (strength, strength, 0), mode="nearest"))
    if kind == "noise" and strength >= 0:
        return _to_bytes(picture + generator.normal(0.0, strength, picture.shape))
    if kind == "jpeg" and 1 <= strength <= 100:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=int(strength))
        return np.asarray(Image.open(stream))
    if kind == "shift" and -1 < strength < 1:
        height, width = picture.shape[:2]
        down, right = (round(strength * size * generator.choice((-1, 1))) for size in (height, width))
        rows = np.clip(np.arange(height) - down, 0, height - 1)
        columns = np.clip(np.arange(width) - right, 0, width - 1)
        return picture[rows][:, columns]
    raise DataError(f"no disturbance {kind!r} of strength {strength}: see Disturbance for the kinds and their ranges")


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def summarise_robustness(
    clean: tuple[np.ndarray, np.ndarray],
    disturbed: Sequence[tuple[Disturbance, np.ndarray, np.ndarray]],
    is_bad: np.ndarray,
    groups: Sequence[str],
    point: OperatingPoint,
) -> tuple[RobustnessRow, ...]:
    """Compare the verdicts of disturbed pictures with those of the pictures as they are.

    Args:
        clean: scores float [N] of the pictures as they are, and bool [N] of those that the input guard refuses.
        disturbed: each disturbance with the scores that the same artifact gave the disturbed pictures, and those of
            them that the input guard refuses.
        is_bad: bool [N], both classes present.
        groups: name of each image's group, length N.
        point: the operating point.

    Returns:
        First the pictures as they are, then one row per disturbance.

    Raises:
        DataError: an array has another length, or a score is not finite.
    """
    unchanged = decide_all(clean[0], point, clean[1])
    rows = [("as they are", "none", 0.0, *clean)]
    rows += [(one.name, one.kind, one.strength, scores, refused) for one, scores, refused in disturbed]
    names = np.asarray(groups, dtype=str)
    summary = []
    for name, kind, strength, scores, refused in rows:
        if scores.shape != is_bad.shape or not np.isfinite(scores).all():
            raise DataError(f"pictures {name}: want {len(is_bad)} finite scores, found shape {scores.shape}")
        verdicts = decide_all(scores, point, refused)
        outlets = resolve_all(verdicts, point)
        summary.append(
            RobustnessRow(
                name=name,
                kind=kind,
                strength=strength,
                auroc=float(roc_auc_score(is_bad, scores)),
                escape=measure_rate(outlets[is_bad] == "pass", names[is_bad].tolist()),
                overkill=measure_rate(outlets[~is_bad] == "fail", names[~is_bad].tolist()),
                review=measure_rate(verdicts == "review", names.tolist()),
                error=measure_rate(verdicts == "error", names.tolist()),
                changed=measure_rate(verdicts != unchanged, names.tolist()),
            )
        )
    return tuple(summary)
