"""By what methods are ranked, that it is said wherever they are, and that all places agree."""

from __future__ import annotations

import io
import math
import re

import pandas as pd
import pytest
from report_fixtures import board, leaderboard, metric_row, page, render, settings, suite

from ltrobust.report import terminal_tables
from ltrobust.report.groups import attack_order
from ltrobust.report.ranking import is_attack

pytestmark = pytest.mark.usefixtures("light_figures")

NO_CLASSES = suite(classes=2)[1].iloc[:0]


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltrobust.report._draw_all", lambda *args: None)


def rows(methods: dict[str, dict[str, float]], **values: object) -> pd.DataFrame:
    """Metric rows of methods given as attack to balanced accuracy."""
    return pd.DataFrame(
        metric_row(method, method=method, attack=attack, balanced_accuracy=score, **values)
        for method, own in methods.items()
        for attack, score in own.items()
    )


def ranked(methods: dict[str, dict[str, float]]):
    (setting,) = settings(rows(methods))
    return setting.ranking


TITLES = {"autoattack": "AutoAttack", "fgsm": "FGSM", "pgd100": "PGD-100", "cw20": "CW-20"}
TITLES |= {"pgd10": "PGD-10"}
CLEAN_BEST = {"clean": 0.9}
"""A method that a ranking by clean accuracy would put first."""
CASES = {
    "autoattack where all have it": (
        {
            "a": {"clean": 0.9, "pgd20": 0.5, "autoattack": 0.1},
            "b": {"clean": 0.5, "pgd20": 0.3, "autoattack": 0.2},
        },
        ["b", "a"],
        "balanced accuracy under autoattack",
    ),
    "the lowest of several": (
        {
            "a": {"clean": 0.9, "fgsm": 0.7, "cw20": 0.2, "pgd100": 0.4},
            "b": {"clean": 0.5, "fgsm": 0.6, "cw20": 0.4, "pgd100": 0.3},
        },
        ["b", "a"],
        "each method's lowest balanced accuracy under fgsm, pgd100 and cw20",
    ),
    "only what all have": (
        {
            "a": {"clean": 0.9, "pgd10": 0.3, "autoattack": 0.1},
            "b": {"clean": 0.5, "pgd10": 0.4, "cw20": 0.05},
        },
        ["b", "a"],
        "balanced accuracy under pgd10",
    ),
    "noise is no attack": (
        {"a": {"clean": 0.5, "noise": 0.45}, "b": {"clean": 0.6, "noise": 0.2}},
        ["b", "a"],
        "balanced accuracy on CLEAN images (no method was attacked)",
    ),
    "clean alone": (
        {"a": {"clean": 0.5}, "b": {"clean": 0.6}},
        ["b", "a"],
        "balanced accuracy on CLEAN images (no method was attacked)",
    ),
    "nothing in common": (
        {"a": {"clean": 0.5, "pgd20": 0.4}, "b": {"clean": 0.6, "cw20": 0.1}},
        ["b", "a"],
        "balanced accuracy on CLEAN images (no attack was run on all methods)",
    ),
}


def titled(text: str) -> str:
    """A text with the attacks as readers know them."""
    return re.sub("|".join(TITLES), lambda found: TITLES[found[0]], text)


@pytest.mark.parametrize("case", CASES)
def test_every_place_has_the_order_and_says_by_what(case: str) -> None:
    methods, order, basis = CASES[case]
    metrics = rows(methods)
    found = ranked(methods)
    assert list(found.labels) == order
    assert found.basis.startswith(basis)

    first = leaderboard(metrics)
    assert list(first["method"]) == order
    assert list(first["rank"]) == [1, 2]
    assert set(first["ranked_by"]) == {found.name}

    files = render(metrics, NO_CLASSES, {})
    csv = pd.read_csv(io.StringIO(str(files["tables/leaderboard.csv"])))
    assert list(csv["method"]) == order
    assert set(csv["ranked_by"]) == {found.name}
    assert list(csv["ranking_score"]) == [found.scores[label] for label in order]
    for name in ("leaderboard", "balanced", "groups"):
        assert f"Ranked by {titled(basis)}" in str(files[f"tables/{name}.md"]).replace("\\", "")
        assert f"Ranked by {titled(basis)}" in str(files[f"tables/{name}.tex"])
    markdown = str(files["tables/leaderboard.md"]).splitlines()
    assert [line.split("|")[2].strip() for line in markdown if re.match(r"\| \d", line)] == order

    assert f"Ranked by {basis}" in str(terminal_tables(board(metrics))[0].caption)


@pytest.mark.parametrize("case", ["the lowest of several", "clean alone"])
def test_the_page_has_the_order_and_says_by_what(case: str) -> None:
    methods, order, basis = CASES[case]
    metrics = rows(methods)
    html = page(metrics, NO_CLASSES, {}, title="suite").replace("&#39;", "'")
    assert f"Ranked by {titled(basis)}" in html
    assert re.findall(r'data-row="(.*?)"', html) == order
    assert re.findall(r'<td class="rank" data-sort="(.*?)"', html) == ["1", "2"]


def test_a_method_that_was_never_attacked_comes_last_without_a_rank() -> None:
    methods = {
        "only-clean": CLEAN_BEST,
        "low": {"clean": 0.5, "pgd20": 0.4},
        "high": {"clean": 0.5, "pgd20": 0.6},
        "x": {"clean": 0.5, "pgd20": 0.1, "autoattack": 0.05},
        "y": {"clean": 0.5, "pgd20": 0.1, "autoattack": 0.05},
    }
    board = leaderboard(rows(methods))
    assert list(board["method"]) == ["high", "low", "x", "y", "only-clean"]
    assert board["rank"].tolist()[:4] == [1, 2, 3, 3]
    assert pd.isna(board["rank"].iloc[4])
    assert math.isnan(board["ranking_score"].iloc[4])
    sentence = "Without a rank, since not measured so: only-clean."
    files = render(rows(methods), NO_CLASSES, {})
    assert sentence in str(files["tables/leaderboard.md"])
    assert "| - | only-clean |" in str(files["tables/leaderboard.md"])
    html = page(rows(methods), NO_CLASSES, {}, title="suite")
    assert sentence in html
    assert '<td class="rank" data-sort="">–</td>' in html


def test_an_attack_that_a_seed_lacks_does_not_decide() -> None:
    metrics = rows({"a": {"clean": 0.9, "pgd20": 0.3, "autoattack": 0.2}})
    other = rows({"b": {"clean": 0.5, "pgd20": 0.4, "autoattack": 0.1}})
    seed = rows({"c": {"clean": 0.5, "pgd20": 0.4}}, seed=1).assign(method="b")
    (setting,) = settings(pd.concat([metrics, other, seed]))
    found = setting.ranking
    assert (found.by, found.labels) == (("pgd20",), ("b", "a"))


def test_equal_scores_share_a_rank_whatever_the_last_bit() -> None:
    found = ranked({"a": {"pgd20": 0.1 + 0.2}, "b": {"pgd20": 0.3}, "c": {"pgd20": 0.2}})
    assert found.ranks == {"a": 1, "b": 1, "c": 3}


def test_the_robust_attack_of_figures_is_one_that_all_have() -> None:
    methods = {"a": {"clean": 0.9, "pgd20": 0.3, "autoattack": 0.2}, "b": {"pgd20": 0.4}}
    (setting,) = settings(rows(methods))
    assert setting.robust == "pgd20"


def test_noise_and_clean_are_no_attacks_whatever_their_ending() -> None:
    names = ["clean", "noise", "noisex5", "noise-l2", "fgsm", "lsa20a5", "autoattackx3-l2", "own"]
    assert [name for name in names if is_attack(name)] == names[4:]
    assert sorted(names, key=attack_order)[-1] == "autoattackx3-l2"
