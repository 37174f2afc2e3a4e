"""What DAFA, CGR, FRL and FAAL derive between steps, against the published code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_steps import StoredStart
from golden_store import SECOND, Arguments, assert_close
from ltrobust.methods.dafa import dafa_direction, dafa_weights, safe_lambda
from ltrobust.methods.faal import worst_weights
from ltrobust.methods.frl import frl_update, frl_weights
from steps2_feedback import cgr_options
from torch import Tensor

from ltrobust.combination import find
from ltrobust.config import TrainingAttack

pytestmark = pytest.mark.golden
STATE = SECOND.document("state_updates")


def numbers(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("case", STATE["dafa"]["cases"])
def test_dafa_weights(case: dict[str, Any]) -> None:
    found = dafa_weights(numbers(case["class_similarity"]), case["lamb"])
    assert len(found) == case["num_classes"]
    assert_close(found, numbers(case["class_weights"]), 1e-6)


@pytest.mark.parametrize("case", STATE["dafa_lt_cgrm"]["cases"])
def test_dafa_weights_that_stay_positive(case: dict[str, Any]) -> None:
    weights, direction, strength = case["result"]
    similarity, asked = numbers(case["class_similarity"]), case["requested_lambda"]
    found = dafa_direction(similarity)
    assert_close(found, numbers(direction), 1e-6)
    assert_close(safe_lambda(found, asked, case["min_weight"]), numbers(strength), 1e-6)
    assert_close(dafa_weights(similarity, asked, case["min_weight"]), numbers(weights), 1e-6)


@pytest.mark.parametrize("variant", STATE["frl"]["variants"], ids=lambda variant: variant["file"])
def test_frl_multipliers(variant: dict[str, Any]) -> None:
    remargin = variant["file"] == "utils_frl2.py"
    lambdas = torch.zeros(3, len(variant["epochs"][0]["class_clean_error"]), dtype=torch.float64)
    for epoch in variant["epochs"]:
        natural = numbers(epoch["class_clean_error"])
        boundary = numbers(epoch["class_boundary_error"])
        assert_close(natural.mean(), numbers(epoch["total_clean_error"]), 1e-6)
        assert_close(boundary.mean(), numbers(epoch["total_boundary_error"]), 1e-6)
        lambdas = frl_update(
            lambdas,
            natural,
            boundary,
            bounds=(variant["bound0"], variant["bound1"]),
            rates=(variant["rate1"], variant["rate2"] if remargin else 0.0),
            limit=variant["lim"],
        )
        assert_close(lambdas.flatten(), numbers(epoch["lambda_after"]), 1e-6)
        keys = ("natural", "boundary", "epsilon")
        for key, weights in zip(keys, frl_weights(lambdas), strict=True):
            assert_close(weights, numbers(epoch[f"weights_{key}"]), 1e-6)


def test_cgr_feedback() -> None:
    stored = STATE["cgr"]
    args = Arguments(stored["args"])
    counts = torch.tensor(stored["samples_per_cls"])
    method = find("cgr")(counts, **cgr_options(args))
    method.load_state_dict({name: v.double() for name, v in method.state_dict().items()})
    attack = TrainingAttack(
        eps=args.get("epsilon"),
        step_size=args.get("pgd_step_size"),
        steps=args.get("pgd_num_steps"),
    )
    ctx = StoredStart(counts, args.get("epoch") - 1, args.get("epochs"), attack, torch.Generator())
    for update in stored["updates"]:
        inputs = ("confusion", "robust_acc_per_class", "feature_centers")
        method.update(*(numbers(update[name]) for name in inputs), counts)  # type: ignore[attr-defined]
        found = {
            "feedback_after": method.scores,  # type: ignore[attr-defined]
            "class_weights": method.class_weights,  # type: ignore[attr-defined]
            "graph_after": method.graph,  # type: ignore[attr-defined]
            "class_betas": method.class_betas,  # type: ignore[attr-defined]
            "class_eps": method.class_eps(ctx),  # type: ignore[attr-defined]
        }
        assert {*found, *inputs} == set(update)
        for name, values in found.items():
            assert_close(values, numbers(update[name]), 1e-6)
    args.assert_all_read()


@pytest.mark.parametrize("case", STATE["faal"]["cases"])
def test_faal_weights(case: dict[str, Any]) -> None:
    margins = numbers(case["class_margin"])
    counts = torch.bincount(torch.tensor(case["labels"]), minlength=len(margins))
    found = worst_weights(margins * counts / counts.sum(), case["r"])
    assert_close(found, numbers(case["weights"]), 2e-6)
