"""Speed of transforms: against the bare call of the same network, and beside classical elastic deformations."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

from genaug.errors import GenaugError
from genaug.models import VAE, VAEConfig
from genaug.spec import DataSpec
from genaug.transforms import LatentJitter, Reconstruct
from genaug.workflows.timing import Row, take_turns, time_call

BATCH = 256
WIDTHS = (8, 16, 32)


def bench_transforms(repeats: int) -> list[Row]:
    """Time transforms on a float batch of 256 color images of 32x32, on a GPU where there is one."""
    try:
        from kornia.augmentation import RandomElasticTransform
    except ImportError as problem:
        raise GenaugError(f"the transforms benchmark needs kornia ({problem}); install genaug[kornia]") from None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(BATCH, 3, 32, 32, generator=generator).to(device)
    labels = torch.arange(BATCH) % 10
    on_device = labels.to(device)
    rows: list[Row] = []

    def add(title: str, ours: Callable[[], object], rival: Callable[[], object], aim: str) -> None:
        mine, theirs = take_turns(repeats, lambda: time_call(ours), lambda: time_call(rival))
        rows.append((title, mine, theirs, aim))

    model = _make_model(16, device)
    reconstruct, jitter = Reconstruct(model), LatentJitter(model, p=1.0)
    seldom = LatentJitter(model, p=0.1)
    bare = lambda: _call(model, images, on_device)  # noqa: E731
    add("Reconstruct / bare call of the network", lambda: reconstruct(images, labels), bare, "<= 1.05")
    add("LatentJitter / bare call of the network", lambda: jitter(images, labels), bare, "<= 1.05")
    add("LatentJitter, p = 0.1 / p = 1", lambda: seldom(images, labels), lambda: jitter(images, labels), "<= 0.15")
    elastic, elastic_v2 = RandomElasticTransform(p=1.0), v2.ElasticTransform()
    aim = "<= 1" if device.type == "cuda" else "<= 5"
    for width in WIDTHS:
        other = LatentJitter(_make_model(width, device), p=1.0)
        work = lambda other=other: other(images, labels)  # noqa: E731
        add(f"LatentJitter, width {width} / kornia RandomElasticTransform", work, lambda: elastic(images), aim)
        add(f"LatentJitter, width {width} / v2.ElasticTransform", work, lambda: elastic_v2(images), "")
        half = lambda other=other: _run_in_bfloat16(lambda: other(images, labels), device)  # noqa: E731
        add(f"LatentJitter, width {width}, bfloat16 / kornia's", half, lambda: elastic(images), aim)
    return rows


def _make_model(width: int, device: torch.device) -> VAE:
    """Return a VAE of 3x32x32 as it is before training, which takes no less time than after, with fitted densities."""
    model = VAE(DataSpec(3, 32, 32, tuple("0123456789")), VAEConfig(width=width))
    generator = torch.Generator().manual_seed(0)
    model.fit_after_training(torch.rand(200, 3, 32, 32, generator=generator), torch.arange(200) % 10)
    return model.eval().to(device)


def _run_in_bfloat16(work: Callable[[], object], device: torch.device) -> object:
    with torch.autocast(device.type, torch.bfloat16):
        return work()


def _call(model: VAE, images: Tensor, labels: Tensor) -> Tensor:
    """Encode and decode, without checks, noise or copies."""
    with torch.no_grad():
        return torch.sigmoid(model.decode_logits(model.code(images, labels), labels))
