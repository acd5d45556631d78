"""Whether arms can be compared: what they mix in, and what they minimize, before anything is trained."""

from collections.abc import Mapping

import torch
from torch import Tensor

from genaug.bank import SampleBank
from genaug.bank.drawing import known_classes
from genaug.data import LabeledImages
from genaug.data.check import hash_image, hash_images
from genaug.data.labeled import CHUNK
from genaug.errors import DataError, GenaugError, shorten
from genaug.evaluate.arms import Arm
from genaug.evaluate.batches import count_wanted
from genaug.evaluate.makers import Reserve
from genaug.evaluate.parts import find_shared
from genaug.mixing import MixedDataset


def check_arms(arms: Mapping[str, Arm], train: LabeledImages, test: LabeledImages) -> None:
    """Raise an error that names the arm unless all `arms` can be trained on `train` and tested on `test`.

    Raises:
        DataError: what `check_mixing` refuses; a bank, or a `Reserve`, that holds images of `test`.
        GenaugError: a loss that cannot be used.
    """
    held_out: set[bytes] = set()
    seen: set[int] = set()  # sources that arms share
    for name, arm in arms.items():
        _check_loss(arm, train.spec.num_classes, name=name)
        check_mixing(arm, train, where=f"arm {name!r}")
        if isinstance(arm.source, SampleBank | Reserve) and id(arm.source) not in seen:
            seen.add(id(arm.source))
            held_out = held_out or set(hash_images(test))
            found = _count_known(arm.source, held_out)
            if found:
                raise DataError(
                    f"arm {name!r}: source must hold no images that arms are tested on, got {found} of them; make it "
                    "of the training part alone"
                )


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
    if callable(source) and not hasattr(source, "sample"):
        return  # a maker has no classes and no size yet
    try:
        MixedDataset(train, source, target=0)  # checks all but whether there are enough samples
    except DataError as problem:
        raise DataError(f"{where}: {problem}") from None
    known = {source.spec.class_names[index] for index in known_classes(source)}
    if known.isdisjoint(wanted):
        raise DataError(f"{where}: source must have samples of a class that gets some ({shorten(wanted)}), it has none")


def _count_known(source: SampleBank | Reserve, known: set[bytes]) -> int:
    """Return how many images of the source have the hash of one that is known."""
    if isinstance(source, Reserve):
        return sum(digest in known for digest in hash_images(source.images))
    parts = (source.images(rows) for rows in torch.arange(len(source)).split(CHUNK))
    return sum(hash_image(image) in known for part in parts for image in part)


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
