"""Lists of images that people write themselves: CSV with a header line, or one JSON object per line.

    path,label,defect_type,mask,group,lot,station,view,split
    images/a.png,good,,,part-17,lot-3,,top,train
    {"path": "images/b.png", "label": "bad", "boxes": [[12, 30, 8, 4]], "box_types": ["dent"]}

Only path and label are needed. JSON may also hold boxes (left, top, width, height in px), box_types, confidence and
human_annotated. Columns go by other names in `[data.columns]`. The delimiter is a comma, a semicolon, a
tab or '|', whichever the header is written with; the text is UTF-8, with or without a byte-order mark.
"""

import csv
from collections.abc import Iterator, Mapping
from typing import Any

from inspection.dataset.files import shown
from inspection.dataset.folders import PARTS
from inspection.dataset.formats.reading import Format, Reading
from inspection.dataset.images import Shipped, SourceImage
from inspection.dataset.options import Columns, read_label
from inspection.errors import DataError

VISA_COLUMNS = frozenset({"object", "split", "label", "image", "mask"})  # a list that VisA ships
_DELIMITERS = (",", ";", "\t", "|")
_SPLITS: dict[str, Shipped] = {**PARTS, "training": "train", "testing": "validation", "holdout": "validation", "": ""}


class ListBuilder:
    """Collects the images of a list line by line, and refuses one that is named twice.

    Args:
        reading: the location.
        name: uri of the list.
        entries: what the list consists of: its lines, or what a message calls the entries of its JSON.
    """

    def __init__(self, reading: Reading, name: str, entries: str = "") -> None:
        self._name = reading.name(name)
        self._entries = entries
        self._reading = reading
        self._lines: dict[str, int] = {}
        self.images: list[SourceImage] = []

    def where(self, line: int) -> str:
        """File and line or entry, for messages."""
        return f"{self._name}: {f'{self._entries}[{line}]' if self._entries else f'line {line}'}"

    def uri(self, reference: str, line: int) -> str:
        """The uri of a reference on a line.

        Raises:
            DataError: it climbs out, or is absolute and not mapped.
        """
        return self._reading.places.uri(reference, self.where(line))

    def add(self, image: SourceImage, line: int) -> None:
        """Add the image of a line.

        Raises:
            DataError: an earlier line names the same one.
        """
        before = self._lines.setdefault(image.uri, line)
        if before != line:
            raise DataError(
                f"{self._name}: {self._entries or 'lines'} {before} and {line} name the same image, {image.uri!r}; "
                "keep the right one"
            )
        self.images.append(image)


def _read_csv(reading: Reading) -> list[SourceImage]:
    return _read(reading, *reading.lists(".csv", ".tsv"), rows=_csv_rows)


def _read_jsonl(reading: Reading) -> list[SourceImage]:
    return _read(reading, *reading.lists(".jsonl"), rows=_json_rows)


def _read(reading: Reading, *names: str, rows: Any) -> list[SourceImage]:
    if len(names) != 1:
        found = shown(list(names)) if names else reading.describe()
        raise DataError(f"{reading.location}: want one list of images, found {found}; give the list's file itself")
    name, columns = names[0], reading.options.columns
    builder = ListBuilder(reading, name)
    for line, row, more in rows(reading, name):
        where = builder.where(line)
        uri = builder.uri(_need(row, columns.path, where), line)
        label, kind = read_label(_need(row, columns.label, where), reading.options, where)
        mask = row.get(columns.mask.casefold(), "")
        builder.add(
            SourceImage(
                uri=uri,
                version="",
                label=label,
                defect_type=(row.get(columns.defect_type.casefold()) or kind) if label == "bad" else None,
                mask=builder.uri(mask, line) if mask else None,
                group=row.get(columns.group.casefold()) or uri,
                lot=row.get(columns.lot.casefold()) or None,
                station=row.get(columns.station.casefold()) or None,
                view=row.get(columns.view.casefold()) or None,
                shipped=_split(row.get(columns.split.casefold(), ""), where),
                **_annotations(more, where),
            ),
            line,
        )
    if not builder.images:
        raise DataError(f"{reading.name(name)}: no images in this list")
    return builder.images


def _need(row: Mapping[str, str], column: str, where: str) -> str:
    value = row.get(column.casefold(), "")
    if not value:
        raise DataError(f"{where}: want a value for {column!r}, found none")
    return value


def _split(value: str, where: str) -> Shipped:
    part = _SPLITS.get(value.casefold())
    if part is None:
        raise DataError(f"{where}: unknown split {value!r}; want train, validation or test, or nothing")
    return part


def _annotations(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What only a JSON object can say of an image."""
    found: dict[str, Any] = {}
    try:
        if row.get("boxes"):
            found["boxes"] = tuple((float(x), float(y), float(w), float(h)) for x, y, w, h in row["boxes"])
            found["box_types"] = tuple(str(name) for name in row.get("box_types") or ())
            if len(found["box_types"]) not in (0, len(found["boxes"])):
                raise ValueError(f"{len(found['boxes'])} boxes have {len(found['box_types'])} box_types")
        if row.get("confidence") is not None:
            found["confidence"] = float(row["confidence"])
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: want boxes as [[left, top, width, height], …] in px with a type each or none, and a confidence "
            f"from 0 to 1, found {error}"
        ) from None
    if isinstance(row.get("human_annotated"), bool):
        found["human_annotated"] = row["human_annotated"]
    return found


def _csv_rows(reading: Reading, name: str) -> Iterator[tuple[int, dict[str, str], dict[str, Any]]]:
    """Line numbers, values by column name in lower case, and nothing else."""
    text, where = reading.text(name), reading.name(name)
    header_line = text.lstrip("\r\n").split("\n", 1)[0].rstrip("\r")
    delimiter = _delimiter(header_line, reading.options.columns, where)
    reader = csv.reader(_lines(text), delimiter=delimiter, strict=True)
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = _check_header([cell.strip() for cell in cells], reading.options.columns, where)
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{where}: line {line}: want {len(header)} values as in the header, found {len(cells)}; "
                    f"put values that hold {delimiter!r} in quotation marks"
                )
            yield line, {column: cell.strip(" \t\r") for column, cell in zip(header, cells, strict=True)}, {}
    except csv.Error as error:
        raise DataError(f"{where}: line {reader.line_num}: not valid CSV ({error})") from None


def _lines(text: str) -> Iterator[str]:
    """The text's lines with their ends, for the CSV reader, which joins those of a quoted value again."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def _delimiter(header: str, columns: Columns, where: str) -> str:
    wanted = {columns.path.casefold(), columns.label.casefold()}
    for delimiter in _DELIMITERS:
        if wanted <= {cell.strip().strip('"').casefold() for cell in header.split(delimiter)}:
            return delimiter
    raise DataError(
        f"{where}: want a header line with the columns {columns.path!r} and {columns.label!r}, parted by a comma, "
        f"semicolon, tab or '|', found {header[:200]!r}; add it, or name your columns in [data.columns]"
    )


def _check_header(cells: list[str], columns: Columns, where: str) -> list[str]:
    header = [cell.casefold() for cell in cells]
    twice = sorted({cell for cell in header if cell and header.count(cell) > 1})
    if twice:
        raise DataError(f"{where}: the header names {', '.join(twice)} twice; give each column its own name")
    _check_chosen(set(header), columns, where)
    return header


def _check_chosen(found: set[str], columns: Columns, where: str) -> None:
    absent = [name for name in columns.chosen if name.casefold() not in found]
    if absent:
        raise DataError(
            f"{where}: no column {', '.join(map(repr, absent))}, which [data.columns] names; found "
            f"{', '.join(sorted(found))}"
        )


def _json_rows(reading: Reading, name: str) -> Iterator[tuple[int, dict[str, str], dict[str, Any]]]:
    """Line numbers, plain values as text by key in lower case, and the whole objects."""
    seen: set[str] = set()
    for number, row in reading.rows(name):
        values = {}
        for key, value in row.items():
            if isinstance(value, bool | int | float | str):
                values[key.casefold()] = str(value).strip() if not isinstance(value, bool) else str(value).lower()
        seen |= values.keys()
        yield number, values, row
    _check_chosen(seen, reading.options.columns, reading.name(name))


def _has_columns(reading: Reading, name: str) -> bool:
    try:
        header = reading.text(name).lstrip("\r\n").split("\n", 1)[0].rstrip("\r")
        _delimiter(header, reading.options.columns, name)
    except DataError:
        return False
    return True


def _has_keys(reading: Reading, name: str) -> bool:
    try:
        first = next(iter(reading.rows(name)), None)
    except DataError:
        return False
    columns = reading.options.columns
    return first is not None and {columns.path.casefold(), columns.label.casefold()} <= {
        key.casefold() for key in first[1]
    }


def _fits_csv(reading: Reading) -> bool:
    names = reading.lists(".csv", ".tsv")
    if reading.is_list:
        return bool(names) and not has_header(reading, names[0], VISA_COLUMNS)
    return any(_has_columns(reading, name) for name in names)


def has_header(reading: Reading, name: str, columns: frozenset[str]) -> bool:
    """Whether a list's first line names exactly these columns, parted by commas."""
    try:
        first = reading.text(name).split("\n", 1)[0]
    except DataError:
        return False
    return {cell.strip().lower() for cell in first.split(",")} == columns


def _fits_jsonl(reading: Reading) -> bool:
    return any(_has_keys(reading, name) for name in reading.lists(".jsonl"))


CSV = Format("csv", "a .csv list with the columns path and label (or as [data.columns] says)", _fits_csv, _read_csv)
JSONL = Format("jsonl", "a .jsonl list of objects with path and label", _fits_jsonl, _read_jsonl)
