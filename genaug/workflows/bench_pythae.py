"""Training speed against pythae (Chadebec et al. 2022) with the same layers, batch and likelihood, in one run."""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genaug.data import LabeledImages
from genaug.errors import GenaugError
from genaug.models import VAE, VAEConfig
from genaug.models.layers import Upsample
from genaug.spec import DataSpec
from genaug.training import Recipe, TrainingConfig
from genaug.workflows.timing import per_step, time_training

STEPS = 10
BATCH = 128
CLASSES = ("all",)
CONFIG = VAEConfig(latent_dim=32, map_channels=0, width=32, likelihood_std=1.0)  # the likelihood of pythae's "mse"


def make_sides() -> dict[str, Callable[[], float]]:
    """Return functions that train anew for a few steps and give the seconds of one: genaug's (two ways), pythae's.

    pythae's `train_step` runs over an epoch of as many batches, with its own loader, loss and optimizer (AdamW); its
    encoder and decoder hold the layers of our model, as PyTorch's modules. Logs, checkpoints and the copy that pythae
    makes of its best model are left out of its time.

    Raises:
        GenaugError: pythae is not installed.
    """
    images = torch.randint(0, 256, (STEPS * BATCH, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    data = LabeledImages(
        images.to(torch.uint8),
        torch.zeros(len(images), dtype=torch.int64),
        DataSpec(channels=1, height=28, width=28, class_names=CLASSES),
    )
    return {
        "genaug": lambda: _time_genaug(data, "auto"),
        "genaug, float32": lambda: _time_genaug(data, "float32"),
        "pythae": _pythae_side(data),
    }


def _time_genaug(data: LabeledImages, precision: Any) -> float:
    config = TrainingConfig(
        steps=STEPS, batch_size=BATCH, precision=precision, save_every=10**6, sample_every=10**6, log_every=5
    )
    return time_training(Recipe(family="vae", model=CONFIG, training=config), data)


def _pythae_side(data: LabeledImages) -> Callable[[], float]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pythae.data.datasets import BaseDataset
            from pythae.models import VAE as RivalVAE
            from pythae.models import VAEConfig as RivalConfig
            from pythae.models.base.base_utils import ModelOutput
            from pythae.models.nn import BaseDecoder, BaseEncoder
            from pythae.trainers import BaseTrainer, BaseTrainerConfig
            from pythae.trainers.training_callbacks import CallbackHandler, TrainingCallback
    except ImportError as error:
        raise GenaugError(f"the training benchmark needs pythae ({error}); install genaug[bench]") from None
    logging.getLogger(BaseTrainer.__module__).setLevel(logging.ERROR)  # it sets a level of its own

    class Upsampling(nn.Module):
        """What `Upsample` computes, from PyTorch's own layers."""

        def __init__(self, ours: Upsample) -> None:
            super().__init__()
            self.conv = nn.Conv2d(ours.in_channels, ours.out_channels, 3, padding=1)
            self.shuffle = nn.PixelShuffle(2)
            self.size = ours.size

        def forward(self, x: Tensor) -> Tensor:
            image: Tensor = self.shuffle(self.conv(x))
            return image[..., : self.size[0], : self.size[1]]

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self, model: VAE) -> None:
            super().__init__()
            self.features, self.head = model.encoder, model.posterior_head

        def forward(self, x: Tensor) -> Any:
            mean, log_variance = self.head(_with_label(self.features(2 * x - 1)[1])).chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self, model: VAE) -> None:
            super().__init__()
            self.layers = model.decoder

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(self.layers(_with_label(z))))

    class Stopwatch(TrainingCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_train_step_end(self, training_config: Any, **rest: Any) -> None:
            self.times.append(time.perf_counter())

    def side() -> float:
        model = VAE(data.spec, CONFIG).to(memory_format=torch.contiguous_format)
        for stage in [module for module in model.decoder.modules() if isinstance(module, nn.Sequential)]:
            for name, layer in list(stage.named_children()):
                if isinstance(layer, Upsample):
                    setattr(stage, name, Upsampling(layer))
        rival = RivalVAE(
            RivalConfig(input_dim=(1, 28, 28), latent_dim=CONFIG.latent_dim, reconstruction_loss="mse"),
            encoder=Encoder(model),
            decoder=Decoder(model),
        )
        with tempfile.TemporaryDirectory() as folder:
            settings = BaseTrainerConfig(
                output_dir=folder, per_device_train_batch_size=BATCH, optimizer_cls="AdamW", no_cuda=True
            )
            trainer = BaseTrainer(rival, BaseDataset(data.images / 255, data.labels), training_config=settings)
            trainer.set_optimizer()
            stopwatch = Stopwatch()
            trainer.callback_handler = CallbackHandler([stopwatch], rival)
            trainer.train_step(epoch=1)
        return per_step(stopwatch.times)

    return side


def _with_label(codes: Tensor) -> Tensor:
    """Return codes (N, D) with the two columns of a label, as our layers expect them; pythae has no labels."""
    return F.pad(codes, (0, 1 + len(CLASSES)))
