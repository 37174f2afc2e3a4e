"""Do two recipes rank defenses alike? Kendall's tau between them, attack by attack.

The runs of a suite are sorted by recipe, method and seed. A method's figure is its balanced
accuracy over the test images, averaged over seeds; tau compares the orders of the methods that both
recipes have. Its interval is the 2.5 to 97.5 percent of 2,000 repetitions, each with seeds of each
recipe and test images of each class (the same for every run) drawn anew with replacement. With a
handful of methods and two seeds it is wide, and it says nothing about other methods.

    ltrobust bench --suite fast-ranking-cpu --data-dir DIR
    python benchmarks/studies/ranking.py results/fast-ranking-cpu --json ranking.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from ltrobust.errors import UserError
from ltrobust.evaluation.metrics import class_groups
from ltrobust.results.collect import JudgedRun, collect
from ltrobust.results.files import write_atomic

ROUNDS = 2000
Stood = npt.NDArray[np.float64]
"""Which images stood, (seeds, N), 0 or 1."""


def stood(
    runs: list[JudgedRun], attack: str
) -> tuple[dict[str, dict[str, dict[int, Stood]]], npt.NDArray[np.int64]]:
    """By recipe, method and seed which test images stood (N,), and the images' labels (N,).

    Raises:
        UserError: runs were attacked on different images, or two are told apart by none of these.
    """
    found: dict[str, dict[str, dict[int, Stood]]] = {}
    labels: dict[str, npt.NDArray[np.int64]] = {}
    for judged in runs:
        run = judged.run
        for evaluation in judged.evaluations:
            outcomes = evaluation.outcomes() if evaluation.attack == attack else None
            if run is None or outcomes is None:
                continue
            outcomes = outcomes.sort_values("index")
            labels[evaluation.facts.test_sha256 or ""] = outcomes["label"].to_numpy(np.int64)
            right = outcomes["correct"].to_numpy(np.float64)
            seeds = found.setdefault(judged.recipe_name, {}).setdefault(judged.method, {})
            if run.seed in seeds:
                raise UserError(
                    f"{judged.method} under {judged.recipe_name} has several runs of seed "
                    f"{run.seed} under {attack}; give runs that differ in recipe, method and seed"
                )
            seeds[run.seed] = right
    if len(labels) != 1:
        raise UserError(f"{attack}: {len(labels)} sets of test images; give one suite's runs")
    (known,) = labels.values()
    return found, known


def figures(
    methods: Mapping[str, Stood],
    images: list[npt.NDArray[np.int64]],
    seeds: npt.NDArray[np.int64] | None = None,
) -> list[float]:
    """Each method's mean over classes and seeds, given each class's images."""
    chosen = [right if seeds is None else right[seeds] for right in methods.values()]
    return [float(np.mean([right[:, of].mean() for of in images])) for right in chosen]


def agreement(
    first: Mapping[str, Stood],
    second: Mapping[str, Stood],
    images: list[npt.NDArray[np.int64]],
    rounds: int = ROUNDS,
) -> dict[str, float | None]:
    """Kendall's tau-b between the orders of the methods, and its interval.

    Args:
        first: methods to which images stood; every method with the same seeds.
        second: the same methods.
        images: the positions of each class that counts.
        rounds: repetitions.

    Returns:
        tau, low, high; None where all methods of a side are equal.
    """
    draw = np.random.default_rng(0)
    seeds = [len(next(iter(side.values()))) for side in (first, second)]

    def tau(of: list[npt.NDArray[np.int64]], anew: bool) -> float:
        a, b = (
            figures(side, of, draw.integers(count, size=count) if anew else None)
            for side, count in zip((first, second), seeds, strict=True)
        )
        return float(kendalltau(a, b).statistic)

    drawn = [tau([draw.choice(of, len(of)) for of in images], anew=True) for _ in range(rounds)]
    known = [one for one in drawn if not np.isnan(one)] or [np.nan]
    low, high = np.percentile(known, [2.5, 97.5])
    found = {"tau": tau(images, anew=False), "low": float(low), "high": float(high)}
    return {name: None if np.isnan(value) else value for name, value in found.items()}


def study(runs: list[JudgedRun]) -> list[dict[str, object]]:
    """A row an attack and group of classes."""
    attacks = sorted({e.attack for judged in runs for e in judged.evaluations})
    counts = runs[0].train_counts
    groups = {"all": list(range(len(counts))), "tail": class_groups(counts)["tail"]}
    rows: list[dict[str, object]] = []
    for attack in attacks:
        sides, labels = stood(runs, attack)
        if len(sides) != 2:
            raise UserError(f"{attack}: runs of {len(sides)} recipes, the study compares two")
        (one, mine), (other, theirs) = sorted(sides.items())
        both = [name for name in mine if name in theirs]
        seeds = {tuple(sorted(side[name])) for side in (mine, theirs) for name in both}
        if len(both) < 2 or len(seeds) != 1:
            raise UserError(f"{attack}: needs two methods or more, all with the same seeds")
        (common,) = seeds
        first, second = (
            {name: np.stack([side[name][seed] for seed in common]) for name in both}
            for side in (mine, theirs)
        )
        for group, classes in groups.items():
            images = [np.flatnonzero(labels == c) for c in classes]
            images = [of for of in images if len(of)]
            rows.append(
                {
                    "attack": attack,
                    "classes": group,
                    "n": int(sum(len(of) for of in images)),
                    "seeds": len(common),
                    **agreement(first, second, images),
                    one: dict(zip(both, figures(first, images), strict=True)),
                    other: dict(zip(both, figures(second, images), strict=True)),
                }
            )
    return rows


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    flags.add_argument("suite", type=Path, help="a directory of runs under two recipes")
    flags.add_argument("--json", type=Path, required=True, help="where the figures are kept")
    asked = flags.parse_args()
    rows = study(collect([asked.suite]))
    write_atomic(asked.json, (json.dumps(rows, indent=1) + "\n").encode())
    table = Table("attack", "classes", "n", "Kendall's tau", "95% interval")
    for row in rows:
        tau, low, high = (
            "-" if row[key] is None else f"{row[key]:.2f}" for key in ("tau", "low", "high")
        )
        facts = (str(row[key]) for key in ("attack", "classes", "n"))
        table.add_row(*facts, tau, f"{low} to {high}")
    Console().print(table)


if __name__ == "__main__":
    main()
