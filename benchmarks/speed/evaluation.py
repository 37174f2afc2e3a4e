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
from _harness import Findings, Make, Options, compare, finish, judged, parse
from _subject import Subject, subject
from torch import Tensor

from ltrobust.attacks.suite import attack_spec
from ltrobust.bench.plan import use_device
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


def plain_side(options: Options) -> Callable[[], Verdicts]:
    """The plain loops; the runs return which images stand, by attack."""

    def plainly(attacked: Subject) -> Callable[[], Verdicts]:
        net, x, y = attacked.plain()
        noise = starting_noise(attacked)
        return lambda: {
            name: plain.evaluate(net, x, y, name, attacked.eps, noise) for name in ATTACKS
        }

    return prepared(plainly, options)


def fast_side(options: Options) -> Callable[[], Verdicts]:
    """The attacks through the Evaluator."""
    use_device(options.device.type)

    def through_evaluator(attacked: Subject) -> Verdicts:
        evaluator, labels = attacked.evaluator(), attacked.test.labels
        specs = {name: attack_spec(name, attacked.eps) for name in ATTACKS}
        return {n: (evaluator.run(spec).pred == labels).tolist() for n, spec in specs.items()}

    return prepared(lambda attacked: lambda: through_evaluator(attacked), options)


def prepared(
    make: Callable[[Subject], Callable[[], Verdicts]], options: Options
) -> Callable[[], Verdicts]:
    """What is made for the subject, after a run on few images that is not counted."""
    attacked = subject(options, QUICK_IMAGES if options.quick else IMAGES)
    make(attacked.first(20))()
    return make(attacked)


def measure(options: Options) -> Findings:
    rounds = 1 if options.quick else ROUNDS
    sides: dict[str, tuple[Make, tuple[object, ...]]] = {
        "plain": (plain_side, (options,)),
        "fast": (fast_side, (options,)),
    }
    seconds, verdicts = judged(sides, rounds, BUDGET, options.device)
    count = len(verdicts["plain"]["clean"])
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
