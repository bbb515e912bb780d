"""`lineside fleet`: the devices of a line, what runs on them, and the rollouts."""

import getpass
import shlex
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inspection.commands.output import (
    PIPE_WIDTH,
    JsonOption,
    format_age,
    make_console,
    make_table,
    plain,
    print_json,
    print_line,
)
from inspection.errors import RolloutError
from inspection.fleet.opening import open_fleet
from inspection.fleet.overview import DeviceOverview, look_over
from inspection.fleet.recipes import ComponentNames, component_names
from inspection.fleet.rollout.opening import request_abort
from inspection.fleet.rollout.record import RolloutRecord, latest_record, rollout_numbers
from inspection.fleet.rollout.timeline import outcome_of, sentence
from inspection.registry.choosing import choose_version
from inspection.registry.interface import check_person
from inspection.registry.opening import open_registry
from inspection.settings import REPOSITORY, Settings, load_settings
from inspection.storage import open_storage

app = typer.Typer(no_args_is_help=True, help="Devices of a line: what serves on them, and the deployments to them.")

FLOWS = REPOSITORY / "flows"
SAMPLE = FLOWS / "lines" / "sample.toml"
STYLES = {
    "ok": "green",
    "updating": "cyan",
    "deployed": "green",
    "went-back": "green",
    "unchanged": "green",
    "under way": "cyan",
    "degraded": "yellow",
    "silent": "yellow",
    "offline": "yellow",
    "nothing deployed": "dim",
}
HISTORY_SHOWN = 20

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config", metavar="FILE", help="Settings of the line. Default: the sample line.", show_default=False
    ),
]
ThingsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[DEVICE]...", help="Names of devices; all without.", show_default=False)
]


def open_line(config: Path) -> Settings:
    """The settings of the line; a relative name is also looked for in `flows/`, as the flows do.

    Raises:
        SettingsError: the file is missing or wrong.
    """
    given = config.expanduser()
    return load_settings(FLOWS / given if not given.exists() and (FLOWS / given).is_file() else given)


@app.command()
def status(config: ConfigOption = SAMPLE, as_json: JsonOption = False) -> None:
    """Show every device: what serves, since when, how it does, and what is wrong."""
    settings = open_line(config)
    storage = open_storage(settings.storage_root)
    devices = look_over(open_fleet(settings), storage, settings)
    latest = latest_record(storage, settings.line.name)
    if as_json:
        print_json(
            {
                "line": settings.line.name,
                "rollout": None if latest is None else outcome_of(latest),
                "devices": devices,
            }
        )
        return
    console = make_console()
    well = sum(device.well for device in devices)
    print_line(
        console,
        Text.assemble((f"line {settings.line.name}", "bold"), (f"  {well} of {len(devices)} devices are well", "dim")),
    )
    console.print(_fit(console, devices, component_names(settings.line.name, settings.fleet.component_prefix)))
    for device in devices:
        if device.error:
            print_line(console, f"{device.thing}: {device.error}", style="yellow")
    if latest is not None:
        _print_rollout(console, latest)
    _print_next(console, config, settings, devices, latest)


@app.command()
def history(config: ConfigOption = SAMPLE, as_json: JsonOption = False) -> None:
    """List the line's rollouts, newest first: what was deployed, by whom, and what became of it."""
    settings = open_line(config)
    storage = open_storage(settings.storage_root)
    numbers = rollout_numbers(storage, settings.line.name)[-HISTORY_SHOWN:]
    records = [RolloutRecord(storage, settings.line.name, number) for number in reversed(numbers)]
    if as_json:
        print_json(
            [
                {
                    "started_at": datetime.fromtimestamp(record.started_at(), UTC),
                    "outcome": outcome_of(record),
                    "events": record.events(),
                }
                for record in records
            ]
        )
        return
    console = make_console()
    if not records:
        print_line(console, f"Line {settings.line.name} has had no rollout.")
        print_line(console, f"next: python flows/deploy_flow.py{_config(config, 'line ')} run", style="cyan")
        return
    table = make_table("rollout", "began", "model", "before", "outcome", "why", right=("rollout", "model", "before"))
    table.columns[-1].no_wrap = False
    for record in records:
        found = outcome_of(record)
        table.add_row(
            str(record.number),
            format_age(datetime.fromtimestamp(record.started_at(), UTC)),
            str(record.plan.model_version),
            "-" if record.plan.champion is None else str(record.plan.champion),
            _styled("under way" if found.outcome == "open" else found.outcome),
            plain("" if found.good else found.reason),
        )
    console.print(table)


@app.command()
def abort(
    line: Annotated[str, typer.Argument(metavar="LINE", help="Name of the line.", show_default=False)],
    why: Annotated[str, typer.Option("--why", metavar="REASON", help="The reason; the record keeps it.")],
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who wants it.", show_default="this user")] = "",
    config: ConfigOption = SAMPLE,
) -> None:
    """Stop the rollout that runs, and undo it: whoever runs it does so at its next look at the devices."""
    settings = open_line(config)
    by = by or getpass.getuser()
    check_person(by, why)
    if settings.line.name != line:
        raise RolloutError(
            f"line {line}: want the settings of that line, found those of line {settings.line.name}; name them with "
            "--config lines/….toml"
        )
    storage = open_storage(settings.storage_root)
    print_line(make_console(), f"line {line}: {request_abort(storage, line, by, why, settings.fleet.poll_seconds)}")
    print_line(make_console(), f"next: lineside fleet status{_config(config)}", style="cyan")


@app.command()
def start(things: ThingsArgument = None, config: ConfigOption = SAMPLE) -> None:
    """Start the devices on this machine; they run in the background until `lineside fleet stop`."""
    from inspection.fleet.local.devices import start as start_devices

    for device in start_devices(_local(config), things or ()):
        print_line(make_console(), f"{device.thing}: runs (process {device.pid}) in {device.folder}")
    print_line(make_console(), f"next: lineside fleet status{_config(config)}", style="cyan")


@app.command()
def stop(things: ThingsArgument = None, config: ConfigOption = SAMPLE) -> None:
    """Stop the devices on this machine, with all that runs on them; what they have stays."""
    from inspection.fleet.local.devices import stop as stop_devices

    for device in stop_devices(_local(config), things or ()):
        print_line(make_console(), f"{device.thing}: stopped")


@app.command()
def build(
    to: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", help="For recipes/ and artifacts/.", show_default=False)
    ],
    model: Annotated[str, typer.Option("--model", metavar="VERSION|ARN", help="Default: the newest approved.")] = "",
    challenger: Annotated[bool, typer.Option("--challenger", help="Also the component for a shadow run.")] = False,
    config: ConfigOption = SAMPLE,
) -> None:
    """Write the components as files, to deploy by hand on a device with greengrass-cli or ggl-cli."""
    from inspection.fleet.components.build import build_components
    from inspection.fleet.components.folder import build_folder

    settings = open_line(config)
    registry = open_registry(settings)
    version = choose_version(registry, settings.line.name, model)
    console = make_console()
    with tempfile.TemporaryDirectory(prefix="lineside-components-") as scratch:
        built = build_components(settings, registry, version.version, Path(scratch))
        done = build_folder(built, to, challenger=challenger)
    print_line(console, f"line {settings.line.name}, model {version.version} ({version.status}): {done.folder}")
    table = make_table("MB for a device", "runtime", "inspector", "model", right=("runtime", "inspector", "model"))
    for row in built.sizes:
        sizes = (row.runtime, row.inspector, row.model)
        table.add_row(row.architecture, *(f"{size / 1e6:.2f}" for size in sizes))
    console.print(table)
    print_line(console, f"lite:    {shlex.join(done.command('lite'))}", style="cyan")
    print_line(console, f"classic: {shlex.join(done.command('classic'))}", style="cyan")


def _local(config: Path) -> Settings:
    settings = open_line(config)
    if settings.fleet.backend != "local":
        raise RolloutError(
            f'{config}: want [fleet] backend = "local", found {settings.fleet.backend!r}: those devices start and stop '
            "by themselves"
        )
    return settings


def _fit(console: Console, devices: tuple[DeviceOverview, ...], names: ComponentNames) -> Table:
    """The table with as many columns as the terminal has room for."""
    table = _tabulate(devices, names, ())
    for left_out in (
        ("parts",),
        ("parts", "components"),
        ("parts", "components", "since"),
        ("parts", "components", "since", "group"),
    ):
        if console.measure(table, options=console.options.update(max_width=PIPE_WIDTH)).maximum <= console.width:
            break
        table = _tabulate(devices, names, left_out)
    return table


def _tabulate(devices: tuple[DeviceOverview, ...], names: ComponentNames, left_out: tuple[str, ...]) -> Table:
    columns = [
        name
        for name in ("device", "group", "state", "model", "since", "parts", "components", "seen")
        if name not in left_out
    ]
    table = make_table(*columns, right=("model", "parts"))
    for device in devices:
        cells: dict[str, str | Text] = {
            "device": plain(device.thing),
            "group": plain(device.group),
            "state": _styled(device.state),
            "model": "-" if device.model is None and not device.serving else str(device.model or "?"),
            "since": _age(device.since),
            "parts": f"{device.parts:,}",
            "components": plain(_components(device, names)),
            "seen": _age(device.seen_at),
        }
        table.add_row(*(cells[name] for name in columns))
    return table


def _components(device: DeviceOverview, names: ComponentNames) -> str:
    """Versions of our components, by what they are; of other people's, how many."""
    ours = {getattr(names, kind): kind for kind in ("runtime", "inspector", "model", "challenger")}
    texts = [f"{kind} {device.components[name]}" for name, kind in ours.items() if name in device.components]
    others = sum(name not in ours for name in device.components)
    return ", ".join(texts + ([f"{others} of others"] if others else [])) or "-"


def _print_rollout(console: Console, record: RolloutRecord) -> None:
    found, plan = outcome_of(record), record.plan
    said = Text.assemble(f"rollout {record.number}, model {plan.model_version}: ")
    said.append_text(_styled("under way" if found.outcome == "open" else found.outcome))
    if not found.ended and (events := record.events()):
        said.append(f", {sentence(events[-1])}")
    if found.ended and not found.good:
        said.append(f": {found.reason}")
    print_line(console, said)


def _print_next(
    console: Console,
    config: Path,
    settings: Settings,
    devices: tuple[DeviceOverview, ...],
    latest: RolloutRecord | None,
) -> None:
    if latest is not None and latest.end() is None:
        command = f"lineside fleet abort {settings.line.name} --by NAME --why REASON{_config(config)}"
    elif settings.fleet.backend == "local" and devices and all(device.state == "offline" for device in devices):
        command = f"lineside fleet start{_config(config)}"
    elif latest is None:
        command = f"python flows/deploy_flow.py{_config(config, 'line ')} run"
    else:
        command = f"lineside fleet history{_config(config)}"
    print_line(console, f"next: {command}", style="cyan")


def _config(config: Path, before: str = "") -> str:
    return "" if config == SAMPLE else f" --config {before}{config}"


def _styled(state: str) -> Text:
    return Text(state, style=STYLES.get(state, "red"))


def _age(at: float | None) -> str:
    return "-" if at is None else format_age(datetime.fromtimestamp(at, UTC))
