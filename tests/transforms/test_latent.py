"""LatentJitter and Reconstruct under the contract of torchvision's v2 transforms, with tiny real VAEs."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from contract import changed_rows, content, floats, levels, runs_per_image, to_pil
from torch.utils.data import DataLoader
from torchvision import datasets, tv_tensors
from torchvision.transforms import v2

import genaug
from genaug import CheckpointError, DataError, DataSpec, GenaugError, SampleBank
from genaug.models import VAE, SmallCNN
from genaug.transforms import LatentJitter, Reconstruct

pytestmark = pytest.mark.global_rng  # torchvision's transforms draw from torch's global generator

GRAY = DataSpec(1, 8, 8, ("a", "b", "c"))
COLOR = DataSpec(3, 12, 10, ("a", "b", "c"))


def rows_through(model: VAE) -> tuple[list[int], Any]:
    """Count the images that enter the encoder."""
    rows: list[int] = []
    return rows, model.encoder.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "jitter": lambda model, p=1.0: LatentJitter(model, strength=0.5, p=p),
    "residual": lambda model, p=1.0: LatentJitter(model, strength=0.5, keep_residual=True, p=p),
    "reconstruct": lambda model, p=1.0: Reconstruct(model, p=p),
}

each_transform = pytest.mark.parametrize("make", TRANSFORMS.values(), ids=TRANSFORMS)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16])
def test_reconstruct_decodes_what_was_encoded(dtype, color):
    images = levels(4, 3, 12, 10) if dtype == torch.uint8 else floats(4, 3, 12, 10, dtype=dtype)
    public = images / 255 if dtype == torch.uint8 else images.float()
    expected = color.decode(color.encode(public))
    expected = (expected * 255).round().to(dtype) if dtype == torch.uint8 else expected.to(dtype)
    torch.testing.assert_close(Reconstruct(color)(images), expected)


def test_the_same_pixels_give_the_same_result_in_every_form(gray):
    pixels = levels(1, 8, 8)
    expected = content(Reconstruct(gray)(pixels))
    for image in (to_pil(pixels), tv_tensors.Image(pixels), pixels[None], pixels[None, None]):
        assert torch.equal(content(Reconstruct(gray)(image)).reshape(1, 8, 8), expected)


def test_strength_0_is_reconstruct(gray):
    images = floats(4, 1, 8, 8)
    torch.testing.assert_close(LatentJitter(gray, strength=0.0, p=1.0)(images), Reconstruct(gray)(images))


def test_with_its_residual_an_image_moves_as_its_reconstruction_does(gray):
    images = floats(16, 1, 8, 8)
    still, moved = Reconstruct(gray)(images), []
    for keep_residual in (False, True):
        torch.manual_seed(0)
        moved.append(LatentJitter(gray, strength=0.9, keep_residual=keep_residual, p=1.0)(images))
    expected = (images + moved[0] - still).clamp(0, 1)
    torch.testing.assert_close(moved[1], expected)
    assert (moved[1] - images).abs().max() > 0.01
    standing = LatentJitter(gray, strength=0.0, keep_residual=True, p=1.0)(images)
    torch.testing.assert_close(standing, images)


def test_jitter_draws_anew_at_each_call_and_for_each_image(gray):
    jitter = LatentJitter(gray, strength=0.5, p=1.0)
    image = floats(1, 8, 8)
    torch.manual_seed(0)
    first, second = jitter(image), jitter(image)
    assert not torch.equal(first, second)
    batch = jitter(image.expand(3, 1, 8, 8))
    assert not torch.equal(batch[0], batch[1])
    assert not torch.equal(batch[1], batch[2])


def test_images_come_back_moved_further_with_more_strength(gray):
    images, distances = floats(64, 1, 8, 8), []
    still = Reconstruct(gray)(images)
    for strength in (0.0, 0.3, 1.0):
        torch.manual_seed(0)
        moved = LatentJitter(gray, strength=strength, p=1.0)(images)
        distances.append(float((moved - still).square().mean()))
    assert distances == sorted(distances)
    assert distances[0] < 1e-10 < distances[1]


@each_transform
def test_p_holds_for_each_image_of_a_batch(make, gray):
    images, p = floats(2000, 1, 8, 8), 0.3
    torch.manual_seed(0)
    share = changed_rows(images, make(gray, p=p)(images)).double().mean().item()
    assert share == pytest.approx(p, abs=4 * (p * (1 - p) / len(images)) ** 0.5)  # four standard deviations


@each_transform
def test_only_the_chosen_rows_go_through_the_network(make, gray):
    images = floats(4, 10, 1, 8, 8)
    rows, hook = rows_through(gray)
    torch.manual_seed(0)
    transform = make(gray, p=0.3)
    changed = changed_rows(images, transform(images))
    hook.remove()
    assert 0 < int(changed.sum()) < 40
    assert sum(rows) == runs_per_image(transform) * int(changed.sum())


@each_transform
def test_a_single_image_is_left_alone_or_changed(make, gray):
    image, transform = levels(1, 8, 8), make(gray, p=0.5)
    torch.manual_seed(0)
    results = [transform(image) for _ in range(200)]
    same = sum(result is image for result in results)
    assert 70 < same < 130  # 100 with a standard deviation of 7
    assert all(result is image or not torch.equal(result, image) for result in results)


@each_transform
def test_draws_in_make_params_alone(make, path):
    transform, images = make(path, p=0.5), floats(8, 1, 8, 8)
    torch.manual_seed(0)
    params = transform.make_params([images])
    state = torch.get_rng_state()
    first = transform.transform(images, params)  # loads the model, too
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(transform.transform(images, params), first)
    torch.manual_seed(0)
    assert torch.equal(transform(images), first)
    assert torch.equal(torch.get_rng_state(), state)


@each_transform
def test_everything_else_in_a_sample_passes_through(make, gray):
    image = tv_tensors.Image(levels(1, 8, 8))
    mask = tv_tensors.Mask(torch.zeros(1, 8, 8, dtype=torch.uint8))
    boxes = tv_tensors.BoundingBoxes([[0, 0, 4, 4]], format="XYXY", canvas_size=(8, 8))
    label, name, path = torch.tensor(2), "seven", Path("seven.png")
    sample = {"image": image, "target": {"mask": mask, "boxes": [boxes, label]}, "extra": (name, path, None, 7)}
    result = make(gray)(sample)
    assert type(result) is dict
    assert list(result) == list(sample)
    assert type(result["image"]) is tv_tensors.Image
    assert not torch.equal(result["image"], image)
    assert result["target"]["mask"] is mask
    assert result["target"]["boxes"][0] is boxes
    assert result["target"]["boxes"][1] is label
    assert result["extra"] == (name, path, None, 7)
    assert result["extra"][0] is name


@each_transform
@pytest.mark.parametrize(
    "make_image", [lambda: to_pil(levels(1, 8, 8)), lambda: floats(1, 8, 8)], ids=["pil", "tensor"]
)
@pytest.mark.parametrize("label", [2, torch.tensor(2), torch.zeros(4, 1, 8, 8)], ids=["int", "tensor", "like images"])
def test_tuples_of_image_and_label(make, make_image, label, gray):
    image = make_image()
    for result in (make(gray)((image, label)), make(gray)(image, label)):
        assert type(result) is tuple
        assert result[1] is label
        assert not torch.equal(content(result[0]), content(image))


@each_transform
def test_samples_without_an_image(make, gray):
    mask = tv_tensors.Mask(torch.zeros(1, 8, 8, dtype=torch.uint8))
    assert make(gray)({"mask": mask, "label": 3}) == {"mask": mask, "label": 3}


def test_images_of_one_sample_share_the_choice(gray):
    image, other = (tv_tensors.Image(floats(20, 1, 8, 8) / part) for part in (1, 2))
    torch.manual_seed(0)
    first, second = Reconstruct(gray, p=0.5)(image, other)
    assert torch.equal(changed_rows(image, first), changed_rows(other, second))
    with pytest.raises(DataError, match="equally many, got 20 and 3"):
        Reconstruct(gray)(image, tv_tensors.Image(other[:3]))


@each_transform
def test_the_model_gets_its_mode_back(make, gray):
    model = copy.deepcopy(gray).train()
    make(model)(levels(1, 8, 8))
    assert all(module.training for module in model.modules())


@each_transform
def test_the_model_is_no_part_of_the_pipeline(make, gray):
    pipeline = v2.Compose([make(gray)])
    assert list(pipeline.parameters()) == []
    assert pipeline.state_dict() == {}
    pipeline.to(torch.float64)
    assert next(gray.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    "wrap",
    [
        lambda transform: v2.Compose(
            [v2.ToImage(), v2.RandomHorizontalFlip(), transform, v2.ToDtype(torch.float32, True)]
        ),
        lambda transform: v2.RandomApply([transform], p=1.0),
        lambda transform: v2.RandomChoice([transform, transform]),
        lambda transform: v2.RandomOrder([transform, v2.ToImage()]),
    ],
    ids=["Compose", "RandomApply", "RandomChoice", "RandomOrder"],
)
@each_transform
def test_works_in_the_containers_of_v2(make, wrap, gray):
    image = to_pil(levels(1, 8, 8))
    pipeline = wrap(make(gray))
    torch.manual_seed(3)
    result, label = pipeline(image, 2)
    assert label == 2
    torch.manual_seed(3)
    again, _ = pickle.loads(pickle.dumps(pipeline))(image, 2)
    assert torch.equal(content(result), content(again))
    assert not torch.equal(content(result).double(), content(image).double())


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_works_in_the_workers_of_a_loader(method, color, tmp_path):
    color.save(tmp_path / "model")
    pipeline = v2.Compose([Reconstruct(color if method == "fork" else tmp_path / "model"), v2.PILToTensor()])
    data = datasets.FakeData(6, image_size=(3, 12, 10), num_classes=3, transform=pipeline)
    loader = DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context=method)
    images = torch.cat([batch for batch, _ in loader])
    expected = torch.stack([data[index][0] for index in range(6)])
    torch.testing.assert_close(images.float(), expected.float(), atol=1, rtol=0)  # one level of rounding


def test_a_transform_by_path_is_pickled_without_weights(path):
    transform = LatentJitter(path, p=1.0)
    for _ in range(2):  # before and after the model is loaded
        assert len(pickle.dumps(transform)) < 2_000 < (path / "model.safetensors").stat().st_size
        transform(levels(1, 8, 8))


def test_a_transform_by_object_is_pickled_with_weights(gray):
    twin = pickle.loads(pickle.dumps(LatentJitter(gray)))
    assert twin.model is not gray
    for name, tensor in gray.state_dict().items():
        assert torch.equal(twin.model.state_dict()[name], tensor)


def test_path_and_object_give_the_same_images(path, gray):
    images = floats(3, 1, 8, 8)
    assert torch.equal(Reconstruct(path)(images), Reconstruct(gray)(images))
    assert torch.equal(Reconstruct(str(path))(images), Reconstruct(gray)(images))


def test_a_relative_path_stays_good_after_a_change_of_directory(path, tmp_path, monkeypatch):
    monkeypatch.chdir(path.parent)
    transform = Reconstruct("./model")
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(transform))(levels(1, 8, 8)).shape == (1, 8, 8)


def test_a_shipped_model_by_name():
    transform = LatentJitter("digits-vae", p=1.0)
    assert transform(levels(2, 1, 8, 8)).shape == (2, 1, 8, 8)
    assert len(pickle.dumps(transform)) < 3_000


def test_repr_is_short_and_telling(path, gray):
    assert repr(Reconstruct(gray, p=0.25)) == "Reconstruct(p=0.25, name=vae)"
    text = repr(LatentJitter(path, strength=0.4))
    assert text.startswith("LatentJitter(p=0.5, name=vae ")
    assert str(path) in text
    assert text.endswith("strength=0.4, keep_residual=False)")
    assert len(text) < 80 + len(str(path))


def test_weights_that_changed_on_disk_are_refused(path):
    used, unused = Reconstruct(path), Reconstruct(path)
    used(levels(1, 8, 8))
    other = genaug.load(path)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save(path, overwrite=True)
    for transform in (unused, pickle.loads(pickle.dumps(used))):
        with pytest.raises(CheckpointError, match="the weights have changed since"):
            transform(levels(1, 8, 8))
    used(levels(1, 8, 8))  # holds what it was made with


def test_damaged_weights_are_refused(path):
    transform = Reconstruct(path)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x77")
    with pytest.raises(CheckpointError, match="was changed"):
        transform(levels(1, 8, 8))


@each_transform
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (levels(3, 8, 8), "must have 1 channels, got 3"),
        (levels(1, 9, 8), "must be of size 1x8x8, got 1x9x8"),
        (levels(4, 1, 8, 9), "must be of size 1x8x8, got 1x8x9"),
        (floats(1, 8, 8) * 255, "within \\[0, 1\\]"),
        (floats(1, 8, 8) * 2 - 1, "within \\[0, 1\\]"),
        (torch.full((1, 8, 8), float("nan")), "finite"),
        (torch.full((1, 8, 8), float("nan"), dtype=torch.float16), "finite"),
        (torch.zeros(1, 8, 8, dtype=torch.int64), "uint8 in \\[0, 255\\] or float"),
        (torch.zeros(8, 8), "shape \\(..., C, H, W\\), got \\(8, 8\\)"),
        (torch.zeros(1, 0, 8), "size 1x8x8, got 1x0x8"),
        (to_pil(levels(3, 8, 8)), "must have 1 channels, got 3"),
        (to_pil(levels(1, 8, 9)), "size 1x8x8, got 1x8x9"),
        (to_pil(levels(1, 8, 8)).convert("P"), "mode P"),  # its pixels are places in a palette
        (to_pil(levels(1, 8, 8)).convert("1"), "mode 1"),
        (to_pil(levels(1, 8, 8)).convert("F"), "mode F"),
    ],
)
def test_images_that_do_not_fit(make, image, message, gray):
    with pytest.raises(DataError, match=message):
        make(gray)(image)


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "LAB"])
def test_color_spaces_other_than_rgb_are_refused(mode, color):
    with pytest.raises(DataError, match=f"mode {mode}"):
        Reconstruct(color)(PIL.Image.new(mode, (10, 12)))


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_p_and_strength_are_from_0_to_1(value, gray):
    for make in (LatentJitter, Reconstruct):
        with pytest.raises(GenaugError, match="p must be from 0 to 1, got"):
            make(gray, p=value)
    with pytest.raises(GenaugError, match="strength must be from 0 to 1, got"):
        LatentJitter(gray, strength=value)


@each_transform
def test_a_model_that_cannot_vary(make, gray):
    with pytest.raises(GenaugError, match="vary: SmallCNN cannot do this; it can: nothing of sample"):
        make(SmallCNN(GRAY))
    bank = SampleBank.generate(gray, 1, seed=0, progress=False)
    with pytest.raises(GenaugError, match="vary: SampleBank cannot do this; it can: sample"):
        make(bank)
    with pytest.raises(GenaugError, match="vary: gan cannot do this; it can: sample"):
        make("fashion-mnist-gan")


@each_transform
def test_a_model_that_is_not_there(make, tmp_path):
    with pytest.raises(CheckpointError, match="no such directory"):
        make(tmp_path / "model")
    with pytest.raises(CheckpointError, match="no such shipped model"):
        make("digits-oracle")
