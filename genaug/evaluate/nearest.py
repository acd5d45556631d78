"""The training image nearest to each of many images: in features and in pixels, chunk by chunk."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genaug.bank import SampleBank
from genaug.data import LabeledImages
from genaug.evaluate.copies import CopyPair
from genaug.evaluate.drawing import draw_samples
from genaug.features import FeatureExtractor
from genaug.filters.base import class_quantiles
from genaug.filters.classifier import ROUNDING
from genaug.metrics.memorization import ROWS_PER_CELL, cell_centers
from genaug.metrics.neighbors import STORED_CHUNK, nearest_rows
from genaug.progress import Update
from genaug.seeding import make_generator

PIXELS = "pixels"
MOST_COMPARED = 2000  # training and held-out images of each class whose own distances are taken
SAMPLES = 1000  # of each class of a model
CHUNK = 500  # images that are compared at once
CHUNK_NUMBERS = 2**23  # of training images that are compared at once, 64 MiB
SHRINKAGE = 10.0  # as in filters
PAIRS = 12

Batches = Iterable[tuple[Tensor, Tensor, Tensor]]  # images, labels, and what number each image has


@dataclass(eq=False)
class Space:
    """What images are compared in: rows (n, F) of them, those of the training images, and what follows from these.

    Args:
        name: of the space.
        train: the training images.
        extract: from images to rows on the device to compute on.
        references: rows of the training images.
        scale: that distances are multiplied with.
        least: lower bound of a radius.
        radius: of near copies of the training images of each class, (num_classes,); set by `fit`.
        usual: median distance between training images of each class; NaN without any; set by `fit`.
    """

    name: str
    train: LabeledImages
    extract: Callable[[Tensor], Tensor]
    references: Tensor
    scale: float = 1.0
    least: float = 0.0
    radius: Tensor = field(default_factory=lambda: torch.zeros(0))
    usual: Tensor = field(default_factory=lambda: torch.zeros(0))

    def nearest(self, rows: Tensor, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the distance of each of the rows (n, F) to the nearest training image, and which that is; on the CPU.

        Training images themselves `exclude` their own numbers (n,).
        """
        chunk = max(1, min(STORED_CHUNK, CHUNK_NUMBERS // rows.shape[1]))
        distances, places = nearest_rows(rows, self.references, exclude=exclude, chunk=chunk)
        return distances.cpu() * self.scale, places.cpu()

    def fit(self, among: "Compared", *, quantile: float) -> None:
        """Set radius and usual distance from those of training images to the nearest other one."""
        distances, num_classes = among.distances[self.name], self.train.spec.num_classes
        options: dict[str, Any] = {"num_classes": num_classes, "quantiles": [quantile], "shrinkage": SHRINKAGE}
        self.radius = class_quantiles(distances, among.labels, **options)[0].clamp(min=self.least)
        own = [distances[among.labels == label] for label in range(num_classes)]
        self.usual = torch.stack([each.quantile(0.5) if len(each) else torch.tensor(torch.nan) for each in own])

    def relative(self, distances: Tensor, rows: Tensor) -> Tensor:
        """Return distances over the radius of the class of the training images in `rows`: at most 1 for near copies."""
        return torch.where(distances > 0, distances / self.radius[self.train.labels.cpu()[rows]], 0.0)


@dataclass(eq=False)
class Compared:
    """What was found of images: their labels and cells, and by space distance and `Space.relative` of the nearest.

    `pairs` holds the nearest of all, by space.
    """

    labels: Tensor
    cells: Tensor
    distances: dict[str, Tensor]
    relative: dict[str, Tensor]
    pairs: dict[str, list[CopyPair]]


class Cells:
    """Cells of images for the C_T test: within each class by k-means of its training images' features.

    Args:
        rows: features of the training images.
        train: the training images.
        limits: least number of images of each class among training, held-out ones and samples; one cell for 200.
        seed: of k-means.
    """

    def __init__(self, rows: Tensor, train: LabeledImages, *, limits: list[int], seed: int) -> None:
        self.centers = []
        for label, limit in enumerate(limits):
            own, count = rows[train.labels.to(rows.device) == label], max(1, limit // ROWS_PER_CELL)
            self.centers.append(cell_centers(own, cells=count, seed=seed) if count > 1 else own[:1])

    def assign(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Return the cell of each of the rows (n, F) among those of its class (n,)."""
        cells = torch.zeros_like(labels)
        for label in labels.unique().tolist():
            own = labels == label
            if len(self.centers[label]) > 1:
                found = rows[own.to(rows.device)].double()
                cells[own] = torch.cdist(found, self.centers[label].double()).argmin(1).cpu()
        return cells


def make_spaces(features: FeatureExtractor, train: LabeledImages, device: torch.device) -> list[Space]:
    """Return the space of `features` and that of pixels, whose distance is the root of the mean squared difference."""
    where = device if device.type == "cuda" else torch.device("cpu")  # others, such as mps, have no float64
    found = torch.cat([features.extract(part) for part in train.images.split(CHUNK)]).to(where)
    pixels = train.images.flatten(1)
    return [
        Space(
            features.name,
            train,
            lambda images: features.extract(images).to(where),
            found,
            least=ROUNDING * float(found.norm(dim=1).mean()),
        ),
        Space(
            PIXELS, train, lambda images: images.flatten(1).to(where), pixels, scale=1 / 255 / pixels.shape[1] ** 0.5
        ),
    ]


def compare(
    batches: Batches,
    spaces: list[Space],
    cells: Cells,
    update: Update,
    *,
    among: bool = False,
    held_out: bool = False,
) -> Compared:
    """Return what is found of images in chunks; `among` says that they are the training images numbered so.

    These come first, before `Space.fit`, and have no pairs; `held_out` says of the others what the pairs are told.
    """
    labels, places = [], []
    distances: dict[str, list[Tensor]] = {space.name: [] for space in spaces}
    relative: dict[str, list[Tensor]] = {space.name: [] for space in spaces}
    pairs: dict[str, list[CopyPair]] = {space.name: [] for space in spaces}
    for images, own, numbers in batches:
        labels.append(own)
        for space in spaces:
            found = space.extract(images)
            if space is spaces[0]:
                places.append(cells.assign(found, own))
            far, rows = space.nearest(found, numbers if among else None)
            distances[space.name].append(far)
            if not among:
                ratios = space.relative(far, rows)
                relative[space.name].append(ratios)
                nearest = ratios.argsort(stable=True)[:PAIRS].tolist()
                pairs[space.name] += [
                    CopyPair(
                        space=space.name,
                        held_out=held_out,
                        name=space.train.classes[int(own[at])],
                        number=int(numbers[at]),
                        row=int(rows[at]),
                        distance=float(far[at]),
                        relative=float(ratios[at]),
                        image=images[at].clone(),
                        training_image=space.train.images[rows[at]].cpu().clone(),
                    )
                    for at in nearest
                ]
                pairs[space.name] = sorted(pairs[space.name], key=lambda pair: pair.relative)[:PAIRS]
        update(len(images))
    far_all, relative_all = (
        {name: torch.cat(parts) for name, parts in found.items() if parts} for found in (distances, relative)
    )
    return Compared(torch.cat(labels), torch.cat(places), far_all, relative_all, pairs)


def choose_rows(data: LabeledImages, *, seed: int) -> Tensor:
    """Return random rows of `data`, in order: of each class all, or 2,000 of more."""
    order = torch.randperm(len(data), generator=make_generator(seed, "audited images"))
    labels = data.labels.cpu()[order]
    chosen = [order[labels == label][:MOST_COMPARED] for label in range(data.spec.num_classes)]
    return torch.cat(chosen).sort().values


def read_rows(data: LabeledImages, rows: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield images, labels and rows of `data` in chunks, on the CPU."""
    for part in rows.split(CHUNK):
        yield data.images[part].cpu(), data.labels[part].cpu(), part


def choose_samples(source: Any, *, samples: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Return labels and numbers of the samples to take: `samples` a class of a model, or rows of a bank."""
    if not isinstance(source, SampleBank):
        labels = torch.arange(source.spec.num_classes).repeat_interleave(samples or SAMPLES)
        return labels, torch.arange(len(labels))
    chosen = []
    for label in range(source.spec.num_classes):
        start, stop = source.rows(label)
        order = torch.randperm(stop - start, generator=make_generator(seed, "audited samples", label))
        chosen.append(start + order[:samples].sort().values)
    rows = torch.cat(chosen)
    return source.labels[rows], rows


def read_samples(source: Any, labels: Tensor, numbers: Tensor, *, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the samples that `choose_samples` named in chunks: uint8 images on the CPU, labels, numbers."""
    if isinstance(source, SampleBank):
        images: Iterable[Tensor] = (source.images(rows) for rows in numbers.split(CHUNK))
    else:
        images = draw_samples(source, labels, seed=seed, progress=False)
    start = 0
    for chunk in images:
        stop = start + len(chunk)
        yield chunk, labels[start:stop], numbers[start:stop]
        start = stop
