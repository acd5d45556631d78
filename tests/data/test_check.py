"""The check before training finds what is planted, and is silent about clean data."""

import pytest
import torch

from genaug.data import LabeledImages, load_data
from genaug.data.check import check_data
from genaug.errors import DataError, DataWarning
from genaug.spec import DataSpec
from genaug.training import load_recipe, train
from genaug.training.estimate import estimate_seconds
from genaug.workflows.check import print_check


def plant(images: torch.Tensor, labels: list[int], names: tuple[str, ...] = ("a", "b", "c")) -> LabeledImages:
    spec = DataSpec(*images.shape[1:], class_names=names)
    return LabeledImages(images, torch.tensor(labels, dtype=torch.int64), spec)


def noise(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_clean_data():
    check = check_data(load_data("digits"))
    assert check.warnings == ()
    assert check.counts == dict(zip("0123456789", load_data("digits").counts, strict=True))
    assert (check.size, check.value_range) == ("1x8x8", (0, 255))


def test_duplicates_within_and_across_classes():
    images = noise(8)
    images[3] = images[2]  # both in class a
    images[5] = images[0]  # in b and in a
    check = check_data(plant(images, [0, 0, 0, 0, 1, 1, 2, 2]))
    assert (check.repeated, check.conflicting) == (2, 2)
    text = "\n".join(check.warnings)
    assert "2 images with the same pixels stand under several classes, such as ['a', 'b']: decide" in text
    assert "2 images repeat another one: remove" in text


def test_scarce_empty_and_blank():
    images = noise(4)
    images[0] = 7
    check = check_data(plant(images, [0, 0, 0, 1]))
    assert check.constant == 1
    assert [warning.split(":")[0] for warning in check.warnings] == [
        "no images of ['c']",
        "one image only of ['b']",
        "1 images have one value only",
    ]


def test_images_that_were_scaled_twice():
    assert any("scaled twice" in warning for warning in check_data(plant(noise(6) // 128, [0, 0, 1, 1, 2, 2])).warnings)


def test_names_that_look_like_markup_are_printed_as_they_are(capsys):
    print_check(check_data(plant(noise(6), [0, 0, 1, 1, 2, 2], names=("[red]cat", "x[/b]", "c"))))
    shown = capsys.readouterr().err
    assert "[red]cat" in shown
    assert "x[/b]" in shown


def test_images_that_are_all_the_same():
    with pytest.raises(DataError, match=r"data must hold different images, got 6 times the same"):
        check_data(plant(noise(1).repeat(6, 1, 1, 1), [0, 0, 1, 1, 2, 2]))


def test_no_images():
    with pytest.raises(DataError, match="at least one image"):
        check_data(plant(noise(0), []))


def test_training_warns_first(tmp_path):
    data = plant(noise(5), [0, 0, 1, 1, 2])
    recipe = {"family": "vae", "model": {"width": 8}, "training": {"steps": 1, "batch_size": 4}}
    with pytest.warns(DataWarning, match="one image only of"):
        train(recipe, data=data, output=tmp_path / "run", progress=False)


def test_estimate_grows_with_the_steps():
    digits = load_data("digits")
    short, long = (
        estimate_seconds(load_recipe("demo-vae", overrides=["model.width=8", f"training.steps={steps}"]), digits)
        for steps in (100, 100_000)
    )
    assert long > 50 * short > 0
