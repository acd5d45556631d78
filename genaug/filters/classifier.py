"""Filters that see images as a classifier of the real ones does: its verdict, its prototypes, its nearest neighbors."""

import torch
from torch import Tensor

from genaug.data import LabeledImages
from genaug.errors import DataError, GenaugError, check_number
from genaug.features import ClassifierFeatures
from genaug.filters.base import CHUNK, SampleFilter, class_quantiles
from genaug.filters.copies import QUANTILE, NearCopies
from genaug.models.running import inference, split_batches


class ClassifierAgreement(SampleFilter):
    """Keeps samples that a classifier of the real images takes for the class that they were made as.

    The probability of that class must exceed those of all others by `margin`. A margin below 0 rejects only samples
    that the classifier finds clearly in another class: with -0.9 those where that class leads by more than 0.9.

    Args:
        features: classifier, see `genaug.features.fit_features`.
        margin: least difference of probabilities, from -1 to 1.

    Raises:
        GenaugError: a margin out of range.

    >>> from genaug.data import load_data
    >>> from genaug.features import fit_features
    >>> train = load_data("digits")
    >>> agreement = ClassifierAgreement(fit_features(train, seed=0, steps=2, device="cpu"), margin=0.1)
    >>> agreement(train.images[:5], train.labels[:5]).dtype
    torch.bool
    """

    def __init__(self, features: ClassifierFeatures, *, margin: float = 0.0) -> None:
        super().__init__(features.spec)
        self.features = features
        self.margin = check_number(margin, name="margin", low=-1, high=1)

    def judge(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return which images the classifier agrees on: bool (n,)."""
        net = self.features.net
        with inference(net):
            shares = net(images.to(net.head.weight.device)).cpu().double().softmax(1)
        own = shares.gather(1, labels[:, None])[:, 0]
        others = shares.scatter(1, labels[:, None], -1.0).amax(1)
        return torch.ge(own - others, self.margin)


class PrototypeBand(SampleFilter):
    """Keeps samples whose distance to the prototype of their class is that of real images: not far, and not too near.

    The prototype is the mean feature of a class's real images. Bounds are quantiles of the distances of these images,
    each to the mean of the others, so that a class that varies more gets a wider band. Bounds of a class with few
    images are drawn towards those of all images together: with n images they are
    (n * own + shrinkage * common) / (n + shrinkage).

    Args:
        features: classifier whose features are compared, see `genaug.features.fit_features`.
        data: real images. Those that the classifier learned from lie closer together than others.
        lower: quantile below which a sample is too near, from 0 to `upper`.
        upper: quantile above which it is too far, up to 1.
        shrinkage: number of images of a class that weigh as much as all images together; at least 0.

    Attributes `prototypes` (num_classes, F), `low` and `high` (num_classes,) hold what was fitted.

    Raises:
        DataError: data of other images or classes than the features', or without two images of one class; later,
            samples of a class that `data` has no images of.
        GenaugError: quantiles or a shrinkage out of range.

    >>> from genaug.data import load_data
    >>> from genaug.features import fit_features
    >>> train = load_data("digits")
    >>> band = PrototypeBand(fit_features(train, seed=0, steps=2, device="cpu"), train, lower=0.1, upper=0.9)
    >>> 0.7 < band(train.images, train.labels).double().mean() < 0.9
    tensor(True)
    """

    def __init__(
        self,
        features: ClassifierFeatures,
        data: LabeledImages,
        *,
        lower: float = 0.05,
        upper: float = 0.95,
        shrinkage: float = 10.0,
    ) -> None:
        super().__init__(features.spec)
        self.features = features
        features.check_data(data, name="data")
        quantiles = check_number(lower, name="lower", low=0, high=1), check_number(upper, name="upper", low=0, high=1)
        if not lower < upper:
            raise GenaugError(f"lower must be below upper, got {lower} and {upper}")
        shrinkage = check_number(shrinkage, name="shrinkage", low=0)
        counts = torch.tensor(data.counts)
        if int(counts.max()) < 2:
            raise DataError(f"data must hold at least two images of one class, got at most {int(counts.max())}")
        found, labels = features.extract(data.images), data.labels.cpu()
        sums = torch.zeros(len(counts), found.shape[1], dtype=torch.float64)
        for part, own in split_batches(CHUNK, found, labels):
            sums.index_add_(0, own, part.double())
        self.prototypes = (sums / counts.clamp(min=1)[:, None]).float()
        self._known = counts > 0
        distances = torch.cat([self._measure(*pair) for pair in split_batches(CHUNK, found, labels)])
        several, number = counts[labels] >= 2, counts[labels]
        distances *= number / (number - 1)  # now to the mean of the others
        self.low, self.high = class_quantiles(
            distances[several], labels[several], num_classes=len(counts), quantiles=quantiles, shrinkage=shrinkage
        )

    def _measure(self, found: Tensor, labels: Tensor) -> Tensor:
        distances: Tensor = torch.linalg.vector_norm(found - self.prototypes[labels], dim=1, dtype=torch.float64)
        return distances

    def judge(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return which images lie in the band of their class: bool (n,)."""
        distances = self._measure(self.features.extract(images), labels)
        inside: Tensor = (self.low[labels] <= distances) & (distances <= self.high[labels])
        return inside


class NotACopy(SampleFilter):
    """Keeps samples that are not nearly the same as a training image, of whatever class.

    A sample is a copy where its distance to the nearest real image, in the features of a classifier, is at most the
    radius of that image's class: a low quantile of the distances from this class's real images to the nearest other
    real image. About that share of new real images would be rejected too. An image of `data` itself always is.

    Args:
        features: classifier whose features are compared, see `genaug.features.fit_features`.
        data: the images that the generator learned from.
        quantile: of the distances between real images, from 0 to 1.
        shrinkage: as in `PrototypeBand`.

    Attribute `radius` (num_classes,) holds what was fitted. Features of all of `data` stay in memory, (N, F) float32,
    on the GPU where the classifier is on one.

    Raises:
        DataError: data of other images or classes than the features', or fewer than two images.
        GenaugError: a quantile or shrinkage out of range.

    >>> from genaug.data import load_data
    >>> from genaug.features import fit_features
    >>> train = load_data("digits", split="test")
    >>> copies = NotACopy(fit_features(train, seed=0, steps=2, device="cpu"), train)
    >>> bool(copies(train.images, train.labels).any())
    False
    """

    def __init__(
        self, features: ClassifierFeatures, data: LabeledImages, *, quantile: float = QUANTILE, shrinkage: float = 10.0
    ) -> None:
        super().__init__(features.spec)
        self.features = features
        features.check_data(data, name="data")
        if len(data) < 2:
            raise DataError(f"data must hold at least two images to compare, got {len(data)}")
        quantile = check_number(quantile, name="quantile", low=0, high=1)
        shrinkage = check_number(shrinkage, name="shrinkage", low=0)
        device = features.net.head.weight.device
        self._stored = NearCopies(
            features.extract(data.images).to(device),
            data.labels,
            num_classes=self.spec.num_classes,
            device=device,
            quantile=quantile,
            shrinkage=shrinkage,
        )
        self.radius = self._stored.radius

    def judge(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return which images are farther from all stored ones than the radius: bool (n,)."""
        return torch.gt(self._stored.measure(self.features.extract(images))[2], 1)
