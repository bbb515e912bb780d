"""What the commands on sets of images take: where they are, how they are understood, for which line."""

from pathlib import Path
from typing import Annotated, Any

import typer

from inspection.arguments import OWN_LINE
from inspection.errors import SettingsError
from inspection.settings import REPOSITORY, Settings, load_settings, override_settings

FLOWS = REPOSITORY / "flows"

PathArgument = Annotated[
    str,
    typer.Argument(
        metavar="[PATH]",
        help="Folder, list, manifest or s3:// address of images; [data] source of the line without.",
        show_default=False,
    ),
]
LineOption = Annotated[
    str,
    typer.Option(
        "--line",
        metavar="FILE",
        help="Settings of the line, such as lines/bottles.toml; the defaults of lines/line.toml without.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format", metavar="NAME", help="How the set is laid out; found by looking without.", show_default=False
    ),
]
MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="PREFIX=FOLDER",
        help="Where a manifest's images lie here, such as s3://bucket/x=./images; may be given several times.",
        show_default=False,
    ),
]
DropOption = Annotated[
    bool, typer.Option("--drop-bad-images", help="Leave out images that cannot be used, and list them.")
]
GroupOption = Annotated[
    bool, typer.Option("--group-near-duplicates", help="Keep pictures of one capture in one split.")
]
SuspectOption = Annotated[
    bool,
    typer.Option(
        "--suspicious-labels", help="Also look for images whose nearest neighbours bear the other label; takes longer."
    ),
]


def read_settings(line: str, storage: str, path: str, where: str = "the command's flags", **flags: Any) -> Settings:
    """The line's settings with the command's flags in their places.

    Args:
        line: settings file, also looked for in `flows/`; "" = the defaults.
        storage: beats `[line] storage`.
        path: beats `[data] source`.
        where: what to call the flags in messages.
        flags: other keys of `[data]`.

    Raises:
        SettingsError: no such file, or it or a flag breaks a rule.
    """
    settings = load_settings(_find(line) if line else FLOWS / OWN_LINE)
    return override_settings(settings, path, data_flags=flags, storage=storage, where=where)


def _find(name: str) -> Path:
    given = Path(name).expanduser()
    for candidate in (given, FLOWS / given):
        if candidate.is_file():
            return candidate
    raise SettingsError(
        f"--line {name}: want a settings file, found none at {given.absolute()} nor at {FLOWS / given}; "
        f"copy {FLOWS / OWN_LINE} and adapt it"
    )
