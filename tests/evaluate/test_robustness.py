"""Denoisers before and in the training of classifiers: noise, pairing, rows that must agree, what is reported."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.ndimage import uniform_filter
from torch import Tensor, nn
from torchvision.transforms import v2

from genaug import DataError, DataSpec, GenaugError
from genaug.data import LabeledImages, load_data
from genaug.evaluate import Arm, Budget, RobustnessResult, compare_arms, measure_robustness
from genaug.evaluate.trials import add_noise, restore
from genaug.models import VAE, Autoencoder, AutoencoderConfig, Denoiser, DenoiserConfig, SmallCNN
from genaug.transforms.operations import Restore

ROWS = ["clean / noisy", "clean / denoised", "augmented / noisy", "noisy / noisy", "denoised / denoised"]


def small(spec: DataSpec) -> SmallCNN:
    return SmallCNN(spec, width=4)


@pytest.fixture(scope="module")
def train_part() -> LabeledImages:
    return load_data("digits", limit_per_class=12)


@pytest.fixture(scope="module")
def test_part() -> LabeledImages:
    return load_data("digits", split="test", limit_per_class=8)


@pytest.fixture(scope="module")
def identity() -> Denoiser:
    """A denoiser that was not trained: it changes nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Denoiser(DataSpec(channels=1), DenoiserConfig(width=2, levels=1, blocks=1))


class Blur(nn.Module):
    """A denoiser that takes the mean of 3x3 pixels, and keeps what it was given."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.spec = DataSpec(channels=channels)
        self.seen: list[Tensor] = []

    def restore(self, images: Tensor, *, noise_level: float | None = None) -> Tensor:
        assert noise_level is None
        self.spec.check_images(images)
        self.seen.append(images.clone())
        return nn.functional.avg_pool2d(nn.functional.pad(images, (1,) * 4, mode="replicate"), 3, stride=1)


def measure(denoiser: Any, train: LabeledImages, test: LabeledImages, **options: Any) -> RobustnessResult:
    defaults: dict[str, Any] = {"noise_levels": [0.1], "seeds": 1, "steps": 2, "batch_size": 16}
    defaults |= {"classifier": small, "device": "cpu", "progress": False}
    return measure_robustness(denoiser, train=train, test=test, **{**defaults, **options})


def scores(result: RobustnessResult, level: float, row: str) -> list[dict[str, Any]]:
    """Return what a row scored for each seed, without the names."""
    names = ("arm", "trained", "tested", "noise_level")
    runs = [run for run in result.comparison(level).runs if run["arm"] == row]
    return [{key: value for key, value in run.items() if key not in names} for run in runs]


class Watcher:
    """Makes classifiers, and keeps the weights that each starts with, and the batches that it is trained on."""

    def __init__(self) -> None:
        self.starts: list[Tensor] = []
        self.batches: list[list[Tensor]] = []

    def __call__(self, spec: DataSpec) -> nn.Module:
        net = small(spec)
        batches: list[Tensor] = []
        self.starts.append(torch.cat([parameter.detach().flatten() for parameter in net.parameters()]))
        self.batches.append(batches)
        net.register_forward_pre_hook(
            lambda module, inputs: batches.append(inputs[0].clone()) if module.training else None
        )
        return net


@pytest.fixture(scope="module")
def mild() -> tuple[LabeledImages, LabeledImages]:
    """Random images near the middle gray, where noise is hardly ever clipped."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(118, 138, (48, 1, 8, 8), dtype=torch.uint8, generator=generator)
    spec = DataSpec(1, 8, 8, ("a", "b"))
    whole = LabeledImages(images, torch.arange(48) % 2, spec)
    return whole.subset(range(32)), whole.subset(range(32, 48))


# --- noise


@pytest.mark.parametrize("level", [0.0, 0.1, 0.5])
def test_noise_is_gaussian_clipped_and_rounded(level, test_part):
    images, seeds = test_part.images[:5], torch.tensor([3, 1, 4, 1, 5])
    noisy = add_noise(images, level, seeds=seeds)
    for image, seed, found in zip(images.numpy(), seeds.tolist(), noisy, strict=True):
        noise = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(seed)).numpy()
        expected = np.clip(image / 255 + level * noise.astype(np.float64), 0, 1) * 255
        assert found.dtype == torch.uint8
        assert np.abs(found.numpy() - expected).max() <= 0.5 + 1e-4  # 32-bit sums
    assert torch.equal(add_noise(images[2:3], level, seeds=seeds[2:3]), noisy[2:3])
    if not level:
        assert torch.equal(noisy, images)


def test_the_noise_of_test_images_depends_on_the_seed_and_grows_with_the_level(mild):
    train, test = mild
    denoiser = Blur()
    measure(denoiser, train, test, noise_levels=[0.1, 0.05], seeds=[0, 1])  # never clipped
    seen = [(255 * images).round().int() for images in denoiser.seen if len(images) == len(test)]  # 16 of 32
    assert len(seen) == 2 * 3  # level 0, 0.05, 0.1 for two seeds
    clean = test.images.int()
    for seed in (0, 1):
        none, weak, strong = (images - clean for images in seen[3 * seed : 3 * seed + 3])
        assert not none.any()
        assert (2 * weak - strong).abs().max() <= 2  # each was rounded
    assert (seen[1] - seen[4]).abs().float().mean() > 10  # of levels of 255, with a deviation of 12.75 each
    again = Blur()
    measure(again, train, test, noise_levels=[0.05], seeds=[1])
    assert torch.equal((255 * again.seen[1]).round().int(), seen[4])


# --- what classifiers are trained on


def test_all_classifiers_of_a_seed_start_alike_and_get_the_same_batches(identity, mild):
    watcher = Watcher()
    train, test = mild
    measure(identity, train, test, seeds=[3, 8], steps=25, classifier=watcher)
    assert len(watcher.starts) == 2 * 4  # clean, augmented, noisy, denoised
    assert all(torch.equal(start, watcher.starts[0]) for start in watcher.starts[1:4])
    assert not torch.equal(watcher.starts[0], watcher.starts[4])
    clean, augmented, noisy, denoised = (torch.cat(batches).float() for batches in watcher.batches[:4])
    assert clean.shape == (25 * 16, 1, 8, 8)
    known = {image.numpy().tobytes() for image in train.images.float()}
    assert {image.numpy().tobytes() for image in clean} <= known

    deviations = {  # of each image's noise, on the [0, 1] scale
        name: ((images - clean) / 255).square().mean((1, 2, 3)).sqrt()
        for name, images in {"augmented": augmented, "noisy": noisy, "denoised": denoised}.items()
    }
    assert deviations["noisy"].mean() == pytest.approx(0.1, rel=0.02)
    assert deviations["denoised"].mean() == pytest.approx(0.1, rel=0.05)  # of 32 images alone
    assert deviations["noisy"].std() < 0.012  # of 64 pixels each: 0.1 / sqrt(2 * 64) = 0.009
    levels = deviations["augmented"]  # uniform in [0, 0.1]
    assert levels.mean() == pytest.approx(0.05, rel=0.1)
    assert levels.std() == pytest.approx(0.1 / 12**0.5, rel=0.1)

    assert len({image.numpy().tobytes() for image in noisy}) == len(noisy)  # new in every batch
    assert len({image.numpy().tobytes() for image in denoised}) <= len(train)  # one copy


def test_classes_are_drawn_equally_often(identity, test_part):
    pool = load_data("digits", longtail=10, limit_per_class=30)
    watcher = Watcher()
    measure(identity, pool, test_part, steps=30, classifier=watcher)
    places = {image.numpy().tobytes(): label for image, label in zip(pool.images, pool.labels.tolist(), strict=True)}
    drawn = [places[image.numpy().tobytes()] for image in torch.cat(watcher.batches[0])]
    counts = np.bincount(drawn, minlength=10)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_transform_comes_before_the_noise_and_is_the_same_for_all(identity, mild):
    train, test = mild
    plain, flipped = Watcher(), Watcher()
    measure(identity, train, test, steps=6, noise_levels=[0.01], classifier=plain)
    result = measure(
        identity, train, test, steps=6, noise_levels=[0.01], classifier=flipped, transform=v2.RandomHorizontalFlip()
    )
    assert "RandomHorizontalFlip" in result.settings["transform"]
    before = torch.cat(plain.batches[0]).int()
    after = [torch.cat(batches).int() for batches in flipped.batches]
    mirrored = (before.flip(-1) == after[0]).flatten(1).all(1)
    assert 20 < int(mirrored.sum()) < 76  # of 96
    assert ((before == after[0]).flatten(1).all(1) | mirrored).all()
    for batches in after[1:]:  # the noise has a deviation of 2.55
        assert (batches - after[0]).abs().max() < 20


# --- rows that must agree


def test_an_identity_changes_no_score(identity, train_part, test_part):
    result = measure(identity, train_part, test_part, noise_levels=[0.1, 0.3], seeds=2, steps=6)
    for level in (0.0, 0.1, 0.3):
        assert scores(result, level, "clean / denoised") == scores(result, level, "clean / noisy")
    assert result.noise_levels == [0.0, 0.1, 0.3]
    assert [result.comparison(level).arms for level in result.noise_levels] == [ROWS[:3], ROWS, ROWS]


def test_without_noise_the_scores_are_those_of_a_plain_comparison(train_part, test_part):
    result = measure(Blur(), train_part, test_part, seeds=[2, 5], steps=6)
    plain = compare_arms(
        {"balanced": Arm(balanced=True)}, train=train_part, test=test_part, rival="balanced", seeds=[2, 5],
        budget=Budget(steps=6, batch_size=16), classifier=small, device="cpu", progress=False,
    )  # fmt: skip
    for metric in ("accuracy", "balanced_accuracy", "worst_class", "recall"):
        assert result.comparison(0.0).values("clean / noisy", metric) == plain.values("balanced", metric)


def test_augmentation_without_noise_is_none(train_part, test_part):
    result = measure(Blur(), train_part, test_part, steps=6, augmentation_level=0.0)
    for level in (0.0, 0.1):
        assert scores(result, level, "augmented / noisy") == scores(result, level, "clean / noisy")
    assert result.settings["augmentation_level"] == 0.0
    other = measure(Blur(), train_part, test_part, steps=6, noise_levels=[0.1, 0.3])
    assert other.settings["augmentation_level"] == 0.3
    assert scores(other, 0.1, "noisy / noisy") == scores(result, 0.1, "noisy / noisy")


@pytest.mark.global_rng
def test_results_depend_on_the_seeds_alone(identity, train_part, test_part):
    found = []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        options = {"transform": v2.RandomHorizontalFlip(), "steps": 5}
        found.append(measure(identity, train_part, test_part, **options).runs)
        assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1]


# --- denoisers of other channels and sizes


def test_a_gray_denoiser_restores_the_channels_of_color_images_one_by_one():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 9, 7), dtype=torch.uint8, generator=generator)
    denoiser = Blur()
    found = restore(Restore(denoiser, channels="convert"), images)
    assert denoiser.seen[0].shape == (15, 1, 9, 7)
    expected = uniform_filter(images.numpy().astype(float), (0, 0, 3, 3), mode="nearest")
    assert found.dtype == torch.uint8
    assert np.abs(found.numpy() - expected).max() <= 0.5 + 1e-3  # 32-bit sums


def test_color_images_are_measured_with_a_gray_denoiser(identity):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 8, 6), dtype=torch.uint8, generator=generator)
    whole = LabeledImages(images, torch.arange(40) % 2, DataSpec(3, 8, 6, ("a", "b")))
    result = measure(identity, whole.subset(range(30)), whole.subset(range(30, 40)))
    assert scores(result, 0.1, "clean / denoised") == scores(result, 0.1, "clean / noisy")


def test_an_autoencoder_of_the_size_of_the_images(train_part, test_part):
    with torch.random.fork_rng(devices=[]):
        model = Autoencoder(train_part.spec, AutoencoderConfig(width=4, latent_dim=4))
    assert measure(model, train_part, test_part).comparison(0.1).arms == ROWS


# --- a denoiser that helps is seen


PATTERN = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)


class Projection(nn.Module):
    """Knows that images are flat or chequered: it keeps the pattern, where there is enough of it."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = DataSpec(channels=1)

    def restore(self, images: Tensor, *, noise_level: float | None = None) -> Tensor:
        amount = (images * PATTERN).mean((2, 3), keepdim=True)
        return 0.5 + 0.2 * PATTERN * (amount > 0.1)


class Contrast(nn.Module):
    """A classifier that sees nothing but the contrast of an image, which noise adds to."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.head = nn.Linear(1, 2)

    def forward(self, images: Tensor) -> Tensor:
        contrast = (images.float() / 255).flatten(1).std(1, keepdim=True)
        return self.head(10 * contrast - 1)


def test_what_helps_is_found():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(160) % 2
    shades = 0.5 + 0.2 * PATTERN * labels[:, None, None, None] + 0.01 * torch.randn(160, 1, 8, 8, generator=generator)
    images = (255 * shades).round().to(torch.uint8)
    whole = LabeledImages(images, labels, DataSpec(1, 8, 8, ("flat", "chequered")))
    train, test = whole.subset(range(80)), whole.subset(range(80, 160))
    result = measure(
        Projection(), train, test, noise_levels=[0.2], seeds=2, steps=60, learning_rate=0.3, classifier=Contrast
    )
    comparison = result.comparison(0.2, rival="clean / noisy")
    assert max(comparison.values("clean / noisy", "balanced_accuracy")) < 0.6  # all that is noisy seems chequered
    for row in ("clean / denoised", "denoised / denoised"):  # wrong where the noise of 64 pixels is at 4 deviations
        assert comparison.values(row, "balanced_accuracy") == [1.0, 1.0]
    assert comparison.difference("clean / denoised").verdict == "gain"
    assert result.comparison(0.0).values("clean / denoised", "balanced_accuracy") == [1.0, 1.0]


# --- what is reported


def test_the_summary_agrees_with_the_runs(train_part, test_part):
    result = measure(Blur(), train_part, test_part, seeds=3, steps=6, noise_levels=(0.2, 0.1), facts={"data": "digits"})
    report = result.to_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["data"] == "digits"
    assert "clipped to [0, 1]" in report["protocol"]
    assert report["rival"] == "augmented / noisy"
    assert report["settings"] == {
        "seeds": [0, 1, 2], "steps": 6, "batch_size": 16, "learning_rate": 2e-3, "noise_levels": [0.1, 0.2],
        "optimizer": "adamw", "weight_decay": 1e-2, "schedule": "cosine",
        "augmentation_level": 0.2, "transform": None, "train_images": 120, "test_images": 80,
    }  # fmt: skip
    assert [level["noise_level"] for level in report["summary"]] == [0.0, 0.1, 0.2]
    for level in report["summary"]:
        assert list(level["rows"]) == (ROWS if level["noise_level"] else ROWS[:3])
        values = {
            row: [
                run["balanced_accuracy"]
                for run in report["runs"]
                if (run["noise_level"], f"{run['trained']} / {run['tested']}") == (level["noise_level"], row)
            ]
            for row in level["rows"]
        }
        for row, figures in level["rows"].items():
            assert figures["balanced_accuracy"]["mean"] == pytest.approx(np.mean(values[row]))
            assert figures["balanced_accuracy"]["std"] == pytest.approx(np.std(values[row], ddof=1))
            if row == "augmented / noisy":
                assert "difference" not in figures
            else:
                gap = np.mean(values[row]) - np.mean(values["augmented / noisy"])
                assert figures["difference"]["mean"] == pytest.approx(gap)
                assert figures["difference"]["low"] <= gap <= figures["difference"]["high"]
    with pytest.raises(GenaugError, match=r"noise_level must be one of \[0.0, 0.1, 0.2\], got 0.3"):
        result.comparison(0.3)


def test_results_are_written_after_every_run(train_part, test_part, tmp_path):
    output, seen = tmp_path / "new" / "robustness.json", []

    def look(spec: DataSpec) -> nn.Module:
        seen.append(len(json.loads(output.read_text())["runs"]) if output.exists() else 0)
        if len(seen) == 6:
            raise RuntimeError("out of memory")
        return small(spec)

    with pytest.raises(RuntimeError, match="out of memory"):
        measure(Blur(), train_part, test_part, seeds=2, classifier=look, output=output)
    # clean and augmented: 3 rows without noise and 3 with; noisy: 1; denoised: 1
    assert seen == [0, 0, 6, 7, 8, 8]
    saved = json.loads(output.read_text())
    assert len(saved["runs"]) == 8
    assert saved["settings"]["seeds"] == [0, 1]
    assert saved["runs"] == measure(Blur(), train_part, test_part).runs


def test_existing_results_are_kept(train_part, test_part, tmp_path):
    output = tmp_path / "robustness.json"
    output.write_text("precious")
    with pytest.raises(GenaugError, match="exists already"):
        measure(Blur(), train_part, test_part, output=output)
    assert output.read_text() == "precious"
    result = measure(Blur(), train_part, test_part, output=output, overwrite=True)
    assert json.loads(output.read_text()) == result.to_dict()


def test_another_measurement_is_kept_out_of_its_results(train_part, test_part, tmp_path):
    # In this process the lock of the running one is seen just as another process sees it.
    output, refused = tmp_path / "robustness.json", []

    def try_another(spec: DataSpec) -> nn.Module:
        with pytest.raises(GenaugError, match="robustness.json: another process writes to it"):
            measure(Blur(), train_part, test_part, output=output, overwrite=True)
        refused.append(1)
        return small(spec)

    result = measure(Blur(), train_part, test_part, classifier=try_another, output=output)
    assert len(refused) == 4
    assert json.loads(output.read_text()) == result.to_dict()
    assert list(tmp_path.iterdir()) == [output]
    measure(Blur(), train_part, test_part, output=output, overwrite=True)  # it is free again


# --- refused before anything is trained


def one_class(data: LabeledImages) -> LabeledImages:
    return LabeledImages(data.images, torch.zeros_like(data.labels), DataSpec(1, 8, 8, ("image",)))


@pytest.mark.parametrize(
    "levels", [[], 0.1, "0.1", None, [0.0, 0.1], [-0.1], [1.5], [float("nan")], [True], ["0.1"], [0.1, 0.1]]
)
def test_wrong_noise_levels(levels, train_part, test_part):
    watcher = Watcher()
    with pytest.raises(GenaugError, match="noise_levels .*must be .*got"):
        measure(Blur(), train_part, test_part, noise_levels=levels, classifier=watcher)
    assert watcher.starts == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augmentation_level": -0.1}, "augmentation_level must be from 0 to 1, got -0.1"),
        ({"seeds": 0}, "seeds must be at least one integer"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"device": "gpu"}, "device: gpu cannot be used"),
    ],
)
def test_wrong_arguments(options, message, train_part, test_part):
    watcher = Watcher()
    with pytest.raises(GenaugError, match=message):
        measure(Blur(), train_part, test_part, classifier=watcher, **options)
    assert watcher.starts == []


def test_models_that_cannot_restore_these_images(gray: VAE, train_part, test_part):
    watcher = Watcher()
    with pytest.raises(GenaugError, match="restore: vae cannot do this; it can: sample, encode, decode, vary"):
        measure(gray, train_part, test_part, classifier=watcher)
    with torch.random.fork_rng(devices=[]):
        large = Autoencoder(DataSpec(1, 12, 8), AutoencoderConfig(width=4, latent_dim=4))
    with pytest.raises(DataError, match="images of one size, got 1x12x8 and 1x8x8; load the data with the model's"):
        measure(large, train_part, test_part, classifier=watcher)
    with pytest.raises(DataError, match="images must have 2 channels, got 1"):
        measure(Blur(channels=2), train_part, test_part, classifier=watcher)
    assert watcher.starts == []


def test_parts_that_do_not_fit(train_part, test_part):
    with pytest.raises(DataError, match=r"at least two classes, got \['image'\] alone; .*--label-column"):
        measure(Blur(), one_class(train_part), one_class(test_part))
    with pytest.raises(DataError, match="must not share images"):
        measure(Blur(), train_part, train_part)


def test_a_denoiser_that_gives_no_numbers(train_part, test_part):
    class Broken(Blur):
        def restore(self, images: Tensor, *, noise_level: float | None = None) -> Tensor:
            return images / 0 * 0

    with pytest.raises(DataError, match="the denoiser must give finite values"):
        measure(Broken(), train_part, test_part)
