"""How much of standard AutoAttack's time is the network's? The rest no faster network can win.

Times the forward and backward passes of the network inside each part of AutoAttack, and all that
pyautoattack does around them (steps, projections, Square's bookkeeping), for the plain network and
for the views that evaluation searches with. On a CPU, where nothing runs behind the clock's back.

    python benchmarks/studies/autoattack_share.py --data-dir data --json autoattack-share.json

The pgd-at small-cnn of benchmarks/speed/subject; minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "speed"))

from _subject import checkpoint

from ltrobust.allocator import keep_freed_memory
from ltrobust.attacks.autoattack import Progress, autoattack
from ltrobust.attacks.pgd import attack_mode
from ltrobust.data import load_data
from ltrobust.results.files import write_atomic

CPU = torch.device("cpu")


class Timed(nn.Module):
    """A network that knows how long its passes took."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.seconds = 0.0
        self._began = 0.0

    def forward(self, x: Tensor) -> Tensor:
        began = time.perf_counter()
        inner = x.view_as(x)  # the attack's own leaf may carry hooks of its own
        logits = self.net(inner)
        self.seconds += time.perf_counter() - began
        if logits.requires_grad:
            logits.register_hook(self._start)
            inner.register_hook(self._stop)
        return logits

    def _start(self, _gradient: Tensor) -> None:
        self._began = time.perf_counter()

    def _stop(self, _gradient: Tensor) -> None:
        self.seconds += time.perf_counter() - self._began


def share(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, dict[str, float]]:
    """Seconds in all and in the network, by part."""
    timed = Timed(net)
    parts: dict[str, dict[str, float]] = {}
    last = [time.perf_counter(), 0.0]

    def tell(part: str, _share: float) -> None:
        now = time.perf_counter()
        row = parts.setdefault(part, {"seconds": 0.0, "network": 0.0})
        row["seconds"] += now - last[0]
        row["network"] += timed.seconds - last[1]
        last[:] = [time.perf_counter(), timed.seconds]

    with attack_mode(net):
        found: Progress = autoattack(
            timed, x, y, eps=eps, num_classes=10, seed=0, batch_size=250, tell=tell
        )
    total = {key: sum(row[key] for row in parts.values()) for key in ("seconds", "network")}
    parts["all"] = {**total, "stand": float((found.fell == 0).sum())}
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    keep_freed_memory()
    subject = checkpoint(load_data("cifar10-lt", data_dir=asked.data_dir), CPU).first(asked.images)
    net, x, y = subject.plain()
    evaluator = subject.evaluator()
    sides = {"plain": net, **{p: evaluator.search_model(p) for p in ("fp32", "bf16")}}
    rows = {}
    for name, side in sides.items():
        rows[name] = share(side, x, y, subject.eps)
        for part, row in rows[name].items():
            rest = 100 * (1 - row["network"] / row["seconds"])
            print(f"{name} {part}: {row['seconds']:.1f} s, {rest:.0f}% outside the network")
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(asked.json, (json.dumps(rows, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
