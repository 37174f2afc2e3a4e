"""A team within one process, for tests: threads that take turns, from one exchange to the next.

Only one of them works at a time, so that what they do is the same each time. Real processes, which
are what a team is for, are started by `bench.crew`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ltrobust.team import LostError, Team

T = TypeVar("T")


class _Table(Generic[T]):
    """What the threads have laid down for each exchange, and whose turn it is."""

    def __init__(self, size: int) -> None:
        self.laid: list[dict[int, Tensor]] = []
        self.found: dict[int, T] = {}
        self.errors: dict[int, BaseException] = {}
        self._size, self._turn = size, 0
        self._changed = threading.Condition()

    def wait(self, rank: int) -> None:
        """Wait for one's turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn == rank)

    def pass_on(self, rank: int) -> None:
        """Give the turn to the next who has not ended, if there is one."""
        ended = self.found.keys() | self.errors.keys()
        others = [(rank + step) % self._size for step in range(1, self._size + 1)]
        with self._changed:
            self._turn = next((one for one in others if one not in ended), rank)
            self._changed.notify_all()


class _Turn(Team):
    """One thread's view of the team."""

    def __init__(self, rank: int, size: int, table: _Table[T]) -> None:
        super().__init__(rank, size)
        self._table, self._number = table, 0

    def _of_all(self, mine: Tensor) -> list[Tensor]:
        if self._number == len(self._table.laid):
            self._table.laid.append({})
        laid, self._number = self._table.laid[self._number], self._number + 1
        laid[self.rank] = mine.clone()
        self._table.pass_on(self.rank)
        self._table.wait(self.rank)
        if len(laid) < self.size:
            raise LostError("another thread has ended")
        return [laid[rank] for rank in range(self.size)]

    def _from_first(self, values: Tensor) -> None:
        values.copy_(self._of_all(values)[0])


def in_turns(size: int, work: Callable[[Team], T]) -> list[T]:
    """What `work` returns in each of so many threads that are a team, by rank.

    Raises:
        Exception: that of the first thread that raised one.
    """
    table: _Table[T] = _Table(size)

    def take_part(rank: int) -> None:
        table.wait(rank)
        try:
            table.found[rank] = work(_Turn(rank, size, table))
        except BaseException as error:
            table.errors[rank] = error
        table.pass_on(rank)

    threads = [threading.Thread(target=take_part, args=(rank,)) for rank in range(size)]
    with torch.random.fork_rng(devices=[]):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if table.errors:
        raise table.errors[min(table.errors)]
    return [table.found[rank] for rank in range(size)]
