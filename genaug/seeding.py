"""Randomness as a function of (seed, keys): no state is kept, so any part of a run can be drawn again alone."""

import hashlib
import operator
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genaug.errors import GenaugError, shorten
from genaug.images import same_pixels


def check_seed(seed: int, *, name: str = "seed") -> int:
    """Return `seed` as a plain integer; NumPy's are taken, floats and text are not. `name` is that in the error.

    Raises:
        GenaugError: what is no integer.

    >>> check_seed(7)
    7
    """
    try:
        number = None if isinstance(seed, bool) else operator.index(seed)
    except (TypeError, ValueError, RuntimeError):  # the latter two from tensors and arrays of several numbers
        number = None
    if number is None:
        raise GenaugError(f"{name} must be an integer, such as 0, got {shorten(seed)}")
    return number


def check_seeds(seeds: Tensor, *, count: int) -> Tensor:
    """Return seeds of `count` images, one for each.

    Raises:
        GenaugError: what is no int64 tensor (N,), or of another number.

    >>> check_seeds(torch.tensor([7, 3]), count=2)
    tensor([7, 3])
    """
    if not isinstance(seeds, Tensor) or seeds.dtype != torch.int64 or seeds.shape != (count,):
        found = f"{seeds.dtype} {tuple(seeds.shape)}" if isinstance(seeds, Tensor) else shorten(seeds)
        raise GenaugError(f"seeds must be an int64 tensor ({count},), one for each image, got {found}")
    return seeds


def derive_seed(seed: int, *keys: int | str) -> int:
    """Return a 63-bit seed that depends on `seed` and `keys` alone, as a hash of their values and types.

    Raises:
        GenaugError: a seed that is no integer.

    >>> derive_seed(0, "batch", 1) == derive_seed(0, "batch", 1)
    True
    >>> derive_seed(0, "batch", 1) == derive_seed(0, "batch", 2)
    False
    """
    digest = hashlib.blake2b(repr((check_seed(seed), *keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def make_generator(seed: int, *keys: int | str) -> torch.Generator:
    """Return a new CPU generator seeded with `derive_seed(seed, *keys)`.

    >>> torch.rand(1, generator=make_generator(0, "noise", 3)).item() == torch.rand(
    ...     1, generator=make_generator(0, "noise", 3)
    ... ).item()
    True
    """
    return torch.Generator().manual_seed(derive_seed(seed, *keys))


@contextmanager
def unchanged_random_state(seed: int | None = None) -> Iterator[None]:
    """Put the global random states of torch (CPU), NumPy and Python back when a block ends, seeded within by `seed`.

    >>> with unchanged_random_state(0):
    ...     first = torch.rand(1)
    >>> with unchanged_random_state(0):
    ...     torch.equal(torch.rand(1), first)
    True
    """
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    if seed is not None:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])


def draws_at_random(read: Callable[[int], Any], indices: Iterable[int]) -> bool:
    """Tell whether `read` gives other images (PIL, tensor or array) where global random numbers are others.

    >>> draws_at_random(lambda index: torch.rand(1, 8, 8), [0]), draws_at_random(lambda index: torch.ones(1), [0])
    (True, False)
    """
    for index in indices:
        with unchanged_random_state(2 * index):  # others for each, since a flip may come out the same for two
            first = read(index)
        with unchanged_random_state(2 * index + 1):
            second = read(index)
        if not same_pixels(first, second):
            return True
    return False


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators (CPU and `device`) within a block, and give them their states back.

    For what draws from them alone: new weights, dropout, metrics of other libraries.

    >>> with own_randomness(0, torch.device("cpu")):
    ...     first = torch.rand(1)
    >>> with own_randomness(0, torch.device("cpu")):
    ...     torch.equal(torch.rand(1), first)
    True
    """
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
