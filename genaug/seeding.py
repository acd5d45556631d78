"""Randomness as a function of (seed, keys): no state is kept, so any part of a run can be drawn again alone."""

import hashlib

import torch


def derive_seed(seed: int, *keys: int | str) -> int:
    """Return a 63-bit seed that depends on `seed` and `keys` alone, as a hash of their values and types.

    >>> derive_seed(0, "batch", 1) == derive_seed(0, "batch", 1)
    True
    >>> derive_seed(0, "batch", 1) == derive_seed(0, "batch", 2)
    False
    """
    digest = hashlib.blake2b(repr((int(seed), *keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def make_generator(seed: int, *keys: int | str) -> torch.Generator:
    """Return a new CPU generator seeded with `derive_seed(seed, *keys)`.

    >>> torch.rand(1, generator=make_generator(0, "noise", 3)).item() == torch.rand(
    ...     1, generator=make_generator(0, "noise", 3)
    ... ).item()
    True
    """
    return torch.Generator().manual_seed(derive_seed(seed, *keys))
