"""The study of threads that wait runs, whole and small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "studies" / "busy.py"


@pytest.mark.slow
def test_it_compares_both_ways_to_wait_alone_and_in_company(tmp_path: Path) -> None:
    file = tmp_path / "busy.json"
    words = ["--rounds", "1", "--epochs", "2", "--json", str(file)]
    subprocess.run([sys.executable, str(SCRIPT), *words], check=True, capture_output=True)
    found = json.loads(file.read_text())
    assert list(found) == ["alone", "beside another process"]
    for case in found.values():
        assert case["for long / shortly"] == pytest.approx(case["for long"] / case["shortly"])
        assert case["n"] == 1
