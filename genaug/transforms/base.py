"""The base of per-image transforms that run a model inside a torchvision v2 pipeline."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten  # as torchvision's own transforms take samples apart
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from genaug.devices import settle_in_fork
from genaug.errors import DataError, check_share, shorten
from genaug.images import cast_like, explain_mode, to_float
from genaug.samples import (
    LabelsGetter,
    choose_labels_getter,
    find_candidate,
    find_images,
    find_labels,
    holds_boxes,
    is_label,
)
from genaug.spec import DataSpec
from genaug.transforms.operations import Operation

PIL_MODES = ("L", "I;16", "RGB", "RGBA")  # whose numbers are the pixel values that models know


class ModelTransform(v2.Transform):  # type: ignore[misc]
    """Changes each image with probability `p` by an operation of a model; everything else passes through untouched.

    Takes what torchvision v2 transforms take: PIL images, `tv_tensors.Image`, tensors (..., C, H, W) of uint8, uint16
    or of floats in [0, 1], alone or in tuples and dicts. Where there is none of the first two, one plain tensor is
    taken for the image: that under "image" (or "img", "images", "pixel_values"), else the first with three dimensions
    or more. Type, dtype, shape and device stay. Videos are no images here, and pass through. Random numbers come from
    torch's global generator, in `make_params`. No gradient passes through the model: that of a changed image is zero.

    A conditional model needs the label to stay within the class: an index into `spec.class_names`, in that order. The
    transform finds it where a sample is (image, label, ...), or a dict with "label" or "labels" (see
    `genaug.samples.find_labels`); else it runs with the null class ("no label"), as in `ImageFolder(transform=...)`,
    which passes no label.

    A model given by name or path is loaded when it is first used, in each process, and must not have changed on disk.
    In a forked process (a DataLoader's worker, Hugging Face's `map(num_proc=...)`) torch is set to one thread, without
    which it can hang there.

    Images of another size than the model's are an error unless the operation has `resize`, which brings them there and
    back (what is finer than the model's size is lost). Images of other channels are one unless it has
    `channels="convert"`: gray images enter a color model as three equal channels, color ones a gray model by their
    luminance, and come back likewise (colors are lost); the alpha of RGBA stays as it is. With `keep_residual` nothing
    of that is lost.

    Args:
        operation: what is done to the images.
        p: probability of changing an image, for each image of a batch on its own.
        labels_getter: "default" as above; a function of the sample that returns the label (an int, or an integer tensor
            with one for each image), or None for none; None for never.

    Raises:
        GenaugError: `p` outside [0, 1].
        DataError: in use, images that do not fit the model, labels that it does not know, or not one for each image.
        CheckpointError: in use, weights that have changed since.

    >>> from genaug.transforms.operations import Vary
    >>> transform = ModelTransform(Vary("digits-vae", strength=0.0), p=1.0)
    >>> transform({"label": torch.tensor([3, 1]), "image": torch.zeros(2, 1, 8, 8)})["image"].shape
    torch.Size([2, 1, 8, 8])
    """

    _transformed_types = (PIL.Image.Image, tv_tensors.Image)  # and one plain tensor, see `find_images`

    def __init__(self, operation: Operation, *, p: float, labels_getter: LabelsGetter = "default") -> None:
        super().__init__()
        self._labels_getter = choose_labels_getter(labels_getter, default=find_labels)
        self.p = check_share(p, name="p")
        # No module, so that torch does not take the model for a part of the pipeline to move, list and save.
        self.operation = operation
        self.name = operation.reference.name

    @property
    def spec(self) -> DataSpec:
        """The images and classes that the model knows."""
        return self.operation.spec

    @property
    def model(self) -> Any:
        """The model, loaded now if it was not yet loaded in this process."""
        return self.operation.reference.get()

    def forward(self, *inputs: Any) -> Any:
        """Change the images of a sample; as `v2.Transform.forward`, which does not let a transform see labels."""
        settle_in_fork()
        sample = inputs if len(inputs) > 1 else inputs[0]
        flat, structure = tree_flatten(sample)
        self.check_inputs(flat)
        found = self._labels_getter(sample)
        chosen = find_images(sample, flat, found)
        params = self.make_params([flat[place] for place in chosen])
        if params:
            params["labels"] = self._check_labels(sample, found, len(params["chosen"]))
        for place in chosen:
            flat[place] = self.transform(flat[place], params)
        return tree_unflatten(flat, structure)

    def change_all(self, images: Sequence[Any], labels: Sequence[int] | None = None) -> list[Any]:
        """Return single images of any kinds with each changed as if alone, but those of one size at once.

        Args:
            images: PIL images, or tensors (C, H, W) or (H, W).
            labels: class index of each image.

        Raises:
            DataError: as in use.
        """
        settle_in_fork()
        results = list(images)
        groups: dict[tuple[torch.Size, torch.dtype], list[int]] = {}
        pixels = [_to_tensor(image) for image in images]
        for place, image in enumerate(pixels):
            groups.setdefault((image.shape, image.dtype), []).append(place)
        for places in groups.values():
            batch = torch.stack([pixels[place] for place in places])
            batch = batch.reshape(len(places), -1, *batch.shape[-2:])  # (H, W) is an image of one channel
            params = self.make_params([batch])
            own = None if labels is None else torch.as_tensor([labels[place] for place in places])
            params["labels"] = self.operation.check_labels(own, count=len(places))
            changed = self.transform(batch, params)
            for row in params["chosen"].nonzero().flatten().tolist():
                place = places[row]
                results[place] = _wrap(changed[row].reshape(pixels[place].shape), images[place])
        return results

    def _check_labels(self, sample: Any, found: Any, count: int) -> Tensor | None:
        classes = self.spec.num_classes
        if found is None and self._labels_getter is find_labels and classes:
            other = find_candidate(sample)
            if isinstance(other, (Tensor, np.ndarray)) and other.shape in ((count, classes), (classes,)):
                raise DataError(
                    "labels must be class indices, got one-hot or soft ones; put the transform before what makes them "
                    "so, such as MixUp, or pass labels_getter=None to do without"
                )
            if is_label(other) and not holds_boxes(sample):
                raise DataError(
                    f"labels must be class indices, got {shorten(other)}; pass labels_getter= with a function of a "
                    "sample that gives them, or labels_getter=None to do without"
                )
        try:
            return self.operation.check_labels(found, count=count)
        except DataError as problem:
            raise DataError(f"{problem}; pass labels_getter=None to do without") from None

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw which images change, and a seed for each, on which depends whatever the model draws for it."""
        if not flat_inputs:
            return {}
        count = _count(flat_inputs[0])
        return {"chosen": torch.rand(count, dtype=torch.float32) < self.p, "seeds": torch.randint(2**62, (count,))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Return the input with the chosen images changed; the same object where none is."""
        chosen = params["chosen"]
        if _count(inpt) != len(chosen):
            raise DataError(f"images of one sample must be equally many, got {len(chosen)} and {_count(inpt)}")
        pixels = _to_tensor(inpt)
        flat = pixels.reshape(len(chosen), *pixels.shape[-3:])
        if flat.dtype == torch.uint16:  # for which torch has few functions
            flat = to_float(flat)
        self.operation.check(flat)  # also where none changes: errors must not depend on chance
        if not chosen.any():
            return inpt
        everything = bool(chosen.all()) and not flat.requires_grad  # spares copies
        rows = chosen.nonzero().flatten().to(flat.device)
        picked = flat if everything else flat[rows]
        # Half-precision floats keep their values through float32.
        public = picked if picked.dtype == torch.uint8 else picked.float()
        labels = params.get("labels")
        changed = self.operation(public, None if labels is None else labels[chosen], params["seeds"][chosen])
        result = cast_like(changed, flat)
        if not everything:
            result = flat.clone().index_copy_(0, rows, result)
        elif flat.is_contiguous():  # so that a `view` of it works as one of the input
            result = result.contiguous()
        return _wrap(cast_like(result, pixels).reshape(pixels.shape), inpt)


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
        raise DataError(
            f"a PIL image must be of mode {', '.join(PIL_MODES)}, got mode {inpt.mode}; {explain_mode(inpt.mode)}"
        )
    if inpt.mode == "I;16":
        return torch.from_numpy(np.array(inpt))[None]
    return pil_to_tensor(inpt)  # type: ignore[no-any-return]


def _wrap(pixels: Tensor, like: Any) -> Any:
    """Return pixels as an image of the type of `like`."""
    if isinstance(like, PIL.Image.Image) and like.mode == "I;16":
        return PIL.Image.fromarray(pixels[0].numpy())
    if isinstance(like, PIL.Image.Image):
        return to_pil_image(pixels, mode=like.mode)
    return tv_tensors.wrap(pixels, like=like) if isinstance(like, tv_tensors.TVTensor) else pixels
