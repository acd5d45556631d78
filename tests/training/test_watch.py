"""Training that watches itself: what it measures, what it warns of, and which weights it keeps."""

import json
import warnings
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

from genaug import DataSpec
from genaug.data import LabeledImages, load_data
from genaug.errors import DataError, RecipeError, TrainingWarning
from genaug.features import fit_features
from genaug.features.inception import PACKAGE
from genaug.images import to_float
from genaug.metrics.fidelity import frechet_distance
from genaug.seeding import make_generator
from genaug.training import load_recipe, train
from genaug.training.logs import MetricsLog
from genaug.training.looks import Looks
from genaug.training.state import Best, list_states, read_facts
from genaug.training.watch import Observation, Watch

TINY = {
    "family": "gan",
    "model": {"width": 4, "discriminator_width": 4, "latent_dim": 4, "style_dim": 8},
    "training": {"steps": 12, "batch_size": 16, "warmup_steps": 2, "save_every": 3, "log_every": 2, "sample_every": 4},
}
CPU = torch.device("cpu")


def recipe(**training: object) -> dict:
    return {**TINY, "training": {**TINY["training"], **training}}


@pytest.fixture(scope="module")
def digits() -> LabeledImages:
    return load_data("digits").subset(torch.arange(400))


class Copier:
    """Samples are images of `data`: of every class in `stuck` the same one, of others any of `rows` each."""

    def __init__(self, data: LabeledImages, *, stuck: tuple[int, ...] = (), images: int = 1000) -> None:
        self.data, self.stuck, self.images = data, stuck, images

    def sample(self, labels: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        rows = []
        for label in labels.tolist():
            members = torch.nonzero(self.data.labels == label).flatten()[: 1 if label in self.stuck else self.images]
            rows.append(members[torch.randint(len(members), (1,), generator=generator)])
        return to_float(self.data.images[torch.cat(rows)])


def make_watch(data: LabeledImages, held_out: int = 0) -> Watch:
    rows = torch.arange(len(data))
    return Watch(data, rows[held_out:], rows[:held_out], seed=0, steps=100, device=CPU)


def test_distance_and_diversity_are_those_of_features(digits: LabeledImages) -> None:
    watch, model = make_watch(digits, held_out=200), Copier(digits)
    found = watch.observe(model)
    kept, spared = digits.subset(torch.arange(200, 400)), digits.subset(torch.arange(200))
    features = fit_features(kept, seed=0, steps=100, device="cpu")
    for label in (0, 7):
        images = model.sample(torch.full((watch.count,), label), generator=make_generator(0, "watch", label))
        drawn = features.extract((255 * images).round().to(torch.uint8))
        reference = features.extract(spared.images[spared.labels == label])
        own = features.extract(kept.images[kept.labels == label])
        assert found.distance[label] == pytest.approx(frechet_distance(reference, drawn), rel=1e-6)
        ratio = drawn.var(0, unbiased=False).sum() / own.var(0, unbiased=False).sum()
        assert found.diversity[label] == pytest.approx(float(ratio), rel=1e-4)
    assert found.intra_class_distance == pytest.approx(sum(found.distance) / 10)


def test_a_copy_of_the_data_is_nearer_than_a_collapsed_one(digits: LabeledImages) -> None:
    watch = make_watch(digits, held_out=150)
    varied, stuck = watch.observe(Copier(digits)), watch.observe(Copier(digits, stuck=(3, 8)))
    assert varied.collapsed == []
    assert stuck.collapsed == [3, 8]
    assert all(share > 0.6 for share in varied.diversity)
    assert stuck.distance[3] > 1.5 * varied.distance[3]
    assert stuck.intra_class_distance > varied.intra_class_distance


def test_collapse_is_reported_once_after_two_looks_and_again_after_it_went_away(digits: LabeledImages) -> None:
    watch = make_watch(digits)
    fine, stuck = watch.observe(Copier(digits)), watch.observe(Copier(digits, stuck=(3,)))

    def reported(observation: Observation, step: int) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            watch.report(observation, step=step, told_apart=0.6)
        return [str(warning.message) for warning in caught]

    assert [bool(reported(look, step)) for step, look in enumerate([stuck, stuck, stuck, fine, stuck])] == [
        False,
        True,
        False,
        False,
        False,
    ]
    (message,) = reported(stuck, 77)
    assert message.startswith("step 77: samples of '3' (0.00) hardly vary")
    assert "try a larger model.minibatch_std" in message


def test_a_discriminator_that_wins_is_reported_once(digits: LabeledImages) -> None:
    watch = make_watch(digits)
    fine = watch.observe(Copier(digits))
    with pytest.warns(TrainingWarning, match=r"step 5: the discriminator tells 99.8% of the pairs apart.*try"):
        watch.report(fine, step=5, told_apart=0.998)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.report(fine, step=6, told_apart=0.999)
        watch.report(fine, step=7, told_apart=0.7)
    with pytest.warns(TrainingWarning, match="step 8"):
        watch.report(fine, step=8, told_apart=0.998)


def test_one_class_is_compared_in_pixels(digits: LabeledImages) -> None:
    spec = DataSpec(1, 8, 8, ("digit",))
    one = LabeledImages(digits.images[:50], torch.zeros(50, dtype=torch.int64), spec)
    found = make_watch(one).observe(Copier(one))
    assert found.diversity[0] == pytest.approx(1.0, abs=0.2)
    assert make_watch(one).observe(Copier(one, stuck=(0,))).diversity == (0.0,)


def test_a_class_with_few_held_out_images_is_compared_with_all_of_its_images(digits: LabeledImages) -> None:
    watch = make_watch(digits, held_out=100)  # about ten of each class
    counts = torch.bincount(digits.labels)
    assert [len(rows) for rows in watch.reference] == counts.tolist()
    enough = make_watch(digits, held_out=200)
    held_out = torch.bincount(digits.labels[:200])
    for rows, here, all_of_it in zip(enough.reference, held_out.tolist(), counts.tolist(), strict=True):
        assert len(rows) == (here if here >= 16 else all_of_it)


def test_of_a_large_class_some_images_are_compared(digits: LabeledImages, monkeypatch) -> None:
    monkeypatch.setattr("genaug.training.watch.MOST_COMPARED", 17)
    watch = make_watch(digits, held_out=200)
    held_out = torch.bincount(digits.labels[:200]).tolist()
    own = torch.bincount(digits.labels[200:]).tolist()
    expected = [min(17, here) if here >= 16 else min(17, rest) + here for here, rest in zip(held_out, own, strict=True)]
    assert [len(rows) for rows in watch.reference] == expected
    assert [len(rows) for rows in make_watch(digits).reference] == [17] * 10


def test_other_features_take_the_place_of_the_classifier(digits: LabeledImages) -> None:
    features = fit_features(digits, seed=3, steps=20, device="cpu")
    rows = torch.arange(400)
    watch = Watch(digits, rows[200:], rows[:200], seed=0, steps=100, device=CPU, features=features)
    stuck = Copier(digits, stuck=(2,))  # all samples alike: it does not matter which a subset takes
    drawn = stuck.sample(torch.full((watch.count,), 2), generator=make_generator(0, "watch", 2))
    reference = features.extract(digits.images[:200][digits.labels[:200] == 2]).double()
    found = features.extract((255 * drawn).round().to(torch.uint8)).double()
    distances = watch.observe(stuck).distance
    assert distances[2] == pytest.approx(unbiased_mmd(reference, found[: len(reference)]), rel=1e-4)
    assert distances[2] > 5 * abs(watch.observe(Copier(digits)).distance[2])


def unbiased_mmd(one: torch.Tensor, two: torch.Tensor) -> float:
    """Binkowski et al. 2018, eq. 4, with the kernel (x.y / F + 1)^3."""
    n, width = len(one), one.shape[1]

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x @ y.T / width + 1) ** 3

    apart = [(kernel(x, x).sum() - kernel(x, x).diagonal().sum()) / (n * (n - 1)) for x in (one, two)]
    return float(apart[0] + apart[1] - 2 * kernel(one, two).mean())


def test_a_run_is_watched_in_inception_features(digits: LabeledImages, tmp_path, monkeypatch) -> None:
    if find_spec(PACKAGE) is None:
        pytest.skip("the weights of the extra fid are not installed")
    monkeypatch.setattr("genaug.training.watch.MOST", 16)  # the network takes its time
    few = digits.subset(torch.cat([torch.nonzero(digits.labels == label).flatten()[:20] for label in (0, 1)]))
    made = recipe(steps=2, batch_size=8, watch_features="inception")
    found = []

    def observe(watch: Watch, model: object) -> Observation:
        found.append(watch.reference[0].shape)
        return original(watch, model)

    original = Watch.observe
    monkeypatch.setattr(Watch, "observe", observe)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without images, and of two steps
        train(made, data=few, output=tmp_path / "run", device="cpu", progress=False)
    assert found == [(20, 2048)]


def test_features_of_a_family_that_is_not_watched_are_refused() -> None:
    with pytest.raises(RecipeError, match="watch_features must be left out: family vae is not watched"):
        load_recipe({"family": "vae", "training": {"watch_features": "inception"}})


def test_data_without_two_images_of_a_class_are_refused(digits: LabeledImages) -> None:
    rows = torch.stack([torch.nonzero(digits.labels == label)[0, 0] for label in range(10)])
    with pytest.raises(DataError, match="at least 2 training images of some class to watch this family, got at most 1"):
        make_watch(digits.subset(rows))


def test_a_look_misses_no_scarce_class(tmp_path) -> None:
    """One image of the last class among thousands is known to the model that is looked at."""
    from genaug.training.engine import _build

    images = torch.randint(0, 256, (6001, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.cat([torch.arange(6000) % 2, torch.tensor([2])])
    data = LabeledImages(images, labels, DataSpec(1, 8, 8, ("a", "b", "c")))
    made, rows = load_recipe(recipe()), torch.randperm(6001, generator=torch.Generator().manual_seed(1))
    state = _build(made, data, rows, CPU)
    looks = Looks(state, made, data, rows, rows[:0], tmp_path, made.to_dict())
    looks.prepare(progress=False)
    with MetricsLog(tmp_path, step=0) as log:
        looks.look(log, told_apart=None)
    assert state.averaged.class_shares.tolist() == pytest.approx([3000 / 6001, 3000 / 6001, 1 / 6001])


def test_classes_without_images_or_with_one_are_left_out(digits: LabeledImages) -> None:
    rows = torch.cat([torch.nonzero(digits.labels < 8).flatten(), torch.nonzero(digits.labels == 8).flatten()[:1]])
    found = make_watch(digits.subset(rows)).observe(Copier(digits))
    assert [value is None for value in found.distance] == [False] * 8 + [True, True]


@pytest.fixture(scope="module")
def finished(digits, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "whole"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)  # twelve steps are too few
        return train(recipe(validation_fraction=0.2), data=digits, output=output, device="cpu", progress=False)


@pytest.mark.filterwarnings("ignore::genaug.errors.TrainingWarning")
@pytest.mark.parametrize("step", [5, 8, 11])
def test_resumed_runs_keep_the_same_best(digits, finished, tmp_path, step) -> None:
    class Stop(Exception):
        pass

    def stop(done: int) -> None:
        if done == step:
            raise Stop

    options = {"data": digits, "output": tmp_path / "run", "device": "cpu", "progress": False}
    with pytest.raises(Stop):
        train(recipe(validation_fraction=0.2), **options, on_step=stop)
    result = train(recipe(validation_fraction=0.2), **options, resume=True)
    assert result.scores == finished.scores
    one, two = (load_file(run.path / "model.safetensors") for run in (result, finished))
    assert all(torch.equal(one[name], two[name]) for name in two)
    states = [load_file(list_states(run.output / "states")[-1] / "state.safetensors") for run in (result, finished)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


def test_the_best_look_is_kept_and_logged(finished) -> None:
    lines = [json.loads(line) for line in (finished.output / "metrics.jsonl").read_text().splitlines()]
    looks = {line["step"]: line for line in lines if "intra_class_distance" in line}
    assert list(looks) == [4, 8, 12]
    best = min(looks, key=lambda step: looks[step]["intra_class_distance"])
    assert finished.scores["best_step"] == best
    assert finished.scores["intra_class_distance"] == pytest.approx(looks[best]["intra_class_distance"], abs=1e-4)
    by_class = [looks[best][f"distance/{digit}"] for digit in range(10)]
    assert looks[best]["intra_class_distance"] == pytest.approx(sum(by_class) / 10)
    facts = read_facts(list_states(finished.output / "states")[-1])
    assert facts.best_step == best


def test_an_earlier_average_is_written_where_it_was_nearer(digits, finished, tmp_path) -> None:
    from genaug.training.engine import _build

    made = load_recipe(recipe())
    rows = torch.arange(len(digits))
    state = _build(made, digits, rows, CPU)
    looks = Looks(state, made, digits, rows, rows[:0], tmp_path, made.to_dict())
    looks.prepare(progress=False)
    earlier = {name: tensor.clone() for name, tensor in finished.model.state_dict().items()}
    state.best = Best(step=3, distance=0.0, tensors=earlier)
    state.step = 12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)
        looks.finish()
    assert looks.state.averaged.scores["best_step"] == 3
    written = load_file(tmp_path / "model" / "model.safetensors")
    names = [name for name in written if name != "class_shares"]  # counted anew
    assert all(torch.equal(written[name], earlier[name]) for name in names)


def test_a_collapsed_result_is_reported_at_the_end(digits, tmp_path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(recipe(learning_rate=0.0), data=digits, output=tmp_path / "run", device="cpu", progress=False)
    messages = [str(warning.message) for warning in caught if warning.category is TrainingWarning]
    assert [message.split(" samples of ")[0] for message in messages] == [
        "step 8:",  # at the second look
        "of the model that is kept (step 4)",
    ]


def test_a_discriminator_that_has_won_is_reported_at_the_end(digits, tmp_path) -> None:
    made = recipe(steps=100, sample_every=1000, learning_rate=1e-5, log_every=10)
    made["model"] = {**made["model"], "spectral_norm": False, "augment": [], "discriminator_rate": 1000}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = train(made, data=digits, output=tmp_path / "run", device="cpu", progress=False)
    assert result.metrics["told_apart"] > 0.99
    assert any("at the end the discriminator tells 100.0%" in str(warning.message) for warning in caught)


def test_a_batch_that_cannot_be_grouped_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"batch_size must be a multiple of model.minibatch_std \(8\).*got 18"):
        load_recipe(recipe(batch_size=18))


def test_scores_tell_of_classes_compared_with_training_images(digits: LabeledImages, tmp_path) -> None:
    """Of 120 held-out digits each class has about 12, which is too few; of 200 each has 16 or more."""
    for fraction, few in ((0.3, 10), (0.5, None)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TrainingWarning)  # of samples that hardly vary, after so few steps
            run = train(
                recipe(validation_fraction=fraction), data=digits, output=tmp_path / str(fraction), progress=False
            )
        assert run.model.scores.get("classes_with_training_images") == few
        assert {"intra_class_distance", "held_out_images"} <= run.model.scores.keys()
