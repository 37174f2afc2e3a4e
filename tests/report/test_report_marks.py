"""The signs in tables and figures: † flagged checks, ~ within noise; captions on groups."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from report_fixtures import board, charts, confused, leaderboard, settings, suite
from rich.console import Console

from ltrobust.report import terminal_tables
from ltrobust.report.charts import shown
from ltrobust.report.estimate import Estimate
from ltrobust.report.groups import attack_order
from ltrobust.report.markup import Table, cell_text
from ltrobust.report.printed import draw
from ltrobust.report.ranking import strongest_attack
from ltrobust.report.tables import (
    balanced_table,
    error_table,
    group_table,
    leaderboard_table,
    setting_tables,
)

ATTACKS = ("clean", "pgd20", "autoattack")
FOOTNOTE = (
    "† reliability checks flagged: robal-r under pgd20 (pgd-above-autoattack); "
    "see docs/evaluation.md."
)


def every_table(metrics: pd.DataFrame, per_class: pd.DataFrame) -> dict[str, Table]:
    metrics, per_class, confusion = confused(metrics, per_class)
    tables = setting_tables(settings(metrics, per_class, confusion=confusion)[0])
    return {table.name: table for table in tables}


def with_reliability(metrics: pd.DataFrame, **texts: str | None) -> pd.DataFrame:
    """Reliability of each method ("" where it is not named), as metrics.csv has it."""
    known = {name.replace("_", "-"): text for name, text in texts.items()}
    text = [known.get(method, "") for method in metrics["method"]]
    return metrics.assign(reliability=text, natural_error=0.2, boundary_error=0.3)


# reliability ------------------------------------------------------------------------------------


def marked(table: Table) -> set[tuple[str, str]]:
    """Rows (attack or method) and columns of the numbers with a †; "method" for all of a row."""
    names = table.frame["attack" if "attack" in table.frame else "method"]
    cells = {
        (of, name)
        for name in set(table.frame) - {"method"}
        for of, cell in zip(names, table.frame[name], strict=True)
        if "†" in cell_text(cell)
    }
    if "method" in table.frame:
        whole = table.frame["method"].str.endswith("†")
        cells |= {(name, "method") for name in names[whole]}
    return cells


def test_every_table_marks_the_numbers_in_doubt_and_no_others():
    metrics, per_class, _ = suite(attacks=ATTACKS)
    tables = every_table(with_reliability(metrics, robal_r="pgd-above-autoattack"), per_class)
    columns = {("robal-r", "pgd20 acc."), ("robal-r", "pgd20 bal.")}
    rows = {("pgd20", "method")}
    assert {name: marked(table) for name, table in tables.items()} == {
        "leaderboard": columns,
        "balanced": columns,
        "intervals": columns,
        "groups": rows,
        "errors": rows,
        "per-class": {("pgd20", "robal-r")},
        "confusion": set(),  # under AutoAttack
        "cost": set(),  # no accuracies
    }
    for name in ("leaderboard", "balanced", "groups", "errors", "intervals", "per-class"):
        assert FOOTNOTE in tables[name].to_markdown(), name
        assert r"\textdagger{}" in tables[name].to_latex(), name
    for name in ("confusion", "cost"):
        assert "†" not in tables[name].to_markdown(), name


def test_a_check_about_everything_marks_every_number():
    metrics, per_class, _ = suite(attacks=ATTACKS)
    table = every_table(with_reliability(metrics, robal_r="random-outputs"), per_class)["balanced"]
    columns = set(table.frame.columns) - {"method"}
    assert marked(table) == {("robal-r", column) for column in columns}
    assert "† reliability checks flagged: robal-r (random-outputs);" in table.caption


def test_what_puts_no_number_in_doubt_is_told_without_a_mark():
    metrics, per_class, _ = suite(attacks=ATTACKS)
    found = with_reliability(metrics, taet="came-in-train-mode", trades="tiny-logits")
    table = every_table(found, per_class)["balanced"]
    assert {name for name, _ in marked(table)} == {"trades"}
    said = "Found, and no doubt about these numbers: taet (came-in-train-mode)."
    assert said in table.caption
    assert "flagged: trades under pgd20 (tiny-logits);" in table.caption


def test_both_signs_stand_behind_one_number():
    metrics, _, _ = suite(attacks=ATTACKS)
    _, near, *_ = leaderboard_table(settings(metrics)[0]).frame["method"]
    key = near.replace("-", "_")
    flagged = with_reliability(metrics, **{key: "random-outputs"})
    known = leads(metrics, **{key: "within noise"})
    table = balanced_table(settings(flagged, comparisons=known)[0])
    row = table.frame.set_index("method").loc[near]
    assert row["autoattack bal."].sign == "†~"
    assert row["clean bal."].sign == "†"


def test_terminal_tables_are_marked_too():
    metrics, per_class, _ = suite(attacks=ATTACKS)
    console = Console(width=80, record=True, file=io.StringIO())
    for drawn in terminal_tables(board(with_reliability(metrics, taet="noise;steps"), per_class)):
        console.print(drawn)
    text = console.export_text()
    sentence = "† reliability checks flagged: taet"
    assert " ".join(text.split()).count(sentence) == 3
    assert text.count(" taet† ") == 3
    assert "…" not in text


def test_without_flags_nothing_is_marked():
    metrics, per_class, _ = suite(attacks=ATTACKS)
    for table in every_table(with_reliability(metrics), per_class).values():
        text = table.to_markdown()
        assert "†" not in text
        assert "reliab" not in text


def test_methods_without_a_report_are_named_in_the_caption_only():
    metrics, per_class, _ = suite(attacks=ATTACKS)
    for name, table in every_table(with_reliability(metrics, taet=None), per_class).items():
        said = table.caption.count("? reliability not checked: taet.")
        assert said == (name != "cost")  # which has no accuracies
        assert "taet" in table.to_markdown().replace(table.caption, "")
        assert "taet†" not in table.to_markdown()
    for table in every_table(metrics, per_class).values():
        assert table.name == "cost" or "? reliability not checked, for any method." in table.caption


def test_a_mean_over_seeds_is_marked_when_one_run_is_flagged():
    metrics, _, _ = suite(methods=("taet", "trades"), seeds=(0, 1), attacks=ATTACKS)
    metrics = with_reliability(metrics)
    metrics.loc[(metrics["method"] == "taet") & (metrics["seed"] == 1), "reliability"] = "noise"
    group = settings(metrics)[0]
    assert [shown(group, label, "clean") for label in group.labels] == ["TAET†", "TRADES"]
    assert "flagged: taet (noise);" in balanced_table(group).caption


def test_attack_figure_marks_the_bars_in_doubt():
    metrics, _, _ = suite(attacks=ATTACKS)
    doubted = with_reliability(metrics, robal_r="tiny-logits")
    plain, marked = (
        draw(charts(settings(rows)[0])["attacks"]) for rows in (with_reliability(metrics), doubted)
    )
    assert [text.get_text() for text in plain.axes[0].texts] == []
    (sign,) = marked.axes[0].texts
    assert sign.get_text() == "†"
    assert round(sign.get_position()[0]) == 0  # pgd20 is the first attack, autoattack the second


def test_marks_change_no_rank_and_no_score():
    metrics, _, _ = suite(attacks=ATTACKS)
    flagged = leaderboard(with_reliability(metrics, robal_r="steps"))
    plain = leaderboard(metrics)
    assert flagged["reliability"].tolist().count("steps") == 1
    assert set(plain["reliability"]) == {""}
    pd.testing.assert_frame_equal(
        flagged.drop(columns="reliability"), plain.drop(columns="reliability")
    )


# within noise -----------------------------------------------------------------------------------


def leads(metrics: pd.DataFrame, **verdicts: str) -> pd.DataFrame:
    """Comparisons under AutoAttack, balanced; other methods clearly differ."""
    group = settings(metrics)[0]
    best, *others = leaderboard_table(group).frame["method"]
    known = {name.replace("_", "-"): verdict for name, verdict in verdicts.items()}
    records = [
        {
            "setting": group.slug,
            "attack": "autoattack",
            "group": contest,
            "best": best,
            "other": other,
            "verdict": known.get(other, "A better") if contest == "balanced" else "A better",
            "basis": "paired images",
        }
        for other in others
        for contest in ("balanced", "tail")
    ]
    return pd.DataFrame(records)


def signed(table: Table) -> set[tuple[str, str]]:
    rows = table.frame.set_index("method").to_dict("index")
    cells = {(method, name): cell for method, row in rows.items() for name, cell in row.items()}
    return {place for place, cell in cells.items() if isinstance(cell, Estimate) and cell.sign}


def test_scores_within_noise_of_the_best_are_marked():
    metrics, _, _ = suite(attacks=ATTACKS)
    best, near, *_ = leaderboard_table(settings(metrics)[0]).frame["method"]
    known = leads(metrics, **{near.replace("-", "_"): "within noise"})
    (group,) = settings(metrics, comparisons=known)
    for table in (leaderboard_table(group), balanced_table(group)):
        assert signed(table) == {(near, "autoattack bal.")}
        assert "~ within noise of the best (95%, paired over the same images)." in table.caption
        score = table.frame.set_index("method").loc[near, "autoattack bal."].value
        assert rf"{100 * score:.2f}\~" in table.to_markdown()
        assert rf"{100 * score:.2f}\textasciitilde{{}}" in table.to_latex()
    assert best not in {name for name, _ in signed(leaderboard_table(group))}


@pytest.mark.parametrize("comparisons", ["none", "empty", "clear", "other setting"])
def test_without_noise_there_is_no_sign_and_no_sentence(comparisons):
    metrics, _, _ = suite(attacks=ATTACKS)
    near = dict.fromkeys(("trades", "taet", "pgd_at", "at_bsl", "robal_r"), "within noise")
    frame = {
        "none": None,
        "empty": leads(metrics).iloc[:0],
        "clear": leads(metrics),
        "other setting": leads(metrics, **near).assign(setting="elsewhere"),
    }[comparisons]
    table = balanced_table(settings(metrics, comparisons=frame)[0])
    assert not signed(table)
    assert "~" not in table.to_markdown()


def test_a_table_of_some_attacks_explains_only_its_own_signs():
    metrics, _, _ = suite(attacks=ATTACKS)
    near = leaderboard_table(settings(metrics)[0]).frame["method"].iloc[1].replace("-", "_")
    (group,) = settings(metrics, comparisons=leads(metrics, **{near: "within noise"}))
    said = "~ within noise"
    assert said not in balanced_table(group, ["clean", "pgd20"]).caption
    assert said in balanced_table(group, ["autoattack"]).caption


def test_seeds_as_basis_and_missing_intervals_are_said():
    metrics, _, _ = suite(attacks=ATTACKS)
    _, near, far, *_ = leaderboard_table(settings(metrics)[0]).frame["method"]
    verdicts = {near: "within noise", far: "unknown"}
    known = leads(metrics, **{name.replace("-", "_"): v for name, v in verdicts.items()})
    table = balanced_table(settings(metrics, comparisons=known.assign(basis="seeds"))[0])
    assert "~ within noise of the best (95%, Welch's interval over seeds)." in table.caption
    assert f"No interval of the distance to the best: {far}." in table.caption


# groups, gap and errors -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3,4,3", "Head: the 3 most frequent classes, medium: the next 4, tail: the 3 rarest."),
        ("100/20", "Head: classes of more than 100 training images, tail: of fewer than 20,"),
    ],
)
def test_captions_say_how_groups_were_cut(text, says):
    metrics, _, _ = suite(attacks=ATTACKS)
    group = settings(metrics.assign(groups=text))[0]
    for table in (group_table(group), leaderboard_table(group)):
        assert says in table.caption


@pytest.mark.parametrize(
    ("tried", "says"),
    [
        ({}, ""),
        ({"pgd-at": 3, "taet": 3}, " Settings tried: 3 of each method."),
        ({"pgd-at": 3, "taet": 1}, " Settings tried, not equally many: pgd-at 3, taet 1."),
        ({"taet": 2}, " Settings tried, not equally many: pgd-at 1, taet 2."),
    ],
)
def test_captions_say_how_many_settings_were_tried(tried, says):
    metrics, _, _ = suite(methods=("pgd-at", "taet"), attacks=("clean",))
    metrics["settings_tried"] = metrics["method"].map(tried).astype("Int64")
    made = board(metrics)
    assert made.leaderboard.set_index("method")["settings_tried"].dropna().to_dict() == tried
    caption = group_table(made.settings[0]).caption
    assert says in caption
    assert ("Settings tried" in caption) == bool(says)


def test_gap_is_head_minus_tail_and_no_contest():
    metrics, _, _ = suite(attacks=ATTACKS)
    table = group_table(settings(metrics)[0])
    for row in table.frame.to_dict("records"):
        assert row["gap"].value == pytest.approx(row["head"].value - row["tail"].value)
    assert "gap" not in table.ranked


def test_gap_of_several_seeds_is_the_mean_of_their_gaps():
    metrics, _, _ = suite(methods=("taet",), seeds=(0, 1), attacks=("clean",))
    metrics["robust_gap"] = [0.5, 0.2]
    (row,) = group_table(settings(metrics)[0]).frame.to_dict("records")
    assert (row["gap"].value, row["gap"].n_seeds) == (pytest.approx(0.35), 2)


def test_errors_add_up_to_the_robust_error():
    metrics, _, _ = suite(attacks=ATTACKS)
    metrics["natural_error"] = 0.125
    metrics["boundary_error"] = 1 - metrics["accuracy"] - 0.125
    table = error_table(settings(metrics)[0])
    assert table is not None
    assert set(table.frame["attack"]) == {"pgd20", "autoattack"}
    for row in table.frame.to_dict("records"):
        parts = row["natural"].value + row["boundary"].value
        assert row["robust error"].value == pytest.approx(parts)


@pytest.mark.parametrize("attacks", [ATTACKS, ("clean",)])
def test_no_error_table_where_nothing_is_known(attacks):
    metrics, _, _ = suite(attacks=attacks)
    assert error_table(settings(metrics)[0]) is None


# attack names -----------------------------------------------------------------------------------


def test_attacks_are_ordered_by_family_then_steps():
    names = ["autoattack", "aa-apgd", "tpgd20", "lsa20a5", "pgd100", "pgd20x5", "pgd20", "noise"]
    names += ["clean", "fgsm", "pgd20-l2", "mine"]
    assert sorted(names, key=attack_order) == [
        *("clean", "noise", "fgsm", "pgd20", "pgd20-l2", "pgd20x5", "pgd100", "lsa20a5"),
        *("tpgd20", "mine", "aa-apgd", "autoattack"),
    ]


@pytest.mark.parametrize(
    ("names", "strongest"),
    [
        (["clean", "pgd20", "aa-apgd", "autoattack-l2"], "autoattack-l2"),
        (["clean", "pgd20", "cw20", "aa-apgd"], "aa-apgd"),
        (["clean", "fgsm", "cw20"], "cw20"),
    ],
)
def test_the_strongest_attack_of_other_names(names, strongest):
    assert strongest_attack(names) == strongest


def test_who_was_fine_tuned_is_told_with_the_epochs():
    metrics, *_ = suite(("pgd-at", "taet"), attacks=("clean", "pgd20"))
    metrics["fine_tuning_epochs"] = [2 if name == "taet" else None for name in metrics["method"]]
    (setting,) = settings(metrics)
    assert "Epochs of fine-tuning on top: taet 2." in setting.protocol
    (plain,) = settings(metrics.assign(fine_tuning_epochs=0))
    assert "fine-tuning" not in plain.protocol
