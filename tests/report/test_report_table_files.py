"""Every table as CSV for machines and as LaTeX that needs booktabs alone."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest
from report_fixtures import METHODS, confused, render, settings, suite

from ltrobust.report.estimate import Estimate
from ltrobust.report.groups import comparable_groups
from ltrobust.report.markup import Table

pytestmark = pytest.mark.usefixtures("light_figures")

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
    stems = {name.rpartition(".")[0] for name in rendered if name.startswith("tables/")}
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
    for part in latex.split(r"\begin{table}")[1:]:
        width = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", part).group(1))
        assert part.count(r"\caption{") == part.count(r"\end{table}") == 1
        caption = re.search(r"\\caption\{(.*)\}", part).group(1)
        assert not SPECIAL.search(caption), caption
        body = part.split(r"\toprule")[1].split(r"\bottomrule")[0].strip()
        for line in body.splitlines():
            if line == r"\midrule":
                continue
            assert line.endswith(r" \\")
            cells = re.split(r"(?<!\\)&", line.removesuffix(r" \\"))
            assert len(cells) == width, line
            assert not line.startswith(("[", "*"))
            for cell in cells:
                assert not SPECIAL.search(cell), cell
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
