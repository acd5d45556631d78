"""The training of a classifier under an arm, and what it predicts."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from genaug.data import LabeledImages
from genaug.degradations import Degradation, degrade
from genaug.errors import GenaugError, shorten
from genaug.evaluate.arms import Arm, Budget
from genaug.evaluate.batches import Batches
from genaug.evaluate.losses import adjust_logits
from genaug.evaluate.unfinished import Unfinished
from genaug.images import to_float, to_uint8
from genaug.models.running import draw_seeds
from genaug.seeding import derive_seed, make_generator, own_randomness
from genaug.training.schedules import cosine_with_warmup

CPU = torch.device("cpu")
MOMENTUM = 0.9
DROPS = 0.8, 0.9  # of the training, after each of which the learning rate is a hundredth


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
    unfinished: Unfinished | None = None,
) -> tuple[nn.Module, list[int]]:
    """Train a new classifier on `train` under `arm`; return it, in evaluation mode, and the class counts it drew from.

    Weights at the start, the draws of classes, dropout and what `transform`, `mix` and `degradations` draw depend on
    `seed` alone, so that arms are paired. Degraded images, new ones in every batch, are rounded to uint8, as in a file.
    The network of an arm with an `adjustment` returns adjusted logits. A run that is `unfinished` goes on from the
    state that it kept, as if it had not been cut off.
    """
    net = make_classifier(classifier, train, seed=seed, device=device).train()
    batches = Batches(arm, train, steps=budget.steps, batch_size=budget.batch_size, seed=seed, device=device)
    mix = None if arm.mix is None else arm.mix(num_classes=train.spec.num_classes)
    optimizer = _make_optimizer(net, budget)
    rate = arm.learning_rate or budget.learning_rate
    kept = unfinished or Unfinished(None)
    for step in range(kept.restore(net, optimizer), budget.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * learning_rate_factor(step, budget)
        images, labels = batches.draw(step)
        if arm.transform is not None:
            with own_randomness(derive_seed(seed, "classifier transform", step), CPU):
                images = torch.stack([transform_image(arm.transform, image) for image in images])
        if degradations:
            seeds = draw_seeds(len(images), make_generator(seed, "classifier degradations", step))
            images = to_uint8(degrade(images, degradations, seeds=seeds))
        targets: Tensor = one_hot(labels, train.spec.num_classes).float()
        if mix is not None:
            with own_randomness(derive_seed(seed, "classifier mix", step), CPU):
                images, targets = mix(to_float(images), labels)
        with own_randomness(derive_seed(seed, "classifier dropout", step), device):
            logits = net(images.to(device))
        losses, weights = arm.loss(
            logits, targets.to(device), counts=batches.counts(step).to(device), progress=step / budget.steps
        )
        loss = (weights * losses).sum() / weights.sum().clamp(min=1e-12)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        kept.save_in_time(net, optimizer, step=step + 1)
        on_step()
    drawn = (batches.real_counts + batches.synthetic_counts).tolist()
    if arm.adjustment:
        net = Adjusted(net, counts=batches.counts(budget.steps - 1), tau=arm.adjustment).to(device)
    return net.eval(), drawn


class Adjusted(nn.Module):
    """A trained classifier whose logits are adjusted as for classes of equal size; see `losses.adjust_logits`."""

    def __init__(self, net: nn.Module, *, counts: Tensor, tau: float) -> None:
        super().__init__()
        self.net, self.tau = net, tau
        self.register_buffer("counts", counts)
        self.counts: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes)."""
        return adjust_logits(self.net(images), counts=self.counts, tau=self.tau)


def make_classifier(
    classifier: Callable[[Any], nn.Module], train: LabeledImages, *, seed: int, device: torch.device
) -> nn.Module:
    """Return a new classifier, whose weights depend on `seed` alone.

    Raises:
        GenaugError: no `nn.Module`.
    """
    with own_randomness(derive_seed(seed, "classifier"), device):
        net = classifier(train.spec)
    if not isinstance(net, nn.Module):
        raise GenaugError(f"classifier must make an nn.Module from a DataSpec, got {type(net).__name__}")
    return net.to(device)


def check_classifier(
    classifier: Callable[[Any], nn.Module],
    train: LabeledImages,
    *,
    device: torch.device,
    batch_size: int = 2,
    floats: bool = False,
) -> None:
    """Raise a `GenaugError` unless classifiers are new ones that give a logit for each class of a batch of images.

    They must do so in training too, for `batch_size` images (batch normalization fails with one, say). With `floats`
    images of float in [0, 1], which `mix` of an arm makes, must give the same as those of uint8.
    """
    if isinstance(classifier, nn.Module):
        raise GenaugError(
            "classifier must make a network from a DataSpec, got a network; pass what makes it, such as its class"
        )
    net = make_classifier(classifier, train, seed=0, device=device).eval()
    ours = {id(part) for part in (*net.parameters(), *net.buffers())}
    other = make_classifier(classifier, train, seed=0, device=device)
    if any(id(part) in ours for part in (*other.parameters(), *other.buffers())):
        raise GenaugError(
            "classifier must make a new network whenever it is called, got the same weights twice: each run would go "
            "on from those of the last one"
        )
    wanted = min(2, len(train)), train.spec.num_classes
    images = train.images[:2].to(device)
    batch = train.images[torch.arange(batch_size) % len(train)].to(device)
    try:
        with torch.no_grad():
            logits = net(images)
            of_floats = net(to_float(images)) if floats else logits
            with own_randomness(0, device):
                other.train()(batch)
    except Exception as problem:  # such as an AssertionError about the size of images
        raise GenaugError(
            f"classifier must take images {train.spec.size}, {batch_size} of them in training, but fails "
            f"({type(problem).__name__}: {shorten(str(problem), 200)}); choose another, or other sizes of images "
            "(--resize)"
        ) from problem
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != wanted:
        raise GenaugError(f"classifier must return logits (N, classes), {wanted} of two images, got {found}")
    if not torch.allclose(logits, of_floats, rtol=1e-2, atol=1e-3, equal_nan=True):
        raise GenaugError(
            "classifier must take uint8 images in [0, 255] and float ones in [0, 1], which MixUp and CutMix make, for "
            "the same; begin its forward with genaug.images.to_float(images)"
        )


def predict(net: nn.Module, images: Tensor, *, device: torch.device, batch_size: int = 512) -> Tensor:
    """Return the logits (N, classes), float32 on the CPU, of public images (N, C, H, W)."""
    with torch.no_grad():
        return torch.cat([net(chunk.to(device)).float().cpu() for chunk in images.split(batch_size)])


def learning_rate_factor(step: int, budget: Budget) -> float:
    """Return the factor of the learning rate at `step`, in (0, 1].

    >>> budget = Budget(steps=10, schedule="steps")
    >>> [learning_rate_factor(step, budget) for step in (5, 8, 9)]
    [1.0, 0.01, 0.0001]
    """
    if budget.schedule == "cosine":
        return cosine_with_warmup(step, steps=budget.steps, warmup_steps=min(50, budget.steps // 10))
    warm = min(1.0, (step + 1) / max(1, budget.steps // 40))  # 5 of 200 epochs
    return warm * 0.01 ** sum(step >= drop * budget.steps for drop in DROPS)


def _make_optimizer(net: nn.Module, budget: Budget) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"lr": budget.learning_rate, "weight_decay": budget.weight_decay}
    if budget.optimizer == "sgd":
        return torch.optim.SGD(net.parameters(), momentum=MOMENTUM, **options)
    return torch.optim.AdamW(net.parameters(), fused=True, **options)


def transform_image(transform: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Return the transformed image, of the format that the test images, which are not transformed, have too.

    Raises:
        GenaugError: another format.
    """
    changed = transform(image)
    found = f"{changed.dtype} {tuple(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
    wanted = f"{image.dtype} {tuple(image.shape)}"
    if found != wanted:
        raise GenaugError(
            f"transform must keep type and shape of an image, {wanted}, got {found}; test images are not transformed: "
            "put what both need, such as normalization, into the classifier"
        )
    return changed
