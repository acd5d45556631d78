"""Labels reach the model, and what happens without them; processes forked after torch ran."""

import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch
from sklearn.svm import SVC
from torchvision import tv_tensors
from torchvision.transforms import v2

import genaug
from genaug.data import load_data
from genaug.errors import DataError, GenaugError
from genaug.samples import find_labels
from genaug.transforms import LatentJitter, Reconstruct

pytestmark = pytest.mark.global_rng  # transforms draw from torch's global generator


@pytest.fixture(scope="module")
def judge():
    """A classifier of real digits, right on 99 % of the test part."""
    train = load_data("digits")
    svm = SVC(gamma=0.001).fit(train.images.flatten(1).numpy() / 16.0, train.labels.numpy())
    return lambda images: torch.from_numpy(svm.predict(images.flatten(1).numpy() / 16.0))


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", split="test")


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_with_labels_images_keep_their_class(digits, judge, strength):
    transform = LatentJitter("digits-vae", strength=strength, p=1.0)
    varied, labels = transform(digits.images, digits.labels)
    assert labels is digits.labels
    assert (judge(varied) == digits.labels).float().mean() > 0.95


def test_without_labels_strong_jitter_leaves_the_class(digits, judge):
    transform = LatentJitter("digits-vae", strength=1.0, p=1.0)
    assert (judge(transform(digits.images)) == digits.labels).float().mean() < 0.5
    mild = LatentJitter("digits-vae", strength=0.3, p=1.0)
    assert (judge(mild(digits.images)) == digits.labels).float().mean() > 0.9


@pytest.mark.parametrize("form", ["tuple", "list", "dict", "labels", "int", "numpy", "0-d"])
def test_labels_are_found_in_samples_of_every_form(digits, form):
    model = genaug.load("digits-vae")
    images, labels = digits.images[:1], digits.labels[:1]
    sample = {
        "tuple": (images, labels),
        "list": [images, labels],
        "dict": {"label": labels, "image": tv_tensors.Image(images)},
        "labels": {"image": tv_tensors.Image(images), "labels": labels},
        "int": (images[0], int(labels)),
        "numpy": (images[0], labels.numpy()[0]),
        "0-d": (images[0], labels[0]),
    }[form]
    out = Reconstruct(model)(sample)
    image = out["image"] if isinstance(out, dict) else out[0]
    expected = (model.vary(images, labels, strength=0.0) * 255).round().to(torch.uint8)
    assert torch.equal(torch.as_tensor(image).reshape(images.shape), expected)
    without = (model.vary(images, strength=0.0) * 255).round().to(torch.uint8)
    assert not torch.equal(expected, without)
    bare = Reconstruct(model, labels_getter=None)(sample)
    bare_image = bare["image"] if isinstance(bare, dict) else bare[0]
    assert torch.equal(torch.as_tensor(bare_image).reshape(images.shape), without)


def test_own_labels_getter(digits):
    model = genaug.load("digits-vae")
    sample = {"pixels": digits.images[:4], "meta": {"digit": digits.labels[:4]}}
    out = Reconstruct(model, labels_getter=lambda sample: sample["meta"]["digit"])(sample)
    expected = (model.vary(digits.images[:4], digits.labels[:4], strength=0.0) * 255).round().to(torch.uint8)
    assert torch.equal(out["pixels"], expected)


@pytest.mark.parametrize("other", [torch.zeros(1, 8, 8), 0.5, "name", True, torch.tensor([0.2, 0.8]), None])
def test_what_is_no_label_is_not_taken_for_one(other):
    assert find_labels((torch.zeros(1, 8, 8), other)) is None


@pytest.mark.parametrize(
    ("getter", "message"),
    [
        (lambda sample: 10, "labels must be class indices from 0 to 9"),  # the null class, or counted from 1
        (lambda sample: torch.tensor([0, 1]), "one class index for each of 1 images"),
        (lambda sample: 0.5, "one class index"),
    ],
)
def test_labels_that_do_not_fit(digits, getter, message):
    transform = Reconstruct("digits-vae", labels_getter=getter)
    with pytest.raises(DataError, match=message):
        transform(digits.images[0])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x, y: (x, y.numpy()),
        lambda x, y: (x, y.tolist()),
        lambda x, y: (x, y[:, None]),
        lambda x, y: (x, y.int()),
        lambda x, y: (x, y, "name"),
        lambda x, y: (x, {"labels": y}),
        lambda x, y: {"Label": y, "x": x},
        lambda x, y: {"fine_label": y, "x": x},
    ],
)
def test_labels_of_other_kinds_and_places(digits, wrap):
    images, labels = digits.images[:8], digits.labels[:8]
    sample = wrap(images, labels)
    result = Reconstruct("digits-vae")(sample)
    changed = result["x"] if isinstance(result, dict) else result[0]
    expected, _ = Reconstruct("digits-vae")(images, labels)
    assert torch.equal(changed, expected)
    assert not torch.equal(expected, Reconstruct("digits-vae")(images))


def test_soft_labels_are_not_taken_for_none(digits):
    soft = torch.nn.functional.one_hot(digits.labels[:4], 10).float()
    with pytest.raises(DataError, match="got one-hot or soft ones; put the transform before"):
        Reconstruct("digits-vae")(digits.images[:4], soft)
    assert Reconstruct("digits-vae", labels_getter=None)(digits.images[:4], soft)[1] is soft


def test_labels_of_boxes_are_none_of_the_image(digits):
    image = tv_tensors.Image(digits.images[0])
    boxes = tv_tensors.BoundingBoxes([[0, 0, 4, 4]], format="XYXY", canvas_size=(8, 8))
    target = {"boxes": boxes, "labels": torch.tensor([77])}
    changed, same = Reconstruct("digits-vae")(image, target)
    assert same["boxes"] is boxes
    assert same["labels"] is target["labels"]
    assert torch.equal(changed, Reconstruct("digits-vae")(image))


def test_unknown_getter():
    with pytest.raises(GenaugError, match="labels_getter must be"):
        Reconstruct("digits-vae", labels_getter="labels")


def test_hugging_face_map_in_processes_after_torch_ran(tmp_path):
    # With two threads in the parent, a forked process that runs convolutions hangs unless it goes down to one.
    script = (
        "import torch, genaug\n"
        "from datasets import Dataset\n"
        "from genaug.models import VAE, VAEConfig\n"
        "from genaug.transforms import Reconstruct\n"
        "torch.set_num_threads(2)\n"
        "spec = genaug.DataSpec(channels=3, height=32, width=32, class_names=('a', 'b'))\n"
        "VAE(spec, VAEConfig(width=16)).save('model')\n"
        "transform = Reconstruct('./model')\n"
        "transform(torch.rand(64, 3, 32, 32))\n"
        "rows = Dataset.from_dict({'index': list(range(8))})\n"
        "def change(row):\n"
        "    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(row['index']))\n"
        "    return {'mean': transform(image).mean().item()}\n"
        "alone, shared = rows.map(change), rows.map(change, num_proc=2, load_from_cache_file=False)\n"
        "assert max(abs(a - b) for a, b in zip(alone['mean'], shared['mean'])) < 1 / 255\n"
        "print('done')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.stdout.endswith("done\n"), run.stderr[-2000:]


@pytest.mark.parametrize(
    "label",
    [3.0, "3", torch.tensor(3.0), [torch.tensor(3)], torch.eye(10)[3], np.array([3.0]), np.float32(3)],
    ids=lambda label: type(label).__name__,
)
def test_labels_of_other_forms_are_refused(digits, label):
    image, jitter = digits.images[0], LatentJitter("digits-vae", strength=1.0, p=1.0)
    for sample in ((image, label), {"image": image, "label": label}):
        with pytest.raises(DataError, match="labels must be class indices, got .*labels_getter=None"):
            jitter(sample) if isinstance(sample, dict) else jitter(*sample)
    LatentJitter("digits-vae", labels_getter=None)(image, label)
    for other in (None, torch.zeros(8, 8), {"key": 1}):  # a mask, what tells nothing
        jitter(image, other)


def test_three_channels_of_a_gray_model_do_not_share_memory():
    image = v2.functional.to_image(PIL.Image.fromarray(np.zeros((16, 16, 3), np.uint8))).float()
    jitter = LatentJitter("digits-vae", resize=True, channels="convert", p=1.0)
    changed = jitter(image)
    changed[0] = 9.0
    assert changed[1].max() <= 1
    jitter(image).mul_(2.0)
