"""1,000 runs on 100 GPUs: how near a launcher comes to the least time, and what files it writes.

A simulation, no measurement: runs of 0.5, 1, 2, 3 and 6 hours (200 each, each up to 20 % shorter or
longer) are handed to GPUs in some order. A stopped run loses what was not saved and waits for its
next turn; the reliability checks at its end begin anew. The least time is all work over all GPUs.

    python benchmarks/studies/many_runs.py --json many_runs.json
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ltrobust.models import build_model

HOURS = (0.5, 1.0, 2.0, 3.0, 6.0)
EACH = 200
SPREAD = 0.2
GPUS = 100
EPOCHS = 100
CHECKS = 0.03
"""Part of a run that its reliability checks take."""
SEEDS = 5
NETWORKS = ("resnet18", "wrn-28-10", "wrn-34-10")
EPOCH_SECONDS = (5, 20, 60, 300)
SAVE_EVERY = 300
WRITES_EACH_EPOCH, WRITES_EACH_RUN = 2, 15
BEAT = 20
HOUR = 3600.0


@dataclass(frozen=True)
class Site:
    """A cluster and how it is used; all times in seconds.

    Attributes:
        order: how runs are handed out: "longest", "shortest" or "plan" (as they come).
        guess: how far a guessed length may be off, as a part of it; the order is by guesses.
        start: from a free GPU to the first step: the interpreter, imports, data.
        gap: from the end of a job to the next one on its GPU.
        between_stops: mean time between two kills of a GPU's job; None: none.
        save_every: least time between two saved states; infinite: nothing is saved.
        requeue: from a kill to the next turn.
        runs_a_job: runs that one job does after another.
    """

    order: str = "longest"
    guess: float = 0.0
    start: float = 40.0
    gap: float = 5.0
    between_stops: float | None = None
    save_every: float = SAVE_EVERY
    requeue: float = 125.0
    runs_a_job: int = 1


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        ratio: time until the last run was done over the least time.
        twice: work that was done again, as a part of all work.
        stops: kills.
    """

    ratio: float
    twice: float
    stops: float


SITES = {
    "longest first": Site(),
    "longest first, lengths guessed within 50 %": Site(guess=0.5),
    "in the plan's order": Site(order="plan"),
    "shortest first": Site(order="shortest"),
    "plan's order, four runs a job": Site(order="plan", runs_a_job=4),
    "longest first, starts take 5 minutes": Site(start=300.0),
    "longest first, killed every 24 h a GPU": Site(between_stops=24 * HOUR),
    "longest first, killed every 4 h a GPU": Site(between_stops=4 * HOUR),
    "the same, every epoch saved": Site(between_stops=4 * HOUR, save_every=0.0),
    "the same, nothing saved": Site(between_stops=4 * HOUR, save_every=math.inf),
}


def simulate(site: Site, seed: int) -> Outcome:
    """Hand out all runs to GPUs as they become free."""
    rng = random.Random(seed)
    runs = [
        hours * HOUR * rng.uniform(1 - SPREAD, 1 + SPREAD) for hours in HOURS for _ in range(EACH)
    ]
    rng.shuffle(runs)
    if site.order != "plan":
        guesses = [run * rng.uniform(1 - site.guess, 1 + site.guess) for run in runs]
        places = sorted(range(len(runs)), key=guesses.__getitem__)
        runs = [runs[i] for i in places]
    if site.order == "longest":
        runs.reverse()
    free = [0.0] * GPUS
    end, again, stops = 0.0, 0.0, 0
    for first in range(0, len(runs), site.runs_a_job):
        clock = heapq.heappop(free) + site.gap
        for work in runs[first : first + site.runs_a_job]:
            took, lost, stopped = one_run(work, site, rng)
            clock, again, stops = clock + took, again + lost, stops + stopped
        heapq.heappush(free, clock)
        end = max(end, clock)
    return Outcome(end / (sum(runs) / GPUS), again / sum(runs), stops)


def one_run(work: float, site: Site, rng: random.Random) -> tuple[float, float, int]:
    """One run with its kills: seconds on its GPU, seconds of work that were lost, and kills."""
    done, took, lost, stops = 0.0, site.start, 0.0, 0
    while True:
        stop = math.inf
        if site.between_stops is not None:
            stop = rng.expovariate(1 / site.between_stops)
        if done + stop >= work:
            return took + work - done, lost, stops
        kept = max(done, saved(done + stop, work, site.save_every))
        lost += done + stop - kept
        took += stop + site.requeue + site.start
        done, stops = kept, stops + 1


def saved(done: float, work: float, save_every: float) -> float:
    """What a kill leaves of a run: whole epochs, as far as they were saved; checks begin anew."""
    if math.isinf(save_every):
        return 0.0
    training = work * (1 - CHECKS)
    epoch = training / EPOCHS
    if done >= training:
        return training
    grain = epoch * max(1, math.ceil(save_every / epoch))
    return done // grain * grain


def mean(site: Site) -> Outcome:
    """The mean over some seeds."""
    found = [simulate(site, seed) for seed in range(SEEDS)]

    def over(part: Callable[[Outcome], float]) -> float:
        return statistics.mean(map(part, found))

    return Outcome(over(lambda o: o.ratio), over(lambda o: o.twice), over(lambda o: o.stops))


def table(found: Mapping[str, Outcome]) -> str:
    """The outcomes as docs/cluster.md shows them."""
    rows = [
        f"| {name} | {outcome.ratio:.3f} | {100 * outcome.twice:.2f}% | {outcome.stops:.0f} |"
        for name, outcome in found.items()
    ]
    head = ["| | time | work done twice | kills |", "|---|---:|---:|---:|"]
    return "\n".join([*head, *rows])


def megabytes(network: str) -> float:
    """What a saved state takes: weights and the optimiser's momentum."""
    with torch.device("meta"):
        model = build_model(network, num_classes=10)
    return 2 * 4 * sum(weights.numel() for weights in model.parameters()) / 1e6


def main() -> None:
    """Print a table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    found = {name: mean(site) for name, site in SITES.items()}
    least = statistics.mean(HOURS) * len(HOURS) * EACH / GPUS
    print(f"{len(HOURS) * EACH:,} runs on {GPUS} GPUs, {least:.0f} hours at the least")
    print(table(found))
    states = {network: megabytes(network) for network in NETWORKS}
    print(f"\nMB/s of saved states: each epoch | at most every {SAVE_EVERY} s")
    for network, size in states.items():
        rates = (
            f"{GPUS * size / s:6.0f} | {GPUS * size / max(s, SAVE_EVERY):4.0f}"
            for s in EPOCH_SECONDS
        )
        cells = (f"{s} s an epoch {rate}" for s, rate in zip(EPOCH_SECONDS, rates, strict=True))
        print(f"{network:10} {size:5.1f} MB   " + "   ".join(cells))
    runs = len(HOURS) * EACH
    writes = runs * (WRITES_EACH_EPOCH * EPOCHS + WRITES_EACH_RUN)
    print(
        f"\n{writes:,} small writes, {writes / least / HOUR:.1f}/s; claims "
        f"{GPUS / BEAT:.0f} writes/s"
    )
    for network, size in states.items():
        print(f"weights kept, {network}: {runs * size / 2 / 1000:.0f} GB")
    if given.json is not None:
        content = {"outcomes": {k: asdict(v) for k, v in found.items()}, "state_mb": states}
        given.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
