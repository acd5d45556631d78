"""What every family has in common: a specification, a config, what training asks of it, and checks of its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from genaug.errors import DataError, GenaugError, shorten
from genaug.images import check_noisy_range
from genaug.models.saved import SavedModel
from genaug.spec import DataSpec


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters, the factor of their learning rate, the step that they first move at, and the betas of Adam."""

    parameters: tuple[nn.Parameter, ...]
    factor: float = 1.0
    first_step: int = 0
    betas: tuple[float, float] = (0.9, 0.999)


MAX_PICTURE_CLASSES = 32
METHODS = ("sample", "encode", "decode", "vary", "restore")


class Model(SavedModel):
    """Base of the families: an `nn.Module` with its `spec` and `config`, saved and loaded without pickles.

    A family sets `family` and `config_class`, and takes `(spec, config)`.
    """

    training_defaults: ClassVar[dict[str, Any]] = {}  # of a recipe's `training`, where the family has its own
    watched: ClassVar[bool] = False  # whether training measures the samples, and keeps the weights of the best

    if TYPE_CHECKING:  # a family has those of these that it can do; `require` asks for one
        sample: Callable[..., Tensor]
        encode: Callable[..., Tensor]
        decode: Callable[..., Tensor]
        vary: Callable[..., Tensor]
        restore: Callable[..., Tensor]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def null_label(self) -> int:
        """The class index that stands for "no label"."""
        return self.spec.num_classes

    @property
    def known_classes(self) -> list[int]:
        """Class indices that samples can be of; by default all, and without classes the one for "no label"."""
        return list(range(max(self.spec.num_classes, 1)))

    def check_size(self) -> tuple[int, int]:
        """Return height and width of the specification, which a family for images of one size needs.

        Raises:
            GenaugError: a specification without them.
        """
        if self.spec.height is None or self.spec.width is None:
            raise GenaugError(f"spec must give height and width for the {self.family} family, got {self.spec.size}")
        return self.spec.height, self.spec.width

    @classmethod
    def start_from(cls, start: Model, *, spec: DataSpec, config: Any) -> Self:
        """Return a model of this family with what it takes over of a trained one; by default all weights of one alike.

        Args:
            start: the trained model, of the same images and classes; by default of the same family, with fields that
                give it the same weights.
            spec: of the images and classes.
            config: fields of this family.

        Raises:
            GenaugError: a model of a family that this one cannot start from, or fields that contradict it.
        """
        if type(start) is not cls:
            raise GenaugError(
                f"a model of family {cls.family} starts from another one of it, got one of family {start.family}"
            )
        model = cls(spec, config)
        given = start.state_dict()
        if _shapes(given) != _shapes(model.state_dict()):
            wanted = ", ".join(
                f"model.{name} {shorten(getattr(start.config, name))}"
                for name in vars(config)
                if getattr(config, name) != getattr(start.config, name) and _makes_weights(start, name, config)
            )
            raise GenaugError(f"the model to start from has weights of other shapes, made with {wanted}; set the same")
        model.load_state_dict(given)
        return model

    @classmethod
    def learned_spec(cls, spec: DataSpec, config: Any, *, paired: bool) -> DataSpec:
        """Return the specification of a model that learns from data of `spec`; by default the same.

        Args:
            spec: of the data.
            config: fields of this family.
            paired: whether the data are pairs, `spec` that of both images of one together.

        Raises:
            DataError: pairs for a family that learns from single images, as all do by default.
        """
        if paired:
            raise DataError(
                f"data must be single images for family {cls.family}, got pairs, of {spec.channels} channels together; "
                "leave --pairs (pairs=) out, or train family denoiser with model.supervision=pairs"
            )
        return spec

    def draw_for_training(self, count: int, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return what `training_loss` needs of random numbers for `count` images, one row for each; by default nothing.

        Drawn apart from the loss, so that several processes can share the draws of one batch.
        """
        return {}

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """Return groups of parameters by name; by default all of them as "loss".

        Where `training_loss` gives a dict, each of its losses moves the parameters of the group of its name alone.
        """
        return {"loss": ParameterGroup(tuple(self.parameters()))}

    def training_loss(
        self, images: Tensor, labels: Tensor, draws: Mapping[str, Tensor]
    ) -> tuple[Tensor | dict[str, Tensor], dict[str, Tensor]]:
        """Return the loss of a batch of public images, to be minimized (or one for each of `parameter_groups`), and
        figures to report.

        Args:
            images: public images (N, C, H, W).
            labels: class indices (N,).
            draws: what `draw_for_training` gave for these N images.
        """
        raise NotImplementedError

    def fit_before_training(self, images: Tensor, labels: Tensor, *, rows: Tensor | None = None) -> None:
        """Fit what is fitted once before the first step, such as the range of the data; by default nothing.

        Arguments as in `fit_after_training`.
        """

    def fit_after_training(self, images: Tensor, labels: Tensor, *, rows: Tensor | None = None) -> None:
        """Fit what is fitted once the weights stand, such as densities of latents; by default nothing.

        Args:
            images: public images (N, C, H, W); they may be larger than memory, so they are read in parts.
            labels: int64 (N,).
            rows: int64 (M,), which of them to use; all of them without it.
        """

    def illustrate(self, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return pictures (M, C, H, W), float in [0, 1], that show what the model does, as they stand in rows.

        By default rows of samples, one for each known class (for the first 32), as many in a row as there are images.

        Args:
            images: some public images (N, C, H, W), held-out ones where there are any.
            labels: theirs, int64 (N,).
            generator: of what is drawn.
        """
        classes = torch.tensor(self.known_classes[:MAX_PICTURE_CLASSES])
        return self.sample(classes.repeat_interleave(len(images)), generator=generator)

    def measure(self, images: Tensor, labels: Tensor, *, rows: Tensor | None = None) -> dict[str, Any]:
        """Return scores on held-out images as plain numbers; by default none. Arguments as in `fit_after_training`."""
        return {}

    def check_batch(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Check public `images` (N, C, H, W) and `labels`, and return labels on the model's device (null if None)."""
        self.spec.check_images(images)
        if images.ndim != 4:
            raise DataError(f"images must have shape (N, C, H, W), got {tuple(images.shape)}; add images[None]")
        return self.check_labels(labels, len(images))

    def check_labels(self, labels: Tensor | None, count: int | None) -> Tensor:
        """Check `labels`, of `count` images, and return them on the model's device; None becomes the null class."""
        if labels is None and count is not None:
            labels = torch.full((count,), self.null_label)
        self.spec.check_labels(labels, count=count, null=True)  # type: ignore[arg-type]  # None is refused there
        return labels.to(self.device)  # type: ignore[union-attr]


def require(model: object, method: str) -> Callable[..., Any]:
    """Return the bound `method` of `model`, or raise a `GenaugError` that says what its family can do.

    >>> require(object(), "vary")
    Traceback (most recent call last):
    ...
    genaug.errors.GenaugError: vary: object cannot do this; it can: nothing of sample, encode, decode, vary, restore
    """
    bound = getattr(model, method, None)
    if not callable(bound):
        can = [name for name in METHODS if callable(getattr(model, name, None))]
        known = ", ".join(can) or f"nothing of {', '.join(METHODS)}"
        name = getattr(model, "family", type(model).__name__)
        raise GenaugError(f"{method}: {name} cannot do this; it can: {known}")
    return bound  # type: ignore[no-any-return]


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def check_noisy(images: Tensor, spec: DataSpec) -> None:
    """Check images (N, C, H, W) as a `restore` takes them: uint8, or floats that noise may lead out of [0, 1].

    Raises:
        DataError: images of another kind, or that do not fit `spec`.

    >>> check_noisy(torch.randn(2, 1, 8, 8), DataSpec(channels=1))
    """
    if not isinstance(images, Tensor) or images.ndim != 4:
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise DataError(f"images must be a tensor of shape (N, C, H, W), got {got}")
    check_noisy_range(images)
    spec.check_images(images.clamp(0, 1) if images.is_floating_point() else images)


def _makes_weights(start: Model, name: str, config: Any) -> bool:
    """Tell whether the field `name` of another configuration alone would give a model weights of other shapes."""
    try:
        changed = type(start)(start.spec, replace(start.config, **{name: getattr(config, name)}))
    except GenaugError:  # it does not go together with the others
        return True
    return _shapes(changed.state_dict()) != _shapes(start.state_dict())


def check_latents(latents: Tensor, size: int) -> Tensor:
    """Check that latents are finite numbers (N, `size`), and return them as float32.

    Raises:
        GenaugError: no tensor, another shape, NaN or infinite values.
    """
    if not isinstance(latents, Tensor):
        raise GenaugError(f"latents must be a tensor, got {type(latents).__name__}; convert with torch.as_tensor")
    if latents.ndim != 2 or latents.shape[1] != size:
        raise GenaugError(f"latents must have shape (N, {size}), got {tuple(latents.shape)}")
    if not latents.isfinite().all():
        raise GenaugError("latents must be finite, got NaN or infinite values")
    return latents.float()
