"""`lineside dataset`: a line's images and their snapshots."""

from collections import Counter
from typing import Annotated

import typer

from inspection.commands.dataset_bring import import_set, take_snapshot
from inspection.commands.dataset_changes import diff, lineage
from inspection.commands.dataset_check import check
from inspection.commands.output import (
    JsonOption,
    LineArgument,
    StorageOption,
    make_console,
    make_fields,
    make_table,
    open_root,
    print_json,
    print_line,
    print_next,
)
from inspection.dataset.manifest import SPLITS, ImageRow, Snapshot, load_snapshot, read_document
from inspection.errors import DataError
from inspection.storage import Storage

app = typer.Typer(
    no_args_is_help=True, help="A line's images: what is wrong with them, what was there, and how it was divided."
)
app.command()(check)
app.command("import")(import_set)
app.command("snapshot")(take_snapshot)
app.command()(diff)
app.command()(lineage)


@app.command()
def snapshots(line: LineArgument, storage: StorageOption = "", as_json: JsonOption = False) -> None:
    """List a line's snapshots, newest first, with good/bad counts in each split."""
    root = open_root(storage)
    found = [(number, load_snapshot(root, name)) for number, name in reversed(_list_history(root, line))]
    if as_json:
        print_json([{"number": number, **_summarise(snapshot)} for number, snapshot in found])
        return
    console = make_console()
    table = make_table("number", "snapshot", "images", *SPLITS, right=("number", "images", *SPLITS))
    for number, snapshot in found:
        cells = ["{good}/{bad}".format(**_count_labels(snapshot.select(split))) for split in SPLITS]
        table.add_row(str(number), snapshot.id[:12], f"{len(snapshot.rows):,}", *cells)
    print_line(console, f"line {line}: good/bad images in each split", style="bold")
    console.print(table)
    print_next(console, storage, f"dataset show {line}")


@app.command()
def show(
    line: LineArgument,
    name: Annotated[
        str,
        typer.Argument(metavar="[SNAPSHOT]", help="First digits of its id; the latest without.", show_default=False),
    ] = "",
    storage: StorageOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show one snapshot: images by split, class and kind of defect."""
    root = open_root(storage)
    found = load_snapshot(root, _find(root, line, name))
    if as_json:
        print_json(_summarise(found))
        return
    console = make_console()
    groups = len({row.group for row in found.rows})
    lots = len({row.lot for row in found.rows if row.lot is not None})
    sizes = Counter((row.width, row.height) for row in found.rows)
    (width, height), most = sizes.most_common(1)[0]
    size = f"{width} x {height} px" + (f" ({most:,} of them; {len(sizes)} sizes)" if len(sizes) > 1 else "")
    rows = [("snapshot", found.id), ("parent", found.parent or "none"), ("location", found.location), ("size", size)]
    rows += [("images", f"{len(found.rows):,} in {groups:,} groups" + (f" and {lots:,} lots" if lots else ""))]
    console.print(make_fields([*rows]))
    heads = (*SPLITS, "all")
    table = make_table("class", *heads, right=heads)
    for name, members in _classes(found).items():
        counts = [sum(row.split == split for row in members) for split in SPLITS]
        table.add_row(name, *(f"{count:,}" for count in (*counts, len(members))))
    console.print(table)


def _list_history(storage: Storage, line: str) -> list[tuple[int, str]]:
    """Number and snapshot id of each step of a line's history, oldest first.

    Raises:
        DataError: the line has none.
    """
    keys = storage.list(f"{line}/snapshots/")
    if not keys:
        raise DataError(
            f"line {line}: want a dataset snapshot, found none in {storage.root}; "
            "`python flows/train_flow.py run` makes one, or name another --storage"
        )
    return [
        (int(key.rpartition("/")[2].removesuffix(".json")), read_document(storage, key)["snapshot"]) for key in keys
    ]


def _find(storage: Storage, line: str, start: str) -> str:
    history = [name for _, name in _list_history(storage, line)]
    if not start:
        return history[-1]
    matches = sorted({name for name in history if name.startswith(start)})
    if len(matches) != 1:
        found = ", ".join(name[:12] for name in matches) or "none"
        raise DataError(f"line {line}: want one snapshot whose id begins with {start!r}, found {found}")
    return matches[0]


def _classes(snapshot: Snapshot) -> dict[str, list[ImageRow]]:
    """The rows of each class: good, bad, and each kind of defect below it."""
    classes = {label: [row for row in snapshot.rows if row.label == label] for label in ("good", "bad")}
    for kind in snapshot.defect_types:
        classes[f"  {kind}"] = [row for row in snapshot.rows if row.defect_type == kind]
    return classes


def _count_labels(rows: list[ImageRow]) -> dict[str, int]:
    return {label: sum(row.label == label for row in rows) for label in ("good", "bad")}


def _summarise(snapshot: Snapshot) -> dict[str, object]:
    return {
        "id": snapshot.id,
        "parent": snapshot.parent,
        "location": snapshot.location,
        "images": len(snapshot.rows),
        "splits": {split: _count_labels(snapshot.select(split)) for split in SPLITS},
        "defect_types": Counter(row.defect_type for row in snapshot.rows if row.defect_type is not None),
    }
