"""What the names of the evaluation attacks mean."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltrobust.attacks.suite import LOSSES, attack_spec
from ltrobust.errors import UserError

EPS = 8 / 255


def test_clean_has_no_radius_whatever_eps_is() -> None:
    spec = attack_spec("clean", EPS)
    assert (spec.kind, spec.eps) == ("clean", 0.0)


def test_fgsm_is_one_full_step_without_a_random_start() -> None:
    spec = attack_spec("fgsm", EPS)
    assert (spec.kind, spec.loss, spec.start) == ("first-order", "ce", "none")
    assert (spec.steps, spec.step_size, spec.eps) == (1, EPS, EPS)


@pytest.mark.parametrize(
    ("kind", "loss", "momentum"), [("pgd", "ce", None), ("cw", "cw", None), ("mim", "ce", 1.0)]
)
@pytest.mark.parametrize("steps", [1, 20, 100, 99999])
def test_counted_attacks(kind: str, loss: str, momentum: float | None, steps: int) -> None:
    spec = attack_spec(f"{kind}{steps}", EPS, seed=3)
    assert (spec.name, spec.kind) == (f"{kind}{steps}", "first-order")
    assert (spec.loss, spec.momentum, spec.steps) == (loss, momentum, steps)
    assert (spec.eps, spec.step_size) == (EPS, EPS / 4)
    assert (spec.start, spec.norm, spec.seed) == ("uniform", "Linf", 3)
    assert spec.loss in LOSSES


def test_autoattack_is_the_standard_version_of_the_reference() -> None:
    spec = attack_spec("autoattack", EPS, seed=4)
    assert (spec.kind, spec.version, spec.seed) == ("autoattack", "standard", 4)
    assert spec.library.startswith("pyautoattack ")
    assert spec.batch_size == 250


def test_settings_of_a_row_hold_what_is_set_and_nothing_else() -> None:
    assert attack_spec("pgd5", 0.2).settings() == {
        "kind": "first-order",
        "eps": 0.2,
        "norm": "Linf",
        "loss": "ce",
        "steps": 5,
        "step_size": 0.05,
        "start": "uniform",
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("autoatack", "did you mean 'autoattack'"),
        ("pdg20", "did you mean 'pgd20'"),
        ("PGD20", "did you mean 'pgd20'"),
        ("fgm", "did you mean 'fgsm'"),
        ("pgd", "needs its number of steps, such as pgd20"),
        ("cw", "needs its number of steps, such as cw20"),
        ("pgd0", "unknown attack 'pgd0'"),
        ("pgd-5", "unknown attack 'pgd-5'"),
        ("pgd020", "unknown attack"),
        ("pgd20 ", "unknown attack"),
        ("pgd20\n", "unknown attack"),
        ("pgd٢٠", "unknown attack"),
        ("pgd100000", "unknown attack"),
        ("", "unknown attack ''"),
    ],
)
def test_other_names_are_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        attack_spec(name, EPS)


@given(st.text(max_size=12))
@settings(deadline=None)
def test_any_name_gives_a_spec_of_that_name_or_a_user_error(name: str) -> None:
    with suppress(UserError):
        assert attack_spec(name, EPS).name == name


def test_losses_are_sums_over_the_batch_that_grow_as_the_label_loses() -> None:
    good, bad = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    y = torch.tensor([0])
    for loss in LOSSES.values():
        assert loss(bad, y) > loss(good, y)
        both = loss(torch.cat([good, bad]), torch.tensor([0, 0]))
        assert both == pytest.approx(float(loss(good, y) + loss(bad, y)), abs=1e-5)
