"""CFOL's class weights and chances against the published sampler, batch by batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_store import SECOND, Arguments, assert_close
from ltrobust.methods.cfol import CFOL
from torch import Tensor

pytestmark = pytest.mark.golden
CASES = SECOND.document("state_updates")["cfol"]["cases"]
FLOAT32 = 1e-6
"""The published weights are float32, and as large as 5."""


@pytest.mark.parametrize("case", CASES, ids=[str(number) for number in range(len(CASES))])
def test_class_weights(case: dict[str, Any]) -> None:
    args = Arguments(case["kw"])
    method = CFOL(
        torch.tensor(case["class_counts"]),
        gamma=args.get("gamma"),
        eta=case["eta"],
        mix=args.get("base_dist", "uniform"),
        prior=args.get("prior", "uniform"),
    )
    args.assert_all_read()
    for update in case["updates"]:
        assert_close(method.chances, numbers(update["p_before"]), FLOAT32)
        before = method.scores
        method.update(torch.tensor(update["class_ids"]), numbers(update["zero_one_loss"]))
        assert_close(method.scores, numbers(update["w_after"]), FLOAT32)
        assert_close(method.scores.softmax(0), numbers(update["q_after"]), FLOAT32)
        assert_close(method.chances, numbers(update["p_after"]), FLOAT32)
        # the steps are as small as the tolerance: their sizes are compared, too
        missed = torch.bincount(
            torch.tensor(update["class_ids"])[numbers(update["zero_one_loss"]) > 0],
            minlength=len(before),
        )
        expected = case["eta"] * missed / numbers(update["p_before"])
        assert_close((method.scores - before) / case["eta"], expected / case["eta"], FLOAT32)


def numbers(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
