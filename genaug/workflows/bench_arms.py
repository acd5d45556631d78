"""The training step of a comparison against a bare loop: plain, and with flips, MixUp and synthetic images."""

import time
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler
from torchvision.transforms import v2

from genaug.data import LabeledImages
from genaug.evaluate import Arm, Budget
from genaug.evaluate.fitting import train_classifier
from genaug.evaluate.makers import Noise
from genaug.models import SmallCNN
from genaug.spec import DataSpec
from genaug.workflows.timing import Row, per_step, take_turns

SPEC = DataSpec(channels=3, height=32, width=32, class_names=tuple("0123456789"))
BUDGET = Budget(steps=12, batch_size=64)
COUNTS = [600] * 5 + [100] * 5
FLIPS = v2.RandomHorizontalFlip()


def bench_arms(repeats: int) -> list[Row]:
    """Time a step of the same classifier, batches, flips and MixUp at 3x32x32 on both sides."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat_interleave(torch.tensor(COUNTS))
    images = torch.randint(0, 256, (len(labels), 3, 32, 32), dtype=torch.uint8, generator=generator)
    data = LabeledImages(images, labels, SPEC)
    mix = partial(v2.MixUp, alpha=1.0)
    arms = [
        Arm(balanced=True),
        Arm(balanced=True, transform=FLIPS, mix=mix),
        Arm(balanced=True, transform=FLIPS, source=Noise(), target=600),
    ]
    bank = Noise()(data, [500 if count == 100 else 0 for count in COUNTS], seed=0, device=torch.device("cpu"))
    more = torch.cat([images, bank.images(range(len(bank)))]), torch.cat([labels, bank.labels])
    found = take_turns(
        repeats,
        *(partial(_time_arm, arm, data) for arm in arms),
        lambda: _time_loop(images, labels),
        lambda: _time_loop(images, labels, flips=True, mix=True),
        lambda: _time_loop(*more, flips=True),
    )
    titles = "step of an arm / bare loop, 3x32x32, batch 64", "with flips and MixUp", "with flips and a bank"
    return [(title, ours, rival, "<= 1.05") for title, ours, rival in zip(titles, found[:3], found[3:], strict=True)]


def _time_arm(arm: Arm, data: LabeledImages) -> float:
    times: list[float] = []
    train_classifier(
        arm,
        data,
        classifier=SmallCNN,
        budget=BUDGET,
        seed=0,
        device=torch.device("cpu"),
        on_step=lambda: times.append(time.perf_counter()),
    )
    return per_step(times)


def _time_loop(images: Tensor, labels: Tensor, *, flips: bool = False, mix: bool = False) -> float:
    """Return the seconds of a step as users write it: a loader, class-balanced, and cross-entropy."""
    data = _Flipped(images, labels) if flips else TensorDataset(images, labels)
    shares = 1.0 / labels.bincount()[labels].double()
    draws = WeightedRandomSampler(
        shares.tolist(), BUDGET.steps * BUDGET.batch_size, generator=torch.Generator().manual_seed(0)
    )
    blend = v2.MixUp(num_classes=10, alpha=1.0) if mix else None
    net, times = SmallCNN(SPEC).train(), []
    optimizer = torch.optim.AdamW(net.parameters(), lr=BUDGET.learning_rate, weight_decay=1e-2, fused=True)
    for batch, targets in DataLoader(data, batch_size=BUDGET.batch_size, sampler=draws):
        if blend is not None:
            batch, targets = blend(batch / 255, targets)
        loss = F.cross_entropy(net(batch), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter())
    return per_step(times)


class _Flipped(TensorDataset):
    """Images that are flipped at random when they are read."""

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        image, label = super().__getitem__(index)  # type: ignore[no-untyped-call]
        return FLIPS(image), label
