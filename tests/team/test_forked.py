"""Runs the tests that fork in processes of their own.

Where another test has made up a device, torch's gradients have threads and a fork of the process
cannot compute any.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SLOW = pytest.mark.slow


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("file", "chosen"),
    [
        ("test_shared_evaluation.py", "not slow"),
        pytest.param("test_shared_evaluation.py", "slow", marks=SLOW),
        pytest.param("test_every_method.py", "slow", marks=SLOW),
    ],
)
def test_forked(file: str, chosen: str) -> None:
    words = ["-n0", "-q", "-p", "no:cacheprovider", "-m", chosen, Path(__file__).with_name(file)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:]
