"""The command line as a user meets it: a bench from raw data to tables, and what it prints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from bench_helpers import (
    QUICK,
    TINY,
    Cli,
    Finished,
    attacks_of,
    only_run,
    outcomes_of,
    run_command,
    tree,
    write_plugin,
)

pytestmark = pytest.mark.usefixtures("few_checks", "without_page", "without_memory")

SUITE_FILES = {"metrics.csv", "per_class.csv", "leaderboard.csv"}
RUN_FILES = {
    *("run.json", "trained.json", "history.csv", "model.safetensors", "attacks", "log.txt"),
    *("reliability.json", "probes", "examples.parquet"),
}


STAMP = re.compile(r"^\[\d{4}-\d\d-\d\d [^\]]*\] ", re.MULTILINE)
"""What stands before each line of progress in a log: the time, and what is left."""


def test_bench_ends_well_and_says_where_the_results_are(finished: Finished) -> None:
    assert finished.outcome.code == 0, finished.outcome.stderr
    assert finished.outcome.stderr == ""
    assert "tables, figures and CSV files: suite" in finished.outcome.stdout


def test_bench_first_says_how_long_it_will_take(finished: Finished) -> None:
    first = STAMP.sub("", finished.outcome.stdout).splitlines()[0]
    assert first.startswith("2 runs on ")
    assert "about " in first


def test_every_file_of_the_data_contract_is_there_and_nothing_temporary(finished: Finished) -> None:
    files = {name for name in tree(finished.suite) if (finished.suite / name).is_file()}
    assert files >= SUITE_FILES
    assert len(finished.runs) == 2
    for run in finished.runs:
        assert {path.name for path in run.iterdir()} == RUN_FILES
    for stem in ("tables/balanced", "tables/groups", "tables/per-class", "tables/leaderboard"):
        assert {f"{stem}.md", f"{stem}.tex"} <= files
    for stem in ("figures/per-class", "figures/balance", "figures/training", "figures/attacks"):
        assert {f"{stem}.png", f"{stem}.pdf"} <= files
    assert not [name for name in files if name.endswith((".tmp", "state.pt", ".part.safetensors"))]


def test_without_a_terminal_progress_is_plain_lines(finished: Finished) -> None:
    text = finished.outcome.stdout
    assert "\x1b" not in text
    assert "\r" not in text
    for method in ("pgd-at", "at-bsl"):
        assert f": {method} on digits-lt IR 10 exp, small-cnn, 2 epochs, unified recipe" in text
    assert text.count("  epoch 1/2: loss ") == 2
    assert text.count("  pgd2: accuracy ") == 2


def test_log_holds_the_lines_of_its_own_run(finished: Finished) -> None:
    for run in finished.runs:
        lines = (run / "log.txt").read_text().splitlines()
        assert lines[0].startswith(f"{run.name}: ")
        assert set(lines) <= set(STAMP.sub("", finished.outcome.stdout).splitlines())
        assert sum("epoch" in line for line in lines[1:]) == 2


def test_printed_tables_name_both_methods(finished: Finished) -> None:
    tables = finished.outcome.stdout.split("Accuracy and balanced accuracy")[1]
    assert "pgd-at" in tables
    assert "at-bsl" in tables


def test_report_rebuilds_the_same_files_from_the_outcomes(
    finished: Finished, cli: Cli, tmp_path: Path
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(finished.suite, copy)
    for name in (*SUITE_FILES, "tables/balanced.md", "figures/attacks.png"):
        (copy / name).unlink()
    outcome = cli("report", copy)
    assert (outcome.code, outcome.stderr) == (0, "")
    for name in (*SUITE_FILES, "tables/balanced.md", "figures/attacks.png"):
        assert (copy / name).read_bytes() == (finished.suite / name).read_bytes(), name


@pytest.mark.usefixtures("without_figures")
def test_train_trains_one_method_and_judges_it_on_clean_images(cli: Cli) -> None:
    outcome = cli("train", "trades", "--limit-train", "60", "--epochs", "1", "--output", "out")
    assert (outcome.code, outcome.stderr) == (0, "")
    made = attacks_of(only_run(Path("out"))).values()
    assert [one["attack"] for one in made] == ["clean"]


@pytest.mark.usefixtures("without_figures")
def test_default_output_is_results_and_the_name_of_dataset_or_suite(cli: Cli) -> None:
    assert cli("bench", "--methods", "pgd-at", *QUICK, "--epochs", "1").code == 0
    Path("mine.yaml").write_text("methods: pgd-at\nepochs: 1\nlimit_train: 60\nlimit_test: 20\n")
    assert cli("bench", "--suite", "mine.yaml", "--attacks", "clean").code == 0
    assert sorted(p.name for p in Path("results").iterdir()) == ["digits-lt", "mine"]


@pytest.mark.usefixtures("without_figures")
def test_plugin_method_trains_and_stands_in_the_tables(cli: Cli) -> None:
    plugin = write_plugin(Path("mine.py"), "my-method")
    words = ("bench", "--methods", "my-method", "--plugin", plugin, *QUICK, "--output", "out")
    outcome = cli(*words)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert ",my-method," in Path("out/metrics.csv").read_text()


@pytest.mark.usefixtures("without_figures")
def test_evaluate_adds_an_attack_to_a_finished_run(cli: Cli) -> None:
    cli("bench", "--methods", "pgd-at", *QUICK, "--output", "out")
    run = only_run(Path("out"))
    model = (run / "model.safetensors").stat().st_mtime_ns
    outcome = cli("evaluate", run, "--attacks", "fgsm", "--limit-test", "20")
    assert (outcome.code, outcome.stderr) == (0, "")
    attacks = [line.split(",")[9] for line in Path("out/metrics.csv").read_text().splitlines()]
    assert sorted(attacks[1:]) == ["clean", "fgsm", "pgd2"]
    assert (run / "model.safetensors").stat().st_mtime_ns == model


@pytest.mark.usefixtures("without_figures")
def test_evaluate_judges_a_checkpoint_file_like_the_run_it_came_from(cli: Cli) -> None:
    import pandas as pd

    cli("bench", "--methods", "pgd-at", *QUICK, "--output", "out")
    file = only_run(Path("out")) / "model.safetensors"
    words = ("--arch", "small-cnn", "--attacks", "clean,pgd2", "--limit-test", "20")
    outcome = cli("evaluate", "--checkpoint", file, *words, "--output", "external")
    assert (outcome.code, outcome.stderr) == (0, "")
    frames = [outcomes_of(only_run(Path(suite))) for suite in ("out", "external")]
    pd.testing.assert_frame_equal(*frames)


# --json and --dry-run ---------------------------------------------------------------------------


def test_methods_json_lists_the_defenses_and_nothing_else(tmp_path: Path) -> None:
    outcome = run_command("methods", "--json", cwd=tmp_path)
    rows = json.loads(outcome.stdout)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert {"pgd-at", "trades", "robal-n", "robal-r", "at-bsl", "taet"} <= {r["name"] for r in rows}
    assert all(row["title"] and row["paper"] for row in rows)


def test_datasets_json_lists_the_datasets_and_nothing_else(cli: Cli) -> None:
    outcome = cli("datasets", "--json")
    rows = {row["name"]: row for row in json.loads(outcome.stdout)}
    assert (outcome.code, outcome.stderr) == (0, "")
    assert {"digits-lt", "cifar10-lt", "cifar100-lt", "tiny-imagenet-lt"} <= set(rows)
    digits = rows["digits-lt"]
    assert (digits["eps"], digits["epochs"], digits["batch_size"]) == (0.1, 25, 64)
    assert rows["cifar10-lt"]["imbalance_ratio"] == 50


def plan_of(outcome_text: str) -> list[dict]:
    return json.loads(outcome_text)["runs"]


def test_dry_run_json_holds_the_whole_plan_and_creates_nothing(cli: Cli) -> None:
    words = ("--methods", "core", *TINY, "--seeds", "0,1", "--attacks", "clean,pgd20")
    outcome = cli("bench", *words, "--output", "out", "--dry-run", "--json")
    runs = plan_of(outcome.stdout)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert len({run["run_id"] for run in runs}) == len(runs) == 10
    assert {run["state"] for run in runs} == {"new"}
    assert {run["config"]["seed"] for run in runs} == {0, 1}
    assert all([a["name"] for a in run["attacks"].values()] == ["clean", "pgd20"] for run in runs)
    assert list(Path().iterdir()) == []


def test_dry_run_without_json_prints_a_table_and_creates_nothing(cli: Cli) -> None:
    outcome = cli("bench", "--methods", "robal", *QUICK, "--dry-run")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "robal-r" in outcome.stdout
    assert "new" in outcome.stdout
    assert list(Path().iterdir()) == []


def test_seeds_3_is_the_one_seed_3(cli: Cli) -> None:
    outcome = cli("bench", "--methods", "pgd-at", "--seeds", "3", "--dry-run", "--json")
    assert [run["config"]["seed"] for run in plan_of(outcome.stdout)] == [3]


@pytest.mark.usefixtures("without_figures")
def test_dry_run_shows_what_is_cached(cli: Cli) -> None:
    words = ("bench", "--methods", "pgd-at", *TINY, "--output", "out")
    cli(*words, "--attacks", "clean")
    states = [
        plan_of(cli(*words, *more, "--dry-run", "--json").stdout)[0]["state"]
        for more in (
            ("--attacks", "clean"),
            ("--attacks", "clean,fgsm"),
            ("--attacks", "clean", "--seeds", "1"),
        )
    ]
    assert states == ["evaluated", "trained", "new"]


def test_flags_override_the_suite_file_and_the_rest_of_it_stays(cli: Cli) -> None:
    Path("mine.yaml").write_text(
        "methods: [pgd-at, taet]\ndataset: digits-lt\nimbalance_ratio: [20, 50]\nepochs: 7\n"
        "seeds: [4, 5]\nattacks: clean,fgsm\noutput: there\n"
    )
    words = ("--epochs", "3", "--seeds", "9", "--imbalance-ratio", "5", "--imbalance-ratio", "8")
    outcome = cli("bench", "--suite", "mine.yaml", *words, "--dry-run", "--json")
    plan = json.loads(outcome.stdout)
    assert plan["output"] == "there"
    configs = [run["config"] for run in plan["runs"]]
    assert {c["method"] for c in configs} == {"pgd-at", "taet"}
    assert {c["recipe"]["epochs"] for c in configs} == {3}
    assert {c["seed"] for c in configs} == {9}
    assert {c["data"]["imbalance_ratio"] for c in configs} == {5, 8}
    assert {a["name"] for run in plan["runs"] for a in run["attacks"].values()} == {"clean", "fgsm"}


def test_shipped_suite_is_found_by_its_name(cli: Cli) -> None:
    outcome = cli("bench", "--suite", "cifar10-lt-cpu", "--dry-run", "--json")
    assert (outcome.code, outcome.stderr) == (0, "")
    runs = plan_of(outcome.stdout)
    assert {run["config"]["data"]["name"] for run in runs} == {"cifar10-lt"}
    # five defenses, three combinations and the base of one, three seeds each
    assert len(runs) == 27


def test_paper_recipe_differs_from_the_unified_one(cli: Cli) -> None:
    words = (
        "bench",
        "--methods",
        "pgd-at,trades",
        "--dataset",
        "cifar10-lt",
        "--dry-run",
        "--json",
    )
    both = [plan_of(cli(*words, "--recipe", r).stdout) for r in ("paper", "unified")]
    assert {run["config"]["recipe_name"] for run in both[0]} == {"paper"}
    for paper, unified in zip(*both, strict=True):
        assert paper["run_id"] != unified["run_id"]


@pytest.mark.parametrize(
    "words",
    [("--help",), *((name, "--help") for name in ("bench", "train", "evaluate", "report"))],
    ids=" ".join,
)
def test_help_shows_an_example(cli: Cli, words: tuple[str, ...]) -> None:
    outcome = cli(*words)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "ltrobust bench" in outcome.stdout or f"ltrobust {words[0]}" in outcome.stdout
