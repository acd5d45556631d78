"""`genaug evaluate utility` from end to end, with tiny budgets on digits."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from typer.testing import CliRunner

from genaug import DataError, DataSpec, GenaugError, RecipeError, SampleBank, balance
from genaug.cli import app
from genaug.data import LabeledImages, load_data
from genaug.evaluate import Arm, Budget, Comparison, Difference, compare_arms
from genaug.evaluate.makers import Noise, Replay, Smote
from genaug.evaluate.pieces import build_on, compose_arms, rival_pieces
from genaug.evaluate.plots import plot_arms
from genaug.evaluate.search import Choice
from genaug.storage import LOCK, hold
from genaug.training.recipe_files import list_recipes
from genaug.workflows import utility
from genaug.workflows.benchmarks import ARMS, Benchmark, load_benchmark
from genaug.workflows.classifiers import find_classifier
from genaug.workflows.model_pieces import model_pieces
from genaug.workflows.utility import load_train_and_test, run_utility
from genaug.workflows.utility_report import print_utility, sentences

CPU = torch.device("cpu")
VAE = {
    "family": "vae",
    "model": {"width": 4, "hidden": 8, "latent_dim": 3},
    "training": {"steps": 2, "batch_size": 16, "save_every": 100},
}
TINY = ["trials=1", "seeds=2", "budget.steps=2", "budget.batch_size=8"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "vae.yaml"
    path.write_text(json.dumps(VAE))
    return path


@pytest.fixture(scope="module")
def digits() -> tuple[LabeledImages, LabeledImages]:
    train, test = load_data("digits"), load_data("digits", split="test")
    scarce = torch.cat([torch.nonzero(train.labels == c).flatten()[: 30 if c < 7 else 8] for c in range(10)])
    return train.subset(scarce), test.subset(torch.arange(60))


def run(*changes: str, data: Any = "digits", output: Path, **options: Any) -> Comparison:
    benchmark = load_benchmark(None, overrides=[*TINY, *changes])
    return run_utility(benchmark, data=data, output=output, device="cpu", progress=False, **options)


def test_everything_is_written_and_said(recipe, digits, tmp_path, capsys) -> None:
    train, test = digits
    output = tmp_path / "out"
    arms = ["plain", "class-balanced", "class-balanced+replay", "class-balanced+genaug", "latent-smote"]
    result = run(f"arms={json.dumps(arms)}", f"generator={recipe}", "trials=2", data=train, test=test, output=output)
    names = {"rivals.json", "rivals.csv", "ours.json", "ours.csv", "results.json", "results.csv", "arms.png"}
    assert {path.name for path in output.iterdir()} == {*names, "generators"}
    assert json.loads((output / "results.json").read_text()) == result.to_dict()
    assert result.arms == arms
    assert result.settings["seeds"] == [0, 1]
    with (output / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 5
    with PIL.Image.open(output / "arms.png") as picture:
        assert min(picture.size) > 100
    rivals, ours = (json.loads((output / f"{name}.json").read_text()) for name in ("rivals", "ours"))
    assert {run["arm"] for run in rivals["runs"]} == {
        f"{name} #{number}" for name in ("plain", "class-balanced", "latent-smote") for number in (1, 2)
    }
    assert len(ours["runs"]) == 2 * 2  # the control and genaug, two trials each
    best = max(rivals["runs"], key=lambda run: run["balanced_accuracy"])
    assert best["arm"].split(" #")[0] == result.rival
    kept, held_out = train.split(0.25, seed=0)
    assert rivals["settings"]["train_sha256"] == ours["settings"]["train_sha256"] == train.subset(kept).fingerprint()
    assert rivals["settings"]["test_sha256"] == train.subset(held_out).fingerprint()
    # one generator for the search, and one for each seed: all arms that need one share it
    assert len(list((output / "generators").glob("*/model"))) == 3
    added = balance(train.counts)
    for run_of_arm in result.runs:
        extra = added if "+" in run_of_arm["arm"] else None
        if extra is not None and "target" not in result.settings["arms"][run_of_arm["arm"]]:
            assert run_of_arm["counts"] == [a + b for a, b in zip(train.counts, extra, strict=True)]
    printed = " ".join(capsys.readouterr().out.split())
    assert f"the rival, {result.rival}, was the best there without samples of ours" in printed
    assert "2 settings of every arm were tried on validation images" in printed
    assert "on 60 images (all)" in printed
    pieces = {**rival_pieces(train.spec), **_pieces(recipe, tmp_path)}
    assert sentences(result, pieces, favorite="class-balanced+genaug")[0] in printed


def test_nothing_is_cut_short_in_80_columns_and_in_the_plot(digits, tmp_path, capsys, monkeypatch) -> None:
    train, test = digits
    monkeypatch.setenv("COLUMNS", "80")
    names = ["class-balanced+both-flips", "class-balanced+both-flips+genaug-residual+every+replace"]
    result = compare_arms(
        {name: Arm() for name in names}, train=train, test=test, rival=names[0], seeds=2, budget=Budget(steps=1)
    )
    print_utility(result, Benchmark(rival=names[0], arms=tuple(names), trials=1, seeds=2), {}, part="all")
    lines = capsys.readouterr().out.splitlines()
    table = lines[: next(number for number, line in enumerate(lines) if line.startswith("In percent"))]
    assert max(map(len, table)) <= 80
    shown = "".join(line[1:18].replace(" ", "") for line in table)
    assert all(name in shown for name in names)
    assert "0.0 (" in "".join(table)  # the difference and its interval on one line
    plot_arms(result, tmp_path / "arms.png")
    with PIL.Image.open(tmp_path / "arms.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert all((edge == 255).all() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))


def _pieces(recipe: Path, folder: Path) -> dict[str, Any]:
    return model_pieces(Benchmark(generator=str(recipe)), bank=None, cache=folder / "cache")


def test_a_run_that_was_cut_off_goes_on(digits, tmp_path, monkeypatch) -> None:
    train, test = digits
    output = tmp_path / "out"
    arms = 'arms=["plain", "class-balanced", "noise"]'
    given = {"data": train, "test": test, "output": output}

    def stop(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(utility, "compare_arms", stop)
        with pytest.raises(KeyboardInterrupt):
            run(arms, **given)
    searched = (output / "rivals.json").read_text()
    with pytest.raises(GenaugError, match=r"out: exists already; go on from it \(--resume, resume=True\), choose"):
        run(arms, **given)
    result = run(arms, **given, resume=True)
    assert (output / "rivals.json").read_text() == searched
    again = run(arms, **given, resume=True)
    assert again == result
    (output / "mine.txt").write_text("precious")
    with pytest.raises(GenaugError, match=r"mine\.txt"):
        run(arms, **given, overwrite=True)
    (output / "mine.txt").unlink()
    for name in ("rivals", "results"):  # as a run leaves it that is killed
        (output / f"{name}.unfinished").mkdir()
        (output / f"{name}.unfinished/0123456789abcdef.safetensors").touch()
    run(arms, **given, overwrite=True)
    assert not list(output.glob("*.unfinished"))


def test_two_runs_into_one_folder(digits, tmp_path) -> None:
    train, test = digits
    given = {"data": train, "test": test, "output": tmp_path / "out"}
    result = run('arms=["plain", "noise"]', **given)
    before = {path.name: path.read_bytes() for path in given["output"].iterdir()}
    with hold(given["output"], given["output"] / LOCK):
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(GenaugError, match="out: another process writes to it"):
                run('arms=["plain", "noise"]', **given, **options)
    assert {path.name: path.read_bytes() for path in given["output"].iterdir()} == before
    again = run('arms=["plain", "noise"]', **given, overwrite=True)
    assert [run["correct"] for run in again.runs] == [run["correct"] for run in result.runs]


def test_a_named_rival_leaves_the_search_out(recipe, digits, tmp_path, capsys) -> None:
    train, test = digits
    output = tmp_path / "out"
    arms = [
        "class-balanced",
        "class-balanced+genaug+replace",
        "class-balanced+genaug+until",
        "genaug-residual+every",
    ]
    changes = f"arms={json.dumps(arms)}", f"generator={recipe}", "rival=class-balanced"
    result = run(*changes, data=train, test=test, output=output)
    assert result.rival == "class-balanced"
    assert not list(output.glob("rivals.*")) + list(output.glob("ours.*"))
    found = result.settings["arms"]
    fields = "replace", "until", "every"
    uses = [found[arm].get(field) for arm, field in zip(arms[1:], fields, strict=True)]
    assert uses == ["0.2", "0.7", "2.0"]
    assert "keep_residual=True" in found["genaug-residual+every"]["source"]
    printed = " ".join(capsys.readouterr().out.split())
    assert "Every arm has its default settings; the rival, class-balanced, was named." in printed
    assert run(*changes, data=train, test=test, output=output, resume=True) == result


def test_samples_on_top_of_the_rival_that_was_found(recipe, digits, tmp_path) -> None:
    train, test = digits
    arms = ["class-balanced", "mixup", "logit-adjusted", "rival+replay", "rival+genaug+replace"]
    changes = f"arms={json.dumps(arms)}", f"generator={recipe}", "trials=3"
    result = run(*changes, data=train, test=test, output=tmp_path / "out")
    found = result.settings["arms"]
    base = found[result.rival]
    assert base.items() <= {**found["rival+genaug+replace"], "learning_rate": base["learning_rate"]}.items()
    assert found["rival+genaug+replace"]["replace"] in ("0.2", "0.5", "0.1")
    searched = json.loads((tmp_path / "out" / "ours.json").read_text())["settings"]["arms"]
    assert {**base, **searched["rival+replay #1"]} == searched["rival+replay #1"]  # the first: with its learning rate
    assert len({text["learning_rate"] for name, text in searched.items() if name.startswith("rival+replay")}) > 1
    named = run(*changes[:2], "rival=mixup", data=train, test=test, output=tmp_path / "named").settings["arms"]
    assert named["mixup"].items() <= named["rival+replay"].items()


def test_what_a_named_rival_refuses_is_refused_before_anything_is_replaced(digits, tmp_path) -> None:
    train, test = digits
    given = {"data": train, "test": test, "output": tmp_path / "out"}
    run('arms=["plain"]', "rival=plain", **given)
    before = (tmp_path / "out" / "results.json").read_text()
    with pytest.raises(GenaugError, match="needs a rival that mixes nothing in"):
        run('arms=["plain", "smote", "rival+replay"]', "rival=smote", **given, overwrite=True)
    assert (tmp_path / "out" / "results.json").read_text() == before


def test_a_rival_with_samples_of_its_own_is_not_built_on(digits, tmp_path, monkeypatch) -> None:
    train, test = digits
    best = Choice({"smote": Arm(source=Smote()), "flips": Arm(balanced=True)}, {"smote": [0.9], "flips": [0.8]}, None)
    search = utility.choose_settings
    monkeypatch.setattr(
        utility, "choose_settings", lambda arms, **rest: best if "smote" in arms else search(arms, **rest)
    )
    result = run('arms=["flips", "smote", "rival+replay"]', data=train, test=test, output=tmp_path / "out")
    assert result.rival == "smote"
    assert result.settings["arms"]["rival+replay"]["source"].startswith("Replay")
    assert result.settings["arms"]["rival+replay"]["balanced"] == "True"


def test_a_changed_recipe_is_no_resumption(recipe, digits, tmp_path) -> None:
    train, test = digits
    changes = 'arms=["plain", "genaug"]', f"generator={recipe}", "rival=plain"
    given = {"data": train, "test": test, "output": tmp_path / "out"}
    run(*changes, **given)
    recipe.write_text(json.dumps({**VAE, "training": {**VAE["training"], "steps": 3}}))
    with pytest.raises(GenaugError, match="different: arm 'genaug'"):
        run(*changes, **given, resume=True)


def test_an_earlier_comparison_is_replaced_with_its_generators(recipe, digits, tmp_path) -> None:
    train, test = digits
    given = {"data": train, "test": test, "output": tmp_path / "out"}
    arms = 'arms=["plain", "genaug"]'
    run(arms, f"generator={recipe}", **given)
    before = {path.name for path in (tmp_path / "out" / "generators").iterdir()}
    run(arms, f"generator={recipe}", "seed=5", **given, overwrite=True)
    after = {path.name for path in (tmp_path / "out" / "generators").iterdir()}
    assert after
    assert not before & after


def test_parts_that_do_not_fit_are_refused_before_the_search(digits, tmp_path) -> None:
    train, _ = digits
    with pytest.raises(DataError, match="must not share images"):
        run('arms=["plain"]', data=train, test=train.subset(torch.arange(100)), output=tmp_path / "out")
    counts = f"class_counts={[3] * 10}"
    for name, changes, options in [
        ("test_fraction", [], {"test_fraction": 0.2}),
        ("drop_shared", [], {"drop_shared": True}),
        ("class_counts", [counts], {}),
    ]:
        with pytest.raises(GenaugError, match=f"would know the images that {name} leaves out"):
            run('arms=["plain"]', *changes, data=train, bank="bank", output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_bank_is_mixed_in(digits, tmp_path, capsys) -> None:
    train, test = digits
    bank = Noise()(train, [30] * 10, seed=0, device=CPU)
    bank.export(tmp_path / "bank", format="bank")
    result = run('arms=["plain"]', data=train, test=test, output=tmp_path / "out", bank=tmp_path / "bank")
    assert result.arms == ["plain", "rival+genaug", "rival+genaug+replace", "rival+replay"]
    assert result.rival == "plain"
    for source in (result.settings["arms"][name]["source"] for name in result.arms[1:3]):
        assert source == f"bank {SampleBank.open(tmp_path / 'bank').provenance.images_sha256}"
    assert "The bank may be made of validation images too" in capsys.readouterr().out


def test_a_bank_that_does_not_fit_is_refused_before_anything_is_replaced(digits, tmp_path) -> None:
    train, test = digits
    output, paths = tmp_path / "out", [tmp_path / name for name in ("copies", "known", "other")]
    Replay()(train, [30] * 10, seed=0, device=CPU).export(paths[0], format="bank")
    Replay()(test, [30] * 10, seed=0, device=CPU).export(paths[1], format="bank")
    letters = LabeledImages(train.images, train.labels, DataSpec(1, 8, 8, tuple("abcdefghij")))
    Noise()(letters, [30] * 10, seed=0, device=CPU).export(paths[2], format="bank")
    output.mkdir()
    (output / "results.json").write_text("the results of weeks")
    for path, message in zip(
        paths,
        (
            r"in the search .* named rival leaves out: arm 'rival\+genaug #1': source must hold no images",
            r"arm 'rival\+genaug #1': source must hold no images that arms are tested on",
            r"arm 'rival\+genaug #1': source must have the classes of real",
        ),
        strict=True,
    ):
        with pytest.raises(DataError, match=message):
            run('arms=["plain"]', data=train, test=test, output=output, bank=path, overwrite=True)
    assert (output / "results.json").read_text() == "the results of weeks"
    run('arms=["plain"]', "rival=plain", data=train, test=test, output=output, bank=paths[0], overwrite=True)


def test_a_class_that_cannot_be_split_is_named(digits, tmp_path) -> None:
    train = digits[0]
    one = train.subset(torch.cat([torch.nonzero(train.labels < 9).flatten(), torch.nonzero(train.labels == 9)[0]]))
    with pytest.raises(DataError, match=r"a test part of 0.2 needs more images of \['9'\]"):
        run('arms=["plain"]', "rival=plain", data=one, test_fraction=0.2, output=tmp_path / "out")


def test_parts(digits, capsys) -> None:
    train, test = digits
    options = {"split": None, "test_split": None, "reading": {}, "drop_shared": False}
    kept, held_out, name = load_train_and_test(Benchmark(), data=train, test=None, test_fraction=0.25, **options)
    assert (len(kept) + len(held_out), name) == (len(train), "0.25 of each class")
    assert held_out.counts == [round(count / 4) for count in train.counts]
    few = Benchmark(class_counts=(20, *[5] * 9))
    assert load_train_and_test(few, data=train, test=test, test_fraction=None, **options)[0].counts == [20, *[5] * 9]
    with pytest.raises(DataError, match=r"counts must be from 0 to the images of each class"):
        load_train_and_test(
            Benchmark(class_counts=(40, *[5] * 9)), data=train, test=test, test_fraction=None, **options
        )
    with pytest.raises(GenaugError, match="test_fraction holds out images of the training part, so leave test"):
        load_train_and_test(Benchmark(), data=train, test=test, test_fraction=0.2, **options)
    both = LabeledImages(
        torch.cat([train.images, test.images[:3]]), torch.cat([train.labels, test.labels[:3]]), train.spec
    )
    dropped, _, _ = load_train_and_test(
        Benchmark(), data=both, test=test, test_fraction=None, **{**options, "drop_shared": True}
    )
    assert torch.equal(dropped.images, train.images)
    assert "3 training images that are in the test part too were left out" in capsys.readouterr().out


def test_what_is_said_of_samples_claims_no_more_than_the_interval() -> None:
    gaps = {
        "genaug": Difference(0.02, 0.01, 0.03),
        "flips+genaug": Difference(-0.02, -0.03, -0.01),
        "class-balanced+genaug": Difference(0.01, -0.01, 0.03),
    }

    class Found(Comparison):
        def difference(self, arm: str, *, metric: str = "balanced_accuracy") -> Difference:
            return gaps[arm]

    runs = [{"arm": arm, "seed": 0} for arm in ("plain", *gaps)]
    pieces = {"genaug": model_pieces(Benchmark(), bank=None, cache=Path("."))["replay"]}
    pieces["genaug"] = type(pieces["genaug"])(pieces["genaug"].apply, synthetic=True)
    found = Found("plain", ("a",), [0], {}, runs)
    note = " (exploratory: one of 3 arms)."
    assert sentences(found, pieces) == [
        "genaug raises balanced accuracy over plain: +2.0 (+1.0 to +3.0) points" + note,
        "flips+genaug lowers balanced accuracy over plain: -2.0 (-3.0 to -1.0) points" + note,
        "class-balanced+genaug: no measurable difference to plain: +1.0 (-1.0 to +3.0) points" + note,
    ]
    single = Found("plain", ("a",), [0], {}, runs[:2])
    assert sentences(single, pieces) == ["genaug raises balanced accuracy over plain: +2.0 (+1.0 to +3.0) points."]
    first, *others = sentences(Found("plain", ("a",), [0], {}, runs), pieces, favorite="genaug")
    assert first == "genaug raises balanced accuracy over plain: +2.0 (+1.0 to +3.0) points."
    assert all("points (exploratory: on validation images genaug was better)." in line for line in others)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (['arms=["genaug"]'], GenaugError, "arm must be 'plain' or pieces .* got 'genaug'"),
        (['arms=["noise"]'], GenaugError, "arms must have at least one rival"),
        (["arms=[]"], RecipeError, "benchmark.arms: must be at least one"),
        (["seeds=1"], RecipeError, "benchmark.seeds: must be from 2 to 1000, got 1"),
        (
            ["classifier=resnet50"],
            GenaugError,
            "classifier must be one of small-cnn, small-cnn-16, resnet18, resnet32, or timm:NAME",
        ),
        (["generator=fashion-mnist-gan"], GenaugError, "training.start must be left out"),
        (["budget.momentum=3"], RecipeError, r"benchmark.budget.momentum: "),
        (["rival=mixup", "trials=1"], RecipeError, "benchmark.rival: must be one of the arms"),
        (["rival=plain", "trials=2"], RecipeError, "benchmark.trials: must be 1 where a rival is named"),
        (['arms=["plain", "until"]'], GenaugError, "until says how images are mixed in; what brings them in"),
        (['arms=["plain", "flips+rival"]'], GenaugError, "must be the first piece of an arm"),
        (['arms=["rival+crops"]'], GenaugError, "arms must have at least one rival"),
        (['arms=["rival+crops"]', "rival=rival+crops"], RecipeError, r"rival: must be one of the arms, \[\], got"),
        (['arms=["smote", "rival+replay"]'], GenaugError, "arm 'rival\\+replay' needs a rival that mixes nothing in"),
        (
            ['arms=["flips", "mixup", "rival+replay+cutmix"]'],
            GenaugError,
            r"arm 'rival\+replay\+cutmix' cannot be built on 'mixup': an arm mixes batches in one way",
        ),
        (['overrides=["seed=1"]'], RecipeError, "benchmark.overrides: must be left out without generator"),
        (['start_overrides=["seed=1"]'], RecipeError, "benchmark.start_overrides: must be left out without start"),
        (["trials=9"], GenaugError, "trials must be from 1 to 8"),
    ],
)
def test_what_is_refused_before_anything_is_trained(changes, error, message, tmp_path) -> None:
    with pytest.raises(error, match=message):
        run(*changes, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_benchmarks_by_name_and_file(tmp_path) -> None:
    assert load_benchmark(None) == Benchmark()
    assert load_benchmark(None).arms == ARMS
    path = tmp_path / "mine.yaml"
    path.write_text("arms: [plain, mixup]\nbudget: {steps: 7}\nclass_counts: [3, 2]\n")
    found = load_benchmark(path, overrides=["seeds=3"])
    assert (found.arms, found.budget.steps, found.class_counts, found.seeds) == (("plain", "mixup"), 7, (3, 2), 3)
    with pytest.raises(RecipeError, match="no such shipped recipe; there are: bench-"):
        load_benchmark("solar-vae")


@pytest.mark.filterwarnings("ignore:of the model that is kept")  # it learned nothing in three steps
def test_a_gan_starts_from_a_vae_with_overrides_of_its_own(recipe, digits, tmp_path) -> None:
    train, test = digits
    gan = tmp_path / "gan.yaml"
    gan.write_text(json.dumps({"family": "gan", "model": {"discriminator_width": 4}, "training": {"batch_size": 16}}))
    arms = ["plain", "genaug", "genaug-residual", "latent-smote"]
    names = [f"generator={gan}", f"start={recipe}", f"arms={json.dumps(arms)}", "rival=plain"]
    fields = ['overrides=["training.steps=3"]', 'start_overrides=["training.steps=4", "model.latent_dim=2"]']
    sources = run(*names, *fields, data=train, test=test, output=tmp_path / "out").settings["arms"]
    assert "family='gan'" in sources["genaug"]["source"]
    for arm in arms[2:]:  # by the VAE, since a GAN has no encoder
        assert "family='vae'" in sources[arm]["source"]
        assert "family='gan'" not in sources[arm]["source"]
    runs = [yaml.safe_load(path.read_text()) for path in (tmp_path / "out/generators").glob("*/recipe.yaml")]
    made = sorted((run["family"], run["training"]["steps"], run["seed"]) for run in runs)
    assert made == [("gan", 3, 0), ("gan", 3, 1), ("vae", 4, 0), ("vae", 4, 1)]
    assert {run["model"]["latent_dim"] for run in runs if run["family"] == "vae"} == {2}


@pytest.mark.parametrize("name", list_recipes(benchmarks=True))
def test_shipped_benchmarks_can_be_run(name, tmp_path) -> None:
    found = load_benchmark(name)
    spec = DataSpec(3, 32, 32, tuple("abcdefghij"))
    pieces = {**rival_pieces(spec), **model_pieces(found, bank=None, cache=tmp_path)}
    rivals = [arm for arm in found.arms if "rival" not in arm]
    for base in [Arm(), *(compose_arms(arm, pieces, trials=1, budget=found.budget)[0] for arm in rivals)]:
        if base.source is None:
            pieces["rival"] = build_on(base)
            arms = [compose_arms(arm, pieces, trials=found.trials, budget=found.budget) for arm in found.arms]
            assert {len(settings) for settings in arms} == {found.trials}
    assert find_classifier(found.classifier)


def test_classifiers_of_timm(digits) -> None:
    pytest.importorskip("timm")
    train, _ = digits
    with torch.random.fork_rng():
        net = find_classifier("timm:resnet10t")(train.spec).eval()
    assert net(train.images[:2]).shape == (2, 10)
    with pytest.raises(GenaugError, match="classifier timm:no-such cannot be made"):
        find_classifier("timm:no-such")(train.spec)


def test_the_command(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = [part for change in TINY for part in ("--set", change)]
    arms = ["--arm", "plain", "--arm", "class-balanced+flips", "--device", "cpu", "--quiet"]
    found = CliRunner().invoke(app, ["evaluate", "utility", "--data", "digits", *arms, *options])
    assert found.exit_code == 0, found.output
    assert "the rival, " in " ".join(found.output.split())
    assert (tmp_path / "genaug-utility" / "results.json").is_file()
    again = CliRunner().invoke(app, ["evaluate", "utility", "--data", "digits", *arms, *options])
    assert again.exit_code == 1
    assert "exists already" in again.output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classifier": "timm:resnet5"}, "classifier timm:resnet5 cannot be made"),
        ({"validation_fraction": 0.01}, "a validation part of 0.01 needs more images of"),
    ],
)
def test_nothing_is_replaced_before_mistakes_show(changes: dict, message: str, digits, tmp_path) -> None:
    (tmp_path / "results.json").write_text("the results of weeks")
    few = digits[0].subset(range(60))
    with pytest.raises(GenaugError, match=message):
        run_utility(
            Benchmark(arms=("plain", "class-balanced"), seeds=2, **changes),
            data=few,
            test_fraction=0.5,
            output=tmp_path,
            overwrite=True,
            progress=False,
        )
    assert (tmp_path / "results.json").read_text() == "the results of weeks"


def test_without_a_test_part_it_is_said_how_to_get_one(tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / "flat" / name).mkdir(parents=True)
        PIL.Image.new("L", (8, 8)).save(tmp_path / "flat" / name / "1.png")
    with pytest.raises(
        DataError, match=r"no test part was found .*hold out a share of each class with --test-fraction"
    ):
        run_utility(Benchmark(), data=tmp_path / "flat", output=tmp_path / "out")


def test_a_damaged_test_part_is_told_as_such(tmp_path) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            PIL.Image.new("L", (8, 8)).save(tmp_path / part / name / "1.png")
    (tmp_path / "test" / "a" / "1.png").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"test/a/1.png: cannot be read as an image") as caught:
        run_utility(Benchmark(), data=tmp_path, output=tmp_path / "out")
    assert "no test part" not in str(caught.value)
