"""Metrics from outside: held to their contract, columns of every table without another change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic_runs import attack, write_run

from ltrobust.bench.reports import gather
from ltrobust.errors import UserError
from ltrobust.plugins import load_plugin
from ltrobust.report.page import board_page
from ltrobust.report.tables import group_table
from ltrobust.results.custom import METRICS, register_metric
from ltrobust.results.filters import Filters
from ltrobust.testing_parts import check_metric

METRIC = """
import random
from ltrobust.results.custom import register_metric

@register_metric("theirs", better="{better}", low=0, high={high})
def theirs(digest, train_counts):
    {doc}
    shares = [r / n for r, n in zip(digest.right, digest.tested) if n]
    return {value}
"""


@pytest.fixture(autouse=True)
def _own_metrics() -> Iterator[None]:
    before = METRICS.names()
    yield
    for name in set(METRICS.names()) - set(before):
        METRICS.discard(name)


def written(
    folder: Path,
    value: str,
    better: str = "more",
    high: float = 1,
    doc: str = '"""Lowest accuracy of a class, told again."""',
) -> Path:
    file = folder / "theirs.py"
    file.write_text(METRIC.format(value=value, better=better, high=high, doc=doc))
    return file


@pytest.mark.parametrize(
    ("value", "words", "message"),
    [
        ("sum(shares)", {}, "gives .* its range is 0 to 1"),
        ("min(r / n for r, n in zip(digest.right, digest.tested))", {}, "ZeroDivisionError"),
        ("None", {}, "TypeError"),
        ("random.random()", {}, "for the same counts"),
        ("min(shares)", {"better": "less"}, "less is better, but it gives 1 where all"),
        ("min(shares)", {"doc": "pass"}, "docstring must say what it is"),
        ("digest.right.reverse() or min(shares)", {}, "changes its counts"),
        ("train_counts.pop() * 0", {}, "changes its counts"),
    ],
)
def test_a_metric_that_breaks_its_contract_is_found(
    value: str, words: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=message):
        check_metric("theirs", plugin=written(tmp_path, value, **words))


@pytest.mark.parametrize("value", ["min(shares)", "float('nan')"])
def test_a_metric_that_keeps_its_contract_passes(value: str, tmp_path: Path) -> None:
    check_metric("theirs", plugin=written(tmp_path, value))


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("balanced-accuracy", {}, "a column there is"),
        ("gap", {}, "a column there is"),
        ("My_own", {}, "small letters"),
        ("mine", {"better": "most"}, "must be 'more' or 'less'"),
        ("mine", {"low": 1.0}, "holds no numbers"),
    ],
)
def test_what_cannot_be_is_refused(name: str, words: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        register_metric(name, **{"better": "more", **words})(lambda digest, counts: 0.0)


RIGHT = {
    ("good", 0): [1, 1, 1, 1, 1, 1, 1, 1],
    ("good", 1): [1, 1, 1, 1, 1, 1, 1, 0],
    ("poor", 0): [1, 1, 1, 0, 1, 0, 1, 0],
    ("poor", 1): [1, 1, 1, 0, 1, 0, 1, 0],
}
"""Image i has label i % 4."""


def suite(folder: Path) -> Path:
    for (method, seed), right in RIGHT.items():
        correct = [bool(one) for one in right]
        write_run(folder, method, [attack("clean", correct=correct)], seed=seed)
    return folder


def test_it_stands_in_every_table_with_mean_and_deviation(tmp_path: Path) -> None:
    register_metric("far-off", better="less", low=0, high=100)(far_off)
    results = gather([suite(tmp_path)], Filters())
    assert sorted(results.metrics["far_off"]) == [0, 5, 15, 15]
    board = results.leaderboard.set_index("method")
    assert board.loc["good", "clean_far_off_mean"] == 2.5
    assert board.loc["good", "clean_far_off_std"] == pytest.approx(12.5**0.5)
    table = group_table(results.board.settings[0])
    text = table.to_markdown()
    assert "far-off: Ten a share that is lost; less is better." in table.caption
    assert "**2.50 ± 3.54 (n=2)**" in text  # less is better
    assert "<u>15.00 ± 0.00 (n=2)</u>" in text
    assert "far_off_mean,far_off_std" in table.to_csv()
    page = board_page(results.board, title="own", downloads={})
    assert "far-off: Ten a share that is lost; less is better." in page
    assert page.count('<th scope="col" class="score">far-off</th>') == 2  # a detail a method
    assert "± 3.54" in page


def far_off(digest, train_counts):
    """Ten a share that is lost."""
    return 10 * sum(1 - r / n for r, n in zip(digest.right, digest.tested, strict=True))


def test_a_share_is_shown_in_percent_and_more_of_it_is_best(tmp_path: Path) -> None:
    load_plugin(written(tmp_path, "min(shares)"))
    table = group_table(gather([suite(tmp_path)], Filters()).board.settings[0])
    assert [found.value for found in table.frame["theirs"]] == [0.75, 0.0]
    assert "**75.00 ± 35.36 (n=2)**" in table.to_markdown()


def test_one_that_fails_names_the_run(tmp_path: Path) -> None:
    load_plugin(written(tmp_path, "2"))
    with pytest.raises(UserError, match=r"theirs gives 2; .* \(good-[0-9a-f]+ under clean\)"):
        gather([suite(tmp_path)], Filters())


def test_without_it_nothing_is_there(tmp_path: Path) -> None:
    results = gather([suite(tmp_path)], Filters())
    assert not [name for name in results.metrics if "far" in name or "theirs" in name]
