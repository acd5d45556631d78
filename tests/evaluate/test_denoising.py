"""Denoisers by the protocol of the literature: its noise, its scores, its rivals."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.datasets import load_sample_image

from genaug.data import load_images
from genaug.degradations import Jpeg, SaltAndPepper
from genaug.errors import DataError, GenaugError
from genaug.evaluate import measure_denoising
from genaug.evaluate.classical import CLASSICAL, PACKAGES, find_rival, is_installed
from genaug.models import Denoiser, DenoiserConfig
from genaug.spec import DataSpec

PHOTOGRAPH = torch.from_numpy(load_sample_image("flower.jpg")[130:210, 230:340].copy()).permute(2, 0, 1)  # (3, 80, 110)
GRAY = PHOTOGRAPH.float().mean(0, keepdim=True).round().to(torch.uint8)


def noisy_by_protocol(clean, level):
    """Return pixels with noise as KAIR's script adds it: numpy's global generator, seeded for each image."""
    np.random.seed(0)
    pixels = clean.permute(1, 2, 0).numpy() / 255
    pixels = pixels + np.random.normal(0, level, pixels.shape)
    return pixels


@pytest.mark.global_rng
@pytest.mark.parametrize("clean", [GRAY, PHOTOGRAPH], ids=["gray", "color"])
def test_noise_and_scores_are_those_of_the_literature(clean):
    images = [("one", clean), ("other", clean.flip(2))]
    given = []

    def keep(image, level):
        given.append((image, level))
        return image

    result = measure_denoising({"keep": keep}, images, noise_levels=[25 / 255], progress=False)
    expected_psnr, expected_ssim = [], []
    for place, (_, one) in enumerate(images, start=1):  # the first call is the one that does not count
        pixels, reference = noisy_by_protocol(one, 25 / 255), one.permute(1, 2, 0).numpy()
        image, level = given[place]
        assert level == 25 / 255
        torch.testing.assert_close(image, torch.from_numpy(pixels).permute(2, 0, 1).float())
        rounded = (255 * pixels).clip(0, 255).round().astype(np.uint8)
        expected_psnr.append(peak_signal_noise_ratio(reference, rounded))
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        expected_ssim.append(structural_similarity(reference, rounded, channel_axis=-1, **options))
    for name in ("input", "keep"):
        row = result.row(name, "noise 25/255")
        assert row.psnr == pytest.approx(np.mean(expected_psnr), abs=1e-3)
        assert row.ssim == pytest.approx(np.mean(expected_ssim), abs=1e-4)
        assert row.images == 2
    assert result.row("keep", "noise 25/255").seconds > 0
    assert result.row("input", "noise 25/255").seconds is None
    assert "not clipped" in result.protocol


def test_clipped_noise_is_named_and_stays_in_range():
    ranges = []

    def watch(image, level):
        ranges.append((float(image.min()), float(image.max())))
        return image

    bright = [("bright", torch.full((1, 20, 20), 250, dtype=torch.uint8))]
    result = measure_denoising({"watch": watch}, bright, noise_levels=[0.2], clip=True, progress=False)
    assert [row.degradation for row in result.rows] == ["noise 51/255, clipped"] * 2
    assert "and is clipped to [0, 1]" in result.protocol
    assert all(low >= 0 and high == 1 for low, high in ranges)
    measure_denoising({"watch": watch}, bright, noise_levels=[0.2], progress=False)
    assert ranges[-1][1] > 1.2


def test_other_degradations_have_rows_and_no_noise_level():
    levels = []

    def note(image, level):
        levels.append(level)
        return image

    chain = [Jpeg(quality=10), SaltAndPepper(fraction=0.1)]
    result = measure_denoising({"note": note}, [("a", GRAY)], noise_levels=[], degradations=chain, progress=False)
    assert [row.denoiser for row in result.rows] == ["input", "note"] * 2
    assert {row.noise_level for row in result.rows} == {None} == set(levels)
    assert all(10 < row.psnr < 40 for row in result.rows)


def test_images_that_come_out_unchanged_have_no_psnr():
    clean, seen = [torch.zeros_like(GRAY), GRAY, GRAY.flip(2)], []

    def darken(image, level):  # black stays black
        seen.append(255 * image)
        return 0.9 * image

    def cheat(image, level):
        return min(clean, key=lambda one: float((one - 255 * image).abs().sum())) / 255

    images = [(str(number), image) for number, image in enumerate(clean)]
    options = {"noise_levels": [], "degradations": [Jpeg(quality=10)], "progress": False}
    result = measure_denoising({"darken": darken, "cheat": cheat}, images, **options)
    degraded = seen[1:]  # the first call is the one that does not count
    assert torch.equal(degraded[0], clean[0].float())
    before, darkened, cheated = result.rows
    assert [row.exact for row in result.rows] == [1, 1, 3]
    for row, factor in ((before, 1.0), (darkened, 0.9)):
        pairs = zip(clean[1:], degraded[1:], strict=True)
        pixels = [(one.numpy(), (factor * other).round().to(torch.uint8).numpy()) for one, other in pairs]
        assert row.psnr == pytest.approx(np.mean([peak_signal_noise_ratio(*pair) for pair in pixels]), abs=1e-3)
    assert cheated.psnr is None


def test_an_image_that_was_not_degraded_counts_for_no_psnr():
    flat = torch.full_like(GRAY, 90)
    dim = {"dim": lambda image, level: image - (image.max() == image.min()) / 255}
    options = {"noise_levels": [], "degradations": [Jpeg(quality=90)], "progress": False}
    both = measure_denoising(dim, [("flat", flat), ("photograph", GRAY)], **options)
    alone = measure_denoising(dim, [("photograph", GRAY)], **options)
    assert [row.exact for row in both.rows] == [1, 0]
    assert [row.psnr for row in both.rows] == [row.psnr for row in alone.rows]


@pytest.mark.global_rng  # new weights
def test_a_model_restores_images_of_any_size_blindly():
    model = Denoiser(DataSpec(channels=1), DenoiserConfig(width=4, levels=2, blocks=1))
    torch.nn.init.normal_(model.network.leave.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    images = [("large", GRAY), ("small", GRAY[:, :9, :30])]
    result = measure_denoising({"model": model}, images, noise_levels=[0.1], progress=False)
    row = result.row("model", "noise 25.5/255")
    errors = []
    for _, one in images:
        noisy = torch.from_numpy(noisy_by_protocol(one, 0.1)).permute(2, 0, 1).float()
        restored = (255 * model.restore(noisy[None])[0]).round()
        errors.append(-10 * math.log10(float((restored - one).square().mean()) / 255**2))
    assert row.psnr == pytest.approx(np.mean(errors), abs=1e-3)
    assert row.ssim is None  # one side is below 11
    assert result.to_dict()["rows"][0]["denoiser"] == "input"


@pytest.mark.parametrize("name", sorted(set(CLASSICAL) - {"bm3d"}))
@pytest.mark.parametrize("clean", [GRAY, PHOTOGRAPH], ids=["gray", "color"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_rivals_take_noise_off(name, clean):
    result = measure_denoising({name: find_rival(name)}, [("one", clean)], noise_levels=[25 / 255], progress=False)
    noisy, restored = result.rows
    assert restored.psnr > noisy.psnr + 2
    assert restored.ssim > noisy.ssim


def test_bm3d_is_above_the_other_rivals():
    pytest.importorskip("bm3d")
    rivals = {name: find_rival(name) for name in ("bm3d", "nlm")}
    result = measure_denoising(rivals, [("one", GRAY)], noise_levels=[25 / 255], progress=False)
    assert result.rows[1].psnr > result.rows[2].psnr > result.rows[0].psnr + 3


def test_a_rival_that_is_not_there_says_what_to_install(monkeypatch):
    monkeypatch.setitem(PACKAGES, "bm3d", ("no_such_package_of_anybody", "pip install bm3d"))
    assert not is_installed("bm3d")
    with pytest.raises(GenaugError, match="rival bm3d needs the package .* not installed; pip install bm3d"):
        find_rival("bm3d")
    with pytest.raises(GenaugError, match="rival must be one of bm3d, nlm, .*, got 'median'"):
        find_rival("median")


@pytest.mark.parametrize(
    ("denoisers", "options", "message"),
    [
        ({"a": object()}, {}, "restore: object cannot do this"),
        ({"a": lambda image, level: image[:, 1:]}, {}, r"one, a: a restored image must have its shape \(1, 80, 110\)"),
        ({"a": lambda image, level: image * float("nan")}, {}, "one: denoiser 'a' must give finite values, got NaN"),
        ({}, {"noise_levels": [1.5]}, "noise_levels must be from 0 to 1, got 1.5"),
        ({}, {"noise_levels": [0.1, 0]}, r"noise_levels must be above 0, .*, got \[0.1, 0\]"),
        ({}, {"noise_levels": []}, "noise_levels or degradations must name at least one degradation, got none"),
    ],
)
def test_mistakes_are_named(denoisers, options, message):
    with pytest.raises(GenaugError, match=message):
        measure_denoising(denoisers, [("one", GRAY)], progress=False, **options)


def test_the_name_of_what_is_given_is_taken():
    with pytest.raises(GenaugError, match="denoisers must have other names than 'input'"):
        measure_denoising({"input": lambda image, level: image}, [("one", GRAY)], progress=False)


def test_no_images_are_refused():
    with pytest.raises(DataError, match="images must hold at least one image, got none"):
        measure_denoising({}, [], progress=False)


def test_whole_images_can_be_gone_through_several_times():
    images = load_images([GRAY, PHOTOGRAPH[:, :20, :30]])
    for _ in range(2):
        assert [(name, tuple(image.shape)) for name, image in images] == [
            ("item 0 of the data set", (1, 80, 110)),
            ("item 1 of the data set", (3, 20, 30)),
        ]
    assert len(load_images([GRAY] * 3, limit=2)) == 2
    assert [tuple(image.shape) for _, image in load_images([PHOTOGRAPH], grayscale=True)] == [(1, 80, 110)]
    with pytest.raises(DataError, match="limit must be an integer of at least 1, got 0"):
        load_images([GRAY], limit=0)
