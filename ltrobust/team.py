"""Processes that do one run together: each attacks its rows of a batch, and all get all of them.

Everything else each of them does in full, with the same random numbers, so that they stay alike;
process 0 leads, writes the files and says what is next. How such processes are started is
`bench.crew`'s business, what is shared out that of `context`, `evaluation.evaluate` and
`attacks.autoattack`.

Before anything is exchanged, all tell each other that they are well and what they are about to do.
So a failure of one ends the common work of all at the same place instead of leaving them waiting,
and a process that is killed is noticed at once.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ltrobust.errors import RunError

LEAST = 8
"""Rows of each process, or a batch is not shared out: in batches of one to three images the sums of
libraries differ in their last bits from those of larger ones."""
PATIENCE = datetime.timedelta(days=30)
"""How long a process waits for others that are alive: they may be checking, saving, or downloading.
One that is gone is noticed at once."""
REASON = 400
"""Bytes of the reason that a failed process tells the others."""

END, FAILED, ROWS, ALIKE, TOLD = range(5)
"""What processes meet for."""
DEEDS = (
    "ends its work",
    "fails",
    "shares out rows",
    "brings numbers into line",
    "is told something",
)
WELL, ILL, OUT_OF_MEMORY = range(3)


class LostError(RunError):
    """Another process of the team is gone; what was saved is whole, and the run can go on."""


class OtherError(RunError):
    """The common work failed in another process of the team.

    Attributes:
        out_of_memory: whether the reason is that its device had no memory left.
    """

    def __init__(self, text: str, *, out_of_memory: bool = False) -> None:
        super().__init__(text)
        self.out_of_memory = out_of_memory


class Team:
    """One process's view of the processes that do a run together.

    Args:
        rank: its number; 0 leads.
        size: how many there are.

    Attributes:
        shared: batches that were shared out so far.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size, self.shared = rank, size, 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def share(self, n: int) -> slice | None:
        """This process's rows of n; None where they are too few to be shared out."""
        if n < LEAST * self.size:
            return None
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows of all processes, one after the other by rank.

        Args:
            rows: those of this process (n, ...); n may differ and be 0, what follows must not.
        """
        counts = self._meet(ROWS, len(rows))
        most = max(counts)
        mine = rows.detach().contiguous()
        if len(mine) < most:
            mine = torch.cat([mine, mine.new_zeros(most - len(mine), *mine.shape[1:])])
        parts = self._of_all(mine) if most else []
        return torch.cat([part[:n] for part, n in zip(parts, counts, strict=False)] or [mine])

    @torch.no_grad()
    def make_alike(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of process 0.

        Devices whose sums depend on the order in which threads come would else drift apart.
        """
        by_kind: dict[Any, list[Tensor]] = {}
        for tensor in tensors:
            by_kind.setdefault((tensor.dtype, tensor.device), []).append(tensor.detach())
        for group in by_kind.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            self._meet(ALIKE, len(flat))
            self._from_first(flat)
            if self.leads:
                continue
            parts = flat.split([tensor.numel() for tensor in group])
            for tensor, values in zip(group, parts, strict=True):
                tensor.copy_(values.view(tensor.shape))

    def told(self, content: bytes = b"") -> bytes:
        """What process 0 says, to all; what others say does not count."""
        length = self._meet(TOLD, len(content))[0]
        text = torch.zeros(length, dtype=torch.uint8)
        if not length:
            return b""
        if self.leads:
            text = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        self._from_first(text)
        return text.numpy().tobytes()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Common work: all processes leave it at its end, or where it fails in one of them.

        Raises:
            OtherError: it failed in another process.
            LostError: another process is gone.
        """
        try:
            yield
            self._meet(END)
        except (OtherError, LostError):  # all know, or none can be told
            raise
        except Exception as error:
            self._tell(error)
            raise

    def _tell(self, error: Exception) -> None:
        """Take part in what the others meet for next, to tell them of a failure."""
        ill = OUT_OF_MEMORY if isinstance(error, torch.OutOfMemoryError | MemoryError) else ILL
        text = " ".join(str(error).split())
        if not isinstance(error, RunError):
            text = f"{type(error).__name__}: {text}"
        try:
            self._meet(FAILED, state=ill, reason=text)
        except RunError:  # that there is nobody left to tell is told at the next meeting
            return

    def _meet(self, deed: int, rows: int = 0, state: int = WELL, reason: str = "") -> list[int]:
        """Wait for all; return the rows that each of them says.

        Raises:
            OtherError: one fails, or is about to do something else.
            LostError: one is gone.
        """
        every = torch.stack(self._of_all(torch.tensor([state, deed, rows])))
        states, deeds, counts = every.T.tolist()
        if any(states):
            self._raise_first(states, reason)
        if len(set(deeds)) > 1:
            told = ", ".join(f"process {rank} {DEEDS[one]}" for rank, one in enumerate(deeds))
            raise OtherError(
                f"the processes of this run do different things ({told}): its method decides by "
                "something that is not the same in all of them; draw from ctx.generator only"
            )
        found: list[int] = counts
        return found

    def _raise_first(self, states: list[int], reason: str) -> None:
        """Let all know why the first of the failed processes fails."""
        text = reason.encode()[:REASON].ljust(REASON)
        mine = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        every = self._of_all(mine)
        first = next(rank for rank, state in enumerate(states) if state)
        said = every[first].numpy().tobytes().decode(errors="ignore")
        raise OtherError(
            f"process {first} of {self.size}: {said.strip()}",
            out_of_memory=states[first] == OUT_OF_MEMORY,
        )

    def _of_all(self, mine: Tensor) -> list[Tensor]:
        """A tensor of each process; all have one shape."""
        found = [torch.empty_like(mine) for _ in range(self.size)]
        self._exchange(lambda: dist.all_gather(found, mine))
        return found

    def _from_first(self, values: Tensor) -> None:
        """Overwrite a tensor by that of process 0."""
        self._exchange(lambda: dist.broadcast(values, 0))

    def _exchange(self, exchange: Callable[[], object]) -> None:
        """Do something with all processes.

        Raises:
            LostError: one of them is gone.
        """
        try:
            exchange()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:REASON]
            raise LostError(f"a process of this run is gone ({reason})") from error
