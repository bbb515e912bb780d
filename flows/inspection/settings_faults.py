"""What may be wrong with a line's settings beyond a single type, and how a fault is told."""

import dataclasses
import difflib
import json
import re
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from inspection.settings import Settings

LINE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
STORAGE = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?|(?![A-Za-z0-9+]*:/).*")
# What lines share below the storage root, where each line has a prefix of its own
RESERVED_NAMES = frozenset({"cache", "checkpoints", "datasets", "fleet", "packages", "registry", "reports"})
TOPIC = re.compile(r"arn:aws[a-z-]*:sns:(?P<region>[a-z0-9-]+):\d{12}:[A-Za-z0-9_-]{1,256}")  # standard ones only
TOPIC_ROOT = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


def find_faults(settings: "Settings") -> list[str]:
    """What is wrong that a single field cannot show.

    Args:
        settings: every field has a value that it may have by itself.
    """
    faults = []
    if not LINE_NAME.fullmatch(settings.line.name):
        faults.append(
            f"[line] name: want 1-32 of a-z, 0-9 and hyphens, no hyphen at either end, found {settings.line.name!r}"
        )
    if settings.line.name in RESERVED_NAMES:
        faults.append(
            f"[line] name: want none of {sorted(RESERVED_NAMES)}, which all lines share, found {settings.line.name!r}"
        )
    if not TOPIC_ROOT.fullmatch(settings.line.topic_root):
        faults.append(f"[line] topic_root: want names joined by '/', found {settings.line.topic_root!r}")
    if not STORAGE.fullmatch(settings.line.storage):
        faults.append(f"[line] storage: want a folder or s3://bucket/prefix, found {settings.line.storage!r}")
    held_out = (settings.data.calibration_fraction, settings.data.holdout_fraction)
    if sum(held_out) > 0.8:
        faults.append(
            "[data] calibration_fraction + holdout_fraction: want at most 0.8 together, so that training keeps a "
            f"fifth, found {held_out[0]} + {held_out[1]}"
        )
    try:
        pattern = re.compile(settings.data.group_pattern)
        if settings.data.group_pattern and pattern.groups < 1:
            faults.append(
                "[data] group_pattern: want a group in parentheses that names the part or lot, "
                f"found none in {settings.data.group_pattern!r}"
            )
    except re.error as error:
        faults.append(
            f"[data] group_pattern: want a regular expression, found {settings.data.group_pattern!r} ({error})"
        )
    for entry in settings.data.map:
        prefix, equals, folder = entry.partition("=")
        if not (prefix and equals and folder):
            faults.append(f"[data] map: want s3://bucket/prefix=folder, found {entry!r}")
    both = {one.lower() for one in settings.data.good_labels} & {one.lower() for one in settings.data.bad_labels}
    if both:
        faults.append(f"[data] good_labels and bad_labels: want no label in both, found {sorted(both)}")
    augmentation = settings.training.augmentation
    if settings.training.fixed_pose and (augmentation.horizontal_flip or augmentation.vertical_flip):
        faults.append(
            "[training] fixed_pose: want horizontal_flip and vertical_flip false in [training.augmentation], since a "
            "mirrored part lies another way; found them true"
        )
    roi = settings.input.roi
    if roi and (len(roi) != 4 or min(roi[:2]) < 0 or min(roi[2:]) < 1):
        faults.append(f"[input] roi: want [left, top, width, height] in px, found {roi}")
    if sorted(settings.operating_point.priority) != ["escape", "overkill", "review"]:
        faults.append(
            "[operating_point] priority: want each of escape, overkill, review once, "
            f"found {settings.operating_point.priority}"
        )
    return faults + _fleet_faults(settings)


def _fleet_faults(settings: "Settings") -> list[str]:
    registry, fleet = settings.registry, settings.fleet
    faults = []
    on_s3 = settings.line.storage.startswith("s3://")
    if registry.backend == "sagemaker" and not on_s3:
        faults.append(
            '[registry] backend = "sagemaker": want [line] storage = "s3://bucket/prefix" for the archives, '
            f"found {settings.line.storage!r}"
        )
    if registry.backend == "sagemaker" and not registry.container_image:
        faults.append(
            "[registry] container_image: SageMaker asks for the URI of a container image in each model package (it is "
            "never run on the devices); want one such as 123456789012.dkr.ecr.eu-central-1.amazonaws.com/lineside:1"
        )
    if fleet.backend == "greengrass" and not on_s3:
        faults.append(
            '[fleet] backend = "greengrass": want [line] storage = "s3://bucket/prefix", from which the devices fetch '
            f"components, found {settings.line.storage!r}"
        )
    groups = [fleet.canary_group, *fleet.wave_groups]
    if not fleet.wave_groups or len(set(groups)) != len(groups):
        faults.append(
            "[fleet] canary_group and wave_groups: want one canary group and one or more other groups, each once, "
            f"found {groups}"
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", fleet.component_prefix):
        faults.append(
            f"[fleet] component_prefix: want letters, digits, _ and - joined by dots, found {fleet.component_prefix!r}"
        )
    if not re.fullmatch(r"[A-Za-z0-9](-?[A-Za-z0-9])*", registry.prefix):
        faults.append(f"[registry] prefix: want letters, digits and single hyphens, found {registry.prefix!r}")
    group = f"{registry.prefix}-{settings.line.name}"
    if registry.backend == "sagemaker" and len(group) > 63:
        faults.append(
            "[registry] prefix: want at most 63 characters together with the line's name, "
            f"found {len(group)} in {group!r}"
        )
    if fleet.notify and not TOPIC.fullmatch(fleet.notify):
        faults.append(
            "[fleet] notify: want the ARN of a standard SNS topic such as arn:aws:sns:eu-central-1:123456789012:line "
            f'(a FIFO topic cannot send e-mail), or "" for a file in the line\'s storage, found {fleet.notify!r}'
        )
    if fleet.backend == "local":
        unknown = sorted(set(groups) - set(fleet.local.groups))
        if unknown:
            faults.append(f"[fleet.local] groups: want the devices of {', '.join(unknown)}, found none")
        devices = [device for group in groups for device in fleet.local.groups.get(group, [])]
        if len(set(devices)) != len(devices):
            faults.append(f"[fleet.local] groups: want each device in one group only, found {sorted(devices)}")
        wrong = [device for device in devices if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", device)]
        named = sorted(group for group in fleet.local.groups if not re.fullmatch(r"[A-Za-z0-9:_-]{1,128}", group))
        if named:
            faults.append(
                f"[fleet.local] groups: want 1-128 letters, digits, : _ and - as a group's name, found {named}"
            )
        if "cloud" in devices:
            faults.append("[fleet.local] groups: want another name than cloud, which is a folder beside the devices")
        if wrong:
            faults.append(f"[fleet.local] groups: want 1-64 letters, digits, _ and - as a device's name, found {wrong}")
    return faults


def name_type(value: Any) -> dict[str, str]:
    """A TOML date or time, which no setting is, as something that no setting accepts."""
    return {type(value).__name__: str(value)}


def describe_fault(fault: Any, kind: Any) -> str:
    """One of pydantic's faults as section, key, wanted and found.

    Args:
        fault: an item of `ValidationError.errors()`.
        kind: the dataclass of the whole file.
    """
    loc = [str(part) for part in fault["loc"] if not isinstance(part, int)] or ["file"]
    *sections, key = loc
    index = "".join(f"[{part}]" for part in fault["loc"] if isinstance(part, int))
    place = f"[{'.'.join(sections)}] {key}{index}" if sections else f"[{key}]"
    if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        close = difflib.get_close_matches(key, _keys_of(kind, sections), n=1)
        hint = f"did you mean {close[0]}?" if close else "remove it."
        return (
            f"{place}: unknown key, found {fault['input']!r}; {hint} See flows/lines/line.toml for the keys there are"
        )
    if fault["type"] in ("missing", "missing_argument"):
        return f"{place}: want a value, found none; see flows/lines/line.toml"
    wanted = fault["msg"]
    for technical, plain in (
        (r"^Input should be (?=greater|less)", "want a value "),
        (r"^Input should be ", "want "),
        (r"^(?:String|List) should have ", "want "),
        (r" after validation, not \d+$", ""),
        (r"\ba valid integer$", "a whole number"),
        (r"\ba valid number$", "a number"),
        (r"\ba valid string$", "text in quotes"),
        (r"\ba valid boolean$", "true or false"),
        (r"\ba valid (?:list|array)$", "a list"),
        (r"\ban object$", "a section with keys"),
    ):
        wanted = re.sub(technical, plain, wanted)
    return f"{place}: {wanted}, found {fault['input']!r}; {_advice(fault, kind, sections, key)}"


def find_line(fault: str, text: str) -> str:
    """Where a fault is in a file: "line 12: "; "" where that cannot be told.

    Args:
        fault: its description, which begins with section and key.
        text: of the file.
    """
    named = re.match(r"\[([^\]]+)\](?: (\w+))?", fault)
    if named is None:
        return ""
    section, key = named.groups()
    here = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[([^\[\]]+)\]", line)
        if header:
            here = header[1].strip()
            if key is None and here == section:
                return f"line {number}: "
        elif re.match(rf"\s*{re.escape(key or section)}\s*=", line) and here == (section if key else ""):
            return f"line {number}: "
    return ""


def _advice(fault: Any, kind: Any, sections: list[str], key: str) -> str:
    """What to do about a value that may not be: the one that may be meant, and the default."""
    allowed = re.findall(r"'([^']*)'", str(fault.get("ctx", {}).get("expected", "")))
    close = difflib.get_close_matches(str(fault["input"]), allowed, n=1)
    default = next((entry.default for entry in _fields_of(kind, sections) if entry.name == key), dataclasses.MISSING)
    what = f'did you mean "{close[0]}"' if close else "write one of these" if allowed else "correct it"
    usual = f"the default is {key} = {json.dumps(default)}, " if isinstance(default, bool | int | float | str) else ""
    return f"{what} ({usual}see flows/lines/line.toml)"


def _keys_of(kind: Any, sections: list[str]) -> list[str]:
    """The keys that a section may have."""
    return [entry.name for entry in _fields_of(kind, sections)]


def _fields_of(kind: Any, sections: list[str]) -> tuple[Any, ...]:
    for section in sections:
        kind = get_type_hints(kind).get(section, kind)
    return dataclasses.fields(kind)
