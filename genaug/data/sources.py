"""Where labeled images come from: one function for built-in data, files, hub names and data sets of other libraries."""

import os
from dataclasses import replace
from typing import Any

from torch import Tensor

from genaug.data.allocation import MEMORY_LIMIT
from genaug.data.finding import find_source
from genaug.data.labeled import LabeledImages
from genaug.data.labels import NO_CLASSES, Classes, Columns, without_classes
from genaug.data.mapstyle import from_dataset, list_dataset
from genaug.data.pairs import pair_images
from genaug.data.reading import Listing, ReadOptions, WholeImages, read_listing
from genaug.errors import DataError, check_count, naming


def load_data(
    data: Any,
    *,
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    root: "str | os.PathLike[str] | None" = None,
    download: bool = False,
    resize: tuple[int, int] | None = None,
    patches: tuple[int, int] | None = None,
    pairs: Any = None,
    grayscale: bool = False,
    limit_per_class: int | None = None,
    longtail: float | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    memory_limit: float = MEMORY_LIMIT,
) -> LabeledImages:
    """Return labeled images from a file, a folder, a known name, a hub name, or a data set of another library.

    `data` is one of these:

    - "digits": scikit-learn's 1,797 handwritten digits, 1x8x8, with the parts "train" (two thirds) and "test";
    - a folder with a folder of images for each class, or with parts (train, val, test) that are such folders;
    - a `.csv` or `.tsv` file with a header, and a path (relative to the file's folder) and a class in each row;
    - a `.parquet` file, a folder of them, a pattern such as "data/*.parquet", or a folder that `datasets` saved; file
      names such as train-00000.parquet tell the parts;
    - "owner/name": a data set of the Hugging Face hub, or from its cache when offline;
    - the name of a data set of torchvision, such as "FashionMNIST", in the folder `root`;
    - a map-style data set, as `from_dataset` takes it, or a dict of Hugging Face data sets by part;
    - `LabeledImages`, whose `split` does not count.

    A column "split" of a CSV file or table tells the part of each row, where it holds names of parts.

    Of data with parts all parts together give the classes, so that indices mean the same in each. Text labels become
    sorted class names; whole numbers (3 or 3.0) without names are class indices "0", "1", ... Images are gray as long
    as all of them are, else RGB; transparent pixels are laid on white, EXIF orientation is applied, 16-bit gray is
    divided by 257, and of an animation the first frame is taken.

    With `patches` images may be of any size and need no classes. Each patch has the class of its image. Those of the
    class "image" are all images of a table, list or data set without a column of classes or labels, of a folder (or
    part) in which image files lie, which are taken together with those in folders below it, and of all data with
    `label_column="none"`. Folders train, val and test without folders in them are then parts too, where there are no
    others beside them or `split` names one. An image smaller than a patch is left out; a warning counts such images.

    With `pairs` each image is read together with its partner, whose channels follow its own: 2 where all images are
    gray, 6 where one is not. The partner has the same path below its folder, but for the ending, or the same place in a
    list, table or data set. Both are of one size, and cut and resized alike. Classes are those of `data`; they are not
    needed, as with `patches`.

    Args:
        data: see above.
        split: the part to load, by default "train" where there are parts; "all" is everything. Data without parts are
            taken whole, and another part is refused for them.
        image_column: column of images (parquet, hub, CSV), by default "image", "img" or the only one of images.
        label_column: column of classes, by default "label", "labels" or the only one of classes; with `patches` or
            `pairs` "none", also for folders and other data, takes no notice of classes.
        root: folder of a torchvision data set.
        download: let torchvision download into `root` what is not there.
        resize: (height, width) to resize to, bilinear and antialiased.
        patches: (height, width) of patches to cut each image into, in place of `resize`: the least number that covers
            it along each side, evenly spread, so that they overlap a little where it is no multiple of theirs
            (`place_patches`). Sizes are read first: of files from their headers; data sets given as objects are read
            twice, and may not change the size of an image in between.
        pairs: the second images of the same scenes, a source of the same kind as `data`: what a denoiser that is
            trained on pairs restores those of `data` into.
        grayscale: make every image gray.
        limit_per_class: take this many images of each class at most, the first of a shuffle by `seed`, before they are
            cut into patches.
        longtail: take a long-tailed subset whose first class is this many times as large as its last one
            (`longtail_indices`, after `limit_per_class`).
        seed: of both choices, which are made before any image is read.
        skip_bad: leave out images that cannot be read, warn of them, and list them in `LabeledImages.skipped`.
        memory_limit: GiB of pixels (one byte for each channel) that may be in memory. More of them are kept in a file
            in the folder for temporary files (`TMPDIR`, to be on a disk; a warning says so), which is gone with the
            process: the results are the same to the bit. `LabeledImages` that are given, and the digits, stay where
            they are.

    Raises:
        DataError: an unknown name; a path, part, column or root that is missing (the message says what there is);
            labels that are missing, negative, not whole, or of mixed kinds; without `skip_bad` a damaged image, named;
            images of several sizes without `resize` or `patches`, or all of them smaller than a patch; both of these
            options; images without a partner, or with one of another size; no room for the images on the disk.

    >>> import torch
    >>> data = load_data("digits", split="test", limit_per_class=5)
    >>> data.spec.size, len(data), data.classes[:3]
    ('1x8x8', 50, ['0', '1', '2'])
    >>> photographs = [torch.zeros(3, 48, 100), torch.zeros(3, 64, 64)]
    >>> data = load_data(photographs, patches=(32, 32))
    >>> data.spec.size, len(data), data.classes
    ('3x32x32', 12, ['image'])
    """
    options = ReadOptions(resize, grayscale, limit_per_class, longtail, seed, skip_bad, memory_limit, patches)
    columns = _find_columns(image_column, label_column, optional=patches is not None or pairs is not None)
    source = find_source(data, split, columns, root=root, download=download)
    if pairs is not None:
        first = _list_source(source, columns, skip_bad=skip_bad)
        unlabeled = Columns(image_column, classes="none")
        with naming("pairs"):
            others = find_source(pairs, split, unlabeled, root=root, download=download)
            second = _list_source(others, unlabeled, skip_bad=skip_bad)
        return replace(read_listing(pair_images(first, second), options), paired=True)
    if isinstance(source, Listing):
        return read_listing(source, options)
    if isinstance(source, LabeledImages):
        return _load_images(source, options, columns.classes)
    return _load_items(source, options, columns)


def load_images(
    data: Any,
    *,
    split: str | None = None,
    image_column: str | None = None,
    root: "str | os.PathLike[str] | None" = None,
    download: bool = False,
    grayscale: bool = False,
    skip_bad: bool = False,
    limit: int | None = None,
) -> WholeImages:
    """Return images of any size, uint8 (C, H, W), with their names, to go through one by one.

    Only one at a time is in memory. Classes are taken no notice of. The other arguments are those of `load_data`, and
    pixels come out as there, but that each image is gray or RGB by itself.

    Args:
        limit: take this many at most, the first ones.

    Raises:
        DataError: as `load_data` says; a `limit` below 1.

    >>> import torch
    >>> photographs = load_images([torch.zeros(3, 48, 100), torch.zeros(1, 64, 64)])
    >>> len(photographs), [tuple(image.shape) for name, image in photographs]
    (2, [(3, 48, 100), (1, 64, 64)])
    """
    if limit is not None:
        check_count(limit, name="limit", advice="; pass such as 100", error=DataError)
    columns = Columns(image_column, classes="none")
    source = find_source(data, split, columns, root=root, download=download)
    source = _list_source(source, columns, skip_bad=skip_bad)
    return WholeImages(source, grayscale=grayscale, skip_bad=skip_bad, limit=limit)


def _list_source(source: Any, columns: Columns, *, skip_bad: bool) -> Listing:
    """Return a listing of what `find_source` found."""
    if isinstance(source, LabeledImages):
        return _list_images(source, columns.classes)
    return source if isinstance(source, Listing) else list_dataset(source, columns, skip_bad=skip_bad)


def _find_columns(image: str | None, label: str | None, *, optional: bool) -> Columns:
    if not optional:
        return Columns(image, label)
    if label == NO_CLASSES:
        return Columns(image, classes="none")
    return Columns(image, label, classes="optional")


def _load_images(images: LabeledImages, options: ReadOptions, classes: Classes) -> LabeledImages:
    """Return what `options` want of labeled images; the images given are not changed."""
    resized = options.resize not in (None, tuple(images.images.shape[-2:]))
    if resized or options.patches is not None or (options.grayscale and images.spec.channels != 1):
        return replace(read_listing(_list_images(images, classes), options), paired=images.paired)
    if not options.selects:
        return images
    kept = options.select(images.labels, num_classes=images.spec.num_classes)
    return images.subset(kept, memory_limit=options.memory_limit)


def _list_images(images: LabeledImages, classes: Classes) -> Listing:
    labels, names = without_classes(len(images)) if classes == "none" else (images.labels, images.spec.class_names)
    height, width = images.images.shape[2:]
    return Listing(
        labels=labels,
        class_names=names,
        name="image {}".format,
        read=lambda index: images.images[index],
        measure=lambda index: (height, width),
        origins=images.origins,
    )


def _load_items(dataset: Any, options: ReadOptions, columns: Columns) -> LabeledImages:
    """Return what `options` want of a data set whose labels come with its images: all of it is read first."""
    if options.patches is not None:
        return read_listing(list_dataset(dataset, columns, skip_bad=options.skip_bad), options)
    whole = from_dataset(
        dataset,
        image_column=columns.image,
        label_column=columns.label,
        resize=options.resize,
        grayscale=options.grayscale,
        skip_bad=options.skip_bad,
        memory_limit=options.memory_limit,
    )
    if not options.selects:
        return whole
    kept = options.select(whole.labels, num_classes=whole.spec.num_classes)
    return replace(whole, images=_keep_in_place(whole.images, kept), labels=whole.labels[kept])


def _keep_in_place(images: Tensor, kept: Tensor, chunk: int = 1024) -> Tensor:
    """Move the images at `kept` (ascending) to the front, without a copy of all; return a view of them."""
    for start in range(0, len(kept), chunk):
        part = kept[start : start + chunk]
        images[start : start + len(part)] = images[part]
    return images[: len(kept)]
