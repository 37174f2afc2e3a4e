"""How time and memory grow: with the batch, with the training images, with the classes.

A small-cnn on 32 x 32 images of noise, on the CPU, in float32. Every size is measured several times
in turns and its fastest time counts, since other work on the machine only ever adds to it. Growth
is told as the exponent of size: the slope of a straight line through the logarithms. Memory is what
autograd keeps for the backward pass, or the data's tensors.

    OMP_NUM_THREADS=1 python benchmarks/studies/scaling.py --json scaling.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.config import Run
from ltrobust.data import LongTailedData
from ltrobust.losses import (
    balanced_softmax_loss,
    class_mean_losses,
    harl_loss,
    robal_margin_loss,
)
from ltrobust.method import Context
from ltrobust.training.engine import TrainingModel
from ltrobust.training.memory import kept_bytes
from ltrobust.training.step import train_step
from ltrobust.training.trainer import build, train

CPU = torch.device("cpu")
SHAPE = (3, 32, 32)
BATCH = 128
NO_WORSE = 1.1
"""An exponent up to here counts as linear: times of small sizes are noisy."""

LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross-entropy": lambda z, y, n: F.cross_entropy(z, y),
    "balanced softmax": balanced_softmax_loss,
    "class means": lambda z, y, n: class_mean_losses(z, y)[0].sum(),
    "harl": lambda z, y, n: harl_loss(z, y),
    "robal margin": lambda z, y, n: robal_margin_loss(z, y, n, m=0.1, s=10, tau_b=1.5, tau_m=0.3),
}
"""The first is what any classifier pays for its logits; the others are class-wise."""


@dataclass(frozen=True)
class Growth:
    """Seconds and bytes by size, and their exponents."""

    what: str
    sizes: list[int]
    seconds: list[float]
    bytes: list[int]
    time_exponent: float
    memory_exponent: float

    @property
    def verdict(self) -> str:
        """Whether neither time nor memory grows faster than the size."""
        worst = max(self.time_exponent, self.memory_exponent)
        return "linear or better" if worst <= NO_WORSE else "WORSE THAN LINEAR"


def growth(what: str, seconds: Mapping[int, float], memory: Mapping[int, int]) -> Growth:
    sizes = sorted(seconds)
    return Growth(
        what,
        sizes,
        [seconds[size] for size in sizes],
        [memory[size] for size in sizes],
        exponent(sizes, [seconds[size] for size in sizes]),
        exponent(sizes, [memory[size] for size in sizes]),
    )


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Slope of log(value) over log(size), by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def fastest(
    runs: Mapping[int, Callable[[], object]], repeats: int, loops: int = 1
) -> dict[int, float]:
    """Least seconds of each run over several rounds; in a round all take their turn."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(repeats + 1):
        for size, run in runs.items():
            began = time.perf_counter()
            for _ in range(loops):
                run()
            if turn:  # the first round warms up
                best[size] = min(best[size], (time.perf_counter() - began) / loops)
    return best


def run_of(method: str, steps: int) -> Run:
    flags = {"methods": method, "dataset": "cifar10-lt", "arch": "small-cnn", "epochs": 1}
    more = {"precision": "fp32", "device": "cpu", "option": [f"recipe.attack.steps={steps}"]}
    return make_plan(make_settings({**flags, **more})).runs[0].run


class Step:
    """A training step of a method on noise."""

    def __init__(self, method: str, batch: int, classes: int, steps: int) -> None:
        run = run_of(method, steps)
        counts = tuple(max(1, 1000 // (c + 1)) for c in range(classes))
        self.trained = build(run, counts, SHAPE)
        self.model = TrainingModel(self.trained.net, "fp32")
        self.x = torch.rand(batch, *SHAPE)
        self.y = torch.arange(batch) % classes
        draw = torch.Generator().manual_seed(0)
        # the last epoch: TAET attacks there
        self.ctx = Context(torch.tensor(counts), 99, 100, run.recipe.attack, draw)

    def __call__(self) -> None:
        train_step(self.model, self.trained.method, self.x, self.y, self.ctx)

    def bytes(self) -> int:
        method, x_adv = self.trained.method, self.x.clone()
        self.model.train()
        return kept_bytes(
            lambda x: method.loss(self.model, x, self.y, x_adv, self.ctx), self.x, self.trained.net
        )


def by_batch(quick: bool) -> list[Growth]:
    """A PGD-AT step with ten attack steps."""
    sizes = (8, 16) if quick else (16, 32, 64, 128, 256)
    steps = {size: Step("pgd-at", size, 10, 10) for size in sizes}
    memory = {size: step.bytes() for size, step in steps.items()}
    return [growth("step, by batch size", fastest(steps, 1 if quick else 5), memory)]


def noise_data(count: int) -> LongTailedData:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=draw)
    labels, index = torch.arange(count) % 10, torch.arange(count)
    names = tuple("abcdefghij")
    return LongTailedData("cifar10-lt", names, images, labels, index, images, labels, index)


def by_images(quick: bool) -> list[Growth]:
    """An epoch of PGD-AT with two attack steps and batches of 128; a batch left over is dropped."""
    sizes = (128, 256) if quick else (256, 512, 1024, 2048)
    run, data = run_of("pgd-at", 2), {size: noise_data(size) for size in sizes}
    runs = {size: (lambda d=part: train(run, d, device=CPU)) for size, part in data.items()}
    memory = {
        size: part.train_images.nbytes + part.train_labels.nbytes for size, part in data.items()
    }
    return [growth("epoch, by training images", fastest(runs, 1 if quick else 3), memory)]


def by_classes(quick: bool) -> list[Growth]:
    """Each loss forward and back on logits alone; and whole steps of the methods that use them."""
    sizes = (10, 100) if quick else (10, 100, 1000)
    found = []
    for name, loss in LOSSES.items():
        parts = {size: LossAlone(loss, size) for size in sizes}
        seconds = fastest(parts, 2 if quick else 15, loops=5 if quick else 50)
        memory = {size: part.bytes() for size, part in parts.items()}
        found.append(growth(f"{name}, by classes", seconds, memory))
    for method in ("pgd-at", "at-bsl", "taet", "robal"):
        batch, attack = (8, 1) if quick else (BATCH, 2)
        steps = {size: Step(method, batch, size, attack) for size in sizes}
        memory = {size: step.bytes() for size, step in steps.items()}
        seconds = fastest(steps, 1 if quick else 5)
        found.append(growth(f"{method} step, by classes", seconds, memory))
    return found


class LossAlone:
    """A loss of logits (128, C), forward and back."""

    def __init__(self, loss: Callable[[Tensor, Tensor, Tensor], Tensor], classes: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.loss = loss
        self.logits = torch.randn(BATCH, classes, generator=draw, requires_grad=True)
        self.y = torch.arange(BATCH) % classes
        self.counts = torch.arange(classes, 0, -1)

    def __call__(self) -> None:
        torch.autograd.grad(self.loss(self.logits, self.y, self.counts), self.logits)

    def bytes(self) -> int:
        return kept_bytes(lambda z: self.loss(z, self.y, self.counts), self.logits, nn.Identity())


def class_wise_ratios(found: list[Growth]) -> dict[str, list[float]]:
    """Time of each class-wise loss over that of the cross-entropy, by number of classes."""
    losses = {g.what: g.seconds for g in found if g.what.removesuffix(", by classes") in LOSSES}
    plain = next(iter(losses.values()))
    return {
        what: [a / b for a, b in zip(seconds, plain, strict=True)]
        for what, seconds in losses.items()
    }


def show(found: list[Growth], ratios: dict[str, list[float]]) -> None:
    table = Table(title=f"growth on {torch.get_num_threads()} thread(s); fastest of several rounds")
    for column in ("what", "sizes", "ms", "kB", "time ~ size^", "memory ~ size^", ""):
        table.add_column(column, overflow="fold")
    for g in found:
        table.add_row(
            g.what,
            " ".join(map(str, g.sizes)),
            " ".join(f"{1000 * s:.3g}" for s in g.seconds),
            " ".join(f"{b / 1000:.3g}" for b in g.bytes),
            f"{g.time_exponent:.2f}",
            f"{g.memory_exponent:.2f}",
            g.verdict,
        )
    console = Console(width=150)
    console.print(table)
    for what, values in ratios.items():
        shown = " ".join(f"{value:.2f}" for value in values)
        console.print(f"{what}: {shown} times the cross-entropy", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    asked = parser.parse_args()
    found = [*by_batch(asked.quick), *by_images(asked.quick), *by_classes(asked.quick)]
    ratios = class_wise_ratios(found)
    show(found, ratios)
    if asked.json:
        content = {
            "threads": torch.get_num_threads(),
            "growth": [{**asdict(g), "verdict": g.verdict} for g in found],
            "times_the_cross_entropy": ratios,
        }
        asked.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
