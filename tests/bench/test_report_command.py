"""`ltrobust report`: several directories, CSV files alone, filters, and where files are written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from bench_helpers import Cli, Finished, Outcome, tree

from ltrobust.bench.collect import SuiteResults
from ltrobust.bench.merge import gather
from ltrobust.errors import UserError
from ltrobust.report.groups import comparable_groups

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


def csv_only(finished: Finished, name: str) -> Path:
    copy = Path(name)
    shutil.copytree(finished.suite, copy)
    shutil.rmtree(copy / "runs")
    return copy


def at_ratio(suite: Path, ratio: float) -> Path:
    """Pretend that the runs of a copy were trained at another imbalance ratio."""
    for run in list((suite / "runs").iterdir()):
        record = json.loads((run / "run.json").read_text())
        record["config"]["data"]["imbalance_ratio"] = ratio
        record["data"]["split_sha256"] = f"{ratio:.0f}" * 16
        record["run_id"] = f"{run.name}x"
        (run / "run.json").write_text(json.dumps(record))
        run.rename(run.with_name(record["run_id"]))
    return suite


def blank(frame: pd.DataFrame, name: str, place: int) -> pd.DataFrame:
    """A frame with one empty cell, written as text so that other cells stay as they are."""
    texts = frame.astype(object)
    texts.loc[texts.index[place], name] = None
    return texts


def older(folder: Path, last: str) -> Path:
    """Cut metrics.csv after a column, per_class.csv after its first ones, as older versions had."""
    metrics = pd.read_csv(folder / "metrics.csv", dtype=str, keep_default_na=False)
    metrics.loc[:, :last].to_csv(folder / "metrics.csv", index=False)
    classes = pd.read_csv(folder / "per_class.csv", dtype=str, keep_default_na=False)
    classes.loc[:, :"accuracy"].to_csv(folder / "per_class.csv", index=False)
    return folder


def put(folder: Path, **values: object) -> Path:
    """Set columns of metrics.csv."""
    metrics = pd.read_csv(folder / "metrics.csv", dtype=str, keep_default_na=False)
    metrics.assign(**values).to_csv(folder / "metrics.csv", index=False)
    return folder


def written(results: SuiteResults) -> tuple[str, str]:
    """metrics.csv and per_class.csv as they would be written, rows in a fixed order."""
    order = ["run_id", "attack"]
    return (
        results.metrics.sort_values(order).to_csv(index=False),
        results.classes.sort_values([*order, "class_index"]).to_csv(index=False),
    )


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
    good(cli("report", csv_only(finished, "files"), whole, "--output", "mixed"))
    for place in ("both", "mixed"):
        for name in FRAMES:
            assert Path(place, name).read_bytes() == (finished.suite / name).read_bytes(), name


def test_directories_that_contradict_each_other_are_refused(finished: Finished, cli: Cli) -> None:
    whole, other = part(finished, "whole", "at-bsl", "pgd-at"), part(finished, "other", "pgd-at")
    (run,) = (other / "runs").iterdir()
    outcomes = pd.read_parquet(run / "outcomes.parquet")
    clean = outcomes["attack"] == "clean"
    outcomes.loc[clean, "correct"] = ~outcomes.loc[clean, "correct"]
    outcomes.to_parquet(run / "outcomes.parquet", index=False)
    refused(cli("report", whole, other), "whole", "other", run.name, "clean", "accuracy")
    good(cli("report", whole, other, "--methods", "at-bsl"))  # what is left out may differ


def test_directories_that_agree_on_the_whole_but_not_by_class_are_refused(
    finished: Finished, cli: Cli
) -> None:
    whole, other = csv_only(finished, "whole"), csv_only(finished, "other")
    classes = pd.read_csv(other / "per_class.csv")
    first = classes["run_id"] == classes["run_id"].iloc[0]
    scores = classes.loc[first & (classes["attack"] == "clean"), "accuracy"]
    classes.loc[scores.index, "accuracy"] = scores.to_numpy()[::-1]
    classes.to_csv(other / "per_class.csv", index=False)
    refused(cli("report", whole, other), "whole", "other", "accuracies by class differ")


@pytest.mark.parametrize("last", ["device", "attack_id", "config_id", "groups", "reliability"])
def test_what_an_older_copy_lacks_comes_from_the_newer_one(finished: Finished, last: str) -> None:
    checks = {"reliability": "masking;more", "reliability_report": "yes"}
    new = put(csv_only(finished, "new"), attack_device="a gpu", parameters="42", **checks)
    old = put(csv_only(finished, "old"), seconds="1e4", reliability="")
    old = older(old, last)
    whole = written(gather([new]))
    assert written(gather([old, new])) == whole
    assert written(gather([new, old])) == whole


def test_of_two_reliability_reports_both_count(finished: Finished) -> None:
    one = put(csv_only(finished, "one"), reliability="a;b", reliability_report="yes")
    two = put(csv_only(finished, "two"), reliability="c;b", reliability_report="yes")
    none = put(csv_only(finished, "none"), reliability="", reliability_report="no")
    clear = put(csv_only(finished, "clear"), reliability="", reliability_report="yes")

    def united(*folders: Path) -> set[tuple[str, str]]:
        metrics = gather(folders).metrics
        columns = metrics[["reliability", "reliability_report"]].fillna("unknown")
        return set(columns.itertuples(index=False, name=None))

    assert united(one, two) == {("a;b;c", "yes")}
    assert united(none, two, clear) == {("c;b", "yes")}
    assert united(none, clear) == {("", "yes")}
    old = older(put(csv_only(finished, "old"), reliability=""), "reliability")  # says nothing
    assert united(none, old) == {("unknown", "no")}


def test_an_attack_that_only_the_older_copy_has_joins_the_run(finished: Finished) -> None:
    new, old = csv_only(finished, "new"), older(csv_only(finished, "old"), "device")
    whole = gather([new])
    metrics = pd.read_csv(new / "metrics.csv")
    metrics[metrics["attack"] == "clean"].to_csv(new / "metrics.csv", index=False)
    assert len(comparable_groups(gather([old, new]).metrics)) == 2  # of images that nobody names
    put(old, test_sha256=metrics["test_sha256"].iloc[0])
    for folders in ([old, new], [new, old]):
        (group,) = comparable_groups(gather(folders).metrics)
        assert group.labels == ["at-bsl", "pgd-at"]
        assert len(group.rows) == len(whole.metrics)
        assert set(group.rows["train_seconds"]) == set(whole.metrics["train_seconds"])


def test_older_copies_that_contradict_are_refused(finished: Finished) -> None:
    new, old = csv_only(finished, "new"), older(csv_only(finished, "old"), "device")
    put(old, balanced_accuracy="0.987")
    for folders in ([old, new], [new, old]):
        with pytest.raises(UserError, match=r"balanced_accuracy.*leave one"):
            gather(folders)


def test_groups_cut_otherwise_are_refused_where_one_copy_does_not_say_how(
    finished: Finished,
) -> None:
    new, old = csv_only(finished, "new"), older(csv_only(finished, "old"), "device")
    put(old, head="0.987")
    with pytest.raises(UserError, match=r"different results.*head"):
        gather([old, new])


def test_older_copies_of_other_test_images_stay_apart(finished: Finished) -> None:
    new, old = csv_only(finished, "new"), older(csv_only(finished, "old"), "device")
    put(old, n="7", balanced_accuracy="0.5")
    assert len(gather([old, new]).metrics) == 2 * len(gather([new]).metrics)


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


# CSV files alone --------------------------------------------------------------------------------


def test_csv_files_alone_give_the_same_tables_and_stay_as_they_are(
    finished: Finished, cli: Cli
) -> None:
    folder = csv_only(finished, "files")
    shutil.rmtree(folder / "tables")
    (folder / "leaderboard.csv").unlink()
    figures = {path.name for path in (folder / "figures").iterdir()}
    good(cli("report", folder))
    assert tables(folder) == tables(finished.suite)
    for name in FRAMES:
        assert (folder / name).read_bytes() == (finished.suite / name).read_bytes(), name
    assert {path.name for path in (folder / "figures").iterdir()} == figures
    assert any(name.startswith("training") for name in figures)


def test_csv_files_alone_written_elsewhere_lose_nothing(finished: Finished, cli: Cli) -> None:
    good(cli("report", csv_only(finished, "files"), "--output", "copy"))
    for name in FRAMES:
        assert Path("copy", name).read_bytes() == (finished.suite / name).read_bytes(), name


def test_metrics_alone_are_enough(finished: Finished, cli: Cli) -> None:
    Path("files").mkdir()
    shutil.copy(finished.suite / "metrics.csv", "files")
    good(cli("report", "files"))
    names = {path.stem for path in Path("files/tables").iterdir()}
    assert names == {"leaderboard", "balanced", "groups", "errors", "intervals", "cost"}


def test_pairs_without_outcomes_have_no_verdict(finished: Finished, cli: Cli) -> None:
    good(cli("report", part(finished, "one", "at-bsl"), "--output", "files"))
    good(cli("report", "files", part(finished, "two", "pgd-at"), "--output", "both"))
    comparisons = pd.read_csv("both/comparisons.csv")
    assert len(comparisons) > 0
    assert set(comparisons["verdict"]) == {"unknown"}
    whole = pd.read_csv(finished.suite / "comparisons.csv")
    assert comparisons["difference"].tolist() == pytest.approx(whole["difference"].tolist())


def test_older_metrics_are_read(finished: Finished, cli: Cli) -> None:
    folder = csv_only(finished, "files")
    metrics = pd.read_csv(folder / "metrics.csv")
    metrics.loc[:, :"reliability"].to_csv(folder / "metrics.csv", index=False)
    text = good(cli("report", folder))
    assert "Cost of training and evaluation" in text
    cost = pd.read_csv(folder / "tables/cost.csv")
    assert cost["train_seconds_mean"].isna().all()
    assert cost["clean_seconds_mean"].notna().all()
    assert "reliability not checked" not in text  # which the file does not say


def test_cost_survives_in_csv_files(finished: Finished) -> None:
    cost = pd.read_csv(finished.suite / "tables/cost.csv", float_precision="round_trip")
    records = [json.loads((run / "run.json").read_text()) for run in finished.runs]
    for record in records:
        row = cost[cost["method"] == record["config"]["method"]].iloc[0]
        assert row["train_seconds_mean"] == record["timings"]["train_seconds"]
        assert row["peak_memory_bytes_mean"] == record["peak_memory_bytes"]
        assert row["parameters"] == record["parameters"]
        pgd = next(e for e in record["evaluations"].values() if e["attack"] == "pgd2")
        assert row["pgd2_seconds_mean"] == pgd["seconds"]


def test_text_that_looks_like_a_number_stays_text(tmp_path: Path, finished: Finished) -> None:
    from ltrobust.bench.csv_files import read_metrics

    metrics = pd.read_csv(finished.suite / "metrics.csv", dtype=str, keep_default_na=False)
    odd = {"config_id": "1234e5678901", "git_commit": "0012", "method": "nan", "torch": "2.10"}
    metrics.assign(**odd).to_csv(tmp_path / "metrics.csv", index=False)
    read = read_metrics(tmp_path)
    for name, text in odd.items():
        assert set(read[name]) == {text}
    assert read["accuracy"].tolist() == [float(text) for text in metrics["accuracy"]]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda m: m.assign(accuracy="high"), ("metrics.csv", "line 2", "accuracy 'high'")),
        (lambda m: m.assign(seed=0.5), ("line 2", "seed '0.5' is no whole number")),
        (lambda m: m.drop(columns=["eps", "recipe"]), ("lacks the columns recipe, eps",)),
        (lambda m: m.iloc[:0], ("metrics.csv has no rows",)),
        (lambda m: blank(m, "seed", 1), ("metrics.csv, line 3: seed is empty",)),
        (lambda m: blank(m, "n", 2), ("metrics.csv, line 4: n is empty",)),
        *(
            (
                lambda m, name=name: m.assign(**{name: [0.5, 31.5, 0.5, -2]}),
                ("metrics.csv: accuracies are fractions in [0, 1]", f"line 3 has {name} 31.5"),
            )
            for name in ("accuracy", "balanced_accuracy", "head", "medium", "tail", "worst_class")
        ),
        (lambda m: m.assign(tail=-0.1), ("line 2 has tail -0.1",)),
    ],
)
def test_damaged_metrics_are_one_clear_line(finished: Finished, cli: Cli, change, parts) -> None:
    folder = csv_only(finished, "files")
    change(pd.read_csv(folder / "metrics.csv")).to_csv(folder / "metrics.csv", index=False)
    refused(cli("report", folder), *parts)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda c: blank(c, "n_train", 3), ("per_class.csv, line 5: n_train is empty",)),
        (lambda c: blank(c, "n_test", 0), ("per_class.csv, line 2: n_test is empty",)),
        (lambda c: c.assign(accuracy=31.5), ("per_class.csv: accuracies are fractions", "line 2")),
    ],
)
def test_damaged_classes_are_one_clear_line(finished: Finished, cli: Cli, change, parts) -> None:
    folder = csv_only(finished, "files")
    change(pd.read_csv(folder / "per_class.csv")).to_csv(folder / "per_class.csv", index=False)
    refused(cli("report", folder), *parts)


def test_lines_are_counted_as_an_editor_does(finished: Finished, cli: Cli) -> None:
    folder = csv_only(finished, "files")
    metrics = blank(pd.read_csv(folder / "metrics.csv"), "n", 1)
    metrics["device"] = "two\nlines"
    text = metrics.to_csv(index=False)
    head, _, rest = text.partition("\n")
    (folder / "metrics.csv").write_text(f"{head}\n\n  \n{rest}")
    refused(cli("report", folder), "line 6: n is empty")  # the header, 2 empty, 2 of row one


def test_a_class_without_test_images_has_an_empty_accuracy(finished: Finished, cli: Cli) -> None:
    folder = csv_only(finished, "files")
    classes = pd.read_csv(folder / "per_class.csv")
    blank(classes, "accuracy", 3).to_csv(folder / "per_class.csv", index=False)
    good(cli("report", folder))


def test_files_that_are_no_csv_are_one_clear_line(finished: Finished, cli: Cli) -> None:
    folder = csv_only(finished, "files")
    (folder / "confusion.csv").write_bytes(b"\xff\xfe\x00")
    refused(cli("report", folder), "confusion.csv cannot be read")


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
    whole, files = part(finished, "whole", "at-bsl", "pgd-at"), csv_only(finished, "files")
    before = tree(Path())
    refused(cli("report", files, "--output", files), "--output files", "is read")
    refused(cli("report", files, "--output", whole), "--output whole", "runs of its own")
    assert tree(Path()) == before


def test_a_written_report_can_be_written_again(finished: Finished, cli: Cli) -> None:
    good(cli("report", finished.suite, "--output", "copy"))
    good(cli("report", finished.suite, "--methods", "at-bsl", "--output", "copy"))
    assert set(pd.read_csv("copy/metrics.csv")["method"]) == {"at-bsl"}
    assert "confusion.md" in tables(Path("copy"))


def test_groups_cannot_be_cut_again_without_outcomes(finished: Finished, cli: Cli) -> None:
    files = csv_only(finished, "files")
    refused(cli("report", files, "--groups", "2,6,2"), "--groups needs stored outcomes", "files")
    good(cli("report", finished.suite, "--groups", "2,6,2", "--output", "cut"))
    refused(cli("report", "cut", finished.suite), "cut differently (2,6,2 and 3,4,3)", "--groups")
    good(cli("report", "cut", "--methods", "at-bsl", "--output", "half"))
    other = part(finished, "other", "pgd-at")
    refused(cli("report", "half", other), "cut head, medium and tail differently", "2,6,2; 3,4,3")


def test_runs_without_outcomes_are_no_results(finished: Finished, cli: Cli) -> None:
    copy = part(finished, "copy", "at-bsl")
    (run,) = (copy / "runs").iterdir()
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "evaluations": {}}))
    (run / "outcomes.parquet").unlink()
    (copy / "metrics.csv").unlink()
    refused(cli("report", copy), "copy holds no evaluated run yet")
    refused(cli("report", finished.suite, copy), "copy holds no evaluated run yet")
