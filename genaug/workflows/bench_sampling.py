"""Samples into a bank against the bare generator in a loop; filters are not counted."""

import tempfile

import torch
from rich.console import Console
from torch import Tensor

from genaug.bank import SampleBank
from genaug.images import from_model, to_uint8
from genaug.models import GAN, GANConfig
from genaug.spec import DataSpec
from genaug.workflows.timing import Row, take_turns, time_call

SAMPLES = 500  # of each class
BATCH = 128
CONFIG = GANConfig()


def bench_sampling(repeats: int) -> list[Row]:
    """Time `SampleBank.generate` against the same generator in a loop; images a second are printed too."""
    model = GAN(DataSpec(channels=1, height=28, width=28, class_names=("a", "b")), CONFIG).eval()

    def bare() -> Tensor:
        generator, batches = torch.Generator().manual_seed(0), []
        with torch.no_grad():
            for label in range(2):
                for labels in torch.full((SAMPLES,), label).split(BATCH):
                    latents = torch.randn(len(labels), CONFIG.latent_dim, generator=generator)
                    batches.append(to_uint8(from_model(model.generator(latents, labels))))
        return torch.cat(batches)

    def on_disk() -> SampleBank:
        with tempfile.TemporaryDirectory() as folder:
            return SampleBank.generate(model, SAMPLES, seed=0, path=f"{folder}/bank", progress=False)

    memory, disk, rival = take_turns(
        max(3, repeats // 3),
        lambda: time_call(lambda: SampleBank.generate(model, SAMPLES, seed=0, progress=False)),
        lambda: time_call(on_disk),
        lambda: time_call(bare),
    )
    rates = {"bank": memory, "on disk": disk, "bare loop": rival}
    shown = ", ".join(f"{name} {2 * SAMPLES / seconds:.0f}" for name, seconds in rates.items())
    Console().print(f"images a second, 28x28, width {CONFIG.width}, {torch.get_num_threads()} threads: {shown}")
    return [
        ("bank of samples / bare generator", memory, rival, "<= 1.1"),
        ("the same on disk / bare generator", disk, rival, "<= 1.1"),
    ]
