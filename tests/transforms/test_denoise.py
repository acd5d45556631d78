"""Denoise: what it does to images of any depth, size and number of channels, in each library."""

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision.transforms import v2

from genaug.data import load_data
from genaug.errors import DataError, GenaugError
from genaug.transforms import Denoise

pytestmark = [
    pytest.mark.global_rng,  # torchvision's transforms draw from torch's global generator
    pytest.mark.filterwarnings("ignore:.*kornia.*:DeprecationWarning"),
]


DIGITS = load_data("digits").images


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def denoiser(models):
    return models["denoiser", 1]


@pytest.mark.parametrize("noise_level", [None, 0.1])
def test_it_is_what_the_model_restores(denoiser, noise_level):
    images = rand(2, 1, 21, 34)
    restored = denoiser.restore(images, noise_level=noise_level)
    assert torch.equal(Denoise(denoiser, noise_level=noise_level)(images), restored)


def test_strength_blends(denoiser):
    images = rand(2, 1, 21, 34)
    restored = denoiser.restore(images)
    torch.testing.assert_close(Denoise(denoiser, strength=0.25)(images), 0.75 * images + 0.25 * restored)
    assert torch.equal(Denoise(denoiser, strength=0.0)(images), images)


def test_noise_may_lead_out_of_the_range(denoiser):
    noisy = rand(2, 1, 12, 12) + 0.5 * torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    assert noisy.min() < 0
    assert torch.equal(Denoise(denoiser)(noisy), denoiser.restore(noisy))
    blended = Denoise(denoiser, strength=0.5)(noisy)
    torch.testing.assert_close(blended, (noisy + denoiser.restore(noisy)) / 2)


def test_colors_go_through_a_gray_model_one_by_one_and_alpha_stays(denoiser):
    images = rand(2, 4, 12, 9)
    after = Denoise(denoiser, channels="convert")(images)
    expected = torch.stack([denoiser.restore(images[:, channel, None])[:, 0] for channel in range(3)], 1)
    torch.testing.assert_close(after[:, :3], expected)
    assert torch.equal(after[:, 3], images[:, 3])
    assert torch.equal(Denoise(denoiser, channels="convert")(images[:, :3]), after[:, :3])


def test_gray_images_enter_a_color_model_as_three_equal_channels(models):
    model, images = models["denoiser", 3], rand(2, 1, 12, 9)
    after = Denoise(model, channels="convert")(images)
    expected = model.restore(images.expand(-1, 3, -1, -1)).mean(1, keepdim=True)
    torch.testing.assert_close(after, expected)


def test_sixteen_bits_are_kept(denoiser):
    levels = torch.randint(0, 65536, (1, 20, 15), generator=torch.Generator().manual_seed(0)).to(torch.uint16)
    after = Denoise(denoiser)(levels)
    expected = (denoiser.restore(levels[None].float() / 65535)[0] * 65535).round()
    assert after.dtype == torch.uint16
    assert (after.float() - expected).abs().max() <= 1
    picture = PIL.Image.fromarray(levels[0].numpy())
    changed = Denoise(denoiser)(picture)
    assert changed.mode == "I;16"
    assert np.array_equal(np.array(changed), after[0].numpy())
    half = Denoise(denoiser, p=0.0)(levels)
    assert half is levels


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (7, 9)])
def test_strips_and_single_pixels(denoiser, size):
    assert Denoise(denoiser)(rand(1, *size)).shape == (1, *size)


def test_images_of_several_sizes_in_one_pipeline(denoiser):
    pipeline = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), Denoise(denoiser, channels="convert")])
    for mode, size in (("L", (30, 20)), ("RGB", (9, 17)), ("RGBA", (8, 8))):
        picture = PIL.Image.fromarray(np.zeros((*size, len(mode)), dtype=np.uint8).squeeze())
        assert pipeline(picture).shape == (len(mode), *size)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_pixels_that_are_no_numbers(denoiser, bad):
    images = rand(1, 1, 8, 8)
    images[0, 0, 3, 3] = bad
    with pytest.raises(DataError, match="images must be finite, got NaN or infinite values"):
        Denoise(denoiser, p=0.0)(images)


@pytest.mark.parametrize("level", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("size", [(64, 64), (64, 5), (3, 3)])
def test_noise_of_any_strength_is_taken(denoiser, level, size):
    images = v2.functional.resize(DIGITS[:32].float() / 255, list(size))
    noisy = images + level * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    assert Denoise(denoiser)(noisy).shape == images.shape


@pytest.mark.parametrize(
    "change", [lambda x: x * 255, lambda x: (x - 0.456) / 0.225, lambda x: (x - 0.5) * 2, lambda x: (x - 0.13) / 0.31]
)
def test_images_of_another_range_are_refused(denoiser, change):
    with pytest.raises(DataError, match="images must be within .* but for noise, got means over 8x8 pixels"):
        Denoise(denoiser)(change(v2.functional.resize(DIGITS[:4], [32, 32]).float() / 255))
    with pytest.raises(DataError, match="but for noise"):
        denoiser.restore(change(v2.functional.resize(DIGITS[:4], [32, 32]).float() / 255))


def test_wrong_arguments(denoiser, gray):
    with pytest.raises(GenaugError, match="restore: vae cannot do this"):
        Denoise(gray)
    for name in ("noise_level", "strength", "p"):
        with pytest.raises(GenaugError, match=f"{name} .*must be from 0 to 1, got 25"):
            Denoise(denoiser, **{name: 25})
    with pytest.raises(DataError, match='images must have 1 channels, got 3 .* pass channels="convert"'):
        Denoise(denoiser)(rand(3, 8, 8))


def test_a_pipeline_of_albumentations_names_the_model(denoiser, tmp_path):
    A = pytest.importorskip("albumentations")
    from genaug.adapters import albumentations as adapter

    denoiser.save(tmp_path / "model")
    transform = adapter.Denoise(tmp_path / "model", noise_level=0.1, strength=0.75, channels="convert", p=1.0)
    pipeline = A.Compose([transform], seed=0)
    A.save(pipeline, tmp_path / "pipeline.json")
    again = A.load(tmp_path / "pipeline.json")
    image = (255 * rand(17, 12, 3)).to(torch.uint8).numpy()
    assert np.array_equal(again(image=image)["image"], pipeline(image=image)["image"])
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    expected = Denoise(denoiser, noise_level=0.1, strength=0.75, channels="convert")(pixels)
    assert np.array_equal(pipeline(image=image)["image"], expected.permute(1, 2, 0).numpy())


def test_behind_the_noise_of_kornia(denoiser):
    K = pytest.importorskip("kornia.augmentation")
    from genaug.adapters import kornia as adapter

    torch.manual_seed(0)
    noise = K.RandomGaussianNoise(std=0.3, p=1.0)
    images = rand(3, 1, 12, 12)
    noisy = noise(images)
    assert noisy.min() < 0
    restored = adapter.Denoise(denoiser, noise_level=0.3)(noisy)
    torch.testing.assert_close(restored, denoiser.restore(noisy, noise_level=0.3))


def test_no_gradient_goes_through() -> None:
    for strength in (0.5, 1.0):
        images = torch.rand(2, 1, 16, 16, requires_grad=True)
        Denoise("denoiser-gray", strength=strength)(images).sum().backward()
        assert not images.grad.any()
