"""No network, no windows, and no test that touches global random state without saying so."""

import os
import tempfile

# Before any import of these libraries: they read the variables when they are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="genaug-tests-")
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks PyPI for its version
os.environ["MPLBACKEND"] = "Agg"
# The models are tiny: more threads gain nothing, and lose much where other processes use the cores.
os.environ["OMP_NUM_THREADS"] = "1"

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import rich.style  # noqa: F401 (draws from `random` when it is imported, which is no test's doing)
import torch

from genaug import DataSpec
from genaug.models import VAE, Denoiser, DenoiserConfig, Model, VAEConfig

FIGURES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--nightly",
        action="store_true",
        help="thousands of fuzzed files and batches instead of some, and their figures",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []
    # The same examples in every run, so that a failure has to do with the change; other ones at night.
    if not config.getoption("--nightly"):
        hypothesis.settings.register_profile("fixed", derandomize=True)
        hypothesis.settings.load_profile("fixed")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(os.environ["HF_DATASETS_CACHE"], ignore_errors=True)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("--nightly") and config.stash[FIGURES]:
        terminalreporter.section("figures")
        for line in config.stash[FIGURES]:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def nightly(pytestconfig: pytest.Config) -> bool:
    """Whether tests that can do with less should do all they can."""
    return bool(pytestconfig.getoption("--nightly"))


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> list[str]:
    """Lines for the end of the nightly report."""
    return pytestconfig.stash[FIGURES]


@pytest.fixture(autouse=True)
def unchanged_global_rng(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that changes global random state, unless it is marked with `global_rng`; put the state back."""
    torch_before, numpy_before, random_before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    changed = {
        "torch": not torch.equal(torch.get_rng_state(), torch_before),
        "numpy": not _same(np.random.get_state(), numpy_before),
        "random": random.getstate() != random_before,
    }
    torch.set_rng_state(torch_before)
    np.random.set_state(numpy_before)
    random.setstate(random_before)
    if any(changed.values()) and request.node.get_closest_marker("global_rng") is None:
        names = ", ".join(name for name, value in changed.items() if value)
        pytest.fail(f"the test changed the global random state of {names}")


def _same(state: Any, other: Any) -> bool:
    return all(np.array_equal(part, other_part) for part, other_part in zip(state, other, strict=True))


def make_vae(spec: DataSpec) -> VAE:
    """A tiny VAE with densities fitted to noise; the same one at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VAE(spec, VAEConfig(width=8, hidden=16, latent_dim=4))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(30, spec.channels, spec.height, spec.width, generator=generator)
    model.fit_after_training(images, torch.arange(30) % 3)
    return model.eval()


@pytest.fixture(scope="session")
def gray() -> VAE:
    """A VAE of gray images 1x8x8 in three classes."""
    return make_vae(DataSpec(1, 8, 8, ("a", "b", "c")))


@pytest.fixture(scope="session")
def color() -> VAE:
    """A VAE of color images 3x12x10 in three classes."""
    return make_vae(DataSpec(3, 12, 10, ("a", "b", "c")))


def make_denoiser(channels: int) -> Denoiser:
    """A tiny denoiser with random weights, which change every image; the same one at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Denoiser(DataSpec(channels=channels), DenoiserConfig(width=4, levels=2, blocks=1))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model.eval()


@pytest.fixture(scope="session")
def models(gray: VAE, color: VAE) -> dict[tuple[str, int], Model]:
    """Tiny models by family and number of channels."""
    vaes = {("vae", 1): gray, ("vae", 3): color}
    return vaes | {("denoiser", channels): make_denoiser(channels) for channels in (1, 3)}


@pytest.fixture
def path(gray: VAE, tmp_path: Path) -> Path:
    """A checkpoint of `gray`."""
    gray.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real data sets, named by GENAUG_DATA; without it the test skips."""
    folder = os.environ.get("GENAUG_DATA")
    if not folder:
        pytest.skip("GENAUG_DATA names no folder with data sets")
    return Path(folder)
