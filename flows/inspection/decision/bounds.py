"""Exact bounds on a rate from counts, for single images and for groups of images that belong together.

A group (a part with several views, a lot) is one independent trial, however many images it holds: what is counted
is the share of each group's images for which the event happened, summed over the groups.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import betaincinv

from inspection.errors import DataError

SLACK = 1e-9  # of sums of shares such as 3 * (1 / 3)
INTERVAL_CONFIDENCE = 0.95  # of the two-sided intervals beside every rate in the reports


@dataclass(frozen=True)
class Rate:
    """A rate with its two-sided 95 % interval; `total` = 0 means that nothing is known (interval 0..1).

    Rate and interval are for a part of a group drawn at random, as the promise is: every group counts once with the
    share of its images. With one image per group that is `count` over `total`.
    """

    count: int  # images with the event
    total: int  # images
    rate: float
    low: float
    high: float
    groups: int = 0  # independent groups that the images came in


def clopper_pearson_upper(events: float, trials: int, confidence: float) -> float:
    """Exact one-sided upper bound on a rate after `events` in `trials`.

    Args:
        events: 0..trials; a share of an event is allowed (the Beta form of the bound is continuous).
        trials: independent trials; 0 gives 1.0, nothing is known.
        confidence: of the bound, in (0, 1).

    Source: Clopper and Pearson (1934), in its Beta form.
    """
    if trials == 0 or events >= trials:
        return 1.0
    if events == 0:
        return -math.expm1(math.log1p(-confidence) / trials)
    return float(betaincinv(events + 1, trials - events, confidence))


def clopper_pearson_interval(
    events: float, trials: int, confidence: float = INTERVAL_CONFIDENCE
) -> tuple[float, float]:
    """Exact two-sided interval: both one-sided bounds at half the risk."""
    if trials == 0:
        return 0.0, 1.0
    one_sided = (1 + confidence) / 2
    return (
        1.0 - clopper_pearson_upper(trials - events, trials, one_sided),
        clopper_pearson_upper(events, trials, one_sided),
    )


@lru_cache(maxsize=4096)
def group_upper_bound(events: int, groups: int, confidence: float, one_image_each: bool) -> float:
    """Upper bound on the mean share of a group for which the event happens.

    With one image per group this is Clopper-Pearson. With several, a group's share lies anywhere in [0, 1]: after no
    event at all the same bound holds exactly (a mean of mu leaves at most 1 - mu for the share 0); after some, the
    tail of a sum of shares is at most e times the binomial tail, so the bound is Clopper-Pearson at a risk of
    (1 - confidence) / e.

    Args:
        events: sum over the groups of the share with the event, rounded up.
        groups: independent groups.
        confidence: of the bound.
        one_image_each: every group holds a single image.

    Source: Bentkus (2004), "On Hoeffding's inequalities", Annals of Probability 32, theorem 1.2.
    """
    risk = 1 - confidence if one_image_each or events == 0 else (1 - confidence) / math.e
    return clopper_pearson_upper(events, groups, 1 - risk)


@lru_cache(maxsize=4096)
def events_allowed(groups: int, limit: float, confidence: float, one_image_each: bool) -> int:
    """The most events in `groups` after which the rate is still proven to be at most `limit`; -1 = not even none."""
    if group_upper_bound(0, groups, confidence, one_image_each) > limit:
        return -1
    low, high = 0, groups  # proven, not proven (all groups with the event: the bound is 1)
    while high - low > 1:
        middle = (low + high) // 2
        if group_upper_bound(middle, groups, confidence, one_image_each) <= limit:
            low = middle
        else:
            high = middle
    return low


def groups_needed(limit: float, confidence: float) -> int:
    """Groups without a single event that prove a rate of at most `limit`: 59 for 5 % at 95 %."""
    needed = math.ceil(math.log1p(-confidence) / math.log1p(-limit))
    return needed if clopper_pearson_upper(0, needed, confidence) <= limit else needed + 1


def group_weights(groups: Sequence[str]) -> tuple[np.ndarray, int]:
    """Each image's share of its group.

    Args:
        groups: name of each image's group, length N.

    Returns:
        float64 [N] of 1 / (images in the group), and the number of groups.
    """
    _, member_of, sizes = np.unique(np.asarray(groups, dtype=str), return_inverse=True, return_counts=True)
    return 1.0 / sizes[member_of], len(sizes)


def measure_rate(events: np.ndarray, groups: Sequence[str]) -> Rate:
    """Mean share of a group's images with the event, with a two-sided 95 % interval.

    The interval is the exact one of Clopper and Pearson with one image per group, and otherwise that of
    `group_upper_bound` at half the risk on either side: valid for groups of any sizes, however alike the images of one
    group are, and wide when groups are few.

    Args:
        events: bool [N].
        groups: name of each image's group, length N.
    """
    return measure_rates([events], groups)[0]


def measure_rates(events: Sequence[np.ndarray], groups: Sequence[str]) -> list[Rate]:
    """`measure_rate` for several events of the same images.

    Args:
        events: bool [N] each.
        groups: name of each image's group, length N.
    """
    weights, members = group_weights(groups)
    one_each, one_sided = members == len(weights), (1 + INTERVAL_CONFIDENCE) / 2
    rates = []
    for one in events:
        if len(one) != len(weights):
            raise DataError(f"want one group per image, found {len(weights)} groups for {len(one)} images")
        if not len(one):
            rates.append(Rate(0, 0, 0.0, 0.0, 1.0))
            continue
        shares = float(weights[one].sum())
        with_event, without = math.ceil(shares - SLACK), math.ceil(members - shares - SLACK)
        rates.append(
            Rate(
                count=int(np.count_nonzero(one)),
                total=len(one),
                rate=min(1.0, shares / members),
                low=1.0 - group_upper_bound(without, members, one_sided, one_each),
                high=group_upper_bound(with_event, members, one_sided, one_each),
                groups=members,
            )
        )
    return rates
