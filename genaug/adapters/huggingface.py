"""Hugging Face `datasets`: real data sets mixed with synthetic samples, banks as data sets, transforms of a column."""

from dataclasses import replace
from typing import Any

import datasets
import numpy as np
import torch

from genaug.adapters.huggingface_columns import apply_to_column
from genaug.adapters.huggingface_tables import Columns, describe_first, find_columns, write_samples
from genaug.bank import SampleBank
from genaug.bank.drawing import check_source
from genaug.errors import DataError, shorten
from genaug.mixing.choice import check_fit, choose_rows, choose_samples, match_classes
from genaug.mixing.kinds import PIL_CHANNELS
from genaug.mixing.targets import Target
from genaug.seeding import check_seed, derive_seed, make_generator, unchanged_random_state

__all__ = ["apply_to_column", "mix", "to_dataset"]

STRATEGIES = ("first_exhausted", "all_exhausted", "all_exhausted_without_replacement")
STREAM_SHARDS = 16  # parts of the synthetic samples whose order another epoch changes


def mix(
    dataset: Any,
    source: Any,
    *,
    target: Target | None = None,
    cap: float | None = None,
    seed: int = 0,
    image_column: str | None = None,
    label_column: str | None = None,
    synthetic_column: str | None = None,
    fraction: float | None = None,
    stopping_strategy: str | None = None,
) -> Any:
    """Return a Hugging Face data set with synthetic samples added, of the same type, columns and format.

    A `Dataset` gets samples of its scarce classes, after its own rows: as many, and the same, as `MixedDataset` has in
    its first epoch. An `IterableDataset` gets them at random places among its own examples, which keep their order.

    Synthetic samples have an image and a label, matched by the names of a `ClassLabel`; their other columns are None.
    Images take the mode of the real ones (gray ones become RGB) and are PNG files, which are written once to the cache
    of `datasets` (`HF_DATASETS_CACHE`), and found there again by the same call.

    The format stays, also a `with_transform`, which is called with synthetic rows too. With `synthetic_column` it is
    given that column as well, and must return it for it to be seen; `mixed.with_format(None)` shows it in any case.
    In an `IterableDataset`, mix first and `map` afterwards: what resizes images has to see the synthetic ones too.

    Args:
        dataset: a `datasets.Dataset` or `datasets.IterableDataset` with an `Image` column and a column of class
            indices. The first image, which is read, tells what all are like.
        source: a bank; for a `Dataset` also a model, which is drawn from once, into memory.
        target: of a `Dataset`, total to fill classes up to, see `balance`; by default "median".
        cap: of a `Dataset`, at most this many synthetic samples for each real one of a class; by default 5.
        seed: decides which samples are taken, and their places in an `IterableDataset`.
        image_column: column of images; by default "image", "img", or the only `Image` one.
        label_column: column of class indices; by default "label", "labels", or the only `ClassLabel` one.
        synthetic_column: add a bool column of this name: is it synthetic? In a `Dataset` that was shuffled or selected
            from, this writes the real rows to the cache, as `add_column` does.
        fraction: of an `IterableDataset`, the share of synthetic examples, above 0 and below 1.
        stopping_strategy: of an `IterableDataset`: by default it ends when each real example was there once, and the
            samples of the bank repeat for as long. "first_exhausted", "all_exhausted" and
            "all_exhausted_without_replacement" are those of `datasets.interleave_datasets`, with the bank as it is: it
            is shuffled once, and "first_exhausted" cuts the real data short when it ends.

    Raises:
        DataError: not one data set; columns missing or of other types; classes or channels of `source` that differ;
            another size in a `Dataset` without a transform; no samples of a class that needs some; an option that is
            for the other kind of data set.
        GenaugError: a seed that is no integer.

    >>> import genaug
    >>> from genaug.data import load_data
    >>> from torchvision.transforms.v2.functional import to_pil_image
    >>> digits = load_data("digits")
    >>> names = datasets.ClassLabel(names=digits.classes)
    >>> rows = {"image": [to_pil_image(image) for image in digits.images[:100]], "label": digits.targets[:100]}
    >>> features = datasets.Features({"image": datasets.Image(), "label": names})
    >>> real = datasets.Dataset.from_dict(rows, features=features)
    >>> mixed = mix(real, genaug.load("digits-vae"), target=12, synthetic_column="synthetic")
    >>> len(mixed), sum(mixed["synthetic"]), mixed[-1]["label"], mixed[-1]["image"].mode
    (120, 20, 9, 'L')
    """
    check_source(source)
    seed = check_seed(seed)
    if isinstance(dataset, dict):
        part = "train" if "train" in dataset else next(iter(dataset), "train")
        raise DataError(
            f"dataset must be one data set, got a {type(dataset).__name__} of {shorten(list(dataset))}; "
            f"pass one of them, such as dataset[{part!r}]"
        )
    if not isinstance(dataset, (datasets.Dataset, datasets.IterableDataset)):
        raise DataError(
            f"dataset must be a datasets.Dataset or datasets.IterableDataset, got {type(dataset).__name__}; "
            "for data sets of torch there is genaug.MixedDataset"
        )
    if dataset.features is None:
        raise DataError(
            "dataset must tell its features, which are unknown after map; mix first and map afterwards, "
            "or pass features= to map"
        )
    columns = find_columns(dataset.features, image_column=image_column, label_column=label_column)
    if synthetic_column in columns.features:
        raise DataError(f"synthetic_column must be the name of a new column, got {synthetic_column!r}, which is there")
    if isinstance(dataset, datasets.Dataset):
        if (fraction, stopping_strategy) != (None, None):
            raise DataError(
                "fraction and stopping_strategy must be None for a Dataset, whose classes are filled up; "
                "pass target= and cap=, or mix dataset.to_iterable_dataset()"
            )
        target, cap = "median" if target is None else target, 5.0 if cap is None else cap
        return _mix_table(dataset, source, columns, synthetic_column, target=target, cap=cap, seed=seed)
    if not (target is None and cap is None):
        raise DataError(
            "target and cap must be None for an IterableDataset, whose classes are not counted; pass fraction="
        )
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
        raise DataError(
            "fraction must be a number above 0 and below 1 for an IterableDataset, the share of synthetic examples, "
            f"got {shorten(fraction)}"
        )
    if stopping_strategy not in (None, *STRATEGIES):
        raise DataError(f"stopping_strategy must be None or one of {', '.join(STRATEGIES)}, got {stopping_strategy!r}")
    if not isinstance(source, SampleBank):
        raise DataError(
            f"source must be a SampleBank for an IterableDataset, got {type(source).__name__}; "
            "make one with SampleBank.generate(source, counts, seed=0)"
        )
    return _mix_stream(
        dataset, source, columns, synthetic_column, fraction=fraction, strategy=stopping_strategy, seed=seed
    )


def to_dataset(bank: SampleBank) -> Any:
    """Return all samples of a bank as a Hugging Face `Dataset` with the columns "image" and "label".

    The images are PNG files, which are written once to the cache of `datasets` (`HF_DATASETS_CACHE`).

    Args:
        bank: the bank.

    Raises:
        DataError: no bank, or images of other than 1, 3 or 4 channels.

    >>> import genaug
    >>> bank = SampleBank.generate(genaug.load("digits-vae"), 2, seed=0, progress=False)
    >>> to_dataset(bank).features["label"].names[:3]
    ['0', '1', '2']
    """
    if not isinstance(bank, SampleBank):
        raise DataError(f"bank must be a SampleBank, got {type(bank).__name__}; make one with SampleBank.generate")
    modes = {channels: mode for mode, channels in PIL_CHANNELS.items()}
    channels = bank.spec.channels
    if channels not in modes:
        raise DataError(f"bank must have images of 1, 3 or 4 channels, which PNG files hold, got {bank.spec.size}")
    names = datasets.ClassLabel(names=list(bank.spec.class_names))
    features = datasets.Features({"image": datasets.Image(mode=modes[channels]), "label": names})
    columns = Columns(features, "image", "label", bank.spec.class_names)
    rows = torch.arange(len(bank))
    return write_samples(bank, rows, bank.labels.tolist(), columns=columns, channels=channels, marks={})


def _mix_table(
    dataset: Any, source: Any, columns: Columns, synthetic_column: str | None, *, target: Target, cap: float, seed: int
) -> Any:
    if not len(dataset):
        raise DataError("dataset must hold at least one row, got an empty one")
    view, mixed = dataset.format, dataset.with_format(None)
    kind = describe_first(mixed.select_columns([columns.image])[0][columns.image], columns)
    choice = choose_samples(
        source,
        kind,
        labels=_read_labels(dataset, columns.label),
        class_names=columns.class_names,
        target=target,
        cap=cap,
        seed=seed,
        transformed=view["type"] == "custom",
        stacklevel=5,
    )
    columns, marks = _add_mark(columns, synthetic_column)
    if marks:
        mixed = mixed.add_column(synthetic_column, np.zeros(len(dataset), bool), feature=datasets.Value("bool"))
    if choice.bank is not None and any(choice.synthetic_counts):
        rows = choose_rows(choice.bank, choice.wanted, seed=seed, keys=("mixing", 0))
        labels = np.repeat(np.arange(len(choice.classes)), choice.synthetic_counts).tolist()
        synthetic = write_samples(choice.bank, rows, labels, columns=columns, channels=kind.channels, marks=marks)
        mixed = datasets.concatenate_datasets([mixed, synthetic], split=dataset.split)
    # Concatenation has dropped the format.
    shown = [*view["columns"], *marks]
    return mixed.with_format(view["type"], shown, view["output_all_columns"], **view["format_kwargs"])


def _mix_stream(
    dataset: Any,
    bank: SampleBank,
    columns: Columns,
    synthetic_column: str | None,
    *,
    fraction: float,
    strategy: str | None,
    seed: int,
) -> Any:
    plain = dataset.with_format(None)
    with unchanged_random_state():
        first = next(iter(plain), None)
    if first is None:
        raise DataError("dataset must hold at least one example, got an empty one")
    kind = describe_first(first[columns.image], columns)
    check_fit(kind, bank.spec, transformed=True)  # what resizes comes after
    matching = match_classes(columns.class_names, bank.spec)
    columns, marks = _add_mark(columns, synthetic_column)
    rows = torch.randperm(len(bank), generator=make_generator(seed, "mixing", "stream"))
    labels = [matching.index(label) for label in bank.labels[rows].tolist()]
    table = write_samples(bank, rows, labels, columns=columns, channels=kind.channels, marks=marks)
    # Both go through `map`, since `interleave_datasets` takes the second to be decoded if the first is.
    real = plain.map(_fill, fn_kwargs={"values": dict.fromkeys(marks, False)}, features=columns.features)
    shards = min(len(bank), max(dataset.num_shards, STREAM_SHARDS))
    synthetic = table.to_iterable_dataset(num_shards=shards).map(features=columns.features)
    mixed = datasets.interleave_datasets(
        [real, synthetic.repeat(None) if strategy is None else synthetic],
        probabilities=[1 - fraction, fraction],
        seed=derive_seed(seed, "mixing", "places"),
        split=dataset.split,
        stopping_strategy=strategy or "first_exhausted",
    )
    shown = getattr(dataset._formatting, "format_type", None)  # there is no public name for it
    return mixed if shown is None else mixed.with_format(shown)


def _add_mark(columns: Columns, synthetic_column: str | None) -> tuple[Columns, dict[str, bool]]:
    """Return the columns with that which tells synthetic samples, and its value for these."""
    if synthetic_column is None:
        return columns, {}
    features = datasets.Features({**columns.features, synthetic_column: datasets.Value("bool")})
    return replace(columns, features=features), {synthetic_column: True}


def _fill(example: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    return values


def _read_labels(dataset: Any, column: str) -> list[int]:
    labels = dataset.with_format("arrow").select_columns([column])[:][column]
    if labels.null_count:
        raise DataError(
            f"the column {column!r} of dataset must hold a class index in each row, got {labels.null_count} rows "
            f"without; leave them out with dataset.filter"
        )
    return labels.to_numpy().tolist()  # type: ignore[no-any-return]
