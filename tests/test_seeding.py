"""Seeds depend on their keys alone, and on all of them."""

import hashlib
import itertools
from typing import Any

import numpy as np
import pytest
import torch

from genaug.errors import GenaugError
from genaug.seeding import check_seed, check_seeds, derive_seed, make_generator


@pytest.mark.parametrize("keys", [(), (1,), ("batch", 3), ("a", "b", 0)])
@pytest.mark.parametrize("seed", [0, -1, 2**80])
def test_is_the_documented_hash(seed: int, keys: tuple[int | str, ...]) -> None:
    digest = hashlib.blake2b(repr((seed, *keys)).encode(), digest_size=8).digest()
    expected = sum(byte << (8 * place) for place, byte in enumerate(digest)) // 2
    assert derive_seed(seed, *keys) == expected
    assert 0 <= expected < 2**63


@pytest.mark.parametrize("seed", [np.int64(5), np.uint8(5), torch.tensor(5)])
def test_integers_of_other_libraries_are_the_plain_ones(seed: Any) -> None:
    assert derive_seed(seed, "a") == derive_seed(5, "a")
    assert type(check_seed(seed)) is int


@pytest.mark.parametrize("seed", ["a", "5", 1.5, 2.0, None, True, torch.tensor([1, 2]), torch.tensor(0.5), [0]])
def test_seeds_that_are_no_integers(seed: Any) -> None:
    for call in (derive_seed, make_generator, check_seed):
        with pytest.raises(GenaugError, match="^seed must be an integer, such as 0, got ") as caught:
            call(seed)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "seeds", [[1, 2], 1, None, torch.tensor([1.0, 2.0]), torch.tensor([1]), torch.tensor([[1, 2]])]
)
def test_seeds_of_images_that_are_none(seeds: Any) -> None:
    with pytest.raises(GenaugError, match=r"^seeds must be an int64 tensor \(2,\), one for each image, got "):
        check_seeds(seeds, count=2)


def test_every_key_its_type_and_its_place_count() -> None:
    families = [(), (0,), ("0",), (1,), ("a",), ("a", "b"), ("b", "a"), ("ab",), ("a, b",), ("a', 'b",), (0, 1), (1, 0)]
    seeds = [derive_seed(seed, *keys) for seed, keys in itertools.product((0, 1, -1), families)]
    assert len(set(seeds)) == len(seeds)
    assert len({derive_seed(0, "step", step) for step in range(10_000)}) == 10_000


def test_bits_look_random() -> None:
    ones = sum(bin(derive_seed(0, index)).count("1") for index in range(1000))
    assert abs(ones - 1000 * 63 / 2) < 5 * (1000 * 63 / 4) ** 0.5  # five standard deviations of a binomial


def test_generators_are_new_equal_and_apart_from_the_global_one() -> None:
    first, second, other = make_generator(0, "noise"), make_generator(0, "noise"), make_generator(0, "noise", 1)
    draws = [torch.randn(1000, generator=generator) for generator in (first, second, other)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    expected = torch.Generator().manual_seed(derive_seed(0, "noise"))
    assert torch.equal(draws[0], torch.randn(1000, generator=expected))
    assert first.device.type == "cpu"
    correlation = torch.corrcoef(torch.stack([draws[0], draws[2]]))[0, 1]
    assert abs(correlation) < 5 / 1000**0.5
