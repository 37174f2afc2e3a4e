"""`status` and `runs`: how far each run is by its files, and which are listed and removed."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_helpers import Cli, Finished, tree
from filelock import FileLock

from ltrobust.bench.launch import Site
from ltrobust.bench.launch.sbatch import Queued, SilentError
from ltrobust.bench.launch.slurm import Slurm, Submission
from ltrobust.bench.plan import Plan, make_plan
from ltrobust.bench.plan_file import (
    drop_plans,
    fixed_plan,
    forget,
    plan_in_use,
    read_plan,
    write_plan,
)
from ltrobust.bench.settings import make_settings
from ltrobust.bench.standing import Standing, clock, finished, standings
from ltrobust.results.claims import BEAT, SILENCE
from ltrobust.results.records import now
from ltrobust.results.store import SuiteStore

ASKED = {"dataset": "digits-lt", "epochs": 9, "device": "cpu", "attacks": "clean,pgd2"}


def planned(place: Path, methods: str = "pgd-at", **settings: Any) -> tuple[Plan, SuiteStore]:
    plan = make_plan(make_settings({**ASKED, "methods": methods, "output": place, **settings}))
    suite = SuiteStore(place)
    suite.prepare()
    write_plan(plan, suite)
    return plan, suite


def claim(
    suite: SuiteStore, run_id: str, *, host: str = "n7", pid: int = 1, ago: float = 0
) -> None:
    """Somebody says that he does the run, and gave his last sign of life so many seconds ago."""
    suite.claims.mkdir(exist_ok=True)
    file = suite.claims / f"{run_id}.json"
    said = {"host": host, "pid": pid, "job": "47_3", "since": now(), "token": "a", "beats": 1}
    file.write_text(json.dumps(said))
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime - ago))


def epochs(suite: SuiteStore, run_id: str, count: int, seconds: float = 10.0) -> None:
    rows = [{"epoch": n + 1.0, "train_loss": 1.0, "seconds": seconds} for n in range(count)]
    suite.run(run_id).write_history(rows)


def only(suite: SuiteStore) -> Standing:
    (found,) = standings(read_plan(suite), suite)
    return found


def test_a_run_that_nobody_has_begun_waits(tmp_path: Path) -> None:
    _, suite = planned(tmp_path)
    found = only(suite)
    assert (found.state, found.epoch, found.epochs) == ("waiting", 0, 9)
    assert found.told() == "epoch 0/9"


def test_a_running_run_tells_where_since_when_how_far_and_how_long(tmp_path: Path) -> None:
    plan, suite = planned(tmp_path, attacks="clean")
    run_id = plan.runs[0].run.run_id
    claim(suite, run_id)
    epochs(suite, run_id, 4)
    found = only(suite)
    assert found.state == "running"
    assert found.where == "n7 (job 47_3)"
    assert found.left is None  # nobody knows yet how long the attack takes
    assert found.told() == f"epoch 4/9, n7 (job 47_3), since {clock(found.since)}"


def test_the_time_left_counts_epochs_and_attacks_of_like_runs(finished: Finished) -> None:
    suite = SuiteStore(finished.suite)
    plans = read_plan(suite)
    done = [one.state for one in standings(plans, suite)]
    assert done == ["done", "done"]
    from ltrobust.bench.standing import _left, paces

    pace = paces(list(plans.values()), suite)
    (arch,) = pace
    assert set(pace[arch]) == {"clean", "pgd2"}
    assert _left(3, [10.0, 20.0], ["pgd2"], {"pgd2": 7.0}) == 3 * 15.0 + 7.0
    assert _left(0, [], ["pgd2"], {"pgd2": 7.0}) == 7.0
    assert _left(1, [], [], {}) is None
    assert _left(1, [1.0], ["pgd2"], {}) is None


def test_a_worker_that_is_silent_or_dead_is_lost(tmp_path: Path) -> None:
    plan, suite = planned(tmp_path)
    run_id = plan.runs[0].run.run_id
    claim(suite, run_id, ago=(SILENCE + 2) * BEAT)
    assert only(suite).state == "lost"
    claim(suite, run_id, host=socket.gethostname(), pid=2**22 + 1)
    assert only(suite).state == "lost"
    claim(suite, run_id, host=socket.gethostname(), pid=os.getpid(), ago=1e6)
    assert only(suite).state == "running"


def test_a_failed_run_tells_why(tmp_path: Path) -> None:
    plan, suite = planned(tmp_path)
    suite.run(plan.runs[0].run.run_id).fail("the loss is nan")
    found = only(suite)
    assert (found.state, found.told()) == ("failed", "the loss is nan")


def test_a_damaged_file_is_told_and_hides_no_other_run(tmp_path: Path) -> None:
    plan, suite = planned(tmp_path, "pgd-at,at-bsl")
    bad = suite.run(plan.runs[0].run.run_id)
    epochs(suite, bad.run_id, 2)
    (bad.path / "history.csv").write_text("nothing")
    first, second = standings(read_plan(suite), suite)
    assert first.state == "failed"
    assert "history.csv is damaged" in first.reason
    assert second.state == "waiting"


def test_status_reads_only_and_gives_json(finished: Finished, cli: Cli) -> None:
    before = tree(finished.suite)
    outcome = cli("status", finished.suite, "--json")
    assert outcome.code == 0
    rows = json.loads(outcome.stdout)
    assert [row["state"] for row in rows] == ["done", "done"]
    assert set(rows[0]) == set(Standing.__dataclass_fields__)
    assert "2 done" in cli("status", finished.suite).stdout
    assert tree(finished.suite) == before


@pytest.mark.parametrize("place", ["", "nowhere", "file"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("status",), "holds no plan.json; ltrobust bench writes it, and `ltrobust runs"),
        (("runs",), "holds no runs; give a suite's directory"),
        (("runs", "--remove", "--yes"), "holds no runs"),
    ],
)
def test_what_is_no_suite_is_one_line(
    tmp_path: Path, cli: Cli, place: str, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "file").touch()
    command, *flags = words
    outcome = cli(command, tmp_path / place, *flags)
    assert outcome.code == 2
    assert said in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_what_is_finished_lacks_nothing(finished: Finished) -> None:
    suite = SuiteStore(finished.suite)
    (plan, _) = read_plan(suite).values()
    (one,) = plan.runs
    run = suite.run(one.run.run_id)
    assert done(plan, suite)
    for name in ("reliability.json", "examples.parquet"):
        file, kept = run.path / name, (run.path / name).read_bytes()
        file.unlink()
        assert not done(plan, suite), name
        file.write_bytes(kept)
    attack = next((run.path / "attacks").glob("*.json"))
    kept = attack.read_bytes()
    attack.unlink()
    assert not done(plan, suite)
    attack.write_bytes(kept)
    run.fail("x")
    assert not done(plan, suite)
    run.succeed()
    assert done(plan, suite)


def done(plan: Plan, suite: SuiteStore) -> bool:
    (one,) = plan.runs
    return finished(one, suite.run(one.run.run_id), no_checks=False)


# runs ---------------------------------------------------------------------------------------------


def listed(cli: Cli, *words: object) -> list[dict[str, Any]]:
    outcome = cli("runs", *words, "--json")
    assert outcome.code == 0, outcome.stderr
    found: list[dict[str, Any]] = json.loads(outcome.stdout)
    return found


def test_runs_are_listed_and_filtered(tmp_path: Path, cli: Cli) -> None:
    plan, suite = planned(tmp_path, "pgd-at,at-bsl", seeds="0-2", imbalance_ratio="5,10")
    first = plan.runs[0].run.run_id
    suite.run(first).fail("no memory")
    assert len(listed(cli, tmp_path)) == 12
    assert len(listed(cli, tmp_path, "--methods", "at-bsl", "--imbalance-ratio", "5")) == 3
    assert len(listed(cli, tmp_path, "--seeds", "1-2")) == 8
    (failed,) = listed(cli, tmp_path, "--state", "failed")
    assert failed["run_id"] == first
    assert failed["bytes"] > 0
    assert cli("runs", tmp_path, "--state", "running").stdout == "no such run\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--state", "broken"), "unknown state 'broken'"),
        (("--methods", "pgd"), "did you mean 'pgd-at'"),
        (("--seeds", "x"), "--seeds"),
        (("--json", "--remove"), "give one of them"),
        (("--remove",), "add --yes"),
    ],
)
def test_what_cannot_be_listed_is_one_line(
    tmp_path: Path, cli: Cli, words: tuple[str, ...], said: str
) -> None:
    planned(tmp_path)
    outcome = cli("runs", tmp_path, *words)
    assert outcome.code == 2
    assert said in outcome.stderr.replace("\n", " ")


def test_runs_without_a_plan_are_listed_from_their_records(
    finished: Finished, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "runs").symlink_to(finished.suite / "runs")
    found = listed(cli, tmp_path)
    assert [row["state"] for row in found] == ["done", "done"]
    assert {row["attacks"] for row in found} == {2}


def test_removed_runs_are_gone_and_those_at_work_stay(tmp_path: Path, cli: Cli) -> None:
    plan, suite = planned(tmp_path, "pgd-at,at-bsl,taet")
    gone, held, kept = (one.run.run_id for one in plan.runs)
    for run_id in (gone, held, kept):
        epochs(suite, run_id, 1)
    suite.logs.mkdir()
    (suite.logs / f"{gone}.log").write_text("said\n")
    suite.claims.mkdir(exist_ok=True)
    with FileLock(suite.claims / f"{held}.lock"):
        outcome = cli("runs", tmp_path, "--methods", "pgd-at,at-bsl", "--remove", "--yes")
    assert outcome.code == 1
    assert f"{held}: another ltrobust is doing it; not removed" in outcome.stderr
    assert not suite.run(gone).path.exists()
    assert not (suite.logs / f"{gone}.log").exists()
    assert list(read_plan(suite)) == [held, kept]
    assert not suite.run(held).history().empty


def test_with_the_last_run_the_plans_go_that_nobody_needs(tmp_path: Path, cli: Cli) -> None:
    plan, suite = planned(tmp_path, "pgd-at,at-bsl")
    first, second = (one.run.run_id for one in plan.runs)
    both, alone = (fixed_plan(one, suite) for one in (plan, replace(plan, runs=plan.runs[:1])))
    (suite.plans / "damaged.json").write_text("{")
    with plan_in_use(replace(plan, runs=plan.runs[1:]), suite) as used:
        outcome = cli("runs", tmp_path, "--remove", "--yes")
        assert outcome.code == 1
        assert f"{second}: another ltrobust is to do it; not removed" in outcome.stderr
        assert set(suite.plans.glob("*.json")) == {both, used, suite.plans / "damaged.json"}
    assert not alone.exists()
    assert [row["run_id"] for row in json.loads(cli("status", tmp_path, "--json").stdout)] == [
        second
    ]
    epochs(suite, first, 1)  # it has been begun again
    assert cli("runs", tmp_path, "--methods", "at-bsl", "--remove", "--yes").code == 0
    assert both.exists()
    assert not used.exists()
    outcome = cli("status", tmp_path)
    assert outcome.code == 2
    assert "holds no plan.json" in outcome.stderr


def test_a_plan_goes_only_where_nobody_is_to_read_it(tmp_path: Path) -> None:
    plan, suite = planned(tmp_path)
    run_id = plan.runs[0].run.run_id
    forget([run_id], suite)
    with plan_in_use(plan, suite) as file:
        drop_plans(suite, ())
        assert file.exists()
    drop_plans(suite, {run_id})
    assert file.exists()
    drop_plans(suite, ())
    assert not file.exists()


def test_what_a_job_of_slurm_is_to_do_stays(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, suite = planned(tmp_path, "pgd-at,at-bsl,taet")
    queued, over, done = (one.run.run_id for one in plan.runs)
    monkeypatch.setattr("ltrobust.bench.launch.slurm.check_installed", lambda: None)
    monkeypatch.setattr("ltrobust.bench.launch.slurm.Slurm.pause", 0.0)
    tasks = [Queued("ltrobust-a", n, "7", state, "0", "", "") for n, state in enumerate(STATES)]
    monkeypatch.setattr("ltrobust.bench.launch.slurm.queue", lambda users: tasks)
    for name, runs in (("ltrobust-a", [queued, over]), ("ltrobust-b", [over, done])):
        Slurm(Site(tmp_path, "cpu"))._write(Submission(name, runs, "7"))
    file = fixed_plan(plan, suite)
    outcome = cli("runs", tmp_path, "--remove", "--yes")
    assert f"{queued}: a job of SLURM is to do it; not removed" in outcome.stderr
    assert list(read_plan(suite)) == [queued]
    assert [one.stem for one in (tmp_path / "jobs").iterdir()] == ["ltrobust-a"]
    assert file.exists()

    def silent(users: object) -> list[Queued]:
        raise SilentError("timed out")

    monkeypatch.setattr("ltrobust.bench.launch.slurm.queue", silent)
    outcome = cli("runs", tmp_path, "--remove", "--yes")
    assert f"{queued}: a job of SLURM may be to do it (SLURM does not answer" in outcome.stderr
    tasks.clear()
    monkeypatch.setattr("ltrobust.bench.launch.slurm.queue", lambda users: tasks)
    assert cli("runs", tmp_path, "--remove", "--yes").code == 0
    assert not file.exists()
    assert list((tmp_path / "jobs").iterdir()) == []


STATES = ("PENDING", "COMPLETED")


def test_of_a_linked_run_only_the_link_is_removed(
    finished: Finished, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    for run in (finished.suite / "runs").iterdir():
        (tmp_path / "runs" / run.name).symlink_to(run)
    before = tree(finished.suite)
    assert cli("runs", tmp_path, "--remove", "--yes").code == 0
    assert list((tmp_path / "runs").iterdir()) == []
    assert tree(finished.suite) == before


def test_a_base_is_not_removed_under_what_acts_on_it(tmp_path: Path, cli: Cli) -> None:
    plan, _ = planned(tmp_path, "pgd-at+tau-norm")
    outcome = cli("runs", tmp_path, "--methods", "pgd-at", "--remove", "--yes")
    assert outcome.code == 2
    assert f"{plan.runs[1].run.run_id} acts on" in outcome.stderr.replace("\n", " ")
    assert cli("runs", tmp_path, "--remove", "--yes").code == 0


# flags that do not go together --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--launcher", "slurm"), "--device auto: what the machines of --launcher slurm have"),
        (("--launcher", "ray", "--device", "cuda:1"), "say --device cuda or --device cpu"),
        (("--launcher", "condor"), "unknown launcher 'condor'"),
        (("--launcher", "slurm", "--device", "cpu", "--jobs", "2"), "it is --at-once"),
        (("--at-once", "3"), "on this machine it is --jobs"),
        (("--slurm", "time=1"), "--slurm goes with --launcher slurm"),
        (("--jobs", "2", "--detach", "--device", "cpu"), "end with this command"),
        (("--jobs", "0"), "--jobs"),
    ],
)
def test_a_launcher_that_cannot_be_is_one_line(
    cli: Cli, words: tuple[str, ...], said: str, without_memory: None
) -> None:
    outcome = cli("bench", *words, "--dry-run")
    assert outcome.code == 2
    assert said in outcome.stderr.replace("\n", " ")
    assert outcome.stderr.count("error: ") == 1


def test_a_login_node_without_a_gpu_plans_the_runs_of_one_that_has_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = {**ASKED, "methods": "pgd-at", "device": "cuda"}
    there = make_plan(make_settings({**asked, "launcher": "slurm"}))
    assert there.device == "cuda"
    monkeypatch.setattr("ltrobust.bench.plan.resolve_device", lambda name: "cuda")
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: True)
    here = make_plan(make_settings(asked))
    assert [one.run for one in there.runs] == [one.run for one in here.runs]
    assert there.runs[0].run.precision == "bf16"


def test_states_are_saved_less_often_on_a_cluster() -> None:
    assert make_settings({}).saving == 30
    assert make_settings({"launcher": "local"}).saving == 30
    assert make_settings({"launcher": "slurm"}).saving == 300
    assert make_settings({"launcher": "slurm", "save_every": 7}).saving == 7


def test_a_directory_where_files_cannot_be_renamed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ltrobust.errors import UserError

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("ltrobust.results.store.os.replace", refuse)
    with pytest.raises(UserError, match=r"cannot rename a file over another .Operation not supp"):
        SuiteStore(tmp_path / "suite").prepare()
    assert list((tmp_path / "suite").iterdir()) == []
