"""Data sets of torchvision by name."""

import difflib
import gzip
import hashlib
import inspect
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genaug.data.parts import MissingPart, choose_parts, list_names, refuse_parts, say_what_is_in
from genaug.errors import DataError, shorten
from genaug.storage import expand


def is_vision_name(name: str) -> bool:
    """Tell whether torchvision has a data set of this name; other kinds of names do not import torchvision."""
    return name.isidentifier() and name[0].isupper() and name in _names()


def suggest_vision(name: str) -> str:
    """Return the end of a message: torchvision's data sets whose names are close to `name`, or nothing."""
    if not name.isidentifier():
        return ""
    names = {known.lower(): known for known in _names()}
    close = difflib.get_close_matches(name.lower().replace("_", ""), names, n=3)
    return f"; torchvision has {list_names(names[known] for known in close)}" if close else ""


def _names() -> list[str]:
    from torchvision import datasets

    classes = {name: getattr(datasets, name) for name in datasets.__all__ if name[0].isupper()}
    general = (datasets.ImageFolder, datasets.DatasetFolder, datasets.VisionDataset)
    return [name for name, kind in classes.items() if kind not in general and issubclass(kind, datasets.VisionDataset)]


def open_vision(name: str, *, split: str | None, root: "str | os.PathLike[str] | None", download: bool = False) -> Any:
    """Return torchvision's data set `name` in `root`; "train" and "test" are its parts where it has `train=`.

    The files of MNIST and its kin may be packed (.gz) and lie in `root` itself, as Debian's package
    dataset-fashion-mnist has them: they are unpacked beside, and `root` is left as it is. All these data sets call
    their files the same, so their checksums or the name of a folder above them must tell which one they are.

    Raises:
        DataError: no root, or no files of the data set in it, or those of another; an unknown part; a failed download.
    """
    from torch.utils.data import ConcatDataset
    from torchvision import datasets

    kind = getattr(datasets, name)
    fields = inspect.signature(kind.__init__).parameters
    required = [
        field.name
        for field in list(fields.values())[1:]
        if field.default is field.empty and field.kind is field.POSITIONAL_OR_KEYWORD and field.name != "root"
    ]
    if required:
        raise DataError(
            f"{name}: needs the argument {required[0]}, which has no option here; "
            f"make it in Python and pass it as data: load_data(torchvision.datasets.{name}(...))"
        )
    arguments: dict[str, Any] = {}
    if "root" in fields:
        arguments["root"] = _check_root(name, root, download=download)
    if download:
        if "download" not in fields and not any(field.kind is field.VAR_KEYWORD for field in fields.values()):
            raise DataError(f"{name}: cannot be downloaded by torchvision; leave --download out and get it by hand")
        arguments["download"] = True
    parts: list[dict[str, Any]]
    if "train" in fields:
        parts = [{"train": part == "train"} for part in choose_parts(["train", "test"], split, name)]
    elif "split" in fields:
        parts = [{} if split in (None, "train") and _is_train(fields["split"].default) else {"split": split or "train"}]
    else:
        refuse_parts(split, name)
        parts = [{}]
    with _unpacked(kind, arguments.get("root")) as place:
        opened = [_open(kind, name, {**arguments, **place, **part}, download=download) for part in parts]
    return opened[0] if len(opened) == 1 else ConcatDataset(opened)


def _is_train(default: Any) -> bool:
    return default in ("train", "train-standard")


def _check_root(name: str, root: "str | os.PathLike[str] | None", *, download: bool) -> str:
    hint = f"; for the folder ./{name} pass ./{name} as data" if os.path.isdir(name) else ""
    if root is None:
        raise DataError(
            f"{name}: needs the folder that it is in: pass --root DIR (root=), and --download (download=True) to fetch "
            f"it into there{hint}"
        )
    folder = expand(root, error=DataError)
    if not folder.is_dir() and not download:
        got = "a file" if folder.exists() else "nothing"
        raise DataError(
            f"{name}: root must be the folder that it is in, got {folder}, where there is {got}; correct --root, or "
            "fetch it into there with --download (download=True)"
        )
    return str(folder)


def _open(kind: Any, name: str, arguments: dict[str, Any], *, download: bool) -> Any:
    try:
        return kind(**arguments)
    except Exception as problem:  # RuntimeError, OSError, ValueError, ImportError, errors of archives and pickles
        reason = shorten(str(problem), 300)
        root = arguments.get("root")
        there = f"; {say_what_is_in(root)}" if root else ""
        fix = "check the connection" if download else "fetch it with --download (download=True), or correct --root"
        if "split" in str(problem) and isinstance(problem, ValueError):
            raise MissingPart(f"{name}: cannot be opened ({reason}){there}; choose another --split") from problem
        raise DataError(f"{name}: cannot be opened ({reason}){there}; {fix}") from problem


@contextmanager
def _unpacked(kind: Any, root: str | None) -> Iterator[dict[str, Any]]:
    """Yield {"root": folder} with MNIST's files unpacked, where `root` has them in another form; else nothing."""
    from torchvision.datasets import MNIST

    resources = getattr(kind, "resources", None) if issubclass(kind, MNIST) else None
    packed = [Path(url).name for url, _ in resources] if isinstance(resources, list) else []  # QMNIST has a dict
    ready = Path(root or "") / kind.__name__ / "raw"
    if not packed or root is None or all((ready / file.removesuffix(".gz")).is_file() for file in packed):
        yield {}
        return
    for folder in (ready, Path(root) / kind.__name__, Path(root)):
        files = [next((f for f in (folder / p.removesuffix(".gz"), folder / p) if f.is_file()), None) for p in packed]
        if None not in files:
            break
    else:
        yield {}
        return
    _check_kin(kind.__name__, folder, [file for file in files if file is not None])
    with tempfile.TemporaryDirectory(prefix="genaug-") as temporary:
        raw = Path(temporary) / kind.__name__ / "raw"
        raw.mkdir(parents=True)
        for file in filter(None, files):
            _unpack(file, raw / file.name.removesuffix(".gz"))
        yield {"root": temporary}


def _check_kin(name: str, folder: Path, files: list[Path]) -> None:
    """Raise a `DataError` where neither checksums nor folders tell that the files are those of the data set `name`."""
    from torchvision import datasets

    kin = (datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST)
    known = {md5: kind.__name__ for kind in kin for _, md5 in kind.resources}
    told = {known.get(hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()) for file in files} - {None}
    if told == {name}:
        return
    got = f"those of {list_names(sorted(map(str, told)))}"
    if not told:
        if any(_tells(name, place) for place in (folder.absolute(), folder.resolve())):
            return
        got = "files that neither their checksums nor the folder tell to be so"
    raise DataError(
        f"{name}: {folder} must hold its files, which are called as those of {', '.join(k.__name__ for k in kin)} are, "
        f"got {got}; if they are of {name}, move them into a folder {name}/raw and pass the folder above as --root"
    )


def _tells(name: str, folder: Path) -> bool:
    """Tell whether the folder, or else the nearest one above that speaks of MNIST or its kin, names this data set.

    >>> [_tells(name, Path("/mnist/fashion-mnist/raw")) for name in ("FashionMNIST", "MNIST", "KMNIST")]
    [True, False, False]
    """
    words = (re.sub(r"[-_ .]", "", part.lower()) for part in reversed(folder.parts))
    nearest = next((word for word in words if "mnist" in word), "")
    if name == "MNIST":  # which the names of its kin end with
        return re.search(r"(?<![a-z])mnist", nearest) is not None
    return name.lower() in nearest


def _unpack(file: Path, target: Path) -> None:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    except (OSError, EOFError, zlib.error) as problem:
        raise DataError(f"{file}: cannot be unpacked ({problem}); fetch the file again") from problem
