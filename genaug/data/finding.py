"""What a word, a path or an object that stands for data means."""

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genaug.data.built_in import BUILT_IN
from genaug.data.csv_files import list_csv
from genaug.data.folders import holds_class_folders, list_folder
from genaug.data.labeled import LabeledImages
from genaug.data.labels import Columns
from genaug.data.parquet_files import find_parquet, list_parquet
from genaug.data.parts import list_names, refuse_parts, say_what_is_in
from genaug.data.reading import Listing
from genaug.data.tables import find_row_parts, is_saved_table, list_hub, list_saved, list_tables
from genaug.data.vision import is_vision_name, open_vision, suggest_vision
from genaug.errors import DataError, shorten
from genaug.storage import expand

HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[\w.-]+")
KINDS = "a folder with one folder of images for each class, a .parquet, .csv or .tsv file"


def find_source(
    data: Any, split: str | None, columns: Columns, *, root: "str | os.PathLike[str] | None", download: bool
) -> Any:
    """Return what `data` stands for: a listing, labeled images, or a data set that is read item by item."""
    if split is not None and (not isinstance(split, str) or not split):
        raise DataError(f"split must be the name of a part, such as train, got {shorten(split)}")
    name = data if isinstance(data, str) else ""
    vision = is_vision_name(name)
    if not vision and (root is not None or download):
        raise DataError(
            f"root and download are for data sets of torchvision by name, such as FashionMNIST, got data "
            f"{shorten(data)}{suggest_vision(name)}; leave --root and --download out"
        )
    if isinstance(data, LabeledImages):
        return data
    if name in BUILT_IN:
        if os.path.isdir(name):
            warnings.warn(
                f"data {shorten(name)} is the built-in data set, and the folder ./{name} is not read; "
                f"to mean the folder, pass ./{name}",
                stacklevel=3,
            )
        return BUILT_IN[name]("train" if split is None else split)
    if vision:
        return open_vision(name, split=split, root=root, download=download)
    if isinstance(data, (str, os.PathLike)):
        return _list_path(data, split, columns)
    if isinstance(data, Mapping) and data and all(hasattr(part, "column_names") for part in data.values()):
        streams = [name for name, part in data.items() if not hasattr(part, "__len__")]
        if streams:
            raise DataError(
                f"the dict of data sets: {list_names(streams)} must have a length and items by index, got streams; "
                "load them without streaming=True"
            )
        return list_tables(data, "the dict of data sets", split=split, columns=columns)
    is_table = hasattr(data, "column_names") and hasattr(data, "with_format") and hasattr(data, "__len__")
    if is_table and find_row_parts(data, "the data set"):
        return list_tables({"": data}, "the data set", split=split, columns=columns)
    refuse_parts(split, f"data {shorten(data)}")
    return data


def _list_path(data: "str | os.PathLike[str]", split: str | None, columns: Columns) -> Listing:
    path = expand(data, error=DataError)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as problem:  # too long a name, a part of it that may not be read
        raise DataError(f"data {shorten(os.fspath(data))}: cannot be read as a path ({problem})") from None
    if is_folder and is_saved_table(path):
        return list_saved(path, split=split, columns=columns)
    files = find_parquet(path, is_folder=is_folder, exists=exists)
    if files and is_folder and holds_class_folders(path):
        raise DataError(
            f"{path}: must hold parquet files or folders of images, got both; to mean the tables pass "
            f"{path}/*.parquet, and to mean the images move the parquet files away"
        )
    if files:
        return list_parquet(files, str(path), split=split, columns=columns)
    if exists and path.suffix.lower() in (".csv", ".tsv") and not is_folder:
        return list_csv(path, split=split, columns=columns)
    if not exists and isinstance(data, str) and HUB_NAME.fullmatch(data) and not Path(data).parent.is_dir():
        return list_hub(data, split=split, columns=columns)
    if not is_folder:
        raise _not_found(data, path, exists=exists)
    _refuse_columns(columns, str(path))
    return list_folder(path, split=split, classes=columns.classes)


def _not_found(data: "str | os.PathLike[str]", path: Path, *, exists: bool) -> DataError:
    known = f"the built-in data are {', '.join(BUILT_IN)}"
    if exists:
        return DataError(f"{path}: data must be a folder or one of the kinds of files ({KINDS}), got a file")
    if isinstance(data, str) and data and Path(data).name == data and not path.suffix:
        return DataError(
            f"data must be a folder or a known name, got {shorten(data)}; {known}, and no such folder exists"
            f"{suggest_vision(data)}"
        )
    there = say_what_is_in(path.parent)
    return DataError(f"{path}: no such folder or file; {there}; data must be {KINDS}; {known}")


def _refuse_columns(columns: Columns, where: str) -> None:
    values = {"image_column": columns.image, "label_column": columns.label}
    given = [name for name, value in values.items() if value is not None]
    if given:
        raise DataError(
            f"{where}: is a folder of images, which has no columns, so {given[0]} cannot be chosen; leave it out"
        )
