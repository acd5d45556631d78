"""Autoencoders: penalties against Jacobians, their contract on images of many sizes, suspicious images they find."""

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.autograd.functional import jacobian

import genaug
from genaug import DataError, DataSpec, GenaugError, RecipeError
from genaug.data import LabeledImages, load_data
from genaug.degradations import GaussianNoise, MissingRectangles, degrade
from genaug.models import Autoencoder, AutoencoderConfig
from genaug.training import load_recipe, train

NAMES = ("a", "b", "c")
SIZES = [(1, 8, 8), (1, 28, 28), (1, 40, 24), (3, 32, 32), (2, 5, 17), (1, 1, 3), (1, 1, 1), (4, 2, 7)]
NOISE = GaussianNoise(noise_level=0.3)
OPTIONS: dict[str, dict[str, Any]] = {
    "convolutional": {"blocks": 2},
    "no blocks": {"blocks": 0, "loss": "l1"},
    "dense": {"network": "dense", "hidden": (9, 7), "loss": "bce"},
    "one layer": {"network": "dense", "hidden": (), "contraction_weight": 0.1},
    "one sigmoid layer": {"network": "dense", "hidden": (), "contraction_weight": 0.1, "code": "sigmoid"},
    "contractive": {"contraction_weight": 0.1, "code": "sigmoid"},
    "l1": {"sparsity": "l1", "sparsity_weight": 0.5},
    "kl": {"sparsity": "kl", "code": "sigmoid", "sparsity_weight": 0.5},
    "top-k": {"sparsity": "top-k", "sparsity_target": 0.5},
    "all": {
        "network": "dense",
        "code": "sigmoid",
        "sparsity": "top-k",
        "contraction_weight": 0.1,
        "loss": "bce",
        "degradations": (NOISE, MissingRectangles(count=(1, 2), size=(0.1, 0.3), value=0.5)),
        "density_components": 2,
    },
}

pytestmark = pytest.mark.global_rng  # weights are drawn from it


def make(size: tuple[int, int, int] = (1, 8, 8), names: tuple[str, ...] = NAMES, **fields: Any) -> Autoencoder:
    torch.default_generator.manual_seed(0)
    small = {"width": 4, "latent_dim": 4, "hidden": (12,)}
    model = Autoencoder(DataSpec(*size, class_names=names), AutoencoderConfig(**{**small, **fields})).eval()
    generator = seeded(11)
    with torch.no_grad():  # what starts at zero, such as residual branches, gets values
        for parameter in model.parameters():
            if not parameter.any():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def make_fitted(count: int = 90, **fields: Any) -> Autoencoder:
    model = make(**fields)
    model.fit_after_training(*batch(count))
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 6, size: tuple[int, int, int] = (1, 8, 8)) -> tuple[Tensor, Tensor]:
    """Images whose brightness depends on their class a, b or c, so that classes have unlike codes."""
    labels = torch.arange(count) % 3
    images = torch.rand(count, *size, generator=seeded(1))
    return 0.5 * images + 0.25 * labels.view(-1, 1, 1, 1), labels


def step(model: Autoencoder, images: Tensor, labels: Tensor, **draws: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    drawn = model.draw_for_training(len(images), generator=seeded(7))
    return model.training_loss(images, labels, {**drawn, **draws})


# --- sizes and options


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("option", OPTIONS)
def test_every_size_and_option_goes_through_all_methods(size: tuple[int, int, int], option: str) -> None:
    model = make(size, **OPTIONS[option])
    images, labels = batch(6, size)
    loss, figures = step(model, images, labels)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(value.isfinite() and not value.requires_grad for value in figures.values())
    model.fit_after_training(images, labels)
    codes = model.encode(images, labels)
    assert codes.shape == (6, model.latent_size) == (6, 4)
    scores = model.anomaly_score(images, labels)
    assert (scores.shape, scores.dtype) == ((6,), torch.float32)
    assert scores.isfinite().all()
    assert model.measure(images, labels)["held_out_images"] == 6
    for out in (
        model.decode(codes),
        model.sample(labels, generator=seeded()),
        model.vary(images, labels, strength=0.5, generator=seeded()),
        model.restore(images),
    ):
        assert out.shape == (6, *size)
        assert out.dtype == torch.float32
        assert 0 <= out.min() <= out.max() <= 1
        assert not out.requires_grad
    pictures = model.illustrate(images, labels, generator=seeded())
    assert pictures.shape == (2 * 6 + 3 * 6, *size)


def test_depth_and_width_are_those_of_the_recipe() -> None:
    dense = make(network="dense", hidden=(9, 7), latent_dim=5)
    shapes = [layer.weight.shape for layer in dense.modules() if isinstance(layer, nn.Linear)]
    assert shapes == [(9, 64), (7, 9), (5, 7), (7, 5), (9, 7), (64, 9)]
    counts = [sum(p.numel() for p in make(**fields).parameters()) for fields in ({}, {"width": 8}, {"blocks": 2})]
    assert counts[0] < min(counts[1:])


def test_without_classes() -> None:
    model, (images, _) = make(names=()), batch(60)
    null = torch.zeros(60, dtype=torch.int64)  # the null class
    model.fit_after_training(images, null)
    assert model.sample(null[:5], generator=seeded()).shape == (5, 1, 8, 8)
    torch.testing.assert_close(model.anomaly_score(images), model.anomaly_score(images, null))
    assert model.anomaly_score(images).isfinite().all()


def test_no_images_at_all() -> None:
    model = make_fitted(network="dense")
    images, labels = torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64)
    assert model.encode(images).shape == (0, 4)
    assert model.restore(images).shape == (0, 1, 8, 8)
    assert model.sample(labels).shape == (0, 1, 8, 8)
    assert model.vary(images, strength=1.0).shape == (0, 1, 8, 8)
    assert model.anomaly_score(images, labels).shape == (0,)


# --- the loss and its parts


def mean_norm(model: Autoencoder, images: Tensor) -> Tensor:
    """The mean over images of the squared norm of the encoder's Jacobian, with respect to images in [-1, 1]."""
    each = [jacobian(lambda x: model.encode_model_images(x[None])[0], image) for image in 2 * images - 1]
    return torch.stack([part.square().sum() for part in each]).mean()


@pytest.mark.parametrize("fields", [{}, {"code": "sigmoid"}, {"sparsity": "top-k", "sparsity_target": 0.5}])
def test_contraction_of_one_layer_is_exact(fields: dict[str, Any]) -> None:
    model, (images, labels) = make(network="dense", hidden=(), contraction_weight=0.1, **fields), batch()
    _, figures = step(model, images, labels)
    torch.testing.assert_close(figures["contraction"], mean_norm(model, images))
    _, others = step(model, images, labels, probe=torch.zeros(6, 4))
    assert torch.equal(others["contraction"], figures["contraction"])  # no number is drawn for it


@pytest.mark.parametrize(
    "fields", [{}, {"network": "dense"}, {"code": "sigmoid"}, {"sparsity": "top-k", "sparsity_target": 0.5}]
)
def test_contraction_of_more_layers_is_estimated_without_bias(fields: dict[str, Any]) -> None:
    model, (images, labels) = make(contraction_weight=0.1, **fields), batch()
    units = [step(model, images, labels, probe=unit.expand(6, 4))[1]["contraction"] for unit in torch.eye(4)]
    torch.testing.assert_close(torch.stack(units).sum(), mean_norm(model, images))
    probe = model.draw_for_training(50_000, generator=seeded())["probe"]
    # of the probes drawn, the mean of v v^T is the identity; five standard errors, of squares that of sqrt(2)
    torch.testing.assert_close(probe.T @ probe / 50_000, torch.eye(4), atol=5 * math.sqrt(2 / 50_000), rtol=0)


@pytest.mark.parametrize("network", ["convolutional", "dense"])
def test_contraction_is_learned_by_the_encoder_alone(network: str) -> None:
    model, (images, labels) = make(contraction_weight=0.1, network=network), batch()
    plain = make(network=network)
    for each in (model, plain):
        step(each, images, labels)[0].backward()
    for (name, parameter), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        same = torch.allclose(parameter.grad, other.grad, rtol=1e-4, atol=1e-7)
        assert same or name.startswith("encoder"), name
        assert not same or name.startswith("decoder") or name.endswith("bias"), name


def errors_by_hand(kind: str, decoded: np.ndarray, images: np.ndarray) -> float:
    if kind == "bce":
        return float(-np.mean(images * np.log(decoded) + (1 - images) * np.log(1 - decoded)))
    return float(np.mean((decoded - images) ** 2 if kind == "mse" else np.abs(decoded - images)))


@pytest.mark.parametrize("loss", ["mse", "l1", "bce"])
@pytest.mark.parametrize("sparsity", ["none", "l1", "kl", "top-k"])
def test_the_loss_is_the_sum_of_its_parts(loss: str, sparsity: str) -> None:
    code = "sigmoid" if sparsity == "kl" else "linear"
    options = {"loss": loss, "sparsity": sparsity, "code": code, "sparsity_weight": 0.7, "contraction_weight": 0.3}
    model, (images, labels) = make(**options, sparsity_target=0.25), batch()
    total, figures = step(model, images, labels)
    codes = model.encode(images)
    error = errors_by_hand(loss, model.decode(codes).double().numpy(), images.double().numpy())
    assert float(figures["reconstruction"]) == pytest.approx(error, rel=1e-5)
    expected = error + 0.3 * float(figures["contraction"])
    if sparsity == "l1":
        expected += 0.7 * float(codes.abs().mean())
    if sparsity == "kl":
        units = torch.distributions.Bernoulli(codes.mean(0))
        wanted = torch.distributions.Bernoulli(torch.tensor(0.25))
        expected += 0.7 * float(torch.distributions.kl_divergence(wanted, units).sum())
    if sparsity == "top-k":
        assert ((codes != 0).sum(1) == 1).all()
    assert set(figures) == {"reconstruction", "contraction", *({"sparsity"} if sparsity in ("l1", "kl") else ())}
    assert float(total.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("contraction_weight", [0.0, 0.1])
def test_degradations_are_of_what_is_encoded_in_training_alone(contraction_weight: float) -> None:
    chain = (NOISE, MissingRectangles(count=2, size=0.4))
    model = make(degradations=chain, contraction_weight=contraction_weight)
    images, labels = batch()
    entered: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0].detach()))
    seeds = torch.arange(6)
    _, figures = step(model, images, labels, seeds=seeds)
    degraded = degrade(images, chain, seeds=seeds)
    torch.testing.assert_close(entered.pop(), 2 * degraded - 1)
    expected = (model.decode(model.encoder(2 * degraded - 1)) - images).square().mean()  # from the clean images
    torch.testing.assert_close(figures["reconstruction"], expected)
    entered.clear()
    for call in (model.encode, model.restore, model.anomaly_score, lambda x: model.vary(x, strength=0.5)):
        call(images)
        torch.testing.assert_close(entered.pop(), 2 * images - 1)
    model.fit_after_training(images, labels)
    torch.testing.assert_close(entered.pop(), 2 * images - 1)


def test_of_all_that_is_drawn_each_image_has_its_own() -> None:
    model, (images, labels) = make(degradations=(NOISE,)), batch()
    drawn = model.draw_for_training(6, generator=seeded(7))
    assert {name: len(rows) for name, rows in drawn.items()} == {"seeds": 6, "probe": 6}
    assert len(set(drawn["seeds"].tolist())) == 6
    whole, _ = model.training_loss(images, labels, drawn)
    halves = [
        model.training_loss(images[part], labels[part], {name: rows[part] for name, rows in drawn.items()})[0]
        for part in (slice(0, 3), slice(3, 6))
    ]
    torch.testing.assert_close(torch.stack(halves).mean(), whole)  # as processes share a batch


@pytest.mark.parametrize("option", OPTIONS)
def test_a_step_in_bfloat16(option: str) -> None:
    model, (images, labels) = make(**OPTIONS[option]), batch()
    expected, figures = step(model, images, labels)
    with torch.autocast("cpu", torch.bfloat16):
        loss, found = step(model, images, labels)
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    for name, value in {"loss": expected.detach(), **figures}.items():
        # 8 bits of precision, and few layers
        torch.testing.assert_close({"loss": loss.detach(), **found}[name], value, rtol=0.05, atol=0.01)


def test_uint8_and_float_images_mean_the_same() -> None:
    model = make_fitted(degradations=(NOISE,))
    levels = torch.randint(0, 256, (6, 1, 8, 8), generator=seeded(), dtype=torch.uint8)
    labels = torch.arange(6) % 3
    for call in (model.encode, model.restore, lambda x: model.anomaly_score(x, labels)):
        torch.testing.assert_close(call(levels), call(levels / 255), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(call((levels / 255).double()), call(levels / 255))
    torch.testing.assert_close(step(model, levels, labels)[0], step(model, levels / 255, labels)[0])


@pytest.mark.parametrize("option", OPTIONS)
def test_steps_lower_the_loss(option: str) -> None:
    model, (images, labels) = make(**OPTIONS[option]), batch(12)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss, _ = step(model, images, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]


# --- what a trained model can do


def test_results_do_not_depend_on_the_size_of_batches() -> None:
    model, (images, labels) = make_fitted(), batch(7)
    codes = model.encode(images)
    torch.testing.assert_close(model.encode(images, batch_size=3), codes)
    torch.testing.assert_close(model.decode(codes, batch_size=3), model.decode(codes))
    torch.testing.assert_close(model.restore(images, batch_size=3), model.restore(images))
    scores = model.anomaly_score(images, labels)
    torch.testing.assert_close(model.anomaly_score(images, labels, batch_size=3), scores, atol=1e-4, rtol=1e-4)
    varied = [model.vary(images, labels, strength=0.5, generator=seeded(), batch_size=size) for size in (3, 256)]
    torch.testing.assert_close(*varied)
    drawn = [model.sample(labels, generator=seeded(), batch_size=size) for size in (3, 256)]
    torch.testing.assert_close(*drawn)


def test_draws_depend_on_the_generator_alone() -> None:
    model, (images, labels) = make_fitted(), batch()
    before = torch.get_rng_state()
    for call in (
        lambda generator: model.sample(labels, generator=generator),
        lambda generator: model.vary(images, labels, strength=0.5, generator=generator),
    ):
        assert torch.equal(call(seeded(5)), call(seeded(5)))
        assert not torch.allclose(call(seeded(5)), call(seeded(6)))
    model.draw_for_training(6, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_variation_with_a_seed_does_not_depend_on_its_neighbors() -> None:
    model, (images, labels) = make_fitted(), batch()
    seeds = torch.arange(6)
    whole = model.vary(images, labels, strength=0.7, seeds=seeds)
    part = model.vary(images[4:], labels[4:], strength=0.7, seeds=seeds[4:])
    torch.testing.assert_close(part, whole[4:])
    assert not torch.allclose(model.vary(images, labels, strength=0.7, seeds=seeds + 1), whole)


@pytest.mark.parametrize("option", ["convolutional", "kl", "top-k", "all"])
def test_strength_zero_reconstructs_and_one_forgets_the_image(option: str) -> None:
    model, (images, labels) = make_fitted(**{**OPTIONS[option], "density_components": 1}), batch()
    assert torch.equal(model.vary(images, labels, strength=0.0), model.decode(model.encode(images)))
    assert torch.equal(model.restore(images), model.decode(model.encode(images)))
    one_class = torch.zeros(6, dtype=torch.int64)
    ones = model.vary(images, one_class, strength=1.0, generator=seeded())
    torch.testing.assert_close(ones, model.vary(images.flip(0), one_class, strength=1.0, generator=seeded()))
    assert not torch.allclose(ones, model.vary(images, labels, strength=1.0, generator=seeded()))


@pytest.mark.parametrize("option", ["kl", "top-k", "all"])
def test_drawn_codes_are_such_as_images_have(option: str) -> None:
    model, (images, labels) = make_fitted(**OPTIONS[option]), batch(60)
    decoded: list[Tensor] = []
    model.decoder.register_forward_pre_hook(lambda module, inputs: decoded.append(inputs[0]))
    model.sample(labels, generator=seeded())
    model.vary(images, labels, strength=1.0, generator=seeded())
    for codes in decoded:
        assert model.config.code == "linear" or 0 <= codes.min() <= codes.max() <= 1
        assert model.config.sparsity != "top-k" or ((codes != 0).sum(1) <= max(1, round(4 * 0.5))).all()


def test_samples_are_decoded_draws_of_the_density_of_their_class() -> None:
    model, labels = make_fitted(), torch.tensor([0, 2, 2, 3])
    codes = model.density.sample(labels, generator=seeded())
    torch.testing.assert_close(model.sample(labels, generator=seeded()), model.decode(codes))


def test_labels_do_not_count_for_codes_and_their_images() -> None:
    model, (images, labels) = make_fitted(), batch()
    codes = model.encode(images, labels)
    assert torch.equal(codes, model.encode(images))
    assert torch.equal(model.decode(codes, labels), model.decode(codes))


def test_restoring_takes_noise_out_of_range_as_it_is() -> None:
    model = make_fitted()
    noisy = torch.randn(3, 1, 8, 8, generator=seeded())
    with torch.no_grad():
        expected = torch.sigmoid(model.decode_logits(model.encode_model_images(2 * noisy - 1)))
    torch.testing.assert_close(model.restore(noisy), expected)
    assert torch.equal(model.restore(noisy, noise_level=0.5), model.restore(noisy))


def test_modes_of_modules_come_back_and_results_can_be_trained_on() -> None:
    model, (images, labels) = make_fitted().train(), batch()
    model.decoder.eval()
    for call in (
        lambda: model.encode(images),
        lambda: model.decode(torch.zeros(1, 4)),
        lambda: model.sample(labels, generator=seeded()),
        lambda: model.vary(images, strength=0.5, generator=seeded()),
        lambda: model.restore(images),
        lambda: model.anomaly_score(images, labels),
        lambda: model.measure(images, labels),
        lambda: model.fit_after_training(images, labels),
    ):
        call()
        assert model.training
        assert model.encoder.training
        assert not model.decoder.training
    nn.Conv2d(1, 2, 3)(model.restore(images)).sum().backward()  # a tensor of inference mode would raise


def test_measure_is_the_mean_squared_error_of_reconstructions() -> None:
    model, (images, labels) = make_fitted(), batch()
    rows = torch.tensor([5, 0, 3])
    expected = float((model.restore(images[rows]) - images[rows]).square().mean())
    scores = model.measure(images, labels, rows=rows)
    assert scores == {"reconstruction_mse": pytest.approx(expected, abs=1e-6), "held_out_images": 3}


def test_rows_are_fitted_as_a_copy_of_them() -> None:
    images, labels = batch(60)
    rows = torch.randperm(60, generator=seeded())[:40]
    one, other = make(), make()
    one.fit_after_training(images, labels, rows=rows)
    other.fit_after_training(images[rows], labels[rows])
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))


# --- suspicious images


def log_densities(model: Autoencoder, codes: Tensor) -> np.ndarray:
    """log p(z|y) (N, C) of each class, by scipy."""
    columns = []
    for row in range(3):
        parts = [
            math.log(weight) + multivariate_normal(mean, scale @ scale.T).logpdf(codes.double().numpy())
            for weight, mean, scale in zip(
                model.density.weights[row].tolist(),
                model.density.means[row].double().numpy(),
                model.density.scales[row].double().numpy(),
                strict=True,
            )
            if weight > 0
        ]
        columns.append(logsumexp(parts, axis=0))
    return np.stack(columns, 1)


def parts_by_hand(model: Autoencoder, images: Tensor, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is compared with training images (N, 2), and log p(z|y) (N, C)."""
    error = (model.restore(images) - images).double().square().mean((1, 2, 3)).numpy()
    by_class = log_densities(model, model.encode(images))
    return np.stack([np.log(error), -logsumexp(by_class + np.log(shares), axis=1)], 1), by_class


@pytest.mark.parametrize("option", ["convolutional", "kl", "dense"])
def test_the_score_is_its_definition(option: str) -> None:
    model = make(**OPTIONS[option], density_components=2)
    images, labels = batch(100)
    labels = labels.where(torch.arange(100) > 3, 0)
    model.fit_after_training(images, labels)
    shares = (np.bincount(labels, minlength=3) + 1) / 103
    values, by_class = parts_by_hand(model, images, shares)
    center = np.sort(values, 0)[49]  # the lower one of the two in the middle, as torch takes it
    spread = np.sort(np.abs(values - center), 0)[49] * 1.4826

    def posterior(by_class: np.ndarray, temperature: float) -> np.ndarray:
        logits = by_class / temperature + np.log(shares)
        return np.asarray(logits - logsumexp(logits, axis=1, keepdims=True))

    temperatures = 10 ** (np.arange(61) / 20)
    rows = np.arange(100)
    losses = [-posterior(by_class, each)[rows, labels].mean() for each in temperatures]
    temperature = temperatures[int(np.argmin(losses))]

    strange = torch.cat([images, images[:6].flip(-1), torch.rand(4, 1, 8, 8, generator=seeded(3)).round()])
    given = torch.arange(110) % 4  # the last one is the null class
    values, by_class = parts_by_hand(model, strange, shares)
    expected = -norm.logsf((values - center) / spread).min(1)
    log_posterior = np.pad(posterior(by_class, temperature), ((0, 0), (0, 1)))
    expected = expected - log_posterior[np.arange(110), given]
    found = model.anomaly_score(strange, given)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-3)  # single against double precision


def test_a_label_that_does_not_fit_raises_the_score_and_none_lowers_it() -> None:
    model, (images, labels) = make_fitted(300), batch(300)
    right, wrong, none = (model.anomaly_score(images, each) for each in (labels, (labels + 1) % 3, None))
    assert (none <= torch.minimum(right, wrong)).all()
    assert (wrong - right).mean() > 1
    null = torch.full_like(labels, 3)
    assert torch.equal(model.anomaly_score(images, null), none)


def test_images_without_labels_or_all_alike_can_be_fitted_and_scored() -> None:
    images, labels = batch(30)
    model = make()
    model.fit_after_training(images, torch.full_like(labels, 3))
    assert model.anomaly_score(images, labels).isfinite().all()
    model.fit_after_training(images[:1].expand(30, -1, -1, -1), labels)
    scores = model.anomaly_score(images, labels)
    assert scores.isfinite().all()
    assert scores[1:].min() > scores[0]


def test_a_class_that_was_not_seen_is_strange_but_possible() -> None:
    model, (images, labels) = make(), batch(60)
    model.fit_after_training(images, labels.clamp(max=1))
    scores = model.anomaly_score(images, torch.full_like(labels, 2))
    assert scores.isfinite().all()
    assert scores.mean() > model.anomaly_score(images, labels.clamp(max=1)).mean()


def test_images_that_are_all_drawn_without_error() -> None:
    model, (images, labels) = make_fitted(), batch(30)
    codes, errors = model.encode(images), torch.zeros(30)
    model.usual.fit(errors, codes, labels, density=model.density)
    scores = model.usual.score(errors, codes, labels, density=model.density)
    assert scores.isfinite().all()
    torch.testing.assert_close(model.usual.score(errors + 1e-9, codes, labels, density=model.density), scores)


def plant(data: LabeledImages, *, count: int, side: int) -> tuple[LabeledImages, Tensor, Tensor]:
    """Put a patch of noise into `count` images and give as many others wrong labels; return which ones."""
    generator = seeded(0)
    corrupt, wrong = torch.randperm(len(data), generator=generator)[: 2 * count].chunk(2)
    images, labels = data.images.clone(), data.labels.clone()
    height, width = images.shape[2:]
    for row in corrupt.tolist():
        top = int(torch.randint(height - side + 1, (1,), generator=generator))
        left = int(torch.randint(width - side + 1, (1,), generator=generator))
        noise = torch.randint(256, (side, side), generator=generator, dtype=torch.uint8)
        images[row, :, top : top + side, left : left + side] = noise
    classes = data.spec.num_classes
    labels[wrong] = (labels[wrong] + torch.randint(1, classes, (count,), generator=generator)) % classes
    return LabeledImages(images, labels, data.spec), corrupt, wrong


def area_under_curve(scores: Tensor, found: Tensor, others: Tensor) -> float:
    """How often one of the rows `found` has a higher score than one of `others`."""
    truth = [1] * len(found) + [0] * len(others)
    return float(roc_auc_score(truth, torch.cat([scores[found], scores[others]]).numpy()))


def rest(count: int, *planted: Tensor) -> Tensor:
    clean = torch.ones(count, dtype=torch.bool)
    clean[torch.cat(planted)] = False
    return clean.nonzero().flatten()


@pytest.mark.parametrize("network", ["dense", "convolutional"])
def test_planted_corrupt_images_and_wrong_labels_are_found(network: str, tmp_path: Path) -> None:
    data, corrupt, wrong = plant(load_data("digits"), count=60, side=4)
    recipe = {
        "family": "autoencoder",
        "model": {"network": network, "hidden": [64], "width": 8, "latent_dim": 16},
        "training": {"steps": 400 if network == "dense" else 250, "precision": "float32"},
    }
    model = train(recipe, data=data, output=tmp_path / "run", progress=False).model
    assert isinstance(model, Autoencoder)
    scores = model.anomaly_score(data.images, data.labels)
    others = rest(len(data), corrupt, wrong)
    assert area_under_curve(scores, corrupt, others) > 0.9
    assert area_under_curve(scores, wrong, others) > 0.9
    unlabeled = model.anomaly_score(data.images)
    assert area_under_curve(unlabeled, corrupt, others) > 0.9
    assert 0.35 < area_under_curve(unlabeled, wrong, others) < 0.65  # nothing is wrong with the images themselves


def test_planted_images_and_labels_are_found_among_solar_modules(data_dir: Path, tmp_path: Path) -> None:
    data, corrupt, wrong = plant(load_data(data_dir / "solar", split="train"), count=100, side=8)
    recipe = {
        "family": "autoencoder",
        "model": {"network": "dense"},
        "training": {"steps": 1000, "precision": "float32", "sample_every": 1000},
    }
    model = train(recipe, data=data, output=tmp_path / "run", progress=False).model
    scores, others = model.anomaly_score(data.images, data.labels), rest(len(data), corrupt, wrong)
    assert area_under_curve(scores, corrupt, others) > 0.95
    assert area_under_curve(scores, wrong, others) > 0.85  # half of the images are of one class, the rest of eleven


# --- wrong fields and calls


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"latent_dim": 0}, "latent_dim must be from 1 to 4096, got 0"),
        ({"width": 0}, "width must be from 1 to 4096, got 0"),
        ({"blocks": -1}, "blocks must be from 0 to 32, got -1"),
        ({"sparsity_weight": -1.0}, r"sparsity_weight must be from 0 to 10000, got -1\.0"),
        ({"sparsity_target": 0.0}, r"sparsity_target must be from 0\.0001 to 0\.9999, got 0\.0"),
        ({"contraction_weight": math.nan}, "contraction_weight must be from 0 to 10000, got nan"),
        ({"density_components": 0}, "density_components must be from 1 to 256, got 0"),
        ({"density_shrinkage": -1.0}, "density_shrinkage must be from 0"),
        ({"hidden": (8,) * 17}, r"hidden must be at most 16 integers"),
        ({"hidden": (8, 0)}, r"hidden must be at most 16 integers from 1 to 65536, got \[8, 0\]"),
        ({"hidden": (8.5,)}, r"hidden must be at most 16 integers from 1 to 65536, got \[8\.5\]"),
        ({"network": "cnn"}, "network must be one of convolutional, dense, got 'cnn'"),
        ({"code": "relu"}, "code must be one of linear, sigmoid, got 'relu'"),
        ({"loss": "huber"}, "loss must be one of mse, l1, bce, got 'huber'"),
        ({"sparsity": "top_k"}, "sparsity must be one of none, l1, kl, top-k, got 'top_k'"),
        ({"sparsity": "kl"}, 'code must be "sigmoid" with sparsity "kl"'),
        ({"degradations": "noise"}, "degradations: must be a list of degradations, got 'noise'"),
        ({"degradations": [{"kind": "rain"}]}, r"degradations\.0\.kind: must be one of gaussian-noise,"),
    ],
)
def test_wrong_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(GenaugError, match=message):
        AutoencoderConfig(**fields)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"loss": "huber"}, r"model\.loss: "),
        ({"hidden": [0]}, r"model\.hidden: must be at most 16 integers from 1 to 65536, got \[0\]"),
        ({"sparsity": "kl"}, r'model\.code: must be "sigmoid" with sparsity "kl"'),
        ({"degradations": [{"kind": "rain"}]}, r"degradations\.0\.kind: must be one of"),
        ({"depth": 3}, r"model\.depth: unknown field; allowed: blocks, code, "),
    ],
)
def test_wrong_fields_of_a_recipe(model: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe({"family": "autoencoder", "model": model})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample(torch.tensor([4])), "labels must be class indices from 0 to 3"),
        (lambda m: m.encode(torch.zeros(1, 3, 8, 8)), "images must have 1 channels"),
        (lambda m: m.encode(torch.zeros(1, 8, 8)), "add images"),
        (lambda m: m.encode(torch.full((1, 1, 8, 8), 2.0)), r"\[0, 1\]"),
        (lambda m: m.encode(torch.zeros(1, 1, 8, 8), torch.tensor([0, 1])), "as many as images"),
        (lambda m: m.vary(torch.zeros(1, 1, 9, 8), strength=0.5), "images must be of size 1x8x8"),
        (lambda m: m.restore(torch.zeros(1, 8, 8)), r"images must be a tensor of shape \(N, C, H, W\)"),
        (lambda m: m.restore(torch.zeros(1, 1, 9, 8)), "images must be of size 1x8x8"),
        (lambda m: m.restore(torch.full((1, 1, 8, 8), math.nan)), "images must be finite"),
        (lambda m: m.anomaly_score(torch.zeros(1, 1, 8, 9)), "images must be of size 1x8x8"),
        (lambda m: m.anomaly_score(torch.zeros(1, 1, 8, 8), torch.tensor([5])), "class indices from 0 to 3"),
        (lambda m: m.measure(torch.zeros(1, 1, 8, 9), torch.tensor([0])), "images must be of size 1x8x8"),
        (lambda m: m.fit_after_training(torch.zeros(1, 1, 8, 9), torch.tensor([0])), "images must be of size"),
        (lambda m: m.decode(torch.zeros(1, 4), torch.tensor([7])), "class indices from 0 to 3"),
    ],
)
def test_wrong_input_is_a_data_error(call: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call(make())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.decode(torch.zeros(1, 5)), r"latents must have shape \(N, 4\), got \(1, 5\)"),
        (lambda m: m.decode(torch.full((1, 4), math.inf)), "latents must be finite"),
        (lambda m: m.encode(torch.zeros(1, 1, 8, 8), batch_size=0), "batch_size must be an integer of at least 1"),
        (lambda m: m.vary(torch.zeros(1, 1, 8, 8), strength=1.5), r"strength must be from 0 to 1, got 1\.5"),
        (
            lambda m: m.vary(torch.zeros(1, 1, 8, 8), strength=0.5, seeds=torch.tensor([1, 2])),
            r"seeds must be an int64 tensor \(1,\), one for each image, got torch.int64 \(2,\)",
        ),
    ],
)
def test_wrong_calls(call: Any, message: str) -> None:
    with pytest.raises(GenaugError, match=message):
        call(make())


def test_size_must_be_known() -> None:
    with pytest.raises(GenaugError, match=r"spec must give height and width for the autoencoder family, got 1x\?x\?"):
        Autoencoder(DataSpec(channels=1))


# --- on disk


@pytest.mark.parametrize("option", OPTIONS)
def test_checkpoint_round_trip(option: str, tmp_path: Path) -> None:
    model, (images, labels) = make_fitted(**OPTIONS[option]), batch()
    model.save(tmp_path / "model")
    again = genaug.load(tmp_path / "model")
    assert isinstance(again, Autoencoder)
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert torch.equal(again.encode(images), model.encode(images))
    assert torch.equal(again.sample(labels, generator=seeded()), model.sample(labels, generator=seeded()))
    assert torch.equal(again.anomaly_score(images, labels), model.anomaly_score(images, labels))
    assert torch.equal(step(again, images, labels)[0], step(model, images, labels)[0])


def test_degradations_of_plain_values_are_those_of_objects() -> None:
    plain = json.loads(json.dumps([{"kind": "gaussian-noise", "noise_level": [0, 0.2]}]))
    recipe = load_recipe({"family": "autoencoder", "model": {"degradations": plain, "hidden": [8]}})
    expected = AutoencoderConfig(degradations=(GaussianNoise(noise_level=(0, 0.2)),), hidden=(8,))
    assert recipe.model == expected
    again = load_recipe(recipe.to_dict())
    assert again.model == expected


@pytest.mark.parametrize("option", ["convolutional", "all"])
def test_models_are_copied_and_pickled_for_workers(option: str) -> None:
    model, (images, labels) = make_fitted(**OPTIONS[option]), batch()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.restore(images), model.restore(images))
        assert torch.equal(twin.anomaly_score(images, labels), model.anomaly_score(images, labels))
