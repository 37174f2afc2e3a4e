"""Augmented batches of 128 without a model: one uint8 tensor on the device against PIL.

    python benchmarks/speed/data.py --json data.json

An epoch of 14,000 random 32x32 images (the size of CIFAR-10-LT at ratio 50): shuffle, crop, flip,
float in [0, 1]. The plain side's DataLoader has one worker, whose start is part of its epoch.
"""

from __future__ import annotations

import plain
import torch
from _harness import Findings, Options, alternate, compare, finish, parse
from torch import Tensor

from ltrobust.data import random_crop_flip, to_float

CASE = "data/uint8"
IMAGES, QUICK_IMAGES, BATCH = 14_000, 256, 128
ROUNDS, BUDGET = 9, 300.0


def fast_epoch(images: Tensor, order: torch.Generator, draw: torch.Generator) -> None:
    """The batches of one epoch, as the trainer makes them."""
    shuffled = torch.randperm(len(images), generator=order)
    for chosen in shuffled[: len(images) // BATCH * BATCH].split(BATCH):
        batch = images[chosen.to(images.device)]
        to_float(random_crop_flip(batch, padding=4, flip=True, generator=draw))


def plain_epoch(dataset: plain.PILImages, device: torch.device) -> None:
    for _ in plain.epoch(dataset, BATCH, device):
        pass


def measure(options: Options) -> Findings:
    count = QUICK_IMAGES if options.quick else IMAGES
    seeded = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=seeded)
    dataset = plain.PILImages(images, torch.zeros(count, dtype=torch.int64))
    resident = images.to(options.device)
    draw = torch.Generator(options.device).manual_seed(0)
    seconds = alternate(
        {
            "plain": lambda: plain_epoch(dataset, options.device),
            "fast": lambda: fast_epoch(resident, seeded, draw),
        },
        repeats=1 if options.quick else ROUNDS,
        budget=BUDGET,
        device=options.device,
    )
    row = compare(seconds["plain"], seconds["fast"], count // BATCH * BATCH)
    note = f"{row['plain'] / BATCH:.0f} and {row['fast'] / BATCH:.0f} batches a second"
    return Findings({CASE: row}, {CASE: note})


def main() -> None:
    options = parse(__doc__.partition("\n")[0], (CASE,))
    finish(options, measure(options))


if __name__ == "__main__":
    main()
