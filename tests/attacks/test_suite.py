"""What the names of the evaluation attacks mean."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltrobust.attacks.suite import LOSSES, attack_spec
from ltrobust.config import TestSpec
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
        assert attack_spec(name, EPS).name == name.partition("@")[0]


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"targeted"}))
def test_losses_are_sums_over_the_batch_that_grow_as_the_label_loses(name: str) -> None:
    loss = LOSSES[name]
    good, bad = torch.tensor([[3.0, 0.0, 0.5]]), torch.tensor([[0.0, 3.0, 0.5]])
    y = torch.tensor([0])
    assert loss(bad, y) > loss(good, y)
    both = loss(torch.cat([good, bad]), torch.tensor([0, 0]))
    assert both == pytest.approx(float(loss(good, y) + loss(bad, y)), abs=1e-5)


def test_targeted_loss_grows_as_the_target_wins() -> None:
    logits = torch.tensor([[0.0, 3.0, 0.5]])
    worth = [float(LOSSES["targeted"](logits, torch.tensor([c]))) for c in range(3)]
    assert worth[1] > worth[2] > worth[0]


@pytest.mark.parametrize("scale", [0.01, 1.0, 1000.0])
def test_dlr_ignores_scale_and_shift_and_has_the_papers_value(scale: float) -> None:
    logits = torch.tensor([[4.0, 1.0, 2.0, 0.0], [1.0, 3.0, 0.0, 2.0]])
    y = torch.tensor([0, 0])
    # (4 - 2) / (4 - 1) stands, (1 - 3) / (3 - 1) has fallen
    expected = -(2 / 3) + 1.0
    assert float(LOSSES["dlr"](scale * logits + 5, y)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("lsa20", {"loss": "lsa", "alpha": 10.0, "steps": 20}),
        ("lsa20a100", {"loss": "lsa", "alpha": 100.0, "name": "lsa20a100"}),
        ("dlr7", {"loss": "dlr", "alpha": None, "steps": 7}),
        ("tpgd3", {"loss": "targeted", "steps": 3}),
        ("noise", {"steps": 0, "start": "uniform"}),
        ("pgd20x5", {"restarts": 5, "name": "pgd20x5"}),
        ("pgd20-l2", {"norm": "L2", "eps": 0.5, "step_size": 0.125, "name": "pgd20-l2"}),
        ("pgd20x5-l2@0.25", {"norm": "L2", "eps": 0.25, "restarts": 5, "name": "pgd20x5-l2"}),
        ("pgd20@16/255", {"eps": 16 / 255, "step_size": 4 / 255, "name": "pgd20"}),
        ("fgsm@0", {"eps": 0.0, "step_size": 0.0}),
        ("autoattackx3", {"restarts": 3, "version": "standard"}),
        ("autoattack-l2", {"norm": "L2", "eps": 0.5}),
        ("aa-apgd", {"version": "apgd", "kind": "autoattack"}),
        ("aa-rand", {"version": "rand", "kind": "autoattack"}),
    ],
)
def test_endings_and_families(name: str, wanted: dict[str, object]) -> None:
    spec = attack_spec(name, EPS)
    assert {key: getattr(spec, key) for key in wanted} == wanted


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pgd20@2", "L-inf radius is in"),
        ("pgd20@1/0", "after @ goes a radius"),
        ("pgd20@1/2/3", "after @ goes a radius"),
        ("fgsmx3", "leave out the restarts"),
        ("clean@0.1", "clean images have no attack"),
        ("autoattack20", "unknown attack"),
        ("pgd20a5", "unknown attack"),
        ("lsa20a0", "unknown attack"),
        ("pgd20-l2x5", "unknown attack"),
    ],
)
def test_endings_that_do_not_go_with_an_attack_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        attack_spec(name, EPS)


def test_new_settings_leave_the_keys_of_stored_results_alone() -> None:
    spec = attack_spec("pgd20", EPS)
    assert {"restarts", "alpha", "search"}.isdisjoint(spec.settings())
    assert attack_spec("pgd20", EPS, search="bf16").settings()["search"] == "bf16"
    assert spec.attack_id(TestSpec()) != attack_spec("pgd20", EPS, search="bf16").attack_id(
        TestSpec()
    )
