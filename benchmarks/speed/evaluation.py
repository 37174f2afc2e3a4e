"""Evaluation by all attacks but AutoAttack through the Evaluator against plain attack loops.

    python benchmarks/speed/evaluation.py --data-dir DIR --json evaluation.json

1,000 test images; the plain side gets the same starting noise, ready made, and must come to the
same verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import plain
import torch
from _harness import Findings, Options, alternate, compare, finish, parse
from _subject import Subject, subject
from torch import Tensor

from ltrobust.attacks.suite import attack_spec
from ltrobust.seeds import derive_seed

CASE = "evaluation/fp32/small-cnn"
ATTACKS = ("clean", *plain.ATTACKS)
IMAGES, QUICK_IMAGES = 1000, 40
ROUNDS, BUDGET = 5, 480.0
AGREEMENT = 0.005
"""Share of the images whose verdict may differ for an attack: float32 rounds."""

Verdicts = dict[str, list[bool]]


def starting_noise(attacked: Subject, seed: int = 0) -> Tensor:
    """The offset that the Evaluator draws for each image, from the image's own seed."""
    noise = torch.empty(attacked.test.images.shape)
    for row, index in enumerate(attacked.test.index.tolist()):
        draw = torch.Generator().manual_seed(derive_seed(seed, "start", index))
        noise[row].uniform_(-attacked.eps, attacked.eps, generator=draw)
    return noise.to(attacked.device)


def sides(attacked: Subject) -> dict[str, Callable[[], Verdicts]]:
    net, x, y = attacked.plain()
    noise = starting_noise(attacked)

    def plainly() -> Verdicts:
        return {name: plain.evaluate(net, x, y, name, attacked.eps, noise) for name in ATTACKS}

    def through_evaluator() -> Verdicts:
        evaluator, labels = attacked.evaluator(), attacked.test.labels
        specs = {name: attack_spec(name, attacked.eps) for name in ATTACKS}
        return {n: (evaluator.run(spec).pred == labels).tolist() for n, spec in specs.items()}

    return {"plain": plainly, "fast": through_evaluator}


def measure(options: Options) -> Findings:
    attacked = subject(options, QUICK_IMAGES if options.quick else IMAGES)
    verdicts: dict[str, Verdicts] = {}

    def keeping(name: str, run: Callable[[], Verdicts]) -> Callable[[], None]:
        return lambda: verdicts.update({name: run()})

    few = sides(attacked.first(20))
    seconds = alternate(
        {name: keeping(name, run) for name, run in sides(attacked).items()},
        repeats=1 if options.quick else ROUNDS,
        budget=BUDGET,
        device=options.device,
        warm_up=few,
    )
    count = len(attacked.test.labels)
    differ = {
        name: sum(a != b for a, b in zip(*(verdicts[s][name] for s in verdicts), strict=True))
        for name in ATTACKS
    }
    for name in ATTACKS:
        right = {side: sum(found[name]) for side, found in verdicts.items()}
        print(f"{name}: {right} of {count} stand, {differ[name]} verdicts differ", flush=True)
    if max(differ.values()) > max(1, math.floor(AGREEMENT * count)):
        raise SystemExit(f"{CASE}: the sides do not do the same: verdicts that differ {differ}")
    note = f"at most {max(differ.values())} of {count} verdicts differ"
    return Findings({CASE: compare(seconds["plain"], seconds["fast"], count)}, {CASE: note})


def main() -> None:
    options = parse(__doc__.partition("\n")[0], (CASE,))
    finish(options, measure(options))


if __name__ == "__main__":
    main()
