"""What is counted of the parts from one metrics message to the next."""

import random
from bisect import bisect_right
from collections import Counter

import numpy as np

from edge.results import Result
from edge.statistics import ImageStatistics

LATENCY_SAMPLES = 100  # Source: a metric of the embedded metric format takes at most 100 values
SCORE_EDGES = (-10.0, -8.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)  # logits
FIGURES = ("score", "brightness", "contrast", "sharpness")

Figures = tuple[float, float, float, float]  # of one part, as FIGURES names them


class Minute:
    """Counts and samples; a new one begins with each message."""

    def __init__(self) -> None:
        self.parts = 0
        self.verdicts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()  # by code
        self.labels: Counter[str] = Counter()
        self.scores: Counter[int] = Counter()  # by class: 0 below the first of SCORE_EDGES, 1 from there on, ...
        self.latencies: list[dict[str, float]] = []  # ms by stage, of a random sample of the parts
        self.measured = 0  # parts with a score and statistics
        self.sums = np.zeros(len(FIGURES))  # over those parts

    def record(self, result: Result, statistics: ImageStatistics | None, draw: random.Random) -> Figures | None:
        """Count one part.

        Args:
            result: of the part.
            statistics: of the model's input; None when the part has no picture.
            draw: decides whether its latencies are in the sample.

        Returns:
            Its figures, when it has a score and a picture.
        """
        self.parts += 1
        self.verdicts[result.verdict] += 1
        if result.error is not None:
            self.errors[result.error] += 1
        if result.label is not None:
            self.labels[result.label] += 1
        if len(self.latencies) < LATENCY_SAMPLES:
            self.latencies.append(result.latency_ms)
        elif (place := draw.randrange(self.parts)) < LATENCY_SAMPLES:  # Source: Vitter's algorithm R, 1985
            self.latencies[place] = result.latency_ms
        if result.score is None:
            return None
        self.scores[bisect_right(SCORE_EDGES, result.score)] += 1
        if statistics is None:
            return None
        figures = (result.score, statistics.brightness, statistics.contrast, statistics.sharpness)
        self.sums += figures
        self.measured += 1
        return figures
