"""What an image and a class is: fields, checks of images and labels, numbers of images per class."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

from genaug.errors import DataError
from genaug.spec import MAX_CHANNELS, MAX_CLASSES, MAX_SIDE, DataSpec, resolve_counts

SPEC = DataSpec(channels=3, height=6, width=5, class_names=("ant", "bee"))


def test_holds_what_it_is_given() -> None:
    assert (SPEC.num_classes, SPEC.size) == (2, "3x6x5")
    assert DataSpec(channels=1).size == "1x?x?"
    assert DataSpec(channels=1).num_classes == 0
    assert DataSpec(channels=1, class_names=["a", "b"]).class_names == ("a", "b")  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPEC.channels = 1  # type: ignore[misc]


def test_to_dict_survives_json() -> None:
    assert DataSpec(**json.loads(json.dumps(SPEC.to_dict()))) == SPEC
    assert hash(DataSpec(**SPEC.to_dict())) == hash(SPEC)


def test_limits_are_allowed() -> None:
    assert DataSpec(channels=MAX_CHANNELS, height=MAX_SIDE, width=1).height == MAX_SIDE


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": 0}, "channels must be an integer from 1 to 64, got 0"),
        ({"channels": None}, "channels must be"),
        ({"channels": True}, "channels must be .*, got True"),
        ({"channels": 3.0}, "channels must be .*, got 3.0"),
        ({"channels": "3"}, "channels must be"),
        ({"channels": MAX_CHANNELS + 1}, "channels must be"),
        ({"channels": 1, "height": -1}, "height must be an integer from 1 to 16384, got -1"),
        ({"channels": 1, "width": MAX_SIDE + 1}, "width must be"),
        ({"channels": 1, "width": 10**5000}, "width must be"),
        ({"channels": 1, "class_names": "cat"}, "class_names must be a list of names, got 'cat'"),
        ({"channels": 1, "class_names": 5}, "class_names must be a list"),
        ({"channels": 1, "class_names": None}, "class_names must be a list"),
        ({"channels": 1, "class_names": ["a", ""]}, "class_names must be non-empty strings"),
        ({"channels": 1, "class_names": ["a", 1]}, "class_names must be non-empty strings"),
        ({"channels": 1, "class_names": [["a"]]}, "class_names must be non-empty strings"),
        ({"channels": 1, "class_names": ["caf\udce9"]}, "of valid Unicode"),  # os.listdir on a name in Latin-1
        ({"channels": 1, "class_names": ["a", "b", "a"]}, "class_names must not repeat"),
        ({"channels": 1, "class_names": [str(i) for i in range(MAX_CLASSES + 1)]}, "at most 100000 names, got 100001"),
    ],
)
def test_refuses_wrong_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        DataSpec(**fields)
    assert len(str(caught.value)) < 250


def test_checks_images() -> None:
    SPEC.check_images(torch.zeros(3, 6, 5))
    SPEC.check_images(torch.zeros(2, 3, 6, 5, dtype=torch.uint8))
    DataSpec(channels=3).check_images(torch.zeros(3, 100, 1))
    DataSpec(channels=3, height=6).check_images(torch.zeros(3, 6, 99))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 6, 5), "pictures must have 3 channels, got 1 .expected 3x6x5"),
        ((3, 5, 6), "pictures must be of size 3x6x5, got 3x5x6; resize them first"),
        ((3, 6, 6), "got 3x6x6"),
        ((3, 7, 5), "got 3x7x5"),
        ((6, 5), "must have shape"),
    ],
)
def test_refuses_images_of_another_size(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        SPEC.check_images(torch.zeros(shape), name="pictures")


def test_checks_labels() -> None:
    SPEC.check_labels(torch.tensor([0, 1, 1]), count=3)
    SPEC.check_labels(torch.tensor([2]), null=True)
    SPEC.check_labels(torch.zeros(0, dtype=torch.int64), count=0)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (
            torch.tensor([2]),
            {},
            "class indices from 0 to 1, got values from 2 to 2; 2 classes are known: .'ant', 'bee'",
        ),
        (torch.tensor([3, 0]), {"null": True}, "class indices from 0 to 2, got values from 0 to 3"),
        (torch.tensor([-1]), {}, "got values from -1"),
        (torch.tensor([0]), {"count": 2}, r"as many as images \(2\), got 1"),
        (torch.tensor([0.0]), {}, "int64 tensor of shape .N,., got torch.float32"),
        (torch.tensor([0], dtype=torch.int32), {}, "got torch.int32"),
        (torch.tensor(0), {}, "got torch.int64"),
        (torch.tensor([[0]]), {}, r"got torch.int64 \(1, 1\)"),
        ([0], {}, "got list"),
    ],
)
def test_refuses_other_labels(labels: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        SPEC.check_labels(labels, **options)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (4, [4, 4]),
        (0, [0, 0]),
        ([1, 2], [1, 2]),
        ((1, 0), [1, 0]),
        ({"bee": 3}, [0, 3]),
        ({}, [0, 0]),
        (np.int64(2), [2, 2]),
        (np.array([1, 2]), [1, 2]),
        (torch.tensor([1, 2]), [1, 2]),
        ({"ant": np.int32(7)}, [7, 0]),
    ],
)
def test_counts_in_every_form(counts: Any, expected: list[int]) -> None:
    resolved = resolve_counts(counts, SPEC)
    assert resolved == expected
    assert all(type(count) is int for count in resolved)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (-1, "counts must be integers of at least 0, got .-1, -1"),
        (2.5, "counts must be integers"),
        ([1, 2.5], "counts must be integers of at least 0, got .1, 2.5"),
        ([1, True], "counts must be integers"),
        (True, "counts must be integers"),
        (None, "counts must be integers"),
        (["1", "2"], "counts must be integers"),
        ("12", "counts must be integers"),
        (torch.tensor([1.0, 2.0]), "counts must be integers"),
        ([1], "one number for each of 2 classes, got 1"),
        ([1, 2, 3], "one number for each of 2 classes, got 3"),
        ({"cat": 1}, r"unknown classes \['cat'\]; known: \('ant', 'bee'\)"),
        ({0: 1}, "unknown classes"),
        ({"ant": -2}, "counts must be integers"),
        ({"ant": 1.0}, "counts must be integers"),
    ],
)
def test_refuses_other_counts(counts: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        resolve_counts(counts, SPEC)
