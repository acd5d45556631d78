"""The conditional VAE against closed forms, and its contract on images of many sizes."""

import itertools
import math

import pytest
import torch
from torch import nn

from genaug import DataError, DataSpec, GenaugError
from genaug.models import VAE, VAEConfig
from genaug.models.layers import pyramid
from genaug.models.vae import kl_to_standard_normal, log_likelihood

SIZES = [(1, 8, 8), (1, 28, 28), (1, 40, 24), (3, 32, 32), (3, 64, 64), (2, 5, 17), (1, 1, 3)]
NAMES = ("a", "b", "c")


def make_vae(size: tuple[int, int, int] = (1, 8, 8), names: tuple[str, ...] = NAMES, **fields: object) -> VAE:
    torch.default_generator.manual_seed(0)
    model = VAE(DataSpec(*size, class_names=names), VAEConfig(**{"width": 8, "hidden": 16, "latent_dim": 4, **fields}))
    return model.eval()


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
    torch.testing.assert_close(log_likelihood(logits, targets, std=std), expected)


def test_bound_of_a_model_that_ignores_its_latents_is_the_exact_likelihood(images, labels):
    # If p(x|z) does not depend on z and q(z|x) = p(z), the bound is log p(x) = sum log N(x; sigmoid(b), std^2).
    model = make_vae(likelihood="gaussian", likelihood_std=0.3)
    for head in (model.decoder[-1], model.posterior_head[-1]):
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    nn.init.constant_(model.decoder[-1].bias, 0.4)
    likelihood, kl = model.elbo(images, labels, torch.randn(6, 4, generator=seeded()))
    mean = 1 / (1 + math.exp(-0.4))
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
    likelihood = log_likelihood(unit.logit(), target, std=float(std / span)) - 6 * math.log(span)
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
    likelihood, kl = model.elbo(images, labels, torch.randn(6, 4, generator=generator))
    torch.testing.assert_close(loss, (-likelihood.mean() + 0.5 * kl.mean(0).sum()) / 64)
    torch.testing.assert_close(figures["reconstruction"], -likelihood.mean().detach())
    torch.testing.assert_close(figures["kl"], kl.mean(0).sum().detach())


def test_free_bits_cost_at_least_lambda_in_every_dimension(images, labels):
    free, plain = make_vae(free_bits=50.0, label_dropout=0.0), make_vae(label_dropout=0.0)
    loss, figures = loss_of(free, images, labels, seeded())
    _, expected = loss_of(plain, images, labels, seeded())
    torch.testing.assert_close(figures["kl"], expected["kl"])  # reported as it is
    torch.testing.assert_close(loss, (figures["reconstruction"] + 4 * 50.0) / 64)
    loss.backward()
    head = free.posterior_head[-1]  # below the floor the KL has no gradient; the likelihood still has
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


@pytest.mark.parametrize("size", SIZES)
def test_every_size_goes_through_all_methods(size):
    model = make_vae(size)
    images, labels = torch.rand(3, *size, generator=seeded()), torch.tensor([0, 1, 2])
    loss, _ = loss_of(model, images, labels, seeded())
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.fit_after_training(images, labels)
    latents = model.encode(images, labels)
    assert latents.shape == (3, 4)
    for out in (
        model.decode(latents, labels),
        model.sample(labels, generator=seeded()),
        model.vary(images, labels, strength=0.5, generator=seeded()),
    ):
        assert out.shape == (3, *size)
        assert out.dtype == torch.float32
        assert 0 <= out.min() <= out.max() <= 1
        assert not out.requires_grad


@pytest.mark.parametrize("size", SIZES)
def test_pyramid_halves_rounding_up(size):
    sizes = pyramid(*size[1:])
    assert sizes[0] == size[1:]
    assert max(sizes[-1]) <= 4
    for (h, w), (half_h, half_w) in itertools.pairwise(sizes):
        assert (half_h, half_w) == (math.ceil(h / 2), math.ceil(w / 2))


def test_no_batch_statistics_each_image_stands_alone(images, labels):
    model = make_vae().train()
    whole = model.posterior(images, labels)[0]
    alone = torch.cat([model.posterior(images[i : i + 1], labels[i : i + 1])[0] for i in range(6)])
    torch.testing.assert_close(whole, alone)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def test_sampling_depends_on_the_generator_alone(labels):
    model = make_vae()
    first = model.sample(labels, generator=seeded(5), batch_size=256)
    torch.testing.assert_close(model.sample(labels, generator=seeded(5), batch_size=2), first, atol=1 / 255, rtol=0)
    assert torch.equal(model.sample(labels, generator=seeded(5)), first)
    assert not torch.equal(model.sample(labels, generator=seeded(6)), first)


def test_labels_matter_and_null_is_allowed(labels):
    model = make_vae()
    latents = torch.zeros(4, 4)
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
        (lambda m: m.decode(torch.zeros(1, 5)), "latents must have shape"),
        (lambda m: m.vary(torch.zeros(1, 1, 8, 8), strength=1.5), "strength must be from 0 to 1"),
    ],
)
def test_wrong_input_is_one_clear_error(call, message):
    with pytest.raises(GenaugError, match=message):
        call(make_vae())


@pytest.mark.parametrize("fields", [{"width": 0}, {"latent_dim": 0}, {"beta": -1.0}, {"beta": math.nan}])
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


def test_measure_agrees_with_its_definition(images, labels):
    model = make_vae(likelihood="gaussian")
    scores = model.measure(images, labels)
    error = (model.decode(model.encode(images, labels), labels) - images).square().mean()
    assert scores["reconstruction_mse"] == pytest.approx(float(error), abs=1e-6)  # it is rounded to six digits
    assert scores["held_out_images"] == 6
