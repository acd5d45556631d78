"""Images in tiles: the same as whole, in memory that a tile bounds."""

import pytest
import torch
from torch.nn.functional import avg_pool2d, conv2d, interpolate

from genaug.errors import GenaugError
from genaug.models.tiling import run_in_tiles

CPU = torch.device("cpu")


def blur(images: torch.Tensor) -> torch.Tensor:
    """A network of stride 4 that sees 6 pixels far: it pools by 4, blurs what it finds, and enlarges again."""
    height, width = images.shape[-2:]
    pooled = avg_pool2d(images, 4, ceil_mode=True, count_include_pad=False)
    blurred = conv2d(pooled, torch.ones(1, 1, 3, 3) / 9, padding=1)
    return images + interpolate(blurred, scale_factor=4)[..., :height, :width]


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (16, 16), (17, 33), (50, 21)])
@pytest.mark.parametrize("tile", [1, 7, 16, 100])
def test_tiles_give_what_the_whole_image_gives(size: tuple[int, int], tile: int) -> None:
    images = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
    tiled = run_in_tiles(blur, images, tile=tile, margin=7, stride=4, device=CPU)
    torch.testing.assert_close(tiled, blur(images))


def test_no_run_sees_more_than_a_tile_and_its_margins() -> None:
    seen = []

    def run(part: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(part.shape[-2:]))
        return part

    images = torch.rand(1, 1, 40, 64)
    assert torch.equal(run_in_tiles(run, images, tile=16, margin=5, stride=4, device=CPU), images)
    assert len(seen) == 3 * 4
    assert max(height for height, _ in seen) == max(width for _, width in seen) == 16 + 2 * 8


def test_a_margin_that_is_too_small_shows() -> None:
    images = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    tiled = run_in_tiles(blur, images, tile=16, margin=0, stride=4, device=CPU)
    assert not torch.allclose(tiled, blur(images), atol=1e-3)


@pytest.mark.parametrize("tile", [0, -1, 2.5, True, "big"])
def test_a_tile_has_a_side(tile: object) -> None:
    with pytest.raises(GenaugError, match="tile must be an integer of at least 1"):
        run_in_tiles(blur, torch.rand(1, 1, 8, 8), tile=tile, margin=1, stride=1, device=CPU)  # type: ignore[arg-type]


pytestmark = pytest.mark.global_rng  # images where their values do not count
