"""Standard AutoAttack through the Evaluator against a direct call of pyautoattack.

    python benchmarks/speed/autoattack.py --data-dir DIR --json autoattack.json

200 images; both the exact search and the bf16 search with float32 verdicts. Minutes a round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import plain
import torch
from _harness import Findings, Options, alternate, compare, finish, parse
from _subject import Subject, subject
from pyautoattack import AutoAttack

from ltrobust.attacks.suite import attack_spec

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


def sides(attacked: Subject, wanted: list[str]) -> dict[str, Callable[[], list[bool]]]:
    """What to run, by side; each returns which images stand."""
    net, x, y = attacked.plain()

    def directly() -> list[bool]:
        with torch.random.fork_rng(devices=[0] if x.is_cuda else []):
            return plain.autoattack(net, x, y, attacked.eps)

    def searched(precision: str) -> Callable[[], list[bool]]:
        spec = attack_spec("autoattack", attacked.eps, search=SEARCHES[precision])
        return lambda: (attacked.evaluator().run(spec).pred == attacked.test.labels).tolist()

    return {"plain": directly, **{name: searched(name) for name in wanted}}


def measure(options: Options) -> Findings:
    wanted = [p for p in SEARCHES if f"autoattack/{p}/small-cnn" in options.cases]
    attacked = subject(options, QUICK_IMAGES if options.quick else IMAGES)
    stands: dict[str, list[bool]] = {}

    def keeping(name: str, run: Callable[[], list[bool]]) -> Callable[[], None]:
        return lambda: stands.update({name: run()})

    with shortened():
        for warm in sides(attacked.first(WARM_IMAGES), wanted).values():
            warm()
    seconds = alternate(
        {name: keeping(name, run) for name, run in sides(attacked, wanted).items()},
        repeats=1 if options.quick else ROUNDS,
        budget=BUDGET,
        device=options.device,
        warm_up={},
    )
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
    if options.quick:
        with shortened():
            findings = measure(options)
    else:
        findings = measure(options)
    finish(options, findings)


if __name__ == "__main__":
    main()
