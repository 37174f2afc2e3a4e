"""Classifier heads against the published code: logits in both modes and their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_heads import HeadCase
from golden_store import Arguments, arrays, assert_close, each_case, tensor
from golden_table import HEADS, INITIAL_BIASES
from torch import Tensor, nn

pytestmark = pytest.mark.golden
PUBLISHED_NAME = {"class_scale": "cla_scale"}


def parameters(head: nn.Module) -> dict[str, nn.Parameter]:
    """A head's parameters by the published input name."""
    named = {name.split(".")[-1]: value for name, value in head.named_parameters()}
    return {PUBLISHED_NAME.get(name, name): value for name, value in named.items()}


def build(case: dict[str, Any], dtype: torch.dtype) -> tuple[nn.Module, Arguments]:
    args = Arguments(case["args"])
    counts = tensor("classifiers", args.get("samples_per_cls", "samples_per_cls"))
    features = tensor("classifiers", case["inputs"]["features"])
    head = HEADS[case["name"]](HeadCase(features.shape[1], counts, args)).to(dtype)
    with torch.no_grad():
        for name, parameter in parameters(head).items():
            if name in case["inputs"]:
                parameter.copy_(tensor("classifiers", case["inputs"][name]))
    return head, args


def outputs(case: dict[str, Any], head: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Logits and gradients in both modes, under the names of the json."""
    found: dict[str, Tensor] = {}
    upstream = tensor("classifiers", "upstream", dtype)
    for mode in ("eval", "train"):
        features = tensor("classifiers", case["inputs"]["features"], dtype).requires_grad_()
        logits = head.train(mode == "train")(features)
        leaves = {"features": features}
        leaves |= {name: p for name, p in parameters(head).items() if p.requires_grad}
        gradients = torch.autograd.grad((logits * upstream).sum(), list(leaves.values()))
        found[f"{mode}.logits"] = logits
        found |= {f"{mode}.grad_{n}": g for n, g in zip(leaves, gradients, strict=True)}
    return found


@each_case("classifiers")
def test_head(case: dict[str, Any]) -> None:
    if case["name"] in INITIAL_BIASES:
        counts = tensor("classifiers", case["inputs"]["samples_per_cls"])
        bias = INITIAL_BIASES[case["name"]](counts)
        assert_close(bias, tensor("classifiers", case["outputs"]["bias"]), 1e-6)
        return
    for dtype, suffix, tolerance in ((torch.float64, "", 1e-6), (torch.float32, "_f32", 1e-5)):
        head, args = build(case, dtype)
        args.assert_all_read()
        ours = outputs(case, head, dtype)
        for output, key in case["outputs"].items():
            if output.endswith("_f32") != bool(suffix) or output.startswith("moving_ed"):
                continue
            expected = torch.from_numpy(arrays("classifiers")[key])
            assert_close(ours[output.removesuffix("_f32")], expected, tolerance)
    same = torch.equal(ours["eval.logits"], ours["train.logits"])
    assert same == case["train_equals_eval"]
    for name, learned in case["requires_grad"].items():
        parameter = parameters(head).get(name.split(".")[-1])
        assert parameter is None or parameter.requires_grad == learned
