"""Which device is chosen, and what is said where it cannot be."""

import pytest
import torch

from genaug.devices import choose_device, choose_precision
from genaug.errors import GenaugError


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_the_one_asked_for(device: str | torch.device) -> None:
    assert choose_device(device) == torch.device("cpu")


def test_a_gpu_if_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device(None).type == expected


@pytest.mark.parametrize("device", ["nonsense", "", "CPU", "cpu:x", "meta", "cuda:99", "hpu", "xpu:7", 1.5, object()])
def test_one_line_where_it_is_not_there(device: object) -> None:
    with pytest.raises(GenaugError, match="^device: .* cannot be used .*; choose cpu$") as caught:
        choose_device(device)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_precision_asked_for() -> None:
    for device in (torch.device("cpu"), torch.device("cuda")):
        assert choose_precision("float32", device) == torch.float32
        assert choose_precision("bfloat16", device) == torch.bfloat16


@pytest.mark.parametrize("precision", ["float16", "", None, 32])
def test_other_precisions_are_refused(precision: object) -> None:
    with pytest.raises(GenaugError, match="^precision must be auto, float32 or bfloat16, got"):
        choose_precision(precision, torch.device("cpu"))  # type: ignore[arg-type]


def test_automatic_precision_runs() -> None:
    device = choose_device(None)
    dtype = choose_precision("auto", device)
    assert dtype in (torch.float32, torch.bfloat16)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        product = torch.ones(4, 4, device=device) @ torch.ones(4, 4, device=device)
    assert product.dtype == dtype
    torch.testing.assert_close(product.float().cpu(), torch.full((4, 4), 4.0))
