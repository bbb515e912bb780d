"""The names of the topics that a device speaks on."""

import re
from dataclasses import dataclass

from edge.errors import TopicError

ROOT = re.compile(r"[A-Za-z0-9_.-]{1,64}(/[A-Za-z0-9_.-]{1,64}){0,2}")
LINE = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
THING = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
"""What AWS IoT allows as the name of a thing. Source: AWS IoT API reference, CreateThing."""


@dataclass(frozen=True)
class Topics:
    """`<root>/<line>/<thing>/<kind>`, and the names that stay on the device's own bus."""

    results: str  # verdicts: one JSON object (urgent), or a JSON list of them (passes)
    metrics: str  # embedded metric format, once a minute
    health: str
    trigger: str  # incoming: inspect a part now
    feedback: str  # an operator's correction
    output: str  # what the line's outlet does
    # On a Greengrass device's local bus, which no other device hears: exact names, so that a component's
    # authorisation needs no wildcard there (the local bus knows none but `*`).
    local_trigger: str
    local_output: str


def topics(root: str, line: str, thing: str) -> Topics:
    """Name the topics of one device.

    Args:
        root: one to three levels, `lineside` by default.
        line: name of the line.
        thing: name of the device.

    Raises:
        TopicError: a name has characters that would change the topic's meaning: `+`, `#`, `/`, `$`.
    """
    for what, text, form in (("topic root", root, ROOT), ("line", line, LINE), ("thing", thing, THING)):
        if not form.fullmatch(text):
            raise TopicError(f"{what}: want {form.pattern}, found {text!r}; change it in the inspector's settings")
    device = f"{root}/{line}/{thing}"
    return Topics(
        results=f"{device}/results",
        metrics=f"{device}/metrics",
        health=f"{device}/health",
        trigger=f"{device}/trigger",
        feedback=f"{device}/feedback",
        output=f"{device}/output",
        local_trigger=f"{root}/{line}/trigger",
        local_output=f"{root}/{line}/output",
    )
