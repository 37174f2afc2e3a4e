"""The published recipes, value by value, as they were read in the released code."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from ltrobust.combination import find
from ltrobust.config import Recipe, TrainingAttack
from ltrobust.method import METHODS, load_builtin_methods
from ltrobust.training.schedule import learning_rates

load_builtin_methods()
EIGHT, TWO = 8 / 255, 2 / 255


class Published(NamedTuple):
    """Architecture, epochs, batch, weight decay, the first epoch (from 0) at each rate, attack."""

    arch: str
    epochs: int
    batch: int
    weight_decay: float
    rates: dict[int, float]
    attack: tuple[float, float, int, str]
    nesterov: bool = False
    drop_last: bool = False


MADRY = (0.031, 0.007, 10, "gaussian")
EIGHTS = (EIGHT, TWO, 10, "uniform-clipped")
ROBAL = Published(
    *("wrn-34-10", 80, 64, 2e-4),
    # every epoch from 60 on multiplies again; it counts from 1
    {0: 0.1, 59: 0.01, 60: 0.001, 61: 1e-4},
    *((0.031, 0.0078, 5, "one-sided"), False, True),
)
AWP = Published("preactresnet18", 200, 128, 5e-4, {0: 0.1, 100: 0.01, 150: 0.001}, EIGHTS)
BAG = Published("resnet18", 110, 128, 5e-4, {0: 0.1, 99: 0.01, 104: 0.001}, MADRY)
ROBUSTLT = Published(
    "wrn-28-10", 100, 128, 5e-4, {0: 0.1, 75: 0.01, 90: 0.001}, EIGHTS, nesterov=True
)
TRADES = Published("wrn-34-10", 76, 128, 2e-4, {0: 0.1, 74: 0.01}, MADRY)
HE = TRADES._replace(epochs=77)
TABLE = {
    **dict.fromkeys(("plain", "pgd-at", "robal-r", "robal-n", "cos-he", "avmixup"), ROBAL),
    **dict.fromkeys(("at-cb", "at-cdt", "at-cosine", "at-la", "at-ldam", "at-tde"), ROBAL),
    "at-focal": ROBAL._replace(rates={}),  # its compounding warm-up is a golden schedule
    "at-ldam+drw": ROBAL,
    "pgd-at+resample": ROBAL._replace(epochs=25, rates={0: 0.1, 14: 0.01, 15: 0.001, 16: 1e-4}),
    "trades": TRADES,
    "trades-bsl": TRADES,
    "he": HE._replace(weight_decay=5e-4),
    "he-trades": HE,
    "he-alp": HE,
    "at-bsl": Published(
        *("resnet18", 100, 128, 5e-4, {0: 0.1, 74: 0.01, 89: 0.001, 99: 1e-4}),
        *((EIGHT, TWO, 10, "gaussian"), False, True),
    ),
    "taet": Published(
        *("resnet50-224", 100, 128, 5e-4, {0: 0.1, 75: 0.01, 90: 0.001}),
        (0.031, 0.003, 10, "gaussian"),
    ),
    "reat": Published(
        *("resnet18", 80, 128, 5e-4, {0: 0.1, 60: 0.01, 75: 0.001}),
        (EIGHT, TWO, 10, "uniform"),
    ),
    "mart": Published(
        "resnet18", 120, 128, 3.5e-3, {0: 0.01, 74: 0.001, 89: 1e-4, 99: 1e-5}, MADRY
    ),
    "gairat": Published(
        *("wrn-34-10", 120, 128, 2e-4, {0: 0.1, 59: 0.01, 89: 0.001, 109: 0.0005}),
        (0.031, 0.007, 10, "uniform-clipped"),
    ),
    "adt": Published("wrn-28-10", 76, 64, 2e-4, {0: 0.1, 74: 0.01}, (EIGHT, 0.0, 7, "none")),
    "adt-expam": Published("wrn-28-10", 76, 64, 2e-4, {0: 0.1, 74: 0.01}, (EIGHT, 0.0, 7, "none")),
    "las-at": Published("wrn-34-10", 110, 128, 5e-4, {0: 0.1, 99: 0.01, 104: 0.001}, EIGHTS),
    "cfol": Published(
        *("preactresnet18", 150, 128, 5e-4, {0: 0.1, 49: 0.01, 99: 0.001}),
        (0.031, 2.5 * 0.031 / 7, 7, "uniform-clipped"),
    ),
    "mma": Published(
        *("wrn-28-10", 142, 128, 2e-4, {0: 0.3, 57: 0.09, 85: 0.03, 114: 0.009}),
        (EIGHT, TWO, 10, "uniform"),
    ),
    "cgr": BAG,
    "pgd-at+awp": AWP,
    "trades+awp": AWP._replace(
        arch="wrn-34-10",
        rates={0: 0.1, 99: 0.01, 149: 0.001},
        attack=(EIGHT, TWO, 10, "gaussian"),
    ),
    "pgd-at+awp+udr": AWP._replace(arch="wrn-34-10"),
    "pgd-at+cfa": AWP,
    "trades+cfa": AWP._replace(attack=(EIGHT, TWO, 10, "gaussian")),
    "trades+dafa": BAG._replace(nesterov=True),
    "pgd-at+dafa": BAG._replace(nesterov=True),
    "trades+robustlt": BAG,
    "trades+udr": BAG._replace(attack=(0.031, 0.007, 10, "uniform-clipped")),
    "pgd-at+udr": BAG._replace(attack=(0.031, 0.007, 10, "uniform-clipped")),
    "pgd-at+robustlt": ROBUSTLT,
    "at-bsl+robustlt": ROBUSTLT,
    "taet+robustlt": ROBUSTLT,
    "reat+robustlt": ROBUSTLT._replace(epochs=80, rates={0: 0.1, 60: 0.01, 75: 0.001}),
    "pgd-at+awp+robustlt": ROBUSTLT._replace(epochs=200, rates={0: 0.1, 100: 0.01, 150: 0.001}),
    "robal-r+robustlt": ROBUSTLT._replace(
        epochs=80,
        batch=64,
        rates={0: 0.1, 60: 0.01, 75: 0.001},
        attack=(EIGHT, TWO, 5, "uniform-clipped"),
    ),
}


def named_recipes() -> set[str]:
    """Every defense and combination that carries a recipe."""
    parts = [METHODS.get(name) for name in METHODS]
    own = {part.name for part in parts if part.recipe is not None}
    return own | {f"{base}+{part.name}" for part in parts for base in part.recipes}


def test_quirks_of_the_released_code_are_off_unless_asked_for() -> None:
    for part in (METHODS.get(name) for name in METHODS):
        defaults = part.option_defaults()
        quirks = {**(part.recipe.options if part.recipe else {}), **part.released}
        on = [key for key, value in quirks.items() if defaults[key] == value]
        assert not on, f"{part.name}: {on}"


def test_every_published_recipe_stands_in_the_table() -> None:
    assert named_recipes() == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_published_values(name: str) -> None:
    paper, expected = find(name).recipe, TABLE[name]
    assert paper is not None
    recipe: Recipe = paper.recipe
    eps, step_size, steps, start = expected.attack
    assert (paper.arch, recipe.epochs, recipe.batch_size) == expected[:3]
    assert (recipe.weight_decay, recipe.momentum) == (expected.weight_decay, 0.9)
    assert (recipe.nesterov, recipe.drop_last) == (expected.nesterov, expected.drop_last)
    attack: TrainingAttack = recipe.attack
    assert (attack.eps, attack.steps, attack.start) == (pytest.approx(eps), steps, start)
    assert attack.step_size == pytest.approx(step_size)
    rates = learning_rates(recipe.schedule, recipe.lr, recipe.epochs)
    ends = [*list(expected.rates)[1:], None][: len(expected.rates)]
    for (first, rate), end in zip(expected.rates.items(), ends, strict=True):
        stretch = rates[first : (first + 1 if rate < 1e-3 and end is None else end)]
        assert stretch == pytest.approx([rate] * len(stretch)), first


@pytest.mark.parametrize(
    ("name", "epochs", "rates"),
    [
        ("pgd-at+crt", 1, [0.1]),
        ("pgd-at+rw", 1, [0.1]),
        ("pgd-at+lws", 1, [0.1]),
        ("pgd-at+frl", 40, [1e-3] * 40),
        ("trades+faal", 2, [0.01, 0.001]),
    ],
)
def test_published_fine_tunings(name: str, epochs: int, rates: list[float]) -> None:
    import torch

    from ltrobust.modifier import PostHoc

    method = find(name)(torch.tensor([50, 20, 5]))
    assert isinstance(method, PostHoc)
    base = find("pgd-at").recipe
    assert base is not None
    recipe = method.fine_tuning(base.recipe)
    assert recipe is not None
    assert recipe.epochs == epochs
    assert learning_rates(recipe.schedule, recipe.lr, epochs) == pytest.approx(rates)


CONSTANTS = {
    "adt": {"samples": 5, "lr": 0.3, "entropy": 0.01},
    "adt-expam": {"entropy": 0.01},
    "at-bsl": {"tau": 1.0},
    "at-cb": {"beta": 0.9999, "gamma": 2.0},
    "at-cdt": {"tau": 0.3},
    "at-cosine": {"scale": 16.0},
    "at-focal": {"gamma": 2.0},
    "at-la": {"tau": 1.0},
    "at-ldam": {"max_m": 0.5, "s": 1.0},
    "at-tde": {"scale": 16.0, "gamma": 1 / 32, "mu": 0.9},
    "avmixup": {"gamma": 2.0, "lambda_1": 1.0, "lambda_2": 0.1},
    "awp": {"gamma": 0.005},
    "cfa": {"lambda_1": 0.5, "lambda_2": 0.5, "begin": 10 / 200, "decay": 0.88},
    "cfol": {"gamma": 0.5, "eta": 2e-6},
    "cgr": {
        "beta": 4.0,
        "prior_tau": 1.0,
        "alpha": 0.3,
        "ramp": 0.8,
        "feedback_every": 10 / 110,
        "feedback_momentum": 0.8,
        "weight_lambda": 1.0,
        "conf_lambda": 0.5,
        "weight_max": 3.0,
        "beta_lambda": 0.5,
        "beta_min_scale": 0.5,
        "beta_max_scale": 2.0,
        "margin_m": 0.5,
        "margin_lambda": 0.1,
        "graph_momentum": 0.8,
        "graph_topk": 3,
        "head_gamma": 0.5,
        "geometry_gamma": 1.0,
    },
    "cos-he": {"s": 10.0, "m": 0.2},
    "dafa": {"lambda_": 1.0, "warm_up": 70 / 110},
    "drw": {"beta": 0.9999, "begin": 40 / 80},
    "faal": {"radius": 0.5},
    "frl": {"beta": 1.5},
    "gairat": {"offset": -1.0, "begin": 60 / 120},
    "he": {"s": 10.0, "m": 0.2},
    "he-trades": {"s": 15.0, "m": 0.2, "beta": 6.0},
    "he-alp": {"s": 20.0, "m": 0.3, "beta": 0.5},
    "las-at": {
        "eps_choices": list(range(3, 16)),
        "steps_choices": list(range(3, 15)),
        "step_size_choices": list(range(1, 6)),
        "true_share": 0.7,
        "interval": 20,
        "strategy_lr": 1e-4,
        "clip": 1.0,
        "loss_reward": 1.0,
        "robust_reward": 4.0,
        "clean_reward": 2.0,
        "restarts": 2,
        "weight_decay": 5e-4,
    },
    "mart": {"beta": 5.0},
    # in units of 8/255
    "mma": {"d_max": 12 / 8, "min_margin": 0.005 * 255 / 8, "step_scale": 2.5},
    "rescale": {"tau": 0.3},
    "robal-r": {"s": 10.0, "beta_adv": 1.0, "beta_nat": 0.0},
    "robustlt": {"alpha": 0.3, "beta": 0.8},
    "rw": {"beta": 0.9999, "gamma": 2.0},
    "taet": {"alpha": 0.1, "beta": 0.1, "gamma": 0.1, "ce_fraction": 0.4},
    "tau-norm": {"tau": 1.0},
    "trades": {"beta": 6.0},
    "udr": {"lamda": 1.0, "rate": 0.02, "period": 10},
}
"""Published hyper-parameters, which are the defaults of both recipes."""


@pytest.mark.parametrize("name", CONSTANTS)
def test_published_constants(name: str) -> None:
    defaults = METHODS.get(name).option_defaults()
    for key, value in CONSTANTS[name].items():
        assert defaults[key] == pytest.approx(value), key


LOUD = {"robustlt.mode": "train-kept", "robustlt.passes_after": "attacked, clean"}
MADRYS_AWP = {"awp.mode": "train", "awp.restart_pass": True, "awp.passes_after": "clean"}
FAIR = {"cfa.equal_classes": True, "cfa.clean_pass": True, "cfa.threshold": 0.24}
DISTANT = {"dafa.negative_weights": True, "dafa.attacked_first": True}
OPTIONS = {
    "adt": {"kept_gradients": True},
    "adt-expam": {"width": 256},
    "at-bsl+robustlt": {**LOUD, "robustlt.unused_clean": True},
    "at-la": {"frozen_bias": True},
    "at-ldam+drw": {"begin": 0.5},
    "at-tde": {"unit_direction": False, "alpha": 0.1},
    "avmixup": {"clip_vertex": False},
    "cfol": {"best_of_steps": True},
    "cgr": {"wasted_clean": True},
    "gairat": {"halve_down": True},
    **{key: {"overwritten_weight": True} for key in ("he", "he-alp", "he-trades")},
    "las-at": {"released_reward": True, "strategy": "resnet18"},
    "mma": {"train_mode": True},
    "pgd-at+awp": {**MADRYS_AWP, "awp.gamma": 0.01},
    "pgd-at+awp+robustlt": {**MADRYS_AWP, **LOUD, "awp.gamma": 0.005, "awp.rule": "optimizer"},
    "pgd-at+awp+udr": {**MADRYS_AWP, "awp.gamma": 0.01, "udr.floor": None},
    "pgd-at+cfa": {**FAIR, "cfa.mode": "train"},
    "pgd-at+dafa": {**DISTANT, "dafa.double_step": True},
    "pgd-at+robustlt": LOUD,
    "pgd-at+udr": {"udr.floor": 0.0, "udr.natural": 1.0, "udr.scale": 4.0, "udr.stuck": True},
    "reat": {"collapsed_tail": True, "tail_by_index": True},
    "reat+robustlt": {"collapsed_tail": True, "tail_by_index": True, **LOUD},
    **{key: {"extra_passes": True} for key in ("robal-n", "robal-r")},
    "robal-r+robustlt": {"extra_passes": False, **LOUD},
    "taet": {"count_absent": True, "wasted_clean": True},
    "taet+robustlt": {
        "count_absent": True,
        "wasted_clean": False,
        "ce_fraction": 0.39,
        **LOUD,
        "robustlt.passes_after": "clean, attacked",
        "robustlt.unused_clean": True,
        "robustlt.beta": 1.0,
    },
    **{key: {"repeat_clean": True} for key in ("trades", "trades-bsl")},
    "trades+awp": {
        "repeat_clean": True,
        "attacked_first": True,
        "awp.gamma": 0.005,
        "awp.warmup": 0.045,
    },
    "trades+cfa": {"repeat_clean": True, **FAIR},
    "trades+dafa": {"repeat_clean": False, "beta": 6.0, **DISTANT},
    "trades+robustlt": {
        "repeat_clean": False,
        "beta": 4.0,
        "detached": True,
        "robustlt.mode": "eval",
        "robustlt.passes_after": "none",
    },
    "trades+udr": {
        "repeat_clean": False,
        "beta": 4.0,
        "detached": True,
        "udr.floor": 0.0,
        "udr.stuck": True,
    },
}
"""What the published recipes set besides: quirks, and constants that are not the defaults."""


def test_published_options() -> None:
    found = {name: find(name).recipe for name in TABLE}
    given = {name: dict(recipe.options) for name, recipe in found.items() if recipe is not None}
    assert {name: options for name, options in given.items() if options} == OPTIONS
