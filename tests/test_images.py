"""Ranges of values: what is accepted, and agreement with torchvision's own rule."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resize, to_dtype

from genaug.errors import DataError
from genaug.images import cast_like, check_images, from_model, to_float, to_model, to_uint8

LEVELS = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", [torch.uint8, *FLOATS])
@pytest.mark.parametrize("shape", [(1, 4, 5), (2, 3, 4, 5), (0, 3, 4, 5)])
def test_accepts_public_images(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    check_images(torch.ones(shape).to(dtype))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([[0.0]], "must be a tensor, got list"),
        (None, "must be a tensor, got NoneType"),
        (torch.zeros(4, 5), r"must have shape .*, got \(4, 5\)"),
        (torch.zeros(1, 1, 1, 4, 5), "must have shape"),
        (torch.zeros(1, 4, 5, dtype=torch.int64), "uint8 in .* or float in .*, got torch.int64"),
        (torch.zeros(1, 4, 5, dtype=torch.bool), "got torch.bool"),
        (torch.zeros(1, 4, 5, dtype=torch.complex64), "got torch.complex64"),
        (torch.zeros(1, 4, 5).to(torch.float8_e4m3fn), "got torch.float8_e4m3fn"),
        (torch.full((1, 4, 5), 1.01), "got values from 1.01 to 1.01; scale them"),
        (torch.full((1, 4, 5), -0.01), r"within \[0, 1\]"),
        (torch.tensor([[[0.5, float("nan")]]]), "must be finite"),
        (torch.tensor([[[0.5, float("inf")]]]), "must be finite"),
        (torch.tensor([[[-float("inf"), 0.5]]]), "must be finite"),
        (torch.full((1, 4, 5), 255.0), "or pass uint8"),
    ],
)
def test_refuses_other_images(images: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=f"^pictures .*{message}"):
        check_images(images, name="pictures")


def test_what_bicubic_resizing_overshoots_is_taken_where_that_is_asked_for() -> None:
    edges = (torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    images = resize(edges, [8, 8], interpolation=InterpolationMode.BICUBIC)
    assert images.min() < -0.05
    assert images.max() > 1.05
    check_images(images, overshoot=True)
    with pytest.raises(DataError, match="clamp what a bicubic resize overshoots"):
        check_images(images)
    with pytest.raises(DataError, match="within"):
        check_images(edges * 2 - 1, overshoot=True)


def test_float_agrees_with_torchvision() -> None:
    torch.testing.assert_close(to_float(LEVELS), to_dtype(LEVELS, torch.float32, scale=True))


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_are_returned_as_they_are(dtype: torch.dtype) -> None:
    floats = LEVELS.to(dtype)
    assert to_float(floats) is floats


def test_uint8_gives_every_level_back() -> None:
    assert torch.equal(to_uint8(to_dtype(LEVELS, torch.float32, scale=True)), LEVELS)
    assert torch.equal(to_uint8(to_dtype(LEVELS, torch.float64, scale=True)), LEVELS)
    assert to_uint8(LEVELS) is LEVELS


def test_uint8_rounds_to_the_nearest_level() -> None:
    images = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    rounded = to_uint8(images)
    assert rounded.dtype == torch.uint8
    assert (to_dtype(rounded, torch.float32, scale=True) - images).abs().max() <= 0.5 / 255 + 1e-7
    # torchvision cuts off at 255.999 x instead, which is at most one level away
    difference = rounded.int() - to_dtype(images, torch.uint8, scale=True).int()
    assert difference.abs().max() <= 1


def test_models_see_minus_one_to_one_and_give_it_back() -> None:
    from_levels, from_floats = to_model(LEVELS), to_model(to_float(LEVELS))
    torch.testing.assert_close(from_levels, from_floats)
    assert from_levels.dtype == from_floats.dtype == torch.float32
    assert from_levels.aminmax() == (torch.tensor(-1.0), torch.tensor(1.0))
    torch.testing.assert_close(from_model(from_levels), to_float(LEVELS))
    assert torch.equal(to_uint8(from_model(from_levels)), LEVELS)


@pytest.mark.parametrize("dtype", FLOATS)
def test_outputs_of_any_float_dtype_are_clamped(dtype: torch.dtype) -> None:
    images = from_model(torch.tensor([[[-3.0, -1.0, 0.0, 1.0, 2.0]]], dtype=dtype))
    assert torch.equal(images, torch.tensor([[[0.0, 0.0, 0.5, 1.0, 1.0]]]))
    check_images(images)


@pytest.mark.parametrize("source", [torch.uint8, *FLOATS])
@pytest.mark.parametrize("target", [torch.uint8, *FLOATS])
def test_cast_like_takes_dtype_and_range(source: torch.dtype, target: torch.dtype) -> None:
    images = torch.tensor([[[0.0, 1.0]]])
    cast = cast_like(to_dtype(images, source, scale=True), torch.zeros(1, 1, 1, dtype=target))
    assert torch.equal(cast, to_dtype(images, target, scale=True))


@pytest.mark.parametrize("convert", [to_float, to_uint8, to_model, from_model])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_inputs_stay_as_they_were(convert: object, dtype: torch.dtype) -> None:
    images = to_dtype(LEVELS, dtype, scale=True)
    before = images.clone()
    convert(images)  # type: ignore[operator]
    assert torch.equal(images, before)
