"""Which test images and settings a further evaluation takes, and how they are told."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from bench_helpers import QUICK, Cli, Finished, attacks_of, only_run

from ltrobust.bench.external import as_before
from ltrobust.bench.settings import make_settings
from ltrobust.results.records import AttackRecord

pytestmark = pytest.mark.usefixtures("without_figures", "few_checks", "without_memory")


@pytest.fixture
def run(finished: Finished) -> Path:
    """A copy of a finished suite of 20 test images; the run of pgd-at in it."""
    shutil.copytree(finished.suite, "copy")
    return next(Path("copy/runs").glob("pgd-at-*"))


def evaluations(run: Path) -> dict[str, dict]:
    return {one["attack"]: one for one in attacks_of(run).values()}


def test_a_further_attack_takes_the_runs_own_test_images_and_keeps_the_files(
    run: Path, cli: Cli
) -> None:
    before = set(Path("copy/tables").glob("leaderboard.*"))
    outcome = cli("evaluate", run, "--attacks", "fgsm,pgd3@0.05")
    assert (outcome.code, outcome.stderr) == (0, "")
    made = evaluations(run)
    assert made["fgsm"]["limit_test"] == 20
    assert made["fgsm"]["test_sha256"] == made["pgd2"]["test_sha256"]
    metrics = pd.read_csv("copy/metrics.csv")
    assert set(metrics["n"]) == {20}
    # the attack of another radius is told as it was asked for, and renames no table
    assert re.search(r"^\[.*\] *pgd3@0\.05: accuracy .* \(n = 20, ", outcome.stdout, re.M)
    assert "pgd3@0.05: accuracy" in (run / "log.txt").read_text()
    assert "about 20 images of the balanced test protocol" in outcome.stdout
    assert before <= set(Path("copy/tables").glob("leaderboard*"))
    table = Path("copy/tables/leaderboard.md").read_text()
    assert "PGD-2 bal." in table
    assert "FGSM bal." in table
    assert "eps 0.1," in table
    (other,) = Path("copy/tables").glob("leaderboard-*.md")
    assert other.name.endswith("-eps0.05.md")


def test_flags_win_over_what_the_record_says(run: Path, cli: Cli) -> None:
    assert cli("evaluate", run, "--attacks", "fgsm", "--limit-test", "30").code == 0
    assert evaluations(run)["fgsm"]["limit_test"] == 30


def made(attack: str, limit: int | None, **settings: str) -> AttackRecord:
    facts = {"attack": attack, "limit_test": limit, "settings": settings}
    return AttackRecord.model_construct(test_protocol="long-tailed", **facts)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ("long-tailed", 20, "bf16")),
        ({"limit_test": 30}, ("long-tailed", 30, "bf16")),
        ({"search": "fp32"}, ("long-tailed", 20, "fp32")),
        ({"test_protocol": "long-tailed"}, ("long-tailed", 20, "bf16")),
        ({"test_protocol": "balanced"}, ("balanced", None, "bf16")),
    ],
)
def test_what_is_left_open_is_as_most_evaluations_have_it(flags, expected) -> None:
    found = [made("clean", 20), made("pgd20", 20, search="bf16"), made("fgsm", 40, search="bf16")]
    settings = as_before({}, dict(zip("abc", found, strict=True)), make_settings(flags))
    assert (settings.test_protocol, settings.limit_test, settings.search) == expected


def test_before_any_evaluation_what_bench_was_told_counts() -> None:
    told = make_settings({"limit_test": 50, "test_protocol": "long-tailed", "search": "bf16"})
    settings = as_before(told.overrides(), {}, make_settings({}))
    assert (settings.test_protocol, settings.limit_test, settings.search) == (
        "long-tailed",
        50,
        "bf16",
    )


def test_dry_run_names_attacks_as_asked(cli: Cli) -> None:
    outcome = cli("bench", "--methods", "pgd-at", *QUICK[:-1], "pgd2@4/255", "--dry-run")
    assert "pgd2@4/255" in outcome.stdout.replace("\n", "")


def test_step_is_told_from_exp_and_its_groups_are_whole(cli: Cli) -> None:
    words = ("bench", "--methods", "pgd-at", *QUICK[:-1], "clean,fgsm", "--output", "out")
    step = cli(*words, "--imbalance-type", "step")
    assert step.code == 0
    assert " IR 10 step," in step.stdout
    assert "imbalance ratio 10 (step)" in Path("out/tables/leaderboard.md").read_text()
    metrics = pd.read_csv("out/metrics.csv")
    assert set(metrics["groups"]) == {"5,0,5"}
    assert metrics["medium"].isna().all()
    classes = pd.read_csv("out/per_class.csv")
    assert (classes.groupby("n_train")["group"].nunique() == 1).all()
    run = only_run(Path("out"))

    exp = cli(*words)
    assert f"{run.name}: done before" not in exp.stdout
    assert " IR 10 exp," in exp.stdout
    names = {path.name for path in Path("out/tables").glob("leaderboard*.md")}
    assert names == {"leaderboard.md", "leaderboard-digits-lt-ir10-step-small-cnn-unified.md"}
    main, other = (Path("out/tables", name).read_text() for name in sorted(names)[::-1])
    assert "imbalance ratio 10 (exp)" in main
    assert "imbalance ratio 10 (step)" in other
    page = Path("out/index.html").read_text()
    assert "imbalance ratio 10 (exp), small-cnn" in page
    assert "imbalance ratio 10 (step), small-cnn" in page


def test_comparisons_count_the_images_that_are_compared(finished: Finished) -> None:
    rows = pd.read_csv(finished.suite / "comparisons.csv")
    classes = pd.read_csv(finished.suite / "per_class.csv")
    tail = classes[(classes["group"] == "tail") & (classes["attack"] == "clean")]
    n = int(tail.groupby("run_id")["n_test"].sum().iloc[0])
    assert 0 < n < 20
    assert dict(zip(rows["group"], rows["n"], strict=True)) == {"balanced": 20, "tail": n}
