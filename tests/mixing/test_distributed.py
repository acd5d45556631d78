"""Two ranks share the epoch's samples; MixedLoader replaces other rows on each."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from genaug import DataSpec, MixedDataset, MixedLoader, SampleBank

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning",
    "ignore:This DataLoader will create . worker processes:UserWarning",  # on machines with fewer cores
)
EPOCHS = 2

SCRIPT = """
import sys
import warnings
import torch
from datetime import timedelta
from safetensors.torch import save_file
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from genaug import MixedDataset, MixedLoader, SampleBank

torch.set_num_threads(1)
folder, rank = sys.argv[1], int(sys.argv[2])
store = torch.distributed.FileStore(f"{folder}/store", 2)
torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
images, labels = torch.load(f"{folder}/real.pt", weights_only=True)
bank = SampleBank.open(f"{folder}/bank")
mixed = MixedDataset(TensorDataset(images, labels), bank, target="max")
sampler = DistributedSampler(mixed, seed=5)
loader = DataLoader(mixed, batch_size=8, sampler=sampler, num_workers=1, multiprocessing_context="fork",
                    persistent_workers=True, generator=torch.Generator().manual_seed(rank))
found = {}
for epoch in range(2):
    mixed.set_epoch(epoch)
    sampler.set_epoch(epoch)
    batches = list(loader)
    found[f"images {epoch}"] = torch.cat([images for images, _ in batches])
    found[f"labels {epoch}"] = torch.cat([labels for _, labels in batches])
replaced = MixedLoader(list(zip(images.split(8), labels.split(8))), bank, fraction=0.5)
for epoch in (0, 1, 0):
    replaced.set_epoch(epoch)
    result = torch.cat([images for images, _ in replaced])
    assert torch.equal(found.setdefault(f"replaced {epoch}", result), result)
whole = DataLoader(TensorDataset(images, labels), batch_size=8)
for loader, expected in ((whole, 1), (DataLoader(mixed, batch_size=8, sampler=sampler), 0)):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        iter(MixedLoader(loader, bank, fraction=0.5))
    assert [str(each.message).split(":")[0] for each in seen] == ["each of 2 processes reads all data"] * expected
save_file(found, f"{folder}/{rank}.safetensors")
torch.distributed.destroy_process_group()
"""


class Noise:
    spec = DataSpec(3, 6, 6, ("ant", "bee"))

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(len(labels), 3, 6, 6, generator=generator)


def real(count: int = 40) -> tuple[Tensor, Tensor]:
    images = torch.randint(256, (count, 3, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return images, torch.tensor([0] * 30 + [1] * (count - 30))


@pytest.fixture(scope="module")
def bank() -> SampleBank:
    return SampleBank.generate(Noise(), 40, seed=0, progress=False)


def make_mixed(bank: SampleBank, *, count: int = 40, cap: float = 5.0) -> MixedDataset:
    return MixedDataset(TensorDataset(*real(count)), bank, target="max", cap=cap)


def interleave(ranks: list[Tensor]) -> Tensor:
    """Rows of several ranks, in the order in which a sampler hands them out."""
    return torch.stack(ranks, 1).flatten(0, 1)


def expect(mixed: MixedDataset, epoch: int, **options: Any) -> tuple[Tensor, Tensor]:
    """Images and labels of an epoch in one process, item by item."""
    mixed.set_epoch(epoch)
    sampler = DistributedSampler(mixed, num_replicas=1, rank=0, **options)
    sampler.set_epoch(epoch)
    items = [mixed[index] for index in sampler]
    return torch.stack([image for image, _ in items]), torch.tensor([int(label) for _, label in items])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_share_the_samples_of_the_epoch(shuffle: bool, workers: int, bank: SampleBank) -> None:
    options = {"shuffle": shuffle, "seed": 5}
    copies = [make_mixed(bank) for _ in range(2)]  # one for each rank
    samplers = [DistributedSampler(mixed, num_replicas=2, rank=rank, **options) for rank, mixed in enumerate(copies)]
    loaders = [
        DataLoader(
            mixed,
            batch_size=8,
            sampler=sampler,
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
            persistent_workers=bool(workers),
            generator=torch.Generator().manual_seed(rank),
        )
        for rank, (mixed, sampler) in enumerate(zip(copies, samplers, strict=True))
    ]
    epochs = []
    for epoch in range(EPOCHS):
        for mixed, sampler in zip(copies, samplers, strict=True):
            mixed.set_epoch(epoch)
            sampler.set_epoch(epoch)
        batches = [list(loader) for loader in loaders]
        images = interleave([torch.cat([images for images, _ in rank]) for rank in batches])
        labels = interleave([torch.cat([labels for _, labels in rank]) for rank in batches])
        expected_images, expected_labels = expect(make_mixed(bank), epoch, **options)
        assert len(images) == 60  # 30 ants, 10 bees and 20 synthetic ones
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)
        assert len(images.flatten(1).unique(dim=0)) == 60  # none in both
        epochs.append(images)
    assert not torch.equal(*epochs)


@pytest.mark.parametrize(("drop_last", "each"), [(False, 28), (True, 27)])
def test_an_odd_number(drop_last: bool, each: int, bank: SampleBank) -> None:
    mixed = make_mixed(bank, count=35, cap=4.0)  # 30 ants, 5 bees and 20 synthetic ones
    assert len(mixed) == 55
    found = []
    for rank in range(2):
        sampler = DistributedSampler(mixed, num_replicas=2, rank=rank, shuffle=False, drop_last=drop_last)
        loader = DataLoader(mixed, batch_size=8, sampler=sampler, generator=torch.Generator().manual_seed(0))
        found.append(torch.cat([images for images, _ in loader]))
    assert [len(images) for images in found] == [each, each]
    images, _ = expect(mixed, 0, shuffle=False)
    expected = torch.cat([images, images[:1]])[: 2 * each]  # torch repeats the first one, or leaves the last one out
    assert torch.equal(interleave(found), expected)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What two processes of a group read."""
    folder = tmp_path_factory.mktemp("ranks")
    SampleBank.generate(Noise(), 40, seed=0, path=folder / "bank", progress=False)
    torch.save(real(), folder / "real.pt")
    (folder / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, str(folder / "script.py"), str(folder), str(rank)] for rank in range(2)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        for command in commands
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=100)
            assert process.returncode == 0, output[-4000:]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [load_file(folder / f"{rank}.safetensors") for rank in range(2)]


def test_two_processes_share_the_samples_of_the_epoch(ranks: list[dict[str, Tensor]], bank: SampleBank) -> None:
    for epoch in range(EPOCHS):
        images, labels = expect(make_mixed(bank), epoch, seed=5)
        assert torch.equal(interleave([rank[f"images {epoch}"] for rank in ranks]), images)
        assert torch.equal(interleave([rank[f"labels {epoch}"] for rank in ranks]), labels)


def test_each_rank_replaces_rows_of_its_own(ranks: list[dict[str, Tensor]], bank: SampleBank) -> None:
    images, labels = real()
    alone = MixedLoader(list(zip(images.split(8), labels.split(8), strict=True)), bank, fraction=0.5)
    for epoch in range(EPOCHS):
        first, second = (rank[f"replaced {epoch}"] for rank in ranks)
        assert torch.equal(first, torch.cat([images for images, _ in alone]))  # one process is rank 0
        rows = [(images != found).flatten(1).any(1) for found in (first, second)]
        assert [int(changed.sum()) for changed in rows] == [20, 20]
        assert not torch.equal(*rows)
        assert not torch.equal(first, second)
