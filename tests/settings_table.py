"""The table of settings in docs/inspector.md, made from the code: `python tests/settings_table.py` renews it."""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from edge.configuration import is_live
from edge.settings import InspectorSettings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "inspector.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->\n"


def comments(kind: type) -> dict[str, str]:
    """Field name to the comment behind it."""
    found, name = {}, ""
    for line in inspect.getsource(kind).splitlines():
        begun = re.match(r"    (\w+): ", line)
        name = begun[1] if begun else name
        said = re.match(r"    (?:\w+: .*|\))  # (.*)$", line)
        if said and name:
            found[name] = said[1]
    return found


def rows(settings: Any, prefix: str = "") -> list[str]:
    """A row for each setting, tables last."""
    plain, tables = [], []
    said = comments(type(settings))
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            tables += rows(value, f"{name}.")
            continue
        default = f"`{_written(value)}`" if _written(value) else ""
        live = "yes" if is_live(name) else ""
        row = f"| `{name}` | {default} | {live} | {said[field.name]} |"
        plain.append(re.sub(" {2,}", " ", row).replace("<", "&lt;"))
    return plain + tables


def _written(value: object) -> str:
    """A default as a person writes it."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def table() -> str:
    """The whole table."""
    head = ["| setting | default | live | what it is |", "|---|---|---|---|"]
    return "\n".join([*head, *rows(InspectorSettings())]) + "\n"


def on_page(text: str) -> str:
    """The table as the page has it."""
    return text.partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
