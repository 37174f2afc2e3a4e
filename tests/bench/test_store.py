"""The store: whole files or old files, records that merge, reports that go when they are stale."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from ltrobust.bench.store import RunStore, SuiteStore, suite_of, write_atomic
from ltrobust.errors import UserError


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
    with pytest.raises(OSError, match="No space"):
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


def test_drop_reports_removes_stale_tables_and_figures_only(tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path / "suite")
    for name in ("tables/a.md", "tables/b.md", "figures/a.png", "figures/b.png", "metrics.csv"):
        suite.write(name, "x")
    suite.run("run").update(status="done")
    suite.drop_reports({"tables/a.md", "figures/b.png"})
    kept = {str(p.relative_to(suite.path)) for p in suite.path.rglob("*") if p.is_file()}
    assert kept == {"tables/a.md", "figures/b.png", "metrics.csv", "runs/run/run.json"}


def test_drop_reports_needs_no_folders(tmp_path: Path) -> None:
    SuiteStore(tmp_path).drop_reports(set())
    assert list(tmp_path.iterdir()) == []


def test_record_merges_changes_and_tells_the_status(tmp_path: Path) -> None:
    run = RunStore(tmp_path / "run")
    assert (run.read(), run.status) == ({}, "queued")
    run.update(status="running", seed=3)
    assert run.update(status="done") == {"status": "done", "seed": 3}
    assert (run.read(), run.status) == ({"status": "done", "seed": 3}, "done")


@pytest.mark.parametrize("content", [b'{"status": "do', b"[1]", b"\xff\xfe"])
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
