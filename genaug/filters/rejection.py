"""Rejection sampling with a discriminator, so that what is kept is closer to the real images than what was drawn."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genaug.bank.drawing import check_source, known_classes
from genaug.data import LabeledImages
from genaug.devices import choose_device
from genaug.errors import DataError, GenaugError, check_count, check_number, shorten
from genaug.filters.base import SampleFilter
from genaug.images import to_uint8
from genaug.models.base import Model, require
from genaug.models.running import inference
from genaug.seeding import derive_seed, make_generator

DRAW = 128  # samples that the burn-in draws at once
EPSILON = 1e-6  # keeps F finite for the sample with the highest ratio

Score = Callable[[Tensor, Tensor], Tensor]


class DiscriminatorRejection(SampleFilter):
    """Discriminator rejection sampling (Azadi et al., 2019): the higher a sample's score, the likelier it is kept.

    The scores are calibrated first: a logistic regression between held-out real images and samples turns them into
    D, the logarithm of how much likelier an image is among real ones. It sees the scores less their mean over the
    samples of the class, as some losses of discriminators, such as the relativistic one, leave the level of a class
    open. A burn-in then takes the greatest D of the samples of each class, M, and from
    F = D - M - log(1 - exp(D - M - epsilon)) the value gamma that `percentile` percent of them do not exceed. A sample
    is kept with probability sigmoid(F - gamma) (section 3 of the paper); samples beyond M count as M.

    Where the paper takes gamma from each batch, and raises M as it goes on, both are fixed here after the burn-in, and
    the coin that is tossed for a sample depends on `seed`, its pixels and its label: the verdict is the same in any
    batch and order. A sample that is drawn twice, as from a bank, gets the same verdict twice. Only a function of your
    own that looks at the rest of its batch (minibatch standard deviation) changes that, as `GAN.discriminate` does not:
    it is given images of one class at a time, here and by a bank, and its verdicts repeat where the same bank is drawn
    again.

    Args:
        score: a model that can discriminate, such as a `GAN`; or what is called with uint8 images (n, C, H, W) and
            labels (n,) on `device`, and returns logits (n,), higher for real images. Modules run in evaluation mode.
        source: the model or bank whose samples will be filtered.
        held_out: real images that neither `score` nor `source` has learned from.
        seed: of the burn-in's samples and of the coins.
        burn_in: samples to draw of each class, at least 2.
        percentile: from 0 to 100; the higher, the fewer and better samples are kept.
        device: where `score` gets its images; by default where the weights of a model or module are, or the CPU.

    Attributes `slope`, `offset` and `centers` (num_classes,) hold the calibration, D = slope (score - center) + offset;
    `highest` and `gamma` (num_classes,) the burn-in.

    Raises:
        DataError: a source without classes, held-out images of other classes or another size, or none of the classes
            that the source has; a score that is no finite tensor (n,), or no higher on real images than on samples;
            later, samples of a class that the source had none of.
        GenaugError: a model that cannot discriminate, or no function; a burn-in, percentile, seed or device that cannot
            be used.

    >>> import genaug
    >>> from genaug.data import load_data
    >>> def contrast(images, labels):
    ...     return images.float().diff(dim=3).abs().mean((1, 2, 3))
    >>> source, held_out = genaug.load("digits-vae", device="cpu"), load_data("digits", split="test")
    >>> keep = DiscriminatorRejection(contrast, source, held_out=held_out, seed=0, burn_in=20)
    >>> len(genaug.SampleBank.generate(source, 2, seed=0, filters=[keep], progress=False))
    20
    """

    def __init__(
        self,
        score: Score | Model,
        source: Any,
        *,
        held_out: LabeledImages,
        seed: int,
        burn_in: int = 500,
        percentile: float = 80.0,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__(held_out.spec)
        burn_in = check_count(burn_in, name="burn_in", least=2)
        share = check_number(percentile, name="percentile", low=0, high=100) / 100
        names = check_source(source).class_names
        if names != self.spec.class_names:
            raise DataError(
                f"held_out must have the classes of source in the same order, {shorten(names)}, got "
                f"{shorten(self.spec.class_names)}"
            )
        self._net = score if isinstance(score, nn.Module) else nn.Identity()
        self.score: Score = require(score, "discriminate") if isinstance(score, Model) else score
        if not callable(self.score):
            raise GenaugError(
                f"score must be a model that can discriminate, or a function of images and labels, got {shorten(score)}"
            )
        if device is None:
            weight = next(self._net.parameters(), None)
            device = "cpu" if weight is None else weight.device
        self._device = choose_device(device)
        self._fitted_to = "source"
        self._key = str(derive_seed(seed, "rejection")).encode()
        classes = known_classes(source)
        self._known = torch.zeros(len(names), dtype=torch.bool)
        self._known[classes] = True
        drawn = {index: self._score_source(source, index, burn_in, seed) for index in classes}
        real = {index: self._score_real(held_out, index) for index in classes}
        self.centers, self.highest, self.gamma = torch.zeros(3, len(names), dtype=torch.float64)
        for index, logits in drawn.items():
            self.centers[index] = logits.mean()
        self.slope, self.offset = _calibrate(*(self._center(scores) for scores in (real, drawn)))
        for index, logits in self._center(drawn).items():
            ratios = self.slope * logits + self.offset
            self.highest[index] = ratios.max()
            values = _shape(ratios - self.highest[index])
            self.gamma[index] = float(np.quantile(values.numpy(), share))

    def _center(self, scores: dict[int, Tensor]) -> dict[int, Tensor]:
        return {index: logits - self.centers[index] for index, logits in scores.items()}

    def _score_source(self, source: Any, index: int, count: int, seed: int) -> Tensor:
        scores = []
        for start in range(0, count, DRAW):
            labels = torch.full((min(DRAW, count - start),), index)
            with torch.no_grad():
                images = source.sample(labels, generator=make_generator(seed, "burn-in", index, start))
            self.spec.check_images(images, name="images of source")
            scores.append(self._score(to_uint8(images), labels))
        return torch.cat(scores)

    def _score_real(self, data: LabeledImages, index: int) -> Tensor:
        # one class at a time, as samples: a discriminator may look at the whole batch
        rows = (data.labels == index).nonzero().flatten()
        batches = [self._score(data.images[part], data.labels[part]) for part in rows.split(DRAW)]
        return torch.cat(batches) if len(rows) else torch.zeros(0, dtype=torch.float64)

    def _score(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the logits (n,) of uint8 images, float64 on the CPU."""
        with inference(self._net):
            logits = self.score(images.to(self._device), labels.to(self._device))
        if not isinstance(logits, Tensor) or logits.shape != labels.shape or not logits.is_floating_point():
            got = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise DataError(f"score must return a floating point tensor of shape ({len(labels)},), got {got}")
        if not bool(logits.isfinite().all()):
            raise DataError("score must return finite logits, got infinite ones or NaN")
        return logits.double().cpu()

    def probabilities(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the probability that each of at most 256 images (n, C, H, W) with labels (n,) is kept: float64 (n,).

        Raises:
            DataError: as a call of the filter.
        """
        self.check_classes(labels)
        ratios = self.slope * (self._score(to_uint8(images), labels) - self.centers[labels]) + self.offset
        return torch.sigmoid(_shape(ratios - self.highest[labels]) - self.gamma[labels])

    def judge(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return which images to keep, as the coin of each falls: bool (n,)."""
        pairs = zip(images.contiguous().numpy(), labels.tolist(), strict=True)
        coins = torch.tensor([self._toss(image.tobytes(), label) for image, label in pairs], dtype=torch.float64)
        return coins < self.probabilities(images, labels)

    def _toss(self, pixels: bytes, label: int) -> float:
        """Return a number from [0, 1) that looks random, and depends on the seed, the pixels and the label."""
        digest = hashlib.blake2b(pixels, digest_size=8, key=self._key, salt=label.to_bytes(8, "little")).digest()
        return (int.from_bytes(digest, "little") >> 11) / 2**53


def _shape(below: Tensor) -> Tensor:
    """Return F (n,), without gamma, of D - M (n,)."""
    below = below.clamp(max=0)
    shaped: Tensor = below - torch.log(-torch.expm1(below - EPSILON))
    return shaped


def _calibrate(real: dict[int, Tensor], drawn: dict[int, Tensor]) -> tuple[float, float]:
    """Return slope and offset that turn scores into logarithms of the ratio of real images to samples (Platt, 1999).

    Takes scores of real images and of samples, by class, less the mean of the class's samples. Samples of a class weigh
    as much in all as its real images, so that the shares of the classes do not matter.
    """
    both = [index for index in drawn if len(real[index])]
    if not both:
        raise DataError("held_out must hold images of the classes that source has samples of, got none")
    total = sum(len(real[index]) for index in both)
    scores = torch.cat([real[index] for index in both] + [drawn[index] for index in both])
    shares = [torch.full_like(drawn[index], len(real[index]) / len(drawn[index])) for index in both]
    weights = torch.cat([torch.ones_like(scores[:total]), *shares])
    # not 1 and 0: scores that separate the two kinds would have no finite slope
    targets = torch.full_like(scores, 1 / (total + 2))
    targets[:total] = (total + 1) / (total + 2)
    mean, deviation = float(scores.mean()), float(scores.std())
    line = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")
    values = (scores - mean) / max(deviation, 1e-300)

    def step() -> Tensor:
        optimizer.zero_grad()
        logits = line[0] * values + line[1]
        loss = F.binary_cross_entropy_with_logits(logits, targets, weight=weights, reduction="sum") / weights.sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(step)
    slope, offset = line.tolist()
    if not deviation or slope <= 0:
        raise DataError(
            "score must be higher on held-out real images than on samples, got a difference of "
            f"{float(scores[:total].mean()):.4g} on average; a discriminator that knows its training images by heart "
            "cannot filter"
        )
    return slope / deviation, offset - slope * mean / deviation
