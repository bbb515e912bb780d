"""The `lineside` program: everything that a person types, but for the flows themselves."""

import importlib.metadata
import platform
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from edge.errors import EdgeError
from inspection.commands import dataset, fleet, registry
from inspection.commands.inspecting import inspect
from inspection.commands.loop import loop
from inspection.errors import InspectionError


class ProgramGroup(TyperGroup):
    """A group of commands that ends with one clear line when the error is one that we raise on purpose."""

    def invoke(self, ctx: Any) -> Any:  # typer carries its own copy of click, so its context has no public type
        """Run the command; a known error becomes a line on standard error and exit status 1."""
        try:
            return super().invoke(ctx)
        except (InspectionError, EdgeError) as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=ProgramGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Lineside: visual inspection that keeps getting better. Train with `python flows/train_flow.py run`, "
    "then look at and decide on models here.",
)
app.add_typer(dataset.app, name="dataset")
app.add_typer(registry.app, name="registry")
app.add_typer(fleet.app, name="fleet")
app.command()(inspect)
app.command()(loop)


@app.command()
def version() -> None:
    """Print the versions of Lineside and Python."""
    print(f"lineside {importlib.metadata.version('lineside')} (Python {platform.python_version()})")
