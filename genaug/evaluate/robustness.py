"""Does a denoiser help a classifier on noisy images? Beside the cheap way: training with noise."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genaug.data import LabeledImages
from genaug.devices import choose_device
from genaug.errors import DataError, GenaugError, check_share, shorten
from genaug.evaluate.arms import Arm, Budget
from genaug.evaluate.comparison import Comparison
from genaug.evaluate.fitting import train_classifier
from genaug.evaluate.parts import check_classes, check_parts
from genaug.evaluate.runs import list_seeds
from genaug.evaluate.trials import AUGMENTED, NOISY, Trials
from genaug.models import SmallCNN
from genaug.progress import progress_bar
from genaug.storage import LOCK, check_vacant, expand, hold, write_json
from genaug.transforms.operations import Restore

RIVAL = f"{AUGMENTED} / {NOISY}"
LEVELS = 0.1, 0.2
PROTOCOL = (
    "Gaussian noise, clipped to [0, 1]. Noisy and denoised images are rounded to 8 bits, as in files. The denoiser is "
    "not told the noise level. Rows are trained / tested: classifiers were trained on clean images; on noisy ones, "
    "whose noise of this level is new in every batch; on denoised ones, of which there is one copy for each seed; or "
    "augmented, on images with noise of a level uniform from 0 to augmentation_level, new in every batch. At noise "
    "level 0 noisy images are the clean ones."
)


@dataclass
class RobustnessResult:
    """The scores of every classifier at every noise level and seed; rows are called "trained / tested".

    Args:
        class_names: of the images.
        test_labels: class index of each test image.
        settings: what was asked for.
        facts: what else to write.
        runs: the score of a row at a noise level for a seed.
    """

    class_names: tuple[str, ...]
    test_labels: list[int]
    settings: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def noise_levels(self) -> list[float]:
        """0 and the noise levels that were asked for, ascending."""
        return [0.0, *self.settings["noise_levels"]]

    def comparison(self, noise_level: float, *, rival: str = RIVAL) -> Comparison:
        """Return the rows at a noise level as a comparison with one of them, by default with training with noise.

        Raises:
            GenaugError: a noise level that was not measured.
        """
        if noise_level not in self.noise_levels:
            raise GenaugError(f"noise_level must be one of {self.noise_levels}, got {shorten(noise_level)}")
        runs = [
            {"arm": f"{run['trained']} / {run['tested']}", **run}
            for run in self.runs
            if run["noise_level"] == noise_level
        ]
        return Comparison(rival, self.class_names, self.test_labels, self.settings, runs)

    def to_dict(self) -> dict[str, Any]:
        """Return facts, settings, a summary of each noise level, and all runs, as plain values."""
        levels = [
            {"noise_level": level, "rows": self.comparison(level).to_dict()["summary"]} for level in self.noise_levels
        ]
        return {
            **self.facts,
            "protocol": PROTOCOL,
            "rival": RIVAL,
            "class_names": list(self.class_names),
            "settings": self.settings,
            "summary": levels,
            "test_labels": " ".join(map(str, self.test_labels)),
            "runs": self.runs,
        }


def measure_robustness(
    denoiser: Any,
    *,
    train: LabeledImages,
    test: LabeledImages,
    noise_levels: Sequence[float] = LEVELS,
    augmentation_level: float | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    seeds: int | Sequence[int] = 5,
    steps: int = 1000,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    classifier: Callable[[Any], nn.Module] = SmallCNN,
    output: str | Path | None = None,
    overwrite: bool = False,
    facts: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> RobustnessResult:
    """Train classifiers on clean, noisy, denoised and noise-augmented images, and test them on noisy and denoised ones.

    At each noise level, and without noise, a classifier of clean images is tested on noisy and on denoised ones, and
    one trained with noise of all levels on noisy ones: the cheap rival. At each level one trained on noisy images is
    tested on noisy ones, and one trained on denoised images on denoised ones.

    Every classifier has the same budget and, for a seed, the same start and draws; classes are drawn equally often. The
    noise of a test image depends on the seed and its place alone, and is the same, but for its strength, at all levels.
    Noise is clipped to [0, 1] and images are rounded to uint8, as in files. Noise is new in every batch, but denoised
    training images are those of one copy of `train` for each seed and level. A gray denoiser restores the channels of
    color images one by one.

    Args:
        denoiser: a model with `restore`, which computes where it is, and is not told the noise level.
        train: the training part.
        test: held-out real images; used with the weights of the last step.
        noise_levels: standard deviations on the [0, 1] scale; without noise everything is measured anyway.
        augmentation_level: highest noise level of training with noise; by default that of `noise_levels`.
        transform: of a training image, before noise is added; see `Arm`.
        seeds: the seeds of the paired repetitions, or their number for seeds 0, 1, ...
        steps, batch_size, learning_rate: the budget of every classifier.
        classifier: makes a new network from a `DataSpec`: public images (N, C, H, W) -> logits (N, classes).
        output: JSON file that is rewritten after every run; a new one.
        overwrite: replace an existing `output`.
        facts: what else to write there, such as where the images came from.
        device: where to train; a GPU if there is one, else the CPU.
        progress: show a progress bar.

    Raises:
        GenaugError: a model without `restore`, noise levels that are not above 0 and at most 1, no seeds, a budget out
            of range, an `output` that exists, or that another process writes to.
        DataError: images that the denoiser cannot take, fewer than two classes, train and test of different formats or
            classes, without images, or sharing one; a denoiser that gives values that are not finite.

    >>> from genaug import DataSpec
    >>> from genaug.data import load_data
    >>> from genaug.models import Denoiser, DenoiserConfig
    >>> denoiser = Denoiser(DataSpec(channels=1), DenoiserConfig(width=4, levels=2, blocks=1))
    >>> train, test = (load_data("digits", split=part, limit_per_class=5) for part in ("train", "test"))
    >>> result = measure_robustness(
    ...     denoiser, train=train, test=test, noise_levels=[0.1], seeds=1, steps=2, progress=False
    ... )
    >>> result.comparison(0.1).arms
    ['clean / noisy', 'clean / denoised', 'augmented / noisy', 'noisy / noisy', 'denoised / denoised']
    """
    operation = Restore(denoiser, channels="convert")
    check_parts(train, test)
    check_classes(train, test)
    _check_images(operation, test)
    levels = _list_levels(noise_levels)
    highest = levels[-1] if augmentation_level is None else check_share(augmentation_level, name="augmentation_level")
    seeds, where = list_seeds(seeds), choose_device(device)
    budget = Budget(steps=steps, batch_size=batch_size, learning_rate=learning_rate)
    results = None if output is None else expand(output)
    if results is not None:
        check_vacant(results, overwrite=overwrite)
    settings = {
        "seeds": seeds,
        **asdict(budget),
        "noise_levels": levels,
        "augmentation_level": highest,
        "transform": None if transform is None else repr(transform),
        "train_images": len(train),
        "test_images": len(test),
    }
    result = RobustnessResult(test.spec.class_names, test.targets, settings, dict(facts or {}))
    total = len(seeds) * (2 + 2 * len(levels)) * steps
    held = nullcontext() if results is None else hold(results, results.with_name(f".{results.name}{LOCK}"))
    with held, progress_bar("robustness", total=total, enabled=progress) as update:
        arm = Arm(balanced=True, transform=transform)
        fit = partial(train_classifier, arm, classifier=classifier, budget=budget, device=where, on_step=update)
        trials = Trials(operation, train, test, levels, highest, fit, where, update)
        for run in (run for seed in seeds for run in trials.run(seed)):
            result.runs.append(run)
            if results is not None:
                write_json(results, result.to_dict())
    return result


def _check_images(operation: Restore, test: LabeledImages) -> None:
    """Raise a `DataError` unless images can be restored."""
    spec, (height, width) = operation.spec, test.images.shape[-2:]
    if spec.height not in (None, height) or spec.width not in (None, width):
        raise DataError(
            f"denoiser and data must have images of one size, got {spec.size} and {test.spec.size}; load the data with "
            "the model's size (resize, --resize)"
        )
    operation.check(test.images[:1])


def _list_levels(noise_levels: object) -> list[float]:
    listed = list(noise_levels) if isinstance(noise_levels, Sequence) and not isinstance(noise_levels, str) else []
    levels = sorted(check_share(level, name="noise_levels (standard deviations, where white is 1)") for level in listed)
    if not levels or not levels[0] or len(set(levels)) != len(levels):
        raise GenaugError(
            "noise_levels must be at least one number above 0 and at most 1, none twice (0 is measured anyway), got "
            f"{shorten(noise_levels)}"
        )
    return levels
