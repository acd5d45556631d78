"""The measurement of memory, with few images."""

import sys

import datasets
import pytest
import torch

from genaug.data import load_data
from genaug.data.check import check_data
from genaug.errors import GenaugError
from genaug.workflows import scale
from genaug.workflows.scale import ScaleRun, measure_scale, print_scale


def test_few_images_in_memory_and_on_the_disk(capsys):
    memory, disk = measure_scale(500, limits={"in memory": 1.0, "on disk": 1e-3}, steps=2, progress=False)
    assert (memory.way, disk.way) == ("in memory", "on disk")
    assert memory.weights_sha256 == disk.weights_sha256
    assert len(memory.weights_sha256) == 64
    for run in (memory, disk):
        assert run.images_per_second > 0
        assert run.load_seconds > 0
        if sys.platform == "linux":
            assert 0.1 < run.anonymous < run.resident < 4
    print_scale([memory, disk])
    shown = capsys.readouterr().out
    assert "on disk" in shown
    assert "the weights are the same to the bit" in shown


def test_what_cannot_be_measured_and_weights_that_differ(capsys):
    run = ScaleRun("in memory", None, None, 1.0, 2.0, 3.0, "a" * 64)
    print_scale([run, ScaleRun("on disk", 1.5, 0.5, 1.0, 2.0, 3.0, "b" * 64)])
    shown = capsys.readouterr().out
    assert "n/a" in shown
    assert "1.50 GiB" in shown
    assert "the weights differ" in shown


def test_the_images_are_distinct_color_digits(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    assert list(scale._write_images(tmp_path / "images", 2100)) == [1000, 1000, 100]
    data = load_data(tmp_path / "images")
    assert (data.spec.size, len(data)) == ("3x64x64", 2100)
    assert data.targets[:1797] == load_data("digits", split="all").targets
    assert check_data(data).warnings == ()
    again = scale._color(load_data("digits", split="all").images[:1000], scale.make_generator(0, "scale", 0))
    assert torch.equal(data.images[:1000], again)


def test_a_run_that_fails_is_one_line():
    with pytest.raises(GenaugError, match=r"the run with images badly kept failed: .*memory_limit") as caught:
        measure_scale(100, limits={"badly kept": -1.0}, progress=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("images", [99, 1e5, True, "many"])
def test_other_numbers_of_images_are_refused(images):
    with pytest.raises(GenaugError, match="images must be an integer of at least 100"):
        measure_scale(images)
