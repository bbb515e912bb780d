"""`lineside dataset check`: what is wrong with a set of images, in the terminal and as a page with pictures."""

import hashlib
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inspection.commands.dataset_options import (
    DropOption,
    FormatOption,
    GroupOption,
    LineOption,
    MapOption,
    PathArgument,
    SuspectOption,
    read_settings,
)
from inspection.commands.output import (
    JsonOption,
    StorageOption,
    make_console,
    make_table,
    plain,
    print_json,
    print_line,
)
from inspection.dataset.location import find_images
from inspection.dataset.report import (
    Report,
    count_classes,
    count_lots,
    describe_repair_in_words,
    next_steps,
    printable,
    to_json,
)
from inspection.errors import StorageError
from inspection.storage import Storage, open_storage

SHOWN_FILES = 5  # of a finding, in the terminal
SHOWN_LOTS = 12
STYLES = {"error": "bold red", "warning": "yellow"}


def check(
    path: PathArgument = "",
    line: LineOption = "",
    format: FormatOption = "",
    map: MapOption = None,
    html: Annotated[
        str,
        typer.Option(
            "--html", metavar="FILE", help="Where to write the page; without, below the storage.", show_default=False
        ),
    ] = "",
    drop_bad_images: DropOption = False,
    group_near_duplicates: GroupOption = False,
    suspicious_labels: SuspectOption = False,
    storage: StorageOption = "",
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with a set of images before it costs anything; exit status 1 on errors.

    Nothing is changed, moved or deleted. A page with pictures is written: see its address at the end.
    """
    from inspection.dataset.checking import check_dataset  # a second to import

    settings = read_settings(
        line,
        storage,
        path,
        format=format,
        map=map or [],
        drop_bad_images=drop_bad_images,
        group_near_duplicates=group_near_duplicates,
        suspicious_labels=suspicious_labels,
    )
    root = open_storage(settings.storage_root)
    report, source = check_dataset(settings, find_images(settings), root)
    page = ""
    if html or not as_json:
        from inspection.dataset.report_page import render_page

        page = _write_page(render_page(report, source, settings.input.white_level), html, root, report.location)
    if as_json:
        print_json({**to_json(report), "page": page or None})
    else:
        _print_report(make_console(), report, page)
    if report.stops:
        raise typer.Exit(1)


def _write_page(text: str, html: str, storage: Storage, location: str) -> str:
    """Write the page and say where it is."""
    data = text.encode("utf-8", "backslashreplace")
    if html:
        path = Path(html).expanduser()
        try:
            path.write_bytes(data)
        except OSError as error:
            raise StorageError(f"--html {html}: cannot write the page ({error.strerror})") from error
        return str(path.absolute())
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(location).name)[:40] or "images"
    digest = hashlib.sha256(location.encode(errors="surrogateescape")).hexdigest()[:8]
    key = f"reports/{name}-{digest}.html"
    storage.write(key, data)
    return f"{storage.root}/{key}"


def _print_report(console: Console, report: Report, page: str) -> None:
    print_line(console, Text.assemble((printable(report.location), "bold"), f"  {len(report.images):,} images"))
    _print_counts(console, report)
    if report.findings:
        console.print(_make_findings(report))
    for finding in report.findings:
        files = [printable(uri) for uri in finding.uris[:SHOWN_FILES]]
        if files:
            more = f" and {len(finding.uris) - SHOWN_FILES:,} more" if len(finding.uris) > SHOWN_FILES else ""
            print_line(console, Text.assemble((f"{finding.code}: ", STYLES[finding.severity]), ", ".join(files) + more))
    if report.dropped:
        print_line(console, f"left out ({len(report.dropped):,}):", style="bold")
        for uri, reason in sorted(report.dropped.items()):
            print_line(console, f"  {printable(uri)} ({printable(reason)})")
    if report.repair is not None:
        print_line(console, " ".join(describe_repair_in_words(report.repair)))
    style = "bold red" if report.stops else "bold yellow" if report.warnings else "bold green"
    print_line(console, report.verdict, style=style)
    print_line(console, "What to do next", style="bold")
    for number, step in enumerate(next_steps(report), 1):
        print_line(console, f"{number:>3}. {printable(step)}")
    print_line(console, f"page with pictures: {printable(page)}", style="cyan")


def _print_counts(console: Console, report: Report) -> None:
    counts = count_classes(report.images)
    heads = ["images"]
    heads += ["train", "validation"] if any(count.train or count.validation for count in counts) else []
    heads += ["groups"] if any(count.groups != count.images for count in counts) else []
    heads += ["lots"] if any(count.lots for count in counts) else []
    heads += [name for name in ("masks", "boxes") if any(getattr(count, name) for count in counts)]
    table = make_table("class", *heads, right=tuple(heads))
    for count in counts:
        table.add_row(plain(printable(count.name)), *(f"{getattr(count, head):,}" for head in heads))
    console.print(table)
    lots = count_lots(report.images)
    if lots:
        table = make_table("lot", "good", "bad", right=("good", "bad"))
        for lot, good, bad in lots[:SHOWN_LOTS]:
            table.add_row(plain(printable(lot)), f"{good:,}", f"{bad:,}")
        console.print(table)
        if len(lots) > SHOWN_LOTS:
            print_line(console, f"and {len(lots) - SHOWN_LOTS:,} more lots")


def _make_findings(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("what", overflow="fold", ratio=2)
    table.add_column("images", justify="right", no_wrap=True)
    table.add_column("found", overflow="fold", ratio=3)
    for finding in report.findings:
        table.add_row(
            Text(finding.severity, style=STYLES[finding.severity]),
            plain(finding.title),
            f"{len(finding.uris):,}" if finding.uris else "",
            plain(printable(finding.summary)),
        )
    return table
