"""What an audit of memorization found: near copies of each class, the verdict on them, and both in words."""

from dataclasses import asdict, dataclass, field, fields
from functools import partial
from math import inf
from typing import Any, Literal

from torch import Tensor

from genaug.errors import check_share
from genaug.evaluate.figures import show

ALLOWED = 0.01
MOST_NAMED = 12  # classes in a sentence

Verdict = Literal["more", "at most", "open"]


@dataclass(frozen=True)
class CopyFigures:
    """Distances to the nearest training image, in one space, of the samples of a class or of all.

    Figures of all classes are means over them with the shares of the samples as weights, so that held-out images of
    other shares compare; a figure is None where there are too few images for it.

    Args:
        radius: distance up to which an image is a near copy of a training image of this class; None for all.
        near_copies: share of the samples that are near copies of any training image, 0 to 1.
        held_out_near_copies: the same of the held-out images, which a perfect generator would have too.
        excess: the first less the second; for a class without held-out images, less that of all of them.
        excess_low, excess_high: its interval of 95 %, see `genaug.metrics.proportions.excess_interval`.
        distance_ratio: median distance of the samples, over that of training images to the nearest other one.
        held_out_distance_ratio: the same of the held-out images.
        statistic: C_T (Meehan et al. 2020), within classes, of all weighted by their held-out images; far below 0 where
            samples are copied.
        worst_cell: the lowest z-score among its cells.
    """

    radius: float | None
    near_copies: float
    held_out_near_copies: float | None
    excess: float
    excess_low: float
    excess_high: float
    distance_ratio: float | None
    held_out_distance_ratio: float | None
    statistic: float | None
    worst_cell: float | None

    def verdict(self, share: float = ALLOWED) -> Verdict:
        """Return whether the excess is "more" than `share`, "at most" that, or "open" where its interval holds both.

        >>> figures = CopyFigures(0.1, 0.03, 0.01, 0.02, 0.002, 0.04, 1.0, 1.0, -1.0, -1.5)
        >>> figures.verdict(0.001), figures.verdict(0.01), figures.verdict(0.05)
        ('more', 'open', 'at most')
        """
        if self.excess_low > share:
            return "more"
        return "at most" if self.excess_high <= share else "open"


@dataclass(frozen=True)
class ClassCopies:
    """What was found of one class, or of all.

    Args:
        name: the class.
        training, held_out, samples: numbers of its images.
        duplicates: how many of its samples equal a training image in every pixel.
        figures: by the name of the space: that of the features, and "pixels".
    """

    name: str
    training: int
    held_out: int
    samples: int
    duplicates: int
    figures: dict[str, CopyFigures]

    def verdict(self, share: float = ALLOWED) -> Verdict:
        """Return "more" where one space says so, "at most" where all do, else "open"."""
        found = [figures.verdict(share) for figures in self.figures.values()]
        if "more" in found:
            return "more"
        return "open" if "open" in found else "at most"


@dataclass(frozen=True, eq=False)
class CopyPair:
    """An image and the training image nearest to it, both uint8 (C, H, W).

    Args:
        space: what they are near in.
        held_out: whether the image is a held-out one, and no sample.
        name: class of the image.
        number: of the image: row of the bank or of the held-out data, or how many samples were drawn before it.
        row: of the training image.
        distance: between both.
        relative: the same over the radius of the training image's class; at most 1 for near copies.
    """

    space: str
    held_out: bool
    name: str
    number: int
    row: int
    distance: float
    relative: float
    image: Tensor = field(repr=False)
    training_image: Tensor = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return all but the images as plain values; an infinite `relative`, of a radius of 0, as None."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if not each.name.endswith("image")}
        return {**values, "relative": self.relative if self.relative < inf else None}


@dataclass(frozen=True, eq=False)
class CopyAudit:
    """What `audit_copies` found.

    Args:
        source: family of the model, or kind of the source.
        seed: of samples, classifier and cells.
        quantile: of distances among training images, that radii are.
        images: how many of each kind there were; "training_compared" and "held_out_compared" are those whose own
            distance to the nearest (other) training image was taken.
        features: what distances were taken in beside pixels.
        overall: figures of all classes.
        classes: of each class that has samples.
        pairs: the nearest of samples and of held-out images in each space, nearest first.
    """

    source: str
    seed: int
    quantile: float
    images: dict[str, int]
    features: dict[str, Any]
    overall: ClassCopies
    classes: tuple[ClassCopies, ...]
    pairs: tuple[CopyPair, ...]

    @property
    def spaces(self) -> list[str]:
        """Names of the spaces: that of the features, and "pixels"."""
        return list(self.overall.figures)

    def verdicts(self, share: float = ALLOWED) -> dict[str, Verdict]:
        """Return for each class whether more than `share` of its samples are copies, beyond what chance makes of them.

        A sample near a training image need not be copied: held-out images have near ones too, about as often as the
        quantile of the radii says. So the share of near copies less that of held-out images counts, with its interval
        of 95 %: "more" where that lies above `share` in one of the spaces, "at most" where it ends at or below `share`
        in all, else "open", which more samples, or more held-out images of the class, can settle. A class whose excess
        is just `share` is called "more" by chance in one case of 40 in each space; one without copies in one of 100
        where there are 55 samples and 60 held-out images of it, and nearly never with 1,000 samples. All this takes
        images to be drawn one by one: of one bank or test set with many images alike it says too much.

        Raises:
            GenaugError: a share that is not from 0 to 1.
        """
        share = check_share(share, name="share")
        return {one.name: one.verdict(share) for one in self.classes}

    def classes_above(self, share: float = ALLOWED) -> list[str]:
        """Return the classes that have surely more than `share` of copies; see `verdicts`.

        Raises:
            GenaugError: a share that is not from 0 to 1.
        """
        return [name for name, verdict in self.verdicts(share).items() if verdict == "more"]

    def to_dict(self, share: float = ALLOWED) -> dict[str, Any]:
        """Return everything but the images as plain values that JSON can hold, with the verdicts on `share`."""
        return {
            "source": self.source,
            "seed": self.seed,
            "quantile": self.quantile,
            "images": self.images,
            "features": self.features,
            "verdicts": {"allowed": share, "classes": self.verdicts(share)},
            "all": asdict(self.overall),
            "classes": [asdict(one) for one in self.classes],
            "pairs": [pair.to_dict() for pair in self.pairs],
        }

    def sentences(self, share: float = ALLOWED) -> list[str]:
        """Return what was found in words: exact copies, and what is known of near copies beyond `share`."""
        verdicts, count = self.verdicts(share), self.overall.samples
        copied = self.overall.duplicates
        equal = f"{copied:,} of {count:,} samples equal" if copied else "No sample equals"
        names: dict[Verdict, list[str]] = {"more": [], "at most": [], "open": []}
        for name, verdict in verdicts.items():
            names[verdict].append(name)
        said = [
            f"more than that in {name_some(names['more']) or 'no class'}",
            f"at most that in {len(names['at most'])} of {len(verdicts)} classes",
        ]
        if names["open"]:
            said.append(f"open in {name_some(names['open'])}, for want of samples or held-out images")
        return [
            f"{equal} a training image in every pixel.",
            f"Allowed: {100 * share:g} % near copies beyond those of held-out images. With 95 % confidence: "
            f"{'; '.join(said)}.",
        ]

    def describe_samples(self) -> str:
        """Return how many samples there were, in words."""
        counts = sorted({one.samples for one in self.classes})
        of_each = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        return f"{self.overall.samples:,} samples, {of_each} of each class,"

    def to_markdown(self, share: float = ALLOWED) -> str:
        """Return the body of a model card's section on memorization: how it was measured, a table, and what it says."""
        images, (first, *_) = self.images, self.spaces
        named = f"{self.features['num_features']} features ({first})"
        head = [f"{figure}, {space}" for figure in ("near copies", "distance", "C_T") for space in (named, "pixels")]
        lines = [
            f"| {' | '.join(['', *head])} |",
            f"|{'---|' * (len(head) + 1)}",
            *(_row(one) for one in (self.overall, *self.classes)),
        ]
        method = (
            f"{self.describe_samples()} against the {images['training']:,} training images; in brackets the same of "
            f"{images['held_out_compared']:,} held-out images, which new real images would have too. Near copy: at "
            f"most as far from a training image as the nearest {100 * self.quantile:g} % of the training images of its "
            "class are from another one. Distance: median to the nearest training image, over that among training "
            "images. C_T: far below 0 (-3) where samples are copied."
        )
        return "\n\n".join([method, "\n".join(lines), " ".join(self.sentences(share))])


def _row(one: ClassCopies) -> str:
    percent = partial(show, places=1, scale=100, unit=" %")
    figures = list(one.figures.values())
    cells = [name_some([one.name]).replace("|", "\\|")]
    cells += [f"{percent(own.near_copies)} ({percent(own.held_out_near_copies)})" for own in figures]
    cells += [f"{show(own.distance_ratio, 2)} ({show(own.held_out_distance_ratio, 2)})" for own in figures]
    cells += [show(own.statistic, 1) for own in figures]
    return f"| {' | '.join(cells)} |"


def name_some(names: list[str]) -> str:
    """Return the first 12 names on one line, and how many more there are.

    >>> name_some(["a", "b"])
    'a, b'
    """
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(" ".join(name.split()) for name in names[:MOST_NAMED]) + more
