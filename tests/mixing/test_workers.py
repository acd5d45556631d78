"""Bit-identical samples for any number of workers, however these are started."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from genaug.bank import SampleBank
from genaug.mixing import MixedDataset
from genaug.spec import DataSpec

SPEC = DataSpec(3, 6, 6, ("ant", "bee"))
EPOCHS = 2

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning",
    "ignore:This DataLoader will create . worker processes:UserWarning",  # on machines with fewer cores
)


class Noise:
    """Uniform noise; nothing of it enters a worker."""

    spec = SPEC

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(len(labels), 3, 6, 6, generator=generator)


def make_mixed(path: Path | None) -> MixedDataset:
    bank = SampleBank.generate(Noise(), 40, seed=0, path=path, progress=False)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 3, 6, 6), generator=generator, dtype=torch.uint8)
    real = TensorDataset(images, torch.tensor([0] * 30 + [1] * 10))
    return MixedDataset(real, bank, target="max")


def read(mixed: MixedDataset, **options: Any) -> list[tuple[Tensor, Tensor]]:
    """Images and labels of each of two epochs."""
    if not options.get("num_workers"):
        options.pop("multiprocessing_context", None)
    loader = DataLoader(mixed, batch_size=16, generator=torch.Generator().manual_seed(0), **options)
    epochs = []
    for epoch in range(EPOCHS):
        mixed.set_epoch(epoch)
        batches = list(loader)
        epochs.append((torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])))
    return epochs


def expect(mixed: MixedDataset) -> list[tuple[Tensor, Tensor]]:
    """The same, item by item."""
    epochs = []
    for epoch in range(EPOCHS):
        mixed.set_epoch(epoch)
        epochs.append((torch.stack([image for image, _ in mixed]), torch.tensor(mixed.targets)))
    return epochs


@pytest.mark.parametrize(
    ("workers", "context", "persistent"),
    [
        (0, None, False),
        (1, "fork", False),
        (2, "fork", False),
        (1, "fork", True),
        (2, "fork", True),
        (4, "fork", False),
        (4, "fork", True),
        (2, "spawn", True),
        (1, "forkserver", True),
    ],
)
def test_workers_see_the_same_samples_and_epochs(
    workers: int, context: str | None, persistent: bool, tmp_path: Path
) -> None:
    mixed = make_mixed(tmp_path / "bank")
    expected = expect(mixed)
    assert not torch.equal(expected[0][0], expected[1][0])
    found = read(mixed, num_workers=workers, multiprocessing_context=context, persistent_workers=persistent)
    for (images, labels), (expected_images, expected_labels) in zip(found, expected, strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_weighted_sampler_takes_the_same_samples(workers: int, tmp_path: Path) -> None:
    mixed = make_mixed(tmp_path / "bank")
    weights = [1 / mixed.counts[label] if index % 3 else 0.0 for index, label in enumerate(mixed.targets)]

    def draw() -> WeightedRandomSampler:
        return WeightedRandomSampler(weights, 50, generator=torch.Generator().manual_seed(3))

    sampler, expected = draw(), []
    for epoch in range(EPOCHS):
        mixed.set_epoch(epoch)
        indices = list(sampler)
        expected.append((torch.stack([mixed[index][0] for index in indices]), indices))
        assert min(indices) < 40 <= max(indices)  # real and synthetic ones
    context = "fork" if workers else None
    found = read(mixed, sampler=draw(), num_workers=workers, multiprocessing_context=context)
    for (images, labels), (expected_images, indices) in zip(found, expected, strict=True):
        assert torch.equal(images, expected_images)
        assert labels.tolist() == [mixed.targets[index] for index in indices]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_bank_in_memory_reaches_workers(context: str) -> None:
    mixed = make_mixed(None)
    (images, _), *_ = read(mixed, num_workers=1, multiprocessing_context=context, persistent_workers=True)
    assert torch.equal(images, expect(mixed)[0][0])


def test_shuffling_is_the_samplers_affair(tmp_path: Path) -> None:
    mixed = make_mixed(tmp_path / "bank")
    orders = [read(mixed, shuffle=True, num_workers=workers)[0][1] for workers in (0, 1)]
    assert torch.equal(*orders)
