"""What can be chosen of each family: the fields of its configuration, with their defaults and ranges."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from genaug.degradations import GaussianNoise, parse_degradations
from genaug.errors import GenaugError, check_choice, check_ranges, shorten
from genaug.models.adversarial import LossName
from genaug.models.diffaugment import POLICIES
from genaug.models.likelihood import SMALLEST_STD

Likelihood = Literal["bernoulli", "gaussian"]
Network = Literal["convolutional", "dense"]
Code = Literal["linear", "sigmoid"]
Loss = Literal["mse", "l1", "bce"]
Sparsity = Literal["none", "l1", "kl", "top-k"]

PENALTIES = {"hinge": 0.0, "non-saturating": 1.0, "wasserstein-gp": 10.0, "relativistic": 1.0}
STRONGEST = 55 / 255  # noise level that the default recipe goes up to, as DnCNN-B's (Zhang et al. 2017)


@dataclass(frozen=True)
class VAEConfig:
    """Fields of the `vae` family.

    Args:
        latent_dim: numbers of the first latent, a vector; 1 to 4096.
        map_channels: of the second latent, a map of at most 64 positions; 0 (there is none) to 64.
        width: channels at full size, doubled at each halving, up to four times; 1 to 4096.
        blocks: residual blocks at each size below the full one; 0 to 32.
        hidden: units of the dense layer before the posterior; 1 to 65536.
        likelihood: "gaussian" or "bernoulli".
        likelihood_std: of the Gaussian likelihood, on the [0, 1] scale, 0.0011321 (rounding to 8 bits) to 10;
            None: learned (Rybkin et al. 2021).
        beta: weight of the KL term (Higgins et al. 2017); 0 to 10000.
        free_bits: nats of each latent dimension that cost nothing (Kingma et al. 2016); 0 to 100.
        label_dropout: share of labels that the null class replaces in training, 0 to 1; with 0 the model is of no use
            without labels.
        density_components: Gaussians a class in the density of latents; 1 to 256.
        density_shrinkage: weight of the pooled covariance, in images; 0 to 1e9.

    Raises:
        GenaugError: a field out of its range.

    >>> VAEConfig(latent_dim=16).map_channels
    2
    """

    latent_dim: int = 32
    map_channels: int = 2
    width: int = 32
    blocks: int = 1
    hidden: int = 256
    likelihood: Likelihood = "gaussian"
    likelihood_std: float | None = None
    beta: float = 1.0
    free_bits: float = 0.0
    label_dropout: float = 0.1
    density_components: int = 4
    density_shrinkage: float = 20.0

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "latent_dim": (1, 4096),
            "map_channels": (0, 64),
            "width": (1, 4096),
            "blocks": (0, 32),
            "hidden": (1, 65536),
            "likelihood_std": (SMALLEST_STD, 10.0),
            "beta": (0.0, 1e4),
            "free_bits": (0.0, 100.0),
            "label_dropout": (0.0, 1.0),
            "density_components": (1, 256),
            "density_shrinkage": (0.0, 1e9),
        }
        check_ranges(self, limits, optional=("likelihood_std",))
        check_choice(self.likelihood, get_args(Likelihood), name="likelihood")


@dataclass(frozen=True)
class GANConfig:
    """Fields of the `gan` family.

    Args:
        latent_dim: numbers of the latent; 1 to 4096.
        style_dim: numbers that class and latent become, which modulate every block; 1 to 4096.
        width: channels of the generator at full size, doubled at each halving, up to four times; 1 to 1024.
        discriminator_width: the same of the discriminator; 1 to 1024.
        blocks: residual blocks at each size below the full one; 0 to 16.
        loss: "hinge", "non-saturating", "wasserstein-gp" or "relativistic".
        penalty: weight of the loss's gradient penalty, 0 to 10000; None: 0 with hinge, 1 (R1) with non-saturating, 10
            with wasserstein-gp, 1 (R1 + R2) with relativistic.
        spectral_norm: of the discriminator's layers (Miyato et al. 2018).
        minibatch_std: images of one class whose deviation the discriminator sees; 0 (none) or 2 to 64.
        contrast: what standardized images are multiplied by before the discriminator; 0.01 to 100.
        augment: policies of DiffAugment (Zhao et al. 2020), of "color", "translation" and "cutout".
        discriminator_rate: the discriminator's learning rate, times `training.learning_rate`; 0.001 to 1000.
        discriminator_steps: at the start, in which the generator stays as it is; 0 to 1e9.
        decoder: a VAE's that generates, whatever `latent_dim`, `style_dim` and `width` say; see `GAN.start_from`.

    Raises:
        GenaugError: a field out of its range, or fields that contradict each other.

    >>> GANConfig(loss="non-saturating").penalty_weight
    1.0
    """

    latent_dim: int = 64
    style_dim: int = 128
    width: int = 16
    discriminator_width: int = 16
    blocks: int = 1
    loss: LossName = "hinge"
    penalty: float | None = None
    spectral_norm: bool = True
    minibatch_std: int = 8
    contrast: float = 3.0
    augment: tuple[str, ...] = ("translation",)
    discriminator_rate: float = 5.0
    discriminator_steps: int = 0
    decoder: VAEConfig | None = None

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "latent_dim": (1, 4096),
            "style_dim": (1, 4096),
            "width": (1, 1024),
            "discriminator_width": (1, 1024),
            "blocks": (0, 16),
            "penalty": (0.0, 1e4),
            "minibatch_std": (0, 64),
            "contrast": (1e-2, 1e2),
            "discriminator_rate": (1e-3, 1e3),
            "discriminator_steps": (0, 10**9),
        }
        check_ranges(self, limits, optional=("penalty",))
        if not isinstance(self.spectral_norm, bool):
            raise GenaugError(f"spectral_norm must be true or false, got {shorten(self.spectral_norm)}")
        if self.decoder is not None and not isinstance(self.decoder, VAEConfig):
            raise GenaugError(f"decoder must be a VAEConfig or None, got {shorten(self.decoder)}")
        check_choice(self.loss, PENALTIES, name="loss")
        if not isinstance(self.augment, list | tuple):
            raise GenaugError(f"augment must be a list of {', '.join(POLICIES)}, got {shorten(self.augment)}")
        object.__setattr__(self, "augment", tuple(self.augment))  # of a list too
        unknown = [policy for policy in self.augment if policy not in POLICIES]
        if unknown or len(set(self.augment)) < len(self.augment):
            raise GenaugError(f"augment must be of {', '.join(POLICIES)}, each once, got {shorten(list(self.augment))}")
        if self.minibatch_std == 1:
            raise GenaugError("minibatch_std must be 0 or at least 2, got 1: one image has no deviation")
        if self.loss in ("wasserstein-gp", "relativistic") and not self.penalty_weight and not self.spectral_norm:
            raise GenaugError(
                f"loss {self.loss} needs a discriminator that is kept smooth, got penalty 0 and no spectral_norm; "
                "leave penalty out"
            )

    @property
    def penalty_weight(self) -> float:
        """Weight of the gradient penalty."""
        return PENALTIES[self.loss] if self.penalty is None else self.penalty

    @property
    def batch_group(self) -> int:
        """How many neighbors in a batch must be of one class."""
        return max(1, self.minibatch_std)


@dataclass(frozen=True)
class DenoiserConfig:
    """Fields of the `denoiser` family.

    Args:
        width: channels at half the size, doubled at each further halving; 1 to 1024.
        levels: sizes that the network works at, from half the size on; 1 to 6.
        blocks: residual blocks on the way down, on the way up and at the smallest size; 1 to 16.
        loss: "l1" or "mse"; None: mse of pairs, else l1. That of neighbor2neighbor is squared.
        supervision: "clean": degraded images are to become the clean ones that they are made of; "neighbor2neighbor":
            the images are noisy themselves (Huang et al. 2021); "pairs": the first image is to become the second.
        consistency: weight of the second term of Neighbor2Neighbor; 0 to 1000.
        crop: side of the squares that are cut out of the images in training; 4 to 4096.
        degradations: of `genaug.degradations`, in this order; None: Gaussian noise up to 55/255 where images are clean.

    Raises:
        GenaugError: a field out of its range, or fields that contradict each other.

    >>> DenoiserConfig(supervision="neighbor2neighbor").degradations
    ()
    """

    width: int = 32
    levels: int = 3
    blocks: int = 2
    loss: Literal["l1", "mse"] | None = None
    supervision: Literal["clean", "neighbor2neighbor", "pairs"] = "clean"
    consistency: float = 2.0
    crop: int = 64
    degradations: tuple[Any, ...] | None = None

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "width": (1, 1024),
            "levels": (1, 6),
            "blocks": (1, 16),
            "consistency": (0.0, 1e3),
            "crop": (4, 4096),
        }
        check_ranges(self, limits)
        if self.loss is None:
            object.__setattr__(self, "loss", "mse" if self.supervision == "pairs" else "l1")
        check_choice(self.loss, ("l1", "mse"), name="loss")
        check_choice(self.supervision, ("clean", "neighbor2neighbor", "pairs"), name="supervision")
        given: Any = self.degradations
        if given is None:
            given = (GaussianNoise(noise_level=(0.0, STRONGEST)),) if self.supervision == "clean" else ()
        object.__setattr__(self, "degradations", parse_degradations(given, where="degradations"))
        if self.supervision == "clean" and not self.degradations:
            raise GenaugError(
                "degradations must name what the clean images are to be restored from, got none; for images that are "
                "noisy themselves choose supervision: neighbor2neighbor, for pairs of images supervision: pairs"
            )
        if self.supervision == "pairs" and self.degradations:
            raise GenaugError(
                "degradations must be left out with supervision: pairs, whose first images are what is to be restored, "
                f"got {shorten([step.kind for step in self.degradations])}"
            )


@dataclass(frozen=True)
class AutoencoderConfig:
    """Fields of the `autoencoder` family.

    Args:
        network: "convolutional" or "dense".
        latent_dim: numbers of the code; 1 to 4096.
        width: convolutional: channels at full size, doubled at each halving, up to four times; 1 to 4096.
        blocks: convolutional: residual blocks at each size below the full one; 0 to 32.
        hidden: dense: units, 1 to 65536, of each of at most 16 layers between image and code, and back.
        code: "linear" or "sigmoid".
        loss: "mse", "l1" or "bce".
        sparsity: of the code: "none", "l1", "kl" (of a sigmoid code) or "top-k"; see `Autoencoder`.
        sparsity_weight: of l1 and kl; 0 to 10000.
        sparsity_target: kl: mean activation of each unit; top-k: share of the units that stay; 0.0001 to 0.9999.
        contraction_weight: of the squared norm of the encoder's Jacobian; 0 to 10000.
        degradations: of `genaug.degradations`, of the images that are encoded in training, in this order.
        density_components: Gaussians a class in the density of codes; 1 to 256.
        density_shrinkage: weight of the pooled covariance, in images; 0 to 1e9.

    Raises:
        GenaugError: a field out of its range, or fields that contradict each other.

    >>> AutoencoderConfig(code="sigmoid", sparsity="kl").sparsity_target
    0.05
    """

    network: Network = "convolutional"
    latent_dim: int = 32
    width: int = 16
    blocks: int = 1
    hidden: tuple[int, ...] = (256,)
    code: Code = "linear"
    loss: Loss = "mse"
    sparsity: Sparsity = "none"
    sparsity_weight: float = 1e-3
    sparsity_target: float = 0.05
    contraction_weight: float = 0.0
    degradations: tuple[Any, ...] = ()
    density_components: int = 4
    density_shrinkage: float = 20.0

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "latent_dim": (1, 4096),
            "width": (1, 4096),
            "blocks": (0, 32),
            "sparsity_weight": (0.0, 1e4),
            "sparsity_target": (1e-4, 1 - 1e-4),
            "contraction_weight": (0.0, 1e4),
            "density_components": (1, 256),
            "density_shrinkage": (0.0, 1e9),
        }
        check_ranges(self, limits)
        for name, kind in {"network": Network, "code": Code, "loss": Loss, "sparsity": Sparsity}.items():
            check_choice(getattr(self, name), get_args(kind), name=name)
        if not isinstance(self.hidden, list | tuple):
            raise GenaugError(f"hidden must be a list of integers, got {shorten(self.hidden)}")
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if len(self.hidden) > 16 or any(type(units) is not int or not 1 <= units <= 65536 for units in self.hidden):
            raise GenaugError(f"hidden must be at most 16 integers from 1 to 65536, got {shorten(list(self.hidden))}")
        if self.sparsity == "kl" and self.code != "sigmoid":
            raise GenaugError('code must be "sigmoid" with sparsity "kl", which is about activations from 0 to 1')
        object.__setattr__(self, "degradations", parse_degradations(self.degradations, where="degradations"))
