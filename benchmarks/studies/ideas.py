"""What single ideas of the CPU's fast path are worth: with all of them, and without one.

The gradient of the cross-entropy with respect to 128 images on the folded view, of which attacks
are made, and FAB's projection for 36 images. The sides take turns in one process; medians count.

    python benchmarks/studies/ideas.py --json ideas.json

About two minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "speed"))

import plain
from _harness import alternate
from pyautoattack.fab_projections import projection_linf

from ltrobust.allocator import keep_freed_memory
from ltrobust.attacks.pgd import attack_mode, input_gradient
from ltrobust.attacks.rows import QuickRows
from ltrobust.losses import cross_entropy_sum
from ltrobust.models import build_model, folded
from ltrobust.results.files import write_atomic

CPU = torch.device("cpu")
ROUNDS = {"small-cnn": 60, "resnet18": 8}
BATCH, CLASSES = 128, 10

Sides = dict[str, Callable[[], object]]


def view(arch: str, bf16: bool, *, own_relu: bool = True) -> folded.FoldedNetwork:
    """The folded view of an untrained network, with our ReLU or PyTorch's in place."""
    torch.manual_seed(0)
    net = build_model(arch, num_classes=CLASSES).eval()
    if not own_relu:
        plain.published(net, inplace=True)
    return folded.FoldedNetwork(net.to(memory_format=torch.channels_last), bf16=bf16)


def attack_steps(arch: str, bf16: bool) -> Sides:
    """The gradient with everything, and without each idea."""
    x = torch.rand(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = torch.arange(BATCH) % CLASSES
    ours, theirs = view(arch, bf16), view(arch, bf16, own_relu=False)

    def gradient(net: folded.FoldedNetwork, **settings: int) -> Callable[[], object]:
        def run() -> torch.Tensor:
            before = {name: getattr(folded, name) for name in settings}
            vars(folded).update(settings)
            try:
                with attack_mode(net):
                    return input_gradient(net, x, y, cross_entropy_sum)
            finally:
                vars(folded).update(before)

        return run

    sides = {
        "all": gradient(ours),
        "without the ReLU in place of its gradient": gradient(theirs),
        "without image gradients in squares": gradient(ours, IMAGE_CHANNELS=0),
    }
    if not bf16:
        sides["without pieces of 32 images"] = gradient(ours, CPU_PIECE=BATCH)
    return sides


def projections() -> Sides:
    """FAB's projection for 36 images, each twice, with many pixels at 0 and 1."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(72, 3072, generator=draw)
    x[:, ::5], x[:, 1::7] = 0.0, 1.0
    w = torch.randn(72, 3072, generator=draw)
    b = (w * x).sum(1) + torch.randn(72, generator=draw)

    def project(quick: bool) -> Callable[[], object]:
        def run() -> torch.Tensor:
            with QuickRows() if quick else nullcontext():
                return projection_linf(x, w, b)

        return run

    return {"all": project(True), "without quick rows": project(False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, help="default: 60 of small-cnn, 8 of resnet18")
    asked = parser.parse_args()
    if asked.rounds is not None and asked.rounds < 1:
        parser.error(f"--rounds {asked.rounds}: give at least 1")
    keep_freed_memory()
    cases = {"fab-projection": (projections(), ROUNDS["small-cnn"])}
    for arch, rounds in ROUNDS.items():
        for precision in ("fp32", "bf16"):
            cases[f"{arch}/{precision}"] = (attack_steps(arch, precision == "bf16"), rounds)
    rows: dict[str, dict[str, float]] = {}
    for case, (sides, rounds) in cases.items():
        seconds = alternate(sides, repeats=asked.rounds or rounds, budget=300.0, device=CPU)
        rows[case] = {side: 1e3 * median(times) for side, times in seconds.items()}
        for side, milliseconds in rows[case].items():
            ratio = milliseconds / rows[case]["all"]
            print(f"{case}, {side}: {milliseconds:.1f} ms, {ratio:.2f}", flush=True)
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(asked.json, (json.dumps(rows, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
