"""Losses against those of torch, and against their formulas written out."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genaug.errors import GenaugError
from genaug.evaluate.losses import (
    ClassWeighted,
    CrossEntropy,
    Deferred,
    EffectiveNumber,
    Focal,
    LogitAdjusted,
    Loss,
    adjust_logits,
)

COUNTS = torch.tensor([500, 60, 7, 1])
LOSSES = [
    CrossEntropy(),
    ClassWeighted(),
    EffectiveNumber(),
    Focal(),
    Focal(gamma=0.5),
    LogitAdjusted(),
    Deferred(EffectiveNumber()),
]


def draw(count: int = 12, classes: int = 4, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (N, C) and labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=generator)
    return logits, torch.randint(classes, (count,), generator=generator)


def mixed(labels: Tensor, others: Tensor, share: float, *, classes: int = 4) -> Tensor:
    return share * F.one_hot(labels, classes).float() + (1 - share) * F.one_hot(others, classes).float()


def evaluate(loss: Loss, logits: Tensor, targets: Tensor, *, counts: Tensor = COUNTS) -> tuple[Tensor, Tensor]:
    if targets.ndim == 1:
        targets = F.one_hot(targets, logits.shape[1]).float()
    return loss(logits, targets, counts=counts, progress=0.9)


def average(parts: tuple[Tensor, Tensor]) -> Tensor:
    losses, weights = parts
    return (weights * losses).sum() / weights.sum()


# --- values


@pytest.mark.parametrize("loss", [CrossEntropy(), LogitAdjusted(tau=0.0), Focal(gamma=0.0), EffectiveNumber(beta=0.0)])
def test_cross_entropy_and_what_becomes_it(loss: Loss) -> None:
    logits, labels = draw()
    losses, weights = evaluate(loss, logits, labels)
    torch.testing.assert_close(losses, F.cross_entropy(logits, labels, reduction="none"))
    assert torch.equal(weights, torch.ones(12))


def test_class_weights_are_those_of_torch() -> None:
    logits, labels = draw()
    expected = F.cross_entropy(logits, labels, weight=1 / COUNTS)
    torch.testing.assert_close(average(evaluate(ClassWeighted(), logits, labels)), expected)


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.999, 0.9999, 0.999999])
def test_effective_numbers_are_exact_for_few_images(beta: float) -> None:
    logits, labels = draw()
    counts = torch.tensor([100_000.0, 60.0, 1.0, 0.25])
    number = [(1 - math.pow(beta, n)) / (1 - beta) for n in counts.tolist()]  # double precision
    weights = torch.tensor([1 / each for each in number])
    torch.testing.assert_close(evaluate(EffectiveNumber(beta), logits, labels, counts=counts)[1], weights[labels])
    expected = F.cross_entropy(logits, labels, weight=weights)
    torch.testing.assert_close(average(evaluate(EffectiveNumber(beta), logits, labels, counts=counts)), expected)


def test_the_effective_number_counts_whole_images_as_a_geometric_series() -> None:
    logits = torch.zeros(4, 4)
    weights = evaluate(EffectiveNumber(0.99), logits, torch.arange(4))[1]
    series = [sum(0.99**j for j in range(n)) for n in COUNTS.tolist()]  # the sum that proposition 1 closes
    torch.testing.assert_close(weights, 1 / torch.tensor(series))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_is_its_formula(gamma: float) -> None:
    logits, labels = draw()
    p = logits.double().softmax(1).gather(1, labels[:, None])[:, 0]
    losses, weights = evaluate(Focal(gamma), logits, labels)
    torch.testing.assert_close(losses, (-((1 - p) ** gamma) * p.log()).float())
    assert torch.equal(weights, torch.ones(12))


def test_adjusted_logits_are_balanced_softmax() -> None:
    logits, labels = draw()
    z, n, y = logits.double().numpy(), COUNTS.numpy(), labels.numpy()
    p = n[y] * np.exp(z[np.arange(12), y]) / (n * np.exp(z)).sum(1)
    losses, weights = evaluate(LogitAdjusted(), logits, labels)
    torch.testing.assert_close(losses, torch.from_numpy(-np.log(p)).float())
    assert torch.equal(weights, torch.ones(12))


@pytest.mark.parametrize("tau", [0.3, 1.0, 2.5])
def test_adjustment_is_by_the_log_prior(tau: float) -> None:
    logits, labels = draw()
    prior = COUNTS / COUNTS.sum()
    expected = F.cross_entropy(logits + tau * prior.log(), labels, reduction="none")
    torch.testing.assert_close(evaluate(LogitAdjusted(tau), logits, labels)[0], expected)
    adjusted = adjust_logits(logits, counts=COUNTS, tau=tau)
    torch.testing.assert_close(adjusted.softmax(1), F.normalize(logits.softmax(1) / prior**tau, p=1, dim=1))


def test_adjustment_turns_posteriors_into_those_of_equal_classes() -> None:
    likelihood = torch.tensor([[0.2, 0.6, 0.1, 0.9]])
    posterior = F.normalize(likelihood * COUNTS, p=1, dim=1)
    adjusted = adjust_logits(posterior.log(), counts=COUNTS, tau=1.0)
    torch.testing.assert_close(adjusted.softmax(1), F.normalize(likelihood, p=1, dim=1))


def test_the_deferred_loss_takes_over_at_its_start() -> None:
    logits, labels = draw()
    targets = F.one_hot(labels, 4).float()
    for progress in (0.0, 0.59, 0.6, 0.99):
        found = Deferred(ClassWeighted(), start=0.6)(logits, targets, counts=COUNTS, progress=progress)
        expected = (CrossEntropy() if progress < 0.6 else ClassWeighted())(
            logits, targets, counts=COUNTS, progress=progress
        )
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


# --- mixed targets


@pytest.mark.parametrize("loss", LOSSES)
def test_weighted_losses_and_weights_are_linear_in_the_targets(loss: Loss) -> None:
    """So each class of a mixed image counts with its own weight, as MixUp with re-weighting has it."""
    logits, labels = draw()
    _, others = draw(seed=1)
    losses, weights = evaluate(loss, logits, mixed(labels, others, 0.3))
    (one, own), (other, their) = evaluate(loss, logits, labels), evaluate(loss, logits, others)
    torch.testing.assert_close(weights, 0.3 * own + 0.7 * their)
    torch.testing.assert_close(weights * losses, 0.3 * own * one + 0.7 * their * other)


@pytest.mark.parametrize("loss", [ClassWeighted(), EffectiveNumber(0.99)])
def test_of_mixed_targets_it_is_the_weighted_cross_entropy_of_torch(loss: Loss) -> None:
    logits, labels = draw()
    targets = mixed(labels, draw(seed=1)[1], 0.3)
    own = evaluate(loss, torch.zeros(len(COUNTS), len(COUNTS)), torch.arange(len(COUNTS)))[1]  # of each class
    losses, weights = evaluate(loss, logits, targets)
    torch.testing.assert_close(
        (weights * losses).sum(), F.cross_entropy(logits, targets, weight=own, reduction="sum"), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_counts_count_in_proportion_where_they_should(loss: Loss) -> None:
    logits, labels = draw()
    expected = average(evaluate(loss, logits, labels))
    doubled = average(evaluate(loss, logits, labels, counts=2.0 * COUNTS))
    if isinstance(loss, Deferred | EffectiveNumber):  # saturates, as images repeat each other
        assert not torch.equal(doubled, expected)
    else:
        torch.testing.assert_close(doubled, expected)


# --- classes that are not there, and certainty


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("counts", [[500, 0, 7, 1], [0.0, 0.0, 2.5, 0.5], [0, 0, 0, 3]])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_classes_without_images_leave_all_finite(loss: Loss, counts: list[float], scale: float) -> None:
    logits, _ = draw()
    logits = (scale * logits).requires_grad_()
    labels = torch.tensor([2, 3, 3] if counts[2] else [3, 3, 3]).repeat(4)
    losses, weights = evaluate(loss, logits, labels, counts=torch.tensor(counts))
    average((losses, weights)).backward()
    assert losses.isfinite().all()
    assert (weights > 0).all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", [ClassWeighted(), EffectiveNumber(), EffectiveNumber(beta=0.0)])
def test_classes_without_images_weigh_nothing(loss: Loss) -> None:
    weights = evaluate(loss, torch.zeros(4, 4), torch.arange(4), counts=torch.tensor([5, 0, 2, 0]))[1]
    assert [weight > 0 for weight in weights.tolist()] == [True, False, True, False]


def test_classes_without_images_have_the_prior_of_the_scarcest() -> None:
    logits, counts = torch.zeros(1, 4), torch.tensor([6, 0, 2, 0])
    expected = -torch.tensor([[6 / 8, 2 / 8, 2 / 8, 2 / 8]]).log()
    torch.testing.assert_close(adjust_logits(logits, counts=counts, tau=1.0), expected)
    losses = evaluate(LogitAdjusted(), logits, torch.tensor([2]), counts=counts)[0]
    torch.testing.assert_close(losses, torch.tensor([math.log(12 / 2)]))


@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 1.0, 2.0])
def test_certainty_leaves_the_focal_loss_and_its_slope_finite(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    losses, _ = evaluate(Focal(gamma), logits, torch.tensor([0, 0]), counts=torch.ones(2))
    losses.sum().backward()
    torch.testing.assert_close(losses, torch.tensor([0.0, 200.0]))
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0], [-1.0, 1.0]]))


@pytest.mark.parametrize("loss", LOSSES)
def test_slopes_are_those_of_finite_differences(loss: Loss) -> None:
    logits, labels = draw(3)
    targets = mixed(labels, labels.flip(0), 0.4).double()

    def total(logits: Tensor) -> Tensor:
        return average(evaluate(loss, logits, targets))

    assert torch.autograd.gradcheck(total, logits.double().requires_grad_())


@pytest.mark.parametrize("loss", LOSSES)
def test_mixed_precision_changes_little(loss: Loss) -> None:
    logits, labels = draw()
    targets = mixed(labels, labels.flip(0), 0.4)
    expected = evaluate(loss, logits, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = evaluate(loss, logits.bfloat16(), targets)
    torch.testing.assert_close(found[0], expected[0], rtol=0.03, atol=0.03)  # bfloat16 logits: 8 bits
    assert torch.equal(found[1], expected[1])


# --- fields


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EffectiveNumber(beta=1.0), "beta must be from 0 to 0.999999, got 1.0"),
        (lambda: EffectiveNumber(beta=-0.1), "beta must be from 0 to 0.999999, got -0.1"),
        (lambda: Focal(gamma=-1.0), "gamma must be from 0 to 10, got -1.0"),
        (lambda: Focal(gamma=math.nan), "gamma must be from 0 to 10, got nan"),
        (lambda: LogitAdjusted(tau=11.0), "tau must be from 0 to 10, got 11.0"),
        (lambda: Deferred(CrossEntropy(), start=1.5), "start must be from 0 to 1, got 1.5"),
    ],
)
def test_fields_out_of_range_are_named(make, message: str) -> None:
    with pytest.raises(GenaugError, match=message):
        make()


def test_losses_are_values() -> None:
    assert Deferred(EffectiveNumber(0.99)) == Deferred(EffectiveNumber(0.99), start=0.8)
    assert len(set(LOSSES)) == len(LOSSES)
