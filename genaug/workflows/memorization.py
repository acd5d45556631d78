"""Look for copies of training images among samples: the parts of the data, tables, a picture, a section of the card."""

import shlex
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from genaug.bank import SampleBank
from genaug.checkpoint import CARD
from genaug.devices import choose_device
from genaug.errors import CheckpointError, DataWarning, GenaugError, check_share, shorten
from genaug.evaluate.copies import ALLOWED, ClassCopies, CopyAudit, name_some
from genaug.evaluate.figures import show
from genaug.evaluate.memorization import audit_copies
from genaug.evaluate.plots import plot_closest_pairs
from genaug.features import STEPS
from genaug.models.card import make_card, replace_section
from genaug.models.saved import is_path
from genaug.storage import check_folder, expand, new_directory, write_json, write_text
from genaug.workflows.parts import load_parts, open_source
from genaug.workflows.reports import MAX_ROWS, make_table, say, with_versions

RESULTS, PICTURE = "memorization.json", "memorization.png"
SECTION = "Memorization"


def run_memorization(
    model: str,
    *,
    data: Any,
    test: Any = None,
    split: str | None = None,
    test_split: str | None = None,
    validation: float | None = None,
    samples: int | None = None,
    allowed: float = ALLOWED,
    features: str = "classifier",
    classifier_steps: int = STEPS,
    reading: Mapping[str, Any] | None = None,
    limit_per_class: int | None = None,
    longtail: float | None = None,
    output: str | Path | None = None,
    card: bool = False,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> CopyAudit:
    """Compare samples of a model or a bank with its training images (`audit_copies`), print, and write the figures.

    A class with more near copies than allowed is a warning.

    Args:
        model: what `genaug.load` takes, or the path of a bank.
        data: what `genaug.data.load_data` takes: the data that the model was trained on. The share that its recipe held
            out is left out.
        test: other data to hold samples against; by default a part of `data`.
        split: the training part; "train" where there are parts.
        test_split: the held-out part; "test", or all of `test` where that is given.
        validation: hold out this share of the training part instead, of that which the recipe held out.
        samples: how many of each class; 1,000 by default, and all of a bank.
        allowed: share of near copies beyond those of held-out images.
        features: "classifier", "inception" or "torchmetrics".
        classifier_steps: training steps of the classifier.
        reading: further arguments of `load_data` for both parts.
        limit_per_class, longtail: of the training part; drawn with the seed of the model's recipe, as `genaug train`
            does.
        output: folder for `memorization.json` and `memorization.png`.
        card: write what was found to the model's README.md, as its section "Memorization"; else it is printed.
        seed: of samples and classifier.
        device: where to compute; a GPU if there is one, else the CPU.
        overwrite: replace these two files in `output`.
        progress: show progress bars.

    Raises:
        GenaugError: an unknown model, parts that cannot be read or do not fit the model, an `output` that exists, a
            `card` of what is no model in a directory.
    """
    allowed = check_share(allowed, name="allowed")
    target = None if output is None else expand(output)
    if target is not None:
        check_folder(target, overwrite=overwrite)
    where = choose_device(device)
    source = open_source(model, where)
    if card:
        _read_card(model, source)  # what is wrong with it shows before anything is measured
    part: dict[str, Any] = {"split": split, "test_split": test_split, "validation": validation}
    limits: dict[str, Any] = {"limit_per_class": limit_per_class, "longtail": longtail}
    train, held_out, held_out_part = load_parts(
        source, data=data, test=test, reading=reading, seed=seed, **part, **limits
    )
    audit = audit_copies(
        source,
        train=train,
        test=held_out,
        seed=seed,
        samples=samples,
        classifier_steps=classifier_steps,
        device=where,
        features=features,
        progress=progress,
    )
    print_memorization(audit, allowed=allowed)
    _warn(audit, allowed)
    if target is not None:
        facts = {"model": model, "data": str(data), "held_out_data": str(test or data), "held_out_part": held_out_part}
        with new_directory(target, overwrite=overwrite, last=RESULTS) as aside:
            write_json(aside / RESULTS, with_versions({**facts, **audit.to_dict(allowed)}))
            plot_closest_pairs(audit, aside / PICTURE)
        say(f"Figures and a picture of the closest pairs: {target}")
    if card:
        options = {"test": test, **part, "samples": samples, **limits, "seed": seed or None}
        if allowed != ALLOWED:
            options["allowed"] = allowed
        if features != "classifier":
            options["features"] = features
        if classifier_steps != STEPS:
            options["classifier_steps"] = classifier_steps
        body = f"{audit.to_markdown(allowed)}\n\n    {_command(model, data, options, reading or {})}"
        write_text(expand(model) / CARD, replace_section(_read_card(model, source), SECTION, body))
        say(f"Section {SECTION!r} of {expand(model) / CARD} is written.")
    return audit


def print_memorization(audit: CopyAudit, *, allowed: float = ALLOWED) -> None:
    """Print a table for each space, and what it says."""
    console = Console()
    for space in audit.spaces:
        width = f"{audit.features['num_features']} features, " if space != "pixels" else ""
        columns = "class", "training", "near", "real", "beyond", "distance", "real", "C_T", "copies"
        table = make_table(*columns, title=f"{width}{escape(space)}")
        for column in table.columns[1:]:
            column.no_wrap = True
        table.add_row(*_cells(audit.overall, space, allowed), style="bold")
        for one in audit.classes[:MAX_ROWS]:
            table.add_row(*_cells(one, space, allowed))
        if len(audit.classes) > MAX_ROWS:
            table.add_row(f"... {len(audit.classes) - MAX_ROWS} more")
        console.print(table)
    images = audit.images
    say(
        f"{audit.describe_samples()} against {images['training']:,} training images; real: the same of "
        f"{images['held_out_compared']:,} held-out images, which new real images would have too.",
        f"near: near copies in percent, nearer to a training image than {100 - 100 * audit.quantile:g} % of the "
        "training images of its class are to another one. beyond: those less real's, with 95 % confidence.",
        "distance: median to the nearest training image, over that among training images. C_T: far below 0 where "
        f"copied. copies: whether beyond is more than {100 * allowed:g} %.",
        *audit.sentences(allowed),
    )


def _cells(one: ClassCopies, space: str, allowed: float) -> list[str]:
    found = one.figures[space]
    return [
        escape(one.name),
        str(one.training),
        show(found.near_copies, 1, scale=100),
        show(found.held_out_near_copies, 1, scale=100),
        f"{100 * found.excess_low:+.1f}..{100 * found.excess_high:+.1f}",
        show(found.distance_ratio, 2),
        show(found.held_out_distance_ratio, 2),
        show(found.statistic, 1),
        found.verdict(allowed),
    ]


def _warn(audit: CopyAudit, allowed: float) -> None:
    if above := audit.classes_above(allowed):
        warnings.warn(
            f"{len(above)} of {len(audit.classes)} classes have more near copies of training images than allowed "
            f"({100 * allowed:g} % beyond those of held-out images): {name_some(above)}; look at the closest pairs "
            "(--output), and filter samples with genaug.filters.NotACopy, or train for fewer steps or on more images",
            DataWarning,
            stacklevel=3,
        )


def _read_card(model: str, source: Any) -> str:
    """Return the card of a model in a directory of its own; a new one where there is none."""
    if isinstance(source, SampleBank) or not is_path(model):
        raise GenaugError(f"card must be that of a model's directory (./run/model), got {shorten(model)}; leave it out")
    path = expand(model) / CARD
    try:
        return path.read_bytes().decode() if path.exists() else make_card(source)
    except (OSError, UnicodeDecodeError) as problem:
        raise CheckpointError(f"{path}: cannot be read ({problem}); a card is text in UTF-8") from None


def _command(model: str, data: Any, options: Mapping[str, Any], reading: Mapping[str, Any]) -> str:
    """Return the command that measured this, for others to repeat: of paths it has the last names alone."""
    words = ["genaug", "evaluate", "memorization", f"./{expand(model).resolve().name}", "--data", _last_name(data)]
    for name, value in {**options, **reading}.items():
        if value is None or value is False or name in ("root", "download", "memory_limit"):
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append("x".join(map(str, value)) if name in ("resize", "patches") else _last_name(value))
    return shlex.join(words)


def _last_name(value: Any) -> str:
    text = str(value)
    return Path(text).name if isinstance(value, Path) or Path(text).expanduser().exists() else text
