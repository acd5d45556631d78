"""Images brought to a model's size and channels and back; models named by hash."""

import numpy as np
import PIL.Image
import pytest
import torch
from contract import floats, levels, to_pil
from torch.nn import functional as F
from torch.utils._pytree import tree_flatten

import genaug
from genaug import CheckpointError, DataError, GenaugError
from genaug.models.running import draw_noise
from genaug.transforms import LatentJitter, LatentMix, Reconstruct, ReplaceWithSynthetic
from genaug.transforms.operations import Vary, convert_channels

pytestmark = pytest.mark.global_rng  # torchvision's transforms draw from torch's global generator


def test_resized_there_and_back_antialiased(gray):
    images = floats(3, 1, 40, 24)

    def resize(tensor, size):
        return F.interpolate(tensor, size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)

    expected = resize(gray.vary(resize(images, (8, 8)), strength=0.0), (40, 24))
    result = Reconstruct(gray, resize=True)(images)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)
    as_bytes = Reconstruct(gray, resize=True)((images * 255).round().to(torch.uint8))
    assert (as_bytes / 255 - expected).abs().max() < 3 / 255


def test_nothing_is_resized_that_fits(gray):
    images = floats(3, 1, 8, 8)
    assert torch.equal(Reconstruct(gray, resize=True)(images), Reconstruct(gray)(images))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pil_images_of_any_size_and_channels(mode, gray, color):
    rng = np.random.Generator(np.random.PCG64(0))
    image = PIL.Image.fromarray(rng.integers(0, 256, (21, 30, 4), dtype=np.uint8)).convert(mode)
    for model in (gray, color):
        result = LatentJitter(model, p=1.0, resize=True, channels="convert")(image)
        assert (result.mode, result.size) == (mode, (30, 21))
        if mode == "RGBA":
            assert result.getchannel("A").tobytes() == image.getchannel("A").tobytes()
        assert result.tobytes() != image.tobytes()


def test_gray_of_color_is_pillows_luminance():
    color = levels(3, 20, 20)
    gray = np.array(to_pil(color).convert("L")).astype(int)
    assert np.abs(convert_channels(color, 1)[0].numpy().astype(int) - gray).max() <= 1
    assert torch.equal(convert_channels(color, 1), convert_channels(torch.cat([color, color[:1]]), 1))


def test_color_images_in_a_gray_model_lose_their_color(gray):
    images = floats(4, 3, 8, 8)
    result = Reconstruct(gray, channels="convert")(images)
    expected = Reconstruct(gray)(convert_channels(images, 1))
    torch.testing.assert_close(result, expected.expand(-1, 3, -1, -1))


def test_gray_images_in_a_color_model(color):
    images = floats(4, 1, 12, 10)
    result = Reconstruct(color, channels="convert")(images)
    expected = convert_channels(Reconstruct(color)(images.expand(-1, 3, -1, -1)), 1)
    torch.testing.assert_close(result, expected)


def test_opaque_where_alpha_is_new():
    for image, opaque in ((levels(3, 4, 4), 255), (floats(1, 4, 4), 1.0)):
        converted = convert_channels(image, 4)
        assert torch.equal(converted[3], torch.full((4, 4), opaque, dtype=image.dtype))
        assert torch.equal(converted[:3], image.expand(3, 4, 4))


@pytest.mark.parametrize(
    ("options", "image", "message"),
    [
        ({}, levels(3, 8, 8), r'1 channels, got 3 \(expected 1x8x8\); pass channels="convert"'),
        ({"channels": "convert"}, levels(2, 8, 8), "1 channels, got 2 .*; only 1, 3 and 4 can be converted"),
        ({}, levels(1, 9, 8), r"of size 1x8x8, got 1x9x8; resize them first, or pass resize=True \(there and back\)"),
        ({"resize": True}, levels(1, 0, 8), "got 1x0x8, which is empty"),
        ({"resize": True}, floats(1, 9, 8) * 2, "and normalize later"),
    ],
)
def test_images_that_do_not_fit(options, image, message, gray):
    with pytest.raises(DataError, match=message):
        Reconstruct(gray, **options)(image)


def test_unknown_channels(gray):
    with pytest.raises(GenaugError, match='channels must be "match" or "convert", got \'gray\''):
        Reconstruct(gray, channels="gray")


def test_other_weights_than_the_hash_says(path):
    right = Vary(path, strength=0.5).reference.sha256
    assert Vary(path, strength=0.5, sha256=right).reference.id == str(path)
    with pytest.raises(CheckpointError, match=f"must have the sha256 {'0' * 64}, got {right}"):
        Vary(path, strength=0.5, sha256="0" * 64)


def test_the_noise_of_an_image_depends_on_its_seed_alone(gray):
    seeds = torch.tensor([5, 2**62, 0])
    rows = draw_noise((3, 7), None, seeds, torch.device("cpu"))
    for row, seed in zip(rows, seeds.tolist(), strict=True):
        assert torch.equal(row, torch.randn(7, generator=torch.Generator().manual_seed(seed)))
    images, labels = floats(3, 1, 8, 8), torch.tensor([0, 1, 2])
    together = gray.vary(images, labels, strength=0.8, seeds=seeds)
    alone = gray.vary(images[1:2], labels[1:2], strength=0.8, seeds=seeds[1:2])
    torch.testing.assert_close(together[1:2], alone)
    for wrong, found in ((seeds[:2], r"torch.int64 \(2,\)"), ([1, 2, 3], r"\[1, 2, 3\]"), (seeds / 2, "torch.float32")):
        with pytest.raises(
            GenaugError, match=rf"seeds must be an int64 tensor \(3,\), one for each image, got {found}"
        ):
            gray.vary(images, labels, strength=0.5, seeds=wrong)
    with pytest.raises(GenaugError, match="seeds must be left out where there is a generator"):
        gray.vary(images, labels, strength=0.5, seeds=seeds, generator=torch.Generator())


def test_detail_and_color_that_a_model_does_not_have_stay_with_the_residual(gray):
    images, seeds = floats(4, 3, 40, 24), torch.arange(4)
    options = {"resize": True, "channels": "convert"}
    varied, rebuilt = (Vary(gray, strength=strength, **options)(images, None, seeds) for strength in (0.6, 0.0))
    kept = Vary(gray, strength=0.6, keep_residual=True, **options)(images, None, seeds)
    torch.testing.assert_close(kept, (images + varied - rebuilt).clamp(0, 1))
    inside = (kept > 0) & (kept < 1)
    change = torch.where(inside.all(1, keepdim=True), kept - images, 0)
    torch.testing.assert_close(change, change[:, :1].expand_as(change), atol=1e-6, rtol=0)  # of brightness alone
    assert change.abs().max() > 0.01


@pytest.mark.parametrize("keep_residual", [False, True])
def test_no_images_need_no_model(keep_residual, path):
    operation = Vary(path, strength=0.5, keep_residual=keep_residual)
    assert operation(floats(0, 1, 8, 8), None, torch.arange(0)).shape == (0, 1, 8, 8)
    assert operation.reference._model is None


def test_images_of_all_sizes_as_if_each_were_alone(gray):
    images = [
        to_pil(levels(1, 8, 8)),
        levels(1, 20, 12),
        floats(1, 8, 8),
        to_pil(levels(1, 8, 8).flip(1)),
        levels(1, 20, 12),
    ]
    labels = [0, 1, 2, 1, 0]
    transform = Reconstruct(gray, resize=True)
    results = transform.change_all(images, labels)
    for image, label, result in zip(images, labels, results, strict=True):
        expected, _ = transform(image, label)
        assert type(result) is type(image)
        first, second = (np.asarray(value, dtype=np.float64) for value in (result, expected))
        scale = 1 if first.max() <= 1 else 255
        assert np.abs(first - second).max() <= scale / 255
    assert Reconstruct(gray, p=0.0).change_all(images[:1])[0] is images[0]


def test_images_without_a_channel_axis_are_images_of_one(gray):
    images = [levels(1, 8, 8)[0], levels(1, 8, 8).flip(1)[0], levels(1, 20, 12)[0]]
    transform = Reconstruct(gray, resize=True)
    results = transform.change_all(images, [0, 1, 2])
    for result, expected in zip(results, transform.change_all([one[None] for one in images], [0, 1, 2]), strict=True):
        assert torch.equal(result, expected[0])
        assert result.shape == expected.shape[1:]


def test_what_leaves_the_range_by_rounding_or_overshoot_is_taken(gray):
    images = floats(3, 1, 8, 8)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = 1.06, -1e-7  # as bicubic resizing and blurs of torchvision give
    torch.testing.assert_close(Reconstruct(gray)(images), Reconstruct(gray)(images.clamp(0, 1)))
    images[0, 0, 0, 0] = 1.3
    with pytest.raises(DataError, match="within \\[0, 1\\]"):
        Reconstruct(gray)(images)


@pytest.mark.parametrize("keep_residual", [False, True])
def test_under_autocast(keep_residual, gray):
    jitter = LatentJitter(gray, strength=0.8, keep_residual=keep_residual, p=1.0)
    images, labels = floats(6, 1, 8, 8), torch.arange(6) % 3
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        low, _ = jitter(images, labels)
        sampled = gray.sample(labels, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    high, _ = jitter(images, labels)
    assert low.dtype == sampled.dtype == torch.float32
    assert (low - high).abs().max() < 0.05


def test_another_default_dtype(gray, path):
    images, labels = floats(4, 1, 8, 8), torch.arange(4) % 3
    expected = gray.sample(labels, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    varied, _ = LatentJitter(gray, p=1.0)(images, labels)
    torch.set_default_dtype(torch.float64)
    try:
        model = genaug.load(path)
        assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
        assert torch.equal(model.sample(labels, generator=torch.Generator().manual_seed(0)), expected)
        torch.manual_seed(0)
        torch.testing.assert_close(LatentJitter(path, p=1.0)(images, labels)[0], varied)
        mixed, _ = LatentMix(gray, p=1.0, across=True)(images, labels)
        replaced, _ = ReplaceWithSynthetic(gray, 0.5)(images, labels)
        assert mixed.dtype == replaced.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("keep_residual", [False, True])
def test_the_gradient_does_not_depend_on_chance(keep_residual, gray):
    images = floats(4, 1, 8, 8).requires_grad_()
    for p in (0.0, 0.5, 1.0):
        images.grad = None
        torch.manual_seed(1)
        params = LatentJitter(gray, p=p).make_params([images])
        torch.manual_seed(1)
        LatentJitter(gray, keep_residual=keep_residual, p=p)(images).sum().backward()
        assert torch.equal(images.grad.flatten(1).any(1), ~params["chosen"])


def test_errors_do_not_depend_on_chance(gray):
    for p in (0.0, 0.01):
        with pytest.raises(DataError, match="of size 1x8x8"):
            LatentJitter(gray, p=p)(floats(1, 9, 9))


def test_weights_loaded_in_inference_mode_can_be_trained(path):
    transform = Reconstruct(path)
    with torch.inference_mode():
        transform(floats(1, 8, 8))
    assert not any(parameter.is_inference() for parameter in transform.model.parameters())


@pytest.mark.parametrize(
    "sample",
    [
        {"label": torch.zeros(1, 8, 8), "x": floats(1, 8, 8)},
        {"inputs": {"mask": torch.zeros(1, 8, 8), "image": floats(1, 8, 8)}, "n": 3},
        {"inputs": [torch.zeros(1, 8, 8), {"image": floats(1, 8, 8)}]},
        {"masks": torch.zeros(1, 8, 8), "x": floats(1, 8, 8)},
    ],
)
def test_labels_and_masks_are_not_taken_for_the_image(sample, gray):
    flat, _ = tree_flatten(Reconstruct(gray)(sample))
    before, _ = tree_flatten(sample)
    for value, old in zip(flat, before, strict=True):
        if isinstance(old, torch.Tensor):
            assert (value is old) is not bool(old.any())


@pytest.mark.parametrize("value", ["a", None, True, [0.5]])
def test_what_is_no_number(value, gray):
    for make in (lambda: Reconstruct(gray, p=value), lambda: LatentJitter(gray, strength=value)):
        with pytest.raises(GenaugError, match="must be from 0 to 1, got"):
            make()
