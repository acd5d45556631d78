"""Batches on the device of training, and what training takes of memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genaug.data import LabeledImages, load_data
from genaug.training import batches as module
from genaug.training.batches import Batches


@pytest.fixture(scope="module")
def digits() -> LabeledImages:
    return load_data("digits").subset(torch.arange(100))


ROWS = torch.tensor([7, 99, 0, 7, 31, 50, 2])


def test_batches_on_the_cpu(digits: LabeledImages) -> None:
    batches = Batches(digits, ROWS, torch.device("cpu"))
    assert batches.images is digits.images  # no copy
    images, labels = batches.gather(torch.tensor([1, 1, 4]))
    assert torch.equal(images, digits.images[[99, 99, 31]])
    assert torch.equal(labels, digits.labels[[99, 99, 31]])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_batches_on_a_gpu(digits: LabeledImages, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GPU_SHARE", share)
    batches = Batches(digits, ROWS, torch.device("cuda"))
    assert batches.images.is_cuda == (share > 0)
    images, labels = batches.gather(torch.tensor([1, 1, 4]))
    assert images.is_cuda
    assert labels.is_cuda
    assert torch.equal(images.cpu(), digits.images[[99, 99, 31]])
    assert torch.equal(labels.cpu(), digits.labels[[99, 99, 31]])


GROWTH = """
import re, sys, threading, time
from pathlib import Path
import torch
from genaug.data import LabeledImages
from genaug.models import FAMILIES, VAE
from genaug.spec import DataSpec
from genaug.training import train

class Light(VAE):
    family = "light"  # keeps nothing of the images that it is fitted to, or measured on

    def fit_after_training(self, images, labels, *, rows):
        assert sum(len(images[part].float()) for part in rows.split(256)) == len(rows)

    def measure(self, images, labels, *, rows):
        return {"held_out_images": sum(len(images[part].float()) for part in rows.split(256))}

FAMILIES["light"] = Light
training = {"steps": 4, "batch_size": 16, "sample_every": 2, "validation_fraction": 0.5}
recipe = {"family": "light", "model": {"width": 2, "hidden": 8, "latent_dim": 2}, "training": training}
spec = DataSpec(3, 64, 64, ("a", "b"))
highest = 0

def watch():
    global highest
    while True:
        found = re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
        highest = max(highest, int(found[1]) << 10)
        time.sleep(0.005)

def run(images, name):
    data = LabeledImages(images, torch.arange(len(images)) % 2, spec)
    scores = train(recipe, data=data, output=Path(sys.argv[1], name), device="cpu", progress=False).scores
    return scores["held_out_images"], highest

images = torch.randint(0, 256, (8192, 3, 64, 64), dtype=torch.uint8)
threading.Thread(target=watch, daemon=True).start()
_, before = run(images[:1024], "few")
held_out, after = run(images, "many")
print(held_out, after - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the size of memory in /proc")
def test_training_makes_no_copy_of_the_images(tmp_path: Path) -> None:
    """Training on 96 MiB of images, half of them held out, takes hardly more than on an eighth of them."""
    command = [sys.executable, "-c", GROWTH, str(tmp_path)]
    # so that glibc gives back what is freed: else the holes in its heap are larger than what is measured
    settings = {f"MALLOC_{name}_THRESHOLD_": str(1 << 20) for name in ("MMAP", "TRIM")}
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    held_out, growth = map(int, done.stdout.split())
    assert held_out == 4096
    assert growth < 40 << 20
