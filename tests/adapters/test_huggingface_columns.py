"""Transforms of a column: batches and examples, labels, small fingerprints, caches, and processes that torch forked."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from datasets.fingerprint import Hasher
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms as v1
from torchvision.transforms import v2

import genaug
from genaug.adapters.huggingface import apply_to_column
from genaug.data import load_data
from genaug.errors import DataError, GenaugError
from genaug.transforms import LatentJitter, Reconstruct

pytestmark = pytest.mark.global_rng  # transforms draw from torch's global generator

SHIPPED = Path(genaug.__file__).parent.parent / "pretrained" / "digits-vae"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def rows(count: int = 12, **columns: Any) -> datasets.Dataset:
    digits = load_data("digits")
    names = datasets.ClassLabel(names=digits.classes)
    features = datasets.Features({"image": datasets.Image(), "label": names, "number": datasets.Value("int64")})
    images = [v2.functional.to_pil_image(image) for image in digits.images[:count]]
    content = {"image": images, "label": digits.targets[:count], "number": list(range(count))}
    return datasets.Dataset.from_dict(content, features=features)


def pixels(images: Any) -> Tensor:
    return torch.stack([torch.from_numpy(np.array(image)) for image in images])


def reconstructions(count: int = 12, *, labels: bool) -> Tensor:
    digits = load_data("digits")
    given = digits.labels[:count] if labels else None
    varied = genaug.load("digits-vae").vary(digits.images[:count], given, strength=0.0)
    return (varied[:, 0] * 255).round().to(torch.uint8)


def invert(image: Image.Image) -> Image.Image:
    return Image.eval(image, lambda value: 255 - value)


class TestBatches:
    def test_batch_is_a_new_dict_with_the_column_changed(self) -> None:
        batch = rows()[:]
        before = dict(batch)
        result = apply_to_column(Reconstruct("digits-vae"))(batch)
        assert result is not batch
        assert batch == before
        assert batch["image"] is before["image"]
        assert list(result) == list(batch)
        assert result["label"] is batch["label"]
        assert torch.equal(pixels(result["image"]), reconstructions(labels=False))
        assert {image.mode for image in result["image"]} == {"L"}

    def test_network_runs_once_for_a_batch(self) -> None:
        transform = LatentJitter("digits-vae", p=1.0)
        sizes: list[int] = []
        transform.model.encoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
        apply_to_column(transform)(rows()[:])
        assert sizes == [12]

    def test_images_of_several_sizes(self) -> None:
        batch = {"image": [image.resize((8 + 2 * (i % 2), 8)) for i, image in enumerate(rows()[:]["image"])]}
        result = apply_to_column(LatentJitter("digits-vae", p=1.0, resize=True))(batch)
        assert [image.size for image in result["image"]] == [(8, 8), (10, 8)] * 6

    def test_probability_is_for_each_image(self) -> None:
        torch.manual_seed(0)
        batch = rows(100)[:]
        result = apply_to_column(Reconstruct("digits-vae", p=0.5))(batch)
        same = [one is other for one, other in zip(result["image"], batch["image"], strict=True)]
        assert 30 < sum(same) < 70

    def test_any_function_is_called_with_each_image(self) -> None:
        result = apply_to_column(invert)(rows()[:])
        assert torch.equal(pixels(result["image"]), 255 - pixels(rows()[:]["image"]))
        tensors = apply_to_column(v2.PILToTensor())(rows()[:])["image"]
        assert torch.equal(torch.stack(tensors)[:, 0], pixels(rows()[:]["image"]))

    def test_other_column(self) -> None:
        batch = {"scan": rows()[:]["image"], "image": ["kept"] * 12}
        result = apply_to_column(invert, "scan")(batch)
        assert result["image"] is batch["image"]
        assert torch.equal(pixels(result["scan"]), 255 - pixels(batch["scan"]))

    @pytest.mark.parametrize("kind", ["list", "stacked"])
    def test_tensors(self, kind: str) -> None:
        images = load_data("digits").images[:12]
        result = apply_to_column(Reconstruct("digits-vae"))({"image": images if kind == "stacked" else list(images)})
        assert type(result["image"]) is (Tensor if kind == "stacked" else list)
        assert torch.equal(torch.stack(list(result["image"]))[:, 0], reconstructions(labels=False))

    def test_empty_batch(self) -> None:
        assert (
            apply_to_column(Reconstruct("digits-vae"), label_column="label")({"image": [], "label": []})["image"] == []
        )

    @pytest.mark.parametrize("transform", [Reconstruct("digits-vae"), v2.Compose([Reconstruct("digits-vae")])])
    @pytest.mark.parametrize("labels", [list, torch.tensor, np.array])
    def test_labels_reach_the_model(self, transform: Any, labels: Any) -> None:
        batch = rows()[:]
        batch["label"] = labels(batch["label"])
        result = apply_to_column(transform, label_column="label")(batch)
        assert torch.equal(pixels(result["image"]), reconstructions(labels=True))
        assert result["label"] is batch["label"]
        assert not torch.equal(reconstructions(labels=True), reconstructions(labels=False))

    @pytest.mark.parametrize(
        ("batch", "message"),
        [
            ({"img": []}, r"the column 'image' must be in the batch, got the columns \['img'\]"),
            ({"image": [Image.new("L", (8, 8))]}, "the column 'label' must be in the batch"),
            ({"image": [Image.new("L", (8, 8))], "label": [None]}, "class indices, got .*class_encode_column"),
            ({"image": [Image.new("L", (8, 8))], "label": ["one"]}, "must hold class indices"),
            ({"image": [Image.new("L", (8, 8))], "label": [11]}, "labels must be class indices"),
            ({"image": [{"bytes": b"", "path": None}], "label": [0]}, "PIL images .*got dict; decode it with"),
            ({"image": [None], "label": [0]}, "got NoneType"),
            ({"image": np.zeros((1, 8, 8), np.uint8), "label": [0]}, "got ndarray; .*with_format"),
            ({"image": None, "label": 0}, "got NoneType"),
            ({"image": [Image.new("L", (9, 8))], "label": [0]}, "images must be of size"),
        ],
    )  # fmt: skip
    def test_batches_that_do_not_fit(self, batch: Any, message: str) -> None:
        with pytest.raises(DataError, match=message) as caught:
            apply_to_column(Reconstruct("digits-vae"), label_column="label")(batch)
        assert "\n" not in str(caught.value)


class TestInDatasets:
    def test_with_transform(self) -> None:
        real = rows().with_transform(apply_to_column(LatentJitter("digits-vae", p=1.0), label_column="label"))
        assert [real[row]["label"] for row in range(4)] == rows()["label"][:4]
        assert real[3]["image"].mode == "L"
        assert not np.array_equal(np.asarray(real[3]["image"]), np.asarray(real[3]["image"]))  # anew on each reading
        assert len(real[[1, 5]]["image"]) == 2

    @pytest.mark.parametrize("batched", [False, True])
    @pytest.mark.parametrize("label_column", [None, "label"])
    def test_map(self, batched: bool, label_column: str | None) -> None:
        real = rows()
        function = apply_to_column(Reconstruct("digits-vae"), label_column=label_column)
        mapped = real.map(function, batched=batched, batch_size=5)
        assert mapped.features == real.features
        assert mapped["number"] == real["number"]
        expected = reconstructions(labels=label_column is not None)
        assert (pixels(mapped["image"]).int() - expected.int()).abs().max() <= 1  # convolutions, in other batches

    @pytest.mark.parametrize("batched", [False, True])
    def test_map_of_a_stream(self, batched: bool) -> None:
        real = rows().to_iterable_dataset()
        function = apply_to_column(Reconstruct("digits-vae"), label_column="label")
        mapped = list(real.map(function, batched=batched, batch_size=5))
        expected = reconstructions(labels=True)
        assert (pixels([row["image"] for row in mapped]).int() - expected.int()).abs().max() <= 1
        assert [row["number"] for row in mapped] == list(range(12))

    @pytest.mark.parametrize("batched", [False, True])
    def test_map_leaves_other_columns_undecoded(self, batched: bool) -> None:
        real = rows().add_column("broken", [{"bytes": b"no image", "path": None}] * 12)
        real = real.cast_column("broken", datasets.Image())
        mapped = real.map(apply_to_column(invert), batched=batched)
        raw = mapped.cast_column("broken", datasets.Image(decode=False))
        assert raw[0]["broken"]["bytes"] == b"no image"

    def test_torch_format(self) -> None:
        function = apply_to_column(Reconstruct("digits-vae"), label_column="label")
        real = rows().with_format("torch")
        expected = reconstructions(labels=True)
        assert torch.equal(function(real[:])["image"][:, 0], expected)
        assert (function(real[3])["image"][0].int() - expected[3].int()).abs().max() <= 1


class TestRefusals:
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda transform: transform,
            lambda transform: v2.Compose([v2.Identity(), transform]),
            lambda transform: v2.RandomApply([transform], p=0.5),
            lambda transform: v2.RandomApply(nn.ModuleList([transform]), p=0.5),
            lambda transform: v2.RandomChoice([v2.Compose([transform])]),
            lambda transform: v1.Compose([transform]),
            lambda transform: nn.Sequential(transform),
        ],
    )
    def test_model_as_an_object(self, wrap: Any) -> None:
        inner = LatentJitter(genaug.load("digits-vae"))
        with pytest.raises(GenaugError, match=r"holds the model vae itself.*save the model and pass its path"):
            apply_to_column(wrap(inner))
        apply_to_column(wrap(LatentJitter("digits-vae")))

    def test_what_cannot_be_called(self) -> None:
        with pytest.raises(GenaugError, match="transform must be callable"):
            apply_to_column("digits-vae")

    def test_labels_for_a_function_that_takes_none(self) -> None:
        with pytest.raises(GenaugError, match="label_column must be None .* which is function"):
            apply_to_column(invert, label_column="label")


def run(script: str, folder: Path, **variables: str) -> str:
    """Return what a new process prints; it is killed, with the processes that it started, after two minutes."""
    environment = {**os.environ, "HF_DATASETS_CACHE": str(folder / "cache"), **variables}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes) as process:
        try:
            output, problems = process.communicate(timeout=120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, problems[-3000:]
    return output


class TestFingerprints:
    def test_pickle_is_small_and_the_same_after_use(self) -> None:
        function = apply_to_column(v2.Compose([LatentJitter("digits-vae", p=1.0)]), label_column="label")
        digest = Hasher.hash(function)
        assert len(pickle.dumps(function)) < 5000
        function(rows()[:])
        assert len(pickle.dumps(function)) < 5000
        assert Hasher.hash(function) == digest
        again = pickle.loads(pickle.dumps(function))
        assert Hasher.hash(again) == digest
        torch.manual_seed(0)
        one = again(rows()[:])
        torch.manual_seed(0)
        assert torch.equal(pixels(one["image"]), pixels(function(rows()[:])["image"]))

    def test_hash_tells_transforms_apart(self) -> None:
        functions = [
            apply_to_column(LatentJitter("digits-vae")),
            apply_to_column(LatentJitter("digits-vae", strength=0.5)),
            apply_to_column(LatentJitter("digits-vae", p=0.1)),
            apply_to_column(LatentJitter("digits-vae"), "img"),
            apply_to_column(LatentJitter("digits-vae"), label_column="label"),
            apply_to_column(LatentJitter("digits-vae", resize=True)),
            apply_to_column(v2.Compose([LatentJitter("digits-vae")])),
            apply_to_column(invert),
        ]
        assert len({Hasher.hash(function) for function in functions}) == len(functions)

    def test_other_processes_hash_alike_and_find_the_cache(self, tmp_path: Path) -> None:
        rows().save_to_disk(str(tmp_path / "rows"))
        genaug.load("digits-vae").save(tmp_path / "model")
        script = (
            "import sys, hashlib, torch, datasets\n"
            "from datasets.fingerprint import Hasher\n"
            "from genaug.adapters.huggingface import apply_to_column\n"
            "from genaug.transforms import LatentJitter\n"
            "torch.manual_seed({seed})\n"
            "function = apply_to_column(LatentJitter('./model', strength={strength}, p=1.0), label_column='label')\n"
            "mapped = datasets.load_from_disk('rows').map(function, batched=True)\n"
            "content = b''.join(image.tobytes() for image in mapped['image'])\n"
            "print(Hasher.hash(function), mapped._fingerprint, hashlib.sha256(content).hexdigest())\n"
        )
        first = run(script.format(seed=0, strength=0.3), tmp_path, PYTHONHASHSEED="1")
        files = sorted((tmp_path / "rows").glob("cache-*.arrow"))
        assert len(files) == 1
        # With another seed the images would differ, were they made again.
        assert run(script.format(seed=1, strength=0.3), tmp_path, PYTHONHASHSEED="2") == first
        assert sorted((tmp_path / "rows").glob("cache-*.arrow")) == files
        stronger = run(script.format(seed=0, strength=0.5), tmp_path)
        assert all(one != other for one, other in zip(stronger.split(), first.split(), strict=True))
        model = genaug.load(tmp_path / "model")
        with torch.no_grad():
            next(model.decoder.parameters()).add_(0.01)
        model.save(tmp_path / "model", overwrite=True)
        changed = run(script.format(seed=0, strength=0.3), tmp_path)
        assert all(one != other for one, other in zip(changed.split(), first.split(), strict=True))


class TestProcesses:
    def test_map_in_processes_after_torch_ran(self, tmp_path: Path) -> None:
        # With two threads in the parent, a forked process that runs convolutions hangs unless it goes down to one.
        script = (
            "import torch, genaug\n"
            "from datasets import Dataset, Features, Image, Value\n"
            "from torchvision.transforms.v2 import functional as F\n"
            "from genaug.adapters.huggingface import apply_to_column\n"
            "from genaug.models import VAE, VAEConfig\n"
            "from genaug.transforms import Reconstruct\n"
            "torch.set_num_threads(2)\n"
            "spec = genaug.DataSpec(channels=3, height=32, width=32, class_names=('a', 'b'))\n"
            "VAE(spec, VAEConfig(width=16)).save('model')\n"
            "function = apply_to_column(Reconstruct('./model'), label_column='label')\n"
            "images = torch.randint(256, (16, 3, 32, 32), dtype=torch.uint8)\n"
            "rows = Dataset.from_dict({'image': [F.to_pil_image(image) for image in images], 'label': [0, 1] * 8})\n"
            "alone = rows.map(function, batched=True)\n"
            "function({'image': list(images), 'label': [0] * 16})\n"
            "shared = rows.map(function, batched=True, num_proc=2, load_from_cache_file=False)\n"
            "for one, other in zip(alone, shared, strict=True):\n"
            "    levels = F.pil_to_tensor(one['image']).int() - F.pil_to_tensor(other['image']).int()\n"
            "    assert levels.abs().max() <= 1\n"
            "print('done')\n"
        )
        assert run(script, tmp_path, OMP_NUM_THREADS="2").endswith("done\n")

    def test_processes_draw_apart(self, tmp_path: Path) -> None:
        script = (
            "import torch\n"
            "from datasets import Dataset\n"
            "from genaug.adapters.huggingface import apply_to_column\n"
            "from genaug.data import load_data\n"
            "from genaug.transforms import LatentJitter\n"
            "from torchvision.transforms.v2.functional import to_pil_image\n"
            "image = to_pil_image(load_data('digits').images[0])\n"
            "function = apply_to_column(LatentJitter('digits-vae', strength=1.0, p=1.0))\n"
            "rows = Dataset.from_dict({'image': [image] * 8})\n"
            "for processes in (1, 2, 4):\n"
            "    state = torch.get_rng_state()\n"
            "    mapped = rows.map(function, batched=True, batch_size=2, num_proc=processes)\n"
            "    assert processes == 1 or torch.equal(torch.get_rng_state(), state)\n"
            "    assert len({image.tobytes() for image in mapped['image']}) == 8\n"
            "print('done')\n"
        )
        assert run(script, tmp_path, OMP_NUM_THREADS="2").endswith("done\n")

    def test_other_functions_in_processes_after_torch_ran(self, tmp_path: Path) -> None:
        script = (
            "import torch\n"
            "from datasets import Dataset\n"
            "from torchvision.transforms import v2\n"
            "from genaug.adapters.huggingface import apply_to_column\n"
            "torch.set_num_threads(2)\n"
            "blur = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.GaussianBlur(9, 2.0)])\n"
            "images = [v2.functional.to_pil_image(torch.full((3, 300, 300), i, dtype=torch.uint8)) for i in range(8)]\n"
            "blur(images[0])\n"
            "rows = Dataset.from_dict({'image': images})\n"
            "def mean(batch):\n"
            "    return {'mean': [image.mean().item() for image in apply_to_column(blur)(batch)['image']]}\n"
            "mapped = rows.map(mean, batched=True, num_proc=2)\n"
            "assert [round(mean * 255) for mean in mapped['mean']] == list(range(8))\n"
            "print('done')\n"
        )
        assert run(script, tmp_path, OMP_NUM_THREADS="2").endswith("done\n")


@pytest.mark.parametrize("labels", [None, "label"])
def test_flat_images_of_a_batch_are_several(labels: str | None) -> None:
    """`Array2D` columns are tensors (N, H, W) in batches, which is not one image of N channels."""
    digits = load_data("digits")
    kinds = {"image": datasets.Array2D((8, 8), "float32"), "label": datasets.ClassLabel(names=digits.classes)}
    content = {"image": [image[0].numpy() / 255 for image in digits.images[:3]], "label": digits.targets[:3]}
    table = datasets.Dataset.from_dict(content, features=datasets.Features(kinds)).with_format("torch")
    function = apply_to_column(Reconstruct("digits-vae"), label_column=labels)
    one_by_one, batched = table.map(function)["image"][:], table.map(function, batched=True)["image"][:]
    torch.testing.assert_close(batched, one_by_one, atol=1e-5, rtol=0)
    assert batched.shape == (3, 8, 8)
    expected = reconstructions(3, labels=labels is not None) / 255
    torch.testing.assert_close(batched, expected, atol=0.6 / 255, rtol=0)


def test_flat_images_without_other_columns() -> None:
    images = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0))
    flat = datasets.Features({"image": datasets.Array2D((8, 8), "float32")})
    table = datasets.Dataset.from_dict({"image": images.numpy()}, features=flat).with_format("torch")
    function = apply_to_column(Reconstruct("digits-vae"))
    batched = table.map(function, batched=True)["image"][:]
    torch.testing.assert_close(batched, table.map(function)["image"][:], atol=1e-5, rtol=0)
    assert batched.shape == (5, 8, 8)


def test_an_image_of_as_many_channels_as_another_column_has_values() -> None:
    seen: list[Any] = []
    note = apply_to_column(lambda image: seen.append(image.shape) or image)
    note({"image": torch.rand(3, 8, 8), "mean": [0.1, 0.2, 0.3], "label": 1})
    assert seen == [(3, 8, 8)]
