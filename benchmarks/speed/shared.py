"""Steps whose attack several processes share out, against those of one: measured and by passes.

    python benchmarks/speed/shared.py --processes 2,4 --device cuda --json shared.json

On CUDA of resnet18 at batch 128 in bf16, one device a process; on a CPU of small-cnn at batch 64,
one thread each. `ms` and `cpu_ms` are a step's time by the clock and the processor time of process
0, which other work on the machine disturbs less; `ratio` and `cpu_ratio` are one process's over
these. `predicted` counts passes: those of the attack are shared out, the outer ones are not. Both
kinds take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ltrobust.bench.crew import joined, on_loopback
from ltrobust.bench.estimate import training_passes
from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.config import Run
from ltrobust.data import long_tail_counts
from ltrobust.float32 import true_float32
from ltrobust.method import Context
from ltrobust.results.files import write_atomic
from ltrobust.seeds import generator
from ltrobust.team import Team
from ltrobust.training.engine import TrainingModel
from ltrobust.training.step import train_step
from ltrobust.training.trainer import build, make_optimizer

METHODS = ("pgd-at", "trades", "at-bsl", "mart")
COUNTS = tuple(long_tail_counts(5000, 10, 50.0, "exp"))
ROUNDS = 5
Row = dict[str, float]


def run_of(method: str, device: str) -> Run:
    """The unified recipe on CIFAR-10-LT's shapes."""
    asked = {
        "methods": method,
        "dataset": "cifar10-lt",
        "arch": "resnet18" if device == "cuda" else "small-cnn",
        "precision": "bf16" if device == "cuda" else "fp32",
        "device": "cpu",  # it may be told on a machine without one
    }
    return make_plan(make_settings(asked)).runs[0].run


class Side:
    """A network in training, alone or in a team."""

    def __init__(self, run: Run, device: torch.device, team: Team | None) -> None:
        trained = build(run, COUNTS, (3, 32, 32))
        trained.net.to(device)
        self.team, self.method = team, trained.method
        self.model = TrainingModel(trained.net, run.precision)
        self.optimizer = make_optimizer(self.model, run.recipe)
        self.context = Context(
            class_counts=torch.tensor(COUNTS, device=device),
            epoch=run.recipe.epochs - 1,
            epochs=run.recipe.epochs,
            attack=run.recipe.attack,
            generator=generator(device, 0, "attack"),
            team=team,
            model=self.model,
            sampling=generator("cpu", 0, "sampling"),
            lr=run.recipe.lr,
        )

    def step(self, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
        """Take one; return seconds by the clock and of this process."""
        clock, own = time.perf_counter(), time.process_time()
        ctx = self.context.changed(index=torch.arange(len(x), device=x.device))
        train_step(self.model, self.method, x, y, ctx, self.optimizer)
        if self.team is not None:
            self.team.make_alike(self.model.net.state_dict().values())
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        return time.perf_counter() - clock, time.process_time() - own


def take_part(rank: int, size: int, file: str, device: str, quick: bool, target: str) -> None:
    """What each process does; process 0 writes the rows."""
    torch.set_num_threads(1)
    rows: dict[str, Row] = {}
    with on_loopback(), joined(dist.FileStore(file, size), rank, size, device) as team:
        place = torch.device(device)
        batch = 128 if device == "cuda" else 64
        draw = torch.Generator().manual_seed(0)
        x = torch.rand(batch, 3, 32, 32, generator=draw).to(place)
        y = torch.randint(10, (batch,), generator=draw).to(place)
        for method in METHODS[:1] if quick else METHODS:
            run = run_of(method, device)
            alone, shared = Side(run, place, None), Side(run, place, team)
            times: dict[Side, list[tuple[float, float]]] = {alone: [], shared: []}
            with true_float32(search_algorithms=True):
                for number in range(1 + (1 if quick else ROUNDS)):
                    for side in (alone, shared) if number % 2 else (shared, alone):
                        # while process 0 works alone, the others wait without working
                        if side is shared or team.leads:
                            times[side].append(side.step(x, y))
                        team.gathered(torch.zeros(1))
            if not team.leads:
                continue
            one, many = (
                [statistics.median(values) for values in zip(*times[side][1:], strict=True)]
                for side in (alone, shared)
            )
            rows[f"{method}/{size}"] = {
                "ms": 1e3 * many[0],
                "cpu_ms": 1e3 * many[1],
                "ratio": one[0] / many[0],
                "cpu_ratio": one[1] / many[1],
                "predicted": training_passes(run) / training_passes(run, size),
                "same_bits": float(same(alone.model, shared.model)),
            }
    if rank == 0:
        write_atomic(Path(target), json.dumps(rows).encode())


def same(one: TrainingModel, other: TrainingModel) -> bool:
    """Whether two networks hold the same numbers."""
    states = one.net.state_dict(), other.net.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def measured(size: int, device: str, quick: bool) -> dict[str, Row]:
    """The rows of a team of so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "rows"
        words = (size, f"{folder}/store", device, quick, str(target))
        processes = [
            get_context("spawn").Process(target=take_part, args=(rank, *words))
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        found: dict[str, Any] = json.loads(target.read_bytes())
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", default="2", help="numbers, such as 2,4")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="one step, to see that it runs")
    options = parser.parse_args()
    rows: dict[str, Row] = {}
    for size in options.processes.split(","):
        for name, row in measured(int(size), options.device, options.quick).items():
            print(name, {key: round(value, 2) for key, value in row.items()}, flush=True)
            rows[name] = row
        if options.json:
            write_atomic(options.json, (json.dumps(rows, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
