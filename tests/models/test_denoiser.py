"""The denoiser: what its network promises, images of any size, training with and without clean images."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

import genaug
from genaug import DataError, DataSpec, GenaugError
from genaug.config import parse_config
from genaug.data import LabeledImages, load_data
from genaug.degradations import Clip, GaussianNoise, SaltAndPepper, degrade
from genaug.images import to_float, to_model, to_uint8
from genaug.models import Denoiser, DenoiserConfig
from genaug.models.configs import STRONGEST
from genaug.models.denoiser import KNOWN, crop_and_turn, psnr
from genaug.models.denoiser_network import NoiseNet
from genaug.models.neighbors import neighbor_loss

SIZES = [(8, 8), (1, 1), (1, 30), (30, 1), (2, 3), (33, 47), (64, 40)]


def make_denoiser(channels: int = 1, **fields: object) -> Denoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Denoiser(
            DataSpec(channels=channels), DenoiserConfig(**{"width": 4, "levels": 2, "blocks": 1, **fields})
        )
        randomize(model)
    return model.eval()


def randomize(model: nn.Module) -> None:
    """Give every convolution weights that keep the size of what comes in, those that start at zero included."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_of(net: NoiseNet, images: torch.Tensor, level: float = 0.0) -> torch.Tensor:
    with torch.no_grad():
        return net(images, torch.full((len(images),), level))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", [1, 3])
def test_any_size(size: tuple[int, int], channels: int, levels: int) -> None:
    model = make_denoiser(channels, levels=levels)
    images = torch.rand(2, channels, *size, generator=seeded())
    restored = model.restore(images)
    assert restored.shape == images.shape
    assert restored.dtype == torch.float32
    assert 0 <= float(restored.min()) <= float(restored.max()) <= 1
    assert model.vary(images, strength=0.5, generator=seeded()).shape == images.shape
    draws = model.draw_for_training(2, generator=seeded())
    loss, _ = model.training_loss(images, torch.zeros(2, dtype=torch.int64), draws)
    assert loss.isfinite()


@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_noise_scales_with_the_image(factor: float) -> None:
    net = make_denoiser(levels=3).network
    images = torch.randn(2, 1, 20, 13, generator=seeded())
    torch.testing.assert_close(noise_of(net, factor * images, factor * 0.2), factor * noise_of(net, images, 0.2))


def test_no_bias_anywhere() -> None:
    assert not [name for name, _ in Denoiser(DataSpec(channels=3)).named_parameters() if name.endswith("bias")]


@pytest.mark.parametrize(("levels", "blocks"), [(1, 1), (2, 1), (2, 2)])
def test_no_pixel_counts_beyond_the_reach(levels: int, blocks: int) -> None:
    net = make_denoiser(levels=levels, blocks=blocks).network
    side = 2 * net.reach + 2 * net.stride + 8
    images = torch.randn(1, 1, side, side, generator=seeded(), requires_grad=True)
    farthest = 0
    for place in range(side // 2, side // 2 + net.stride):  # positions of a pixel within the stride differ
        (gradient,) = torch.autograd.grad(net(images, torch.zeros(1))[0, 0, place, place], images)
        farthest = max(farthest, int((gradient[0, 0].nonzero() - place).abs().max()))
    assert net.reach // 2 < farthest <= net.reach


@pytest.mark.parametrize("size", [(70, 90), (10, 120)])
def test_tiles_leave_no_seam(size: tuple[int, int]) -> None:
    model = make_denoiser(3, blocks=2)
    noisy = degrade(torch.rand(2, 3, *size, generator=seeded()), [GaussianNoise(0.1)], seeds=torch.tensor([1, 2]))
    whole = model.restore(noisy)
    for tile in (16, 50):
        torch.testing.assert_close(model.restore(noisy, tile=tile), whole, atol=1e-5, rtol=0)


def test_cost_of_a_pixel() -> None:
    """Multiply-adds of the default configuration, counted by hooks: below the 121 thousand of FFDNet."""
    model, counted = Denoiser(DataSpec(channels=1)), 0

    def count(module: nn.Conv2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal counted
        each = module.weight[0].numel()
        counted += (inputs[0] if isinstance(module, nn.ConvTranspose2d) else output).numel() * each

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_hook(count)
    noise_of(model.network, torch.zeros(1, 1, 64, 64))
    assert 45_000 < counted / 64**2 < 50_000


def test_a_new_model_leaves_images_as_they_are() -> None:
    images = torch.rand(2, 1, 9, 9, generator=seeded())
    torch.testing.assert_close(make_new().restore(images), images)


def make_new(**fields: object) -> Denoiser:
    with torch.random.fork_rng(devices=[]):
        return Denoiser(DataSpec(channels=1), DenoiserConfig(**{"width": 8, "levels": 2, "blocks": 1, **fields}))


def test_a_known_noise_level_counts() -> None:
    model, noisy = make_denoiser(), torch.rand(2, 1, 12, 12, generator=seeded())
    assert not torch.equal(model.restore(noisy, noise_level=0.2), model.restore(noisy))
    assert torch.equal(model.restore(noisy, noise_level=0.0), model.restore(noisy))


def test_noisy_floats_may_leave_the_range() -> None:
    model = make_denoiser()
    noisy = 0.5 + torch.randn(2, 1, 12, 12, generator=seeded())
    assert float(noisy.min()) < 0
    assert float(noisy.max()) > 1
    restored = model.restore(noisy)
    expected = (noisy - noise_of(model.network, 2 * noisy - 1) / 2).clamp(0, 1)
    torch.testing.assert_close(restored, expected)
    assert not torch.allclose(restored, model.restore(noisy.clamp(0, 1)))


def test_uint8_and_float_images_mean_the_same() -> None:
    model, images = make_denoiser(), torch.randint(0, 256, (2, 1, 12, 12), dtype=torch.uint8, generator=seeded())
    torch.testing.assert_close(model.restore(images), model.restore(images / 255))
    torch.testing.assert_close(model.restore(images, batch_size=1), model.restore(images))


def test_restoring_leaves_input_mode_and_gradients_alone() -> None:
    model, images = make_denoiser().train(), torch.rand(2, 1, 12, 12, generator=seeded())
    before = images.clone()
    restored = model.restore(images)
    assert torch.equal(images, before)
    assert all(module.training for module in model.modules())
    assert not restored.requires_grad
    assert not restored.is_inference()
    assert model.restore(images[:0]).shape == (0, 1, 12, 12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], r"images must be a tensor of shape \(N, C, H, W\), got \(1, 8, 8\)"),
        (lambda x: x.numpy(), "images must be a tensor .* got ndarray"),
        (lambda x: x.expand(-1, 3, -1, -1), "images must have 1 channels, got 3"),
        (lambda x: torch.full_like(x, torch.nan), "images must be finite, got NaN or infinite values"),
        (lambda x: torch.full_like(x, torch.inf), "images must be finite, got NaN or infinite values"),
        (lambda x: x.long(), "images must be uint8 .* or float .* got torch.int64"),
    ],
)
def test_wrong_images_are_one_clear_error(change: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_denoiser().restore(change(torch.rand(2, 1, 8, 8, generator=seeded())))  # type: ignore[operator]


@pytest.mark.parametrize("level", [-0.1, 25, float("nan"), "high"])
def test_noise_levels_are_on_the_unit_scale(level: object) -> None:
    with pytest.raises(GenaugError, match="noise_level must be from 0 to 1"):
        make_denoiser().restore(torch.rand(1, 1, 8, 8), noise_level=level)  # type: ignore[arg-type]


def test_crops_are_squares_of_the_image_in_all_symmetries() -> None:
    image = torch.arange(7 * 9, dtype=torch.float32).reshape(1, 1, 7, 9)
    draws = torch.rand(400, 3, generator=seeded())
    crops = crop_and_turn(image.expand(400, 1, 7, 9), draws, size=4)
    assert crops.shape == (400, 1, 4, 4)
    found = set()
    for crop, (down, right, turn) in zip(crops[:, 0].numpy(), draws.tolist(), strict=True):
        top, left, kind = int(down * 4), int(right * 6), int(turn * 8)
        expected = image[0, 0, top : top + 4, left : left + 4].numpy()
        expected = expected[:, ::-1] if kind & 1 else expected
        expected = expected[::-1] if kind & 2 else expected
        assert np.array_equal(crop, expected.T if kind & 4 else expected)
        found.add((top, left, kind))
    assert {kind for _, _, kind in found} == set(range(8))
    assert {top for top, _, _ in found} == set(range(4))
    assert {left for _, left, _ in found} == set(range(6))


def test_images_become_floats_after_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def watched(images: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(images.shape))
        return to_float(images)

    model = make_denoiser(crop=8)
    images = torch.randint(0, 256, (4, 1, 40, 30), dtype=torch.uint8, generator=seeded())
    draws, labels = model.draw_for_training(4, generator=seeded(3)), torch.zeros(4, dtype=torch.int64)
    expected = model.training_loss(to_float(images), labels, draws)
    monkeypatch.setattr("genaug.models.denoiser.to_float", watched)
    found = model.training_loss(images, labels, draws)
    assert shapes == [(4, 1, 8, 8)]
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1]["psnr"], expected[1]["psnr"])


def test_crops_of_small_images_are_as_large_as_can_be() -> None:
    images = torch.rand(2, 3, 5, 9, generator=seeded())
    assert crop_and_turn(images, torch.rand(2, 3, generator=seeded()), size=64).shape == (2, 3, 5, 5)


@pytest.mark.parametrize("loss", ["l1", "mse"])
def test_training_loss_is_its_definition(loss: str) -> None:
    steps = (GaussianNoise((0.05, 0.2)), SaltAndPepper(0.05))
    model = make_denoiser(loss=loss, degradations=steps, crop=8)
    images = torch.rand(6, 1, 12, 10, generator=seeded())
    draws = model.draw_for_training(6, generator=seeded(3))
    draws["known"] = torch.tensor([0.0, KNOWN - 1e-3, KNOWN, 0.9, 0.0, 1.0])
    clean = crop_and_turn(images, draws["crop"], size=8)
    noisy = degrade(clean, steps, seeds=draws["seeds"])
    told = (noisy - clean).square().flatten(1).mean(1).sqrt() * torch.tensor([1.0, 1, 0, 0, 1, 0])
    error = noisy - model.network(to_model(noisy), 2 * told) / 2 - clean
    found, figures = model.training_loss(images, torch.zeros(6, dtype=torch.int64), draws)
    torch.testing.assert_close(found, error.abs().mean() if loss == "l1" else (error**2).mean())
    torch.testing.assert_close(figures["psnr"], 10 * torch.log10(1 / (error**2).mean()).detach())


def test_training_on_noisy_images_alone() -> None:
    model = make_denoiser(supervision="neighbor2neighbor", consistency=1.5, crop=10)
    assert model.config.degradations == ()  # nothing is added to what is noisy already
    images = torch.rand(4, 1, 12, 12, generator=seeded())
    draws = model.draw_for_training(4, generator=seeded(3))
    found, _ = model.training_loss(images, torch.zeros(4, dtype=torch.int64), draws)
    crops = to_model(crop_and_turn(images, draws["crop"], size=10))
    expected = neighbor_loss(
        lambda y: y - model.network(y, torch.zeros(4)), crops, seeds=draws["pairs"], consistency=1.5
    )
    torch.testing.assert_close(found, expected)
    assert model.measure(images, torch.zeros(4, dtype=torch.int64)) == {}


def make_pairs(count: int, *size: int, channels: int = 1) -> torch.Tensor:
    """Independent noise, so that no pixel is like another of its pair or elsewhere."""
    return torch.rand(count, 2 * channels, *size, generator=seeded(5))


@pytest.mark.parametrize("loss", ["l1", "mse"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pairs_are_cut_alike_and_compared(loss: str, channels: int) -> None:
    model, pairs = (
        make_denoiser(channels, supervision="pairs", loss=loss, crop=6),
        make_pairs(9, 12, 10, channels=channels),
    )
    draws = model.draw_for_training(9, generator=seeded(3))
    errors = []
    for pair, (down, right, turn) in zip(pairs, draws["crop"].tolist(), strict=True):
        top, left, kind = int(down * 7), int(right * 5), int(turn * 8)
        crop = pair[None, :, top : top + 6, left : left + 6]
        crop = crop.flip([side for side, bit in ((-1, 1), (-2, 2)) if kind & bit])
        crop = crop.transpose(-1, -2) if kind & 4 else crop
        noisy, target = crop[:, :channels], crop[:, channels:]
        errors.append(noisy - noise_of(model.network, 2 * noisy - 1) / 2 - target)
    error = torch.cat(errors)
    found, figures = model.training_loss(pairs, torch.zeros(9, dtype=torch.int64), draws)
    torch.testing.assert_close(found, error.abs().mean() if loss == "l1" else (error**2).mean())
    torch.testing.assert_close(figures["psnr"], -10 * torch.log10((error**2).mean()))


def gradient(model: Denoiser, noisy: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    draws = model.draw_for_training(len(noisy), generator=seeded(3))
    loss, _ = model.training_loss(torch.cat([noisy, target], 1), torch.zeros(len(noisy), dtype=torch.int64), draws)
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])


def test_noise_of_mean_zero_in_second_images_leaves_the_mean_gradient_of_the_squared_error() -> None:
    """Noise2Noise in one line: it is linear in the target, so noise n and -n together give that of the clean target."""
    noisy, clean = make_pairs(4, 12, 12).chunk(2, dim=1)
    noise = torch.rand(clean.shape, generator=seeded(1)) - 0.5
    for loss, same in (("mse", True), ("l1", False)):
        model = make_denoiser(supervision="pairs", loss=loss, crop=8)
        mean = (gradient(model, noisy, clean + noise) + gradient(model, noisy, clean - noise)) / 2
        assert torch.allclose(mean, gradient(model, noisy, clean), atol=1e-6) == same


def test_the_loss_pulls_each_pixel_towards_its_own_target() -> None:
    model = make_denoiser(supervision="pairs", crop=8)
    assert model.config.loss == "mse"
    pairs = make_pairs(3, 8, 8).requires_grad_()
    loss, _ = model.training_loss(
        pairs, torch.zeros(3, dtype=torch.int64), model.draw_for_training(3, generator=seeded())
    )
    (found,) = torch.autograd.grad(loss, pairs)
    with torch.no_grad():
        draws = model.draw_for_training(3, generator=seeded())["crop"]
        crops = crop_and_turn(pairs, draws, size=8)
        error = crops[:, :1] - noise_of(model.network, 2 * crops[:, :1] - 1) / 2 - crops[:, 1:]
        turned = crop_and_turn(found, draws, size=8)[:, 1:]
    torch.testing.assert_close(turned, -2 * error / error.numel())


def test_measure_and_pictures_of_pairs() -> None:
    model, pairs = make_denoiser(3, supervision="pairs"), make_pairs(20, 8, 8, channels=3)
    pairs = (255 * pairs).to(torch.uint8)
    labels = torch.zeros(20, dtype=torch.int64)
    scores = model.measure(pairs, labels, rows=torch.arange(2, 20))
    first, second = pairs[2:, :3] / 255, pairs[2:, 3:] / 255
    restored = (model.restore(first) * 255).round() / 255
    assert scores["held_out_images"] == 18
    assert scores["psnr_degraded"] == pytest.approx(float(psnr(first, second).mean()), abs=1e-3)
    assert scores["psnr"] == pytest.approx(float(psnr(restored, second).mean()), abs=1e-3)
    shown = model.illustrate(pairs[:4], labels[:4], generator=seeded())
    torch.testing.assert_close(
        shown, torch.cat([pairs[:4, :3] / 255, model.restore(pairs[:4, :3]), pairs[:4, 3:] / 255])
    )


def test_fields_of_pairs(tmp_path: object) -> None:
    config = DenoiserConfig(supervision="pairs")
    assert (config.loss, config.degradations) == ("mse", ())
    assert (DenoiserConfig().loss, DenoiserConfig(supervision="neighbor2neighbor").loss) == ("l1", "l1")
    assert DenoiserConfig(supervision="pairs", loss="l1").loss == "l1"
    plain = json.loads(json.dumps(asdict(config)))
    assert parse_config(DenoiserConfig, plain, where="model", error=GenaugError) == config
    model = make_denoiser(3, supervision="pairs")
    model.save(f"{tmp_path}/model")
    assert genaug.load(f"{tmp_path}/model").spec == DataSpec(channels=3)


def test_what_data_each_supervision_learns_from() -> None:
    pairs = DataSpec(6, 20, 30, ("a",))
    config = DenoiserConfig(supervision="pairs")
    assert Denoiser.learned_spec(pairs, config, paired=True) == DataSpec(channels=3)
    assert Denoiser.learned_spec(pairs, DenoiserConfig(), paired=False) == DataSpec(channels=6)
    with pytest.raises(DataError, match=r"must be pairs for supervision: pairs, got single images 6x20x30; .* --pairs"):
        Denoiser.learned_spec(pairs, config, paired=False)
    for other in ("clean", "neighbor2neighbor"):
        message = f"data must be single images for supervision: {other}, got pairs, of 6 channels together; set model"
        with pytest.raises(DataError, match=message):
            Denoiser.learned_spec(pairs, DenoiserConfig(supervision=other), paired=True)


@pytest.mark.parametrize("supervision", ["neighbor2neighbor", "pairs"])
def test_a_noise_level_that_was_never_told_is_refused(supervision: str) -> None:
    model, images = make_denoiser(supervision=supervision), torch.rand(2, 1, 8, 8, generator=seeded())
    with pytest.raises(GenaugError, match=f"noise_level must be left out .* supervision: {supervision}, .* got 0.1"):
        model.restore(images, noise_level=0.1)
    seeds = torch.tensor([1, 2])
    noisy = degrade(images, [GaussianNoise(STRONGEST)], seeds=seeds)
    assert torch.equal(model.vary(images, strength=1.0, seeds=seeds), model.restore(noisy))


def test_strength_zero_restores_and_one_adds_the_strongest_noise() -> None:
    model, images = make_denoiser(), torch.rand(3, 1, 12, 12, generator=seeded())
    assert torch.equal(model.vary(images, strength=0.0), model.restore(images))
    seeds = torch.tensor([4, 5, 6])
    noisy = degrade(images, [GaussianNoise(STRONGEST)], seeds=seeds)
    varied = model.vary(images, torch.tensor([0, 1, 0]), strength=1.0, seeds=seeds)
    assert torch.equal(varied, model.restore(noisy, noise_level=STRONGEST))
    torch.testing.assert_close(model.vary(images[1:2], strength=1.0, seeds=seeds[1:2]), varied[1:2])
    one, other = (model.vary(images, strength=0.5, generator=seeded(seed)) for seed in (1, 2))
    assert torch.equal(one, model.vary(images, strength=0.5, generator=seeded(1)))
    assert not torch.equal(one, other)


def test_psnr_is_that_of_numpy() -> None:
    images, clean = (torch.rand(3, 2, 5, 4, generator=seeded(seed)) for seed in (1, 2))
    squared = ((images.numpy().astype(np.float64) - clean.numpy()) ** 2).reshape(3, -1).mean(1)
    np.testing.assert_allclose(psnr(images, clean).numpy(), 10 * np.log10(1 / squared), rtol=1e-5)


def test_measure_agrees_with_its_definition() -> None:
    steps = (GaussianNoise(0.1), Clip())
    model, images = make_denoiser(degradations=steps), torch.rand(20, 1, 8, 8, generator=seeded())
    images = (255 * images).to(torch.uint8)
    scores = model.measure(images, torch.zeros(20, dtype=torch.int64), rows=torch.arange(2, 20))
    clean = to_float(images[2:])
    noisy = degrade(clean, steps, seeds=torch.randint(2**62, (18,), generator=seeded()))
    restored = (model.restore(noisy) * 255).round() / 255
    assert scores["held_out_images"] == 18
    assert scores["psnr_degraded"] == pytest.approx(float(psnr(noisy, clean).mean()), abs=1e-3)
    assert scores["psnr"] == pytest.approx(float(psnr(restored, clean).mean()), abs=1e-3)


def test_spec_has_neither_size_nor_classes() -> None:
    model = Denoiser(DataSpec(3, 20, 30, ("cat", "dog")), DenoiserConfig(width=4, levels=1, blocks=1))
    assert model.spec == DataSpec(channels=3)


def test_fields_come_from_plain_values_and_go_back() -> None:
    values = {"width": 8, "degradations": [{"kind": "gaussian-noise", "noise_level": [0, 0.3]}, {"kind": "clip"}]}
    config = parse_config(DenoiserConfig, values, where="model", error=GenaugError)
    assert config.degradations == (GaussianNoise((0.0, 0.3)), Clip())
    plain = json.loads(json.dumps(asdict(config)))
    assert parse_config(DenoiserConfig, plain, where="model", error=GenaugError) == config
    assert DenoiserConfig().degradations == (GaussianNoise((0.0, 55 / 255)),)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 0}, "width must be from 1 to 1024, got 0"),
        ({"levels": 7}, "levels must be from 1 to 6, got 7"),
        ({"crop": 2}, "crop must be from 4 to 4096, got 2"),
        ({"consistency": float("nan")}, "consistency must be from 0 to 1000, got nan"),
        ({"loss": "huber"}, "loss must be one of l1, mse, got 'huber'"),
        ({"supervision": "none"}, "supervision must be one of clean, neighbor2neighbor, pairs, got 'none'"),
        ({"degradations": []}, "degradations must name what the clean images are to be restored from"),
        (
            {"supervision": "pairs", "degradations": (GaussianNoise(0.1),)},
            r"left out .* pairs, .* got \['gaussian-noise'",
        ),
        ({"degradations": [{"kind": "fog"}]}, r"degradations.0.kind: must be one of gaussian-noise, .* got 'fog'"),
        ({"degradations": [{"kind": "gaussian-noise", "noise_level": 20}]}, r"degradations.0.noise_level: must be"),
    ],
)
def test_wrong_fields_are_one_clear_error(fields: dict, message: str) -> None:
    with pytest.raises(GenaugError, match=message):
        DenoiserConfig(**fields)


def test_a_model_comes_back_and_restores_the_same(tmp_path: object) -> None:
    model, noisy = make_denoiser(3), torch.rand(2, 3, 21, 10, generator=seeded())
    model.save(f"{tmp_path}/model")
    loaded = genaug.load(f"{tmp_path}/model")
    assert loaded.config == model.config
    assert torch.equal(loaded.restore(noisy), model.restore(noisy))
    card = (tmp_path / "model" / "README.md").read_text()  # type: ignore[operator]
    assert "model.restore(images)" in card
    assert "model.sample" not in card


def test_it_learns(tmp_path: object) -> None:
    """Digits with noise of 0.2: a few hundred steps gain decibels."""
    recipe = {
        "family": "denoiser",
        "model": {
            "width": 8,
            "levels": 2,
            "blocks": 1,
            "crop": 8,
        },
        "training": {
            "steps": 200,
            "batch_size": 64,
            "learning_rate": 3e-3,
            "validation_fraction": 0.1,
            "save_every": 100,
        },
    }
    recipe["model"]["degradations"] = [{"kind": "gaussian-noise", "noise_level": 0.2}]
    data = load_data("digits")
    result = genaug.train(recipe, data=data, output=f"{tmp_path}/run", progress=False)
    assert result.scores["psnr_degraded"] == pytest.approx(-20 * np.log10(0.2), abs=0.2)
    assert result.scores["psnr"] > result.scores["psnr_degraded"] + 3
    assert (tmp_path / "run" / "samples" / "final.png").is_file()  # type: ignore[operator]


def test_it_learns_from_two_noisy_shots_of_each_scene(tmp_path: object) -> None:
    """Noise2Noise on digits in gray, so that no value is cut off: the clean ones only judge, and are met best."""
    digits = load_data("digits")
    clean = (64 + digits.images / 2).round().to(torch.uint8)
    shots = [
        to_uint8(degrade(clean, [GaussianNoise(0.1), Clip()], seeds=torch.arange(len(clean)) + 10_000 * shot))
        for shot in (1, 2)
    ]
    data = LabeledImages(torch.cat(shots, 1), digits.labels, DataSpec(2, 8, 8, digits.spec.class_names), paired=True)
    recipe = {
        "family": "denoiser",
        "model": {"width": 8, "levels": 2, "blocks": 1, "crop": 8, "supervision": "pairs"},
        "training": {"steps": 200, "batch_size": 64, "learning_rate": 3e-3, "validation_fraction": 0.1},
    }
    result = genaug.train(recipe, data=data, output=f"{tmp_path}/run", progress=False)
    _, held_out = data.split(0.1, seed=0)
    restored = result.model.restore(shots[0][held_out])
    noisy, gained = (
        float(psnr(images, clean[held_out] / 255).mean()) for images in (shots[0][held_out] / 255, restored)
    )
    assert result.model.spec == DataSpec(channels=1)
    assert noisy == pytest.approx(20, abs=0.2)
    assert gained > noisy + 2
    assert result.scores["psnr_degraded"] == pytest.approx(20 - 10 * np.log10(2), abs=0.2)  # of both noises
    assert result.scores["psnr_degraded"] + 1 < result.scores["psnr"] < 20  # the second noise alone


pytestmark = pytest.mark.global_rng  # images where their values do not count
