"""Synthetic samples in the batches of any loader, generated ahead of need."""

import itertools
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import RandomSampler, SequentialSampler

from genaug.bank.replacing import Classes, Plan, Replacement
from genaug.devices import choose_device, side_stream
from genaug.errors import DataError, DataWarning, GenaugError, check_count, shorten
from genaug.mixing.checking import check_hidden_names
from genaug.mixing.real import find_class_names
from genaug.samples import Batch, LabelsGetter, choose_labels_getter, find_batch_labels
from genaug.seeding import check_seed, make_generator
from genaug.spec import DataSpec

_END = object()


@dataclass
class _Waiting:
    """A batch that was read early: its plan, its samples as they will be, and the loader's state after it."""

    batch: Batch
    plan: Plan
    future: Future["_Ready"]
    position: dict[str, Any] | None
    version: int | None

    def check_unchanged(self, later: Batch) -> None:
        """Raise a `DataError` where `later` was read into the memory of this batch."""
        images, new = self.batch.images, later.images
        if new is images:
            reused = self.version != _version(images)
        else:
            reused = new.numel() > 0 and new.data_ptr() == images.data_ptr()
        if reused:
            raise DataError(
                "loader must not read batches into the memory of earlier ones, which wait for their samples; pass "
                "ahead=0, or let it yield copies"
            )


def _version(images: Tensor) -> int | None:
    """Return how often a tensor was changed in place, where torch counts that."""
    return None if images.is_inference() else images._version


@dataclass
class _Ready:
    """Images, labels and samples of a batch, and the event on a GPU `device` after which they may be read."""

    images: Tensor
    labels: Tensor
    samples: Tensor | None
    event: Any = None
    device: Any = None


class MixedLoader:
    """Wraps a loader of batches, and replaces a share of the rows of each by synthetic samples.

    Length, order and everything else in the batches stay. A thread draws the samples of the next batches while the
    consumer works on one; on a GPU it does so on a stream of its own. The thread ends with the iteration, also where
    that is broken off. Real batches are read by the consumer's own thread, `ahead` batches early.

    Which rows are replaced by what depends on the seed, the epoch and the step alone (and, in distributed training, on
    the rank). In distributed training the loader needs its `DistributedSampler` before it is wrapped; with accelerate,
    wrap what `prepare` returns. Every iteration is another epoch; `set_epoch` says which. Attributes that the wrapper
    does not have are those of the loader. Where that has `state_dict` and `load_state_dict`, as torchdata's
    `StatefulDataLoader`, the wrapper has them too: they go on after the last batch that was yielded, with the samples
    that come next.

    Args:
        loader: a `DataLoader`, or anything that yields batches: (images, labels), or dicts with "label" or "labels".
        source: a bank, or a model, on any device. It is used in the thread, in evaluation mode: a model that is being
            trained meanwhile is not for this; make a bank of it, or pass a copy.
        fraction: share of the rows that are replaced, on average where it is no whole number of them. Without
            `classes` it is the share of the rows whose class the source has samples of.
        classes: None keeps the labels, also soft ones. Names or indices of classes (equally, or in a dict by weight)
            replace rows of any class by samples of these, and the labels too.
        transform: called with the samples, uint8 (n, C, H, W) on the batch's device, to make of them what the loader
            makes of real images; needed where these are normalized or of another size. Gray samples have three channels
            where the batch is in color. A random transform of torchvision draws once for all of them, from torch's
            global generator, in the consumer's thread.
        seed: decides which rows are replaced by what.
        ahead: batches that are prepared early; 0 draws the samples when they are needed.
        device: where images and labels are moved to; None leaves them where they are. Pass the GPU that trains, and
            `pin_memory=True` to the loader.
        labels_getter: "default" as above, or a function of the batch that returns the tensor of labels.

    Raises:
        GenaugError: a `fraction` outside [0, 1], an `ahead` below 0, a seed that is no integer, an unknown device.
        DataError: a source without classes, or with others than the loader's data set names; unusable `classes`; in
            use, labels that it does not know, and samples that are not as the rows of the batch are.

    >>> import genaug
    >>> from genaug.data import load_data
    >>> from torch.utils.data import DataLoader
    >>> loader = MixedLoader(DataLoader(load_data("digits"), batch_size=64), genaug.load("digits-vae"), fraction=0.25)
    >>> images, labels = next(iter(loader))
    >>> len(loader), loader.batch_size, images.shape, labels.shape
    (19, 64, torch.Size([64, 1, 8, 8]), torch.Size([64]))
    """

    def __init__(
        self,
        loader: Any,
        source: Any,
        *,
        fraction: float,
        classes: Classes = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
        ahead: int = 2,
        device: str | torch.device | None = None,
        labels_getter: LabelsGetter = "default",
    ) -> None:
        if not hasattr(loader, "__iter__") or hasattr(loader, "__next__"):
            raise GenaugError(
                f"loader must yield batches anew in each epoch, such as a DataLoader, got {type(loader).__name__}"
            )
        self.loader = loader
        self.seed, self.ahead = check_seed(seed), check_count(ahead, name="ahead", least=0)
        self.device = None if device is None else choose_device(device)
        if self.device == torch.device("cuda"):
            self.device = torch.device("cuda", torch.cuda.current_device())  # another thread may have another one
        self._labels_getter = choose_labels_getter(labels_getter, default=find_batch_labels)
        self._replacement = Replacement(source, fraction, classes=classes, transform=transform)
        _check_classes(getattr(loader, "dataset", None), self._replacement.spec)
        self._epoch = self._step = 0
        self._position: dict[str, Any] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be this epoch (from 0); that of the loader's sampler is not touched."""
        self._epoch = check_seed(epoch, name="epoch")

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        if name == "loader" or (name.startswith("__") and name.endswith("__")):  # before __init__, as in unpickling
            raise AttributeError(name)
        value = getattr(self.loader, name)
        return {"state_dict": self._save, "load_state_dict": self._restore}.get(name, value)

    def _save(self) -> dict[str, Any]:
        """Return the loader's state after the last batch that was yielded, and which step of which epoch comes next."""
        return self._position or {"loader": self.loader.state_dict(), "epoch": self._epoch, "step": 0}

    def _restore(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on where `state` was saved."""
        self.loader.load_state_dict(state["loader"])
        self._epoch, self._step, self._position = state["epoch"], state["step"], state

    def __iter__(self) -> Iterator[Any]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        first, self._step = self._step, 0
        processes, sampler = _count_processes(), getattr(self.loader, "sampler", None)
        if processes > 1 and type(sampler) in (RandomSampler, SequentialSampler):
            warnings.warn(
                f"each of {processes} processes reads all data: give the loader a DistributedSampler before it is "
                "wrapped (Lightning does that for a plain DataLoader only)",
                DataWarning,
                stacklevel=2,
            )
        own = getattr(self._replacement.source, "device", None)
        device = next((d for d in (self.device, own) if isinstance(d, torch.device) and d.type == "cuda"), None)
        batches = iter(self.loader)
        self._position = self._locate(epoch, first)
        return self._mix(batches, epoch, first, side_stream(device))

    def _locate(self, epoch: int, step: int) -> dict[str, Any] | None:
        """Return what `state_dict` gives while the loader is where it is now; None where it cannot tell."""
        try:
            state = self.loader.state_dict()
        except AttributeError:  # no such method, or that of accelerate's loaders where the one inside has none
            return None
        return {"loader": state, "epoch": epoch, "step": step}

    def _mix(self, batches: Iterator[Any], epoch: int, first: int, stream: torch.cuda.Stream | None) -> Iterator[Any]:
        waiting: deque[_Waiting] = deque()
        threads: list[int] = []
        pool = ThreadPoolExecutor(1, "genaug-loader", initializer=lambda: threads.append(threading.get_ident()))
        problem: Exception | None = None
        try:
            for step in itertools.count(first):
                try:
                    values = next(batches, _END)
                    if values is _END:
                        break
                    position = self._locate(epoch, step + 1)
                    batch = Batch(values, self._labels_getter)
                    for earlier in waiting:
                        earlier.check_unchanged(batch)
                    plan = self._replacement.plan(batch.labels, generator=self._make_generator(epoch, step))
                except Exception as caught:  # raised when its turn comes, after the batches before
                    problem = caught
                    break
                future = pool.submit(self._prepare, batch, plan, stream)
                waiting.append(_Waiting(batch, plan, future, position, _version(batch.images)))
                if len(waiting) > self.ahead:
                    yield self._finish(waiting.popleft())
            while waiting:
                yield self._finish(waiting.popleft())
            if problem is not None:
                raise problem
            self._position = None
        finally:  # also where the consumer breaks off; by the collector of cycles it may be called in the thread itself
            problem = None
            for unused in waiting:
                unused.future.cancel()
            pool.shutdown(wait=threading.get_ident() not in threads)

    def _make_generator(self, epoch: int, step: int) -> torch.Generator:
        rank = torch.distributed.get_rank() if _count_processes() > 1 else 0
        return make_generator(self.seed, "loader", epoch, step, rank)

    def _prepare(self, batch: Batch, plan: Plan, stream: torch.cuda.Stream | None) -> _Ready:
        """Draw the samples of a batch and move all to the device; in the thread."""
        with torch.cuda.stream(stream):
            images = self._move(batch.images)
            labels = self._move(batch.labels) if batch.holds_labels else batch.labels
            samples = self._move(self._replacement.draw(plan)) if len(plan.rows) else None
            if samples is not None:
                samples = samples.to(images.device)
            return _Ready(images, labels, samples, stream and stream.record_event(), stream and stream.device)

    def _move(self, tensor: Tensor) -> Tensor:
        if self.device is None or tensor.device == self.device:
            return tensor
        to_gpu = self.device.type == "cuda"
        if to_gpu and tensor.device.type == "cpu" and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=to_gpu)  # to the CPU nobody would wait for it

    def _finish(self, waiting: _Waiting) -> Any:
        """Wait for the samples of a batch and put them in; in the consumer's thread, since `transform` may draw."""
        batch, plan, ready = waiting.batch, waiting.plan, waiting.future.result()
        self._position = waiting.position
        if ready.event is not None:
            stream = torch.cuda.current_stream(ready.device)
            stream.wait_event(ready.event)
            for tensor in (ready.images, ready.labels, ready.samples):
                if tensor is not None and tensor.device.type == "cuda":
                    tensor.record_stream(stream)
        if ready.samples is None:
            return batch.join(ready.images, ready.labels)
        return batch.join(*self._replacement.place(ready.images, ready.labels, plan, ready.samples))


def _count_processes() -> int:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if distributed else 1


def _check_classes(dataset: Any, spec: DataSpec) -> None:
    """Check that class indices mean the same to a data set, where it names its classes, and to the source."""
    names = find_class_names(dataset)
    check_hidden_names(dataset, names, spec.class_names)
    if names is not None and names != spec.class_names:
        raise DataError(
            "source must have the classes of the loader's data set in their order, got "
            f"{shorten(spec.class_names)} for {shorten(names)}; use a model trained on these classes, or a "
            "MixedDataset, which finds them by name"
        )
