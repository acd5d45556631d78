"""The augmentations for kornia, alone and in kornia's containers, with tiny real VAEs."""

import copy
import importlib
import pickle
import subprocess
import sys
from typing import Any

import kornia.augmentation as K
import pytest
import torch
from contract import kornia_takes, runs_per_image
from torch import Tensor

from genaug import DataError, DataSpec, GenaugError
from genaug.adapters.kornia import LatentJitter, Reconstruct
from genaug.models import VAE, SmallCNN, VAEConfig
from genaug.transforms.operations import Vary

pytestmark = pytest.mark.global_rng  # kornia's augmentations draw from torch's global generator

SPEC = DataSpec(3, 12, 10, ("a", "b", "c"))
ONE_LEVEL = 1 / 255  # convolutions may round otherwise in another batch
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_vae(spec: DataSpec) -> VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VAE(spec, VAEConfig(width=8, hidden=16, latent_dim=4))
    images = torch.rand(30, spec.channels, spec.height, spec.width, generator=seeded())
    model.fit_after_training(images, torch.arange(30) % max(spec.num_classes, 1))
    return model.eval()


@pytest.fixture(scope="module")
def model() -> VAE:
    return make_vae(SPEC)


@pytest.fixture
def encoded(model: VAE) -> Any:
    """The number of images that entered the encoder, call by call."""
    rows: list[int] = []
    hook = model.encoder.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    yield rows
    hook.remove()


def floats(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=seeded(1)).to(dtype)


def batch(count: int = 8) -> Tensor:
    return floats(count, 3, 12, 10)


def changed_rows(before: Tensor, after: Tensor) -> Tensor:
    return (before != after).flatten(1).any(1)


def in_sequence(*augmentations: Any, **options: Any) -> Any:
    return K.AugmentationSequential(*augmentations, **options)


AUGMENTATIONS = {
    "jitter": lambda model, **options: LatentJitter(model, strength=0.5, **{"p": 1.0, **options}),
    "residual": lambda model, **options: LatentJitter(model, keep_residual=True, **{"p": 1.0, **options}),
    "reconstruct": Reconstruct,
}
each_augmentation = pytest.mark.parametrize("make", AUGMENTATIONS.values(), ids=AUGMENTATIONS)

IMAGES = {
    **{str(dtype)[6:]: lambda dtype=dtype: floats(5, 3, 12, 10, dtype=dtype) for dtype in FLOATS},
    "not contiguous": lambda: floats(12, 10, 5, 3).permute(2, 3, 0, 1),
    "channels last": lambda: batch(5).contiguous(memory_format=torch.channels_last),
    "expanded": lambda: floats(3, 12, 10).expand(5, 3, 12, 10),
    "one image": lambda: floats(3, 12, 10),
}


@each_augmentation
@pytest.mark.parametrize("wrap", [lambda one: one, in_sequence, K.ImageSequential], ids=["alone", "keys", "images"])
@pytest.mark.parametrize("make_images", IMAGES.values(), ids=IMAGES)
def test_every_kind_of_images(make, wrap, make_images, model):
    images = make_images()
    if not kornia_takes(images.dtype):
        pytest.skip(f"this version of kornia takes no {images.dtype}")
    before, version, augmentation = images.clone(), images._version, wrap(make(model))
    torch.manual_seed(5)
    result = augmentation(images)
    assert torch.equal(images, before)
    assert images._version == version
    assert result.shape == (images if images.ndim == 4 else images[None]).shape
    assert (result.dtype, result.device) == (images.dtype, images.device)
    assert not result.is_inference()
    assert not result.requires_grad
    assert 0 <= result.min() <= result.max() <= 1
    assert changed_rows(before.expand_as(result), result).all()
    assert torch.equal(augmentation(images, params=augmentation._params), result)
    for twin in (pickle.loads(pickle.dumps(augmentation)), copy.deepcopy(augmentation), augmentation):
        torch.manual_seed(5)
        assert torch.equal(twin(images), result)


@each_augmentation
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 12, 10), (1, 3, 12, 10), (3, 12, 10)])
def test_keepdim(make, keepdim, shape, model):
    images = floats(*shape)
    expected = Reconstruct(model)(images.reshape(-1, 3, 12, 10))
    result = make(model, keepdim=keepdim)(images)
    assert result.shape == (shape if keepdim or len(shape) == 4 else (1, *shape))
    if make is Reconstruct:
        assert torch.equal(result.reshape(expected.shape), expected)


def test_images_without_channels(model):
    gray = make_vae(DataSpec(1, 8, 8))
    assert Reconstruct(gray)(floats(8, 8)).shape == (1, 1, 8, 8)
    assert Reconstruct(gray, keepdim=True)(floats(8, 8)).shape == (8, 8)


@each_augmentation
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("same_on_batch", [False, True])
def test_empty_batch(make, p, same_on_batch, model, encoded):
    images = torch.empty(0, 3, 12, 10)
    assert make(model, p=p, same_on_batch=same_on_batch)(images).shape == images.shape
    assert encoded == []


@each_augmentation
@pytest.mark.parametrize("wrap", [lambda one: one, in_sequence], ids=["alone", "sequence"])
def test_p_0_changes_nothing_and_computes_nothing(make, wrap, model, encoded):
    for images in (batch(), floats(2, 1, 5, 5) * 255):
        assert torch.equal(wrap(make(model, p=0.0))(images), images)
    assert encoded == []


@each_augmentation
@pytest.mark.parametrize("wrap", [lambda one: one, in_sequence, K.ImageSequential], ids=["alone", "keys", "images"])
def test_only_the_chosen_rows_go_through_the_network(make, wrap, model, encoded):
    alone = make(model, p=0.3)
    images, augmentation, runs = batch(40), wrap(alone), runs_per_image(alone)
    torch.manual_seed(0)
    changed = changed_rows(images, augmentation(images))
    assert 0 < int(changed.sum()) < 40
    assert encoded == runs * [int(changed.sum())]
    params = augmentation._params if isinstance(augmentation._params, dict) else augmentation._params[0].data
    assert torch.equal(params["batch_prob"] > 0.5, changed)
    augmentation(images, params=augmentation._params)
    assert encoded == 2 * runs * [int(changed.sum())]


def test_kornia_0_9_hands_over_all_rows_and_0_8_the_chosen_alone(model, encoded):
    images, chosen = batch(), torch.tensor([0, 1, 0, 1, 1, 0, 0, 1]) > 0
    params = {"batch_prob": chosen.float(), "seeds": torch.arange(8), "labels": torch.arange(8) % 3}
    jitter = LatentJitter(model)
    of_all = jitter.apply_transform(images, params, {})
    of_chosen = jitter.apply_transform(images[chosen], {**params, "seeds": params["seeds"][chosen]}, {})
    assert encoded == [4, 4]
    assert torch.equal(of_all[chosen], of_chosen)
    assert torch.equal(changed_rows(images, of_all), chosen)


def test_p_holds_for_each_image(model):
    images, p = batch(1000), 0.3
    torch.manual_seed(0)
    share = changed_rows(images, Reconstruct(model, p=p)(images)).double().mean().item()
    assert share == pytest.approx(p, abs=4 * (p * (1 - p) / len(images)) ** 0.5)  # four standard deviations


@pytest.mark.parametrize("p", [0.5, 1.0])
@pytest.mark.parametrize("labels", [None, torch.arange(8) % 3])
def test_does_what_the_operation_does_with_the_same_seeds(p, labels, model):
    images, jitter = batch(), LatentJitter(model, strength=0.8, p=p)
    torch.manual_seed(2)
    result = jitter(images, labels=labels)
    chosen, seeds = jitter._params["batch_prob"] > 0.5, jitter._params["seeds"]
    assert chosen.any()
    seeds = seeds[chosen] if len(seeds) == len(images) else seeds  # kornia 0.8 draws for the chosen alone
    expected = Vary(model, strength=0.8)(images[chosen], None if labels is None else labels[chosen], seeds)
    assert torch.equal(result[chosen], expected)
    assert torch.equal(result[~chosen], images[~chosen])


def test_same_on_batch(model):
    images, jitter = floats(3, 12, 10).expand(6, 3, 12, 10), LatentJitter(model, strength=0.5, same_on_batch=True)
    torch.manual_seed(0)
    results = [jitter(images) for _ in range(20)]
    for result in results:
        torch.testing.assert_close(result, result[:1].expand_as(result), atol=ONE_LEVEL / 10, rtol=0)
    assert {int(changed_rows(images, result).sum()) for result in results} == {0, 6}
    apart = LatentJitter(model, strength=0.5, p=1.0)(images)
    assert len({tuple(image.flatten().tolist()) for image in apart}) == 6
    together = in_sequence(LatentJitter(model, p=1.0, strength=0.5), same_on_batch=True)(images)
    torch.testing.assert_close(together, together[:1].expand_as(together), atol=ONE_LEVEL / 10, rtol=0)


def test_draws_for_the_parameters_alone(model):
    images, jitter = batch(), LatentJitter(model)
    torch.manual_seed(0)
    params = jitter.forward_parameters(images.shape)
    state = torch.get_rng_state()
    assert params["seeds"].dtype == torch.int64
    first = jitter(images, params=params)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(0)
    assert torch.equal(jitter(images), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(jitter(images), first)
    assert torch.equal(jitter(images, params=params), first)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_masks_boxes_points_and_classes_stay(p, model):
    boxes = torch.tensor([[[1.0, 2.0, 5.0, 6.0]]]).repeat(8, 1, 1)
    rest = {
        "mask": (batch()[:, :1] > 0.5).float(),
        "bbox_xyxy": boxes,
        "keypoints": torch.tensor([[[1.0, 2.0]]]).repeat(8, 1, 1),
        "class": torch.arange(8) % 3,
    }
    pipeline = in_sequence(LatentJitter(model, p=p), data_keys=["input", *rest])
    torch.manual_seed(0)
    result, *others = pipeline(batch(), *rest.values())
    assert changed_rows(batch(), result).any() == (p > 0)
    for other, given in zip(others, rest.values(), strict=True):
        assert torch.equal(other, given)
    again = pipeline(batch(), *rest.values(), params=pipeline._params)
    assert torch.equal(again[0], result)
    by_name = in_sequence(LatentJitter(model, p=p), data_keys=None)
    torch.manual_seed(0)
    named = by_name({"input": batch(), **rest})
    assert torch.equal(named["input"], result)
    assert all(torch.equal(named[name], given) for name, given in rest.items())


def test_random_apply_and_replay_of_a_pipeline(model):
    pipeline = in_sequence(
        K.RandomHorizontalFlip(p=0.5), LatentJitter(model), K.ImageSequential(Reconstruct(model, p=0.5)), random_apply=1
    )
    torch.manual_seed(0)
    names = set()
    for _ in range(20):
        result = pipeline(batch())
        params = pipeline._params
        names.add(params[0].name)
        pipeline(batch())
        assert torch.equal(pipeline(batch(), params=params), result)
    assert len(names) == 3


def test_frames_of_a_video_change_alike(model, encoded):
    images = batch(4)[:, None].expand(4, 5, 3, 12, 10)
    pipeline = K.VideoSequential(LatentJitter(model), data_format="BTCHW", same_on_frame=True)
    torch.manual_seed(0)
    result = pipeline(images)
    changed = changed_rows(images, result)
    assert 0 < int(changed.sum()) < 4
    assert encoded == [5 * int(changed.sum())]
    torch.testing.assert_close(result, result[:, :1].expand_as(result), atol=ONE_LEVEL / 10, rtol=0)


def test_labels_replay_and_reach_containers_by_the_parameters(model):
    images, labels = batch(), torch.arange(8) % 3
    jitter = LatentJitter(model, strength=0.8)
    torch.manual_seed(0)
    result = jitter(images, labels=labels)
    params = jitter._params
    torch.manual_seed(0)
    assert not torch.equal(jitter(images), result)
    assert "labels" not in jitter._params
    assert torch.equal(jitter(images, params=params), result)
    assert not torch.equal(jitter(images, params=params, labels=(labels + 1) % 3), result)
    pipeline = in_sequence(K.RandomHorizontalFlip(p=0.0), jitter, data_keys=["input", "class"])
    torch.manual_seed(0)
    params = pipeline.forward_parameters(images.shape)
    params[1].data["labels"] = labels
    assert torch.equal(pipeline(images, labels, params=params)[0], result)
    assert torch.equal(pipeline(images, labels, params=pipeline._params)[0], result)


def test_label_of_one_image_and_models_without_classes(model):
    image = floats(3, 12, 10)
    assert torch.equal(Reconstruct(model)(image, labels=2), Reconstruct(model)(image[None], labels=torch.tensor([2])))
    assert not torch.equal(Reconstruct(model)(image, labels=2), Reconstruct(model)(image))
    plain = make_vae(DataSpec(3, 12, 10))
    assert torch.equal(Reconstruct(plain)(image, labels=7), Reconstruct(plain)(image))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), "for each of 8 images, got torch.int64 \\(3,\\)"),
        (torch.full((8,), 3), "from 0 to 2, got values from 3 to 3"),
        (torch.zeros(8), "for each of 8 images, got torch.float32 \\(8,\\)"),
    ],
)
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_labels_that_do_not_fit(p, labels, message, model):
    torch.manual_seed(0)
    with pytest.raises(DataError, match=message):
        Reconstruct(model, p=p)(batch(), labels=labels)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (batch() * 255, DataError, "within \\[0, 1\\], got values from .* to 25\\d.*scale them to \\[0, 1\\]"),
        (batch() * 2 - 1, DataError, "within \\[0, 1\\], got values from -"),
        (batch() + 0.3, DataError, "within \\[0, 1\\], got values from .* to 1.[23]"),
        (torch.full((8, 3, 12, 10), float("nan")), DataError, "finite"),
        (floats(8, 1, 12, 10), DataError, "must have 3 channels, got 1"),
        (floats(8, 3, 12, 12), DataError, "of size 3x12x10, got 3x12x12"),
        (torch.zeros(8, 3, 12, 10, dtype=torch.uint8), TypeError, "Expected input of"),
    ],
)
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_images_that_do_not_fit(p, images, error, message, model):
    torch.manual_seed(0)
    with pytest.raises(error, match=message):
        Reconstruct(model, p=p)(images)


def test_images_that_are_left_alone_may_hold_anything(model):
    images, augmentation = batch(), Reconstruct(model, p=0.5)
    torch.manual_seed(0)
    params = augmentation.forward_parameters(images.shape)
    left = params["batch_prob"] < 0.5
    expected = augmentation(images, params=params)
    images[left] = torch.tensor([float("nan"), float("inf"), -3.0, 255.0]).repeat(30).reshape(1, 1, 12, 10)
    result = augmentation(images, params=params)
    assert torch.equal(result[~left], expected[~left])
    torch.testing.assert_close(result[left], images[left], atol=0, rtol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATS)
def test_rounding_past_the_range_is_clamped(dtype, model):
    if not kornia_takes(dtype):
        pytest.skip(f"this version of kornia takes no {dtype}")
    images, step = batch().round().to(dtype), 2 * torch.finfo(dtype).eps
    past = torch.where(images == 1, images + step, images - step)
    assert past.max() > 1
    assert torch.equal(Reconstruct(model)(past), Reconstruct(model)(images))
    torch.manual_seed(0)
    turned = K.RandomRotation(20.0, p=1.0)(torch.ones(32, 3, 12, 10, dtype=dtype))
    assert Reconstruct(model)(turned).max() <= 1


@pytest.mark.parametrize("p", [0.5, 1.0])
@pytest.mark.parametrize("keep_residual", [False, True])
def test_gradients(keep_residual, p, model):
    images, augmentation = batch().requires_grad_(), LatentJitter(model, keep_residual=keep_residual, p=p)
    torch.manual_seed(0)
    result = augmentation(images)
    result.sum().backward()
    chosen = augmentation._params["batch_prob"] > 0.5
    assert torch.equal(images.grad, (~chosen).float().reshape(-1, 1, 1, 1).expand_as(images))
    assert all(parameter.grad is None for parameter in model.parameters())


@each_augmentation
def test_the_model_is_no_part_of_the_pipeline(make, model):
    trained = copy.deepcopy(model).train()
    pipeline = in_sequence(make(trained))
    pipeline(batch())
    assert all(module.training for module in trained.modules())
    assert list(pipeline.parameters()) == []
    assert pipeline.state_dict() == {}
    pipeline.to(torch.float64).eval()
    assert trained.training
    assert next(trained.parameters()).dtype == torch.float32
    assert pipeline(batch()).dtype == torch.float32


def test_resize_and_channels(model):
    images = floats(4, 1, 20, 16)
    augmentation = LatentJitter(model, p=1.0, resize=True, channels="convert")
    torch.manual_seed(0)
    result = augmentation(images)
    expected = Vary(model, strength=0.3, resize=True, channels="convert")(images, None, augmentation._params["seeds"])
    assert torch.equal(result, expected)


def test_a_model_by_path(model, tmp_path):
    model.save(tmp_path / "model")
    assert torch.equal(Reconstruct(tmp_path / "model")(batch()), Reconstruct(model)(batch()))
    augmentation = Reconstruct(tmp_path / "model")
    for _ in range(2):  # before and after the model is loaded
        assert len(pickle.dumps(augmentation)) < 10_000 < (tmp_path / "model" / "model.safetensors").stat().st_size
        augmentation(batch(1))


def test_repr_is_short_and_telling(model):
    rest = "p_batch=1.0, same_on_batch=False)"
    jitter = LatentJitter(model, strength=0.4)
    assert repr(jitter) == f"LatentJitter(vae, strength=0.4, keep_residual=False, p=0.5, {rest}"
    assert repr(Reconstruct("digits-vae")) == f"Reconstruct(vae digits-vae, p=1.0, {rest}"
    assert "LatentJitter(vae, strength=0.3" in repr(in_sequence(LatentJitter(model)))


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_p_and_strength_are_from_0_to_1(value, model):
    for make in (LatentJitter, Reconstruct):
        with pytest.raises(GenaugError, match="p must be from 0 to 1, got"):
            make(model, p=value)
    with pytest.raises(GenaugError, match="strength must be from 0 to 1, got"):
        LatentJitter(model, strength=value)


def test_a_model_that_cannot_vary():
    with pytest.raises(GenaugError, match="vary: SmallCNN cannot do this"):
        LatentJitter(SmallCNN(SPEC))


def test_parameters_of_another_batch(model):
    augmentation = Reconstruct(model)
    params = augmentation.forward_parameters((8, 3, 12, 10))
    with pytest.raises(DataError, match="params must be drawn for as many images, got 8 seeds for 4 images"):
        augmentation(batch(4), params=params)


def test_works_in_a_forked_process_after_torch_ran(tmp_path):
    # With two threads in the parent, a forked process that indexes a large batch hangs unless it goes down to one.
    script = (
        "import multiprocessing, torch\n"
        "from genaug.adapters.kornia import Reconstruct\n"
        "torch.set_num_threads(2)\n"
        "images = torch.rand(20000, 1, 8, 8)\n"
        "augmentation = Reconstruct('digits-vae', p=0.5)\n"
        "params = augmentation.forward_parameters(images.shape)\n"
        "def run(_):\n"
        "    return augmentation(images, params=params).numpy()\n"
        "here = run(0)\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool:\n"
        "    assert abs(pool.map(run, [0])[0] - here).max() < 1 / 255\n"
        "print('done')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.stdout.endswith("done\n"), run.stderr[-2000:]


def test_without_kornia(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    monkeypatch.delitem(sys.modules, "genaug.adapters.kornia")
    with pytest.raises(ImportError, match=r"genaug.adapters.kornia needs kornia \(.*\); install genaug\[kornia\]"):
        importlib.import_module("genaug.adapters.kornia")
