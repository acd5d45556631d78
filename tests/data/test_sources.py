"""Where labeled images come from: the digits, image folders, other data sets; and what is said when they do not."""

import io
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import ConcatDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from genaug.data import LabeledImages, load_data
from genaug.data.folders import list_folder
from genaug.errors import DataError, DataWarning

DIGITS = load_digits()
LEVELS = np.round(DIGITS.images * 255 / 16).astype(np.uint8)


def picture(index: int = 0, mode: str = "L") -> Image.Image:
    return Image.fromarray(LEVELS[index]).convert(mode)


def write_folder(root: Path, count: int = 30) -> Path:
    for index in range(count):
        folder = root / f"digit {DIGITS.target[index]}"
        folder.mkdir(parents=True, exist_ok=True)
        picture(index).save(folder / f"{index:03}.png")
    return root


def rows(data: LabeledImages) -> set[tuple[bytes, int]]:
    return {(image.numpy().tobytes(), label) for image, label in data}


class TestDigits:
    def test_all_are_those_of_scikit_learn(self) -> None:
        data = load_data("digits", split="all")
        assert np.array_equal(data.images[:, 0].numpy(), LEVELS)
        assert data.targets == DIGITS.target.tolist()
        assert data.classes == list("0123456789")
        assert data.spec.size == "1x8x8"
        assert int(data.images.max()) == 255

    def test_parts_are_disjoint_stratified_and_complete(self) -> None:
        train, test, whole = (load_data("digits", split=split) for split in ("train", "test", "all"))
        assert len(rows(whole)) == len(whole)  # no image stands twice, so that sets compare the parts
        assert not rows(train) & rows(test)
        assert rows(train) | rows(test) == rows(whole)
        assert test.counts == [round(count / 3) for count in whole.counts]
        assert load_data("digits").fingerprint() == train.fingerprint()

    def test_parts_are_the_same_in_every_version(self) -> None:
        """Models are shipped that saw "train": with another split, images that they saw would be in "test"."""
        assert (
            load_data("digits", split="test").fingerprint()
            == "0f9614f882265d6d3a6707b51cde13ab53fa89e2443a66d438465abe971abdc2"
        )

    def test_other_parts_are_refused(self) -> None:
        with pytest.raises(DataError, match="split must be one of train, test, all, got 'validation'"):
            load_data("digits", split="validation")

    def test_resize(self) -> None:
        data = load_data("digits", resize=(16, 12))
        assert data.spec.size == "1x16x12"
        assert data.targets == load_data("digits").targets


class TestOtherData:
    def test_labeled_images_are_returned_as_they_are(self) -> None:
        data = load_data("digits")
        assert load_data(data) is data
        assert load_data(data, split="test") is data
        assert load_data(data, resize=(8, 8)) is data
        assert load_data(data, resize=(4, 4)).spec.size == "1x4x4"
        assert data.spec.size == "1x8x8"

    def test_data_sets_are_read(self, tmp_path: Path) -> None:
        write_folder(tmp_path)
        data = load_data(ImageFolder(str(tmp_path)), resize=(4, 4))
        assert data.spec.size == "3x4x4"

    def test_data_without_parts_have_no_test_part(self, tmp_path: Path) -> None:
        write_folder(tmp_path)
        for data in (tmp_path, str(tmp_path), ImageFolder(str(tmp_path))):
            assert len(load_data(data, split="all")) == 30
            with pytest.raises(DataError, match="has no parts, so split 'test' cannot be chosen"):
                load_data(data, split="test")

    @pytest.mark.parametrize("resize", [32, (32,), (0, 8), (8.0, 8), (True, 8), "8x8", (8, 20_000)])
    def test_other_sizes_are_refused(self, tmp_path: Path, resize: Any) -> None:
        write_folder(tmp_path)
        for data in ("digits", load_data("digits"), tmp_path):
            with pytest.raises(DataError, match=r"resize must be \(height, width\)"):
                load_data(data, resize=resize)

    def test_importing_is_light(self) -> None:
        heavy = "{'sklearn', 'datasets', 'torchvision', 'matplotlib', 'pandas'}"
        code = f"import sys, genaug.data; print(sorted({heavy} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


class TestFolder:
    def test_is_read_in_the_order_of_torchvision(self, tmp_path: Path) -> None:
        oracle = ImageFolder(str(write_folder(tmp_path)))
        data = load_data(tmp_path)
        assert data.classes == oracle.classes
        assert data.targets == oracle.targets
        for (path, _), image in zip(oracle.samples, data.images, strict=True):
            assert np.array_equal(image[0].numpy(), LEVELS[int(Path(path).stem)])

    def test_does_not_depend_on_the_order_of_writing(self, tmp_path: Path) -> None:
        write_folder(tmp_path / "a")
        files = sorted((tmp_path / "a").rglob("*.png"))
        random.Random(0).shuffle(files)
        for file in files:
            copy = tmp_path / "b" / file.relative_to(tmp_path / "a")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
        assert load_data(tmp_path / "a").fingerprint() == load_data(str(tmp_path / "b")).fingerprint()

    def test_names_may_have_spaces_and_any_letters(self, tmp_path: Path) -> None:
        root = tmp_path / "meine Daten ☀"
        for name in ("Großes Haus", "été 2", "猫", "a.b"):
            (root / name).mkdir(parents=True)
            picture().save(root / name / "Bild № 1.PNG")
        assert load_data(root).classes == sorted(["Großes Haus", "été 2", "猫", "a.b"])

    def test_home_folder_and_relative_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = load_data(write_folder(tmp_path / "shapes")).fingerprint()
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        for path in ("~/shapes", Path("~/shapes"), "shapes", "./shapes", "shapes/"):
            assert load_data(path).fingerprint() == expected

    def test_a_folder_named_as_built_in_data_is_a_path_away(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_folder(tmp_path / "digits")
        monkeypatch.chdir(tmp_path)
        with pytest.warns(UserWarning, match=r"'digits' is the built-in .* to mean the folder, pass \./digits$"):
            assert len(load_data("digits", split="all")) == 1797
        assert len(load_data("./digits")) == len(load_data(Path("digits"))) == 30

    def test_files_that_are_no_images_are_left_out(self, tmp_path: Path) -> None:
        write_folder(tmp_path)
        (tmp_path / "README.txt").write_text("about")
        (tmp_path / "digit 0" / "notes.txt").write_text("about")
        (tmp_path / "digit 0" / "._000.png").write_bytes(b"what macOS leaves on other disks")
        (tmp_path / ".thumbnails").mkdir()
        assert len(load_data(tmp_path)) == 30

    def test_images_in_deeper_folders_belong_to_the_class(self, tmp_path: Path) -> None:
        (tmp_path / "cat" / "2024" / "may").mkdir(parents=True)
        picture().save(tmp_path / "cat" / "2024" / "may" / "1.png")
        assert load_data(tmp_path).counts == [1]

    def test_listing_takes_time_in_proportion_to_the_images(self, tmp_path: Path) -> None:
        """A class more takes as many calls of functions, whatever their number."""

        def calls(classes: int) -> int:
            root = tmp_path / str(classes)
            for label in range(classes):
                (root / f"{label:04}").mkdir(parents=True)
                for number in range(4):
                    (root / f"{label:04}" / f"{number}.png").touch()
            count = 0

            def note(_: object, event: str, __: object) -> None:
                nonlocal count
                count += event in ("call", "c_call")

            before = sys.getprofile()
            sys.setprofile(note)
            try:
                list_folder(root)
            finally:
                sys.setprofile(before)
            return count

        assert calls(200) < 2.2 * calls(100)

    def test_resize_is_that_of_pil(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        picture(3).save(tmp_path / "a" / "1.png")
        picture(3).resize((9, 8)).save(tmp_path / "a" / "2.png")
        data = load_data(tmp_path, resize=(4, 5))
        assert data.spec.size == "1x4x5"
        oracle = np.asarray(picture(3).resize((5, 4), Image.Resampling.BILINEAR))
        assert np.array_equal(data.images[0, 0].numpy(), oracle)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG file that says it is this large and has hardly any pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


class TestErrors:
    def check(self, data: Any, message: str) -> None:
        with pytest.raises(DataError, match=message) as caught:
            load_data(data)
        assert "\n" not in str(caught.value)

    def test_unknown_word(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        self.check("mnist", "data must be a folder or a known name, got 'mnist'; the built-in data are digits")

    def test_missing_path(self, tmp_path: Path) -> None:
        self.check(tmp_path / "none", "none: no such folder")
        self.check(str(tmp_path / "none"), "none: no such folder")
        self.check("./none", "none: no such folder")

    def test_paths_that_cannot_be(self, tmp_path: Path) -> None:
        self.check("a\0b/c", "without null characters")
        self.check("x" * 5000 + "/y", "cannot be read as a path|no such folder")
        self.check("~nobody-of-this-name/data", "cannot be expanded")

    def test_file(self, tmp_path: Path) -> None:
        picture().save(tmp_path / "1.png")
        self.check(tmp_path / "1.png", r"1\.png: data must be a folder .*\.csv.* got a file")

    def test_no_class_folders(self, tmp_path: Path) -> None:
        self.check(tmp_path, "must hold one folder of images for each class, got no folder")
        picture().save(tmp_path / "1.png")
        self.check(tmp_path, "must hold one folder of images for each class, got no folder")

    def test_empty_class_folder(self, tmp_path: Path) -> None:
        write_folder(tmp_path)
        (tmp_path / "digit 00").mkdir()
        (tmp_path / "digit 00" / "image.svg").write_bytes(b"of another kind")
        self.check(tmp_path, r"digit 00: a class folder must hold at least one image \(\.jpg, .*got none")

    def test_different_sizes(self, tmp_path: Path) -> None:
        write_folder(tmp_path)
        picture().resize((7, 9)).save(tmp_path / "digit 9" / "wide.png")
        self.check(
            tmp_path, r"000\.png is 8x8 and .*wide\.png is 9x7 \(height x width\).*--resize 32x32.*resize=\(32, 32"
        )

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM"])
    def test_truncated_files(self, tmp_path: Path, kind: str) -> None:
        content = io.BytesIO()
        picture(4, "RGB").resize((64, 64)).save(content, kind)
        whole = content.getvalue()
        path = write_folder(tmp_path) / "digit 3" / "cut short.png"
        for length in (0, 1, 10, len(whole) // 2):
            path.write_bytes(whole[:length])
            self.check(tmp_path, r"cut short\.png: cannot be read as an image \(.*repair or remove the file")

    def test_damaged_files(self, tmp_path: Path) -> None:
        """Files with bytes changed at random are read, or refused in one line; nothing else comes out."""
        path = write_folder(tmp_path) / "digit 3" / "damaged.png"
        content = io.BytesIO()
        picture(4).save(content, "PNG")
        whole, draw, messages = content.getvalue(), random.Random(0), []
        for _ in range(60):
            damaged = bytearray(whole)
            for _ in range(3):
                damaged[draw.randrange(8, len(whole))] = draw.randrange(256)
            path.write_bytes(damaged)
            try:
                load_data(tmp_path)
            except DataError as problem:
                messages.append(str(problem))
        assert len(messages) > 30
        assert all("damaged.png" in message and "\n" not in message for message in messages)

    @pytest.mark.parametrize("side", [10_000, 60_000])
    def test_decompression_bombs(self, tmp_path: Path, side: int) -> None:
        """PIL warns from 89 million pixels on and fails at twice as many; here both are errors."""
        path = write_folder(tmp_path) / "digit 3" / "bomb.png"
        path.write_bytes(png_of_size(side, side))
        self.check(tmp_path, r"bomb\.png: cannot be read as an image \(.*decompression bomb")

    def test_more_than_memory_holds(self) -> None:
        with pytest.raises(DataError, match=r"must fit into memory, got 3000000000000 of 1x8x8"):
            load_data(LargeRows())

    def test_a_link_to_nowhere(self, tmp_path: Path) -> None:
        write_folder(tmp_path)
        loop = tmp_path / "digit 0" / "loop.png"
        loop.symlink_to(loop)
        self.check(tmp_path, r"loop\.png: cannot be read as an image")


class LargeRows:
    """Says that it has more images than memory can hold."""

    def __len__(self) -> int:
        return 3_000_000_000_000

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(LEVELS[0])[None], 0


def test_16_bit_pgm_is_read_as_16_bit_png_is(tmp_path: Path) -> None:
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    for suffix in ("png", "pgm"):
        (tmp_path / suffix / "a").mkdir(parents=True)
        Image.fromarray(levels).save(tmp_path / suffix / "a" / f"1.{suffix}")
    with Image.open(tmp_path / "pgm" / "a" / "1.pgm") as image:
        assert image.format == "PPM"
    assert load_data(tmp_path / "pgm").images.equal(load_data(tmp_path / "png").images)
    assert load_data(tmp_path / "png").images[0, 0].tolist() == ((levels.astype(int) + 128) // 257).tolist()


class Unread:
    """A data set whose items must not be read."""

    def __init__(self, classes: Any) -> None:
        self.classes = classes

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("read")


def test_names_that_repeat_show_before_anything_is_read() -> None:
    with pytest.raises(DataError, match="class_names must not repeat"):
        load_data(Unread(["a", "a"]))


def test_the_two_cranes_of_imagenet_are_told_apart() -> None:
    """Its classes 134 and 517, a bird and a machine, are both called ("crane",)."""
    items = Items([(torch.zeros(1, 8, 8), 0), (torch.ones(1, 8, 8), 2)])
    items.classes = [("crane",), ("great auk", "auk"), ("crane",)]
    assert load_data(items).classes == ["crane 0", "great auk, auk", "crane 2"]


@pytest.mark.parametrize("reader", [False, True])
def test_classes_told_by_their_numbers(reader: bool) -> None:
    items = Items([(torch.zeros(1, 8, 8), 0), (torch.ones(1, 8, 8), 1)])
    numbers = {"c10": 1, "c2": 0}
    if reader:  # as timm's data sets have them
        items.reader = SimpleNamespace(class_to_idx=numbers)
    else:
        items.class_to_idx = numbers
    assert load_data(items).classes == ["c2", "c10"]
    numbers["c3"] = 7  # which are no numbers of classes
    assert load_data(items).classes == ["0", "1"]


def test_parts_without_class_names_follow_the_others() -> None:
    one, other = (Items([(torch.zeros(1, 8, 8), label)]) for label in (0, 1))
    one.classes = np.array(["a", "b"])
    assert load_data(ConcatDataset([one, other])).classes == ["a", "b"]


class Items(list[Any]):
    """A list that can have attributes."""

    classes: Any


class Flipped(Items):
    def __getitem__(self, index: Any) -> Any:
        image, label = super().__getitem__(index)
        return v2.RandomHorizontalFlip()(image), label


@pytest.mark.global_rng  # the transform draws from it while all is read
def test_a_transform_that_draws_at_random_is_told() -> None:
    images = torch.arange(64).reshape(1, 8, 8) / 64
    with pytest.warns(DataWarning, match="transform draws at random.*pass the data set without it"):
        load_data(Flipped([(images, label % 2) for label in range(20)]))
    before = torch.get_rng_state()
    load_data(Items([(images, label % 2) for label in range(20)]))
    assert torch.equal(torch.get_rng_state(), before)
