"""An arm: one way to train the classifier of a comparison."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import default_collate

from genaug.data import LabeledImages
from genaug.degradations import Degradation, degrade
from genaug.errors import GenaugError, shorten
from genaug.images import to_uint8
from genaug.mixing import MixedDataset
from genaug.mixing.targets import Target
from genaug.models.running import draw_seeds
from genaug.seeding import derive_seed, make_generator, own_randomness
from genaug.training.schedules import ClassSampler, cosine_with_warmup


@dataclass(frozen=True)
class Arm:
    """How batches are drawn: from real images alone or mixed with synthetic ones, as they come or balanced.

    Args:
        balanced: draw every class equally often, else every image equally often.
        source: what to mix in: a bank, a model, or a function (train, seed) that makes one for each seed. It must be
            made from the training part alone.
        target: total per class that synthetic samples fill up to; see `genaug.balance`.
        cap: synthetic samples per real one, at most.
        transform: of one image (C, H, W) into another of the same format, such as flips of torchvision v2; for real and
            synthetic images alike, in training only. It draws from torch's global generator, if from any.
    """

    balanced: bool = False
    source: Any = None
    target: Target = "median"
    cap: float = 5.0
    transform: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Budget:
    """What every arm gets: steps, batch size and peak learning rate of AdamW with warm-up and cosine."""

    steps: int
    batch_size: int
    learning_rate: float

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise GenaugError(f"{name} must be an integer of at least 1, got {shorten(getattr(self, name))}")
        if not 0 < self.learning_rate <= 10:  # written so that NaN fails too
            raise GenaugError(f"learning_rate must be above 0 and at most 10, got {shorten(self.learning_rate)}")


def train_classifier(
    arm: Arm,
    train: LabeledImages,
    *,
    classifier: Callable[[Any], nn.Module],
    budget: Budget,
    seed: int,
    device: torch.device,
    on_step: Callable[[], None],
    degradations: Sequence[Degradation] = (),
) -> tuple[nn.Module, list[int]]:
    """Train a new classifier on `train` under `arm`; return it, in evaluation mode, and the class counts it drew from.

    Weights at the start, the draws of classes, dropout and what `transform` and `degradations` draw depend on `seed`
    alone, so that arms are paired. Degraded images, new ones in every batch, are rounded to uint8, as in a file.
    """
    with own_randomness(derive_seed(seed, "classifier"), device):
        net = classifier(train.spec).to(device).train()
    dataset: Any = train
    if arm.source is not None:
        source = arm.source(train, seed) if _is_maker(arm.source) else arm.source
        dataset = MixedDataset(train, source, target=arm.target, cap=arm.cap, seed=seed)
    targets = torch.as_tensor(dataset.targets)
    sampler = ClassSampler(targets, exponent=0.0 if arm.balanced else 1.0, seed=derive_seed(seed, "classifier batches"))
    optimizer = torch.optim.AdamW(net.parameters(), lr=budget.learning_rate, weight_decay=1e-2, fused=True)
    for step in range(budget.steps):
        factor = cosine_with_warmup(step, steps=budget.steps, warmup_steps=min(50, budget.steps // 10))
        for group in optimizer.param_groups:
            group["lr"] = budget.learning_rate * factor
        rows = sampler.rows(step, batch_size=budget.batch_size).tolist()
        images, labels = _fetch(dataset, rows)
        if arm.transform is not None:
            with own_randomness(derive_seed(seed, "classifier transform", step), torch.device("cpu")):
                images = torch.stack([_transform(arm.transform, image) for image in images])
        if degradations:
            seeds = draw_seeds(len(images), make_generator(seed, "classifier degradations", step))
            images = to_uint8(degrade(images, degradations, seeds=seeds))
        with own_randomness(derive_seed(seed, "classifier dropout", step), device):
            loss = F.cross_entropy(net(images.to(device)), labels.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        on_step()
    return net.eval(), list(dataset.counts)


def predict(net: nn.Module, images: Tensor, *, device: torch.device, batch_size: int = 512) -> Tensor:
    """Return the predicted classes (N,) of public images (N, C, H, W), on the CPU."""
    with torch.no_grad():
        return torch.cat([net(chunk.to(device)).argmax(1).cpu() for chunk in images.split(batch_size)])


def _transform(transform: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Return the transformed image, of the format that the test images, which are not transformed, have too."""
    changed = transform(image)
    found = f"{changed.dtype} {tuple(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
    wanted = f"{image.dtype} {tuple(image.shape)}"
    if found != wanted:
        raise GenaugError(
            f"transform must keep type and shape of an image, {wanted}, got {found}; test images are not transformed: "
            "put what both need, such as normalization, into the classifier"
        )
    return changed


def _is_maker(source: Any) -> bool:
    return callable(source) and not hasattr(source, "sample")


def _fetch(dataset: Any, rows: list[int]) -> tuple[Tensor, Tensor]:
    if isinstance(dataset, LabeledImages):
        index = torch.tensor(rows)
        return dataset.images[index], dataset.labels[index]
    images, labels = default_collate(dataset.__getitems__(rows))
    return images, labels
