"""What CFA and UDR keep over steps and epochs, against the published code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_store import SECOND, assert_close
from ltrobust.methods.cfa import CFA, class_beta
from ltrobust.methods.ema import Weights, average
from ltrobust.methods.udr import UDR
from torch import Tensor, nn

from ltrobust.combination import find
from ltrobust.config import TrainingAttack
from ltrobust.method import Context, Method, load_builtin_methods

pytestmark = pytest.mark.golden
load_builtin_methods()
FILE = "state_updates"
EPOCHS = 200


def values(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def context(classes: int, epoch: int, eps: float) -> Context:
    attack = TrainingAttack(eps=eps, step_size=0.0, steps=0)
    return Context(torch.ones(classes, dtype=torch.int64), epoch, EPOCHS, attack, torch.Generator())


@pytest.mark.parametrize("number", range(len(SECOND.document(FILE)["cfa"]["class_eps_and_beta"])))
def test_cfa_radii_and_weights(number: int) -> None:
    case = SECOND.document(FILE)["cfa"]["class_eps_and_beta"][number]
    known = values(case["train_robust"])
    options: dict[str, Any] = {
        "cfa.lambda_1": case["lambda_1"],
        "cfa.lambda_2": case["lambda_2"],
        "cfa.begin": case["begin"] / EPOCHS,
    }
    method = find("trades+cfa")(torch.ones(len(known), dtype=torch.int64), **options)
    assert isinstance(method, CFA)
    method.load_state_dict({"cfa.average": {}, "cfa.accuracy": {"robust": known}})
    ctx = context(len(known), case["epoch"], case["eps"])
    eps = case["eps"] * method.calibration(ctx, method.lambda_1)
    share = class_beta(method.calibration(ctx, method.lambda_2), case["beta"])
    assert_close(eps, values(case["class_eps"]), 1e-7)
    assert_close(share, values(case["class_beta"]), 1e-7)


def test_weight_averaging() -> None:
    case = SECOND.document(FILE)["cfa"]["weight_average"]

    def state(numbers: dict[str, list[float]]) -> Weights:
        whole = torch.int64  # of counters
        return {
            name: values(entry).to(whole if name.endswith("tracked") else torch.float64)
            for name, entry in numbers.items()
        }

    kept = state(case["initial"])
    for step in case["steps"]:
        kept = average({} if step["init"] else kept, state(step["new_state"]), step["decay_rate"])
        assert kept.keys() == step["averaged_after"].keys()
        for name, entry in step["averaged_after"].items():
            assert_close(kept[name].double(), values(entry), 1e-7)


class Shift(Method):
    """Changes all pixels by as much as it is told."""

    change = 0.0

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        assert ctx.told_radius is not None
        ctx.told_radius(ctx.attack.eps)
        return x + self.change


def test_udr_lambda() -> None:
    case = SECOND.document(FILE)["udr"]
    base = Shift(torch.ones(2, dtype=torch.int64))
    method = UDR(
        base.class_counts,
        base,
        lamda=case["lamda_init"],
        rate=case["lamda_lr"],
        period=case["lamda_period"],
        floor=None,
    )
    x, y = torch.zeros(2, 1, 2, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    common = context(2, 0, case["epsilon"])
    for batch, (base.change, lamda) in enumerate(
        zip(case["mean_l1_per_batch"], case["lamda_after_batch"], strict=True)
    ):
        ctx = common.changed(batch=batch)
        x_adv = method.attack(nn.Identity(), x, y, ctx)
        method.after_step(nn.Identity(), x, y, x_adv, ctx)
        # float32 there
        assert_close(method.own_state()["lamda"], values(lamda), 1e-6)
