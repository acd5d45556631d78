"""The transforms for albumentations, under 2.0.8 and under albumentationsx, with tiny real VAEs."""

import copy
import importlib
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from contract import runs_per_image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from genaug import CheckpointError, DataError, DataSpec, GenaugError
from genaug.adapters.albumentations import LatentJitter, ModelTransform, Reconstruct
from genaug.data import load_data
from genaug.models import VAE, SmallCNN, VAEConfig
from genaug.seeding import derive_seed

GRAY = DataSpec(1, 8, 8, ("a", "b", "c"))
COLOR = DataSpec(3, 12, 10, ("a", "b", "c"))
ONE_LEVEL = 1 / 255  # convolutions may round otherwise in another batch


def make_vae(spec: DataSpec, seed: int = 0) -> VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VAE(spec, VAEConfig(width=8, hidden=16, latent_dim=4))
    images = torch.rand(30, spec.channels, spec.height, spec.width, generator=torch.Generator().manual_seed(0))
    model.fit_after_training(images, torch.arange(30) % max(1, spec.num_classes))
    return model.eval()


@pytest.fixture(scope="module")
def gray() -> VAE:
    return make_vae(GRAY)


@pytest.fixture(scope="module")
def color() -> VAE:
    return make_vae(COLOR)


@pytest.fixture
def path(gray: VAE, tmp_path: Path) -> Path:
    gray.save(tmp_path / "model")
    return tmp_path / "model"


def levels(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape, dtype=np.float32)


def to_tensor(images: np.ndarray) -> Tensor:
    """Images (N, H, W) or (N, H, W, C) as models take them."""
    return torch.from_numpy(images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2).copy())


def from_tensor(images: Tensor, like: np.ndarray) -> np.ndarray:
    if like.dtype == np.uint8:
        images = (images * 255).round().to(torch.uint8)
    return images[:, 0].numpy() if like.ndim == 3 else images.permute(0, 2, 3, 1).numpy()


def seed_of(transform: ModelTransform) -> int:
    """The seed of a direct call."""
    params = transform.get_applied_params()
    return params.get("params", params)["seed"]


def vary(model: VAE, images: np.ndarray, label: int | None, seed: int, strength: float = 0.5) -> np.ndarray:
    """What the model makes of the images of one call."""
    seeds = torch.tensor([seed, *(derive_seed(seed, place) for place in range(1, len(images)))])
    labels = None if label is None else torch.full((len(images),), label)
    return from_tensor(model.vary(to_tensor(images), labels, strength=strength, seeds=seeds), images)


def runs_of(model: VAE) -> tuple[list[int], Any]:
    """Number of images each time the encoder runs."""
    runs: list[int] = []
    return runs, model.encoder.register_forward_hook(lambda module, inputs, output: runs.append(len(inputs[0])))


TRANSFORMS: dict[str, Callable[..., ModelTransform]] = {
    "jitter": lambda model, **options: LatentJitter(model, strength=0.5, **{"p": 1.0, **options}),
    "residual": lambda model, **options: LatentJitter(model, keep_residual=True, **{"p": 1.0, **options}),
    "reconstruct": lambda model, **options: Reconstruct(model, **options),
}

each_transform = pytest.mark.parametrize("make", TRANSFORMS.values(), ids=TRANSFORMS)

IMAGES: dict[str, Callable[[], np.ndarray]] = {
    "gray uint8": lambda: levels(8, 8),
    "gray float32": lambda: floats(8, 8),
    "gray with an axis uint8": lambda: levels(8, 8, 1),
    "gray with an axis float32": lambda: floats(8, 8, 1),
    "color uint8": lambda: levels(12, 10, 3),
    "color float32": lambda: floats(12, 10, 3),
    "backwards": lambda: levels(12, 10, 3)[::-1, :, ::-1],
    "Fortran order": lambda: np.asfortranarray(floats(12, 10, 3)),
}


@each_transform
@pytest.mark.parametrize("wrap", [lambda transform: transform, lambda transform: A.Compose([transform])])
@pytest.mark.parametrize("make_image", IMAGES.values(), ids=IMAGES)
def test_every_kind_of_image(make, wrap, make_image, gray, color):
    image = make_image()
    before = image.copy()
    image.flags.writeable = False
    transform = wrap(make(color if image.shape[-1] == 3 else gray))
    transform.set_random_seed(5)
    result = transform(image=image)["image"]
    assert type(result) is np.ndarray
    assert (result.shape, result.dtype) == (image.shape, image.dtype)
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert not np.shares_memory(result, image)
    assert np.array_equal(image, before)
    assert not np.array_equal(result, before)
    assert result.min() >= 0
    assert result.dtype == np.uint8 or result.max() <= 1
    for twin in (pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform), transform):
        twin.set_random_seed(5)
        assert np.array_equal(twin(image=image)["image"], result)


@each_transform
def test_p_0_changes_nothing_and_runs_no_network(make, gray):
    image = levels(8, 8)
    runs, hook = runs_of(gray)
    assert make(gray, p=0.0)(image=image)["image"] is image
    assert np.array_equal(A.Compose([make(gray, p=0.0)])(image=image)["image"], image)
    hook.remove()
    assert runs == []


@each_transform
def test_p_is_the_share_of_calls_that_change_the_image(make, gray):
    transform = make(gray, p=0.3)
    image, pipeline = levels(8, 8), A.Compose([transform], seed=0)
    runs, hook = runs_of(gray)
    changed = sum(not np.array_equal(pipeline(image=image)["image"], image) for _ in range(200))
    hook.remove()
    assert 35 < changed < 85  # 60 with a standard deviation of 6.5
    assert runs == [1] * changed * runs_per_image(transform)


@pytest.mark.parametrize("image", [levels(8, 8), floats(8, 8, 1)], ids=["uint8", "float32"])
def test_reconstruct_decodes_what_was_encoded(image, gray):
    public = to_tensor(image[None].astype(np.float32) / (255 if image.dtype == np.uint8 else 1))
    expected = from_tensor(gray.decode(gray.encode(public)), image[None])[0]
    assert np.array_equal(Reconstruct(gray)(image=image)["image"], expected)
    assert np.array_equal(LatentJitter(gray, strength=0.0, p=1.0)(image=image)["image"], expected)


@pytest.mark.parametrize("label", [None, 0, 1, 2, np.int64(2), torch.tensor(2), np.array(1)], ids=repr)
def test_the_label_and_the_seed_reach_the_model(label, gray):
    image, transform = floats(8, 8), LatentJitter(gray, strength=0.5, p=1.0, label_key="class_index")
    result = transform(image=image, class_index=label)
    assert result["class_index"] is label
    index = None if label is None else int(label)
    assert np.array_equal(result["image"], vary(gray, image[None], index, seed_of(transform))[0])


def test_without_a_label_key_the_model_runs_with_the_null_class(gray):
    image, transform = floats(8, 8), LatentJitter(gray, strength=0.5, p=1.0)
    result = transform(image=image, label=2)["image"]
    seed = seed_of(transform)
    assert np.array_equal(result, vary(gray, image[None], gray.null_label, seed)[0])
    assert not np.array_equal(result, vary(gray, image[None], 2, seed)[0])


def test_a_model_without_classes_ignores_the_label():
    model = make_vae(DataSpec(1, 8, 8))
    transform = LatentJitter(model, strength=0.5, p=1.0, label_key="label")
    result = transform(image=floats(8, 8), label=7)["image"]
    assert np.array_equal(result, vary(model, floats(1, 8, 8), None, seed_of(transform))[0])


@each_transform
def test_a_missing_label(make, gray):
    transform = make(gray, label_key="label")
    message = (
        "label must be among the arguments, as in transform\\(image=image, label=3\\), got image; .*label_key=None"
    )
    for pipeline in (transform, A.Compose([transform])):
        with pytest.raises(DataError, match=message):
            pipeline(image=levels(8, 8))
    assert np.array_equal(make(gray, label_key="label", p=0.0)(image=levels(8, 8))["image"], levels(8, 8))


@each_transform
@pytest.mark.parametrize("label", [4, 3, -1, 1.0, "a", True, [1], torch.tensor([1, 2]), torch.tensor(1.0)], ids=repr)
def test_a_label_that_is_no_class_index(make, label, gray):
    with pytest.raises(DataError, match="label must be a class index from 0 to 2, or None for no label, got"):
        make(gray, label_key="label")(image=levels(8, 8), label=label)


@each_transform
def test_everything_else_passes_through(make, gray):
    data = {
        "mask": levels(8, 8) // 128,
        "masks": [levels(8, 8) // 64, levels(8, 8) // 32],
        "bboxes": np.array([[1, 2, 5, 8], [0, 0, 4, 4]], dtype=np.float32),
        "names": ["left", "right"],
        "keypoints": np.array([[1, 2], [5, 7]], dtype=np.float32),
        "label": 1,
        "path": Path("seven.png"),
    }
    pipeline = A.Compose(
        [make(gray, label_key="label"), A.HorizontalFlip(p=0.0)],  # without the latter a warning that boxes stay
        bbox_params=A.BboxParams("pascal_voc", label_fields=["names"]),
        keypoint_params=A.KeypointParams("xy"),
    )
    image, given = levels(8, 8), copy.deepcopy(data)
    result = pipeline(image=image, **data)
    assert not np.array_equal(result["image"], image)
    assert set(result) == {"image", *data}
    for name, value in given.items():
        assert np.array_equal(np.asarray(result[name]), np.asarray(value)), name
        assert np.array_equal(np.asarray(data[name]), np.asarray(value)), name


def test_additional_targets_share_the_seed(gray):
    pipeline = A.Compose([LatentJitter(gray, p=1.0)], additional_targets={"other": "image"})
    result = pipeline(image=floats(8, 8), other=floats(8, 8))
    assert np.array_equal(result["image"], result["other"])
    assert not np.array_equal(result["image"], floats(8, 8))


def test_nested_and_strict_pipelines(gray):
    choice = A.OneOf([LatentJitter(gray, p=1.0, label_key="label"), Reconstruct(gray, label_key="label")], p=1.0)
    pipeline = A.Compose([A.HorizontalFlip(p=0.5), choice], strict=True, seed=3)
    image = floats(8, 8)
    first, second = pipeline(image=image, label=1)["image"], pipeline(image=image, label=1)["image"]
    assert first.shape == image.shape
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("shape", [(5, 8, 8, 1), (5, 12, 10, 3)], ids=["gray", "color"])
@pytest.mark.parametrize("draw", [levels, floats])
@pytest.mark.parametrize("wrap", [list, lambda images: images], ids=["list", "array"])
def test_several_images_go_through_the_network_at_once(wrap, draw, shape, gray, color):
    model = gray if shape[-1] == 1 else color
    images, transform = draw(*shape), LatentJitter(model, strength=0.5, p=1.0, label_key="label")
    runs, hook = runs_of(model)
    result = np.stack(transform(images=wrap(images), label=1)["images"])
    hook.remove()
    assert runs == [5]
    assert (result.shape, result.dtype) == (images.shape, images.dtype)
    assert np.array_equal(result, vary(model, images, 1, seed_of(transform)))
    assert np.array_equal(images, draw(*shape))


def test_several_images_have_their_own_noise_and_the_first_that_of_a_single_one(gray):
    pipeline = A.Compose([LatentJitter(gray, strength=0.5, p=1.0)], seed=7)
    images = np.repeat(floats(1, 8, 8, 1), 4, axis=0)
    together = pipeline(images=images)["images"]
    assert len({image.tobytes() for image in together}) == 4
    pipeline.set_random_seed(7)
    np.testing.assert_allclose(pipeline(image=images[0])["image"], together[0], atol=ONE_LEVEL, rtol=0)
    pipeline.set_random_seed(7)
    from_list = pipeline(images=list(images))["images"]
    assert np.array_equal(np.stack(from_list), together)


@pytest.mark.parametrize("axis", [(), (1,)], ids=["without channels", "with channels"])
def test_volumes_are_stacks_of_images(axis, gray):
    volumes, pipeline = floats(2, 3, 8, 8, *axis), A.Compose([LatentJitter(gray, strength=0.5, p=1.0)], seed=7)
    runs, hook = runs_of(gray)
    result = pipeline(volumes=volumes)["volumes"]
    hook.remove()
    assert runs == [6]
    assert result.shape == volumes.shape
    pipeline.set_random_seed(7)
    flat = pipeline(images=volumes.reshape(6, 8, 8, 1))["images"]
    assert np.array_equal(result, np.reshape(flat, volumes.shape))
    pipeline.set_random_seed(7)
    first = pipeline(volume=volumes[0])["volume"]
    np.testing.assert_allclose(first, result[0], atol=ONE_LEVEL, rtol=0)


def test_the_seed_of_compose_holds(gray):
    def run(seed: int) -> list[bytes]:
        pipeline = A.Compose([LatentJitter(gray, strength=0.5)], seed=seed)
        return [pipeline(image=floats(8, 8))["image"].tobytes() for _ in range(10)]

    assert run(7) == run(7)
    assert run(7) != run(8)
    assert 3 <= len(set(run(7))) < 10  # some calls leave the image as it is


@each_transform
def test_replay_gives_the_same_image(make, path):
    pipeline = A.ReplayCompose([A.HorizontalFlip(p=0.5), make(path, p=0.7)])
    pipeline.set_random_seed(1)
    image, applied = levels(8, 8), 0
    for _ in range(10):
        result = pipeline(image=image)
        saved = json.loads(json.dumps(result["replay"]))
        applied += saved["transforms"][1]["applied"]
        assert np.array_equal(A.ReplayCompose.replay(saved, image=image)["image"], result["image"])
    assert 0 < applied < 10


def test_replay_changes_another_image_by_the_same_noise(path, gray):
    result = A.ReplayCompose([LatentJitter(path, strength=0.5, p=1.0)])(image=floats(8, 8))
    params = result["replay"]["transforms"][0]["params"]
    seed = params.get("params", params)["seed"]
    assert type(seed) is int
    other = np.flipud(floats(8, 8)).copy()
    replayed = A.ReplayCompose.replay(result["replay"], image=other)["image"]
    assert np.array_equal(replayed, vary(gray, other[None], None, seed)[0])


@pytest.mark.filterwarnings("ignore:.* could work incorrectly in ReplayMode:UserWarning")
def test_replay_records_the_label(path):
    pipeline = A.ReplayCompose([LatentJitter(path, strength=0.5, p=1.0, label_key="label")])
    result = pipeline(image=floats(8, 8), label=np.int64(2))
    saved = json.loads(json.dumps(result["replay"]))
    for others in ({"label": 2}, {"label": 0}, {}):
        assert np.array_equal(A.ReplayCompose.replay(saved, image=floats(8, 8), **others)["image"], result["image"])


def make_pipeline(model: Any) -> A.Compose:
    transforms = [
        A.HorizontalFlip(p=0.5),
        LatentJitter(model, strength=0.4, p=0.8, label_key="label", resize=True, channels="convert"),
        LatentJitter(model, keep_residual=True, label_key="label", resize=True, channels="convert"),
        Reconstruct(model, p=0.6, resize=True, channels="convert"),
    ]
    return A.Compose(transforms, seed=7)


def check_twin(twin: Any, pipeline: A.Compose) -> None:
    assert repr(twin.transforms) == repr(pipeline.transforms)
    twin.set_random_seed(7)
    for _ in range(5):
        image = levels(20, 14, 3)
        expected = pipeline(image=image, label=1)["image"]
        assert not np.array_equal(expected, image)
        assert np.array_equal(twin(image=image, label=1)["image"], expected)


def test_to_dict_and_from_dict(path):
    pipeline = make_pipeline(path)
    saved = json.loads(json.dumps(A.to_dict(pipeline)))
    entry = saved["transform"]["transforms"][1]
    assert entry["__class_fullname__"] == "genaug.adapters.albumentations.LatentJitter"
    config = json.loads((path / "config.json").read_text())
    assert {name: value for name, value in entry.items() if not name.startswith("__")} == {
        "model": str(path),
        "sha256": config["weights_sha256"],
        "strength": 0.4,
        "keep_residual": False,
        "p": 0.8,
        "label_key": "label",
        "resize": True,
        "channels": "convert",
    }
    assert "strength" not in saved["transform"]["transforms"][3]
    check_twin(A.from_dict(saved), pipeline)


@pytest.mark.parametrize("data_format", ["json", "yaml"])
def test_save_and_load(data_format, path, tmp_path):
    pipeline = make_pipeline(path)
    A.save(pipeline, tmp_path / "pipeline", data_format=data_format)
    check_twin(A.load(tmp_path / "pipeline", data_format=data_format), pipeline)


@pytest.mark.parametrize(
    ("given", "stored"),
    [("./model", "./model"), (Path("model"), "./model"), (Path("../other/model"), "../other/model")],
    ids=repr,
)
def test_a_relative_path_is_stored_as_given_and_stays_a_path(given, stored, gray, tmp_path, monkeypatch):
    gray.save(tmp_path / "other" / "model")
    monkeypatch.chdir(tmp_path / "other")
    saved = A.to_dict(Reconstruct(given))
    assert saved["transform"]["model"] == stored
    assert A.from_dict(saved)(image=levels(8, 8))["image"].shape == (8, 8)
    monkeypatch.chdir("/")
    with pytest.raises(CheckpointError, match="no such directory"):
        A.from_dict(saved)


def test_a_shipped_model_by_name():
    image, label = load_data("digits")[0]
    pipeline = A.Compose([LatentJitter("digits-vae", p=1.0, label_key="label")], seed=0)
    saved = A.to_dict(pipeline)
    assert saved["transform"]["transforms"][0]["model"] == "digits-vae"
    result = pipeline(image=image[0].numpy(), label=label)["image"]
    assert (result.shape, result.dtype) == ((8, 8), np.uint8)
    assert len(pickle.dumps(pipeline)) < 20_000  # without the weights


def test_other_weights_of_the_same_name_are_refused(path, tmp_path):
    saved = A.to_dict(make_pipeline(path))
    A.save(make_pipeline(path), tmp_path / "pipeline.json")
    replay = A.ReplayCompose([Reconstruct(path)])(image=levels(8, 8))["replay"]
    make_vae(GRAY, seed=1).save(path, overwrite=True)
    message = f"weights must have the sha256 {saved['transform']['transforms'][1]['sha256']}"
    for read in (
        lambda: A.from_dict(saved),
        lambda: A.load(tmp_path / "pipeline.json"),
        lambda: A.ReplayCompose.replay(replay, image=levels(8, 8)),
    ):
        with pytest.raises(CheckpointError, match=message):
            read()


@each_transform
def test_a_model_given_as_an_object_cannot_be_written(make, gray, tmp_path):
    pipeline = A.Compose([make(gray)], seed=0)
    again = A.from_dict(A.to_dict(pipeline))
    again.set_random_seed(0)
    assert np.array_equal(again(image=levels(8, 8))["image"], pipeline(image=levels(8, 8))["image"])
    with pytest.raises(TypeError, match="UnsavedModel is not JSON serializable"):
        A.save(pipeline, tmp_path / "pipeline.json")
    replay = A.ReplayCompose([make(gray)])
    first = replay(image=levels(8, 8))
    assert np.array_equal(A.ReplayCompose.replay(first["replay"], image=levels(8, 8))["image"], first["image"])


def test_repr_names_the_model(path, gray):
    arguments = "p=1.0, channels='match', label_key=None, model=<VAE given as an object>, resize=False, sha256=None"
    assert repr(Reconstruct(gray)) == f"Reconstruct({arguments})"
    assert "model=<VAE given as an object>" in repr(A.Compose([LatentJitter(gray)]))
    assert f"model={str(path)!r}" in repr(A.Compose([LatentJitter(path)]))


def test_resize_and_channels(gray, color):
    image = levels(20, 14, 3)
    for model, options in ((color, {"resize": True}), (gray, {"resize": True, "channels": "convert"})):
        result = Reconstruct(model, **options).apply(image, seed=0, label=None)
        assert result.flags.c_contiguous  # albumentationsx does not see to that itself
        assert (result.shape, result.dtype) == (image.shape, image.dtype)
        assert not np.array_equal(result, image)
        assert np.ptp(result.astype(int), axis=-1).max() > 0 or model is gray  # colors are lost in a gray model
    rgba = levels(12, 10, 4)
    result = Reconstruct(color, channels="convert")(image=rgba)["image"]
    assert np.array_equal(result[..., 3], rgba[..., 3])
    assert not np.array_equal(result[..., :3], rgba[..., :3])


@each_transform
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (levels(8, 8, 3), "must have 1 channels, got 3"),
        (levels(9, 8), "must be of size 1x8x8, got 1x9x8"),
        (floats(8, 8) * 255, "within \\[0, 1\\]"),
        (floats(8, 8) - 0.5, "within \\[0, 1\\]"),
        (np.full((8, 8), np.nan, dtype=np.float32), "finite"),
        (np.zeros((8, 8)), "uint8 in \\[0, 255\\] or float32 in \\[0, 1\\], got float64"),
        (np.zeros((8, 8), dtype=np.float16), "got float16"),
        (np.zeros((8, 8), dtype=np.int64), "got int64"),
        (np.zeros((8, 8), dtype=bool), "got bool"),
        (levels(8, 8, 1, 1), "must have shape \\(H, W\\) or \\(H, W, C\\), got \\(8, 8, 1, 1\\)"),
    ],
)
def test_images_that_do_not_fit(make, image, message, gray):
    with pytest.raises(DataError, match=message):
        make(gray)(image=image)


@each_transform
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_p_is_from_0_to_1(make, value, gray):
    with pytest.raises(GenaugError, match="p must be from 0 to 1, got"):
        make(gray, p=value)


def test_arguments_that_do_not_fit(gray, tmp_path):
    with pytest.raises(GenaugError, match="strength must be from 0 to 1, got 2"):
        LatentJitter(gray, strength=2)
    for label_key in ("", 3, ["label"]):
        with pytest.raises(GenaugError, match="label_key must be the name of an argument"):
            Reconstruct(gray, label_key=label_key)
    with pytest.raises(CheckpointError, match="no such directory"):
        Reconstruct(tmp_path / "model")
    with pytest.raises(TypeError, match="strenght"):
        LatentJitter(gray, strenght=0.5)


@pytest.mark.global_rng  # new weights
def test_a_model_that_cannot_vary():
    with pytest.raises(GenaugError, match="vary: SmallCNN cannot do this"):
        Reconstruct(SmallCNN(GRAY))


class Samples(Dataset):
    """The digits' first images, each changed by a pipeline."""

    def __init__(self, pipeline: A.Compose) -> None:
        self.pipeline = pipeline
        self.images = load_data("digits").images[:4, 0].numpy()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.pipeline(image=self.images[index])["image"])


def seed_worker(worker: int) -> None:
    get_worker_info().dataset.pipeline.set_random_seed(torch.initial_seed())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_works_in_the_workers_of_a_loader():
    samples = Samples(A.Compose([Reconstruct("digits-vae")]))
    expected = torch.stack([samples[index] for index in range(4)])
    loader = DataLoader(samples, batch_size=2, num_workers=2, multiprocessing_context="fork", generator=seeded())
    torch.testing.assert_close(torch.cat(list(loader)).float(), expected.float(), atol=1, rtol=0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_workers_seeded_as_documented_draw_their_own_noise():
    samples = Samples(A.Compose([LatentJitter("digits-vae", p=1.0)], seed=0))
    samples.images[:] = samples.images[0]
    loader = DataLoader(
        samples,
        num_workers=2,
        multiprocessing_context="fork",
        worker_init_fn=seed_worker,
        generator=seeded(),
    )
    drawn = [image.numpy().tobytes() for _ in range(2) for image in loader]
    assert len(set(drawn)) == 8


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_without_albumentations_the_import_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "genaug.adapters.albumentations")
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(ImportError, match="install genaug\\[albumentations\\]"):
        importlib.import_module("genaug.adapters.albumentations")
