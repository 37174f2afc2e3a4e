"""Losses of the other defenses and their gradients against the published code.

What of ours a case means stands in the files `losses2_*.py`, each a table from case names without
their group.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from golden2_losses import LossCase
from golden_store import SECOND, Arguments, assert_close
from torch import Tensor

pytestmark = pytest.mark.golden
FILE = "losses"
LOSSES: dict[str, Callable[[LossCase], Tensor]] = {}
for _file in sorted(Path(__file__).parent.glob("losses2_*.py")):
    LOSSES |= import_module(_file.stem).LOSSES


def build(case: dict[str, Any], dtype: torch.dtype) -> LossCase:
    inputs = {role: SECOND.tensor(FILE, key, dtype) for role, key in case["inputs"].items()}
    for role in case["differentiated"]:
        inputs[role].requires_grad_()
    group = case["group"]
    return LossCase(
        inputs, Arguments(case["args"]), lambda name: SECOND.tensor(FILE, f"{group}.{name}", dtype)
    )


def compute(case: dict[str, Any], built: LossCase) -> Tensor:
    name = case["name"].removeprefix(f"{case['group']}.")
    assert name in LOSSES, "no loss of ours stands for this case"
    return LOSSES[name](built)


@SECOND.each_case(FILE)
def test_loss(case: dict[str, Any]) -> None:
    built = build(case, torch.float64)
    loss = compute(case, built)
    built.args.assert_all_read()
    roles = case["differentiated"]
    gradients = torch.autograd.grad(
        loss, [built.inputs[role] for role in roles], materialize_grads=True
    )
    ours = {"loss": loss, **built.also}
    ours |= {f"grad_{role}": g for role, g in zip(roles, gradients, strict=True)}
    assert "loss" in case["outputs"]
    for output, key in case["outputs"].items():
        assert_close(ours[output], SECOND.tensor(FILE, key), 1e-6)
    for role, key in case["inputs"].items():
        assert torch.equal(built.inputs[role], SECOND.tensor(FILE, key)), f"{role} was changed"
    if "float32_loss" in case:
        single = compute(case, build(case, torch.float32))
        assert_close(single, torch.tensor(case["float32_loss"]), 1e-5)
