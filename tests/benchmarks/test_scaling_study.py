"""The scaling study runs, fits what it says it fits, and would notice growth that is too fast."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "studies" / "scaling.py"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scaling_study", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling_study"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scaling_study"]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_is_the_power_of_a_power_law(study: ModuleType, power: float) -> None:
    sizes = [10, 100, 1000]
    assert study.exponent(sizes, [3 * s**power for s in sizes]) == pytest.approx(power)


def test_quadratic_growth_is_called_worse(study: ModuleType) -> None:
    linear, square = {s: s * 1e-3 for s in (8, 16)}, {s: s * s for s in (8, 16)}
    assert study.growth("a", linear, {8: 8, 16: 16}).verdict == "linear or better"
    assert study.growth("a", linear, square).verdict == "WORSE THAN LINEAR"
    assert study.growth("a", square, {8: 8, 16: 16}).verdict == "WORSE THAN LINEAR"


def test_memory_of_a_loss_is_counted_without_its_input_twice(study: ModuleType) -> None:
    found = study.LossAlone(study.LOSSES["cross-entropy"], 50).bytes()
    log_softmax, labels, weight = 128 * 50 * 4, 128 * 8, 4
    assert found == log_softmax + labels + weight


@pytest.mark.slow
def test_a_quick_run_writes_every_case(tmp_path: Path) -> None:
    file = tmp_path / "scaling.json"
    subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--json", str(file)],
        check=True,
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    content = json.loads(file.read_text())
    names = [case["what"] for case in content["growth"]]
    assert names[:2] == ["step, by batch size", "epoch, by training images"]
    assert len(names) == len(set(names)) == 11
    for case in content["growth"]:
        assert len(case["sizes"]) == len(case["seconds"]) == len(case["bytes"]) == 2
        assert all(value > 0 for value in (*case["seconds"], *case["bytes"]))
    assert set(content["times_the_cross_entropy"]) == {n for n in names if n in names[2:7]}
    assert content["threads"] == 1
    assert torch.tensor(content["times_the_cross_entropy"][names[2]]).eq(1).all()
