"""Pictures of what was measured; drawn without pyplot, so that no global state of matplotlib changes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from genaug.bank import SampleBank
from genaug.bank.drawing import known_classes
from genaug.data import LabeledImages
from genaug.evaluate.comparison import Comparison
from genaug.evaluate.copies import CopyAudit
from genaug.evaluate.drawing import can_reconstruct
from genaug.images import to_uint8
from genaug.seeding import make_generator
from genaug.storage import explain_write_errors

COLUMNS = 6
MAX_ROWS = 32


def plot_real_beside_synthetic(real: LabeledImages, bank: SampleBank, path: Path) -> None:
    """Save a picture with a row for each class: up to six real images on the left, six of the bank on the right.

    Raises:
        GenaugError: the disk is full or not writable.
    """
    rows = min(real.spec.num_classes, MAX_ROWS)
    figure = Figure(figsize=(0.6 * (2 * COLUMNS + 2), 0.6 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, 2 * COLUMNS + 1, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for label in range(rows):
        own = real.images[real.labels == label][:COLUMNS]
        start, stop = bank.rows(label)
        synthetic = bank.images(torch.arange(start, min(stop, start + COLUMNS)))
        for offset, images in ((0, own), (COLUMNS + 1, synthetic)):
            for column, image in enumerate(images):
                axes[label, offset + column].imshow(_for_display(image), cmap="gray", vmin=0, vmax=255)
        name, count = real.spec.class_names[label], int((real.labels == label).sum())
        axes[label, COLUMNS].text(0.5, 0.5, f"{_plain(name)}\n{count} real", ha="center", va="center", fontsize=7)
    figure.suptitle("real (left) and synthetic (right)", fontsize=9)
    _save(figure, path)


def plot_fidelity(source: Any, real: LabeledImages, path: Path, *, seed: int) -> None:
    """Save a picture with a block for each class: real images, their reconstructions, and samples, a row each.

    Args:
        source: a model or a bank; without `encode` and `decode` a block has no reconstructions.
        real: held-out images.
        path: PNG file.
        seed: of the samples.

    Raises:
        GenaugError: the disk is full or not writable.
    """
    classes = min(real.spec.num_classes, MAX_ROWS)
    names = ["real", "reconstruction", "sample"] if can_reconstruct(source) else ["real", "sample"]
    figure = Figure(figsize=(0.6 * COLUMNS + 2.2, (0.6 * len(names) + 0.2) * classes + 0.2), layout="constrained")
    axes = figure.subplots(classes, 1, squeeze=False)[:, 0]
    height, width = real.spec.height or real.images.shape[2], real.spec.width or real.images.shape[3]
    for label, axis in enumerate(axes):
        own = real.images[real.labels == label][:COLUMNS]
        labels = torch.full((COLUMNS,), label)
        rows = [own]
        if can_reconstruct(source):
            again = labels[: len(own)]
            rows.append(source.decode(source.encode(own, again), again) if len(own) else own)
        has = label in known_classes(source)
        rows.append(
            source.sample(labels, generator=make_generator(seed, "fidelity picture", label)) if has else own[:0]
        )
        axis.imshow(_tile([to_uint8(images).cpu() for images in rows], height, width), cmap="gray", vmin=0, vmax=255)
        axis.set_yticks([(height + 1) * (row + 0.5) for row in range(len(names))], names, fontsize=7)
        axis.set_xticks([])
        axis.tick_params(length=0)
        axis.set_frame_on(False)
        axis.set_title(_plain(real.spec.class_names[label]), fontsize=8)
    _save(figure, path)


def plot_recall(comparison: Comparison, path: Path, *, counts: Sequence[int]) -> None:
    """Save a plot of the recall of each class under each arm, with one dot for every seed.

    Args:
        comparison: what `compare_arms` returned.
        path: PNG file.
        counts: real training images of each class, for the axis.

    Raises:
        GenaugError: the disk is full or not writable.
    """
    figure = Figure(figsize=(1.5 + 0.75 * len(counts), 4), layout="constrained")
    axis = figure.subplots()
    arms = comparison.arms
    width = 0.8 / len(arms)
    for index, arm in enumerate(arms):
        places = [place - 0.4 + width * (index + 0.5) for place in range(len(counts))]
        axis.bar(places, comparison.recall(arm), width=0.9 * width, label=arm, alpha=0.75)
        for run in comparison.runs:
            if run["arm"] == arm:
                values = [float("nan") if value is None else value for value in run["recall"]]
                axis.plot(places, values, ".", color="black", markersize=3)
    names = [f"{_plain(name)}\n{count}" for name, count in zip(comparison.class_names, counts, strict=True)]
    axis.set_xticks(range(len(counts)), names)
    axis.set_xlabel("class, and real training images of it")
    axis.set_ylabel("recall")
    axis.set_ylim(0, 1.02)
    axis.legend(loc="lower left", fontsize=8)
    _save(figure, path)


def plot_columns(columns: Mapping[str, torch.Tensor], path: Path, *, names: Sequence[str], title: str) -> None:
    """Save a picture with a column for each batch of uint8 images (N, C, H, W) of one size, and a row for each image.

    Args:
        columns: batches by the headings of their columns.
        path: PNG file.
        names: of the rows.
        title: of the picture.

    Raises:
        GenaugError: the disk is full or not writable.
    """
    batches = [batch.cpu() for batch in columns.values()]
    height, width = batches[0].shape[-2:]
    picture = _tile([torch.stack(row) for row in zip(*batches, strict=True)], height, width, columns=len(batches))
    aspect = picture.shape[0] / picture.shape[1]
    side = 0.9 * len(batches)
    figure = Figure(figsize=(side + 1.2, side * aspect + 0.6), layout="constrained")
    axis = figure.subplots()
    axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set_xticks(
        [(width + 1) * (column + 0.5) for column in range(len(batches))], list(map(_plain, columns)), fontsize=7
    )
    axis.set_yticks([(height + 1) * (row + 0.5) for row in range(len(names))], list(map(_plain, names)), fontsize=7)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set_frame_on(False)
    figure.suptitle(_plain(title), fontsize=8)
    _save(figure, path)


def plot_closest_pairs(audit: CopyAudit, path: Path) -> None:
    """Save a picture of the closest pairs: samples above their nearest training images, then held-out images so.

    There is a block for each of both in each space of the audit, nearest first. Above a pair stand its class and its
    distance over the radius of near copies, at most 1 where it is one.

    Args:
        audit: what `audit_copies` returned.
        path: PNG file.

    Raises:
        GenaugError: the disk is full or not writable.
    """
    blocks = [(space, held_out) for space in audit.spaces for held_out in (False, True)]
    groups = [[pair for pair in audit.pairs if (pair.space, pair.held_out) == block] for block in blocks]
    height, width = audit.pairs[0].image.shape[1:]
    columns = max(len(pairs) for pairs in groups)
    side = 0.85 * columns
    block_height = side * 2 * (height + 1) / (columns * (width + 1)) + 0.75
    figure = Figure(figsize=(side + 0.8, len(blocks) * block_height), layout="constrained")
    axes = figure.subplots(len(blocks), 1, squeeze=False)[:, 0]
    for axis, (space, held_out), pairs in zip(axes, blocks, groups, strict=True):
        rows = [torch.stack([pair.image for pair in pairs]), torch.stack([pair.training_image for pair in pairs])]
        axis.imshow(_tile(rows, height, width, columns=columns), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_yticks([(height + 1) * 0.5, (height + 1) * 1.5], ["held-out" if held_out else "sample", "training"])
        places = [(width + 1) * (column + 0.5) for column in range(len(pairs))]
        axis.set_xticks(places, [f"{_plain(pair.name[:14])}\n{pair.relative:.2f}" for pair in pairs])
        axis.xaxis.tick_top()
        axis.tick_params(length=0, labelsize=6)
        axis.set_frame_on(False)
        what = "held-out images" if held_out else "samples"
        axis.set_title(f"{what} nearest to training images, {space}", fontsize=8)
    _save(figure, path)


def _tile(rows: Sequence[torch.Tensor], height: int, width: int, *, columns: int = COLUMNS) -> NDArray[np.uint8]:
    """Return rows of up to `columns` images (n, C, H, W) as one picture on white, one pixel apart."""
    colored = max(images.shape[1] for images in rows) == 3
    shape = (len(rows) * (height + 1), columns * (width + 1))
    picture = np.full((*shape, 3) if colored else shape, 255, dtype=np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top, left = row * (height + 1), column * (width + 1)
            picture[top : top + height, left : left + width] = _for_display(image)
    return picture


def _for_display(image: torch.Tensor) -> NDArray[np.uint8]:
    return (image.permute(1, 2, 0) if len(image) == 3 else image[0]).numpy()


def _plain(text: str) -> str:
    """Return text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


def _save(figure: Figure, path: Path) -> None:
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)


def plot_arms(comparison: Comparison, path: Path) -> None:
    """Save a plot of the arms that are complete, the best on top: balanced accuracy of each seed, and differences.

    On the left a dot stands for a seed and a line for their mean; on the right is the paired difference to the rival
    with its 95 % interval.

    Args:
        comparison: what `compare_arms` returned.
        path: PNG file.

    Raises:
        GenaugError: the disk is full or not writable.
    """
    summary = comparison.to_dict()["summary"]
    arms = sorted(summary, key=lambda arm: summary[arm]["balanced_accuracy"]["mean"])
    width = 6.5 + 0.065 * max(len(arm) for arm in comparison.arms)  # of both axes, and of the longest name
    figure = Figure(figsize=(width, 1.2 + 0.3 * len(arms)), layout="constrained")
    scores, gaps = figure.subplots(1, 2, sharey=True)
    for place, arm in enumerate(arms):
        color = "tab:red" if arm == comparison.rival else "tab:blue"
        values = comparison.values(arm, "balanced_accuracy")
        scores.plot(values, [place] * len(values), ".", color=color, alpha=0.5)
        scores.plot([summary[arm]["balanced_accuracy"]["mean"]] * 2, [place - 0.3, place + 0.3], color=color)
        gap = summary[arm].get("difference")
        if gap is not None:
            gaps.plot([gap["low"], gap["high"]], [place, place], color=color)
            gaps.plot([gap["mean"]], [place], "o", color=color, markersize=4)
    scores.set_yticks(range(len(arms)), list(map(_plain, arms)), fontsize=8)
    scores.set_xlabel("balanced accuracy")
    gaps.set_xlabel("difference to the rival (red),\nwith its 95 % interval")
    gaps.axvline(0, color="tab:red", linewidth=1)
    for axis in (scores, gaps):
        axis.grid(axis="x", alpha=0.3)
    _save(figure, path)
