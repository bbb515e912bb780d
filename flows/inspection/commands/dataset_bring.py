"""`lineside dataset import` and `snapshot`: bring a set to a line's own place, and record what it is."""

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
from inspection.commands.output import JsonOption, StorageOption, make_console, print_json, print_line, print_next
from inspection.dataset.location import find_images
from inspection.dataset.manifest import SPLITS
from inspection.dataset.report import describe_repair_in_words, printable
from inspection.storage import open_storage


def import_set(
    path: PathArgument = "",
    line: LineOption = "",
    format: FormatOption = "",
    map: MapOption = None,
    drop_bad_images: DropOption = False,
    storage: StorageOption = "",
    as_json: JsonOption = False,
) -> None:
    """Copy a set into the line's labelled data, checked first; what is there is never overwritten.

    It comes to rest as <storage>/<line>/labeled-data/train/good, train/bad/<defect type> and validation/…, from
    wherever and in whatever form it was.
    """
    # what examines pictures takes a second to import, which no other command should wait for
    from inspection.dataset.bringing import bring, describe
    from inspection.dataset.checking import check_dataset
    from inspection.dataset.checks import check_findings

    settings = read_settings(line, storage, path, format=format, map=map or [], drop_bad_images=drop_bad_images)
    root = open_storage(settings.storage_root)
    report, source = check_dataset(settings, find_images(settings), root)
    images = [image for image in report.images if image.uri not in report.dropped]
    check_findings(report.findings, report.faults, images, source.location)
    brought = bring(images, source, root, settings.line.name)
    if as_json:
        print_json({"place": f"{root.root}/{brought.place}", **vars(brought), "dropped": dict(report.dropped)})
        return
    console = make_console()
    print_line(console, f"{root.root}/{brought.place}", style="bold")
    print_line(console, printable(describe(brought)))
    for uri, reason in sorted(report.dropped.items()):
        print_line(console, f"left out: {printable(uri)} ({printable(reason)})")
    for finding in report.warnings:
        print_line(console, f"warning: {finding.title.lower()}: {printable(finding.summary)}", style="yellow")
    print_line(console, f"next: python flows/train_flow.py run --data {root.root}/{brought.place}", style="cyan")
    print_line(console, f"      with groups, lots and views: --data {root.root}/{brought.list_key}", style="cyan")


def take_snapshot(
    path: PathArgument = "",
    line: LineOption = "",
    format: FormatOption = "",
    map: MapOption = None,
    drop_bad_images: DropOption = False,
    group_near_duplicates: GroupOption = False,
    suspicious_labels: SuspectOption = False,
    storage: StorageOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take a set in as the train flow's first step does: check, divide and record it as the line's latest snapshot."""
    from inspection.dataset.intake import take_in

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
    intake = take_in(settings, find_images(settings), open_storage(settings.storage_root))
    taken = intake.snapshot
    if as_json:
        print_json(
            {
                "id": taken.id,
                "parent": taken.parent,
                "line": settings.line.name,
                "images": len(taken.rows),
                "warnings": intake.findings,
                "dropped": dict(intake.dropped),
                "repair": intake.repair,
            }
        )
        return
    console = make_console()
    splits = ", ".join(f"{len(taken.select(split)):,} {split}" for split in SPLITS)
    print_line(console, f"line {settings.line.name}: snapshot {taken.id}", style="bold")
    print_line(console, f"{len(taken.rows):,} images: {splits}")
    for finding in intake.findings:
        print_line(console, f"warning: {finding.title.lower()}: {printable(finding.summary)}", style="yellow")
    for uri, reason in sorted(intake.dropped.items()):
        print_line(console, f"left out: {printable(uri)} ({printable(reason)})")
    if intake.repair is not None:
        print_line(console, " ".join(describe_repair_in_words(intake.repair)))
    print_next(console, storage, f"dataset lineage {settings.line.name}", f"dataset show {settings.line.name}")
