"""Banks: what is drawn, what is stored, how damage shows, and exports read by the libraries they are for."""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from genaug.bank import RefreshingBank, SampleBank
from genaug.bank.drawing import known_classes
from genaug.bank.exports import is_safe_folder
from genaug.bank.sampling import write_samples
from genaug.bank.selection import Selection, Tally
from genaug.checkpoint import make_header
from genaug.data import LabeledImages, load_data
from genaug.errors import DataError, DataWarning, GenaugError
from genaug.evaluate import audit_copies
from genaug.evaluate.plots import plot_fidelity
from genaug.models import GAN, VAE, GANConfig, VAEConfig
from genaug.spec import DataSpec
from genaug.storage import hash_file
from genaug.transforms import ReplaceWithSynthetic

NAMES = ("ant", "bee", "cat")
SPEC = DataSpec(channels=3, height=6, width=5, class_names=NAMES)


class LinearSource(nn.Module):
    """Decodes seeded noise with one linear layer and adds to it by class; the batch decides what a row gets."""

    def __init__(self, spec: DataSpec = SPEC) -> None:
        super().__init__()
        self.spec = spec
        self.shape = (spec.channels, spec.height or 6, spec.width or 5)
        self.draws = 0
        self.linear = nn.utils.skip_init(nn.Linear, 4, int(np.prod(self.shape)))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        self.draws += len(labels)
        noise = torch.randn(len(labels), 4, generator=generator) + labels[:, None]
        return self.linear(noise).sigmoid().reshape(-1, *self.shape)


class FixedSource:
    """Returns what it is told to, whatever the labels."""

    def __init__(self, images: Any, spec: DataSpec = SPEC) -> None:
        self.images, self.spec = images, spec

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Any:
        return self.images


def bright(images: Tensor, labels: Tensor) -> Tensor:
    return images.float().mean((1, 2, 3)) > 127


def make(counts: Any = (3, 0, 5), **options: Any) -> SampleBank:
    return SampleBank.generate(LinearSource(), counts, seed=7, progress=False, **options)


def all_images(bank: SampleBank) -> Tensor:
    return bank.images(range(len(bank)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make(path=tmp_path / "bank")
    return tmp_path / "bank"


# --- what is drawn


@pytest.mark.parametrize(
    ("counts", "expected"), [(4, [4, 4, 4]), ({"bee": 2}, [0, 2, 0]), ([1, 2, 3], [1, 2, 3]), ((0, 0, 1), [0, 0, 1])]
)
def test_counts_in_every_form(counts: Any, expected: list[int]) -> None:
    bank = make(counts)
    assert bank.counts == expected
    assert bank.labels.tolist() == [index for index, count in enumerate(expected) for _ in range(count)]
    assert len(bank) == sum(expected)
    assert [bank.rows(index)[1] - bank.rows(index)[0] for index in range(3)] == expected


def test_samples_are_those_of_the_source_in_whole_chunks() -> None:
    from genaug.seeding import make_generator

    bank, source = make([0, 130, 0]), LinearSource()
    sizes = [8, 8, 16, 32, 64, 128]
    with torch.no_grad():
        chunks = [
            source.sample(torch.ones(size).long(), generator=make_generator(7, "bank", 1, k))
            for k, size in enumerate(sizes)
        ]
    expected = np.rint(torch.cat(chunks)[:130].double().numpy() * 255).astype(np.uint8)
    difference = np.abs(all_images(bank).numpy().astype(int) - expected.astype(int))
    assert difference.max() <= 1  # float32 rounds a tie in another way than float64 does
    assert (difference == 0).mean() > 0.999


@pytest.mark.parametrize("count", [1, 5, 8, 9, 16, 17, 33, 100, 128, 129, 257, 500])
def test_little_is_drawn_in_vain(count: int) -> None:
    source = LinearSource()
    SampleBank.generate(source, [count, 0, count], seed=0, progress=False)
    assert 2 * count <= source.draws < 2 * (2 * count + 8)


def test_many_classes_with_few_samples_draw_few() -> None:
    source = LinearSource(DataSpec(3, 6, 5, tuple(map(str, range(1000)))))
    assert len(SampleBank.generate(source, 5, seed=0, progress=False)) == 5000
    assert source.draws == 8000


@pytest.mark.parametrize("counts", [[5, 0, 130], [8, 8, 9], [16, 0, 64], [17, 20, 131]])
def test_larger_bank_starts_with_the_smaller_one(counts: list[int]) -> None:
    small, large = make(counts), make([300, 20, 131])
    for index in (0, 2):
        start, stop = small.rows(index)
        first, _ = large.rows(index)
        assert torch.equal(small.images(range(start, stop)), large.images(range(first, first + stop - start)))


def test_larger_bank_starts_with_the_smaller_one_with_filters() -> None:
    small, large = make([20, 3, 0], filters=[bright]), make([150, 3, 9], filters=[bright])
    assert torch.equal(small.images(range(20)), large.images(range(20)))


def test_seed_decides() -> None:
    other = SampleBank.generate(LinearSource(), 4, seed=8, progress=False)
    assert torch.equal(all_images(make(4)), all_images(make(4)))
    assert not torch.equal(all_images(make(4)), all_images(other))


def test_uint8_source_and_bank_as_source() -> None:
    levels = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 3, 6, 5)
    first = SampleBank.generate(FixedSource(levels), 3, seed=0, progress=False)
    assert all_images(first)[:, 0, 0, 0].tolist() == [0, 1, 2] * 3
    second = SampleBank.generate(first, [0, 0, 4], seed=0, progress=False)
    assert set(all_images(second)[:, 0, 0, 0].tolist()) <= {0, 1, 2}
    assert second.provenance.source == "SampleBank"


def test_source_without_a_fixed_size() -> None:
    bank = SampleBank.generate(LinearSource(DataSpec(3, class_names=NAMES)), 2, seed=7, progress=False)
    assert bank.spec == SPEC
    assert torch.equal(all_images(bank), all_images(make(2)))


def test_filters_accept_and_are_recorded(tmp_path: Path) -> None:
    bank = make([10, 10, 0], filters=[bright], path=tmp_path / "bank")
    assert bright(all_images(bank), bank.labels).all()
    assert bank.provenance.filters == ("bright",)
    rates = bank.provenance.acceptance
    assert rates[2] is None
    wide = make([128, 128, 0])  # without filters
    for index in range(2):
        passed = bright(wide.images(range(*wide.rows(index))), torch.zeros(128)).long().cumsum(0)
        drawn = next(size for size in (8, 16, 32, 64, 128) if passed[size - 1] >= 10)
        assert rates[index] == pytest.approx(int(passed[drawn - 1]) / drawn)


def test_a_filter_that_rejects_a_whole_chunk(tmp_path: Path) -> None:
    calls: list[int] = []

    def second_time(images: Tensor, labels: Tensor) -> Tensor:
        calls.append(len(images))
        return torch.full((len(images),), len(calls) % 2 == 0)

    for path in (None, tmp_path / "bank"):
        calls.clear()
        bank = SampleBank.generate(LinearSource(), 3, seed=0, filters=[second_time], path=path, progress=False)
        assert bank.counts == [3] * len(SPEC.class_names)


def test_filters_that_reject_all() -> None:
    source = LinearSource()
    with pytest.raises(DataError, match=r"filters accept too few .* 'bee': 0 of 256 drawn, 2 wanted; loosen"):
        SampleBank.generate(source, {"bee": 2}, seed=0, filters=[lambda images, labels: labels > 5], progress=False)
    assert source.draws == 256


def test_the_error_says_what_each_filter_accepts() -> None:
    def first_of_all(images: Tensor, labels: Tensor) -> Tensor:
        return torch.arange(len(images)) % 8 == 0

    def none(images: Tensor, labels: Tensor) -> Tensor:
        return torch.zeros(len(images), dtype=torch.bool)

    with pytest.raises(DataError, match="accepted by each: first_of_all 12.5%, none 0.0%"):
        make([0, 1, 0], filters=[first_of_all, none])


def test_filters_may_reject_whole_chunks(tmp_path: Path) -> None:
    def late(images: Tensor, labels: Tensor) -> Tensor:
        return torch.full((len(images),), len(images) > 8)

    memory, disk = make([20, 3, 0], filters=[late]), make([20, 3, 0], filters=[late], path=tmp_path / "bank")
    assert torch.equal(all_images(memory), all_images(disk))
    assert memory.provenance.acceptance == disk.provenance.acceptance == (0.75, 0.5, None)


# --- fewer samples than wanted


def scarce(images: Tensor, labels: Tensor) -> Tensor:
    """All of class 0, and of the others the first in every chunk of 128."""
    return (labels == 0) | ((torch.arange(len(images)) == 0) & (len(images) == 128))


def test_fewer_samples_where_filters_reject_nearly_all(tmp_path: Path) -> None:
    # 300 and 200 samples of classes 1 and 2 are drawn at most, in chunks of 8, 8, 16, 32, 64, 128, 128
    expected = (
        r"fewer samples than wanted of 2 of 3 classes: 'bee' 2 of 3 wanted \(384 drawn; accepted by scarce 0.5%\), "
        r"'cat' 1 of 2 wanted \(256 drawn; accepted by scarce 0.4%\); loosen"
    )
    banks = []
    for path in (None, tmp_path / "bank"):
        with pytest.warns(DataWarning, match=expected) as caught:
            banks.append(make([5, 3, 2], filters=[scarce], short="fewer", path=path))
        assert [warning.filename for warning in caught] == [__file__]
    memory, disk = banks
    assert memory.counts == disk.counts == [5, 2, 1]
    assert memory.labels.tolist() == disk.labels.tolist() == [0] * 5 + [1] * 2 + [2]
    assert memory.provenance.counts == (5, 2, 1)
    assert memory.provenance.acceptance == disk.provenance.acceptance == (1.0, 2 / 384, 1 / 256)
    assert torch.equal(all_images(memory), all_images(disk))
    wide = make([5, 500, 300])
    rows = [*range(5), 5 + 128, 5 + 256, 505 + 128]  # the first of a class's sixth chunk is its 129th sample
    assert torch.equal(all_images(memory), wide.images(rows))
    reopened = SampleBank.open(tmp_path / "bank")  # compares the hash
    assert torch.equal(all_images(reopened), all_images(memory))
    assert torch.equal(load_file(tmp_path / "bank" / "images.safetensors")["images"], all_images(memory))
    assert sorted(file.name for file in (tmp_path / "bank").iterdir()) == ["images.safetensors", "provenance.json"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["bank"]


def test_a_class_of_which_nothing_is_found(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match=r"1 of 3 classes: 'cat' 0 of 2 wanted \(256 drawn; .* 0.0%\); loosen"):
        bank = make([2, 0, 2], filters=[lambda images, labels: labels == 0], short="fewer", path=tmp_path / "bank")
    assert bank.counts == [2, 0, 0]
    assert bank.provenance.acceptance == (1.0, None, 0.0)
    with pytest.raises(DataError, match="has none of"):
        bank.sample(torch.tensor([2]))


def test_no_sample_of_any_class_is_an_error(tmp_path: Path) -> None:
    for path in (None, tmp_path / "bank"):
        with pytest.raises(DataError, match=r"no sample of any class: 0 of 512 drawn, 4 wanted; loosen"):
            make([2, 0, 2], filters=[lambda images, labels: labels > 5], short="fewer", path=path)
    assert list(tmp_path.iterdir()) == []


def test_a_warning_names_at_most_ten_classes() -> None:
    source = LinearSource(DataSpec(3, 6, 5, tuple(f"c{index}" for index in range(14))))
    with pytest.warns(
        DataWarning, match=r"of 13 of 14 classes: 'c1' 0 .* 'c10' 0 of 1 wanted \(128 drawn; .*\), and 3 more;"
    ):
        SampleBank.generate(
            source, 1, seed=0, filters=[lambda images, labels: labels == 0], short="fewer", progress=False
        )


def test_fewer_changes_nothing_where_enough_are_found(tmp_path: Path) -> None:
    bank = make([10, 10, 0], filters=[bright], short="fewer", path=tmp_path / "bank")  # warnings are errors
    expected = make([10, 10, 0], filters=[bright])
    assert torch.equal(all_images(bank), all_images(expected))
    assert bank.provenance.acceptance == expected.provenance.acceptance


def test_what_to_do_when_short_is_one_of_two(tmp_path: Path) -> None:
    for path in (None, tmp_path / "bank"):
        with pytest.raises(DataError, match="short must be 'error' or 'fewer', got 'less'"):
            make(short="less", path=path)
    assert list(tmp_path.iterdir()) == []


def test_memory_stays_bounded_where_fewer_are_found(tmp_path: Path) -> None:
    """96 MiB of found samples, and room for twice as many, must not take more of the heap than some chunks."""
    script = """
import resource, sys, torch, warnings
from pathlib import Path
from types import SimpleNamespace
from genaug.bank import RefreshingBank, SampleBank
from genaug.bank.drawing import known_classes
from genaug.spec import DataSpec

def sample(labels, *, generator=None):
    return torch.zeros(len(labels), 3, 128, 128, dtype=torch.uint8)

def write(name, count):
    source = SimpleNamespace(spec=DataSpec(3, 128, 128, ("a",)), sample=sample)
    half = lambda images, labels: torch.arange(len(images)) % 2 == 0
    return SampleBank.generate(
        source, count, seed=0, filters=[half], short="fewer", max_draws=1, path=Path(sys.argv[1], name), progress=False
    )

warnings.simplefilter("ignore")
write("small", 384)
heap = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, ((heap + 48 * 1024) * 1024,) * 2)  # bytes; mapped files do not count
print(len(write("large", 4096)))
"""
    result = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert int(result.stdout) == 2048


# --- how many are drawn, and what of them each filter accepts


def test_at_most_as_many_are_drawn_as_allowed(tmp_path: Path) -> None:
    for path in (None, tmp_path / "bank"):
        source = LinearSource()
        with pytest.raises(
            DataError, match=r"'bee': 2 of 64 drawn, 4 wanted; .* raise max_draws \(12\), ask for fewer"
        ):
            SampleBank.generate(
                source, {"bee": 4}, seed=0, filters=[first_of_wide], path=path, progress=False, max_draws=12
            )
        assert source.draws == 8 + 8 + 16 + 32  # 12 x 4 = 48 are not reached before the last of these chunks
    assert list(tmp_path.iterdir()) == []
    source = LinearSource()
    bank = SampleBank.generate(source, {"bee": 4}, seed=0, filters=[first_of_wide], progress=False, max_draws=33)
    assert (bank.counts[1], source.draws) == (4, 8 + 8 + 16 + 32 + 64 + 128)


def first_of_wide(images: Tensor, labels: Tensor) -> Tensor:
    """The first of every chunk of at least 16."""
    return (torch.arange(len(images)) == 0) & (len(images) >= 16)


@pytest.mark.parametrize("max_draws", [0, -1, 1.5, True, "9", None])
def test_a_number_of_draws_that_is_none(max_draws: Any, tmp_path: Path) -> None:
    for path in (None, tmp_path / "bank"):
        with pytest.raises(DataError, match=r"max_draws must be an integer of at least 1, .* got"):
            make(max_draws=max_draws, path=path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("filters", [bright, [bright, 3], None, {bright}, "bright"])
def test_filters_must_be_a_list(filters: Any) -> None:
    with pytest.raises(DataError, match="filters must be a list of functions or filters, got"):
        make(filters=filters)


def test_acceptance_of_each_filter_is_stored(tmp_path: Path) -> None:
    def even(images: Tensor, labels: Tensor) -> Tensor:
        return torch.arange(len(images)) % 2 == 0

    def some(images: Tensor, labels: Tensor) -> Tensor:
        return torch.arange(len(images)) % 8 < 3 + labels

    bank = make([20, 0, 3], filters=[even, some, even], path=tmp_path / "bank")
    # 20 of class 0 need all of 8, 8, 16, 32, 64, of which 0 and 2 of each 8 pass; 3 of class 2 need the first 8
    assert bank.provenance.acceptance == (0.25, None, 3 / 8)
    found = [(one.name, one.rates) for one in bank.provenance.filter_acceptance]
    assert found == [("even", (0.5, None, 0.5)), ("some", (3 / 8, None, 5 / 8)), ("even", (0.5, None, 0.5))]
    assert SampleBank.open(tmp_path / "bank").provenance == bank.provenance
    assert json.loads((tmp_path / "bank/provenance.json").read_text())["filter_acceptance"][1] == {
        "name": "some",
        "rates": [0.375, None, 0.625],
    }
    bank.export(tmp_path / "copy", format="bank")
    assert SampleBank.open(tmp_path / "copy").provenance == bank.provenance
    memory = make([20, 0, 3], filters=[even, some, even])
    assert memory.provenance.filter_acceptance == bank.provenance.filter_acceptance


def test_acceptance_of_each_filter_where_fewer_are_found(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="accepted by scarce 0.5%, bright"):
        bank = make([5, 3, 2], filters=[scarce, bright], short="fewer", path=tmp_path / "bank")
    wide = make([0, 384, 0])
    own = float(bright(all_images(wide), wide.labels).double().mean())
    assert [one.rates[1] for one in bank.provenance.filter_acceptance] == pytest.approx([2 / 384, own])
    assert SampleBank.open(tmp_path / "bank").provenance == bank.provenance


def test_banks_without_the_acceptance_of_each_filter_open(tmp_path: Path) -> None:
    bank = make([10, 10, 0], filters=[bright], path=tmp_path / "bank")
    values = json.loads((tmp_path / "bank/provenance.json").read_text())
    del values["filter_acceptance"]
    (tmp_path / "bank/provenance.json").write_text(json.dumps(values))
    older = SampleBank.open(tmp_path / "bank")
    assert older.provenance.filter_acceptance == ()
    assert older.provenance.acceptance == bank.provenance.acceptance
    older.export(tmp_path / "copy", format="bank")
    assert SampleBank.open(tmp_path / "copy").provenance == older.provenance


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([{"name": "dark", "rates": [0.5, 0.5, None]}], "must be of the filters .*bright.*, got .*dark"),
        ([{"name": "bright", "rates": [0.5, 0.5, None]}] * 2, "must be of the filters"),
        ([{"name": "bright", "rates": [0.5, 0.5]}], "one rate for each of 3 classes, got 2"),
        ([{"name": "bright", "rates": [0.5, 1.5, None]}], "from 0 to 1, or null"),
        ([{"name": "bright", "rates": [0.5, -0.5, None]}], "from 0 to 1, or null"),
        ([{"name": "bright", "rates": [0.5, "1", None]}], "rates"),
        ([{"name": "bright", "rates": [0.5, True, None]}], "rates"),
        ([{"name": "bright"}], "rates"),
        ([{"name": "bright", "rates": [0.5, 0.5, None], "more": 1}], "more"),
        ({"bright": [0.5, 0.5, None]}, "filter_acceptance"),
        (None, "filter_acceptance"),
    ],
)
def test_bad_acceptance_of_filters(value: Any, message: str, tmp_path: Path) -> None:
    make([10, 10, 0], filters=[bright], path=tmp_path / "bank")
    edit(tmp_path / "bank", filter_acceptance=value)
    with pytest.raises(DataError, match=message) as problem:
        SampleBank.open(tmp_path / "bank")
    assert str(problem.value).startswith(f"{tmp_path / 'bank/provenance.json'}.filter_acceptance")


def test_filters_say_which_classes_they_know_before_any_sample_is_drawn(tmp_path: Path) -> None:
    class Known:
        spec = SPEC

        def check_classes(self, classes: Tensor) -> None:
            if 1 in classes:
                raise DataError("data must have images of bees")

        def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
            return torch.ones(len(images), dtype=torch.bool)

    source = LinearSource()
    for path in (None, tmp_path / "bank"):
        with pytest.raises(DataError, match="images of bees"):
            SampleBank.generate(source, 1, seed=0, filters=[Known()], path=path, progress=False)
    assert source.draws == 0
    assert make([2, 0, 2], filters=[Known()]).counts == [2, 0, 2]


def test_filters_of_other_classes_are_refused(tmp_path: Path) -> None:
    class Known:
        spec = DataSpec(3, 6, 5, ("bee", "ant", "cat"))

        def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
            return torch.ones(len(images), dtype=torch.bool)

    source = LinearSource()
    for path in (None, tmp_path / "bank"):
        with pytest.raises(
            DataError, match="classes of source in the same order, .*'ant', 'bee'.* got Known of .*'bee', 'ant'"
        ):
            SampleBank.generate(source, 1, seed=0, filters=[Known()], path=path, progress=False)
    assert source.draws == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "mask", [torch.ones(3, dtype=torch.bool), torch.ones(8), [True] * 8], ids=["length", "dtype", "type"]
)
def test_filter_with_a_wrong_mask(mask: Any) -> None:
    with pytest.raises(DataError, match="filters must return a bool tensor of shape"):
        make(1, filters=[lambda images, labels: mask])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((8, 3, 6, 5), float("nan")), "finite and within"),
        (torch.full((8, 3, 6, 5), 1.5), r"within \[0, 1\]"),
        (torch.zeros(8, 3, 6, 6), "of size 3x6x5, got 3x6x6"),
        (torch.zeros(8, 1, 6, 5), "3 channels, got 1"),
        (torch.zeros(7, 3, 6, 5), "as many as the labels"),
        (torch.zeros(3, 6, 5), "as many as the labels"),
        (torch.zeros(8, 3, 6, 5, dtype=torch.int64), "uint8"),
        (np.zeros((8, 3, 6, 5), dtype=np.uint8), "must be a tensor"),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
def test_source_with_unusable_images(images: Any, message: str, stored: bool, tmp_path: Path) -> None:
    target = tmp_path / "bank" if stored else None
    with pytest.raises(DataError, match=message):
        SampleBank.generate(FixedSource(images), 1, seed=0, path=target, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "counts", "seed", "message"),
    [
        (object(), 1, 0, "source must be a bank or a model"),
        (FixedSource(None, DataSpec(3)), 1, 0, "names of its classes"),
        (LinearSource(), 0, 0, "at least one sample"),
        (LinearSource(), -1, 0, "at least 0"),
        (LinearSource(), [1, 2], 0, "one number for each of 3 classes"),
        (LinearSource(), {"dog": 1}, 0, "unknown classes"),
    ],
)
def test_wrong_requests(source: Any, counts: Any, seed: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SampleBank.generate(source, counts, seed=seed, progress=False)


@pytest.mark.parametrize("seed", ["a", 1.5, True, None])
def test_wrong_seeds(seed: Any, tmp_path: Path) -> None:
    for path in (None, tmp_path / "bank"):
        with pytest.raises(GenaugError, match="seed must be an integer, such as 0, got"):
            SampleBank.generate(LinearSource(), 1, seed=seed, path=path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_seed_of_numpy_is_stored(tmp_path: Path) -> None:
    bank = SampleBank.generate(LinearSource(), 3, seed=np.int64(7), path=tmp_path / "bank", progress=False)  # type: ignore[arg-type]
    assert torch.equal(all_images(bank), all_images(make(3)))
    assert SampleBank.open(tmp_path / "bank").provenance.seed == 7


# --- what is stored


def test_bank_on_disk_equals_the_one_in_memory(path: Path) -> None:
    memory, disk = make(), SampleBank.open(path)
    assert torch.equal(all_images(memory), all_images(disk))
    assert memory.spec == disk.spec == SPEC
    assert disk.path == path
    assert memory.path is None


def test_file_is_what_safetensors_reads(path: Path) -> None:
    tensors = load_file(path / "images.safetensors")
    bank = SampleBank.open(path)
    assert torch.equal(tensors["images"], all_images(bank))
    assert torch.equal(tensors["labels"], bank.labels)


def test_provenance_says_where_samples_come_from(path: Path) -> None:
    import genaug

    values = json.loads((path / "provenance.json").read_text())
    source = LinearSource()
    assert values["images_sha256"] == hashlib.sha256((path / "images.safetensors").read_bytes()).hexdigest()
    assert values["source_sha256"] == hashlib.sha256(save(dict(source.state_dict()))).hexdigest()
    assert values["source"] == "LinearSource"
    assert (values["seed"], values["counts"], values["acceptance"]) == (7, [3, 0, 5], [1.0, None, 1.0])
    assert values["versions"] == {"genaug": genaug.__version__, "torch": torch.__version__}
    assert DataSpec(**values["spec"]) == SPEC


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_the_hash_of_a_model_is_that_of_its_file_of_weights(tmp_path: Path, memory_format: torch.memory_format) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VAE(SPEC, VAEConfig(width=8, hidden=8, latent_dim=2)).to(memory_format=memory_format).eval()
    model.save(tmp_path / "model")
    for source in (model, VAE.from_pretrained(tmp_path / "model")):
        bank = SampleBank.generate(source, 1, seed=0, progress=False)
        assert bank.provenance.source_sha256 == hash_file(tmp_path / "model" / "model.safetensors")


def test_images_are_new_writable_tensors(path: Path) -> None:
    bank = SampleBank.open(path)
    rows = bank.images(torch.tensor([4, 0, 4]))
    expected = load_file(path / "images.safetensors")["images"][[4, 0, 4]]
    assert torch.equal(rows, expected)
    rows.zero_()
    assert torch.equal(bank.images([4, 0, 4]), expected)
    assert bank.images([]).shape == (0, 3, 6, 5)


@pytest.mark.parametrize("rows", [[-1], [8], torch.tensor([0, 99])])
def test_rows_out_of_range(rows: Any) -> None:
    with pytest.raises(DataError, match="rows must be from 0 to 7"):
        make().images(rows)


def test_class_out_of_range() -> None:
    with pytest.raises(DataError, match="class_index must be from 0 to 2, got 3"):
        make().rows(3)


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """Streaming 192 MiB must not take much more memory than a chunk; measured in a process of its own."""
    script = """
import resource, sys, torch
from pathlib import Path
from types import SimpleNamespace
from genaug.bank import RefreshingBank, SampleBank
from genaug.bank.drawing import known_classes
from genaug.spec import DataSpec

def sample(labels, *, generator=None):
    return torch.zeros(len(labels), 3, 64, 64, dtype=torch.uint8)

source = SimpleNamespace(spec=DataSpec(3, 64, 64, ("a",)), sample=sample)
SampleBank.generate(source, 128, seed=0, path=Path(sys.argv[1], "small"), progress=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
SampleBank.generate(source, 16384, seed=0, path=Path(sys.argv[1], "large"), progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    result = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 32 * 1024  # KiB


def test_full_disk_shows_before_anything_is_drawn(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
from types import SimpleNamespace
from genaug.bank import RefreshingBank, SampleBank
from genaug.bank.drawing import known_classes
from genaug.errors import GenaugError
from genaug.spec import DataSpec

def sample(labels, *, generator=None):
    raise AssertionError("drawn")

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
source = SimpleNamespace(spec=DataSpec(3, 64, 64, ("a",)), sample=sample)
try:
    SampleBank.generate(source, 128, seed=0, path=Path(sys.argv[1], "bank"), progress=False)
except GenaugError as problem:
    print(problem)
"""
    result = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert "cannot be written (File too large)" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_home_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    bank = make(path="~/bank")
    assert bank.path == tmp_path / "home" / "bank"
    assert torch.equal(all_images(SampleBank.open("~/bank")), all_images(bank))
    bank.export("~/copy", format="bank")
    bank.export(Path("~/out.parquet"), format="parquet")
    assert sorted(file.name for file in (tmp_path / "home").iterdir()) == ["bank", "copy", "out.parquet"]
    assert [file.name for file in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "a\0b", "x" * 300, 5, b"x"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_paths_that_cannot_be(path: Any, overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GenaugError, match="^[^\n]+$"):
        make(path=path)
    with pytest.raises(DataError, match="^[^\n]+$"):
        SampleBank.open(path)
    for format in ("bank", "imagefolder", "parquet"):
        with pytest.raises(GenaugError, match="^[^\n]+$"):
            make().export(path, format=format, overwrite=overwrite)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_kept(path: Path) -> None:
    before = (path / "images.safetensors").read_bytes()
    with pytest.raises(GenaugError, match="exists already"):
        make(9, path=path)
    assert (path / "images.safetensors").read_bytes() == before


# --- damage


def edit(path: Path, **fields: Any) -> None:
    file = path / "provenance.json"
    values = json.loads(file.read_text())
    for name, value in fields.items():
        values[name] = value
    file.write_text(json.dumps(values))


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("size", [0, 4, 8, 60, 200, -1])
def test_truncated_file(path: Path, size: int, verify: bool) -> None:
    file = path / "images.safetensors"
    os.truncate(file, size if size >= 0 else file.stat().st_size - 1)
    with pytest.raises(DataError, match="the bank is damaged"):
        SampleBank.open(path, verify=verify)


def test_longer_file(path: Path) -> None:
    with (path / "images.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="the bank is damaged"):
        SampleBank.open(path, verify=False)


def test_every_flipped_header_bit_and_some_of_the_data(path: Path) -> None:
    file = path / "images.safetensors"
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in [*range(header), header, header + 70, len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(DataError):
            SampleBank.open(path)


def test_flipped_label_shows_without_the_hash(path: Path) -> None:
    file = path / "images.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[8 + int.from_bytes(damaged[:8], "little")] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(DataError, match=r"labels differ from the counts"):
        SampleBank.open(path, verify=False)


@pytest.mark.parametrize("name", ["images.safetensors", "provenance.json"])
def test_half_written(path: Path, name: str) -> None:
    (path / name).unlink()
    with pytest.raises(DataError, match=f"{name}: no such file"):
        SampleBank.open(path)


def test_foreign_directories(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="no such"):
            SampleBank.open(folder)


@pytest.mark.parametrize(
    "tensors",
    [
        {"images": torch.zeros(8, 3, 6, 5, dtype=torch.uint8)},
        {"images": torch.zeros(8, 3, 6, 5, dtype=torch.uint8), "classes": torch.zeros(8, dtype=torch.int64)},
        {"images": torch.zeros(8, 3, 6, 5), "labels": torch.zeros(8, dtype=torch.int64)},
        {"images": torch.zeros(8, 3, 6, 5, dtype=torch.uint8), "labels": torch.zeros(8, dtype=torch.int32)},
        {"images": torch.zeros(8, 3, 5, 6, dtype=torch.uint8), "labels": torch.zeros(8, dtype=torch.int64)},
        {"images": torch.zeros(9, 3, 6, 5, dtype=torch.uint8), "labels": torch.zeros(9, dtype=torch.int64)},
    ],
    ids=["missing", "renamed", "float images", "int32 labels", "other size", "other number"],
)
def test_other_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, path / "images.safetensors")
    with pytest.raises(DataError, match="the bank is damaged"):
        SampleBank.open(path)


@pytest.mark.parametrize("labels", [[2, 2, 0, 0, 0, 2, 2, 2], [0, 0, 0, 1, 2, 2, 2, 2], [0, 0, 0, 2, 2, 2, 2, 9]])
def test_labels_that_differ_from_the_counts(path: Path, labels: list[int]) -> None:
    save_file(
        {"images": torch.zeros(8, 3, 6, 5, dtype=torch.uint8), "labels": torch.tensor(labels)},
        path / "images.safetensors",
    )
    edit(path, images_sha256=hashlib.sha256((path / "images.safetensors").read_bytes()).hexdigest())
    with pytest.raises(DataError, match="labels differ from the counts"):
        SampleBank.open(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"extra": 1},
        {"format_version": 2},
        {"seed": "0"},
        {"counts": [3, 5]},
        {"counts": [3, -1, 6]},
        {"counts": [0, 0, 0]},
        {"counts": [3, 0, 5.5]},
        {"counts": [3, 0, 2**60]},
        {"acceptance": [1.0]},
        {"filters": "bright"},
        {"images_sha256": None},
        {"images_sha256": "0" * 64},
        {"spec": {"channels": 3, "class_names": list(NAMES)}},
        {"spec": {**SPEC.to_dict(), "class_names": ["a", "a", "b"]}},
        {"spec": None},
        {"versions": []},
    ],
    ids=str,
)
def test_bad_provenance(path: Path, fields: dict[str, Any]) -> None:
    edit(path, **fields)
    with pytest.raises(DataError) as problem:
        SampleBank.open(path)
    assert "\n" not in str(problem.value)
    assert str(path) in str(problem.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seed": 1}', '{"seed": 1, "seed": 2}', "\x00" * 20, "[" * 10_000])
def test_malformed_provenance(path: Path, text: str) -> None:
    (path / "provenance.json").write_text(text)
    with pytest.raises(DataError):
        SampleBank.open(path)


def test_huge_header_allocates_nothing(path: Path) -> None:
    spec = {**SPEC.to_dict(), "height": 16_384, "width": 16_384}
    header, _ = make_header({"labels": (torch.int64, (8,)), "images": (torch.uint8, (8, 3, 16_384, 16_384))})
    (path / "images.safetensors").write_bytes(header)
    edit(path, spec=spec)
    with pytest.raises(DataError, match="bytes long by its header"):
        SampleBank.open(path)


# --- drawing from a bank


def test_sample_draws_rows_of_the_labels() -> None:
    bank = make([40, 0, 30])
    labels = torch.tensor([2, 0, 0, 2] * 500)
    images = bank.sample(labels, generator=torch.Generator().manual_seed(0))
    rows = {bytes(image.numpy()): row for row, image in enumerate(all_images(bank))}
    drawn = torch.tensor([rows[bytes(image.numpy())] for image in images])
    assert torch.equal(bank.labels[drawn], labels)
    counts = torch.bincount(drawn, minlength=70).double()
    chi_square = ((counts[:40] - 25).square() / 25).sum() + ((counts[40:] - 1000 / 30).square() / (1000 / 30)).sum()
    assert chi_square < 106  # 0.1 % quantile with 68 degrees of freedom: uniform
    assert torch.equal(images, bank.sample(labels, generator=torch.Generator().manual_seed(0)))


@pytest.mark.global_rng
def test_sample_without_a_generator_uses_the_global_one() -> None:
    bank = make()
    torch.manual_seed(3)
    first = bank.sample(torch.tensor([0, 2, 2]))
    torch.manual_seed(3)
    assert torch.equal(first, bank.sample(torch.tensor([0, 2, 2])))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1]), r"it has none of \['bee'\]"),
        (torch.tensor([3]), "from 0 to 2"),
        (torch.tensor([-1]), "from 0 to 2"),
        (torch.tensor([0.0]), "int64"),
        ([0], "int64"),
    ],
)
def test_sample_with_wrong_labels(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make().sample(labels, generator=torch.Generator())


def test_no_labels_no_samples() -> None:
    assert make().sample(torch.zeros(0, dtype=torch.int64), generator=torch.Generator()).shape == (0, 3, 6, 5)


# --- pickling


def test_pickled_as_its_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    bank = SampleBank.open("bank")
    data = pickle.dumps(bank)
    assert len(data) < 500
    monkeypatch.chdir("/")
    copy = pickle.loads(data)
    assert torch.equal(all_images(copy), all_images(bank))
    assert copy.path == path


def test_pickled_by_value_in_memory() -> None:
    bank = make()
    copy = pickle.loads(pickle.dumps(bank))
    assert torch.equal(all_images(copy), all_images(bank))
    assert copy.provenance == bank.provenance


def test_bank_replaced_while_in_use(path: Path) -> None:
    data = pickle.dumps(SampleBank.open(path))
    shutil.rmtree(path)
    with pytest.raises(DataError, match="no such directory"):
        pickle.loads(data)
    make([4, 0, 5], path=path)
    with pytest.raises(DataError, match="replaced by another one"):
        pickle.loads(data)


# --- exports


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_imagefolder_is_read_back_without_loss(tmp_path: Path, channels: int) -> None:
    from PIL import Image
    from torchvision.datasets import ImageFolder

    source = LinearSource(DataSpec(channels, 6, 5, NAMES))
    bank = SampleBank.generate(source, [3, 0, 2], seed=0, progress=False)
    bank.export(tmp_path / "out", format="imagefolder")
    read = ImageFolder(str(tmp_path / "out"), loader=lambda file: np.asarray(Image.open(file)))
    assert read.classes == ["ant", "cat"]
    pixels = np.stack([np.atleast_3d(image) for image, _ in read])
    assert np.array_equal(pixels.transpose(0, 3, 1, 2), all_images(bank).numpy())
    assert read.targets == [0, 0, 0, 1, 1]


def test_imagefolder_is_read_by_hugging_face(tmp_path: Path) -> None:
    from datasets import load_dataset

    bank = make([2, 1, 1])
    bank.export(tmp_path / "out", format="imagefolder")
    read = load_dataset("imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert read.features["label"].names == list(NAMES)
    assert read["label"] == [0, 0, 1, 2]
    pixels = np.stack([np.asarray(image) for image in read["image"]])
    assert np.array_equal(pixels.transpose(0, 3, 1, 2), all_images(bank).numpy())


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_parquet_is_read_back_without_loss(tmp_path: Path, channels: int) -> None:
    from datasets import load_dataset

    source = LinearSource(DataSpec(channels, 6, 5, ("a/b", "..", "x")))
    bank = SampleBank.generate(source, [130, 0, 2], seed=0, progress=False)
    bank.export(tmp_path / "out.parquet", format="parquet")
    read = load_dataset(
        "parquet", data_files=str(tmp_path / "out.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert read.features["label"].names == ["a/b", "..", "x"]
    assert read["label"] == bank.labels.tolist()
    pixels = np.stack([np.atleast_3d(np.asarray(image)) for image in read["image"]])
    assert np.array_equal(pixels.transpose(0, 3, 1, 2), all_images(bank).numpy())


def test_bank_is_copied(path: Path, tmp_path: Path) -> None:
    SampleBank.open(path).export(tmp_path / "disk", format="bank")
    make().export(tmp_path / "memory", format="bank")
    for copy in ("disk", "memory"):
        assert SampleBank.open(tmp_path / copy).provenance == SampleBank.open(path).provenance
        for name in ("images.safetensors", "provenance.json"):
            assert (tmp_path / copy / name).read_bytes() == (path / name).read_bytes()


def test_damage_is_not_copied(path: Path, tmp_path: Path) -> None:
    file = path / "images.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(DataError, match="differ from its hash"):
        SampleBank.open(path, verify=False).export(tmp_path / "copy", format="bank")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bank"]


@pytest.mark.parametrize("format", ["imagefolder", "bank", "parquet"])
def test_export_overwrites_only_when_told(tmp_path: Path, format: Any) -> None:
    target = tmp_path / "out"
    make([5, 1, 1]).export(target, format=format)
    before = snapshot(tmp_path)
    with pytest.raises(GenaugError, match="exists already"):
        make().export(target, format=format)
    assert snapshot(tmp_path) == before
    make().export(target, format=format, overwrite=True)
    make().export(tmp_path / "fresh", format=format)
    after = snapshot(tmp_path)
    assert {k.removeprefix("out"): v for k, v in after.items() if k.startswith("out")} == {
        k.removeprefix("fresh"): v for k, v in after.items() if k.startswith("fresh")
    }
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["fresh", "out"]


@pytest.mark.parametrize("format", ["imagefolder", "bank", "parquet"])
def test_overwriting_spares_what_is_no_export(tmp_path: Path, format: Any) -> None:
    (tmp_path / "home" / "letters").mkdir(parents=True)
    (tmp_path / "home" / "letters" / "love.txt").write_text("dear")
    before = snapshot(tmp_path)
    message = "home: is a folder, and parquet" if format == "parquet" else "holds more than an earlier export"
    with pytest.raises(GenaugError, match=message):
        make().export(tmp_path / "home", format=format, overwrite=True)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_folders_and_files_do_not_replace_each_other(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("dear")
    os.mkfifo(tmp_path / "pipe")
    bank = make()
    with pytest.raises(GenaugError, match="folder: is a folder, and parquet .* such as .*folder/samples.parquet$"):
        bank.export(tmp_path / "folder", format="parquet", overwrite=overwrite)
    for format in ("bank", "imagefolder"):
        with pytest.raises(GenaugError, match=f"file: is a file, and {format} is written as a folder; choose another"):
            bank.export(tmp_path / "file", format=format, overwrite=overwrite)  # type: ignore[arg-type]
    with pytest.raises(GenaugError, match="pipe: is a device, and parquet is written as a file"):
        bank.export(tmp_path / "pipe", format="parquet", overwrite=overwrite)
    assert snapshot(tmp_path) == {"file": b"dear"}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder", "pipe"]


@pytest.mark.parametrize("format", ["imagefolder", "bank"])
@pytest.mark.parametrize("kind", ["plain", "link", "current"])
def test_an_empty_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Any, kind: str) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    inode = (tmp_path / "target").stat().st_ino
    monkeypatch.chdir(tmp_path / "target")
    bank, path = make(), {"plain": tmp_path / "target", "link": tmp_path / "link", "current": Path(".")}[kind]
    bank.export(path, format=format)
    bank.export(tmp_path / "fresh", format=format)
    assert snapshot(tmp_path / "target") == snapshot(tmp_path / "fresh")
    assert (tmp_path / "target").stat().st_ino == inode
    bank.export(tmp_path / "link", format=format, overwrite=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["fresh", "link", "target"]
    assert (tmp_path / "link").is_symlink()


def test_unsafe_names_of_classes_without_samples_do_not_matter(tmp_path: Path) -> None:
    source = LinearSource(DataSpec(3, 6, 5, ("a/b", "ok")))
    SampleBank.generate(source, [0, 1], seed=0, progress=False).export(tmp_path / "out", format="imagefolder")
    assert sorted(snapshot(tmp_path / "out")) == ["ok/000000.png", "provenance.json"]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/b", "a\\b", "a\x00b", " a", "a.", "a:b", "x" * 300, "a\nb"])
def test_unsafe_class_names(tmp_path: Path, name: str) -> None:
    bank = SampleBank.generate(LinearSource(DataSpec(3, 6, 5, ("ok", name))), 1, seed=0, progress=False)
    with pytest.raises(DataError, match="safe names of folders"):
        bank.export(tmp_path / "out", format="imagefolder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["imagefolder", "parquet"])
def test_channels_that_png_does_not_have(tmp_path: Path, format: Any) -> None:
    bank = SampleBank.generate(LinearSource(DataSpec(2, 6, 5, NAMES)), 1, seed=0, progress=False)
    with pytest.raises(DataError, match="1, 3 or 4 channels, got 2"):
        bank.export(tmp_path / "out", format=format)
    bank.export(tmp_path / "out", format="bank")
    assert torch.equal(all_images(SampleBank.open(tmp_path / "out")), all_images(bank))


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="format must be one of imagefolder, bank, parquet, got 'zip'"):
        make().export(tmp_path / "out", format="zip")  # type: ignore[arg-type]


def test_failed_export_leaves_nothing(tmp_path: Path) -> None:
    script = """
import resource, signal, sys, torch
from pathlib import Path
from types import SimpleNamespace
from genaug.bank import RefreshingBank, SampleBank
from genaug.bank.drawing import known_classes
from genaug.errors import GenaugError
from genaug.spec import DataSpec
import datasets, pyarrow.parquet

def sample(labels, *, generator=None):
    return torch.rand(len(labels), 3, 64, 64, generator=generator)

source = SimpleNamespace(spec=DataSpec(3, 64, 64, ("a",)), sample=sample)
bank = SampleBank.generate(source, 8, seed=0, progress=False)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
for format in ("imagefolder", "bank", "parquet"):
    try:
        bank.export(Path(sys.argv[1], "out"), format=format)
    except GenaugError as problem:
        print(problem)
"""
    result = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert result.stdout.count("cannot be written") == 3
    assert list(tmp_path.iterdir()) == []


# --- straight into a format


def write(path: Path, source: Any, counts: Any, *, overwrite: bool = False, **options: Any) -> list[Tally]:
    return write_samples(path, source, counts, seed=7, overwrite=overwrite, progress=False, **options)


@pytest.mark.parametrize("format", ["imagefolder", "bank", "parquet"])
def test_samples_in_a_format_are_those_of_an_export(tmp_path: Path, format: Any) -> None:
    for source, counts in ((LinearSource(), [4, 0, 9]), (LinearSource(), [3, 0, 5])):
        found = write(tmp_path / "direct", source, counts, format=format, overwrite=True)
        assert [tally.found for tally in found] == counts
    make(path=tmp_path / "bank").export(tmp_path / "export", format=format)
    files = snapshot(tmp_path)
    direct, export = ({k[6:]: v for k, v in files.items() if k.startswith(name)} for name in ("direct", "export"))
    assert direct == export
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bank", "direct", "export"]


@pytest.mark.parametrize("format", ["imagefolder", "bank", "parquet"])
def test_a_selection_is_written_and_counted(tmp_path: Path, format: Any) -> None:
    selection = Selection([scarce], "fewer")
    tallies = write(tmp_path / "direct", LinearSource(), [5, 3, 0], format=format, selection=selection)
    assert tallies == [Tally(5, 5, 8, 8, (8,)), Tally(3, 2, 384, 2, (2,)), Tally(0, passed=(0,))]
    assert [tally.rates for tally in tallies] == [(1.0,), (2 / 384,), (None,)]
    with pytest.warns(DataWarning):
        make([5, 3, 0], filters=[scarce], short="fewer").export(tmp_path / "export", format=format)
    files = snapshot(tmp_path)
    assert len([file for file in files if file.startswith("direct")]) == len(files) // 2
    for name in [file for file in files if file.startswith("direct")]:
        assert files[name] == files["export" + name.removeprefix("direct")]


@pytest.mark.parametrize("format", ["imagefolder", "bank", "parquet"])
def test_what_an_inspection_finds_is_kept_with_the_samples(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, format: Any
) -> None:
    from datasets import load_dataset
    from torchvision.datasets import ImageFolder

    seen = []

    def inspect(bank: SampleBank) -> dict[str, Any]:
        seen.append(all_images(bank))
        assert not (tmp_path / "out").exists()
        return {"hash": bank.provenance.images_sha256}

    where = tmp_path / ("out.memorization.json" if format == "parquet" else "out/memorization.json")
    write(tmp_path / "out", LinearSource(), [3, 0, 5], format=format, inspect=inspect)
    assert torch.equal(seen[0], all_images(make()))
    make(path=tmp_path / "bank")
    assert json.loads(where.read_text()) == {"hash": SampleBank.open(tmp_path / "bank").provenance.images_sha256}
    if format == "imagefolder":
        read = load_dataset("imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path_factory.mktemp("hf")))
        assert len(read["train"]) == len(ImageFolder(tmp_path / "out")) == len(load_data(tmp_path / "out")) == 8
    elif format == "bank":
        assert torch.equal(all_images(SampleBank.open(tmp_path / "out")), seen[0])
    else:
        (tmp_path / "out").unlink()
        with pytest.raises(GenaugError, match="out.memorization.json: exists already"):
            write(tmp_path / "out", LinearSource(), 1, format=format)
    write(tmp_path / "out", LinearSource(), 1, format=format, overwrite=True)
    assert not where.exists()  # it was not of these samples
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bank", "out"]


@pytest.mark.parametrize(
    ("spec", "counts", "format", "message"),
    [
        (DataSpec(3, 6, 5, ("a/b", "ok")), 1, "imagefolder", "safe names of folders"),
        (DataSpec(2, 6, 5, NAMES), 1, "imagefolder", "1, 3 or 4 channels, got 2"),
        (DataSpec(2, 6, 5, NAMES), 1, "parquet", "1, 3 or 4 channels, got 2"),
        (SPEC, {"dog": 1}, "bank", "unknown classes"),
        (SPEC, 1, "zip", "format must be one of"),
        (SPEC, 0, "bank", "at least one sample"),
    ],
)
def test_nothing_is_drawn_for_what_cannot_be_written(
    tmp_path: Path, spec: DataSpec, counts: Any, format: str, message: str
) -> None:
    source = LinearSource(spec)
    with pytest.raises(DataError, match=message):
        write(tmp_path / "out", source, counts, format=format)
    assert source.draws == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["folder", "file", "empty", "file/below"])
@pytest.mark.parametrize("format", ["imagefolder", "bank", "parquet"])
def test_nothing_is_drawn_where_it_cannot_be_written(tmp_path: Path, place: str, format: str) -> None:
    for name in ("folder/deep", "empty"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").write_text("dear")
    source = LinearSource()
    if place == "empty" and format != "parquet":
        assert len(write(tmp_path / place, source, 2, format=format)) == 3
        return
    with pytest.raises(GenaugError):
        write(tmp_path / place, source, 2, format=format)
    assert source.draws == 0
    assert snapshot(tmp_path) == {"file": b"dear"}


@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("state", ["new", "empty", "earlier"])
@pytest.mark.parametrize("format", ["imagefolder", "bank", "parquet"])
def test_stopping_leaves_what_was_there(tmp_path: Path, format: Any, state: str, problem: type[BaseException]) -> None:
    class Stopping(LinearSource):
        def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
            if self.draws > 20:
                raise problem
            return super().sample(labels, generator=generator)

    if state == "earlier":
        make().export(tmp_path / "out", format=format)
    elif state == "empty" and format != "parquet":
        (tmp_path / "out").mkdir()
    before, there = snapshot(tmp_path), sorted(tmp_path.rglob("*"))
    with pytest.raises(problem):
        write(tmp_path / "out", Stopping(), 40, format=format, overwrite=True)
    assert snapshot(tmp_path) == before
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize("format", ["imagefolder", "bank", "parquet"])
def test_memory_stays_bounded_in_every_format(tmp_path: Path, format: str) -> None:
    """What 192 MiB of samples take from the heap, where all of them would be; measured in a process of its own."""
    script = """
import resource, sys, torch
from pathlib import Path
from types import SimpleNamespace
from genaug.bank.sampling import write_samples
from genaug.spec import DataSpec

def sample(labels, *, generator=None):
    return torch.zeros(len(labels), 3, 128, 128, dtype=torch.uint8)

def write(name, count):
    source = SimpleNamespace(spec=DataSpec(3, 128, 128, ("a",)), sample=sample)
    options = dict(seed=0, format=sys.argv[2], overwrite=False, progress=False)
    write_samples(Path(sys.argv[1], name), source, count, **options)

write("small", 384)
heap = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, ((heap + 96 * 1024) * 1024,) * 2)  # bytes; mapped files do not count
write("large", 4096)
"""
    subprocess.run([sys.executable, "-c", script, tmp_path, format], check=True)


def test_import_is_light() -> None:
    script = """
import sys, genaug.bank, genaug.mixing
heavy = {"albumentations", "datasets", "sklearn", "matplotlib", "pyarrow", "pydantic", "rich"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_rows_are_numbers() -> None:
    bank = make()
    for wrong in (bank.labels == 1, [True, False], [0.0, 1.5], torch.tensor([0.5])):
        with pytest.raises(DataError, match="rows must be integers, got torch.*; of a mask pass mask.nonzero"):
            bank.images(wrong)
    assert bank.images([]).shape[0] == 0
    mask = bank.labels == 1
    assert torch.equal(bank.images(mask.nonzero()), bank.images(range(*bank.rows(1))))


def test_a_name_is_no_source() -> None:
    for name in ("digits-vae", Path("bank")):
        with pytest.raises(DataError, match=r"source must be a bank or a model .*; open it first, with genaug.load"):
            SampleBank.generate(name, 1, seed=0)


def test_other_folders_are_no_exports(tmp_path: Path) -> None:
    """They may look like one, and are never overwritten."""
    bank = make()
    (tmp_path / "mine" / "cats").mkdir(parents=True)
    (tmp_path / "mine" / "dogs").mkdir()
    (tmp_path / "mine" / "cats" / "000001.png").write_bytes(b"mine")
    with pytest.raises(GenaugError, match="holds more than an earlier export"):
        bank.export(tmp_path / "mine", format="imagefolder", overwrite=True)
    assert (tmp_path / "mine" / "cats" / "000001.png").read_bytes() == b"mine"


def test_devices_of_windows_are_no_folders() -> None:
    assert not any(map(is_safe_folder, ("CON", "nul.txt", "Com1", "lpt9.a.b")))
    assert all(map(is_safe_folder, ("console", "com", "null")))


def test_an_export_is_no_bank(tmp_path: Path) -> None:
    bank = make()
    bank.export(tmp_path / "images", format="imagefolder")
    with pytest.raises(DataError, match="must be a bank, got samples that were exported in another format"):
        SampleBank.open(tmp_path / "images")
    bank.export(tmp_path / "bank", format="bank")
    with pytest.raises(DataError, match=r"must be a refreshing bank, .* open it with SampleBank.open"):
        RefreshingBank.open(tmp_path / "bank")


# --- a source that does not know every class


@pytest.mark.global_rng  # a batch transform draws from it
def test_a_class_that_a_gan_never_saw_is_neither_drawn_nor_replaced(tmp_path):
    spec = DataSpec(1, 8, 8, NAMES)
    gan = GAN(spec, GANConfig(width=4, latent_dim=4))
    gan.class_shares.copy_(torch.tensor([0.5, 0.0, 0.5]))
    assert known_classes(gan) == [0, 2]
    with pytest.raises(DataError, match=r"counts must be 0 for classes that the source has no samples of, \['bee'\]"):
        SampleBank.generate(gan, 3, seed=0, progress=False)
    bank = SampleBank.generate(gan, {"ant": 2, "cat": 3}, seed=0, progress=False)
    assert known_classes(bank) == [0, 2]
    images, labels = torch.zeros(30, 1, 8, 8), torch.arange(3).repeat(10)
    for source in (gan, bank):
        changed, kept = ReplaceWithSynthetic(source, 1.0)(images, labels)
        assert torch.equal(kept, labels)
        assert ((changed != 0).flatten(1).any(1) == (labels != 1)).all()
    data = LabeledImages(
        (255 * torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))).byte(),
        torch.arange(3).repeat(4),
        spec,
    )
    for source in (gan, bank):
        plot_fidelity(source, data, tmp_path / "fidelity.png", seed=0)
    found = audit_copies(
        gan, train=data.subset(range(6)), test=data.subset(range(6, 12)), samples=4, classifier_steps=2
    )
    assert found.images["samples"] == 8
