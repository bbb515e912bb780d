"""Figures as text, rounded to the side that claims no more than is known: bounds outwards, others to the nearest."""

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import Literal

Toward = Literal["nearest", "up", "down"]

_MODES = {"nearest": ROUND_HALF_EVEN, "up": ROUND_CEILING, "down": ROUND_FLOOR}
_NOISE_DIGITS = 9  # beyond these a difference comes from floating point, as in 1 - 0.95


def show_rounded(value: float, digits: int, toward: Toward = "nearest") -> str:
    """A figure with this many decimals: an upper bound "up", a lower bound "down"."""
    exact = Decimal(f"{value:.{_NOISE_DIGITS}f}")
    return f"{exact.quantize(Decimal(1).scaleb(-digits), rounding=_MODES[toward]):.{digits}f}"


def percent(rate: float, toward: Toward = "nearest") -> str:
    """A rate as text: 6.44%, 5%, 12.3%."""
    text = show_rounded(100 * rate, 2 if rate < 0.1 else 1, toward)
    return text.rstrip("0").rstrip(".") + "%"
