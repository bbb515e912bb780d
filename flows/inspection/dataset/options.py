"""How a source of images is to be understood, where looking at it does not tell."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache

from inspection.dataset.manifest import Label
from inspection.errors import DataError

GOOD_LABELS = ("good", "ok", "normal", "pass", "0", "false")
BAD_LABELS = (
    "bad",
    "nok",
    "ng",
    "not ok",
    "anomaly",
    "anomalous",
    "abnormal",
    "defect",
    "defective",
    "fail",
    "1",
    "true",
)
ANY = "*"  # among the bad labels: whatever is not good names a defect type


@dataclass(frozen=True)
class Columns:
    """Names of a list's columns (CSV) or keys (JSON lines), in any case; a list needs the first two only."""

    path: str = "path"
    label: str = "label"  # in a Ground Truth manifest: the attribute that holds the label
    defect_type: str = "defect_type"
    mask: str = "mask"
    group: str = "group"
    lot: str = "lot"
    station: str = "station"
    view: str = "view"
    split: str = "split"

    @property
    def chosen(self) -> tuple[str, ...]:
        """Those that were named by hand, so that a list without them is wrong."""
        return tuple(getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default)


@dataclass(frozen=True)
class SourceOptions:
    """What a person may say of a source. Everything has a default, under which it is found by looking."""

    format: str = ""  # name of a format; "" = found by looking
    group_pattern: str = ""  # `[data] group_pattern`
    maps: tuple[
        tuple[str, str], ...
    ] = ()  # prefix of a list's references -> folder or s3:// address that it stands for
    columns: Columns = field(default_factory=Columns)
    good_labels: tuple[str, ...] = GOOD_LABELS  # spellings, in any case
    bad_labels: tuple[str, ...] = BAD_LABELS  # one that is not in BAD_LABELS also names the defect type; "*" = any
    store: str = ""  # folder for what is fetched from S3; "" = ~/.cache/lineside/fetched


def parse_maps(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read `--map` flags such as `s3://bucket/x=./images`.

    Raises:
        DataError: one has no '=', or an empty side.
    """
    pairs = []
    for text in texts:
        prefix, found, target = text.partition("=")
        if not (prefix and found and target):
            raise DataError(f"--map {text!r}: want PREFIX=FOLDER, such as s3://bucket/x=./images")
        pairs.append((prefix, target))
    return tuple(pairs)


def read_label(value: str, options: SourceOptions, where: str) -> tuple[Label, str | None]:
    """What a label of a list means.

    Args:
        value: as the list spells it.
        options: the spellings that are known.
        where: file and line, for messages.

    Returns:
        label and, if the spelling names a kind of defect, that kind.

    Raises:
        DataError: the spelling is not known.
    """
    meaning = _meaning(value.strip(), options.good_labels, options.bad_labels)
    if meaning is None:
        raise DataError(
            f"{where}: unknown label {value!r}; want one of {', '.join(options.good_labels)} for good parts or "
            f"{', '.join(options.bad_labels)} for bad ones; correct it, or name your spellings in [data] good_labels "
            'and bad_labels (bad_labels = ["*"] takes every other label for a defect type)'
        )
    return meaning


@lru_cache(maxsize=4096)  # a list has few spellings and many lines
def _meaning(text: str, good: tuple[str, ...], bad: tuple[str, ...]) -> tuple[Label, str | None] | None:
    spelled, known = text.casefold(), {label.casefold() for label in bad}
    if spelled in {label.casefold() for label in good}:
        return "good", None
    if spelled in BAD_LABELS and spelled in known:
        return "bad", None
    return ("bad", text) if text and (spelled in known or ANY in known) else None
