"""Every transform and adapter that genaug exports under one contract."""

import pytest
import torch
from contract import (
    FLOAT_BATCHES,
    FORMS,
    ONE_LEVEL,
    Form,
    changed_rows,
    check_transform,
    content,
    exported_transforms,
    make_labels,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genaug.errors import DataError
from genaug.transforms import LatentJitter, LatentMix, Reconstruct, ReplaceWithSynthetic

pytestmark = [
    pytest.mark.global_rng,  # torchvision's and kornia's transforms draw from torch's global generator
    pytest.mark.filterwarnings("ignore:.*kornia.*:DeprecationWarning"),
]

CASES = [(form, kind) for form in FORMS for kind in form.kinds]


def name(form: Form) -> str:
    return f"{form.cls.__module__.rpartition('.')[2]}.{form.cls.__name__}"


def test_every_exported_transform_is_under_the_contract():
    assert {form.cls for form in FORMS} == exported_transforms()
    assert len(FORMS) >= 8


@pytest.mark.parametrize(("form", "kind"), CASES, ids=[f"{name(form)}-{kind}" for form, kind in CASES])
def test_contract(form, kind, models):
    channels = content(form.kinds[kind]()).shape[-3]
    check_transform(form, models[form.family, channels], kind)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("model_on", ["cpu", "cuda"])
@pytest.mark.parametrize("form", [form for form in FORMS if FLOAT_BATCHES.keys() & form.kinds], ids=name)
def test_images_on_a_gpu_come_back_there(form, model_on, models):
    import copy

    given = models[form.family, 1]
    model = copy.deepcopy(given).to(model_on)
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    transform = form.build(model, 1.0)
    form.seed(transform, 5)
    result = form.run(transform, images.cuda())
    assert result.device.type == "cuda"
    form.seed(transform, 5)
    expected = form.run(form.build(given, 1.0), images)
    torch.testing.assert_close(result.cpu(), expected, atol=2 * ONE_LEVEL, rtol=0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(0, 3), max_size=3),
    dtype=st.sampled_from([torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    p=st.floats(0, 1),
    strength=st.floats(0, 1),
    keep_residual=st.booleans(),
    seed=st.integers(0, 2**62),
    resize=st.none() | st.tuples(st.integers(1, 24), st.integers(1, 24)),
    channels=st.sampled_from([1, 3, 4]),
    labeled=st.booleans(),
)
def test_any_image_any_settings(shape, dtype, p, strength, keep_residual, seed, resize, channels, labeled, gray):
    height, width = resize or (8, 8)
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(*shape, channels, height, width, generator=generator, dtype=torch.float64)
    images = (images * 255).to(dtype) if dtype == torch.uint8 else images.to(dtype)
    options = {"strength": strength, "keep_residual": keep_residual, "resize": resize is not None}
    transform = LatentJitter(gray, p=p, channels="convert", **options)
    count = images[..., 0, 0, 0].numel()
    labels = torch.randint(0, 3, (count,), generator=generator) if labeled else None
    before = images.clone()
    torch.manual_seed(seed)
    params = transform.make_params([images])
    torch.manual_seed(seed)
    after, kept = transform(images, labels)
    assert kept is labels
    assert torch.equal(images, before)
    assert (after.shape, after.dtype) == (before.shape, before.dtype)
    assert after.numel() == 0 or 0 <= float(after.double().amin()) <= float(after.double().amax()) <= 255
    assert not changed_rows(before, after)[~params["chosen"]].any()
    if channels == 4:
        torch.testing.assert_close(after[..., 3, :, :], before[..., 3, :, :], atol=1e-6, rtol=0)  # through float32
    if not params["chosen"].any():
        assert after is images


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.lists(st.integers(0, 2), max_size=7),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 2**62),
    soft=st.booleans(),
    scarce=st.booleans(),
)
def test_replacing_in_any_batch(labels, fraction, seed, soft, scarce, gray):
    index = torch.tensor(labels, dtype=torch.int64)
    given_labels = torch.nn.functional.one_hot(index, 3).float() if soft else index
    images = torch.rand(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    transform = ReplaceWithSynthetic(gray, fraction, classes={"b": 1.0, 2: 3.0} if scarce else None)
    torch.manual_seed(seed)
    after, new = transform(images, given_labels)
    rows = changed_rows(images, after)
    assert abs(int(rows.sum()) - fraction * len(labels)) < 1
    assert (new.shape, new.dtype) == (given_labels.shape, given_labels.dtype)
    assert torch.equal(new[~rows], given_labels[~rows])
    if not scarce:
        assert torch.equal(new, given_labels)
    else:
        classes = new.argmax(1) if soft else new
        assert set(classes[rows].tolist()) <= {1, 2}


@pytest.mark.parametrize("transform", [LatentJitter, Reconstruct])
def test_labels_before_images_in_a_dict_are_not_taken_for_them(transform, gray):
    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    for sample in ({"labels": labels, "pixels": images}, {"label": labels, "weight": torch.rand(4), "image": images}):
        result = transform(gray, p=1.0)(sample)
        key = "pixels" if "pixels" in sample else "image"
        assert changed_rows(images, result[key]).all()
        assert all(result[other] is sample[other] for other in sample if other != key)


@pytest.mark.parametrize(
    "make", [lambda model: LatentMix(model, p=1.0), lambda model: ReplaceWithSynthetic(model, 1.0)]
)
def test_the_rest_of_a_batch_passes_through(make, gray):
    images, labels = torch.rand(6, 1, 8, 8), make_labels(range(6))
    batch = {"label": labels, "index": torch.arange(6), "names": list("abcdef"), "image": images}
    result = make(gray)(batch)
    assert list(result) == list(batch)
    assert result["index"] is batch["index"]
    assert result["names"] == batch["names"]
    assert result["label"] is labels
    assert changed_rows(images, result["image"]).all()
    as_list = make(gray)([images, labels])
    assert type(as_list) is list
    assert as_list[1] is labels


def test_models_compile_whole(gray, color):
    for model in (gray, color):
        images = torch.rand(4, model.spec.channels, model.spec.height, model.spec.width)
        labels = torch.tensor([0, 1, 2, 3])
        latents = torch.randn(4, model.latent_size)
        for part, arguments in ((model.posterior, (images, labels)), (model.decode_logits, (latents, labels))):
            compiled = torch.compile(part, fullgraph=True, backend="aot_eager")
            torch.testing.assert_close(compiled(*arguments), part(*arguments))


def test_a_compiled_model_draws_the_same_in_a_transform(gray):
    import copy

    twin = copy.deepcopy(gray)
    for part in (twin.encoder, twin.decoder.to_map, twin.decoder.to_images):
        part.compile(fullgraph=True, backend="aot_eager")
    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    results = []
    for model in (gray, twin):
        torch.manual_seed(0)
        results.append(LatentJitter(model, strength=1.0, p=0.5)(images, labels)[0])
    torch.testing.assert_close(*results, atol=ONE_LEVEL, rtol=0)
    assert changed_rows(images, results[1]).any()


def test_a_batch_transform_needs_labels(gray):
    with pytest.raises(DataError, match="a batch must have a tensor of labels"):
        LatentMix(gray)(torch.rand(4, 1, 8, 8))
