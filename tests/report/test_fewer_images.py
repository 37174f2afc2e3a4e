"""AutoAttack on a part of the test images stands beside the numbers on all of them, with its n."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from report_fixtures import metric_row, page, render, settings

from ltrobust.report.markup import cell_text
from ltrobust.report.tables import leaderboard_table

ALL, FEW, FEWEST = (
    {"n": 9980, "test_sha256": "a" * 64},
    {"n": 1000, "test_sha256": "b" * 64},
    {"n": 200, "test_sha256": "c" * 64},
)
SCORES = {"pgd-at": (0.31, 0.22), "taet": (0.27, 0.25)}


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


def test_autoattack_on_fewer_images_stands_in_columns_of_its_own_with_their_number():
    whole, part = sorted(settings(pd.DataFrame(EVERY + rows())), key=lambda one: -one.key["n"])
    assert whole.fewer is part
    assert part.fewer is None
    table = leaderboard_table(whole)
    assert list(table.frame.columns)[-2:] == [
        "pgd20 bal. (n = 1,000)",
        "autoattack bal. (n = 1,000)",
    ]
    by_method = table.frame.set_index("method")
    assert cell_text(by_method.loc["taet", "autoattack bal. (n = 1,000)"]) == "25.00"
    assert cell_text(by_method.loc["pgd-at", "pgd20 bal. (n = 1,000)"]) == "31.00"
    assert "±" in cell_text(by_method.loc["pgd-at", "pgd20 bal."])  # of three seeds, on all images
    assert (
        "n = 1,000: on 1,000 of these images, training seed 0; autoattack was not made on all."
    ) in table.caption
    data = table.data.set_index("method")
    assert data.loc["taet", "autoattack_balanced_accuracy_n1000_mean"] == 0.25
    # it is shown, and decides nothing
    assert list(table.frame["method"]) == ["pgd-at", "taet"]
    assert "autoattack" not in whole.attacks


def test_the_page_shows_it_as_well():
    html = page(pd.DataFrame(EVERY + rows()), None, title="t")
    for title in ("PGD-20", "AutoAttack"):
        assert html.count(f'class="attack">{title}, n = 1,000<') == 1
    assert "AutoAttack was not made on all." in html
    assert html.count("n = 1,000: on 1,000 of these images, training seed 0") == 1


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


def test_a_setting_with_autoattack_needs_no_other_and_most_images_are_taken():
    whole = rows(ALL)
    assert all(one.fewer is None for one in settings(pd.DataFrame(whole + rows())))
    found = settings(pd.DataFrame(EVERY + rows(FEWEST) + rows(FEW)))
    assert {int(one.key["n"]): one.fewer and int(one.fewer.key["n"]) for one in found} == {
        9980: 1000,
        1000: None,
        200: None,
    }


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
    assert "AutoAttack was not made on all." in text
