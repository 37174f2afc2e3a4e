"""Real processes that form a team, forked from the test's own, so that nothing is imported anew."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from ltrobust.bench.crew import joined, on_loopback
from ltrobust.team import Team

T = TypeVar("T")
FORK = multiprocessing.get_context("fork")
PATIENCE = 120.0


def in_team(size: int, work: Callable[[Team], T], only: int | None = None) -> list[T]:
    """What `work` returns in each of so many processes that are a team, or in one of them."""
    with tempfile.TemporaryDirectory() as folder:
        ends = [FORK.Pipe(duplex=False) for _ in range(size)]
        file = Path(folder) / "store"
        processes = [
            FORK.Process(target=_take_part, args=(rank, size, file, work, ends[rank][1]))
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        try:
            ranks = range(size) if only is None else [only]
            return [_result(rank, ends[rank][0]) for rank in ranks]
        finally:
            for process in processes:
                process.kill()
                process.join()


def _take_part(
    rank: int, size: int, file: Path, work: Callable[[Team], T], end: Connection
) -> None:
    torch.set_num_threads(1)
    with on_loopback(), joined(dist.FileStore(str(file), size), rank, size, "cpu") as team:
        try:
            found: object = work(team)
        except Exception as error:
            found = AssertionError(f"{type(error).__name__}: {error}")
        end.send(found)


def _result(rank: int, end: Connection) -> T:  # type: ignore[type-var]
    assert end.poll(PATIENCE), f"process {rank} says nothing"
    found = end.recv()
    if isinstance(found, AssertionError):
        raise AssertionError(f"process {rank}: {found}")
    return found  # type: ignore[no-any-return]
