"""The GPU day, rehearsed on a CPU and tiny: whole runs come back in time, and weights in parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_day.sh"
TINY = (
    "--dataset digits-lt --imbalance-ratio 10 --arch small-cnn --batch-size 16 --limit-train 60 "
    "--limit-test 20 --watch clean --watch-every 1 --no-checks --search fp32"
)


def call(cwd: Path, *stages: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "DEVICE": "cpu",
        "OUT": str(cwd / "out"),
        "WORK": str(cwd / "work"),
        "OMP_NUM_THREADS": "1",
        **more,
    }
    return subprocess.run(
        ["bash", str(SCRIPT), *stages],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_runs_come_back_by_deadline_with_curves_and_weights(tmp_path: Path) -> None:
    done = call(
        tmp_path,
        "runs",
        ONLY="taet,pgd-at",
        EPOCHS="2",
        FLAGS=TINY,
        ATTACKS="clean,pgd2",
        LAST="pgd3",
        LIMIT_RUNS="170",
        WEIGHTS="pgd-at",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not begun: none" in done.stdout, done.stdout
    out = tmp_path / "out"
    with tarfile.open(out / "runs.tar.gz") as archive:
        archive.extractall(tmp_path / "back", filter="data")
    runs = sorted((tmp_path / "back" / "runs").iterdir())
    assert [run.name.rpartition("-")[0] for run in runs] == ["pgd-at", "taet"]
    for run in runs:
        names = {path.name for path in run.iterdir()}
        assert {"run.json", "trained.json", "history.csv", "attacks"} <= names
        assert not {"model.safetensors", "state.pt"} & names
        made = [json.loads(file.read_text()) for file in (run / "attacks").glob("*.json")]
        assert {one["attack"] for one in made} == {"clean", "pgd2", "pgd3"}
        assert len(list((run / "attacks").glob("*.parquet"))) == 3
        assert pd.read_csv(run / "history.csv")["test_watched_clean"].notna().all()
    whole = b"".join(part.read_bytes() for part in sorted(out.glob("weights.*")))
    (kept,) = (tmp_path / "work" / "pgd-at").glob("runs/*/model.safetensors")
    assert whole == kept.read_bytes()
    assert not (tmp_path / "work" / "pgd-at" / "index.html").exists()


def test_nothing_begins_that_cannot_end_in_time(tmp_path: Path) -> None:
    done = call(tmp_path, "runs", ONLY="taet", FLAGS=TINY, LIMIT_RUNS="60")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not begun: taet" in done.stdout


@pytest.mark.parametrize("words", [("no-such-stage",), ()])
def test_wrong_words_are_told_before_anything_is_done(tmp_path: Path, words: tuple[str]) -> None:
    done = call(tmp_path, *words)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == (1 if words else 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_speed_is_written_case_by_case_without_a_gpu(tmp_path: Path) -> None:
    done = call(tmp_path, "speed", LIMIT_SPEED="60")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "out" / "speed.json").read_text())
    assert rows["pgd-at/bf16/ordinary"]["ms"] > 0
