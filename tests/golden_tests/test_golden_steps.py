"""Whole training steps against the published code: attack, loss, gradients, BatchNorm buffers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_net import golden_net
from golden_steps import StoredStart, training_attack
from golden_store import Arguments, assert_close, document, tensor
from golden_table import STEPS
from torch import Tensor, nn

from ltrobust.method import Method
from ltrobust.training.engine import TrainingModel
from ltrobust.training.step import train_step

pytestmark = pytest.mark.golden
CASES = document("train_step")["cases"]


def watch_attack(method: Method) -> list[Tensor]:
    """Collect what the method's attack returns."""
    returned: list[Tensor] = []
    attack = method.attack

    def watched(*arguments: Any) -> Tensor:
        returned.append(attack(*arguments))
        return returned[-1]

    method.attack = watched  # type: ignore[method-assign]
    return returned


def with_head(net: nn.Sequential, head: nn.Module) -> None:
    """Replace the linear layer by a method's head with the stored cosine weight."""
    head.weight = nn.Parameter(tensor("train_step", "cosplus.weight"))
    net[-1] = head.double()


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_step(case: dict[str, Any]) -> None:
    args = Arguments(case["args"])
    counts = tensor("train_step", "samples_per_cls")
    step = STEPS[case["name"]](args, counts)
    net = golden_net("train_step")
    if step.head is not None:
        with_head(net, step.head)
    x = tensor("train_step", "x_u8").double() / 255
    delta = tensor("train_step", case["start_delta"])
    ctx = StoredStart(
        class_counts=counts,
        epoch=step.epoch,
        epochs=step.epochs,
        attack=training_attack(args),
        generator=torch.Generator(),
        delta=delta.clamp(-x, 1 - x) if step.clipped else delta,
    )
    args.assert_all_read()
    attacked = watch_attack(step.method)
    model, y = TrainingModel(net, "fp32"), tensor("train_step", "y")
    optimizer = step.optimizer and torch.optim.SGD(net.parameters(), **step.optimizer)
    loss = train_step(model, step.method, x, y, ctx, optimizer)

    (x_adv,) = attacked
    assert (x_adv - tensor("train_step", case["x_adv"])).abs().max() <= 1e-6
    assert_close(loss, tensor("train_step", case["loss"]), 1e-6)
    check_network(case, net)


def check_network(case: dict[str, Any], net: nn.Sequential) -> None:
    """Gradients and parameters after the step, and buffers, against the stored ones."""
    published = {"cosplus.weight": "8.weight"}
    gradients = {published.get(name, name): key for name, key in case["grads"].items()}
    trainable = {name: p for name, p in net.named_parameters() if p.requires_grad}
    assert set(gradients) == set(trainable)
    for name, key in gradients.items():
        gradient = trainable[name].grad
        assert gradient is not None
        assert_close(gradient, tensor("train_step", key), 1e-6)
    for name, key in case.get("params_after", {}).items():
        assert_close(trainable[name], tensor("train_step", key), 1e-6)
    buffers = dict(net.named_buffers())
    for name, key in case["buffers_after"].items():
        if not name.endswith("moving_ed"):
            assert_close(buffers[name], tensor("train_step", key), 1e-7)
