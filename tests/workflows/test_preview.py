"""Pictures of what the transforms do."""

import numpy as np
import pytest
import torch
from PIL import Image

from genaug.data import load_data
from genaug.errors import GenaugError
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
