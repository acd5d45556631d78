"""The base of per-image transforms that run a model inside a torchvision v2 pipeline."""

import math
import os
from collections.abc import Callable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import PIL.Image
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten  # as torchvision's own transforms take samples apart
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from genaug import checkpoint
from genaug.errors import CheckpointError, DataError, GenaugError, shorten
from genaug.images import cast_like
from genaug.models import Model, require
from genaug.spec import DataSpec
from genaug.zoo import load, resolve

PIL_MODES = ("L", "RGB", "RGBA")  # whose bytes are the pixel values that models know

LabelsGetter = Literal["default"] | Callable[[Any], Any] | None
_IMPORTED_IN = os.getpid()  # another number than this means a forked process


def _is_plain_tensor(value: Any) -> bool:
    return type(value) is Tensor


class ModelTransform(v2.Transform):  # type: ignore[misc]
    """Changes each image with probability `p` by a method of a model; everything else passes through untouched.

    Takes what torchvision v2 transforms take: PIL images, `tv_tensors.Image`, tensors (..., C, H, W) of uint8 or of
    floats in [0, 1], alone or in tuples and dicts; where there is an image of another type, plain tensors are left
    alone. Type, dtype, shape and device stay. Random numbers come from torch's global generator, in `make_params`.

    A conditional model needs the label to stay within the class. The transform finds it where a sample is called as
    (image, label), or is a dict with "label" or "labels"; else it runs with the null class ("no label"), as in
    `ImageFolder(transform=...)`, which passes no label.

    A model given by name or path is loaded when it is first used, in each process, and must not have changed on disk.
    In a forked process (a DataLoader's worker, Hugging Face's `map(num_proc=...)`) torch is set to one thread, without
    which it can hang there.

    Args:
        model: a model, or what `genaug.load` takes.
        p: probability of changing an image, for each image of a batch on its own.
        labels_getter: "default" as above; a function of the sample that returns the label (an int, or an integer tensor
            with one for each image), or None for none; None for never.

    Raises:
        GenaugError: `p` outside [0, 1], a model whose family cannot do what the transform needs.
        DataError: labels that the model does not know, or not one for each image.
        CheckpointError: a model that cannot be found or has changed since.
    """

    _transformed_types = (_is_plain_tensor, PIL.Image.Image, tv_tensors.Image)
    method: str

    def __init__(self, model: Model | str | Path, *, p: float, labels_getter: LabelsGetter = "default") -> None:
        super().__init__()
        if labels_getter not in ("default", None) and not callable(labels_getter):
            raise GenaugError(f'labels_getter must be "default", a function or None, got {shorten(labels_getter)}')
        self._labels_getter = find_labels if labels_getter == "default" else labels_getter
        if not 0.0 <= p <= 1.0:
            raise GenaugError(f"p must be from 0 to 1, got {shorten(p)}")
        self.p = p
        self._directory: Path | None = None
        # Held in a tuple, so that torch does not take it for a part of the pipeline to move, list and save.
        self._loaded: tuple[Any, ...] = ()
        if isinstance(model, (str, Path)):
            self._directory = resolve(model).absolute()
            config = checkpoint.read_checkpoint_config(self._directory)
            self.spec: DataSpec = config.spec
            self._sha256 = config.weights_sha256
            self.name = f"{config.family} {model}"
        else:
            require(model, self.method)
            self.spec, self.name, self._loaded = model.spec, getattr(model, "family", type(model).__name__), (model,)

    @property
    def model(self) -> Any:
        """The model, loaded now if it was not yet loaded in this process."""
        if not self._loaded and self._directory is not None:
            found = checkpoint.read_checkpoint_config(self._directory).weights_sha256
            if found != self._sha256:
                raise CheckpointError(f"{self._directory}: the weights have changed since the transform was made")
            self._loaded = (load(self._directory),)
        (model,) = self._loaded
        require(model, self.method)
        if model.device.type == "cuda" and torch.cuda._is_in_bad_fork():
            raise GenaugError(
                "model: a model on a GPU cannot run in a forked worker; leave it on the CPU, make a SampleBank, "
                "or apply the transform to batches after the DataLoader"
            )
        return model

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._directory is not None:
            state["_loaded"] = ()
        return state

    def forward(self, *inputs: Any) -> Any:
        """Change the images of a sample; as `v2.Transform.forward`, which does not let a transform see labels."""
        if os.getpid() != _IMPORTED_IN:
            torch.set_num_threads(1)  # the threads of the parent are not here, and waiting for them would never end
        sample = inputs if len(inputs) > 1 else inputs[0]
        flat, structure = tree_flatten(sample)
        self.check_inputs(flat)
        chosen = self._needs_transform_list(flat)
        params = self.make_params([inpt for inpt, is_image in zip(flat, chosen, strict=True) if is_image])
        if params:
            params["labels"] = self._labels(sample, len(params["chosen"]))
        outputs = [self.transform(x, params) if is_image else x for x, is_image in zip(flat, chosen, strict=True)]
        return tree_unflatten(outputs, structure)

    def _labels(self, sample: Any, count: int) -> Tensor | None:
        found = None if self._labels_getter is None else self._labels_getter(sample)
        if found is None or not self.spec.num_classes:
            return None
        labels = torch.as_tensor(found)
        if labels.is_floating_point() or labels.dtype == torch.bool or labels.numel() != count:
            raise DataError(
                f"labels must be one class index for each of {count} images, got {labels.dtype} {tuple(labels.shape)}; "
                "pass labels_getter=None to do without"
            )
        labels = labels.reshape(count).to("cpu", torch.int64)
        self.spec.check_labels(labels, null=True)
        return labels

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw which images change, and a seed for whatever the model draws."""
        if not flat_inputs:
            return {}
        chosen = torch.rand(_count(flat_inputs[0])) < self.p
        return {"chosen": chosen, "seed": int(torch.randint(2**62, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Return the input with the chosen images changed; the same object where none is."""
        chosen = params["chosen"]
        if _count(inpt) != len(chosen):
            raise DataError(f"images of one sample must be equally many, got {len(chosen)} and {_count(inpt)}")
        if not chosen.any():
            return inpt
        pixels = _to_tensor(inpt)
        flat = pixels.reshape(len(chosen), *pixels.shape[-3:])
        self.spec.check_images(flat)
        rows = chosen.nonzero().flatten().to(flat.device)
        picked = flat[rows]
        # Half-precision floats keep their values through float32.
        public = picked if picked.dtype == torch.uint8 else picked.float()
        changed = flat.clone()
        labels = params.get("labels")
        picked_labels = None if labels is None else labels[chosen]
        changed[rows] = cast_like(self.change(public, picked_labels, seed=params["seed"]), flat)
        changed = changed.reshape(pixels.shape)
        if isinstance(inpt, PIL.Image.Image):
            return to_pil_image(changed, mode=inpt.mode)
        return tv_tensors.wrap(changed, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else changed

    def change(self, images: Tensor, labels: Tensor | None, *, seed: int) -> Tensor:
        """Return changed public images (N, C, H, W) of classes `labels` (N,); all that is drawn depends on `seed`."""
        raise NotImplementedError


def find_labels(sample: Any) -> Any:
    """Return the label of a sample that is (image, label) or a dict with "label" or "labels", or None.

    A second element counts as a label where it is an int, also NumPy's, or a tensor of integers with at most one
    dimension.

    >>> find_labels((torch.zeros(1, 8, 8), 3)), find_labels(torch.zeros(1, 8, 8))
    (3, None)
    """
    if isinstance(sample, Mapping):
        candidate = sample.get("label", sample.get("labels"))
    elif isinstance(sample, (tuple, list)) and len(sample) == 2:
        candidate = sample[1]
    else:
        return None
    if isinstance(candidate, Tensor):
        whole = not candidate.is_floating_point() and not candidate.is_complex() and candidate.dtype != torch.bool
        return candidate if whole and candidate.ndim <= 1 else None
    return None if isinstance(candidate, bool) or not isinstance(candidate, Integral) else candidate


def _count(inpt: Any) -> int:
    if isinstance(inpt, PIL.Image.Image):
        return 1
    if inpt.ndim < 3:
        raise DataError(f"images must have shape (..., C, H, W), got {tuple(inpt.shape)}")
    return math.prod(inpt.shape[:-3])


def _to_tensor(inpt: Any) -> Tensor:
    if not isinstance(inpt, PIL.Image.Image):
        return inpt.as_subclass(Tensor)  # type: ignore[no-any-return]
    if inpt.mode not in PIL_MODES:
        raise DataError(f"a PIL image must be of mode {', '.join(PIL_MODES)}, got mode {inpt.mode}; convert it first")
    return pil_to_tensor(inpt)  # type: ignore[no-any-return]
