"""Features to compare images in: those of a classifier that is trained on the real training images."""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genaug.data import LabeledImages
from genaug.devices import choose_device
from genaug.errors import DataError, check_count, shorten
from genaug.metrics import score_predictions
from genaug.models import SmallCNN
from genaug.models.running import inference, split_batches
from genaug.progress import progress_bar
from genaug.seeding import derive_seed, make_generator, own_randomness
from genaug.spec import DataSpec

STEPS, BATCH_SIZE, LEARNING_RATE = 1000, 64, 2e-3


@dataclass(frozen=True, eq=False)
class ClassifierFeatures:
    """A trained classifier as an extractor of features; made by `fit_features`.

    Args:
        net: the classifier.
        spec: what its images and classes are.
        settings: how it was trained.
    """

    net: SmallCNN
    spec: DataSpec
    settings: dict[str, Any] = field(default_factory=dict)

    name = "classifier"

    @property
    def num_features(self) -> int:
        """Width F of the features."""
        return self.net.head.in_features

    def check_data(self, data: LabeledImages, *, name: str) -> None:
        """Raise a `DataError`, which calls the data `name`, unless they are of the images and classes of `spec`."""
        if self.spec != data.spec:
            raise DataError(f"features must be of the images in {name}, got {self.spec} and {data.spec}; fit them anew")

    def extract(self, images: Tensor, *, batch_size: int = 512) -> Tensor:
        """Return the features (N, F) of public images (N, C, H, W), float32 on the CPU: the input of the last layer.

        Raises:
            DataError: images of another kind than those it was trained on.
        """
        self.spec.check_images(images)
        device = next(self.net.parameters()).device
        with inference(self.net):
            return torch.cat([self.net.pool(chunk.to(device)).cpu() for (chunk,) in split_batches(batch_size, images)])

    def classify(self, features: Tensor) -> Tensor:
        """Return the class indices (N,) that the classifier takes images with these features (N, F) for."""
        with inference(self.net):
            predictions: Tensor = self.net.head(features.to(self.net.head.weight.device)).argmax(1).cpu()
        return predictions

    def score(self, data: LabeledImages) -> dict[str, Any]:
        """Return how well the classifier knows the classes of `data`; see `genaug.metrics.score_predictions`.

        Raises:
            DataError: images of another kind, or none.
        """
        if not len(data):
            raise DataError("data must hold at least one image, got none")
        predictions = self.classify(self.extract(data.images))
        return score_predictions(data.labels, predictions, num_classes=self.spec.num_classes)


def fit_features(
    train: LabeledImages,
    *,
    seed: int,
    rows: Tensor | None = None,
    steps: int = STEPS,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> ClassifierFeatures:
    """Train the small classifier on real images, and return it as an extractor of features.

    The budget is fixed, so that figures of different generators compare: `steps` batches of 64 images, every class
    drawn equally often, AdamW (weight decay 0.01) with a learning rate that falls from 2e-3 to 0 by half a cosine. Each
    image is moved by up to an eighth of its shorter side, without which the classifier learns its images by heart, and
    training images look farther from held-out ones than new real images do. All draws depend on `seed` and `train`
    alone.

    Args:
        train: real training images; held-out ones must not be among them.
        seed: of weights and batches.
        rows: int64 (M,), which of the images to use; all of them without it.
        steps: number of training steps.
        device: where to train, and where the classifier stays; a GPU if there is one, else the CPU.
        progress: show a progress bar.

    Raises:
        DataError: no images, or fewer than two classes.
        GenaugError: a number of steps below 1, a seed that is no integer, a device that is not there.

    >>> from genaug.data import load_data
    >>> features = fit_features(load_data("digits"), seed=0, steps=2, device="cpu")
    >>> features.extract(load_data("digits", split="test").images).shape
    torch.Size([599, 64])
    """
    steps = check_count(steps, name="steps")
    rows = torch.arange(len(train)) if rows is None else rows
    chosen = train.labels[rows]
    counts = torch.bincount(chosen, minlength=train.spec.num_classes)
    if int((counts > 0).sum()) < 2:
        raise DataError(
            f"train must hold images of at least two classes to learn features from, got {shorten(counts.tolist())}"
        )
    where = choose_device(device)
    with own_randomness(derive_seed(seed, "features"), where):
        net = SmallCNN(train.spec).to(where).train()
    weights = (1 / counts.double())[chosen]
    generator = make_generator(seed, "features batches")
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with progress_bar("classifier", total=steps, enabled=progress) as update:
        for _ in range(steps):
            drawn = rows[torch.multinomial(weights, BATCH_SIZE, replacement=True, generator=generator)]
            images, labels = _shift(train.images[drawn], generator), train.labels[drawn]
            loss = F.cross_entropy(net(images.to(where)), labels.to(where))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            update()
    settings = {"network": "SmallCNN", "images": len(rows), "steps": steps, "batch_size": BATCH_SIZE, "seed": seed}
    return ClassifierFeatures(net.eval(), train.spec, settings)


def _shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images (N, C, H, W) moved at random by up to an eighth of the shorter side; edges are repeated."""
    count, _, height, width = images.shape
    reach = max(1, min(height, width) // 8)
    moves = torch.randint(-reach, reach + 1, (2, count, 1), generator=generator)
    rows = (torch.arange(height) + moves[0]).clamp_(0, height - 1)
    columns = (torch.arange(width) + moves[1]).clamp_(0, width - 1)
    first = torch.arange(count)[:, None, None]
    return images[first, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()
