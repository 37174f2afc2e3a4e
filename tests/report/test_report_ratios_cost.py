"""The tables by imbalance ratio and of cost: what comes together, what never does, and gaps."""

from __future__ import annotations

import io
import math

import pandas as pd
import pytest
from report_fixtures import board, charts, metric_row, render, settings, suite

from ltrobust.errors import UserError
from ltrobust.report import terminal_tables
from ltrobust.report.estimate import Estimate, Quantity
from ltrobust.report.groups import comparable_groups
from ltrobust.report.markup import Table, cell_text
from ltrobust.report.printed import draw
from ltrobust.report.ratios import ratio_families
from ltrobust.report.tables import cost_table, ratio_table

pytestmark = pytest.mark.usefixtures("light_figures")

METHODS = ("trades", "taet")
ATTACKS = ("clean", "pgd20", "autoattack")


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltrobust.report._draw_all", lambda *args: None)


def at_ratios(*ratios: float, seeds: tuple[int, ...] = (0,), **values: object) -> pd.DataFrame:
    """Metrics of both methods at each ratio, with a split of its own."""
    frames = [
        suite(METHODS, seeds=seeds, attacks=ATTACKS, imbalance_ratio=ratio, **values)[0].assign(
            split_sha256=f"{int(ratio):064x}", n_train=int(20_000 / ratio), imbalance_type="exp"
        )
        for ratio in ratios
    ]
    return pd.concat(frames, ignore_index=True)


def tables(metrics: pd.DataFrame) -> list[Table]:
    return [ratio_table(family) for family in ratio_families(settings(metrics))]


def only(metrics: pd.DataFrame) -> Table:
    (table,) = tables(metrics)
    return table


def score(metrics: pd.DataFrame, **where: object) -> float:
    rows = metrics
    for name, value in where.items():
        rows = rows[rows[name] == value]
    return float(rows["balanced_accuracy"].item())


# by imbalance ratio -----------------------------------------------------------------------------


def test_ratios_are_columns_and_each_cell_is_the_score_of_its_own_group():
    metrics = at_ratios(10.0, 50.0, 100.0)
    frame = only(metrics).frame
    assert list(frame.columns) == ["attack", "method", "IR 10", "IR 50", "IR 100"]
    assert list(frame["attack"].unique()) == list(ATTACKS)
    for row in frame.to_dict("records"):
        for ratio in (10.0, 50.0, 100.0):
            expected = score(
                metrics, method=row["method"], attack=row["attack"], imbalance_ratio=ratio
            )
            cell = row[f"IR {ratio:g}"]
            assert (cell.value, cell.n_seeds) == (expected, 1)
            assert math.isnan(cell.std)


def test_one_ratio_gives_no_table():
    assert tables(at_ratios(50.0)) == []
    metrics, per_class, histories = suite(METHODS, attacks=("clean",))
    assert not [name for name in render(metrics, per_class, histories) if "ratios" in name]


def test_a_missing_cell_is_a_gap_and_a_part_of_the_seeds_gives_no_mean():
    metrics = at_ratios(10.0, 50.0, seeds=(0, 1))
    gone = (metrics["method"] == "taet") & (metrics["imbalance_ratio"] == 10)
    part = (metrics["method"] == "trades") & (metrics["attack"] == "autoattack")
    part &= (metrics["imbalance_ratio"] == 50) & (metrics["seed"] == 1)
    table = only(metrics[~gone & ~part])
    text = {
        (row["attack"], row["method"]): [cell_text(row[name]) for name in ("IR 10", "IR 50")]
        for row in table.frame.to_dict("records")
    }
    assert text["clean", "taet"][0] == "-"
    assert text["clean", "taet"][1].endswith("(n=2)")
    assert text["autoattack", "trades"][0].endswith("(n=2)")
    assert text["autoattack", "trades"][1] == "-"
    assert "- marks a score that not every seed has." in table.caption
    data = table.data.set_index(["attack", "method", "imbalance_ratio"])
    assert math.isnan(data.loc[("autoattack", "trades", 50.0), "balanced_accuracy_mean"])
    assert data.loc[("autoattack", "trades", 50.0), "n_seeds"] == 2


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("recipe", "paper"),
        ("recipe_changes", "lr=0.05"),
        ("test_protocol", "long-tailed"),
        ("select", "best-on-test"),
        ("augment", "autoaugment"),
        ("arch", "wrn-34-10"),
        ("eps", 4 / 255),
        ("n", 500),
        ("split_seed", 1),
        ("imbalance_type", "step"),
    ],
)
def test_what_differs_in_more_than_the_ratio_never_shares_a_table(column, other):
    both = pd.concat([at_ratios(10.0), at_ratios(50.0).assign(**{column: other})])
    assert tables(both) == []
    four = pd.concat(
        [
            at_ratios(10.0, 50.0),
            at_ratios(10.0, 50.0, checkpoint="x").assign(
                **{column: other}, split_sha256="ef" * 32, accuracy=0.5
            ),
        ]
    )
    found = ratio_families(settings(four))
    assert len(found) == 2
    assert len({family.together.slug for family in found}) == 2
    assert all(len(family.members) == 2 for family in found)


def test_the_test_set_may_shrink_with_the_ratio_when_it_is_long_tailed():
    metrics = at_ratios(10.0, 50.0, test_protocol="long-tailed").assign(n_class_min=7)
    metrics.loc[metrics["imbalance_ratio"] == 50, "n"] = 300
    table = only(metrics)
    assert "long-tailed test set of 1,000 images, 7 to 100 a class; long-tailed" in table.caption
    assert "test set of 300 images, 7 to 100 a class" in table.caption
    assert "exp imbalance ratios 10 (" in table.caption
    assert "Methods in their order at ratio 50." in table.caption


def test_versions_of_autoattack_never_share_a_row():
    metrics = at_ratios(10.0, 50.0)
    newer = (metrics["attack"] == "autoattack") & (metrics["imbalance_ratio"] == 50)
    metrics.loc[newer, "attack_library"] = "pyautoattack 9"
    assert tables(metrics) == []


def test_variants_of_autoattack_have_sections_of_their_own():
    metrics = at_ratios(10.0, 50.0)
    other = (metrics["attack"] == "autoattack") & (metrics["imbalance_ratio"] == 50)
    metrics.loc[other, "attack"] = "aa-apgd"
    frame = only(metrics).frame.set_index(["attack", "method"])
    assert math.isnan(frame.loc[("autoattack", "taet"), "IR 50"].value)
    assert math.isnan(frame.loc[("aa-apgd", "taet"), "IR 10"].value)
    assert not math.isnan(frame.loc[("aa-apgd", "taet"), "IR 50"].value)


def test_one_ratio_with_two_choices_of_training_images_has_two_columns():
    metrics = at_ratios(10.0, 50.0)
    small = at_ratios(50.0, checkpoint="x").assign(split_sha256="ef" * 32, n_train=90)
    frame = only(pd.concat([metrics, small])).frame
    assert list(frame.columns[2:]) == [
        "IR 10",
        "IR 50 (400 training images)",
        "IR 50 (90 training images)",
    ]


def test_ratio_captions_name_training_images_and_differing_seeds():
    metrics = at_ratios(10.0, 50.0, seeds=(0, 1))
    caption = only(metrics[(metrics["imbalance_ratio"] == 10) | (metrics["seed"] == 1)]).caption
    assert "imbalance ratios 10 (2,000 training images), 50 (400 training images)" in caption
    assert "training seeds 0, 1 at imbalance ratio 10; training seed 1 at imbalance" in caption


def test_a_method_flagged_at_one_ratio_is_marked():
    metrics = at_ratios(10.0, 50.0).assign(reliability="")
    flagged = (metrics["method"] == "taet") & (metrics["imbalance_ratio"] == 50)
    metrics.loc[flagged, "reliability"] = "steps"
    table = only(metrics)
    rows = table.frame.to_dict("records")
    signs = {
        (row["method"], name)
        for row in rows
        for name, cell in row.items()
        if isinstance(cell, Estimate) and cell.sign
    }
    assert signs == {("taet", "IR 50")}
    assert "reliability checks flagged: taet (steps)" in table.caption
    assert "†" not in table.to_csv()


def test_render_writes_the_ratio_table_once_in_three_formats():
    metrics = at_ratios(10.0, 50.0)
    per_class = suite(METHODS, attacks=ATTACKS)[1].iloc[:0]
    files = render(metrics, per_class, {})
    assert {f"tables/ratios.{kind}" for kind in ("md", "tex", "csv")} <= set(files)
    two = pd.concat([metrics, at_ratios(10.0, 50.0, recipe="paper")])
    names = {name for name in render(two, per_class, {}) if name.startswith("tables/ratios")}
    assert "tables/ratios-cifar10-lt-resnet18-paper.md" in names
    assert len(names) == 6


# what may be compared ---------------------------------------------------------------------------


def test_a_changed_value_of_the_recipe_makes_another_setting_and_is_told():
    same = metric_row("a", method="taet")
    changed = metric_row("b", method="trades", recipe_changes="attack.steps=3;lr=0.05")
    groups = comparable_groups(pd.DataFrame([same, changed]))
    assert len({group.slug for group in groups}) == 2
    assert [list(group.labels) for group in groups] == [["taet"], ["trades"]]
    files = render(pd.DataFrame([same, changed]), suite(METHODS)[1].iloc[:0], {})
    leaderboard = pd.read_csv(io.StringIO(files["leaderboard.csv"]))
    assert set(leaderboard["recipe_changes"].fillna("")) == {"", "attack.steps=3;lr=0.05"}
    told = [text for name, text in files.items() if name.endswith(".md") and "cost" in name]
    assert any("unified recipe with attack.steps=3, lr=0.05" in text for text in told)


def test_results_cut_into_groups_differently_are_refused():
    rows = [metric_row("a", groups="3,4,3"), metric_row("b", method="taet", groups="100/20")]
    with pytest.raises(UserError, match="cut head, medium and tail differently"):
        comparable_groups(pd.DataFrame(rows))


# cost -------------------------------------------------------------------------------------------


def measured(run_id: str = "a", **values: object) -> list[dict]:
    """Clean and AutoAttack rows of one run with what it cost."""
    facts = {
        "train_seconds": 600.0,
        "peak_memory_bytes": 2_500_000_000,
        "parameters": 242_474,
        "attack_device": values.get("device", "cpu"),
    }
    facts |= {"attack_threads": values.get("threads", 2), "attack_code": "0" * 40, "threads": 2}
    common = {**facts, **values}
    return [
        metric_row(run_id, attack="clean", **common, seconds=0.5),
        metric_row(run_id, attack="autoattack", **common, seconds=7200.0),
    ]


def group_of(*rows: list[dict]):
    (setting,) = settings(pd.DataFrame([row for part in rows for row in part]))
    return setting


def test_cost_is_written_in_units_that_fit():
    table = cost_table(group_of(measured()))
    (row,) = table.frame.to_dict("records")
    assert {name: cell_text(cell) for name, cell in row.items()} == {
        "method": "pgd-at",
        "training (min)": "10.00",
        "clean (s)": "0.50",
        "autoattack (h)": "2.00",
        "memory (GB)": "2.50",
        "parameters": "242,474",
    }
    assert "Measured on cpu, 2 threads, commit 00000000. Wall time" in table.caption
    assert "training seed 0" in table.caption


def test_cost_is_averaged_over_seeds_with_their_number():
    table = cost_table(group_of(measured("a", seed=0), measured("b", seed=1, train_seconds=720.0)))
    (row,) = table.frame.to_dict("records")
    # deviations -1 and 1 minute: squares sum to 2, over n - 1 = 1
    cell = row["training (min)"]
    assert isinstance(cell, Quantity)
    assert (cell.value, cell.std) == (11.0, pytest.approx(math.sqrt(2)))
    assert cell_text(row["training (min)"]) == "11.00 ± 1.41 (n=2)"
    assert cell_text(row["parameters"]) == "242,474"
    (data,) = table.data.to_dict("records")
    assert data["train_seconds_mean"] == 660.0
    assert data["n_seeds"] == 2


def test_devices_are_never_averaged():
    group = group_of(
        measured("a", seed=0, device="GPU", train_seconds=10.0),
        measured("b", seed=1, device="cpu", train_seconds=1000.0),
    )
    found = {cost.conditions.device: cost for cost in group.costs}
    assert {device: cost.train_seconds.value for device, cost in found.items()} == {
        "GPU": 10.0,
        "cpu": 1000.0,
    }
    assert all(cost.train_seconds.n_seeds == 1 for cost in found.values())
    table = cost_table(group)
    assert list(table.frame["device"]) == ["GPU", "cpu"]
    assert "Measured with 2 threads, commit 00000000. Each row holds one device" in table.caption
    assert "never averaged" in table.caption


@pytest.mark.parametrize(
    ("changes", "column", "cells"),
    [
        ({"threads": 1, "attack_threads": 1}, "threads", ["1", "2"]),
        (
            {"git_commit": "f" * 40 + "+dirty", "attack_code": "f" * 40 + "+dirty"},
            "commit",
            ["00000000", "ffffffff+dirty"],
        ),
    ],
)
def test_times_of_other_threads_or_commits_stand_under_no_common_label(changes, column, cells):
    group = group_of(measured("a", seed=0), measured("b", seed=1, train_seconds=1000.0, **changes))
    table = cost_table(group)
    assert sorted(table.frame[column]) == cells
    assert all(row["training (min)"].n_seeds == 1 for row in table.frame.to_dict("records"))
    assert f"Each row holds one {column}: only rows that agree" in table.caption
    assert list(table.data[column]) == list(table.frame[column])
    assert "cost" not in charts(group)  # no mean over both


BUSY = {"train_cpu_seconds": 300.0, "cpu_seconds": 1800.0}


def test_processor_time_is_the_cost_where_it_is_known():
    group = group_of(measured("a", **BUSY), measured("b", method="taet", **BUSY))
    table = cost_table(group)
    assert "2 threads, commit 00000000. CPU time, all threads together, of the" in table.caption
    assert "clock" not in table.frame
    assert set(table.data["clock"]) == {"CPU time"}
    assert set(table.data["train_seconds_mean"]) == {300.0}
    assert set(table.data["autoattack_seconds_mean"]) == {1800.0}
    chart = charts(group)["cost"]
    assert chart.foot == ("cpu, 2 threads, commit 00000000, CPU time",)
    assert "busy machine" not in chart.note + table.caption
    by_wall = group_of(measured("a"))
    assert "busy machine" in charts(by_wall)["cost"].note
    assert "busy machine" in cost_table(by_wall).caption


@pytest.mark.parametrize(
    "lacking",
    [{}, {"train_cpu_seconds": 300.0}, {"cpu_seconds": 1800.0}],
    ids=["both", "that of the attack", "that of the training"],
)
def test_all_is_told_in_wall_time_where_one_run_lacks_processor_time(lacking):
    group = group_of(measured("a", seed=0, **lacking), measured("b", method="taet", **BUSY))
    table = cost_table(group)
    assert set(table.data["clock"]) == {"wall time"}
    assert "clock" not in table.frame
    assert list(table.data["train_seconds_mean"]) == [600.0, 600.0]
    assert set(table.data["autoattack_seconds_mean"]) == {7200.0}
    assert " Wall time of the training" in table.caption
    assert len(charts(group)["cost"].panels[0].series) == 2


def test_attacks_of_a_model_that_was_not_trained_here_are_told_by_their_clock():
    rows = measured(train_seconds=math.nan, cpu_seconds=1800.0)
    (cost,) = group_of(rows).costs
    assert cost.conditions.clock == "CPU time"
    assert cost.attack_seconds["autoattack"].value == 1800.0
    assert math.isnan(cost.train_seconds.value)


def test_an_attack_with_other_threads_than_the_training_has_a_row_of_its_own():
    table = cost_table(group_of(measured("a", threads=1, attack_threads=4)))
    training, attacks = table.frame.to_dict("records")
    assert (training["threads"], attacks["threads"]) == ("1", "4")
    assert cell_text(training["autoattack (h)"]) == cell_text(attacks["training (min)"]) == "-"


def test_an_installed_package_is_told_by_its_version():
    rows = measured(git_commit="", attack_code="ltrobust 0.1.0", ltrobust="0.1.0")
    table = cost_table(group_of(rows))
    assert "Measured on cpu, 2 threads, ltrobust 0.1.0." in table.caption
    assert len(table.frame) == 1


def test_a_model_that_was_not_trained_here_has_no_row_without_a_time():
    rows = measured(train_seconds=math.nan, peak_memory_bytes=math.nan, attack_code="1" * 40)
    (row,) = group_of(rows).costs
    assert row.conditions.commit == "1" * 8
    assert row.attack_seconds["autoattack"].value == 7200.0


def test_the_cost_figure_draws_one_kind_of_measurement_and_names_the_others():
    group = group_of(
        measured("a", method="at-bsl"),
        measured("b", method="taet"),
        measured("c", method="trades", threads=8, reliability="steps"),
    )
    chart = charts(group)["cost"]
    assert chart.foot == (
        "cpu, 2 threads, commit 00000000, wall time",
        "measured otherwise, not drawn: TRADES†",
    )
    others = [measured(f"o{n}", method=f"m{n}", threads=8) for n in range(4)]
    many = [measured(f"d{n}", method=f"d{n}") for n in range(5)]
    assert charts(group_of(*many, *others))["cost"].foot[-1].endswith("not drawn: 4 methods")
    (axes,) = draw(chart).axes
    assert axes.get_xlabel() == "training time (minutes)"
    assert sorted(text.get_text() for text in axes.texts) == ["AT-BSL", "TAET"]


def test_an_attack_on_another_device_has_a_row_of_its_own():
    group = group_of(measured("a", device="GPU", attack_device="cpu"))
    gpu, cpu = group.costs
    assert (gpu.conditions.device, cpu.conditions.device) == ("GPU", "cpu")
    assert gpu.train_seconds.value == 600.0
    assert math.isnan(gpu.attack_seconds["autoattack"].value)
    assert math.isnan(cpu.train_seconds.value)
    assert cpu.attack_seconds["autoattack"].value == 7200.0


def test_what_one_seed_lacks_is_a_gap():
    lacking = measured("b", seed=1, train_seconds=math.nan)[:1]
    table = cost_table(group_of(measured("a", seed=0), lacking))
    (row,) = table.frame.to_dict("records")
    assert cell_text(row["training (min)" if "training (min)" in row else "training (s)"]) == "-"
    assert [cell_text(cell) for name, cell in row.items() if "autoattack" in name] == ["-"]
    assert "- marks what is not known of every run of the row." in table.caption


def test_runs_without_cost_still_show_the_times_of_attacks():
    metrics, _, _ = suite(METHODS, attacks=ATTACKS)
    table = cost_table(settings(metrics)[0])
    row = table.frame.iloc[0]
    assert cell_text(row["clean (s)"]) == "1.50"
    assert cell_text(row["memory (GB)"]) == cell_text(row["parameters"]) == "-"
    bare = metrics.assign(seconds=float("nan"), device=float("nan"))
    assert cost_table(settings(bare)[0]) is None


def test_cost_and_ratios_are_printed_too():
    metrics = at_ratios(10.0, 50.0)
    titles = [str(t.title) for t in terminal_tables(board(metrics))]
    assert titles.count("Cost of training and evaluation") == 2
    assert titles.count("Balanced accuracy by imbalance ratio") == 1
