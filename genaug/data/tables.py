"""Tables of images and labels, as Hugging Face `datasets` reads them: parquet files, saved tables, and the hub."""

import io
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
from PIL import Image

from genaug.data.decoding import File, UnreadableImage, decode_image, measure_image
from genaug.data.labels import Columns, encode_labels, share_class_names, without_classes
from genaug.data.mapstyle import pick_column, pick_label
from genaug.data.parts import (
    choose_parts,
    find_split,
    group_rows,
    list_names,
    refuse_parts,
    warn_of_empty_classes,
)
from genaug.data.reading import Listing
from genaug.errors import DataError, naming, shorten

ARRAYS = ("List", "LargeList", "Sequence", "Array2D", "Array3D")  # types of columns
SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves


def list_tables(
    tables: Mapping[str, Any],
    where: str,
    *,
    split: str | None = None,
    columns: Columns,
    folders: Mapping[str, Sequence[Path]] | None = None,
) -> Listing:
    """Return the images of tables (parts) by name; class names are those of a `ClassLabel`, or of all parts' labels.

    Without a column of classes all images are of the class "image", where `columns` do not need classes.

    Args:
        tables: Hugging Face data sets by part; with a single one called "" there are no parts.
        where: words for the tables in messages.
        split: the part, as `choose_parts` takes it.
        columns: that of images (of the content of their files, or of paths), and that of classes.
        folders: of each part the folder, for each row, that a path in the image column is relative to.

    Raises:
        DataError: a part or column that is missing; parts of different class names; labels as `encode_labels` refuses.
    """
    if len(tables) == 1:  # also a part of its own name, as `load_dataset` calls what has none
        tables, folders = _split_rows(tables, folders, where)
    if list(tables) == [""]:
        refuse_parts(split, where)
        chosen = [""]
    else:
        chosen = choose_parts(list(tables), split, where)
    first = tables[chosen[0]]
    with naming(where):
        image = pick_column(first.column_names, first.features, "Image", columns.image)
        label = pick_label(first.column_names, first.features, columns)

    def place(part: str) -> str:
        return where + (f", part {part}" if part else "")

    def row_name(part: str, row: int) -> str:
        return f"row {row} of {place(part)}"

    for part in chosen:
        for column in filter(None, (image, label)):
            if column not in tables[part].features:
                raise DataError(
                    f"{place(part)}: must have the column {shorten(column)} as part {chosen[0]} has, got "
                    f"{list_names(tables[part].column_names)}; add it, or choose another part with --split (split=)"
                )
    rows = [(part, row) for part in chosen for row in range(len(tables[part]))]
    labels, names = without_classes(len(rows))
    if label is not None:
        labeled = {part: table for part, table in tables.items() if label in table.features}
        class_names = share_class_names({place(part): table.features[label] for part, table in labeled.items()})
        given = {part: list(table.with_format(None)[label]) for part, table in labeled.items()}
        labels, names = encode_labels(given, chosen, row_name, names=class_names)
    pictures = {part: _undecoded(tables[part], image, where) for part in chosen}
    if len(tables) > 1:
        warn_of_empty_classes(labels, names, place(chosen[0]) if len(chosen) == 1 else where)

    def file(index: int) -> tuple[File, str]:
        part, row = rows[index]
        return _find_file(pictures[part][row][image], row_name(part, row), folders[part][row] if folders else None)

    return Listing(
        labels=labels,
        class_names=names,
        name=lambda index: row_name(*rows[index]),
        read=lambda index: decode_image(*file(index)),
        measure=lambda index: measure_image(*file(index)),
    )


def _split_rows(
    tables: Mapping[str, Any], folders: Mapping[str, Sequence[Path]] | None, where: str
) -> tuple[Mapping[str, Any], Mapping[str, Sequence[Path]] | None]:
    """Return the only table, and the folders of its rows, by the parts that a column "split" tells, if it tells any."""
    ((name, table),) = tables.items()
    groups = find_row_parts(table, where)
    if not groups:
        return tables, folders
    parts = {part: table.select(rows) for part, rows in groups.items()}
    return parts, folders and {part: [folders[name][row] for row in rows] for part, rows in groups.items()}


def find_row_parts(table: Any, where: str) -> dict[str, list[int]]:
    """Return the rows of a Hugging Face data set by the parts that a column "split" tells; none without such a column.

    Raises:
        DataError: some rows tell a part, and others do not.
    """
    place = find_split(table.column_names)
    if place is None:
        return {}
    column = table.column_names[place]
    told = table.with_format(None)[column][:]
    names = getattr(table.features[column], "names", None)
    if names is not None:
        told = [names[number] if number is not None and number >= 0 else None for number in told]
    return group_rows(told, lambda row: f"row {row} of {where}")


def _undecoded(table: Any, column: str, where: str) -> Any:
    """Return the column of images alone, as {"bytes", "path"} of files, their content or paths; or as arrays."""
    import datasets

    try:
        table = table.with_format(None).select_columns([column])
        if type(table.features[column]).__name__ in ARRAYS:
            return table
        return table.cast_column(column, datasets.Image(decode=False))
    except Exception as problem:  # pyarrow's errors, TypeError, ValueError
        raise DataError(
            f"{where}: the column {shorten(column)} must hold images, got {shorten(table.features[column])}; "
            "choose another with --image-column NAME (image_column=)"
        ) from problem


def _find_file(cell: Any, name: str, base: Path | None) -> tuple[File, str]:
    """Return the content or the path of an image, and words for it."""
    if isinstance(cell, list | np.ndarray):
        return _encode(cell, name), name
    content, path = (cell.get("bytes"), cell.get("path")) if cell else (None, None)
    if content is not None:
        return content, name
    if path is None:
        raise UnreadableImage(name, "the image is missing (null)")
    return path if base is None else base / path, f"{name} ({path})"


def _encode(cell: Any, name: str) -> bytes:
    """Return an array of levels as the content of a PNG file."""
    try:
        levels = np.asarray(cell)
    except ValueError:  # rows of several lengths
        levels = np.asarray(None)
    fits = levels.ndim == 2 or (levels.ndim == 3 and levels.shape[2] in (1, 3))
    whole = levels.dtype.kind in "iu" and levels.size and levels.min() >= 0 and levels.max() <= 255
    if not (fits and whole):
        raise DataError(
            f"{name}: an array must hold integers from 0 to 255 of shape (H, W) or (H, W, 3), got {levels.dtype} "
            f"{levels.shape}; store images as files, such as of PNG (datasets.Image())"
        )
    content = io.BytesIO()
    Image.fromarray((levels[..., 0] if levels.shape[2:] == (1,) else levels).astype(np.uint8)).save(content, "PNG")
    return content.getvalue()


def is_saved_table(folder: Path) -> bool:
    """Tell whether a folder was written by `save_to_disk` of Hugging Face `datasets`."""
    return any(os.path.isfile(folder / name) for name in SAVED)  # False where it may not be read


def list_saved(folder: Path, *, split: str | None, columns: Columns) -> Listing:
    """Return the images of a folder that `save_to_disk` of Hugging Face `datasets` wrote.

    Raises:
        DataError: a damaged folder, or what `list_tables` refuses.
    """
    import datasets

    with quiet(), explain(str(folder), "save it again"):
        saved = datasets.load_from_disk(str(folder))
    return list_tables(saved if isinstance(saved, Mapping) else {"": saved}, str(folder), split=split, columns=columns)


def list_hub(name: str, *, split: str | None, columns: Columns) -> Listing:
    """Return the images of "owner/name" on the Hugging Face hub, from the cache where there is no network.

    Raises:
        DataError: a name that is neither on the hub nor in the cache, or what `list_tables` refuses.
    """
    import datasets

    fix = f"check the name and the connection; no folder {name} exists here either"
    with _offline_without_network(), explain(f"hub data set {name}", fix):
        tables = datasets.load_dataset(name)
    return list_tables(tables, f"hub data set {name}", split=split, columns=columns)


@contextmanager
def explain(where: str, fix: str) -> Iterator[None]:
    """Turn any error of `datasets` into one `DataError` line with its innermost reason."""
    try:
        yield
    except DataError:
        raise
    except Exception as problem:
        cause: BaseException = problem
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise DataError(f"{where}: cannot be read ({shorten(str(cause), 300)}); {fix}") from problem


@contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars and log lines of `datasets` off the terminal; what goes wrong is told by the error."""
    import datasets

    bars, logger = not datasets.are_progress_bars_disabled(), logging.getLogger("datasets")
    level = logger.level
    datasets.disable_progress_bars()
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


@contextmanager
def _offline_without_network() -> Iterator[None]:
    """Let the hub's library look into its cache only where the hub's name is not known: else it retries for 30 s."""
    import datasets
    from huggingface_hub import constants

    switches = [(constants, "HF_HUB_OFFLINE"), (datasets.config, "HF_HUB_OFFLINE")]
    before = [getattr(module, name) for module, name in switches]
    offline = all(before) or not _hub_is_known(constants.ENDPOINT)
    try:
        for module, name in switches:
            setattr(module, name, offline)
        yield
    finally:
        for (module, name), value in zip(switches, before, strict=True):
            setattr(module, name, value)


def _hub_is_known(endpoint: str) -> bool:
    if getproxies():  # then the proxy looks names up
        return True
    try:
        socket.getaddrinfo(urlsplit(endpoint).hostname, None)
    except OSError:
        return False
    return True
