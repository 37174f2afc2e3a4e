"""From run directories to comparisons: what matches, seeds together, leads, and the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import attack, finding, run_of, write_run

from ltrobust.bench.reports import SuiteResults, make_report
from ltrobust.errors import UserError
from ltrobust.evaluation.metrics import parse_groups, wilson
from ltrobust.report import Rendered
from ltrobust.report.groups import comparable_groups
from ltrobust.results.filters import Filters
from ltrobust.results.pairs import compare_runs

N = 40
RNG = np.random.default_rng(0)
GOOD, BAD = RNG.random(N) < 0.9, RNG.random(N) < 0.3
NEAR = GOOD.copy()
NEAR[:2] = ~NEAR[:2]


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltrobust.report._draw_all", lambda *args: None)
    monkeypatch.setattr("ltrobust.bench.reports.board_page", lambda *args, **more: "")


def report(suite: Path, groups: str | None = None) -> SuiteResults:
    results, _ = make_report([suite], Filters(), parse_groups(groups), (), None)
    return results


# what matches -----------------------------------------------------------------------------------


def test_attacks_match_by_settings_and_images_and_the_rest_is_named(tmp_path: Path) -> None:
    a = write_run(
        tmp_path,
        "one",
        [
            attack("clean", correct=GOOD),
            attack("pgd2", correct=BAD),
            attack("cw2", correct=BAD, first=500),
            attack("mim2", correct=BAD, steps=5),
            attack("fgsm", correct=BAD),
        ],
    )
    b = write_run(
        tmp_path / "elsewhere",
        "two",
        [
            attack("clean", correct=GOOD),
            attack("pgd2", correct=GOOD),
            attack("cw2", correct=GOOD),
            attack("mim2", correct=GOOD),
            attack("autoattack", correct=GOOD),
        ],
    )
    found = compare_runs(a, b)
    assert list(found.rows["attack"].unique()) == ["clean", "pgd2"]
    assert sorted(found.notes) == [
        "autoattack (eps 0.1) left out: only in B",
        "cw2 (eps 0.1) left out: the test images differ",
        "fgsm (eps 0.1) left out: only in A",
        "mim2 (eps 0.1) left out: B has it with steps 2 instead of 5",
    ]
    clean = found.rows[found.rows["attack"] == "clean"]
    assert (clean["difference"] == 0).all()
    assert (clean["low"] < 0).all()
    assert (clean["verdict"] == "within noise").all()
    pgd = found.rows.set_index(["attack", "images"]).loc[("pgd2", "all")]
    assert pgd["difference"] == pytest.approx(BAD.mean() - GOOD.mean())
    assert pgd["only_b"] == (GOOD & ~BAD).sum()
    assert pgd["verdict"] == "B better"


def test_seeds_that_both_have_are_taken_together(tmp_path: Path) -> None:
    first, second = BAD | (np.arange(N) < 20), BAD | (np.arange(N) >= 20)
    seeds = [attack(seed=0, correct=first), attack(seed=1, correct=second)]
    a = write_run(tmp_path, "one", [*seeds, attack(seed=2, correct=BAD)])
    b = write_run(tmp_path, "two", [attack(seed=1, correct=GOOD), attack(seed=0, correct=GOOD)])
    found = compare_runs(a, b)
    row = found.rows.set_index("images").loc["all"]
    assert row["attack_id"] == "pgd2-2-0+pgd2-2-1"
    assert row["a"] == pytest.approx((first & second).mean())
    assert found.notes == ("pgd2 (eps 0.1, seed 2) left out: only in A",)


def test_groups_are_those_of_a_with_a_note_where_counts_differ(tmp_path: Path) -> None:
    a = write_run(tmp_path, "one", [attack(correct=GOOD)])
    b = write_run(tmp_path, "two", [attack(correct=BAD)], counts=(5, 10, 20, 50))
    found = compare_runs(a, b, parse_groups("1,2,1"))
    assert found.notes == (
        "the training counts of A and B differ: head, medium and tail are those of A",
    )
    rows = found.rows.set_index("images")
    assert rows.loc["head", "a"] == GOOD[::4].mean()
    assert rows.loc["tail", "a"] == GOOD[3::4].mean()
    assert found.groups == "1,2,1"


def test_nothing_in_common_is_an_error_that_says_why(tmp_path: Path) -> None:
    a = write_run(tmp_path, "one", [attack(correct=GOOD)])
    b = write_run(tmp_path, "two", [attack(correct=GOOD, steps=9)])
    with pytest.raises(UserError, match=r"no attack in common .*steps 9 instead of 2"):
        compare_runs(a, b)
    other = write_run(tmp_path, "three", [attack(correct=GOOD)], names=("a", "b", "c", "x"))
    with pytest.raises(UserError, match=r"classes of one-\w+ .* and three-\w+ .* differ"):
        compare_runs(a, other)
    other = write_run(tmp_path, "four", [])
    with pytest.raises(UserError, match=r"four-\w+ has not been evaluated"):
        compare_runs(a, other)


# seeds of one attack in a report ----------------------------------------------------------------


def timed(one: dict[str, Any], cpu_seconds: float | None) -> dict[str, Any]:
    """What `attack` made, with the processor time that it took."""
    return {**one, "facts": {**one["facts"], "cpu_seconds": cpu_seconds}}


@pytest.mark.parametrize("busy", [4.0, None])
def test_seeds_of_an_attack_are_one_row_with_the_worst_case_of_each_image(
    tmp_path: Path, busy: float | None
) -> None:
    first, second = BAD | (np.arange(N) < 20), BAD | (np.arange(N) >= 20)
    write_run(
        tmp_path,
        "one",
        [
            attack("clean", correct=GOOD | BAD),
            timed(attack(seed=1, correct=second), busy),
            timed(attack(seed=0, correct=first), 2.0),
        ],
    )
    results = report(tmp_path)
    assert results.metrics["attack"].tolist() == ["clean", "pgd2"]
    row = results.metrics.set_index("attack").loc["pgd2"]
    assert row["accuracy"] == pytest.approx((first & second).mean())
    assert json.loads(row["attack_settings"]) == {"seeds": [0, 1], "steps": 2}
    assert row["seconds"] == 3.0
    assert pd.isna(row["cpu_seconds"]) if busy is None else row["cpu_seconds"] == 6.0
    assert row["attack_id"] == "pgd2-2-0+pgd2-2-1"
    assert row["natural_error"] + row["boundary_error"] == pytest.approx(1 - row["accuracy"])
    # where only the second seed broke an image, its prediction counts: two classes further
    confusion = results.confusion[results.confusion["attack"] == "pgd2"]
    shifts = (confusion["pred"] - confusion["label"]) % 4
    by_shift = confusion.groupby(shifts)["count"].sum()
    assert by_shift[0] == (first & second).sum()
    assert by_shift[1] == (~first).sum()
    assert by_shift[2] == (first & ~second).sum()
    assert "worst of attack seeds 0, 1" in (tmp_path / "tables/balanced.md").read_text()


def test_worst_of_two_seeds_is_not_ranked_with_single_seeds(tmp_path: Path) -> None:
    write_run(tmp_path, "one", [attack(seed=0, correct=GOOD), attack(seed=1, correct=BAD)])
    write_run(tmp_path, "two", [attack(seed=1, correct=GOOD)])
    write_run(tmp_path, "three", [attack(seed=0, correct=GOOD)])
    results = report(tmp_path)
    labels = sorted(group.labels for group in comparable_groups(results.metrics))
    assert labels == [["one"], ["three", "two"]]


# leads ------------------------------------------------------------------------------------------


def test_every_method_is_set_against_the_best(tmp_path: Path) -> None:
    for method, right in (("best", GOOD), ("near", NEAR), ("far", BAD)):
        write_run(tmp_path, method, [attack("clean", correct=right), attack(correct=right)])
    results = report(tmp_path)
    leads = results.comparisons
    assert list(leads["group"].unique()) == ["balanced", "tail"]
    balanced = leads[(leads["group"] == "balanced") & (leads["attack"] == "pgd2")]
    assert set(balanced["best"]) == {max(("best", "near"), key=lambda m: _balanced(results, m))}
    verdicts = dict(zip(balanced["other"], balanced["verdict"], strict=True))
    assert verdicts.pop("far") == "A better"
    assert list(verdicts.values()) == ["within noise"]
    assert set(balanced["basis"]) == {"paired images"}
    written = pd.read_csv(tmp_path / "comparisons.csv")
    pd.testing.assert_frame_equal(written, leads, check_dtype=False)
    table = (tmp_path / "tables/balanced.md").read_text()
    assert "within noise of the best (95%, paired over the same images)" in table
    (line,) = (line for line in table.splitlines() if f"| {balanced['other'].iloc[0]} " in line)
    assert line.count(r"\~") == 2
    assert not [x for x in table.splitlines() if x.startswith("| far") and "~" in x]


def _balanced(results: SuiteResults, method: str) -> float:
    rows = results.metrics[results.metrics["method"] == method]
    return float(rows["balanced_accuracy"].iloc[0])


def test_several_training_seeds_are_compared_over_seeds(tmp_path: Path) -> None:
    for seed in range(3):
        one, other = np.arange(N) >= 4 + seed, np.arange(N) < 10 + seed
        write_run(tmp_path, "one", [attack(correct=one)], seed=seed)
        write_run(tmp_path, "two", [attack(correct=other)], seed=seed)
    write_run(tmp_path, "single", [attack(correct=BAD)])
    leads = report(tmp_path).comparisons
    rows = leads[leads["group"] == "balanced"].set_index("other")
    assert set(rows["basis"]) == {"seeds"}
    assert rows.loc["two", "best_run_id"] == ",".join(
        run_of("one", seed).run_id for seed in range(3)
    )
    assert rows.loc["two", "verdict"] == "A better"
    assert rows.loc["single", "verdict"] == "unknown"
    assert np.isnan(rows.loc["single", "low"])
    table = (tmp_path / "tables/balanced.md").read_text()
    assert "No interval of the distance to the best: single." in table


# columns ----------------------------------------------------------------------------------------


def test_columns_follow_from_the_outcomes(tmp_path: Path) -> None:
    attacks = [attack("clean", correct=GOOD), attack(correct=GOOD & BAD, clean=GOOD)]
    run = write_run(tmp_path, "one", attacks)
    checks = [finding("large-eps", True), finding("steps", False), finding("noise", True)]
    run.write_reliability(checks, run.attack_ids())
    write_run(tmp_path, "two", [attack(correct=BAD)])
    results = report(tmp_path, "1,2,1")
    rows = results.metrics.set_index(["method", "attack"])
    clean, pgd, alone = rows.loc[("one", "clean")], rows.loc[("one", "pgd2")], rows.loc["two"]
    assert clean["boundary_error"] == 0
    assert clean["natural_error"] == pgd["natural_error"] == pytest.approx(1 - GOOD.mean())
    assert pgd["boundary_error"] == pytest.approx((GOOD & ~BAD).mean())
    assert alone["boundary_error"].item() == pytest.approx(1 - BAD.mean())
    assert (rows["robust_gap"] == rows["head"] - rows["tail"]).all()
    assert set(rows["groups"]) == {"1,2,1"}
    assert rows.loc["one", "reliability"].tolist() == ["large-eps;noise"] * 2
    assert rows.loc["two", "reliability"].isna().all()
    low, high = wilson(np.array([(GOOD & BAD).sum()]), np.array([N]))
    assert (pgd["acc_ci_low"], pgd["acc_ci_high"]) == pytest.approx((low[0], high[0]))
    classes = results.classes
    assert dict(zip(classes["class_name"], classes["group"], strict=False)) == {
        "a": "head",
        "b": "medium",
        "c": "medium",
        "d": "tail",
    }
    assert (classes["ci_low"] <= classes["accuracy"]).all()
    assert (classes["accuracy"] <= classes["ci_high"]).all()


def test_limits_that_leave_groups_empty_give_a_report_with_gaps(tmp_path: Path) -> None:
    write_run(tmp_path, "one", [attack("clean", correct=GOOD), attack(correct=BAD)])
    results = report(tmp_path, "1000/1")
    assert results.metrics[["head", "tail", "robust_gap"]].isna().all(axis=None)
    assert results.metrics["medium"].notna().all()
    text = (tmp_path / "tables/groups.md").read_text()
    assert "classes of more than 1000 training images, tail: of fewer than 1, medium" in text


@pytest.mark.parametrize("content", ["{", '{"check": 1}', "[1]", '[{"check": "x"}]'])
def test_a_damaged_reliability_report_is_named(tmp_path: Path, content: str) -> None:
    run = write_run(tmp_path, "one", [attack(correct=GOOD)])
    assert run.reliability() is None
    (run.path / "reliability.json").write_text(content)
    with pytest.raises(UserError, match=r"reliability\.json is damaged"):
        report(tmp_path)


def test_confusion_counts_sum_to_the_images_and_their_diagonal_to_the_right_ones(
    tmp_path: Path,
) -> None:
    write_run(tmp_path, "one", [attack("clean", correct=GOOD), attack(correct=BAD)])
    results = report(tmp_path)
    counts = pd.read_csv(tmp_path / "confusion.csv")
    assert (counts["count"] > 0).all()
    for row in results.metrics.itertuples():
        own = counts[counts["attack_id"] == row.attack_id]
        assert own["count"].sum() == row.n
        right = own.loc[own["label"] == own["pred"], "count"].sum()
        assert right == round(row.accuracy * row.n)
    assert (counts["label_name"] == counts["label"].map(dict(enumerate("abcd")))).all()


# the command ------------------------------------------------------------------------------------


def outcomes_of(run: Path) -> pd.DataFrame:
    files = (run / "attacks").glob("*.parquet")
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


Cli = Callable[..., tuple[object, str, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    from ltrobust.cli import main

    def call(*words: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["ltrobust", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two tiny runs of digits-lt, in two suites."""
    from ltrobust.cli import main

    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ltrobust.bench.reports.render_board", lambda *args: Rendered())
        patch.setattr("ltrobust.report.terminal_tables", lambda *args: [])
        for method in ("pgd-at", "at-bsl"):
            words: list[Any] = ["bench", "--methods", method, "--dataset", "digits-lt"]
            words += ["--limit-train", 60, "--limit-test", 20, "--epochs", 1]
            words += ["--attacks", "clean,pgd2", "--output", place / method]
            patch.setattr(sys, "argv", ["ltrobust", *map(str, words)])
            with pytest.raises(SystemExit) as stop:
                main()
            assert stop.value.code == 0
    return [next((place / method / "runs").iterdir()) for method in ("pgd-at", "at-bsl")]


def test_compare_prints_and_writes_both_runs_side_by_side(
    trained: list[Path], cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "new folder" / "rows.csv"
    code, text, err = cli("compare", *trained, "--per-class", "--output", file)
    assert (code, err) == (0, "")
    for word in (*(run.name for run in trained), "balanced", "class 9", "McNemar", "pgd2"):
        assert word in text
    rows = pd.read_csv(file)
    assert len(rows) == 2 * (5 + 10)
    one, other = (outcomes_of(run) for run in trained)
    for name, block in rows.groupby("attack"):
        a, b = (frame.loc[frame["attack"] == name, "correct"].mean() for frame in (one, other))
        row = block.set_index("images").loc["all"]
        assert row["difference"] == pytest.approx(a - b)
        assert row["only_a"] - row["only_b"] == round(20 * (a - b))
    assert rows["verdict"].isin(["A better", "B better", "within noise"]).all()


def test_compare_as_json_holds_the_same_rows(trained: list[Path], cli: Cli) -> None:
    code, text, _ = cli("compare", *trained, "--json", "--groups", "1000/1")
    content = json.loads(text)
    assert code == 0
    assert (content["a"], content["groups"]) == (trained[0].name, "1000/1")
    head = next(row for row in content["rows"] if row["images"] == "head")
    assert (head["n"], head["difference"], head["verdict"]) == (0, None, "unknown")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--groups", "3,3"], "groups '3,3' cannot be read"),
        (["--groups", "3,3,3"], "name 9 classes, but the data has 10"),
        (["--output", "."], "cannot be written"),
    ],
)
def test_compare_refuses_in_one_line(
    trained: list[Path], cli: Cli, words: list[str], says: str
) -> None:
    code, _, err = cli("compare", *trained, *words)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


def test_compare_wants_run_directories(trained: list[Path], cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("compare", trained[0], tmp_path)
    assert code == 2
    assert "is no run directory" in err


def test_report_takes_groups_and_records_them(trained: list[Path], cli: Cli) -> None:
    suite = trained[0].parent.parent
    code, _, err = cli("report", suite, "--groups", "2,6,2")
    assert (code, err) == (0, "")
    assert set(pd.read_csv(suite / "metrics.csv")["groups"]) == {"2,6,2"}
    caption = (suite / "tables/groups.md").read_text()
    assert "Head: the 2 most frequent classes, medium: the next 6, tail: the 2 rarest." in caption
    code, _, err = cli("report", suite, "--groups", "nonsense")
    assert code == 2
    assert "groups 'nonsense' cannot be read" in err
    assert cli("report", suite)[0] == 0
    assert set(pd.read_csv(suite / "metrics.csv")["groups"]) == {"3,4,3"}
