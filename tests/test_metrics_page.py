"""docs/metrics.md names every field of metrics.json."""

import dataclasses
import re

from inspection.decision.evaluation import Evaluation
from inspection.settings import REPOSITORY


def test_the_page_on_metrics_names_every_field_and_no_other() -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = page.split("| field | meaning |")[1].split("\n\n")[0].splitlines()[2:]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == {field.name for field in dataclasses.fields(Evaluation)}
