"""Keeping pictures of one capture in one split: near duplicates become one group.

The same capture, saved again, resized or cropped, on both sides of a split lets a model look better than it is. Whoever
asks for it (`[data] group_near_duplicates`) has the groups of such pictures merged. A chain of look-alikes can swallow
a whole set, so a merged group of more than a twentieth of the images is refused: it says that the pictures are alike
by nature (or that the parts were filmed), and then only the person who took them knows the groups.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from inspection.dataset.files import shown
from inspection.dataset.images import SourceImage
from inspection.dataset.manifest import ImageRow
from inspection.errors import DataError

LARGEST_SHARE = 0.05  # of the set's images in one merged group
_ALWAYS_ALLOWED = 2  # images: a pair, in sets too small to have a twentieth


@dataclass(frozen=True)
class Grouping:
    """Images whose groups were merged."""

    images: tuple[SourceImage, ...]  # in the order given
    merged: tuple[tuple[str, ...], ...]  # uris of all images of each group that was made of several


@dataclass(frozen=True)
class Repair:
    """What merging changed in the division."""

    merged: tuple[tuple[str, ...], ...]  # uris of each group that was made of several
    leaks: tuple[tuple[str, ...], ...]  # those that would have lain in several splits
    moved: tuple[tuple[str, str, str], ...]  # uri, its split without the merging, its split now


def group_alike(images: Sequence[SourceImage], alike: Iterable[Sequence[str]], where: str) -> Grouping:
    """Merge the groups of images that show one capture.

    Args:
        images: of the set.
        alike: uris that belong together: pairs or more; uris that are not among the images are left out.
        where: location, for messages.

    Raises:
        DataError: a merged group would hold more than a twentieth of the set; names its images.
    """
    group_of = {image.uri: image.group for image in images}
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for uris in alike:
        groups = [group_of[uri] for uri in uris if uri in group_of]
        for other in groups[1:]:
            one, two = find(groups[0]), find(other)
            if one != two:
                leader[max(one, two)] = min(one, two)
    made_of: dict[str, set[str]] = defaultdict(set)
    for name in leader:
        made_of[find(name)].add(name)
    several = {name for name, parts in made_of.items() if len(parts) > 1}
    members: dict[str, list[str]] = defaultdict(list)
    for image in images:
        if image.group in leader and find(image.group) in several:
            members[find(image.group)].append(image.uri)
    _check_sizes(members, len(images), where)
    joined = {part: name for name in several for part in made_of[name]}
    return Grouping(
        tuple(replace(image, group=joined[image.group]) if image.group in joined else image for image in images),
        tuple(tuple(sorted(uris)) for _, uris in sorted(members.items())),
    )


def describe_repair(
    merged: tuple[tuple[str, ...], ...], without: Iterable[ImageRow], divided: Iterable[ImageRow]
) -> Repair:
    """What merging changed.

    Args:
        merged: uris of each group that was made of several.
        without: rows as they would have been divided without the merging.
        divided: rows as they are divided.
    """
    before, after = ({row.uri: row.split for row in rows} for rows in (without, divided))
    leaks = tuple(uris for uris in merged if len({before[uri] for uri in uris}) > 1)
    moved = tuple((uri, before[uri], split) for uri, split in sorted(after.items()) if before[uri] != split)
    return Repair(merged, leaks, moved)


def _check_sizes(members: dict[str, list[str]], count: int, where: str) -> None:
    most = max(_ALWAYS_ALLOWED, int(LARGEST_SHARE * count))
    large = Counter({name: len(uris) for name, uris in members.items() if len(uris) > most}).most_common()
    if not large:
        return
    (name, size), *more = large
    others = f" (and {len(more)} more as large as that)" if more else ""
    raise DataError(
        f"{where}: near duplicates would make one group of {size} of the {count} images, named {name}, want at most "
        f"{most} ({LARGEST_SHARE:.0%}){others}: {shown(sorted(members[name]))}; look at them in "
        "`lineside dataset check`: name the part or lot with [data] group_pattern or a group column, take surplus "
        "pictures out, or run without group_near_duplicates"
    )
