"""Where the time of a training goes: phases of a step, images a second, share of the matrix peak.

A `Clock` measures nothing and costs nothing; a `StepProfile` is one that measures. Neither waits
for the device inside an epoch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ltrobust.float32 import true_float32

PHASES = ("data", "attack", "forward", "backward", "optimizer")
PEAK_SECONDS = 1.0
"""How long matrices are multiplied to find the machine's peak."""

_NOTHING: AbstractContextManager[None] = nullcontext()


class Clock:
    """What the trainer tells about its steps; this one takes no notice."""

    def begin_epoch(self, steps: int) -> None:
        """An epoch of so many steps begins."""

    def step(self, images: int) -> AbstractContextManager[None]:  # noqa: ARG002
        """Spans a training step on so many images."""
        return _NOTHING

    def phase(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """Spans a phase of a step, one of `PHASES`."""
        return _NOTHING

    def end_epoch(self, seconds: float) -> None:
        """The epoch has taken so many seconds, with everything."""


UNTIMED = Clock()


@dataclass
class _Step:
    """The marks of one step, resolved at the end of the epoch."""

    images: int
    flops: int = 0
    marks: list[tuple[str, Any, Any]] = field(default_factory=list)


class _FlopCount(TorchDispatchMode):
    """Counts as `FlopCounterMode` does, which refuses the gradients of images that attacks take."""

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry  # imports Triton, half a second

        super().__init__()
        self._formulas = flop_registry
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)
        return out


class StepProfile(Clock):
    """Adds up the seconds of each phase over epochs.

    In one step of every epoch floating point operations are counted (of matrix products and
    convolutions, by `torch.utils.flop_counter`), which takes time: it is left out of the rates
    unless the epoch has no other.

    Args:
        device: where the training runs; on CUDA its own events are the clock.
        matrix_peak: floating point operations a second that the device reaches in the training's
            precision.
    """

    def __init__(self, device: torch.device, matrix_peak: float) -> None:
        self._device = device
        self._peak = matrix_peak
        self._steps: list[_Step] = []
        self._open: list[tuple[str, Any]] = []
        self._counted = 0
        self.epochs = 0
        self.steps = 0
        self.images = 0
        self.seconds = dict.fromkeys((*PHASES, "other"), 0.0)
        # over the steps that rates are made of
        self._rate_images = 0
        self._rate_seconds = 0.0
        self._rate_flops = 0.0

    def begin_epoch(self, steps: int) -> None:
        """Choose the step in which operations are counted: the second, warm one."""
        self._steps = []
        self._counted = min(1, steps - 1)

    @contextmanager
    def step(self, images: int) -> Iterator[None]:
        """Spans a training step on so many images."""
        step = _Step(images)
        self._steps.append(step)
        if len(self._steps) - 1 != self._counted:
            yield
            return
        with _FlopCount() as count:
            yield
        step.flops = count.total

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Spans a phase of a step, one of `PHASES`; a phase inside another interrupts it."""
        self._begin(name)
        yield
        self._end()

    def _begin(self, name: str) -> None:
        now = self._mark()
        if self._open:
            outer, since = self._open[-1]
            self._steps[-1].marks.append((outer, since, now))
        self._open.append((name, now))

    def _end(self) -> None:
        now = self._mark()
        name, since = self._open.pop()
        self._steps[-1].marks.append((name, since, now))
        if self._open:
            self._open[-1] = (self._open[-1][0], now)

    def end_epoch(self, seconds: float) -> None:
        """Wait for the device once, and add up."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        taken = []
        for step in self._steps:
            spans = [(name, self._between(begin, end)) for name, begin, end in step.marks]
            for name, span in spans:
                self.seconds[name] += span
            taken.append(sum(span for _, span in spans))
        self.seconds["other"] += max(0.0, seconds - sum(taken))
        self.epochs += 1
        self.steps += len(self._steps)
        self.images += sum(step.images for step in self._steps)
        self._add_rates(taken)
        self._steps = []

    def record(self) -> dict[str, Any]:
        """The profile of the epochs measured so far, for run.json."""
        rate = self._rate_images / self._rate_seconds if self._rate_seconds else 0.0
        flop = self._rate_flops / self._rate_images if self._rate_images else 0.0
        return {
            "epochs": self.epochs,
            "steps": self.steps,
            "images": self.images,
            "seconds": dict(self.seconds),
            "images_per_second": rate,
            "flop_per_image": flop,
            "matrix_peak_flop_per_second": self._peak,
            "share_of_matrix_peak": rate * flop / self._peak,
        }

    def _add_rates(self, taken: list[float]) -> None:
        counted = [step for step in self._steps if step.flops]
        flop = counted[0].flops / counted[0].images if counted else 0.0
        for step, seconds in zip(self._steps, taken, strict=True):
            if len(self._steps) == 1 or not step.flops:
                self._rate_images += step.images
                self._rate_seconds += seconds
                self._rate_flops += flop * step.images

    def _mark(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _between(self, begin: Any, end: Any) -> float:
        if self._device.type != "cuda":
            return end - begin
        return begin.elapsed_time(end) / 1000


@lru_cache
@true_float32()
def matrix_peak(device: str, precision: str) -> float:
    """Floating point operations a second in products of square matrices, the best of a second.

    Args:
        device: such as "cpu" or "cuda:0"; matrices have 2048 rows there, 8192 on CUDA.
        precision: "fp32" (never TF32) or "bf16".
    """
    place = torch.device(device)
    rows = 8192 if place.type == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    draw = torch.Generator(place).manual_seed(0)
    a = torch.rand(rows, rows, generator=draw, device=place).to(dtype)
    _seconds(a)
    best, began = _seconds(a), time.perf_counter()
    while time.perf_counter() - began < PEAK_SECONDS:
        best = min(best, _seconds(a))
    return 2 * rows**3 / best


def _seconds(a: torch.Tensor) -> float:
    """Wall time of one product of a matrix with itself."""
    if a.is_cuda:
        torch.cuda.synchronize(a.device)
    began = time.perf_counter()
    torch.mm(a, a)
    if a.is_cuda:
        torch.cuda.synchronize(a.device)
    return time.perf_counter() - began
