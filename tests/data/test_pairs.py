"""Pairs of images from two sources: who belongs to whom, both cut alike, and what is refused."""

import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from genaug.data import LabeledImages, from_dataset, load_data
from genaug.data.check import check_data
from genaug.errors import DataError
from genaug.spec import DataSpec

PATCH = (12, 16)
SIZES = [(12, 16), (31, 47), (40, 32), (25, 17)]  # of the images with patches, in turn


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def picture(number: int, kind: str, *, mode: str = "RGB", size: tuple[int, int] = (9, 7)) -> Image.Image:
    shape = size if mode == "L" else (*size, 3)
    draw = np.random.default_rng([number, kind == "clean"])
    return Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8))


def pixels(image: Image.Image) -> torch.Tensor:
    array = torch.from_numpy(np.array(image))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1)


def joined(number: int, **options: Any) -> torch.Tensor:
    return torch.cat([pixels(picture(number, kind, **options)) for kind in ("noisy", "clean")])


def write(root: Path, names: dict[str, int] | None = None, *, suffix: str = ".png", **options: Any) -> tuple[str, str]:
    """Write both images of pairs, by name, into two folders; the second ones as PNG."""
    for kind, ending in (("noisy", suffix), ("clean", ".png")):
        for name, number in (names or {f"{number:02}": number for number in range(6)}).items():
            path = root / kind / (name + ending)
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(number, kind, **options).save(path)
    return str(root / "noisy"), str(root / "clean")


def refused(data: Any, pairs: Any, message: str, **options: Any) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_data(data, pairs=pairs, **options)
    assert "\n" not in str(caught.value)


class TestFolders:
    @pytest.mark.parametrize(("mode", "channels"), [("L", 2), ("RGB", 6)])
    def test_channels_of_both(self, tmp_path: Path, mode: str, channels: int) -> None:
        noisy, clean = write(tmp_path, mode=mode)
        data = load_data(noisy, pairs=clean)
        assert torch.equal(data.images, torch.stack([joined(number, mode=mode) for number in range(6)]))
        assert data.spec == DataSpec(channels, 9, 7, ("image",))
        assert data.paired
        assert data.origins is None
        assert data.subset([3]).paired
        assert load_data(data) is data

    def test_classes_are_kept(self, tmp_path: Path) -> None:
        noisy, clean = write(tmp_path, {"b/1": 1, "a/2": 2, "a/3": 3})
        data = load_data(noisy, pairs=clean)
        assert torch.equal(data.images, torch.stack([joined(number) for number in (2, 3, 1)]))
        assert (data.classes, data.targets) == (["a", "b"], [0, 0, 1])
        assert load_data(noisy, pairs=clean, label_column="none").classes == ["image"]

    def test_endings_differ(self, tmp_path: Path) -> None:
        """Sorted with their endings, these come in another order in each folder."""
        noisy, clean = write(tmp_path, {"a": 1, "a.k": 2, "a-b": 3}, suffix=".bmp")
        first, second = ([name.rsplit(".", 1)[0] for name in sorted(os.listdir(folder))] for folder in (noisy, clean))
        assert first != second
        data = load_data(noisy, pairs=clean)
        expected = {"a": 1, "a.k": 2, "a-b": 3}
        assert torch.equal(data.images, torch.stack([joined(expected[name]) for name in first]))

    def test_parts(self, tmp_path: Path) -> None:
        noisy, clean = write(tmp_path, {"train/1": 1, "test/1": 2})
        for split, numbers in ((None, [1]), ("test", [2]), ("all", [2, 1])):
            data = load_data(noisy, pairs=clean, split=split)
            assert torch.equal(data.images, torch.stack([joined(number) for number in numbers]))

    def test_gray_becomes_color_beside_color(self, tmp_path: Path) -> None:
        modes = [("L", "L"), ("L", "RGB"), ("RGB", "L"), ("L", "L"), ("RGB", "RGB")]
        (tmp_path / "noisy").mkdir()
        (tmp_path / "clean").mkdir()
        expected = []
        for number, both in enumerate(modes):
            for kind, mode in zip(("noisy", "clean"), both, strict=True):
                image = picture(number, kind, mode=mode)
                image.save(tmp_path / kind / f"{number}.png")
                expected.append(pixels(image.convert("RGB")))
        sources = tmp_path / "noisy", tmp_path / "clean"
        data = load_data(sources[0], pairs=sources[1])
        assert torch.equal(data.images, torch.stack(expected).view(5, 6, 9, 7))
        gray = load_data(sources[0], pairs=sources[1], grayscale=True)
        assert torch.equal(gray.images[3], joined(3, mode="L"))
        assert gray.spec.channels == 2
        with pytest.warns(UserWarning, match="more than the 1e-06 GiB"):
            disk = load_data(sources[0], pairs=sources[1], memory_limit=1e-6)
        assert disk.images.is_shared()
        assert disk.fingerprint() == data.fingerprint()

    def test_resized_alike(self, tmp_path: Path) -> None:
        noisy, clean = write(tmp_path)
        separate = [load_data(folder, resize=(4, 5), pairs=folder).images[:, :3] for folder in (noisy, clean)]
        assert torch.equal(load_data(noisy, pairs=clean, resize=(4, 5)).images, torch.cat(separate, dim=1))

    def test_of_16_bits(self, tmp_path: Path) -> None:
        levels = np.random.default_rng(0).integers(0, 65536, (2, 9, 7), dtype=np.uint16)
        for kind, array in zip(("noisy", "clean"), levels, strict=True):
            (tmp_path / kind).mkdir()
            Image.fromarray(array).save(tmp_path / kind / "1.png")
        data = load_data(tmp_path / "noisy", pairs=tmp_path / "clean")
        assert np.array_equal(data.images[0].numpy(), np.round(levels / 257).astype(np.uint8))

    def test_pairs_are_chosen_together(self, tmp_path: Path) -> None:
        noisy, clean = write(tmp_path)
        data = load_data(noisy, pairs=clean, limit_per_class=3, seed=1)
        chosen = load_data(noisy, pairs=noisy, limit_per_class=3, seed=1).images[:, :3]
        assert torch.equal(data.images[:, :3], chosen)
        whole = {joined(number).numpy().tobytes() for number in range(6)}
        assert len(data) == 3
        assert all(image.numpy().tobytes() in whole for image in data.images)

    @pytest.mark.parametrize("kind", ["noisy", "clean"])
    @pytest.mark.parametrize("patches", [None, (4, 4)])
    def test_a_damaged_image_goes_with_its_partner(self, tmp_path: Path, kind: str, patches: Any) -> None:
        sources = write(tmp_path)
        (tmp_path / kind / "02.png").write_bytes(b"")
        refused(*sources, rf"{kind}/02\.png: cannot be read as an image", patches=patches)
        with pytest.warns(UserWarning, match="skipped 1 of 6 images"):
            data = load_data(sources[0], pairs=sources[1], skip_bad=True, patches=patches)
        assert data.skipped == (f"{tmp_path / kind / '02.png'} (the file is empty)",)
        if patches is None:
            assert torch.equal(data.images, torch.stack([joined(number) for number in (0, 1, 3, 4, 5)]))


class TestPatches:
    def write(self, root: Path) -> tuple[str, str]:
        for number, size in enumerate(SIZES):
            write(root, {f"{number}": number}, size=size)
        return str(root / "noisy"), str(root / "clean")

    def test_both_are_cut_alike(self, tmp_path: Path) -> None:
        noisy, clean = self.write(tmp_path)
        data = load_data(noisy, pairs=clean, patches=PATCH)
        separate = [load_data(folder, patches=PATCH) for folder in (noisy, clean)]
        assert torch.equal(data.images, torch.cat([one.images for one in separate], dim=1))
        assert data.origins is not None
        assert torch.equal(data.origins, separate[0].origins)
        kept, held_out = data.split(0.25, seed=0)
        assert not set(data.origins[kept].tolist()) & set(data.origins[held_out].tolist())

    def test_small_ones_are_left_out(self, tmp_path: Path) -> None:
        noisy, clean = self.write(tmp_path)
        with pytest.warns(UserWarning, match=r"left out 1 of 4 images, .*noisy/0\.png \(paired with .* of 12x16"):
            data = load_data(noisy, pairs=clean, patches=(13, 17))
        (tmp_path / "noisy" / "0.png").unlink()
        assert torch.equal(data.images[:, :3], load_data(noisy, patches=(13, 17)).images)

    @pytest.mark.parametrize("patches", [None, (4, 4)])
    def test_of_two_sizes(self, tmp_path: Path, patches: Any) -> None:
        noisy, clean = write(tmp_path)
        picture(3, "clean", size=(9, 8)).save(Path(clean) / "03.png")
        message = r"noisy/03\.png \(paired with .*clean/03\.png\): .* of one size, got 9x7 and 9x8 \(height x width\)"
        refused(noisy, clean, message, patches=patches)
        refused(noisy, clean, message, patches=patches, skip_bad=True)


class TestOtherSources:
    def test_lists(self, tmp_path: Path) -> None:
        write(tmp_path)
        for kind, names in (("noisy", "025"), ("clean", "134")):  # pairs by their order, whatever their names
            lines = [f"{kind}/0{name}.png,{name}" for name in names]
            (tmp_path / f"{kind}.csv").write_text("\n".join(["file,class", *lines]))
        data = load_data(tmp_path / "noisy.csv", pairs=tmp_path / "clean.csv")
        assert data.targets == [0, 2, 5]
        expected = [[picture(a, "noisy"), picture(b, "clean")] for a, b in ((0, 1), (2, 3), (5, 4))]
        assert torch.equal(data.images, torch.stack([torch.cat(list(map(pixels, both))) for both in expected]))

    def test_tables(self, tmp_path: Path) -> None:
        for kind in ("noisy", "clean"):
            rows = {"image": [picture(number, kind) for number in range(4)]}
            table = datasets.Dataset.from_dict(rows, datasets.Features({"image": datasets.Image()}))
            table.to_parquet(tmp_path / f"{kind}.parquet")
        data = load_data(tmp_path / "noisy.parquet", pairs=tmp_path / "clean.parquet")
        assert torch.equal(data.images, torch.stack([joined(number) for number in range(4)]))

    def test_data_sets(self) -> None:
        first, second = ([picture(number, kind) for number in range(4)] for kind in ("noisy", "clean"))
        expected = torch.stack([joined(number) for number in range(4)])
        assert torch.equal(load_data(first, pairs=second).images, expected)
        labeled = [(pixels(image), number % 2) for number, image in enumerate(first)]
        data = load_data(labeled, pairs=[pixels(image) for image in second])
        assert torch.equal(data.images, expected)
        assert data.counts == [2, 2]

    def test_unread_items_go_with_their_partners(self) -> None:
        class Damaged(list[Image.Image]):
            def __getitem__(self, index: Any) -> Any:
                if index == self.bad:
                    raise OSError("broken")
                return super().__getitem__(index)

            bad = 1

        first, second = (Damaged(picture(number, kind) for number in range(5)) for kind in ("noisy", "clean"))
        second.bad = 3
        with pytest.warns(UserWarning, match="skipped 2 of 5 images"):
            data = load_data(first, pairs=second, skip_bad=True)
        assert torch.equal(data.images, torch.stack([joined(number) for number in (0, 2, 4)]))
        refused(first, second[:4], r"item 4 of the data set: must have a partner in pairs", skip_bad=True)

    def test_labeled_images(self, tmp_path: Path) -> None:
        noisy, clean = (load_data(folder, patches=(4, 4)) for folder in write(tmp_path))
        data = load_data(noisy, pairs=clean)
        assert torch.equal(data.images, torch.cat([noisy.images, clean.images], dim=1))
        assert torch.equal(data.origins, noisy.origins)  # so that patches of an image stay together
        for part in (
            load_data(data, limit_per_class=5),
            load_data(data, resize=(3, 3)),
            load_data(data, patches=(2, 2)),
        ):
            assert part.paired
            assert part.origins is not None
            assert check_data(part).size.startswith("6x")

    def test_other_channels_of_tensors(self) -> None:
        first, second = [torch.rand(1, 4, 4, generator=seeded())], [torch.rand(3, 4, 4, generator=seeded())]
        refused(first, second, r"item 0 .* both images must have one number of channels, got 1 and 3; convert them")
        refused([picture(0, "noisy", size=(4, 4))], first, "both images must have one number of channels, got 3 and 1")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class TestPartners:
    def test_a_missing_one_is_named(self, tmp_path: Path) -> None:
        noisy, clean = write(tmp_path)
        message = r"^{}/0{}\.png: must have a partner in {}, .* got none \({} images in {}, {} in {}\); add it"
        (tmp_path / "clean" / "02.png").unlink()
        refused(noisy, clean, message.format(noisy, 2, "pairs", 6, "data", 5, "pairs"))
        refused(clean, noisy, message.format(noisy, 2, "data", 6, "pairs", 5, "data"))
        picture(9, "clean").save(tmp_path / "clean" / "09.png")  # as many, but not the same
        refused(noisy, clean, message.format(noisy, 2, "pairs", 6, "data", 6, "pairs"), patches=(4, 4))

    def test_two_of_one_name(self, tmp_path: Path) -> None:
        noisy, clean = write(tmp_path)
        picture(9, "noisy").save(tmp_path / "noisy" / "02.bmp")
        message = r"02\.png: images of data must differ in more than their ending to be paired, got .*02\.bmp too"
        refused(noisy, clean, message)
        refused(clean, noisy, message.replace("data", "pairs"))

    def test_other_lengths(self) -> None:
        images = [picture(number, "noisy") for number in range(3)]
        refused(
            images, images[:2], r"^item 2 of the data set: must have a partner in pairs, .* \(3 images in data, 2 in"
        )
        refused(
            images[:2], images, r"^item 2 of the data set: must have a partner in data, .* \(3 images in pairs, 2 in"
        )

    def test_other_kinds(self, tmp_path: Path) -> None:
        noisy, _ = write(tmp_path)
        images = [picture(number, "clean") for number in range(6)]
        refused(
            noisy, images, r"noisy/00\.png: must have a partner in pairs, .* got none \(6 images in data, 6 in pairs"
        )
        refused(
            images, noisy, r"item 0 of the data set: must have a partner in pairs, of the same path below the folder"
        )

    def test_no_such_source(self, tmp_path: Path) -> None:
        noisy, clean = write(tmp_path)
        refused(noisy, f"{clean}er", r"^pairs: .*cleaner: no such folder or file; .* holds clean, noisy")
        (tmp_path / "noisy" / "test").mkdir()
        (tmp_path / "noisy" / "02.png").rename(tmp_path / "noisy" / "test" / "1.png")
        refused(noisy, clean, "^pairs: .*clean: has no parts, so split 'test' cannot be chosen", split="test")
        refused(noisy, clean, "is a folder of images, which has no columns", image_column="image")


def test_pairs_have_an_even_number_of_channels() -> None:
    images, labels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(DataError, match="paired images must have an even number of channels, got 3"):
        LabeledImages(images, labels, DataSpec(3, 4, 4, ("a",)), paired=True)
    assert not from_dataset(list(zip(images, labels, strict=True))).paired
