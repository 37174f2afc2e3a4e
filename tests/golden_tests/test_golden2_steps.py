"""Whole training steps of the other defenses against the published code."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from golden2_steps import FILE, Builder, Case, run
from golden_store import SECOND

pytestmark = pytest.mark.golden
STEPS: dict[str, Builder] = {}
for _file in sorted(Path(__file__).parent.glob("steps2_*.py")):
    STEPS |= import_module(_file.stem).STEPS


@SECOND.each_case(FILE)
def test_step(case: dict[str, Any]) -> None:
    assert case["name"] in STEPS, "no code of ours stands for this case"
    stored = Case(case)
    run(stored, STEPS[case["name"]](stored))
