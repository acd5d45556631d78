"""The training image nearest to each of many images: in features and in pixels, chunk by chunk."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any

import torch
from torch import Tensor

from genaug.bank import SampleBank
from genaug.bank.drawing import known_classes
from genaug.data import LabeledImages
from genaug.evaluate.copies import CopyPair
from genaug.evaluate.drawing import CHUNK, draw_samples
from genaug.features import FeatureExtractor
from genaug.filters.copies import NearCopies
from genaug.metrics.memorization import ROWS_PER_CELL, cell_centers
from genaug.metrics.neighbors import nearest_rows
from genaug.metrics.proportions import Count
from genaug.progress import Update
from genaug.seeding import make_generator

PIXELS = "pixels"
MOST_COMPARED = 2000  # training and held-out images of each class whose own distances are taken
SAMPLES = 1000  # of each class of a model
PAIRS = 12

Batches = Iterable[tuple[Tensor, Tensor, Tensor]]  # images, labels, and what number each image has


@dataclass(frozen=True, eq=False)
class Space:
    """What images are compared in: rows (n, F) of them, beside those of the training images."""

    name: str
    extract: Callable[[Tensor], Tensor]
    training: NearCopies


@dataclass(frozen=True, eq=False)
class Compared:
    """What was found of images: labels and cells, and by space distances, near copies, and the nearest pairs of all."""

    labels: Tensor
    cells: Tensor
    distances: dict[str, Tensor]
    near: dict[str, Tensor]
    pairs: dict[str, list[CopyPair]]

    def count(self, space: str, index: int) -> Count:
        """Return how many images of a class are near copies, and of how many; of all where there are none of it."""
        near = self.near[space]
        own = near[self.labels == index]
        near = own if len(own) else near
        return int(near.sum()), len(near)


def make_spaces(
    features: FeatureExtractor, train: LabeledImages, *, chosen: Tensor, device: torch.device, update: Update
) -> list[Space]:
    """Return the space of `features` and that of pixels, whose distance is the root of the mean squared difference.

    Radii follow from the training images that are `chosen`.
    """
    found = torch.cat([features.extract(part) for part in train.images.split(CHUNK)]).to(device)
    pixels = train.images.flatten(1)
    options: dict[str, Any] = {"num_classes": train.spec.num_classes, "device": device, "chosen": chosen}
    scale = 1 / 255 / pixels.shape[1] ** 0.5
    near = NearCopies(pixels, train.labels, scale=scale, update=update, **options)
    return [
        Space(features.name, features.extract, NearCopies(found, train.labels, **options)),
        Space(PIXELS, lambda images: images.flatten(1), near),
    ]


def make_cells(rows: Tensor, labels: Tensor, *, limits: list[int], seed: int) -> list[Tensor]:
    """Return centers of the cells of each class for the C_T test: by k-means of rows (N, F) of its training images.

    A class gets one for 200 images of `limits`: the least number among its training, held-out images and samples.
    """
    centers = []
    for label, limit in enumerate(limits):
        own, count = rows[labels.to(rows.device) == label], max(1, limit // ROWS_PER_CELL)
        centers.append(cell_centers(own, cells=count, seed=seed) if count > 1 else own[:1])
    return centers


def _assign_cells(centers: list[Tensor], rows: Tensor, labels: Tensor) -> Tensor:
    """Return the cell of each of the rows (n, F) among those of its class (n,)."""
    cells = torch.zeros_like(labels)
    for label in labels.unique().tolist():
        own = labels == label
        cells[own] = nearest_rows(rows[own], centers[label].to(rows.device))[1][:, 0]
    return cells


def compare(
    batches: Batches,
    spaces: list[Space],
    train: LabeledImages,
    cells: list[Tensor],
    update: Update,
    *,
    held_out: bool = False,
) -> Compared:
    """Return what is found of images in chunks; `held_out` says of them what the pairs are told."""
    labels, places = [], []
    distances, near = defaultdict[str, list[Tensor]](list), defaultdict[str, list[Tensor]](list)
    pairs = defaultdict[str, list[CopyPair]](list)
    for images, own, numbers in batches:
        labels.append(own)
        for space in spaces:
            found = space.extract(images)
            if space is spaces[0]:
                places.append(_assign_cells(cells, found, own))
            far, rows, ratios = space.training.measure(found)
            distances[space.name].append(far)
            near[space.name].append(ratios <= 1)
            nearest = [
                CopyPair(
                    space=space.name,
                    held_out=held_out,
                    name=train.classes[int(own[at])],
                    number=int(numbers[at]),
                    row=int(rows[at]),
                    distance=float(far[at]),
                    relative=float(ratios[at]),
                    image=images[at].clone(),
                    training_image=train.images[rows[at]].cpu().clone(),
                )
                for at in ratios.argsort(stable=True)[:PAIRS].tolist()
            ]
            pairs[space.name] = nsmallest(PAIRS, pairs[space.name] + nearest, key=lambda pair: pair.relative)
        update(len(images))
    far_all, near_all = ({name: torch.cat(parts) for name, parts in each.items()} for each in (distances, near))
    return Compared(torch.cat(labels), torch.cat(places), far_all, near_all, pairs)


def choose_rows(data: LabeledImages, *, seed: int) -> Tensor:
    """Return random rows of `data`, in order: of each class all, or 2,000 of more."""
    order = torch.randperm(len(data), generator=make_generator(seed, "audited images"))
    labels = data.labels.cpu()[order]
    chosen = [order[labels == label][:MOST_COMPARED] for label in range(data.spec.num_classes)]
    return torch.cat(chosen).sort().values


def choose_samples(source: Any, *, samples: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Return labels and numbers of the samples to take: `samples` a class of a model, or rows of a bank."""
    if not isinstance(source, SampleBank):
        labels = torch.tensor(known_classes(source)).repeat_interleave(samples or SAMPLES)
        return labels, torch.arange(len(labels))
    chosen = []
    for label in range(source.spec.num_classes):
        start, stop = source.rows(label)
        order = torch.randperm(stop - start, generator=make_generator(seed, "audited samples", label))
        chosen.append(start + order[:samples].sort().values)
    rows = torch.cat(chosen)
    return source.labels[rows], rows


def read_rows(data: LabeledImages, rows: Tensor) -> Batches:
    """Yield images, labels and rows of `data` in chunks, on the CPU."""
    return ((data.images[part].cpu(), data.labels[part].cpu(), part) for part in rows.split(CHUNK))


def read_samples(source: Any, labels: Tensor, numbers: Tensor, *, seed: int) -> Batches:
    """Yield the samples that `choose_samples` named in chunks: uint8 images on the CPU, labels, numbers."""
    rows = numbers if isinstance(source, SampleBank) else None
    images = draw_samples(source, labels, seed=seed, progress=False, rows=rows)
    return zip(images, labels.split(CHUNK), numbers.split(CHUNK), strict=True)
