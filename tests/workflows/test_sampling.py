"""`genaug sample` with data: which images filters see, what is written and printed, and the audit."""

import inspect
import json
import re
import warnings
from pathlib import Path
from typing import Any, get_args

import PIL.Image
import pytest
import torch
from torchvision.datasets import ImageFolder
from typer.testing import CliRunner

import genaug
from genaug import DataError, GenaugError, SampleBank
from genaug.bank.selection import MAX_DRAWS, Short, Tally
from genaug.cli import app, sample
from genaug.cli.sample import sample_command
from genaug.cli.train import train_command
from genaug.data import LabeledImages, load_data, stratified_split
from genaug.errors import DataWarning
from genaug.features import STEPS, fit_features
from genaug.filters import ClassifierAgreement, NotACopy, PrototypeBand, choice
from genaug.filters.choice import FILTERS
from genaug.models import GAN, GANConfig
from genaug.seeding import derive_seed
from genaug.training import Recipe, TrainingConfig
from genaug.workflows import sampling
from genaug.workflows.sampling import print_tallies, run_sampling

WARNING = r"the samples were not audited for copies: there are no held-out images to compare with: .*has no parts"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GAN whose recipe held out a tenth of its data; only the discriminator learned something, from all of them."""
    data, generator = load_data("digits"), torch.Generator().manual_seed(0)
    config = GANConfig(width=4, discriminator_width=4, latent_dim=4, style_dim=8, minibatch_std=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GAN(data.spec, config)
    optimizer = torch.optim.Adam(model.discriminator.parameters(), lr=3e-3)
    for _ in range(20):
        rows = torch.randint(len(data), (32,), generator=generator)
        draws = model.draw_for_training(32, generator=generator)
        losses, _ = model.training_loss(data.images[rows], data.labels[rows], draws)
        optimizer.zero_grad()
        losses["discriminator"].backward()
        optimizer.step()
    recipe = Recipe("gan", config, TrainingConfig(steps=20, validation_fraction=0.1), seed=5)
    model.recipe = recipe.to_dict()
    path = tmp_path_factory.mktemp("sampling") / "model"
    model.save(path)
    return path


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, LabeledImages]:
    """The images that classifiers were trained on and that the audit compared with."""
    found: dict[str, LabeledImages] = {}
    fit, audit = choice.fit_features, sampling.audit_copies

    def fit_and_tell(train: LabeledImages, **options: Any) -> Any:
        found["filters"] = train
        return fit(train, **options)

    def audit_and_tell(source: Any, *, train: LabeledImages, test: LabeledImages, **options: Any) -> Any:
        found.update(train=train, test=test)
        return audit(source, train=train, test=test, **options)

    monkeypatch.setattr(choice, "fit_features", fit_and_tell)
    monkeypatch.setattr(sampling, "audit_copies", audit_and_tell)
    return found


def run(model: Any = "digits-vae", **options: Any) -> list[Tally]:
    given: dict[str, Any] = {"output": "out", "per_class": 10, "classifier_steps": 12, "device": "cpu"}
    return run_sampling(str(model), **{**given, "progress": False, **options})


def same(data: LabeledImages, other: LabeledImages) -> bool:
    return torch.equal(data.images, other.images) and torch.equal(data.labels, other.labels)


def folder_of_digits(folder: Path, data: LabeledImages) -> None:
    for number, (image, label) in enumerate(data):
        place = folder / data.classes[label]
        place.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image[0].numpy()).save(place / f"{number}.png")


# --- what filters see, and what is written


def test_the_samples_are_those_of_a_bank_with_the_filters(capsys: pytest.CaptureFixture[str]) -> None:
    options = {"classes": ("7", "2"), "format": "bank", "classifier_steps": 40}
    tallies = run(data="digits", filters=FILTERS[:3], audit=False, seed=3, **options)
    train, _ = stratified_split(load_data("digits").labels, fraction=0.1, seed=0)
    data = load_data("digits").subset(train)
    features = fit_features(data, seed=derive_seed(3, "filters"), steps=40, device="cpu")
    filters = [ClassifierAgreement(features), PrototypeBand(features, data), NotACopy(features, data)]
    model = genaug.load("digits-vae", device="cpu")
    bank = SampleBank.generate(model, {"2": 10, "7": 10}, seed=3, filters=filters, progress=False)
    written = SampleBank.open("out")
    assert torch.equal(written.images(range(20)), bank.images(range(20)))
    assert written.provenance.acceptance == bank.provenance.acceptance
    assert written.provenance.filter_acceptance == bank.provenance.filter_acceptance
    assert [tally.found for tally in tallies] == bank.counts
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["class", "wanted", "found", "drawn", "accepted", *FILTERS[:3]] in lines
    for index in (2, 7):
        rates = [bank.provenance.acceptance[index], *(one.rates[index] for one in bank.provenance.filter_acceptance)]
        shares = [word for rate in rates for word in (f"{100 * (rate or 0):.1f}", "%")]
        assert [str(index), "10", "10", str(tallies[index].drawn), *shares] in lines
    assert not [line for line in lines if line[:1] == ["3"]]  # none of it was wanted
    assert ["20", "samples:", "out"] in lines


def test_real_images_are_chosen_as_in_training(gan: Path, seen: dict[str, LabeledImages]) -> None:
    """By the seed of the recipe, which also says what was held out."""
    run(gan, data="digits", filters=["copies"], limit_per_class=40)
    chosen = load_data("digits", limit_per_class=40, seed=5)
    kept, _ = stratified_split(chosen.labels, fraction=0.1, seed=5)
    assert same(seen["filters"], chosen.subset(kept))
    assert same(seen["train"], seen["filters"])
    assert same(seen["test"], load_data("digits", split="test"))


def test_images_held_out_by_the_recipe_take_the_place_of_a_test_part(
    gan: Path, here: Path, seen: dict[str, LabeledImages]
) -> None:
    folder_of_digits(here / "photos", load_data("digits", limit_per_class=20))
    run(gan, data="photos", reading={"grayscale": True})
    images = load_data("photos", grayscale=True)
    kept, held_out = stratified_split(images.labels, fraction=0.1, seed=5)
    assert same(seen["train"], images.subset(kept))
    assert same(seen["test"], images.subset(held_out))


def test_the_discriminator_of_the_model_judges_its_samples(gan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tallies = run(gan, data="digits", filters=["discriminator"], format="bank", audit=False)
    rates = [tally.acceptance for tally in tallies]
    assert all(rate is not None and 0 < rate < 0.9 for rate in rates)  # about a fifth at the 80th percentile
    assert [one.name for one in SampleBank.open("out").provenance.filter_acceptance] == ["DiscriminatorRejection"]
    assert "discriminator" in capsys.readouterr().out


def test_fewer_samples_are_shown_and_warned_of(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments: dict[str, Any] = {"data": "digits", "filters": ["agreement", "band"], "max_draws": 2, "audit": False}
    options = {**arguments, "classifier_steps": 3, "per_class": 8}
    with pytest.raises(DataError, match=r"filters accept too few .* accepted by each: ClassifierAgreement \d"):
        run(**options)
    assert list(here.iterdir()) == []
    with pytest.warns(
        DataWarning, match=r"fewer samples than wanted .* drawn; accepted by agreement .*, band "
    ) as told:
        tallies = run(**options, short="fewer")
    assert [warning.filename for warning in told] == [__file__]
    assert min(tally.found for tally in tallies) < 8
    assert sum(tally.found for tally in tallies) == len(ImageFolder("out"))
    shown = capsys.readouterr().out
    for index, tally in enumerate(tallies):
        assert re.search(rf"^ *{index} +8 +{tally.found} +{tally.drawn} ", shown, re.MULTILINE)


def test_a_table_of_many_classes_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_tallies([f"[c{index}]" for index in range(50)], ["band"], [Tally(2, 2, 8, 4, (6,))] * 50)
    shown = capsys.readouterr().out
    assert re.search(r"\[c39\] +2 +2 +8 +50.0 % +75.0 %", shown)
    assert "[c40]" not in shown
    assert "... 10 more" in shown


# --- the audit


def test_samples_are_audited_where_there_are_data(capsys: pytest.CaptureFixture[str], seen: Any) -> None:
    run(data="digits", format="bank", seed=2)
    values = json.loads(Path("out/memorization.json").read_text())
    bank = SampleBank.open("out")
    assert (values["model"], values["data"], values["seed"]) == ("digits-vae", "digits", 2)
    assert values["images_sha256"] == bank.provenance.images_sha256
    audit = genaug.evaluate.audit_copies(
        bank, train=seen["train"], test=seen["test"], seed=2, classifier_steps=12, device="cpu"
    )
    assert {name: values[name] for name in audit.to_dict()} == json.loads(json.dumps(audit.to_dict()))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["100 samples: out", *audit.sentences(), "Audit: out/memorization.json"]
    assert "filters" not in seen  # none were asked for


def test_copies_are_found(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that hands out its training images: those filters reject, and without them the audit sees them."""
    train = load_data("digits")

    class Copier:
        spec, family, recipe = train.spec, "copier", None

        def sample(self, labels: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
            rows = [torch.nonzero(train.labels == label).flatten() for label in labels]
            return torch.stack([train.images[own[torch.randint(len(own), (), generator=generator)]] for own in rows])

    monkeypatch.setattr(sampling, "load", lambda name, device: Copier())
    run(data="digits", per_class=30)
    values = json.loads((here / "out/memorization.json").read_text())
    assert values["all"]["duplicates"] == 300
    assert set(values["verdicts"]["classes"].values()) == {"more"}
    with pytest.raises(DataError, match=r"filters accept too few .* accepted by each: NotACopy 0.0%"):
        run(data="digits", output="none", per_class=2, filters=["copies"])


def test_no_audit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["100 samples: out", "Not audited for copies of training images, which --data gives."]
    run(data="no/such/data", audit=False, overwrite=True)  # which is not read
    assert capsys.readouterr().out == "100 samples: out\n"
    assert not (here / "out/memorization.json").exists()


def test_an_audit_that_fails_leaves_the_samples(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of_digits(here / "photos", load_data("digits", limit_per_class=5))
    model = genaug.load("digits-vae", device="cpu")
    model.recipe = None  # which held images out
    model.save(here / "model")
    with pytest.warns(DataWarning, match=WARNING) as told:
        run("./model", data="photos", reading={"grayscale": True})
    assert [warning.filename for warning in told] == [__file__]
    assert len(ImageFolder("out")) == 100
    assert not (here / "out/memorization.json").exists()
    assert capsys.readouterr().out == "100 samples: out\n"


def test_a_test_part_without_classes_leaves_the_samples(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of_digits(here / "photos/train", load_data("digits", limit_per_class=8))
    (here / "photos/test").mkdir()
    for number, path in enumerate(sorted((here / "photos/train/3").iterdir())):
        path.rename(here / f"photos/test/{number}.png")
    folder_of_digits(here / "photos/train", load_data("digits", limit_per_class=8))
    with pytest.warns(DataWarning, match="compared with what the recipe held out: the part test cannot be read"):
        run("digits-vae", data="photos", reading={"grayscale": True})
    assert len(ImageFolder("out", is_valid_file=lambda path: path.endswith("png"))) == 100
    assert (here / "out/memorization.json").exists()


def test_an_audit_goes_with_the_samples_it_was_of(here: Path) -> None:
    run(data="digits", output="a.parquet", format="parquet")
    assert json.loads((here / "a.memorization.json").read_text())["images"]["samples"] == 100
    (here / "a.parquet").unlink()
    with pytest.raises(GenaugError, match=r"a.memorization.json: exists already"):
        run(output="a.parquet", format="parquet")
    run(output="a.parquet", format="parquet", overwrite=True)
    assert [path.name for path in here.iterdir()] == ["a.parquet"]


# --- what is refused before anything is drawn


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": ["band", "copies"]}, r"filters \(band, copies\) need the images .* pass --data"),
        ({"filters": ["bnad"], "data": "digits"}, r"filters must be of agreement, band, .*, got \['bnad'\]"),
        ({"filters": ["discriminator"], "data": "digits"}, "discriminate: vae cannot do this"),
        ({"data": "photos"}, "images of data must have 1 channels, got 3"),
        ({"data": "digits", "reading": {"resize": (9, 8)}}, "images of data must be of size 1x8x8, got 1x9x8; resize"),
        ({"data": "photos", "reading": {"grayscale": True}}, r"classes of the model .*, got \('cat', 'dog'\)"),
        ({"classes": ["seven"], "data": "digits", "filters": ["band"]}, "unknown classes"),
        ({"format": "zip"}, "format must be one of"),
        ({"short": "less"}, "short must be 'error' or 'fewer'"),
        ({"max_draws": 0}, "max_draws must be an integer of at least 1"),
        ({"data": "nothing"}, "data must be a folder or a known name"),
        ({"data": "digits", "filters": ["band"], "limit_per_class": 0}, "limit_per_class"),
    ],
)
def test_what_cannot_be_done(options: dict[str, Any], message: str, here: Path, monkeypatch: Any) -> None:
    for name in ("cat", "dog"):
        (here / "photos" / name).mkdir(parents=True)
        PIL.Image.new("RGB", (8, 8), "red" if name == "cat" else "blue").save(here / f"photos/{name}/1.png")
    monkeypatch.setattr(choice, "fit_features", lambda *_, **__: pytest.fail("it should not come to that"))
    with pytest.raises(GenaugError, match=message):
        run(**options)
    assert not (here / "out").exists()


def test_a_discriminator_needs_images_that_it_has_not_seen(gan: Path, here: Path) -> None:
    model = genaug.load(gan, device="cpu")
    assert model.recipe is not None
    model.recipe["training"]["validation_fraction"] = 0.0
    model.save(here / "model")
    with pytest.raises(DataError, match="its recipe held none out; train with --set training.validation_fraction=0.1"):
        run("./model", data="digits", filters=["discriminator"])


def test_a_band_needs_images_of_every_class(here: Path) -> None:
    data = load_data("digits")
    folder_of_digits(here / "photos/train", data.subset((data.labels < 9).nonzero().flatten()))
    folder_of_digits(here / "photos/test", data.subset((data.labels == 9).nonzero().flatten()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=r"images of every class that is judged, got none of \['9'\]"):
            run(data="photos", filters=["band"], reading={"grayscale": True})


# --- the command


def test_the_command_has_the_data_options_of_training() -> None:
    ours, training = (inspect.signature(command).parameters for command in (sample_command, train_command))
    names = set(inspect.signature(load_data).parameters) - {"data", "seed", "pairs"}
    assert names <= set(ours) & set(training)
    for name in names:
        assert (ours[name].annotation, ours[name].default) == (training[name].annotation, training[name].default)


def test_the_command_knows_what_the_workflow_does() -> None:
    assert tuple(one.value for one in sample.Filter) == FILTERS
    defaults = inspect.signature(sample_command).parameters
    assert get_args(get_args(defaults["short"].annotation)[0]) == Short.__args__  # type: ignore[attr-defined]
    assert (defaults["max_draws"].default, defaults["classifier_steps"].default) == (MAX_DRAWS, STEPS)


def test_the_command_hands_all_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(sampling, "run_sampling", lambda model, **options: given.update(options, model=model))
    words = (
        "digits-vae --data digits --filter band --filter copies --short fewer --max-draws 7 --no-audit --split all "
        "--resize 8x9 --grayscale --limit-per-class 30 --longtail 3 --classifier-steps 20 --class 3 --class 5 "
        "--per-class 4 --format bank --output there --seed 6 --device cpu --overwrite --quiet --skip-bad "
        "--image-column a --label-column b --root c --download --memory-limit 3"
    )
    result = CliRunner().invoke(app, ["sample", *words.split()])
    assert result.exit_code == 0, result.output
    assert given == {
        "model": "digits-vae", "data": "digits", "filters": ["band", "copies"], "short": "fewer", "max_draws": 7,
        "audit": False, "split": "all", "limit_per_class": 30, "longtail": 3.0, "classifier_steps": 20,
        "classes": ["3", "5"], "per_class": 4, "format": "bank", "output": Path("there"), "seed": 6, "device": "cpu",
        "overwrite": True, "progress": False,
        "reading": {
            "image_column": "a", "label_column": "b", "root": Path("c"), "download": True, "resize": (8, 9),
            "patches": None, "grayscale": True, "skip_bad": True, "memory_limit": 3.0,
        },
    }  # fmt: skip


def test_the_command_ends_in_one_line_and_prints_warnings(here: Path) -> None:
    def call(*words: Any) -> Any:
        return CliRunner().invoke(app, ["sample", "digits-vae", "--device", "cpu", "--quiet", *map(str, words)])

    result = call("--filter", "band")
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"error: filters \(band\) need [^\n]+\n", result.stderr)
    few = ["--data", "digits", "--filter", "agreement", "--short", "fewer", "--max-draws", 2, "--no-audit"]
    result = call(*few, "--classifier-steps", 3, "--per-class", 8)
    assert result.exit_code == 0
    assert re.fullmatch(r"warning: the bank has fewer samples than wanted [^\n]+\n", result.stderr)
    assert (here / "samples").is_dir()
    assert call("--filter", "all", "--data", "digits").exit_code == 2
