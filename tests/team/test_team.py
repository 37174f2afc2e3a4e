"""Processes that work together leave their work together, whatever happens to one of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
import torch
from processes import in_team

from ltrobust.errors import RunError
from ltrobust.team import LEAST, LostError, OtherError, Team


def told_by(work: Callable[[Team], None]) -> Callable[[Team], str]:
    """The kind and the words of the error that common work ends with in each process."""

    def tried(team: Team) -> str:
        try:
            with team.together():
                work(team)
        except Exception as error:
            memory = getattr(error, "out_of_memory", None)
            team.told(b"on")  # they are still in step
            return f"{type(error).__name__}: {error}{' (memory)' if memory else ''}"
        return ""

    return tried


def test_rows_come_back_in_order_whoever_has_how_many() -> None:
    def work(team: Team) -> list[list[int]]:
        own = team.share(50)
        assert own is not None
        rows = torch.arange(50)[own]
        uneven = torch.full((team.rank, 2), team.rank)
        found = [team.gathered(rows), team.gathered(uneven)[:, 0], team.gathered(rows[:0])]
        return [part.tolist() for part in found]

    for found in in_team(3, work):
        assert found == [list(range(50)), [1, 2, 2], []]


def test_too_few_rows_are_not_shared_out() -> None:
    assert Team(1, 3).share(3 * LEAST - 1) is None
    assert Team(1, 3).share(3 * LEAST) == slice(LEAST, 2 * LEAST)


def test_all_get_the_numbers_and_the_words_of_the_first() -> None:
    def work(team: Team) -> tuple[list[list[float]], bytes]:
        floats = torch.full((2, 2), float(team.rank)).T
        whole, view = torch.full((3,), team.rank), torch.zeros(4)[::2]
        view += team.rank
        team.make_alike([floats, whole, view])
        return [floats.flatten().tolist(), whole.tolist(), view.tolist()], team.told(b"a\0b")

    team = in_team(2, work)
    assert team == [([[0.0] * 4, [0] * 3, [0.0] * 2], b"a\0b")] * 2


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("late", [False, True], ids=["before an exchange", "at the end"])
def test_a_failure_of_one_ends_the_work_of_all_with_its_reason(rank: int, late: bool) -> None:
    def work(team: Team) -> None:
        if late:
            team.gathered(torch.zeros(1))
        if team.rank == rank:
            raise RunError("the disk\nis full")
        if not late:
            team.gathered(torch.zeros(1))

    found = in_team(2, told_by(work))
    assert found[rank] == "RunError: the disk\nis full"
    assert found[1 - rank] == f"OtherError: process {rank} of 2: the disk is full"


def test_a_failure_of_all_is_told_by_each() -> None:
    def work(team: Team) -> None:
        raise ValueError("ä" * 1000)

    assert in_team(2, told_by(work)) == ["ValueError: " + "ä" * 1000] * 2


def test_out_of_memory_is_told_as_such() -> None:
    def work(team: Team) -> None:
        if team.rank == 1:
            raise torch.OutOfMemoryError("none left")
        team.gathered(torch.zeros(1))

    first, _ = in_team(2, told_by(work))
    assert first == "OtherError: process 1 of 2: OutOfMemoryError: none left (memory)"


def test_processes_that_do_different_things_stop_instead_of_waiting() -> None:
    def work(team: Team) -> None:
        if team.rank == 1:
            team.gathered(torch.zeros(1))

    for found in in_team(2, told_by(work)):
        assert "OtherError: the processes of this run do different things" in found
        assert "process 0 ends its work, process 1 shares out rows" in found


def test_a_process_that_is_killed_is_missed_at_once() -> None:
    def work(team: Team) -> float:
        began = time.monotonic()
        if team.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        with pytest.raises(LostError, match="gone"), team.together():
            team.gathered(torch.zeros(1))
        assert issubclass(LostError, RunError)
        assert not issubclass(OtherError, LostError)
        return time.monotonic() - began

    assert in_team(2, work, only=0)[0] < 30
