"""Names of defenses with modifiers: how they are read, what is refused, which runs they make."""

from __future__ import annotations

import pytest
import torch

from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.combination import SETS, canonical, find, named
from ltrobust.errors import UserError
from ltrobust.method import METHODS
from ltrobust.modifier import PostHoc
from ltrobust.training.trainer import base_run, own_epochs, total_epochs

COUNTS = torch.tensor([50, 20, 5])


def test_a_name_is_read_from_left_to_right() -> None:
    method = find("trades+awp+ema")(COUNTS, beta=2.0, **{"awp.gamma": 0.02})
    assert [type(method).name, type(method.base).name] == ["ema", "awp"]  # type: ignore[attr-defined]
    awp = method.base  # type: ignore[attr-defined]
    assert (awp.gamma, awp.base.beta) == (0.02, 2.0)


def test_aliases_become_full_names() -> None:
    assert canonical(" robal + awp") == "robal-r+awp"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("awp", "'awp' modifies a defense and does not stand alone; write pgd-at+awp"),
        ("pgd-at+nope", "unknown method 'nope'"),
        ("pgd-at+", "a name is missing beside a +"),
        ("+awp", "a name is missing beside a +"),
        ("pgd-at+awp+awp", "has awp twice"),
        ("pgd-at+trades", "trades is a defense; only modifiers follow a +"),
        ("pgd-at+tau-norm+awp", "awp must stand left of it"),
        ("robal+tau-norm", "linear"),
        ("taet+drw", "no mean over images"),
    ],
)
def test_what_does_not_go_together_is_one_line(name: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        find(name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_are_checked_part_by_part() -> None:
    method = find("trades+awp")
    assert method.check_options({"awp.gamma": 0.01})["awp.gamma"] == 0.01
    for wrong in ({"awp.nope": 1}, {"gamma": 1}, {"ema.decay": 0.9}, {"awp.gamma": "x"}):
        with pytest.raises(UserError):
            method.check_options(wrong)


def test_sets_name_methods_that_go_together() -> None:
    for names in SETS.values():
        assert [canonical(name) for name in names] == list(names)
    every = named("all")
    assert all(METHODS.get(name).kind == "defense" for name in every)
    assert {"plain", "mart", "adt", "las-at", "mma", "cgr", "reat"} <= set(every)


def plan(**settings: object) -> list[tuple[str, str | None]]:
    runs = make_plan(make_settings({"device": "cpu", **settings})).runs
    return [(one.run.run_id, one.base) for one in runs]


def test_a_base_stands_once_before_all_that_act_on_it() -> None:
    alone = plan(methods="pgd-at")
    runs = plan(methods="pgd-at+tau-norm,pgd-at+crt,pgd-at,pgd-at+crt+tau-norm")
    assert runs[0] == alone[0]
    ids = [run_id for run_id, _ in runs]
    assert len(ids) == len(set(ids)) == 4
    assert all(base is None or base in ids[:place] for place, (_, base) in enumerate(runs))
    assert runs[-1][1] == next(i for i in ids if i.startswith("pgd-at+crt-"))


def test_options_of_a_part_reach_every_combination_that_holds_it() -> None:
    option = "awp.gamma=0.02"
    runs = make_plan(make_settings({"methods": "trades+awp,pgd-at+awp+tau-norm", "option": option}))
    assert [one.run.options.get("awp.gamma") for one in runs.runs] == [0.02, 0.02, 0.02]
    with pytest.raises(UserError, match="not among --methods"):
        plan(methods="trades", option=option)


def test_the_base_of_a_run_follows_from_the_run() -> None:
    settings = {"methods": "pgd-at+crt", "option": "crt.epochs=2", "epochs": 3, "device": "cpu"}
    base, run = (one.run for one in make_plan(make_settings(settings)).runs)
    assert base_run(run) == base
    assert (own_epochs(base), own_epochs(run), total_epochs(run)) == (3, 2, 5)


def test_a_modifier_with_a_recipe_of_its_own_brings_it_and_its_quirks() -> None:
    recipe = find("trades+awp").recipe
    assert recipe is not None
    assert "AWP" in recipe.source
    base = find("at-bsl+awp").recipe
    assert base is not None
    assert base.source == METHODS.get("at-bsl").recipe.source  # type: ignore[union-attr]


@pytest.mark.parametrize("paper", [False, True])
def test_post_hoc_names_keep_the_recipe_of_their_base(paper: bool) -> None:
    recipe = "paper" if paper else "unified"
    settings = {"dataset": "cifar10-lt", "data_dir": "none", "recipe": recipe, "device": "cpu"}
    for name in (n for n in METHODS.names() if issubclass(METHODS.get(n), PostHoc)):
        whole = f"{METHODS.get(name).trial}+{name}"  # type: ignore[attr-defined]
        planned = make_plan(make_settings({"methods": whole, **settings})).runs
        assert planned[-1].base == planned[-2].run.run_id


def test_what_a_modifier_wraps_is_no_option() -> None:
    modifiers = [cls for cls in map(METHODS.get, METHODS.names()) if cls.kind != "defense"]
    assert modifiers
    assert not any("base" in cls.option_defaults() for cls in modifiers)
