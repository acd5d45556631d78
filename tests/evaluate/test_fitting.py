"""The training of a classifier: against a bare loop, with mixed batches, weights, adjusted logits and schedules."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from genaug import GenaugError
from genaug.data import LabeledImages, load_data
from genaug.evaluate import Arm, Budget
from genaug.evaluate.fitting import check_classifier, learning_rate_factor, predict, train_classifier
from genaug.evaluate.losses import LogitAdjusted
from genaug.models import SmallCNN
from genaug.seeding import derive_seed, own_randomness
from genaug.spec import DataSpec
from genaug.training.schedules import ClassSampler

CPU = torch.device("cpu")


class Linear(nn.Module):
    """Logits of the pixels, and a record of what it saw in training."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.net = nn.Linear(64, spec.num_classes)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.seen.append(images.clone())
        pixels = images / 255 if images.dtype == torch.uint8 else images
        return self.net(pixels.flatten(1))


@pytest.fixture(scope="module")
def train() -> LabeledImages:
    digits = load_data("digits")
    return digits.subset(torch.arange(300))


@pytest.fixture(scope="module")
def scarce(train: LabeledImages) -> LabeledImages:
    members = (torch.nonzero(train.labels == label).flatten() for label in range(10))
    return train.subset(torch.cat([rows[: 30 if label < 5 else 5] for label, rows in enumerate(members)]))


def fit(arm: Arm, train: LabeledImages, *, steps: int = 12, seed: int = 3, **budget: Any) -> tuple[nn.Module, list]:
    given = Budget(**{"steps": steps, "batch_size": 20, "learning_rate": 0.05, **budget})
    return train_classifier(arm, train, classifier=Linear, budget=given, seed=seed, device=CPU, on_step=lambda: None)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_it_is_what_a_bare_loop_makes(optimizer: str, train: LabeledImages) -> None:
    budget = {"optimizer": optimizer, "weight_decay": 1e-3, "schedule": "cosine" if optimizer == "adamw" else "steps"}
    net, counts = fit(Arm(balanced=True), train, **budget)
    with own_randomness(derive_seed(3, "classifier"), CPU):
        bare = Linear(train.spec)
    sampler = ClassSampler(train.labels, exponent=0.0, seed=derive_seed(3, "classifier batches"))
    make = {"adamw": torch.optim.AdamW, "sgd": partial(torch.optim.SGD, momentum=0.9)}[optimizer]
    optim = make(bare.parameters(), lr=0.05, weight_decay=1e-3)
    rates = torch.optim.lr_scheduler.LambdaLR(
        optim, lambda step: learning_rate_factor(step, Budget(steps=12, schedule=budget["schedule"]))
    )
    for step in range(12):
        rows = sampler.rows(step, batch_size=20)
        loss = F.cross_entropy(bare(train.images[rows]), train.labels[rows])
        optim.zero_grad()
        loss.backward()
        optim.step()
        rates.step()
    torch.testing.assert_close(net.net.weight, bare.net.weight, rtol=1e-4, atol=1e-6)
    assert counts == train.counts
    assert not net.training


def test_steps_of_the_learning_rate() -> None:
    budget = Budget(steps=200, schedule="steps")
    assert [learning_rate_factor(step, budget) for step in (0, 4, 5, 159)] == [0.2, 1.0, 1.0, 1.0]
    assert [learning_rate_factor(step, budget) for step in (160, 179, 180)] == pytest.approx([1e-2, 1e-2, 1e-4])


def test_the_learning_rate_of_an_arm_goes_before_that_of_the_budget(train: LabeledImages) -> None:
    own = fit(Arm(learning_rate=0.01), train)[0]
    assert torch.equal(own.net.weight, fit(Arm(), train, learning_rate=0.01)[0].net.weight)
    assert not torch.equal(own.net.weight, fit(Arm(), train)[0].net.weight)


def test_mixed_batches_are_blends_by_one_share(train: LabeledImages) -> None:
    mixed, plain = fit(Arm(mix=partial(v2.MixUp, alpha=1.0)), train)[0], fit(Arm(), train)[0]
    again = fit(Arm(mix=partial(v2.MixUp, alpha=1.0)), train)[0]
    assert torch.equal(mixed.net.weight, again.net.weight)
    shares = []
    for blend, batch in zip(mixed.seen, plain.seen, strict=True):
        own, other = (part.double().flatten() for part in (batch / 255, batch.roll(1, 0) / 255))
        gap = own - other
        share = float(((blend.double().flatten() - other) @ gap) / (gap @ gap))
        torch.testing.assert_close(blend.double().flatten(), share * own + (1 - share) * other, rtol=0, atol=1e-5)
        shares.append(share)
    assert min(shares) >= -1e-6
    assert max(shares) <= 1 + 1e-6
    assert len({round(share, 4) for share in shares}) == 12


def test_adjusted_logits_in_the_test_are_those_without_the_log_priors(scarce: LabeledImages) -> None:
    plain, adjusted = fit(Arm(), scarce)[0], fit(Arm(adjustment=0.5), scarce)[0]
    priors = torch.tensor(scarce.counts).double() / len(scarce)
    expected = predict(plain, scarce.images, device=CPU) - 0.5 * priors.log()
    torch.testing.assert_close(predict(adjusted, scarce.images, device=CPU).double(), expected, rtol=1e-4, atol=1e-5)


def test_losses_are_told_that_balanced_classes_are_equal(scarce: LabeledImages) -> None:
    plain, adjusted = (fit(Arm(balanced=True, loss=loss), scarce)[0] for loss in (Arm().loss, LogitAdjusted(tau=1.0)))
    torch.testing.assert_close(plain.net.weight, adjusted.net.weight, rtol=1e-3, atol=1e-4)
    other = fit(Arm(loss=LogitAdjusted(tau=1.0)), scarce)[0]
    assert not torch.allclose(other.net.weight, fit(Arm(), scarce)[0].net.weight, atol=1e-2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda spec: nn.Sequential(nn.Flatten(), Cast(), nn.Linear(64, 7)), r"\(2, 10\) of two images, got \(2, 7\)"),
        (lambda spec: "resnet", "classifier must make an nn.Module from a DataSpec, got str"),
        (lambda spec: Pair(), r"must return logits \(N, classes\), .* got tuple"),
    ],
)
def test_classifiers_that_do_not_fit(make: Any, message: str, train: LabeledImages) -> None:
    with pytest.raises(GenaugError, match=message):
        check_classifier(make, train, device=CPU)


def test_classifiers_that_fail_in_training_alone(train: LabeledImages) -> None:
    def make(spec: Any) -> nn.Module:
        return nn.Sequential(nn.Flatten(), Cast(), nn.Linear(64, 10), nn.BatchNorm1d(10))

    check_classifier(make, train, device=CPU, batch_size=2)
    with pytest.raises(
        GenaugError, match=r"1x8x8, 1 of them in training, but fails \(ValueError: 'Expected more than 1"
    ):
        check_classifier(make, train, device=CPU, batch_size=1)


def test_a_classifier_must_be_new_whenever_it_is_made(train: LabeledImages) -> None:
    with own_randomness(0, CPU):
        net = SmallCNN(train.spec)
    with pytest.raises(GenaugError, match="classifier must make a network from a DataSpec, got a network"):
        check_classifier(net, train, device=CPU)
    with pytest.raises(GenaugError, match="classifier must make a new network whenever it is called"):
        check_classifier(lambda spec: net, train, device=CPU)


def test_floats_of_mixup_must_mean_what_integers_do(train: LabeledImages) -> None:
    def make(spec: Any) -> nn.Module:
        return nn.Sequential(Scale(), nn.Flatten(), nn.Linear(64, 10))

    check_classifier(make, train, device=CPU)
    with pytest.raises(GenaugError, match=r"float ones in \[0, 1\], which MixUp and CutMix make"):
        check_classifier(make, train, device=CPU, floats=True)
    check_classifier(SmallCNN, train, device=CPU, floats=True)


class Scale(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images / 255


class Cast(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float()


class Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


def test_a_classifier_of_other_sizes_is_one_line() -> None:
    class Fixed(SmallCNN):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.shape[2] == 224, "Input height (8) doesn't match model (224)"
            return super().forward(images)

    with pytest.raises(
        GenaugError, match="classifier must take images 1x8x8, .* but fails .AssertionError: .Input height"
    ):
        check_classifier(Fixed, load_data("digits"), device=torch.device("cpu"))
