"""Comparisons: paired, with equal budgets, and able to see a gain where there is one."""

import json
import math
from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn
from torchvision.transforms import v2

from genaug import DataError, DataSpec, GenaugError, SampleBank, balance
from genaug.data import LabeledImages, load_data, longtail_indices
from genaug.evaluate import Arm, Comparison, Difference, compare_arms
from genaug.models import VAE, SmallCNN, VAEConfig

SCARCE = (5, 6, 7, 8, 9)
FEW, FILLED = 2, 100


def small(spec: DataSpec) -> SmallCNN:
    return SmallCNN(spec, width=8)


@pytest.fixture(scope="module")
def pool() -> LabeledImages:
    return load_data("digits")


@pytest.fixture(scope="module")
def test_part() -> LabeledImages:
    return load_data("digits", split="test")


@pytest.fixture(scope="module")
def train_part(pool: LabeledImages) -> LabeledImages:
    return pool.subset(longtail_indices(pool.labels, imbalance_factor=10, seed=0))


@pytest.fixture(scope="module")
def vae(pool: LabeledImages) -> VAE:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return VAE(pool.spec, VAEConfig(width=8, hidden=16, latent_dim=4)).eval()


def compare(arms: dict[str, Arm], train: Any, test: LabeledImages, **options: Any) -> Comparison:
    defaults: dict[str, Any] = {"rival": next(iter(arms)), "seeds": 2, "steps": 3, "batch_size": 16}
    defaults |= {"classifier": small, "device": "cpu", "progress": False}
    return compare_arms(arms, train=train, test=test, **{**defaults, **options})


class Recorder:
    """Makes classifiers and keeps the weights that each starts with, and the sizes of the batches it is trained on."""

    def __init__(self, make: Callable[[DataSpec], nn.Module] = small) -> None:
        self.make = make
        self.starts: list[Tensor] = []
        self.batches: list[list[int]] = []

    def __call__(self, spec: DataSpec) -> nn.Module:
        net = self.make(spec)
        batches: list[int] = []
        self.starts.append(torch.cat([parameter.detach().flatten().clone() for parameter in net.parameters()]))
        self.batches.append(batches)
        net.register_forward_hook(
            lambda module, inputs, output: batches.append(len(inputs[0])) if module.training else None
        )
        return net


def without_names(run: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key not in ("arm", "seconds")}


# --- arms are paired


def test_arms_have_equal_budgets_and_starts(train_part, test_part, vae):
    recorder, steps = Recorder(), []
    arms = {"plain": Arm(), "balanced": Arm(balanced=True), "mixed": Arm(balanced=True, source=vae)}
    compare(arms, train_part, test_part, seeds=[3, 8], steps=4, classifier=recorder, on_step=lambda: steps.append(1))
    assert recorder.batches == [[16] * 4] * 6
    assert len(steps) == 4 * 6
    for first in (0, 3):  # the three arms of a seed
        assert torch.equal(recorder.starts[first], recorder.starts[first + 1])
        assert torch.equal(recorder.starts[first], recorder.starts[first + 2])
    assert not torch.equal(recorder.starts[0], recorder.starts[3])


class WithDropout(nn.Module):
    """A classifier that draws from torch's global generator at every training step."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.dropout, self.net = nn.Dropout(0.5), small(spec)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(self.dropout(images / 255))


@pytest.mark.parametrize("classifier", [small, WithDropout])
def test_arms_that_differ_in_nothing_run_identically(classifier, train_part, test_part):
    result = compare(
        {"one": Arm(balanced=True), "other": Arm(balanced=True)}, train_part, test_part, classifier=classifier
    )
    for seed in (0, 1):
        one, other = (without_names(run) for run in result.runs if run["seed"] == seed)
        assert one == other
    assert result.difference("other") == Difference(0.0, 0.0, 0.0)
    assert result.difference("other").verdict == "no measurable gain"


@pytest.mark.global_rng
@pytest.mark.parametrize("classifier", [small, WithDropout])
def test_results_depend_on_the_seeds_alone(classifier, train_part, test_part, vae):
    arms, runs = {"plain": Arm(), "mixed": Arm(source=vae)}, []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        runs.append([without_names(run) for run in compare(arms, train_part, test_part, classifier=classifier).runs])
        assert torch.equal(torch.get_rng_state(), before)
    assert runs[0] == runs[1]
    assert without_names(runs[0][0]) != without_names(runs[0][2])


# --- what an arm trains on


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (v2.ToDtype(torch.float32, scale=True), r"torch.uint8 \(1, 8, 8\), got torch.float32 \(1, 8, 8\); test images"),
        (v2.Resize((4, 4)), r"got torch.uint8 \(1, 4, 4\)"),
        (v2.ToPILImage(), "got Image"),
    ],
)
def test_a_transform_to_another_format_is_refused(transform, message, train_part, test_part):
    with pytest.raises(GenaugError, match=message):
        compare({"one": Arm(transform=transform)}, train_part, test_part)


def test_a_transform_sees_each_image_of_real_and_mixed_batches(train_part, test_part, vae):
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if module.training:
            seen.append(inputs[0].clone())

    def watched(spec: DataSpec) -> nn.Module:
        net = small(spec)
        net.register_forward_pre_hook(keep)
        return net

    flip = v2.RandomHorizontalFlip(p=0.5)
    plain, mixed = {"balanced": True}, {"balanced": True, "source": vae}
    arms = {
        "plain": Arm(**plain),
        "flipped": Arm(**plain, transform=flip),
        "mixed": Arm(**mixed),
        "mixed, flipped": Arm(**mixed, transform=flip),
    }
    comparison = compare(arms, train_part, test_part, seeds=[0], steps=6, classifier=watched)
    runs = comparison.runs
    assert comparison.settings["transforms"] == dict.fromkeys(("flipped", "mixed, flipped"), repr(flip))
    batches = torch.stack(seen).unflatten(0, (4, 6)).flatten(1, 2)  # arms, images
    for before, after in ((0, 1), (2, 3)):
        flipped = (batches[before].flip(-1) == batches[after]).flatten(1).all(1)
        same = (batches[before] == batches[after]).flatten(1).all(1)
        assert (flipped | same).all()
        assert 20 < int(flipped.sum()) < 76  # of 96, each by its own draw
    again = compare({"flipped": arms["flipped"]}, train_part, test_part, seeds=[0], steps=6, classifier=small).runs
    assert without_names(again[0]) == without_names(runs[1])


def test_train_is_drawn_anew_for_every_seed(pool, test_part):
    drawn: dict[int, LabeledImages] = {}

    def draw(seed: int) -> LabeledImages:
        assert seed not in drawn
        drawn[seed] = pool.subset(longtail_indices(pool.labels, imbalance_factor=10 + seed, seed=seed))
        return drawn[seed]

    result = compare({"plain": Arm(), "balanced": Arm(balanced=True)}, draw, test_part, seeds=[5, 1])
    assert list(drawn) == [5, 1]
    for run in result.runs:
        assert run["counts"] == drawn[run["seed"]].counts
    assert drawn[1].counts != drawn[5].counts


def test_a_source_may_be_made_for_every_seed_from_the_training_part(pool, test_part, vae):
    drawn, made = {}, []

    def draw(seed: int) -> LabeledImages:
        drawn[seed] = pool.subset(longtail_indices(pool.labels, imbalance_factor=10, seed=seed))
        return drawn[seed]

    def make(part: LabeledImages, seed: int) -> SampleBank:
        made.append((part, seed))
        return SampleBank.generate(vae, balance(part.counts), seed=seed, progress=False)

    compare({"plain": Arm(), "mixed": Arm(source=make)}, draw, test_part, seeds=[4, 2])
    assert made == [(drawn[4], 4), (drawn[2], 2)]  # the very objects: they compare by identity


@pytest.mark.parametrize("target", ["median", "max", 60])
@pytest.mark.parametrize("kind", ["bank", "model", "function"])
def test_effective_counts_are_recorded(kind, target, train_part, test_part, vae):
    bank = SampleBank.generate(vae, 100, seed=0, progress=False)
    source = {"bank": bank, "model": vae, "function": lambda part, seed: bank}[kind]
    arms = {"plain": Arm(), "mixed": Arm(source=source, target=target, cap=2.0)}
    result = compare(arms, train_part, test_part, seeds=1, steps=1)
    added = balance(train_part.counts, target=target, cap=2.0)
    assert sum(added) > 0
    assert result.runs[0]["counts"] == train_part.counts
    assert result.runs[1]["counts"] == [real + extra for real, extra in zip(train_part.counts, added, strict=True)]


# --- what is reported


def comparison(values: dict[str, list[float]], *, rival: str) -> Comparison:
    seeds = range(len(values[rival]))
    runs = [
        {"arm": arm, "seed": seed, "accuracy": own[seed], "balanced_accuracy": own[seed], "worst_class": own[seed]}
        for seed in seeds
        for arm, own in values.items()
    ]
    return Comparison(rival=rival, class_names=("a",), settings={"seeds": list(seeds)}, runs=runs)


pairs = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12)


@settings(deadline=None)
@given(pairs)
def test_the_interval_is_that_of_the_paired_t_test(values):
    arm, rival = (np.array(column) for column in zip(*values, strict=True))
    if np.ptp(arm - rival) < 1e-9:  # scipy gives NaN where all differences are equal
        return
    found = comparison({"rival": rival.tolist(), "arm": arm.tolist()}, rival="rival").difference("arm")
    expected = stats.ttest_rel(arm, rival).confidence_interval(0.95)
    assert found.mean == pytest.approx((arm - rival).mean(), abs=1e-12)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.03, "gain"),
        (-0.03, -0.01, "loss"),
        (-0.01, 0.03, "no measurable gain"),
        (0.0, 0.03, "no measurable gain"),
        (-0.03, 0.0, "no measurable gain"),
    ],
)
def test_verdicts(low, high, verdict):
    assert Difference(mean=(low + high) / 2, low=low, high=high).verdict == verdict


def test_an_interval_needs_two_seeds():
    with pytest.raises(GenaugError, match="seeds must be at least 2 for an interval, got 1"):
        comparison({"rival": [0.5], "arm": [0.6]}, rival="rival").difference("arm")


def test_recall_is_the_mean_over_seeds():
    result = comparison({"rival": [0.5, 0.6]}, rival="rival")
    for run, recall in zip(result.runs, ([0.2, None, 1.0], [0.4, None, 0.5]), strict=True):
        run["recall"] = recall
    assert result.recall("rival") == pytest.approx([0.3, float("nan"), 0.75], nan_ok=True)


def test_the_summary_agrees_with_the_runs(train_part, test_part):
    result = compare(
        {"plain": Arm(), "balanced": Arm(balanced=True)}, train_part, test_part, rival="balanced", steps=20
    )
    report = result.to_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["settings"] == {
        "seeds": [0, 1], "steps": 20, "batch_size": 16, "learning_rate": 2e-3, "test_images": 599, "transforms": {}
    }  # fmt: skip
    for arm in ("plain", "balanced"):
        for metric in ("accuracy", "balanced_accuracy", "worst_class"):
            values = [run[metric] for run in report["runs"] if run["arm"] == arm]
            assert result.values(arm, metric) == values
            assert report["summary"][arm][metric]["mean"] == pytest.approx(np.mean(values))
            assert report["summary"][arm][metric]["std"] == pytest.approx(np.std(values, ddof=1))
    expected = stats.ttest_rel(*(result.values(arm, "balanced_accuracy") for arm in ("plain", "balanced")))
    low, high = expected.confidence_interval(0.95)
    difference = report["summary"]["plain"]["difference"]
    assert (difference["low"], difference["high"]) == pytest.approx((low, high))
    assert difference["verdict"] == result.difference("plain").verdict
    assert "difference" not in report["summary"]["balanced"]


def test_results_are_written_after_every_run(train_part, test_part, tmp_path):
    output, seen = tmp_path / "new" / "results.json", []

    def look(spec: DataSpec) -> nn.Module:
        seen.append(len(json.loads(output.read_text())["runs"]) if output.exists() else 0)
        return small(spec)

    result = compare({"one": Arm(), "other": Arm()}, train_part, test_part, classifier=look, output=output)
    assert seen == [0, 1, 2, 3]
    assert json.loads(output.read_text()) == result.to_dict()
    assert [path.name for path in output.parent.iterdir()] == ["results.json"]


def test_runs_so_far_survive_a_crash(train_part, test_part, tmp_path):
    output, made = tmp_path / "results.json", []

    def fail_at_the_second(spec: DataSpec) -> nn.Module:
        made.append(spec)
        if len(made) == 2:
            raise RuntimeError("out of memory")
        return small(spec)

    arms = {"one": Arm(), "other": Arm(balanced=True)}
    with pytest.raises(RuntimeError, match="out of memory"):
        compare(arms, train_part, test_part, classifier=fail_at_the_second, output=output)
    saved = json.loads(output.read_text())
    assert [(run["arm"], run["seed"]) for run in saved["runs"]] == [("one", 0)]
    assert saved["summary"] == {}  # of two seeds one is there
    assert saved["settings"]["seeds"] == [0, 1]
    (run,) = compare(arms, train_part, test_part, seeds=1).runs[:1]
    assert without_names(saved["runs"][0]) == without_names(run)


# --- refused before anything is trained


def test_existing_results_are_kept(train_part, test_part, tmp_path):
    output = tmp_path / "results.json"
    output.write_text("precious")
    with pytest.raises(GenaugError, match="exists already"):
        compare({"plain": Arm()}, train_part, test_part, rival="plain", output=output)
    assert output.read_text() == "precious"
    compare({"plain": Arm()}, train_part, test_part, rival="plain", output=output, overwrite=True)
    assert json.loads(output.read_text())["rival"] == "plain"


def other_classes(data: LabeledImages) -> LabeledImages:
    spec = DataSpec(1, 8, 8, tuple("abcdefghij"))
    return LabeledImages(data.images, data.labels, spec)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rival": "nobody"}, GenaugError, "rival must be one of the arms ['plain', 'balanced'], got 'nobody'"),
        ({"seeds": []}, GenaugError, "seeds must be at least one integer, none twice, got []"),
        ({"seeds": 0}, GenaugError, "seeds must be at least one integer, none twice, got []"),
        ({"seeds": [1, 2, 1]}, GenaugError, "seeds must be at least one integer, none twice, got [1, 2, 1]"),
        ({"seeds": [1.5]}, GenaugError, "seeds must be at least one integer, none twice, got [1.5]"),
        ({"device": "gpu"}, GenaugError, "device: gpu cannot be used"),
        ({"steps": 0}, GenaugError, "steps must be an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, GenaugError, "batch_size must be an integer of at least 1, got 2.5"),
        ({"learning_rate": math.nan}, GenaugError, "learning_rate must be above 0 and at most 10, got nan"),
    ],
)
def test_wrong_arguments(change, error, message, train_part, test_part):
    recorder = Recorder()
    with pytest.raises(error) as caught:
        compare({"plain": Arm(), "balanced": Arm(balanced=True)}, train_part, test_part, classifier=recorder, **change)
    assert message in str(caught.value)
    assert recorder.starts == []


def test_no_arms(train_part, test_part):
    with pytest.raises(GenaugError, match="rival must be one of the arms"):
        compare_arms({}, train=train_part, test=test_part, rival="plain", progress=False)


@pytest.mark.parametrize("drawn", [False, True], ids=["fixed", "drawn"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda train, test: (train, other_classes(test)), "one format and the same classes"),
        (lambda train, test: (load_data(train, resize=(9, 8)), test), "one format and the same classes"),
        (lambda train, test: (train, train.subset([0])), "must not share images, got 1 shared"),
        (lambda train, test: (train, test.subset([])), "test must hold at least one image"),
        (lambda train, test: (train.subset([]), test), "train must hold at least one image"),
    ],
    ids=["classes", "size", "shared image", "empty test", "empty train"],
)
def test_parts_that_do_not_fit(make, message, drawn, train_part, test_part):
    train, test = make(train_part, test_part)
    recorder = Recorder()
    with pytest.raises(DataError, match=message):
        compare({"plain": Arm()}, (lambda seed: train) if drawn else train, test, classifier=recorder)
    assert recorder.starts == []


# --- the instrument: sees a gain that is there, and none in noise


class HeldOutImages:
    """A perfect generator: hands out real images that no arm trains on, in turn."""

    def __init__(self, data: LabeledImages) -> None:
        self.spec = data.spec
        self.left = {label: cycle(data.images[data.labels == label]) for label in range(10)}

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.stack([next(self.left[label]) for label in labels.tolist()])


class Noise:
    """A useless generator."""

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(len(labels), 1, 8, 8, generator=generator)


@pytest.fixture(scope="module")
def instrument(pool: LabeledImages, test_part: LabeledImages) -> Comparison:
    """Half of the classes cut to two images each; what was cut off comes back as a bank, and noise as another."""
    kept = torch.ones(len(pool), dtype=torch.bool)
    for label in SCARCE:
        kept[torch.nonzero(pool.labels == label).flatten()[FEW:]] = False
    train, rest = pool.subset(kept.nonzero().flatten()), pool.subset((~kept).nonzero().flatten())
    counts = [FILLED - FEW if label in SCARCE else 0 for label in range(10)]
    banks = {
        name: SampleBank.generate(source, counts, seed=0, progress=False)
        for name, source in (("real", HeldOutImages(rest)), ("noise", Noise(pool.spec)))
    }
    arms = {"oversampling": Arm(balanced=True)}
    arms |= {name: Arm(balanced=True, source=bank, target=FILLED, cap=FILLED) for name, bank in banks.items()}
    return compare(arms, train, test_part, rival="oversampling", seeds=3, steps=120, batch_size=64, learning_rate=5e-3)


def test_a_planted_gain_shows(instrument):
    gain = instrument.difference("real")
    assert gain.verdict == "gain"
    assert gain.mean > 0.1
    scarce = {arm: np.mean([instrument.recall(arm)[label] for label in SCARCE]) for arm in instrument.arms}
    assert scarce["real"] > scarce["oversampling"] + 0.2


def test_noise_shows_no_gain(instrument):
    assert instrument.difference("noise").verdict != "gain"


def test_the_classifier_learns(instrument):
    assert min(instrument.values("real", "balanced_accuracy")) > 0.8  # chance is 0.1
