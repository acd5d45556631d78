"""Benchmarks against rivals: what they need, and that every side runs; how fast it is, no test says."""

import logging
import sys

import pytest

from genaug.errors import GenaugError
from genaug.workflows import bench_pythae
from genaug.workflows.bench import run_benchmarks


@pytest.mark.parametrize("call", [bench_pythae.make_sides, lambda: run_benchmarks("training", repeats=3)])
def test_a_missing_pythae_is_one_line(monkeypatch, call):
    for name in ("pythae", *(name for name in sys.modules if name.startswith("pythae."))):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(GenaugError, match=r"^the training benchmark needs pythae \(.*\); install genaug\[bench\]$"):
        call()


@pytest.mark.global_rng  # pythae seeds all generators
def test_every_side_trains_and_tells_its_time(monkeypatch, capsys, caplog):
    pytest.importorskip("pythae")
    monkeypatch.setattr(bench_pythae, "STEPS", 3)
    monkeypatch.setattr(bench_pythae, "BATCH", 4)
    caplog.set_level(logging.INFO)
    sides = bench_pythae.make_sides()
    assert list(sides) == ["genaug", "genaug, float32", "pythae"]
    for name, side in sides.items():
        assert 0 < side() < 60, name
    assert not [record for record in caplog.records if record.name.startswith("pythae")]
    shown = capsys.readouterr()
    assert shown.out + shown.err == ""
