"""Plans on a real Ray of two nodes: whatever is killed, the bits are those of an unbroken run.

bash tests/bench/launch/apart.sh python -m pytest -n0 -m ray
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_cluster import RayCluster, missing
from real_runs import Runs

pytestmark = [pytest.mark.ray, pytest.mark.skipif(bool(missing()), reason=missing())]

ON = ("--launcher", "ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with (
        tempfile.TemporaryDirectory(prefix="ray") as folder,
        RayCluster(Path(folder), 2) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"), "ray")


def test_ctrl_c_ends_the_workers_and_the_command_goes_on(cluster: RayCluster, runs: Runs) -> None:
    runs.ended("serial", runs.bench("serial", "--seeds", "0-1"))
    bench = runs.bench("stopped", "--seeds", "0", *ON, pace=0.5)
    (run_id,) = runs.begun("stopped")
    worker = runs.worker("stopped", run_id)
    bench.send_signal(signal.SIGINT)
    runs.ended("stopped", bench, 130)
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    runs.ended("stopped", runs.bench("stopped", "--seeds", "0", *ON))
    assert runs.facts("stopped").items() <= runs.facts("serial").items()


def test_a_worker_and_a_node_are_killed(cluster: RayCluster, runs: Runs) -> None:
    bench = runs.bench("killed", "--seeds", "0-1", *ON, pace=1.5)
    first, second = runs.begun("killed", 2, runs=2)
    os.kill(runs.worker("killed", first), signal.SIGKILL)
    log = runs.folder / "killed" / "logs" / f"{first}.log"
    runs.until("killed", lambda: log.read_text().count("resuming after epoch") == 1)
    cluster.kill_node("n2")
    said = runs.ended("killed", bench)
    assert "(signal 9), again" in said
    assert said.count(": lost at epoch") == 2, said
    assert runs.facts("killed") == runs.facts("serial")
    assert second in runs.facts("killed")
