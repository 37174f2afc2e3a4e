"""Files of a run that are gone or damaged: what is lost is said, and nothing good goes with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest
from bench_helpers import QUICK, Cli, Finished, Outcome, tree

from ltrobust.bench.evaluations import JudgedRun, outcomes_there
from ltrobust.bench.kept import _judged_now
from ltrobust.bench.store import RunStore, SuiteStore

pytestmark = pytest.mark.usefixtures("few_checks", "without_memory")

FRAMES = ("metrics.csv", "per_class.csv", "confusion.csv", "comparisons.csv")
SUITE = Path("suite")
BENCH = ("bench", "--methods", "pgd-at,at-bsl", *QUICK, "--output", SUITE)


@pytest.fixture
def suite(finished: Finished) -> Path:
    """A copy of the finished suite to take files from."""
    shutil.copytree(finished.suite, SUITE)
    return SUITE


def run_of(method: str) -> Path:
    (run,) = (SUITE / "runs").glob(f"{method}-*")
    return run


def evaluate(cli: Cli, run: Path, attacks: str) -> Outcome:
    return cli("evaluate", run, "--attacks", attacks, "--limit-test", "20")


def texts(name: str) -> pd.DataFrame:
    return pd.read_csv(SUITE / name, dtype=str, keep_default_na=False)


def lose_outcomes(*methods: str) -> None:
    for method in methods:
        (run_of(method) / "outcomes.parquet").unlink()


def refused(outcome: Outcome, *parts: object) -> None:
    assert (outcome.code, outcome.stdout) == (2, ""), outcome
    (line,) = outcome.stderr.splitlines()
    for part in parts:
        assert str(part) in line, line


def change_record(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads((run / "run.json").read_text())
    change(record)
    (run / "run.json").write_text(json.dumps(record))


# outcomes that are gone -------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [["at-bsl"], ["at-bsl", "pgd-at"]], ids=["one run", "all runs"])
@pytest.mark.usefixtures("without_reports")
def test_a_further_attack_keeps_the_numbers_whose_outcomes_are_gone_and_bench_makes_them_again(
    suite: Path, cli: Cli, gone: list[str]
) -> None:
    before = {name: texts(name) for name in FRAMES}
    outcomes = pd.read_parquet(run_of("at-bsl") / "outcomes.parquet")
    lose_outcomes(*gone)
    done = evaluate(cli, run_of("at-bsl"), "fgsm")
    assert done.code == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: the outcomes of ")
    assert f"{run_of('at-bsl').name} (clean, pgd2)" in line
    for name in FRAMES[:3]:
        after = texts(name)
        assert "fgsm" in set(after["attack"])
        old = after[after["attack"] != "fgsm"].reset_index(drop=True)
        pd.testing.assert_frame_equal(old, before[name])
    pd.testing.assert_frame_equal(texts("comparisons.csv"), before["comparisons.csv"])
    states = json.loads(cli(*BENCH, "--dry-run", "--json").stdout)["runs"]
    assert {s["run_id"].rpartition("-")[0]: s["state"] == "trained" for s in states} == {
        method: method in gone for method in ("pgd-at", "at-bsl")
    }
    again = cli(*BENCH)
    assert (again.code, again.stderr) == (0, "")
    assert again.stdout.count("outcomes of clean, pgd2 are gone: attacked again") == len(gone)
    assert "epoch 1/" not in again.stdout
    made = pd.read_parquet(run_of("at-bsl") / "outcomes.parquet")
    made = made[made["attack"] != "fgsm"].reset_index(drop=True)
    pd.testing.assert_frame_equal(made, outcomes)


def test_a_report_without_some_outcomes_is_the_report_with_them(
    suite: Path, cli: Cli, finished: Finished
) -> None:
    lose_outcomes("pgd-at")
    (run_of("pgd-at") / "examples.parquet").unlink()
    (suite / "figures" / "mine.png").touch()
    done = cli("report", suite)
    assert done.code == 0
    assert f"{run_of('pgd-at').name} (clean, pgd2)" in done.stderr
    assert "kept as they stand" in done.stderr
    for file in finished.suite.rglob("*.*"):
        name = file.relative_to(finished.suite)
        if file.suffix in (".csv", ".md", ".tex", ".html"):
            assert (suite / name).read_bytes() == file.read_bytes(), name
        assert (suite / name).exists() or name.name in ("outcomes.parquet", "examples.parquet")
    refused(cli("report", suite, "--groups", "2,6,2"), "--groups", run_of("pgd-at").name, "pgd2")


@pytest.mark.usefixtures("without_reports")
def test_kept_numbers_tell_how_groups_are_cut(suite: Path, cli: Cli) -> None:
    assert cli("report", suite, "--groups", "2,6,2").code == 0
    before = texts("metrics.csv")
    lose_outcomes("pgd-at")
    assert cli("report", suite).code == 0
    pd.testing.assert_frame_equal(texts("metrics.csv"), before)


@pytest.mark.usefixtures("without_reports")
def test_what_no_csv_file_knows_is_left_out_and_told(suite: Path, cli: Cli) -> None:
    lose_outcomes("pgd-at")
    (suite / "metrics.csv").unlink()
    done = cli("report", suite)
    assert done.code == 0
    assert f"{run_of('pgd-at').name} (clean)" in done.stderr
    assert "left out" in done.stderr
    assert set(texts("metrics.csv")["method"]) == {"at-bsl"}
    lose_outcomes("at-bsl")
    (suite / "metrics.csv").unlink()
    refused(cli("report", suite), "holds no evaluated run")


@pytest.mark.usefixtures("without_reports")
def test_several_seeds_of_which_one_is_gone_stay_one_row(suite: Path, cli: Cli) -> None:
    run = run_of("pgd-at")
    words = ("evaluate", run, "--attacks", "pgd2", "--limit-test", "20", "--seed", 1)
    assert cli(*words).code == 0
    before = texts("metrics.csv")
    assert before["attack_id"].str.contains("+", regex=False).any()
    frame = pd.read_parquet(run / "outcomes.parquet")
    last = frame["attack_id"].iloc[-1]
    frame[frame["attack_id"] != last].to_parquet(run / "outcomes.parquet", index=False)
    assert cli("report", suite).code == 0
    pd.testing.assert_frame_equal(texts("metrics.csv"), before)


@pytest.mark.usefixtures("without_reports")
def test_a_run_that_was_removed_leaves_the_tables(suite: Path, cli: Cli) -> None:
    shutil.rmtree(run_of("pgd-at"))
    done = cli("report", suite)
    assert (done.code, done.stderr) == (0, "")
    assert set(texts("metrics.csv")["method"]) == {"at-bsl"}


def test_runs_without_outcomes_cannot_be_compared(suite: Path, cli: Cli) -> None:
    lose_outcomes("pgd-at")
    one, other = run_of("at-bsl"), run_of("pgd-at")
    refused(cli("compare", one, other), f"the outcomes of {other.name} are gone")


@pytest.mark.usefixtures("without_reports")
def test_marks_stay_whose_outcomes_are_gone(suite: Path, cli: Cli) -> None:
    run = RunStore(run_of("at-bsl"))
    findings = run.reliability()
    findings[0] |= {"flagged": True, "value": 3.0, "threshold": 1.0, "explanation": "seen then"}
    run.write_reliability(findings)
    lose_outcomes("at-bsl")
    assert evaluate(cli, run.path, "fgsm").code == 0
    assert run.reliability()[0] == findings[0]
    marks = texts("metrics.csv").set_index("method").loc["at-bsl", "reliability"]
    assert len(set(marks)) == 1  # those of the run, kept rows and new ones alike
    assert findings[0]["check"] in marks.iloc[0].split(";")


def test_a_kept_number_that_was_not_checked_is_not_marked() -> None:
    rows = [("a", "one", "yes"), ("a", "", "no"), ("b", "two", "yes"), ("c", "three", "yes")]
    kept = pd.DataFrame(rows, columns=["run_id", "reliability", "reliability_report"])
    flags = {"a": ("x", "y"), "b": (), "c": None}
    runs = [SimpleNamespace(run_id=name, flagged=found) for name, found in flags.items()]
    found = _judged_now(kept, cast("Sequence[JudgedRun]", runs))
    assert list(found["reliability"]) == ["x;y", "", "", "three"]
    assert list(found["reliability_report"]) == ["yes", "no", "yes", "yes"]


# outcomes that are not those of the test images ---------------------------------------------------

CHANGES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "a part": lambda frame: frame.iloc[:-1],
    "an image twice": lambda frame: pd.concat([frame, frame.iloc[-1:]]),
    "another image": lambda frame: frame.assign(index=frame["index"] + (frame["index"] == 3)),
    "another label": lambda frame: frame.assign(label=(frame["label"] + 1) % 10),
    "none": lambda frame: frame.iloc[:0],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_outcomes_count_only_for_every_test_image_once(
    suite: Path, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    run = RunStore(run_of("at-bsl"))
    frame = run.outcomes()
    clean = frame["attack"] == "clean"
    run.write_outcomes(pd.concat([frame[clean], change(frame[~clean])]))
    assert [facts["attack"] for facts in outcomes_there(run).values()] == ["clean"]


def test_the_order_of_outcomes_and_columns_of_others_do_not_matter(suite: Path) -> None:
    run = RunStore(run_of("at-bsl"))
    frame = run.outcomes()
    run.write_outcomes(frame.sample(frac=1, random_state=0).assign(mine="x"))
    assert [facts["attack"] for facts in outcomes_there(run).values()] == ["clean", "pgd2"]


def _write_text(file: Path) -> None:
    file.write_text("index,label\n1,2\n")


OUTCOMES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda file: file.write_bytes(b""), "no readable Parquet file"),
    "text": (_write_text, "no readable Parquet file"),
    "other columns": (lambda file: pd.DataFrame({"a": [1]}).to_parquet(file), "no column index"),
    "texts": (
        lambda file: pd.read_parquet(file).astype({"pred": str}).to_parquet(file),
        "column pred is of another type",
    ),
}


@pytest.mark.parametrize("case", OUTCOMES.values(), ids=OUTCOMES.keys())
def test_damaged_outcomes_are_one_line_everywhere(
    suite: Path, cli: Cli, case: tuple[Callable[[Path], object], str]
) -> None:
    damage, text = case
    run = run_of("at-bsl")
    damage(run / "outcomes.parquet")
    before = tree(suite)
    parts = (run / "outcomes.parquet", text, "delete it")
    refused(cli("report", suite), *parts)
    refused(cli(*BENCH), *parts)
    refused(evaluate(cli, run, "fgsm"), "outcomes.parquet", text)
    refused(cli("compare", run, run_of("pgd-at")), *parts)
    assert tree(suite) == before


# records that lack something --------------------------------------------------------------------


def _without(*path: str) -> Callable[[dict[str, Any]], object]:
    def change(record: dict[str, Any]) -> None:
        for key in path[:-1]:
            record = record[key]
        del record[path[-1]]

    return change


RECORDS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "class_names": (_without("data", "class_names"), "data.class_names is missing"),
    "data": (_without("data"), "data is missing"),
    "run_id": (_without("run_id"), "run_id is missing"),
    "status": (_without("status"), "status is missing"),
    "evaluations": (_without("evaluations"), "evaluations is missing"),
    "config": (_without("config"), "config is missing"),
    "eps": (_without("config", "recipe", "attack"), "config.recipe.attack is missing"),
    "versions": (_without("provenance", "versions"), "provenance.versions is missing"),
    "a list": (lambda record: record.update(evaluations=[]), "evaluations is wrong"),
    "no counts": (lambda record: record["data"].update(train_counts=["x"]), "train_counts.0 is"),
    "short counts": (lambda record: record["data"].update(train_counts=[1]), "differ in length"),
}


@pytest.mark.parametrize("case", RECORDS.values(), ids=RECORDS.keys())
def test_a_record_without_a_key_is_one_line_everywhere(
    suite: Path, cli: Cli, case: tuple[Callable[[dict[str, Any]], object], str]
) -> None:
    change, text = case
    run = run_of("at-bsl")
    change_record(run, change)
    before = tree(suite)
    for words in (
        ("report", suite),
        ("evaluate", run, "--attacks", "fgsm", "--limit-test", "20"),
        ("compare", run, run_of("pgd-at")),
        BENCH,
        (*BENCH, "--dry-run"),
    ):
        refused(cli(*words), run / "run.json", "is damaged", text)
    assert tree(suite) == before


def test_an_evaluation_without_a_fact_is_named(suite: Path, cli: Cli) -> None:
    run = run_of("at-bsl")

    def change(record: dict[str, Any]) -> None:
        del record["evaluations"][next(iter(record["evaluations"]))]["test_sha256"]

    change_record(run, change)
    refused(cli("report", suite), run / "run.json", "evaluations.clean-", "test_sha256 is missing")


@pytest.mark.parametrize("content", ["", "[]", "[1]", "null", "3", "{}"])
def test_a_record_that_is_none_is_one_line(suite: Path, cli: Cli, content: str) -> None:
    run = run_of("at-bsl")
    (run / "run.json").write_text(content)
    refused(cli("report", suite), run / "run.json", "is damaged")
    refused(cli(*BENCH), run / "run.json", "is damaged")


@pytest.mark.usefixtures("without_reports")
def test_a_folder_without_its_record_keeps_its_numbers(suite: Path, cli: Cli) -> None:
    before = texts("metrics.csv")
    (run_of("at-bsl") / "run.json").unlink()
    done = cli("report", suite)
    assert done.code == 0
    assert f"{run_of('at-bsl').name} (clean, pgd2)" in done.stderr
    pd.testing.assert_frame_equal(texts("metrics.csv"), before)


@pytest.mark.usefixtures("without_reports")
def test_a_folder_with_nothing_but_its_record(suite: Path, cli: Cli) -> None:
    run, before = run_of("at-bsl"), texts("metrics.csv")
    weights = (run / "model.safetensors").read_bytes()
    for file in run.iterdir():
        file.unlink() if file.name != "run.json" else None
    assert cli("report", suite).code == 0
    pd.testing.assert_frame_equal(texts("metrics.csv"), before)
    refused(evaluate(cli, run, "fgsm"), run.name, "no model.safetensors", "bench")
    again = cli(*BENCH)
    assert (again.code, again.stderr) == (0, "")
    assert again.stdout.count("epoch 1/2") == 1
    assert (run / "model.safetensors").read_bytes() == weights
    scores = ["run_id", "attack", "accuracy", "balanced_accuracy", "head", "tail"]
    pd.testing.assert_frame_equal(texts("metrics.csv")[scores], before[scores])


# other files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["", "\n", "epoch,train_loss\n", "a,b\n1,2\n", "epoch,train_loss\n1,x\n"]
)
def test_a_damaged_learning_curve_is_one_line(suite: Path, cli: Cli, content: str) -> None:
    file = run_of("at-bsl") / "history.csv"
    file.write_text(content)
    refused(cli("report", suite), file, "is damaged", "delete it")
    file.unlink()
    assert RunStore(file.parent).history().empty


@pytest.mark.usefixtures("without_reports")
def test_without_weights_a_finished_run_is_done_and_further_attacks_are_refused(
    suite: Path, cli: Cli
) -> None:
    run = run_of("at-bsl")
    (run / "model.safetensors").unlink()
    outcomes = (run / "outcomes.parquet").read_bytes()
    done = cli(*BENCH)
    assert (done.code, done.stderr) == (0, "")
    assert f"{run.name}: done before (its weights are gone" in done.stdout
    more = cli(*BENCH, "--attacks", "clean,fgsm")
    assert more.code == 1
    (line,) = more.stderr.splitlines()
    assert f"failed: {run.name}: {run / 'model.safetensors'} is gone" in line
    assert "--overwrite all" in line
    assert (run / "outcomes.parquet").read_bytes() == outcomes
    states = {r.run_id: outcomes_there(r).keys() for r in SuiteStore(suite).runs()}
    assert {len(ids) for ids in states.values()} == {2, 3}  # the other run was attacked
    assert cli(*BENCH).code == 0
    assert RunStore(run).status == "done"


@pytest.mark.usefixtures("without_reports")
def test_lost_findings_are_made_again_and_nothing_else(suite: Path, cli: Cli) -> None:
    run = run_of("at-bsl")
    before, findings = tree(run), (run / "reliability.json").read_bytes()
    (run / "reliability.json").unlink()
    done = cli("bench", "--methods", "at-bsl", *QUICK, "--output", SUITE)
    assert (done.code, done.stderr) == (0, "")
    assert (run / "reliability.json").read_bytes() == findings
    assert tree(run)["outcomes.parquet"] == before["outcomes.parquet"]
