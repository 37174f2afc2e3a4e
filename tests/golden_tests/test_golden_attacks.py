"""Evaluation attacks against the published code, from the same start noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_net import golden_net
from golden_store import Arguments, arrays, assert_close, each_case, tensor
from golden_table import ATTACKS

from ltrobust.attacks.pgd import pgd

pytestmark = pytest.mark.golden


@each_case("attacks")
def test_attack(case: dict[str, Any]) -> None:
    args = Arguments(case["args"])
    net = golden_net("attacks").eval()
    x = tensor("attacks", "x_u8").double() / 255
    y = tensor("attacks", "y")
    args.given("num_classes")  # the width of the logits
    settings = ATTACKS[case["name"]](args)
    epsilon = args.get("epsilon")
    args.assert_all_read()
    x_adv = pgd(
        net,
        x,
        y,
        eps=epsilon,
        step_size=settings.step_size,
        steps=settings.steps,
        loss=settings.loss,
        start=tensor("attacks", case["start_delta"]) if case["start_delta"] else None,
        momentum=settings.momentum,
    )
    assert (x_adv - tensor("attacks", case["x_adv"])).abs().max() <= 1e-6
    with torch.no_grad():
        logits = net(x_adv)
    assert_close(logits, tensor("attacks", case["logits_adv"]), 1e-6)
    correct = logits.argmax(1) == y
    assert correct.tolist() == arrays("attacks")[case["correct"]].tolist()
    assert int(correct.sum()) == case["num_correct"]
