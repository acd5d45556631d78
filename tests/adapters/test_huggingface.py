"""Hugging Face data sets mixed with synthetic samples, and banks as data sets."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torchvision.transforms import v2

from genaug.adapters.huggingface import mix, to_dataset
from genaug.bank import SampleBank
from genaug.errors import DataError, GenaugError
from genaug.mixing import MixedDataset
from genaug.models import VAE, VAEConfig
from genaug.spec import DataSpec

NAMES = ("ant", "bee", "cat")
LABELS = [0] * 8 + [1] * 4 + [2] * 2  # the median of 8, 4, 2 is 4: class 2 gets 2 synthetic samples
LEVELS = np.round(load_digits().images * 255 / 16).astype(np.uint8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def make_vae(channels: int = 3, names: tuple[str, ...] = NAMES, side: int = 8) -> VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VAE(DataSpec(channels, side, side, names), VAEConfig(width=8, hidden=16, latent_dim=4))
    images = torch.rand(30, channels, side, side, generator=torch.Generator().manual_seed(0))
    model.fit_after_training(images, torch.arange(30) % len(names))
    return model.eval()


def make_bank(channels: int = 3, names: tuple[str, ...] = NAMES, side: int = 8, **options: Any) -> SampleBank:
    options = {"counts": 8, "seed": 0, "progress": False, **options}
    return SampleBank.generate(make_vae(channels, names, side), options.pop("counts"), **options)


@pytest.fixture(scope="module")
def bank() -> SampleBank:
    return make_bank()


@pytest.fixture(scope="module")
def gray_bank() -> SampleBank:
    return make_bank(channels=1)


def pictures(mode: str = "RGB", count: int = 14) -> list[Image.Image]:
    gray = [Image.fromarray(LEVELS[index]) for index in range(count)]
    if mode == "L":
        return gray
    others = [(Image.fromarray(LEVELS[index + 20]), Image.fromarray(LEVELS[index + 40])) for index in range(count)]
    rgb = [Image.merge("RGB", (one, *more)) for one, more in zip(gray, others, strict=True)]
    return [image.convert(mode) for image in rgb]


def table(images: Any = None, *, image: Any = None, label: Any = None, **columns: Any) -> datasets.Dataset:
    """Rows of images and labels; `columns` are further ones, as (feature, values)."""
    features = {
        "image": image or datasets.Image(),
        "label": label or datasets.ClassLabel(names=list(NAMES)),
        **{name: feature for name, (feature, _) in columns.items()},
    }
    rows = {
        "image": pictures() if images is None else images,
        "label": LABELS,
        **{name: values for name, (_, values) in columns.items()},
    }
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def array(image: Any) -> np.ndarray:
    return np.asarray(image)


def bank_arrays(bank: SampleBank, name: str) -> list[bytes]:
    rows = range(*bank.rows(bank.spec.class_names.index(name)))
    return [image.permute(1, 2, 0).numpy().squeeze().tobytes() for image in bank.images(rows)]


class TestMix:
    @pytest.mark.parametrize("kind", ["bank", "model"])
    def test_rows_are_those_of_the_mixed_dataset(self, kind: str, bank: SampleBank) -> None:
        real, source = table(), bank if kind == "bank" else make_vae()
        mixed = mix(real, source, target="max", cap=2, seed=3)
        expected = MixedDataset(real, source, target="max", cap=2, seed=3)
        assert type(mixed) is datasets.Dataset
        assert mixed.features == real.features
        assert mixed["label"] == expected.targets == [*LABELS, *[1] * 4, *[2] * 4]
        for index in range(len(expected)):
            assert mixed[index]["image"].mode == "RGB"
            assert np.array_equal(array(mixed[index]["image"]), array(expected[index]["image"]))

    def test_real_rows_stay_byte_for_byte(self, bank: SampleBank) -> None:
        real = table().cast_column("image", datasets.Image(decode=False))
        assert list(mix(real, bank).select(range(14))) == list(real)

    def test_defaults_are_those_of_the_mixed_dataset(self, bank: SampleBank) -> None:
        assert mix(table(), bank)["label"] == MixedDataset(table(), bank).targets == [*LABELS, 2, 2]

    def test_classes_are_matched_by_name(self) -> None:
        source = make_bank(names=("cat", "bee", "ant"))
        mixed = mix(table(), source)
        assert mixed["label"][14:] == [2, 2]
        assert {array(row["image"]).tobytes() for row in mixed.select([14, 15])} <= set(bank_arrays(source, "cat"))

    def test_integer_labels_are_class_indices(self, bank: SampleBank) -> None:
        mixed = mix(table(label=datasets.Value("int8")), bank)
        assert mixed.features["label"] == datasets.Value("int8")
        assert mixed["label"][14:] == [2, 2]
        assert array(mixed[14]["image"]).tobytes() in bank_arrays(bank, "cat")

    def test_columns_may_be_named(self, bank: SampleBank) -> None:
        real = table().rename_columns({"image": "scan", "label": "finding"})
        for options in ({}, {"image_column": "scan", "label_column": "finding"}):
            mixed = mix(real, bank, **options)
            assert mixed.column_names == ["scan", "finding"]
            assert len(mixed) == 16

    @pytest.mark.parametrize(
        ("stored", "declared", "channels", "mode"),
        [
            ("RGB", None, 3, "RGB"),
            ("RGB", None, 1, "RGB"),
            ("RGB", "RGB", 1, "RGB"),
            ("L", None, 1, "L"),
            ("L", "L", 1, "L"),
            ("RGB", "L", 1, "L"),
            ("L", "RGB", 3, "RGB"),
            ("RGBA", None, 4, "RGBA"),
            ("L", "RGBA", 4, "RGBA"),
        ],
    )
    def test_images_have_the_mode_of_the_real_ones(
        self, stored: str, declared: str | None, channels: int, mode: str
    ) -> None:
        source = make_bank(channels)
        real = table(pictures(stored), image=datasets.Image(mode=declared))
        mixed = mix(real, source)
        assert mixed.features == real.features
        assert {row["image"].mode for row in mixed} == {mode}
        pixels = array(mixed[15]["image"])
        if channels == 1 and mode == "RGB":
            assert (pixels[..., 0] == pixels[..., 1]).all()
            assert (pixels[..., 0] == pixels[..., 2]).all()
            pixels = pixels[..., 0].copy()
        assert pixels.tobytes() in bank_arrays(source, "cat")

    def test_images_that_are_not_decoded(self, gray_bank: SampleBank) -> None:
        real = table(pictures("L"), image=datasets.Image(mode="RGB", decode=False))
        mixed = mix(real, gray_bank)
        assert mixed.features == real.features
        assert set(mixed[15]["image"]) == {"bytes", "path"}
        assert mixed.cast_column("image", datasets.Image())[15]["image"].mode == "RGB"

    def test_images_that_are_paths(self, bank: SampleBank, tmp_path: Path) -> None:
        for index, image in enumerate(pictures()):
            image.save(tmp_path / f"{index}.png")
        real = table([str(tmp_path / f"{index}.png") for index in range(14)])
        mixed = mix(real, bank)
        assert np.array_equal(array(mixed[3]["image"]), array(pictures()[3]))
        assert array(mixed[15]["image"]).tobytes() in bank_arrays(bank, "cat")

    def test_other_columns_are_none(self, bank: SampleBank) -> None:
        real = table(
            path=(datasets.Value("string"), ["x"] * 14),
            boxes=(datasets.List(datasets.List(datasets.Value("float32"), length=4)), [[[0, 1, 2, 3]]] * 14),
            mask=(datasets.Image(mode="L"), pictures("L")),
            grid=(datasets.Array2D((2, 2), "int32"), [[[1, 2], [3, 4]]] * 14),
            meta=({"id": datasets.Value("int64"), "kind": datasets.Value("string")}, [{"id": 1, "kind": "k"}] * 14),
        )
        mixed = mix(real, bank, synthetic_column="made")
        assert mixed.column_names == [*real.column_names, "made"]
        assert {key: value for key, value in mixed.features.items() if key != "made"} == real.features
        stored = mixed.with_format("arrow")[:]
        nulls = {name: stored[name].null_count for name in mixed.column_names}
        assert nulls == {"image": 0, "label": 0, "path": 2, "boxes": 2, "mask": 2, "grid": 2, "meta": 2, "made": 0}
        assert (mixed[13]["grid"], mixed[13]["meta"]) == ([[1, 2], [3, 4]], {"id": 1, "kind": "k"})
        assert np.array_equal(array(mixed[13]["mask"]), LEVELS[13])

    def test_synthetic_column(self, bank: SampleBank) -> None:
        mixed = mix(table(), bank, synthetic_column="synthetic")
        assert mixed.features["synthetic"] == datasets.Value("bool")
        assert mixed["synthetic"] == [False] * 14 + [True] * 2
        with pytest.raises(DataError, match="synthetic_column must be the name of a new column, got 'label'"):
            mix(table(), bank, synthetic_column="label")

    @pytest.mark.parametrize("source", ["bank", "model"])
    def test_nothing_to_add(self, source: str, bank: SampleBank) -> None:
        mixed = mix(table(), bank if source == "bank" else make_vae(), target=0, synthetic_column="synthetic")
        assert mixed["synthetic"] == [False] * 14
        assert mixed["label"] == LABELS

    def test_shuffled_and_selected_rows(self, bank: SampleBank) -> None:
        real = table().shuffle(seed=1).select([0, 2, 3, 5, 7, 8, 9, 13])
        mixed = mix(real, bank, target="max", synthetic_column="synthetic")
        assert mixed["label"][:8] == real["label"]
        assert all(np.array_equal(array(mixed[i]["image"]), array(real[i]["image"])) for i in range(8))
        counts = Counter(real["label"])
        added = Counter(mixed["label"][8:])
        assert added == {label: 6 - count for label, count in counts.items() if count < 6}
        assert mixed["synthetic"] == [False] * 8 + [True] * added.total()

    def test_repeated_samples_are_told_to_the_caller(self) -> None:
        small = make_bank(counts=[1, 1, 1])
        with pytest.warns(UserWarning, match="fewer samples than wanted") as caught:
            mixed = mix(table(), small)
        assert caught[0].filename == __file__
        with pytest.warns(UserWarning, match="fewer samples than wanted") as caught:
            MixedDataset(table(), small)
        assert caught[0].filename == __file__
        assert np.array_equal(array(mixed[14]["image"]), array(mixed[15]["image"]))

    def test_name_of_the_split_stays(self, bank: SampleBank) -> None:
        real = datasets.Dataset.from_dict(table()[:], features=table().features, split="train")
        assert mix(real, bank).split == "train"
        assert mix(generated(), bank, fraction=0.5).split == generated().split == "train"


class TestFormats:
    @pytest.mark.parametrize("kind", ["torch", "numpy", None])
    @pytest.mark.parametrize("columns", [None, ["image"], ["label", "path"]])
    @pytest.mark.parametrize("everything", [False, True])
    def test_format_stays(self, kind: str | None, columns: Any, everything: bool, bank: SampleBank) -> None:
        plain = table(path=(datasets.Value("string"), ["x"] * 14))
        real = plain.with_format(kind, columns=columns, output_all_columns=everything)
        mixed = mix(real, bank)
        assert mixed.format == real.format
        assert [type(value) for value in mixed[2].values()] == [type(value) for value in real[2].values()]
        assert list(mixed[15]) == list(real[0])
        marked = mix(real, bank, synthetic_column="made")
        assert set(marked[0]) == {*real[0], "made"}
        assert [bool(marked[13]["made"]), bool(marked[14]["made"])] == [False, True]

    def test_a_column_added_later_is_seen(self, bank: SampleBank) -> None:
        for real in (table(), table().with_format("torch")):
            mixed = mix(real, bank).map(lambda row: {"row": 1}, load_from_cache_file=False)
            assert list(mixed[0]) == ["image", "label", "row"]

    @pytest.mark.parametrize("attach", ["set_transform", "with_transform"])
    def test_transform_stays_the_same_object(self, attach: str, bank: SampleBank) -> None:
        batches = []

        def transform(batch: dict[str, Any]) -> dict[str, Any]:
            batches.append(set(batch))
            return {"pixel_values": [v2.functional.pil_to_tensor(image) for image in batch["image"]], **batch}

        real = table()
        if attach == "set_transform":
            real.set_transform(transform)
        else:
            real = real.with_transform(transform)
        own = real.format["format_kwargs"]["transform"]
        mixed = mix(real, bank)
        assert batches == []  # it does not run while mixing
        assert mixed.format["format_kwargs"]["transform"] is own
        plain = mixed.with_format(None)
        assert torch.equal(mixed[15]["pixel_values"], v2.functional.pil_to_tensor(plain[15]["image"]))
        marked = mix(real, bank, synthetic_column="made")
        assert [marked[13]["made"], marked[15]["made"]] == [False, True]
        assert batches == [{"image", "label"}, *[{"image", "label", "made"}] * 2]

    def test_transform_that_returns_other_columns(self, bank: SampleBank) -> None:
        real = table().with_transform(lambda batch: {"size": [image.size for image in batch["image"]]})
        mixed = mix(real, bank, synthetic_column="made")
        assert mixed[15] == {"size": (8, 8)}
        assert mixed.with_format(None)["made"] == [False] * 14 + [True] * 2
        few = table().with_transform(lambda batch: dict(batch), columns=["image"])
        assert set(mix(few, bank, synthetic_column="made")[0]) == {"image", "made"}
        assert set(mix(few, bank)[0]) == {"image"}

    def test_sizes_may_differ_where_a_transform_follows(self, bank: SampleBank) -> None:
        small = table([image.resize((5, 6)) for image in pictures()])
        with pytest.raises(DataError, match=r"size of real \(3x6x5\), got 3x8x8"):
            mix(small, bank)
        resize = v2.Compose([v2.Resize((7, 7)), v2.PILToTensor()])
        real = small.with_transform(lambda batch: {**batch, "image": [resize(image) for image in batch["image"]]})
        mixed = mix(real, bank)
        assert [tuple(mixed[index]["image"].shape) for index in (0, 15)] == [(3, 7, 7)] * 2

    @pytest.mark.global_rng  # of DataLoader
    @pytest.mark.parametrize("workers", [0, 2])
    def test_loader(self, workers: int, bank: SampleBank) -> None:
        scale = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
        real = table().with_transform(
            lambda batch: {"pixel_values": [scale(image) for image in batch["image"]], "labels": batch["label"]}
        )
        loader = DataLoader(mix(real, bank), batch_size=4, num_workers=workers)
        batches = list(loader)
        assert torch.cat([batch["labels"] for batch in batches]).tolist() == [*LABELS, 2, 2]
        images = torch.cat([batch["pixel_values"] for batch in batches])
        assert images.shape == (16, 3, 8, 8)
        last = (images[15] * 255).round().byte().permute(1, 2, 0).numpy().tobytes()
        assert last in bank_arrays(bank, "cat")


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: datasets.DatasetDict(train=table(), test=table()), r"DatasetDict of \['train', 'test'\].*'train'"),
            (lambda: datasets.DatasetDict(left=table()), r"pass one of them, such as dataset\['left'\]"),
            (lambda: datasets.DatasetDict(), "got a DatasetDict"),
            (lambda: datasets.IterableDatasetDict(a=table().to_iterable_dataset()), r"IterableDatasetDict of \['a'\]"),
            (lambda: [(image, 0) for image in pictures()], "genaug.MixedDataset"),
            (lambda: table().select([]), "at least one row"),
            (lambda: table().remove_columns("label"), "ClassLabel column.*label_column="),
            (lambda: table().remove_columns("image"), "Image column.*image_column="),
            (lambda: table(pictures("L")), "images of 1 channels, as real has, got 3"),
            (lambda: table([image.convert("P") for image in pictures()]), "mode L, RGB or RGBA, got 'P'"),
            (lambda: table([None, *pictures()[1:]]), "must be a PIL image, tensor or array, got NoneType"),
            (
                lambda: table(LEVELS[:14], image=datasets.Array2D((8, 8), "uint8")),
                "type Image, got 'image' of type Array2D.*cast_column",
            ),
            (
                lambda: table().map(lambda row: {"label": NAMES[row["label"]]}, features=as_text()),
                "class indices, got 'label' of type .*class_encode_column",
            ),
            (
                lambda: table().map(lambda row: {"label": None}, features=table().features),
                "a class index in each row, got 14 rows without",
            ),
            (
                lambda: table(label=datasets.Value("int64")).map(lambda row: {"label": -1}),
                "labels of real must be from 0 to 2, got values from -1 to -1",
            ),
            (
                lambda: table().cast_column("label", datasets.ClassLabel(names=["ant", "bee", "dog"])),
                "classes of real",
            ),
        ],
    )
    def test_data_sets(self, make: Callable[[], Any], message: str, bank: SampleBank) -> None:
        real = make()
        with pytest.raises(DataError, match=message) as caught:
            mix(real, bank)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"fraction": 0.5}, "fraction and stopping_strategy must be None for a Dataset"),
            ({"stopping_strategy": "all_exhausted"}, "fraction and stopping_strategy must be None for a Dataset"),
            ({"image_column": "scan"}, "image_column must be one of the columns"),
            ({"label_column": "image"}, "class indices, got 'image'"),
            ({"image_column": "label"}, "type Image, got 'label'"),
            ({"target": "mode"}, "target must be one of"),
            ({"cap": -1}, "cap must be"),
            ({"seed": 0.5}, "seed must be an integer"),
        ],
    )
    def test_options(self, options: Any, message: str, bank: SampleBank) -> None:
        with pytest.raises(GenaugError, match=message):
            mix(table(), bank, **options)

    @pytest.mark.parametrize("source", [None, "digits-vae", table])
    def test_sources(self, source: Any) -> None:
        with pytest.raises(DataError, match="source must be a bank or a model"):
            mix(table(), source)

    def test_class_without_samples(self) -> None:
        with pytest.raises(DataError, match=r"has none of \['cat'\]"):
            mix(table(), make_bank(counts=[5, 5, 0]))


def as_text() -> datasets.Features:
    return datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})


class TestFilesAndFingerprints:
    def test_same_call_finds_the_same_files(self, bank: SampleBank, own_cache: Path, tmp_path: Path) -> None:
        real = table()
        stored = make_bank(path=tmp_path / "bank")
        for source in (bank, stored, make_vae()):
            one = mix(real, source, target="max")
            files = {file: file.stat().st_mtime_ns for file in own_cache.rglob("*.arrow")}
            two = mix(real, SampleBank.open(stored.path) if source is stored else source, target="max")
            assert one._fingerprint == two._fingerprint
            assert files == {file: file.stat().st_mtime_ns for file in own_cache.rglob("*.arrow")}
            assert all(Path(file["filename"]) in files for file in one.cache_files)
            assert len({one._fingerprint, mix(real, source, target="max", seed=1)._fingerprint}) == 2

    def test_other_samples_have_another_fingerprint(self, tmp_path: Path) -> None:
        real = table()
        sources = [
            make_bank(),
            make_bank(seed=1),
            make_bank(path=tmp_path / "a"),
            make_bank(seed=1, path=tmp_path / "b"),
        ]
        mixed = [mix(real, source) for source in sources]
        assert len({one._fingerprint for one in mixed}) == 4
        for one, two in ((0, 2), (1, 3)):
            assert np.array_equal(array(mixed[one][15]["image"]), array(mixed[two][15]["image"]))
        assert not np.array_equal(array(mixed[0][15]["image"]), array(mixed[1][15]["image"]))
        for declared in (datasets.Image(mode="RGB"), datasets.Image(decode=False)):
            other = table(image=declared)
            assert mix(other, sources[0]).features == other.features
        marked = mix(real, sources[0], synthetic_column="made")
        renamed = mix(real, sources[0], synthetic_column="other")
        assert len({one._fingerprint for one in (mixed[0], marked, renamed)}) == 3

    def test_other_columns_have_another_fingerprint(self, bank: SampleBank) -> None:
        kinds = {"other": datasets.Image(), "second": datasets.ClassLabel(names=list(NAMES))}
        real = table().map(lambda row: {"other": row["image"], "second": row["label"]})
        real = real.cast(datasets.Features({**table().features, **kinds}))
        for image, label in (("image", "label"), ("other", "label"), ("image", "second")):
            row = mix(real, bank, target="max", image_column=image, label_column=label)[-1]
            assert {name for name in row if row[name] is not None} == {image, label}

    def test_save_and_load(self, bank: SampleBank, tmp_path: Path) -> None:
        mixed = mix(table(), bank, synthetic_column="synthetic")
        mixed.save_to_disk(str(tmp_path / "saved"))
        assert_equal(datasets.load_from_disk(str(tmp_path / "saved")), mixed)
        mixed.to_parquet(str(tmp_path / "mixed.parquet"))
        files = {"train": str(tmp_path / "mixed.parquet")}
        assert_equal(datasets.load_dataset("parquet", data_files=files, split="train"), mixed)

    def test_stratified_split(self, bank: SampleBank) -> None:
        mixed = mix(table(), bank, target="max", synthetic_column="synthetic")
        parts = mixed.train_test_split(test_size=0.25, stratify_by_column="label", seed=0)
        assert Counter(parts["test"]["label"]) == {0: 2, 1: 2, 2: 2}
        assert Counter(parts["train"]["label"]) == {0: 6, 1: 6, 2: 6}

    def test_class_encoded_names(self, bank: SampleBank) -> None:
        text = table().map(lambda row: {"label": NAMES[row["label"]]}, features=as_text())
        real = text.class_encode_column("label")
        assert mix(real, bank)["label"][14:] == [2, 2]

    def test_mixing_a_part_before_and_after(self, bank: SampleBank) -> None:
        once = mix(table(), bank, target=4, synthetic_column="first")
        twice = mix(once, bank, target=6, synthetic_column="second")
        assert Counter(twice["label"]) == {0: 8, 1: 6, 2: 6}
        assert twice["first"][-1] is None
        assert sum(twice["second"]) == 4


def assert_equal(one: Any, other: Any) -> None:
    assert one.features == other.features
    assert len(one) == len(other)
    for row, expected in zip(one, other, strict=True):
        assert np.array_equal(array(row.pop("image")), array(expected.pop("image")))
        assert row == expected


def stream(shards: int = 1) -> datasets.IterableDataset:
    """Examples whose image is that of digit i, and whose number is i as a text."""
    numbers = [str(index) for index in range(14)]
    return table(number=(datasets.Value("string"), numbers)).to_iterable_dataset(num_shards=shards)


def generate(shards: list[range]) -> Iterator[dict[str, Any]]:
    images = pictures()
    for shard in shards:
        for index in shard:
            yield {"image": images[index], "label": NAMES[LABELS[index]], "number": str(index)}


def generated() -> datasets.IterableDataset:
    kwargs = {"shards": [range(7), range(7, 14)]}
    return datasets.IterableDataset.from_generator(generate, features=stream().features, gen_kwargs=kwargs)


STREAMS: dict[str, Callable[[], datasets.IterableDataset]] = {
    "arrow": stream,
    "arrow with shards": lambda: stream(shards=3),
    "generator": generated,
    "mapped with features": lambda: stream().map(lambda row: {"label": row["label"]}, features=stream().features),
    "generator mapped": lambda: generated().map(lambda row: row, features=stream().features),
    "filtered": lambda: stream().filter(lambda row: True),
    "shuffled": lambda: stream().shuffle(seed=0, buffer_size=3),
    "cast": lambda: generated().cast_column("image", datasets.Image(mode="RGB")),
}


class TestStreams:
    @pytest.mark.parametrize("kind", STREAMS)
    @pytest.mark.parametrize("column", [None, "synthetic"])
    def test_all_real_examples_come_once_in_order(self, kind: str, column: str | None, bank: SampleBank) -> None:
        real = STREAMS[kind]()
        mixed = mix(real, bank, fraction=0.5, synthetic_column=column)
        assert isinstance(mixed, datasets.IterableDataset)
        assert {key: mixed.features[key] for key in real.features} == real.features
        assert set(mixed.features) == {*real.features, *([column] if column else [])}
        rows, expected = list(mixed), list(real)
        found = [row for row in rows if row["number"] is not None]
        made = [row for row in rows if row["number"] is None]
        assert [row["number"] for row in found] == [row["number"] for row in expected]
        assert [row["label"] for row in found] == [row["label"] for row in expected]
        for row, other in zip(found, expected, strict=True):
            assert np.array_equal(array(row["image"]), array(other["image"]))
        assert 4 < len(made) < 35
        for row in made:
            assert array(row["image"]).tobytes() in bank_arrays(bank, NAMES[row["label"]])
        if column:
            assert [row[column] for row in rows] == [row["number"] is None for row in rows]

    def test_share_of_synthetic_examples(self, bank: SampleBank) -> None:
        for fraction in (0.1, 0.7):
            made = [row["number"] is None for row in mix(stream().repeat(100), bank, fraction=fraction)]
            assert made.count(False) == 1400
            share = sum(made) / len(made)
            assert abs(share - fraction) < 4 * (fraction * (1 - fraction) / len(made)) ** 0.5

    def test_samples_repeat_in_another_order_than_in_the_bank(self, bank: SampleBank) -> None:
        rows = [row for row in mix(stream().repeat(5), bank, fraction=0.5) if row["number"] is None]
        assert len(rows) > 40
        drawn = [array(row["image"]).tobytes() for row in rows]
        assert drawn[24:40] == drawn[:16]
        assert len(set(drawn)) == 24
        assert [row["label"] for row in rows[:24]] != sorted(row["label"] for row in rows[:24])

    def test_seed_decides(self, bank: SampleBank) -> None:
        def order(**options: Any) -> list[Any]:
            rows = mix(stream(), bank, fraction=0.5, **options)
            return [row["number"] or array(row["image"]).tobytes() for row in rows]

        assert order() == order(seed=0)
        assert order(seed=1) != order()

    def test_epochs_bring_other_samples_first(self, bank: SampleBank) -> None:
        mixed = mix(stream(), bank, fraction=0.5)
        first = [array(row["image"]).tobytes() for row in mixed if row["number"] is None]
        mixed.set_epoch(1)
        second = [array(row["image"]).tobytes() for row in mixed if row["number"] is None]
        assert first[:5] != second[:5]

    @pytest.mark.parametrize("column", [None, "synthetic"])
    def test_stopping_strategies(self, column: str | None, bank: SampleBank) -> None:
        options = {"fraction": 0.5, "synthetic_column": column}

        def numbers(count: int, strategy: str | None) -> list[Any]:
            mixed = mix(stream().repeat(count), bank, stopping_strategy=strategy, **options)
            return [row["number"] for row in mixed]

        cut = numbers(10, "first_exhausted")
        assert cut.count(None) == 24
        assert 0 < len(cut) - 24 < 140
        whole = numbers(10, "all_exhausted_without_replacement")
        assert (whole.count(None), len(whole)) == (24, 164)
        repeated = numbers(1, "all_exhausted")
        assert repeated.count(None) >= 24
        assert set(repeated) == {None, *map(str, range(14))}
        assert len(numbers(10, None)) - numbers(10, None).count(None) == 140

    @pytest.mark.parametrize("kind", ["torch", "numpy"])
    def test_format_stays(self, kind: str, bank: SampleBank) -> None:
        real = stream().select_columns(["image", "label"]).with_format(kind)
        rows = list(mix(real, bank, fraction=0.5))
        expected = next(iter(real))
        for row in rows:
            for key, value in expected.items():
                # NumPy's labels are scalars, but arrays after `map`
                assert type(row[key]) is (np.ndarray if kind == "numpy" else type(value))
                assert (row[key].shape, row[key].dtype) == (value.shape, value.dtype)

    def test_images_that_are_not_decoded(self, bank: SampleBank) -> None:
        real = stream().cast_column("image", datasets.Image(decode=False))
        rows = list(mix(real, bank, fraction=0.5))
        assert all(set(row["image"]) == {"bytes", "path"} for row in rows)

    def test_gray_samples_become_rgb(self, gray_bank: SampleBank) -> None:
        assert {row["image"].mode for row in mix(stream(), gray_bank, fraction=0.5)} == {"RGB"}

    def test_classes_are_matched_by_name(self) -> None:
        source = make_bank(names=("cat", "bee", "ant"))
        for row in mix(stream(), source, fraction=0.5):
            if row["number"] is None:
                assert array(row["image"]).tobytes() in bank_arrays(source, NAMES[row["label"]])

    def test_mapping_afterwards_sees_both(self) -> None:
        source = make_bank(side=6)  # sizes may differ, since what resizes comes later
        mixed = mix(stream().remove_columns("number"), source, fraction=0.5, synthetic_column="synthetic")
        shown = mixed.map(lambda row: {**row, "image": v2.functional.pil_to_tensor(row["image"].resize((4, 4)))})
        batch = default_collate(list(shown))
        assert batch["image"].shape[1:] == (3, 4, 4)
        assert batch["synthetic"].any()

    @pytest.mark.global_rng  # of DataLoader
    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("kind", ["arrow with shards", "generator"])
    def test_loader(self, workers: int, kind: str, bank: SampleBank) -> None:
        mixed = mix(STREAMS[kind](), bank, fraction=0.5, synthetic_column="synthetic").with_format("torch")
        rows = list(DataLoader(mixed, batch_size=None, num_workers=workers))
        numbers = [row["number"] for row in rows if not row["synthetic"]]
        assert sorted(numbers, key=int) == [str(index) for index in range(14)]
        made = [row["image"].numpy().tobytes() for row in rows if row["synthetic"]]
        assert len(made) > 4
        assert len(set(made)) == min(len(made), 24) or workers  # workers share the bank, and do not all start alike
        if workers:
            assert max(Counter(made).values()) < 4

    @pytest.mark.skipif(datasets.__version__.startswith("4."), reason="datasets 4 loses its place in streams after map")
    def test_resuming(self, bank: SampleBank) -> None:
        def key(row: Any) -> Any:
            return row["number"] or array(row["image"]).tobytes()

        mixed = mix(generated(), bank, fraction=0.5)
        whole = [key(row) for row in mixed]
        iterator = iter(mixed)
        head = [key(next(iterator)) for _ in range(9)]
        state = mixed.state_dict()
        again = mix(generated(), bank, fraction=0.5)
        again.load_state_dict(state)
        assert head + [key(row) for row in again] == whole

    @pytest.mark.parametrize(
        ("real", "options", "message"),
        [
            (stream, {}, "fraction must be a number above 0 and below 1 .*got None"),
            (stream, {"fraction": 0}, "fraction must be"),
            (stream, {"fraction": 1.0}, "fraction must be"),
            (stream, {"fraction": True}, "fraction must be"),
            (stream, {"fraction": "0.5"}, "fraction must be"),
            (stream, {"fraction": 0.5, "target": "max"}, "target and cap must be None for an IterableDataset"),
            (stream, {"fraction": 0.5, "cap": 2.0}, "target and cap must be None for an IterableDataset"),
            (stream, {"fraction": 0.5, "stopping_strategy": "last"}, "stopping_strategy must be None or one of first_"),
            (stream, {"fraction": 0.5, "source": make_vae}, "must be a SampleBank .*SampleBank.generate"),
            (lambda: stream().map(lambda row: row), {"fraction": 0.5}, "unknown after map; mix first"),
            (lambda: stream().filter(lambda row: False), {"fraction": 0.5}, "at least one example"),
            (stream, {"fraction": 0.5, "synthetic_column": "number"}, "name of a new column, got 'number'"),
            (
                lambda: stream().cast_column("image", datasets.Image(mode="L")),
                {"fraction": 0.5},
                "images of 1 channels",
            ),
        ],
    )
    def test_refusals(self, real: Any, options: Any, message: str, bank: SampleBank) -> None:
        options = dict(options)
        source = options.pop("source", lambda: bank)()
        with pytest.raises(DataError, match=message) as caught:
            mix(real(), source, **options)
        assert "\n" not in str(caught.value)


class TestToDataset:
    @pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
    def test_all_samples(self, channels: int, mode: str) -> None:
        source = make_bank(channels, counts=[2, 0, 3])
        made = to_dataset(source)
        names = datasets.ClassLabel(names=list(NAMES))
        assert made.features == datasets.Features({"image": datasets.Image(mode=mode), "label": names})
        assert made["label"] == [0, 0, 2, 2, 2]
        pixels: list[Tensor] = [v2.functional.pil_to_tensor(row["image"]) for row in made]
        assert torch.equal(torch.stack(pixels), source.images(range(5)))

    def test_same_bank_has_the_same_fingerprint(self, tmp_path: Path) -> None:
        stored = make_bank(path=tmp_path / "bank")
        assert to_dataset(stored)._fingerprint == to_dataset(SampleBank.open(stored.path))._fingerprint
        assert to_dataset(make_bank())._fingerprint == to_dataset(make_bank())._fingerprint
        assert to_dataset(make_bank())._fingerprint != to_dataset(make_bank(seed=1))._fingerprint

    def test_more_samples_than_a_chunk(self, gray_bank: SampleBank) -> None:
        source = make_bank(1, counts=[100, 100, 73])
        made = to_dataset(source).with_format("torch")
        assert torch.equal(made[:]["image"], source.images(range(273)))

    def test_what_is_no_bank(self) -> None:
        with pytest.raises(DataError, match="bank must be a SampleBank, got VAE"):
            to_dataset(make_vae())
        with pytest.raises(DataError, match="1, 3 or 4 channels, which PNG files hold, got 2x8x8"):
            to_dataset(make_bank(channels=2))
