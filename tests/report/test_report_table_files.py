"""Every table as CSV for machines and as LaTeX that needs booktabs alone."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from report_fixtures import METHODS, board, confused, render, settings, suite
from rich.console import Console

from ltrobust.report import render_board, terminal_tables
from ltrobust.report.estimate import Estimate
from ltrobust.report.groups import comparable_groups
from ltrobust.report.markup import Table
from ltrobust.report.style import Look

pytestmark = pytest.mark.usefixtures("light_figures")

TEX = shutil.which("pdflatex") or shutil.which("tectonic") or ""
NASTY = r"a_b&c%d#e$f{g}h~i^j\k<l>|m"
NAMES = {"per-class", "leaderboard", "balanced", "groups", "errors", "confusion", "cost", "ratios"}


def stored(methods: tuple[str, ...] = METHODS, **kinds: object) -> tuple[pd.DataFrame, ...]:
    """Everything that any table needs, at two imbalance ratios."""
    parts = []
    for ratio in (10.0, 50.0):
        metrics, per_class, _ = suite(
            methods, attacks=("clean", "pgd20", "autoattack"), imbalance_ratio=ratio, **kinds
        )
        metrics = metrics.assign(natural_error=1 / 3, boundary_error=1 / 7, reliability="steps")
        parts.append(confused(metrics, per_class))
    return tuple(pd.concat(frames, ignore_index=True) for frames in zip(*parts, strict=True))


def files(*frames: pd.DataFrame) -> dict[str, str]:
    metrics, per_class, confusion = frames
    out = render(metrics, per_class, {}, None, confusion)
    return {name: text for name, text in out.items() if isinstance(text, str)}


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ltrobust.report._draw_all", lambda *args: None)
        return files(*stored(seeds=(0, 1)))


def test_every_table_comes_in_three_formats(rendered):
    names = {name for name in rendered if name.startswith("tables/")} - {"tables/references.bib"}
    stems = {name.rpartition(".")[0] for name in names}
    assert {re.sub(r"-cifar10.*", "", stem).removeprefix("tables/") for stem in stems} == NAMES
    for stem in stems:
        assert all(rendered[f"{stem}.{kind}"] for kind in ("md", "tex", "csv"))


def test_csv_holds_numbers_in_full_precision_and_no_signs(rendered):
    for name, text in rendered.items():
        if not name.startswith("tables/") or not name.endswith(".csv"):
            continue
        frame = pd.read_csv(io.StringIO(text), float_precision="round_trip")
        assert frame.columns.is_unique
        assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", column) for column in frame.columns), name
        assert "±" not in text
        assert "†" not in text
        assert "%" not in text
        assert {"setting", "method"} <= set(frame.columns)
        for column in frame.columns[frame.columns.str.endswith("_mean")]:
            assert pd.api.types.is_float_dtype(frame[column]), (name, column)


def test_csv_numbers_are_those_of_the_averages(rendered):
    metrics, per_class, _ = stored(seeds=(0, 1))
    group = settings(metrics, per_class)[1]
    frame = pd.read_csv(
        io.StringIO(rendered[f"tables/groups{group.ending}.csv"]), float_precision="round_trip"
    ).set_index(["method", "attack"])
    for (label, attack, score), cell in group.estimates.items():
        found = frame.loc[(label, attack)]
        if f"{score}_mean" in found:
            assert (found[f"{score}_mean"], found[f"{score}_std"]) == (cell.value, cell.std)
        assert found["n_seeds"] == 2
    classes = pd.read_csv(
        io.StringIO(rendered[f"tables/per-class{group.ending}.csv"]), float_precision="round_trip"
    ).set_index(["method", "attack", "class_index"])["accuracy_mean"]
    assert classes.to_dict() == {key: cell.value for key, cell in group.classes.cells.items()}


def test_shares_of_confused_images_sum_to_one(rendered):
    ending = comparable_groups(stored()[0])[0].ending
    frame = pd.read_csv(io.StringIO(rendered[f"tables/confusion{ending}.csv"]))
    sums = frame.groupby(["method", "class_index"])["share"].sum()
    assert len(sums) == 5 * 3
    assert sums.to_numpy() == pytest.approx(1)


def test_a_table_without_data_of_its_own_spreads_its_cells_over_columns():
    cell = Estimate(1 / 3, std=0.25, n_seeds=2)
    frame = pd.DataFrame({"method": ["x"], "acc.": [cell]})
    text = Table("t", "T", "C", frame).to_csv()
    assert text.splitlines() == [
        "method,acc. mean,acc. std,acc. n",
        "x,0.3333333333333333,0.25,2",
    ]


# LaTeX ------------------------------------------------------------------------------------------

SPECIAL = re.compile(r"(?<!\\)[&%#_]|(?<!\\)\$(?!\\pm\$)(?<!\\pm\$)|[~^<>|\"]")
"""Signs that must not stand unescaped in a cell or a caption."""


def balanced(text: str) -> bool:
    depth = 0
    for sign in re.findall(r"(?<!\\)[{}]", text.replace(r"\\", "")):
        depth += 1 if sign == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def check_latex(latex: str) -> None:
    """What pdflatex would stop at, as far as it shows without running it."""
    assert balanced(latex)
    assert all(ord(sign) < 0x250 or sign in "–—‘’“”…" for sign in latex)
    for part in re.split(r"\\begin\{table\*?\}", latex)[1:]:
        assert part.count(r"\caption{") == len(re.findall(r"\\end\{table\*?\}", part)) == 1
        caption = re.search(r"\\caption\{(.*)\}", part).group(1)
        assert not SPECIAL.search(caption), caption
        for tabular in part.split(r"\begin{tabular}{@{}")[1:]:
            check_tabular(tabular)


def check_tabular(text: str) -> None:
    width = len(re.match("[lr]+", text)[0])
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0].strip()
    for line in body.splitlines():
        if line.startswith((r"\midrule", r"\cmidrule")):
            continue
        assert line.endswith(r" \\")
        cells = re.split(r"(?<!\\)&", line.removesuffix(r" \\"))
        spans = [int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
        assert len(cells) + sum(spans) == width, line
        assert not line.startswith(("[", "*"))
        for cell in cells:
            assert not SPECIAL.search(cell.replace("~\\cite", "")), cell
            assert balanced(cell)


def test_latex_of_every_table_is_whole_and_escaped(rendered):
    names = [name for name in rendered if name.endswith(".tex")]
    assert names
    for name in names:
        check_latex(rendered[name])


def test_latex_stands_any_name(monkeypatch):
    monkeypatch.setattr("ltrobust.report._draw_all", lambda *args: None)
    metrics, per_class, confusion = stored(methods=(NASTY, "[1pt]", "*x", "Größe 東京 τ-loss\t1"))
    names = {"airplane": NASTY, "truck": "[b]\nzwei", "ship": "naïve 🚀 “quoted”"}
    per_class = per_class.replace({"class_name": names})
    confusion = confusion.replace({"label_name": names, "pred_name": names})
    out = files(metrics, per_class, confusion)
    latex = {name: text for name, text in out.items() if name.endswith(".tex")}
    for text in latex.values():
        check_latex(text)
    board = next(text for name, text in latex.items() if "leaderboard" in name)
    assert "Größe [U+6771][U+4EAC] [U+03C4]-loss 1" in board


# fitting a column -------------------------------------------------------------------------------

COLUMNS = {1: 234.0, 2: 495.0}
SIZES = {"small": 9, "footnotesize": 8, "scriptsize": 7}


def widest(latex: str) -> float:
    """Points of the widest tabular in the metrics of Times: what overflows a column."""
    found = [0.0]
    for part in re.split(r"\\begin\{table\*?\}", latex)[1:]:
        size = SIZES[re.search(r"\\(small|footnotesize|scriptsize)", part)[1]]
        gap = float(re.search(r"tabcolsep\}\{([\d.]+)pt", part)[1])
        for tabular in part.split(r"\begin{tabular}")[1:]:
            body = tabular.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
            rows = [
                re.split(r"(?<!\\)&", line.removesuffix(r" \\"))
                for line in body.splitlines()
                if line.endswith(r" \\")
            ]
            wide = [max(times(row[n].strip(), size) for row in rows) for n in range(len(rows[0]))]
            found.append(sum(wide) + 2 * gap * (len(wide) - 1))
    return max(found)


def times(text: str, size: float) -> float:
    shown = re.sub(r"~\\cite\{[^}]*\}", " [10]", text)
    shown = re.sub(r"\$\\pm\$", "+", shown)
    shown = re.sub(r"\\(?:textbf|underline)|\\text[a-z]+\{\}|[{}\\]", "", shown)
    metrics = (Path(mpl.get_data_path()) / "fonts/afm/ptmr8a.afm").read_text("latin-1")
    known = dict(re.findall(r"^C (\d+) ; WX (\d+)", metrics, flags=re.MULTILINE))
    return size * sum(int(known.get(str(ord(sign)), 500)) for sign in shown) / 1000


@pytest.mark.parametrize("methods", [METHODS, tuple(f"a-long-method-{n}" for n in range(12))])
def test_every_table_is_no_wider_than_its_column(methods, monkeypatch):
    monkeypatch.setattr("ltrobust.report._draw_all", lambda *args: None)
    metrics, per_class, confusion = stored(methods=methods, seeds=(0, 1))
    made = board(metrics, per_class, {}, None, confusion)
    for columns, room in COLUMNS.items():
        files = render_board(made, {}, Look(columns=columns)).files
        texts = {name: text for name, text in files.items() if name.endswith(".tex")}
        assert len(texts) > 8
        for name, text in texts.items():
            check_latex(text)
            assert 0 < widest(text) <= room, name
            assert (r"\begin{table*}" in text) == (columns == 2)


def test_papers_names_references_and_labels(rendered):
    boards = {name: text for name, text in rendered.items() if "leaderboard" in name}
    texts = [text for name, text in boards.items() if name.endswith(".tex")]
    assert len(texts) == 2
    for text in texts:
        assert r"AT-BSL~\cite{yue2024revisiting}" in text
        assert r"\multicolumn{2}{c}{PGD-20}" in text
        assert "AutoAttack" in text
        assert "CIFAR-10-LT" in text
        assert "at-bsl" not in text
    bib = str(rendered["tables/references.bib"])
    keys = set(re.findall(r"\\cite\{([^}]*)\}", "".join(texts)))
    assert keys == set(re.findall(r"^@\w+\{(.*),$", bib, flags=re.MULTILINE))
    everything = "".join(text for name, text in rendered.items() if name.endswith(".tex"))
    labels = re.findall(r"\\label\{(.*?)\}", everything)
    assert len(labels) == len(set(labels)) > 8


@pytest.mark.skipif(not TEX, reason="needs pdflatex or tectonic to compile tables")
@pytest.mark.parametrize("columns", [1, 2])
def test_no_box_is_overfull_in_a_two_column_class(columns, tmp_path, monkeypatch):
    monkeypatch.setattr("ltrobust.report._draw_all", lambda *args: None)
    made = board(*stored()[:2], {}, None, stored()[2])
    files = render_board(made, {}, Look(columns=columns)).files
    tables = "\n".join(str(text) for name, text in files.items() if name.endswith(".tex"))
    text = (
        r"\documentclass[10pt,twocolumn]{article}\usepackage[T1]{fontenc}\usepackage{times,booktabs}"
        r"\setlength{\textwidth}{6.875in}\setlength{\columnsep}{0.3125in}"
        rf"\begin{{document}}{tables}\end{{document}}"
    )
    (tmp_path / "paper.tex").write_text(text, "utf-8")
    how = [TEX, "-interaction=nonstopmode"] if "pdflatex" in TEX else [TEX, "--print"]
    done = subprocess.run([*how, "paper.tex"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


# terminals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_terminals_tables_break_no_name_and_no_number(width):
    metrics, per_class, _ = stored(seeds=(0, 1))
    made = board(metrics, per_class)
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    for table in terminal_tables(made, width):
        console.print(table)
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= width
    words = set(text.split())
    assert set(METHODS) <= words
    for setting in made.settings:
        for label in setting.labels:
            cell = setting.estimate(label, "autoattack", "balanced_accuracy")
            assert f"{100 * cell.value:.2f}" in words
