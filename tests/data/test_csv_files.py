"""Lists of images in CSV and TSV files."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from genaug.data import load_data
from genaug.errors import DataError

LEVELS = np.round(load_digits().images * 255 / 16).astype(np.uint8)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "my pictures").mkdir()
    for index in range(6):
        Image.fromarray(LEVELS[index]).save(tmp_path / "my pictures" / f"é {index}.png")
    return tmp_path


def write(folder: Path, header: str, labels: list[str], name: str = "data.csv", separator: str = ",") -> Path:
    lines = [header, *(f"my pictures/é {index}.png{separator}{label}" for index, label in enumerate(labels))]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def refused(data: Any, message: str, **options: Any) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_data(data, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "separator"), [("data.csv", ","), ("data.csv", ";"), ("data.TSV", "\t")])
def test_paths_and_classes(here: Path, name: str, separator: str) -> None:
    data = load_data(write(here, f"path{separator}label", ["dog", "cat", "dog"], name, separator))
    assert data.classes == ["cat", "dog"]
    assert data.targets == [1, 0, 1]
    assert np.array_equal(data.images[:, 0].numpy(), LEVELS[:3])


@pytest.mark.parametrize("labels", [["2", "0", "10"], ["2.0", "0.0", "10.0"]])
def test_numbers_are_class_indices(here: Path, labels: list[str]) -> None:
    data = load_data(write(here, "path,label", labels))
    assert data.targets == [2, 0, 10]
    assert data.classes == [str(number) for number in range(11)]


def test_columns(here: Path) -> None:
    rows = [f'{index},"my pictures/é {index}.png","a, b",{index % 2}' for index in range(4)]
    path = here / "data.csv"
    path.write_text("\ufeff" + "\r\n".join([",file,species,kind", *rows, "", ""]), encoding="utf-8")
    assert load_data(path, label_column="kind").targets == [0, 1, 0, 1]
    assert load_data(path, label_column="species").classes == ["a, b"]
    assert load_data(path, image_column="file", label_column="kind").targets == [0, 1, 0, 1]
    refused(path, "which column holds the class is not clear, got the columns , file, species, kind; .*--label-column")
    refused(path, "label_column must be one of the columns, which are , file, species, kind", label_column="x")
    refused(path, "image_column must be one of the columns", image_column="x")
    refused(path, "has no parts, so split 'test' cannot be chosen", split="test")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", ""], "line 3 of .*data.csv: the label is missing, got None; give it a class or remove the row"),
        (["1", "nan"], "line 3 .* is missing"),
        (["1", "-1"], "line 3 .* must not be negative"),
        (["1", "1.5"], "line 3 .* must be a class: a name or a whole number, got 1.5"),
        (["1", "2", "cat"], "line 4 .*: labels must be all names or all numbers, got 'cat' here and 1 in line 2"),
        (["cat", "7"], "line 3 .*: labels must be all names or all numbers, got 7 here and 'cat' in line 2"),
        (["1", "9" * 30], "line 3 .* below 100,000"),
    ],
)
def test_labels_that_are_none(here: Path, labels: list[str], message: str) -> None:
    refused(write(here, "path,label", labels), message)


def test_a_file_that_is_missing(here: Path) -> None:
    path = write(here, "path,label", ["a"] * 7)
    refused(path, r"é 6\.png \(line 8 of data\.csv\): cannot be read as an image \(No such file or directory\)")
    with pytest.warns(UserWarning, match="skipped 1 of 7 images"):
        assert len(load_data(path, skip_bad=True)) == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must hold a header, such as path,label, and a line for each image, got no line"),
        (b"path,label\n\n", "got a header only"),
        (b"my pictures/1.png,cat\nmy pictures/2.png,dog\n", "must begin with a header"),
        (b"path,label\nmy pictures/1.png\n", "line 2 of .*: must have 2 cells as the header has, got 1"),
        (
            b"path,label\n1.png,cat\n2.png,cat, black\n",
            "line 3 of .*: must have 2 cells as the header has, got 3: 2.png,",
        ),
        (b"a,b\n1,2\n", "must have a column of paths of images, got the columns a, b"),
        (b"path,label\n\xff\xfe,1\n", "must be CSV text in UTF-8"),
        (b'path,label\n"1.png,cat\n', "must be CSV text"),
        (b"path,label\n1.png,a\0b\n", "data.csv"),
    ],
)
def test_files_that_are_no_such_list(here: Path, content: bytes, message: str) -> None:
    (here / "data.csv").write_bytes(content)
    refused(here / "data.csv", message)


def test_empty_cells_beyond_the_header_do_no_harm(here: Path) -> None:
    assert load_data(write(here, "path,label", ["cat,, ", "dog"])).targets == [0, 1]


def test_no_such_file_says_what_there_is(here: Path) -> None:
    write(here, "path,label", ["a"])
    refused(here / "dat.csv", "dat.csv: no such folder or file; .* holds data.csv, my pictures;")


def test_a_column_of_parts(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    for index in range(4):
        Image.fromarray(LEVELS[index]).save(tmp_path / f"{index}.png")
    path.write_text("path,label,Split\n0.png,a,train\n1.png,b,test\n2.png,b,train\n3.png,a,val\n")
    for split, rows, targets in ((None, [0, 2], [0, 1]), ("test", [1], [1]), ("all", [0, 2, 1, 3], [0, 1, 1, 0])):
        with warnings.catch_warnings():
            warnings.filterwarnings("error" if split != "test" else "ignore")
            data = load_data(path, split=split)
        assert np.array_equal(data.images[:, 0].numpy(), LEVELS[rows])
        assert (data.targets, data.classes) == (targets, ["a", "b"])
    with pytest.warns(UserWarning, match="holds no images of 1 of the 2 classes that all parts have together: b"):
        assert len(load_data(path, split="validation")) == 1
    refused(path, "has no part 'extra'; its parts are train, test, val", split="extra")
    path.write_text("path,split\n0.png,train\n1.png,test\n")
    refused(path, "which column holds the class is not clear")


def test_a_column_called_split_that_tells_something_else(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    Image.fromarray(LEVELS[0]).save(tmp_path / "1.png")
    path.write_text("path,label,split\n1.png,a,fold 1\n1.png,b,fold 2\n")
    assert len(load_data(path)) == 2
    refused(path, "has no parts, so split 'test' cannot be chosen", split="test")
    path.write_text("path,label,split\n1.png,a,train\n1.png,b,fold 2\n")
    refused(path, "line 3 of .*x.csv: the column 'split' must tell a part, .* got 'fold 2'")


def test_a_path_with_a_null_character_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    Image.fromarray(LEVELS[0]).save(tmp_path / "1.png")
    path.write_text("path,label\n1.png,a\n1\0.png,a\n")
    with pytest.raises(DataError, match="cannot be read as an image .*null"):
        load_data(path)
    with pytest.warns(UserWarning, match="skipped 1 of 2 images"):
        assert len(load_data(path, skip_bad=True)) == 1
