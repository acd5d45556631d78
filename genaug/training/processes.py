"""One training in several processes, as `accelerate launch` starts them; alone without it."""

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from genaug.devices import choose_device
from genaug.errors import GenaugError, shorten

T = TypeVar("T")


class Processes:
    """The processes that train together: each takes its share of every batch, and gradients are averaged.

    Args:
        device: where to train; with several processes on GPUs each takes its own.

    Raises:
        GenaugError: a device that is not there.
    """

    def __init__(self, device: str | torch.device | None) -> None:
        size = os.environ.get("WORLD_SIZE") or "1"
        if not size.isdecimal():
            raise GenaugError(
                f"WORLD_SIZE must be the number of processes, got {shorten(size)}; start them by a launcher"
            )
        self.count = int(size)
        self.rank = 0
        self.device = choose_device(device)
        if self.count > 1:
            from accelerate import PartialState  # imported here only: it takes seconds

            state = PartialState(cpu=self.device.type == "cpu")
            self.rank, self.count = state.process_index, state.num_processes
            self.device = self.device if self.device.type == "cpu" else state.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs, pictures and states."""
        return self.rank == 0

    def share(self, tensor: Tensor) -> Tensor:
        """Return this process's rows of a tensor that holds those of all, in the order of the processes."""
        return tensor.chunk(self.count)[self.rank]

    def from_main(self, make: Callable[[], T]) -> T:
        """Call `make` in the main process, and return its result, or raise its error, in all."""
        if self.count == 1:
            return make()
        told: list[Any] = [None, None]
        if self.is_main:
            try:
                told[0] = make()
            except (GenaugError, OSError) as problem:
                told[1] = problem
        dist.broadcast_object_list(told, src=0)
        if told[1] is not None:
            raise told[1]
        return told[0]  # type: ignore[no-any-return]

    def check_same(self, value: object) -> None:
        """Check that all processes have an equal `value`.

        Raises:
            GenaugError: in all of them, where one differs.
        """
        if self.count == 1:
            return
        values: list[object] = [None] * self.count
        dist.all_gather_object(values, value)
        different = [str(rank) for rank in range(self.count) if values[rank] != values[0]]
        if different:
            raise GenaugError(
                f"processes {', '.join(different)} have another recipe or other data than process 0; "
                "give all of them the same"
            )

    def average(self, parameters: Iterable[nn.Parameter], figures: dict[str, Tensor]) -> dict[str, Tensor]:
        """Replace gradients by their mean over the processes, in place, and return the means of `figures`."""
        if self.count == 1:
            return figures
        tensors = [parameter.grad for parameter in parameters if parameter.grad is not None]
        numbers = [figure.detach().to(tensors[0]) for figure in figures.values()]
        flat = torch.cat([tensor.flatten() for tensor in (*tensors, *numbers)])
        dist.all_reduce(flat)
        flat /= self.count
        parts = flat.split([tensor.numel() for tensor in (*tensors, *numbers)])
        for tensor, part in zip(tensors, parts, strict=False):
            tensor.copy_(part.view_as(tensor))
        return {name: part[0] for name, part in zip(figures, parts[len(tensors) :], strict=True)}
