"""`lineside registry`: the versions of a line's model and the decisions on them."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from inspection.commands.opening import ConfigOption, open_models
from inspection.commands.output import (
    JsonOption,
    LineArgument,
    StorageOption,
    VersionArgument,
    make_console,
    make_fields,
    print_json,
    print_line,
    print_next,
)
from inspection.commands.versions import explain_empty, print_decision, print_version, print_versions
from inspection.dataset.manifest import read_document
from inspection.errors import RegistryError
from inspection.registry.interface import Status
from inspection.storage import Storage

app = typer.Typer(no_args_is_help=True, help="Versions of a line's model: see, approve, reject, roll back, fetch.")

BY = typer.Option("--by", metavar="NAME", help="Who decides: a person's name.", show_default=False)
WHY = typer.Option("--why", metavar="REASON", help="The reason; the history keeps it.", show_default=False)
ByOption = Annotated[str, BY]
WhyOption = Annotated[str, WHY]
StatusOption = Annotated[Status, typer.Option("--status", help="The status to look for.")]


@app.command("list")
def list_versions(
    line: Annotated[
        str, typer.Argument(metavar="[LINE]", help="Name of the line; all lines without.", show_default=False)
    ] = "",
    storage: StorageOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List model versions, newest first, with their rates on the holdout."""
    registry = open_models(storage, config)
    lines = (line,) if line else registry.lines()
    versions = [version for name in lines for version in reversed(registry.list(name))]
    if as_json:
        print_json(versions)
        return
    console = make_console()
    if not versions:
        explain_empty(console, registry, line)
        return
    for name in lines:
        print_versions(console, name, [version for version in versions if version.line == name])
    pending = next((version for version in versions if version.status == "pending"), None)
    shown = pending or versions[0]
    commands = [f"registry show {shown.line} {shown.version}"]
    if pending:
        commands.append(f"registry approve {shown.line} {shown.version} --by NAME --why REASON")
    print_next(console, storage, *commands, config=config)


@app.command()
def show(
    line: LineArgument,
    version: VersionArgument,
    storage: StorageOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all that is known of one version."""
    found = open_models(storage, config).get(line, version)
    if as_json:
        print_json(found)
    else:
        print_version(make_console(), found, storage, config)


@app.command()
def latest(
    line: LineArgument,
    status: StatusOption = "approved",
    storage: StorageOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the highest version that is approved (or has another status)."""
    registry = open_models(storage, config)
    found = registry.latest(line, status)
    if found is None:
        counts = ", ".join(f"{each.version} {each.status}" for each in registry.list(line)) or "none"
        raise RegistryError(
            f"line {line}: want a version that is {status}, found none (versions: {counts}); "
            f"see `lineside registry list {line}`"
        )
    if as_json:
        print_json(found)
    else:
        print_version(make_console(), found, storage, config)


@app.command()
def approve(
    line: LineArgument,
    version: VersionArgument,
    by: ByOption,
    why: WhyOption,
    storage: StorageOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a version be deployed."""
    registry = open_models(storage, config)
    before = registry.get(line, version)
    print_decision(before, registry.approve(line, version, by, why), storage, config, as_json)


@app.command()
def reject(
    line: LineArgument,
    version: VersionArgument,
    by: ByOption,
    why: WhyOption,
    storage: StorageOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse a pending version."""
    registry = open_models(storage, config)
    before = registry.get(line, version)
    print_decision(before, registry.reject(line, version, by, why), storage, config, as_json)


@app.command("roll-back")
def roll_back(
    line: LineArgument,
    version: VersionArgument,
    by: ByOption,
    why: WhyOption,
    storage: StorageOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Withdraw an approved version; the approved one before it is then the latest."""
    registry = open_models(storage, config)
    before = registry.get(line, version)
    print_decision(before, registry.roll_back(line, version, by, why), storage, config, as_json)


@app.command()
def lineage(
    line: LineArgument,
    version: VersionArgument,
    storage: StorageOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a version was made from: images, run, code, and the model it was to beat."""
    registry = open_models(storage, config)
    found = registry.lineage(line, version)
    snapshots = _list_ancestors(registry.storage, found.snapshot)
    if as_json:
        print_json({"line": line, "version": version, "lineage": found, "snapshots": snapshots})
        return
    rows: list[tuple[str, str | Text]] = [("model", f"line {line} version {version}"), ("run", found.run)]
    rows += [("card", found.card)] if found.card else []
    rows += [("code", found.commit or "unknown: it was no git checkout")]
    rows += [("champion", f"version {found.champion}" if found.champion else "none: no version was approved then")]
    rows += [("snapshot", found.snapshot if snapshots else f"{found.snapshot} (not in this storage)")]
    rows += [("grown from", snapshot) for snapshot in snapshots[1:]]
    console = make_console()
    console.print(make_fields(rows))
    print_next(console, registry.storage.root if config else storage, f"dataset show {line} {found.snapshot[:12]}")


@app.command()
def fetch(
    line: LineArgument,
    version: VersionArgument,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Folder to unpack into.", show_default=False)],
    storage: StorageOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Unpack a version's model package, verifying every digest."""
    registry = open_models(storage, config)
    folder = registry.fetch(line, version, to)
    if as_json:
        print_json({"line": line, "version": version, "folder": str(folder)})
        return
    console = make_console()
    print_line(console, f"line {line} version {version}: verified and unpacked into {folder}")
    print_line(console, f"next: python -m edge --model {folder} --self-test", style="cyan")


def _list_ancestors(storage: Storage, snapshot: str) -> list[str]:
    """The snapshot and those it grew from, newest first; empty when it is not in this storage."""
    found: list[str] = []
    parent: str | None = snapshot
    while parent and parent not in found and storage.exists(f"datasets/{parent}/about.json"):
        found.append(parent)
        parent = read_document(storage, f"datasets/{parent}/about.json")["parent"]
    return found
