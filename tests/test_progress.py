"""The progress bar, where its stream is no terminal."""

import re

from genaug.progress import estimate_left, progress_bar


def test_lines_tell_the_time_left(capsys, monkeypatch) -> None:
    """Work that advances in leaps: two processes end 5 s apart, every 300 s."""
    times = [seconds for turn in range(1, 6) for seconds in (300.0 * turn, 300.0 * turn + 5)]
    now = [0.0]
    monkeypatch.setattr("genaug.progress.time.monotonic", lambda: now[0])
    with progress_bar("comparing", total=40_000, done=10_000) as update:
        for seconds in times:
            now[0] = seconds
            update(3000, description="seed 0: plain")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "seed 0: plain 13000/40000 0:45:00 left"
    assert lines[1] == "seed 0: plain 16000/40000 0:20:20 left"  # 305 s for 6,000 steps
    assert lines[-1] == "seed 0: plain 40000/40000 0:00:00 left"
    assert all(re.fullmatch(r"seed 0: plain \d+/40000 0:\d\d:\d\d left", line) for line in lines)


def test_nothing_is_estimated_of_nothing() -> None:
    assert estimate_left(0.0, done=0, remaining=10) is None
    assert estimate_left(5.0, done=0, remaining=10) is None
    assert estimate_left(5.0, done=5, remaining=10) == 10.0
