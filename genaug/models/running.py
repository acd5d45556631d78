"""How models are run: in evaluation mode, in chunks, on noise drawn where its generator lives."""

import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from genaug.errors import GenaugError, check_count, shorten
from genaug.seeding import check_seeds

_lock = threading.Lock()
_modes: weakref.WeakKeyDictionary[nn.Module, tuple[int, list[tuple[nn.Module, bool]]]] = weakref.WeakKeyDictionary()


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Run a block in evaluation mode and without gradients, and give every module its mode back.

    Where threads do so at once, the modes are given back by the last one.

    Raises:
        GenaugError: weights of another dtype than float32, in which images are computed.
    """
    weights = next(model.parameters(), None)
    if weights is not None and weights.dtype != torch.float32:
        raise GenaugError(
            f"weights must be float32, got {weights.dtype}; for less, run the model within torch.autocast(device_type)"
        )
    with _lock:
        count, modes = _modes.get(model) or (0, [(module, module.training) for module in model.modules()])
        _modes[model] = count + 1, modes
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        with _lock:
            count, modes = _modes.pop(model, (1, []))  # nothing in a process that was forked within the block
            if count > 1:
                _modes[model] = count - 1, modes
            else:
                for module, training in modes:
                    module.training = training


def _forget_threads() -> None:
    """In a forked process: the threads that held the lock, or ran models, are not there."""
    global _lock
    _lock = threading.Lock()
    _modes.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def split_batches(batch_size: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Return equally long tensors in chunks of `batch_size` rows; no rows make one empty chunk.

    Raises:
        GenaugError: a batch size that is no integer of at least 1.
    """
    batch_size = check_count(batch_size, name="batch_size")
    return zip(*(tensor.split(batch_size) for tensor in tensors), strict=True)


def join(chunks: Iterable[Tensor]) -> Tensor:
    """Return chunks of images (n, C, H, W) one after another, contiguous: networks leave the channels last."""
    return torch.cat([chunk.contiguous() for chunk in chunks])


def draw(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Return standard normal numbers drawn where `generator` lives (the CPU without one), moved to `device`."""
    source = _place_of(generator)
    return torch.randn(shape, generator=generator, device=source, dtype=torch.float32).to(device)


def draw_noise(
    shape: tuple[int, int], generator: torch.Generator | None, seeds: Tensor | None, device: torch.device
) -> Tensor:
    """Return standard normal numbers (N, D), as `draw` does, or each row from its own of `seeds` (N,), on the CPU.

    A row that has a seed depends on it alone, so that it is the same in any batch.

    Raises:
        GenaugError: seeds of another type or number, or beside a generator.
    """
    if seeds is None:
        return draw(shape, generator, device)
    if generator is not None:
        raise GenaugError("seeds must be left out where there is a generator, whose place they take, got both")
    seeds = check_seeds(seeds, count=shape[0])
    rows, own = torch.empty(shape, dtype=torch.float32), torch.Generator()
    for row, seed in zip(rows, seeds.tolist(), strict=True):
        row.normal_(generator=own.manual_seed(seed))
    return rows.to(device)


def draw_uniform(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Return numbers uniform in [0, 1) drawn where `generator` lives (the CPU without one), moved to `device`."""
    source = _place_of(generator)
    return torch.rand(shape, generator=generator, device=source, dtype=torch.float32).to(device)


def draw_seeds(count: int, generator: torch.Generator | None) -> Tensor:
    """Return seeds (N,), int64 on the CPU, drawn where `generator` lives (the CPU without one)."""
    return torch.randint(2**62, (count,), generator=generator, device=_place_of(generator)).cpu()


def _place_of(generator: torch.Generator | None) -> torch.device:
    """Return the device that a generator draws on.

    Raises:
        GenaugError: something else than a generator, such as a seed.
    """
    if generator is None:
        return torch.device("cpu")
    if not isinstance(generator, torch.Generator):
        raise GenaugError(
            f"generator must be a torch.Generator, got {shorten(generator)}; pass torch.Generator().manual_seed(0)"
        )
    return generator.device
