"""Has a change made anything slower? This checkout against another one, by turns.

    git worktree add ../before COMMIT
    python benchmarks/speed/against.py ../before --python ../before/.venv/bin/python

Each side is the fast side of the other scripts (training steps, evaluation, AutoAttack, on fewer
images), in a process of its own with that checkout's environment; they take turns, every other
round backwards. A ratio is the other's time over ours: below 1, ours is slower. About a quarter of
an hour on two cores on which nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from subprocess import DEVNULL, PIPE

CHECKOUT = Path(__file__).resolve().parents[2]
CASES = {
    **{f"training/{what}/fp32/small-cnn": 128 for what in ("pgd-at", "at-bsl", "taet", "trades")},
    "evaluation/fp32/small-cnn": 200,
    "autoattack/fp32/small-cnn": 40,
}
"""Case to its images; a training step has its batch."""
ROUNDS, BUDGET = 11, 130.0
"""Rounds of a case at most, and seconds after which none begins: three of AutoAttack."""


def side(case: str, images: int, quick: bool) -> Callable[[], object]:
    """One turn of a case by the scripts that come first on the path."""
    script, *which = case.split("/")
    module = import_module(script)
    flags = ["--quick"] if quick else []
    options = import_module("_harness").parse("", (case,), flags)
    if script == "training":
        return module.fast_side(*which, options)  # type: ignore[no-any-return]
    if not quick:
        module.IMAGES = images
    named = which[:1] if script == "autoattack" else []
    return module.fast_side(*named, options)  # type: ignore[no-any-return]


def serve(checkout: Path, case: str, images: int, quick: bool) -> None:
    """Take a turn for each line of the standard input, and say when it is done."""
    told = sys.stdout
    sys.stdout = sys.stderr
    sys.path[0] = str(checkout / "benchmarks" / "speed")
    run = side(case, images, quick)
    print("ready", file=told, flush=True)
    for _ in sys.stdin:
        run()
        print("done", file=told, flush=True)


@contextmanager
def started(words: Sequence[str], checkout: Path) -> Iterator[Callable[[], None]]:
    """A side in a process of its own; yields what lets it take a turn."""
    with subprocess.Popen(
        words, cwd=checkout, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        talk, told = process.stdin, process.stdout

        def wait_for(word: str) -> None:
            if told.readline() != f"{word}\n":
                raise SystemExit(f"a side ended with an error: {' '.join(words)}")

        def turn() -> None:
            print("go", file=talk, flush=True)
            wait_for("done")

        wait_for("ready")
        yield turn
        talk.close()


def measure(case: str, images: int, sides: Sequence[tuple[Path, str]], quick: bool) -> list[float]:
    """Ratios of a case, one a round: the other's seconds over ours."""
    import torch
    from _harness import alternate  # not above: a served side has that of its own checkout

    with ExitStack() as stack:
        turns = {}
        for number, (checkout, python) in enumerate(sides):
            words = [python, __file__, str(checkout), "--serve", case, str(images)]
            side = started(words + ["--quick"] * quick, checkout)
            turns[str(number)] = stack.enter_context(side)
        rounds = 1 if quick else ROUNDS
        cpu = torch.device("cpu")
        seconds = alternate(turns, repeats=rounds, budget=BUDGET, device=cpu, warm_up={})
    return [other / own for other, own in zip(*seconds.values(), strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=Path, help="the other one")
    parser.add_argument("--python", default=sys.executable, help="of its environment (this one)")
    parser.add_argument("--only", default="", help="only cases with this text in their name")
    parser.add_argument("--json", type=Path, help="where the ratios go")
    parser.add_argument("--quick", action="store_true", help="one tiny round of each")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.checkout, asked.serve[0], int(asked.serve[1]), asked.quick)
        return
    if not (asked.checkout / "benchmarks" / "speed" / "training.py").is_file():
        parser.error(f"{asked.checkout} is no checkout of ltrobust")
    chosen = [case for case in CASES if asked.only in case]
    if not chosen:
        parser.error(f"--only {asked.only}: no such case; there are {', '.join(CASES)}")
    sides = ((asked.checkout.resolve(), asked.python), (CHECKOUT, sys.executable))
    report = {}
    for case in chosen:
        ratios = measure(case, CASES[case], sides, asked.quick)
        middle = statistics.median(ratios)
        report[case] = {"ratio": middle, "low": min(ratios), "high": max(ratios), "n": len(ratios)}
        print(f"{case}: {middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f}, n = {len(ratios)})")
        if asked.json:
            asked.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
