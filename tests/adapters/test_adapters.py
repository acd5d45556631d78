"""Adapters load with the libraries they are for, and not before."""

import subprocess
import sys

import pytest

import genaug


def test_adapters_load_when_they_are_used():
    code = (
        "import sys, genaug, genaug.adapters as adapters\n"
        "libraries = {'albumentations', 'datasets', 'kornia', 'torch'}\n"
        "assert not libraries & set(sys.modules)\n"
        "assert genaug.adapters is adapters\n"
        "assert adapters.huggingface.mix and adapters.huggingface is sys.modules['genaug.adapters.huggingface']\n"
        "assert libraries & set(sys.modules) == {'datasets', 'torch'}\n"
        "assert adapters.kornia.LatentJitter and adapters.albumentations.LatentJitter\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_an_adapter_that_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'tensorflow'"):
        _ = genaug.adapters.tensorflow
