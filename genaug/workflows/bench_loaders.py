"""Speed of loaders with synthetic samples in their batches, and their memory over many batches."""

from collections.abc import Iterable
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import v2

from genaug.bank import SampleBank
from genaug.mixing import MixedDataset, MixedLoader
from genaug.models import VAE, SmallCNN, VAEConfig
from genaug.spec import DataSpec
from genaug.workflows.timing import Row, read_memory, take_turns, time_call

IMAGES, BATCH, SHARE, CLASSES = 5000, 128, 0.3, 10
SOAK_BATCHES = 10_000
SPEC = DataSpec(3, 32, 32, tuple("0123456789"))


class _Photos(Dataset[tuple[Any, int]]):
    """Arrays that become PIL images item by item and go through a transform, as in torchvision's CIFAR10."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Any) -> None:
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets: list[int] = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), self.targets[index]


class NoiseSource:
    """A source of noise: the content of a bank does not matter to its speed."""

    spec = SPEC

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand((len(labels), 3, 32, 32), generator=generator)


def bench_loaders(repeats: int) -> list[Row]:
    """Time epochs with 30 % synthetic images against epochs of as many real ones, and print the memory of many."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(IMAGES) % CLASSES
    bank = SampleBank.generate(NoiseSource(), 500, seed=0, progress=False)
    rows: list[Row] = []

    def add(title: str, ours: Iterable[Any], rival: Iterable[Any], step: Any = None) -> None:
        sides = [lambda loader=loader: time_call(lambda: _run_epoch(loader, step)) for loader in (ours, rival)]
        mine, theirs = take_turns(repeats if step is None else max(3, repeats // 3), *sides)
        rows.append((title, mine, theirs, "<= 1.05"))

    pipeline = v2.Compose([v2.PILToTensor(), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)])
    kept = round((1 - SHARE) * IMAGES)
    for name, make in (
        ("tensors", lambda count: TensorDataset(images[:count], labels[:count])),
        ("PIL images and their transform", lambda count: _Photos(images[:count], labels[:count], pipeline)),
    ):
        mixed = MixedDataset(make(kept), bank, target=IMAGES // CLASSES)
        loaders = [DataLoader(data, batch_size=BATCH, shuffle=True) for data in (mixed, make(IMAGES))]
        add(f"epoch, 30 % from a bank / real only: {name}", *loaders)
    step = _make_step(device)
    loader = DataLoader(
        _Photos(images, labels, pipeline), batch_size=BATCH, shuffle=True, pin_memory=device.type == "cuda"
    )
    sources: dict[str, Any] = {"a bank": bank}
    if device.type == "cuda":
        sources["a VAE on the GPU"] = VAE(SPEC, VAEConfig(width=16)).eval().to(device)
    for name, source in sources.items():
        wrapped = MixedLoader(loader, source, fraction=SHARE, device=device)
        add(f"training epoch, MixedLoader with {name} / no mixing", wrapped, loader, step)
    _soak(images, labels, bank)
    return rows


def _run_epoch(loader: Iterable[Any], step: Any) -> None:
    for batch in loader:
        if step is not None:
            step(*batch)


def _make_step(device: torch.device) -> Any:
    model = SmallCNN(SPEC).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(images: Tensor, labels: Tensor) -> None:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _soak(images: Tensor, labels: Tensor, bank: SampleBank) -> None:
    """Print the memory of the process after a tenth of many batches, and after all."""
    loader = DataLoader(TensorDataset(images, labels), batch_size=16, shuffle=True)
    mixed = MixedLoader(loader, bank, fraction=SHARE)
    done, sizes = 0, []
    while done < SOAK_BATCHES:
        for _ in mixed:
            done += 1
            if done in (SOAK_BATCHES // 10, SOAK_BATCHES):
                sizes.append(read_memory().get("VmRSS", 0) / 2**20)
    Console().print(
        f"memory held: {sizes[0]:.0f} MiB after {SOAK_BATCHES // 10} batches of MixedLoader, {sizes[1]:.0f} MiB after "
        f"{SOAK_BATCHES}"
    )
