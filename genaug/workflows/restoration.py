"""Measure denoisers on clean images: models and their rivals, a table, a file."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from genaug.data import load_images
from genaug.degradations import Degradation, parse_degradation
from genaug.devices import choose_device
from genaug.errors import GenaugError, shorten
from genaug.evaluate import DenoisingResult, measure_denoising
from genaug.evaluate.classical import find_rival
from genaug.evaluate.denoising import NOISE_LEVELS
from genaug.models import require
from genaug.storage import check_folder, expand, write_json
from genaug.workflows.reports import make_table, say, with_versions
from genaug.zoo import load

RESULTS = "denoising.json"


def run_restoration(
    models: Sequence[str],
    *,
    data: Any,
    rivals: Sequence[str] = (),
    noise_levels: Sequence[float] | None = None,
    degradations: Sequence[Degradation] = (),
    clip: bool = False,
    reading: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> DenoisingResult:
    """Measure models, and rivals of other libraries, on clean images (`measure_denoising`); print, and write figures.

    Args:
        models: what `genaug.load` takes, each with `restore`.
        data: clean images of any size, what `genaug.data.load_images` takes.
        rivals: names in `genaug.evaluate.classical.CLASSICAL`; they are told the noise level, and measured for Gaussian
            noise alone.
        noise_levels: standard deviations of Gaussian noise on the [0, 1] scale, by default 15, 25 and 50 of 255.
        degradations: further ones, for models alone.
        clip: clip the noise to [0, 1].
        reading: further arguments of `load_images`.
        output: folder for `denoising.json`, which is rewritten after every degradation.
        device: where to load models; a GPU if there is one, else the CPU.
        overwrite: replace this file in `output`.
        progress: show a progress bar.

    Raises:
        GenaugError: no models or rivals; one that cannot restore such images, or is not installed; data that cannot be
            read; an `output` that exists.
    """
    target = None if output is None else expand(output)
    if target is not None:
        check_folder(target, overwrite=overwrite)
    denoisers: dict[str, Any] = {name: load(name, device=choose_device(device)) for name in models}
    for model in denoisers.values():
        require(model, "restore")
    if rivals and degradations:
        raise GenaugError("rivals must be told a noise level, which other degradations have not; leave one of them out")
    denoisers |= {name: find_rival(name) for name in rivals}
    if not denoisers:
        raise GenaugError("models or rivals must name at least one denoiser, got none")
    images = load_images(data, **reading or {})
    levels = NOISE_LEVELS if noise_levels is None else noise_levels

    def write(found: DenoisingResult) -> None:
        if target is not None:
            facts = {"models": list(models), "data": str(data)}
            write_json(target / RESULTS, with_versions({**facts, **found.to_dict()}))

    result = measure_denoising(
        denoisers,
        images,
        noise_levels=levels,
        degradations=degradations,
        clip=clip,
        progress=progress,
        on_rows=write,
    )
    print_restoration(result)
    if target is not None:
        say(f"Figures: {target / RESULTS}")
    return result


def print_restoration(result: DenoisingResult) -> None:
    """Print a row for each denoiser and degradation, and the protocol."""
    counted = any(row.exact for row in result.rows)
    table = make_table("degradation", "denoiser", "PSNR", *["exact"] * counted, "SSIM", "s / megapixel")
    table.columns[1].justify = "left"
    before = ""
    for row in result.rows:
        if before and row.degradation != before:
            table.add_section()
        figures = (row.psnr, ".2f"), (row.ssim, ".4f"), (row.seconds, ".3g")
        psnr, ssim, seconds = ("-" if value is None else format(value, form) for value, form in figures)
        shown = "" if row.degradation == before else row.degradation
        table.add_row(shown, row.denoiser, psnr, *[str(row.exact)] * counted, ssim, seconds)
        before = row.degradation
    console = Console()
    console.print(table, markup=False)
    say(f"{result.rows[0].images} images. {result.protocol}")


def parse_noise_level(text: str) -> float:
    """Return a noise level on the [0, 1] scale that is given as a number or a fraction.

    Raises:
        GenaugError: something else, or out of range.

    >>> parse_noise_level("0.1"), round(parse_noise_level("25/255"), 4)
    (0.1, 0.098)
    """
    try:
        level = float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        level = -1.0
    if not 0 < level <= 1:
        raise GenaugError(f"noise level must be above 0 and at most 1, such as 0.1 or 25/255, got {shorten(text)}")
    return level


def read_degradation(text: str) -> Degradation:
    """Return the degradation that a line of YAML describes.

    Raises:
        GenaugError: no YAML, or what `parse_degradation` refuses.

    >>> read_degradation("{kind: jpeg, quality: 20}")
    Jpeg(quality=20, kind='jpeg')
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        values = None
    if not isinstance(values, dict):
        raise GenaugError(f"degradation must be such as '{{kind: jpeg, quality: 20}}', got {shorten(text)}")
    return parse_degradation(values, where="degradation")
