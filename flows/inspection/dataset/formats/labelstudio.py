"""Label Studio's exports as JSON: a list of tasks (JSON), or of flat objects (JSON-MIN).

A choice is a label of the whole picture; a rectangle, outline or brush stroke is a defect, and its label the type. A
picture with an empty annotation is good where defects are drawn, and not labelled where choices are made. Of several
annotations of a picture the one marked as ground truth counts, else the last; those that disagree are listed.

Brush strokes are kept as a label without a place: export "Brush labels to PNG" and list the masks in a CSV for those.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from inspection.dataset.files import SUFFIXES, shown
from inspection.dataset.formats.boxes import boxed_image, rectangle_around, uri_below, with_labels
from inspection.dataset.formats.lists import ListBuilder
from inspection.dataset.formats.reading import Format, Reading
from inspection.dataset.images import SourceImage
from inspection.dataset.manifest import Box
from inspection.errors import DataError

_log = logging.getLogger(__name__)

_WANTED = "Label Studio's export as JSON or JSON-MIN"
_LOCAL_FILES = "/data/local-files/?d="
_SHAPES = ("rectanglelabels", "polygonlabels", "ellipselabels", "brushlabels", "keypointlabels")
Drawn = list[tuple[str, Box | None]]


def _names(reading: Reading) -> list[str]:
    return [name for name in reading.documents() if _is_export(reading, name)]


def _is_export(reading: Reading, name: str) -> bool:
    try:
        document = reading.document(name)
    except DataError:
        return False
    first = document[0] if isinstance(document, list) and document else None
    return isinstance(first, dict) and _reference(first) is not None


def _fits(reading: Reading) -> bool:
    return bool(_names(reading))


def _read(reading: Reading) -> list[SourceImage]:
    names = _names(reading)
    if len(names) != 1:
        raise DataError(f"{reading.location}: want {_WANTED}, found {shown(names) or reading.describe()}")
    tasks = reading.document(names[0])
    builder = ListBuilder(reading, names[0], entries="tasks")
    told = []
    for entry, task in enumerate(tasks):
        reference = _reference(task) if isinstance(task, dict) else None
        if reference is None:
            raise DataError(f"{builder.where(entry)}: want a task with an image, found {str(task)[:80]!r}")
        try:
            told.append((entry, reference, *_tell(task)))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataError(
                f"{builder.where(entry)}: not as Label Studio writes it: {type(error).__name__} {error}"
            ) from None
    draws = any(drawn for _, _, _, drawn, _ in told)
    folder = reading.folder_of([reference for _, reference, *_ in told], ["", "images"])
    unlabelled, disputed = [], []
    for entry, reference, choices, drawn, (annotated, agreed) in told:
        if not annotated or not (choices or drawn or draws):
            unlabelled.append(reference)
            continue
        if not agreed:
            disputed.append(reference)
        uri = uri_below(builder, folder, reference, entry)
        image = boxed_image(uri, drawn, reading.options, human=True)
        builder.add(with_labels(image, choices, reading.options, builder.where(entry)), entry)
    if unlabelled:
        _log.warning("event=images_without_label_ignored count=%d files=%s", len(unlabelled), shown(unlabelled))
    if disputed:
        _log.warning("event=annotators_disagree count=%d files=%s", len(disputed), shown(disputed))
    return builder.images


def _reference(task: Mapping[str, Any]) -> str | None:
    """The path of the task's picture."""
    data = task.get("data", task)
    values = [value for value in data.values() if isinstance(value, str)] if isinstance(data, dict) else []
    for value in values:
        path = value.removeprefix(_LOCAL_FILES)
        if path[path.rfind(".") :].lower() in SUFFIXES:
            return unquote(path) if path != value else value
    return None


def _tell(task: Mapping[str, Any]) -> tuple[list[str], Drawn, tuple[bool, bool]]:
    """Choices, what was drawn, and whether the task is annotated and its annotators agree."""
    if "data" not in task:
        return _tell_flat(task)
    annotations = [one for one in task.get("annotations", []) if not one.get("was_cancelled")]
    if not annotations:
        return [], [], (False, True)
    each = [_tell_results(one["result"]) for one in annotations]
    chosen = next((index for index, one in enumerate(annotations) if one.get("ground_truth")), len(each) - 1)
    verdicts = {(tuple(sorted(choices)), bool(drawn)) for choices, drawn in each}
    return *each[chosen], (True, len(verdicts) == 1)


def _tell_results(results: Iterable[Mapping[str, Any]]) -> tuple[list[str], Drawn]:
    choices: list[str] = []
    drawn: Drawn = []
    for result in results:
        if result["type"] == "choices":
            choices += result["value"]["choices"]
        elif result["type"] in _SHAPES:
            box = _box({**result["value"], **{key: result.get(key) for key in ("original_width", "original_height")}})
            drawn += [(name, box) for name in result["value"][result["type"]]]
    return choices, drawn


def _tell_flat(task: Mapping[str, Any]) -> tuple[list[str], Drawn, tuple[bool, bool]]:
    """A JSON-MIN object: shapes are lists of objects, a choice is a text or an object with several."""
    choices: list[str] = []
    drawn: Drawn = []
    for value in task.values():
        if isinstance(value, list):
            for shape in value:
                kind = next((kind for kind in _SHAPES if isinstance(shape, dict) and kind in shape), None)
                drawn += [(name, _box(shape)) for name in shape[kind]] if kind else []
        elif isinstance(value, dict) and isinstance(value.get("choices"), list):
            choices += value["choices"]
    if isinstance(task.get("choice"), str):
        choices.append(task["choice"])
    return choices, drawn, ("annotation_id" in task or bool(choices or drawn), True)


def _box(value: Mapping[str, Any]) -> Box | None:
    """A shape's rectangle in px; Label Studio writes percent of the picture."""
    if not (value.get("original_width") and value.get("original_height")):
        return None
    across, down = value["original_width"] / 100, value["original_height"] / 100
    if "points" in value:
        return rectangle_around([(x * across, y * down) for x, y in value["points"]])
    if "radiusX" in value:
        x, y, wide, high = (value[key] for key in ("x", "y", "radiusX", "radiusY"))
        return (x - wide) * across, (y - high) * down, 2 * wide * across, 2 * high * down
    if "width" in value and "x" in value and "height" in value:
        return value["x"] * across, value["y"] * down, value["width"] * across, value["height"] * down
    return None


LABEL_STUDIO = Format("labelstudio", _WANTED, _fits, _read)
