"""What work takes: wall time, and on a CPU the processor time that tells more.

Other programs on the same cores lengthen the wall time of what is measured, many times over where
they are many; the processor time of one thread they change little. So costs on a CPU are told in
processor time. Threads that wait for each other spin, and what they spin counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Taken:
    """Time that was taken.

    Attributes:
        seconds: of the wall clock.
        cpu_seconds: of the processor, all threads of this process together; None where that does
            not tell the cost: on an accelerator, and with several processes.
    """

    seconds: float
    cpu_seconds: float | None

    def __add__(self, other: Taken) -> Taken:
        known = self.cpu_seconds is not None and other.cpu_seconds is not None
        both = (self.cpu_seconds or 0.0) + (other.cpu_seconds or 0.0)
        return Taken(self.seconds + other.seconds, both if known else None)


NOTHING = Taken(0.0, 0.0)


class Stopwatch:
    """Runs from the moment it is made.

    Args:
        device: that computes.
        alone: whether this process does all of the work.
    """

    def __init__(self, device: str | torch.device, *, alone: bool = True) -> None:
        self._tells = alone and torch.device(device).type == "cpu"
        self._began = time.perf_counter(), time.process_time()

    def read(self) -> Taken:
        """What was taken so far."""
        wall, busy = self._began
        cpu_seconds = time.process_time() - busy if self._tells else None
        return Taken(time.perf_counter() - wall, cpu_seconds)


def of_epochs(history: Iterable[Mapping[str, float]], device: str | torch.device) -> Taken:
    """What the epochs of a learning curve took together, on this device."""
    epochs = (Taken(row["seconds"], row.get("cpu_seconds")) for row in history)
    return sum(epochs, Taken(0.0, 0.0 if torch.device(device).type == "cpu" else None))


def as_tensor(taken: Taken) -> torch.Tensor:
    """Time as it is kept beside an attack's state, float64 (2,)."""
    busy = math.nan if taken.cpu_seconds is None else taken.cpu_seconds
    return torch.tensor([taken.seconds, busy], dtype=torch.float64)


def as_taken(kept: torch.Tensor) -> Taken:
    """The inverse of `as_tensor`."""
    seconds, busy = kept.tolist()
    return Taken(seconds, None if math.isnan(busy) else busy)
