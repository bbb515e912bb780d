"""How the commands print: for a person in a terminal, plainly into a pipe, as JSON for machines."""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inspection.decision.rounding import Toward, show_rounded
from inspection.errors import StorageError
from inspection.settings import REPOSITORY
from inspection.storage import Storage, open_storage

DEFAULT_STORAGE = REPOSITORY / ".lineside"
PIPE_WIDTH = 1000  # columns: what reads a pipe wants whole lines
STYLES = {"pending": "yellow", "approved": "green", "rejected": "red", "rolled-back": "magenta"}

StorageOption = Annotated[
    str,
    typer.Option(
        "--storage",
        metavar="FOLDER|S3",
        help="Where the line keeps its things: a folder or s3://bucket/prefix. Default: .lineside/ in the repository.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
LineArgument = Annotated[str, typer.Argument(metavar="LINE", help="Name of the line.", show_default=False)]
VersionArgument = Annotated[
    int, typer.Argument(metavar="VERSION", min=1, help="Number of the version.", show_default=False)
]


def open_root(storage: str) -> Storage:
    """The storage that a command was pointed at.

    Raises:
        StorageError: a folder was named that is not there: reading must not make it.
    """
    if storage:
        check_there(storage, f"--storage {storage}")
    return open_storage(storage or str(DEFAULT_STORAGE))


def check_there(root: str, where: str) -> None:
    """Refuse a folder that is not there: opening it would make it.

    Raises:
        StorageError: it is not there.
    """
    if not root.startswith("s3://") and not Path(root).expanduser().is_dir():
        raise StorageError(f"{where}: want a folder or s3://bucket/prefix, found no such folder")


def make_console() -> Console:
    """Standard output; a pipe gets unwrapped lines without colour."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def print_json(value: Any) -> None:
    """Dataclasses and what they hold, as JSON on standard output."""
    print(json.dumps(value, indent=2, default=_to_json))


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"want a dataclass or a time, found {type(value).__name__}")


def make_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table whose cells never wrap."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True, justify="right" if column in right else "left")
    return table


def make_fields(rows: list[tuple[str, str | Text]]) -> Table:
    """Names beside their values; a long value wraps under itself."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, plain(value) if isinstance(value, str) else value)
    return table


def plain(text: str) -> Text:
    """Text as it is: brackets in what people wrote are no markup."""
    return Text(text)


def print_line(console: Console, text: str | Text, style: str = "") -> None:
    """One line that is never broken, so that it can be copied."""
    console.print(plain(text) if isinstance(text, str) else text, style=style, soft_wrap=True)


def print_next(console: Console, storage: str, *commands: str, config: Path | None = None) -> None:
    """What a person may want to type now; `lineside` and the flags that lead here are put around each command."""
    suffix = f" --config {shlex.quote(str(config))}" if config else ""
    suffix += f" --storage {shlex.quote(storage)}" if storage else ""
    for index, command in enumerate(commands):
        print_line(console, f"{'next:' if index == 0 else '     '} lineside {command}{suffix}", style="cyan")


def format_status(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=STYLES.get(status, ""))


def format_age(moment: datetime, now: datetime | None = None) -> str:
    """How long ago, in the largest unit that fits; the date after a month."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if seconds < 60:
        return "just now"
    for unit, length, limit in (("min", 60, 3600), ("h", 3600, 86400), ("d", 86400, 31 * 86400)):
        if seconds < limit:
            return f"{int(seconds // length)} {unit} ago"
    return f"{moment:%Y-%m-%d}"


def format_time(moment: datetime) -> str:
    """The exact time and how long ago that was."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({format_age(moment)})"


def format_figure(name: str, value: Any, interval: bool = True, toward: Toward = "nearest") -> str:
    """A metric for a person: rates in percent, an interval in brackets behind its figure.

    Args:
        name: names that end in `rate`, `share` or `agreement` are shares.
        value: a number, or a mapping with `value` or `rate`, and `low` and `high`.
        interval: whether to show the interval.
        toward: how a share is rounded; promised ones and ends of an interval go outwards.
    """
    if isinstance(value, Mapping) and ("rate" in value or "value" in value):
        figure = value.get("rate", value.get("value"))
        if value.get("total") == 0:
            return "unknown"
        text = format_figure(name, figure)
        if interval and "low" in value and "high" in value:
            low, high = (
                format_figure(name, value["low"], toward="down"),
                format_figure(name, value["high"], toward="up"),
            )
            text += f" ({low.removesuffix(' %')}-{high.removesuffix(' %')})"
        return text
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if not name.endswith(("rate", "share", "agreement")):
            return f"{value:.3g}"
        return f"{show_rounded(100 * value, 1, 'up' if name.startswith('promised') else toward)} %"
    return str(value) if isinstance(value, str | int) else json.dumps(value)
