import pytest
import torch
from torchvision.transforms.v2 import functional

from genaug.models.diffaugment import DRAWS, augment

MIDDLE = torch.full((1, DRAWS), 0.5)


def images(channels: int = 3, count: int = 6) -> torch.Tensor:
    return 2 * torch.rand(count, channels, 16, 12, generator=torch.Generator().manual_seed(0)) - 1


def draws(count: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(seed))


def test_no_policy_changes_nothing() -> None:
    assert augment(images(), draws(), policies=()) is not None
    assert torch.equal(augment(images(), draws(), policies=()), images())


def test_the_middle_of_all_draws_leaves_color_and_place() -> None:
    x = images(count=1)
    assert torch.allclose(augment(x, MIDDLE, policies=("color", "translation")), x, atol=1e-6)


def test_brightness_moves_the_mean() -> None:
    d = MIDDLE.repeat(6, 1)
    d[:, 0] = torch.linspace(0, 0.999, 6)
    shifted = augment(images(), d, policies=("color",))
    assert torch.allclose(shifted - images(), (d[:, 0] - 0.5).reshape(-1, 1, 1, 1).expand(6, 3, 16, 12), atol=1e-6)


def test_saturation_and_contrast_against_torchvision() -> None:
    x = (images(count=1) + 1) / 2 * 0.2 + 0.4  # far from the limits, at which torchvision clamps
    d = MIDDLE.clone()
    d[:, 2] = 0.75  # factor 1.25
    expected = 1.25 * x + (1 - 1.25) * x.mean()
    assert torch.allclose(augment(x, d, policies=("color",)), expected, atol=1e-6)
    gray = x.mean(1, keepdim=True).expand_as(x)
    d = MIDDLE.clone()
    d[:, 1] = 0.0  # no saturation at all
    assert torch.allclose(augment(x, d, policies=("color",)), gray, atol=1e-6)
    assert torch.allclose(functional.adjust_contrast(gray, 1.0), gray)


@pytest.mark.parametrize(("row", "column"), [(0.0, 0.0), (0.999, 0.0), (0.3, 0.8)])
def test_translation_is_a_shift_with_zeros(row: float, column: float) -> None:
    x = images(count=1)
    d = MIDDLE.clone()
    d[:, 3], d[:, 4] = row, column
    down, right = int(row * 5) - 2, int(column * 5) - 2  # up to an eighth of 16, and of 12 (1.5, so 2)
    expected = functional.affine(x, angle=0.0, translate=[right, down], scale=1.0, shear=[0.0], fill=[0.0] * 3)
    assert torch.allclose(augment(x, d, policies=("translation",)), expected, atol=1e-6)


def test_cutout_clears_half_of_each_side() -> None:
    x = torch.ones(1, 1, 16, 12)
    cleared = augment(x, MIDDLE, policies=("cutout",)) == 0
    assert int(cleared.sum()) == 8 * 6
    assert cleared[0, 0, 4:12, 3:9].all()
    corner = augment(x, torch.zeros(1, DRAWS), policies=("cutout",)) == 0
    assert int(corner.sum()) == 4 * 3  # the rest lies outside


def test_each_image_has_its_own_draws() -> None:
    x, policies = images(), ("color", "translation", "cutout")
    together = augment(x, draws(), policies=policies)
    alone = torch.cat([augment(x[i : i + 1], draws()[i : i + 1], policies=policies) for i in range(6)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_gradients_pass() -> None:
    x = images().requires_grad_()
    augment(x, draws(), policies=("color", "translation", "cutout")).square().sum().backward()
    assert x.grad.isfinite().all()
    assert (x.grad != 0).any(dim=(1, 2, 3)).all()


@pytest.mark.parametrize("side", [4, 7, 12])
def test_holes_lie_as_often_at_one_end_as_at_the_other(side: int) -> None:
    count = 5000
    d = torch.full((count, DRAWS), 0.5)
    d[:, 5] = (torch.arange(count) + 0.5) / count
    kept = augment(torch.ones(count, 1, side, side), d, policies=("cutout",))[:, 0, :, side // 2].mean(0)
    torch.testing.assert_close(kept, kept.flip(0), atol=1e-3, rtol=0)
    assert 0.3 < float(kept.mean()) < 0.8


def test_a_single_pixel_is_not_cut_out() -> None:
    assert torch.equal(augment(torch.ones(3, 1, 1, 1), draws(3), policies=("cutout",)), torch.ones(3, 1, 1, 1))
