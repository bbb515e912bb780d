"""All that is to be seen of a rollout at one moment, gathered for its card, whatever it was read from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

State = Literal["running", "done", "rolled-back", "failed"]
StageState = Literal["done", "now", "later", "failed", "skipped"]


@dataclass(frozen=True)
class StageView:
    """One stage of a rollout."""

    title: str  # for people: beside the champion, canaries, wave 1
    group: str  # thing group
    state: StageState
    devices: int
    healthy: int  # devices that serve what the stage brings
    note: str = ""  # a few words: 312 of 500 parts


@dataclass(frozen=True)
class PlaceView:
    """What a thing group had and gets."""

    group: str
    things: tuple[str, ...]
    before: str  # of the model
    after: str
    state: str


@dataclass(frozen=True)
class SizeView:
    """A component version and what it costs."""

    component: str
    version: str
    new: bool  # False: published before
    size_bytes: int
    note: str = ""


@dataclass(frozen=True)
class DeviceRow:
    """A device as it was when it was last looked at."""

    thing: str
    group: str
    state: str  # a few words
    good: bool | None  # None: not known yet
    parts: int  # that it judged in its stage
    note: str = ""  # what it lacks, or what is wrong


@dataclass(frozen=True)
class DisagreementView:
    """A part on which champion and challenger differ."""

    picture: np.ndarray  # uint8 [H, W, 3]
    thing: str
    champion: str  # verdict
    challenger: str  # verdict


@dataclass(frozen=True)
class CheckView:
    """One thing that the comparison looks at."""

    name: str  # for people: parts rejected
    champion: float | None  # share
    challenger: float | None  # share
    limit: str  # for people: at most 2 % more or less
    verdict: str  # within, beyond, not decided yet
    finds: str = ""  # for people: the smallest change that it finds


@dataclass(frozen=True)
class ComparisonView:
    """What the two models did."""

    paired: bool  # the same parts, or each model its own
    champion: Mapping[str, int]  # verdict to parts
    challenger: Mapping[str, int]
    pairs: Mapping[tuple[str, str], int]  # (champion's, challenger's) to parts; empty unless paired
    parts: int
    wanted: int
    skipped: int
    checks: Sequence[CheckView]
    reasons: Sequence[str]  # in words: why on, why back, what is awaited


@dataclass(frozen=True)
class RolloutView:
    """Everything on one card."""

    line: str
    model: int
    champion: int | None
    state: State
    short: str  # the result in a few words: model 6 serves on 3 devices
    headline: str  # a sentence
    reasons: Sequence[str]  # why it was rolled back, what it waits for
    advice: Sequence[str]  # what a person does now
    stages: Sequence[StageView]
    progress: tuple[int, int, str] | None = None  # done, of, what
    places: Sequence[PlaceView] = ()
    sizes: Sequence[SizeView] = ()
    devices: Sequence[DeviceRow] = ()
    comparisons: Sequence[ComparisonView] = ()  # on the same parts first, then live
    disagreements: Sequence[DisagreementView] = ()
    timeline: Sequence[tuple[float, str]] = ()  # unix time, what happened
    facts: Mapping[str, str] = field(default_factory=dict)  # for whoever must repeat this
