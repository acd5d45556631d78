"""Parquet files, tables that `datasets` saved, and hub names: columns, parts, labels, and what is said of them."""

import io
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from genaug.data import load_data
from genaug.errors import DataError

LEVELS = np.round(load_digits().images * 255 / 16).astype(np.uint8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def content(index: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(LEVELS[index]).save(buffer, kind)
    return buffer.getvalue()


def table(labels: Sequence[Any], feature: Any = None) -> datasets.Dataset:
    """Rows whose image i is that of digit i."""
    pictures = [{"bytes": content(index), "path": None} for index in range(len(labels))]
    features = None if feature is None else datasets.Features({"image": datasets.Image(), "label": feature})
    made = datasets.Dataset.from_dict({"image": pictures, "label": list(labels)}, features=features)
    return made if features else made.cast_column("image", datasets.Image())


def write(path: Path, labels: Sequence[Any], feature: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table(labels, feature).to_parquet(str(path))
    return path


def refused(data: Any, message: str, **options: Any) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_data(data, **options)
    assert "\n" not in str(caught.value)


class TestLabels:
    def test_class_label_keeps_its_names(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x.parquet", [1, 0, 1], datasets.ClassLabel(names=["zebra", "ant", "über"]))
        data = load_data(path)
        assert data.classes == ["zebra", "ant", "über"]
        assert data.targets == [1, 0, 1]
        assert np.array_equal(data.images[:, 0].numpy(), LEVELS[:3])

    @pytest.mark.parametrize(
        ("labels", "classes", "targets"),
        [
            (["dog", "cat", "dog"], ["cat", "dog"], [1, 0, 1]),
            (["10", "9", "10"], ["10", "9"], [0, 1, 0]),  # text stays text in a typed column
            ([2, 0, 2], ["0", "1", "2"], [2, 0, 2]),
            ([2.0, 0.0, 2.0], ["0", "1", "2"], [2, 0, 2]),
            ([True, False, True], ["False", "True"], [1, 0, 1]),
        ],
    )
    def test_other_labels_become_classes(
        self, tmp_path: Path, labels: list[Any], classes: list[str], targets: list[int]
    ) -> None:
        data = load_data(write(tmp_path / "x.parquet", labels))
        assert data.classes == classes
        assert data.targets == targets

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0, None, 1], r"row 1 of .*x\.parquet: the label is missing, got None; give it a class or remove the row"),
            (["a", "b", None], "row 2 of .*: the label is missing, got None"),
            (["a", "", "b"], "row 1 of .*: the label is missing, got ''"),
            ([0.0, float("nan")], "row 1 of .*: the label is missing, got nan"),
            ([0, 3, -1], r"row 2 of .*: the label must not be negative \(-1 often stands for 'no class'\), got -1"),
            ([0.0, 0.5], "row 1 of .*: the label must be a class: a name or a whole number, got 0.5"),
            ([0.0, float("inf")], "row 1 of .*: the label must be a class"),
            ([0, 100_000], "row 1 of .*: the label must be below 100,000"),
            ([[0], [1]], r"row 0 of .*: the label must be a name or a class index, got \[0\]"),
            ([], "x.parquet: must hold rows, got none"),
        ],
    )
    def test_labels_that_are_none(self, tmp_path: Path, labels: list[Any], message: str) -> None:
        pictures = [{"bytes": content(0), "path": None}] * len(labels)
        path = tmp_path / "x.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"image": pictures, "label": labels}), path)
        refused(path, message)

    def test_null_of_a_class_label(self, tmp_path: Path) -> None:
        refused(write(tmp_path / "x.parquet", [0, None], datasets.ClassLabel(names=["a"])), "row 1 .* is missing")


class TestColumns:
    def test_are_chosen(self, tmp_path: Path) -> None:
        renamed = table([0, 1]).rename_columns({"image": "photo", "label": "kind"})
        renamed.add_column("note", [5, 6]).to_parquet(str(tmp_path / "x.parquet"))
        data = load_data(tmp_path / "x.parquet", image_column="photo", label_column="note")
        assert data.targets == [5, 6]
        refused(tmp_path / "x.parquet", r"got columns \['photo', 'kind', 'note'\].*--label-column")

    def test_a_missing_one_says_what_there_is(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x.parquet", [0])
        refused(path, "x.parquet: image_column must be one of .* which are image, label, got 'img'", image_column="img")
        refused(path, "label_column must be one of .* which are image, label, got 'y'", label_column="y")
        refused(path, "column 'label' must hold images, got Value.*--image-column", image_column="label")

    @pytest.mark.parametrize("kind", ["bytes", "path"])
    def test_content_and_paths_are_images_too(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "a b.png").write_bytes(content(7))
        column = {"bytes": content(7), "path": "a b.png"}[kind]
        made = pyarrow.table({"image": [column], "label": ["x"]})
        pyarrow.parquet.write_table(made, tmp_path / "x.parquet")
        assert np.array_equal(load_data(tmp_path / "x.parquet").images[0, 0].numpy(), LEVELS[7])

    def test_paths_are_relative_to_the_file_of_their_row(self, tmp_path: Path) -> None:
        for index, folder in enumerate(["train/a", "train/b", "test"]):
            (tmp_path / folder).mkdir(parents=True)
            (tmp_path / folder / "0.png").write_bytes(content(index))
            (tmp_path / folder / "1.png").write_bytes(content(index + 3))
            rows = pyarrow.table({"image": ["0.png", "1.png"], "label": ["x", "y"]})
            pyarrow.parquet.write_table(rows, tmp_path / folder / "x.parquet")
        pattern = str(tmp_path / "**" / "x.parquet")
        assert np.array_equal(load_data(pattern, split="train").images[:, 0].numpy(), LEVELS[[0, 3, 1, 4]])
        assert np.array_equal(load_data(pattern, split="test").images[:, 0].numpy(), LEVELS[[2, 5]])

    def test_null_and_damaged_images(self, tmp_path: Path) -> None:
        pictures = [content(0), None, b"no image", b"", content(4)]
        pyarrow.parquet.write_table(
            pyarrow.table({"image": pictures, "label": [3, 1, 2, 2, 4]}), tmp_path / "x.parquet"
        )
        refused(tmp_path / "x.parquet", r"row 1 of .*x\.parquet: .*the image is missing \(null\)\); .*--skip-bad")
        with pytest.warns(UserWarning, match=r"skipped 3 of 5 images(.|\n)*row 2 of(.|\n)*row 3 .*file is empty"):
            data = load_data(tmp_path / "x.parquet", skip_bad=True)
        assert data.targets == [3, 4]
        assert np.array_equal(data.images[:, 0].numpy(), LEVELS[[0, 4]])
        assert [line.split(" of ")[0] for line in data.skipped] == ["row 1", "row 2", "row 3"]


class TestParts:
    def test_of_a_folder_come_from_the_names_of_files(self, tmp_path: Path) -> None:
        write(tmp_path / "d" / "train-00000-of-00002.parquet", ["b", "c"])
        write(tmp_path / "d" / "train-00001-of-00002.parquet", ["b"])
        write(tmp_path / "d" / "validation.parquet", ["a", "b", "c"])
        with pytest.warns(UserWarning, match="part train: holds no images of 1 of the 3 classes .*: a$"):
            data = load_data(tmp_path / "d")
        assert data.classes == ["a", "b", "c"]  # names decide, and all parts name
        assert data.targets == [1, 2, 1]
        assert load_data(tmp_path / "d", split="val").targets == [0, 1, 2]
        assert len(load_data(tmp_path / "d", split="all")) == 6
        refused(tmp_path / "d", "has no part 'test'; its parts are train, validation", split="test")

    def test_of_folders_and_patterns(self, tmp_path: Path) -> None:
        write(tmp_path / "d [1]" / "train" / "0.parquet", [0, 1])
        write(tmp_path / "d [1]" / "test" / "0.parquet", [1, 0, 1])
        assert load_data(tmp_path / "d [1]", split="test").targets == [1, 0, 1]
        assert load_data(str(tmp_path / "d*" / "*" / "0.parquet")).targets == [0, 1]
        refused(str(tmp_path / "d*" / "none*.parquet"), "no parquet file fits this pattern; .* holds ")

    def test_a_faulty_label_of_another_part_does_no_harm(self, tmp_path: Path) -> None:
        write(tmp_path / "train.parquet", [0, 1])
        write(tmp_path / "test.parquet", [-1, -1])
        assert load_data(tmp_path).targets == [0, 1]
        refused(tmp_path, "row 0 of .*, part test: the label must not be negative", split="test")

    def test_of_one_file_there_are_none(self, tmp_path: Path) -> None:
        path = write(tmp_path / "test.parquet", [0, 1])
        assert len(load_data(path)) == len(load_data(path, split="all")) == 2
        refused(path, "has no parts, so split 'test' cannot be chosen", split="test")

    def test_files_of_which_some_name_no_part(self, tmp_path: Path) -> None:
        write(tmp_path / "train.parquet", [0])
        write(tmp_path / "more.parquet", [0])
        refused(tmp_path, r"more\.parquet: its name tells no part, while other files there tell train")

    def test_a_dict_of_tables(self) -> None:
        both = datasets.DatasetDict(train=table(["b", "a"]), test=table(["a", "b", "a"]))
        assert load_data(both).targets == [1, 0]
        assert load_data(both, split="test").targets == [0, 1, 0]
        refused(both, "has no part 'val'; its parts are train, test", split="val")


class TestClassNames:
    @pytest.fixture
    def both(self) -> datasets.DatasetDict:
        train, test = (table([0, 1], datasets.ClassLabel(names=names)) for names in (["cat", "dog"], ["dog", "cat"]))
        return datasets.DatasetDict(train=train, test=test)

    @pytest.mark.parametrize("split", ["train", "test", "all"])
    def test_of_parts_in_another_order_are_refused(
        self, tmp_path: Path, both: datasets.DatasetDict, split: str
    ) -> None:
        message = "must be those of .*train.*, in the same order, but class 0 is 'dog' here and 'cat' there; write all"
        refused(both, "the dict of data sets, part test: class names " + message, split=split)
        both.save_to_disk(str(tmp_path / "saved"))
        refused(tmp_path / "saved", "saved, part test: class names " + message, split=split)

    @pytest.mark.parametrize(("first", "second"), [("train", "test"), ("train-0", "train-1")])
    def test_of_parquet_files_too(self, tmp_path: Path, both: datasets.DatasetDict, first: str, second: str) -> None:
        both["train"].to_parquet(str(tmp_path / f"{first}.parquet"))
        both["test"].to_parquet(str(tmp_path / f"{second}.parquet"))
        refused(tmp_path, r"parquet: class names must be those of .*\.parquet, in the same order", split="train")

    def test_text_beside_them_is_refused_and_numbers_are_indices(self, both: datasets.DatasetDict) -> None:
        both["test"] = table(["cat", "dog"])
        refused(both, "part test: labels must be indices of class names as in .*part train, got text; write all")
        both["test"] = table([1, 0, 1])
        data = load_data(both, split="test")
        assert (data.targets, data.classes) == ([1, 0, 1], ["cat", "dog"])

    def test_of_which_a_part_has_more(self, both: datasets.DatasetDict) -> None:
        both["test"] = table([0, 1], datasets.ClassLabel(names=["cat", "dog", "owl"]))
        refused(both, "part test: class names .* but class 2 is 'owl' here and None there")


@pytest.mark.parametrize("column", ["image", "label"])
def test_a_part_without_a_column_is_named(column: str) -> None:
    both = datasets.DatasetDict(train=table(["b", "a"]), test=table(["a", "b"]).rename_column(column, "other"))
    assert load_data(both).targets == [1, 0]
    refused(both, f"part test: must have the column '{column}' as part train has, got .*other.*; add it", split="all")


def test_saved_tables(tmp_path: Path) -> None:
    table(["b", "a"]).save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=table(["b"] * 2 + ["a"]), test=table(["a", "b"])).save_to_disk(str(tmp_path / "two"))
    assert load_data(tmp_path / "one").targets == [1, 0]
    assert load_data(tmp_path / "two", split="test").targets == [0, 1]
    (tmp_path / "one" / "state.json").write_text("{")
    refused(tmp_path / "one", "one: cannot be read .*save it again")


@pytest.mark.parametrize("damaged", [b"", b"no parquet", b"PAR1 and no more PAR1"])
def test_damaged_files(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(damaged)
    refused(tmp_path / "x.parquet", r"x\.parquet: (cannot be read|must be a parquet file)")


def test_a_truncated_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", [0, 1, 2])
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, "cannot be read")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", [0, 1])
    assert load_data(path).targets == [0, 1]
    time.sleep(0.01)
    write(path, [1, 0, 0])
    assert load_data(path).targets == [1, 0, 0]


class TestHub:
    def test_offline_it_is_said_at_once(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        waits: list[float] = []
        monkeypatch.setattr(time, "sleep", waits.append)
        refused("nobody/nothing-of-this-name", "hub data set nobody/nothing-of.*: cannot be read .*check the name")
        assert not waits

    def test_without_network_too(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        def no_network(*_: object) -> None:
            raise socket.gaierror("Name or service not known")

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(socket, "getaddrinfo", no_network)
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        waits: list[float] = []
        monkeypatch.setattr(time, "sleep", waits.append)
        refused("nobody/nothing-of-this-name", "check the name and the connection")
        assert not waits
        assert constants.HF_HUB_OFFLINE is False

    def test_a_folder_of_that_name_comes_first(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "owner" / "name" / "data" / "train.parquet", ["x", "y"])
        assert load_data("owner/name").classes == ["x", "y"]
        refused("owner/nam", "owner/nam: no such folder or file; owner holds name; ")


def test_real_parquet_files(data_dir: Path) -> None:
    names = datasets.load_dataset("parquet", data_files=str(data_dir / "solar" / "test.parquet"), split="train")
    data = load_data(data_dir / "solar", split="test", limit_per_class=20)
    assert data.classes == names.features["label"].names
    assert data.spec.size == "1x40x24"
    assert data.counts == [min(20, count) for count in np.bincount(names["label"]).tolist()]
    gray = load_data(data_dir / "cifar10-lt" / "test.parquet", limit_per_class=5, grayscale=True, resize=(16, 16))
    assert gray.spec.size == "1x16x16"
    assert gray.counts == [5] * 10


def test_streams_in_a_dict_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", ["x", "y"])
    parts = datasets.load_dataset("parquet", data_files={"train": str(path)}, streaming=True)
    refused(parts, "train must have a length and items by index, got streams; load them without streaming=True")


def test_a_column_of_parts(tmp_path: Path) -> None:
    made = table(["a", "b", "b", "a"]).add_column("split", ["train", "test", "train", "test"])
    made.to_parquet(str(tmp_path / "x.parquet"))
    made.save_to_disk(str(tmp_path / "saved"))
    for source in (tmp_path / "x.parquet", tmp_path / "saved", {"": made}):
        assert np.array_equal(load_data(source).images[:, 0].numpy(), LEVELS[[0, 2]])
        assert np.array_equal(load_data(source, split="test").images[:, 0].numpy(), LEVELS[[1, 3]])
        assert load_data(source, split="all").targets == [0, 1, 1, 0]


def test_a_column_of_parts_of_tables_that_have_a_name(tmp_path: Path) -> None:
    made = table(["a", "b", "b", "a"]).add_column("split", ["train", "test", "Train", "test"])
    (tmp_path / "folder").mkdir()
    made.to_parquet(str(tmp_path / "folder" / "train-00000-of-00001.parquet"))
    parts = datasets.ClassLabel(names=["test", "train"])
    labeled = table(["a", "b", "b", "a"]).add_column("split", [1, 0, 1, 0]).cast_column("split", parts)
    loaded = datasets.load_dataset("parquet", data_files=str(tmp_path / "folder" / "*.parquet"))
    for source in ({"train": made}, made, labeled, {"train": labeled}, tmp_path / "folder", dict(loaded)):
        assert np.array_equal(load_data(source).images[:, 0].numpy(), LEVELS[[0, 2]])
        assert np.array_equal(load_data(source, split="test").images[:, 0].numpy(), LEVELS[[1, 3]])


@pytest.mark.parametrize("odd", ["", "unused", None])
def test_a_column_of_parts_that_some_rows_lack(tmp_path: Path, odd: str | None) -> None:
    made = table(["a", "b", "b", "a"]).add_column("split", ["train", "test", odd, "train"])
    made.to_parquet(str(tmp_path / "x.parquet"))
    for source in (made, tmp_path / "x.parquet"):
        refused(source, "row 2 of .*: the column 'split' must tell a part, such as train or test, as other rows do")


@pytest.mark.parametrize("kind", [pyarrow.uint8(), pyarrow.int64()])
@pytest.mark.parametrize("colors", [False, True])
def test_columns_of_arrays(tmp_path: Path, kind: Any, colors: bool) -> None:
    levels = LEVELS[:3, ..., None].repeat(3, axis=3) if colors else LEVELS[:3]
    nested = pyarrow.list_(pyarrow.list_(pyarrow.list_(kind) if colors else kind))
    columns = {"image": pyarrow.array(levels.tolist(), type=nested), "label": pyarrow.array(["a", "b", "a"])}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    data = load_data(tmp_path / "x.parquet")
    assert np.array_equal(data.images.numpy(), levels.transpose(0, 3, 1, 2) if colors else levels[:, None])


@pytest.mark.parametrize(
    "wrong", [[[0, 30000], [1, 2]], [[0.5, 0.1], [0.2, 1.0]], [[-1, 2], [1, 2]], [[1], [1, 2]], [1, 2]]
)
def test_arrays_that_are_no_levels_are_refused(tmp_path: Path, wrong: Any) -> None:
    columns = {"image": pyarrow.array([wrong, wrong]), "label": pyarrow.array(["a", "b"])}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", r"row 0 of .*: an array must hold integers from 0 to 255 of shape \(H, W\)")
