"""Comparisons: paired, with equal budgets, and able to see a gain where there is one."""

import csv
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from genaug import DataError, DataSpec, GenaugError, SampleBank, balance
from genaug.bank.drawing import hash_source
from genaug.data import LabeledImages, load_data, longtail_indices
from genaug.evaluate import Arm, Budget, Comparison, Difference, compare_arms
from genaug.evaluate.comparison import METRICS
from genaug.evaluate.makers import Noise, Replay, Reserve
from genaug.evaluate.scoring import pack
from genaug.images import to_float
from genaug.models import VAE, SmallCNN, VAEConfig

SCARCE = (5, 6, 7, 8, 9)
FEW, FILLED = 2, 100
BUDGET = {"steps": 3, "batch_size": 16, "learning_rate": 2e-3}


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
    budget = {name: options.pop(name, value) for name, value in BUDGET.items()}
    defaults = {"rival": next(iter(arms)), "seeds": 2, "classifier": small, "device": "cpu", "progress": False}
    return compare_arms(arms, train=train, test=test, **{**defaults, "budget": Budget(**budget), **options})


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
    assert recorder.batches == [[], [16], *[[16] * 4] * 6]  # the first two are tried before training
    assert len(steps) == 4 * 6
    for first in (2, 5):  # the three arms of a seed
        assert torch.equal(recorder.starts[first], recorder.starts[first + 1])
        assert torch.equal(recorder.starts[first], recorder.starts[first + 2])
    assert not torch.equal(recorder.starts[2], recorder.starts[5])


class WithDropout(nn.Module):
    """A classifier that draws from torch's global generator at every training step."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.dropout, self.net = nn.Dropout(0.5), small(spec)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(self.dropout(to_float(images)))


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


def bad_mix(**options):
    return lambda images, labels: (images[:, :, :4], labels)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (Arm(transform=v2.Normalize([0.5] * 3, [0.5] * 3)), "arm 'bad': transform must take an image .*, but fails"),
        (Arm(transform=v2.Resize((4, 4))), "arm 'bad': transform must keep type and shape"),
        (Arm(mix=v2.MixUp(num_classes=10)), "arm 'bad': mix must take num_classes, .* but fails"),
        (Arm(mix=bad_mix), r"arm 'bad': mix.* must make .* soft labels \(N, 10\), got \[\(2, 1, 4, 8\), \(2,\)\]"),
        (Arm(mix=lambda num_classes: v2.Identity()), r"got \[\(2, 1, 8, 8\), \(2,\)\]"),
        (Arm(mix=lambda num_classes: len), "but fails|got int"),
    ],
)
def test_what_an_arm_does_to_images_is_tried_before_any_training(arm, message, train_part, test_part):
    steps: list[int] = []
    with pytest.raises(GenaugError, match=message):
        compare({"plain": Arm(), "bad": arm}, train_part, test_part, on_step=lambda: steps.append(1))
    assert steps == []


def test_a_maker_is_looked_at(train_part, test_part):
    def cheat(train, counts, *, seed, device):
        return Replay()(test_part, counts, seed=seed, device=device)

    with pytest.raises(DataError, match="arm 'mine': source must hold no images that arms are tested on, got"):
        compare({"plain": Arm(), "mine": Arm(source=cheat)}, train_part, test_part)
    with pytest.raises(DataError, match="arm 'mine': source, a function, must make a bank: .* got list"):
        compare({"mine": Arm(source=lambda train, counts, *, seed, device: [])}, train_part, test_part)


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
    arms_in_words = comparison.settings["arms"]
    assert arms_in_words["plain"] == {"balanced": "True"}
    assert arms_in_words["mixed, flipped"]["transform"] == repr(flip)
    assert arms_in_words["mixed"]["source"] == f"model of family vae {hash_source(vae)}"
    batches = torch.stack(seen[1:]).unflatten(0, (4, 6)).flatten(1, 2)  # arms, images
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

    def make(part: LabeledImages, counts: list[int], *, seed: int, device: torch.device) -> SampleBank:
        made.append((part, counts, seed, device.type))
        return SampleBank.generate(vae, counts, seed=seed, progress=False)

    compare({"plain": Arm(), "mixed": Arm(source=make, target="max", cap=2)}, draw, test_part, seeds=[4, 2])
    # the very objects: they compare by identity
    assert made == [(drawn[s], balance(drawn[s].counts, target="max", cap=2), s, "cpu") for s in (4, 2)]


@pytest.mark.parametrize("target", ["median", "max", 60])
@pytest.mark.parametrize("kind", ["bank", "model", "function"])
def test_effective_counts_are_recorded(kind, target, train_part, test_part, vae):
    bank = SampleBank.generate(vae, 100, seed=0, progress=False)
    source = {"bank": bank, "model": vae, "function": lambda part, counts, **rest: bank}[kind]
    arms = {"plain": Arm(), "mixed": Arm(source=source, target=target, cap=2.0)}
    result = compare(arms, train_part, test_part, seeds=1, steps=1)
    added = balance(train_part.counts, target=target, cap=2.0)
    assert sum(added) > 0
    assert result.runs[0]["counts"] == train_part.counts
    assert result.runs[1]["counts"] == [real + extra for real, extra in zip(train_part.counts, added, strict=True)]


# --- what is reported


def comparison(recalls: dict[str, list[list[float]]], *, rival: str, images: int = 40) -> Comparison:
    """Runs of arms that recognize these shares of the images of each class, for each seed."""
    classes = len(recalls[rival][0])
    labels = torch.arange(classes).repeat_interleave(images)
    runs = []
    for seed in range(len(recalls[rival])):
        for arm, own in recalls.items():
            flags = torch.cat([torch.arange(images) < round(share * images) for share in own[seed]])
            score = float(np.mean(own[seed]))
            runs.append({"arm": arm, "seed": seed, **dict.fromkeys(METRICS, score), "correct": pack(flags)})
    names = tuple(map(str, range(classes)))
    return Comparison(rival, names, labels.tolist(), {"seeds": list(range(len(recalls[rival])))}, runs)


def test_the_difference_is_the_mean_over_seeds_of_the_difference_in_mean_recall():
    found = comparison({"rival": [[0.5, 0.3], [0.6, 0.4]], "arm": [[0.6, 0.5], [0.6, 0.5]]}, rival="rival")
    assert found.difference("arm").mean == pytest.approx((0.15 + 0.05) / 2)
    assert found.difference("rival") == Difference(0.0, 0.0, 0.0)


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
        comparison({"rival": [[0.5, 0.5]], "arm": [[0.6, 0.5]]}, rival="rival").difference("arm")
    with pytest.raises(GenaugError, match="metric must be one of accuracy, balanced_accuracy, got 'macro_f1'"):
        comparison({"rival": [[0.5]] * 2}, rival="rival").difference("rival", metric="macro_f1")


def test_arms_are_compared_over_the_same_seeds():
    labels = torch.tensor([0, 0, 1, 1])
    flags = torch.tensor([True, False, True, True]), torch.tensor([True, True, True, True])
    runs = [{"arm": arm, "seed": seed, "correct": pack(flags[arm == "b"])} for arm in "abc" for seed in (0, 1)]
    found = Comparison("a", ("x", "y"), labels.tolist(), {}, runs)
    assert found.difference("b") == found.difference("b", to="c") == found.difference("b", to="a")
    assert found.difference("b").mean == pytest.approx(0.25)
    assert found.difference("c", to="b").mean == pytest.approx(-0.25)
    for seeds in ([2, 3], [0]):
        left = [run for run in runs if run["arm"] == "a"]
        left += [{"arm": "b", "seed": seed, "correct": pack(flags[1])} for seed in seeds]
        with pytest.raises(GenaugError, match=r"runs of the same seeds, got 'b' .* and 'a' \[0, 1\]"):
            Comparison("a", ("x", "y"), labels.tolist(), {}, left).difference("b")


def test_recall_is_the_mean_over_seeds():
    result = comparison({"rival": [[0.5] * 3, [0.6] * 3]}, rival="rival")
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
        "seeds": [0, 1],
        **{"steps": 20, "batch_size": 16, "learning_rate": 2e-3},
        **{"optimizer": "adamw", "weight_decay": 1e-2, "schedule": "cosine"},
        "classifier": "<function small>",
        "arms": {"plain": {}, "balanced": {"balanced": "True"}},
        "train": None,
        "train_sha256": train_part.fingerprint(),
        "train_counts": train_part.counts,
        "test_sha256": test_part.fingerprint(),
        "test_images": 599,
    }
    assert Comparison.from_dict(json.loads(json.dumps(report))) == result
    for arm in ("plain", "balanced"):
        for metric in METRICS:
            values = [run[metric] for run in report["runs"] if run["arm"] == arm]
            assert result.values(arm, metric) == values
            assert report["summary"][arm][metric]["mean"] == pytest.approx(np.mean(values))
            assert report["summary"][arm][metric]["std"] == pytest.approx(np.std(values, ddof=1))
    difference = report["summary"]["plain"]["difference"]
    assert difference["mean"] == pytest.approx(
        np.mean(result.values("plain", "balanced_accuracy")) - np.mean(result.values("balanced", "balanced_accuracy"))
    )
    assert difference["low"] < difference["mean"] < difference["high"]
    assert difference["verdict"] == result.difference("plain").verdict
    assert "difference" not in report["summary"]["balanced"]


def test_results_are_written_after_every_run(train_part, test_part, tmp_path):
    output, seen = tmp_path / "new" / "results.json", []

    def look(spec: DataSpec) -> nn.Module:
        seen.append(len(json.loads(output.read_text())["runs"]) if output.exists() else 0)
        return small(spec)

    result = compare({"one": Arm(), "other": Arm()}, train_part, test_part, classifier=look, output=output)
    assert seen == [0, 0, 0, 1, 2, 3]
    assert json.loads(output.read_text()) == result.to_dict()
    assert sorted(path.name for path in output.parent.iterdir()) == ["results.csv", "results.json"]
    with output.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["arm"], int(row["seed"])) for row in rows] == [(run["arm"], run["seed"]) for run in result.runs]
    assert [float(row["macro_f1"]) for row in rows] == [run["macro_f1"] for run in result.runs]


def test_runs_so_far_survive_a_crash(train_part, test_part, tmp_path):
    output, made = tmp_path / "results.json", []

    def fail_at_the_second(spec: DataSpec) -> nn.Module:
        made.append(spec)
        if len(made) == 4:  # the first two are looked at before training
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
        ({"seeds": []}, GenaugError, "seeds must be at least one integer, none twice, got"),
        ({"seeds": 0}, GenaugError, "seeds must be at least one integer, none twice, got"),
        ({"seeds": [1, 2, 1]}, GenaugError, "seeds must be at least one integer, none twice, got [1, 2, 1]"),
        ({"seeds": [1.5]}, GenaugError, "seeds must be at least one integer, none twice, got [1.5]"),
        ({"device": "gpu"}, GenaugError, "device: gpu cannot be used"),
        ({"steps": 0}, GenaugError, "steps must be an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, GenaugError, "batch_size must be an integer of at least 1, got 2.5"),
        ({"learning_rate": math.nan}, GenaugError, "learning_rate must be from 1e-12 to 10, got nan"),
        ({"jobs": 0}, GenaugError, "jobs must be an integer of at least 1, got 0"),
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


@pytest.fixture(scope="module")
def instrument(pool: LabeledImages, test_part: LabeledImages) -> Comparison:
    """Half of the classes cut to two images each; what was cut off comes back as samples, and copies and noise so."""
    kept = torch.ones(len(pool), dtype=torch.bool)
    for label in SCARCE:
        kept[torch.nonzero(pool.labels == label).flatten()[FEW:]] = False
    train, rest = pool.subset(kept.nonzero().flatten()), pool.subset((~kept).nonzero().flatten())
    makers = {"real": Reserve(rest), "copies": Replay(), "noise": Noise()}
    arms = {"oversampling": Arm(balanced=True), "plain": Arm()}
    arms |= {name: Arm(balanced=True, source=maker, target=FILLED, cap=FILLED) for name, maker in makers.items()}
    arms["plain, copies"] = Arm(source=Replay(), target=FILLED, cap=FILLED)
    return compare(arms, train, test_part, rival="oversampling", seeds=3, steps=120, batch_size=64, learning_rate=5e-3)


def test_a_planted_gain_shows(instrument):
    gain = instrument.difference("real")
    assert gain.verdict == "gain"
    assert gain.mean > 0.1
    scarce = {arm: np.mean([instrument.recall(arm)[label] for label in SCARCE]) for arm in instrument.arms}
    assert scarce["real"] > scarce["oversampling"] + 0.2


def test_noise_does_harm(instrument):
    harm = instrument.difference("noise")
    assert harm.verdict == "loss"
    assert harm.mean < -0.1


def test_copies_are_worth_what_oversampling_is(instrument):
    # where all images are drawn equally often, copies make scarce classes frequent, and that is all that they do
    copies = instrument.difference("plain, copies", to="plain")
    assert copies.verdict == "gain"
    assert copies.mean > 0.05
    assert abs(instrument.difference("plain, copies").mean) < 0.05
    assert instrument.difference("real", to="plain, copies").verdict == "gain"


def test_copies_alone_change_little(instrument):
    # balanced sampling draws the two images of a class as often, with copies or without
    assert abs(instrument.difference("copies").mean) < 0.05
    assert instrument.difference("copies").verdict != "gain"


def test_the_classifier_learns(instrument):
    assert min(instrument.values("real", "balanced_accuracy")) > 0.8  # chance is 0.1
