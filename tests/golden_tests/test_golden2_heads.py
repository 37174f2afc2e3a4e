"""Classifier heads of the other defenses against the published code, with their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden2_heads import HEADS, OUR_NAMES, HeadCase
from golden_store import SECOND, Arguments, assert_close
from torch import Tensor, nn

from ltrobust.models.cosine_heads import HEHead, TDEHead

pytestmark = pytest.mark.golden
FILE = "classifiers"


def stored(key: str) -> Tensor:
    return SECOND.tensor(FILE, key)


def build(case: dict[str, Any]) -> nn.Module:
    found = [HEADS[start] for start in HEADS if case["name"].startswith(start)]
    assert found, "no head of ours stands for this case"
    weight, args = stored("weight"), Arguments(case["args"])
    torch.set_default_dtype(torch.float64)
    try:
        head = found[0](HeadCase(weight.shape[1], weight.shape[0], args, stored))
    finally:
        torch.set_default_dtype(torch.float32)
    args.assert_all_read()
    for name, parameter in head.named_parameters():
        own = name.split(".")[-1]
        if own in ("weight", "bias"):
            parameter.data.copy_(stored(own))
    return head


def outputs(head: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """What the json names, from one pass in the head's mode."""
    features = stored("features").requires_grad_()
    logits = head(features)
    found = {"logits": logits}
    parameters = {name.split(".")[-1]: p for name, p in head.named_parameters()}
    upstream = (logits * stored("upstream")).sum()
    for name in names:
        if name == "grad_features":
            leaf = features
        elif name.startswith("grad_"):
            own = name.removeprefix("grad_").split(".")[-1]
            leaf = parameters[OUR_NAMES.get(own, own)]
        else:
            continue
        (found[name],) = torch.autograd.grad(upstream, leaf, retain_graph=True)
    if isinstance(head, TDEHead):
        found["moving_ed_after"] = head.direction[None]
    if isinstance(head, HEHead):  # in eval mode the weight acts normalised and stays as it is
        found["weight_after"] = head.weight if head.training else head.unit_weight()
    return found


@SECOND.each_case(FILE)
def test_head(case: dict[str, Any]) -> None:
    for mode, names in case["outputs"].items():
        head = build(case).train(mode == "train")
        ours = outputs(head, names)
        for name in names:
            assert_close(ours[name], stored(f"{case['name']}.{mode}.{name}"), 1e-6)
        learned = {name.split(".")[-1] for name, p in head.named_parameters() if p.requires_grad}
        if "grad_scales" in names:
            assert learned == {"class_scale"}
