"""Files of a run that are gone or damaged: what is lost is said, and nothing good goes with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from bench_helpers import QUICK, Cli, Finished, Outcome, attacks_of, change, is_done, tree

from ltrobust.results.store import RunStore, SuiteStore

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
        for file in (run_of(method) / "attacks").glob("*.parquet"):
            file.unlink()


def outcomes_file(run: Path, attack: str) -> Path:
    (file,) = (run / "attacks").glob(f"{attack}-*.parquet")
    return file


def refused(outcome: Outcome, *parts: object) -> None:
    assert (outcome.code, outcome.stdout) == (2, ""), outcome
    (line,) = outcome.stderr.splitlines()
    for part in parts:
        assert str(part) in line, line


# outcomes that are gone -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("without_reports")
def test_numbers_stay_where_outcomes_are_gone_and_no_attack_is_made_again(
    suite: Path, cli: Cli
) -> None:
    before = {name: texts(name) for name in FRAMES}
    lose_outcomes("at-bsl")
    done = evaluate(cli, run_of("at-bsl"), "fgsm")
    assert done.code == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: the outcomes of ")
    assert run_of("at-bsl").name in line
    assert "their numbers stand" in line
    for name in FRAMES[:3]:
        after = texts(name)
        assert "fgsm" in set(after["attack"])
        old = after[after["attack"] != "fgsm"].reset_index(drop=True)
        pd.testing.assert_frame_equal(old, before[name])
    pairs = texts("comparisons.csv")
    assert set(pairs["verdict"]) == {"unknown"}
    assert pairs["difference"].tolist() == before["comparisons.csv"]["difference"].tolist()
    again = cli(*BENCH)
    assert again.code == 0
    assert "accuracy" not in again.stdout.replace("Accuracy", "")


def test_a_report_without_some_outcomes_has_all_tables_but_the_paired_ones(
    suite: Path, cli: Cli, finished: Finished
) -> None:
    lose_outcomes("pgd-at")
    (suite / "figures" / "mine.png").touch()
    done = cli("report", suite)
    assert done.code == 0
    assert run_of("pgd-at").name in done.stderr
    for file in finished.suite.rglob("*.csv"):
        name = file.relative_to(finished.suite)
        if name.name not in ("comparisons.csv", "leads.csv", "history.csv"):
            assert (suite / name).read_bytes() == file.read_bytes(), name
    assert (suite / "figures" / "mine.png").exists()
    assert cli("report", suite, "--groups", "2,6,2").code == 0
    assert set(texts("metrics.csv")["groups"]) == {"2,6,2"}


@pytest.mark.usefixtures("without_reports")
def test_the_worst_case_over_seeds_needs_the_outcomes_of_all(suite: Path, cli: Cli) -> None:
    run = run_of("pgd-at")
    words = ("evaluate", run, "--attacks", "pgd2", "--limit-test", "20", "--seed", 1)
    assert cli(*words).code == 0
    before = texts("metrics.csv")
    assert before["attack_id"].str.contains("+", regex=False).any()
    (run / "attacks" / f"{list(attacks_of(run))[-1]}.parquet").unlink()
    done = cli("report", suite)
    assert done.code == 0
    assert "the worst case over seeds cannot be taken without them: left out" in done.stderr
    assert len(texts("metrics.csv")) == len(before) - 1


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
    report = run.reliability()
    assert report is not None
    findings = [one.model_dump() for one in report.findings]
    findings[0] |= {"flagged": True, "value": 3.0, "threshold": 1.0, "explanation": "seen then"}
    run.write_reliability(findings, report.judged)
    lose_outcomes("at-bsl")
    assert evaluate(cli, run.path, "fgsm").code == 0
    after = run.reliability()
    assert after is not None
    assert after.findings[0].model_dump() == findings[0]
    assert set(report.judged) < set(after.judged)
    marks = texts("metrics.csv").set_index("method").loc["at-bsl", "reliability"]
    assert len(set(marks)) == 1
    assert findings[0]["check"] in marks.iloc[0].split(";")


# outcomes that are not those of the test images ---------------------------------------------------

CHANGES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "a part": lambda frame: frame.iloc[:-1],
    "an image twice": lambda frame: pd.concat([frame, frame.iloc[-1:]]),
    "another image": lambda frame: frame.assign(index=frame["index"] + (frame["index"] == 3)),
    "another label": lambda frame: frame.assign(label=(frame["label"] + 1) % 10),
    "none": lambda frame: frame.iloc[:0],
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES.keys())
def test_outcomes_are_those_of_their_record_or_told(
    suite: Path, cli: Cli, changed: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    run = run_of("at-bsl")
    file = outcomes_file(run, "pgd2")
    changed(pd.read_parquet(file)).to_parquet(file)
    refused(cli("compare", run, run_of("pgd-at")), file.name, "not what pgd2-", "delete it")


def test_the_order_of_outcomes_and_columns_of_others_do_not_matter(suite: Path, cli: Cli) -> None:
    file = outcomes_file(run_of("at-bsl"), "pgd2")
    pd.read_parquet(file).sample(frac=1, random_state=0).assign(mine="x").to_parquet(file)
    assert cli("compare", run_of("at-bsl"), run_of("pgd-at")).code == 0


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
    file = outcomes_file(run, "pgd2")
    damage(file)
    before = tree(suite)
    parts = (file, text, "delete it")
    refused(cli("report", suite), *parts)
    refused(cli("compare", run, run_of("pgd-at")), *parts)
    assert tree(suite) == before
    file.unlink()
    assert cli("report", suite).code == 0


# records that lack something --------------------------------------------------------------------


def _without(*path: str) -> Callable[[dict[str, Any]], object]:
    def changed(record: dict[str, Any]) -> None:
        for key in path[:-1]:
            record = record[key]
        del record[path[-1]]

    return changed


RECORDS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "class_names": (_without("data", "class_names"), "data.class_names is missing"),
    "run_id": (_without("run_id"), "run_id is missing"),
    "run": (_without("run"), "run is missing"),
    "eps": (_without("run", "recipe", "attack"), "run.recipe.attack is missing"),
    "no counts": (lambda record: record["data"].update(train_counts=["x"]), "train_counts.0 is"),
}


@pytest.mark.parametrize("case", RECORDS.values(), ids=RECORDS.keys())
def test_a_record_without_a_key_is_one_line_everywhere(
    suite: Path, cli: Cli, case: tuple[Callable[[dict[str, Any]], object], str]
) -> None:
    changed, text = case
    run = run_of("at-bsl")
    change(run / "run.json", changed)
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


@pytest.mark.parametrize("content", ["", "[]", "[1]", "null", "3", "{}"])
def test_a_record_that_is_none_is_one_line(suite: Path, cli: Cli, content: str) -> None:
    run = run_of("at-bsl")
    (run / "run.json").write_text(content)
    refused(cli("report", suite), run / "run.json", "is damaged")
    refused(cli(*BENCH), run / "run.json", "is damaged")


@pytest.mark.usefixtures("without_reports")
def test_a_folder_without_its_record_leaves_the_tables(suite: Path, cli: Cli) -> None:
    (run_of("at-bsl") / "run.json").unlink()
    done = cli("report", suite)
    assert done.code == 0
    assert set(texts("metrics.csv")["method"]) == {"pgd-at"}


@pytest.mark.usefixtures("without_reports")
def test_a_folder_with_nothing_but_its_records_says_all_its_numbers(suite: Path, cli: Cli) -> None:
    run, before = run_of("at-bsl"), texts("metrics.csv")
    for file in run.iterdir():
        file.unlink() if file.is_file() and file.suffix != ".json" else None
    lose_outcomes("at-bsl")
    assert cli("report", suite).code == 0
    pd.testing.assert_frame_equal(texts("metrics.csv"), before)
    refused(evaluate(cli, run, "fgsm"), run.name, "no model.safetensors", "bench")
    again = cli(*BENCH)
    assert again.code == 0
    assert f"{run.name}: done before (its weights are gone" in again.stdout
    assert "epoch 1/2" not in again.stdout


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
    made = attacks_of(run)
    done = cli(*BENCH)
    assert (done.code, done.stderr) == (0, "")
    assert f"{run.name}: done before (its weights are gone" in done.stdout
    more = cli(*BENCH, "--attacks", "clean,fgsm")
    assert more.code == 1
    (line,) = more.stderr.splitlines()
    assert f"failed: {run.name}: {run / 'model.safetensors'} is gone" in line
    assert "--overwrite all" in line
    assert attacks_of(run) == made
    states = {len(r.attack_ids()) for r in SuiteStore(suite).runs()}
    assert states == {2, 3}  # the other run was attacked
    assert cli(*BENCH).code == 0
    assert is_done(run)


@pytest.mark.usefixtures("without_reports")
def test_lost_findings_are_made_again_and_nothing_else(suite: Path, cli: Cli) -> None:
    run = run_of("at-bsl")
    before, findings = tree(run), (run / "reliability.json").read_bytes()
    (run / "reliability.json").unlink()
    done = cli("bench", "--methods", "at-bsl", *QUICK, "--output", SUITE)
    assert (done.code, done.stderr) == (0, "")
    assert (run / "reliability.json").read_bytes() == findings
    left = {"reliability.json", "log.txt"}
    after = {name: time for name, time in tree(run).items() if name not in left}
    assert after == {name: time for name, time in before.items() if name not in left}
