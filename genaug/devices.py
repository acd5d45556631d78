"""Which device to compute on, and in which precision."""

import torch

from genaug.errors import GenaugError, shorten


def choose_device(device: str | torch.device | None) -> torch.device:
    """Return the device to use: the one asked for if it is there, else a GPU if there is one, else the CPU.

    Raises:
        GenaugError: a device that is unknown or not there.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros((), device=device).item()  # on the meta device there is nothing to read
    except (RuntimeError, AssertionError, TypeError, ImportError) as problem:
        reason = shorten(str(problem).split("\n")[0], 120)
        raise GenaugError(f"device: {device} cannot be used ({reason}); choose cpu") from None
    return torch.device(device)


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of convolutions and matrix products in training: bfloat16 where asked for or faster.

    Raises:
        GenaugError: a precision that is none of auto, float32 and bfloat16.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise GenaugError(f"precision must be auto, float32 or bfloat16, got {shorten(precision)}")
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch has no public name for it
    return torch.bfloat16 if device.type == "cpu" and native is not None and native() else torch.float32
