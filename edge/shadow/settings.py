"""How a challenger is run beside the champion."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ShadowSettings:
    """Bounds of a shadow run."""

    images_per_day: int = 20  # kept of parts on which both disagree, of one pair of verdicts; above half: thinned
    images_in_all: int = 100  # likewise of one challenger against one champion; 0: keep none
    memory_bytes: int = 32_000_000  # of pictures that wait for the challenger; when full, parts are skipped
    nice: int = 19  # how far the challenger stands back for inspection: 0 to 19

    def check(self) -> list[str]:
        """Faults in words; empty when there are none."""
        faults = []
        for name, low, high in (
            ("images_per_day", 0, 100_000),
            ("images_in_all", 0, 1_000_000),
            ("memory_bytes", 1_000_000, 10_000_000_000),
            ("nice", 0, 19),
        ):
            if not low <= getattr(self, name) <= high:
                faults.append(f"{name}: want {low} to {high}, found {getattr(self, name)}")
        return faults
