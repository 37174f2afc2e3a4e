"""Every option of every defense and modifier at its default: the unified, corrected reading.

A default is part of what a row of a table means, so a change must be made in two places.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import pytest

from ltrobust.method import METHODS, load_builtin_methods

load_builtin_methods()
DEFAULTS: dict[str, dict[str, Any]] = {
    "adt": {"samples": 5, "lr": 0.3, "entropy": 0.01, "kept_gradients": False},
    "adt-expam": {"entropy": 0.01, "width": 64, "generator_lr": 0.0002},
    "at-bsl": {"tau": 1.0},
    "pgd-at": {},
    "at-cb": {"beta": 0.9999, "gamma": 2.0},
    "at-cdt": {"tau": 0.3},
    "at-cosine": {"scale": 16.0, "gamma": 0.0},
    "at-focal": {"gamma": 2.0, "prior_bias": True},
    "at-la": {"tau": 1.0, "inner": False, "frozen_bias": False},
    "at-ldam": {"max_m": 0.5, "s": 1.0, "begin": 0.0},
    "at-tde": {
        "scale": 16.0,
        "gamma": 0.03125,
        "alpha": 1.0,
        "mu": 0.9,
        "groups": 1,
        "unit_direction": True,
    },
    "avmixup": {
        "gamma": 2.0,
        "lambda_1": 1.0,
        "lambda_2": 0.1,
        "clip_vertex": True,
        "mode": "eval",
    },
    "trades": {"beta": 6.0, "repeat_clean": False, "attacked_first": False, "detached": False},
    "awp": {
        "gamma": 0.005,
        "warmup": 0.0,
        "rule": "proxy",
        "mode": "eval",
        "restart_pass": False,
        "passes_after": "none",
    },
    "ema": {"decay": 0.995, "per_epoch": False},
    "cfa": {
        "lambda_1": 0.5,
        "lambda_2": 0.5,
        "begin": 0.05,
        "weigh": True,
        "decay": 0.88,
        "threshold": 0.0,
        "mode": "eval",
        "equal_classes": False,
        "clean_pass": False,
    },
    "cfol": {
        "gamma": 0.5,
        "eta": 2e-06,
        "mix": "uniform",
        "prior": "uniform",
        "best_of_steps": False,
    },
    "robustlt": {
        "alpha": 0.3,
        "beta": 0.8,
        "mode": "eval",
        "unused_clean": False,
        "passes_after": "none",
    },
    "cgr": {
        "beta": 4.0,
        "prior_tau": 1.0,
        "alpha": 0.3,
        "ramp": 0.8,
        "feedback_every": 0.09090909090909091,
        "feedback_steps": 20,
        "feedback_momentum": 0.8,
        "weight_lambda": 1.0,
        "conf_lambda": 0.5,
        "weight_max": 3.0,
        "weight_natural": False,
        "beta_lambda": 0.5,
        "beta_min_scale": 0.5,
        "beta_max_scale": 2.0,
        "eps_lambda": 0.0,
        "eps_min": 0.0,
        "eps_max": 0.0,
        "graph_eps": 1e-06,
        "margin_lambda": 0.1,
        "margin_m": 0.5,
        "graph_momentum": 0.8,
        "graph_topk": 3,
        "head_gamma": 0.5,
        "geometry_gamma": 1.0,
        "wasted_clean": False,
    },
    "robal-r": {
        "m": None,
        "tau_m": None,
        "tau_b": None,
        "tau_p": None,
        "gamma": None,
        "scale": None,
        "beta_reg": None,
        "s": 10.0,
        "beta_adv": 1.0,
        "beta_nat": 0.0,
        "extra_passes": False,
    },
    "robal-n": {
        "m": None,
        "tau_m": None,
        "tau_b": None,
        "tau_p": None,
        "gamma": None,
        "scale": None,
        "beta_reg": None,
        "s": 10.0,
        "beta_adv": 1.0,
        "beta_nat": 0.0,
        "extra_passes": False,
    },
    "cos-he": {"s": 10.0, "m": 0.2},
    "resample": {"num_samples_cls": 1},
    "crt": {"epochs": 1, "lr": 0.1, "reinit": True, "num_samples_cls": 1},
    "dafa": {
        "lambda_": 1.0,
        "warm_up": 0.6363636363636364,
        "min_weight": 0.25,
        "negative_weights": False,
        "double_step": False,
        "attacked_first": False,
    },
    "drw": {"begin": 0.5, "beta": 0.9999},
    "faal": {
        "epochs": 2,
        "lr": 0.01,
        "radius": 0.5,
        "sum_over_images": False,
        "attacked_first": False,
        "wasted_clean": False,
        "kl_attack": False,
    },
    "frl": {
        "epochs": 40,
        "lr": 0.001,
        "beta": 1.5,
        "remargin": True,
        "bound": 0.07,
        "rate": 0.05,
        "margin_rate": 0.2,
        "limit": 0.5,
        "feedback_steps": 20,
        "largest_step": False,
        "repeat_clean": False,
    },
    "gairat": {
        "offset": -1.0,
        "assignment": "tanh",
        "begin": 0.5,
        "linear_from": None,
        "halve_down": False,
    },
    "gairat-w": {
        "offset": -1.0,
        "assignment": "tanh",
        "begin": 0.5,
        "linear_from": None,
        "halve_down": False,
    },
    "he": {"s": 10.0, "m": 0.2, "overwritten_weight": False},
    "he-trades": {"s": 15.0, "m": 0.2, "overwritten_weight": False, "beta": 6.0},
    "he-alp": {"s": 20.0, "m": 0.3, "overwritten_weight": False, "beta": 0.5},
    "las-at": {
        "eps_choices": [3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0],
        "steps_choices": [3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0],
        "step_size_choices": [1.0, 2.0, 3.0, 4.0, 5.0],
        "true_share": 0.7,
        "interval": 20,
        "strategy": "small-cnn",
        "strategy_lr": 0.0001,
        "clip": 1.0,
        "loss_reward": 1.0,
        "robust_reward": 4.0,
        "clean_reward": 2.0,
        "restarts": 2,
        "weight_decay": 0.0005,
        "released_reward": False,
    },
    "lws": {"epochs": 1, "lr": 0.1, "drop_bias": False, "normalise": False, "num_samples_cls": 1},
    "mart": {"beta": 5.0},
    "mma": {
        "d_max": 1.5,
        "search_max": 1.05,
        "min_margin": 0.159375,
        "step_scale": 2.5,
        "search_steps": 10,
        "clean_weight": 0.3333333333333333,
        "train_mode": False,
    },
    "plain": {},
    "posthoc-la": {"tau": 1.0},
    "reat": {"collapsed_tail": False, "tail_by_index": False},
    "rescale": {"tau": 0.3},
    "rw": {"epochs": 1, "lr": 0.1, "head_only": False, "beta": 0.9999, "gamma": 2.0},
    "taet": {
        "alpha": 0.1,
        "beta": 0.1,
        "gamma": 0.1,
        "ce_fraction": 0.4,
        "count_absent": False,
        "wasted_clean": False,
    },
    "tau-norm": {"tau": 1.0},
    "tde": {"alpha": 1.0, "unit_direction": True},
    "trades-bsl": {"beta": 6.0, "repeat_clean": False, "attacked_first": False, "detached": False},
    "udr": {
        "lamda": 1.0,
        "rate": 0.02,
        "period": 10,
        "floor": 0.0,
        "tau": None,
        "natural": 0.0,
        "scale": 1.0,
        "stuck": False,
    },
}


def test_every_shipped_method_stands_in_the_table() -> None:
    shipped = {name for name in METHODS if METHODS.get(name).__module__.startswith("ltrobust.")}
    assert shipped == set(DEFAULTS)


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name: str) -> None:
    found = {
        option.name: option.default
        if option.default_factory is MISSING
        else option.default_factory()
        for option in fields(METHODS.get(name))
        if option.init and option.name not in ("class_counts", "base")
    }
    assert found == DEFAULTS[name]
