"""The training loop: every draw is a function of (seed, step), so a run can be cut anywhere and go on exactly."""

import contextlib
import math
import signal
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel

from genaug.data import LabeledImages, load_data
from genaug.data.check import check_data
from genaug.devices import choose_precision
from genaug.errors import DataWarning, Interrupted, TrainingError, shorten
from genaug.models import Model
from genaug.models.base import ParameterGroup
from genaug.models.saved import is_path
from genaug.progress import progress_bar
from genaug.seeding import derive_seed, make_generator
from genaug.storage import expand
from genaug.training.batches import Batches
from genaug.training.interrupts import catch_signals
from genaug.training.logs import MetricsLog
from genaug.training.looks import Looks
from genaug.training.processes import Processes
from genaug.training.recipe import Recipe, load_recipe
from genaug.training.run_folder import MODEL, STATES, RunFacts, own_folder
from genaug.training.schedules import ClassSampler, cosine_with_warmup, ema_with_ramp
from genaug.training.start import Start, create, find_start
from genaug.training.state import TrainingState, list_states, load_state, save_state
from genaug.zoo import load


@dataclass(frozen=True)
class TrainingResult:
    """What `train` returns.

    Args:
        model: with the averaged weights, in evaluation mode.
        path: its checkpoint, `output/model`, which `genaug.load` takes.
        output: the folder of the run.
        steps: that were done.
        scores: of the model on the held-out images, by name; empty without `validation_fraction`.
        metrics: of the last step, by name.
    """

    model: Model
    path: Path
    output: Path
    steps: int
    scores: dict[str, Any]
    metrics: dict[str, float]


def train(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    data: Any,
    output: str | Path,
    start: str | Path | None = None,
    resume: bool = False,
    device: str | torch.device | None = None,
    overwrite: bool = False,
    progress: bool = True,
    on_step: Callable[[int], None] | None = None,
) -> TrainingResult:
    """Train a model by a recipe and write it, its log, pictures of samples and resumable states to `output`.

    The data are checked first (`genaug.data.check.check_data`); what is found is a `DataWarning`.

    All that is drawn depends on recipe and data alone. On one CPU with one number of threads the result is the same to
    the bit, also where the run was cut short at any moment and resumed; other processors round otherwise, and
    `precision: auto` computes in bfloat16 on those that have it.

    Args:
        recipe: a shipped recipe's name, a YAML file, a dict or a `Recipe`.
        data: what `genaug.data.load_data` takes: `LabeledImages`, "digits", an image folder or a data set.
        output: a new folder; it gets `model/`, `recipe.yaml`, `run.json`, `metrics.jsonl`, `tensorboard/`, `samples/`
            and `states/`.
        start: a trained model to start from, of the same images, and of the same family, or for a GAN a VAE: a name or
            path as `genaug.load` takes; in place of the recipe's `training.start`.
        resume: go on from the newest state in `output`, where there is one.
        device: where to train; a GPU if there is one, else the CPU. The images go to a GPU as a whole where they fit
            into half of its free memory, else batch by batch.
        overwrite: replace an earlier run in `output`; anything else is never replaced.
        progress: show a progress bar.
        on_step: called with the number of steps done after each of them.

    Raises:
        RecipeError: an unknown or wrong field, another recipe or start than that of the run to resume, or a start that
            does not fit.
        DataError: data that cannot be read, or other data than that of the run to resume.
        TrainingError: a loss that is not finite; more than fits in the memory of the device.
        GenaugError: an `output` that exists or is in use, a disk that is full, a device that is not there.
        Interrupted: Ctrl-C, or SIGTERM as schedulers send it, after the state was saved.

    >>> import tempfile
    >>> recipe = {"family": "vae", "model": {"width": 8}, "training": {"steps": 2, "batch_size": 16}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = train(recipe, data="digits", output=f"{folder}/run", progress=False)
    >>> result.steps
    2
    """
    recipe = load_recipe(recipe)
    output = expand(output)
    images = load_data(data)
    for message in check_data(images).warnings:
        warnings.warn(message, DataWarning, stacklevel=2)
    kept, held_out = _split(images, recipe)
    processes = Processes(device)
    begin = find_start(start or recipe.training.start)
    state = _build(recipe, images, kept, processes.device, begin)
    described = _describe(recipe, start)
    facts = RunFacts(
        recipe=described,
        data_sha256=images.fingerprint(),
        processes=processes.count,
        start_sha256=begin.sha256 if begin else None,
    )
    processes.check_same(facts)
    looks = Looks(state, recipe, images, kept, held_out, output, described, facts.data_sha256)
    processes.from_main(looks.load_features)
    with contextlib.ExitStack() as stack:
        folder = own_folder(output, facts, resume=resume, overwrite=overwrite)
        saved = processes.from_main(lambda: stack.enter_context(folder))
        if saved is not None:
            load_state(saved, state)
        log = stack.enter_context(MetricsLog(output, step=state.step)) if processes.is_main else None
        show = progress and processes.is_main
        processes.from_main(lambda: looks.prepare(progress=show))
        try:
            metrics = _loop(looks, processes, log, progress=show, on_step=on_step)
        except torch.OutOfMemoryError as problem:
            raise _out_of_memory(state.step, problem, output / STATES) from problem
        processes.from_main(lambda: looks.finish(told_apart=metrics.get("told_apart")))
    model = state.averaged
    if not processes.is_main:
        model = load(output / MODEL)
    return TrainingResult(model, output / MODEL, output, state.step, model.scores, metrics)


def _describe(recipe: Recipe, start: str | Path | None) -> dict[str, Any]:
    """Return the recipe with the start that was used; a path, which means nothing elsewhere, becomes null."""
    described = recipe.to_dict()
    if start is not None:
        described["training"]["start"] = None if is_path(start) else str(start)
    return described


def _split(images: LabeledImages, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the rows to train on, and those held out."""
    fraction = recipe.training.validation_fraction
    if fraction == 0:
        return torch.arange(len(images)), torch.arange(0)
    return images.split(fraction, seed=recipe.seed)


def _build(
    recipe: Recipe, images: LabeledImages, kept: Tensor, device: torch.device, start: Start | None = None
) -> TrainingState:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(recipe.seed, "init"))
        model = create(recipe, images, start)
    model.to(device).train()
    model.fit_before_training(images.images, images.labels, rows=kept)
    ema = AveragedModel(model)
    groups = [
        {"params": list(group.parameters), "betas": group.betas, "factor": group.factor, "first": group.first_step}
        for group in model.parameter_groups().values()
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=recipe.training.learning_rate, weight_decay=recipe.training.weight_decay, fused=True
    )
    return TrainingState(model=model, ema=ema, optimizer=optimizer)


def _loop(
    looks: Looks,
    processes: Processes,
    log: MetricsLog | None,
    *,
    progress: bool,
    on_step: Callable[[int], None] | None,
) -> dict[str, float]:
    state, recipe, kept = looks.state, looks.recipe, looks.kept
    config, model, states = recipe.training, state.model, looks.output / STATES
    batches = Batches(looks.images, kept, model.device)
    sampler = ClassSampler(looks.images.labels[kept], exponent=config.class_exponent, seed=recipe.seed)
    dtype = choose_precision(config.precision, model.device)
    parameters, groups = list(model.parameters()), model.parameter_groups()
    total = config.batch_size * processes.count
    metrics = log.last_metrics if log else {}
    shown: dict[str, float] = {}
    sums: dict[str, Tensor] = {}
    counted, began = 0, time.perf_counter()
    bar = progress_bar(recipe.family, total=config.steps, done=state.step, enabled=progress)
    with bar as update, catch_signals() as caught:
        while state.step < config.steps:
            schedule = partial(cosine_with_warmup, state.step, steps=config.steps, warmup_steps=config.warmup_steps)
            factor = schedule()
            for group in state.optimizer.param_groups:
                group["lr"] = config.learning_rate * group["factor"] * schedule(first_step=group["first"])
            rows = sampler.rows(state.step, batch_size=total, group=recipe.batch_group)
            batch = batches.gather(processes.share(rows))
            draws = model.draw_for_training(total, generator=make_generator(recipe.seed, "step", state.step))
            draws = {name: processes.share(drawn) for name, drawn in draws.items()}
            with torch.autocast(model.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss, figures = model.training_loss(*batch, draws)
            state.optimizer.zero_grad(set_to_none=True)
            loss = _backward(loss, groups)
            # what differs between processes is averaged, so that all go on, or stop, alike
            figures = {"loss": loss, **figures, "signal": torch.full_like(loss, float(caught()))}
            figures = processes.average(parameters, figures)
            norms = [clip_grad_norm_(group.parameters, config.gradient_clip) for group in groups.values()]
            norm = torch.stack(norms).max()
            # read at once: a GPU is waited for
            came, value, length = torch.stack([figures.pop("signal"), figures["loss"], norm]).tolist()
            if not (math.isfinite(value) and math.isfinite(length)):
                raise _not_finite(state.step, value, length, states)
            number = (caught() or signal.SIGTERM) if came > 0 else 0
            state.optimizer.step()
            state.ema.multi_avg_fn = ema_with_ramp(config.ema_decay, step=state.step)
            state.ema.update_parameters(model)
            state.step += 1

            for name, value in {**figures, "gradient_norm": norm}.items():
                sums[name] = sums[name] + value if name in sums else value
            counted += 1
            if log and (state.step % config.log_every == 0 or state.step == config.steps):
                metrics = {name: float(value) / counted for name, value in sums.items()}
                elapsed = time.perf_counter() - began
                rate = {"images_per_second": counted * total / elapsed}
                log.write(state.step, **metrics, learning_rate=config.learning_rate * factor, **rate)
                shown = {name: metrics[name] for name in figures}
                sums, counted, began = {}, 0, time.perf_counter()
            update(**shown)
            if log and state.step % config.sample_every == 0:
                metrics |= looks.look(log, told_apart=metrics.get("told_apart"))
                began = time.perf_counter()
            if state.step % config.save_every == 0 or number:
                saved = processes.from_main(lambda: save_state(states, state, keep=config.keep_states))
                if number:
                    message = f"stopped after step {state.step}; state saved in {saved}; go on with --resume"
                    raise Interrupted(message, number)
            if on_step is not None:
                on_step(state.step)
        saved = processes.from_main(lambda: save_state(states, state, keep=config.keep_states))
        if caught() and processes.count == 1:  # in the last look or save
            message = f"stopped after step {state.step}; state saved in {saved}; finish with --resume"
            raise Interrupted(message, caught())
    return metrics


def _backward(loss: Tensor | dict[str, Tensor], groups: Mapping[str, ParameterGroup]) -> Tensor:
    """Give the parameters of each group the gradient of the loss of its name alone; return the sum of the losses."""
    losses = {"loss": loss} if isinstance(loss, Tensor) else loss
    for number, (name, part) in enumerate(losses.items(), start=1):
        part.backward(inputs=groups[name].parameters, retain_graph=number < len(losses))
    return torch.stack([part.detach() for part in losses.values()]).sum()


def _out_of_memory(step: int, problem: Exception, states: Path) -> TrainingError:
    saved = list_states(states)
    last = f"the last state is {saved[-1]}" if saved else "no state was saved yet"
    return TrainingError(
        f"step {step + 1}: does not fit in the memory of the device ({shorten(str(problem), 120)}); {last}; "
        "try a smaller training.batch_size or model"
    )


def _not_finite(step: int, loss: float, norm: float, states: Path) -> TrainingError:
    saved = list_states(states)
    last = f"the last good state is {saved[-1]}" if saved else "no state was saved yet"
    return TrainingError(
        f"step {step + 1}: the loss is {loss:g} and the norm of its gradient {norm:g}, not finite; "
        f"{last}; try a smaller training.learning_rate, training.precision=float32 or a smaller training.gradient_clip"
    )
