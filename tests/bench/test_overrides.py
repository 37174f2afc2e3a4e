"""Single values of recipes and methods can be set, stand in the run, and are checked."""

from __future__ import annotations

from typing import Any

import pytest

from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.config import Run
from ltrobust.errors import UserError


def only_run(*options: str, **flags: Any) -> Run:
    settings = make_settings({"methods": "taet", "device": "cpu", "option": options, **flags})
    return make_plan(settings).runs[0].run


def test_recipe_values_can_be_set_one_by_one() -> None:
    run = only_run("recipe.lr=0.05", "recipe.attack.steps=3", "recipe.nesterov=false")
    assert (run.recipe.lr, run.recipe.attack.steps, run.recipe.nesterov) == (0.05, 3, False)
    assert run.recipe.momentum == 0.9
    assert run.run_id != only_run().run_id


def test_paper_recipes_take_overrides_and_keep_the_rest() -> None:
    run = only_run(
        "recipe.weight_decay=0.001", dataset="cifar10-lt", recipe="paper", data_dir="nowhere"
    )
    assert run.recipe.weight_decay == 0.001
    assert run.recipe.attack.step_size == 0.003
    assert run.options["count_absent"] is True
    assert run.arch == "resnet50-224"


def test_options_of_methods_win_over_those_of_the_paper_recipe() -> None:
    run = only_run("taet.count_absent=false", dataset="cifar10-lt", recipe="paper")
    assert run.options["count_absent"] is False
    assert run.options["wasted_clean"] is True


def test_overrides_are_recorded() -> None:
    settings = make_settings({"option": ["recipe.lr=0.05"], "epochs": 3, "recipe": "unified"})
    assert settings.overrides() == {"option": ["recipe.lr=0.05"], "epochs": 3}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("recipe.lrr=1", "unknown value of the recipe 'lrr'; did you mean 'lr'"),
        ("recipe.lr=-1", "recipe.lr: Input should be greater than 0"),
        ("recipe.attack.step=1", "unknown value of the recipe 'attack.step'"),
        ("recipe.lr.x=1", "unknown value of the recipe 'lr.x'"),
        ("taet.alpah=1", "did you mean 'alpha'"),
        ("taet.alpha=much", "option alpha of method taet"),
        ("trades.beta=1", "not among --methods"),
        ("beta=1", "must look like"),
        ("taet.alpha", "must look like"),
    ],
)
def test_wrong_overrides_are_one_clear_line(option: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        only_run(option)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
