"""`lineside dataset diff` and `lineage`: what changed between two snapshots, and from one to the next."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from inspection.commands.dataset_options import FormatOption, LineOption, MapOption, read_settings
from inspection.commands.output import (
    JsonOption,
    LineArgument,
    StorageOption,
    make_console,
    make_table,
    open_root,
    print_json,
    print_line,
    print_next,
)
from inspection.dataset.diff import Difference, Pair, compare, trace
from inspection.dataset.manifest import ImageRow, Snapshot, load_snapshot, read_history
from inspection.dataset.report import printable
from inspection.errors import DataError
from inspection.storage import Storage, open_storage

SHOWN = 20  # images of each kind of change, in the terminal
SnapshotArgument = Annotated[
    str,
    typer.Argument(
        metavar="SNAPSHOT",
        help="First digits of a snapshot's id, a line (its latest), a line's step such as bottles@3, or a folder, list "
        "or s3:// address of images.",
        show_default=False,
    ),
]


def diff(
    a: SnapshotArgument,
    b: SnapshotArgument,
    line: LineOption = "",
    format: FormatOption = "",
    map: MapOption = None,
    storage: StorageOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what the second of two snapshots has otherwise than the first.

    Images added, removed, replaced, renamed, relabelled, moved to another split, regrouped; masks and boxes changed.
    """
    settings = read_settings(line, storage, "", format=format, map=map or [])
    root = open_root(storage) if storage else open_storage(settings.storage_root)

    def find(name: str) -> Snapshot:
        found = _find_stored(root, name)
        if found is None:
            from inspection.dataset.undivided import read_undivided  # a second to import

            return read_undivided(settings, name)
        return found

    before, after = find(a), find(b)
    found = compare(before.rows, after.rows)
    if as_json:
        print_json({"a": before.id, "b": after.id, "counts": found.counts(), **_to_json(found)})
        return
    console = make_console()
    print_line(console, f"from {_name(before)} to {_name(after)}", style="bold")
    if found.is_empty:
        print_line(console, "nothing changed")
        return
    _print_rows(console, "added", found.added)
    _print_rows(console, "removed", found.removed)
    for kind in ("replaced", "renamed", "relabelled", "moved", "regrouped", "masks", "boxes"):
        _print_pairs(console, kind, getattr(found, kind))


def lineage(line: LineArgument, storage: StorageOption = "", as_json: JsonOption = False) -> None:
    """Show how a line came to its latest snapshot: what each step added, removed, relabelled, left out."""
    root = open_root(storage)
    steps = trace(root, line)
    if not steps:
        raise DataError(
            f"line {line}: want a dataset snapshot, found none in {root.root}; "
            "`lineside dataset snapshot PATH` makes one"
        )
    if as_json:
        print_json(
            [
                {
                    "number": step.entry.number,
                    "id": step.snapshot.id,
                    "parent": step.snapshot.parent,
                    "location": step.snapshot.location,
                    "images": len(step.snapshot.rows),
                    "changes": step.difference.counts(),
                    "dropped": step.entry.dropped,
                    "grouped": step.entry.grouped,
                }
                for step in steps
            ]
        )
        return
    console = make_console()
    kinds = [name for name in steps[0].difference.counts() if any(step.difference.counts()[name] for step in steps)]
    heads = ["images", *kinds, "left out"]
    table = make_table("number", "snapshot", *heads, "from", right=("number", *heads))
    for step in reversed(steps):
        counts = step.difference.counts()
        cells = [f"{counts[kind]:,}" if counts[kind] else "" for kind in kinds]
        out = f"{len(step.entry.dropped):,}" if step.entry.dropped else ""
        table.add_row(
            str(step.entry.number),
            step.snapshot.id[:12],
            f"{len(step.snapshot.rows):,}",
            *cells,
            out,
            printable(step.snapshot.location),
        )
    print_line(console, f"line {line}: what changed with each snapshot", style="bold")
    console.print(table)
    if len(steps) > 1:
        print_next(console, storage, f"dataset diff {line}@{steps[-2].entry.number} {line}@{steps[-1].entry.number}")


def _find_stored(storage: Storage, name: str) -> Snapshot | None:
    """The stored snapshot that is meant; None if a place with images is.

    Raises:
        DataError: several snapshots, or neither a snapshot nor a place.
    """
    if name.startswith("s3://") or "/" in name or Path(name).expanduser().exists():
        return None
    line, _, step = name.partition("@")
    history = read_history(storage, line) if not step or step.isdigit() else []
    if history:
        chosen = [entry for entry in history if not step or entry.number == int(step)]
        if not chosen:
            raise DataError(f"{name}: line {line} has the steps 1 to {history[-1].number}")
        return load_snapshot(storage, chosen[-1].snapshot)
    stored = sorted({key.split("/")[1] for key in storage.list(f"datasets/{name}")})
    if len(stored) != 1:
        found = ", ".join(found[:12] for found in stored[:10]) or "none"
        raise DataError(
            f"{name}: want one snapshot whose id begins so, a line, or a place with images; snapshots found in "
            f"{storage.root}: {found}"
        )
    return load_snapshot(storage, stored[0])


def _name(snapshot: Snapshot) -> str:
    place = printable(snapshot.location)
    return f"{snapshot.id[:12]} ({place})" if snapshot.id else place


def _kind(row: ImageRow) -> str:
    return f"{row.label}: {row.defect_type}" if row.defect_type else row.label


def _print_rows(console: Console, name: str, rows: tuple[ImageRow, ...]) -> None:
    _print_list(console, name, [f"{row.uri} ({_kind(row)})" for row in rows])


def _print_pairs(console: Console, name: str, pairs: tuple[Pair, ...]) -> None:
    def tell(old: ImageRow, new: ImageRow) -> str:
        uri = new.uri if old.uri == new.uri else f"{old.uri} -> {new.uri}"
        return {
            "relabelled": f"{uri} ({_kind(old)} -> {_kind(new)})",
            "moved": f"{uri} ({old.split} -> {new.split})",
            "regrouped": f"{uri} ({old.group} -> {new.group})",
            "masks": f"{uri} ({old.mask or 'no mask'} -> {new.mask or 'no mask'})",
            "boxes": f"{uri} ({len(old.boxes)} -> {len(new.boxes)} boxes)",
        }.get(name, uri)

    _print_list(console, name, [tell(old, new) for old, new in pairs])


def _print_list(console: Console, name: str, texts: list[str]) -> None:
    if not texts:
        return
    print_line(console, f"{name}: {len(texts):,}", style="bold")
    for text in texts[:SHOWN]:
        print_line(console, f"  {printable(text)}")
    if len(texts) > SHOWN:
        print_line(console, f"  and {len(texts) - SHOWN:,} more; --json lists all")


def _to_json(found: Difference) -> dict[str, object]:
    single = {name: [row.uri for row in getattr(found, name)] for name in ("added", "removed")}
    pairs = {
        name: [
            {
                "uri": new.uri,
                "before": {"uri": old.uri, "label": old.label, "defect_type": old.defect_type, "split": old.split},
                "after": {"uri": new.uri, "label": new.label, "defect_type": new.defect_type, "split": new.split},
            }
            for old, new in getattr(found, name)
        ]
        for name in found.counts()
        if name not in single
    }
    return {**single, **pairs}
