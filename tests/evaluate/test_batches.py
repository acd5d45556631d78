"""Batches of an arm: which real and synthetic images they hold, and the class counts that losses are told."""

import numpy as np
import pytest
import torch
from scipy import stats

from genaug import SampleBank
from genaug.data import LabeledImages
from genaug.errors import DataWarning
from genaug.evaluate import Arm
from genaug.evaluate.batches import Batches
from genaug.evaluate.makers import Noise
from genaug.spec import DataSpec

SPEC = DataSpec(1, 4, 4, ("a", "b", "c"))
COUNTS = [60, 30, 6]
CPU = torch.device("cpu")


def numbered(counts: list[int], first: int) -> LabeledImages:
    """Images that say which they are: row r of class c is filled with its number from `first` on."""
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    images = torch.arange(first, first + len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    return LabeledImages(images.contiguous(), labels, SPEC)


TRAIN = numbered(COUNTS, 0)  # 0 to 95


class Numbered:
    """A source whose images are filled with 200, 201, ... by class."""

    spec = SPEC

    def sample(self, labels: torch.Tensor, *, generator: torch.Generator | None = None) -> torch.Tensor:
        return ((200 + labels) / 255)[:, None, None, None].expand(-1, 1, 4, 4)


BANK = SampleBank.generate(Numbered(), [0, 30, 54], seed=0, progress=False)


def make(arm: Arm, *, steps: int = 40, batch_size: int = 50, seed: int = 0) -> Batches:
    return Batches(arm, TRAIN, steps=steps, batch_size=batch_size, seed=seed, device=CPU)


def draw_all(batches: Batches, steps: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    parts = [batches.draw(step) for step in range(steps)]
    images, labels = (torch.stack(part) for part in zip(*parts, strict=True))
    values = images[:, :, 0, 0, 0].long()
    synthetic = values >= 200
    assert torch.equal(synthetic, torch.stack([batches.rows(step) >= len(TRAIN) for step in range(steps)]))
    assert torch.equal(values[synthetic] - 200, labels[synthetic])  # a sample is of the class that it is said to be
    assert torch.equal(TRAIN.labels[values[~synthetic]], labels[~synthetic])
    return values, labels, synthetic


def is_drawn_by(labels: torch.Tensor, shares: torch.Tensor | list[float]) -> bool:
    found = torch.bincount(labels.flatten(), minlength=3).numpy()
    expected = np.asarray(shares, dtype=float) / np.sum(np.asarray(shares, dtype=float)) * found.sum()
    kept = expected > 0
    assert found[~kept].sum() == 0
    return bool(stats.chisquare(found[kept], expected[kept]).pvalue > 1e-3)


@pytest.mark.parametrize("balanced", [False, True])
def test_without_a_source_batches_are_real(balanced: bool) -> None:
    batches = make(Arm(balanced=balanced))
    _, labels, synthetic = draw_all(batches)
    assert not synthetic.any()
    assert is_drawn_by(labels, [1, 1, 1] if balanced else COUNTS)
    assert batches.counts(0).tolist() == pytest.approx([32, 32, 32] if balanced else COUNTS)


@pytest.mark.parametrize("balanced", [False, True])
def test_all_images_are_drawn_together(balanced: bool) -> None:
    batches = make(Arm(balanced=balanced, source=BANK, target=60, cap=9.0))
    assert batches.synthetic_counts.tolist() == [0, 30, 54]
    _, labels, synthetic = draw_all(batches)
    assert is_drawn_by(labels, [1, 1, 1])  # they were filled up
    assert is_drawn_by(labels[synthetic], [0, 30, 54])
    assert is_drawn_by(labels[~synthetic], COUNTS)


def test_replaced_images_keep_their_classes() -> None:
    plain, labels, _ = draw_all(make(Arm()))
    values, replaced_labels, synthetic = draw_all(make(Arm(source=BANK, target=60, cap=9.0, replace=0.3)))
    assert torch.equal(labels, replaced_labels)
    assert torch.equal(plain[~synthetic], values[~synthetic])
    assert not synthetic[labels == 0].any()  # there are none of this class
    there = int((labels > 0).sum())
    assert stats.binomtest(int(synthetic.sum()), there, 0.3).pvalue > 1e-3
    assert make(Arm(source=BANK, target=60, cap=9.0, replace=0.3)).counts(0).tolist() == COUNTS


@pytest.mark.parametrize("way", [{}, {"replace": 0.5}])
def test_after_a_share_of_the_training_batches_are_real(way: dict[str, float]) -> None:
    arm = Arm(source=BANK, target=60, cap=9.0, until=0.6, **way)
    batches = make(arm)
    _, _, synthetic = draw_all(batches)
    assert synthetic[:24].any(1).all()
    assert not synthetic[24:].any()
    assert batches.counts(24).tolist() == COUNTS
    real = draw_all(make(Arm()))[0]
    assert torch.equal(draw_all(batches)[0][24:], real[24:])  # those of the arm without


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("way", [{}, {"replace": 0.5}])
def test_counts_are_how_often_classes_are_drawn(balanced: bool, way: dict[str, float]) -> None:
    batches = make(Arm(balanced=balanced, source=BANK, target=60, cap=9.0, **way), steps=1, batch_size=40_000)
    found = torch.bincount(batches.labels[batches.rows(0)], minlength=3)
    counts = batches.counts(0)
    assert (found / found.sum()).tolist() == pytest.approx((counts / counts.sum()).tolist(), abs=0.01)


def test_batches_depend_on_seed_and_step_alone() -> None:
    arm = Arm(source=BANK, target=60, cap=9.0, replace=0.3)
    one, other = make(arm), make(arm)
    other.draw(7)
    assert all(torch.equal(a, b) for a, b in zip(one.draw(3), other.draw(3), strict=True))
    assert not torch.equal(one.draw(3)[0], one.draw(4)[0])
    assert not torch.equal(one.draw(3)[0], make(arm, seed=1).draw(3)[0])


def test_more_samples_than_are_wanted_take_turns() -> None:
    class Marked(Numbered):
        def sample(self, labels: torch.Tensor, *, generator: torch.Generator | None = None) -> torch.Tensor:
            return torch.rand(len(labels), 1, 4, 4, generator=generator)

    bank = SampleBank.generate(Marked(), [0, 0, 50], seed=0, progress=False)
    batches = make(Arm(source=bank, target=[0, 0, 16], cap=9.0))
    assert batches.synthetic_counts.tolist() == [0, 0, 10]
    made = [batches.draw(step)[0][batches.rows(step) >= len(TRAIN)] for step in range(40)]
    seen = {image.numpy().tobytes() for images in made for image in images}
    assert len(seen) > 30


def test_a_class_that_a_bank_has_no_samples_of_gets_none() -> None:
    with pytest.warns(DataWarning, match=r"source has no samples of \['a'\], so none are mixed in"):
        batches = make(Arm(source=BANK, target=[62, 60, 60], cap=9.0))
    assert batches.synthetic_counts.tolist() == [0, 30, 54]


@pytest.mark.parametrize("way", [{}, {"replace": 0.5}])
def test_samples_of_every_class_are_as_many(way: dict[str, float]) -> None:
    batches = make(Arm(source=Noise(), every=0.25, **way))
    assert batches.synthetic_counts.tolist() == [8, 8, 8]  # a quarter of 32
    rows = torch.cat([batches.rows(step) for step in range(40)])
    made = rows >= len(TRAIN)
    assert set(batches.labels[rows[made]].tolist()) == {0, 1, 2}
    if "replace" in way:  # whatever its class, a half
        shares = [float(made[batches.labels[rows] == label].double().mean()) for label in range(3)]
        assert shares == pytest.approx([0.5] * 3, abs=0.15)


def test_a_class_without_images_gets_no_samples() -> None:
    without = TRAIN.subset(torch.nonzero(TRAIN.labels != 1).flatten().tolist())
    batches = Batches(Arm(source=Noise(), every=2), without, steps=4, batch_size=5, seed=0, device=CPU)
    assert batches.synthetic_counts.tolist() == [66, 0, 66]  # twice the mean of 60 and 6


def test_samples_of_every_class_are_no_more_than_a_bank_has() -> None:
    few = SampleBank.generate(Numbered(), [5, 1, 9], seed=0, progress=False)
    assert make(Arm(source=few, every=0.25)).synthetic_counts.tolist() == [5, 1, 8]
    with pytest.warns(DataWarning, match=r"source has no samples of \['a'\], so none are mixed in"):
        assert make(Arm(source=BANK, every=0.25)).synthetic_counts.tolist() == [0, 8, 8]
