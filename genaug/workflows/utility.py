"""Is it of use? Arms are tuned on a validation part and compared on the test part, with files, a table and a plot."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from genaug.data import LabeledImages, load_data
from genaug.data.parts import MissingPart
from genaug.data.splits import count_indices
from genaug.devices import choose_device
from genaug.errors import DataError, GenaugError, naming, shorten
from genaug.evaluate import Arm, Comparison, compare_arms
from genaug.evaluate.checks import check_arms
from genaug.evaluate.fitting import check_classifier
from genaug.evaluate.parts import check_classes, check_parts, find_missing, find_shared
from genaug.evaluate.pieces import RIVAL, Piece, build_on, compose_arms, rival_pieces
from genaug.evaluate.plots import plot_arms
from genaug.evaluate.runs import OWN_FILES as RESULT_FILES
from genaug.evaluate.search import Choice, choose_settings, split_for_search
from genaug.storage import expand, own_folder
from genaug.workflows.benchmarks import Benchmark
from genaug.workflows.classifiers import find_classifier
from genaug.workflows.model_pieces import model_pieces
from genaug.workflows.reports import say
from genaug.workflows.utility_report import is_synthetic, list_pieces, print_choice, print_utility

RESULTS = "results.json"
OURS = "genaug"
OWN_FILES = rf"(rivals|ours|results)({RESULT_FILES})|arms\.png|generators/.+"


def run_utility(
    benchmark: Benchmark,
    *,
    data: Any,
    test: Any = None,
    split: str | None = None,
    test_split: str | None = None,
    test_fraction: float | None = None,
    bank: str | Path | None = None,
    reading: Mapping[str, Any] | None = None,
    drop_shared: bool = False,
    output: str | Path,
    jobs: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    progress: bool = True,
) -> Comparison:
    """Tune arms on a validation part, compare them on the test part, and write and print what was found.

    The settings of the rivals, and which of them is the rival, are fixed first, from the training part alone. Then
    those of arms with samples of ours are: "rival+genaug" brings samples to the best rival that mixes nothing in, with
    the settings found for it. At last every arm is trained on the whole training part, for every seed, and tested. A
    benchmark that names its rival leaves the search out.

    Args:
        benchmark: which arms, classifier, budget and generator.
        data: what `genaug.data.load_data` takes: images with their classes, of any origin.
        test: other data to hold out; by default a part of `data`.
        split: the part to train on; "train" where there are parts.
        test_split: the held-out part; "test", or all of `test` where that is given.
        test_fraction: where there is no test part: hold out this share of each class of the training part.
        bank: path of a bank that "genaug" mixes in, in place of a generator that is trained for every seed. It must be
            made of the training part alone. The validation part may be among what it was made of, so its settings are
            chosen less well.
        reading: further arguments of `load_data` for both parts.
        drop_shared: leave out training images that are in the test part too; else they are an error.
        output: a folder for `rivals.json`, `ours.json`, `results.json`, each with a CSV file beside it, `arms.png`, and
            `generators/` with what was trained; meanwhile with states of runs that are not done.
        jobs: runs at once; see `compare_arms`.
        resume: go on from what is in `output`.
        overwrite: replace an earlier comparison in `output`.
        device: where to train; a GPU if there is one, else the CPU.
        progress: show a progress bar.

    Raises:
        GenaugError: parts that cannot be read or do not fit; unknown arms or classifier; an `output` that exists.
    """
    leaves_out = {
        "test_fraction": test_fraction is not None,
        "drop_shared": drop_shared,
        "class_counts": benchmark.class_counts is not None,
    }
    if bank is not None and any(leaves_out.values()):
        name = next(name for name, given in leaves_out.items() if given)
        raise GenaugError(
            f"a bank that was made of all data would know the images that {name} leaves out; leave them out of the "
            "data first, make the bank of the training part, and give held-out images as test"
        )
    target, where = expand(output), choose_device(device)
    train, held_out, part = load_train_and_test(
        benchmark,
        data=data,
        test=test,
        split=split,
        test_split=test_split,
        test_fraction=test_fraction,
        reading=dict(reading or {}),
        drop_shared=drop_shared,
    )
    pieces = {**rival_pieces(train.spec), **model_pieces(benchmark, bank=bank, cache=target / "generators")}
    names = list(benchmark.arms)
    if bank is not None and not any(OURS in name.split("+") for name in names):
        names += [f"{RIVAL}+{OURS}", f"{RIVAL}+{OURS}+replace", f"{RIVAL}+replay"]
    compose = partial(
        compose_arms, pieces=pieces, trials=benchmark.trials, budget=benchmark.budget, seed=benchmark.seed
    )
    built = [name for name in names if RIVAL in name.split("+")]  # once the rival is known
    settings = {name: compose(name) for name in names if name not in built}
    rivals = {name: tried for name, tried in settings.items() if _is_rival(name, pieces)}
    if benchmark.rival is not None:
        rivals = {benchmark.rival: settings[benchmark.rival]}
    if not rivals:
        raise GenaugError(f"arms must have at least one rival, without samples of ours, got {shorten(names)}")
    possible = {**settings, **{name: _compose_built(name, rivals, compose, pieces) for name in built}}
    flat = {f"{name} #{number + 1}": arm for name, tried in possible.items() for number, arm in enumerate(tried)}
    check_arms(flat, train, held_out)
    classifier = find_classifier(benchmark.classifier)
    mixes = any(arm.mix is not None for arm in flat.values())
    check_classifier(classifier, train, device=where, batch_size=benchmark.budget.batch_size, floats=mixes)
    if benchmark.rival is None:
        parts = split_for_search(train, benchmark.validation_fraction, seed=benchmark.seed)
        with naming("in the search for settings, which a named rival leaves out"):
            check_arms(flat, *parts)
    options: dict[str, Any] = {
        "budget": benchmark.budget,
        "classifier": classifier,
        "resume": resume,
        "jobs": jobs,
        "device": where,
        "progress": progress,
    }
    keep = resume and target.is_dir()
    with own_folder(target, OWN_FILES, last=RESULTS, overwrite=overwrite, keep=keep):
        rival, arms, favorite = _choose(
            benchmark, names, rivals, pieces, compose, train=train, target=target, bank=bank, options=options
        )
        comparison = compare_arms(
            arms,
            train=train,
            test=held_out,
            rival=rival,
            seeds=_seeds(benchmark, benchmark.seeds),
            output=target / RESULTS,
            **options,
        )
        plot_arms(comparison, target / "arms.png")
    print_utility(comparison, benchmark, pieces, part=part, favorite=favorite)
    say(f"Results, runs and a plot: {target}")
    return comparison


def load_train_and_test(
    benchmark: Benchmark,
    *,
    data: Any,
    test: Any,
    split: str | None,
    test_split: str | None,
    test_fraction: float | None,
    reading: dict[str, Any],
    drop_shared: bool,
) -> tuple[LabeledImages, LabeledImages, str]:
    """Return the training part, the test part, and what to call that."""
    train = load_data(data, split=split, **reading)
    if test_fraction is None:
        name = test_split or ("test" if test is None else "all")
        try:
            held_out = load_data(data if test is None else test, split=name, **reading)
        except MissingPart as problem:
            if test is not None or test_split is not None:
                raise
            raise DataError(
                f"no test part was found ({problem}); hold out a share of each class with --test-fraction 0.2 "
                "(test_fraction=), or pass other images with --test (test=)"
            ) from None
    elif test is not None or test_split is not None:
        raise GenaugError("test_fraction holds out images of the training part, so leave test and test_split out")
    else:
        kept, others = train.split(test_fraction, seed=benchmark.seed)
        held_out = train.subset(others)
        scarce = find_missing(train, held_out)
        if scarce:
            raise DataError(
                f"a test part of {test_fraction:g} needs more images of {shorten(scarce)}; add images, leave the class "
                "out, or hold out a larger share (of two images or more)"
            )
        train, name = train.subset(kept), f"{test_fraction:g} of each class"
    if benchmark.class_counts is not None:
        train = train.subset(count_indices(train.labels, benchmark.class_counts, seed=benchmark.seed))
    shared = find_shared(train, held_out) if drop_shared else []
    if shared:
        say(f"{len(shared)} training images that are in the test part too were left out.")
        train = train.subset(sorted(set(range(len(train))) - set(shared)))
    try:
        check_parts(train, held_out)
    except DataError as problem:
        hint = "; --drop-shared (drop_shared=True) leaves them out" if find_shared(train, held_out) else ""
        raise DataError(f"{problem}{hint}") from None
    check_classes(train, held_out)
    return train, held_out, name


def _choose(
    benchmark: Benchmark,
    names: Sequence[str],
    rivals: Mapping[str, Sequence[Arm]],
    pieces: dict[str, Piece],
    compose: Callable[..., Sequence[Arm]],
    *,
    train: LabeledImages,
    target: Path,
    bank: str | Path | None,
    options: Mapping[str, Any],
) -> tuple[str, dict[str, Arm], str | None]:
    """Return the rival, every arm with its best settings, and the best one with samples; set pieces["rival"]."""
    if benchmark.rival is not None:
        pieces[RIVAL] = build_on(rivals[benchmark.rival][0])
        return benchmark.rival, {name: compose(name)[0] for name in names}, None
    fraction = benchmark.validation_fraction
    search: Callable[..., Choice] = partial(
        choose_settings,
        train=train,
        fraction=fraction,
        seeds=_seeds(benchmark, benchmark.search_seeds),
        split_seed=benchmark.seed,
        **options,
    )
    chosen = search(rivals, output=target / "rivals.json")
    print_choice(chosen, "rivals", train=train, fraction=fraction)
    bases = [name for name in chosen.ranking if chosen.arms[name].source is None]
    if bases:
        pieces[RIVAL] = build_on(chosen.arms[bases[0]])
    rest = {name: compose(name) for name in names if name not in rivals}
    if not rest:
        return chosen.best, {name: chosen.arms[name] for name in names}, None
    ours = search(rest, output=target / "ours.json")
    if bank is not None:
        say("The bank may be made of validation images too: its scores here tell less than those of others.")
    print_choice(ours, "arms with samples", train=train, fraction=fraction)
    favorite = next((name for name in ours.ranking if is_synthetic(name, pieces)), None)
    found = chosen.arms | ours.arms
    return chosen.best, {name: found[name] for name in names}, favorite


def _seeds(benchmark: Benchmark, count: int) -> range:
    return range(benchmark.seed, benchmark.seed + count)


def _compose_built(
    name: str,
    rivals: Mapping[str, Sequence[Arm]],
    compose: Callable[..., Sequence[Arm]],
    pieces: Mapping[str, Piece],
) -> list[Arm]:
    """Return the arm as it is built on each one that the search may find; a `GenaugError` if one of them cannot be."""
    bases = [(rival, arm) for rival, tried in rivals.items() for arm in tried if arm.source is None]
    if not bases:
        raise GenaugError(f"arm {name!r} needs a rival that mixes nothing in, got {shorten(list(rivals))}")
    found: list[Arm] = []
    for rival, base in bases:
        try:
            found += compose(name, pieces={**pieces, RIVAL: build_on(base)})
        except GenaugError as problem:
            raise GenaugError(f"arm {name!r} cannot be built on {rival!r}: {problem}") from None
    return found


def _is_rival(name: str, pieces: Mapping[str, Piece]) -> bool:
    return not any(piece.synthetic or piece.control for piece in list_pieces(name, pieces))
