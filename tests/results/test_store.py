"""The store: whole files or none, facts that are only added, reports that go when stale."""

from __future__ import annotations

import os
import shutil
import time as clock
from pathlib import Path

import pytest
import torch
from synthetic_runs import add_attack, attack, time, trained_record, write_run

from ltrobust.bench.tensors import (
    load_attack_state,
    load_model,
    load_state,
    save_attack_state,
    save_state,
)
from ltrobust.errors import Notice, RunError, UserError
from ltrobust.results import store
from ltrobust.results.collect import collect
from ltrobust.results.files import ABANDONED, create, write_atomic
from ltrobust.results.store import RunStore, SuiteStore, suite_of
from ltrobust.training.checkpoint import to_bytes


def test_a_file_is_created_once(tmp_path: Path) -> None:
    file = tmp_path / "a" / "file.txt"
    assert create(file, b"one")
    assert not create(file, b"two")
    assert file.read_bytes() == b"one"
    assert list(file.parent.iterdir()) == [file]


def test_of_two_who_see_no_file_one_creates_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(tmp_path / "file.txt", b"one")
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert not create(tmp_path / "file.txt", b"two")
    assert (tmp_path / "file.txt").read_bytes() == b"one"


def test_a_file_is_created_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    assert create(tmp_path / "file.txt", b"one")
    assert not create(tmp_path / "file.txt", b"two")
    assert (tmp_path / "file.txt").read_bytes() == b"one"


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
    suite.write_reports({"tables/a.md": "y", "metrics.csv": "y"})
    assert files(tmp_path) == {"tables/a.md", "metrics.csv", *theirs}


def test_a_figure_that_is_drawn_from_the_same_stays_and_is_known(tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path)
    figures = {f"figures/{name}": "x" for name in ("a.png", "a.pdf", "b.png", "b.pdf")}
    drawn = {name: f"from {name[8]}" for name in figures}
    suite.write_reports(figures, drawn=drawn)
    assert suite.drawn() == drawn
    kept = {name: drawn[name] for name in figures if "/a" in name}
    suite.write_reports({}, "made of this", kept)
    assert files(tmp_path) == {"figures/a.png", "figures/a.pdf", ".written.json"}
    assert suite.drawn() == kept
    assert suite.holds_report("made of this")
    suite.write("figures/a.pdf", "y")
    assert suite.drawn() == {}  # both are drawn again
    (tmp_path / "figures/a.pdf").unlink()
    assert suite.drawn() == {}


def test_a_report_is_known_again_until_one_of_its_files_changes(tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path)
    suite.write_reports({"tables/a.md": "x", "metrics.csv": "y"}, "made of this")
    assert suite.holds_report("made of this")
    assert not suite.holds_report("made of that")
    suite.write("metrics.csv", "z")
    assert not suite.holds_report("made of this")
    suite.write("metrics.csv", "y")
    assert suite.holds_report("made of this")
    (tmp_path / "tables/a.md").unlink()
    assert not suite.holds_report("made of this")


def test_a_file_that_says_the_same_is_not_written_again(tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path)
    file = suite.write("a.md", "x")
    before = file.stat().st_ino
    assert suite.write("a.md", "x").stat().st_ino == before
    assert suite.write("a.md", "y").stat().st_ino != before


def test_the_first_report_of_a_directory_without_a_list_removes_nothing(tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path)
    suite.write("tables/old.md", "x")
    suite.write_reports({"tables/new.md": "x"})
    assert files(tmp_path) == {"tables/old.md", "tables/new.md", ".written.json"}


LISTS = {
    "outside": '{{"files": {{"tables/../../outside": "", "../outside": ""}}}}',
    "below": '{{"files": {{"tables/sub/../../../outside": "", "tables/sub/a.md": ""}}}}',
    "absolute": '{{"files": {{"{outside}": "", "tables/{outside}": ""}}}}',
    "the results": '{{"files": {{"metrics.csv": "", "runs/a/run.json": "", "tables/..": ""}}}}',
    "a list": '["tables/a.md"]',
    "no files": '{{"files": ["tables/a.md"]}}',
    "no texts": '{{"files": {{"x": [1]}}, "made_of": null, "drawn": {{"x": "y"}}}}',
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


def made(tmp_path: Path, *attacks: str) -> RunStore:
    return write_run(tmp_path, "one", [attack(name, correct=[True, False]) for name in attacks])


def test_a_run_is_started_over_once_however_often_it_is_visited(tmp_path: Path) -> None:
    suite, run = SuiteStore(tmp_path), made(tmp_path)
    suite.start_over(run.run_id)
    assert run.record() is None
    made(tmp_path)
    suite.start_over(run.run_id)
    assert run.record() is not None


def test_what_cannot_be_cleared_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path)

    def held(*words: object) -> None:
        raise OSError(16, "Device or resource busy", "run.json")

    monkeypatch.setattr(Path, "unlink", held)
    with pytest.raises(RunError, match=r"run\.json cannot be removed \(Device"):
        run.clear()


def test_a_failure_is_there_until_the_run_succeeds(tmp_path: Path) -> None:
    run = RunStore(tmp_path / "run")
    assert run.failure is None
    run.fail("no luck")
    assert run.failure == "no luck"
    run.succeed()
    assert run.failure is None


def test_a_run_is_begun_anew_only_where_nothing_of_it_is_there(tmp_path: Path) -> None:
    run = made(tmp_path)
    record = run.begun_record()
    later = record.model_copy(update={"made": time(9)})
    assert run.begin(later) == record
    assert run.begin(later, anew=True) == later
    add_attack(run, attack("pgd2", correct=[True, False]))
    assert run.begin(record, anew=True) == later


def test_a_second_training_with_other_weights_adds_nothing(tmp_path: Path) -> None:
    run = RunStore(tmp_path / "run")
    run.finish(trained_record("run"), b"one")
    run.finish(trained_record("run"), b"one")
    with pytest.raises(RunError, match=r"trained\.json is of other weights"):
        run.finish(trained_record("run"), b"two")
    assert run.weights() == b"one"


def test_weights_that_a_killed_process_left_out_are_written(tmp_path: Path) -> None:
    run = RunStore(tmp_path / "run")
    run.finish(trained_record("run"), b"one")
    (run.path / "model.safetensors").unlink()
    assert not run.trained
    run.finish(trained_record("run"), b"one")
    assert run.weights() == b"one"


def test_weights_that_are_not_those_of_the_training_are_refused(tmp_path: Path) -> None:
    run = made(tmp_path)
    (run.path / "trained.json").unlink()
    run.finish(trained_record(run.run_id), b"one")
    file = run.path / "model.safetensors"
    file.write_bytes(b"two")
    with pytest.raises(
        UserError, match=r"model\.safetensors is not what was trained: .* put it back"
    ):
        run.weights()
    run.round(b"half", {"clean": 2})
    assert run.weights() == b"half"
    file.write_bytes(b"one")  # killed between the record and the file
    assert run.weights() == b"one"
    file.write_bytes(b"two")
    with pytest.raises(UserError, match="is not what was trained or rounded"):
        run.weights()


@pytest.mark.parametrize("name", ["run.json", "trained.json"])
def test_a_lost_record_is_told_by_everything_that_needs_it(tmp_path: Path, name: str) -> None:
    run = made(tmp_path)
    suite = SuiteStore(run.path.parent.parent)
    (run.path / "trained.json").unlink()
    run.finish(trained_record(run.run_id), b"one")
    run.check_whole()
    (run.path / name).unlink()
    told = rf"{name} is gone; put it back, or delete the folder"
    for ask in (run.check_whole, run.weights if name == "trained.json" else run.begun_record):
        with pytest.raises(UserError, match=told):
            ask()
    if name == "trained.json":
        return  # a report shows what is there, and another copy of the run may have it
    other = write_run(suite.path, "two", [attack("pgd2", correct=[True, False])])
    with pytest.warns(Notice, match=r"is left out: its run\.json is gone; put it back, or delete"):
        (found,) = collect([suite.path])
    assert found.record.run_id == other.run_id, "the others are there"


def test_weights_that_were_rounded_otherwise_stay(tmp_path: Path) -> None:
    run = made(tmp_path)
    (run.path / "trained.json").unlink()
    run.finish(trained_record(run.run_id), b"one")
    run.round(b"half", {"clean": 2})
    run.round(b"half", {"clean": 2})
    with pytest.raises(RunError, match=r"rounded\.json is of other weights"):
        run.round(b"another", {"clean": 2})
    assert run.weights() == b"half"


def test_what_is_left_of_a_clearing_that_was_killed_is_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path, "pgd2")
    (run.path / "trained.json").unlink()
    run.finish(trained_record(run.run_id), b"one")
    gone: list[str] = []

    def noted(path: Path, missing_ok: bool = False) -> None:
        gone.append(path.name)
        assert (run.path / "run.json").exists() or path.name == "run.json"
        unlink(path, missing_ok=missing_ok)

    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", noted)
    run.clear()
    assert gone[-2:] == ["trained.json", "run.json"]


# attacks ----------------------------------------------------------------------------------------


def test_the_same_attack_twice_is_one_and_another_outcome_is_refused(tmp_path: Path) -> None:
    run = made(tmp_path, "pgd2")
    before = run.attacks()
    add_attack(run, attack("pgd2", correct=[True, False]), place=5)
    assert run.attacks() == before
    with pytest.raises(RunError, match=r"pgd2-2-0\.json says 1 of 2 right .* says 2 of 2 right"):
        add_attack(run, attack("pgd2", correct=[True, True]))
    (record,) = run.attacks().values()
    outcomes = run.outcomes(record)
    assert outcomes is not None
    assert outcomes["correct"].tolist() == [True, False]


def test_outcomes_that_are_gone_come_back_with_the_same_attack(tmp_path: Path) -> None:
    run = made(tmp_path, "pgd2")
    (file,) = (run.path / "attacks").glob("*.parquet")
    file.unlink()
    (record,) = run.attacks().values()
    assert run.outcomes(record) is None
    add_attack(run, attack("pgd2", correct=[True, False]))
    assert run.outcomes(record) is not None


def test_what_a_killed_writer_left_without_a_record_is_replaced(tmp_path: Path) -> None:
    run = made(tmp_path, "pgd2")
    (rows,) = (run.path / "attacks").glob("*.parquet")
    (file,) = (run.path / "attacks").glob("*.json")
    file.unlink()
    add_attack(run, attack("pgd2", correct=[True, True]))
    (record,) = run.attacks().values()
    outcomes = run.outcomes(record)
    assert outcomes is not None
    assert outcomes["correct"].tolist() == [True, True]
    assert rows.exists()


def test_the_loser_of_a_race_leaves_the_winners_outcomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both see no record, the loser's outcomes come first, the winner's record does."""
    run, other = made(tmp_path), attack("pgd2", correct=[True, True])
    real = store.create

    def interrupted(path: Path, content: bytes) -> bool:
        ours = real(path, content)
        if path.suffix == ".parquet" and ours:
            monkeypatch.setattr(store, "create", real)
            add_attack(run, other)
        return ours

    monkeypatch.setattr(store, "create", interrupted)
    with pytest.raises(RunError, match="says 2 of 2 right"):
        add_attack(run, attack("pgd2", correct=[True, False]))
    (record,) = run.attacks().values()
    outcomes = run.outcomes(record)
    assert outcomes is not None
    assert outcomes["correct"].tolist() == [True, True]


def test_a_record_of_another_run_is_named(tmp_path: Path) -> None:
    run = made(tmp_path, "pgd2")
    other = write_run(tmp_path, "two", [])
    shutil.copytree(run.path / "attacks", other.path / "attacks")
    with pytest.raises(UserError, match=f"is the record of pgd2-2-0 on {run.run_id}"):
        other.attacks()


# weights and states -----------------------------------------------------------------------------


def test_resume_state_comes_back_and_is_dropped_with_the_final_weights(tmp_path: Path) -> None:
    run = RunStore(tmp_path / "run")
    assert load_state(run) is None
    history = [{"epoch": 1, "train_loss": 0.1 + 0.2}]
    save_state(run, {"net": {"w": torch.tensor([1.5])}, "history": history})
    state = load_state(run)
    assert state is not None
    assert torch.equal(state["net"]["w"], torch.tensor([1.5]))
    assert state["history"] == history
    assert run.history()["train_loss"].tolist() == [0.1 + 0.2]
    assert not run.trained
    run.finish(trained_record("run"), to_bytes({"w": torch.tensor([1.5])}, {"arch": "x"}))
    assert run.trained
    assert load_state(run) is None
    assert torch.equal(load_model(run)["w"], torch.tensor([1.5]))


def test_attack_state_is_kept_by_id_until_it_is_dropped(tmp_path: Path) -> None:
    run = RunStore(tmp_path / "run")
    save_attack_state(run, "autoattack-1", {"pred": torch.arange(3)})
    assert load_attack_state(run, "autoattack-2") is None
    state = load_attack_state(run, "autoattack-1")
    assert state is not None
    assert torch.equal(state["pred"], torch.arange(3))
    run.drop_attack_state("autoattack-1")
    assert load_attack_state(run, "autoattack-1") is None


def test_damaged_weights_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    run = RunStore(tmp_path)
    run.finish(trained_record(run.run_id), b"\x10\x00")
    with pytest.raises(UserError, match=r"model\.safetensors is not a readable"):
        load_model(run)


# suites -----------------------------------------------------------------------------------------


def put(suite: SuiteStore, name: str) -> RunStore:
    """A folder with a record, whatever it says."""
    run = suite.run(name)
    run.path.mkdir(parents=True)
    (run.path / "run.json").write_text("{}")
    return run


def test_runs_are_the_folders_with_a_record_by_name(tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path)
    assert suite.runs() == []
    for name in ("b", "a"):
        put(suite, name)
    (tmp_path / "runs" / "c").mkdir()
    assert [run.run_id for run in suite.runs()] == ["a", "b"]


def test_suite_of_a_run_directory_is_two_levels_up(tmp_path: Path) -> None:
    put(SuiteStore(tmp_path), "a")
    suite, run = suite_of(tmp_path / "runs" / "a")
    assert suite.path == tmp_path.resolve()
    assert run.run_id == "a"
    with pytest.raises(UserError, match="no run directory"):
        suite_of(tmp_path)


def test_only_what_killed_writers_left_long_ago_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, elsewhere = made(tmp_path), tmp_path / "elsewhere"
    places = [run.path, run.path / "attacks", elsewhere]
    left = []
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", lambda *args, **more: None)
        killed.setattr(os, "replace", lambda source, target: left.append(Path(source)))
        for place in places:
            write_atomic(place / "file", b"half")
    own = [run.path / name for name in (".notes.tmp", ".metrics.csv.ab12.tmp")]
    for file in own:
        file.write_text("mine")
    run.sweep()
    assert all(file.exists() for file in left)  # young: perhaps still being written
    for file in (*left, *own):
        os.utime(file, (0, clock.time() - ABANDONED - 60))
    run.sweep()
    assert [file.exists() for file in left] == [False, False, True]
    assert all(file.exists() for file in own)


def test_a_linked_run_belongs_to_the_suite_that_its_path_names(tmp_path: Path) -> None:
    real, mine = SuiteStore(tmp_path / "real"), SuiteStore(tmp_path / "mine")
    run = put(real, "a")
    put(mine, "b")
    (mine.path / "runs" / "link").symlink_to(run.path)
    assert suite_of(mine.path / "runs" / "link")[0].path == mine.path
    assert [run.run_id for run in mine.runs()] == ["b", "link"]
    (tmp_path / "suite").symlink_to(real.path)
    assert suite_of(tmp_path / "suite" / "runs" / "a")[0].path == tmp_path / "suite"
    (tmp_path / "short").symlink_to(run.path)
    suite, found = suite_of(tmp_path / "short")
    assert (suite.path, found.run_id) == (real.path, "a")


def test_a_run_counts_once_however_many_links_lead_to_it(tmp_path: Path) -> None:
    suite = SuiteStore(tmp_path)
    run = put(suite, "b")
    (tmp_path / "runs" / "a").symlink_to(run.path)
    (tmp_path / "runs" / "c").symlink_to("b")
    assert [run.run_id for run in suite.runs()] == ["b"]


def test_a_run_directory_outside_any_suite_is_the_users_error(tmp_path: Path) -> None:
    run = made(tmp_path)
    run.path.rename(tmp_path / "lone")
    with pytest.raises(UserError, match="lies in no suite"):
        suite_of(tmp_path / "lone")


def test_log_takes_names_that_are_no_text(tmp_path: Path) -> None:
    run = RunStore(tmp_path)
    run.log(os.fsdecode(b"caf\xe9"))
    assert (tmp_path / "log.txt").read_bytes() == b"caf\\xe9\n"
