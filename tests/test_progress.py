"""Lines of a log: one an epoch, each with the time and what is left; none of them in a terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from ltrobust.progress import Reporter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the reporter reads; a test moves them on."""
    now = [0.0]
    monkeypatch.setattr("ltrobust.progress.time.monotonic", lambda: now[0])
    return now


def train(reporter: Reporter, clock: list[float], epochs: int, done: int = 0) -> None:
    reporter.begin("run", "taet seed 0: epochs", epochs, done)
    for epoch in range(done, epochs):
        reporter.begin("part", f"epoch {epoch + 1}", 10)
        for _ in range(10):
            clock[0] += 6
            reporter.advance("part")
        reporter.advance("run")
        reporter.line(f"  epoch {epoch + 1}/{epochs}")


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_a_log_has_one_line_an_epoch_with_the_time_and_what_is_left(clock):
    stream = io.StringIO()
    with Reporter(Console(file=stream)) as reporter:
        train(reporter, clock, 4)
    told = [re.fullmatch(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(.*?)\] (.*)", x) for x in lines(stream)]
    assert [one[2] for one in told if one] == [f"  epoch {n}/4" for n in (1, 2, 3, 4)]
    left = [f", about {time} of training left" for time in ("3 min", "2 min", "60 s")] + [""]
    assert [one[1] for one in told if one] == left


def test_what_was_done_before_does_not_count_as_fast(clock):
    stream = io.StringIO()
    with Reporter(Console(file=stream)) as reporter:
        train(reporter, clock, 100, done=90)
    assert ", about 9 min of training left] " in lines(stream)[0]


def test_of_attacks_nobody_knows_what_is_left(clock):
    """AutoAttack takes a hundred times as long as the clean pass before it."""
    stream = io.StringIO()
    with Reporter(Console(file=stream)) as reporter:
        reporter.begin("run", "attacks", 3, alike=False)
        for _ in range(3):
            clock[0] += 1
            reporter.advance("run")
            reporter.line("done")
    assert not any("left" in line for line in lines(stream))


def test_a_long_attack_tells_how_far_it_is(clock):
    stream = io.StringIO()
    with Reporter(Console(file=stream), interval=300) as reporter:
        reporter.begin("part", "autoattack", 100)
        for _ in range(100):
            clock[0] += 10
            reporter.advance("part")
    assert [line.partition("] ")[2] for line in lines(stream)] == [
        "  autoattack: 31%, about 12 min left",
        "  autoattack: 62%, about 6 min left",
        "  autoattack: 93%, about 70 s left",
    ]


def test_a_copy_of_the_lines_has_no_times(clock):
    copied: list[str] = []
    with Reporter(Console(file=io.StringIO())) as reporter, reporter.copy_to(copied.append):
        train(reporter, clock, 2)
    assert copied == ["  epoch 1/2", "  epoch 2/2"]


def test_a_terminal_has_bars_instead(clock):
    stream = io.StringIO()
    with Reporter(Console(file=stream, force_terminal=True)) as reporter:
        reporter.line("begun")
    assert not re.search(r"\[\d{4}-", stream.getvalue())
