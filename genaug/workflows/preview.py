"""Pictures of what each transform does to held-out images of a data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from genaug.data import LabeledImages, load_data
from genaug.data.parts import MissingPart
from genaug.devices import choose_device
from genaug.errors import GenaugError
from genaug.evaluate.plots import plot_columns
from genaug.images import to_uint8
from genaug.models import Model
from genaug.models.base import METHODS
from genaug.seeding import derive_seed, make_generator
from genaug.storage import check_vacant, expand
from genaug.transforms.operations import Vary
from genaug.workflows.parts import check_match
from genaug.zoo import load

STRENGTHS = (0.0, 0.25, 0.5, 1.0)
SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
MAX_ROWS = 8


def preview_transforms(
    model: str | Path,
    *,
    data: Any,
    output: str | Path = "genaug-preview",
    split: str | None = None,
    reading: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write a picture for each transform that the model can be used in, with an image of each of up to 8 classes.

    `LatentJitter.png` has inputs beside outputs at strengths 0 (what `Reconstruct` gives), 0.25, 0.5 and 1, and at the
    last two with the residual kept; `LatentMix.png` an image, four mixtures on the way, and another image of the same
    class; `ReplaceWithSynthetic.png` images beside samples that may take their place.

    Args:
        model: what `genaug.load` takes.
        data: what `genaug.data.load_data` takes.
        output: folder for the pictures.
        split: part of the data; by default "test" where there is one.
        reading: further arguments of `load_data`.
        seed: of the noise and of the images that are shown.
        device: where to compute; a GPU if there is one, else the CPU.
        overwrite: replace pictures that are there.

    Raises:
        GenaugError: an unknown model, one for which there is no transform, data that cannot be read or do not fit it,
            an `output` that exists.
    """
    target = expand(output)
    check_vacant(target, overwrite=overwrite)
    loaded = load(model, device=choose_device(device))
    drawings = [
        (name, draw)
        for name, needs, draw in (
            ("LatentJitter", {"vary"}, _draw_jitter),
            ("LatentMix", {"encode", "decode"}, _draw_mix),
            ("ReplaceWithSynthetic", {"sample"}, _draw_replacement),
        )
        if needs <= {method for method in METHODS if callable(getattr(loaded, method, None))}
    ]
    if not drawings:
        raise GenaugError(f"model must be one that a transform can use, got {loaded.family}")
    images = _read(data, split, reading or {})
    check_match(images, loaded)
    written = []
    for name, draw in drawings:
        columns, rows = draw(loaded, images, seed)
        path = target / f"{name}.png"
        names = [images.spec.class_names[label] for label in images.labels[rows].tolist()]
        plot_columns(columns, path, names=names, title=f"{name}, {model}")
        written.append(path)
    Console().print(f"wrote {', '.join(map(str, written))}", soft_wrap=True)
    return written


def _read(data: Any, split: str | None, reading: Mapping[str, Any]) -> LabeledImages:
    if split is not None:
        return load_data(data, split=split, **reading)
    try:
        return load_data(data, split="test", **reading)
    except MissingPart:
        return load_data(data, **reading)


def _pick(images: LabeledImages, seed: int, count: int) -> torch.Tensor:
    """Return rows of `count` random images of each of the first classes that have as many: (classes, count)."""
    order = torch.randperm(len(images.labels), generator=make_generator(seed, "preview"))
    found = [order[images.labels[order] == label][:count] for label in range(images.spec.num_classes)]
    rows = [rows for rows in found if len(rows) == count][:MAX_ROWS]
    if not rows:
        raise GenaugError(f"data must have a class of at least {count} images")
    return torch.stack(rows)


def _draw_jitter(model: Model, images: LabeledImages, seed: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    rows = _pick(images, seed, 1)[:, 0]
    chosen, labels = images.images[rows], images.labels[rows]
    columns = {"input": chosen}
    # with the same noise, so that a row shows one way out of the image
    seeds = torch.tensor([derive_seed(seed, "preview", row) for row in range(len(rows))])
    conditions = labels if model.spec.num_classes else None
    for strength in STRENGTHS:
        columns[f"{strength:g}"] = to_uint8(Vary(model, strength=strength)(chosen, conditions, seeds))
    for strength in STRENGTHS[-2:]:
        change = Vary(model, strength=strength, keep_residual=True)
        columns[f"{strength:g} + residual"] = to_uint8(change(chosen, conditions, seeds))
    return columns, rows


def _draw_mix(model: Model, images: LabeledImages, seed: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    rows = _pick(images, seed, 2)
    labels = images.labels[rows[:, 0]] if model.spec.num_classes else None
    first, second = (model.encode(images.images[rows[:, side]], labels) for side in (0, 1))
    columns = {"input": images.images[rows[:, 0]]}
    for share in SHARES:
        columns[f"{share:g}"] = to_uint8(model.decode(share * first + (1 - share) * second, labels))
    return {**columns, "other": images.images[rows[:, 1]]}, rows[:, 0]


def _draw_replacement(model: Model, images: LabeledImages, seed: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    rows = _pick(images, seed, 1)[:, 0]
    rows = rows[torch.isin(images.labels[rows], torch.tensor(model.known_classes))]
    labels = images.labels[rows]
    samples = {
        f"sample {number}": to_uint8(model.sample(labels, generator=make_generator(seed, "preview", number)))
        for number in range(1, 6)
    }
    return {"input": images.images[rows], **samples}, rows
