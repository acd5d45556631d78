"""Directories and files appear whole or not at all, whatever goes wrong on the way."""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from genaug.errors import DataError, GenaugError
from genaug.storage import (
    check_folder,
    check_vacant,
    expand,
    explain_write_errors,
    hash_file,
    hold,
    new_directory,
    own_folder,
    write_json,
    write_text,
)


def contents(directory: Path) -> dict[str, str]:
    return {file.name: file.read_text() if file.is_file() else "directory" for file in directory.iterdir()}


def fill(directory: Path, mark: str) -> None:
    for name in ("config", "a", "z"):
        (directory / name).write_text(mark)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    fill(path, "old")
    (path / "stranger").write_text("kept")
    return path


def fail_inside(path: Path, overwrite: bool, problem: BaseException) -> None:
    with new_directory(path, overwrite=overwrite, last="config") as aside:
        fill(aside, "new")
        raise problem


def test_files_within_folders_are_flushed_before_the_change(tmp_path, monkeypatch) -> None:
    path, synced = tmp_path / "out", []
    flush = os.fsync

    def watch(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        flush(handle)

    monkeypatch.setattr(os, "fsync", watch)
    with new_directory(path, last="config") as aside:
        fill(aside, "new")
        (aside / "class" / "deep").mkdir(parents=True)
        (aside / "class" / "deep" / "0.png").write_text("pixels")
        (aside / "class" / "1.png").write_text("pixels")
    assert path.is_dir()
    assert {"config", "a", "z", "0.png", "1.png", "deep", "class"} < set(synced)
    assert synced.index("0.png") < synced.index("deep") < synced.index("class")


def test_a_folder_is_made_ready_and_held(tmp_path) -> None:
    folder = tmp_path / "out"
    with own_folder(folder, "results|part/.+", last="results"):
        (folder / "results").write_text("old")
        (folder / "part").mkdir()
        (folder / "part" / "a").write_text("old")
        for options in ({"keep": True}, {"overwrite": True}):
            with pytest.raises(GenaugError, match="another process writes to it"):
                own_folder(folder, "results", last="results", **options).__enter__()
    assert set(contents(folder)) == {"results", "part"}  # the lock is gone
    with pytest.raises(GenaugError, match="exists already"):
        own_folder(folder, "results|part/.+", last="results").__enter__()
    with own_folder(folder, "results|part/.+", last="results", keep=True):
        assert (folder / "results").read_text() == "old"
    with pytest.raises(GenaugError, match="holds part/a, which was not written by this"):
        own_folder(folder, "results", last="results", overwrite=True).__enter__()
    assert set(contents(folder)) == {"results", "part"}
    (folder / "part" / ".lock").write_text("")
    with hold(folder / "part", folder / "part" / ".lock"), pytest.raises(GenaugError, match="another process writes"):
        own_folder(folder, "results|part/.+", last="results", overwrite=True).__enter__()
    assert set(contents(folder)) == {"results", "part"}
    for left in (".lock", ".results.lock", "part/.a.tmp-0123", "part/.lock"):  # of a process that was killed
        (folder / left).write_text("")
    with own_folder(folder, "results|part/.+", last="results", overwrite=True):
        assert set(contents(folder)) == {".lock"}


WHOLE_OLD = {"config": "old", "a": "old", "z": "old", "stranger": "kept"}


def test_a_new_directory_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "out"
    with new_directory(path, last="config") as aside:
        assert aside.parent == path.parent
        assert not path.exists()
        fill(aside, "new")
    assert contents(path) == {"config": "new", "a": "new", "z": "new"}
    assert os.listdir(path.parent) == ["out"]


def test_permissions_follow_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "umask", None)  # which other threads that make files at that moment would feel
    with new_directory(tmp_path / "out", last="config") as aside:
        fill(aside, "new")
    write_text(tmp_path / "text", "x")
    (tmp_path / "plain").write_text("x")
    (tmp_path / "folder").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "folder").stat().st_mode
    assert (tmp_path / "text").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_existing_one_is_an_error(old: Path) -> None:
    with pytest.raises(GenaugError, match="out: exists already; .*--overwrite"), new_directory(old, last="config"):
        pytest.fail("the block must not run")
    assert contents(old) == WHOLE_OLD
    assert os.listdir(old.parent) == ["out"]


def test_overwriting_keeps_strangers_and_moves_the_last_file_last(old: Path) -> None:
    moved: list[str] = []
    recording = True

    def record(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename" and recording:
            moved.append(Path(str(arguments[1])).name)

    sys.addaudithook(record)
    with new_directory(old, overwrite=True, last="config") as aside:
        fill(aside, "new")
        assert {name: text for name, text in contents(old).items() if name != aside.name} == WHOLE_OLD
    recording = False
    assert contents(old) == {"config": "new", "a": "new", "z": "new", "stranger": "kept"}
    assert sorted(moved) == ["a", "config", "z"]
    assert moved[-1] == "config"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("problem", [KeyboardInterrupt(), RuntimeError("stop"), OSError(28, "No space left on device")])
def test_a_failing_block_leaves_nothing(tmp_path: Path, old: Path, overwrite: bool, problem: BaseException) -> None:
    path = old if overwrite else tmp_path / "fresh"
    expected = GenaugError if isinstance(problem, OSError) else type(problem)
    with pytest.raises(expected) as caught:
        fail_inside(path, overwrite, problem)
    if isinstance(problem, OSError):
        assert "cannot be written (No space left on device); what was there is unchanged" in str(caught.value)
    assert contents(old) == WHOLE_OLD
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["empty", "link to empty", "current"])
def test_an_empty_directory_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    inode = target.stat().st_ino
    path = target
    if kind == "link to empty":
        path = tmp_path / "link"
        path.symlink_to(target)
    elif kind == "current":
        monkeypatch.chdir(target)
        path = Path(".")
    with new_directory(path, last="config") as aside:
        fill(aside, "new")
    assert contents(target) == {"config": "new", "a": "new", "z": "new"}
    assert target.stat().st_ino == inode  # a mount point, or a shell's current directory, stays what it was


def test_nothing_is_replaced_where_one_file_cannot_be(old: Path) -> None:
    (old / "z").unlink()
    (old / "z").mkdir()
    with (
        pytest.raises(GenaugError, match="z in it is a directory"),
        new_directory(old, overwrite=True, last="a") as new,
    ):
        fill(new, "new")
    assert contents(old) == {**WHOLE_OLD, "z": "directory"}


@pytest.mark.parametrize("name", ["file/below", "file/far/below", "a" * 300, "a" * 300 + "/below", "null\0"])
def test_places_that_cannot_be_written_are_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(GenaugError, match="cannot be written|null"), new_directory(tmp_path / name, last="config"):
        pytest.fail("the block must not run")
    if "\0" not in name:
        with pytest.raises(GenaugError, match="cannot be written"):
            write_text(tmp_path / name, "text")
    assert contents(tmp_path) == {"file": "kept"}


def test_a_file_in_its_place_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for overwrite in (False, True):
        with pytest.raises(GenaugError), new_directory(tmp_path / "file", overwrite=overwrite, last="config") as aside:
            fill(aside, "new")
    assert contents(tmp_path) == {"file": "kept"}


def test_check_vacant(tmp_path: Path) -> None:
    check_vacant(tmp_path / "nothing")
    check_vacant(tmp_path)
    (tmp_path / "file").write_text("x")
    check_vacant(tmp_path, overwrite=True)
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(GenaugError, match="exists already"):
            check_vacant(path)


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert expand("~/x") == expand(Path("~/x")) == Path("/somewhere/x")
    assert expand("~") == Path("/somewhere")
    for path in ("x", "a/~", "/x", Path(".")):
        assert expand(path) == Path(path)


@pytest.mark.parametrize("error", [GenaugError, DataError])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("~nobody-of-this-name/x", "^~nobody-of-this-name/x: cannot be expanded"),
        ("a\0b", r"^path 'a\\x00b' cannot be read: .* without null characters"),
        ("~a\0b", "without null characters"),
        ("\ud800", "in valid Unicode"),
        (5, "path 5 cannot be read: it must be a string or a Path"),
        (None, "path None cannot be read"),
        (b"bank", "path b'bank' cannot be read"),
    ],
)
def test_paths_that_cannot_be_are_one_line(path: Any, message: str, error: type[GenaugError]) -> None:
    with pytest.raises(error, match=message) as caught:
        expand(path, error=error)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "text"
    write_text(path, "old")
    write_text(path, "né")
    assert path.read_bytes() == "né".encode()
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\udce9")
    assert path.read_bytes() == "né".encode()
    assert os.listdir(path.parent) == ["text"]


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [1]})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert contents(tmp_path) == {"x.json": '{\n  "a": [\n    1\n  ]\n}\n'}


def test_write_errors_name_the_path(tmp_path: Path) -> None:
    message = "place: cannot be written .Read-only file system.. Free some space or choose another"
    with pytest.raises(GenaugError, match=message), explain_write_errors(Path("place")):
        raise OSError(30, "Read-only file system")
    with (
        pytest.raises(GenaugError, match="place: cannot be written .told so.. Free"),
        explain_write_errors(Path("place")),
    ):
        raise OSError("told so")
    with pytest.raises(KeyError), explain_write_errors(Path("place")):
        raise KeyError


def test_hash_is_sha256(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    assert hash_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_errors_of_other_code_in_the_block_are_its_own(tmp_path: Path) -> None:
    others = FileNotFoundError(2, "No such file", str(tmp_path / "weights.pt")), ConnectionError(111, "refused")
    for problem in (*others, TimeoutError("timed out"), OSError("what Pillow says")):
        with pytest.raises(type(problem)) as caught:
            fail_inside(tmp_path / "out", False, problem)
        assert caught.value is problem
    for problem in (OSError(28, "No space left on device"), OSError(5, "Input/output error")):
        with pytest.raises(GenaugError, match="out: cannot be written .*; what was there is unchanged"):
            fail_inside(tmp_path / "out", False, problem)


def test_files_of_the_new_directory_are_the_disks(tmp_path: Path) -> None:
    with pytest.raises(GenaugError, match="out: cannot be written"), new_directory(tmp_path / "out", last="a") as aside:
        (aside / "no" / "folder").write_text("x")


def test_where_nothing_can_be_overwritten_no_option_is_named(old: Path) -> None:
    with pytest.raises(GenaugError, match="choose another output, or remove it first$"):
        check_vacant(old, overwrite=None)


def test_a_name_that_is_too_long_is_one_line() -> None:
    with pytest.raises(GenaugError, match="cannot be written .File name too long"):
        check_folder(Path("a" * 300), overwrite=True)
