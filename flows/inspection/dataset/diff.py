"""What changed between two snapshots, and how a line came to the one it has.

Images are matched by uri, then, among those that are left, by content: a file that was moved from `good/` to
`scratch/` is one image that was relabelled, not one that went and one that came.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from inspection.dataset.manifest import HistoryEntry, ImageRow, Snapshot, load_snapshot, read_history
from inspection.storage import Storage

Pair = tuple[ImageRow, ImageRow]  # the image in the first snapshot, in the second


@dataclass(frozen=True)
class Difference:
    """What the second of two snapshots has otherwise than the first; an image may be in several lists."""

    added: tuple[ImageRow, ...]
    removed: tuple[ImageRow, ...]
    replaced: tuple[Pair, ...]  # same uri, other content
    renamed: tuple[Pair, ...]  # same content, other uri
    relabelled: tuple[Pair, ...]  # label or defect type
    moved: tuple[Pair, ...]  # split, where both snapshots are divided
    regrouped: tuple[Pair, ...]  # part or lot; not told where only the file's name is the group
    masks: tuple[Pair, ...]  # mask came, went or has other content
    boxes: tuple[Pair, ...]

    @property
    def is_empty(self) -> bool:
        """Whether the two hold the same images, labels, splits, masks and boxes."""
        return not any(self.counts().values())

    def counts(self) -> dict[str, int]:
        """How many images are in each list."""
        return {name: len(getattr(self, name)) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Step:
    """One step of a line's history: the snapshot, and what came with it."""

    entry: HistoryEntry
    snapshot: Snapshot
    difference: Difference  # from the step before; all images are added in the first


def compare(before: Iterable[ImageRow], after: Iterable[ImageRow]) -> Difference:
    """Compare the rows of two snapshots.

    Args:
        before: rows of the first; a row whose `split` is empty was never divided.
        after: rows of the second.

    Returns:
        Every list in the order of the uris.
    """
    first, second = {row.uri: row for row in before}, {row.uri: row for row in after}
    same_place = [(first[uri], row) for uri, row in second.items() if uri in first]
    gone = [row for uri, row in sorted(first.items()) if uri not in second]
    came = [row for uri, row in sorted(second.items()) if uri not in first]
    renamed, removed, added = _match_content(gone, came)
    pairs = sorted([*same_place, *renamed], key=lambda pair: pair[1].uri)

    def where(changed: Callable[[ImageRow, ImageRow], bool]) -> tuple[Pair, ...]:
        return tuple(pair for pair in pairs if changed(*pair))

    return Difference(
        added=tuple(added),
        removed=tuple(removed),
        replaced=where(lambda old, new: old.sha256 != new.sha256),
        renamed=tuple(sorted(renamed, key=lambda pair: pair[1].uri)),
        relabelled=where(lambda old, new: (old.label, old.defect_type) != (new.label, new.defect_type)),
        moved=where(lambda old, new: bool(old.split and new.split) and old.split != new.split),
        regrouped=where(lambda old, new: _group(old) != _group(new)),
        masks=where(_is_masked_otherwise),
        boxes=where(lambda old, new: old.boxes != new.boxes),
    )


def trace(storage: Storage, line: str) -> list[Step]:
    """Every step of a line's history with what it changed, oldest first.

    Raises:
        StorageError: a snapshot of the history is not in storage.
        DataError: one was changed after it was stored.
    """
    steps: list[Step] = []
    rows: Sequence[ImageRow] = ()
    for entry in read_history(storage, line):
        snapshot = load_snapshot(storage, entry.snapshot)
        steps.append(Step(entry, snapshot, compare(rows, snapshot.rows)))
        rows = snapshot.rows
    return steps


def _match_content(gone: list[ImageRow], came: list[ImageRow]) -> tuple[list[Pair], list[ImageRow], list[ImageRow]]:
    """Pairs of the same content, what is left of those that went, and of those that came.

    Of identical files, those with the same label are paired first.
    """
    waiting: dict[str, list[ImageRow]] = defaultdict(list)
    for row in gone:
        waiting[row.sha256].append(row)
    pairs: list[Pair] = []
    left = came
    for alike in (_same_label, _any_label):
        unmatched = []
        for row in left:
            twin = next((old for old in waiting[row.sha256] if alike(old, row)), None)
            if twin is None:
                unmatched.append(row)
                continue
            waiting[row.sha256].remove(twin)
            pairs.append((twin, row))
        left = unmatched
    removed = sorted((row for rows in waiting.values() for row in rows), key=lambda row: row.uri)
    return pairs, removed, left


def _same_label(old: ImageRow, new: ImageRow) -> bool:
    return (old.label, old.defect_type) == (new.label, new.defect_type)


def _any_label(_old: ImageRow, _new: ImageRow) -> bool:
    return True


def _group(row: ImageRow) -> str:
    return "" if row.group in ("", row.uri) else row.group


def _is_masked_otherwise(old: ImageRow, new: ImageRow) -> bool:
    if (old.mask is None) != (new.mask is None):
        return True
    if old.mask_sha256 is None or new.mask_sha256 is None:  # a snapshot of version 1.0 knows the mask's place only
        return old.mask != new.mask
    return old.mask_sha256 != new.mask_sha256
