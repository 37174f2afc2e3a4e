"""Every shipped defense trains to the same bits with its attack shared out among processes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
    "las-at": {"strategy": "small-cnn:width=4"},
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
ALONE = {"plain", "rescale", "tau-norm", "tde", "posthoc-la"}
"""Defenses that attack nothing, or train nothing."""
EPOCHS = 2


@cache
def trial(name: str, published: bool = False) -> Trial:
    recipe = METHODS.get(name).recipe
    options = {**SMALLER.get(name, {}), **(recipe.options if published and recipe else {})}
    found = make_trial(name, options)
    small = {"batch_size": 3 * LEAST, "epochs": EPOCHS, "drop_last": True}
    short = found.run.recipe.model_copy(update=small)
    tuned = {key: EPOCHS for key in found.run.options if key.endswith(".epochs")}
    options = {**found.run.options, **tuned}
    changes = {"recipe": short, "options": options, "arch": "small-cnn:width=8"}
    run = found.run.model_copy(update=changes)
    return Trial(run, found.data, found.eps)


def trained(name: str, published: bool, team: Team | None) -> tuple[str, int]:
    """What a defense ends with, as a hash, and how many batches were shared out."""
    one, before = trial(name, published), 0 if team is None else team.shared
    torch.manual_seed(0 if team is None else team.rank)  # nothing may hang on it
    device = torch.device("cpu")
    ended = trainer.train(one.run, one.data, device=device, base=one.base(0), team=team)
    kept = {"net": ended.net.state_dict(), "method": ended.method.state_dict()}
    digest = hashlib.sha256(state_to_bytes(kept)).hexdigest()[:12]
    return digest, 0 if team is None else team.shared - before


@cache
def alone(name: str, published: bool) -> str:
    return trained(name, published, None)[0]


@pytest.mark.parametrize(
    ("size", "published", "names"),
    [
        pytest.param(2, False, NAMES, id="two", marks=pytest.mark.slow),
        pytest.param(3, False, NAMES, id="three", marks=pytest.mark.slow),
        pytest.param(2, True, PUBLISHED, id="two, as published", marks=pytest.mark.slow),
        pytest.param(3, True, PUBLISHED, id="three, as published", marks=pytest.mark.slow),
    ],
)
def test_processes_that_share_the_attack_end_with_the_bits_of_one(
    size: int, published: bool, names: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them is brought into line with another: each does the same on its own."""
    monkeypatch.setattr(Team, "make_alike", lambda team, tensors: None)
    monkeypatch.setattr(trainer, "_fall_in", lambda *args: None)
    expected = {name: alone(name, published) for name in names}  # bases too, before the fork

    def work(team: Team) -> dict[str, tuple[str, int]]:
        return {name: trained(name, published, team) for name in names}

    for found in in_team(size, work):
        assert {name: digest for name, (digest, _) in found.items()} == expected
        if not published:
            assert {name for name, (_, shared) in found.items() if not shared} <= ALONE
