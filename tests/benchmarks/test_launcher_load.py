"""The load test of launchers, with few runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "studies" / "launcher_load.py"


@pytest.mark.slow
def test_all_runs_are_done_once_and_a_ratio_is_told(tmp_path: Path) -> None:
    words = ["local", "--runs", "4", "--folder", tmp_path, "--json", tmp_path / "load.json"]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "4 runs, each trained once" in done.stdout
    written = json.loads((tmp_path / "load.json").read_text())
    assert written["launched"]["seconds"] > 0
    assert written["start"]["files"] > 1000
    assert written["start"]["libraries"] > 10
