"""MixedLoader: which rows are replaced by what, ahead of need, and that nothing is left behind however it ends."""

import copy
import gc
import multiprocessing
import pickle
import random
import subprocess
import sys
import threading
from collections import Counter, OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from scipy.stats import binom
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, WeightedRandomSampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from genaug import DataError, DataSpec, GenaugError, MixedLoader, SampleBank
from genaug.bank.replacing import Replacement
from genaug.data import load_data
from genaug.devices import check_process
from genaug.errors import DataWarning
from genaug.models import VAE, VAEConfig
from genaug.seeding import make_generator
from genaug.transforms import Reconstruct, ReplaceWithSynthetic

NAMES = ("ant", "bee", "cat")
REAL = 255  # what real images have as their first pixel; samples have their class there
LIMIT = 30  # seconds after which a test fails that waits for another thread or process

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning",
    "ignore:This DataLoader will create . worker processes:UserWarning",
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Marked:
    """Noise with the class in the first pixel."""

    def __init__(self, channels: int = 3, side: int = 6) -> None:
        self.spec = DataSpec(channels, side, side, NAMES)

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        images = torch.rand(len(labels), self.spec.channels, *(self.spec.height,) * 2, generator=generator)
        images[:, :, 0, 0] = labels[:, None] / 255
        return images


class Gated(Marked):
    """Tells when each of its calls begins, in which thread, and waits in it until that is allowed."""

    def __init__(self, *, opened: int = 0) -> None:
        super().__init__()
        self.began = [threading.Event() for _ in range(60)]
        self.gates = [threading.Event() for _ in range(60)]
        self.threads: list[int] = []
        for gate in self.gates[:opened]:
            gate.set()

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        number = len(self.threads)
        self.threads.append(threading.get_ident())
        self.began[number].set()
        if not self.gates[number].wait(LIMIT):
            raise TimeoutError(f"call {number} was never allowed")
        return super().sample(labels, generator=generator)


class Trouble(Exception):
    """Has an own type and arguments."""


class Failing(Marked):
    """Raises in one of its calls."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.calls, self.problem = at, 0, Trouble("source", at)

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        self.calls += 1
        if self.calls == self.at + 1:
            raise self.problem
        return super().sample(labels, generator=generator)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_bank(counts: Any = 9, source: Any = None) -> SampleBank:
    return SampleBank.generate(source or Marked(), counts, seed=0, progress=False)


@pytest.fixture(scope="module")
def bank() -> SampleBank:
    return make_bank()


def pixels(count: int = 64, channels: int = 3) -> Tensor:
    images = torch.randint(256, (count, channels, 6, 6), generator=seeded(1), dtype=torch.uint8)
    images[:, :, 0, 0] = REAL
    return images


def classes_of(count: int = 64) -> Tensor:
    return torch.randint(3, (count,), generator=seeded(2))


def make_loader(count: int = 64, *, images: Tensor | None = None, batch_size: int = 16, **options: Any) -> Any:
    data = TensorDataset(pixels(count) if images is None else images, classes_of(count))
    return DataLoader(data, batch_size=batch_size, generator=seeded(), **options)


def stored(batches: int = 4, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    """A loader that is a list."""
    return list(zip(pixels(batches * size).split(size), classes_of(batches * size).split(size), strict=True))


def replaced(images: Tensor) -> Tensor:
    """Which rows are samples."""
    return images[:, 0, 0, 0] != (1 if images.is_floating_point() else REAL)


def copied(batches: Any) -> list[tuple[Tensor, Tensor]]:
    return [(images.clone(), labels.clone()) for images, labels in batches]


def same(one: list[Any], other: list[Any]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def is_in(image: Tensor, images: Tensor) -> bool:
    return bool((image == images).flatten(1).all(1).any())


def assert_likely(count: int, trials: int, share: float) -> None:
    low, high = binom.interval(1 - 1e-6, trials, share)
    assert low <= count <= high


# --- length, order, rows


def test_it_looks_like_its_loader(bank: SampleBank) -> None:
    sampler = WeightedRandomSampler([1.0] * 60, 60, generator=seeded())
    loader = make_loader(60, sampler=sampler, drop_last=True)
    mixed = MixedLoader(loader, bank, fraction=0.5)
    assert len(mixed) == len(loader) == 3
    for name in ("dataset", "batch_size", "sampler", "batch_sampler", "drop_last", "num_workers", "collate_fn"):
        assert getattr(mixed, name) == getattr(loader, name)
    assert mixed.sampler is sampler
    assert not hasattr(mixed, "nonsense")
    assert len(list(mixed)) == 3


@pytest.mark.parametrize(
    "convert",
    [lambda x: x, lambda x: x.float() / 255, lambda x: x.double() / 255, lambda x: (x.float() / 255).half()],
    ids=["uint8", "float32", "float64", "float16"],
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_rows_that_are_not_replaced_are_the_loaders(convert: Any, shuffle: bool, bank: SampleBank) -> None:
    options = {"images": convert(pixels()), "shuffle": shuffle}
    samples = bank.images(range(len(bank)))
    if options["images"].is_floating_point():
        samples = (samples.float() / 255).to(options["images"].dtype)
    found = 0
    mixed = list(MixedLoader(make_loader(**options), bank, fraction=0.25))
    for (images, labels), (expected, kept) in zip(mixed, make_loader(**options), strict=True):
        rows = replaced(images)
        assert int(rows.sum()) == 4  # a quarter of 16
        assert images.dtype == expected.dtype
        assert torch.equal(images[~rows], expected[~rows])
        assert torch.equal(labels, kept)
        for image, label in zip(images[rows], labels[rows], strict=True):
            assert is_in(image, samples[bank.labels == label])
            found += 1
    assert found == 16


def test_rows_and_samples_differ_from_batch_to_batch(bank: SampleBank) -> None:
    batches = list(MixedLoader([(pixels(16), classes_of(16))] * 6, bank, fraction=0.25))
    assert len({tuple(replaced(images).tolist()) for images, _ in batches}) > 3
    everything = list(MixedLoader([(pixels(16), classes_of(16))] * 6, bank, fraction=1.0))
    assert len({images.numpy().tobytes() for images, _ in everything}) == 6


@pytest.mark.parametrize(("size", "fraction"), [(5, 0.3), (1, 0.2), (3, 0.5), (7, 0.1)])
def test_share_is_right_on_average(size: int, fraction: float, bank: SampleBank) -> None:
    batches = 600
    loader = [(pixels(size), classes_of(size))] * batches
    counts = [int(replaced(images).sum()) for images, _ in MixedLoader(loader, bank, fraction=fraction)]
    whole, rest = divmod(size * fraction, 1)
    assert set(counts) == {whole, whole + 1}
    assert_likely(counts.count(int(whole) + 1), batches, rest)


def test_every_row_has_the_same_chance(bank: SampleBank) -> None:
    loader = [(pixels(5), classes_of(5))] * 600
    often = sum(replaced(images).long() for images, _ in MixedLoader(loader, bank, fraction=0.4))
    for count in often.tolist():
        assert_likely(count, 600, 0.4)


@pytest.mark.parametrize(("fraction", "share"), [(0, 0), (0.0, 0), (1, 64), (1.0, 64)])
def test_none_and_all(fraction: float, share: int, bank: SampleBank) -> None:
    mixed = list(MixedLoader(make_loader(), bank, fraction=fraction))
    assert sum(int(replaced(images).sum()) for images, _ in mixed) == share
    assert same([(images[:0], labels) for images, labels in mixed], [(x[:0], y) for x, y in make_loader()])


def test_classes_that_the_bank_lacks_stay_real() -> None:
    loader = make_loader(256, batch_size=32)
    mixed = list(MixedLoader(loader, make_bank({"ant": 5, "cat": 5}), fraction=1.0))
    for (images, labels), (expected, kept) in zip(mixed, loader, strict=True):
        assert torch.equal(labels, kept)
        assert torch.equal(replaced(images), labels != 1)
        assert torch.equal(images[labels == 1], expected[labels == 1])
    half = list(MixedLoader(loader, make_bank({"ant": 5, "cat": 5}), fraction=0.5))
    for images, labels in half:  # the share is that of the rows that can be replaced
        assert int(replaced(images).sum()) - int((labels != 1).sum()) // 2 in (0, 1)
    alone = [(pixels(4), torch.ones(4, dtype=torch.int64))]
    assert torch.equal(next(iter(MixedLoader(alone, make_bank({"ant": 5}), fraction=1.0)))[0], pixels(4))


# --- classes


@pytest.mark.parametrize(
    ("classes", "shares"),
    [
        (["bee"], [0, 1, 0]),
        ([0, "cat"], [0.5, 0, 0.5]),
        ((2, 1, 0), [1 / 3] * 3),
        ({"ant": 3, "bee": 1}, [0.75, 0.25, 0]),
        ({2: 0.9, "ant": 0.1, 1: 0}, [0.1, 0, 0.9]),
    ],
)
def test_classes_are_drawn_by_weight(classes: Any, shares: list[float], bank: SampleBank) -> None:
    loader = make_loader(2048, batch_size=64)
    found: Counter[int] = Counter()
    mixed = MixedLoader(loader, bank, fraction=0.5, classes=classes)
    for (images, labels), (_, kept) in zip(mixed, loader, strict=True):
        rows = replaced(images)
        assert int(rows.sum()) == 32
        assert torch.equal(labels[~rows], kept[~rows])
        assert torch.equal(labels[rows], images[rows, 0, 0, 0].long())  # the label is that of the sample
        found.update(labels[rows].tolist())
    assert found.total() == 1024
    for index, share in enumerate(shares):
        assert_likely(found[index], 1024, share)


def test_classes_replace_rows_of_classes_that_the_bank_lacks() -> None:
    loader = [(pixels(8), torch.ones(8, dtype=torch.int64))]
    ((images, labels),) = MixedLoader(loader, make_bank({"cat": 5}), fraction=0.5, classes=["cat"])
    assert labels.tolist() == [2 if row else 1 for row in replaced(images)]
    assert labels.tolist().count(2) == 4


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
@pytest.mark.parametrize("classes", [None, ["cat"]])
def test_labels_of_any_whole_numbers(dtype: torch.dtype, classes: Any, bank: SampleBank) -> None:
    given = torch.zeros(8).to(dtype)
    ((images, labels),) = MixedLoader([(pixels(8), given)], bank, fraction=0.5, classes=classes)
    rows = replaced(images)
    assert labels.dtype == dtype
    assert labels.tolist() == [2 if row and classes else 0 for row in rows]
    assert images[rows, 0, 0, 0].tolist() == [2 if classes else 0] * 4
    assert not given.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
@pytest.mark.parametrize("classes", [None, {"cat": 1.0}])
def test_one_hot_labels(dtype: torch.dtype, classes: Any, bank: SampleBank) -> None:
    given = torch.eye(3)[[0, 1, 0, 1, 0, 1, 0, 1]].to(dtype)
    before = given.clone()
    ((images, labels),) = MixedLoader([(pixels(8), given)], bank, fraction=0.5, classes=classes)
    rows = replaced(images)
    assert labels.dtype == dtype
    expected = [2 if row and classes else index % 2 for index, row in enumerate(rows)]
    assert torch.equal(labels, torch.eye(3)[expected].to(dtype))
    assert images[rows, 0, 0, 0].tolist() == [index for index, row in zip(expected, rows, strict=True) if row]
    assert torch.equal(given, before)


def test_soft_labels_are_of_their_largest_class(bank: SampleBank) -> None:
    soft = torch.tensor([[0.1, 0.7, 0.2], [0.6, 0.4, 0.0]])
    ((images, _),) = MixedLoader([(pixels(2), soft)], bank, fraction=1.0)
    assert images[:, 0, 0, 0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 3]), "labels must be class indices from 0 to 2"),
        (torch.tensor([0, -1]), "labels must be class indices from 0 to 2"),
        (torch.zeros(2, 4), "labels must have 3 columns"),
        (torch.zeros(3).long(), r"labels must be as many as images \(2\), got 3"),
        (torch.zeros(2), "a batch must have a tensor of labels"),
        ([0, 1], "a batch must have a tensor of labels"),
    ],
)
def test_labels_that_do_not_fit(labels: Any, message: str, bank: SampleBank) -> None:
    with pytest.raises(DataError, match=message):
        list(MixedLoader([(pixels(2), labels)], bank, fraction=0.5))


# --- forms of batches

Pair = namedtuple("Pair", ["picture", "digit"])
NOTE = ["a", "b", "c", "d"]
EXTRA = torch.arange(4.0)

FORMS: dict[str, tuple[Callable[[Tensor, Tensor], Any], Any, Any]] = {
    "tuple": (lambda x, y: (x, y), 0, 1),
    "list": (lambda x, y: [x, y], 0, 1),
    "named tuple": (Pair, 0, 1),
    "dict": (lambda x, y: {"image": x, "label": y, "id": NOTE, "weight": EXTRA}, "image", "label"),
    "transformers": (lambda x, y: {"labels": y, "mask": EXTRA, "pixel_values": x}, "pixel_values", "labels"),
    "ordered dict": (lambda x, y: OrderedDict(id=NOTE, label=y, scan=x), "scan", "label"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("classes", [None, ["cat"]])
def test_batches_keep_their_form(form: str, classes: Any, bank: SampleBank) -> None:
    make, image_key, label_key = FORMS[form]
    images, labels = pixels(4), torch.zeros(4, dtype=torch.int64)
    batch = make(images, labels)
    (result,) = MixedLoader([batch], bank, fraction=0.5, classes=classes)
    assert type(result) is type(batch)
    assert int(replaced(result[image_key]).sum()) == 2
    assert int(result[label_key].sum()) == (4 if classes else 0)
    if isinstance(batch, dict):
        assert list(result) == list(batch)
        for key, value in batch.items():
            assert key in (image_key, label_key) or result[key] == NOTE or result[key] is value
    assert batch[image_key] is images  # the batch itself is as it was
    assert torch.equal(images, pixels(4))
    assert not labels.any()


def test_images_keep_their_type(bank: SampleBank) -> None:
    ((images, _),) = MixedLoader([(tv_tensors.Image(pixels(4)), classes_of(4))], bank, fraction=0.5)
    assert type(images) is tv_tensors.Image
    assert int(replaced(images).sum()) == 2


def test_labels_getter(bank: SampleBank) -> None:
    batch = {"x": pixels(4), "targets": {"kind": torch.zeros(4, dtype=torch.int64), "box": torch.zeros(4, 4)}}
    mixed = MixedLoader([batch], bank, fraction=1.0, classes=["bee"], labels_getter=lambda b: b["targets"]["kind"])
    (result,) = mixed
    assert result["targets"]["kind"].tolist() == [1] * 4
    assert result["targets"]["box"] is batch["targets"]["box"]
    with pytest.raises(DataError, match="a batch must have a tensor of labels"):
        list(MixedLoader([batch], bank, fraction=1.0))
    derived = MixedLoader([batch], bank, fraction=1.0, classes=["bee"], labels_getter=lambda b: torch.zeros(4).long())
    with pytest.raises(DataError, match="labels_getter must return a tensor of the batch itself"):
        list(derived)


# --- what it depends on


def epochs_of(mixed: MixedLoader, count: int = 2) -> list[list[tuple[Tensor, Tensor]]]:
    return [list(mixed) for _ in range(count)]


@pytest.fixture(scope="module")
def expected(bank: SampleBank) -> list[list[tuple[Tensor, Tensor]]]:
    return epochs_of(MixedLoader(make_loader(shuffle=True), bank, fraction=0.3, ahead=0))


@pytest.mark.parametrize(("workers", "ahead"), [(0, 1), (0, 2), (0, 5), (1, 0), (1, 2), (2, 2), (2, 5), (4, 2)])
def test_the_same_for_any_workers_and_any_ahead(workers: int, ahead: int, bank: SampleBank, expected: Any) -> None:
    context = "fork" if workers else None
    loader = make_loader(shuffle=True, num_workers=workers, multiprocessing_context=context)
    found = epochs_of(MixedLoader(loader, bank, fraction=0.3, ahead=ahead))
    assert [same(*pair) for pair in zip(found, expected, strict=True)] == [True, True]


def test_seed_and_epoch_decide(bank: SampleBank) -> None:
    def read(seed: int = 0, epoch: int | None = None) -> list[tuple[Tensor, Tensor]]:
        mixed = MixedLoader(stored(), bank, fraction=0.5, seed=seed)
        if epoch is not None:
            mixed.set_epoch(epoch)
        return list(mixed)

    assert same(read(), read())
    assert same(read(), read(epoch=0))
    assert same(read(5, 7), read(5, 7))
    assert not same(read(), read(seed=1))
    assert not same(read(), read(epoch=1))


def test_every_iteration_is_another_epoch(bank: SampleBank) -> None:
    mixed = MixedLoader(stored(), bank, fraction=0.5)
    epochs = epochs_of(mixed, 3)
    assert not same(epochs[0], epochs[1])
    assert not same(epochs[1], epochs[2])
    mixed.set_epoch(1)
    assert same(list(mixed), epochs[1])
    assert same(list(mixed), epochs[2])
    mixed.set_epoch(0)
    next(iter(mixed))  # broken off
    assert same(list(mixed), epochs[1])


def test_two_iterations_at_once(bank: SampleBank) -> None:
    mixed = MixedLoader(stored(), bank, fraction=0.5)
    first, second = epochs_of(mixed)
    mixed.set_epoch(0)
    pairs = list(zip(mixed, mixed, strict=True))
    assert same([one for one, _ in pairs], first)
    assert same([other for _, other in pairs], second)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda mixed: pickle.loads(pickle.dumps(mixed))])
def test_copies_go_on_as_the_original(copier: Any, bank: SampleBank) -> None:
    mixed = MixedLoader(make_loader(shuffle=True), bank, fraction=0.5, seed=3, classes=["cat"], device="cpu")
    list(mixed)
    twin = copier(mixed)
    assert (len(twin), twin.batch_size, twin.seed, twin.ahead) == (4, 16, 3, 2)
    assert same(list(twin), list(mixed))


@pytest.mark.global_rng
def test_global_random_state_is_left_alone(bank: SampleBank) -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    states = torch.get_rng_state(), str(np.random.get_state(legacy=False)), random.getstate()
    for source in (bank, Marked()):
        list(MixedLoader(stored(), source, fraction=0.3, classes={"ant": 1, "cat": 2}))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (str(np.random.get_state(legacy=False)), random.getstate()) == states[1:]


@pytest.mark.global_rng
def test_a_random_transform_draws_from_torchs_global_generator(bank: SampleBank) -> None:
    threads = set()

    def transform(images: Tensor) -> Tensor:
        threads.add(threading.get_ident())
        noisy = images.float() + torch.rand(images.shape)
        noisy[:, :, 0, 0] = images[:, :, 0, 0]
        return noisy

    loader = [(images.float() * 2 - 255, labels) for images, labels in stored()]
    mixed = MixedLoader(loader, bank, fraction=0.5, transform=transform, ahead=3)

    def read(seed: int) -> list[tuple[Tensor, Tensor]]:
        torch.manual_seed(seed)
        mixed.set_epoch(0)
        return list(mixed)

    one, other = read(1), read(2)
    assert same(one, read(1))
    assert not same(one, other)
    assert threads == {threading.get_ident()}


class Stateful:
    """Goes on where its state was saved, and reads other batches in each epoch, as torchdata's StatefulDataLoader."""

    def __init__(self) -> None:
        self.epoch = self.read = 0
        self.going_on = False

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.read, self.going_on = (self.read if self.going_on else 0), False
        order = torch.randperm(48, generator=seeded(self.epoch))
        while self.read < 6:
            rows = order[self.read * 8 :][:8]
            self.read += 1
            yield pixels(48)[rows], classes_of(48)[rows]
        self.epoch, self.read = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "read": self.read}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.read, self.going_on = state["epoch"], state["read"], True


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("cut", [0, 1, 3, 6])
def test_a_stateful_loader_goes_on_after_the_last_batch(ahead: int, cut: int, bank: SampleBank) -> None:
    def make() -> MixedLoader:
        return MixedLoader(Stateful(), bank, fraction=0.5, ahead=ahead)

    whole = make()
    list(whole)
    expected = copied(whole)  # of another epoch than the first
    before = make()
    list(before)
    batches = iter(before)
    begun = [next(batches) for _ in range(cut)]
    assert same(begun, expected[:cut])
    state = pickle.loads(pickle.dumps(before.state_dict()))
    after = make()
    after.load_state_dict(state)
    assert after.state_dict()["step"] == cut
    assert same(list(after), expected[cut:])
    assert same(list(after), list(whole))  # the epoch after that
    between = make()
    between.load_state_dict(before.state_dict() if cut == 0 else after.state_dict())
    assert between.state_dict() == (state if cut == 0 else {"loader": {"epoch": 3, "read": 0}, "epoch": 3, "step": 0})


@pytest.mark.global_rng  # which accelerate's loaders set
def test_loaders_that_accelerate_prepared(bank: SampleBank) -> None:
    """They have a method `state_dict`, which fails where the loader inside has none."""
    loader = Accelerator(cpu=True).prepare(DataLoader(TensorDataset(pixels(48), classes_of(48)), batch_size=8))
    with pytest.raises(AttributeError):
        loader.state_dict()
    mixed = list(MixedLoader(loader, bank, fraction=0.5))
    assert len(mixed) == 6
    assert 12 <= sum(int(replaced(images).sum()) for images, _ in mixed) <= 36


def test_other_loaders_have_no_state(bank: SampleBank) -> None:
    mixed = MixedLoader(stored(), bank, fraction=0.5)
    assert not hasattr(mixed, "state_dict")
    assert not hasattr(mixed, "load_state_dict")


class Reused:
    """Reads every batch into the memory of the one before, as the same tensor or as another one."""

    def __init__(self, *, same_tensor: bool) -> None:
        self.memory, self.same_tensor = torch.zeros(8, 3, 6, 6, dtype=torch.uint8), same_tensor

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(4):
            images = self.memory if self.same_tensor else self.memory[:]
            yield images.fill_(number), torch.zeros(8, dtype=torch.int64)


@pytest.mark.parametrize("same_tensor", [True, False])
def test_batches_that_share_their_memory(same_tensor: bool, bank: SampleBank) -> None:
    loader = Reused(same_tensor=same_tensor)
    with pytest.raises(DataError, match="into the memory of earlier ones, .* pass ahead=0"):
        list(MixedLoader(loader, bank, fraction=0.0))
    read = [int(images[0, 0, 0, 0]) for images, _ in MixedLoader(loader, bank, fraction=0.0, ahead=0)]
    assert read == [0, 1, 2, 3]


def test_batches_of_one_tensor_may_be_changed_in_place(bank: SampleBank) -> None:
    for images, _ in MixedLoader(stored(), bank, fraction=0.0):
        images.add_(1)
    batch = stored()[0]
    assert same(list(MixedLoader([batch] * 4, bank, fraction=0.0)), [batch] * 4)


def test_batches_given_are_not_changed(bank: SampleBank) -> None:
    loader = stored()
    before = copied(loader)
    mixed = MixedLoader(loader, bank, fraction=0.5, classes=["bee"])
    one = copied(mixed)
    mixed.set_epoch(0)
    assert same(copied(mixed), one)
    assert same(loader, before)


# --- range, size, channels, models


def test_normalized_images_need_the_transform_of_real_ones(bank: SampleBank) -> None:
    normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)])
    loader = [(normalize(images), labels) for images, labels in stored()]
    message = r"within \[0, 1\], got values from -2 to 2.*pass transform="
    with pytest.raises(DataError, match=message):
        list(MixedLoader(loader, bank, fraction=0.5))
    samples = (bank.images(range(len(bank))).double() / 255 - 0.5) / 0.25
    found = 0
    mixed = MixedLoader(loader, bank, fraction=0.5, transform=normalize)
    for (images, labels), (given, _) in zip(mixed, loader, strict=True):
        rows = images[:, 0, 0, 0] != 2
        assert torch.equal(images[~rows], given[~rows])
        for image, label in zip(images[rows], labels[rows], strict=True):
            choices = samples[bank.labels == label]
            assert float((choices - image).abs().amax((1, 2, 3)).min()) < 1e-6
            found += 1
    assert found == 16


def test_a_transform_that_forgets_to_scale_is_told(bank: SampleBank) -> None:
    normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)])
    loader = [(normalize(images), labels) for images, labels in stored()]
    with pytest.warns(
        DataWarning, match="values of up to 2.. of synthetic images, and real ones have up to 2:"
    ) as seen:
        list(MixedLoader(loader, bank, fraction=0.5, transform=v2.ToDtype(torch.float32)))
    assert len(seen) == 1


def test_a_transform_brings_samples_to_the_size() -> None:
    large = make_bank(source=Marked(side=12))
    with pytest.raises(DataError, match=r"size of the batch \(3x6x6\), got 3x12x12; pass transform="):
        list(MixedLoader(stored(), large, fraction=0.5))

    def shrink(images: Tensor) -> Tensor:
        return images[..., ::2, ::2]

    for images, labels in MixedLoader(stored(), large, fraction=0.5, transform=shrink):
        rows = replaced(images)
        assert int(rows.sum()) == 4
        for image, label in zip(images[rows], labels[rows], strict=True):
            assert is_in(image, shrink(large.images(range(*large.rows(int(label))))))


@pytest.mark.parametrize(
    "transform",
    [lambda x: x.float(), lambda x: x[..., :5], lambda x: x[:1], lambda x: x.numpy(), lambda x: None],
    ids=["dtype", "size", "rows", "array", "nothing"],
)
def test_transforms_that_make_something_else(transform: Any, bank: SampleBank) -> None:
    with pytest.raises(DataError, match=r"transform must make torch.uint8 \(4, 3, 6, 6\) of the samples"):
        list(MixedLoader(stored(), bank, fraction=0.5, transform=transform))


def test_gray_samples_become_color() -> None:
    gray = make_bank(source=Marked(channels=1))
    samples = gray.images(range(len(gray)))
    for images, _ in MixedLoader(stored(), gray, fraction=0.5):
        rows = images[replaced(images)]
        assert len(rows) == 4
        for image in rows:
            assert is_in(image[:1], samples)
            assert torch.equal(image, image[:1].expand(3, -1, -1))


@pytest.mark.global_rng  # of the transform
def test_a_transform_may_change_gray_samples_in_color_in_place() -> None:
    gray = make_bank(source=Marked(channels=1))
    erase = v2.RandomErasing(p=1.0, scale=(0.2, 0.3), value=[1, 2, 3], inplace=True)
    for images, _ in MixedLoader(stored(), gray, fraction=0.5, transform=erase):
        assert len(images[replaced(images)]) == 4


def test_a_transform_gets_as_many_channels_as_the_batch_has() -> None:
    gray = make_bank(source=Marked(channels=1))
    normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.4, 0.5, 0.6], [0.25] * 3)])
    loader = [(normalize(images), labels) for images, labels in stored()]
    samples = normalize(gray.images(range(len(gray))).expand(-1, 3, -1, -1))
    for (images, _), (given, _) in zip(
        MixedLoader(loader, gray, fraction=0.5, transform=normalize), loader, strict=True
    ):
        rows = (images != given).flatten(1).any(1)
        assert int(rows.sum()) == 4
        assert all(is_in(image, samples) for image in images[rows])


def test_color_samples_do_not_become_gray(bank: SampleBank) -> None:
    loader = [(pixels(8, channels=1), classes_of(8))]
    with pytest.raises(DataError, match=r"size of the batch \(1x6x6\), got 3x6x6"):
        list(MixedLoader(loader, bank, fraction=0.5))


@pytest.fixture(scope="module")
def digits() -> Any:
    return load_data("digits")


@pytest.fixture(scope="module")
def vae(digits: Any) -> VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VAE(digits.spec, VAEConfig(width=8, hidden=16, latent_dim=4))
    model.fit_after_training(digits.images[:300], digits.labels[:300])
    return model.train()


@pytest.mark.parametrize("levels", [True, False], ids=["uint8", "float32"])
def test_a_model_as_source(levels: bool, vae: VAE, digits: Any) -> None:
    images = digits.images[:48] if levels else digits.images[:48].float() / 255
    loader = list(zip(images.split(16), digits.labels[:48].split(16), strict=True))
    mixed = MixedLoader(loader, vae, fraction=0.4, seed=3)
    mixed.set_epoch(2)
    replacement = Replacement(vae, 0.4, transform=None)
    for step, ((found, labels), (given, kept)) in enumerate(zip(list(mixed), loader, strict=True)):
        plan = replacement.plan(kept, generator=make_generator(3, "loader", 2, step, 0))
        assert len(plan.rows) in (6, 7)
        samples = vae.sample(kept[plan.rows], generator=seeded(plan.seed))
        expected = given.clone()
        expected[plan.rows] = samples.mul(255).round().to(torch.uint8) if levels else samples
        tolerance = 1 if levels else 1 / 255  # convolutions may round otherwise
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
        kept_rows = torch.ones(16, dtype=torch.bool)
        kept_rows[plan.rows] = False
        assert torch.equal(found[kept_rows], given[kept_rows])
        assert torch.equal(labels, kept)
        assert not found.requires_grad
        assert not found.is_inference()
    assert vae.training


def test_two_loaders_may_share_a_model(vae: VAE, digits: Any) -> None:
    """A model is in evaluation mode for as long as any of them draws, and then in the one that it had."""
    arrived, released = ([threading.Event() for _ in range(2)] for _ in range(2))
    modes: list[bool] = []

    def wait(module: torch.nn.Module, inputs: Any) -> None:
        number = 1 if arrived[0].is_set() else 0
        arrived[number].set()
        assert released[number].wait(LIMIT)
        modes.append(module.training)

    loader = [(digits.images[:8], digits.labels[:8])]
    threads = [threading.Thread(target=lambda: list(MixedLoader(loader, vae, fraction=0.5))) for _ in range(2)]
    hook = vae.decoder.to_images.register_forward_pre_hook(wait)
    try:
        threads[0].start()
        assert arrived[0].wait(LIMIT)
        threads[1].start()
        arrived[1].wait(1)  # or the second waits for the first
        for event, thread in zip(released, threads, strict=True):
            event.set()
            thread.join(LIMIT)
    finally:
        hook.remove()
        mixed_up = not vae.training
        vae.train()
    assert modes == [False, False]
    assert not mixed_up


# --- ahead of need


def test_the_next_samples_are_drawn_while_the_consumer_has_a_batch(bank: SampleBank) -> None:
    source = Gated(opened=1)
    iterator = iter(MixedLoader(stored(), source, fraction=0.5, ahead=1))
    batches = [next(iterator)]  # comes although the samples of the next one are not there
    assert source.began[1].wait(LIMIT)
    assert not source.gates[1].is_set()
    for gate in source.gates:
        gate.set()
    batches += iterator
    assert same(batches, list(MixedLoader(stored(), Marked(), fraction=0.5)))


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_as_many_batches_ahead_as_asked_for(ahead: int) -> None:
    read: list[int] = []

    class Batches:
        def __iter__(self) -> Iterator[Any]:
            for batch in stored(8):
                read.append(threading.get_ident())
                yield batch

    source = Gated(opened=60)
    iterator = iter(MixedLoader(Batches(), source, fraction=0.5, ahead=ahead))
    next(iterator)
    assert len(read) == ahead + 1
    assert source.began[ahead].wait(LIMIT)
    assert not source.began[ahead + 1].is_set()
    assert len(list(iterator)) == 7
    assert set(read) == {threading.get_ident()}
    assert len(set(source.threads)) == 1
    assert threading.get_ident() not in source.threads


def test_nothing_ahead() -> None:
    source = Gated(opened=60)
    iterator = iter(MixedLoader(stored(), source, fraction=0.5, ahead=0))
    for number in range(4):
        assert not source.began[number].is_set()
        next(iterator)
        assert source.began[number].is_set()
    assert next(iterator, None) is None


@pytest.mark.parametrize("ahead", [0, 2, 50])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_short_loaders(count: int, ahead: int, bank: SampleBank) -> None:
    loader = make_loader(64 if count else 1, batch_size=16, drop_last=True, sampler=range(16 * count))
    mixed = MixedLoader(loader, bank, fraction=0.5, ahead=ahead)
    assert len(mixed) == len(list(mixed)) == count


def test_last_batches_are_as_the_loader_makes_them(bank: SampleBank) -> None:
    for drop_last, sizes in ((False, [16, 16, 8]), (True, [16, 16])):
        mixed = MixedLoader(make_loader(40, drop_last=drop_last), bank, fraction=0.5)
        assert [len(images) for images, _ in mixed] == sizes
    empty = [(pixels(0), classes_of(0))]
    assert [len(images) for images, _ in MixedLoader(empty, bank, fraction=1.0)] == [0]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(zip(pixels(20), classes_of(20), strict=True))


def test_loaders_without_a_length(bank: SampleBank) -> None:
    mixed = MixedLoader(DataLoader(Stream(), batch_size=8, generator=seeded()), bank, fraction=0.5)
    assert [int(replaced(images).sum()) for images, _ in mixed] == [4, 4, 2]
    with pytest.raises(TypeError):
        len(mixed)


# --- how it ends


def read_until_it_raises(batches: Any, kind: type[Exception]) -> tuple[list[Any], Exception]:
    """The batches that come before the exception, and the exception."""
    found: list[Any] = []
    try:
        found.extend(batches)  # keeps what came
    except kind as problem:
        return found, problem
    pytest.fail(f"no {kind.__name__} was raised")


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("genaug-loader")]


def assert_stopped() -> None:
    for thread in loader_threads():
        thread.join(LIMIT)
    assert not loader_threads()


@pytest.fixture
def clean() -> Iterator[None]:
    """Threads and processes of the test have ended after it, although the loader is still there."""
    strangers = {process.pid for process in multiprocessing.active_children()}
    yield
    assert_stopped()
    own = [process for process in multiprocessing.active_children() if process.pid not in strangers]
    for process in own:
        process.join(LIMIT)
    assert not any(process.is_alive() for process in own)


each_loader = pytest.mark.parametrize("workers", [None, 0, 2], ids=["list", "no workers", "two workers"])


def make_kind(workers: int | None) -> Any:
    if workers is None:
        return stored()
    return make_loader(32, batch_size=8, num_workers=workers, multiprocessing_context="fork" if workers else None)


@pytest.mark.usefixtures("clean")
@each_loader
@pytest.mark.parametrize("ahead", [0, 2])
def test_broken_off(workers: int | None, ahead: int, bank: SampleBank) -> None:
    mixed = MixedLoader(make_kind(workers), bank, fraction=0.5, ahead=ahead)
    expected = list(mixed)
    mixed.set_epoch(0)
    for _ in mixed:
        assert loader_threads()
        break
    assert_stopped()
    mixed.set_epoch(0)
    assert same(list(mixed), expected)
    assert_stopped()


@pytest.mark.usefixtures("clean")
@each_loader
def test_the_consumer_raises(workers: int | None, bank: SampleBank) -> None:
    mixed = MixedLoader(make_kind(workers), bank, fraction=0.5)

    def train() -> None:
        for step, _ in enumerate(mixed):
            if step == 1:
                raise Trouble

    with pytest.raises(Trouble):
        train()
    assert_stopped()
    assert len(list(mixed)) == 4


@pytest.mark.usefixtures("clean")
@each_loader
@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_the_source_raises(workers: int | None, ahead: int) -> None:
    source = Failing(at=2)
    mixed = MixedLoader(make_kind(workers), source, fraction=0.5, ahead=ahead)
    iterator = iter(mixed)
    batches, problem = read_until_it_raises(iterator, Trouble)
    assert problem is source.problem
    assert same(batches, list(MixedLoader(make_kind(workers), Marked(), fraction=0.5))[:2])
    assert_stopped()
    assert next(iterator, None) is None
    problem.__traceback__ = None  # which holds the iterator of the loader
    assert len(list(mixed)) == 4


class Broken:
    """A loader that raises after some batches."""

    def __init__(self, at: int) -> None:
        self.at: int | None = at

    def __iter__(self) -> Iterator[Any]:
        for step, batch in enumerate(stored()):
            if step == self.at:
                raise Trouble("loader", step)
            yield batch


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("ahead", [0, 1, 5])
@pytest.mark.parametrize("at", [0, 2])
def test_the_loader_raises_after_the_batches_before(at: int, ahead: int, bank: SampleBank) -> None:
    loader = Broken(at)
    mixed = MixedLoader(loader, bank, fraction=0.5, ahead=ahead)
    batches, problem = read_until_it_raises(mixed, Trouble)
    assert problem.args == ("loader", at)
    assert_stopped()
    assert same(batches, list(MixedLoader(stored(), bank, fraction=0.5))[:at])
    loader.at = None
    assert len(list(mixed)) == 4


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("ahead", [0, 2])
def test_the_first_of_two_problems_is_raised(ahead: int) -> None:
    with pytest.raises(Trouble) as caught:
        list(MixedLoader(Broken(2), Failing(at=1), fraction=0.5, ahead=ahead))
    assert caught.value.args == ("source", 1)


class BrokenItems(TensorDataset):
    def __getitem__(self, index: int) -> Any:
        if index == 20:
            raise Trouble(index)
        return super().__getitem__(index)


@pytest.mark.usefixtures("clean")
def test_a_worker_raises(bank: SampleBank) -> None:
    data = BrokenItems(pixels(32), classes_of(32))
    loader = DataLoader(data, batch_size=8, num_workers=2, multiprocessing_context="fork", generator=seeded())
    batches, problem = read_until_it_raises(MixedLoader(loader, bank, fraction=0.5, ahead=0), Trouble)
    assert "Caught Trouble in DataLoader worker process" in str(problem)
    assert len(batches) == 2
    problem.__traceback__ = None
    assert_stopped()


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("ahead", [0, 2])
def test_a_batch_that_does_not_fit(ahead: int, bank: SampleBank) -> None:
    loader = [*stored(2), (pixels(8)[..., :5], classes_of(8)), *stored(1)]
    batches, problem = read_until_it_raises(MixedLoader(loader, bank, fraction=0.5, ahead=ahead), DataError)
    assert "size of the batch (3x6x5)" in str(problem)
    assert len(batches) == 2


@pytest.mark.usefixtures("clean")
@each_loader
def test_an_iterator_that_is_let_go(workers: int | None, bank: SampleBank) -> None:
    mixed = MixedLoader(make_kind(workers), bank, fraction=0.5)
    begun, untouched, closed = (iter(mixed) for _ in range(3))
    next(begun), next(closed)
    assert len(loader_threads()) == 2
    closed.close()
    assert len(loader_threads()) == 1
    del begun, untouched
    assert_stopped()


@pytest.mark.usefixtures("clean")
def test_an_iterator_in_a_cycle(bank: SampleBank) -> None:
    cycle: list[Any] = [iter(MixedLoader(stored(), bank, fraction=0.5))]
    cycle.append(cycle)
    next(cycle[0])
    del cycle
    gc.collect()
    assert_stopped()


@pytest.mark.usefixtures("clean")
def test_an_iterator_that_is_collected_in_its_own_thread() -> None:
    """The collector of cycles runs in whatever thread allocates."""
    collected = threading.Event()

    class Collecting(Gated):
        def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
            images = super().sample(labels, generator=generator)
            if len(self.threads) == 2:
                gc.collect()
                collected.set()
            return images

    source = Collecting(opened=1)
    cycle: list[Any] = [iter(MixedLoader(stored(), source, fraction=0.5))]
    cycle.append(cycle)
    next(cycle[0])
    gc.disable()
    try:
        del cycle
        for gate in source.gates:
            gate.set()
        assert collected.wait(LIMIT)
    finally:
        gc.enable()


@pytest.mark.usefixtures("clean")
def test_samples_that_nobody_needs_are_not_drawn() -> None:
    class Slow(Gated):
        def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
            images = super().sample(labels, generator=generator)
            if len(self.threads) > 2:
                closed.wait(0.2)  # so that being behind is no question of luck
            return images

    closed = threading.Event()
    source = Slow(opened=1)
    iterator = iter(MixedLoader(stored(50), source, fraction=0.5, ahead=49))
    next(iterator)
    assert source.began[1].wait(LIMIT)
    for gate in source.gates:
        gate.set()
    iterator.close()
    closed.set()
    assert len(source.threads) < 50
    assert_stopped()


@pytest.mark.usefixtures("clean")
def test_workers_that_stay(bank: SampleBank) -> None:
    options = {"batch_size": 8, "num_workers": 2, "multiprocessing_context": "fork", "persistent_workers": True}
    loader = make_loader(32, **options)
    mixed = MixedLoader(loader, bank, fraction=0.5)
    expected = list(MixedLoader(stored(), bank, fraction=0.5))
    for _ in range(2):
        mixed.set_epoch(0)
        assert same(list(mixed), expected)
        for _ in mixed:
            break
    assert_stopped()


def test_the_process_ends_with_an_iterator_begun() -> None:
    script = (
        "import torch\n"
        "from genaug import DataSpec, MixedLoader\n"
        "class Noise:\n"
        "    spec = DataSpec(1, 4, 4, ('a', 'b'))\n"
        "    def sample(self, labels, *, generator=None):\n"
        "        return torch.rand(len(labels), 1, 4, 4, generator=generator)\n"
        "batches = [(torch.zeros(4, 1, 4, 4), torch.tensor([0, 1, 0, 1]))] * 9\n"
        "iterator = iter(MixedLoader(batches, Noise(), fraction=0.5))\n"
        "print(len(next(iterator)), 'done')\n"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, timeout=2 * LIMIT, check=False)
    assert (run.stdout, run.stderr, run.returncode) == ("2 done\n", "", 0)


# --- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loader": 5}, "loader must yield batches anew in each epoch, such as a DataLoader, got int"),
        ({"loader": iter([])}, "loader must yield batches anew in each epoch, such as a DataLoader, got list_iterator"),
        ({"fraction": -0.1}, "fraction must be from 0 to 1, got -0.1"),
        ({"fraction": 1.5}, "fraction must be from 0 to 1, got 1.5"),
        ({"fraction": float("nan")}, "fraction must be from 0 to 1, got nan"),
        ({"fraction": True}, "fraction must be from 0 to 1, got True"),
        ({"fraction": "half"}, "fraction must be from 0 to 1, got 'half'"),
        ({"seed": 0.5}, "seed must be an integer"),
        ({"ahead": -1}, "ahead must be an integer of at least 0, got -1"),
        ({"ahead": 1.0}, "ahead must be an integer of at least 0, got 1.0"),
        ({"ahead": True}, "ahead must be an integer of at least 0, got True"),
        ({"device": "nonsense"}, "device: nonsense cannot be used"),
        ({"transform": 3}, "transform must be a function"),
        ({"labels_getter": None}, 'labels_getter must be "default" or a function'),
        ({"labels_getter": "labels"}, "labels_getter must be"),
        ({"source": None}, "source must be a bank or a model that can sample"),
        ({"source": TensorDataset(torch.zeros(1))}, "source must be a bank or a model that can sample"),
        ({"classes": "ant"}, "classes must be a list of names or indices, or a dict to weights, got 'ant'"),
        ({"classes": []}, "classes must be a list"),
        ({"classes": 1}, "classes must be a list"),
        ({"classes": ["dog"]}, "classes must be of the source, got 'dog'"),
        ({"classes": [3]}, "classes must be of the source, got 3"),
        ({"classes": [-1]}, "classes must be of the source, got -1"),
        ({"classes": [True]}, "classes must be of the source, got True"),
        ({"classes": {"ant": -1}}, "weights of classes must be numbers of at least 0, got -1"),
        ({"classes": {"ant": float("inf")}}, "weights of classes must be numbers of at least 0, got inf"),
        ({"classes": {"ant": 0}}, "classes must have a weight above 0"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], message: str, bank: SampleBank) -> None:
    given = {"loader": stored(), "source": bank, "fraction": 0.5, **arguments}
    with pytest.raises(GenaugError, match=f"^{message}") as caught:
        MixedLoader(given.pop("loader"), given.pop("source"), **given)
    assert "\n" not in str(caught.value)


def test_classes_without_samples() -> None:
    with pytest.raises(DataError, match="source must have samples of classes, it has none of 'bee'"):
        MixedLoader(stored(), make_bank({"ant": 3}), fraction=0.5, classes=["ant", "bee"])
    MixedLoader(stored(), make_bank({"ant": 3}), fraction=0.5, classes={"ant": 1, "bee": 0})


# --- GPU


def test_a_gpu_where_cuda_is_not_initialized_is_a_fork() -> None:
    if torch.cuda.is_initialized():
        pytest.skip("CUDA is initialized in this process")
    message = "^model: a model on a GPU cannot run in a forked worker; leave it on the CPU, make a SampleBank, "
    with pytest.raises(GenaugError, match=message) as caught:
        check_process(torch.device("cuda"))
    assert "\n" not in str(caught.value)
    check_process(torch.device("cpu"))


@needs_gpu
def test_a_gpu_where_cuda_is_initialized_may_be_used() -> None:
    torch.zeros(1, device="cuda")
    check_process(torch.device("cuda"))


@needs_gpu
@pytest.mark.parametrize("make", [lambda vae: Reconstruct(vae, p=1.0), lambda vae: ReplaceWithSynthetic(vae, 0.5)])
def test_a_model_on_a_gpu_in_a_forked_worker(make: Any, vae: VAE, digits: Any) -> None:
    transform = make(copy.deepcopy(vae).cuda())
    batches = [(digits.images[:8], digits.labels[:8])]
    options: dict[str, Any] = {"batch_size": None, "num_workers": 1, "multiprocessing_context": "fork"}
    loader = DataLoader(batches, **options, collate_fn=transform, generator=seeded())
    with pytest.raises(GenaugError, match="a model on a GPU cannot run in a forked worker"):
        list(loader)


@needs_gpu
@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("classes", [None, ["cat"]])
def test_batches_arrive_on_the_gpu(pinned: bool, ahead: int, classes: Any, bank: SampleBank) -> None:
    expected = epochs_of(MixedLoader(make_loader(shuffle=True), bank, fraction=0.3, classes=classes))
    loader = make_loader(shuffle=True, pin_memory=pinned)
    mixed = MixedLoader(loader, bank, fraction=0.3, classes=classes, ahead=ahead, device="cuda")
    for epoch in expected:
        found = list(mixed)
        assert all(part.device.type == "cuda" for batch in found for part in batch)
        assert same([(images.cpu(), labels.cpu()) for images, labels in found], epoch)


@needs_gpu
@pytest.mark.parametrize(
    ("given", "device", "result"),
    [("cpu", None, "cpu"), ("cpu", "cuda", "cuda"), ("cpu", "cpu", "cpu"), ("cuda", None, "cuda"),
     ("cuda", "cuda", "cuda"), ("cuda", "cpu", "cpu")],
)  # fmt: skip
def test_a_model_on_a_gpu(given: str, device: str | None, result: str, vae: VAE, digits: Any) -> None:
    images = digits.images[:64].float() / 255
    loader = list(zip(images.split(16), digits.labels[:64].split(16), strict=True))
    expected = list(MixedLoader(loader, vae, fraction=0.5))
    model = copy.deepcopy(vae).cuda()
    moved = [(images.to(given), labels.to(given)) for images, labels in loader]
    found = list(MixedLoader(moved, model, fraction=0.5, device=device))
    assert all(images.device.type == labels.device.type == result for images, labels in found)
    for (images, labels), (wanted, kept) in zip(found, expected, strict=True):
        torch.testing.assert_close(images.cpu(), wanted, atol=1 / 255, rtol=0)
        assert torch.equal(labels.cpu(), kept)


@needs_gpu
@pytest.mark.usefixtures("clean")
def test_a_consumer_that_is_busy_on_the_gpu_reads_whole_batches(vae: VAE, digits: Any) -> None:
    images, labels = digits.images[:1024], digits.labels[:1024]
    loader = list(zip(images.split(64), labels.split(64), strict=True))
    model = copy.deepcopy(vae).cuda()
    expected = list(MixedLoader(loader, model, fraction=0.5, ahead=0, device="cuda"))
    torch.cuda.synchronize()
    work = torch.rand(2048, 2048, device="cuda")
    found = []
    for batch, _ in MixedLoader(loader, model, fraction=0.5, ahead=3, device="cuda"):
        for _ in range(5):
            work = (work @ work).tanh()
        found.append(batch.float().sum((1, 2, 3)))
        del batch
    for sums, (wanted, _) in zip(found, expected, strict=True):
        torch.testing.assert_close(sums, wanted.float().sum((1, 2, 3)), atol=64, rtol=0)


def test_classes_in_another_order_are_refused(bank: SampleBank) -> None:
    data = TensorDataset(pixels(8), classes_of(8))
    data.classes = list(bank.spec.class_names)
    assert len(MixedLoader(DataLoader(data, batch_size=4), bank, fraction=0.5)) == 2
    data.classes = list(reversed(bank.spec.class_names))
    with pytest.raises(DataError, match="classes of the loader's data set in their order"):
        MixedLoader(DataLoader(Subset(data, [0, 1]), batch_size=4), bank, fraction=0.5)


def test_stop_iteration_in_the_users_code_does_not_end_the_epoch(bank: SampleBank) -> None:
    calls: list[int] = []

    def getter(batch: Any) -> Any:
        calls.append(1)
        return next(iter([])) if len(calls) == 3 else batch[1]

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(MixedLoader(stored(), bank, fraction=0.5, labels_getter=getter))


def test_a_stream_of_hugging_face_without_known_features(bank: SampleBank) -> None:
    from datasets import Dataset

    images = (pixels(8) / 255).tolist()
    rows = Dataset.from_dict({"image": images, "label": classes_of(8).tolist()}).to_iterable_dataset()
    stream = rows.map(lambda row: {**row, "image": row["image"]}).with_format("torch")
    assert stream.features is None
    (batch,) = MixedLoader(DataLoader(stream, batch_size=8, generator=seeded()), bank, fraction=1.0)
    assert batch["image"].shape == (8, *pixels(1).shape[1:])


def test_labels_that_are_made_and_not_in_the_batch(bank: SampleBank) -> None:
    loader = [{"image": pixels(8), "kind": classes_of(8)}]
    options: dict[str, Any] = {"fraction": 0.5, "labels_getter": lambda batch: batch["kind"] + 0, "device": "cpu"}
    (batch,) = MixedLoader(loader, bank, **options)
    assert batch["kind"] is loader[0]["kind"]
    with pytest.raises(DataError, match="labels_getter must return a tensor of the batch itself"):
        list(MixedLoader(loader, bank, classes=[0], **options))
