"""Gradient checkpointing: blocks of a network forget their activations and compute them again.

Nothing changes but memory and time: the second computation sees the same inputs and random numbers,
and moves no running statistics. Which runs do this is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def repeated_blocks(net: nn.Module) -> tuple[nn.Module, ...]:
    """The blocks of a network: modules with convolutions inside that stand in an `nn.Sequential`.

    These are the residual blocks of ResNets and Wide ResNets; a network without any has none.
    """
    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for parent in net.modules():
        if not isinstance(parent, nn.Sequential) or parent in inside:
            continue
        for child in parent.children():
            if child not in inside and _is_block(child):
                found.append(child)
                inside.update(child.modules())
    return tuple(found)


@contextmanager
def recomputed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, a pass through any of `blocks` keeps its inputs only, until its backward pass."""
    for block in blocks:
        block.forward = partial(_checkpointed, block, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the class's own comes into sight again


def _is_block(module: nn.Module) -> bool:
    if isinstance(module, nn.Sequential) or not any(True for _ in module.children()):
        return False
    return any(isinstance(part, nn.Conv2d) for part in module.modules())


def _checkpointed(block: nn.Module, forward: Any, *inputs: Tensor) -> Any:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _SpareStatistics(block)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


class _SpareStatistics:
    """Inside, batch norms write their running statistics into copies that are thrown away."""

    def __init__(self, block: nn.Module) -> None:
        self._norms = [m for m in block.modules() if isinstance(m, _BatchNorm)]
        self._kept: list[dict[str, Tensor]] = []

    def __enter__(self) -> None:
        self._kept = [dict(norm.named_buffers(recurse=False)) for norm in self._norms]
        for norm, buffers in zip(self._norms, self._kept, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer.clone())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for norm, buffers in zip(self._norms, self._kept, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
