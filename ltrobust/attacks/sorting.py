"""Sorts the rows of matrices on a CPU several times faster than PyTorch does.

FAB projects onto a box and a hyperplane in every iteration, and sorts all pixels for it: on a CPU
half of its time outside the network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

SIGN, INDEX = 0x7FFFFFFF, 0xFFFFFFFF


class QuickArgsort(TorchFunctionMode):
    """Inside it, `torch.argsort(x, dim=1)` of float32 matrices on a CPU is `argsort_rows(x)`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by PyTorch instead of each of its functions."""
        kwargs = kwargs or {}
        if func is torch.argsort and kwargs == {"dim": 1} and _fits(*args):
            return argsort_rows(*args)
        return func(*args, **kwargs)


def _fits(x: Tensor) -> bool:
    return x.dim() == 2 and x.dtype == torch.float32 and x.device.type == "cpu"


def argsort_rows(x: Tensor) -> Tensor:
    """Indices that sort each row in ascending order; equal entries keep their order.

    PyTorch promises no order among equal entries, and its own differs between CPUs.

    Args:
        x: float32 (N, D) on a CPU, without nan.

    Returns:
        int64 (N, D).
    """
    bits = (x + 0.0).view(torch.int32)  # + 0.0 makes one zero of two
    # the bits of negative floats count backwards; turned round, all sort as integers do
    order = torch.where(bits < 0, bits ^ SIGN, bits)
    packed = (order.long() << 32) | torch.arange(x.shape[1])
    packed.numpy().sort(axis=1)
    return packed & INDEX
