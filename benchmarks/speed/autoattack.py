"""Standard AutoAttack through the Evaluator against a direct call of pyautoattack.

    python benchmarks/speed/autoattack.py --data-dir DIR --json autoattack.json

200 images; both the exact search and the bf16 search with float32 verdicts. Minutes a round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import plain
import torch
from _harness import Findings, Make, Options, compare, finish, judged, parse
from _subject import Subject, subject
from pyautoattack import AutoAttack

from ltrobust.attacks.suite import attack_spec
from ltrobust.bench.plan import use_device

SEARCHES: dict[str, Literal["bf16"] | None] = {"fp32": None, "bf16": "bf16"}
CASES = tuple(f"autoattack/{precision}/small-cnn" for precision in SEARCHES)
IMAGES, QUICK_IMAGES, WARM_IMAGES = 200, 20, 8
ROUNDS, BUDGET = 3, 480.0
AGREEMENT = 0.02
"""Share of the images whose verdict may differ: searches with other rounding walk other ways."""


@contextmanager
def shortened() -> Iterator[None]:
    """Cut pyautoattack's iterations for whoever constructs it meanwhile, on both sides alike."""
    original = AutoAttack.__init__

    def short(self: AutoAttack, *args: object, **kwargs: object) -> None:
        original(self, *args, **kwargs)
        for attack in (self.apgd, self.apgd_targeted):
            attack.n_iter = attack.n_iter_orig = 3
            attack.n_iter_2 = attack.n_iter_min = attack.size_decr = 1
        self.fab.n_iter, self.square.n_queries = 2, 20

    AutoAttack.__init__ = short
    try:
        yield
    finally:
        AutoAttack.__init__ = original


def plain_side(options: Options) -> Callable[[], list[bool]]:
    """pyautoattack called directly; the runs return which images stand."""

    def directly(attacked: Subject) -> list[bool]:
        net, x, y = attacked.plain()
        with torch.random.fork_rng(devices=[0] if x.is_cuda else []):
            return plain.autoattack(net, x, y, attacked.eps)

    return prepared(directly, options)


def fast_side(precision: str, options: Options) -> Callable[[], list[bool]]:
    """AutoAttack through the Evaluator, on a search network of a precision."""
    use_device(options.device.type)

    def searched(attacked: Subject) -> list[bool]:
        spec = attack_spec("autoattack", attacked.eps, search=SEARCHES[precision])
        return (attacked.evaluator().run(spec).pred == attacked.test.labels).tolist()

    return prepared(searched, options)


def prepared(attack: Callable[[Subject], list[bool]], options: Options) -> Callable[[], list[bool]]:
    """The attack on the subject, after a short one that is not counted."""
    attacked = subject(options, QUICK_IMAGES if options.quick else IMAGES)
    with shortened():
        attack(attacked.first(WARM_IMAGES))

    def run() -> list[bool]:
        with shortened() if options.quick else nullcontext():
            return attack(attacked)

    return run


def measure(options: Options) -> Findings:
    wanted = [p for p in SEARCHES if f"autoattack/{p}/small-cnn" in options.cases]
    sides: dict[str, tuple[Make, tuple[object, ...]]] = {"plain": (plain_side, (options,))}
    for name in wanted:
        sides[name] = (fast_side, (name, options))
    rounds = 1 if options.quick else ROUNDS
    seconds, stands = judged(sides, rounds, BUDGET, options.device)
    findings = Findings()
    for name in wanted:
        case = f"autoattack/{name}/small-cnn"
        count = len(stands["plain"])
        differ = sum(a != b for a, b in zip(stands["plain"], stands[name], strict=True))
        findings.rows[case] = compare(seconds["plain"], seconds[name], count)
        findings.notes[case] = f"{differ} of {count} verdicts differ"
        if differ > max(1, math.floor(AGREEMENT * count)):
            raise SystemExit(f"{case}: {findings.notes[case]}: the sides do not do the same")
    return findings


def main() -> None:
    options = parse(__doc__.partition("\n")[0], CASES)
    finish(options, measure(options))


if __name__ == "__main__":
    main()
