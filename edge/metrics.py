"""Metrics: one message a minute in CloudWatch's embedded metric format.

CloudWatch makes metrics of those numbers that `_aws` lists; all else are plain fields for log queries. Metrics have
the dimensions [line] and [line, group] and no others: a metric for each thing would be billed for each of thousands.
The thing is a plain field. Source: Amazon CloudWatch user guide, "Specification: Embedded metric format".
"""

import json
import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge.contract import DriftReference
from edge.drift import drift_distance
from edge.minute import FIGURES, SCORE_EDGES, Figures, Minute
from edge.results import Result
from edge.selection import Counts
from edge.spool.records import FoldedCounts, SpoolFigures
from edge.statistics import ImageStatistics
from edge.uploader.supervisor import UploadState
from edge.vitals import Vitals

SCHEMA = "1.1"  # 1.1: totals of the program, lost results
MAX_MESSAGE_BYTES = 5000
MAX_METRICS = 30
FOLDED_AT_ONCE = 4  # reports of folded passes that one message takes
OLDEST_S = 13 * 24 * 3600.0  # Source: CloudWatch takes no metrics older than 14 days; a day is left for the way there
EARLIEST_S = 1_767_225_600.0  # 2026-01-01: a clock that says less was never set
DRIFT_PARTS = 1000  # the last so many parts are compared with calibration
DRIFT_LEAST = 100  # with fewer the distance tells nothing

_STAGES = ("total", "queue", "decode", "preprocess", "detect")
_SAMPLE_STEPS = ((100, 60), (100, 40), (80, 30), (60, 20), (40, 10), (25, 5), (10, 0), (0, 0))
_MOST_NAMES = 12  # of labels, error codes and strata: the commonest; the rest as "other"


@dataclass(frozen=True)
class MetricsSettings:
    """How metrics are named."""

    namespace: str = "Lineside"  # of the metrics in CloudWatch
    group: str = "default"  # of devices that are watched together, such as a rollout's canaries

    def check(self) -> list[str]:
        """Faults in words; empty when there are none."""
        faults = []
        for name in ("namespace", "group"):
            text = getattr(self, name)
            if (
                not 1 <= len(text) <= 128
                or not text.isascii()
                or not text.isprintable()
                or text.startswith(("AWS/", ":"))
            ):
                faults.append(
                    f"{name}: want 1 to 128 printable ASCII characters, not AWS/ at the start, found {text!r}"
                )
        return faults


@dataclass(frozen=True)
class Around:
    """What else is told in the same message; None: not known."""

    spool: SpoolFigures | None = None
    review: Counts | None = None
    upload: UploadState | None = None
    vitals: Vitals | None = None
    folded: Sequence[FoldedCounts] = ()  # at most FOLDED_AT_ONCE are told, fewer when they do not fit
    program: Mapping[str, int] | None = None  # what went wrong in the program since its start, by name
    degraded: bool = False  # something is not as it should be, or what serves is not what was deployed


class Metrics:
    """Counts parts and tells them once a minute. Call its methods from one thread.

    Args:
        line: dimension of the metrics.
        thing: plain field.
        settings: namespace and group.
        seed: makes the samples repeatable, for tests.
    """

    def __init__(self, line: str, thing: str, settings: MetricsSettings, seed: int | None = None) -> None:
        self._line = line
        self._thing = thing
        self._settings = settings
        self._random = random.Random(seed)
        self._package = ""
        self._reference: DriftReference | None = None
        self._recent: deque[Figures] = deque(maxlen=DRIFT_PARTS)
        self._before: dict[str, Mapping[str, int]] = {}  # totals that the message before told
        self._began_s: float | None = None
        self._minute = Minute()

    def begin(self, spool: SpoolFigures) -> None:
        """Note what the spool had counted when this program began; what it found at its start is still to be told."""
        self._before |= {"evicted": spool.evicted, "lost": {"lost": spool.lost - spool.newly_lost}}

    def use_model(self, package: str, reference: DriftReference) -> None:
        """Another model serves from now on: its scores are compared with its own calibration."""
        if (package, reference) != (self._package, self._reference):
            self._recent.clear()
        self._package, self._reference = package, reference

    def record(self, result: Result, statistics: ImageStatistics | None) -> None:
        """Count one part.

        Args:
            result: of the part.
            statistics: of the model's input; None when the part has no picture.
        """
        figures = self._minute.record(result, statistics, self._random)
        if figures is not None:
            self._recent.append(figures)

    def message(self, now_s: float, around: Around | None = None) -> dict[str, Any]:
        """The message of the time since the one before; begins a new one.

        It never exceeds 5,000 bytes of JSON: fewer latencies are told when names and counts need the room.

        Args:
            now_s: unix time.
            around: what else there is to tell.
        """
        around = around or Around()
        metrics, plain = self._metrics(around), self._plain(now_s, around)
        latencies = self._random.sample(self._minute.latencies, len(self._minute.latencies))
        self._minute, self._began_s = Minute(), now_s
        for total, stage in _SAMPLE_STEPS:
            message = self._assemble(now_s, {**metrics, **_latency_metrics(latencies, total, stage)}, plain)
            if len(dump_metrics(message)) <= MAX_MESSAGE_BYTES:
                break
        while message.get("folded") and len(dump_metrics(message)) > MAX_MESSAGE_BYTES:
            message["folded"].pop()
        return message

    def _assemble(self, now_s: float, metrics: dict[str, tuple[Any, str]], plain: dict[str, Any]) -> dict[str, Any]:
        values = {name: value for name, (value, _) in metrics.items()}
        message = {"line": self._line, "group": self._settings.group, "thing": self._thing, **plain, **values}
        if now_s < EARLIEST_S:
            return {**message, "storage_only": True}
        directive = {
            "Namespace": self._settings.namespace,
            "Dimensions": [["line"], ["line", "group"]],
            "Metrics": [
                {"Name": name, "Unit": unit} if unit else {"Name": name} for name, (_, unit) in metrics.items()
            ],
        }
        return {"_aws": {"Timestamp": int(now_s * 1000), "CloudWatchMetrics": [directive]}, **message}

    def _metrics(self, around: Around) -> dict[str, tuple[Any, str]]:
        """Name to value and unit of all metrics but the latencies; what is not known is left out."""
        minute = self._minute
        found: dict[str, tuple[Any, str]] = {
            "Inspections": (minute.parts, "Count"),
            "Pass": (minute.verdicts["pass"], "Count"),
            "Fail": (minute.verdicts["fail"], "Count"),
            "Review": (minute.verdicts["review"], "Count"),
            "Error": (minute.verdicts["error"], "Count"),
            "Degraded": (int(around.degraded), "Count"),
        }
        if minute.measured:
            for name, total in zip(FIGURES, minute.sums, strict=True):
                found[f"{name.capitalize()}Mean"] = (_rounded(total / minute.measured), "")
        if self._reference is not None and len(self._recent) >= DRIFT_LEAST:
            recent = np.array(self._recent)
            for index, name in enumerate(FIGURES):
                distance = drift_distance(recent[:, index], getattr(self._reference, name))
                found[f"{name.capitalize()}Drift"] = (_rounded(distance), "")
        if (spool := around.spool) is not None:
            found["QueueLength"] = (spool.queue_length, "Count")
            found["QueueAge"] = (_rounded(spool.oldest_age_s or 0.0), "Seconds")
            found["UploadBacklog"] = (spool.upload_backlog, "Count")
            if "evicted" not in self._before:
                self.begin(spool)
            found["Evictions"] = (sum(self._since("evicted", spool.evicted).values()), "Count")
            found["Lost"] = (self._since("lost", {"lost": spool.lost})["lost"], "Count")
        if (review := around.review) is not None:
            found["ImagesKept"] = (sum(self._since("kept", review.kept).values()), "Count")
            dropped = review.thinned + review.capped
            found["ImagesDropped"] = (sum(self._since("dropped", dropped).values()), "Count")
        if (vitals := around.vitals) is not None:
            if vitals.cpu_temperature_c is not None:
                found["CpuTemperature"] = (_rounded(vitals.cpu_temperature_c), "")
            if vitals.rss_bytes is not None:
                found["ResidentMemory"] = (_rounded(vitals.rss_bytes / 1e6), "Megabytes")
            if vitals.disk_free_bytes is not None:
                found["DiskFree"] = (_rounded(vitals.disk_free_bytes / 1e9), "Gigabytes")
        return found

    def _plain(self, now_s: float, around: Around) -> dict[str, Any]:
        """Fields that are no metrics."""
        minute = self._minute
        fields: dict[str, Any] = {
            "schema": SCHEMA,
            "package": self._package,
            "period_s": None if self._began_s is None else round(now_s - self._began_s, 1),
            "errors": _commonest(minute.errors),
            "labels": _commonest(minute.labels),
            "score_edges": SCORE_EDGES,
            "score_counts": [minute.scores[index] for index in range(len(SCORE_EDGES) + 1)],
            "drift_parts": len(self._recent),
        }
        if (spool := around.spool) is not None:
            fields["spool"] = {"bytes": spool.bytes, "state": spool.state, "next_sequence": spool.next_sequence}
            fields["evicted_total"] = dict(spool.evicted)
            fields["folded_total"] = spool.folded
            fields["lost_total"] = spool.lost
        if (review := around.review) is not None:  # totals: the sample's strata, for whoever makes estimates of it
            fields["images_kept_total"] = _commonest(review.kept)
            fields["images_thinned_total"] = _commonest(review.thinned)
            fields["images_capped_total"] = _commonest(review.capped)
        if (upload := around.upload) is not None:
            fields["upload"] = {"state": upload.state, "images_total": upload.images, "bytes_total": upload.image_bytes}
        if around.program is not None:
            fields["program_total"] = dict(around.program)
        if around.folded:
            # Of hours that may be long past: a record for the results' storage, never metrics of now.
            fields["folded"] = [
                {"id": counts.id, **asdict(counts), "storage_only": now_s - counts.hour > OLDEST_S}
                for counts in around.folded[:FOLDED_AT_ONCE]
            ]
        return fields

    def _since(self, name: str, totals: Mapping[str, int]) -> dict[str, int]:
        """How far totals have grown since the message before; one that fell was begun anew."""
        before = self._before.get(name, {})
        self._before[name] = dict(totals)
        return {
            key: total - before.get(key, 0) if total >= before.get(key, 0) else total for key, total in totals.items()
        }


def dump_metrics(message: Mapping[str, Any]) -> bytes:
    """The message as JSON."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode()


def _latency_metrics(latencies: list[dict[str, float]], total: int, stage: int) -> dict[str, tuple[Any, str]]:
    """So many values of the whole and of each stage; parts are in random order."""
    found: dict[str, tuple[Any, str]] = {}
    for name in _STAGES:
        wanted = total if name == "total" else stage
        values = [_rounded(latency[name]) for latency in latencies if name in latency][:wanted]
        if values:  # the format knows no empty list
            found[f"{name.capitalize()}Latency"] = (values, "Milliseconds")
    return found


def _commonest(counts: Counter[str]) -> dict[str, int]:
    """The counts with few names."""
    named = dict(counts.most_common(_MOST_NAMES))
    rest = sum(counts.values()) - sum(named.values())
    return {**named, "other": rest} if rest else named


def _rounded(value: float) -> float:
    """Four digits: more are noise and cost bytes."""
    return float(f"{value:.4g}")
