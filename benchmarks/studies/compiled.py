"""Is torch.compile worth it inside the attack? The folded view as it is against the compiled one.

What is timed is the gradient of the cross-entropy with respect to a batch of images, of which an
attack is made, in eval mode with frozen weights. The two take turns; medians count. The seconds
that compiling takes are told apart. On CUDA the compiled view also runs as a CUDA graph.

    python benchmarks/studies/compiled.py --json compiled.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust.allocator import keep_freed_memory
from ltrobust.attacks.pgd import attack_mode, input_gradient
from ltrobust.bench.store import write_atomic
from ltrobust.models import build_model
from ltrobust.models.folded import FoldedNetwork

MODES = {"cpu": ("default",), "cuda": ("default", "reduce-overhead")}
ROUNDS, BATCH, CLASSES = 15, 128, 10


def gradient(view: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    return input_gradient(view, x, y, lambda z, t: F.cross_entropy(z, t, reduction="sum"))  # type: ignore[arg-type]


def clock(run: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def trial(arch: str, bf16: bool, mode: str, batch: int, device: torch.device) -> dict[str, Any]:
    """Medians of both sides, their ratio, and how far their gradients lie apart."""
    torch.manual_seed(0)
    net = build_model(arch, num_classes=CLASSES).to(device)
    x = torch.rand(batch, 3, 32, 32, device=device)
    y = torch.arange(batch, device=device) % CLASSES
    with attack_mode(net):
        view = FoldedNetwork(net, bf16=bf16)
        torch.compiler.reset()
        compiled = torch.compile(FoldedNetwork(net, bf16=bf16), mode=mode)
        began = time.perf_counter()
        try:
            found = gradient(compiled, x, y).clone()  # a graph writes over its output
        except Exception as error:  # no compiler on this machine, for one
            reason = str(error).strip().partition("\n")[0]
            return {"error": f"{type(error).__name__}: {reason}"[:300]}
        compiling = time.perf_counter() - began
        expected = gradient(view, x, y)
        sides = {"eager": view, "compiled": compiled}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(ROUNDS):
            for name in sides if turn % 2 == 0 else reversed(sides):
                seconds[name].append(clock(lambda n=name: gradient(sides[n], x, y), device))  # type: ignore[misc]
    median = {name: statistics.median(times) for name, times in seconds.items()}
    apart = (found - expected).abs().max() / expected.abs().max()
    return {
        "eager_ms": 1e3 * median["eager"],
        "compiled_ms": 1e3 * median["compiled"],
        "ratio": median["eager"] / median["compiled"],
        "compile_seconds": compiling,
        "largest_relative_difference": float(apart),
        "n": ROUNDS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--device", choices=list(MODES), default="cpu")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--archs", default="small-cnn,resnet18")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    keep_freed_memory()
    rows = {}
    for arch in asked.archs.split(","):
        for precision in ("fp32", "bf16"):
            for mode in MODES[asked.device]:
                case = f"{arch}/{precision}/{mode}"
                rows[case] = trial(arch, precision == "bf16", mode, asked.batch, device)
                print(case, rows[case], flush=True)
    if asked.json is not None:
        write_atomic(asked.json, (json.dumps(rows, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
