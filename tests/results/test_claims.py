"""Claims on runs: one process at a time, with locks and without them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ltrobust.errors import Notice, UserError
from ltrobust.results import claims
from ltrobust.results.claims import BEAT, SILENCE, ClaimedError, Watch, claimed

HOLDER = """
import sys, time
from pathlib import Path
from ltrobust.results.claims import claimed
with claimed(Path(sys.argv[1]), "a"):
    print("held", flush=True)
    time.sleep(300)
"""


def test_a_claim_is_held_by_one_and_free_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with claimed(tmp_path, "a"):
            with pytest.raises(
                ClaimedError, match=f"a: another.*process {os.getpid()}\\) is doing"
            ):
                claimed(tmp_path, "a").__enter__()
            with claimed(tmp_path, "b"):
                pass
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert not (tmp_path / "a.json").exists()
    with claimed(tmp_path, "a"):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ClaimedError, match=f"process {holder.pid}"):
            claimed(tmp_path, "a").__enter__()
        holder.kill()
    with claimed(tmp_path, "a"):
        pass


def test_who_was_taken_over_is_stopped_before_it_saves(tmp_path: Path) -> None:
    with claimed(tmp_path, "a", beat=100) as zombie:
        zombie.check()
        other = json.dumps({"host": "elsewhere", "pid": 7, "token": "theirs"})
        (tmp_path / "a.json").write_text(other)
        with pytest.raises(ClaimedError, match=r"elsewhere, process 7\) has taken the run over"):
            zombie.check()
    assert (tmp_path / "a.json").read_text() == other  # the end of a zombie ends no other's claim


def test_a_holder_shows_signs_of_life(tmp_path: Path) -> None:
    with claimed(tmp_path, "a", beat=0.01):
        first = json.loads((tmp_path / "a.json").read_text())
        end = time.monotonic() + 5
        while json.loads((tmp_path / "a.json").read_text()) == first and time.monotonic() < end:
            time.sleep(0.01)
        assert json.loads((tmp_path / "a.json").read_text())["beats"] > first["beats"]


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, errno.ENOSYS)


def fail_with(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)


@pytest.mark.parametrize("name", ["ENOSYS", "EOPNOTSUPP", "ENOLCK", "EIO"])
def test_a_file_system_without_locks_is_told_and_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fail_with(monkeypatch, getattr(errno, name))
    with pytest.warns(Notice, match="has no locks") as told, claimed(tmp_path, "a"):
        assert (tmp_path / "a.json").exists()
    assert len(told) == 1
    assert not (tmp_path / "a.json").exists()


@pytest.mark.filterwarnings("ignore::ltrobust.errors.Notice")
def test_without_locks_one_who_shows_life_keeps_its_run(
    tmp_path: Path, without_locks: None
) -> None:
    with claimed(tmp_path, "a", beat=0.02), pytest.raises(ClaimedError, match="is doing it"):
        claimed(tmp_path, "a", beat=0.1).__enter__()


@pytest.mark.filterwarnings("ignore::ltrobust.errors.Notice")
def test_without_locks_one_who_is_silent_is_taken_over(tmp_path: Path, without_locks: None) -> None:
    silent = {"host": "elsewhere", "pid": 7, "token": "theirs", "beats": 3}
    (tmp_path / "a.json").write_text(json.dumps(silent))
    with claimed(tmp_path, "a", beat=0.02) as claim:
        claim.check()
    silent = {**silent, "host": claims.socket.gethostname(), "pid": 2**22 + 1}
    (tmp_path / "b.json").write_text(json.dumps(silent))
    began = time.monotonic()
    with claimed(tmp_path, "b", beat=60):  # a process of this machine that is no more
        assert time.monotonic() - began < 10


def test_who_watches_believes_its_own_clock_and_what_changes(tmp_path: Path) -> None:
    now = [0.0]
    watch, file = Watch(tmp_path, clock=lambda: now[0]), tmp_path / "a.json"

    def seen(seconds: float, beats: int, pid: int = 1, host: str = "n7") -> bool | None:
        said = {"host": host, "pid": pid, "token": "theirs", "beats": beats}
        file.write_text(json.dumps(said))
        os.utime(file, (0, 0))
        now[0] += seconds
        found = watch.holder("a")
        assert found is not None
        return found.alive

    patience = (SILENCE + 1) * BEAT
    assert [seen(0, 1), seen(patience - 1, 1), seen(1, 1)] == [None, None, False]
    assert [seen(1, 2), seen(patience - 1, 2), seen(1, 2)] == [True, True, False]
    here = claims.socket.gethostname()
    assert seen(0, 3, host=here, pid=os.getpid())
    assert not seen(patience, 3, host=here, pid=os.getpid())  # another has that number now
    assert seen(0, 4, host=here, pid=2**22 + 1) is False
    file.unlink()
    assert watch.holder("a") is None
    assert seen(0, 5) is None


def test_who_ends_at_once_says_so_of_its_own_runs_alone(tmp_path: Path) -> None:
    here = {"host": claims.socket.gethostname(), "pid": os.getpid()}
    others = {"b": {**here, "host": "elsewhere"}, "c": {**here, "pid": 1}}
    for run_id, said in {"a": here, **others}.items():
        (tmp_path / f"{run_id}.json").write_text(json.dumps(said))
    claims.end_claims(tmp_path)
    assert sorted(file.stem for file in tmp_path.iterdir()) == ["b", "c"]


def test_no_thread_outlives_its_claim(tmp_path: Path) -> None:
    with claimed(tmp_path, "a", beat=60):
        assert any(thread.name == "ltrobust-claim" for thread in threading.enumerate())
    assert not any(thread.name == "ltrobust-claim" for thread in threading.enumerate())


def test_a_claim_that_cannot_be_written_is_the_users_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "claims")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"claims cannot be written .*--output"):
        claimed(tmp_path / "claims", "a").__enter__()
