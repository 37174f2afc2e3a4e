"""Kendall's tau between recipes: the figure on made images, and the study whole and small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ltrobust.benchmarks.studies.ranking import agreement

import ltrobust

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "studies" / "ranking.py"
IMAGES = [np.arange(0, 300), np.arange(300, 400)]
METHODS = ("pgd-at", "trades", "at-bsl", "taet")


def standing(*shares: float) -> dict[str, np.ndarray]:
    """Two seeds of each method, with which so large a share of each class stands."""
    found = {}
    for name, share in zip(METHODS, shares, strict=False):
        right = np.concatenate([np.arange(len(of)) < share * len(of) for of in IMAGES])
        found[name] = np.stack([right, right]).astype(float)
    return found


def test_far_apart_and_alike_is_one_and_the_other_way_round_minus_one() -> None:
    up, down = standing(0.2, 0.4, 0.6, 0.8), standing(0.8, 0.6, 0.4, 0.2)
    assert agreement(up, up, IMAGES, rounds=50) == {"tau": 1, "low": 1, "high": 1}
    assert agreement(up, down, IMAGES, rounds=50) == {"tau": -1, "low": -1, "high": -1}


def test_one_swapped_pair_of_six() -> None:
    found = agreement(standing(0.2, 0.4, 0.6, 0.8), standing(0.4, 0.2, 0.6, 0.8), IMAGES, rounds=50)
    assert found["tau"] == pytest.approx((5 - 1) / 6)


def test_methods_within_noise_have_a_wide_interval() -> None:
    shares, draw = (0.5, 0.51, 0.52, 0.53), np.random.default_rng(0)
    sides = [standing(*shares), standing(*shares)]
    for right in (one for side in sides for one in side.values()):
        right[:] = np.concatenate([draw.permutation(right[0, of]) for of in IMAGES])
    found = agreement(*sides, IMAGES, rounds=200)
    assert found["tau"] == 1
    assert found["low"] < 0.5


def test_classes_count_alike_whatever_their_size() -> None:
    """One method stands on the large class, the other on the small one: they are equal."""
    large, small = np.zeros((1, 400)), np.zeros((1, 400))
    large[:, :300], small[:, 300:] = 1, 1
    less = np.concatenate([np.arange(300) < 30, np.arange(100) < 10])[None].astype(float)
    first = {"large": large, "less": less, "small": small}
    second = {"large": large, "less": less, "small": small * 0.99}
    assert agreement(first, second, IMAGES, rounds=2)["tau"] == pytest.approx(np.sqrt(2 / 3))


def test_equal_methods_have_no_order() -> None:
    equal = standing(0.5, 0.5)
    assert agreement(equal, equal, IMAGES, rounds=5) == {"tau": None, "low": None, "high": None}


@pytest.mark.slow
def test_the_study_reads_a_suite_of_two_recipes(tmp_path: Path) -> None:
    words = {"methods": "pgd-at,at-bsl", "dataset": "digits-lt", "epochs": 1, "seeds": "0-1"}
    suite, file = tmp_path / "suite", tmp_path / "ranking.json"
    for recipe in ("fast", "unified"):
        ltrobust.bench(
            **words, recipe=recipe, attacks="clean,pgd2", limit_test=50, output=str(suite)
        )
    subprocess.run([sys.executable, str(SCRIPT), str(suite), "--json", str(file)], check=True)
    rows = json.loads(file.read_text())
    assert [(row["attack"], row["classes"]) for row in rows] == [
        ("clean", "all"),
        ("clean", "tail"),
        ("pgd2", "all"),
        ("pgd2", "tail"),
    ]
    for row in rows:
        assert row["tau"] is None or -1 <= row["tau"] <= 1
        assert set(row["fast"]) == set(row["unified"]) == {"pgd-at", "at-bsl"}
        assert row["seeds"] == 2
    again = {**words, "option": ["recipe.lr=0.05"], "recipe": "fast", "attacks": "clean"}
    ltrobust.bench(**again, limit_test=50, output=str(suite))
    refused = subprocess.run(
        [sys.executable, str(SCRIPT), str(suite), "--json", str(file)], capture_output=True
    )
    assert b"has several runs of seed 0 under clean" in refused.stderr
    table = ltrobust.report(suite, output=tmp_path / "out").metrics
    for row in rows[::2]:
        of = table[(table["attack"] == row["attack"]) & (table["recipe"] == "fast")]
        of = of[of["recipe_changes"].isna() | (of["recipe_changes"] == "")]
        means = of.groupby("method")["balanced_accuracy"].mean()
        for method, figure in row["fast"].items():
            assert figure == pytest.approx(means[method])
