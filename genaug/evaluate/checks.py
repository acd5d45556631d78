"""Whether arms can be compared: what they mix in, what they do to images, and what they minimize."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from genaug.bank import SampleBank
from genaug.bank.drawing import check_source, known_classes
from genaug.data import LabeledImages
from genaug.data.check import hash_image, hash_images
from genaug.data.labeled import CHUNK
from genaug.errors import DataError, GenaugError, naming, shorten
from genaug.evaluate.arms import Arm
from genaug.evaluate.batches import count_wanted, is_maker
from genaug.evaluate.fitting import CPU, transform_image
from genaug.evaluate.makers import Reserve
from genaug.evaluate.parts import find_shared
from genaug.images import to_float
from genaug.mixing import MixedDataset
from genaug.seeding import own_randomness


def check_arms(arms: Mapping[str, Arm], train: LabeledImages, test: LabeledImages) -> None:
    """Raise an error that names the arm unless all `arms` can be trained on `train` and tested on `test`.

    Raises:
        DataError: what `check_mixing` refuses; a bank, or a `Reserve`, that holds images of `test`.
        GenaugError: a loss, `transform` or `mix` that cannot be used.
    """
    held_out: set[bytes] = set()
    seen: set[int] = set()  # sources that arms share
    for name, arm in arms.items():
        _check_loss(arm, train.spec.num_classes, name=name)
        _check_changes(arm, train, name=name)
        check_mixing(arm, train, where=f"arm {name!r}")
        if isinstance(arm.source, SampleBank | Reserve) and id(arm.source) not in seen:
            seen.add(id(arm.source))
            held_out = held_out or set(hash_images(test))
            _check_apart(arm.source, held_out, name=name)


def check_mixing(arm: Arm, train: LabeledImages, *, where: str) -> None:
    """Raise an error that begins with `where` unless the source of the arm, if it has one, can be mixed into `train`.

    Raises:
        DataError: a bank, or a model, of other classes or sizes; nothing to mix in; a `Reserve` that holds images of
            `train`.
    """
    source = arm.source
    if source is None:
        return
    wanted = [name for name, count in zip(train.classes, count_wanted(arm, train), strict=True) if count]
    if not wanted:
        raise DataError(
            f"{where} mixes in nothing, since no class of train has fewer images than target={arm.target!r} "
            "and cap allow; set every (genaug+every), another target, or leave it out"
        )
    shared = find_shared(source.images, train) if isinstance(source, Reserve) else []
    if shared:
        raise DataError(
            f"{where}: source must hold no images that arms are trained on, got {len(shared)} of them; keep those in "
            "reserve apart"
        )
    if is_maker(source):
        return  # a maker has no classes and no size yet
    with naming(where):
        MixedDataset(train, source, target=0)  # checks all but whether there are enough samples
    known = {source.spec.class_names[index] for index in known_classes(source)}
    if known.isdisjoint(wanted):
        raise DataError(f"{where}: source must have samples of a class that gets some ({shorten(wanted)}), it has none")


def watch_maker(arm: Arm, test: LabeledImages, *, name: str) -> Arm:
    """Return the arm with a maker whose banks are looked at, where its source is a maker, before they are used.

    The new maker raises a `DataError` where what it makes is no source of samples, or holds images of `test`.
    """
    maker = arm.source
    if not is_maker(maker):
        return arm

    def make(train: LabeledImages, counts: Sequence[int], *, seed: int, device: torch.device) -> Any:
        made = maker(train, counts, seed=seed, device=device)
        with naming(f"arm {name!r}: source, a function, must make a bank"):
            check_source(made)
        if isinstance(made, SampleBank):
            _check_apart(made, set(hash_images(test)), name=name)
        return made

    return replace(arm, source=make)


def _check_apart(source: SampleBank | Reserve, held_out: set[bytes], *, name: str) -> None:
    """Raise a `DataError` where the source holds images of which the hashes are `held_out`."""
    if isinstance(source, Reserve):
        found = sum(digest in held_out for digest in hash_images(source.images))
    else:
        parts = (source.images(rows) for rows in torch.arange(len(source)).split(CHUNK))
        found = sum(hash_image(image) in held_out for part in parts for image in part)
    if found:
        raise DataError(
            f"arm {name!r}: source must hold no images that arms are tested on, got {found} of them; make it "
            "of the training part alone"
        )


def _check_changes(arm: Arm, train: LabeledImages, *, name: str) -> None:
    """Raise a `GenaugError` where `transform` fails for an image, or `mix` for two of them."""
    classes, labels = train.spec.num_classes, train.labels[:2]
    with own_randomness(0, CPU):
        transform, mix = arm.transform, arm.mix
        if transform is not None:
            _try(lambda: transform_image(transform, train.images[0].clone()), "transform", name)
        if mix is None:
            return
        floats = to_float(train.images[:2])
        mixed = _try(lambda: mix(num_classes=classes)(floats, labels), "mix", name)
    shapes = [tuple(part.shape) for part in mixed if isinstance(part, Tensor)] if isinstance(mixed, tuple) else []
    if shapes != [tuple(floats.shape), (len(labels), classes)]:
        raise GenaugError(
            f"arm {name!r}: mix(num_classes={classes}) must make a transform of images and labels into images and soft "
            f"labels (N, {classes}), got {shapes or type(mixed).__name__}"
        )


def _try(change: Callable[[], Any], what: str, name: str) -> Any:
    try:
        return change()
    except GenaugError as problem:
        raise GenaugError(f"arm {name!r}: {problem}") from None
    except Exception as problem:
        takes = "an image (C, H, W) of uint8" if what == "transform" else "num_classes, and then images and labels"
        raise GenaugError(
            f"arm {name!r}: {what} must take {takes}, but fails ({type(problem).__name__}: "
            f"{shorten(str(problem), 200)})"
        ) from problem


def _check_loss(arm: Arm, num_classes: int, *, name: str) -> None:
    logits, targets = torch.zeros(2, num_classes), torch.eye(num_classes)[:2]
    try:
        losses, weights = arm.loss(logits, targets, counts=torch.ones(num_classes).double(), progress=0.0)
        fits = all(isinstance(one, Tensor) and one.shape == (2,) for one in (losses, weights))
    except Exception as problem:
        raise GenaugError(
            f"arm {name!r}: loss must take (logits, targets, *, counts, progress), as those of genaug.evaluate.losses "
            f"do, but fails ({type(problem).__name__}: {shorten(str(problem), 200)})"
        ) from problem
    if not fits:
        raise GenaugError(f"arm {name!r}: loss must return losses (N,) and weights (N,), got others of two images")
