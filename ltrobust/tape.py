"""A CUDA graph played on a CPU: notes every operation of a step once, then repeats them blindly.

What a graph freezes is frozen: the decisions of Python, shapes, and the memory that each operation
reads and writes. What a graph cannot hold, because the host would wait for the device, is refused.
It is there to test defenses (`ltrobust.testing`), never to be fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")
WAITS = {
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"),
    *("_unique2", "unique_dim"),
}
"""Operations whose result, or its size, the host must know."""


def waits(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether an operation makes the host wait for a device that its tensors are on."""
    name = func.overloadpacket.__name__
    if name in ("index", "index_put_", "index_put"):
        return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
    return name in WAITS


class Watch(TorchDispatchMode):
    """Notes the first operation that a graph could not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.problem = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if waits(func, args):
            self.problem = f"{func.overloadpacket.__name__} waits for the device"
        return func(*args, **(kwargs or {}))


class Tape(TorchDispatchMode):
    """Notes the operations that run while it is entered, with their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor], list[bool]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        outs = _tensors(out)
        taken = {t.untyped_storage().data_ptr() for t in _tensors((args, kwargs))}
        fresh = [t.untyped_storage().data_ptr() not in taken for t in outs]
        if any(fresh) or func._schema.is_mutable:
            self.calls.append((func, args, kwargs, outs, fresh))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        """Do everything again, into the memory where it was written first."""
        for func, args, kwargs, outs, fresh in self.calls:
            if func.overloadpacket.__name__.startswith(("empty", "new_empty")):
                continue
            again = _tensors(func(*args, **kwargs))
            for old, new, is_fresh in zip(outs, again, fresh, strict=True):
                if is_fresh and old.data_ptr() != new.data_ptr():
                    torch.ops.aten.copy_(old.detach(), new.detach())


class Tapes:
    """Stands in for `CudaGraphs` where there is no CUDA."""

    def __init__(self) -> None:
        self._problem = ""
        self.made = 0
        """Recordings so far."""

    @contextmanager
    def aside(self) -> Iterator[None]:
        """An ordinary step, watched: a CUDA graph refuses before anything is done, a tape after."""
        with Watch() as watch:
            yield
        self._problem = watch.problem

    def record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """Do the work and note it; RuntimeError, before it is done, where a graph would refuse."""
        if self._problem:
            raise RuntimeError(self._problem)
        with Tape() as tape:
            found = work()
        self.made += 1
        return found, tape.replay


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
