"""An arm: one way to train the classifier of a comparison; and what every arm gets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from genaug.errors import GenaugError, check_choice, check_ranges, shorten
from genaug.evaluate.losses import CrossEntropy, Loss
from genaug.mixing.targets import Target

LEARNING_RATES = 1e-12, 10.0  # lowest and highest
CHOICES = {"optimizer": ("adamw", "sgd"), "schedule": ("cosine", "steps")}


@dataclass(frozen=True)
class Arm:
    """How a classifier is trained: what batches hold, what is done to them, and what is minimized.

    Synthetic images take part in one of two ways. By default they are drawn as real ones are, from all images together.
    With `replace` each real image of a batch gives way, with that probability, to a synthetic one of its class where
    there is one, so that classes are seen as often as without.

    Args:
        balanced: draw every class equally often, else every image equally often.
        loss: one of `genaug.evaluate.losses`. Its class counts are those that batches follow: with synthetic images,
            all equal with `balanced`.
        transform: of one image (C, H, W) into another of the same format, such as flips of torchvision v2; for real and
            synthetic images alike, in training only. It draws from torch's global generator, if from any.
        mix: of a batch of float images and labels into mixed ones with soft labels: called with `num_classes`, it makes
            a transform such as torchvision's `v2.MixUp`.
        adjustment: factor of the log priors that are taken off the logits in the test; see `losses.adjust_logits`.
        learning_rate: in place of the budget's.
        source: what to mix in: a bank, a model, or a function (train, counts, *, seed, device) that makes a bank of
            the training part for each seed (`genaug.evaluate.makers`); `counts` are the synthetic images of each class.
            It must be made from the training part alone.
        target: total per class that synthetic images fill up to; see `genaug.balance`.
        cap: synthetic images per real one, at most.
        every: in place of `target` and `cap`: synthetic images of every class with real ones, as a factor of the mean
            number of these; of a bank with fewer, all. So with `replace` the look of samples tells nothing about the
            class.
        replace: probability that a synthetic image takes the place of a real one, from 0.001 to 0.999.
        until: share of the training after which batches hold real images alone.

    Raises:
        GenaugError: a value out of its range; `every` with `target` or `cap`.
    """

    balanced: bool = False
    loss: Loss = CrossEntropy()  # noqa: RUF009  (it is frozen)
    transform: Callable[[Tensor], Tensor] | None = None
    mix: Callable[..., Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] | None = None
    adjustment: float = 0.0
    learning_rate: float | None = None
    source: Any = None
    target: Target = "median"
    cap: float = 5.0
    every: float | None = None
    replace: float | None = None
    until: float = 1.0

    def __post_init__(self) -> None:
        limits = {
            "adjustment": (0.0, 10.0),
            "learning_rate": LEARNING_RATES,
            "every": (0.01, 1000.0),
            "replace": (0.001, 0.999),
            "until": (0.0, 1.0),
        }
        check_ranges(self, limits, optional=["learning_rate", "every", "replace"])
        if self.every is not None and (self.target, self.cap) != (Arm.target, Arm.cap):
            raise GenaugError("every takes the place of target and cap, so leave these out")


@dataclass(frozen=True)
class Budget:
    """What every arm gets: steps, batch size, optimizer and the course of its learning rate.

    Args:
        steps: of the optimizer.
        batch_size: images of a step.
        learning_rate: the highest one.
        optimizer: "adamw", or "sgd" with a momentum of 0.9, not Nesterov's.
        weight_decay: of the optimizer.
        schedule: after a warm-up, "cosine" down to 0, or "steps": a hundredth from 80 % of the steps on, a hundredth of
            that from 90 % on, as for long-tailed CIFAR (Cao et al. 2019, section 4).

    Raises:
        GenaugError: a value out of its range.
    """

    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 2e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 1e-2
    schedule: Literal["cosine", "steps"] = "cosine"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise GenaugError(f"{name} must be an integer of at least 1, got {shorten(getattr(self, name))}")
        check_ranges(self, {"learning_rate": LEARNING_RATES, "weight_decay": (0.0, 1.0)})
        for name, known in CHOICES.items():
            check_choice(getattr(self, name), known, name=name)
