"""How fast this machine multiplies matrices, and how many operations a training step needs.

The yardstick beside the ratios: an engine near the peak cannot become faster.
"""

from __future__ import annotations

import copy
import time

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

SIZES = (1024, 2048, 4096)
"""Rows of the matrices among which the best product is looked for."""


def matrix_peak(
    dtype: torch.dtype, device: torch.device, sizes: tuple[int, ...], seconds: float
) -> float:
    """Highest GFLOP/s seen in square matrix products, each size tried for `seconds`.

    A size of which one product would take longer is left out: a CPU that has no bfloat16 needs
    minutes for the largest.
    """
    best = 0.0
    for size in sizes:
        if best and 2 * size**3 / best / 1e9 > seconds:
            break
        best = max(best, _products(size, dtype, device, seconds))
    return best


def _products(size: int, dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    best, began = float("inf"), time.perf_counter()
    a @ b
    while True:
        _wait(device)
        start = time.perf_counter()
        for _ in range(3):
            a @ b
        _wait(device)
        now = time.perf_counter()
        best = min(best, (now - start) / 3)
        if now - began > seconds:
            return 2 * size**3 / best / 1e9


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step_gflop(net: nn.Module, x: Tensor, y: Tensor, what: str, steps: int) -> float:
    """GFLOP an image that one step of a defense cannot do without.

    An attack step is a forward pass and the gradient of the images; a train-mode pass is a forward
    pass and the gradient of the weights. TRADES needs the clean logits once for its attack and two
    train-mode passes, the others one.
    """
    net = copy.deepcopy(net).cpu()
    x, y = x[:2].cpu(), y[:2].cpu()
    net.eval()
    with torch.no_grad():
        forward = _gflop(net, x, None)
    weights = _gflop(net, x, y)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    attack = _gflop(net, x.clone().requires_grad_(), y)
    trades = what == "trades"
    return (steps * attack + (2 if trades else 1) * weights + trades * forward) / len(x)


def _gflop(net: nn.Module, x: Tensor, y: Tensor | None) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        logits = net(x)
        if y is not None:
            nn.functional.cross_entropy(logits, y).backward()
    return counter.get_total_flops() / 1e9
