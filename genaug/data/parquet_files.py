"""Parquet files: which are meant by a file, a folder or a pattern, with their parts, and what is in them."""

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genaug.data.labels import Columns, share_class_names
from genaug.data.mapstyle import pick_label
from genaug.data.parts import find_part, group_files, say_what_is_in
from genaug.data.reading import Listing
from genaug.data.tables import explain, list_tables, quiet
from genaug.errors import DataError, naming


def find_parquet(path: Path, *, is_folder: bool, exists: bool) -> dict[str, list[str]]:
    """Return the parquet files by part (from their names, "" without parts) that a file, folder or pattern means.

    Raises:
        DataError: a pattern that no parquet file fits; files of which only some tell their part.
    """
    if exists and not is_folder:
        return {"": [str(path)]} if path.suffix.lower() == ".parquet" else {}
    if is_folder:
        folders = [path, *(path / entry for entry in _part_folders(path))]
        files = [file for folder in folders for file in folder.glob("*.parquet") if not file.name.startswith(".")]
        files = [file for file in files if file.is_file()]
        base = path
    elif glob.has_magic(str(path)):
        files = [Path(file) for file in glob.glob(str(path), recursive=True) if file.lower().endswith(".parquet")]
        if not files:
            raise DataError(f"{path}: no parquet file fits this pattern; {_what_is_near(path)}")
        base = Path(os.path.commonpath([file.parent for file in files]))
    else:
        return {}
    return group_files(sorted(files), base)


def _part_folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [e.name for e in entries if e.is_dir() and (e.name == "data" or find_part(e.name))]
    except OSError as problem:
        raise DataError(f"{folder}: cannot be read ({problem.strerror})") from None


def _what_is_near(pattern: Path) -> str:
    folder = next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))
    return say_what_is_in(folder)


def list_parquet(files: Mapping[str, list[str]], where: str, *, split: str | None, columns: Columns) -> Listing:
    """Return the images of parquet files by part, as `find_parquet` gives them.

    Raises:
        DataError: a file that is no parquet, files of different columns or class names, or what `list_tables` refuses.
    """
    import datasets
    from pyarrow.parquet import read_metadata

    keys = {part: part or "all_rows" for part in files}
    features: dict[str, Any] = {}
    folders: dict[str, list[Path]] = {part: [] for part in files}
    with quiet(), explain(where, "repair or write it again"):
        for part, file in [(part, name) for part, names in files.items() for name in names]:
            if os.path.getsize(file) == 0:
                raise DataError(f"{file}: must be a parquet file, got an empty one; write it again")
            content = read_metadata(file)
            if content.num_rows == 0:
                raise DataError(f"{file}: must hold rows, got none; remove the file")
            folders[part] += [Path(os.path.abspath(file)).parent] * content.num_rows
            features[file] = datasets.Features.from_arrow_schema(content.schema.to_arrow_schema())
        file, first = next(iter(features.items()))
        with naming(file):
            label = pick_label(first, first, columns)
        # `datasets` would give the types of one file to all, and the class names with them.
        share_class_names({file: types[label] for file, types in features.items() if label in types})
        # Escaped, since `datasets` reads [ and * in names as patterns.
        paths = {part: [glob.escape(os.path.abspath(name)) for name in names] for part, names in files.items()}
        data_files = {keys[part]: names for part, names in paths.items()}
        tables = datasets.load_dataset("parquet", data_files=data_files)
    return list_tables(
        {part: tables[key] for part, key in keys.items()}, where, split=split, folders=folders, columns=columns
    )
