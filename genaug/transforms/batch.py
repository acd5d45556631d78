"""Transforms of whole batches with their labels, after the loader or in its `collate_fn`, as MixUp is used."""

from abc import abstractmethod
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from genaug.bank.replacing import Classes, Replacement
from genaug.devices import check_process, settle_in_fork
from genaug.errors import DataError, GenaugError, check_share, shorten
from genaug.images import cast_like
from genaug.models import Model
from genaug.samples import Batch, LabelsGetter, choose_labels_getter, find_batch_labels
from genaug.transforms.operations import Channels, FittedModel


class BatchTransform(v2.Transform):  # type: ignore[misc]
    """Changes images (N, C, H, W) and labels of a batch: (images, labels), or a dict with "label" or "labels".

    Labels are class indices (N,) in the order of the class names of model or bank, or one-hot or soft (N, num_classes);
    they are found where `genaug.samples.find_labels` looks. All else in the batch passes through, and the
    batch itself is not changed. Random numbers come from torch's global generator, in `make_params`.

    Args:
        labels_getter: "default" as above, or a function of the batch that returns the tensor of labels.

    Raises:
        GenaugError: another `labels_getter`.
    """

    def __init__(self, *, labels_getter: LabelsGetter = "default") -> None:
        super().__init__()
        self._labels_getter = choose_labels_getter(labels_getter, default=find_batch_labels)

    def forward(self, *inputs: Any) -> Any:
        """Change a batch, given as one object or as images and labels."""
        settle_in_fork()
        batch = Batch(inputs if len(inputs) > 1 else inputs[0], self._labels_getter)
        params = self.make_params([batch.images, batch.labels])
        return batch.join(*self.change(batch.images, batch.labels, params))

    @abstractmethod
    def change(self, images: Tensor, labels: Tensor, params: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the new images and labels; the same objects where nothing changes."""


class ReplaceWithSynthetic(BatchTransform):
    """Replaces a share of a batch by synthetic samples: of the same labels, or of classes that are scarce.

    Args:
        source: a bank, or a model, on any device; in a worker of a loader a model must be on the CPU.
        fraction: share of the rows that are replaced, on average where it is no whole number of them. Without
            `classes` it is the share of the rows whose class the source has samples of.
        classes: None keeps the labels, also soft ones. Names or indices of classes (equally, or in a dict by weight)
            replace rows of any class by samples of these, and the labels too.
        transform: called with the samples, uint8 (n, C, H, W) on the batch's device, to make of them what the loader
            makes of real images; needed where these are normalized or of another size. Gray samples have three channels
            where the batch is in color. A random transform of torchvision draws once for all of them.
        labels_getter: where the labels are, see `BatchTransform`.

    Raises:
        GenaugError: a `fraction` outside [0, 1].
        DataError: a source without classes, or unusable `classes`; in use, labels that it does not know, and samples
            that are not as the rows of the batch are.

    >>> import genaug
    >>> from genaug.data import load_data
    >>> digits = load_data("digits")
    >>> replace = ReplaceWithSynthetic(genaug.load("digits-vae"), 0.5)
    >>> images, labels = replace(digits.images[:8], digits.labels[:8])
    >>> int((images != digits.images[:8]).flatten(1).any(1).sum()), labels is digits.labels
    (4, False)
    """

    def __init__(
        self,
        source: Any,
        fraction: float,
        *,
        classes: Classes = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        labels_getter: LabelsGetter = "default",
    ) -> None:
        super().__init__(labels_getter=labels_getter)
        self._replacement = Replacement(source, fraction, classes=classes, transform=transform)
        self.fraction = self._replacement.fraction
        self.source = shorten(getattr(source, "family", type(source).__name__))

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw which rows are replaced, by which classes, and a seed for the samples."""
        return {"plan": self._replacement.plan(flat_inputs[1])}

    def change(self, images: Tensor, labels: Tensor, params: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the batch with samples in the rows of the plan."""
        plan, device = params["plan"], getattr(self._replacement.source, "device", None)
        if isinstance(device, torch.device):
            check_process(device)
        if not len(plan.rows):
            return images, labels
        return self._replacement.place(images, labels, plan, self._replacement.draw(plan))


class LatentMix(BatchTransform):
    """Mixes images with others of their batch in the latents of a model, and decodes: within a class, or across.

    z = l z_1 + (1 - l) z_2 with l from Beta(alpha, alpha) for each image: MixUp (Zhang et al. 2018, eq. 1) of latents
    instead of pixels. Within a class it is the interpolation of DeepSMOTE (Dablain et al. 2022) with any other image of
    the class rather than a near one, and labels stay. Across classes the model runs with the null class ("no label"),
    and labels become soft, l y_1 + (1 - l) y_2, for the whole batch.

    Args:
        model: a model with `encode` and `decode`, or what `genaug.load` takes.
        alpha: of the Beta distribution; 1 is uniform, below it most mixtures are close to one of the two.
        p: probability of changing an image, for each image on its own. One alone in its class stays as it is.
        across: mix with any image of the batch, and return soft labels (N, num_classes).
        labels_getter: where the labels are, see `BatchTransform`.
        resize: take images of any size, see `ModelTransform`.
        channels: "convert" takes gray, RGB and RGBA images, see `ModelTransform`.

    Raises:
        GenaugError: `p` outside [0, 1], an `alpha` that is not above 0, a model that cannot encode and decode.
        DataError: in use, images or labels that do not fit; soft labels without `across`.

    >>> from genaug.data import load_data
    >>> digits = load_data("digits")
    >>> images, labels = LatentMix("digits-vae", p=1.0, across=True)(digits.images[:8], digits.labels[:8])
    >>> images.shape, images.dtype, labels.shape
    (torch.Size([8, 1, 8, 8]), torch.uint8, torch.Size([8, 10]))
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        alpha: float = 1.0,
        p: float = 0.5,
        across: bool = False,
        labels_getter: LabelsGetter = "default",
        resize: bool = False,
        channels: Channels = "match",
    ) -> None:
        super().__init__(labels_getter=labels_getter)
        check_share(p, name="p")
        given: Any = alpha
        if isinstance(given, bool) or not isinstance(given, Real) or not 0.0 < alpha < float("inf"):
            raise GenaugError(f"alpha must be a number above 0, got {shorten(alpha)}")
        self._fitted = FittedModel(model, method="encode", resize=resize, channels=channels)
        self._fitted.reference.check("decode")
        if across and not self._fitted.spec.num_classes:
            raise GenaugError("across needs a model with classes, got one without; leave it out")
        self.alpha, self.p, self.across = float(alpha), p, across
        self.name = self._fitted.reference.name

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw which rows change, a partner for each (itself where it has none), and the shares of the mixture."""
        _, labels = flat_inputs
        count = len(labels)
        chosen, order = torch.rand(count, dtype=torch.float32) < self.p, torch.randperm(count)
        shares = torch.distributions.Beta(self.alpha, self.alpha).sample((count,))
        if self.across:
            return {"chosen": chosen & (order != torch.arange(count)), "partners": order, "shares": shares}
        if labels.ndim != 1:
            raise DataError("labels must be class indices (N,) to mix within a class, got soft ones; pass across=True")
        if self._fitted.spec.num_classes:
            self._fitted.spec.check_labels(labels.to("cpu", torch.int64))
        classes = labels.cpu()
        partners = torch.arange(count)
        for label in classes.unique().tolist():  # each row's partner is the next of its class, in random order
            rows = order[classes[order] == label]
            partners[rows] = rows.roll(1)
        return {"chosen": chosen & (partners != torch.arange(count)), "partners": partners, "shares": shares}

    def change(self, images: Tensor, labels: Tensor, params: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the batch with mixtures in the chosen rows."""
        rows = params["chosen"].nonzero().flatten()
        partners, shares = params["partners"][rows], params["shares"][rows]
        plain = images.as_subclass(Tensor)
        self._fitted.check(plain)
        new_labels = self._mix_labels(labels, rows, partners, shares) if self.across else labels
        if not len(rows):
            return images, new_labels
        model = self._fitted.reference.get()
        needed, places = torch.cat([rows, partners]).unique(return_inverse=True)
        originals = plain[needed.to(images.device)]
        public = originals if originals.dtype == torch.uint8 else originals.float()
        conditions = None if self.across or not self._fitted.spec.num_classes else labels.to("cpu", torch.int64)
        latents = model.encode(self._fitted.fit(public), None if conditions is None else conditions[needed])
        first, second = latents[places.to(latents.device)].chunk(2)
        share = shares.to(latents).unsqueeze(1)
        mixed = model.decode(share * first + (1 - share) * second, None if conditions is None else conditions[rows])
        own = public[places[: len(rows)].to(images.device)]
        result = plain.clone()
        result[rows.to(images.device)] = cast_like(self._fitted.restore(mixed, own), images)
        return result.as_subclass(type(images)), new_labels

    def _mix_labels(self, labels: Tensor, rows: Tensor, partners: Tensor, shares: Tensor) -> Tensor:
        classes = self._fitted.spec.num_classes
        if labels.ndim == 1:
            self._fitted.spec.check_labels(labels.to("cpu", torch.int64))
            labels = torch.nn.functional.one_hot(labels.long(), classes)
        elif labels.shape[1] != classes:
            raise DataError(f"labels must have {classes} columns, as the model has classes, got {labels.shape[1]}")
        soft = labels.clone() if labels.is_floating_point() else labels.float()
        rows, partners, share = rows.to(soft.device), partners.to(soft.device), shares.to(soft).unsqueeze(1)
        soft[rows] = share * soft[rows] + (1 - share) * soft[partners]
        return soft
