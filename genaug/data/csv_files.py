"""Lists of images in text: a CSV or TSV file with a path and a class in each row."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genaug.data.decoding import decode_image, measure_image
from genaug.data.folders import SUFFIXES
from genaug.data.labels import Columns, encode_labels, without_classes
from genaug.data.parts import (
    choose_parts,
    find_split,
    group_rows,
    list_names,
    refuse_parts,
    warn_of_empty_classes,
)
from genaug.data.reading import Listing
from genaug.errors import DataError, shorten

LABEL_NAMES = ("label", "labels", "class", "target", "class_name", "category")
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
MISSING = ("", "nan", "NaN")  # as spreadsheets and pandas write what is not there

Row = tuple[int, list[str]]  # number of the line, cells


def list_csv(path: Path, *, split: str | None = None, columns: Columns) -> Listing:
    """Return the images that a CSV (or TSV) file with a header lists; paths are relative to its folder.

    The image column is by default the first whose first cell ends as an image file does; the label column is one
    called "label", "class", "target", ..., or the other one of two; without one all images are of the class "image"
    where `columns` do not need classes. A column called "split" tells the part of each row, where its cells are
    names of parts (train, val, test): all of them, or it is an error. Cells are separated by commas (or by semicolons,
    where the header has no comma), or by tabs in a `.tsv` file. Labels that look like numbers are numbers.

    Raises:
        DataError: a file that is no such text, no header, no rows, a column that is missing or not told, a row that is
            too short or too long, or labels as `encode_labels` refuses them, with their line.
    """
    header, rows = _read_rows(path)
    place = find_split(header)
    told = [] if place is None else ["".join(cells[place : place + 1]).strip() for _, cells in rows]
    parts = group_rows(told, lambda row: f"line {rows[row][0]} of {path}") or {"": list(range(len(rows)))}
    if "" in parts:
        refuse_parts(split, str(path))
    chosen = [""] if "" in parts else choose_parts(list(parts), split, str(path))
    image = _pick_image(path, header, rows[0][1], columns.image)
    label = _pick_label(path, header, image, columns)
    for line, cells in rows:
        if len(cells) <= max(image, image if label is None else label):
            raise DataError(
                f"line {line} of {path}: must have {len(header)} cells as the header has, got {len(cells)}; "
                "complete or remove the line"
            )
        if any(cell.strip() for cell in cells[len(header) :]):
            raise DataError(
                f"line {line} of {path}: must have {len(header)} cells as the header has, got {len(cells)}: "
                f"{list_names(cells)}; quote a cell that holds the separator, or name the column in the header"
            )

    numbers = {part: [rows[row][0] for row in own] for part, own in parts.items()}
    given = {part: [rows[row][1] for row in own] for part, own in parts.items()}
    rows = [rows[row] for part in chosen for row in parts[part]]
    labels, names = without_classes(len(rows))
    if label is not None:
        values = {part: [_parse(cells[label]) for cells in own] for part, own in given.items()}
        labels, names = encode_labels(values, chosen, lambda part, row: f"line {numbers[part][row]} of {path}")
        if len(parts) > 1:
            warn_of_empty_classes(labels, names, str(path))

    def file(index: int) -> Path:
        return path.parent / rows[index][1][image].strip()

    def name(index: int) -> str:
        return f"{file(index)} (line {rows[index][0]} of {path.name})"

    return Listing(
        labels=labels,
        class_names=names,
        name=name,
        read=lambda index: decode_image(file(index), name(index)),
        measure=lambda index: measure_image(file(index), name(index)),
    )


def _read_rows(path: Path) -> tuple[list[str], list[Row]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = "\t" if path.suffix.lower() == ".tsv" else "," if "," in first or ";" not in first else ";"
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror})") from None
    except (csv.Error, UnicodeDecodeError) as problem:
        raise DataError(f"{path}: must be CSV text in UTF-8, but cannot be read ({problem}); save it as such") from None
    if len(rows) < 2:
        got = "no line" if not rows else "a header only"
        raise DataError(f"{path}: must hold a header, such as path,label, and a line for each image, got {got}")
    header = [cell.strip() for cell in rows[0][1]]
    if any(_is_image(cell) for cell in header):
        raise DataError(f"{path}: must begin with a header, such as path,label, got {shorten(rows[0][1])}; add one")
    return header, rows[1:]


def _pick_image(path: Path, header: Sequence[str], first: Sequence[str], given: str | None) -> int:
    if given is not None:
        return _find(path, header, given, "image_column")
    for number, cell in enumerate(first[: len(header)]):
        if _is_image(cell):
            return number
    raise DataError(
        f"{path}: must have a column of paths of images, got the columns {list_names(header)}, and none of them begins "
        "with the name of an image file; choose one with --image-column NAME (image_column=)"
    )


def _pick_label(path: Path, header: Sequence[str], image: int, columns: Columns) -> int | None:
    if columns.classes == "none":
        return None
    if columns.label is not None:
        return _find(path, header, columns.label, "label_column")
    others = [number for number in range(len(header)) if number not in (image, find_split(header))]
    for name in LABEL_NAMES:
        for number in others:
            if header[number].lower() == name:
                return number
    if len(others) == 1:
        return others[0]
    if columns.classes == "optional":
        return None
    raise DataError(
        f"{path}: which column holds the class is not clear, got the columns {list_names(header)}; "
        "choose one with --label-column NAME (label_column=)"
    )


def _find(path: Path, header: Sequence[str], given: str, option: str) -> int:
    if given not in header:
        raise DataError(
            f"{path}: {option} must be one of the columns, which are {list_names(header)}, got {shorten(given)}"
        )
    return header.index(given)


def _is_image(cell: str) -> bool:
    return cell.strip().lower().endswith(SUFFIXES)


def _parse(cell: str) -> Any:
    """Return the label in a cell: None, a number, or text.

    >>> _parse(" 7"), _parse("7.0"), _parse("cat"), _parse("")
    (7, 7.0, 'cat', None)
    """
    text = cell.strip()
    if text in MISSING:
        return None
    if not NUMBER.fullmatch(text):
        return text
    return int(text) if text.lstrip("+-").isdecimal() and len(text) < 20 else float(text)
