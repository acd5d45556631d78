"""What changes with the step, against torch's own schedulers and closed forms."""

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from genaug.training.schedules import ClassSampler, cosine_with_warmup, ema_with_ramp


def test_cosine_is_that_of_torch():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(20):
        assert cosine_with_warmup(step, steps=20, warmup_steps=0) == pytest.approx(oracle.get_last_lr()[0])
        optimizer.step()
        oracle.step()


def test_warmup_is_linear_and_meets_the_cosine_at_its_peak():
    factors = [cosine_with_warmup(step, steps=30, warmup_steps=10) for step in range(30)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(factors) == factors[9] == factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 < factors[-1] < 0.02


def test_a_later_first_step_moves_the_warmup_alone():
    early = [cosine_with_warmup(step, steps=30, warmup_steps=4) for step in range(30)]
    late = [cosine_with_warmup(step, steps=30, warmup_steps=4, first_step=10) for step in range(30)]
    assert late[:10] == [0.0] * 10
    assert late[10:14] == pytest.approx([early[10 + n] * (n + 1) / 4 for n in range(4)])
    assert late[14:] == early[14:]


def test_run_shorter_than_its_warmup():
    assert [cosine_with_warmup(step, steps=4, warmup_steps=100) for step in range(4)] == [0.5, 1.0, 1.0, 0.5]
    assert cosine_with_warmup(0, steps=1, warmup_steps=100) == 1.0


@pytest.mark.global_rng  # a new layer draws its weights from torch's global generator
def test_average_follows_the_ramp():
    model = torch.nn.Linear(1, 1, bias=False)
    average = AveragedModel(model)
    expected = None
    for n in range(12):
        average.multi_avg_fn = ema_with_ramp(0.6, step=n)
        with torch.no_grad():
            model.weight.fill_(float(n))
        average.update_parameters(model)
        decay = min(0.6, (1 + n) / (10 + n))
        expected = 0.0 if n == 0 else decay * expected + (1 - decay) * n  # the first update copies
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)


def test_a_count_that_is_told_is_not_read():
    one, other = torch.zeros(1), torch.ones(1)
    ema_with_ramp(0.9, step=2)([one], [other], torch.zeros((), device="meta"))  # where there is nothing to read
    assert one.item() == pytest.approx(0.75)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_classes_are_drawn_with_p_proportional_to_n_to_the_exponent(exponent):
    counts = torch.tensor([900, 90, 0, 10])
    labels = torch.repeat_interleave(torch.arange(4), counts)[torch.randperm(1000, generator=_seeded())]
    sampler = ClassSampler(labels, exponent=exponent, seed=0)
    rows = sampler.rows(0, batch_size=100_000)
    share = torch.bincount(labels[rows], minlength=4).double() / 100_000
    weight = torch.where(counts > 0, counts.double() ** exponent, 0.0)
    torch.testing.assert_close(share, weight / weight.sum(), atol=0.01, rtol=0)  # six standard errors
    used = torch.bincount(rows, minlength=1000)[labels == 1].double()
    assert (used > 0).all()
    assert used.std() < 3 * used.mean() ** 0.5 + 1


def test_batches_depend_on_seed_and_step_alone():
    labels = torch.tensor([0, 1] * 50)
    first, second = (ClassSampler(labels, exponent=0.5, seed=3) for _ in range(2))
    second.rows(9, batch_size=32)
    assert torch.equal(first.rows(4, batch_size=32), second.rows(4, batch_size=32))
    assert not torch.equal(first.rows(4, batch_size=32), first.rows(5, batch_size=32))
    other = ClassSampler(labels, exponent=0.5, seed=4)
    assert not torch.equal(first.rows(4, batch_size=32), other.rows(4, batch_size=32))


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)
