"""Benchmarks against rivals: what they need, and that every side runs; how fast it is, no test says."""

import logging
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from genaug.errors import GenaugError
from genaug.models import GAN, GANConfig, VAEConfig
from genaug.models.diffaugment import DRAWS
from genaug.training.engine import _backward
from genaug.workflows import bench_engine, bench_loaders, bench_pythae, bench_sampling, bench_transforms, timing
from genaug.workflows.bench import run_benchmarks


@pytest.mark.parametrize("call", [bench_pythae.make_sides, lambda: run_benchmarks("training", repeats=3)])
def test_a_missing_pythae_is_one_line(monkeypatch, call):
    for name in ("pythae", *(name for name in sys.modules if name.startswith("pythae."))):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(GenaugError, match=r"^the training benchmark needs pythae \(.*\); install genaug\[bench\]$"):
        call()


@pytest.mark.global_rng  # pythae seeds all generators
def test_every_side_trains_and_tells_its_time(monkeypatch, capsys, caplog):
    pytest.importorskip("pythae")
    monkeypatch.setattr(bench_pythae, "STEPS", 3)
    monkeypatch.setattr(bench_pythae, "BATCH", 4)
    caplog.set_level(logging.INFO)
    sides = bench_pythae.make_sides()
    assert list(sides) == ["genaug", "genaug, float32", "pythae"]
    for name, side in sides.items():
        assert 0 < side() < 60, name
    assert not [record for record in caplog.records if record.name.startswith("pythae")]
    shown = capsys.readouterr()
    assert shown.out + shown.err == ""


@pytest.mark.global_rng  # transforms of torchvision and kornia draw from torch's global generator
def test_transforms_are_held_against_the_network_and_elastic_deformations(monkeypatch, capsys):
    pytest.importorskip("kornia")
    monkeypatch.setattr(bench_transforms, "BATCH", 6)
    monkeypatch.setattr(bench_transforms, "WIDTHS", (8,))
    run_benchmarks("transforms", repeats=3)
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("Reconstruct / bare call", "p = 0.1 / p = 1", "kornia", "v2.ElasticTransform"):
        assert words in shown
    rows = bench_transforms.bench_transforms(3)
    assert len(rows) == 6
    assert all(ours > 0 and rival > 0 for _, ours, rival, _ in rows)


@pytest.mark.global_rng  # new weights
def test_banks_are_held_against_the_bare_generator(monkeypatch, capsys):
    monkeypatch.setattr(bench_sampling, "SAMPLES", 20)
    monkeypatch.setattr(bench_sampling, "CONFIG", GANConfig(width=4, discriminator_width=4))
    drawn: list[int] = []

    def count(work: Any) -> float:
        return timing.time_call(lambda: drawn.append(len(work())))

    monkeypatch.setattr(bench_sampling, "time_call", count)
    rows = bench_sampling.bench_sampling(3)
    assert set(drawn) == {40}  # every side makes as many samples
    assert len(drawn) == 4 * 3
    assert [(mine > 0, rival > 0, target) for _, mine, rival, target in rows] == [(True, True, "<= 1.1")] * 2
    assert "images a second, 28x28, width 4" in capsys.readouterr().out


@pytest.mark.global_rng  # loaders that shuffle draw from torch's global generator
def test_epochs_with_synthetic_images_are_as_long_as_without(monkeypatch, capsys):
    monkeypatch.setattr(bench_loaders, "IMAGES", 40)
    monkeypatch.setattr(bench_loaders, "BATCH", 12)
    monkeypatch.setattr(bench_loaders, "SOAK_BATCHES", 60)
    seen: list[int] = []
    run = bench_loaders._run_epoch
    monkeypatch.setattr(bench_loaders, "_run_epoch", lambda loader, step: (seen.append(len(loader)), run(loader, step)))
    rows = bench_loaders.bench_loaders(1)
    assert len(rows) == 3
    assert set(seen) == {4}  # every side has as many batches
    assert "MiB after 60" in " ".join(capsys.readouterr().out.split())


@pytest.mark.global_rng  # new weights
@pytest.mark.filterwarnings("ignore::genaug.errors.TrainingWarning")  # twelve steps are too few for a GAN
@pytest.mark.filterwarnings("ignore::genaug.errors.DataWarning")
def test_the_engine_is_held_against_bare_loops(monkeypatch):
    monkeypatch.setattr(bench_engine, "VAE_CONFIG", VAEConfig(width=4, hidden=8))
    monkeypatch.setattr(bench_engine, "GAN_CONFIG", GANConfig(width=4, discriminator_width=4))
    monkeypatch.setattr(bench_engine, "IMAGES", 200)
    monkeypatch.setattr(bench_engine, "SHAPE", (1, 8, 8))
    monkeypatch.setattr(bench_engine, "SPEC", replace(bench_engine.SPEC, height=8, width=8))
    rows = bench_engine.bench_engine(1)
    assert [target for *_, target in rows] == ["<= 1.05", "<= 1.05"]
    assert all(ours > 0 and rival > 0 for _, ours, rival, _ in rows)


@pytest.mark.global_rng
def test_the_bare_gan_loop_takes_the_steps_of_the_engine(monkeypatch):
    """With the same draws both sides end at the same weights, so that they do the same work."""
    config = GANConfig(width=4, discriminator_width=4, minibatch_std=2)
    monkeypatch.setattr(bench_engine, "GAN_CONFIG", config)
    made: list[Any] = []

    class Kept(bench_engine.GAN):
        def __init__(self, *args: Any) -> None:
            torch.default_generator.manual_seed(3)
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(bench_engine, "GAN", Kept)
    step = bench_engine._gan_step()
    images = torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(4).repeat_interleave(2)
    step(images, labels, 1e-3, False)

    draws = torch.Generator().manual_seed(1)
    latents = torch.randn(8, config.latent_dim, generator=draws)
    real, fake = torch.rand(2, 8, DRAWS, generator=draws)
    torch.default_generator.manual_seed(3)
    model = GAN(bench_engine.SPEC, config)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    losses, _ = model.training_loss(
        images, labels, {"latents": latents, "augment_real": real, "augment_fake": fake, "shares": torch.rand(8)}
    )
    groups = model.parameter_groups()
    _backward(losses, groups)
    for group in groups.values():
        torch.nn.utils.clip_grad_norm_(group.parameters, bench_engine.TRAINING.gradient_clip)
        torch.optim.AdamW(group.parameters, lr=1e-3, betas=group.betas, weight_decay=0.0).step()
    bare, own = made[0].parameters(), model.parameters()
    for first, second in zip(bare, own, strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-3)
    assert any(not torch.equal(now, start) for now, start in zip(model.parameters(), before, strict=True))
