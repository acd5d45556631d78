"""The conditional GAN: its contract on images of many sizes, its networks, and the two losses of a step."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

import genaug
from genaug import DataError, DataSpec, GenaugError
from genaug.models import GAN, VAE, Autoencoder, GANConfig, VAEConfig
from genaug.models.adversarial import discriminator_loss, gradient_penalty
from genaug.models.diffaugment import augment
from genaug.training.engine import _backward

NAMES = ("a", "b", "c")
SIZES = [(1, 8, 8), (1, 28, 28), (1, 40, 24), (3, 32, 32), (2, 5, 17), (1, 1, 3), (1, 1, 1), (4, 2, 7)]


def make_gan(size: tuple[int, int, int] = (1, 8, 8), names: tuple[str, ...] = NAMES, **fields: object) -> GAN:
    torch.default_generator.manual_seed(0)
    small = {"width": 4, "discriminator_width": 4, "latent_dim": 3, "style_dim": 6}
    return randomize(GAN(DataSpec(*size, class_names=names), GANConfig(**{**small, **fields}))).eval()


def randomize(model: GAN) -> GAN:
    """Give values to what starts at zero, such as the residual branches."""
    generator = seeded(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim and not parameter.any():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 8, size: tuple[int, int, int] = (1, 8, 8)) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(count, *size, generator=seeded(1))
    return images, torch.arange(count // 4).remainder(3).repeat_interleave(4)


pytestmark = pytest.mark.global_rng  # weights are drawn from it


@pytest.mark.parametrize("size", SIZES)
def test_any_size(size: tuple[int, int, int]) -> None:
    model = make_gan(size)
    images = model.sample(torch.tensor([0, 2, 2, 1]), generator=seeded(0))
    assert images.shape == (4, *size)
    assert images.dtype == torch.float32
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert model.discriminate(images, torch.tensor([0, 2, 2, 1])).shape == (4,)
    losses, _ = model.training_loss(*batch(size=size), model.draw_for_training(8, generator=seeded(0)))
    assert all(loss.isfinite() for loss in losses.values())


def test_samples_depend_on_generator_and_class_alone() -> None:
    model = make_gan()
    labels = torch.arange(3).repeat(20)
    first = model.sample(labels, generator=seeded(5))
    torch.testing.assert_close(model.sample(labels, generator=seeded(5), batch_size=7), first)
    assert not torch.equal(model.sample(labels, generator=seeded(6)), first)
    latents = torch.randn(1, 3, generator=seeded(0)).expand(3, -1)
    with torch.no_grad():
        of_classes = model.generator(latents, torch.arange(3))
    assert not torch.allclose(of_classes[0], of_classes[1])


def test_without_label_classes_come_as_often_as_in_training() -> None:
    model = make_gan()
    images = torch.zeros(10, 1, 8, 8)
    model.fit_after_training(images, torch.tensor([0, 0, 0, 2, 2, 2, 2, 2, 2, 1]), rows=torch.arange(9))
    assert torch.allclose(model.class_shares, torch.tensor([1 / 3, 0, 2 / 3]))
    labels = torch.full((3000,), model.null_label)
    labels[:2] = torch.tensor([2, 0])
    found = model.sample(labels, generator=seeded(0))
    latents = torch.randn(3000, 3, generator=seeded(0))  # the first that is drawn
    with torch.no_grad():
        each = torch.stack([(model.generator(latents, torch.full((3000,), c)) + 1) / 2 for c in range(3)])
    nearest = (each - found).flatten(2).abs().amax(2).argmin(0)
    assert nearest[:2].tolist() == [2, 0]
    shares = torch.bincount(nearest, minlength=3) / 3000
    assert torch.allclose(shares, model.class_shares, atol=0.04)


def test_a_class_without_training_images_is_refused_and_left_out_of_pictures() -> None:
    model = make_gan()
    assert model.known_classes == [0, 1, 2]
    images, labels = torch.rand(8, 1, 8, 8, generator=seeded(1)), torch.tensor([0, 0, 0, 2, 2, 2, 2, 2])
    model.fit_before_training(images, labels)
    assert model.known_classes == [0, 2]
    with pytest.raises(DataError, match=r"this GAN was trained without images of \['b'\]"):
        model.sample(torch.tensor([0, 1, 2]))
    with pytest.raises(DataError, match=r"classes that the source has no samples of, \['b'\]"):
        genaug.SampleBank.generate(model, 4, seed=0, progress=False)
    assert genaug.SampleBank.generate(model, {"a": 2, "c": 2}, seed=0, progress=False).counts == [2, 0, 2]
    shown = model.illustrate(images[:4], labels[:4], generator=seeded(0))
    assert torch.equal(shown, model.sample(torch.tensor([0, 2]).repeat_interleave(4), generator=seeded(0)))


def test_images_of_a_class_that_no_share_is_left_for_are_never_drawn() -> None:
    model = make_gan()
    model.class_shares.copy_(torch.tensor([0.3, 0.3, 0.0]))  # as of shares that were rounded
    assert model.sample(torch.full((500,), model.null_label), generator=seeded(0)).shape == (500, 1, 8, 8)
    latents = torch.randn(500, 3, generator=seeded(0))
    with torch.no_grad():
        others = (model.generator(latents, torch.full((500,), 2)) + 1) / 2
    found = model.sample(torch.full((500,), model.null_label), generator=seeded(0))
    assert (found - others).flatten(1).abs().amax(1).min() > 1e-4


def test_a_gan_starts_from_a_gan(tmp_path) -> None:
    start, labels = make_gan(), torch.arange(6).remainder(3)
    start.class_shares.copy_(torch.tensor([0.5, 0.0, 0.5]))
    model = GAN.start_from(start, spec=start.spec, config=replace(start.config, contrast=2.0))
    assert model.config.contrast == 2.0
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in start.state_dict().items())
    vae = make_vae()
    grown = GAN.start_from(vae, spec=vae.spec, config=GANConfig(discriminator_width=4))
    again = GAN.start_from(grown, spec=vae.spec, config=GANConfig(discriminator_width=4))
    assert again.config.decoder == vae.config
    assert torch.equal(again.sample(labels, generator=seeded(0)), grown.sample(labels, generator=seeded(0)))
    for fields, message in (
        ({"discriminator_width": 8}, "weights of other shapes, made with model.discriminator_width 4; set the same"),
        ({"discriminator_width": 4, "width": 8}, "model.width must be left out"),
        ({"discriminator_width": 4, "spectral_norm": False}, "made with model.spectral_norm True; set the same"),
    ):
        with pytest.raises(GenaugError, match=message):
            GAN.start_from(grown, spec=vae.spec, config=GANConfig(**fields))


def test_many_rows_are_spread_to_the_last_one() -> None:
    rows = torch.zeros(1, dtype=torch.int64).expand(2**24 + 4)  # float32 rounds the last index to one past the end
    model = make_gan()
    model.fit_before_training(torch.full((1, 1, 8, 8), 0.75), torch.zeros(1, dtype=torch.int64), rows=rows)
    assert float(model.discriminator.mean) == pytest.approx(0.5)


def test_without_classes() -> None:
    model = make_gan(names=())
    labels = torch.zeros(3, dtype=torch.int64)
    images = model.sample(labels, generator=seeded(0))
    assert images.shape == (3, 1, 8, 8)
    torch.testing.assert_close(model.discriminate(images, labels), model.discriminate(images, None))
    assert model.discriminate(images[:0], labels[:0]).shape == (0,)


def test_a_list_of_policies_is_as_good_as_a_tuple() -> None:
    assert GANConfig(augment=["color"]) == GANConfig(augment=("color",))  # type: ignore[arg-type]


def test_checkpoint_round_trip(tmp_path) -> None:
    model = make_gan(minibatch_std=0)
    model.save(tmp_path / "gan")
    again = genaug.load(tmp_path / "gan")
    assert isinstance(again, GAN)
    assert again.config == model.config
    labels = torch.tensor([0, 1, 2])
    torch.testing.assert_close(again.sample(labels, generator=seeded(0)), model.sample(labels, generator=seeded(0)))
    images = torch.rand(3, 1, 8, 8, generator=seeded(1))
    torch.testing.assert_close(again.discriminate(images, labels), model.discriminate(images, labels))


def test_models_are_copied_and_pickled_for_workers() -> None:
    model, (images, labels) = make_gan(), batch()
    model.discriminator.from_image.requires_grad_(False)
    before = torch.get_rng_state()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.discriminate(images, labels), model.discriminate(images, labels))
        assert torch.equal(twin.sample(labels, generator=seeded(0)), model.sample(labels, generator=seeded(0)))
        assert not any(module.training for module in twin.modules())
        learns = [[parameter.requires_grad for parameter in one.parameters()] for one in (twin, model)]
        assert learns[0] == learns[1]
        assert len(set(learns[0])) == 2
        layers = [module for module in twin.modules() if isinstance(module, nn.Conv2d)]
        assert all(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in layers)
    assert torch.equal(torch.get_rng_state(), before)


def make_vae(**fields: object) -> VAE:
    torch.default_generator.manual_seed(1)
    config = VAEConfig(**{"width": 4, "latent_dim": 3, "hidden": 8, "density_components": 2, **fields})
    model = VAE(DataSpec(1, 8, 8, class_names=NAMES), config)
    images, labels = torch.rand(180, 1, 8, 8, generator=seeded(5)), torch.arange(180).remainder(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=seeded(6)))
    model.fit_after_training(images, labels)
    return model


@pytest.mark.parametrize("map_channels", [0, 2])
def test_a_vae_decoder_generates_what_the_vae_would(map_channels: int, tmp_path) -> None:
    vae = make_vae(map_channels=map_channels)
    model = GAN.start_from(vae, spec=vae.spec, config=GANConfig(discriminator_width=4))
    labels = torch.arange(600).remainder(3)
    latents = model.draw_for_training(600, generator=seeded(2))["latents"]
    choice = 0.5 * (1 + torch.erf(latents[:, 0] / 2**0.5))
    component = (choice[:, None] >= vae.density.weights[labels].cumsum(1)).sum(1)
    assert set(component.tolist()) == {0, 1}
    scales = vae.density.scales[labels, component]
    codes = vae.density.means[labels, component] + torch.einsum("nij,nj->ni", scales, latents[:, 1:])
    with torch.no_grad():
        made = model.generator(latents, labels)
    torch.testing.assert_close((made + 1) / 2, vae.decode(codes, labels), atol=1e-5, rtol=1e-4)
    assert not any("encoder" in name or "head" in name for name in model.state_dict())
    model.save(tmp_path / "model")
    again = genaug.load(tmp_path / "model")
    assert again.config.decoder == vae.config
    assert torch.equal(again.sample(labels, generator=seeded(3)), model.sample(labels, generator=seeded(3)))


def test_a_start_that_does_not_fit_is_refused() -> None:
    vae = make_vae()
    with pytest.raises(GenaugError, match="starts from a model of family gan or vae, got one of family autoencoder"):
        GAN.start_from(Autoencoder(vae.spec), spec=vae.spec, config=GANConfig())
    with pytest.raises(
        GenaugError, match=r"other shapes, made with model.latent_dim 3, .*model.discriminator_width 4;"
    ):
        GAN.start_from(make_gan(), spec=vae.spec, config=GANConfig())
    with pytest.raises(GenaugError, match=r"model.width must be left out"):
        GAN.start_from(vae, spec=vae.spec, config=GANConfig(width=8))
    with pytest.raises(GenaugError, match="of family vae starts from another one of it, got one of family gan"):
        VAE.start_from(make_gan(), spec=vae.spec, config=VAEConfig())
    with pytest.raises(GenaugError, match=r"weights of other shapes, made with model.latent_dim 3, model.width 4;"):
        VAE.start_from(vae, spec=vae.spec, config=VAEConfig(hidden=8, density_components=2))


def test_spectral_norm_holds_every_layer_of_the_discriminator() -> None:
    model = make_gan().train()
    images, labels = batch()
    with torch.no_grad():
        for _ in range(200):  # each forward pass is one power iteration
            model.discriminator(images, labels)
    layers = [m for m in model.discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    norms = [float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)) for layer in layers]
    assert len(norms) > 5
    assert norms == pytest.approx([1.0] * len(norms), abs=0.02)
    free = make_gan(spectral_norm=False)
    assert not any("parametrizations" in name for name in free.discriminator.state_dict())


def test_logit_is_a_projection_on_the_class() -> None:
    model = make_gan(minibatch_std=0)
    features = {}
    hook = model.discriminator.to_logit.register_forward_pre_hook(lambda _, args: features.update(f=args[0]))
    images = batch()[0]
    with torch.no_grad():
        logits = [model.discriminator(images, torch.full((8,), c)) for c in range(2)]
    hook.remove()
    embeddings = model.discriminator.classes.weight.detach()
    torch.testing.assert_close(logits[1] - logits[0], features["f"] @ (embeddings[1] - embeddings[0]))


def test_the_discriminator_sees_that_images_of_a_group_are_alike() -> None:
    model = make_gan(minibatch_std=4)
    images, labels = batch(4)
    same = images[:1].expand(4, -1, -1, -1)
    with torch.no_grad():
        apart, alike = model.discriminator(images, labels), model.discriminator(same, labels)
        assert not torch.allclose(apart[0], alike[0])
        alone = model.discriminator(2 * images - 1, labels, alone=True)
    torch.testing.assert_close(model.discriminate(images, labels), alone)
    torch.testing.assert_close(model.discriminate(images[2:3], labels[2:3]), alone[2:3])
    torch.testing.assert_close(
        model.discriminate((255 * images).round().to(torch.uint8), labels), alone, atol=0.1, rtol=0
    )


@pytest.mark.parametrize("loss", ["hinge", "non-saturating", "wasserstein-gp", "relativistic"])
def test_losses_are_those_of_augmented_images(loss: str) -> None:
    model = make_gan(loss=loss)  # in evaluation mode, where spectral norm stays as it is
    images, labels = batch()
    draws = model.draw_for_training(8, generator=seeded(4))
    losses, figures = model.training_loss(images, labels, draws)
    real = augment(2 * images - 1, draws["augment_real"], policies=model.config.augment)
    fake = augment(model.generator(draws["latents"], labels), draws["augment_fake"], policies=model.config.augment)
    logits = model.discriminator(real, labels), model.discriminator(fake, labels)
    expected = discriminator_loss(loss, *logits)
    if loss == "non-saturating":
        expected = expected + 0.5 * gradient_penalty(lambda x: model.discriminator(x, labels), real)
    if loss == "relativistic":
        both = [gradient_penalty(lambda x: model.discriminator(x, labels), x) for x in (real, fake)]
        expected = expected + 0.5 * sum(both)
    if loss == "wasserstein-gp":
        torch.testing.assert_close(losses["discriminator"], expected + 10 * figures["penalty"])
    else:
        torch.testing.assert_close(losses["discriminator"], expected)
    assert float(figures["told_apart"]) == pytest.approx(float((logits[0] > logits[1]).float().mean()))


def test_each_network_moves_by_its_own_loss_alone() -> None:
    model = make_gan(loss="relativistic", minibatch_std=0)
    images, labels = batch()
    groups = model.parameter_groups()
    losses, _ = model.training_loss(images, labels, model.draw_for_training(8, generator=seeded(4)))
    expected = {
        name: torch.autograd.grad(loss, groups[name].parameters, retain_graph=True, allow_unused=True)
        for name, loss in losses.items()
    }
    total = _backward(losses, groups)
    assert float(total) == pytest.approx(sum(float(loss.detach()) for loss in losses.values()))
    for name, gradients in expected.items():
        for parameter, gradient in zip(groups[name].parameters, gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)
    grouped = [parameter for group in groups.values() for parameter in group.parameters]
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in model.parameters()}
    assert len(grouped) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 0}, "width must be from 1 to 1024, got 0"),
        ({"augment": ("color", "flip")}, "augment must be of color, translation, cutout"),
        ({"augment": ("color", "color")}, "each once"),
        ({"minibatch_std": 1}, "one image has no deviation"),
        ({"loss": "hingee", "penalty": 1.0}, "loss must be one of hinge, non-saturating"),
        ({"loss": ["hinge"]}, "loss must be one of hinge, non-saturating"),
        ({"penalty": -1.0}, "penalty must be from 0"),
        ({"spectral_norm": "false"}, "spectral_norm must be true or false, got 'false'"),
        ({"decoder": {"width": 8}}, "decoder must be a VAEConfig or None, got {'width': 8}"),
        ({"loss": "wasserstein-gp", "penalty": 0.0, "spectral_norm": False}, "kept smooth"),
        ({"loss": "relativistic", "penalty": 0.0, "spectral_norm": False}, "kept smooth"),
    ],
)
def test_wrong_fields(fields: dict, message: str) -> None:
    with pytest.raises(GenaugError, match=message):
        GANConfig(**fields)


def test_wrong_calls() -> None:
    with pytest.raises(GenaugError, match="height and width"):
        GAN(DataSpec(1, class_names=NAMES))
    model = make_gan()
    with pytest.raises(DataError, match="class indices from 0 to 3"):
        model.sample(torch.tensor([4]))
    images = torch.rand(2, 1, 8, 8, generator=seeded(0))
    with pytest.raises(DataError, match="class indices from 0 to 2"):
        model.discriminate(images, torch.tensor([0, 3]))
    with pytest.raises(GenaugError, match=r"vary: gan cannot do this; it can: sample"):
        genaug.models.base.require(model, "vary")


def test_the_discriminator_sees_images_of_any_contrast_alike() -> None:
    generator = seeded(9)
    images = torch.randint(0, 256, (50, 3, 8, 8), generator=generator, dtype=torch.uint8)
    faint = images // 8 + 100
    labels = torch.arange(50).remainder(3)
    model, logits = make_gan((3, 8, 8), spectral_norm=True), []
    for data in (images, 8 * (images // 8), faint):
        model.fit_before_training(data, labels, rows=torch.arange(40))
        values = data[:40].numpy() / 127.5 - 1
        assert model.discriminator.mean.flatten().tolist() == pytest.approx(values.mean((0, 2, 3)).tolist(), abs=1e-5)
        centered = values - values.mean((0, 2, 3), keepdims=True)
        assert float(model.discriminator.deviation) == pytest.approx(float(centered.std()), rel=0.01)
        logits.append(model.discriminate(data, labels))
    torch.testing.assert_close(logits[2], logits[1], atol=1e-4, rtol=1e-4)  # the same but for contrast and brightness
    assert not torch.allclose(logits[0], logits[1], atol=1e-4)
    sharper = make_gan((3, 8, 8), contrast=6.0)
    sharper.load_state_dict(model.state_dict())
    sharper.discriminator.deviation *= 2  # six times the images, half as far apart
    torch.testing.assert_close(sharper.discriminate(faint, labels), logits[2], atol=1e-4, rtol=1e-4)
    model.fit_before_training(torch.full_like(images, 7), labels)  # no division by zero
    assert model.discriminate(images, labels).isfinite().all()
