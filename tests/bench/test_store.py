"""The store: whole files or old files, records that merge, reports that go when they are stale."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest
import torch

from ltrobust.bench.store import ABANDONED, RunStore, SuiteStore, suite_of, write_atomic
from ltrobust.errors import Notice, RunError, UserError


def test_write_atomic_makes_folders_and_replaces(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "file.txt"
    write_atomic(file, b"old")
    write_atomic(file, b"new")
    assert file.read_bytes() == b"new"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_write_atomic_leaves_the_old_file_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file = tmp_path / "file.txt"
    write_atomic(file, b"old")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(RunError, match=r"file\.txt cannot be written \(No space"):
        write_atomic(file, b"new and longer")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_write_atomic_leaves_nothing_behind_when_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file.txt", b"new")
    assert list(tmp_path.iterdir()) == []


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file.txt", b"x")
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o644


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_report_removes_its_own_stale_files_and_no_others(tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path)
    for name in ("tables/mine.csv", "figures/mine.png", "tables/notes/a.md"):
        suite.write(name, "of the user")
    given = dict.fromkeys(("tables/a.md", "tables/b.md", "figures/a.png", "metrics.csv"), "x")
    suite.write_reports(given)
    theirs = {"tables/mine.csv", "figures/mine.png", "tables/notes/a.md", ".written.json"}
    assert files(tmp_path) == {*given, *theirs}
    suite.write_reports({"tables/a.md": "y", "metrics.csv": "y"}, spare=["figures/"])
    assert files(tmp_path) == {"tables/a.md", "figures/a.png", "metrics.csv", *theirs}
    suite.write_reports({"tables/a.md": "y"})  # a figure that was spared is still known
    assert files(tmp_path) == {"tables/a.md", "metrics.csv", *theirs}


def test_a_figure_that_is_drawn_from_the_same_stays_and_is_known(tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path)
    figures = {f"figures/{name}": "x" for name in ("a.png", "a.pdf", "b.png", "b.pdf")}
    drawn = {name: f"from {name[8]}" for name in figures}
    suite.write_reports(figures, drawn=drawn)
    assert suite.drawn() == drawn
    suite.write_reports({}, drawn={name: drawn[name] for name in figures if "/a" in name})
    assert files(tmp_path) == {"figures/a.png", "figures/a.pdf", ".written.json"}
    (tmp_path / "figures/a.pdf").unlink()
    assert suite.drawn() == {}  # both are drawn again


def test_the_first_report_of_a_directory_without_a_list_removes_nothing(tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path)
    suite.write("tables/old.md", "x")
    suite.write_reports({"tables/new.md": "x"})
    assert files(tmp_path) == {"tables/old.md", "tables/new.md", ".written.json"}


LISTS = {
    "outside": '{{"files": ["tables/../../outside", "../outside", "tables/sub/../../../outside"]}}',
    "absolute": '{{"files": ["{outside}", "tables/{outside}"]}}',
    "the results": '{{"files": ["metrics.csv", "runs/a/run.json", "tables", "tables/.."]}}',
    "no list": '{{"files": {{"tables/a.md": 1}}}}',
    "no texts": '{{"files": [1, null, []]}}',
    "no mapping": "[1, null, []]",
    "no JSON": "[",
}


@pytest.mark.parametrize("content", LISTS.values(), ids=LISTS.keys())
def test_a_list_of_anybodys_removes_nothing_but_tables_and_figures(
    tmp_path: Path, content: str
) -> None:
    outside, suite = tmp_path / "outside", SuiteStore(tmp_path / "suite")
    outside.touch()
    for name in ("metrics.csv", "runs/a/run.json", "tables/sub/a.md", "tables/a.md"):
        suite.write(name, "x")
    before = files(suite.path)
    suite.write(".written.json", content.format(outside=outside))
    suite.write_reports({"tables/b.md": "x"})
    assert files(suite.path) == {*before, "tables/b.md", ".written.json"}
    assert outside.exists()


def test_a_run_is_started_over_once_however_often_it_is_visited(tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path)
    suite.run("a").update(status="done")
    suite.start_over("a")
    assert suite.run("a").read() == {}
    suite.run("a").update(status="done")
    suite.start_over("a")
    assert suite.run("a").status == "done"


def test_what_cannot_be_cleared_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunStore(tmp_path)
    run.update(status="done")

    def held(*words: object) -> None:
        raise OSError(16, "Device or resource busy", "run.json")

    monkeypatch.setattr(Path, "unlink", held)
    with pytest.raises(RunError, match=r"run\.json cannot be removed \(Device"):
        run.clear()


def test_record_merges_changes_and_tells_the_status(tmp_path: Path) -> None:
    run = RunStore(tmp_path / "run")
    assert (run.read(), run.status) == ({}, "queued")
    run.update(status="running", seed=3)
    assert run.status == "running"
    assert run.update(status="done") == {"status": "done", "seed": 3}
    assert run.status == "done"


DAMAGED = [b'{"status": "do', b"[1]", b"\xff\xfe", b"", b"{}", b"null", b"[" * 100_000]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_record_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        RunStore(tmp_path).read()


def test_resume_state_comes_back_and_is_dropped_with_the_final_weights(tmp_path: Path) -> None:
    run = RunStore(tmp_path / "run")
    assert run.load_state() is None
    history = [{"epoch": 1, "train_loss": 0.1 + 0.2}]
    run.save_state({"net": {"w": torch.tensor([1.5])}, "history": history})
    state = run.load_state()
    assert state is not None
    assert torch.equal(state["net"]["w"], torch.tensor([1.5]))
    assert state["history"] == history
    assert run.history()["train_loss"].tolist() == [0.1 + 0.2]
    assert not run.trained
    run.save_model({"w": torch.tensor([1.5])}, {"arch": "x"})
    assert run.trained
    assert run.load_state() is None
    assert torch.equal(run.load_model()["w"], torch.tensor([1.5]))


def test_attack_state_is_kept_by_id_until_it_is_dropped(tmp_path: Path) -> None:
    run = RunStore(tmp_path / "run")
    run.save_attack_state("autoattack-1", {"pred": torch.arange(3)})
    assert run.load_attack_state("autoattack-2") is None
    state = run.load_attack_state("autoattack-1")
    assert state is not None
    assert torch.equal(state["pred"], torch.arange(3))
    run.drop_attack_state("autoattack-1")
    assert run.load_attack_state("autoattack-1") is None


def test_damaged_weights_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(UserError, match=r"model\.safetensors is not a readable"):
        RunStore(tmp_path).load_model()


def test_runs_are_the_folders_with_a_record_by_name(tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path)
    assert suite.runs() == []
    for name in ("b", "a"):
        suite.run(name).update(status="done")
    (tmp_path / "runs" / "c").mkdir()
    assert [run.run_id for run in suite.runs()] == ["a", "b"]


def test_suite_of_a_run_directory_is_two_levels_up(tmp_path: Path) -> None:
    SuiteStore(tmp_path).run("a").update(status="done")
    suite, run = suite_of(tmp_path / "runs" / "a")
    assert suite.path == tmp_path.resolve()
    assert run.status == "done"
    with pytest.raises(UserError, match="no run directory"):
        suite_of(tmp_path)


def test_lock_is_held_by_one(tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path / "suite")
    with suite.lock():
        second = suite.lock()
        with pytest.raises(UserError, match="another ltrobust is working in"):
            second.__enter__()


def test_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path / "suite")

    def fail() -> None:
        with suite.lock():
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    with suite.lock():
        pass


def without_flock(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)


NO_LOCKS = ["ENOSYS", "EOPNOTSUPP", "ENOTSUP", "ENOLCK", "EIO", "EINVAL"]


@pytest.mark.parametrize("name", NO_LOCKS)
def test_a_file_system_without_locks_is_told_and_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    without_flock(monkeypatch, getattr(errno, name))
    with pytest.warns(Notice, match="has no locks") as told, SuiteStore(tmp_path).lock():
        pass
    assert len(told) == 1


@pytest.mark.parametrize("name", ["EWOULDBLOCK", "EAGAIN", "EACCES"])
def test_only_a_lock_that_is_held_means_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    without_flock(monkeypatch, getattr(errno, name))
    with pytest.raises(UserError, match="another ltrobust"):
        SuiteStore(tmp_path).lock().__enter__()


def test_a_lock_file_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UserError, match=r"\.lock cannot be written .*--output"):
        SuiteStore(tmp_path).lock().__enter__()


def test_files_that_others_are_writing_survive_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine may not see the lock, and another suite has its own."""
    suite, replace = SuiteStore(tmp_path), os.replace

    def interrupted(source: str, target: Path) -> None:
        with suite.lock():
            replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    for name in ("metrics.csv", "runs/a/state.pt", "inner/metrics.csv", "inner/runs/b/run.json"):
        write_atomic(tmp_path / name, b"x")
        assert (tmp_path / name).read_bytes() == b"x"


def test_only_what_killed_writers_left_in_this_suite_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, elsewhere = SuiteStore(tmp_path / "suite"), tmp_path / "elsewhere"
    folders = ["", "tables", "runs/a", "other/runs/b", "mine"]
    places = [*(suite.path / folder for folder in folders), elsewhere]
    left = []
    with monkeypatch.context() as killed:
        killed.setattr(os, "replace", lambda source, target: left.append(Path(source)))
        for place in places:
            write_atomic(place / "file", b"half")
    (suite.path / "runs" / "link").symlink_to(elsewhere)
    own = [place / name for place in places for name in (".notes.tmp", ".metrics.csv.ab12.tmp")]
    for file in own:
        file.write_text("mine")
    with suite.lock():
        assert all(file.exists() for file in left)  # young: perhaps still being written
    for file in (*left, *own):
        os.utime(file, (0, time.time() - ABANDONED - 60))
    with suite.lock():
        pass
    assert [file.exists() for file in left] == [False, False, False, True, True, True]
    assert all(file.exists() for file in own)


def test_a_linked_run_belongs_to_the_suite_that_its_path_names(tmp_path: Path) -> None:
    real, mine = SuiteStore(tmp_path / "real"), SuiteStore(tmp_path / "mine")
    real.run("a").update(status="done")
    mine.run("b").update(status="done")
    (mine.path / "runs" / "link").symlink_to(real.run("a").path)
    assert suite_of(mine.path / "runs" / "link")[0].path == mine.path
    assert [run.run_id for run in mine.runs()] == ["b", "link"]
    (tmp_path / "suite").symlink_to(real.path)
    assert suite_of(tmp_path / "suite" / "runs" / "a")[0].path == tmp_path / "suite"
    (tmp_path / "short").symlink_to(real.run("a").path)
    suite, run = suite_of(tmp_path / "short")
    assert (suite.path, run.run_id) == (real.path, "a")


def test_a_run_counts_once_however_many_links_lead_to_it(tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path)
    suite.run("b").update(status="done")
    (tmp_path / "runs" / "a").symlink_to(suite.run("b").path)
    (tmp_path / "runs" / "c").symlink_to("b")
    assert [run.run_id for run in suite.runs()] == ["b"]


def test_a_run_directory_outside_any_suite_is_the_users_error(tmp_path: Path) -> None:
    RunStore(tmp_path / "lone").update(status="done")
    with pytest.raises(UserError, match="lies in no suite"):
        suite_of(tmp_path / "lone")


def test_log_takes_names_that_are_no_text(tmp_path: Path) -> None:
    run = RunStore(tmp_path)
    run.log(os.fsdecode(b"caf\xe9"))
    assert (tmp_path / "log.txt").read_bytes() == b"caf\\xe9\n"
