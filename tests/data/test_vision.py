"""Data sets of torchvision by name."""

import gzip
import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from torchvision import datasets

from genaug.data import load_data
from genaug.errors import DataError

DIGITS = load_digits()
LEVELS = np.round(DIGITS.images * 255 / 16).astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    """The format of MNIST's files: http://yann.lecun.com/exdb/mnist (type 8 is uint8)."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, *, packed: bool) -> Path:
    folder.mkdir(parents=True)
    for part, rows in (("train", slice(0, 40)), ("t10k", slice(40, 60))):
        for name, array in (("images-idx3", LEVELS[rows]), ("labels-idx1", DIGITS.target[rows])):
            content = idx(array)
            path = folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    return folder


def refused(data: Any, message: str, **options: Any) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_data(data, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "packed"),
    [("FashionMNIST/raw", False), ("FashionMNIST/raw", True), ("FashionMNIST", True), ("", True), ("", False)],
)
def test_files_of_mnist_and_its_kin_are_found(tmp_path: Path, place: str, packed: bool) -> None:
    root = tmp_path / "dataset-Fashion-MNIST" / "root"
    write_mnist(root / place, packed=packed)
    before = sorted(root.rglob("*"))
    train, test = (load_data("FashionMNIST", root=root, split=split) for split in ("train", "test"))
    assert train.classes == test.classes == datasets.FashionMNIST.classes
    assert np.array_equal(train.images[:, 0].numpy(), LEVELS[:40])
    assert test.targets == DIGITS.target[40:60].tolist()
    assert len(load_data("FashionMNIST", root=str(root), split="all")) == 60
    assert len(load_data("FashionMNIST", root=root)) == 40
    assert sorted(root.rglob("*")) == before


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    (tmp_path / "some file").touch()
    refused("FashionMNIST", r"FashionMNIST: needs the folder that it is in: pass --root DIR .*--download")
    refused("FashionMNIST", "got .*none, where there is nothing; .*--download", root=tmp_path / "none")
    refused("FashionMNIST", "holds some file; fetch it with --download", root=tmp_path)
    refused("CIFAR10", "CIFAR10: cannot be opened .* holds some file; fetch it with --download", root=tmp_path)
    refused("EMNIST", "EMNIST: needs the argument split", root=tmp_path)
    refused("SVHN", "Valid values are .* choose another --split", root=tmp_path, split="nope")
    refused("MNIST", "MNIST: has no part 'val'; its parts are train, test", root=tmp_path, split="val")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", packed=True)
    path = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    refused("MNIST", r"train-images-idx3-ubyte\.gz: cannot be unpacked", root=tmp_path / "mnist")


@pytest.mark.parametrize("packed", [True, False])
def test_files_of_mnist_are_not_taken_for_those_of_its_kin(tmp_path: Path, packed: bool) -> None:
    fashion = write_mnist(tmp_path / "mnist" / "fashion-mnist", packed=packed)
    message = "must hold its files, .* neither their checksums nor the folder .* into a folder {0}/raw"
    for name in ("MNIST", "KMNIST"):
        refused(name, f"{name}: .*fashion-mnist {message.format(name)}", root=fashion)
    unnamed = write_mnist(tmp_path / "mine", packed=packed)
    refused("MNIST", message.format("MNIST"), root=unnamed)
    (tmp_path / "mnist" / "link").symlink_to(unnamed)
    assert load_data("MNIST", root=tmp_path / "mnist" / "link").classes == datasets.MNIST.classes


def test_checksums_tell_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine", "mnist"):
        write_mnist(tmp_path / name, packed=True)
    resources = [
        (url, hashlib.md5((tmp_path / "mine" / Path(url).name).read_bytes()).hexdigest())
        for url, _ in datasets.FashionMNIST.resources
    ]
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    assert load_data("FashionMNIST", root=tmp_path / "mine").classes == datasets.FashionMNIST.classes
    for file in (tmp_path / "mine").iterdir():
        file.replace(tmp_path / "mnist" / file.name)
    refused("MNIST", "mnist must hold its files, .* got those of FashionMNIST; ", root=tmp_path / "mnist")


def test_qmnist_is_said_to_be_missing(tmp_path: Path) -> None:
    refused("QMNIST", "QMNIST: cannot be opened .*--download", root=tmp_path)


def test_names_that_are_close_are_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused("fashion_mnist", "torchvision has FashionMNIST")
    refused("cifar10", "torchvision has CIFAR10", root=tmp_path)


def test_other_data_sets(tmp_path: Path) -> None:
    data = load_data("FakeData", limit_per_class=3, resize=(8, 8))
    assert data.counts == [3] * 10
    assert data.spec.size == "3x8x8"
    refused("FakeData", "FakeData: has no parts", split="test")
    refused("FakeData", "FakeData: cannot be downloaded", download=True)


def test_a_folder_of_that_name_is_hinted_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EuroSAT" / "forest").mkdir(parents=True)
    with pytest.raises(
        DataError, match="EuroSAT: needs the folder .*; for the folder ./EuroSAT pass ./EuroSAT as data"
    ):
        load_data("EuroSAT")
