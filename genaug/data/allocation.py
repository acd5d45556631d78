"""Room for pixels: in memory up to a limit, beyond it in a file on the disk that the system reads as it is needed."""

import errno
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genaug.errors import DataError, shorten

MEMORY_LIMIT = 2.0  # GiB of pixels
GIB = 2**30
LARGEST = 2**33  # GiB: more than any address; infinity counts as this


def check_memory_limit(limit: Any) -> float:
    """Return `limit` as a float, or raise a `DataError` where it is no number above 0; infinity is one.

    >>> check_memory_limit(4)
    4.0
    """
    if type(limit) not in (int, float) or not limit > 0:
        raise DataError(
            f"memory_limit (GiB of pixels) must be a number above 0, got {shorten(limit)}; pass such as 2.0"
        )
    return float(min(limit, LARGEST))


def allocate_pixels(shape: Sequence[int], *, memory_limit: float = MEMORY_LIMIT) -> Tensor:
    """Return a uint8 tensor (N, C, H, W) with any content, in memory, or beyond `memory_limit` GiB on the disk.

    On the disk it lies in a file without a name in the folder for temporary files (`TMPDIR`), which is gone with the
    tensor, or with the process however it ends. The tensor is mapped from it: the system reads what is used, and
    forgets it where memory is short (if that folder is not itself in memory, as some systems have /tmp). Processes of
    a loader share it, also those that are spawned.

    Raises:
        DataError: neither memory nor disk has that much room.

    >>> allocate_pixels((2, 3, 8, 8)).shape, allocate_pixels((2, 3, 8, 8), memory_limit=1e-9).shape
    (torch.Size([2, 3, 8, 8]), torch.Size([2, 3, 8, 8]))
    """
    size = math.prod(shape)
    got = f"got {shape[0]} of {'x'.join(map(str, shape[1:]))} ({size / GIB:.3g} GiB)"
    fewer = "make them smaller with --resize (resize=), take fewer with --limit-per-class (limit_per_class=)"
    if size <= memory_limit * GIB:
        try:
            return torch.empty(*shape, dtype=torch.uint8)
        except RuntimeError:
            raise DataError(
                f"images must fit into memory, {got}; {fewer}, or keep them on the disk with a lower --memory-limit "
                "(memory_limit=)"
            ) from None
    folder = "the folder for temporary files"
    try:
        folder = tempfile.gettempdir()
        if shutil.disk_usage(folder).free < size:  # told before the disk is filled for nothing
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return _map_file(size, folder).view(*shape)
    except (OSError, RuntimeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else shorten(str(problem), 160)
        raise DataError(
            f"images must fit into memory, {got} while memory_limit is {memory_limit:g} GiB, or else into a file in "
            f"{folder}, which cannot be made ({reason}); name a folder on a larger disk in TMPDIR, {fewer}, or "
            "raise --memory-limit (memory_limit=)"
        ) from None


def warn_of_disk(pixels: Tensor, memory_limit: float) -> None:
    """Say that `pixels` are on the disk, where `allocate_pixels` put them there."""
    if pixels.nbytes > memory_limit * GIB:
        warnings.warn(
            f"the images take {pixels.nbytes / GIB:.3g} GiB, more than the {memory_limit:g} GiB of --memory-limit "
            f"(memory_limit=): they are kept in a temporary file in {tempfile.gettempdir()} (TMPDIR)",
            stacklevel=4,
        )


def _map_file(size: int, folder: str) -> Tensor:
    """Return a tensor of `size` bytes that is mapped from a new file without a name."""
    with tempfile.TemporaryFile(prefix="genaug-", dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS; without it a full disk would end the process by SIGBUS
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        if os.name == "nt":
            return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="r+", shape=(size,)))
        # As torch.multiprocessing maps what it shares: other processes then get the file instead of a copy of it.
        storage = torch.UntypedStorage._new_shared_fd_cpu(file.fileno(), size)  # type: ignore[attr-defined]
        mapped: Tensor = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (size,), (1,))
        return mapped
