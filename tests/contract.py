"""What every transform and adapter of genaug must do, whatever the library that calls it: `check_transform`.

A `Form` says how one class is made and called in the idiom of its library; `FORMS` has all of them.
"""

import atexit
import copy
import functools
import importlib
import pickle
import pkgutil
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torchvision import tv_tensors

import genaug.adapters
from genaug import transforms
from genaug.transforms import BatchTransform, ModelTransform

ONE_LEVEL = 1 / 255  # convolutions may round otherwise in another batch


def runs_per_image(transform: Any) -> int:
    """How often an image that is changed goes through the model."""
    return 2 if getattr(transform, "keep_residual", False) else 1


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def levels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(1))


def floats(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=seeded(1)).to(dtype)


def deep_levels(*shape: int) -> Tensor:
    return torch.randint(0, 65536, shape, generator=seeded(1)).to(torch.uint16)


def to_pil(pixels: Tensor) -> PIL.Image.Image:
    array = pixels.numpy()
    return PIL.Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


def to_array(pixels: Tensor) -> np.ndarray:
    return np.ascontiguousarray(pixels.movedim(-3, -1).numpy())


def content(image: Any) -> Tensor:
    """A copy of what an image holds: (..., C, H, W), or for an array of two axes (1, H, W); 16 bits as int32."""
    if isinstance(image, PIL.Image.Image):
        image = np.array(image)
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(image[None].copy() if image.ndim == 2 else np.moveaxis(image, -1, -3).copy())
    pixels = image.as_subclass(Tensor).clone()
    return pixels.int() if pixels.dtype == torch.uint16 else pixels


def changed_rows(before: Tensor, after: Tensor) -> Tensor:
    return (before != after).reshape(-1, *before.shape[-3:]).flatten(1).any(1)


# What an image may be: name -> (channels, how to make it). 1x8x8 where gray, 3x12x10 where color.
PIL_IMAGES: dict[str, Callable[[], Any]] = {
    "pil L": lambda: to_pil(levels(1, 8, 8)),
    "pil I;16": lambda: to_pil(deep_levels(1, 8, 8)),
    "pil RGB": lambda: to_pil(levels(3, 12, 10)),
}
SINGLE_TENSORS: dict[str, Callable[[], Any]] = {
    "uint8": lambda: levels(1, 8, 8),
    "uint8 color": lambda: levels(3, 12, 10),
    "uint16": lambda: deep_levels(1, 8, 8),
    "uint16 color": lambda: deep_levels(3, 12, 10),
    "float32": lambda: floats(1, 8, 8),
    "float64": lambda: floats(1, 8, 8, dtype=torch.float64),
    "float16": lambda: floats(1, 8, 8, dtype=torch.float16),
    "bfloat16": lambda: floats(3, 12, 10, dtype=torch.bfloat16),
    "tv image": lambda: tv_tensors.Image(levels(1, 8, 8)),
    "tv image float": lambda: tv_tensors.Image(floats(3, 12, 10)),
}
BATCHES: dict[str, Callable[[], Any]] = {
    "batch": lambda: levels(6, 1, 8, 8),
    "float batch": lambda: floats(6, 3, 12, 10),
    "float64 batch": lambda: floats(6, 1, 8, 8, dtype=torch.float64),
    "float16 batch": lambda: floats(6, 1, 8, 8, dtype=torch.float16),
    "bfloat16 batch": lambda: floats(6, 3, 12, 10, dtype=torch.bfloat16),
    "batch of tv images": lambda: tv_tensors.Image(floats(6, 3, 12, 10)),
    "not contiguous": lambda: levels(8, 8, 6, 1).permute(2, 3, 0, 1),
    "every second row": lambda: floats(12, 1, 8, 8)[::2],
    "channels last": lambda: floats(6, 3, 12, 10).contiguous(memory_format=torch.channels_last),
    "empty batch": lambda: levels(0, 1, 8, 8),
}
MORE_DIMENSIONS: dict[str, Callable[[], Any]] = {
    "leading dimensions": lambda: floats(2, 1, 3, 1, 8, 8),
    "leading dimensions float16": lambda: floats(2, 3, 1, 8, 8, dtype=torch.float16),
    "empty leading dimension": lambda: floats(2, 0, 1, 8, 8),
}
FLOAT_BATCHES = {
    name: make for name, make in BATCHES.items() if type(make()) is Tensor and make().is_floating_point()
} | {
    "empty float batch": lambda: floats(0, 1, 8, 8),
    "float batch not contiguous": lambda: floats(8, 8, 6, 1).permute(2, 3, 0, 1),
}
ARRAYS: dict[str, Callable[[], Any]] = {
    "array HW": lambda: to_array(levels(1, 8, 8))[..., 0],
    "array HW1": lambda: to_array(levels(1, 8, 8)),
    "array HWC": lambda: to_array(levels(3, 12, 10)),
    "array HW float": lambda: to_array(floats(1, 8, 8))[..., 0],
    "array HWC float": lambda: to_array(floats(3, 12, 10)),
    "array not contiguous": lambda: to_array(levels(3, 12, 10)[..., ::1].flip(-1))[:, ::-1],
    "array read only": lambda: read_only(to_array(levels(3, 12, 10))),
}


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@dataclass(frozen=True)
class Form:
    """One class in the idiom of its library.

    `build(model, p)` makes the transform; `run(transform, image)` returns the changed image; `seed(transform, number)`
    sets the generator of the host library, which is `draws`: "torch" (the global one) or "own". `each` gives the result
    of a batch and those of its images one by one, with the same random numbers; None where a call takes one image, or
    where images depend on each other. `family` is that of the models that it works with.
    """

    cls: type
    build: Callable[[Any, float], Any]
    kinds: dict[str, Callable[[], Any]]
    run: Callable[[Any, Any], Any]
    seed: Callable[[Any, int], None]
    draws: str = "torch"
    p_0_is_same: bool = True
    each: Callable[[Any, Any], tuple[Tensor, Tensor]] | None = None
    model_of: Callable[[Any, Any], Any] = lambda transform, model: model  # the one that computes, of that in `build`
    family: str = "vae"


def seed_torch(transform: Any, number: int) -> None:
    torch.manual_seed(number)


def make_labels(image: Any) -> Tensor:
    return torch.arange(len(image)) // 2 % 3  # in pairs, so that none is alone in its class


def torchvision_each(transform: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    params = transform.make_params([images])
    singles = [
        transform.transform(image, {key: value[row : row + 1] for key, value in params.items()})
        for row, image in enumerate(images)
    ]
    return transform.transform(images, params), torch.stack(singles)


def kornia_each(augmentation: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    together = augmentation(images)
    params = augmentation._params
    singles = []
    for row in range(len(images)):
        own = {key: value[row : row + 1] for key, value in params.items() if key in ("seeds", "batch_prob")}
        own["forward_input_shape"] = torch.tensor((1, *images.shape[1:]))
        singles.append(augmentation(images[row : row + 1], params=own))
    return together, torch.cat(singles)


def _torchvision_forms() -> list[Form]:
    per_image = PIL_IMAGES | SINGLE_TENSORS | BATCHES | MORE_DIMENSIONS
    run, seed = (lambda transform, image: transform(image)), seed_torch
    forms = [
        Form(cls, lambda model, p, cls=cls: cls(model, p=p), per_image, run, seed, each=torchvision_each)
        for cls in (transforms.LatentJitter, transforms.Reconstruct)
    ]
    denoise = Form(
        transforms.Denoise,
        lambda model, p: transforms.Denoise(model, p=p),
        per_image,
        run,
        seed,
        each=torchvision_each,
        family="denoiser",
    )

    def on_batch(transform: Any, images: Tensor) -> Any:
        return transform(images, make_labels(images))[0]

    return [
        *forms,
        denoise,
        Form(transforms.LatentMix, lambda model, p: transforms.LatentMix(model, p=p), BATCHES, on_batch, seed),
        Form(
            transforms.ReplaceWithSynthetic,
            lambda model, p: transforms.ReplaceWithSynthetic(model, p),
            BATCHES,
            on_batch,
            seed,
        ),
    ]


def _albumentations_forms() -> list[Form]:
    import albumentations as A

    from genaug.adapters import albumentations as adapter

    return [
        Form(
            cls,
            lambda model, p, cls=cls: A.Compose([cls(model, p=p)], seed=0),
            ARRAYS,
            lambda pipeline, image: pipeline(image=image)["image"],
            lambda pipeline, number: pipeline.set_random_seed(number),
            draws="own",
            p_0_is_same=not hasattr(A, "SampledParams"),  # albumentationsx copies what is not contiguous
            family=family,
        )
        for cls, family in ((adapter.LatentJitter, "vae"), (adapter.Reconstruct, "vae"), (adapter.Denoise, "denoiser"))
    ]


def kornia_takes(dtype: torch.dtype) -> bool:
    """Whether the installed kornia takes images of a dtype: before 0.8.3 it takes no bfloat16."""
    from kornia.augmentation import RandomInvert

    with torch.random.fork_rng(devices=[]):
        try:
            RandomInvert(p=1.0)(torch.zeros(1, 1, 2, 2, dtype=dtype))
        except TypeError:
            return False
    return True


def _kornia_forms() -> list[Form]:
    from genaug.adapters import kornia as adapter

    kinds = {name: make for name, make in FLOAT_BATCHES.items() if kornia_takes(make().dtype)}
    return [
        Form(
            cls,
            lambda model, p, cls=cls: cls(model, p=p),
            kinds,
            lambda augmentation, images: augmentation(images),
            seed_torch,
            p_0_is_same=False,  # kornia hands out a copy
            each=kornia_each,
            family=family,
        )
        for cls, family in ((adapter.LatentJitter, "vae"), (adapter.Reconstruct, "vae"), (adapter.Denoise, "denoiser"))
    ]


def _hugging_face_forms() -> list[Form]:
    from genaug.adapters.huggingface_columns import ColumnTransform, apply_to_column

    return [
        Form(
            ColumnTransform,
            lambda model, p: apply_to_column(transforms.LatentJitter(saved(model), p=p)),
            PIL_IMAGES | SINGLE_TENSORS,
            lambda function, image: function({"image": [image], "id": [7]})["image"][0],
            seed_torch,
            model_of=lambda function, model: function.transform.model,
        )
    ]


@functools.cache
def saved(model: Any) -> Path:
    """A checkpoint of a model; Hugging Face's adapter takes none that is held as an object."""
    folder = Path(tempfile.mkdtemp(prefix="genaug-contract-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    model.save(folder / "model")
    return folder / "model"


FORMS = [*_torchvision_forms(), *_albumentations_forms(), *_kornia_forms(), *_hugging_face_forms()]
BASES = (ModelTransform, BatchTransform)


def exported_transforms() -> set[type]:
    """Every class that genaug exports as a transform or augmentation, but for bases."""
    found = {getattr(transforms, name) for name in transforms.__all__}
    for module in pkgutil.iter_modules(genaug.adapters.__path__):
        adapter = importlib.import_module(f"genaug.adapters.{module.name}")
        found |= {
            value
            for name, value in vars(adapter).items()
            if isinstance(value, type) and not name.startswith("_") and value.__module__ == adapter.__name__
            if any(
                method in vars(base) for base in value.__mro__ for method in ("apply", "apply_transform", "__call__")
            )
        }
    return {cls for cls in found if cls not in BASES and not any(cls in other.__mro__[1:] for other in found)}


def check_transform(form: Form, model: Any, kind: str) -> None:
    """Check what holds for every transform with one kind of image."""
    check_p_1(form, model, kind)
    check_p_0(form, model, kind)
    check_copies(form, model, kind)
    if kind in BATCHES | FLOAT_BATCHES:
        check_rows(form, model, kind)
    if form.each is not None and kind in BATCHES | FLOAT_BATCHES:
        check_each(form, model, kind)


def check_p_1(form: Form, model: Any, kind: str) -> None:
    """p = 1 changes every image, keeps the input and its form, and draws from the host's generator alone."""
    transform, image = form.build(model, 1.0), form.kinds[kind]()
    before, version = content(image), getattr(image, "_version", 0)
    form.seed(transform, 5)
    with only_draws(form.draws):
        result = form.run(transform, image)
    assert type(result) is type(image)
    assert getattr(result, "dtype", None) == getattr(image, "dtype", None)
    assert torch.equal(content(image), before)
    assert getattr(image, "_version", 0) == version  # not even changed and changed back
    after = content(result)
    assert (after.shape, after.dtype, after.device) == (before.shape, before.dtype, before.device)
    if isinstance(image, PIL.Image.Image):
        assert (result.mode, result.size) == (image.mode, image.size)
    if isinstance(result, Tensor):
        assert not result.is_inference()
        assert not result.requires_grad
        assert result.is_contiguous() or not image.is_contiguous()  # so that a `view` works as before
    if isinstance(result, np.ndarray):
        assert result.flags.c_contiguous
        assert result.flags.writeable
        assert not np.shares_memory(result, image)
    assert after.isfinite().all()
    if after.numel() and after.is_floating_point():
        assert 0 <= after.amin() <= after.amax() <= 1
    assert changed_rows(before, after).all()
    form.seed(transform, 5)
    assert torch.equal(content(form.run(transform, image)), after)


def check_p_0(form: Form, model: Any, kind: str) -> None:
    """p = 0 gives the same object, or where the library hands out a copy the same values; no image enters the model."""
    transform, image = form.build(model, 0.0), form.kinds[kind]()
    before = content(image)
    with rows_through(form.model_of(transform, model)) as rows:
        result = form.run(transform, image)
    assert rows == []
    assert not form.p_0_is_same or result is image
    assert torch.equal(content(result), before)


def check_copies(form: Form, model: Any, kind: str) -> None:
    """A pickled and a deep copy do the same with the same state of the host's generator, and repr is short."""
    transform, image = form.build(model, 0.5), form.kinds[kind]()
    form.seed(transform, 5)
    expected = content(form.run(transform, image))
    for twin in (pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)):
        form.seed(twin, 5)
        assert torch.equal(content(form.run(twin, image)), expected)
    assert form.cls.__name__ in repr(transform)
    assert len(repr(transform)) < 500


def check_each(form: Form, model: Any, kind: str) -> None:
    """A batch agrees with its images one by one."""
    assert form.each is not None
    transform, images = form.build(model, 1.0), form.kinds[kind]()
    if not len(images):
        return
    together, singles = (result.as_subclass(Tensor).double() for result in form.each(transform, images))
    levels_of = 255 if images.dtype == torch.uint8 else 1
    torch.testing.assert_close(together, singles, atol=ONE_LEVEL * levels_of, rtol=0)


def check_rows(form: Form, model: Any, kind: str) -> None:
    """Only the rows that change go through the network."""
    images = form.kinds[kind]()
    if not len(images):
        return
    half, changed = form.build(model, 0.5), 0
    with rows_through(form.model_of(half, model)) as rows:
        for number in range(4):
            form.seed(half, number)
            changed += int(changed_rows(content(images), content(form.run(half, images))).sum())
    assert sum(rows) == changed
    assert 0 < changed < 4 * len(images)


@contextmanager
def only_draws(host: str) -> Any:
    """Fail where a global generator is drawn from, but for torch's where the host library draws from it."""
    states = random.getstate(), str(np.random.get_state(legacy=False)), torch.get_rng_state()
    yield
    assert random.getstate() == states[0]
    assert str(np.random.get_state(legacy=False)) == states[1]
    assert host == "torch" or torch.equal(torch.get_rng_state(), states[2])


@contextmanager
def rows_through(model: Any) -> Any:
    """Count the images that are decoded, as all that comes out of a model is."""
    rows: list[int] = []
    last = model.network if model.family == "denoiser" else model.decoder.to_images
    hook = last.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    try:
        yield rows
    finally:
        hook.remove()
