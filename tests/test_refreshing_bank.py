"""Banks that are drawn anew in the background: what is read when, in which process, and what stays on the disk."""

import copy
import multiprocessing
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from genaug import DataError, DataSpec, GenaugError, MixedDataset, MixedLoader, RefreshingBank, SampleBank
from genaug.models import VAE, VAEConfig

SPEC = DataSpec(3, 6, 5, ("ant", "bee"))
COUNTS = {"ant": 4, "bee": 20}
LIMIT = 30  # seconds after which a test fails that waits for another thread or process

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Noise:
    """Uniform noise; waits in each call until that is allowed, and raises what it is told to."""

    def __init__(self) -> None:
        self.spec = SPEC
        self.began, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self.problem: BaseException | None = None
        self.threads: set[str] = set()

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        self.threads.add(threading.current_thread().name)
        self.began.set()
        if not self.gate.wait(LIMIT):
            raise TimeoutError("never allowed")
        if self.problem is not None:
            raise self.problem
        return torch.rand(len(labels), 3, 6, 5, generator=generator)

    def hold(self) -> None:
        self.gate.clear()
        self.began.clear()


def make(path: Path, source: Any = None, *, seed: int = 7, **options: Any) -> RefreshingBank:
    return RefreshingBank.generate(source or Noise(), COUNTS, seed=seed, path=path, progress=False, **options)


@pytest.fixture
def source() -> Noise:
    return Noise()


@pytest.fixture
def bank(source: Noise, tmp_path: Path) -> RefreshingBank:
    return make(tmp_path / "bank", source)


def read(bank: SampleBank) -> Tensor:
    return bank.images(range(len(bank)))


def renew(bank: RefreshingBank) -> Tensor:
    """All samples after a refresh."""
    bank.refresh()
    bank.swap()
    return read(bank)


def any_equal(images: Tensor, others: Tensor) -> bool:
    """Whether any of some images (N, C, H, W) is among others."""
    return bool((images[:, None] == others[None]).flatten(2).all(2).any())


def versions(bank: SampleBank) -> list[str]:
    assert bank.path is not None
    return sorted(entry.name for entry in bank.path.iterdir())


def wait_until_drawn(bank: RefreshingBank) -> None:
    for thread in threading.enumerate():
        if thread.name == "genaug-refresh":
            thread.join(LIMIT)
            assert not thread.is_alive()


# --- what is read when


def test_old_samples_stay_until_the_new_ones_are_swapped_in(bank: RefreshingBank, source: Noise) -> None:
    before = read(bank)
    source.hold()
    bank.refresh()
    assert source.began.wait(LIMIT)
    assert torch.equal(read(bank), before)  # while the new ones are being drawn
    source.gate.set()
    wait_until_drawn(bank)
    assert torch.equal(read(bank), before)  # and when they are there
    assert bank.version == 0
    bank.swap()
    assert bank.version == 1
    assert not any_equal(read(bank), before)
    assert torch.equal(read(bank), read(bank))
    assert source.threads == {threading.current_thread().name, "genaug-refresh"}


def test_swap_waits_for_the_samples(bank: RefreshingBank, source: Noise) -> None:
    before = read(bank)
    source.hold()
    bank.refresh()
    assert source.began.wait(LIMIT)
    swapping = threading.Thread(target=bank.swap)
    swapping.start()
    assert bank.version == 0
    assert torch.equal(read(bank), before)
    source.gate.set()
    swapping.join(LIMIT)
    assert not swapping.is_alive()
    assert bank.version == 1
    assert not any_equal(read(bank), before)


def test_a_class_that_cannot_be_filled_is_an_error(source: Noise, tmp_path: Path) -> None:
    """Of later samples too: datasets that mix them in go by the counts."""
    with pytest.raises(DataError, match="short must be 'error' for a RefreshingBank, .* got 'fewer'; ask for fewer"):
        make(tmp_path / "bank", source, short="fewer")
    with pytest.raises(DataError, match="short must be 'error' or 'fewer', got 'less'"):
        make(tmp_path / "bank", source, short="less")
    assert list(tmp_path.iterdir()) == []
    share = 0.5

    def some(images: Tensor, labels: Tensor) -> Tensor:
        return torch.arange(len(images)) < share * len(images)

    bank = make(tmp_path / "bank", source, filters=[some], max_draws=3)
    assert [one.rates for one in bank.provenance.filter_acceptance] == [(0.5, 0.5)]
    before, share = read(bank), 0.25
    bank.refresh()
    with pytest.raises(DataError, match=r"'bee': 16 of 64 drawn, 20 wanted; .* raise max_draws \(3\)"):
        bank.swap()
    assert torch.equal(read(bank), before)


def test_it_is_a_bank(bank: RefreshingBank, tmp_path: Path) -> None:
    for _ in range(3):
        assert isinstance(bank, SampleBank)
        assert (len(bank), bank.counts, bank.spec, bank.path) == (24, [4, 20], SPEC, tmp_path / "bank")
        assert bank.labels.tolist() == [0] * 4 + [1] * 20
        assert bank.rows(1) == (4, 24)
        labels = torch.tensor([0, 1, 1])
        drawn = bank.sample(labels, generator=torch.Generator().manual_seed(0))
        images = read(bank)
        for image, label in zip(drawn, labels.tolist(), strict=True):
            assert any_equal(image[None], images[slice(*bank.rows(label))])
        renew(bank)


def test_the_seed_decides(tmp_path: Path) -> None:
    one, same, other = (make(tmp_path / name, seed=seed) for name, seed in (("a", 7), ("b", 7), ("c", 8)))
    found = {name: [read(bank), renew(bank), renew(bank)] for name, bank in (("a", one), ("b", same), ("c", other))}
    for first, second in zip(found["a"], found["b"], strict=True):
        assert torch.equal(first, second)
    everything = found["a"] + found["c"]
    for place, images in enumerate(everything):
        assert not any(any_equal(images, others) for others in everything[:place])


def test_each_version_is_what_generate_draws_with_its_seed(bank: RefreshingBank) -> None:
    for version in range(3):
        stored = SampleBank.open(bank.path / str(version))
        fresh = SampleBank.generate(Noise(), COUNTS, seed=stored.provenance.seed, progress=False)
        assert torch.equal(read(bank), read(fresh))
        renew(bank)


def test_provenance_is_that_of_the_samples(bank: RefreshingBank) -> None:
    before = bank.provenance
    bank.refresh()
    assert bank.provenance == before
    bank.swap()
    assert bank.provenance == SampleBank.open(bank.path / "1").provenance
    assert bank.provenance.images_sha256 != before.images_sha256


def test_a_bank_drawn_from_it_names_the_samples_it_came_from(bank: RefreshingBank) -> None:
    bank.refresh()
    bank.swap()
    derived = SampleBank.generate(bank, 2, seed=0, progress=False)
    assert derived.provenance.source_sha256 == SampleBank.open(bank.path / "1").provenance.images_sha256


def test_filters_are_used_again(tmp_path: Path) -> None:
    def bright(images: Tensor, labels: Tensor) -> Tensor:
        return images.float().mean((1, 2, 3)) > 127

    bank = make(tmp_path / "bank", filters=[bright])
    for _ in range(2):
        assert bright(read(bank), bank.labels).all()
        assert bank.provenance.filters == ("bright",)
        assert all(rate is not None and rate < 1 for rate in bank.provenance.acceptance)
        renew(bank)


@pytest.mark.parametrize("format", ["bank", "imagefolder", "parquet"])
def test_exports_hold_what_is_in_place(format: Any, bank: RefreshingBank, tmp_path: Path) -> None:
    renew(bank)
    bank.refresh()
    wait_until_drawn(bank)  # the next ones, which are not in place
    bank.export(tmp_path / "out", format=format)
    images = read(bank)
    if format == "bank":
        exported = SampleBank.open(tmp_path / "out")
        assert torch.equal(read(exported), images)
        assert exported.provenance.images_sha256 == bank.provenance.images_sha256
    elif format == "imagefolder":
        from torchvision.datasets import ImageFolder
        from torchvision.transforms.functional import pil_to_tensor

        folder = ImageFolder(tmp_path / "out", transform=pil_to_tensor)
        assert torch.equal(torch.stack([image for image, _ in folder]), images)
        assert folder.targets == bank.labels.tolist()
    else:
        datasets = pytest.importorskip("datasets")
        table = datasets.load_dataset(
            "parquet", data_files=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")
        ).with_format("torch")
        assert torch.equal(torch.stack(list(table["image"])), images)
        assert table["label"][:].tolist() == bank.labels.tolist()


def test_a_model_as_source(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = VAE(SPEC, VAEConfig(width=8, hidden=16, latent_dim=4))
    vae.fit_after_training(torch.rand(20, 3, 6, 5, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2)
    bank = make(tmp_path / "bank", vae)
    before = read(bank)
    assert not torch.equal(renew(bank), before)
    assert vae.training
    other = make(tmp_path / "other", vae)
    assert (read(other).int() - before.int()).abs().max() <= 1
    assert (renew(other).int() - read(bank).int()).abs().max() <= 1


# --- the directory


def test_the_last_two_are_kept(bank: RefreshingBank) -> None:
    assert versions(bank) == ["0"]
    for version, kept in enumerate((["0", "1"], ["1", "2"], ["2", "3"]), start=1):
        renew(bank)
        assert (bank.version, versions(bank)) == (version, kept)


def test_open_gives_the_samples_last_in_place(bank: RefreshingBank) -> None:
    assert torch.equal(read(RefreshingBank.open(bank.path)), read(bank))
    for _ in range(10):  # "10" comes after "9"
        renew(bank)
    opened = RefreshingBank.open(bank.path)
    expected = read(bank)
    assert torch.equal(read(opened), expected)
    assert torch.equal(read(RefreshingBank.open(str(bank.path), verify=False)), expected)
    assert opened.counts == bank.counts
    renew(bank)
    assert torch.equal(read(opened), expected)  # it stays as it is


def test_open_does_not_give_samples_that_were_never_in_place(bank: RefreshingBank) -> None:
    bank.refresh()
    wait_until_drawn(bank)
    assert torch.equal(read(RefreshingBank.open(bank.path)), read(bank))


def test_open_while_samples_are_drawn(bank: RefreshingBank, source: Noise) -> None:
    source.hold()
    bank.refresh()
    assert source.began.wait(LIMIT)
    try:
        assert torch.equal(read(RefreshingBank.open(bank.path)), read(bank))
    finally:
        source.gate.set()
        wait_until_drawn(bank)


def test_open_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such directory"):
        RefreshingBank.open(tmp_path / "bank")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no such directory"):
        RefreshingBank.open(tmp_path / "empty")


def test_open_finds_damage(bank: RefreshingBank) -> None:
    file = bank.path / "0/images.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="the file was changed"):
        RefreshingBank.open(bank.path)


def test_the_directory_must_be_new(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert versions(make(tmp_path / "empty")) == ["0"]
    with pytest.raises(GenaugError, match="exists already"):
        make(tmp_path / "empty")
    with pytest.raises(DataError, match="path must name a new directory for a RefreshingBank, got None"):
        RefreshingBank.generate(Noise(), COUNTS, seed=0)


@pytest.mark.parametrize(("counts", "seed"), [({"cat": 1}, 0), (0, 0), (1, 0.5)])
def test_wrong_arguments_leave_nothing_behind(counts: Any, seed: Any, tmp_path: Path) -> None:
    with pytest.raises(GenaugError, match="counts|seed"):
        RefreshingBank.generate(Noise(), counts, seed=seed, path=tmp_path / "bank", progress=False)
    assert not list(tmp_path.rglob("*"))


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bank = make(Path("bank"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    renew(bank)
    assert versions(bank) == ["0", "1"]


# --- what goes wrong


def test_calls_in_another_order(bank: RefreshingBank) -> None:
    with pytest.raises(GenaugError, match="swap must be called after refresh"):
        bank.swap()
    bank.refresh()
    with pytest.raises(GenaugError, match="refresh must be called once between two calls of swap"):
        bank.refresh()
    bank.swap()
    with pytest.raises(GenaugError, match="swap must be called after refresh"):
        bank.swap()
    assert bank.version == 1


@pytest.mark.parametrize("kind", [GenaugError, RuntimeError, MemoryError, SystemExit])
def test_drawing_that_fails_keeps_the_samples(kind: type[BaseException], bank: RefreshingBank, source: Noise) -> None:
    before = read(bank)
    source.problem = kind("what went wrong")
    bank.refresh()
    with pytest.raises(kind, match="what went wrong"):
        bank.swap()
    assert bank.version == 0
    assert torch.equal(read(bank), before)
    assert versions(bank) == ["0"]
    source.problem = None
    assert not any_equal(renew(bank), before)  # it can be tried again
    assert versions(bank) == ["0", "1"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="has no alarms")
def test_waiting_may_be_interrupted(bank: RefreshingBank, source: Noise) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    def swap() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        bank.swap()

    before = read(bank)
    source.hold()
    bank.refresh()
    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            swap()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        source.gate.set()
    assert torch.equal(read(bank), before)
    bank.swap()
    assert not any_equal(read(bank), before)
    assert not any_equal(renew(bank), before)


def test_samples_of_another_size_are_refused(bank: RefreshingBank, source: Noise) -> None:
    before = read(bank)
    source.sample = lambda labels, *, generator=None: torch.zeros(len(labels), 3, 5, 5)  # type: ignore[method-assign]
    bank.refresh()
    with pytest.raises(DataError, match="images of source must be of size 3x6x5"):
        bank.swap()
    assert torch.equal(read(bank), before)


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, lambda bank: pickle.loads(pickle.dumps(bank))])
def test_copies_can_be_read_but_not_refreshed(copier: Any, bank: RefreshingBank) -> None:
    renew(bank)
    twin = copier(bank)
    assert torch.equal(read(twin), read(bank))
    assert (twin.version, twin.counts, twin.path) == (1, bank.counts, bank.path)
    with pytest.raises(GenaugError, match="refresh must be called in the process that made the bank"):
        twin.refresh()
    with pytest.raises(GenaugError, match="swap must be called after refresh"):
        twin.swap()
    assert twin.version == 1


def call_in_fork(function: Any) -> str:
    """What a function raises in a forked process."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        try:
            function()
        except Exception as problem:
            sender.send(f"{type(problem).__name__}: {problem}")
        else:
            sender.send("nothing")

    process = context.Process(target=run, daemon=True)
    process.start()
    try:
        assert receiver.poll(LIMIT)
        return str(receiver.recv())
    finally:
        process.kill()
        process.join()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_copy_cannot_be_refreshed(bank: RefreshingBank) -> None:
    assert call_in_fork(bank.refresh).startswith("GenaugError: refresh must be called in the process that made")
    assert bank.version == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_copy_cannot_swap(bank: RefreshingBank, source: Noise) -> None:
    before = read(bank)
    source.hold()
    bank.refresh()
    assert source.began.wait(LIMIT)
    try:
        assert call_in_fork(bank.swap).startswith("GenaugError")
        assert bank.version == 0
        assert torch.equal(read(bank), before)
    finally:
        source.gate.set()
        wait_until_drawn(bank)
    bank.swap()
    assert not any_equal(read(bank), before)


def test_the_process_ends_while_samples_are_drawn(tmp_path: Path) -> None:
    # A thread that is cut off within an operation of torch takes the process down with it (exit status 134).
    script = (
        "import threading, torch\n"
        "from genaug import DataSpec, RefreshingBank\n"
        "began = threading.Event()\n"
        "class Slow:\n"
        "    spec = DataSpec(1, 8, 8, ('a', 'b'))\n"
        "    def sample(self, labels, *, generator=None):\n"
        "        images = torch.rand(len(labels), 1, 8, 8, generator=generator)\n"
        "        if threading.current_thread() is not threading.main_thread():\n"
        "            began.set()\n"
        "            for _ in range(1000):\n"
        "                images = (images @ images).sigmoid()\n"
        "        return images\n"
        "bank = RefreshingBank.generate(Slow(), 100_000, seed=0, path='bank', progress=False)\n"
        "bank.refresh()\n"
        "print(began.wait(), 'done')\n"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=2 * LIMIT, check=False)
    assert (run.stdout, run.stderr, run.returncode) == ("True done\n", "", 0)
    assert len(RefreshingBank.open(tmp_path / "bank")) == 200_000


# --- in data sets and loaders


def make_mixed(bank: SampleBank) -> MixedDataset:
    images = torch.full((30, 3, 6, 5), 255, dtype=torch.uint8)
    return MixedDataset(TensorDataset(images, torch.tensor([0] * 20 + [1] * 10)), bank, target="max")


def synthetic(batches: Any) -> Tensor:
    images = torch.cat([images for images, _ in batches])
    assert len(images) == 40
    assert bool((images[:30] == 255).all())
    return images[30:]


@pytest.mark.parametrize(
    ("workers", "context", "persistent"),
    [(0, None, False), (2, "fork", True), (2, "fork", False), (1, "spawn", True)],
)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create . worker processes:UserWarning")
def test_workers_read_what_is_in_place(
    workers: int, context: str | None, persistent: bool, bank: RefreshingBank, source: Noise
) -> None:
    mixed = make_mixed(bank)
    loader = DataLoader(
        mixed,
        batch_size=8,
        num_workers=workers,
        multiprocessing_context=context,
        persistent_workers=persistent,
        generator=torch.Generator().manual_seed(0),
    )
    past = torch.empty(0, 3, 6, 5)
    for epoch in range(4):
        mixed.set_epoch(epoch)
        source.hold()
        bank.refresh()
        assert source.began.wait(LIMIT)
        found = synthetic(loader)  # while the next ones are being drawn
        bees = read(bank)[slice(*bank.rows(1))]
        assert all(any_equal(image[None], bees) for image in found)
        assert not any_equal(found, past)
        past = torch.cat([past, read(bank)])
        source.gate.set()
        bank.swap()


def test_a_data_set_keeps_its_counts_and_rows(bank: RefreshingBank) -> None:
    mixed = make_mixed(bank)
    assert (mixed.counts, mixed.synthetic_counts) == ([20, 20], [0, 10])
    images = read(bank)
    rows = [
        int((image == images).flatten(1).all(1).nonzero()) for image in (mixed[index][0] for index in range(30, 40))
    ]
    renew(bank)
    assert (mixed.counts, len(mixed)) == ([20, 20], 40)
    for index, row in enumerate(rows, start=30):  # the same rows, of other samples
        assert torch.equal(mixed[index][0], read(bank)[row])


def test_a_loader_of_batches_takes_what_is_in_place(bank: RefreshingBank) -> None:
    batches = [(torch.full((8, 3, 6, 5), 255, dtype=torch.uint8), torch.arange(8) % 2)] * 3
    mixed = MixedLoader(batches, bank, fraction=1.0)
    for _ in range(3):
        before = read(bank)
        bank.refresh()
        for images, _ in mixed:
            assert all(any_equal(image[None], before) for image in images)
        bank.swap()
        for images, _ in mixed:
            assert not any_equal(images, before)
            assert all(any_equal(image[None], read(bank)) for image in images)


@needs_gpu
def test_a_model_on_a_gpu(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = VAE(SPEC, VAEConfig(width=8, hidden=16, latent_dim=4))
    vae.fit_after_training(torch.rand(20, 3, 6, 5, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2)
    expected = make(tmp_path / "cpu", vae)
    bank = make(tmp_path / "gpu", copy.deepcopy(vae).cuda())
    for _ in range(3):
        difference = (read(bank).int() - read(expected).int()).abs()
        assert difference.max() <= 2
        renew(bank)
        renew(expected)


def test_it_is_opened_as_what_it_is(tmp_path: Path, source: Noise) -> None:
    make(tmp_path / "bank", source)
    with pytest.raises(DataError, match="holds a bank of several versions; open it with RefreshingBank.open"):
        SampleBank.open(tmp_path / "bank")
    with pytest.raises(GenaugError, match="exists already; choose another output, or remove it first"):
        make(tmp_path / "bank", source)
