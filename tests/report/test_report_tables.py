"""Tables: marks, escapes, deviations, captions, and LaTeX that compiles."""

from __future__ import annotations

import io
import math
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from report_fixtures import METHODS, board, settings, suite
from rich.console import Console

from ltrobust.report import terminal_tables
from ltrobust.report.estimate import Estimate
from ltrobust.report.markup import Table, cell_text
from ltrobust.report.tables import (
    balanced_table,
    group_table,
    interval_table,
    per_class_table,
    setting_tables,
)

NASTY = r"a_b&c%d#e$f{g}h~i^j\k<l>|m"


def table(values: list[float], names: list[str] | None = None) -> Table:
    frame = pd.DataFrame({"method": names or [f"m{i}" for i in range(len(values))], "acc": values})
    return Table("t", "Title", "Caption.", frame, ["acc"])


def test_best_is_bold_second_underlined_and_ties_share():
    drawn = table([0.5, 0.70001, 0.70004, 0.6, math.nan])
    text = drawn.to_markdown()
    assert re.findall(r"\| (\S+) \|$", text, re.M)[2:] == [
        "50.00",
        "**70.00**",
        "**70.00**",
        "<u>60.00</u>",
        "-",
    ]
    latex = drawn.to_latex()
    assert latex.count(r"\textbf{70.00}") == 2
    assert latex.count(r"\underline{60.00}") == 1


def test_a_table_without_rows_has_no_sections():
    empty = Table("t", "Title", "Caption.", pd.DataFrame([]), ["acc"], "method")
    assert "Caption." in empty.to_markdown()
    assert "tabular" in empty.to_latex()
    assert not any(part.rows for part in empty.rich_parts(80))


def test_deviation_is_written_only_for_several_seeds():
    assert cell_text(Estimate(0.5123, std=0.0042, n_seeds=3)) == "51.23 ± 0.42 (n=3)"
    assert cell_text(Estimate(0.5123, n_seeds=1)) == "51.23"
    assert cell_text(Estimate(math.nan, n_seeds=3)) == "-"


def test_latex_escapes_every_special_sign():
    latex = table([0.5], [NASTY]).to_latex()
    row = next(line for line in latex.splitlines() if line.startswith("a"))
    assert row == (
        r"a\_b\&c\%d\#e\$f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k"
        r"\textless{}l\textgreater{}\textbar{}m & \textbf{50.00} \\"
    )


def test_latex_row_never_feeds_an_argument_to_the_row_end_before_it():
    lines = table([0.5, 0.4], ["x", "[1pt]"]).to_latex().splitlines()
    assert any(line.startswith("{}[1pt] &") for line in lines)


def test_markdown_keeps_its_columns_when_names_hold_bars():
    lines = table([0.5], ["a|b*c"]).to_markdown().splitlines()
    assert lines[4] == r"| a\|b\*c | **50.00** |"


def test_latex_is_whole_and_long_tables_are_cut_into_pages():
    metrics, per_class, _ = suite(methods=METHODS[:2], classes=100)
    latex = per_class_table(settings(metrics, per_class)[0]).to_latex()
    floats = latex.split(r"\begin{table*}")[1:]
    assert len(floats) > 1
    for part in floats:
        assert part.count(r"\begin{tabular}{@{}llrrr@{}}") == part.count(r"\end{tabular}") == 1
        for rule in (r"\toprule", r"\bottomrule", r"\end{table*}", r"\caption{"):
            assert part.count(rule) == 1
        body = part.split(r"\toprule")[1].split(r"\bottomrule")[0]
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert all(line.count(" & ") == 4 for line in rows)
    assert latex.count(r"\label{") == 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(tmp_path: Path):
    metrics, per_class, _ = suite(methods=("[a]", NASTY), seeds=(0, 1))
    body = "\n".join(t.to_latex() for t in setting_tables(settings(metrics, per_class)[0]))
    source = r"\documentclass{article}\usepackage{booktabs}"
    source += rf"\begin{{document}}{body}\end{{document}}"
    (tmp_path / "t.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=batchmode", "t.tex"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0


def test_caption_says_what_the_numbers_mean():
    metrics, _, _ = suite(seeds=(0, 1))
    caption = balanced_table(settings(metrics)[0]).caption
    for fact in (
        "cifar10-lt, imbalance ratio 50",
        "balanced test set of 1,000 images",
        "eps 8/255",
        "resnet18",
        "unified recipe",
        "100 epochs",
        "training seeds 0, 1",
        "pyautoattack 0.2.1",
    ):
        assert fact in caption


@pytest.mark.parametrize(
    ("low", "high", "protocol", "words"),
    [
        (100, 100, "balanced", "balanced test set of 1,000 images"),
        (96, 101, "balanced", "test set as it came, not balanced: n = 1,000, 96 to 101 images a"),
        (5, 300, "long-tailed", "long-tailed test set of 1,000 images, 5 to 300 a class"),
        (100, 100, "long-tailed", "balanced test set of 1,000 images"),
    ],
)
def test_balanced_is_said_of_a_balanced_test_set_alone(low, high, protocol, words):
    metrics, per_class, _ = suite(METHODS[:2], test_protocol=protocol)
    (group,) = settings(metrics.assign(n_class_min=low, n_class_max=high), per_class)
    for table in setting_tables(group):
        assert words in table.caption, table.name
        assert ("balanced test set" in table.caption) == (
            words == "balanced test set of 1,000 images"
        )


def test_exp_and_step_differ_wherever_a_setting_is_named():
    exp, per_class, _ = suite(METHODS[:2])
    step = exp.assign(imbalance_type="step", run_id=exp["run_id"] + "s", split_sha256="cd" * 32)
    groups = settings(pd.concat([exp, step]), per_class)
    slugs = {group.key["imbalance_type"]: group.slug for group in groups}
    assert slugs["exp"] == "cifar10-lt-ir50-resnet18-unified"
    assert slugs["step"].startswith("cifar10-lt-ir50-step-resnet18-unified")
    for group in groups:
        for table in setting_tables(group):
            assert f"imbalance ratio 50 ({group.key['imbalance_type']})" in table.caption
    alone = settings(step)[0]
    assert "-step-" in alone.slug


def test_how_classes_were_grouped_is_told_where_ties_matter():
    metrics, per_class, _ = suite(METHODS[:2])
    words = {
        "5,0,5": "Head: the 5 most frequent classes, medium: none, tail: the 5 rarest.",
        "none": "there is no head, medium or tail",
        "3,4,3 (cuts through classes of equal size)": "part classes of equal size, by their index",
    }
    for text, sentence in words.items():
        (group,) = settings(metrics.assign(groups=text), per_class)
        assert sentence in setting_tables(group)[0].caption


def test_different_seeds_of_methods_are_told():
    metrics, _, _ = suite(methods=("trades", "taet"), seeds=(0, 1))
    metrics = metrics[(metrics["method"] == "taet") | (metrics["seed"] == 0)]
    caption = balanced_table(settings(metrics)[0]).caption
    assert "training seeds taet: 0, 1; trades: 0" in caption


def test_groups_are_ranked_within_their_attack():
    metrics, _, _ = suite(attacks=("clean", "autoattack"))
    drawn = group_table(settings(metrics)[0])
    assert list(drawn.frame["attack"]) == ["clean"] * 5 + ["autoattack"] * 5
    marked = [line for line in drawn.to_markdown().splitlines() if "**" in line]
    assert {line.split(" | ")[0] for line in marked} == {"| clean", "| autoattack"}


def test_classes_run_from_most_to_least_frequent_for_each_attack():
    metrics, per_class, _ = suite()
    frame = per_class_table(settings(metrics, per_class)[0]).frame
    assert list(frame["attack"].unique()) == ["clean", "pgd20", "autoattack"]
    counts = frame.loc[frame["attack"] == "pgd20", "n_train"]
    assert counts.is_monotonic_decreasing
    assert len(counts) == 10


def test_intervals_are_shown_for_single_seeds_only():
    metrics, _, _ = suite(methods=("trades",))
    drawn = interval_table(settings(metrics)[0])
    assert drawn is not None
    row = metrics[metrics["attack"] == "clean"].iloc[0]
    expected = "{:.2f} [{:.2f}, {:.2f}]".format(
        *(100 * row[name] for name in ("balanced_accuracy", "ci_low", "ci_high"))
    )
    assert drawn.frame.loc[0, "clean bal."] == expected
    assert drawn.frame.loc[0, "clean acc."] == f"{100 * row['accuracy']:.2f}"
    several, _, _ = suite(methods=("trades",), seeds=(0, 1))
    assert interval_table(settings(several)[0]) is None


def test_markup_in_names_is_not_read_as_style():
    metrics, per_class, _ = suite(methods=("[bold]x[/bold]",), attacks=("clean",))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(terminal_tables(board(metrics, per_class))[0])
    assert "[bold]x[/bold]" in console.export_text()
