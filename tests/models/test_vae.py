"""The conditional VAE against closed forms, and its contract on images of many sizes."""

import copy
import hashlib
import math
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from genaug import DataError, DataSpec, GenaugError
from genaug.models import VAE, VAEConfig
from genaug.models.likelihood import SMALLEST_STD, kl_to_standard_normal, log_likelihood
from genaug.models.vae import FIRST_STD, STD_SPEED

SIZES = {  # and of how many positions the map of each is
    (1, 8, 8): 16,
    (1, 28, 28): 49,
    (1, 40, 24): 60,
    (3, 32, 32): 64,
    (3, 64, 64): 64,
    (2, 5, 17): 27,
    (1, 1, 3): 3,
    (1, 1, 1): 1,
    (1, 4, 4): 16,
    (2, 2, 7): 4,
}
NAMES = ("a", "b", "c")


def make_vae(size: tuple[int, int, int] = (1, 8, 8), names: tuple[str, ...] = NAMES, **fields: object) -> VAE:
    torch.default_generator.manual_seed(0)
    model = VAE(DataSpec(*size, class_names=names), VAEConfig(**{"width": 8, "hidden": 16, "latent_dim": 4, **fields}))
    return model.eval()


def randomize(model: VAE) -> VAE:
    """Give values to what starts at zero: residual branches and, where there are such, layers of the map."""
    generator = seeded(11)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim and not parameter.any():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def make_constant(mean: float, size: tuple[int, int, int] = (1, 8, 8), **fields: object) -> VAE:
    """Return a model in which p(x|z) = N(mean, std^2) does not depend on z, and q(z|x) = p(z)."""
    model = make_vae(size, **fields)
    for head in (model.decoder.to_images[-1], model.posterior_head[-1], model.map_head[-1]):
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    nn.init.constant_(model.decoder.to_images[-1].bias, math.log(mean / (1 - mean)))
    return model


def loss_of(model: VAE, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator):
    return model.training_loss(images, labels, model.draw_for_training(len(images), generator=generator))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 1, 8, 8, generator=seeded(1))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.tensor([0, 1, 2, 0, 1, 2])


pytestmark = pytest.mark.global_rng  # make_vae seeds the weights through torch's global generator


def test_kl_is_that_of_torch_distributions():
    mean, log_variance = torch.randn(50, generator=seeded()), torch.randn(50, generator=seeded(1))
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), expected)


@pytest.mark.parametrize("std", [None, 0.1, 0.7])
def test_log_likelihood_is_that_of_torch_distributions(std):
    logits = torch.randn(3, 2, 4, 4, generator=seeded())
    if std is None:
        targets = torch.rand(3, 2, 4, 4, generator=seeded(1)).round()
        distribution: torch.distributions.Distribution = torch.distributions.Bernoulli(logits=logits)
    else:
        targets = torch.rand(3, 2, 4, 4, generator=seeded(1))
        distribution = torch.distributions.Normal(torch.sigmoid(logits), std)
    expected = distribution.log_prob(targets).sum((1, 2, 3))
    found = log_likelihood(logits, targets, std=None if std is None else torch.tensor(std))
    torch.testing.assert_close(found, expected)


def test_bound_of_a_model_that_ignores_its_latents_is_the_exact_likelihood(images, labels):
    # If p(x|z) does not depend on z and q(z|x) = p(z), the bound is log p(x) = sum log N(x; sigmoid(b), std^2).
    mean = 1 / (1 + math.exp(-0.4))
    model = make_constant(mean, likelihood="gaussian", likelihood_std=0.3)
    likelihood, kl = model.elbo(images, labels, torch.randn(6, model.latent_size, generator=seeded()))
    expected = torch.distributions.Normal(mean, 0.3).log_prob(images).sum((1, 2, 3))
    torch.testing.assert_close(likelihood - kl.sum(1), expected)


def test_bound_is_tight_for_the_exact_posterior_of_a_linear_gaussian_model():
    # x = W z + b + s e with orthogonal columns W: log p(x) = log N(x; b, W W^T + s^2 I), and the posterior is diagonal,
    # so E_q[log p(x|z)] - KL(q || p(z)) must give log p(x) exactly (up to the Monte Carlo error of the first term).
    generator = seeded()
    basis = torch.linalg.qr(torch.randn(6, 2, generator=generator, dtype=torch.float64)).Q
    scale = torch.tensor([1.5, 0.7], dtype=torch.float64)
    weight, bias, std = basis * scale, torch.randn(6, generator=generator, dtype=torch.float64), 0.5
    x = torch.randn(6, generator=generator, dtype=torch.float64)
    variance = std**2 / (scale**2 + std**2)
    mean = (weight.T @ (x - bias)) * variance / std**2
    draws = mean + variance.sqrt() * torch.randn(100_000, 2, generator=generator, dtype=torch.float64)
    means = draws @ weight.T + bias
    # log_likelihood squashes logits, so shift everything into (0, 1) where the inverse of the sigmoid is exact.
    low, span = means.min() - 1, means.max() - means.min() + 2
    unit = ((means - low) / span)[:, :, None, None]
    target = ((x - low) / span).expand(100_000, 6)[:, :, None, None]
    likelihood = log_likelihood(unit.logit(), target, std=std / span) - 6 * math.log(span)
    bound = likelihood - kl_to_standard_normal(mean, variance.log()).sum()
    marginal = torch.distributions.MultivariateNormal(
        bias, weight @ weight.T + std**2 * torch.eye(6, dtype=torch.float64)
    ).log_prob(x)
    error = 5 * bound.std() / len(bound) ** 0.5  # five standard errors of the mean
    assert abs(bound.mean() - marginal) < error


def test_training_loss_is_minus_the_bound_per_pixel(images, labels):
    model = make_vae(beta=0.5, label_dropout=0.0)
    loss, figures = loss_of(model, images, labels, seeded(3))
    generator = seeded(3)
    torch.rand(6, generator=generator)  # the draw of dropped labels comes first
    likelihood, kl = model.elbo(images, labels, torch.randn(6, model.latent_size, generator=generator))
    torch.testing.assert_close(loss, (-likelihood.mean() + 0.5 * kl.mean(0).sum()) / 64)
    torch.testing.assert_close(figures["reconstruction"], -likelihood.mean().detach())
    torch.testing.assert_close(figures["kl"], kl.mean(0).sum().detach())


def test_free_bits_cost_at_least_lambda_in_every_dimension(images, labels):
    free, plain = make_vae(free_bits=50.0, label_dropout=0.0), make_vae(label_dropout=0.0)
    loss, figures = loss_of(free, images, labels, seeded())
    _, expected = loss_of(plain, images, labels, seeded())
    torch.testing.assert_close(figures["kl"], expected["kl"])  # reported as it is
    torch.testing.assert_close(loss, (figures["reconstruction"] + (4 + 2 * 16) * 50.0) / 64)
    loss.backward()
    for head in (free.posterior_head[-1], free.map_head[-1]):
        # below the floor the KL has no gradient; the likelihood still has
        assert head.weight.grad is not None
        assert head.weight.grad.abs().sum() > 0


def test_dropped_labels_reach_the_model_as_the_null_class(images, labels):
    model = make_vae(label_dropout=1.0)
    null = torch.full_like(labels, model.null_label)
    first, _ = loss_of(model, images, labels, seeded())
    second, _ = loss_of(model, images, null, seeded())
    torch.testing.assert_close(first, second)
    kept = make_vae(label_dropout=0.0)
    assert loss_of(kept, images, labels, seeded())[0] != first


@pytest.mark.parametrize("map_channels", [2, 0])
@pytest.mark.parametrize("size", SIZES)
def test_every_size_goes_through_all_methods(size, map_channels):
    model = make_vae(size, map_channels=map_channels)
    assert model.latent_size == 4 + map_channels * SIZES[size]
    images, labels = torch.rand(3, *size, generator=seeded()), torch.tensor([0, 1, 2])
    loss, _ = loss_of(model, images, labels, seeded())
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.fit_after_training(images, labels)
    latents = model.encode(images, labels)
    assert latents.shape == (3, model.latent_size)
    for out in (
        model.decode(latents, labels),
        model.sample(labels, generator=seeded()),
        model.vary(images, labels, strength=0.5, generator=seeded()),
    ):
        assert out.shape == (3, *size)
        assert out.dtype == torch.float32
        assert 0 <= out.min() <= out.max() <= 1
        assert not out.requires_grad


def test_no_batch_statistics_each_image_stands_alone(images, labels):
    model = randomize(make_vae()).train()
    noise = torch.randn(6, model.latent_size, generator=seeded())
    whole = model.posterior(images, labels, noise)
    rows = [slice(i, i + 1) for i in range(6)]
    parts = [model.posterior(images[i], labels[i], noise[i]) for i in rows]
    alone = [torch.cat(part) for part in zip(*parts, strict=True)]
    torch.testing.assert_close(list(whole), alone)
    layers = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)
    assert not any(isinstance(module, layers) for module in model.modules())


def test_sampling_depends_on_the_generator_alone(labels):
    model = make_vae()
    first = model.sample(labels, generator=seeded(5), batch_size=256)
    torch.testing.assert_close(model.sample(labels, generator=seeded(5), batch_size=2), first, atol=1 / 255, rtol=0)
    assert torch.equal(model.sample(labels, generator=seeded(5)), first)
    assert not torch.equal(model.sample(labels, generator=seeded(6)), first)


def test_labels_matter_and_null_is_allowed(labels):
    model = make_vae()
    latents = torch.zeros(4, model.latent_size)
    out = model.decode(latents, torch.tensor([0, 1, 2, 3]))
    assert len({tuple(row.flatten().tolist()) for row in out}) == 4
    torch.testing.assert_close(model.decode(latents[:1]), out[3:])  # no labels mean the null class


def test_uint8_and_float_images_mean_the_same(labels):
    model = make_vae()
    levels = torch.randint(0, 256, (6, 1, 8, 8), generator=seeded(), dtype=torch.uint8)
    torch.testing.assert_close(model.encode(levels, labels), model.encode(levels / 255, labels), atol=1e-5, rtol=1e-4)


def test_modes_of_modules_come_back(images):
    model = make_vae().train()
    model.decoder.eval()
    model.encode(images)
    assert model.training
    assert model.encoder.training
    assert not model.decoder.training


def test_outputs_can_enter_a_training_step(labels):
    # A tensor of inference mode would raise here.
    out = make_vae().sample(labels, generator=seeded())
    nn.Conv2d(1, 2, 3)(out).sum().backward()


def test_strength_zero_reconstructs_and_one_forgets_the_image(images, labels):
    model = make_vae()
    reconstruction = model.decode(model.encode(images, labels), labels)
    torch.testing.assert_close(model.vary(images, labels, strength=0.0), reconstruction)
    # At strength 1 what is left of the image is nothing: two images of a class give the same draw.
    ones = model.vary(images, torch.zeros(6, dtype=torch.int64), strength=1.0, generator=seeded(2))
    others = model.vary(images.flip(0), torch.zeros(6, dtype=torch.int64), strength=1.0, generator=seeded(2))
    torch.testing.assert_close(ones, others)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample(torch.tensor([4])), "labels must be class indices from 0 to 3"),
        (lambda m: m.sample(torch.tensor([-1])), "labels must be class indices"),
        (lambda m: m.sample([0]), "labels must be an int64 tensor"),
        (lambda m: m.encode(torch.zeros(1, 3, 8, 8)), "images must have 1 channels"),
        (lambda m: m.encode(torch.zeros(1, 1, 9, 8)), "images must be of size 1x8x8"),
        (lambda m: m.encode(torch.zeros(1, 8, 8)), "add images"),
        (lambda m: m.encode(torch.full((1, 1, 8, 8), math.nan)), "finite"),
        (lambda m: m.encode(torch.full((1, 1, 8, 8), 2.0)), r"\[0, 1\]"),
        (lambda m: m.encode(torch.zeros(2, 1, 8, 8), torch.tensor([0])), "as many as images"),
        (lambda m: m.decode(torch.zeros(1, 37)), r"latents must have shape \(N, 36\), got \(1, 37\)"),
        (lambda m: m.decode(torch.zeros(1, 4)), r"latents must have shape \(N, 36\), got \(1, 4\)"),
        (lambda m: m.vary(torch.zeros(1, 1, 8, 8), strength=1.5), "strength must be from 0 to 1"),
    ],
)
def test_wrong_input_is_one_clear_error(call, message):
    with pytest.raises(GenaugError, match=message):
        call(make_vae())


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 0},
        {"latent_dim": 0},
        {"map_channels": -1},
        {"map_channels": 65},
        {"likelihood_std": SMALLEST_STD / 2},
        {"likelihood_std": math.nan},
        {"beta": -1.0},
        {"beta": math.nan},
    ],
)
def test_config_fields_out_of_range(fields):
    with pytest.raises(GenaugError, match=next(iter(fields))):
        VAEConfig(**fields)


def test_size_must_be_known():
    with pytest.raises(GenaugError, match="height and width"):
        VAE(DataSpec(channels=1))


def test_wrong_labels_are_data_errors():
    with pytest.raises(DataError):
        make_vae().sample(torch.tensor([9]))


def test_unconditional_without_class_names(images):
    model = make_vae(names=())
    null = torch.zeros(6, dtype=torch.int64)  # with no classes the null class is index 0
    model.fit_after_training(images, null)
    assert model.sample(null, generator=seeded()).shape == (6, 1, 8, 8)
    assert model.vary(images, strength=0.3, generator=seeded()).shape == (6, 1, 8, 8)


def test_the_null_class_has_the_density_of_images_without_labels(images, labels):
    model = make_vae()
    with torch.no_grad():
        model.posterior_head[-1].weight.normal_(generator=seeded())  # the label is worth something to the encoder
    model.fit_after_training(images, labels)
    null, classes = model.density.means[-1, 0], model.density.means[:-1].clone()
    torch.testing.assert_close(null, model.encode(images).mean(0), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(null, model.encode(images, labels).mean(0), atol=0.1)
    model.fit_after_training(images, labels, rows=torch.arange(5))
    torch.testing.assert_close(model.density.means[-1, 0], model.encode(images[:5]).mean(0), rtol=1e-4, atol=1e-5)
    assert not torch.equal(model.density.means[:-1], classes)


def test_measure_agrees_with_its_definition(images, labels):
    model = randomize(make_vae(likelihood="gaussian"))
    scores = model.measure(images, labels)
    error = (model.decode(model.encode(images, labels), labels) - images).square().mean()
    assert scores["reconstruction_mse"] == pytest.approx(float(error), abs=1e-6)  # it is rounded to six digits
    assert scores["held_out_images"] == 6
    learned = make_vae().measure((images * 255).to(torch.uint8), labels)
    assert learned == make_vae().measure((images * 255).to(torch.uint8) / 255, labels)


# --- the two levels of latents


def test_bound_has_the_divergence_of_every_latent(images, labels):
    model = randomize(make_vae())
    noise = torch.randn(6, model.latent_size, generator=seeded())
    mean, log_variance, _ = model.posterior(images, labels, noise)
    assert mean.shape == log_variance.shape == (6, 36)
    prior = torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(torch.distributions.Normal(mean, (0.5 * log_variance).exp()), prior)
    _, kl = model.elbo(images, labels, noise)
    torch.testing.assert_close(kl, expected)
    assert (kl.mean(0) > 0).all()


def test_posterior_of_the_map_depends_on_the_vector_that_is_drawn(images, labels):
    model = randomize(make_vae())
    first = torch.randn(6, model.latent_size, generator=seeded())
    vector, positions = first.clone(), first.clone()
    vector[:, :4] += 1
    positions[:, 4:] += 1
    mean, log_variance, logits = model.posterior(images, labels, first)
    for noise, moves in ((vector, True), (positions, False)):
        moved = model.posterior(images, labels, noise)
        for old, new in ((mean, moved[0]), (log_variance, moved[1])):
            assert torch.equal(old[:, :4], new[:, :4])
            assert torch.equal(old[:, 4:], new[:, 4:]) != moves
        assert not torch.allclose(moved[2], logits)


@pytest.mark.parametrize("map_channels", [0, 1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_logits_of_the_posterior_are_those_that_its_draw_decodes_to(size, map_channels):
    model = randomize(make_vae(size, map_channels=map_channels))
    images, labels = torch.rand(3, *size, generator=seeded()), torch.tensor([0, 3, 1])
    noise = torch.randn(3, model.latent_size, generator=seeded())
    mean, log_variance, logits = model.posterior(images, labels, noise)
    torch.testing.assert_close(model.decode_logits(mean + (0.5 * log_variance).exp() * noise, labels), logits)
    # without noise, the vector's and the map's means alike: what `encode` gives and `decode` takes
    mean, _, logits = model.posterior(images, labels)
    torch.testing.assert_close(model.encode(images, labels), mean.detach())
    found = model.decode(model.encode(images, labels), labels)
    torch.testing.assert_close(found, torch.sigmoid(logits).detach())
    torch.testing.assert_close(model.posterior(images, labels, torch.zeros_like(noise))[2], logits)


def test_each_latent_of_the_map_reaches_the_image(images, labels):
    model = randomize(make_vae())
    latents = model.encode(images[:1], labels[:1])
    plain = model.decode(latents, labels[:1])
    moved = model.decode(latents + 3 * torch.eye(36), labels[:1].expand(36))
    assert ((moved - plain).abs().amax((1, 2, 3)) > 1e-5).all()
    # it acts the most around its own one of the 4 x 4 positions: channels first, then rows, then columns
    change = (moved - plain).abs()[4:].sum(1)
    weight = change / change.sum((1, 2), keepdim=True)
    places = torch.arange(8.0)
    for centers, own in (
        (weight.sum(2) @ places, torch.arange(4.0).repeat_interleave(4).repeat(2)),
        (weight.sum(1) @ places, torch.arange(4.0).repeat(8)),
    ):
        assert torch.corrcoef(torch.stack([centers, own]))[0, 1] > 0.9


def test_latents_of_the_map_are_distances_to_its_prior(images, labels):
    # With a prior N(m, s^2) of a channel, whatever the vector, z means what m + s z means under a prior N(0, 1).
    model, plain = randomize(make_vae()), randomize(make_vae())
    mean, std = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.25])
    for each, bias in ((model, torch.cat([mean, 2 * std.log()])), (plain, torch.zeros(4))):
        nn.init.zeros_(each.map_prior.weight)
        with torch.no_grad():
            each.map_prior.bias.copy_(bias)
    latents = torch.randn(6, 36, generator=seeded())
    moved = latents.clone()
    moved[:, 4:] = mean.repeat_interleave(16) + std.repeat_interleave(16) * latents[:, 4:]
    torch.testing.assert_close(model.decode(latents, labels), plain.decode(moved, labels))
    assert not torch.allclose(model.decode(latents, labels), plain.decode(latents, labels))


def test_at_the_start_the_map_costs_nothing(images, labels):
    model = make_vae()
    _, kl = model.elbo(images, labels, torch.randn(6, 36, generator=seeded()))
    assert (kl[:, 4:] == 0).all()
    assert (kl[:, :4] > 0).all()


def test_without_a_map_the_vector_is_all(images, labels):
    model = make_vae(map_channels=0)
    assert model.latent_size == model.config.latent_dim == 4
    assert not [name for name in model.state_dict() if name.startswith("map_")]
    assert model.density.means.shape == (4, 4, 4)
    assert model.draw_for_training(6, generator=seeded())["noise"].shape == (6, 4)
    likelihood, kl = model.elbo(images, labels, torch.randn(6, 4, generator=seeded()))
    assert (likelihood.shape, kl.shape) == ((6,), (6, 4))


def test_chunks_are_put_together_again(images, labels):
    model = randomize(make_vae())
    model.fit_after_training(images, labels)
    latents = model.encode(images, labels)
    torch.testing.assert_close(model.encode(images, labels, batch_size=4), latents)
    torch.testing.assert_close(model.decode(latents, labels, batch_size=4), model.decode(latents, labels))
    varied = [model.vary(images, labels, strength=0.5, generator=seeded(), batch_size=size) for size in (4, 256)]
    torch.testing.assert_close(*varied)


# --- the standard deviation that is learned


def test_gradient_of_the_learned_std_is_the_closed_form_times_its_factor(images, labels):
    model = make_vae(label_dropout=0.0, beta=0.7)
    assert model.likelihood_std.item() == pytest.approx(FIRST_STD)
    with torch.no_grad():
        model.scaled_log_std.fill_(math.log(0.23) / STD_SPEED)
    assert model.likelihood_std.item() == pytest.approx(0.23)
    draws = model.draw_for_training(6, generator=seeded())
    loss, figures = model.training_loss(images, labels, draws)
    loss.backward()
    with torch.no_grad():
        mean = torch.sigmoid(model.posterior(images, labels, draws["noise"])[2])
    mse = float((mean - images).square().mean())
    # of log std + mse / (2 std^2), by log std; the true factor of the parameter would be STD_SPEED
    assert float(model.scaled_log_std.grad) == pytest.approx((1 - mse / 0.23**2) / STD_SPEED, rel=1e-4)
    assert float(figures["likelihood_std"]) == pytest.approx(0.23)
    assert not figures["likelihood_std"].requires_grad


def test_learning_the_std_leaves_the_other_gradients_alone(images, labels):
    learned, fixed = make_vae(), make_vae(likelihood_std=FIRST_STD)
    assert learned.state_dict().keys() - fixed.state_dict().keys() == {"scaled_log_std"}
    for model in (learned, fixed):
        loss_of(model, images, labels, seeded())[0].backward()
    found = dict(learned.named_parameters())
    for name, parameter in fixed.named_parameters():
        torch.testing.assert_close(found[name].grad, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("noise_level", [0.02, 0.25])
def test_the_learned_std_finds_the_error_of_the_reconstruction(noise_level):
    # Noise that is new in each batch, far more of it than latents of two numbers could carry.
    model = make_vae(latent_dim=2, map_channels=0, label_dropout=0.0).train()
    generator = seeded(5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    labels, errors = torch.zeros(32, dtype=torch.int64), []
    for _ in range(400):
        images = (0.5 + noise_level * torch.randn(32, 1, 8, 8, generator=generator)).clamp(0, 1)
        draws = model.draw_for_training(32, generator=generator)
        with torch.no_grad():
            mean = torch.sigmoid(model.posterior(images, labels, draws["noise"])[2])
        errors = [*errors[-19:], float((images - mean).square().mean())]
        optimizer.zero_grad()
        model.training_loss(images, labels, draws)[0].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert model.likelihood_std.item() == pytest.approx(math.sqrt(np.mean(errors)), rel=0.1)


def test_the_learned_std_has_a_floor(images, labels):
    model = make_vae()
    with torch.no_grad():
        model.scaled_log_std.fill_(-100.0)
    assert model.likelihood_std.item() == pytest.approx(SMALLEST_STD)
    assert pytest.approx(1 / 255 / math.sqrt(12)) == SMALLEST_STD
    loss, _ = loss_of(model, images, labels, seeded())
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_who_has_a_std(images, labels):
    for fields, expected in [({"likelihood": "bernoulli"}, None), ({"likelihood_std": 0.25}, 0.25)]:
        model = make_vae(**fields)
        assert not hasattr(model, "scaled_log_std")
        assert (model.likelihood_std is None) == (expected is None)
        _, figures = loss_of(model, images, labels, seeded())
        assert figures.get("likelihood_std") == expected


# --- bits per dimension


@pytest.mark.parametrize(("mean", "std"), [(0.6, 0.3), (0.45, 0.05), (0.5, 0.005), (0.502, SMALLEST_STD)])
def test_bits_of_a_constant_model_bound_those_of_its_discrete_likelihood(mean, std):
    random = np.random.default_rng(0)
    levels = np.floor(256 * random.normal(mean, std, (64, 1, 8, 8))).clip(0, 255)
    scores = make_constant(mean, likelihood_std=std).measure(
        torch.from_numpy(levels).to(torch.uint8), torch.zeros(64, dtype=torch.int64)
    )
    # (level + u) / 256 with u uniform in [0, 1): its mean is the middle of the level, its variance 1 / 12 of a level's
    middle = (levels + 0.5) / 256
    square = (middle - mean) ** 2 + 1 / 12 / 256**2
    bits = (0.5 * np.log(2 * np.pi * std**2) + square / (2 * std**2)) / np.log(2) + 8
    # one u is drawn for each value, on which the term depends by (middle - mean) u / std^2, and a little by u^2
    spread = np.hypot((middle - mean) / np.sqrt(12) / 256, 1 / 256**2 / np.sqrt(180)) / std**2 / np.log(2)
    error = 5 * np.sqrt(np.mean(spread**2) / levels.size) + 1e-4  # five standard errors, and the rounding
    assert scores["bits_per_dim"] == pytest.approx(bits.mean(), abs=error)
    exact = -np.log2(norm.cdf((levels + 1) / 256, mean, std) - norm.cdf(levels / 256, mean, std))
    assert scores["bits_per_dim"] >= exact.mean() - error
    if std > 0.01:  # a density that is nearly flat over a level: nothing is lost
        assert scores["bits_per_dim"] == pytest.approx(exact.mean(), abs=error + 1e-3)
    assert scores["elbo_nats"] == pytest.approx((8 - scores["bits_per_dim"]) * 64 * math.log(2), abs=0.01)


def test_bits_need_a_density(images, labels):
    assert "bits_per_dim" not in make_vae(likelihood="bernoulli").measure(images, labels)
    assert "bits_per_dim" in make_vae().measure(images, labels)


def test_bits_count_the_divergence(images, labels):
    model = randomize(make_vae())
    # the vector has no way to the image, so that only its divergence changes: by 2 nats in each of 4 dimensions
    nn.init.zeros_(model.decoder.to_map[0][0].weight)
    nn.init.zeros_(model.posterior_head[-1].weight)
    nn.init.zeros_(model.posterior_head[-1].bias)
    before = model.measure(images, labels)
    nn.init.constant_(model.posterior_head[-1].bias[:4], 2.0)
    after = model.measure(images, labels)
    assert after["elbo_nats"] == pytest.approx(before["elbo_nats"] - 8, abs=1e-3)
    assert after["bits_per_dim"] == pytest.approx(before["bits_per_dim"] + 8 / 64 / math.log(2), abs=2e-4)


# --- the layout of weights


def convolutions(model: VAE) -> dict[str, torch.Tensor]:
    found = {name: tensor for name, tensor in model.named_parameters() if tensor.ndim == 4}
    assert any(not tensor.is_contiguous() for tensor in found.values())  # the two layouts differ for some
    return found


def test_weights_are_channels_last(tmp_path):
    model = make_vae((3, 28, 28))
    model.save(tmp_path / "model")
    loaded = VAE.from_pretrained(tmp_path / "model")
    for each in (model, loaded, copy.deepcopy(model), copy.deepcopy(loaded)):
        for name, weight in convolutions(each).items():
            assert weight.is_contiguous(memory_format=torch.channels_last), name


def test_a_round_trip_is_the_same_to_the_bit(tmp_path, images, labels):
    model = randomize(make_vae())
    model.fit_after_training(images, labels)
    model.save(tmp_path / "first")
    loaded = VAE.from_pretrained(tmp_path / "first")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
        assert loaded.state_dict()[name].stride() == tensor.stride(), name
    assert torch.equal(loaded.encode(images, labels), model.encode(images, labels))
    samples = [each.sample(labels, generator=seeded()) for each in (model, loaded)]
    assert torch.equal(*samples)
    loaded.save(tmp_path / "second")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second")]
    assert hashlib.sha256(files[0]).digest() == hashlib.sha256(files[1]).digest()


# --- the density of all latents


@pytest.mark.parametrize("count", [1, 3, 25, 90])
def test_few_images_of_many_latents(count):
    model = randomize(make_vae((1, 28, 28)))
    assert (model.latent_size, model.density.components) == (102, 4)
    images = torch.rand(count, 1, 28, 28, generator=seeded())
    labels = torch.arange(count) % 2  # the third class has none
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit_after_training(images, labels)
    torch.testing.assert_close(model.density.weights.sum(1), torch.ones(4))
    wanted = torch.tensor([0, 1, 2, 3]).repeat(8)
    assert model.sample(wanted, generator=seeded()).isfinite().all()
    assert model.vary(images, labels, strength=1.0, generator=seeded()).isfinite().all()


def test_learned_deviation_comes_back_from_below_its_floor(images, labels):
    model = make_vae()
    nn.init.constant_(model.scaled_log_std, 2 * math.log(SMALLEST_STD) / STD_SPEED)
    loss, figures = model.training_loss(images, labels, model.draw_for_training(6, generator=seeded()))
    loss.backward()
    assert figures["likelihood_std"] == pytest.approx(SMALLEST_STD, rel=2e-3)
    assert model.scaled_log_std.grad < 0


def test_rows_are_fitted_and_measured_as_a_copy_of_them(images, labels):
    rows = torch.tensor([5, 0, 3, 2])
    one, other = randomize(make_vae()), randomize(make_vae())
    one.fit_after_training(images, labels, rows=rows)
    other.fit_after_training(images[rows], labels[rows])
    assert all(torch.equal(a, b) for a, b in zip(one.density.buffers(), other.density.buffers(), strict=True))
    scores = one.measure(images, labels, rows=rows)
    assert scores == other.measure(images[rows], labels[rows])
    assert scores["held_out_images"] == 4


def test_latents_are_found_without_drawing_images(images, labels):
    model, drawn = make_vae(), []
    model.decoder.to_images.register_forward_hook(lambda module, inputs, output: drawn.append(len(output)))
    model.encode(images, labels)
    model.fit_after_training(images, labels)
    assert drawn == []
    model.vary(images, labels, strength=0.5)
    assert drawn == [6]
