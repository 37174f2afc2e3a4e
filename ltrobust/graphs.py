"""Work on a GPU that is recorded once and repeated on the same memory: CUDA graphs.

What is recorded, and what may be, is decided elsewhere: `training.captured` and
`evaluation.fixed_shapes`. On a CPU `tape` stands in for them in tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")
Again = Callable[[], None]


class Graphs(Protocol):
    """What records: CUDA graphs, or the tape that stands in for them."""

    def aside(self) -> AbstractContextManager[None]:
        """Around an ordinary step before a recording."""

    def record(self, work: Callable[[], T]) -> tuple[T, Again]:
        """Do some work once; return what it returned and what does it again on the same memory.

        Raises:
            Exception: it cannot be recorded, and nothing has been done.
        """


class CudaGraphs:
    """CUDA graphs of one device, prepared and recorded on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The stream of the recordings, so that gradients are accumulated on it as later."""
        outside = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            yield
        outside.wait_stream(self._stream)

    def record(self, work: Callable[[], T]) -> tuple[T, Again]:
        """Record without doing anything, then do it once."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self._device)
        with torch.cuda.graph(graph, stream=self._stream):
            found = work()
        graph.replay()
        return found, graph.replay
