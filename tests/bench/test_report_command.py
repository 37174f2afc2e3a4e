"""`ltrobust report`: several directories, filters, and where files are written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from bench_helpers import Cli, Finished, Outcome, attacks_of, change, content, tree

from ltrobust.bench.reports import gather
from ltrobust.config import Run
from ltrobust.results.digest import digest_of, outcomes_sha256
from ltrobust.results.filters import Filters
from ltrobust.results.store import RunStore

pytestmark = pytest.mark.usefixtures("without_figures", "without_page")

FRAMES = ("metrics.csv", "per_class.csv", "confusion.csv", "comparisons.csv", "leaderboard.csv")


def part(finished: Finished, name: str, *methods: str) -> Path:
    """A copy of the suite with the runs of these methods only."""
    copy = Path(name)
    shutil.copytree(finished.suite, copy)
    for run in list((copy / "runs").iterdir()):
        if run.name.rpartition("-")[0] not in methods:
            shutil.rmtree(run)
    return copy


def at_ratio(suite: Path, ratio: float) -> Path:
    """Pretend that the runs of a copy were trained at another imbalance ratio."""
    for run in list((suite / "runs").iterdir()):
        record = content(run / "run.json")
        record["run"]["data"]["imbalance_ratio"] = ratio
        other = Run.model_validate(record["run"])
        files = [run / "run.json", run / "trained.json", *(run / "attacks").glob("*.json")]
        for file in files:
            change(file, lambda said, name=other.run_id: said.update(run_id=name))
        data = {**record["data"], "split_sha256": f"{ratio:.0f}" * 9}
        said = {"run": record["run"], "data": data}
        change(run / "run.json", lambda before, said=said: before.update(said))
        run.rename(run.with_name(other.run_id))
    return suite


def contradict(run: Path, attack: str) -> None:
    """Turn the verdicts of an attack round, as another machine might have found them."""
    (attack_id,) = (one for one in attacks_of(run) if one.startswith(attack))
    rows = run / "attacks" / f"{attack_id}.parquet"
    frame = pd.read_parquet(rows)
    frame["correct"] = ~frame["correct"]
    frame.to_parquet(rows)
    said = {
        "digest": digest_of(frame, 10).model_dump(),
        "outcomes_sha256": outcomes_sha256(frame),
    }
    change(run / "attacks" / f"{attack_id}.json", lambda record: record.update(said))


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "tables").iterdir()}


def good(outcome: Outcome) -> str:
    assert (outcome.code, outcome.stderr) == (0, ""), outcome
    return outcome.stdout


def refused(outcome: Outcome, *parts: str) -> None:
    assert outcome.code == 2, outcome
    assert len(outcome.stderr.splitlines()) == 1, outcome.stderr
    for text in parts:
        assert text in outcome.stderr, outcome.stderr


# several directories ----------------------------------------------------------------------------


def test_two_halves_make_the_same_report_as_the_whole(finished: Finished, cli: Cli) -> None:
    halves = part(finished, "one", "at-bsl"), part(finished, "two", "pgd-at")
    text = good(cli("report", *halves, "--output", "both"))
    assert "tables, figures and CSV files: both" in text
    for name in FRAMES:
        assert Path("both", name).read_bytes() == (finished.suite / name).read_bytes(), name
    assert tables(Path("both")) == tables(finished.suite)


def test_a_run_in_two_directories_counts_once(finished: Finished, cli: Cli) -> None:
    whole = part(finished, "whole", "at-bsl", "pgd-at")
    good(cli("report", whole, part(finished, "half", "pgd-at"), "--output", "both"))
    for name in FRAMES:
        assert Path("both", name).read_bytes() == (finished.suite / name).read_bytes(), name


def test_directories_that_contradict_each_other_are_refused(finished: Finished, cli: Cli) -> None:
    whole, other = part(finished, "whole", "at-bsl", "pgd-at"), part(finished, "other", "pgd-at")
    (run,) = (other / "runs").iterdir()
    contradict(run, "clean")
    refused(cli("report", whole, other), "whole", "other", run.name, "different outcomes of clean-")
    good(cli("report", whole, other, "--methods", "at-bsl"))  # what is left out may differ


def test_runs_of_one_name_with_other_weights_or_images_are_refused(
    finished: Finished, cli: Cli
) -> None:
    whole, other = part(finished, "whole", "pgd-at"), part(finished, "other", "pgd-at")
    (run,) = (other / "runs").iterdir()
    kept = (run / "trained.json").read_bytes()
    change(run / "trained.json", lambda said: said.update(weights_sha256="0" * 64))
    refused(cli("report", whole, other), "whole", "other", "different weights", "00000000")
    (run / "trained.json").write_bytes(kept)
    change(run / "run.json", lambda said: said["data"].update(split_sha256="0" * 64))
    refused(cli("report", whole, other), "whole", "other", "different images")


def test_what_one_copy_of_a_run_lacks_comes_from_the_other(finished: Finished) -> None:
    whole = gather([finished.suite], Filters())
    one, two = (part(finished, name, "at-bsl", "pgd-at") for name in ("one", "two"))
    for run in (one / "runs").iterdir():
        for file in [*(run / "attacks").glob("clean*"), run / "trained.json", run / "history.csv"]:
            file.unlink()
    for run in (two / "runs").iterdir():
        for file in [*(run / "attacks").glob("*.parquet"), *run.glob("*reliability.json")]:
            file.unlink()
        for file in (run / "attacks").glob("pgd2*"):
            file.unlink()
    for folders in ([one, two], [two, one]):
        found = gather(folders, Filters())
        for name in ("metrics", "classes", "confusion"):
            assert getattr(found, name).to_csv() == getattr(whole, name).to_csv(), name
        assert found.histories.keys() == whole.histories.keys()
        assert "clean-" in found.gaps[0]


def test_of_two_reliability_reports_both_count(finished: Finished) -> None:
    folders = [part(finished, name, "at-bsl") for name in ("one", "two", "none")]
    for folder, flags in zip(folders, ("ab", "cb", None), strict=True):
        (path,) = (folder / "runs").iterdir()
        run = RunStore(path)
        (path / "reliability.json").unlink()
        if flags is not None:
            said = {"value": None, "threshold": None, "explanation": "", "concerns": "all"}
            findings = [{"check": name, "flagged": True, **said} for name in flags]
            run.write_reliability(findings, run.attack_ids())

    def united(*folders: Path) -> set[tuple[str, str]]:
        metrics = gather(folders, Filters()).metrics
        columns = metrics[["reliability", "reliability_report"]].fillna("unknown")
        return set(columns.itertuples(index=False, name=None))

    one, two, none = folders
    assert united(one, two) == {("a;b;c", "yes")}
    assert united(none, two) == {("c;b", "yes")}
    assert united(none) == {("unknown", "no")}


def test_several_directories_without_output_are_printed_only(finished: Finished, cli: Cli) -> None:
    halves = part(finished, "one", "at-bsl"), part(finished, "two", "pgd-at")
    before = tree(Path())
    text = good(cli("report", *halves))
    assert "Accuracy and balanced accuracy" in text
    assert text.splitlines()[-1].startswith("nothing was written; --output DIR")
    assert tree(Path()) == before


def test_ratios_of_two_directories_share_a_table(finished: Finished, cli: Cli) -> None:
    one = part(finished, "one", "at-bsl", "pgd-at")
    two = at_ratio(part(finished, "two", "pgd-at"), 20.0)
    text = good(cli("report", one, two, "--output", "both"))
    assert "Balanced accuracy by imbalance ratio" in " ".join(text.split())
    frame = pd.read_csv("both/tables/ratios.csv").set_index(["attack", "method", "imbalance_ratio"])
    metrics = pd.read_csv("both/metrics.csv")
    row = metrics[(metrics["imbalance_ratio"] == 20) & (metrics["attack"] == "pgd2")]
    found = frame["balanced_accuracy_mean"]
    assert found.loc[("pgd2", "pgd-at", 20.0)] == pytest.approx(row["balanced_accuracy"].item())
    assert found.loc[[("clean", "at-bsl", 20.0)]].isna().all()
    assert "| -" in Path("both/tables/ratios.md").read_text()


def test_the_same_directory_twice_is_one_directory(finished: Finished, cli: Cli) -> None:
    whole = part(finished, "whole", "at-bsl", "pgd-at")
    (whole / "leaderboard.csv").unlink()
    good(cli("report", whole, Path("whole/../whole")))
    assert (whole / "leaderboard.csv").is_file()


def test_csv_files_alone_are_no_results(finished: Finished, cli: Cli) -> None:
    good(cli("report", finished.suite, "--output", "files"))
    refused(cli("report", "files"), "files holds no runs; give a suite's directory")
    refused(cli("report", finished.suite, "files"), "files holds no runs")


def test_cost_is_that_of_the_records(finished: Finished) -> None:
    cost = pd.read_csv(finished.suite / "tables/cost.csv", float_precision="round_trip")
    for run in finished.runs:
        trained = content(run / "trained.json")
        row = cost[cost["method"] == content(run / "run.json")["run"]["method"]].iloc[0]
        assert row["clock"] == "CPU time"
        assert row["train_seconds_mean"] == trained["train_cpu_seconds"]
        assert row["peak_memory_bytes_mean"] == trained["peak_memory_bytes"]
        assert row["parameters"] == trained["parameters"]
        pgd = next(one for one in attacks_of(run).values() if one["attack"] == "pgd2")
        assert row["pgd2_seconds_mean"] == pgd["cpu_seconds"]


# what has not changed ---------------------------------------------------------------------------


def test_a_report_of_the_same_draws_nothing_again(
    finished: Finished, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = part(finished, "whole", "at-bsl", "pgd-at")
    good(cli("report", whole))
    before = tree(whole)
    with monkeypatch.context() as patch:
        patch.setattr("ltrobust.bench.reports.render_board", None)  # calling it would fail
        good(cli("report", whole))
    assert tree(whole) == before
    (whole / "tables/balanced.md").write_text("mine")
    good(cli("report", whole))
    changed = {name for name, time in tree(whole).items() if before[name] != time}
    assert changed == {"tables/balanced.md", ".written.json"}
    good(cli("report", whole, "--groups", "2,6,2"))
    assert set(pd.read_csv(whole / "metrics.csv")["groups"]) == {"2,6,2"}


# filters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("--methods", "at-bsl"),
        ("--methods", "at-bsl", "--dataset", "digits-lt", "--arch", "small-cnn"),
        ("--recipe", "unified", "--methods", "at-bsl", "--imbalance-ratio", "10"),
    ],
    ids=" ".join,
)
def test_filters_leave_what_was_asked_for(finished: Finished, cli: Cli, words) -> None:
    good(cli("report", finished.suite, *words, "--output", "some"))
    for name in ("metrics.csv", "per_class.csv", "confusion.csv", "leaderboard.csv"):
        assert set(pd.read_csv(Path("some", name))["method"]) == {"at-bsl"}, name
    assert len(pd.read_csv("some/comparisons.csv")) == 0


def test_a_list_leaves_all_of_its_values(finished: Finished, cli: Cli) -> None:
    two = at_ratio(part(finished, "two", "pgd-at"), 20.0)
    words = ("--imbalance-ratio", "20,10", "--methods", "pgd-at")
    good(cli("report", finished.suite, two, *words, "--output", "some"))
    metrics = pd.read_csv("some/metrics.csv")
    assert set(metrics["imbalance_ratio"]) == {10.0, 20.0}
    assert set(metrics["method"]) == {"pgd-at"}


def test_a_filter_without_output_writes_nothing(finished: Finished, cli: Cli) -> None:
    whole = part(finished, "whole", "at-bsl", "pgd-at")
    before = tree(whole)
    text = good(cli("report", whole, "--methods", "at-bsl"))
    assert "nothing was written" in text
    assert "pgd-at" not in text
    assert tree(whole) == before


WRONG = {
    "unknown method": (("--methods", "taet"), ("--methods 'taet'", "at-bsl, pgd-at")),
    "misspelled method": (("--methods", "at-bls"), ("did you mean 'at-bsl'?",)),
    "one of several": (("--methods", "at-bsl,taet"), ("'taet'",)),
    "unknown arch": (("--arch", "resnet18"), ("--arch 'resnet18'", "known: small-cnn")),
    "unknown dataset": (("--dataset", "cifar10-lt"), ("--dataset", "known: digits-lt")),
    "unknown recipe": (("--recipe", "paper"), ("--recipe", "known: unified")),
    "other ratio": (("--imbalance-ratio", "7"), ("--imbalance-ratio '7'", "known: 10")),
    "no ratio": (("--imbalance-ratio", "ten"), ("'ten' must be a number >= 1",)),
    "empty item": (("--methods", "at-bsl,"), ("--methods", "empty item")),
    "empty": (("--dataset", ""), ("--dataset", "empty item")),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_filters_that_match_nothing_name_what_is_there(finished: Finished, cli: Cli, case) -> None:
    words, parts = case
    refused(cli("report", finished.suite, *words), *parts)


def test_filters_that_match_nothing_together_are_told(finished: Finished, cli: Cli) -> None:
    two = at_ratio(part(finished, "two", "pgd-at"), 20.0)
    words = ("--imbalance-ratio", "20", "--methods", "at-bsl")
    outcome = cli("report", finished.suite, two, *words)
    refused(outcome, "no result agrees with all of --imbalance-ratio 20 --methods at-bsl")
    refused(outcome, "digits-lt IR 10 exp small-cnn unified (at-bsl, pgd-at)")


# where files go ---------------------------------------------------------------------------------


def test_output_never_overwrites_results_that_were_read_or_trained(
    finished: Finished, cli: Cli
) -> None:
    whole, other = part(finished, "whole", "at-bsl", "pgd-at"), part(finished, "other", "pgd-at")
    before = tree(Path())
    refused(cli("report", other, "--output", other), "--output other", "is read")
    refused(cli("report", other, "--output", whole), "--output whole", "runs of its own")
    assert tree(Path()) == before


def test_a_written_report_can_be_written_again(finished: Finished, cli: Cli) -> None:
    good(cli("report", finished.suite, "--output", "copy"))
    good(cli("report", finished.suite, "--methods", "at-bsl", "--output", "copy"))
    assert set(pd.read_csv("copy/metrics.csv")["method"]) == {"at-bsl"}
    assert "confusion.md" in tables(Path("copy"))


def test_runs_without_attacks_are_no_results(finished: Finished, cli: Cli) -> None:
    copy = part(finished, "copy", "at-bsl")
    (run,) = (copy / "runs").iterdir()
    shutil.rmtree(run / "attacks")
    refused(cli("report", copy), "copy holds no evaluated run yet")
    refused(cli("report", finished.suite, copy), "copy holds no evaluated run yet")
