"""The engine's training step against a bare loop over the same networks, for a VAE and a GAN."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from genaug.data import LabeledImages
from genaug.devices import choose_precision
from genaug.images import to_model
from genaug.models import GAN, VAE, GANConfig, VAEConfig
from genaug.models.adversarial import discriminator_loss, generator_loss
from genaug.models.diffaugment import DRAWS, augment
from genaug.models.gan import BETAS
from genaug.spec import DataSpec
from genaug.training import Recipe, TrainingConfig
from genaug.training.schedules import cosine_with_warmup
from genaug.workflows.timing import Row, per_step, take_turns, time_training

SHAPE = 1, 28, 28
SPEC = DataSpec(*SHAPE, class_names=tuple("0123456789"))
TRAINING = TrainingConfig(steps=12, batch_size=64, save_every=10**6, sample_every=10**6, log_every=5)
IMAGES = 2000
VAE_CONFIG, GAN_CONFIG = VAEConfig(width=16), GANConfig(width=16, discriminator_width=16)


def bench_engine(repeats: int) -> list[Row]:
    """Time a step: the same networks, losses, augmentations, average, clipping and schedule at 28x28 on both sides."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, *SHAPE), dtype=torch.uint8, generator=generator)
    data = LabeledImages(images, torch.randint(0, 10, (IMAGES,), generator=generator), SPEC)
    recipes = [
        Recipe(family="vae", model=VAE_CONFIG, training=TRAINING),
        Recipe(family="gan", model=GAN_CONFIG, training=TRAINING),
    ]
    ours, rivals, our_gan, rival_gan = take_turns(
        repeats,
        lambda: time_training(recipes[0], data),
        lambda: _time_loop(_vae_step(), data),
        lambda: time_training(recipes[1], data),
        lambda: _time_loop(_gan_step(), data),
    )
    return [
        ("training step / bare loop, 28x28, batch 64", ours, rivals, "<= 1.05"),
        ("the same of a GAN", our_gan, rival_gan, "<= 1.05"),
    ]


def _time_loop(step: Callable[[Tensor, Tensor, float, bool], None], data: LabeledImages) -> float:
    generator, times = torch.Generator().manual_seed(0), []
    bfloat16 = choose_precision("auto", torch.device("cpu")) == torch.bfloat16
    for number in range(TRAINING.steps):
        factor = cosine_with_warmup(number, steps=TRAINING.steps, warmup_steps=TRAINING.warmup_steps)
        rows = torch.randint(0, len(data), (TRAINING.batch_size,), generator=generator)
        step(data.images[rows], data.labels[rows], TRAINING.learning_rate * factor, bfloat16)
        times.append(time.perf_counter())
    return per_step(times)


def _average(model: Any) -> AveragedModel:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(TRAINING.ema_decay))


def _vae_step() -> Callable[[Tensor, Tensor, float, bool], None]:
    model, draws = VAE(SPEC, VAE_CONFIG), torch.Generator().manual_seed(1)
    average = _average(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=TRAINING.learning_rate, weight_decay=0.0, fused=True)

    def step(images: Tensor, labels: Tensor, rate: float, bfloat16: bool) -> None:
        optimizer.param_groups[0]["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            noise = model.draw_for_training(len(images), generator=draws)
            loss, _ = model.training_loss(images, labels, noise)
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), TRAINING.gradient_clip)
        optimizer.step()
        average.update_parameters(model)

    return step


def _gan_step() -> Callable[[Tensor, Tensor, float, bool], None]:
    model, draws = GAN(SPEC, GAN_CONFIG), torch.Generator().manual_seed(1)
    average, (real_net, fake_net) = _average(model), (model.discriminator, model.generator)
    parameters = [list(net.parameters()) for net in (real_net, fake_net)]
    optimizers = [torch.optim.AdamW(part, betas=BETAS, weight_decay=0.0, fused=True) for part in parameters]

    def step(images: Tensor, labels: Tensor, rate: float, bfloat16: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            latents = torch.randn(len(images), GAN_CONFIG.latent_dim, generator=draws)
            changes = torch.rand(2, len(images), DRAWS, generator=draws)
            real = augment(to_model(images), changes[0], policies=GAN_CONFIG.augment)
            fake = augment(fake_net(latents, labels), changes[1], policies=GAN_CONFIG.augment)
            logits = real_net(real, labels), real_net(fake, labels)
            losses = discriminator_loss(GAN_CONFIG.loss, *logits), generator_loss(GAN_CONFIG.loss, *logits)
        for loss, part, last in zip(losses, parameters, (False, True), strict=True):
            for parameter in part:
                parameter.grad = None
            loss.backward(inputs=part, retain_graph=not last)
            clip_grad_norm_(part, TRAINING.gradient_clip)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
        average.update_parameters(model)

    return step
