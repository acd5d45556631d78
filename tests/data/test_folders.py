"""Image folders: parts, links, hidden files, animations and deep images; what is left out, and what is chosen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import ImageFolder

from genaug.data import LabeledImages, load_data, longtail_counts
from genaug.errors import DataError

LEVELS = np.round(load_digits().images * 255 / 16).astype(np.uint8)


def picture(index: int = 0) -> Image.Image:
    return Image.fromarray(LEVELS[index])


def write(root: Path, **counts: int) -> Path:
    """Write so many images of each class; image i of a class is digit i."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            picture(index).save(root / name / f"{index:03}.png")
    return root


def refused(data: Any, message: str, **options: Any) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_data(data, **options)
    assert "\n" not in str(caught.value)


class TestParts:
    def test_are_chosen_and_train_is_the_default(self, tmp_path: Path) -> None:
        for part, count in (("train", 3), ("val", 2), ("test", 1)):
            write(tmp_path / part, cat=count, dog=count)
        assert load_data(tmp_path).counts == load_data(tmp_path, split="train").counts == [3, 3]
        assert load_data(tmp_path, split="val").counts == load_data(tmp_path, split="validation").counts == [2, 2]
        assert load_data(tmp_path, split="test").counts == [1, 1]
        assert load_data(tmp_path, split="all").counts == [6, 6]
        expected = ImageFolder(str(tmp_path / "val"))
        assert load_data(tmp_path, split="val").targets == expected.targets
        refused(tmp_path, "has no part 'extra'; its parts are test, train, val", split="extra")

    def test_classes_are_those_of_all_parts(self, tmp_path: Path) -> None:
        write(tmp_path / "train", bird=2, dog=1)
        write(tmp_path / "test", cat=1, dog=3)
        with pytest.warns(UserWarning, match="train: holds no images of 1 of the 3 classes .*: cat$"):
            train = load_data(tmp_path)
        with pytest.warns(UserWarning, match="test: holds no images of 1 of the 3 classes .*: bird$"):
            test = load_data(tmp_path, split="test")
        assert train.classes == test.classes == ["bird", "cat", "dog"]
        assert train.counts == [2, 0, 1]
        assert test.counts == [0, 1, 3]

    def test_without_train_it_must_be_said_which(self, tmp_path: Path) -> None:
        write(tmp_path / "val", a=1)
        write(tmp_path / "test", a=1)
        refused(tmp_path, "has no part 'train'; its parts are test, val")

    def test_a_part_without_class_folders(self, tmp_path: Path) -> None:
        write(tmp_path / "train", a=1)
        (tmp_path / "test").mkdir()
        picture().save(tmp_path / "test" / "1.png")
        assert load_data(tmp_path).counts == [1]
        refused(tmp_path, r"test: must hold one folder of images for each class.*\(it holds 1\.png\)", split="test")

    def test_parts_beside_other_folders(self, tmp_path: Path) -> None:
        write(tmp_path / "train", a=1)
        write(tmp_path / "test", a=1)
        write(tmp_path, docs=1)
        refused(tmp_path, "got the parts test, train beside docs; choose a part with --split train")
        assert load_data(tmp_path, split="train").counts == [1]

    def test_one_part_beside_another_folder(self, tmp_path: Path) -> None:
        write(tmp_path / "train", cat=2, dog=1)
        write(tmp_path, unlabeled=3)
        message = "got the parts train beside unlabeled; choose a part with --split train .* rename train"
        refused(tmp_path, message)
        refused(tmp_path, message, split="all")
        refused(tmp_path, message, split="test")
        data = load_data(tmp_path, split="train")
        assert data.classes == ["cat", "dog"]
        assert data.counts == [2, 1]

    def test_a_class_may_be_called_train(self, tmp_path: Path) -> None:
        assert load_data(write(tmp_path, tram=1, train=2)).counts == [2, 1]

    @pytest.mark.parametrize("split", [None, "train", "all"])
    def test_parts_without_classes_are_none(self, tmp_path: Path, split: str | None) -> None:
        """Else test images would be trained on."""
        with pytest.raises(DataError, match="got the parts test, train alone, with images in them; where these are"):
            load_data(write(tmp_path, test=1, train=2), split=split)


class TestLinks:
    def test_that_loop_are_named(self, tmp_path: Path) -> None:
        write(tmp_path, a=1, b=1)
        for number in range(3):  # followed blindly, these would be 3 ** 40 folders
            (tmp_path / "b" / f"loop {number}").symlink_to(tmp_path / "b")
        refused(tmp_path, r"loop \d: is a link that leads back to a folder above it; remove the link")

    def test_that_loop_to_the_root_are_named(self, tmp_path: Path) -> None:
        write(tmp_path / "data", a=1)
        (tmp_path / "data" / "a" / "up").symlink_to(tmp_path / "data")
        refused(tmp_path / "data", "up/a: is a link that leads back|a: is a link that leads back")

    def test_that_lead_elsewhere_are_followed(self, tmp_path: Path) -> None:
        write(tmp_path / "store", x=2)
        write(tmp_path / "data", a=1)
        (tmp_path / "data" / "b").symlink_to(tmp_path / "store" / "x")
        (tmp_path / "data" / "a" / "one.png").symlink_to(tmp_path / "store" / "x" / "000.png")
        assert load_data(tmp_path / "data").counts == [2, 2]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, a=2)
    write(tmp_path / "a", **{".ipynb_checkpoints": 2})
    picture().save(tmp_path / "a" / ".hidden.png")
    assert load_data(tmp_path).counts == [2]


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    frames = [picture(3), picture(4), picture(5)]
    frames[0].save(tmp_path / "a" / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a" / "pages.tif", save_all=True, append_images=frames[1:])
    images = load_data(tmp_path).images
    assert torch.equal(images[0, 0], torch.from_numpy(LEVELS[3]))
    assert torch.equal(images[1, 0], torch.from_numpy(LEVELS[3]))


class TestDeepImages:
    def save(self, folder: Path, levels: np.ndarray, name: str = "1.png") -> Path:
        (folder / "a").mkdir(exist_ok=True)
        Image.fromarray(levels.astype(np.uint16)).save(folder / "a" / name)
        return folder

    @pytest.mark.parametrize("name", ["1.png", "1.tif"])
    def test_are_divided_by_257(self, tmp_path: Path, name: str) -> None:
        levels = np.random.default_rng(0).integers(0, 65536, (8, 8))
        levels[0, :4] = [0, 65535, 128, 129]
        data = load_data(self.save(tmp_path, levels, name))
        assert np.array_equal(data.images[0, 0].numpy(), np.rint(levels / 257).astype(np.uint8))
        assert data.images[0, 0, 0, :2].tolist() == [0, 255]

    def test_mix_with_others(self, tmp_path: Path) -> None:
        self.save(tmp_path, LEVELS[3].astype(np.uint16) * 257)
        picture(3).save(tmp_path / "a" / "2.png")
        images = load_data(tmp_path).images
        assert torch.equal(images[0], images[1])

    def test_of_12_bits_are_told(self, tmp_path: Path) -> None:
        with pytest.warns(UserWarning, match="reach level 3824 of 65535 only; divided by 257 they have 15 gray levels"):
            load_data(self.save(tmp_path, LEVELS[3].astype(np.uint16) * 16))


class TestSkipping:
    def damage(self, tmp_path: Path, count: int) -> Path:
        write(tmp_path, a=3, b=3)
        for index in range(count):
            (tmp_path / "a" / f"bad {index:02}.png").write_bytes(b"" if index % 2 == 0 else b"no image")
        return tmp_path

    def test_without_it_the_file_is_named(self, tmp_path: Path) -> None:
        refused(self.damage(tmp_path, 1), r"bad 00\.png: cannot be read as an image \(the file is empty\).*--skip-bad")

    def test_is_counted_and_listed(self, tmp_path: Path) -> None:
        with pytest.warns(UserWarning, match="skipped") as caught:
            data = load_data(self.damage(tmp_path, 13), skip_bad=True)
        lines = str(caught[0].message).splitlines()
        assert lines[0] == "skipped 13 of 19 images, which cannot be read:"
        assert lines[-1].strip() == "... and 3 more"
        assert len(lines) == 12
        assert len(data.skipped) == 13
        assert "bad 12.png (the file is empty)" in data.skipped[12]
        clean = write(tmp_path / "clean", a=3, b=3)
        assert data.fingerprint() == load_data(clean).fingerprint()
        assert load_data(clean, skip_bad=True).skipped == ()

    def test_nothing_that_can_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "1.png").write_bytes(b"")
        refused(
            tmp_path, r"none of the 1 images can be read; the first one is .*1\.png \(the file is empty", skip_bad=True
        )

    def test_of_items_of_a_data_set(self, tmp_path: Path) -> None:
        whole = ImageFolder(str(self.damage(tmp_path, 2)))
        with pytest.warns(UserWarning, match="skipped 2 of 8"):
            data = load_data(whole, skip_bad=True)
        assert data.counts == [3, 3]
        assert len(data.skipped) == 2


class TestChoosing:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return write(tmp_path / "data", a=30, b=20, c=5)

    def rows(self, data: LabeledImages) -> set[tuple[bytes, int]]:
        return {(image.numpy().tobytes(), label) for image, label in data}

    def test_a_limit_is_nested_seeded_and_kept_by_every_class(self, folder: Path) -> None:
        whole = load_data(folder)
        some, more = (load_data(folder, limit_per_class=limit) for limit in (4, 10))
        assert some.counts == [4, 4, 4]
        assert more.counts == [10, 10, 5]
        assert self.rows(some) < self.rows(more) < self.rows(whole)
        assert some.fingerprint() == load_data(folder, limit_per_class=4).fingerprint()
        assert some.fingerprint() != load_data(folder, limit_per_class=4, seed=1).fingerprint()

    def test_is_the_same_for_every_kind_of_source(self, folder: Path) -> None:
        options = {"limit_per_class": 12, "longtail": 4.0, "seed": 3}
        expected = load_data(folder, **options).fingerprint()
        assert load_data(load_data(folder), **options).fingerprint() == expected
        items = ImageFolder(str(folder), transform=lambda image: image.convert("L"))
        assert load_data(items, **options).fingerprint() == expected

    def test_a_long_tail_has_the_counts_of_the_literature(self, tmp_path: Path) -> None:
        data = load_data(write(tmp_path, a=40, b=40, c=40), longtail=10)
        assert data.counts == longtail_counts(40, 3, imbalance_factor=10)
        limited = load_data(tmp_path, limit_per_class=20, longtail=10)
        assert limited.counts == longtail_counts(20, 3, imbalance_factor=10)

    def test_images_not_chosen_are_not_read(self, folder: Path) -> None:
        chosen = load_data(folder, limit_per_class=4)
        for file in (folder / "a").iterdir():
            if (np.asarray(Image.open(file)).tobytes(), 0) not in self.rows(chosen):
                file.write_bytes(b"")
        assert load_data(folder, limit_per_class=4).fingerprint() == chosen.fingerprint()

    def test_data_given_are_not_changed(self) -> None:
        data = load_data("digits")
        before = data.fingerprint()
        load_data(data, limit_per_class=3, resize=(4, 4))
        assert data.fingerprint() == before

    def test_grayscale_is_that_of_pil(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        color = Image.merge("RGB", [picture(1), picture(2), picture(3)])
        color.save(tmp_path / "a" / "1.png")
        data = load_data(tmp_path, grayscale=True)
        assert data.spec.size == "1x8x8"
        assert np.array_equal(data.images[0, 0].numpy(), np.asarray(color.convert("L")))
        from_tensors = load_data(load_data(tmp_path), grayscale=True)
        assert (from_tensors.images.int() - data.images.int()).abs().max() <= 1  # PIL's weights have 16 bits

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"limit_per_class": 0}, "limit_per_class must be an integer of at least 1, got 0"),
            ({"limit_per_class": 2.0}, "limit_per_class must be an integer"),
            ({"longtail": 0.5}, "longtail .* finite number of at least 1, got 0.5"),
            ({"longtail": float("nan")}, "longtail .* got nan"),
            ({"split": ""}, "split must be the name of a part"),
            ({"image_column": "x"}, "is a folder of images, which has no columns, so image_column cannot be chosen"),
            ({"root": "x"}, "root and download are for data sets of torchvision"),
        ],
    )
    def test_options_that_cannot_be(self, folder: Path, options: dict[str, Any], message: str) -> None:
        refused(folder, message, **options)


def test_folders_that_are_nearly_called_as_parts_are_no_classes(tmp_path: Path) -> None:
    write(tmp_path / "near/train_images", a=1, b=1)
    write(tmp_path / "near/test_images", a=1, b=1)
    refused(
        tmp_path / "near", "or parts called train, val and test, got test_images, train_images with folders in them"
    )
    write(tmp_path / "twice/train/train", a=1, b=1)
    write(tmp_path / "twice/test/test", a=1, b=1)
    for options in ({}, {"split": "test"}):
        refused(tmp_path / "twice", "its parts must hold one folder of images .*, got the parts test, train", **options)
    write(tmp_path / "classes", test_pad=2, dev_board=1)
    assert load_data(tmp_path / "classes").classes == ["dev_board", "test_pad"]


@pytest.mark.parametrize("below", ["", "train"])
def test_tables_beside_class_folders_are_refused(tmp_path: Path, below: str) -> None:
    write(tmp_path / below, cat=1, dog=1)
    (tmp_path / below / "train-samples.parquet").write_bytes(b"PAR1")
    refused(tmp_path, r"must hold parquet files or folders of images, got both; .*\*\.parquet")


@pytest.mark.parametrize("bits", [8, 16])
def test_tiffs_whose_highest_level_is_black(tmp_path: Path, bits: int) -> None:
    levels = LEVELS[0] if bits == 8 else LEVELS[0].astype(np.uint16) * 257
    negative = levels if bits == 8 else 65535 - levels  # PIL turns 8 bits about when it writes and when it reads
    for name, image, photometric in (("a", levels, 1), ("b", negative, 0)):
        (tmp_path / name).mkdir()
        picture = Image.fromarray(image)
        picture.save(tmp_path / name / "1.tiff", tiffinfo={262: photometric})
    with Image.open(tmp_path / "b/1.tiff") as picture:
        assert picture.tag_v2[262] == 0
    data = load_data(tmp_path)
    for image in data.images:
        assert np.array_equal(image[0].numpy(), LEVELS[0])
