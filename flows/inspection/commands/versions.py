"""How model versions are shown: as a table, one in full, and after a decision."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from inspection.commands.output import (
    PIPE_WIDTH,
    format_age,
    format_figure,
    format_status,
    format_time,
    make_console,
    make_fields,
    make_table,
    plain,
    print_json,
    print_line,
    print_next,
)
from inspection.registry.interface import ModelVersion, Registry

COLUMNS = {"auroc": "AUROC", "escape_rate": "escape %", "overkill_rate": "overkill %", "review_rate": "review %"}


def explain_empty(console: Console, registry: Registry, line: str) -> None:
    """Say how the first version is made, and which lines there are."""
    others = ", ".join(registry.lines())
    what = f"Line {line} has" if line else "There are"
    print_line(console, f"{what} no model versions in {registry.storage.root}.")
    if line and others:
        print_line(console, f"Lines there: {others}.")
    print_line(console, "next: python flows/train_flow.py run", style="cyan")


def print_versions(console: Console, line: str, versions: list[ModelVersion]) -> None:
    """A table of a line's versions; intervals are left out where the terminal is too narrow for them."""
    table, legend = _make_version_table(versions, intervals=True), "rates on the holdout with 95 % intervals"
    if console.measure(table, options=console.options.update(max_width=PIPE_WIDTH)).maximum > console.width:
        table, legend = _make_version_table(versions, intervals=False), "rates on the holdout"
    print_line(console, Text.assemble((f"line {line}", "bold"), (f"  {legend}", "dim")))
    console.print(table)
    for version in versions:
        if version.metrics.get("autonomous") is False:
            print_line(console, _describe_manual(version), style="bold yellow")


def _make_version_table(versions: list[ModelVersion], intervals: bool) -> Table:
    names = [name for name in COLUMNS if any(name in version.metrics for version in versions)]
    heads = [COLUMNS[name] for name in names]
    table = make_table("version", "status", "made", *heads, "by", right=("version", *heads))
    for version in versions:
        figures = [
            format_figure(name, version.metrics[name], intervals and name != "auroc").replace(" %", "")
            if name in version.metrics
            else "-"
            for name in names
        ]
        by = version.history[-1].by if version.history else "-"
        table.add_row(
            str(version.version), format_status(version.status), format_age(version.created_at), *figures, plain(by)
        )
    return table


def print_version(console: Console, version: ModelVersion, storage: str, config: Path | None = None) -> None:
    """Everything about one version, and the commands that it allows."""
    title = Text.assemble(
        (f"line {version.line} version {version.version}", "bold"), "  ", format_status(version.status)
    )
    print_line(console, title)
    rows: list[tuple[str, str | Text]] = [
        ("made", format_time(version.created_at)),
        ("model", version.contract_version),
        ("package", version.archive_sha256),
        ("snapshot", version.lineage.snapshot),
        ("run", version.lineage.run),
        ("code", version.lineage.commit or "unknown: it was no git checkout"),
    ]
    rows += [(name, str(value)) for name, value in version.tags.items()]
    console.print(make_fields(rows))
    if version.metrics:
        table = make_table("metric", "value", right=("value",))
        for name, value in version.metrics.items():
            table.add_row(plain(name), plain(format_figure(name, value)))
        console.print(table)
    for change in version.history:
        line = Text.assemble(format_status(change.status), f" by {change.by}, {format_time(change.at)}: {change.why}")
        print_line(console, line)
    if version.metrics.get("autonomous") is False:
        print_line(console, _describe_manual(version), style="bold yellow")
    place = f"{version.line} {version.version}"
    commands = {
        "pending": (f"approve {place} --by NAME --why REASON", f"reject {place} --by NAME --why REASON"),
        "approved": (f"fetch {place} --to FOLDER",),
    }.get(version.status, (f"approve {place} --by NAME --why REASON",))
    print_next(console, storage, *(f"registry {command}" for command in commands), config=config)


def print_decision(before: ModelVersion, after: ModelVersion, storage: str, config: Path | None, as_json: bool) -> None:
    """What a decision changed."""
    if as_json:
        print_json(after)
        return
    console = make_console()
    change = after.history[-1]
    print_line(
        console,
        Text.assemble(
            f"line {after.line} version {after.version}: ",
            format_status(before.status),
            " -> ",
            format_status(after.status),
            f" (by {change.by}: {change.why})",
        ),
    )
    if after.status == "approved" and after.metrics.get("autonomous") is False:
        print_line(console, _describe_manual(after), style="bold yellow")
    follow = f"fetch {after.line} {after.version} --to FOLDER" if after.status == "approved" else f"list {after.line}"
    print_next(console, storage, f"registry {follow}", config=config)


def _describe_manual(version: ModelVersion) -> str:
    return f"version {version.version} is NOT AUTONOMOUS: it would send more than half of the parts to review"
