"""Images beyond the limit of memory: on the disk, with the same pixels, and what is said where there is no room."""

import io
import multiprocessing.util
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader

from genaug.data import LabeledImages, from_dataset, load_data
from genaug.data.allocation import allocate_pixels
from genaug.data.check import check_data
from genaug.errors import DataError

LEVELS = np.round(load_digits().images * 255 / 16).astype(np.uint8)
TINY = 1e-6  # GiB: 16 digits
NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads what is mapped in /proc")
ON_DISK = r"the images take .* GiB, more than the .* GiB of --memory-limit \(memory_limit=\): .* temporary file in "


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of its own."""
    multiprocessing.util.get_temp_dir()  # for its sockets, made now: their paths may be about 100 characters long
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def rows(count: int = 40, *, color_from: int | None = None) -> list[tuple[Image.Image, int]]:
    """Digits as gray images, from some row on as color ones."""
    pictures = [Image.fromarray(LEVELS[index]) for index in range(count)]
    if color_from is not None:
        for index in range(color_from, count):
            pictures[index] = Image.merge("RGB", [Image.fromarray(LEVELS[index + part]) for part in range(3)])
    return [(picture, index % 3) for index, picture in enumerate(pictures)]


def file_of(images: Tensor) -> str:
    """The file that a tensor is mapped from, as the system shows it; nothing for memory."""
    place = images.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= place < last:
            return " ".join(line.split()[5:])
    raise AssertionError("not mapped at all")


# --- where the images are


@pytest.mark.parametrize(("limit", "on_disk"), [(1, False), (40 * 64 / 2**30, False), (39 * 64 / 2**30, True)])
def test_what_fits_into_the_limit_is_in_memory(limit: float, on_disk: bool) -> None:
    pixels = allocate_pixels((40, 1, 8, 8), memory_limit=limit)
    assert (pixels.shape, pixels.dtype) == ((40, 1, 8, 8), torch.uint8)
    assert pixels.is_contiguous()
    assert pixels.is_shared() == on_disk
    pixels.fill_(7)
    assert int(pixels.sum()) == 40 * 64 * 7


@NEEDS_PROC
def test_the_file_has_no_name_and_goes_with_the_tensor(temporary: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    pixels = allocate_pixels((40, 1, 8, 8), memory_limit=TINY)
    assert file_of(pixels).startswith(str(temporary))
    assert file_of(pixels).endswith("(deleted)")
    assert not list(temporary.iterdir())
    del pixels
    assert len(os.listdir("/proc/self/fd")) == before


def write_folder(folder: Path) -> Path:
    for index, (picture, label) in enumerate(rows()):
        (folder / f"class {label}").mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"class {label}" / f"{index:02}.png")
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resize": (16, 12)},
        {"limit_per_class": 9},
        {"longtail": 2.0, "seed": 1, "resize": (9, 9)},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["folder", "data set", "labeled images"])
def test_every_source_gives_the_same_from_the_disk(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    makers: dict[str, Any] = {"folder": lambda: write_folder(tmp_path), "data set": rows}
    source = makers.get(kind, lambda: from_dataset(rows()))()
    memory = load_data(source, **options)
    assert not memory.images.is_shared()
    if kind == "labeled images" and not options:
        assert load_data(source, memory_limit=TINY) is source
        return
    with pytest.warns(UserWarning, match=ON_DISK) as said:
        disk = load_data(source, memory_limit=TINY, **options)
    assert disk.images.is_shared()
    assert disk.fingerprint() == memory.fingerprint()
    assert len(said) == 1


@pytest.mark.parametrize("limit", [TINY, 40 * 64 / 2**30], ids=["gray on the disk", "gray in memory"])
def test_gray_images_become_color_on_the_disk(limit: float) -> None:
    memory = from_dataset(rows(color_from=25))
    assert memory.spec.size == "3x8x8"
    with pytest.warns(UserWarning, match=rf"take {40 * 3 * 64 / 2**30:.3g} GiB") as said:
        disk = from_dataset(rows(color_from=25), memory_limit=limit)
    assert len(said) == 1
    assert disk.images.is_shared()
    assert torch.equal(disk.images, memory.images)


def test_subset_of_many_is_on_the_disk() -> None:
    data = from_dataset(rows())
    indices = [5, *range(39, 5, -1), 5]
    with pytest.warns(UserWarning, match=ON_DISK):
        part = data.subset(indices, memory_limit=TINY)
    assert part.images.is_shared()
    assert part.fingerprint() == data.subset(indices).fingerprint()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert part.subset([3, 1]).images.is_shared()  # where its images are
    assert not data.subset(indices).images.is_shared()
    part.images.zero_()
    assert int(data.images.max()) == 255


def test_subset_and_fingerprint_of_strided_images() -> None:
    data = from_dataset(rows())
    turned = LabeledImages(data.images.transpose(2, 3).contiguous().transpose(2, 3), data.labels, data.spec)
    assert not turned.images.is_contiguous()
    assert turned.subset([7, 2]).fingerprint() == data.subset([7, 2]).fingerprint()
    assert turned.fingerprint() == data.fingerprint()


def test_the_check_reads_from_the_disk_what_is_in_memory() -> None:
    repeated = [*rows(), (Image.new("L", (8, 8), 9), 0), *rows(3)]
    with pytest.warns(UserWarning, match=ON_DISK):
        disk = from_dataset(repeated, memory_limit=TINY)
    check = check_data(disk)
    assert check == check_data(from_dataset(repeated))
    assert (check.constant, check.repeated) == (1, 3)


# --- other processes


@NEEDS_PROC
@pytest.mark.parametrize("context", ["spawn", "forkserver", "fork"])
def test_workers_read_the_same_file(context: str, temporary: Path) -> None:
    with pytest.warns(UserWarning, match=ON_DISK):
        data = from_dataset(rows(), memory_limit=TINY)
    loader = DataLoader(
        data, batch_size=16, num_workers=1, multiprocessing_context=context, generator=torch.Generator().manual_seed(0)
    )
    batches = list(loader)
    assert torch.equal(torch.cat([images for images, _ in batches]), data.images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), data.labels)
    assert file_of(data.images).startswith(str(temporary))  # not moved into shared memory for them


def test_pickled_and_saved_by_value() -> None:
    with pytest.warns(UserWarning, match=ON_DISK):
        data = from_dataset(rows(), memory_limit=TINY)
    assert pickle.loads(pickle.dumps(data)).fingerprint() == data.fingerprint()
    file = io.BytesIO()
    torch.save(data.images, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=True), data.images)


# --- memory and room


BOUNDED = """
import re, resource
from pathlib import Path
import numpy as np
from PIL import Image
from genaug.data import load_data
from genaug.data.check import check_data
from genaug.errors import DataError

class Rows:
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        gray = Image.fromarray(np.random.default_rng(index).integers(0, 256, (256, 256), dtype=np.uint8))
        return gray if index < self.count // 2 else Image.merge("RGB", [gray] * 3), index % 2

def use(count, limit):
    data = load_data(Rows(count), memory_limit=limit)
    part = data.subset(range(1, count), memory_limit=limit)
    check = check_data(part)
    return data.spec.size, check.repeated, len(data.fingerprint())

use(8, 1.0)
own = re.search(r"VmData:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
allowed = (int(own[1]) << 10) + (100 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
print(use(1600, 0.05))
try:
    use(1600, 1.0)
except DataError as problem:
    print(problem)
"""


@NEEDS_PROC
def test_memory_stays_bounded() -> None:
    """300 MiB of pixels under a limit of 51 MiB, in a process that may take no more than 100 MiB for itself."""
    command = [sys.executable, "-W", "ignore", "-c", BOUNDED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    from_disk, from_memory = done.stdout.splitlines()
    assert from_disk == "('3x256x256', 0, 64)"
    # The gray images alone are as large as what is allowed, so either they do not fit, or what they become.
    wanted = r"images must fit into memory, got 1600 of [13]x256x256 \(0.* GiB\); .* with a lower --memory-limit .*"
    assert re.fullmatch(wanted, from_memory)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("-inf"), True, "2", None])
def test_other_limits_are_refused(limit: Any, tmp_path: Path) -> None:
    data = from_dataset(rows())
    for use in (
        lambda: load_data(write_folder(tmp_path), memory_limit=limit),
        lambda: load_data("digits", memory_limit=limit),
        lambda: load_data(data, memory_limit=limit),
        lambda: from_dataset(rows(), memory_limit=limit),
        *([] if limit is None else [lambda: data.subset([0], memory_limit=limit)]),
    ):
        with pytest.raises(DataError, match=r"memory_limit \(GiB of pixels\) must be a number above 0, got .*; pass"):
            use()


@pytest.mark.parametrize("limit", [float("inf"), 10**400, 1])
def test_limits_that_are_never_reached(limit: Any) -> None:
    assert not from_dataset(rows(), memory_limit=limit).images.is_shared()


def refused(rule: str) -> None:
    with pytest.raises(DataError, match=rule) as caught:
        from_dataset(rows(), memory_limit=TINY)
    message = str(caught.value)
    assert "\n" not in message
    assert "got 40 of 1x8x8 (2.38e-06 GiB)" in message
    for fix in ("in TMPDIR", "--resize (resize=)", "--limit-per-class (limit_per", "--memory-limit (memory_limit=)"):
        assert fix in message


def test_a_full_disk_is_an_error_before_anything_is_written(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(temporary)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=40 * 64 - 1))
    refused(rf"a file in {re.escape(str(temporary))}, which cannot be made \(No space left on device\)")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=40 * 64))
    with pytest.warns(UserWarning, match=ON_DISK):
        from_dataset(rows(), memory_limit=TINY)


def test_no_folder_for_temporary_files(temporary: Path) -> None:
    temporary.rmdir()
    refused(r"which cannot be made \(No such file or directory\)")


def test_a_file_that_may_not_be_that_large() -> None:
    """The size is reserved before the first image is written: a disk that fills up meanwhile ends no process."""
    script = """
import resource, torch
from genaug.data import from_dataset
from genaug.errors import DataError

resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    from_dataset([(torch.zeros(3, 64, 64), 0)], memory_limit=1e-9)
except DataError as problem:
    print(problem)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "which cannot be made (File too large)" in done.stdout
    assert done.stdout.count("\n") == 1
