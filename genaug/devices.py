"""Which device to compute on, in which precision, and what a forked process cannot do."""

import os

import torch

from genaug.errors import GenaugError, shorten

_IMPORTED_IN = os.getpid()  # another number than this means a forked process


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


def settle_in_fork() -> None:
    """In a forked process, set torch to one thread: waiting for the parent's threads would never end."""
    if os.getpid() != _IMPORTED_IN:
        torch.set_num_threads(1)


def check_process(device: torch.device) -> None:
    """Check that a model on `device` can run in this process.

    Raises:
        GenaugError: a GPU in a process that was forked after the GPU was used.

    >>> check_process(torch.device("cpu"))
    """
    # A model that is on a GPU where CUDA is not initialized came here by a fork.
    if device.type == "cuda" and not torch.cuda.is_initialized():
        raise GenaugError(
            "model: a model on a GPU cannot run in a forked worker; leave it on the CPU, make a SampleBank, "
            "or apply the transform to batches after the DataLoader"
        )


def side_stream(device: torch.device | None) -> torch.cuda.Stream | None:
    """Return a stream of a GPU that begins after all that the caller's stream holds; None for any other device.

    For `torch.cuda.stream`, which takes None: a thread that computes there does not queue behind the caller.

    >>> side_stream(torch.device("cpu")) is None
    True
    """
    if device is None or device.type != "cuda":
        return None
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream
