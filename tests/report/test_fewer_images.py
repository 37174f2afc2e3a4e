"""AutoAttack on a part of the test images stands beside the numbers on all of them, with its n."""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd
import pytest
from report_fixtures import metric_row, page, render, settings

from ltrobust.report.markup import Table, cell_text
from ltrobust.report.setting import Setting
from ltrobust.report.tables import leaderboard_table

ALL, FEW, FEWEST = (
    {"n": 9980, "test_sha256": "a" * 64},
    {"n": 1000, "test_sha256": "b" * 64},
    {"n": 200, "test_sha256": "c" * 64},
)
SCORES = {"pgd-at": (0.31, 0.22), "taet": (0.27, 0.25)}
PGD, AUTOATTACK = "pgd20 bal. (n = 1,000)", "autoattack bal. (n = 1,000)"


def rows(
    images: dict[str, Any] = FEW,
    attacks: tuple[str, ...] = ("clean", "pgd20", "autoattack"),
    seeds: tuple[int, ...] = (0,),
    methods: tuple[str, ...] = tuple(SCORES),
    **values: Any,
) -> list[dict[str, Any]]:
    """Rows of both methods; PGD-20 is worth the first of their scores, AutoAttack the second."""
    return [
        metric_row(
            f"{method}-{seed}",
            method=method,
            seed=seed,
            attack=attack,
            **{"balanced_accuracy": SCORES[method][attack == "autoattack"], **images, **values},
        )
        for method in methods
        for seed in seeds
        for attack in attacks
    ]


EVERY = rows(ALL, ("clean", "pgd20"), (0, 1, 2))


def of_all(found: list[dict[str, Any]], **more: Any) -> Setting:
    """The setting on all images."""
    return next(one for one in settings(pd.DataFrame(found), **more) if one.key["n"] == 9980)


def cells(table: Table, method: str) -> dict[str, Any]:
    """What stands in one row."""
    return table.frame.set_index("method").loc[method].to_dict()


def test_autoattack_on_fewer_images_stands_in_columns_of_its_own_with_their_number():
    whole, part = sorted(settings(pd.DataFrame(EVERY + rows())), key=lambda one: -one.key["n"])
    assert whole.fewer is part
    assert part.fewer is None
    table = leaderboard_table(whole)
    assert list(table.frame.columns)[-2:] == [PGD, AUTOATTACK]
    assert cell_text(cells(table, "taet")[AUTOATTACK]) == "25.00"
    assert cell_text(cells(table, "pgd-at")[PGD]) == "31.00"
    assert "±" in cell_text(cells(table, "pgd-at")["pgd20 bal."])  # of three seeds, on all images
    assert (
        " n = 1,000: on 1,000 test images, training seed 0; autoattack was not made on all."
        " AutoAttack from ltrobust. Ranked"
    ) in table.caption
    data = table.data.set_index("method")
    assert data.loc["taet", "autoattack_balanced_accuracy_n1000_mean"] == 0.25
    assert data.loc["taet", "autoattack_balanced_accuracy_n1000_n_seeds"] == 1
    assert data.loc["taet", "n_seeds"] == 3
    # it is shown, and decides nothing
    assert list(table.frame["method"]) == ["pgd-at", "taet"]
    assert "autoattack" not in whole.attacks


def test_the_page_shows_it_as_well():
    html = page(pd.DataFrame(EVERY + rows()), None, title="t")
    for title in ("PGD-20", "AutoAttack"):
        assert html.count(f'class="attack">{title}, n = 1,000<') == 1
    assert "AutoAttack was not made on all." in html
    assert html.count("n = 1,000: on 1,000 test images, training seed 0") == 1
    check_cells(html)


def check_cells(html: str) -> None:
    """Every row of a leaderboard has a cell for each of its columns."""
    for table in re.findall(r'<table class="board">.*?</table>', html, re.DOTALL):
        heads = len(re.findall(r'<th scope="col" class="score', table))
        found = re.findall(r"<tr data-row.*?</tr>", table, re.DOTALL)
        assert found
        assert {len(re.findall(r'<td class="score', row)) for row in found} == {heads}


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 14},
        {"recipe": "fast"},
        {"arch": "small-cnn"},
        {"split_sha256": "cd" * 32},
        {"test_protocol": "long-tailed"},
    ],
    ids=str,
)
def test_nothing_of_another_setting_stands_beside(other: dict[str, Any]):
    assert all(one.fewer is None for one in settings(pd.DataFrame(EVERY + rows(**other))))


def test_runs_that_are_not_in_the_setting_do_not_stand_beside_it():
    more = rows(seeds=(0, 7))
    assert all(one.fewer is None for one in settings(pd.DataFrame(EVERY + more)))


def test_attacks_that_both_have_are_the_same():
    def stepped(found: list[dict[str, Any]], size: float) -> list[dict[str, Any]]:
        own = json.dumps({"step_size": size})
        return [
            {**row, "attack_settings": own} if row["attack"] == "pgd20" else row for row in found
        ]

    assert of_all(stepped(EVERY, 0.1) + stepped(rows(), 0.1)).fewer is not None
    assert of_all(stepped(EVERY, 0.1) + stepped(rows(), 0.2)).fewer is None


def test_a_setting_with_autoattack_needs_no_other():
    assert all(one.fewer is None for one in settings(pd.DataFrame(rows(ALL) + rows())))


def test_of_several_that_with_most_runs_is_taken_then_that_with_most_images():
    found = settings(pd.DataFrame(EVERY + rows(FEWEST) + rows(FEW)))
    assert {int(one.key["n"]): one.fewer and int(one.fewer.key["n"]) for one in found} == {
        9980: 1000,
        1000: None,
        200: None,
    }
    whole = of_all(EVERY + rows(FEWEST) + rows(FEW, methods=("taet",)))
    assert whole.fewer is not None
    assert whole.fewer.key["n"] == 200


def test_autoattack_on_more_images_does_not_stand_beside_fewer():
    part = rows(FEW, ("clean", "pgd20"))
    assert all(one.fewer is None for one in settings(pd.DataFrame(rows(ALL) + part)))


def test_a_method_without_it_has_a_gap_and_the_files_are_written():
    files = render(pd.DataFrame(EVERY + rows(methods=("taet",))), None)
    text = files["tables/leaderboard.md"]
    assert isinstance(text, str)
    (line,) = (line for line in text.splitlines() if "pgd-at" in line.lower() and "|" in line)
    assert line.rstrip("| ").endswith("-")
    assert "| AutoAttack bal. (n = 1,000) |" in text
    assert "AutoAttack was not made on all. Who was not attacked so has no score there." in text
    assert "Who was not attacked" not in leaderboard_table(of_all(EVERY + rows())).caption


def test_it_is_autoattack_that_is_shown_though_not_all_have_it():
    half = rows(FEW, ("clean", "pgd20"), methods=("pgd-at",)) + rows(methods=("taet",))
    table = leaderboard_table(of_all(EVERY + half))
    assert list(table.frame.columns)[-2:] == [PGD, AUTOATTACK]
    assert cell_text(cells(table, "pgd-at")[AUTOATTACK]) == "-"
    assert "autoattack was not made on all" in table.caption
    html = page(pd.DataFrame(EVERY + half), None, title="t")
    assert html.count('class="attack">PGD-20, n = 1,000<') == 1
    check_cells(html)


def test_rows_are_found_by_their_runs_whatever_they_are_called_there():
    other = [
        {**row, "run_id": f"other-{row['seed']}", "config_id": "f" * 12}
        for row in rows(ALL, ("clean", "pgd20"), (0, 1, 2), ("taet",))
    ]
    named = [{**row, "config_id": "e" * 12} for row in EVERY]
    table = leaderboard_table(
        of_all(named + other + [{**r, "config_id": "e" * 12} for r in rows()])
    )
    shown = {
        str(method): cell_text(cell)
        for method, cell in table.frame.set_index("method")[AUTOATTACK].items()
    }
    assert sorted(shown.values()) == ["-", "22.00", "25.00"]
    assert shown["pgd-at"] == "22.00"
    assert {name.partition(" ")[0] for name in shown} == {"pgd-at", "taet"}


# marks ------------------------------------------------------------------------------------------


def lead(setting: Setting, attack: str, verdict: str) -> dict[str, Any]:
    """TAET is before PGD-AT on the images of a setting."""
    numbers = {"n": 1000, "difference": 0.03, "low": 0.01, "high": 0.05, "p": 0.01, "p_holm": 0.01}
    names = {"setting": setting.slug, "attack": attack, "group": "balanced"}
    return {**names, "best": "taet", "other": "pgd-at", **numbers} | {
        "verdict": verdict,
        "basis": "paired images",
    }


@pytest.mark.parametrize(
    ("verdict", "signs", "words"),
    [
        ("within noise", {"pgd-at": "~", "taet": ""}, "~ within noise of the best"),
        ("best", {"pgd-at": "", "taet": "*"}, "* ahead of every other"),
    ],
)
def test_leads_on_fewer_images_are_theirs(verdict: str, signs: dict[str, str], words: str):
    found = EVERY + rows()
    part = of_all(found).fewer
    assert part is not None
    known = pd.DataFrame([lead(part, "autoattack", verdict)])
    table = leaderboard_table(of_all(found, comparisons=known))
    for method, sign in signs.items():
        row = cells(table, method)
        assert row[AUTOATTACK].sign == sign
        assert row["pgd20 bal."].sign == row[PGD].sign == ""
    assert table.caption.count(words) == 1
    html = page(pd.DataFrame(found), None, title="t", comparisons=known)
    assert words in html


def test_leads_on_all_images_are_not_told_of_fewer():
    found = EVERY + rows()
    known = pd.DataFrame([lead(of_all(found), "pgd20", "within noise")])
    table = leaderboard_table(of_all(found, comparisons=known))
    assert cells(table, "pgd-at")["pgd20 bal."].sign == "~"
    assert cells(table, "pgd-at")[PGD].sign == ""
    both = [
        lead(one, "pgd20" if one.fewer else "autoattack", "within noise")
        for one in settings(pd.DataFrame(found))
    ]
    table = leaderboard_table(of_all(found, comparisons=pd.DataFrame(both)))
    assert cells(table, "pgd-at")[AUTOATTACK].sign == "~"
    assert table.caption.count("within noise of the best (") == 1


def test_doubts_about_numbers_on_fewer_images_are_told_once():
    flagged = rows(reliability="bpda")
    table = leaderboard_table(of_all(EVERY + flagged))
    assert cells(table, "taet")[AUTOATTACK].sign == "†"
    assert cells(table, "taet")["pgd20 bal."].sign == ""
    assert "bpda" in table.caption
    both = leaderboard_table(of_all([{**row, "reliability": "bpda"} for row in EVERY] + flagged))
    assert both.caption.count("taet (bpda)") == 1
    apart = [{**row, "reliability": "vanishing-gradients"} for row in EVERY + rows()]
    caption = leaderboard_table(of_all(apart)).caption
    assert caption.count("†") == caption.count("flagged") == 1
    assert "taet under pgd20, autoattack (vanishing-gradients)" in caption


def test_a_doubt_about_a_run_is_told_of_the_numbers_that_carry_its_sign():
    """Seed 1 is in doubt, and AutoAttack was made on seed 0 alone; pgd-at was not attacked so."""
    seeds = [
        {**row, "reliability": "vanishing-gradients" if row["seed"] == 1 else ""}
        for row in rows(ALL, ("clean", "pgd20"), (0, 1))
    ]
    table = leaderboard_table(of_all(seeds + rows(methods=("taet",))))
    assert cells(table, "taet")[AUTOATTACK].sign == ""
    told = "taet under pgd20 (vanishing-gradients)"
    assert told in table.caption
    assert "pgd-at under pgd20 (vanishing-gradients)" in table.caption


def test_leads_that_no_column_shows_are_not_explained():
    found = EVERY + rows()
    part = of_all(found).fewer
    assert part is not None
    tail = {**lead(part, "autoattack", "within noise"), "group": "tail"}
    caption = leaderboard_table(of_all(found, comparisons=pd.DataFrame([tail]))).caption
    assert "within noise of the best" not in caption


# order ------------------------------------------------------------------------------------------


def test_what_is_known_on_more_images_stands_first_and_has_the_plain_names():
    one_seed = rows(ALL, ("clean", "pgd20"))
    for found in (one_seed + rows(), rows() + one_seed):
        ordered = settings(pd.DataFrame(found))
        assert [int(one.key["n"]) for one in ordered] == [9980, 1000]
        assert [one.main for one in ordered] == [True, False]
