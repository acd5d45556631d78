"""ReplaceWithSynthetic and LatentMix: what ends up in which row, used as MixUp is."""

from functools import partial

import numpy as np
import pytest
import torch
from contract import changed_rows, floats, levels
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision.transforms import v2

from genaug import DataError, DataSpec, GenaugError, SampleBank, balance
from genaug.models import SmallCNN
from genaug.transforms import LatentMix, ReplaceWithSynthetic

pytestmark = pytest.mark.global_rng  # torchvision's transforms draw from torch's global generator


@pytest.fixture(scope="module")
def bank(gray):
    return SampleBank.generate(gray, 20, seed=0, progress=False)


def classes_in(bank, images):
    """The class of each image in the bank, by its pixels; -1 where it is not there."""
    pixels = bank.images(range(len(bank))).flatten(1)
    same = (images.flatten(1)[:, None] == pixels[None]).all(2)
    return torch.where(same.any(1), bank.labels[same.int().argmax(1)], -1)


def test_rows_are_replaced_by_samples_of_their_class(bank):
    images, labels = levels(90, 1, 8, 8), torch.arange(90) % 3
    after, same = ReplaceWithSynthetic(bank, 0.3)(images, labels)
    assert same is labels
    changed = changed_rows(images, after)
    assert int(changed.sum()) == 27
    assert torch.equal(classes_in(bank, after[changed]), labels[changed])


def test_the_share_holds_on_average(bank):
    images, labels = levels(3, 1, 8, 8), torch.tensor([0, 1, 2])
    replace = ReplaceWithSynthetic(bank, 0.25)
    torch.manual_seed(0)
    counts = [int(changed_rows(images, replace(images, labels)[0]).sum()) for _ in range(400)]
    assert set(counts) == {0, 1}
    assert abs(sum(counts) / 400 - 0.75) < 4 * (0.75 * 0.25 / 400) ** 0.5


def test_scarce_classes_by_weight(bank):
    images, labels = levels(60, 1, 8, 8), torch.zeros(60, dtype=torch.int64)
    replace = ReplaceWithSynthetic(bank, 0.5, classes={"b": 1, "c": 3})
    torch.manual_seed(0)
    drawn = torch.zeros(3)
    for _ in range(40):
        after, new = replace(images, labels)
        changed = changed_rows(images, after)
        assert int(changed.sum()) == 30
        assert torch.equal(classes_in(bank, after[changed]), new[changed])
        assert torch.equal(new[~changed], labels[~changed])
        drawn += new[changed].bincount(minlength=3)
    assert drawn[0] == 0
    assert abs(drawn[2] / 1200 - 0.75) < 4 * (0.75 * 0.25 / 1200) ** 0.5
    assert int(labels.sum()) == 0


def test_a_list_of_classes_is_drawn_from_equally(bank):
    images, labels = levels(300, 1, 8, 8), torch.zeros(300, dtype=torch.int64)
    _, new = ReplaceWithSynthetic(bank, 1.0, classes=["a", 2])(images, labels)
    counts = new.bincount(minlength=3).tolist()
    assert counts[1] == 0
    assert abs(counts[0] - 150) < 4 * (300 * 0.25) ** 0.5


def test_classes_that_the_bank_lacks_stay_real(gray):
    scarce = SampleBank.generate(gray, {"c": 5}, seed=0, progress=False)
    images, labels = levels(60, 1, 8, 8), torch.arange(60) % 3
    after, _ = ReplaceWithSynthetic(scarce, 0.5)(images, labels)
    changed = changed_rows(images, after)
    assert int(changed.sum()) == 10  # half of the 20 rows of "c": the other half must still be real
    assert set(labels[changed].tolist()) == {2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_one_hot_labels(dtype, bank):
    images, labels = levels(30, 1, 8, 8), one_hot(torch.arange(30) % 3, 3).to(dtype)
    after, new = ReplaceWithSynthetic(bank, 0.5, classes=["b"])(images, labels)
    changed = changed_rows(images, after)
    assert new.dtype == dtype
    assert torch.equal(new[changed], one_hot(torch.ones(15, dtype=torch.int64), 3).to(dtype))
    assert torch.equal(new[~changed], labels[~changed])
    kept = ReplaceWithSynthetic(bank, 0.5)(images, labels)[1]
    assert torch.equal(kept, labels)


def test_labels_of_small_integers(bank):
    labels = (torch.arange(6) % 3).to(torch.uint8)
    _, new = ReplaceWithSynthetic(bank, 1.0, classes=["b"])(levels(6, 1, 8, 8), labels)
    assert new.dtype == torch.uint8
    assert new.tolist() == [1] * 6


def test_normalized_batches_want_their_transform(bank):
    normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.3], [0.2])])
    images, labels = normalize(levels(30, 1, 8, 8)), torch.arange(30) % 3
    with pytest.raises(DataError, match="pass transform=, which does to uint8 samples what was done to real images"):
        ReplaceWithSynthetic(bank, 0.5)(images, labels)
    after, _ = ReplaceWithSynthetic(bank, 0.5, transform=normalize)(images, labels)
    changed = changed_rows(images, after)
    back = ((after[changed] * 0.2 + 0.3) * 255).round().to(torch.uint8)
    assert torch.equal(classes_in(bank, back), labels[changed])


def test_samples_of_another_size(bank):
    labels = torch.arange(6) % 3
    with pytest.raises(DataError, match=r"of the size of the batch \(1x16x16\), got 1x8x8; pass transform="):
        ReplaceWithSynthetic(bank, 0.5)(levels(6, 1, 16, 16), labels)
    after, _ = ReplaceWithSynthetic(bank, 1.0, transform=v2.Resize((16, 16)))(levels(6, 1, 16, 16), labels)
    assert after.shape == (6, 1, 16, 16)
    with pytest.raises(DataError, match=r"transform must make torch.uint8 \(6, 1, 16, 16\)"):
        ReplaceWithSynthetic(bank, 1.0, transform=v2.Resize((9, 9)))(levels(6, 1, 16, 16), labels)
    gray_as_color, _ = ReplaceWithSynthetic(bank, 1.0)(levels(6, 3, 8, 8), labels)
    assert torch.equal(classes_in(bank, gray_as_color[:, :1]), labels)
    assert torch.equal(gray_as_color[:, 0], gray_as_color[:, 2])


def test_a_model_is_drawn_from_directly(gray):
    images, labels = floats(20, 1, 8, 8), torch.arange(20) % 3
    replace = ReplaceWithSynthetic(gray, 0.5)
    torch.manual_seed(0)
    plan = replace.make_params([images, labels])["plan"]
    torch.manual_seed(0)
    after, _ = replace(images, labels)
    expected = gray.sample(labels[plan.rows], generator=torch.Generator().manual_seed(plan.seed))
    assert torch.equal(after[plan.rows], expected)


def test_used_as_mixup_in_the_workers_of_a_loader(bank):
    data = TensorDataset(floats(12, 1, 8, 8), torch.arange(12) % 3)
    collate = partial(_collate, ReplaceWithSynthetic(bank, 1.0))
    for images, labels in DataLoader(data, batch_size=4, num_workers=2, collate_fn=collate):
        back = (images * 255).round().to(torch.uint8)
        assert torch.equal(classes_in(bank, back), labels)


def _collate(transform, items):
    return transform(*default_collate(items))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda s: ReplaceWithSynthetic(s, 1.5), GenaugError, "fraction must be from 0 to 1, got 1.5"),
        (lambda s: ReplaceWithSynthetic(s, True), GenaugError, "fraction must be from 0 to 1, got True"),
        (lambda s: ReplaceWithSynthetic(s, 0.5, classes=["z"]), DataError, "classes must be of the source, got 'z'"),
        (lambda s: ReplaceWithSynthetic(s, 0.5, classes="a"), DataError, "classes must be a list of names or indices"),
        (lambda s: ReplaceWithSynthetic(s, 0.5, classes=[3]), DataError, "classes must be of the source, got 3"),
        (lambda s: ReplaceWithSynthetic(s, 0.5, classes={"a": -1}), DataError, "numbers of at least 0, got -1"),
        (lambda s: ReplaceWithSynthetic(s, 0.5, classes={"a": 0.0}), DataError, "must have a weight above 0"),
        (lambda s: ReplaceWithSynthetic(s, 0.5, transform=3), GenaugError, "transform must be a function"),
        (lambda s: ReplaceWithSynthetic(s, 0.5, labels_getter=None), GenaugError, "without labels cannot be used"),
        (lambda s: ReplaceWithSynthetic(SmallCNN(s.spec), 0.5), DataError, "source must be a bank or a model"),
    ],
)
def test_settings_that_cannot_be(make, error, message, bank):
    with pytest.raises(error, match=message):
        make(bank)


def test_a_class_to_draw_from_that_the_bank_lacks(gray):
    scarce = SampleBank.generate(gray, {"c": 5}, seed=0, progress=False)
    with pytest.raises(DataError, match="it has none of 'a'"):
        ReplaceWithSynthetic(scarce, 0.5, classes=["a", "c"])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (levels(3, 1, 8, 8), torch.tensor([0, 1, 3]), "class indices from 0 to 2"),
        (levels(3, 1, 8, 8), torch.tensor([0, 1]), r"labels must be as many as images \(3\), got 2"),
        (levels(3, 1, 8, 8), torch.rand(3), "a batch must have a tensor of labels"),
        (levels(3, 1, 8, 8), torch.rand(3, 4), "labels must have 3 columns"),
        (levels(1, 8, 8), torch.tensor([0]), r"one tensor of images \(N, C, H, W\)"),
        (levels(3, 8, 8).unbind(), torch.tensor([0, 1, 2]), r"one tensor of images \(N, C, H, W\)"),
    ],
)
@pytest.mark.parametrize("make", [lambda m: ReplaceWithSynthetic(m, 0.5), lambda m: LatentMix(m, across=True)])
def test_batches_that_do_not_fit(make, images, labels, message, gray):
    with pytest.raises(DataError, match=message):
        make(gray)(images, labels)


def test_mixing_within_a_class(gray):
    images, labels = floats(12, 1, 8, 8), torch.arange(12) % 3
    mix = LatentMix(gray, alpha=0.5, p=0.7)
    params = mix.make_params([images, labels])
    after, same = mix.change(images, labels, params)
    assert same is labels
    rows, partners = params["chosen"].nonzero().flatten(), params["partners"]
    assert torch.equal(labels[partners], labels)
    assert not (partners == torch.arange(12)).any()
    latents, share = gray.encode(images, labels), params["shares"][:, None]
    expected = gray.decode(share * latents + (1 - share) * latents[partners], labels)
    torch.testing.assert_close(after[rows], expected[rows], atol=1e-5, rtol=0)
    assert torch.equal(after[~params["chosen"]], images[~params["chosen"]])


def test_an_image_alone_in_its_class_stays(gray):
    images, labels = levels(3, 1, 8, 8), torch.tensor([0, 1, 1])
    after, _ = LatentMix(gray, p=1.0)(images, labels)
    assert changed_rows(images, after).tolist() == [False, True, True]


@pytest.mark.parametrize("soft", [False, True])
def test_mixing_across_classes(soft, gray):
    images, labels = floats(30, 1, 8, 8), torch.arange(30) % 3
    given = one_hot(labels, 3).double() if soft else labels
    mix = LatentMix(gray, p=0.5, across=True)
    params = mix.make_params([images, given])
    after, new = mix.change(images, given, params)
    share, partners, chosen = params["shares"][:, None], params["partners"], params["chosen"]
    latents = gray.encode(images)
    expected = gray.decode(share * latents + (1 - share) * latents[partners])
    torch.testing.assert_close(after[chosen], expected[chosen], atol=1e-5, rtol=0)
    hard = one_hot(labels, 3).to(new.dtype)
    mixed = share.to(new.dtype) * hard + (1 - share.to(new.dtype)) * hard[partners]
    torch.testing.assert_close(new, torch.where(chosen[:, None], mixed, hard))
    assert new.dtype == (torch.float64 if soft else torch.float32)
    assert (labels[chosen] != labels[partners][chosen]).any()


def test_shares_follow_the_beta_distribution(gray):
    images, labels = floats(2000, 1, 8, 8), torch.zeros(2000, dtype=torch.int64)
    for alpha in (0.2, 1.0, 8.0):
        shares = LatentMix(gray, alpha=alpha).make_params([images, labels])["shares"]
        variance = 1 / (4 * (2 * alpha + 1))  # of Beta(alpha, alpha)
        assert abs(float(shares.var()) / variance - 1) < 0.15


def test_mixing_images_of_other_sizes_and_channels(gray):
    images, labels = levels(6, 3, 20, 12), torch.tensor([0, 0, 0, 1, 1, 1])
    after, _ = LatentMix(gray, p=1.0, resize=True, channels="convert")(images, labels)
    assert after.shape == images.shape
    assert torch.equal(after[:, 0], after[:, 1])
    with pytest.raises(DataError, match="images must have 1 channels, got 3"):
        LatentMix(gray, p=1.0)(images, labels)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: LatentMix(m, p=1.5), "p must be from 0 to 1"),
        (lambda m: LatentMix(m, alpha=0.0), "alpha must be a number above 0"),
        (lambda m: LatentMix(m, alpha=float("nan")), "alpha must be a number above 0"),
        (lambda m: LatentMix(SmallCNN(m.spec)), "encode: SmallCNN cannot do this"),
    ],
)
def test_mixes_that_cannot_be(make, message, gray):
    with pytest.raises(GenaugError, match=message):
        make(gray)


def test_soft_labels_within_a_class(gray):
    with pytest.raises(DataError, match="to mix within a class, got soft ones; pass across=True"):
        LatentMix(gray)(floats(4, 1, 8, 8), torch.rand(4, 3))


def test_a_source_without_classes():
    from types import SimpleNamespace

    source = SimpleNamespace(spec=DataSpec(1, 8, 8), sample=lambda labels, *, generator=None: None)
    with pytest.raises(DataError, match="names of its classes"):
        ReplaceWithSynthetic(source, 0.5)


def test_the_same_seed_gives_the_same_batch(bank, gray):
    images, labels = floats(20, 1, 8, 8), torch.arange(20) % 3
    for transform in (ReplaceWithSynthetic(bank, 0.5, classes=[0, 1]), LatentMix(gray, across=True)):
        results = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            results.append(transform(images, labels))
        for first, second, other in zip(*results, strict=True):
            assert torch.equal(first, second)
            assert not torch.equal(first, other)


def test_repr_is_short(bank, gray):
    assert repr(ReplaceWithSynthetic(bank, 0.5)) == "ReplaceWithSynthetic(fraction=0.5, source='SampleBank')"
    assert repr(LatentMix(gray)) == "LatentMix(alpha=1.0, p=0.5, across=False, name=vae)"


def test_own_labels_getter(bank):
    images, labels = levels(6, 1, 8, 8), torch.arange(6) % 3
    batch = {"pixels": images, "meta": {"digit": labels}}
    replace = ReplaceWithSynthetic(bank, 1.0, classes=["c"], labels_getter=lambda batch: batch["meta"]["digit"])
    after = replace(batch)
    assert after["meta"]["digit"].tolist() == [2] * 6
    copied = ReplaceWithSynthetic(bank, 1.0, classes=["c"], labels_getter=lambda batch: batch["meta"]["digit"] + 0)
    with pytest.raises(DataError, match="labels_getter must return a tensor of the batch itself"):
        copied(batch)
    assert torch.equal(batch["pixels"], levels(6, 1, 8, 8))


def test_smoothed_labels_stay_as_they_are(bank):
    smooth = one_hot(torch.arange(6) % 3, 3).float() * 0.9 + 0.1 / 3
    after, labels = ReplaceWithSynthetic(bank, 1.0)(levels(6, 1, 8, 8), smooth)
    assert labels is smooth
    assert torch.equal(classes_in(bank, after), torch.arange(6) % 3)


def test_labels_that_are_replaced_need_not_be_known(bank):
    labels = torch.tensor([-1, 2, 7])
    _, new = ReplaceWithSynthetic(bank, 1.0, classes=[1])(levels(3, 1, 8, 8), labels)
    assert new.tolist() == [1, 1, 1]


def test_each_batch_is_looked_at(bank):
    replace, labels = ReplaceWithSynthetic(bank, 0.5), torch.arange(6) % 3
    replace(floats(6, 1, 8, 8), labels)
    with pytest.raises(DataError, match="pass transform="):
        replace(floats(6, 1, 8, 8) * 2 - 1, labels)


def test_numbers_and_classes_of_numpy(bank):
    replace = ReplaceWithSynthetic(bank, np.float32(1.0), classes=np.array([2]))
    assert replace(levels(3, 1, 8, 8), torch.tensor([0, 1, 2]))[1].tolist() == [2, 2, 2]
    assert ReplaceWithSynthetic(bank, 1.0, classes={1})(levels(1, 1, 8, 8), torch.tensor([0]))[1].tolist() == [1]
    with pytest.raises(DataError, match="classes must not repeat"):
        ReplaceWithSynthetic(bank, 0.5, classes={"b": 1.0, 1: 0.0})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x, y: (x, y, torch.arange(6)),
        lambda x, y: (x, {"labels": y}),
        lambda x, y: {"img": x, "Label": y},
        lambda x, y: {"image": x, "fine_label": y},
    ],
    ids=["three", "dict in tuple", "capital", "fine"],
)
def test_labels_are_found_where_mixup_finds_them(wrap, bank, gray):
    batch = wrap(floats(6, 1, 8, 8), torch.arange(6) % 3)
    for transform in (v2.MixUp(num_classes=3), LatentMix(gray, p=1.0), ReplaceWithSynthetic(bank, 1.0)):
        after = transform(batch)
        first = after[0] if isinstance(after, tuple) else next(iter(after.values()))
        assert first.shape == (6, 1, 8, 8)


def test_models_by_name_are_checked_when_the_transform_is_made() -> None:
    for name, message in (("denoiser-gray", "encode: denoiser cannot"), ("fashion-mnist-gan", "encode: gan cannot")):
        with pytest.raises(GenaugError, match=message):
            LatentMix(name)


@pytest.mark.parametrize("seed", range(4))
def test_labels_out_of_range_do_not_pass_by_chance(seed: int) -> None:
    torch.manual_seed(seed)
    with pytest.raises(DataError, match="labels must be class indices from 0 to 9"):
        LatentMix("digits-vae", p=0.1)(torch.rand(4, 1, 8, 8), torch.tensor([0, 11, 3, 3]))


def test_numbers_of_numpy() -> None:
    assert LatentMix("digits-vae", alpha=np.float32(0.5)).alpha == 0.5
    assert balance([10, 2], target="max", cap=np.int64(1)) == [0, 2]
