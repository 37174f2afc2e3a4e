"""Every shipped defense trains to the same bits with its attack shared out among processes."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import pytest
import torch
from processes import in_team

from ltrobust.method import METHODS, load_builtin_methods
from ltrobust.team import LEAST, Team
from ltrobust.testing import Trial, make_trial
from ltrobust.training import trainer
from ltrobust.training.checkpoint import state_to_bytes

load_builtin_methods()
SMALLER: dict[str, dict[str, Any]] = {
    "adt-expam": {"width": 8},
    "las-at": {"strategy": "small-cnn"},
    "frl": {"feedback_steps": 2},
    "cgr": {"feedback_steps": 2},
}
"""Smaller networks beside the classifier, and shorter attacks on held-out images."""
NAMES = sorted(METHODS)
PUBLISHED = [
    name
    for name in NAMES
    if METHODS.get(name).recipe and METHODS.get(name).recipe.options  # type: ignore[union-attr]
]
ALONE = {"plain", "lws", "tau-norm", "tde", "posthoc-la"}
"""Defenses that attack nothing, or train nothing."""
EPOCHS = 2


@cache
def trial(name: str, published: bool = False) -> Trial:
    recipe = METHODS.get(name).recipe
    options = {**SMALLER.get(name, {}), **(recipe.options if published and recipe else {})}
    found = make_trial(name, options)
    short = found.run.recipe.model_copy(update={"batch_size": 3 * LEAST, "epochs": EPOCHS})
    tuned = {key: EPOCHS for key in found.run.options if key.endswith(".epochs")}
    run = found.run.model_copy(update={"recipe": short, "options": {**found.run.options, **tuned}})
    return Trial(run, found.data, found.eps)


def trained(names: list[str], published: bool, team: Team | None) -> dict[str, tuple[str, int]]:
    """What each defense ends with, as a hash, and how many batches were shared out."""
    found = {}
    for name in names:
        one, before = trial(name, published), 0 if team is None else team.shared
        torch.manual_seed(0 if team is None else team.rank)  # nothing may hang on it
        ended = trainer.train(
            one.run, one.data, device=torch.device("cpu"), base=one.base(0), team=team
        )
        kept = {"net": ended.net.state_dict(), "method": ended.method.state_dict()}
        digest = hashlib.sha256(state_to_bytes(kept)).hexdigest()[:12]
        found[name] = digest, 0 if team is None else team.shared - before
    return found


@pytest.fixture(scope="module")
def alone() -> dict[bool, dict[str, tuple[str, int]]]:
    return {}


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("published", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_processes_that_share_the_attack_end_with_the_bits_of_one(
    size: int, published: bool, alone: dict[bool, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them is brought into line with another: each does the same on its own."""
    monkeypatch.setattr(Team, "make_alike", lambda team, tensors: None)
    monkeypatch.setattr(trainer, "_fall_in", lambda *args: None)
    names = PUBLISHED if published else NAMES
    for name in names:
        trial(name, published).base(0)  # before the processes are forked
    if published not in alone:
        alone[published] = trained(names, published, None)
    expected = {name: digest for name, (digest, _) in alone[published].items()}
    for found in in_team(size, lambda team: trained(names, published, team)):
        assert {name: digest for name, (digest, _) in found.items()} == expected
        if not published:
            assert {name for name, (_, shared) in found.items() if not shared} == ALONE
