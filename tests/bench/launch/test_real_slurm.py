"""Plans on a real SLURM of two nodes: whatever is killed, the bits are those of an unbroken run.

bash tests/bench/launch/apart.sh python -m pytest -n0 -m slurm
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_runs import EPOCHS, Runs
from slurm_cluster import SlurmCluster, call, missing, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(missing()), reason=missing())]

ON = ("--launcher", "slurm", "--slurm", "gres=gpu:1", "--slurm", "partition=low")
PACE = 0.5


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with (
        tempfile.TemporaryDirectory(prefix="slurm") as folder,
        SlurmCluster(Path(folder), 2) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"), "slurm")


@pytest.fixture(scope="module")
def unbroken(runs: Runs) -> dict[str, tuple[str, ...]]:
    """Weights and outcomes of runs in one process."""
    runs.ended("serial", runs.bench("serial", "--seeds", "0-2"))
    return runs.facts("serial")


@pytest.fixture(autouse=True)
def _idle(cluster: SlurmCluster) -> None:
    """Every test begins with two idle nodes."""
    wait_until(lambda: cluster.idle() == set(cluster.nodes), "idle nodes")


def same(runs: Runs, suite: str, unbroken: dict[str, tuple[str, ...]], number: int = 1) -> None:
    found = runs.facts(suite)
    assert len(found) == number
    assert found == {run_id: unbroken[run_id] for run_id in found}, runs.story(suite)


def test_an_array_on_two_nodes_and_a_driver_that_leaves(
    runs: Runs, unbroken: dict[str, tuple[str, ...]]
) -> None:
    words = ("--seeds", "0-2", *ON)
    said = runs.ended("array", runs.bench("array", *words, "--detach", pace=PACE))
    assert "3 runs are submitted and go on" in said
    said = runs.ended("array", runs.bench("array", *words, pace=PACE))
    assert "attached to 3 runs" in said
    assert "running on n1 (job" in said
    assert "running on n2 (job" in said
    same(runs, "array", unbroken, 3)
    assert "turn 0 of job" in runs.log("array", next(iter(unbroken)))


def test_a_killed_worker_is_submitted_again(
    runs: Runs, unbroken: dict[str, tuple[str, ...]]
) -> None:
    bench = runs.bench("killed", "--seeds", "0", *ON, pace=PACE)
    (run_id,) = runs.begun("killed")
    os.kill(runs.worker("killed", run_id), signal.SIGKILL)
    said = runs.ended("killed", bench)
    assert f"{run_id}: lost at epoch" in said
    assert "(signal 9), again" in said
    assert "resuming after epoch" in runs.log("killed", run_id)
    same(runs, "killed", unbroken)


def test_a_preempted_run_is_requeued_by_slurm(
    runs: Runs, unbroken: dict[str, tuple[str, ...]]
) -> None:
    bench = runs.bench("preempted", "--seeds", "0", *ON, pace=3 * PACE)
    (run_id,) = runs.begun("preempted")
    call("sbatch", "-p", "high", "-N2", "--gres=gpu:1", "-o", "/dev/null", "--wrap", "sleep 1")
    said = runs.ended("preempted", bench)
    assert "lost" not in said
    log = runs.log("preempted", run_id)
    assert "turn 1 of job" in log
    assert "resuming after epoch" in log
    same(runs, "preempted", unbroken)


def test_a_run_beyond_its_time_limit_takes_another_turn(
    runs: Runs, unbroken: dict[str, tuple[str, ...]]
) -> None:
    # the signal comes 40 to 100 seconds after the start: SLURM may be a minute early
    limit = ("--slurm", "time=3", "--slurm", "signal=B:USR2@80", "--save-every", "300")
    bench = runs.bench("limit", "--seeds", "0", *ON, *limit, pace=9)
    (run_id,) = runs.begun("limit", 1)
    said = runs.ended("limit", bench)
    assert "lost" not in said
    log = runs.log("limit", run_id)
    assert "time limit near" in log
    assert "another turn" in log
    assert "turn 1 of job" in log
    assert "resuming after epoch" in log
    same(runs, "limit", unbroken)


def test_two_copies_after_a_cut_network_do_not_disturb_each_other(
    cluster: SlurmCluster, runs: Runs, unbroken: dict[str, tuple[str, ...]]
) -> None:
    bench = runs.bench("brain", "--seeds", "0", *ON, pace=7)
    (run_id,) = runs.begun("brain", 1)
    first = runs.worker("brain", run_id)
    node = call("squeue", "--noheader", "-o", "%N")
    cluster.kill_node(node)
    log = runs.folder / "brain" / "logs" / f"{run_id}.log"
    wait_until(lambda: "turn 1 of job" in log.read_text(), "another copy")
    wait_until(lambda: "is doing it" in log.read_text(), "its claim")
    os.kill(first, 0)  # the first lives on
    assert runs.worker("brain", run_id) == first
    runs.ended("brain", bench)
    cluster.start_node(node)
    same(runs, "brain", unbroken)
    history = runs.folder / "brain" / "runs" / run_id / "history.csv"
    assert history.read_text().count("\n") == EPOCHS + 1


def test_what_somebody_cancels_fails_until_the_command_is_given_again(
    runs: Runs, unbroken: dict[str, tuple[str, ...]]
) -> None:
    bench = runs.bench("cancelled", "--seeds", "0", *ON, pace=PACE)
    runs.begun("cancelled")
    call("scancel", call("squeue", "--noheader", "-o", "%A"))
    assert "was cancelled; the same command" in runs.ended("cancelled", bench, 1)
    assert call("squeue", "--noheader") == ""
    runs.ended("cancelled", runs.bench("cancelled", "--seeds", "0", *ON))
    same(runs, "cancelled", unbroken)


def test_ctrl_c_empties_the_queue_and_the_command_goes_on(
    runs: Runs, unbroken: dict[str, tuple[str, ...]]
) -> None:
    bench = runs.bench("stopped", "--seeds", "0", *ON, pace=PACE)
    runs.begun("stopped")
    bench.send_signal(signal.SIGINT)
    runs.ended("stopped", bench, 130)
    assert call("squeue", "--noheader") == ""
    runs.ended("stopped", runs.bench("stopped", "--seeds", "0", *ON))
    same(runs, "stopped", unbroken)
