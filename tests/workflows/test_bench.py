"""Benchmarks against rivals: what they need, and that every side runs; how fast it is, no test says."""

import logging
import sys
from typing import Any

import pytest

from genaug.errors import GenaugError
from genaug.models import GANConfig
from genaug.workflows import bench_loaders, bench_pythae, bench_sampling, bench_transforms, timing
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
    monkeypatch.setattr(bench_loaders, "IMAGES", 400)
    monkeypatch.setattr(bench_loaders, "SOAK_BATCHES", 60)
    seen: list[int] = []
    run = bench_loaders._run_epoch
    monkeypatch.setattr(bench_loaders, "_run_epoch", lambda loader, step: (seen.append(len(loader)), run(loader, step)))
    rows = bench_loaders.bench_loaders(3)
    assert len(rows) == 3
    assert set(seen) == {4}  # every side has as many batches
    assert "MiB after 60" in " ".join(capsys.readouterr().out.split())
