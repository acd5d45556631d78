"""What is looked at while a model learns and at the end: pictures, scores on the held-out part, the best average."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from genaug.checkpoint import CARD, WeightsDtype, round_tensors
from genaug.data import LabeledImages
from genaug.errors import TrainingWarning
from genaug.features import FeatureExtractor, find_features
from genaug.models import Model
from genaug.models.saved import read_card
from genaug.spec import spread
from genaug.training.logs import MetricsLog, save_pictures
from genaug.training.recipe import Recipe
from genaug.training.run_folder import MODEL
from genaug.training.state import Best, TrainingState
from genaug.training.watch import WON, Observation, Watch, describe_won, find_members

MAX_LOGGED_CLASSES = 32
PICTURE_COLUMNS = 8


@dataclass
class Looks:
    """Looks at the averaged model of a run every so often, and writes the model at its end.

    Args:
        state: of the training.
        recipe: of the run.
        images: the data.
        kept: rows (N,) that are trained on.
        held_out: rows (M,) that are not; may be none.
        output: folder of the run.
        described: the recipe as the model is to tell it.
        data_sha256: hash of the data, likewise.
    """

    state: TrainingState
    recipe: Recipe
    images: LabeledImages
    kept: Tensor
    held_out: Tensor
    output: Path
    described: dict[str, Any]
    data_sha256: str | None = None
    watch: Watch | None = None
    features: FeatureExtractor | None = None
    seen: dict[int, Observation] = field(default_factory=dict)  # by step

    def load_features(self) -> None:
        """Load the network that a watched family's samples are compared in, if the recipe asks for one.

        Raises:
            DataError: too few images of every class to watch.
        """
        if self.state.model.watched:
            name, device = self.recipe.training.watch_features, self.state.model.device
            self.features = find_features(name, self.images, name="data", device=device)
            find_members(self.images, self.kept, self.features)

    def prepare(self, *, progress: bool) -> None:
        """Take the features of real images, of a classifier that is fitted where none are loaded."""
        if self.state.model.watched:
            self.watch = Watch(
                self.images,
                self.kept,
                self.held_out,
                seed=self.recipe.seed,
                steps=self.recipe.training.steps,
                device=self.state.model.device,
                features=self.features,
                progress=progress,
            )

    def look(self, log: MetricsLog, *, told_apart: float | None) -> dict[str, float]:
        """Save a picture of what the averaged model draws now, measure it, log and return the figures."""
        step, model = self.state.step, self.state.averaged
        some = self.kept  # a watched model counts classes only, and must not miss a scarce one
        if self.watch is None:
            some = self.kept[spread(len(self.kept), min(len(self.kept), 2048))]
        model.fit_after_training(self.images.images, self.images.labels, rows=some)
        self._save_pictures(model, f"step-{step:06d}")
        numbers = {f"validation_{name}": float(value) for name, value in self._measure(model).items()}
        numbers.pop("validation_held_out_images", None)
        shown = dict(numbers)
        if self.watch is not None:
            observation = self._observe(self.watch, model, step)
            self.state.keep_if_best(observation.intra_class_distance)
            self.watch.report(observation, step=step, told_apart=told_apart)
            shown[self.watch.score] = numbers[self.watch.score] = observation.intra_class_distance
            if len(self.images.classes) <= MAX_LOGGED_CLASSES:
                numbers |= self._by_class("distance", observation.distance)
                numbers |= self._by_class("diversity", observation.diversity)
        if numbers:
            log.write(step, **numbers)
        return shown

    def finish(self, *, told_apart: float | None = None) -> None:
        """Write the averaged model, the best of a watched run, with its scores; warn of what is wrong at the end."""
        model, scores = self.state.averaged.eval(), {}
        if self.watch is not None:
            best = self.state.keep_if_best(self._observe(self.watch, model, self.state.step).intra_class_distance)
            if best.step != self.state.step:
                model.load_state_dict(best.tensors)
        model.fit_after_training(self.images.images, self.images.labels, rows=self.kept)
        dtype = self._round(model)
        if self.watch is not None:
            whole = dtype == "float32"
            observation = self._observe(self.watch, model, best.step) if whole else self.watch.observe(model)
            scores = self._describe(self.watch, best, observation)
            if observation.collapsed:
                message = self.watch.describe(observation, observation.collapsed)
                warnings.warn(f"of the model that is kept (step {best.step}) {message}", TrainingWarning, stacklevel=2)
            if told_apart is not None and told_apart > WON:
                warnings.warn(f"at the end {describe_won(told_apart)}", TrainingWarning, stacklevel=2)
        model.recipe, model.data_sha256 = self.described, self.data_sha256
        model.scores = scores | self._measure(model)
        self._save_pictures(model, "final")
        target = self.output / MODEL
        # where the run was done before, its card may have been added to
        model.save(target, card=read_card(target / CARD), overwrite=True, weights_dtype=dtype)

    def _round(self, model: Model) -> WeightsDtype:
        """Round the weights to those that are written, unless that cannot hold them, and return as what."""
        dtype = self.recipe.training.weights_dtype
        rounded = round_tensors(model.state_dict(), dtype)
        if not all(bool(tensor.isfinite().all()) for tensor in rounded.values()):
            warnings.warn(f"{dtype} cannot hold the weights: written as float32", TrainingWarning, stacklevel=3)
            return "float32"
        model.load_state_dict(rounded)  # what is measured is what is written
        return dtype

    def _save_pictures(self, model: Model, name: str) -> None:
        rows = self.held_out if len(self.held_out) else self.kept
        some = rows[spread(len(rows), PICTURE_COLUMNS)]
        path = self.output / "samples" / f"{name}.png"
        save_pictures(model, self.images.images[some], self.images.labels[some], path, seed=self.recipe.seed)

    def _observe(self, watch: Watch, model: Model, step: int) -> Observation:
        """Return what the watch finds of the average of `step`; it looks once."""
        if step not in self.seen:
            self.seen[step] = watch.observe(model)
        return self.seen[step]

    def _describe(self, watch: Watch, best: Best, observation: Observation) -> dict[str, Any]:
        """Return scores of the best average: its distance only where that is to held-out images.

        Where some classes are compared with training images too, it says how many.
        """
        if not len(self.held_out):
            return {"best_step": best.step}
        distance = round(observation.intra_class_distance, 4)
        scores = {"best_step": best.step, watch.score: distance, "held_out_images": len(self.held_out)}
        return scores | ({"classes_with_training_images": watch.partly_trained_on} if watch.partly_trained_on else {})

    def _measure(self, model: Model) -> dict[str, Any]:
        if not len(self.held_out):
            return {}
        return model.measure(self.images.images, self.images.labels, rows=self.held_out)

    def _by_class(self, name: str, values: tuple[float | None, ...]) -> dict[str, float]:
        pairs = zip(self.images.classes, values, strict=True)
        return {f"{name}/{label}": value for label, value in pairs if value is not None}
