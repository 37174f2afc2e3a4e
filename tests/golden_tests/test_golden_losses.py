"""Losses and their gradients against the published code, in float64 and float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_losses import LossCase, rbl_weights
from golden_store import Arguments, arrays, assert_close, document, each_case, tensor
from golden_table import LOSSES
from torch import Tensor

from ltrobust.losses import tail_class_mask

pytestmark = pytest.mark.golden
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}


def build(case: dict[str, Any], dtype: torch.dtype) -> LossCase:
    group = case["group"]

    def array(value: Any) -> Tensor | None:
        if value is None:
            return None
        if not isinstance(value, str):
            return torch.tensor(value, dtype=dtype)
        return tensor("losses", case["inputs"].get(value, f"{group}.{value}"), dtype)

    inputs = {role: tensor("losses", key, dtype) for role, key in case["inputs"].items()}
    for role in case["differentiated"]:
        inputs[role].requires_grad_()
    return LossCase(inputs, Arguments(case["args"]), array)


@each_case("losses")
def test_loss(case: dict[str, Any]) -> None:
    assert "loss" in case["outputs"]
    for dtype in (torch.float64, torch.float32):
        single = dtype == torch.float32
        outputs = {k: v for k, v in case["outputs"].items() if k.endswith("_f32") == single}
        check_outputs(case, outputs, dtype)


def check_outputs(case: dict[str, Any], outputs: dict[str, str], dtype: torch.dtype) -> None:
    built = build(case, dtype)
    loss = LOSSES[case["name"].removeprefix(f"{case['group']}.")](built)
    built.args.assert_all_read()
    differentiated = [built[role] for role in case["differentiated"]]
    gradients = torch.autograd.grad(loss, differentiated, materialize_grads=True)
    ours = {"loss": loss}
    ours |= {f"grad_{role}": g for role, g in zip(case["differentiated"], gradients, strict=True)}
    if "weights" in outputs:
        ours["weights"] = rbl_weights(built)
    for output, key in outputs.items():
        tolerance = 5e-5 if output == "weights" else TOLERANCE[dtype]
        expected = torch.from_numpy(arrays("losses")[key])
        assert_close(ours[output.removesuffix("_f32")], expected, tolerance)
    for role, key in case["inputs"].items():
        assert torch.equal(built[role], tensor("losses", key, dtype)), f"{role} was changed"


@pytest.mark.parametrize("group", document("losses")["groups"])
def test_reat_tail_classes(group: str) -> None:
    stored = document("losses")["groups"][group]
    mask = tail_class_mask(stored["num_classes"])
    assert mask.nonzero().flatten().tolist() == stored["reat_tail_classes"]
