"""Randomness as a function of (seed, keys): no state is kept, so any part of a run can be drawn again alone."""

import hashlib
import operator

import torch

from genaug.errors import GenaugError, shorten


def check_seed(seed: int) -> int:
    """Return `seed` as a plain integer; NumPy's are taken, floats and text are not.

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
        raise GenaugError(f"seed must be an integer, such as 0, got {shorten(seed)}")
    return number


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
