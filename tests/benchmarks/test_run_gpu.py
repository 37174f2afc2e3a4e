"""The GPU script, on a CPU and tiny: whole runs come back without their weights, and merge."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "run_gpu.sh"
TINY = (
    "--dataset digits-lt --imbalance-ratio 10 --arch small-cnn --epochs 1 --limit-train 60 "
    "--limit-test 20 --attacks clean,pgd2"
)
WITHOUT_FIGURES = """
import ltrobust.report
from ltrobust.cli import main

ltrobust.report._draw_all = lambda *_: None
main()
"""
"""The command line without what takes the most time of a tiny bench, and is not looked at here."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("program") / "without_figures.py"
    file.write_text(WITHOUT_FIGURES)
    return file


def call(program: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "LTROBUST": f"{sys.executable} {program}",
        "DEVICE": "cpu",
        "FLAGS": TINY,
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [str(SCRIPT), *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def test_slices_bring_back_tables_only_and_merge_into_one_report(
    tmp_path: Path, program: Path
) -> None:
    for name in ("pgd-at", "at-bsl-ra"):
        done = call(program, name, "out", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    runs = sorted(path.name for path in (tmp_path / "out" / "runs").iterdir())
    assert [name.rpartition("-")[0] for name in runs] == ["at-bsl", "pgd-at"]
    files = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"run.json", "outcomes.parquet", "history.csv", "reliability.json"} <= files
    assert not [name for name in files if name.endswith((".safetensors", "state.pt"))]
    merged = call(program, "merge", "out", "report", cwd=tmp_path)
    assert merged.returncode == 0, merged.stderr
    leaderboard = (tmp_path / "report" / "leaderboard.csv").read_text()
    assert "pgd-at" in leaderboard
    assert "randaugment" in leaderboard


def test_wrong_words_get_one_line(tmp_path: Path, program: Path) -> None:
    for words in (("no-such-slice", "out"), ("pgd-at",)):
        done = call(program, *words, cwd=tmp_path)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
    assert call(program, "list", cwd=tmp_path).stdout.split()[0] == "speed"
    assert not list(tmp_path.iterdir())
