"""Metrics to JSONL and TensorBoard, and pictures of samples."""

import contextlib
import json
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from genaug.images import to_uint8
from genaug.models import Model
from genaug.seeding import make_generator
from genaug.storage import explain_write_errors, write_text

PICTURE_SIDE = 32


class MetricsLog:
    """Appends metrics to `metrics.jsonl` and TensorBoard in `directory`.

    Args:
        directory: the output folder of the run.
        step: lines of later steps, left by a run that was cut short, are dropped.
    """

    def __init__(self, directory: Path, *, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = directory / "metrics.jsonl"
        kept = [line for line in self._lines() if line["step"] <= step]
        losses = [line for line in kept if "loss" in line]
        self.last_metrics: dict[str, float] = {k: v for k, v in losses[-1].items() if k != "step"} if losses else {}
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        with explain_write_errors(directory):
            self.file = self.path.open("a", encoding="utf-8")
            self.writer = SummaryWriter(directory / "tensorboard", purge_step=step + 1)

    def _lines(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        lines = []
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:  # the last line of a killed run may be cut short
                break
        return lines

    def write(self, step: int, **metrics: Any) -> None:
        """Write one line of plain numbers; `step` counts the steps done."""
        with explain_write_errors(self.path):
            self.file.write(json.dumps({"step": step, **metrics}) + "\n")
            self.file.flush()
            for name, value in metrics.items():
                self.writer.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with contextlib.suppress(OSError) if kind else explain_write_errors(self.path):  # the first error tells more
            try:
                self.file.close()
            finally:
                self.writer.close()


def save_pictures(model: Model, images: Tensor, labels: Tensor, path: Path, *, seed: int) -> None:
    """Save a PNG of what a model does with some images, in rows as long as those are many; see `Model.illustrate`.

    Raises:
        GenaugError: the disk is full or not writable.
    """
    from torchvision.transforms.v2.functional import InterpolationMode, resize, to_pil_image
    from torchvision.utils import make_grid

    shown = to_uint8(model.illustrate(images, labels, generator=make_generator(seed, "picture"))).cpu()
    if shown.shape[1] not in (1, 3):
        shown = shown[:, :1]
    scale = max(1, PICTURE_SIDE // min(shown.shape[-2:]))
    size = [side * scale for side in shown.shape[-2:]]
    shown = resize(shown, size, interpolation=InterpolationMode.NEAREST)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(make_grid(shown, nrow=len(images), pad_value=128)).save(path)
