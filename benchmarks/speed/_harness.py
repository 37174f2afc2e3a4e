"""What all speed scripts share: the clock, the targets, the command line, the table, the file.

The sides of a comparison take turns, each once a round, and every other round runs backwards, so
that whatever else the machine does hits all of them alike. Figures are medians over the rounds.
Each side can have a process of its own, as it would have in real use: what one leaves behind in the
memory allocator and in caches of kernels would otherwise change the speed of the other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ltrobust.results.files import write_atomic

Row = dict[str, float]

TARGETS = {
    **{f"{what}/fp32/resnet18": 1.3 for what in ("pgd-at", "at-bsl", "taet")},
    **{f"{what}/fp32/small-cnn": 1.5 for what in ("pgd-at", "at-bsl", "taet")},
    **{f"{what}/bf16/resnet18": 2.4 for what in ("pgd-at", "at-bsl", "taet")},
    **{f"{what}/bf16/small-cnn": 3.0 for what in ("pgd-at", "at-bsl", "taet")},
    "trades/bf16/resnet18": 4.0,
    "trades/bf16/small-cnn": 4.0,
    "autoattack/fp32/small-cnn": 1.4,
    "autoattack/bf16/small-cnn": 2.5,
    "evaluation/fp32/small-cnn": 2.0,
    "data/uint8": 20.0,
}
"""Images a second of the fast side over the plain side that a case should reach on two cores."""

PEAK_SHARE = 0.75
"""A case that uses this share of the machine's bf16 matrix peak has reached its target as well."""


@dataclass(frozen=True)
class Options:
    """The command line of a speed script."""

    json: Path | None
    cases: tuple[str, ...]
    quick: bool
    device: torch.device
    data_dir: Path | None


@dataclass
class Findings:
    """Rows by case, and what else is worth printing beside them."""

    rows: dict[str, Row] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    peak_share: dict[str, float] = field(default_factory=dict)


def parse(description: str, cases: tuple[str, ...], argv: list[str] | None = None) -> Options:
    """Read the command line and set the number of threads; exits with 2 where it is wrong.

    Args:
        description: what the script measures.
        cases: all cases that it has.
        argv: arguments; default those of the process.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--only", default="", help="only cases with this text in their name")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--data-dir", type=Path, help="default: LTROBUST_DATA_DIR")
    asked = parser.parse_args(argv)
    if asked.threads < 1:
        parser.error(f"--threads {asked.threads}: give at least 1")
    if asked.device not in ("cpu", "cuda") or (
        asked.device == "cuda" and not torch.cuda.is_available()
    ):
        parser.error(f"--device {asked.device}: give cpu, or cuda where there is a GPU")
    chosen = tuple(case for case in cases if asked.only in case)
    if not chosen:
        parser.error(f"--only {asked.only}: no such case; there are {', '.join(cases)}")
    torch.set_num_threads(asked.threads)
    return Options(asked.json, chosen, asked.quick, torch.device(asked.device), asked.data_dir)


def alternate(
    sides: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    budget: float,
    device: torch.device,
    warm_up: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, list[float]]:
    """Run the sides in turns and return the seconds of every run by side.

    Args:
        sides: what to measure, by name.
        repeats: rounds at most, at least 1.
        budget: seconds after which no further round begins.
        device: waited for before the clock is read.
        warm_up: runs that are not counted; default every side once, {} for none.
    """
    for run in (sides if warm_up is None else warm_up).values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    began = time.perf_counter()
    for turn in range(repeats):
        names = list(sides)
        for name in names if turn % 2 == 0 else reversed(names):
            seconds[name].append(_clock(sides[name], device))
        if time.perf_counter() - began > budget:
            break
    return seconds


Make = Callable[..., Callable[[], Any]]
"""A function of a module that prepares a side, warms it up, and returns what is to be measured."""


@contextmanager
def in_processes(
    sides: Mapping[str, tuple[Make, tuple[Any, ...]]],
) -> Iterator[dict[str, Callable[[], Any]]]:
    """Prepare each side in a process of its own; yields what runs it there, by name.

    Args:
        sides: the function that makes a side, and its arguments, all of which can be pickled. A
            side's results must be, too.
    """
    # forked from a process that has imported but never computed: no threads of OpenMP are lost
    context = get_context("forkserver")
    # torch._dynamo: seconds of imports that every optimizer asks for
    context.set_forkserver_preload(["ltrobust.api", "pyautoattack", "torch._dynamo"])
    with ExitStack() as stack:
        runs: dict[str, Callable[[], Any]] = {}
        for name, (make, arguments) in sides.items():
            ours, theirs = context.Pipe()
            threads = torch.get_num_threads()
            worker = context.Process(target=_serve, args=(theirs, threads, make, arguments))
            worker.start()
            theirs.close()
            stack.callback(worker.join)
            stack.enter_context(closing(ours))
            _answer(ours)  # prepared
            runs[name] = lambda ours=ours: _ask(ours)
        yield runs


def judged(
    sides: Mapping[str, tuple[Make, tuple[Any, ...]]],
    repeats: int,
    budget: float,
    device: torch.device,
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Measure sides that take turns in processes of their own, and keep their last results."""
    results: dict[str, Any] = {}

    def keeping(name: str, run: Callable[[], Any]) -> Callable[[], None]:
        return lambda: results.update({name: run()})

    with in_processes(sides) as runs:
        kept = {name: keeping(name, run) for name, run in runs.items()}
        seconds = alternate(kept, repeats=repeats, budget=budget, device=device, warm_up={})
    return seconds, results


def _ask(connection: Connection) -> Any:
    connection.send("run")
    return _answer(connection)


def _answer(connection: Connection) -> Any:
    try:
        return connection.recv()
    except EOFError:
        raise SystemExit("a side ended with an error, see above") from None


def _serve(connection: Connection, threads: int, make: Make, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(threads)
    run = make(*arguments)
    connection.send(None)
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        found = run()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        connection.send(found)


def _clock(run: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare(plain: list[float], fast: list[float], images: int) -> Row:
    """Images a second of both sides (medians), their ratio, and the number of rounds."""
    per_second = {
        "plain": images / statistics.median(plain),
        "fast": images / statistics.median(fast),
    }
    return {**per_second, "ratio": per_second["fast"] / per_second["plain"], "n": len(plain)}


def finish(options: Options, findings: Findings) -> None:
    """Print the table and write the file."""
    Console(width=120).print(table(options, findings))
    if options.json is not None:
        text = json.dumps(findings.rows, indent=2) + "\n"
        write_atomic(options.json, text.encode())


def table(options: Options, findings: Findings) -> Table:
    """The figures, each ratio beside its target."""
    title = f"images a second, {options.device.type}, {torch.get_num_threads()} threads"
    shown = Table(title=title + (", QUICK: no measurement" if options.quick else ""))
    for heading in ("case", "plain", "fast", "ratio", "target", "n", ""):
        shown.add_column(heading, justify="left" if heading in ("case", "") else "right")
    for case, row in findings.rows.items():
        judged = options.device.type == "cpu" and not options.quick
        target = TARGETS.get(case) if judged else None
        shown.add_row(
            case,
            f"{row['plain']:.1f}",
            f"{row['fast']:.1f}",
            f"{row['ratio']:.2f}",
            "-" if target is None else f"{target:g} {_mark(row, target, findings, case)}",
            str(row["n"]),
            findings.notes.get(case, ""),
        )
    return shown


def _mark(row: Row, target: float, findings: Findings, case: str) -> str:
    if row["ratio"] >= target:
        return "reached"
    return "peak" if findings.peak_share.get(case, 0.0) >= PEAK_SHARE else "missed"
