"""The search for settings: on a part of the training data alone, with as many trials for every arm."""

import json

import pytest
import torch

from genaug import DataError, DataSpec, GenaugError
from genaug.data import LabeledImages, load_data, longtail_indices
from genaug.evaluate import Arm, Budget
from genaug.evaluate.search import choose_settings
from genaug.models import SmallCNN

OPTIONS = {"budget": Budget(steps=25, batch_size=32), "device": "cpu", "progress": False, "fraction": 0.3}


def small(spec: DataSpec) -> SmallCNN:
    return SmallCNN(spec, width=4)


@pytest.fixture(scope="module")
def train() -> LabeledImages:
    pool = load_data("digits")
    return pool.subset(longtail_indices(pool.labels, imbalance_factor=5, seed=0))


def test_the_setting_that_learns_is_chosen(train, tmp_path) -> None:
    settings = {
        "plain": [Arm(learning_rate=1e-6), Arm(learning_rate=1e-2)],
        "balanced": [Arm(balanced=True, learning_rate=2e-2), Arm(balanced=True, learning_rate=1e-6)],
    }
    output = tmp_path / "search.json"
    found = choose_settings(settings, train=train, classifier=small, seeds=2, output=output, **OPTIONS)
    assert found.arms == {"plain": settings["plain"][1], "balanced": settings["balanced"][0]}
    for name, scores in found.scores.items():
        for number, score in enumerate(scores):
            values = found.comparison.values(f"{name} #{number + 1}", "balanced_accuracy")
            assert score == pytest.approx(sum(values) / 2)
    assert found.best == max(found.scores, key=lambda name: max(found.scores[name]))
    assert json.loads(output.read_text()) == found.comparison.to_dict()


def test_training_and_validation_images_are_those_of_a_split_of_the_training_part(train) -> None:
    found = choose_settings({"plain": [Arm()]}, train=train, classifier=small, split_seed=4, **OPTIONS)
    kept, held_out = train.split(0.3, seed=4)
    settings = found.comparison.settings
    assert settings["train_sha256"] == train.subset(kept).fingerprint()
    assert settings["test_sha256"] == train.subset(held_out).fingerprint()
    assert settings["seeds"] == [0]


def test_every_arm_gets_as_many_trials(train) -> None:
    with pytest.raises(GenaugError, match=r"settings must be as many for each arm, got \{'plain': 1, 'other': 2\}"):
        choose_settings({"plain": [Arm()], "other": [Arm()] * 2}, train=train, classifier=small, **OPTIONS)


def test_a_class_too_small_for_a_validation_part_is_named(train) -> None:
    one = torch.nonzero(train.labels == 3).flatten()[:1]
    scarce = train.subset(torch.cat([torch.nonzero(train.labels != 3).flatten(), one]))
    with pytest.raises(
        DataError, match=r"a validation part of 0.3 needs more images of \['3'\]; add images, hold out a"
    ):
        choose_settings({"plain": [Arm()]}, train=scarce, classifier=small, **OPTIONS)


def test_images_that_the_training_part_holds_twice_are_not_in_both_parts(train) -> None:
    twice = train.subset(torch.cat([torch.arange(len(train)), torch.arange(40)]))
    found = choose_settings({"plain": [Arm()]}, train=twice, classifier=small, **OPTIONS)
    kept, held_out = twice.split(0.3, seed=0)
    assert found.comparison.settings["test_images"] == len(held_out)
    assert sum(found.comparison.settings["train_counts"]) < len(kept)
