"""Labeled images in memory, and data sets of other libraries read into them."""

import itertools
import warnings
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from genaug.data import LabeledImages, from_dataset, load_data
from genaug.errors import DataError
from genaug.spec import IMAGE_KEYS, LABEL_KEYS, DataSpec

SPEC = DataSpec(channels=1, height=8, width=8, class_names=tuple("0123456789"))


def digit_pixels(count: int) -> tuple[Tensor, Tensor]:
    arrays = load_digits()
    images = torch.from_numpy((arrays.images[:count] * 15).astype(np.uint8))[:, None]
    return images, torch.from_numpy(arrays.target[:count]).long()


@pytest.fixture
def digits() -> LabeledImages:
    return LabeledImages(*digit_pixels(60), SPEC)


def test_behaves_as_a_data_set(digits: LabeledImages) -> None:
    images, labels = digit_pixels(60)
    image, label = digits[7]
    assert len(digits) == 60
    assert torch.equal(image, images[7])
    assert type(label) is int
    assert label == int(labels[7])
    assert digits.targets == labels.tolist()
    assert digits.counts == np.bincount(labels.numpy(), minlength=10).tolist()
    assert digits.classes == list("0123456789")
    batch, batch_labels = next(iter(DataLoader(digits, batch_size=60, generator=torch.Generator())))
    assert torch.equal(batch, images)
    assert torch.equal(batch_labels, labels)
    assert len(list(iter(digits))) == 60  # the end shows as an IndexError


def test_counts_hold_classes_without_images(digits: LabeledImages) -> None:
    assert digits.subset([0]).counts == [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 1, 8, 8)}, "images must be uint8"),
        ({"images": torch.zeros(1, 8, 8, dtype=torch.uint8)}, r"shape \(N, C, H, W\)"),
        ({"images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, "must have 1 channels, got 3"),
        ({"images": torch.zeros(2, 1, 8, 9, dtype=torch.uint8)}, "must be of size 1x8x8, got 1x8x9"),
        ({"images": np.zeros((2, 1, 8, 8), dtype=np.uint8)}, "must be a tensor, got ndarray"),
        ({"labels": torch.tensor([0])}, r"as many as images \(2\), got 1"),
        ({"labels": torch.tensor([0, 10])}, "class indices from 0 to 9"),
        ({"labels": torch.tensor([0.0, 1.0])}, "labels must be an int64 tensor"),
        ({"labels": torch.tensor([0, 1], dtype=torch.int32)}, "labels must be an int64 tensor"),
        ({"spec": DataSpec(channels=1)}, "spec must have class names"),
    ],
)
def test_refuses_what_does_not_fit(change: dict[str, Any], message: str) -> None:
    images, labels = digit_pixels(2)
    with pytest.raises(DataError, match=message) as caught:
        LabeledImages(**{"images": images, "labels": labels, "spec": SPEC, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("indices", [[5, 0, 5], torch.tensor([5, 0, 5]), np.array([5, 0, 5]), (5, 0, 5)])
def test_subset_keeps_the_order_and_copies(digits: LabeledImages, indices: Any) -> None:
    before = digits.images.clone()
    part = digits.subset(indices)
    assert torch.equal(part.images, torch.stack([digits.images[5], digits.images[0], digits.images[5]]))
    assert part.targets == [digits.targets[5], digits.targets[0], digits.targets[5]]
    assert part.spec == digits.spec
    part.images.zero_()
    assert torch.equal(digits.images, before)


def test_subset_may_be_empty(digits: LabeledImages) -> None:
    assert len(digits.subset([])) == 0
    assert digits.subset([]).counts == [0] * 10


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (torch.ones(60, dtype=torch.bool), "mask"),
        ([0.5], "must be integers"),
        ([[0, 1]], "must be integers"),
        ([60], "from 0 to 59, got values from 60 to 60"),
        ([-1], "from 0 to 59, got values from -1 to -1"),
    ],
)
def test_subset_refuses_other_indices(digits: LabeledImages, indices: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        digits.subset(indices)


def test_fingerprint_is_that_of_the_content(digits: LabeledImages) -> None:
    strided = LabeledImages(digits.images.repeat(2, 1, 1, 1)[::2], digits.labels.repeat(2)[::2], SPEC)
    copied = LabeledImages(strided.images.clone(), strided.labels.clone(), SPEC)
    assert not strided.images.is_contiguous()
    assert strided.fingerprint() == copied.fingerprint()
    assert digits.fingerprint() == LabeledImages(*digit_pixels(60), SPEC).fingerprint()


def test_fingerprint_changes_with_any_change(digits: LabeledImages) -> None:
    images, labels = digit_pixels(60)
    pixel, label = images.clone(), labels.clone()
    pixel[59, 0, 7, 7] ^= 1
    label[59] = (label[59] + 1) % 10
    wide = DataSpec(channels=1, height=4, width=16, class_names=SPEC.class_names)
    renamed = DataSpec(channels=1, height=8, width=8, class_names=("zero", *SPEC.class_names[1:]))
    joined = DataSpec(channels=1, height=8, width=8, class_names=(*SPEC.class_names[:9], "9", "10"))
    changed = [
        LabeledImages(pixel, labels, SPEC),
        LabeledImages(images, label, SPEC),
        LabeledImages(images.flip(0), labels.flip(0), SPEC),
        LabeledImages(images.reshape(60, 1, 4, 16), labels, wide),
        LabeledImages(images, labels, renamed),
        LabeledImages(images, labels, joined),
        digits.subset(range(59)),
    ]
    prints = [digits.fingerprint(), *(data.fingerprint() for data in changed)]
    assert len(set(prints)) == len(prints)


class Rows:
    """A map-style data set over a list, with attributes as given."""

    def __init__(self, rows: list[Any], **attributes: Any) -> None:
        self.rows = rows
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


@pytest.mark.parametrize("kind", ["pil", "uint8", "float", "dict"])
def test_all_kinds_of_items_give_the_same_pixels(kind: str) -> None:
    images, labels = digit_pixels(20)
    convert = {
        "pil": lambda image: v2.functional.to_pil_image(image),
        "dict": lambda image: v2.functional.to_pil_image(image),
        "uint8": lambda image: image,
        "float": lambda image: image.float() / 255,
    }[kind]
    rows = [(convert(image), label) for image, label in zip(images, labels, strict=True)]
    items = [{"img": image, "label": int(label)} for image, label in rows] if kind == "dict" else rows
    data = from_dataset(items)
    assert torch.equal(data.images, images)
    assert torch.equal(data.labels, labels)
    assert data.spec == SPEC


@pytest.mark.parametrize(("image_key", "label_key"), list(itertools.product(IMAGE_KEYS, LABEL_KEYS)))
def test_usual_names_of_columns_are_found(image_key: str, label_key: str) -> None:
    images, labels = digit_pixels(4)
    items = [{image_key: image, label_key: int(label)} for image, label in zip(images, labels, strict=True)]
    assert torch.equal(from_dataset(items).images, images)


def test_labels_may_be_integers_of_any_library() -> None:
    image = digit_pixels(1)[0][0]
    rows = [(image, 1), (image, np.int64(2)), (image, torch.tensor(0)), (image, np.uint8(3))]
    assert from_dataset(rows).targets == [1, 2, 0, 3]
    assert from_dataset(rows).classes == ["0", "1", "2", "3"]


def test_labeled_images_and_tensor_data_sets_are_data_sets(digits: LabeledImages) -> None:
    assert from_dataset(digits).fingerprint() == digits.fingerprint()
    plain = from_dataset(TensorDataset(digits.images, digits.labels))
    assert plain.fingerprint() == digits.fingerprint()


def test_class_names_are_found_inside_wrappers(digits: LabeledImages) -> None:
    part = from_dataset(Subset(digits, [3, 1]))
    assert part.targets == [digits.targets[3], digits.targets[1]]
    assert part.classes == digits.classes
    joined = from_dataset(ConcatDataset([Subset(digits, [0]), digits]))
    assert len(joined) == 61
    assert joined.classes == digits.classes


def test_class_names_that_are_tuples_are_joined(digits: LabeledImages) -> None:
    rows = Rows([(digits.images[0], 1)], classes=[("tench", "Tinca tinca"), ("goldfish",)])
    assert from_dataset(rows).classes == ["tench, Tinca tinca", "goldfish"]


def test_joined_parts_must_agree_on_classes(digits: LabeledImages) -> None:
    other = Rows(list(digits), classes=["a", "b"])
    with pytest.raises(DataError, match="classes differ"):
        from_dataset(ConcatDataset([digits, other]))


def test_reads_as_torchvision_reads(tmp_path: Path, digits: LabeledImages) -> None:
    for number, (image, label) in enumerate(digits):
        folder = tmp_path / f"digit {label}"
        folder.mkdir(exist_ok=True)
        v2.functional.to_pil_image(image).save(folder / f"{number}.png")
    expected = load_data(tmp_path)
    # ImageFolder's loader makes every image RGB.
    folder = from_dataset(ImageFolder(str(tmp_path)))
    assert torch.equal(folder.images, expected.images.expand(-1, 3, -1, -1))
    assert folder.targets == expected.targets
    assert folder.classes == expected.classes
    to_tensor = v2.Compose([v2.Grayscale(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    assert from_dataset(ImageFolder(str(tmp_path), transform=to_tensor)).fingerprint() == expected.fingerprint()


def hugging_face(digits: LabeledImages, **columns: Any) -> datasets.Dataset:
    features = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=[f"Ziffer {n} é" for n in range(10)])}
    values = {"picture": [v2.functional.to_pil_image(image) for image, _ in digits], "kind": digits.targets}
    extra = {name: [value] * len(digits) for name, value in columns.items()}
    return datasets.Dataset.from_dict(
        {**extra, **values},
        features=datasets.Features({**{name: datasets.Value("int64") for name in columns}, **features}),
    )


def test_hugging_face_columns_are_found_by_their_type(digits: LabeledImages) -> None:
    table = hugging_face(digits, index=3)
    for dataset in (table, table.with_format("torch"), Subset(table, range(60))):
        data = from_dataset(dataset)
        assert torch.equal(data.images, digits.images)
        assert data.targets == digits.targets
        assert data.classes == [f"Ziffer {number} é" for number in range(10)]


def test_tuples_made_of_hugging_face_rows_have_labels_of_their_own(digits: LabeledImages) -> None:
    table = hugging_face(digits)
    pairs = Rows([(row["picture"], row["kind"] % 2) for row in table], dataset=table.remove_columns("kind"))
    assert from_dataset(pairs).classes == ["0", "1"]


def test_other_attributes_of_these_names_do_no_harm(digits: LabeledImages) -> None:
    parts = [Rows(list(digits), features=np.zeros((60, 4)), classes=np.array(list("0123456789"))) for _ in range(2)]
    assert from_dataset(ConcatDataset(parts)).classes == list("0123456789")


def test_hugging_face_data_without_labels_or_split(digits: LabeledImages) -> None:
    table = hugging_face(digits)
    with pytest.raises(DataError, match=r"one ClassLabel column, .*picture.*--label-column.*rename one to 'label'"):
        from_dataset(table.remove_columns("kind"))
    with pytest.raises(DataError, match=r"got a dict of \['train', 'test'\]"):
        from_dataset(datasets.DatasetDict(train=table, test=table))
    with pytest.raises(DataError, match="map-style"):
        from_dataset(table.to_iterable_dataset())


IMAGE = torch.zeros(1, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one image"),
        ([IMAGE], r"item 0 of the data set: must be a tuple \(image, label\)"),
        ([(IMAGE, 0), (IMAGE, 0, 0)], "item 1 of the data set: must be a tuple"),
        ([(IMAGE, 0.0)], "item 0 of the data set: the label must be a class index, got 0.0"),
        ([(IMAGE, None)], "the label must be a class index, got None"),
        ([(IMAGE, 0), (IMAGE, -1)], "item 1 of the data set: the label must be from 0 to 99999, got -1"),
        ([(IMAGE, 10**12)], "the label must be from 0 to 99999, got 1000000000000"),
        ([(None, 0)], "item 0 of the data set: the image must be a PIL image or a tensor, got NoneType"),
        ([(IMAGE.numpy(), 0)], "got ndarray"),
        ([(IMAGE, 0), (IMAGE.float() - 1, 0)], r"item 1 of the data set: the image .* within \[0, 1\]"),
        ([(IMAGE.float() * torch.nan, 0)], "must be finite"),
        ([(IMAGE.long(), 0)], "got torch.int64"),
        ([(IMAGE[None], 0)], r"must have shape \(C, H, W\), got \(1, 1, 8, 8\)"),
        ([(IMAGE, 0), (IMAGE[:, :4], 0)], "item 0 of the data set is 8x8 and item 1 of the data set is 4x8"),
        ([(IMAGE, 0), (IMAGE.expand(3, 8, 8), 0)], "number of channels"),
        ([(IMAGE.expand(3, 8, 8), 0), (IMAGE, 0)], "number of channels"),
        ([(Image.new("I", (8, 8)), 0)], "8 or 16 bits per channel, got mode I "),
        (Rows([(IMAGE, 2)], classes=["a", "b"]), "class indices from 0 to 1, got values from 2 to 2"),
        (Rows([(IMAGE, 0)], classes=["a", "a"]), "class_names must not repeat"),
    ],
)
def test_from_dataset_refuses_other_items(rows: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        from_dataset(rows)
    assert "\n" not in str(caught.value)


def test_from_dataset_refuses_iterable_data() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            yield IMAGE, 0

    with pytest.raises(DataError, match=r"map-style\), got Stream"):
        from_dataset(Stream())


def test_a_damaged_file_of_a_data_set_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"item 0 of the data set: cannot be read as an image \(.*broken\.png"):
        from_dataset(ImageFolder(str(tmp_path)))


def test_real_data_set_of_parquet_files(data_dir: Path, tmp_path: Path) -> None:
    path = str(data_dir / "solar" / "train.parquet")
    table = datasets.load_dataset("parquet", data_files=path, split="train[:300]", cache_dir=str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = from_dataset(table)
    assert data.spec.size == "1x40x24"
    assert data.classes == table.features["label"].names
    assert data.targets == list(table["label"])
    for index in (0, 150, 299):
        assert np.array_equal(data.images[index, 0].numpy(), np.asarray(table[index]["image"]))
