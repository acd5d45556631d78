"""Synthetic samples come out as real ones do, for the data sets, items and transforms that people have."""

import copy
import itertools
import pickle
import random
import warnings
from collections import Counter, OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data import create_dataset
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset, default_collate
from torchvision import tv_tensors
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import v2

from genaug.bank import SampleBank
from genaug.errors import DataError, DataWarning, GenaugError
from genaug.mixing import MixedDataset, SyntheticDataset
from genaug.mixing.kinds import describe_image, describe_label
from genaug.spec import DataSpec

NAMES = ("ant", "bee", "cat")
COUNTS = [8, 4, 2]
LABELS = [0] * 8 + [1] * 4 + [2] * 2  # the median of 8, 4, 2 is 4: class 2 gets 2 synthetic samples
SYNTHETIC = [0, 0, 2]


class LinearSource(nn.Module):
    """Decodes seeded noise with one linear layer."""

    def __init__(self, channels: int = 3, names: tuple[str, ...] = NAMES, side: int = 6) -> None:
        super().__init__()
        self.spec = DataSpec(channels, side, side, names)
        self.linear = nn.utils.skip_init(nn.Linear, 4, channels * side * side)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(len(labels), 4, generator=generator)
        return self.linear(noise).sigmoid().reshape(-1, self.spec.channels, *(self.spec.height,) * 2)


def make_bank(channels: int = 3, names: tuple[str, ...] = NAMES, counts: Any = 5, side: int = 6) -> SampleBank:
    return SampleBank.generate(LinearSource(channels, names, side), counts, seed=0, progress=False)


@pytest.fixture(scope="module")
def bank() -> SampleBank:
    return make_bank()


def pixels(count: int = 14, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (count, channels, 6, 6), generator=generator, dtype=torch.uint8)


def bank_images(bank: SampleBank, index: int) -> Tensor:
    return bank.images(range(*bank.rows(index)))


def raw_rows(mixed: MixedDataset) -> Tensor:
    """The uint8 images of the synthetic samples, as a public data set of tensors with the same settings shows them."""
    plain = MixedDataset(TensorDataset(pixels(), torch.tensor(LABELS)), mixed._bank, seed=mixed._seed)
    plain.set_epoch(int(mixed._epoch))
    return torch.stack([plain[index][0] for index in range(14, 16)])


class Items(Dataset[Any]):
    """Raw images with labels, each item made by a function of (data set, image, label)."""

    def __init__(self, images: Any, make: Callable[..., Any], **attributes: Any) -> None:
        self.images, self.make = images, make
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self.images):
            raise IndexError(index)
        return self.make(self, self.images[index], LABELS[index])


Pair = namedtuple("Pair", ["picture", "digit"])


# --- form of items, images and labels


def as_pil(images: Tensor) -> list[Image.Image]:
    return [v2.functional.to_pil_image(image) for image in images]


def as_arrays(images: Tensor) -> list[Any]:
    return list(np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()))


KINDS: dict[str, tuple[int, Callable[[Tensor], Any]]] = {
    "uint8 tensor": (3, lambda images: images),
    "float32 tensor": (3, lambda images: images.float() / 255),
    "float64 tensor": (3, lambda images: images.double() / 255),
    "tensor without channels": (1, lambda images: images[:, 0]),
    "tv image": (3, lambda images: [tv_tensors.Image(image) for image in images]),
    "gray PIL": (1, as_pil),
    "RGB PIL": (3, as_pil),
    "RGBA PIL": (4, as_pil),
    "HWC array": (3, as_arrays),
    "gray HWC array": (1, as_arrays),
    "HW array": (1, lambda images: images[:, 0].numpy()),
    "CHW array": (3, lambda images: images.numpy()),
    "float array": (3, lambda images: [image / np.float32(255) for image in as_arrays(images)]),
}


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, Image.Image):
        assert one.mode == other.mode
        one, other = np.array(one), np.array(other)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_held_as_the_real_ones(kind: str) -> None:
    channels, convert = KINDS[kind]
    source = make_bank(channels)
    real = Items(convert(pixels(channels=channels)), lambda self, image, label: (image, label))
    mixed = MixedDataset(real, source)
    assert mixed.synthetic_counts == SYNTHETIC
    plain = MixedDataset(TensorDataset(pixels(channels=channels), torch.tensor(LABELS)), source)
    expected = convert(torch.stack([plain[14][0], plain[15][0]]))
    for index in range(2):
        image, label = mixed[14 + index]
        assert_same(image, expected[index])
        assert_same(label, 2)


@pytest.mark.parametrize(
    "convert",
    [int, np.int64, np.uint8, torch.tensor, lambda label: torch.tensor([label], dtype=torch.int32), np.array,
     lambda label: np.array([label], dtype=np.int16)],
    ids=["int", "int64", "uint8", "tensor", "tensor of one", "array", "array of one"],
)  # fmt: skip
def test_labels_are_held_as_the_real_ones(convert: Callable[[int], Any], bank: SampleBank) -> None:
    real = Items(pixels(), lambda self, image, label: (image, convert(label)))
    mixed = MixedDataset(real, bank)
    assert_same(mixed[14][1], convert(2))
    assert mixed.targets == [*LABELS, 2, 2]


@pytest.mark.parametrize(
    ("make", "with_source"),
    [
        (lambda image, label: (image, label), lambda image, label, flag: (image, label, flag)),
        (lambda image, label: [image, label], lambda image, label, flag: [image, label, flag]),
        (Pair, lambda image, label, flag: (image, label, flag)),
        (lambda x, y: {"image": x, "label": y}, lambda x, y, flag: {"image": x, "label": y, "synthetic": flag}),
        (lambda x, y: {"digit": y, "scan": x}, lambda x, y, flag: {"digit": y, "scan": x, "synthetic": flag}),
        (lambda x, y: OrderedDict(a=x, b=y), lambda x, y, flag: {"a": x, "b": y, "synthetic": flag}),
    ],
    ids=["tuple", "list", "named tuple", "dict", "other keys", "ordered dict"],
)
def test_items_have_the_form_of_the_real_ones(make: Any, with_source: Any, bank: SampleBank) -> None:
    real = Items(pixels(), lambda self, image, label: make(image, label))
    mixed = MixedDataset(real, bank)
    expected = make(raw_rows(mixed)[0], 2)
    found = mixed[14]
    assert isinstance(found, (type(expected), dict))
    torch.testing.assert_close(dict(found) if isinstance(found, dict) else found, expected)
    marked = MixedDataset(real, bank, return_source=True)
    torch.testing.assert_close(marked[0], with_source(pixels()[0], 0, False))
    torch.testing.assert_close(marked[14], with_source(raw_rows(marked)[0], 2, True))
    assert marked[0].__class__ is with_source(0, 0, True).__class__


def test_real_items_are_returned_as_they_are(bank: SampleBank) -> None:
    real = Items(as_pil(pixels()), lambda self, image, label: (image, label))
    mixed = MixedDataset(real, bank)
    for index in range(14):
        assert mixed[index][0] is real.images[index]
        assert mixed.__getitems__([index])[0][0] is real.images[index]


def test_gray_source_becomes_color() -> None:
    real = Items(as_pil(pixels()), lambda self, image, label: (image, label))
    image = MixedDataset(real, make_bank(channels=1))[14][0]
    assert image.mode == "RGB"
    red, green, blue = image.split()
    assert red.tobytes() == green.tobytes() == blue.tobytes()


@pytest.mark.parametrize("kind", [lambda images: images, as_arrays])
def test_gray_samples_in_color_can_be_changed_in_place(kind: Any) -> None:
    real = Items(kind(pixels()), lambda self, image, label: (image, label))
    image = torch.as_tensor(MixedDataset(real, make_bank(channels=1))[14][0])
    if image.shape[0] != 3:
        image = image.movedim(-1, 0)
    before = image.clone()
    image[0] += 1
    assert torch.equal(image[1:], before[1:])
    assert not torch.equal(image[0], before[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda image, label: image, "items of real must be"),
        (lambda image, label: (image, label, "path"), "3 elements: .*'str'"),
        (lambda image, label: (label, image), "raw images of real must be a PIL image"),
        (lambda image, label: (image, "cat"), "one class index"),
        (lambda image, label: (image, True), "one class index"),
        (lambda image, label: (image, torch.tensor(1.0)), "one class index"),
        (lambda image, label: (image, torch.zeros(3).long()), "one class index"),
        (lambda image, label: {"image": image, "label": label, "id": 1}, r"cannot have: \['id'\]"),
        (lambda image, label: {"a": image, "b": image, "label": label}, "image_key must name the image"),
        (lambda image, label: {"image": image, "a": 1, "b": 2}, "label_key must name the label"),
        (lambda image, label: (image.long(), label), "uint8 in"),
        (lambda image, label: (image.numpy()[:2], label), "raw images of real must have shape"),
        (lambda image, label: (Image.new("P", (6, 6)), label), "mode L, RGB or RGBA, got 'P'"),
        (lambda image, label: (image[:1], label), "images of 1 channels, as real has, got 3"),
        (lambda image, label: (image[:, :5], label), r"size of real \(3x5x6\), got 3x6x6"),
    ],
)
def test_items_that_synthetic_ones_cannot_be_like(make: Any, message: str, bank: SampleBank) -> None:
    with pytest.raises(DataError, match=message):
        MixedDataset(Items(pixels(), lambda self, image, label: make(image, label)), bank)


def test_keys_may_be_named(bank: SampleBank) -> None:
    real = Items(pixels(), lambda self, image, label: {"a": image, "b": label})
    mixed = MixedDataset(real, bank, image_key="a", label_key="b")
    assert list(mixed[15]) == ["a", "b"]
    with pytest.raises(DataError, match="image_key must be a column of real, got 'c'"):
        MixedDataset(real, bank, image_key="c", label_key="b")


@pytest.mark.parametrize(
    ("real", "message"),
    [
        (5, "map-style"),
        (iter([]), "map-style"),
        (type("Stream", (IterableDataset,), {"__iter__": lambda self: iter(())})(), "map-style"),
        ([], "at least one item"),
    ],
)
def test_no_data_set(real: Any, message: str, bank: SampleBank) -> None:
    with pytest.raises(DataError, match=message):
        MixedDataset(real, bank)


@pytest.mark.parametrize("source", [None, TensorDataset(torch.zeros(1)), FakeData])
def test_no_source(source: Any) -> None:
    with pytest.raises(DataError, match="source must be a bank or a model"):
        MixedDataset(TensorDataset(pixels(), torch.tensor(LABELS)), source)


# --- transforms


def flip_and_normalize() -> v2.Transform:
    steps = [v2.PILToTensor(), v2.Lambda(v2.functional.hflip), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose([*steps, v2.Normalize([0.5] * 3, [0.25] * 3)])


def expect_normalized(image: Tensor) -> Tensor:
    return (image.flip(-1).double() / 255 - 0.5).div(0.25).float()


def write_folder(folder: Path, counts: list[int] = COUNTS) -> Path:
    for name, count in zip(NAMES, counts, strict=True):
        (folder / name).mkdir(parents=True)
        for index, image in enumerate(as_pil(pixels(count))):
            image.save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("folder"))


def wrap_subset(real: Any) -> Any:
    return Subset(real, range(14))


def wrap_nested(real: Any) -> Any:
    return Subset(Subset(real, list(range(13, -1, -1))), list(range(13, -1, -1)))


def wrap_concat(real: Any) -> Any:
    return ConcatDataset([Subset(real, range(5)), Subset(real, range(5, 14))])


WRAPPERS: list[Callable[[Any], Any]] = [lambda real: real, wrap_subset, wrap_nested, wrap_concat]


@pytest.mark.parametrize("wrap", WRAPPERS, ids=["plain", "subset", "nested", "concat"])
def test_image_folder_with_its_transforms(wrap: Any, folder: Path, bank: SampleBank) -> None:
    inner = ImageFolder(str(folder), transform=flip_and_normalize(), target_transform=lambda label: label + 10)
    before = dict(vars(inner))
    mixed = MixedDataset(wrap(inner), bank)
    assert vars(inner) == before
    assert mixed.targets == [*LABELS, 2, 2]
    assert mixed.classes == list(NAMES)
    for index, raw in enumerate(raw_rows(mixed)):
        image, label = mixed[14 + index]
        torch.testing.assert_close(image, expect_normalized(raw))
        assert label == 12
    image, label = mixed[0]
    torch.testing.assert_close(image, expect_normalized(pixels(8)[0]))
    assert label == 10


def test_transforms_of_image_and_target_together(folder: Path, bank: SampleBank) -> None:
    class Detection(ImageFolder):
        def __getitem__(self, index: int) -> Any:
            path, label = self.samples[index]
            return self.transforms(self.loader(path), label)

    real = Detection(str(folder), transform=flip_and_normalize(), target_transform=str)
    image, label = MixedDataset(real, bank)[14]
    torch.testing.assert_close(image, expect_normalized(raw_rows(MixedDataset(real, bank))[0]))
    assert label == "2"
    parts = [Detection(str(folder), transform=real.transform, target_transform=real.target_transform) for _ in range(2)]
    assert MixedDataset(ConcatDataset(parts), bank)[28][1] == "2"


@pytest.mark.parametrize(
    ("make", "transform", "expected"),
    [
        (lambda self, x, y: self.transform(x, y), lambda x, y: (x + 1, -y), lambda x: (x + 1, -2)),
        (lambda self, x, y: self.transform((x, y)), lambda s: (s[0] + 1, -s[1]), lambda x: (x + 1, -2)),
        (
            lambda self, x, y: self.transform({"image": x, "label": y}),
            lambda s: {"image": s["image"] + 1, "label": -s["label"]},
            lambda x: {"image": x + 1, "label": -2},
        ),
        (
            lambda self, x, y: {"pixels": self.transform(x), "label": y},
            lambda x: x + 1,
            lambda x: {"pixels": x + 1, "label": 2},
        ),
        (
            lambda self, x, y: (self.transform(image=x)["image"], y),
            lambda image: {"image": image + 1},
            lambda x: (x + 1, 2),
        ),
        (lambda self, x, y: (self.transform(x), torch.tensor(y)), lambda x: x + 1, lambda x: (x + 1, torch.tensor(2))),
    ],
    ids=["pair", "tuple", "dict", "in a dict", "keyword", "label made later"],
)
def test_transform_is_called_as_the_data_set_calls_it(
    make: Any, transform: Any, expected: Any, bank: SampleBank
) -> None:
    mixed = MixedDataset(Items(pixels(), make, transform=transform), bank)
    torch.testing.assert_close(mixed[14], expected(raw_rows(mixed)[0]))


def test_albumentations(bank: SampleBank) -> None:
    albumentations = pytest.importorskip("albumentations")
    transform = albumentations.Compose([albumentations.HorizontalFlip(p=1.0), albumentations.Normalize()], seed=1)
    streams = copy.deepcopy(transform.random_generator.bit_generator.state)
    real = Items(as_arrays(pixels()), lambda self, x, y: (self.transform(image=x)["image"], y), transform=transform)
    mixed = MixedDataset(real, bank)
    assert transform.random_generator.bit_generator.state == streams
    raw = raw_rows(mixed)[0].permute(1, 2, 0).numpy()[:, ::-1]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    torch.testing.assert_close(mixed[14][0], ((raw / 255.0 - mean) / std).astype(np.float32))


def test_attribute_that_is_never_called_is_no_transform(bank: SampleBank) -> None:
    real = Items(pixels(), lambda self, x, y: (x, y), transform=lambda x: x / 0)
    assert MixedDataset(real, bank)[14][0].dtype == torch.uint8


def test_given_transform_where_real_has_none(bank: SampleBank) -> None:
    normalized = (pixels().float() / 255 - 0.5) / 0.25
    real = TensorDataset(normalized, torch.tensor(LABELS))
    mixed = MixedDataset(real, bank, transform=lambda image: (image.float() / 255 - 0.5) / 0.25)
    torch.testing.assert_close(mixed[14][0], (raw_rows(mixed)[0].float() / 255 - 0.5) / 0.25)
    in_pil = MixedDataset(Items(as_pil(pixels()), lambda self, x, y: (x, y)), bank, transform=ImageOps.invert)
    assert np.array_equal(np.array(in_pil[14][0]), 255 - raw_rows(in_pil)[0].permute(1, 2, 0).numpy())
    arrays = Items([image / np.float32(9) for image in as_arrays(pixels())], lambda self, x, y: (x, y))
    in_arrays = MixedDataset(arrays, bank, transform=lambda image: image / np.float32(9))
    assert np.array_equal(in_arrays[14][0], raw_rows(in_arrays)[0].permute(1, 2, 0).numpy() / np.float32(9))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda image: image, r"transform must make tensor torch.float32 3x6x6 cpu .*, got tensor torch.uint8 3x6x6"),
        (lambda image: image.double() / 255, "got tensor torch.float64"),
        (lambda image: image[:, :5] / 255, "got tensor torch.float32 3x5x6"),
        (lambda image: image[0] / 255, r"got tensor torch.float32 1x6x6 \(hw\)"),
        (v2.ToPILImage(), "got pil 3x6x6"),
        (lambda image: None, "must be a PIL image, tensor or array, got NoneType"),
    ],
)
def test_given_transform_that_makes_other_images(transform: Any, message: str, bank: SampleBank) -> None:
    real = TensorDataset(pixels().float() / 255, torch.tensor(LABELS))
    with pytest.raises(DataError, match=message):
        MixedDataset(real, bank, transform=transform)


def test_given_transform_that_forgets_to_scale(bank: SampleBank) -> None:
    real = TensorDataset((pixels().float() / 255 - 0.5) / 0.25, torch.tensor(LABELS))
    with pytest.warns(
        DataWarning, match=r"values of up to 2\d\d of synthetic images, and real ones have up to 2:"
    ) as seen:
        MixedDataset(real, bank, transform=v2.ToDtype(torch.float32))
    assert seen[0].filename == __file__


class Inner(Dataset):
    """Wraps a data set and changes nothing."""

    def __init__(self, dataset: Any) -> None:
        self.source = dataset

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        return self.source[index]


class Augmented(Dataset):
    """Has a transform that is no attribute `transform`, or is inside a data set that it wraps."""

    def __init__(self, images: Any, change: Callable[[Tensor], Tensor]) -> None:
        self.images, self.change = images, change

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.change(self.images[index]), LABELS[index]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    "change",
    [v2.RandomHorizontalFlip(), lambda x: x + int(np.random.randint(9)), lambda x: x + random.randrange(9)],
)
def test_a_random_transform_that_is_not_seen(change: Any, wrapped: bool, bank: SampleBank) -> None:
    real: Any = Augmented(pixels() // 2, change)
    if wrapped:
        real = Inner(real)
    with pytest.warns(DataWarning, match="change from reading to reading") as seen:
        MixedDataset(real, bank)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MixedDataset(real, bank, transform=change)
        MixedDataset(Augmented(pixels() // 2, lambda x: x + 1), bank)


def test_transform_may_resize(folder: Path) -> None:
    real = ImageFolder(str(folder), transform=v2.Compose([v2.Resize((4, 4)), v2.PILToTensor()]))
    assert MixedDataset(real, make_bank(side=9))[14][0].shape == (3, 4, 4)
    plain = ImageFolder(str(folder))
    assert MixedDataset(plain, make_bank(side=9), transform=v2.Resize((6, 6)))[14][0].size == (6, 6)


@pytest.mark.parametrize("place", [0, 7, 13])
@pytest.mark.parametrize("value", [-0.5, 1.5, float("nan"), float("inf")])
def test_normalized_in_two_ways(place: int, value: float, bank: SampleBank) -> None:
    images = pixels().float() / 255
    images[place, 0, 0, 0] = value
    with pytest.raises(DataError, match=r"pass transform=.*normalized in two ways"):
        MixedDataset(TensorDataset(images, torch.tensor(LABELS)), bank)
    real = Items(images, lambda self, x, y: (self.transform(x), y), transform=lambda x: x * 2)
    with pytest.raises(DataError, match="real must give its transform uint8"):
        MixedDataset(real, bank)


@pytest.mark.parametrize(
    ("real", "message"),
    [
        (
            Items(pixels(), lambda self, x, y: (self.transform(x) * 1, y), transform=lambda x: x),
            "return what its transform gives it, but turns it into something else",
        ),
        (
            Items(as_pil(pixels()), lambda self, x, y: (self.transform(x).unsqueeze(0), y), transform=lambda x: x),
            "but does more with it .*unsqueeze",
        ),
        (
            Items(pixels(), lambda self, x, y: ((self.transform(x), self.transform(x)), y), transform=lambda x: x),
            "call one transform once for an item, got 2 calls of transform",
        ),
        (
            Items(pixels(), lambda self, x, y: (self.transform(image=x, mask=x)["image"], y), transform=lambda x: x),
            r"0 positional arguments and \['image', 'mask'\]",
        ),
        (
            Items(pixels(), lambda s, x, y: (x, torch.tensor(s.target_transform(y))), target_transform=lambda y: y),
            "what its target_transform gives it",
        ),
    ],
    ids=["more after it", "fails after it", "two views", "mask", "label after it"],
)
def test_transforms_that_cannot_be_followed(real: Any, message: str, bank: SampleBank) -> None:
    with pytest.raises(DataError, match=message):
        MixedDataset(real, bank)


def test_two_transforms(folder: Path, bank: SampleBank) -> None:
    real = ImageFolder(str(folder), transform=flip_and_normalize())
    for wrap in WRAPPERS:
        with pytest.raises(DataError, match="transform must not be given where real has its own"):
            MixedDataset(wrap(real), bank, transform=v2.PILToTensor())


def test_parts_with_other_transforms(folder: Path, bank: SampleBank) -> None:
    transform = flip_and_normalize()
    parts = [ImageFolder(str(folder), transform=transform), ImageFolder(str(folder), transform=flip_and_normalize())]
    with pytest.raises(DataError, match="items or transforms differ"):
        MixedDataset(ConcatDataset(parts), bank)
    parts[1].transform = transform
    assert MixedDataset(ConcatDataset(parts), bank).counts == [16, 8, 8]
    parts[1].target_transform = str
    with pytest.raises(DataError, match="items or transforms differ"):
        MixedDataset(ConcatDataset(parts), bank)


def test_failing_transform_shows_its_own_error(bank: SampleBank) -> None:
    def fail(image: Any) -> Any:
        raise ZeroDivisionError("in the transform")

    mixed = MixedDataset(Items(pixels(), lambda self, x, y: (self.transform(x), y), transform=fail), bank)
    with pytest.raises(ZeroDivisionError, match="in the transform"):
        mixed[14]


def test_failing_data_set_shows_its_own_error(bank: SampleBank) -> None:
    def fail(self: Any, image: Any, label: int) -> Any:
        raise FileNotFoundError("no picture")

    with pytest.raises(FileNotFoundError, match="no picture"):
        MixedDataset(Items(pixels(), fail, transform=lambda x: x), bank)


def test_caches_of_the_data_set_stay_clean(bank: SampleBank) -> None:
    def cached(self: Any, image: Tensor, label: int) -> Any:
        key = image.numpy().tobytes()
        if key not in self.cache:
            self.cache[key] = self.transform(image)
            self.reads.append(label)
        return self.cache[key], label

    real = Items(pixels(), cached, transform=lambda image: image + 1, cache={}, reads=[])
    MixedDataset(real, bank)
    assert (real.cache, real.reads) == ({}, [])


@pytest.mark.global_rng
def test_random_transforms_and_states_stay_where_they_were(folder: Path, bank: SampleBank) -> None:
    real = ImageFolder(str(folder), transform=v2.RandomHorizontalFlip())
    noisy = Items(pixels(), lambda self, x, y: (x + torch.randint(2, (1,)).byte() * np.random.randint(1), y))
    torch.manual_seed(5)
    before = torch.get_rng_state(), str(np.random.get_state(legacy=False))
    for data in (real, noisy, FakeData(14, (3, 6, 6), 3)):
        MixedDataset(data, bank)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == str(np.random.get_state(legacy=False))


# --- labels and classes


def listed(**attributes: Any) -> Any:
    return Items(pixels(), lambda self, image, label: (image, label), **attributes)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"targets": LABELS},
        {"targets": torch.tensor(LABELS)},
        {"labels": np.array(LABELS)},
        {"labels": np.array(LABELS)[:, None]},
        {"targets": [[1, 2], [3]], "labels": LABELS},
        {"targets": ["cat"] * 14},
        {"labels": ["a", "b"]},
    ],
    ids=["read", "list", "tensor", "array", "column", "ragged", "strings", "class names"],
)
@pytest.mark.parametrize("wrap", WRAPPERS, ids=["plain", "subset", "nested", "concat"])
def test_labels_are_found(attributes: dict[str, Any], wrap: Any, bank: SampleBank) -> None:
    mixed = MixedDataset(wrap(listed(**attributes)), bank)
    assert mixed.targets == [*LABELS, 2, 2]
    assert mixed.counts == [8, 4, 4]


def test_labels_are_given(bank: SampleBank) -> None:
    real = listed()
    mixed = MixedDataset(real, bank, labels=torch.tensor(LABELS))
    assert mixed.targets == [*LABELS, 2, 2]
    for wrong in ([0], ["a"] * 14, [0.5] * 14, 3):
        with pytest.raises(DataError, match="labels must be one class index for each of 14 items"):
            MixedDataset(real, bank, labels=wrong)


@pytest.mark.parametrize("labels", [[-1, *LABELS[1:]], [3, *LABELS[1:]]])
def test_labels_out_of_range(labels: list[int], bank: SampleBank) -> None:
    with pytest.raises(DataError, match="labels of real must be from 0 to 2"):
        MixedDataset(TensorDataset(pixels(), torch.tensor(labels)), bank)


def test_listed_labels_that_differ_from_the_items(bank: SampleBank) -> None:
    with pytest.raises(DataError, match=r"real lists label 1 for item 0 and returns 0; pass labels="):
        MixedDataset(listed(targets=[label + 1 for label in LABELS]), bank)


def test_subset_counts_only_its_own_labels(bank: SampleBank) -> None:
    assert MixedDataset(Subset(listed(), [0, 1, 8, 13]), bank, target=2).targets == [0, 0, 1, 2, 1, 2]


def test_same_classes_in_another_order_are_matched_by_name(folder: Path) -> None:
    source = make_bank(names=("cat", "ant", "bee"))
    mixed = MixedDataset(ImageFolder(str(folder), transform=v2.PILToTensor()), source)
    assert mixed.classes == list(NAMES)
    cats = bank_images(source, 0)
    for index in (14, 15):
        assert mixed[index][1] == 2
        assert any(torch.equal(mixed[index][0], cat) for cat in cats)
    model = MixedDataset(
        ImageFolder(str(folder), transform=v2.PILToTensor()), LinearSource(names=("cat", "ant", "bee"))
    )
    assert model._bank is not None
    assert model._bank.counts == [2, 0, 0]


def test_different_classes(folder: Path) -> None:
    with pytest.raises(DataError, match=r"source must have the classes of real, got \('ant', 'bee'\) for \('ant', "):
        MixedDataset(ImageFolder(str(folder)), make_bank(names=("ant", "bee")))
    parts = [listed(classes=["a", "b", "c"]), listed(classes=["a", "c", "b"])]
    with pytest.raises(DataError, match="classes differ"):
        MixedDataset(ConcatDataset(parts), make_bank())


# --- which samples, how many


def test_counts_targets_and_order(bank: SampleBank) -> None:
    mixed = MixedDataset(TensorDataset(pixels(), torch.tensor(LABELS)), bank, target=6)
    assert len(mixed) == 14 + 2 + 4
    assert (mixed.synthetic_counts, mixed.counts, mixed.classes) == ([0, 2, 4], [8, 6, 6], list(NAMES))
    assert mixed.targets == [*LABELS, 1, 1, 2, 2, 2, 2]
    assert [int(mixed[index][1]) for index in range(len(mixed))] == mixed.targets
    assert MixedDataset(mixed.real, bank, target="max", cap=1).synthetic_counts == [0, 4, 2]


def test_every_epoch_takes_another_permutation(bank: SampleBank) -> None:
    mixed = MixedDataset(TensorDataset(pixels(), torch.tensor(LABELS)), bank, target=7)  # all 5 of class 2
    orders = []
    for epoch in range(4):
        mixed.set_epoch(epoch)
        rows = [int((bank_images(bank, 2) == mixed[17 + place][0]).all((1, 2, 3)).nonzero()) for place in range(5)]
        assert sorted(rows) == list(range(5))
        orders.append(tuple(rows))
    assert len(set(orders)) > 1
    mixed.set_epoch(1)
    with pytest.warns(UserWarning, match=r"fewer samples than wanted.*'cat': \(6, 5\)"):  # so the first repeats
        again = MixedDataset(mixed.real, bank, target="max")
    again.set_epoch(1)
    start = 14 + again.synthetic_counts[1]
    assert torch.equal(again[start][0], mixed[17][0])
    assert torch.equal(again[start + 5][0], mixed[17][0])


def test_seed_decides(bank: SampleBank) -> None:
    real = TensorDataset(pixels(), torch.tensor(LABELS))

    def images(seed: int) -> Tensor:
        mixed = MixedDataset(real, bank, target=7, seed=seed)
        return torch.stack([mixed[index][0] for index in range(14, len(mixed))])

    assert torch.equal(images(0), images(0))
    assert not torch.equal(images(0), images(1))


def test_bank_without_a_class_and_with_too_few(bank: SampleBank) -> None:
    real = TensorDataset(pixels(), torch.tensor(LABELS))
    with pytest.raises(DataError, match=r"it has none of \['cat'\]"):
        MixedDataset(real, make_bank(counts=[5, 5, 0]))
    with pytest.warns(UserWarning, match=r"so some repeat .*\{'cat': \(2, 1\)\}") as caught:
        mixed = MixedDataset(real, make_bank(counts=[0, 0, 1]))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert torch.equal(mixed[14][0], mixed[15][0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixed.set_epoch(3)
        mixed[15]


def test_model_as_source_is_drawn_from_once() -> None:
    real = TensorDataset(pixels(), torch.tensor(LABELS))
    one, two, other = (MixedDataset(real, LinearSource(), seed=seed) for seed in (0, 0, 1))
    assert one._bank is not None
    assert one._bank.counts == SYNTHETIC
    assert torch.equal(one[14][0], two[14][0])
    assert not any(torch.equal(one[14][0], other[index][0]) for index in (14, 15))


def test_nothing_to_add_draws_nothing() -> None:
    real = TensorDataset(pixels(6), torch.tensor([0, 0, 1, 1, 2, 2]))
    mixed = MixedDataset(real, LinearSource())
    assert len(mixed) == 6
    assert mixed._bank is None
    assert len(mixed.__getitems__([0, 5])) == 2


# --- reading


def test_indices_as_in_a_list(bank: SampleBank) -> None:
    mixed = MixedDataset(TensorDataset(pixels(), torch.tensor(LABELS)), bank)
    whole = list(mixed)
    assert len(whole) == 16
    for index in (-1, -2, -3, -16, np.int64(15), torch.tensor(3)):
        torch.testing.assert_close(mixed[index], whole[index])
        torch.testing.assert_close(mixed.__getitems__([index])[0], whole[index])
    for index in (16, -17):
        with pytest.raises(IndexError):
            mixed[index]
        with pytest.raises(IndexError):
            mixed.__getitems__([0, index])
    with pytest.raises(TypeError):
        mixed["a"]
    assert mixed.__getitems__([]) == []


REAL: dict[str, Callable[[], Any]] = {
    "tensors": lambda: TensorDataset(pixels(), torch.tensor(LABELS)),
    "subset": lambda: Subset(TensorDataset(pixels(), torch.tensor(LABELS)), [-14, *range(1, 14)]),
    "concat": lambda: ConcatDataset(
        [TensorDataset(pixels()[:5], torch.tensor(LABELS[:5])), TensorDataset(pixels()[5:], torch.tensor(LABELS[5:]))]
    ),
    "items": lambda: Items(pixels(), lambda self, image, label: (image, torch.tensor(label))),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("return_source", [False, True])
def test_a_batch_is_its_items(name: str, return_source: bool, bank: SampleBank) -> None:
    mixed = MixedDataset(REAL[name](), bank, return_source=return_source)
    indices = torch.randint(-16, 16, (50,), generator=torch.Generator().manual_seed(0)).tolist()
    found = mixed.__getitems__(indices)
    torch.testing.assert_close(found, [mixed[index] for index in indices])
    torch.testing.assert_close(default_collate(found)[1], torch.tensor([mixed.targets[index] for index in indices]))
    if return_source:
        assert [item[2] for item in found] == [index % 16 >= 14 for index in indices]


def test_own_getitems_of_real_is_used(bank: SampleBank) -> None:
    class Batched(TensorDataset):
        def __getitems__(self, indices: list[int]) -> list[Any]:
            calls.append(indices)
            return [self[index] for index in indices]

    calls: list[list[int]] = []
    mixed = MixedDataset(Batched(pixels(), torch.tensor(LABELS)), bank)
    mixed.__getitems__([3, 15, 1, 14])
    mixed.__getitems__([15])
    assert calls == [[3, 1]]


def test_weighted_sampling_and_loading(bank: SampleBank) -> None:
    mixed = MixedDataset(TensorDataset(pixels(), torch.tensor(LABELS)), bank)
    loader = DataLoader(mixed, batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(0))
    labels = torch.cat([labels for _, labels in loader])
    assert Counter(labels.tolist()) == Counter({0: 8, 1: 4, 2: 4})


def test_pickling_keeps_the_epoch(bank: SampleBank) -> None:
    mixed = MixedDataset(TensorDataset(pixels(), torch.tensor(LABELS)), bank, target=7)
    mixed.set_epoch(3)
    again = pickle.loads(pickle.dumps(mixed))
    torch.testing.assert_close(list(again), list(mixed))


# --- synthetic alone


def test_synthetic_dataset(bank: SampleBank) -> None:
    data = SyntheticDataset(bank, {"ant": 2, "cat": 5}, seed=0)
    assert (len(data), data.counts, data.classes, data.targets) == (7, [2, 0, 5], list(NAMES), [0, 0, 2, 2, 2, 2, 2])
    cats = torch.stack([image for image, label in data if label == 2])
    assert sorted(map(bytes, cats.numpy())) == sorted(map(bytes, bank_images(bank, 2).numpy()))
    batch = data.__getitems__([6, 0, -1])
    torch.testing.assert_close(batch, [data[6], data[0], data[6]])
    with pytest.raises(IndexError):
        data[7]


def test_synthetic_dataset_from_a_model_with_a_transform() -> None:
    plain, again = (SyntheticDataset(LinearSource(), 3, seed=4) for _ in range(2))
    torch.testing.assert_close(list(plain), list(again))
    scaled = SyntheticDataset(LinearSource(), 3, seed=4, transform=v2.ToDtype(torch.float32, scale=True))
    torch.testing.assert_close(scaled[8], (plain[8][0].float() / 255, 2))
    assert len(SyntheticDataset(LinearSource(), 0, seed=0)) == 0


def test_synthetic_dataset_with_a_small_bank() -> None:
    with pytest.warns(UserWarning, match="some repeat"):
        data = SyntheticDataset(make_bank(counts=[2, 0, 0]), [5, 0, 0], seed=0)
    assert torch.equal(data[0][0], data[2][0])
    with pytest.raises(DataError, match=r"none of \['bee', 'cat'\]"):
        SyntheticDataset(make_bank(counts=[2, 0, 0]), 1, seed=0)
    with pytest.raises(DataError, match="source must be"):
        SyntheticDataset(None, 1, seed=0)


# --- Hugging Face


def hugging_face(images: Any = None, **columns: Any) -> Any:
    datasets = pytest.importorskip("datasets")
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))}
    features |= {name: datasets.Value("string") for name in columns}
    rows = {"image": as_pil(pixels()) if images is None else images, "label": LABELS, **columns}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def test_splits_are_named(bank: SampleBank) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"image": [[[0]]], "label": [0]})
    for real, words in (
        (datasets.DatasetDict({"train": rows, "test": rows}), ["DatasetDict of ['train', 'test']", "real['train']"]),
        ({"left": FakeData(), "right": FakeData()}, ["dict of ['left', 'right']", "such as real['left']"]),
        (datasets.IterableDatasetDict({"a": rows.to_iterable_dataset()}), ["['a']", "such as real['a']"]),
    ):
        with pytest.raises(DataError, match="^real must be one data set, got ") as caught:
            MixedDataset(real, bank)
        assert all(word in str(caught.value) for word in words)


def test_dict_by_number_is_a_data_set(bank: SampleBank) -> None:
    real = {index: (pixels()[index], label) for index, label in enumerate(LABELS)}
    assert MixedDataset(real, bank).synthetic_counts == SYNTHETIC


@pytest.mark.parametrize("seed", ["a", 1.5, True, None])
def test_wrong_seeds(seed: Any, bank: SampleBank) -> None:
    real = [(image, label) for image, label in zip(pixels(), LABELS, strict=True)]
    for make in (
        lambda: MixedDataset(real, bank, seed=seed),
        lambda: SyntheticDataset(bank, 1, seed=seed),
        lambda: SyntheticDataset(LinearSource(), 0, seed=seed),
    ):
        with pytest.raises(GenaugError, match="^seed must be an integer, such as 0, got"):
            make()


def test_hugging_face_rows(bank: SampleBank) -> None:
    mixed = MixedDataset(hugging_face(), bank, return_source=True)
    assert (mixed.classes, mixed.counts, mixed.targets) == (list(NAMES), [8, 4, 4], [*LABELS, 2, 2])
    row = mixed[14]
    assert (row["image"].mode, row["label"], row["synthetic"]) == ("RGB", 2, True)
    assert np.array_equal(np.asarray(row["image"]), raw_rows(mixed)[0].permute(1, 2, 0).numpy())
    assert np.array_equal(np.asarray(mixed[3]["image"]), pixels()[3].permute(1, 2, 0).numpy())
    assert [row["synthetic"] for row in mixed.__getitems__([0, 15, 2])] == [False, True, False]


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("wrap", WRAPPERS, ids=["plain", "subset", "nested", "concat"])
def test_hugging_face_formats(kind: str, wrap: Any, bank: SampleBank) -> None:
    mixed = MixedDataset(wrap(hugging_face().with_format(kind)), bank)
    real, made = mixed[0], mixed[14]
    for key in ("image", "label"):
        assert (type(real[key]), real[key].shape, real[key].dtype) == (
            type(made[key]),
            made[key].shape,
            made[key].dtype,
        )
    raw = raw_rows(mixed)[0]
    assert torch.equal(torch.as_tensor(made["image"]), raw if kind == "torch" else raw.permute(1, 2, 0))
    assert default_collate(mixed.__getitems__([0, 14, 15]))["label"].tolist() == [0, 2, 2]


@pytest.mark.parametrize("method", ["set_transform", "with_transform"])
@pytest.mark.parametrize("wrap", WRAPPERS, ids=["plain", "subset", "nested", "concat"])
def test_hugging_face_transform_of_batches(method: str, wrap: Any, bank: SampleBank) -> None:
    transform = flip_and_normalize()
    sizes = []

    def apply(batch: dict[str, Any]) -> dict[str, Any]:
        sizes.append(len(batch["image"]))
        return {"pixel_values": [transform(image.convert("RGB")) for image in batch["image"]], "labels": batch["label"]}

    data = hugging_face()
    real = data.with_transform(apply) if method == "with_transform" else data
    if method == "set_transform":
        real.set_transform(apply)
    mixed = MixedDataset(wrap(real), bank)
    assert sizes == []
    assert mixed.targets == [*LABELS, 2, 2]
    torch.testing.assert_close(mixed[14]["pixel_values"], expect_normalized(raw_rows(mixed)[0]))
    torch.testing.assert_close(mixed[0]["pixel_values"], expect_normalized(pixels()[0]))
    sizes.clear()
    batch = default_collate(mixed.__getitems__([14, 0, 15]))
    assert batch["labels"].tolist() == [2, 0, 2]
    assert sorted(sizes) == [1, 2] or wrap is wrap_concat
    with pytest.raises(DataError, match="has its own"):
        MixedDataset(wrap(real), bank, transform=v2.PILToTensor())


def test_hugging_face_columns(bank: SampleBank) -> None:
    extra = hugging_face(path=["x"] * 14, split=["y"] * 14)
    with pytest.raises(DataError, match=r"\['path', 'split'\].*remove_columns"):
        MixedDataset(extra, bank)
    assert len(MixedDataset(extra.remove_columns(["path", "split"]), bank)) == 16
    chosen = extra.with_format("torch", columns=["image", "label"])
    assert sorted(MixedDataset(chosen, bank)[15]) == ["image", "label"]
    renamed = hugging_face().rename_columns({"image": "scan", "label": "finding"})
    assert sorted(MixedDataset(renamed, bank)[15]) == ["finding", "scan"]
    assert sorted(MixedDataset(renamed, bank, image_key="scan", label_key="finding")[15]) == ["finding", "scan"]


def test_hugging_face_classes_are_matched_by_name() -> None:
    source = make_bank(names=("cat", "bee", "ant"))
    mixed = MixedDataset(hugging_face().with_format("torch"), source)
    assert any(torch.equal(mixed[14]["image"], image) for image in bank_images(source, 0))
    with pytest.raises(DataError, match="classes of real"):
        MixedDataset(hugging_face(), make_bank(names=("cat", "bee", "dog")))


def test_hugging_face_floats_ask_for_a_transform(bank: SampleBank) -> None:
    datasets = pytest.importorskip("datasets")
    features = {"image": datasets.Array3D((3, 6, 6), "float32"), "label": datasets.ClassLabel(names=list(NAMES))}
    rows = {"image": pixels().float().numpy(), "label": LABELS}
    real = datasets.Dataset.from_dict(rows, features=datasets.Features(features)).with_format("torch")
    with pytest.raises(DataError, match="pass transform="):
        MixedDataset(real, bank)
    mixed = MixedDataset(real, bank, transform=lambda image: image.float())
    assert torch.equal(mixed[14]["image"], raw_rows(mixed)[0].float())
    assert mixed[0]["image"].dtype == mixed[14]["image"].dtype


def test_hugging_face_string_labels(bank: SampleBank) -> None:
    datasets = pytest.importorskip("datasets")
    real = datasets.Dataset.from_dict({"image": as_pil(pixels()), "label": ["cat"] * 14})
    real = real.cast_column("image", datasets.Image())
    with pytest.raises(DataError, match="class_encode_column"):
        MixedDataset(real, bank)


def test_a_transform_set_later_is_for_real_and_synthetic_images(bank, tmp_path):
    bank.export(tmp_path / "photos", format="imagefolder")
    real = ImageFolder(tmp_path / "photos")
    mixed = MixedDataset(real, bank, target=8)
    assert mixed.transform is None
    mixed.transform = v2.Compose([v2.PILToTensor(), v2.Resize((4, 4))])  # as timm's create_loader does
    assert real.transform is mixed.transform
    assert {tuple(image.shape) for image, _ in mixed} == {(3, 4, 4)}
    assert len(mixed) > len(real)


def test_a_transform_that_cannot_be_set(bank):
    mixed = MixedDataset(list(zip(pixels(), LABELS, strict=True)), bank)
    with pytest.raises(DataError, match="transform can be set where real has one of its own, got list"):
        mixed.transform = torch.neg
    data = TensorDataset(pixels(), torch.tensor(LABELS))
    data.transform = None
    mixed = MixedDataset(data, bank)
    with pytest.raises(DataError, match="transform must be called by real, which TensorDataset does not do"):
        mixed.transform = torch.neg
    assert data.transform is None


# --- what real data sets do besides


def normalize(image: Any) -> Tensor:
    return v2.functional.normalize(v2.functional.to_dtype(v2.functional.to_image(image), scale=True), [0.5], [0.5])


def scale(image: Any) -> Tensor:
    return v2.functional.to_dtype(v2.functional.to_image(image), scale=True)


class Passing(Dataset[Any]):
    """A wrapper whose transform is that of the data set inside."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    transform = property(lambda self: self.inner.transform, lambda self, value: setattr(self.inner, "transform", value))

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        return self.inner[index]


def test_a_transform_that_is_passed_on_stays_where_it_is(folder: Path, bank: SampleBank) -> None:
    real = ImageFolder(str(folder), transform=scale)
    for outer in (Passing(real), MixedDataset(real, bank, target=7)):
        mixed = MixedDataset(outer, bank, target=7)
        assert real.transform is scale
        assert [type(mixed[index][0]) for index in (0, -1)] == [tv_tensors.Image] * 2
        assert mixed[-1][0].dtype == torch.float32
    real.transform = normalize
    with pytest.raises(DataError, match="pass transform="):
        MixedDataset(Passing(real), bank)
    assert real.transform is normalize


class Backed(Dataset[Any]):
    """A data set whose transform is a property with an attribute of its own."""

    def __init__(self, transform: Any) -> None:
        self._transform = transform

    transform = property(lambda self: self._transform)

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> Any:
        return self._transform(v2.functional.to_pil_image(pixels()[index])), LABELS[index]


@dataclass(frozen=True)
class Frozen(Dataset[Any]):
    transform: Any

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> Any:
        return self.transform(v2.functional.to_pil_image(pixels()[index])), LABELS[index]


class Slotted:
    __slots__ = ("transform",)

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    __len__, __getitem__ = Frozen.__len__, Frozen.__getitem__


@pytest.mark.parametrize("kind", [Backed, Frozen, Slotted])
def test_transforms_are_found_wherever_they_are_held(kind: Any, folder: Path, bank: SampleBank) -> None:
    real = kind(normalize)
    mixed = MixedDataset(real, bank)
    assert mixed.transform is real.transform is normalize
    expected = MixedDataset(ImageFolder(str(folder), transform=normalize), bank)
    assert_same(mixed[-1][0], expected[-1][0])


def test_a_transform_of_ones_own_is_left_where_another_is_set(folder: Path, bank: SampleBank) -> None:
    real = ImageFolder(str(folder))
    mixed = MixedDataset(real, bank, transform=ImageOps.invert)
    assert (mixed.transform, real.transform) == (ImageOps.invert, None)
    mixed.transform = normalize
    assert mixed.transform is real.transform is normalize
    real.transform = scale
    assert mixed.transform is scale
    assert mixed[-1][0].min() >= 0


def test_a_transform_that_is_set_later_is_for_all_images(folder: Path, bank: SampleBank) -> None:
    real = ImageFolder(str(folder), transform=scale)
    mixed = MixedDataset(Subset(real, range(12)), bank, target=6)
    expected = MixedDataset(Subset(ImageFolder(str(folder), transform=normalize), range(12)), bank, target=6)
    assert mixed[-1][0].min() >= 0
    real.transform = normalize
    assert_same(mixed[-1][0], expected[-1][0])
    assert mixed[-1][0].min() < 0
    real.transform = None
    assert isinstance(mixed[-1][0], Image.Image)


def test_a_transform_of_a_table_that_is_set_later(bank: SampleBank) -> None:
    import datasets

    columns = {"image": as_pil(pixels()), "label": LABELS}
    real = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    mixed = MixedDataset(real, bank)
    assert set(mixed[-1]) == set(mixed[0]) == {"image", "label"}
    real.set_transform(lambda batch: {"x": [scale(image) for image in batch["image"]], "y": batch["label"]})
    assert set(mixed[-1]) == set(mixed[0]) == {"x", "y"}


def test_given_labels_are_believed(bank: SampleBank) -> None:
    """Where those that a data set lists are others than those that it returns."""
    real = Items(pixels(), lambda self, image, label: (image, label), targets=LABELS[::-1])
    with pytest.raises(DataError, match="real lists label 2 for item 0 and returns 0; pass labels="):
        MixedDataset(real, bank)
    assert MixedDataset(real, bank, labels=LABELS).synthetic_counts == SYNTHETIC


def test_items_that_a_subset_leaves_out_are_not_read(bank: SampleBank) -> None:
    def make(self: Items, image: Tensor, label: int) -> Any:
        if image[0, 0, 0] == 77:
            raise OSError("image file is truncated")
        return image, label

    images = pixels()
    images[:, 0, 0, 0] = 1
    for bad, listed in itertools.product((0, 3, 13), ({}, {"targets": LABELS})):
        broken = images.clone()
        broken[bad, 0, 0, 0] = 77
        real = Items(broken, make, **listed)
        rest = [index for index in range(14) if index != bad]
        mixed = MixedDataset(Subset(real, rest), bank, target=6)
        assert mixed.targets[:13] == [LABELS[index] for index in rest]
        nested = MixedDataset(ConcatDataset([Subset(Subset(real, rest), range(13))]), bank, target=6)
        assert nested.counts == mixed.counts


def test_class_names_in_an_array_count(bank: SampleBank) -> None:
    names = ["cat", "ant", "bee"]
    make = Items(pixels(), lambda self, image, label: (image, label), classes=np.array(names))
    mixed = MixedDataset(make, bank)
    assert list(mixed.classes) == names
    assert torch.equal(mixed[-1][0], MixedDataset(Items(pixels(), make.make, classes=names), bank)[-1][0])
    assert mixed[-1][1] == 2
    assert (bank_images(bank, 1) == mixed[-1][0]).flatten(1).all(1).any()  # "bee"


@pytest.mark.parametrize("classes", [np.arange(3), torch.arange(3), set(NAMES), range(3), lambda: NAMES])
def test_what_is_no_list_of_names_is_none(classes: Any, bank: SampleBank) -> None:
    make = Items(pixels(), lambda self, image, label: (image, label), classes=classes)
    assert list(MixedDataset(make, bank).classes) == list(NAMES)  # by index


@pytest.mark.parametrize(
    ("mode", "advice"), [("P", r"image.convert\('RGB'\)"), ("I;16", "scale it to 8 bits"), ("F", "scale it")]
)
def test_what_to_do_about_other_modes(mode: str, advice: str, bank: SampleBank) -> None:
    image = Image.new(mode, (6, 6))
    with pytest.raises(DataError, match=f"must have mode L, RGB or RGBA, got '{mode}'; .*{advice}"):
        MixedDataset([(image, label) for label in LABELS], bank)


class Wrapper(Dataset):
    """Gives a part a transform of its own, as is common for training and validation parts."""

    def __init__(self, subset: Any) -> None:
        self.subset = subset

    def __len__(self) -> int:
        return len(self.subset)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.subset[index]
        return image.convert("RGB"), label


def test_images_and_labels_are_made_where_the_real_ones_are() -> None:
    there = torch.device("meta")  # as a GPU
    kind = describe_image(torch.zeros(3, 6, 6, device=there), name="images")
    assert [image.device for image in kind.make(pixels(2))] == [there, there]
    label = describe_label(torch.tensor(1, device=there), name="labels")
    assert [made.device for made in label.make(np.array([0, 1]))] == [there, there]


class Ordered(Dataset):
    """Tells its classes by their numbers, as timm's data sets do in a reader."""

    def __init__(self, numbers: dict[str, int], *, reader: bool) -> None:
        holder = SimpleNamespace() if reader else self
        holder.class_to_idx = numbers
        if reader:
            self.reader = holder

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return pixels()[index], LABELS[index]


@pytest.mark.parametrize("reader", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_classes_told_by_their_numbers_are_matched_by_name(reader: bool, wrapped: bool, bank: SampleBank) -> None:
    numbers = {name: len(NAMES) - 1 - index for index, name in enumerate(NAMES)}
    real = Ordered(numbers, reader=reader)
    if wrapped:
        with pytest.raises(DataError, match="in another order"):
            MixedDataset(Inner(real), bank)
        return
    bank = make_bank(counts=8)
    mixed = MixedDataset(real, bank, target="max")
    assert mixed.classes == list(NAMES[::-1])
    place = next(index for index in range(len(LABELS), len(mixed)) if mixed.targets[index] == 2)
    assert any(torch.equal(mixed[place][0], image) for image in bank.images(range(*bank.rows(0))))


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of timm
def test_timms_own_data_set_is_matched_by_name(tmp_path: Path) -> None:
    for number, name in enumerate(("c1", "c2", "c10")):  # the order of timm; torchvision has c1, c10, c2
        (tmp_path / name).mkdir()
        for index in range(4 if number == 0 else 2):
            Image.new("RGB", (6, 6), (100 * number,) * 3).save(tmp_path / name / f"{index}.png")
    levels = torch.tensor([0.0, 200 / 255, 100 / 255]).reshape(-1, 1, 1, 1).expand(-1, 3, 6, 6)
    source = SimpleNamespace(
        spec=DataSpec(3, 6, 6, ("c1", "c10", "c2")), sample=lambda labels, *, generator=None: levels[labels]
    )
    mixed = MixedDataset(create_dataset("", root=str(tmp_path)), source, target="max")
    assert mixed.classes == ["c1", "c2", "c10"]
    assert [(np.array(mixed[index][0]).max(), mixed[index][1]) for index in (8, 10)] == [(100, 1), (200, 2)]


def test_names_behind_a_wrapper_are_not_matched_by_index(folder: Path, bank: SampleBank) -> None:
    inner = ImageFolder(str(folder))
    turned = make_bank(names=NAMES[::-1])
    wrapped = Wrapper(Subset(inner, range(len(inner))))
    MixedDataset(wrapped, bank)
    with pytest.raises(DataError, match="real must have an attribute classes .* Wrapper has .*, in another order"):
        MixedDataset(wrapped, turned)
    wrapped.classes = inner.classes
    assert MixedDataset(wrapped, turned).classes == inner.classes


def test_given_labels_are_those_of_the_items(folder: Path, bank: SampleBank) -> None:
    real = ImageFolder(str(folder))
    assert MixedDataset(real, bank, labels=real.targets).targets[: len(real)] == real.targets
    wrong = [1 - label if label < 2 else label for label in real.targets]
    with pytest.raises(DataError, match=r"labels= must be those of the items, got \d for item 0 with \d"):
        MixedDataset(real, bank, labels=wrong)
    real = ImageFolder(str(folder), target_transform=lambda label: 1 - label)
    with pytest.raises(DataError, match="labels= must be those of the items before its target_transform"):
        MixedDataset(real, bank, labels=[real[index][1] for index in range(len(real))])
