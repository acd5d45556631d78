"""Pictures of what the transforms do."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from genaug import DataSpec
from genaug.data import LabeledImages, load_data
from genaug.errors import GenaugError
from genaug.evaluate.plots import plot_columns
from genaug.workflows.preview import _draw_jitter, preview_transforms
from genaug.zoo import load


def test_a_picture_for_each_transform(tmp_path, capsys):
    written = preview_transforms("digits-vae", data="digits", output=tmp_path / "out", device="cpu")
    assert [path.name for path in written] == ["LatentJitter.png", "LatentMix.png", "ReplaceWithSynthetic.png"]
    shown = capsys.readouterr().out
    for path in written:
        assert str(path) in shown
        pixels = np.asarray(Image.open(path).convert("L"))
        assert min(pixels.shape) > 200
        assert len(np.unique(pixels)) > 50
    with pytest.raises(GenaugError, match="exists"):
        preview_transforms("digits-vae", data="digits", output=tmp_path / "out", device="cpu")
    again = preview_transforms("digits-vae", data="digits", output=tmp_path / "out", device="cpu", overwrite=True)
    assert again == written


def test_variations_are_shown_with_and_without_their_residual():
    digits = load_data("digits", split="test")
    columns, rows = _draw_jitter(load("digits-vae"), digits, seed=0)
    assert list(columns) == ["input", "0", "0.25", "0.5", "1", "0.5 + residual", "1 + residual"]
    images, moved, still = (columns[name] / 255 for name in ("input", "1", "0"))
    expected = (images + moved - still).clamp(0, 1)
    torch.testing.assert_close(columns["1 + residual"] / 255, expected, atol=2 / 255, rtol=0)  # each of them is rounded
    assert torch.equal(columns["input"], digits.images[rows])


def test_the_same_seed_draws_the_same_pictures(tmp_path):
    pictures = [
        [
            path.read_bytes()
            for path in preview_transforms("digits-vae", data="digits", output=tmp_path / name, seed=seed)
        ]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert pictures[0] == pictures[1]
    assert all(first != other for first, other in zip(pictures[0], pictures[2], strict=True))


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("fashion-mnist-vae", "digits", "must be of size 1x28x28"),
        ("no-such-model", "digits", "no such shipped model"),
        ("digits-vae", "no/such/folder", "no/such/folder"),
    ],
)
def test_what_does_not_fit(model, data, message, tmp_path):
    with pytest.raises(GenaugError, match=message):
        preview_transforms(model, data=data, output=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_classes_in_another_order_are_refused(tmp_path):
    digits = load_data("digits")
    turned = LabeledImages(digits.images, digits.labels, DataSpec(1, 8, 8, tuple(digits.classes[::-1])))
    with pytest.raises(GenaugError, match=r"data must have the classes of the model in the same order"):
        preview_transforms("digits-vae", data=turned, output=tmp_path / "out", device="cpu")


def test_a_damaged_test_part_is_told(tmp_path):
    digits = load_data("digits")
    for place in ("train", "test"):
        for label, name in enumerate(digits.classes):
            folder = tmp_path / "data" / place / name
            folder.mkdir(parents=True)
            for number, image in enumerate(digits.images[digits.labels == label][:6]):
                Image.fromarray(image[0].numpy()).save(folder / f"{number}.png")
    (tmp_path / "data/test/0/0.png").write_bytes(b"no image")
    options = {"data": tmp_path / "data", "output": tmp_path / "out", "device": "cpu"}
    with pytest.raises(GenaugError, match="cannot be read as an image"):
        preview_transforms("digits-vae", **options)
    shutil.rmtree(tmp_path / "data/test")
    assert preview_transforms("digits-vae", **options)  # of the training part, where there is no other


def test_class_names_are_no_formulas(tmp_path):
    columns = {"$a_{$": torch.zeros(2, 1, 8, 8, dtype=torch.uint8)}
    plot_columns(columns, tmp_path / "x.png", names=["$5_bill$", "$10_{x$"], title="$_{$")
    assert (tmp_path / "x.png").stat().st_size > 1000
