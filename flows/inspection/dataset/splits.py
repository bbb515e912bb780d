"""Dividing images into training, calibration and holdout, so that nothing ever moves.

The assignment of a group (a part or a lot) is stored with the snapshot. Images that the line had before keep their
split, found by group and by content. A new group goes, in the order of a hash of its name, to the split furthest below
its quota in the group's stratum (label and defect type). Files that are identical make one group. A group whose images
already lie in several splits goes to training: the model may have learnt from some of them.
"""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from inspection.dataset.folders import shown
from inspection.dataset.manifest import SPLITS, Assignment, ImageRow, Label, Split

_log = logging.getLogger(__name__)

Stratum = tuple[Label, str]  # label, defect type ("" = none)


@dataclass(frozen=True)
class Quotas:
    """Which share of the images each split should hold."""

    calibration: float
    holdout: float

    def shares(self, holdout_is_shipped: bool) -> dict[Split, float]:
        """Share per split; where the holdout was shipped, of the images that were not."""
        if holdout_is_shipped:
            calibration = self.calibration / (1 - self.holdout)
            return {"train": 1 - calibration, "calibration": calibration}
        return {"train": 1 - self.calibration - self.holdout, "calibration": self.calibration, "holdout": self.holdout}


@dataclass(frozen=True)
class Divided:
    """Rows with their splits."""

    rows: tuple[ImageRow, ...]
    retired: tuple[Assignment, ...]  # earlier assignments of images that are not among the rows
    moved: tuple[str, ...]  # groups that merged across splits and went to training


def divide(
    rows: Sequence[ImageRow],
    shipped: dict[str, str],
    earlier: Iterable[Assignment],
    quotas: Quotas,
    seed: str,
) -> Divided:
    """Give every row its split.

    Args:
        rows: every image, in any order; `group` as the source named it.
        shipped: uri to "train" or "validation", of images that the source itself divided.
        earlier: assignments of the line so far.
        quotas: the shares wanted.
        seed: another seed orders new groups otherwise; the line's name.

    Returns:
        The rows by uri, with `split` set and `group` the name of the merged group.
    """
    earlier = list(earlier)
    groups = merge_identical(rows)
    settled, moved = _settle(groups, shipped, earlier)
    _assign(groups, settled, quotas.shares("validation" in shipped.values()), seed)
    divided = [replace(row, group=name, split=settled[name]) for name, members in groups.items() for row in members]
    present = {row.sha256 for row in rows}
    names = {row.group: name for name, members in groups.items() for row in members}
    retired = {
        replace(assignment, split=settled[names[assignment.group]]) if assignment.group in names else assignment
        for assignment in earlier
        if assignment.sha256 not in present
    }
    if moved:
        _log.warning("event=groups_moved_to_training count=%d groups=%s", len(moved), shown(moved))
    return Divided(
        tuple(sorted(divided, key=lambda row: row.uri)),
        tuple(sorted(retired, key=lambda assignment: (assignment.sha256, assignment.group, assignment.split))),
        tuple(moved),
    )


def merge_identical(rows: Iterable[ImageRow]) -> dict[str, list[ImageRow]]:
    """Rows by group, groups that share an identical file made one under the first of their names."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    first_with: dict[str, ImageRow] = {}
    ordered = sorted(rows, key=lambda row: row.uri)
    merged = []
    for row in ordered:
        twin = first_with.setdefault(row.sha256, row)
        one, other = find(row.group), find(twin.group)
        if one != other:
            leader[max(one, other)] = min(one, other)
        if twin is not row:
            merged.append(f"{row.uri} = {twin.uri}")
    if merged:
        _log.warning("event=identical_images count=%d kept_in_one_split=true files=%s", len(merged), shown(merged))
    groups = defaultdict(list)
    for row in ordered:
        groups[find(row.group)].append(row)
    return dict(groups)


def _settle(
    groups: dict[str, list[ImageRow]], shipped: dict[str, str], earlier: list[Assignment]
) -> tuple[dict[str, Split], list[str]]:
    """Splits of the groups that have one already, and the groups that had several and go to training."""
    by_group, by_content = defaultdict(set), defaultdict(set)
    for assignment in earlier:
        by_group[assignment.group].add(assignment.split)
        by_content[assignment.sha256].add(assignment.split)
    settled: dict[str, Split] = {}
    moved, overruled = [], []
    holdout_is_shipped = "validation" in shipped.values()
    for name, members in groups.items():
        known: set[Split] = set()
        for row in members:
            known |= by_group.get(row.group, set()) | by_content.get(row.sha256, set())
        sides = {shipped[row.uri] for row in members if row.uri in shipped}
        if len(known) > 1 or (not known and len(sides) > 1):
            settled[name] = "train"
            moved.append(name)
        elif known:
            (settled[name],) = known
            if holdout_is_shipped and sides and ("validation" in sides) != (settled[name] == "holdout"):
                overruled.append(f"{name} ({settled[name]})")
        elif sides == {"validation"}:
            settled[name] = "holdout"
    if overruled:
        _log.warning(
            "event=earlier_split_kept_against_folder count=%d groups=%s", len(overruled), shown(sorted(overruled))
        )
    return settled, sorted(moved)


def _assign(
    groups: dict[str, list[ImageRow]], settled: dict[str, Split], shares: dict[Split, float], seed: str
) -> None:
    """Add the groups that are new to `settled`."""
    strata = {name: Counter((row.label, row.defect_type or "") for row in members) for name, members in groups.items()}
    wanted: Counter[Stratum] = Counter()  # images to divide, by stratum
    held: dict[Split, Counter[Stratum]] = {split: Counter() for split in SPLITS}
    for name, strata_of_group in strata.items():
        if settled.get(name) in shares or name not in settled:
            wanted.update(strata_of_group)
        if name in settled:
            held[settled[name]].update(strata_of_group)
    new = sorted((name for name in groups if name not in settled), key=lambda name: _hash(seed, name))
    left = Counter(label for name in new for label in _labels(strata[name]))
    for name in new:
        labels = _labels(strata[name])
        choices = _splits_in_need(labels, left, held, list(shares))
        settled[name] = max(choices, key=lambda split: _need(strata[name], split, shares[split], wanted, held[split]))
        held[settled[name]].update(strata[name])
        left.subtract(labels)


def _splits_in_need(
    labels: set[Label], left: Counter[Label], held: dict[Split, Counter[Stratum]], splits: list[Split]
) -> list[Split]:
    """The splits that a group may go to: those without a label, when just enough groups are left to fill them all."""
    needy: list[Split] = []
    for label in sorted(labels):
        empty = [split for split in splits if not any(stratum[0] == label for stratum in +held[split])]
        if left[label] <= len(empty):
            needy += empty
    times = Counter(needy)
    most = max(times.values(), default=0)
    return [split for split in splits if times[split] == most]


def _need(
    strata: Counter[Stratum], split: Split, share: float, wanted: Counter[Stratum], held: Counter[Stratum]
) -> tuple[float, float, float]:
    """How far a split is below its quota: in the group's strata, then in their labels, then at all; in images."""
    size = strata.total()
    in_strata = sum(count * (share * wanted[stratum] - held[stratum]) for stratum, count in strata.items()) / size
    labels = _labels(strata)
    in_labels = sum(share * count - held[stratum] for stratum, count in wanted.items() if stratum[0] in labels)
    return round(in_strata, 9), round(in_labels, 9), share * wanted.total() - held.total()


def _labels(strata: Iterable[Stratum]) -> set[Label]:
    return {label for label, _ in strata}


def _hash(seed: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{name}".encode(errors="surrogateescape")).digest()
