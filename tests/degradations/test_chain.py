"""What holds for every kind, alone and in a row: seeds, untouched input, shapes, plain values, words and errors.

That no global generator is touched is checked after every test (conftest.py).
"""

import json
import pickle
from dataclasses import FrozenInstanceError, asdict, fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug import degradations
from genaug.degradations import (
    DEGRADATIONS,
    Clip,
    Degradation,
    Downsample,
    GaussianBlur,
    GaussianNoise,
    Jpeg,
    MissingPixels,
    MissingRectangles,
    MotionBlur,
    PoissonNoise,
    SaltAndPepper,
    SpeckleNoise,
    UniformNoise,
    degrade,
    describe,
    parse_degradation,
    parse_degradations,
)
from genaug.errors import DataError, GenaugError

EXAMPLES = {
    GaussianNoise(noise_level=0.1): "gaussian noise 0.1",
    GaussianNoise(noise_level=(0, 0.22)): "gaussian noise 0 to 0.22",
    PoissonNoise(peak=30): "poisson noise of peak 30",
    PoissonNoise(peak=(5, 50.5)): "poisson noise of peak 5 to 50.5",
    SpeckleNoise(noise_level=(0.1, 0.3)): "speckle noise 0.1 to 0.3",
    UniformNoise(noise_level=(0.1, 0.3)): "uniform noise 0.1 to 0.3",
    SaltAndPepper(fraction=(0, 0.2)): "salt and pepper 0 to 0.2",
    Clip(): "clipped",
    Jpeg(quality=30): "jpeg quality 30",
    Jpeg(quality=(10, 90)): "jpeg quality 10 to 90",
    GaussianBlur(sigma=(0, 1.5)): "gaussian blur 0 to 1.5",
    MotionBlur(length=(1, 6)): "motion blur 1 to 6",
    Downsample(factor=3): "downsampled 3x",
    MissingRectangles(count=1, size=0.3): "1 missing rectangle of 0.3",
    MissingRectangles(count=(0, 3), size=(0, 0.5), value=0.5): "0 to 3 missing rectangles of 0 to 0.5 filled with 0.5",
    MissingPixels(fraction=(0.1, 0.9)): "missing pixels 0.1 to 0.9",
    MissingPixels(fraction=0.5, value=1): "missing pixels 0.5 filled with 1",
}
CHAIN = (
    GaussianBlur((0, 2)),
    PoissonNoise((10, 90)),
    SaltAndPepper(0.02),
    Jpeg((40, 90)),
    MissingRectangles((0, 2), 0.3),
    GaussianNoise((0, 0.1)),
    Clip(),
)
ALL = pytest.mark.parametrize("degradation", EXAMPLES, ids=lambda degradation: degradation.kind)


def make_images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_every_kind_is_here() -> None:
    assert {degradation.kind for degradation in EXAMPLES} == set(DEGRADATIONS)
    for kind, cls in DEGRADATIONS.items():
        assert cls.kind == kind
        assert getattr(degradations, cls.__name__) is cls
    assert all(hasattr(degradations, name) for name in degradations.__all__)


@pytest.mark.parametrize("cls", DEGRADATIONS.values())
def test_the_limits_of_each_field_are_told(cls: type[Degradation]) -> None:
    told = " ".join((cls.__doc__ or "").split("Args:")[-1].split("Raises:")[0].replace(" (nothing)", "").split())
    for name, limits in cls.limits.items():
        about = told.split(f"{name}: ")[1]
        assert f"from {limits.low:.15g} to {limits.high:.15g}" in about.split(";")[0]


# --- draws


@pytest.mark.parametrize("chain", [*((degradation,) for degradation in EXAMPLES), CHAIN])
def test_an_image_is_degraded_alike_in_any_batch(chain: tuple[Degradation, ...]) -> None:
    images, seeds = make_images(9, 3, 20, 15), torch.tensor([5, 0, -1, 2**62, 7, -(2**63), 3, 2**63 - 1, 5])
    whole = degrade(images, chain, seeds=seeds)
    assert torch.equal(degrade(images, chain, seeds=seeds), whole)
    order = torch.tensor([4, 8, 1, 0, 7, 2, 3, 6, 5])
    assert torch.equal(degrade(images[order], chain, seeds=seeds[order]), whole[order])
    for row in range(len(images)):
        assert torch.equal(degrade(images[row : row + 1], chain, seeds=seeds[row : row + 1]), whole[row : row + 1])


@ALL
def test_other_seeds_draw_other_numbers(degradation: Degradation) -> None:
    image = make_images(1, 3, 16, 16)
    results = degrade(image.expand(6, 3, 16, 16), [degradation], seeds=torch.tensor([0, 1, 2, 3, 4, 0]))
    draws_nothing = degradation in (Clip(), Jpeg(30), Downsample(3))
    assert torch.equal(results[0], results[5])
    assert (len(results.flatten(1).unique(dim=0)) > 1) != draws_nothing


def test_a_row_of_degradations_is_one_after_another() -> None:
    images, seeds = make_images(4, 1, 12, 12), torch.arange(4)
    blurred = degrade(images, [Downsample(2)], seeds=seeds)
    noisy = degrade(blurred.clamp(0, 1), [GaussianNoise((0, 0.2))], seeds=seeds)
    assert torch.equal(degrade(images, [Downsample(2), Clip(), GaussianNoise((0, 0.2))], seeds=seeds), noisy)
    assert not torch.equal(degrade(noisy.clamp(0, 1), [Downsample(2)], seeds=seeds), noisy)


def test_the_same_noise_twice_is_drawn_anew() -> None:
    images, seeds = torch.zeros(1, 1, 32, 32), torch.tensor([3])
    once = degrade(images, [GaussianNoise(0.1)], seeds=seeds)
    second = degrade(images, [GaussianNoise(0.1), GaussianNoise(0.1)], seeds=seeds) - once
    assert abs(np.corrcoef(once.flatten(), second.flatten())[0, 1]) < 5 / 32


@ALL
def test_draws_do_not_depend_on_the_pixels(degradation: Degradation) -> None:
    seeds, last = torch.arange(3), [GaussianNoise((0, 0.2))]
    noises = [
        degrade(images, [degradation, *last], seeds=seeds) - degrade(images, [degradation], seeds=seeds)
        for images in (make_images(3, 1, 9, 9), torch.zeros(3, 1, 9, 9))
    ]
    torch.testing.assert_close(*noises, rtol=0, atol=1e-6)  # of float32 sums and their differences


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@ALL
def test_on_a_gpu(degradation: Degradation) -> None:
    images, seeds = make_images(3, 3, 20, 15), torch.arange(3)
    result = degrade(images.cuda(), [degradation], seeds=seeds.cuda())
    assert result.is_cuda
    torch.testing.assert_close(result.cpu(), degrade(images, [degradation], seeds=seeds), rtol=0, atol=1e-5)


# --- images


@ALL
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_input_stays_and_the_result_is_float32(degradation: Degradation, dtype: torch.dtype) -> None:
    images = (make_images(2, 3, 8, 6) * 255).round()
    images = images.to(dtype) if dtype == torch.uint8 else (images / 255).to(dtype)
    seeds = torch.tensor([1, 2])
    before, seeds_before = images.clone(), seeds.clone()
    result = degrade(images, [degradation], seeds=seeds)
    assert torch.equal(images, before)
    assert torch.equal(seeds, seeds_before)
    assert result.dtype == torch.float32
    assert result.shape == images.shape
    assert result.isfinite().all()
    plain = images.float() / 255 if dtype == torch.uint8 else images.float()
    assert torch.equal(degrade(plain, [degradation], seeds=seeds), result)


@ALL
def test_layout_and_gradients_do_not_matter(degradation: Degradation) -> None:
    images, seeds = make_images(3, 3, 8, 6), torch.arange(3)
    expected = degrade(images, [degradation], seeds=seeds)
    wide = make_images(3, 3, 8, 12)
    wide[..., ::2] = images
    learned = images.clone().requires_grad_()
    for other in (images.to(memory_format=torch.channels_last), wide[..., ::2], learned):
        result = degrade(other, [degradation], seeds=seeds)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)  # interpolation sums in the memory's order
        assert not result.requires_grad


def test_without_degradations_there_is_a_copy() -> None:
    images = make_images(2, 1, 4, 4)
    result = degrade(images, [], seeds=torch.tensor([0, 1]))
    assert torch.equal(result, images)
    assert result.data_ptr() != images.data_ptr()


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(list(EXAMPLES)), st.integers(0, 3), st.sampled_from([1, 3]), st.integers(1, 11), st.integers(1, 11)
)
def test_any_shape(degradation: Degradation, count: int, channels: int, height: int, width: int) -> None:
    images = make_images(count, channels, height, width)
    result = degrade(images, [degradation], seeds=torch.arange(count))
    assert result.shape == images.shape
    assert result.dtype == torch.float32
    assert result.isfinite().all()


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 1, 4, 4)),
        torch.zeros(1, 4, 4),
        torch.zeros(1, 1, 0, 4),
        torch.zeros(0, 0, 4, 4),
        torch.zeros(1, 1, 4, 4, dtype=torch.int64),
        torch.full((1, 1, 4, 4), 1.3),
        torch.full((1, 1, 4, 4), float("nan")),
    ],
)
def test_what_is_no_batch_of_images(images: Any) -> None:
    with pytest.raises(DataError, match="^images .*, got ") as caught:
        degrade(images, [Clip()], seeds=torch.tensor([0]))
    assert "\n" not in str(caught.value)


def test_values_may_be_out_of_range_by_rounding() -> None:
    images = torch.tensor([-1 / 600, 1 + 1 / 600]).view(1, 1, 1, 2)
    assert torch.equal(degrade(images, [], seeds=torch.tensor([0])), images)


@pytest.mark.parametrize(
    ("seeds", "found"),
    [
        ([0, 1], r"\[0, 1\]"),
        (0, "0"),
        (torch.tensor([0]), r"torch.int64 \(1,\)"),
        (torch.tensor([[0, 1]]), r"torch.int64 \(1, 2\)"),
        (torch.tensor([0, 1], dtype=torch.int32), r"torch.int32 \(2,\)"),
        (torch.tensor([0.0, 1.0]), r"torch.float32 \(2,\)"),
    ],
)
def test_wrong_seeds(seeds: Any, found: str) -> None:
    rule = r"^seeds must be an int64 tensor \(2,\), one for each image, got "
    with pytest.raises(GenaugError, match=f"{rule}{found}$"):
        degrade(torch.zeros(2, 1, 4, 4), [Clip()], seeds=seeds)


@pytest.mark.parametrize("chain", [Clip(), None, ["clip"], [{"kind": "clip"}], [Clip], "clip", 3])
def test_what_are_no_degradations(chain: Any) -> None:
    for call in (lambda: degrade(torch.zeros(1, 1, 4, 4), chain, seeds=torch.tensor([0])), lambda: describe(chain)):
        with pytest.raises(GenaugError, match=r"^degradations must be a list of .* \[GaussianNoise\(0.1\)\], got "):
            call()


# --- fields


@ALL
def test_round_trip_through_json(degradation: Degradation) -> None:
    plain = json.loads(json.dumps(asdict(degradation)))  # type: ignore[call-overload]
    again = parse_degradation(plain, where="here")
    assert again == degradation
    assert type(again) is type(degradation)
    assert hash(again) == hash(degradation)
    assert repr(again) == repr(degradation)
    assert parse_degradations([plain, degradation], where="here") == (degradation, degradation)
    assert pickle.loads(pickle.dumps(degradation)) == degradation


@ALL
def test_fields_are_plain_numbers_that_cannot_be_changed(degradation: Degradation) -> None:
    values = [value for value in asdict(degradation).values() if not isinstance(value, str)]  # type: ignore[call-overload]
    assert all(type(part) in (int, float) for value in values for part in (value if type(value) is tuple else [value]))
    with pytest.raises(FrozenInstanceError):
        degradation.kind = "other"


def test_numbers_of_numpy_and_lists_are_taken() -> None:
    assert GaussianNoise(np.float32(0.5)) == GaussianNoise(0.5)
    assert type(Jpeg(np.int64(5)).quality) is int
    assert GaussianNoise([0, np.float64(0.5)]).noise_level == (0.0, 0.5)  # type: ignore[arg-type]


NUMBER = "must be a number from 0 to {high} or a range [low, high] of them"
WHOLE = "must be a whole number from {low} to {high} or a range [low, high] of them"
RULES = {
    (GaussianNoise, "noise_level"): NUMBER.format(high=10),
    (SpeckleNoise, "noise_level"): NUMBER.format(high=10),
    (UniformNoise, "noise_level"): NUMBER.format(high=10),
    (PoissonNoise, "peak"): "must be a number from 0.1 to 1e+06 or a range [low, high] of them",
    (SaltAndPepper, "fraction"): NUMBER.format(high=1),
    (GaussianBlur, "sigma"): NUMBER.format(high=100),
    (MissingPixels, "fraction"): NUMBER.format(high=1),
    (MissingRectangles, "size"): NUMBER.format(high=1),
    (MissingRectangles, "count"): WHOLE.format(low=0, high=100),
    (Jpeg, "quality"): WHOLE.format(low=1, high=100),
    (MotionBlur, "length"): WHOLE.format(low=1, high=101),
    (Downsample, "factor"): "must be a whole number from 2 to 8",
    (MissingPixels, "value"): "must be a number from 0 to 1",
    (MissingRectangles, "value"): "must be a number from 0 to 1",
}
REST = {
    MissingPixels: {"fraction": 0.5},
    MissingRectangles: {"count": 1, "size": 0.5},
}
WRONG = [-1, 10**400, True, None, "1", [], [1], [1, 2, 3], [8, 3], [-1, 1], [0, 10**7], [True, True], [[1, 1], 1], {}]


def test_every_field_has_a_rule() -> None:
    every = {(cls, field.name) for cls in DEGRADATIONS.values() for field in fields(cls)}  # type: ignore[arg-type]
    assert set(RULES) == {(cls, name) for cls, name in every if name != "kind"}


@pytest.mark.parametrize(("cls", "name"), RULES)
@pytest.mark.parametrize("value", [*WRONG, float("nan"), float("inf")], ids=lambda value: str(value)[:10])
def test_wrong_values(cls: Any, name: str, value: Any) -> None:
    others = REST.get(cls, {})
    shown = repr(value) if len(repr(value)) < 80 else repr(value)[:77] + "..."
    with pytest.raises(GenaugError) as caught:
        cls(**(others | {name: value}))
    assert str(caught.value) == f"{name} {RULES[cls, name]}, got {shown}"
    with pytest.raises(GenaugError, match=rf"^a\.1\.{name}: ") as caught:
        parse_degradation({"kind": cls.kind, **others, name: value}, where="a.1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [1.5, [1, 2.5]])
def test_whole_numbers_are_whole(value: Any) -> None:
    for cls, name in RULES:
        if "whole" in RULES[cls, name]:
            with pytest.raises(GenaugError, match=f"^{name} must be a whole number"):
                cls(**(REST.get(cls, {}) | {name: value}))


def test_the_kind_is_that_of_the_class() -> None:
    with pytest.raises(GenaugError, match="^kind must be 'clip', got 'jpeg'; leave it out$"):
        Clip(kind="jpeg")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("clip", "x: must be named fields, such as kind: gaussian-noise, got 'clip'"),
        ([], "x: must be named fields, such as kind: gaussian-noise, got []"),
        ({}, f"x.kind: must be one of {', '.join(DEGRADATIONS)}; got nothing"),
        ({"kind": "blur"}, f"x.kind: must be one of {', '.join(DEGRADATIONS)}; got 'blur'"),
        ({"kind": ["clip"]}, f"x.kind: must be one of {', '.join(DEGRADATIONS)}; got ['clip']"),
        ({"kind": "clip", "low": 0}, "x.low: unknown field; allowed: kind"),
        ({"kind": "jpeg", "quality": 5, "q": 5}, "x.q: unknown field; allowed: kind, quality"),
        ({"kind": "jpeg"}, "x.quality: missing field"),
        ({"kind": "downsample", "factor": "2"}, "x.factor: input should be a valid integer, got '2'"),
        ({"kind": "jpeg", "quality": 500}, f"x.quality: {RULES[Jpeg, 'quality']}, got 500"),
        ({"kind": "jpeg", "quality": [60, 50]}, f"x.quality: {RULES[Jpeg, 'quality']}, got [60, 50]"),
    ],
)
def test_plain_values_that_describe_nothing(values: Any, message: str) -> None:
    with pytest.raises(GenaugError) as caught:
        parse_degradation(values, where="x")
    assert str(caught.value) == message


@pytest.mark.parametrize("values", [{"kind": "clip"}, Clip(), "clip", None])
def test_plain_values_that_are_no_list(values: Any) -> None:
    with pytest.raises(GenaugError, match="^recipe.degradations: must be a list of degradations, got "):
        parse_degradations(values, where="recipe.degradations")


def test_errors_in_a_list_name_the_place() -> None:
    with pytest.raises(GenaugError, match=r"^d\.1\.kind: must be one of "):
        parse_degradations([Clip(), {"kind": "blur"}], where="d")


# --- words


def test_words() -> None:
    for degradation, words in EXAMPLES.items():
        assert describe([degradation]) == words
    assert describe((GaussianNoise((0, 0.22)), Clip())) == "gaussian noise 0 to 0.22, clipped"
    assert describe([]) == "unchanged"
