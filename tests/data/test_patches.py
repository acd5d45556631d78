"""Images of any size as patches: exact cover, counts, classes kept or not needed, and what is left out or refused."""

import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset
from torchvision.datasets import ImageFolder

import genaug
from genaug.data import LabeledImages, from_dataset, load_data
from genaug.data.decoding import decode_image, measure_image
from genaug.data.patches import place_patches
from genaug.errors import DataError

PATCH = (12, 16)
SIZES = [(12, 16), (31, 47), (40, 32), (13, 100), (25, 17)]  # of the first images, in turn


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def picture(number: int, mode: str = "RGB", size: tuple[int, int] | None = None) -> Image.Image:
    height, width = size or SIZES[number % len(SIZES)]
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8))


def write(folder: Path, numbers: Any, **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture(number, **options).save(folder / f"{number:02}.png")
    return folder


def count(number: int) -> int:
    height, width = SIZES[number % len(SIZES)]
    return math.ceil(height / PATCH[0]) * math.ceil(width / PATCH[1])


def check_patches_of(data: LabeledImages, numbers: Any, *, mode: str = "RGB") -> None:
    """Check that `data` are the patches of these pictures, which put together at their places give them again."""
    assert data.spec.size == f"{3 if mode == 'RGB' else 1}x12x16"
    rest = data.images.numpy()
    for number in numbers:
        expected = np.atleast_3d(np.asarray(picture(number).convert(mode)))
        whole = np.full_like(expected, 7)
        written = np.zeros(whole.shape[:2], dtype=int)
        places = place_patches(whole.shape[:2], PATCH)
        assert len(places) == count(number)
        for (top, left), patch in zip(places, rest[: len(places)], strict=True):
            whole[top : top + 12, left : left + 16] = patch.transpose(1, 2, 0)
            written[top : top + 12, left : left + 16] += 1
        assert written.min() == 1
        assert np.array_equal(whole, expected)
        rest = rest[len(places) :]
    assert not len(rest)


def refused(data: Any, message: str, **options: Any) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_data(data, **{"patches": PATCH, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", [1, 2, 7, 12])
def test_places_are_the_fewest_that_cover_and_evenly_spread(part: int) -> None:
    for side in range(part, 6 * part + 3):
        tops = [top for top, _ in place_patches((side, 5), (part, 5))]
        assert tops == [left for _, left in place_patches((5, side), (5, part))]
        assert len(tops) == math.ceil(side / part)
        assert {row for top in tops for row in range(top, top + part)} == set(range(side))
        steps = np.diff(tops)
        assert len(steps) == 0 or steps.max() - steps.min() <= 1
    assert place_patches((part - 1, 50), (part, 5)) == place_patches((50, part - 1), (5, part)) == []


class TestFolders:
    def test_without_classes(self, tmp_path: Path) -> None:
        data = load_data(write(tmp_path, range(5)), patches=PATCH)
        check_patches_of(data, range(5))
        assert data.classes == ["image"]
        assert data.counts == [sum(map(count, range(5)))]

    def test_in_gray(self, tmp_path: Path) -> None:
        data = load_data(write(tmp_path, range(5)), patches=PATCH, grayscale=True)
        check_patches_of(data, range(5), mode="L")

    def test_gray_ones_become_color_beside_color_ones(self, tmp_path: Path) -> None:
        write(tmp_path, [0, 1], mode="L")
        write(tmp_path, [2])
        images = load_data(tmp_path, patches=PATCH).images
        gray = count(0) + count(1)
        assert images.shape[1] == 3
        assert all(torch.equal(images[:gray, channel], images[:gray, 0]) for channel in (1, 2))
        assert not torch.equal(images[gray:, 0], images[gray:, 1])

    def test_class_folders_are_classes(self, tmp_path: Path) -> None:
        write(tmp_path / "b", [1, 3])
        write(tmp_path / "a" / "deeper", [0, 2])
        data = load_data(tmp_path, patches=PATCH)
        check_patches_of(data, [0, 2, 1, 3])
        assert data.classes == ["a", "b"]
        assert data.targets == [0] * (count(0) + count(2)) + [1] * (count(1) + count(3))

    def test_files_beside_folders_mean_no_classes(self, tmp_path: Path) -> None:
        write(tmp_path, [4])
        write(tmp_path / "a", [1])
        data = load_data(tmp_path, patches=PATCH)
        check_patches_of(data, [4, 1])
        assert data.classes == ["image"]
        assert len(load_data(tmp_path, resize=(8, 8))) == 1  # as it was: without patches the file is left out

    def test_files_that_are_no_images_do_not_count(self, tmp_path: Path) -> None:
        write(tmp_path / "a", [1])
        (tmp_path / "README.txt").write_text("about")
        (tmp_path / "._1.png").write_bytes(b"what macOS leaves on other disks")
        (tmp_path / "folder.png").mkdir()
        picture(2).save(tmp_path / "folder.png" / "1.png")
        assert load_data(tmp_path, patches=PATCH).classes == ["a", "folder.png"]

    def test_no_notice_of_classes(self, tmp_path: Path) -> None:
        write(tmp_path / "a", [1])
        write(tmp_path / "b" / "c", [2])
        data = load_data(tmp_path, patches=PATCH, label_column="none")
        check_patches_of(data, [1, 2])
        assert data.classes == ["image"]

    @pytest.mark.parametrize("nested", [True, False])
    def test_parts(self, tmp_path: Path, nested: bool) -> None:
        write(tmp_path, [9])  # a file at the top is left out where there are parts
        for part, number in (("train", 1), ("val", 2)):
            write(tmp_path / part / ("a" if nested else ""), [number])
        for split, numbers in ((None, [1]), ("train", [1]), ("validation", [2]), ("all", [1, 2])):
            data = load_data(tmp_path, patches=PATCH, split=split)
            check_patches_of(data, numbers)
            assert data.classes == (["a"] if nested else ["image"])
        check_patches_of(load_data(tmp_path, patches=PATCH, label_column="none"), [1])
        refused(tmp_path, "has no part 'test'; its parts are train, val", split="test")

    def test_a_part_without_classes_leaves_the_other_its_own(self, tmp_path: Path) -> None:
        write(tmp_path / "train" / "a", [1])
        write(tmp_path / "test", [2])
        assert load_data(tmp_path, patches=PATCH).classes == ["a"]
        assert load_data(tmp_path, patches=PATCH, split="test").classes == ["image"]
        data = load_data(tmp_path, patches=PATCH, split="all")
        check_patches_of(data, [2, 1])
        assert data.classes == ["image"]

    def test_flat_parts_beside_others(self, tmp_path: Path) -> None:
        for number, name in enumerate(["test", "train", "tram"]):
            write(tmp_path / name, [number])
        assert load_data(tmp_path, patches=PATCH).classes == ["test", "train", "tram"]
        check_patches_of(load_data(tmp_path, patches=PATCH, split="train"), [1])
        assert load_data(tmp_path, resize=(8, 8), split="train").classes == ["test", "train", "tram"]

    def test_nothing_there(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("about")
        for options in ({}, {"label_column": "none"}):
            refused(tmp_path, r"must hold at least one image \(.*got none$", **options)
        refused(tmp_path, r"has no columns, so label_column cannot be chosen", label_column="kind")
        refused(tmp_path, r"has no columns, so image_column cannot be chosen", image_column="a", label_column="none")


class TestTables:
    def write(self, path: Path, numbers: Any, **more: Any) -> Path:
        columns: dict[str, Any] = {"image": [picture(number) for number in numbers], **more}
        path.parent.mkdir(exist_ok=True)
        datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image()).to_parquet(str(path))
        return path

    def test_without_labels(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "x.parquet", range(5), file=list("abcde"))
        data = load_data(path, patches=PATCH)
        check_patches_of(data, range(5))
        assert data.classes == ["image"]
        refused(path, "must have one ClassLabel column, got .*or rename.*--patches 96x96", patches=None)
        refused(path, "label_column must be one of the columns, which are image, file", label_column="kind")

    def test_labels_are_kept(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "x.parquet", range(3), label=["b", "a", "b"])
        data = load_data(path, patches=PATCH)
        check_patches_of(data, range(3))
        assert data.classes == ["a", "b"]
        assert data.targets == [1] * count(0) + [0] * count(1) + [1] * count(2)
        assert load_data(path, patches=PATCH, label_column="none").classes == ["image"]

    def test_faulty_labels_are_told_and_can_be_ignored(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "x.parquet", range(3), label=["b", None, "b"])
        refused(path, "row 1 of .*: the label is missing")
        check_patches_of(load_data(path, patches=PATCH, label_column="none"), range(3))

    def test_several_columns_of_classes(self, tmp_path: Path) -> None:
        table = datasets.Dataset.from_dict({"image": [picture(0)], "kind": [0], "place": [0]})
        for name in ("kind", "place"):
            table = table.cast_column(name, datasets.ClassLabel(names=["x"]))
        table.to_parquet(str(tmp_path / "x.parquet"))
        refused(tmp_path / "x.parquet", "must have one ClassLabel column.*choose one with --label-column")

    def test_parts(self, tmp_path: Path) -> None:
        self.write(tmp_path / "x" / "train-0.parquet", [0, 1])
        self.write(tmp_path / "x" / "train-1.parquet", [2])
        self.write(tmp_path / "x" / "test-0.parquet", [3])
        for split, numbers in ((None, [0, 1, 2]), ("test", [3])):
            check_patches_of(load_data(tmp_path / "x", patches=PATCH, split=split), numbers)

    def test_csv(self, tmp_path: Path) -> None:
        write(tmp_path, range(3))
        lines = [f"{number:02}.png,{'ab'[number % 2]},x" for number in range(3)]
        for header, classes in (("path,label,note", ["a", "b"]), ("path,author,note", ["image"])):
            (tmp_path / "x.csv").write_text("\n".join([header, *lines]))
            data = load_data(tmp_path / "x.csv", patches=PATCH)
            check_patches_of(data, range(3))
            assert data.classes == classes
            assert load_data(tmp_path / "x.csv", patches=PATCH, label_column="none").classes == ["image"]
        refused(tmp_path / "x.csv", "which column holds the class is not clear", patches=None, resize=(8, 8))
        (tmp_path / "x.csv").write_text("path\n00.png\n")
        check_patches_of(load_data(tmp_path / "x.csv", patches=PATCH), [0])


class TestObjects:
    def test_labeled_images(self) -> None:
        digits = load_data("digits", split="test")
        data = load_data("digits", split="test", patches=(4, 8))
        assert torch.equal(data.images, digits.images.unflatten(2, (2, 4)).transpose(1, 2).flatten(0, 1))
        assert data.targets == [label for label in digits.targets for _ in range(2)]
        assert load_data(digits, patches=(4, 8)).fingerprint() == data.fingerprint()
        assert load_data(digits, patches=(4, 8), label_column="none").classes == ["image"]
        assert torch.equal(load_data(digits, patches=(8, 8)).images, digits.images)
        refused(digits.subset([]), "data must hold at least one image, got none")

    def test_torchvision(self, tmp_path: Path) -> None:
        write(tmp_path / "a", [0, 2])
        write(tmp_path / "b", [1])
        data = load_data(ImageFolder(str(tmp_path)), patches=PATCH)
        check_patches_of(data, [0, 2, 1])
        assert data.fingerprint() == load_data(tmp_path, patches=PATCH).fingerprint()

    def test_a_table_without_rows(self) -> None:
        table = datasets.Dataset.from_dict({"image": []}, features=datasets.Features({"image": datasets.Image()}))
        with pytest.raises(DataError, match="data must hold at least one image, got none"):
            load_data({"train": table}, patches=PATCH, label_column="none")

    def test_tables_of_hugging_face(self) -> None:
        table = datasets.Dataset.from_dict({"image": [picture(number) for number in range(5)]})
        for data in (table, {"train": table, "test": table.select([0])}):
            check_patches_of(load_data(data, patches=PATCH), range(5))
        labeled = table.add_column("label", [1, 0, 1, 0, 1]).cast_column("label", datasets.ClassLabel(names=["x", "y"]))
        assert load_data(labeled, patches=PATCH).classes == ["x", "y"]
        data = load_data(labeled, patches=PATCH, label_column="none")
        check_patches_of(data, range(5))
        assert data.classes == ["image"]

    def test_images_alone(self) -> None:
        pictures = [picture(number) for number in range(5)]
        check_patches_of(load_data(pictures, patches=PATCH), range(5))
        tensors = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in pictures]
        check_patches_of(load_data(tensors, patches=PATCH), range(5))
        check_patches_of(load_data([image.float() / 255 for image in tensors], patches=PATCH), range(5))
        check_patches_of(load_data(TensorDataset(tensors[0][None]), patches=PATCH), [0])
        masks = [(image, "a mask") for image in pictures]
        refused(masks, "item 0 of the data set: the label must be a class index, got 'a mask'")
        check_patches_of(load_data(masks, patches=PATCH, label_column="none"), range(5))

    def test_other_items_are_refused(self) -> None:
        refused([picture(0), "text"], "item 1 of the data set: the image must be a PIL image or a tensor, got str")
        refused([(picture(0), 0), picture(1)], r"item 1 of the data set: must be a tuple \(image, label\)")
        refused([()], "item 0 of the data set: the image must be a PIL image or a tensor, got tuple")
        refused([torch.zeros(1, 1, 48, 48)], r"must have shape \(C, H, W\), got \(1, 1, 48, 48\)")
        refused([picture(0)], "must be a tuple", patches=None)

    def test_other_sizes_when_read_again(self) -> None:
        class Cropped:
            reads = 0

            def __len__(self) -> int:
                return 2

            def __getitem__(self, index: int) -> Image.Image:
                self.reads += 1
                return picture(0, size=(20 + self.reads, 40))

        refused(Cropped(), "item 0 .* got 21x40 and then 23x40 .*; leave random transforms out")

    def test_damaged_items(self) -> None:
        class Damaged(list[Image.Image]):
            def __getitem__(self, index: Any) -> Any:
                if index == 1:
                    raise OSError("gone")
                return super().__getitem__(index)

        rows = Damaged(picture(number) for number in range(4))
        refused(rows, r"item 1 of the data set: cannot be read as an image \('gone'\)")
        with pytest.warns(UserWarning, match="skipped 1 of 4 images"):
            data = load_data(rows, patches=PATCH, skip_bad=True)
        check_patches_of(data, [0, 2, 3])
        assert data.skipped == ("item 1 of the data set ('gone')",)
        with pytest.raises(DataError, match=r"none of the 2 images can be read; the first one is .*\('gone'\)"):
            load_data(torch.utils.data.Subset(rows, [1, 1]), patches=PATCH, skip_bad=True, limit_per_class=1)


class TestWhatIsLeftOut:
    def test_images_smaller_than_a_patch(self, tmp_path: Path) -> None:
        write(tmp_path, [0, 2])
        write(tmp_path, [1], size=(11, 99))
        write(tmp_path, [3], size=(99, 15))
        message = r"left out 2 of 4 images, .* smaller than a patch of 12x16 .* such as .*01\.png of 11x99$"
        for data in (tmp_path, [decode_image(path, "") for path in sorted(tmp_path.glob("*.png"))]):
            with pytest.warns(UserWarning, match=message if data is tmp_path else "left out 2 of 4 images") as said:
                check_patches_of(load_data(data, patches=PATCH), [0, 2])
            assert len(said) == 1
        refused(tmp_path, "images must be as large as a patch of 100x100 .*got 4 smaller ones, ", patches=(100, 100))

    def test_a_class_of_small_images_stays_a_class(self, tmp_path: Path) -> None:
        write(tmp_path / "a", [0])
        write(tmp_path / "b", [1], size=(4, 4))
        with pytest.warns(UserWarning, match="left out 1 of 2"):
            assert load_data(tmp_path, patches=PATCH).counts == [count(0), 0]

    def test_damaged_files(self, tmp_path: Path) -> None:
        write(tmp_path, range(5))
        (tmp_path / "01.png").write_bytes(b"")
        cut = (tmp_path / "03.png").read_bytes()[:2000]
        (tmp_path / "03.png").write_bytes(cut)
        assert measure_image(cut, "cut") == SIZES[3]  # its header is whole
        refused(tmp_path, r"01\.png: cannot be read as an image \(the file is empty\)")
        with pytest.warns(UserWarning, match="skipped 2 of 5 images, which cannot be read:\n") as said:
            data = load_data(tmp_path, patches=PATCH, skip_bad=True)
        assert len(said) == 1
        check_patches_of(data, [0, 2, 4])
        assert [Path(line.split(" (")[0]).name for line in data.skipped] == ["01.png", "03.png"]
        (tmp_path / "01.png").unlink()
        refused(tmp_path, r"03\.png: cannot be read as an image")

    def test_images_are_chosen_before_they_are_cut(self, tmp_path: Path) -> None:
        for label in range(2):
            write(tmp_path / f"{label}", range(8))
        options: dict[str, Any] = {"limit_per_class": 5, "longtail": 2.5, "seed": 3}
        marks = load_data(tmp_path, resize=(4, 4), **options)
        whole = [image.tobytes() for image in load_data(tmp_path, resize=(4, 4)).images.numpy()]
        chosen = [whole.index(image.tobytes()) % 8 for image in marks.images.numpy()]
        assert marks.counts == [5, 2]
        for data in (tmp_path, ImageFolder(str(tmp_path))):
            check_patches_of(load_data(data, patches=PATCH, **options), chosen)


@pytest.mark.parametrize("kind", ["folder", "data set", "labeled images"])
def test_the_disk_gives_the_same(tmp_path: Path, kind: str) -> None:
    source: Any = write(tmp_path, range(10))
    if kind == "data set":
        source = [picture(number, "L" if number < 5 else "RGB") for number in range(10)]
    elif kind == "labeled images":
        source = from_dataset([(picture(number, size=(31, 47)), number % 2) for number in range(10)])
    memory = load_data(source, patches=PATCH)
    with pytest.warns(UserWarning, match=f"the images take {memory.images.nbytes / 2**30:.3g} GiB, more than") as said:
        disk = load_data(source, patches=PATCH, memory_limit=1e-6)
    assert len(said) == 1
    assert disk.images.is_shared()
    assert not memory.images.is_shared()
    assert disk.fingerprint() == memory.fingerprint()


@pytest.mark.parametrize("patches", [32, (32,), (0, 8), (8.0, 8), "8x8", (8, 20_000)])
def test_other_patches_are_refused(tmp_path: Path, patches: Any) -> None:
    for data in ("digits", write(tmp_path, [0]), [picture(0)]):
        refused(data, r"patches must be \(height, width\)", patches=patches)


def test_not_both_patches_and_resize(tmp_path: Path) -> None:
    for data in ("digits", write(tmp_path, [0]), [picture(0)]):
        refused(data, "patches and resize exclude each other, got patches 12x16 and resize 8x9; leave", resize=(8, 9))


class TestMeasuring:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
    @pytest.mark.parametrize("orientation", range(9))
    def test_gives_the_size_of_what_is_decoded(self, tmp_path: Path, kind: str, orientation: int) -> None:
        exif = Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        path = tmp_path / "1"
        picture(1).save(path, kind, exif=exif)
        for file in (path, path.read_bytes()):
            decoded = decode_image(file, "1")
            assert measure_image(file, "1") == (decoded.height, decoded.width)
        turned = kind in ("PNG", "JPEG", "WEBP", "TIFF") and orientation > 4
        assert measure_image(path, "1") == (SIZES[1][::-1] if turned else SIZES[1])

    def test_orientation_behind_the_pixels(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        content = exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = struct.pack(">I", len(content)) + b"eXIf" + content + struct.pack(">I", zlib.crc32(b"eXIf" + content))
        file = io.BytesIO()
        picture(1).save(file, "PNG")
        whole, end = file.getvalue()[:-12], file.getvalue()[-12:]
        late = whole + chunk + end
        decoded = decode_image(late, "late")
        assert (decoded.height, decoded.width) == measure_image(late, "late") == SIZES[1][::-1]

    def test_16_bits(self, tmp_path: Path) -> None:
        Image.fromarray(np.zeros((20, 30), dtype=np.uint16)).save(tmp_path / "1.png")
        assert measure_image(tmp_path / "1.png", "1") == (20, 30)


# --- patches of one image stay together


def test_patches_know_their_image_and_are_split_with_it(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(10):
        Image.fromarray(rng.integers(0, 256, (20, 30), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    data = load_data(tmp_path, patches=(10, 10))
    assert data.origins.tolist() == [number for number in range(10) for _ in range(6)]
    kept, held_out = data.split(0.3, seed=0)
    assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(60))
    assert len(set(data.origins[held_out].tolist())) == 3
    assert not set(data.origins[kept].tolist()) & set(data.origins[held_out].tolist())
    assert torch.equal(data.subset(held_out).origins, data.origins[held_out])
    assert load_data("digits").origins is None


def test_training_holds_whole_images_out(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (16, 24), dtype=np.uint8)).save(tmp_path / "photos" / f"{number}.png")
    recipe = {
        "family": "denoiser",
        "model": {"width": 4, "levels": 1, "blocks": 1, "crop": 8},
        "training": {"steps": 2, "batch_size": 4, "validation_fraction": 0.2},
    }
    data = load_data(tmp_path / "photos", patches=(8, 8))
    result = genaug.train(recipe, data=data, output=tmp_path / "run", progress=False)
    assert result.scores["held_out_images"] == 6
