"""`ltrobust submit`: what is wrong with results is found, what is right is packed."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from bench_helpers import Cli, Finished, change

from ltrobust.errors import UserError
from ltrobust.results.digest import outcomes_sha256
from ltrobust.results.store import RunStore
from ltrobust.submission import check_submission, pack_submission

GIVEN = ("--license", "CC-BY-4.0", "--by", "A. Author")


@pytest.fixture
def suite(finished: Finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.suite, tmp_path / "suite"))


def run_of(suite: Path) -> Path:
    return sorted((suite / "runs").iterdir())[0]


def attack_of(suite: Path, kind: str) -> Path:
    (file,) = (run_of(suite) / "attacks").glob(f"pgd2-*.{kind}")
    return file


def unjudge(suite: Path) -> None:
    change(run_of(suite) / "reliability.json", lambda record: record.update(judged=[]))


def test_a_finished_suite_is_packed_and_stands_the_check_again(
    suite: Path, cli: Cli, tmp_path: Path
) -> None:
    done = cli("submit", suite, *GIVEN, "--output", tmp_path / "pack.zip", "--no-weights")
    assert done.code == 0, done.stderr
    assert "2 runs, 4 evaluations, no problems" in done.stdout
    with zipfile.ZipFile(tmp_path / "pack.zip") as file:
        names = file.namelist()
        file.extractall(tmp_path / "there")
    assert "suite/metrics.csv" in names
    assert not [n for n in names if "safetensors" in n or "index.html" in n or "figures" in n]
    manifest = json.loads((tmp_path / "there/suite/submission.json").read_text())
    assert (manifest["license"], manifest["by"]) == ("CC-BY-4.0", "A. Author")
    assert {f"suite/{name}" for name in manifest["files"]} == {*names} - {"suite/submission.json"}
    assert check_submission(tmp_path / "there/suite").problems == ()
    history = next((tmp_path / "there/suite").glob("runs/*/history.csv"))
    history.write_text(history.read_text() + "\n")
    (problem,) = check_submission(tmp_path / "there/suite").problems
    assert problem.endswith("is not the file that was packed")


def test_equal_results_make_equal_packs(suite: Path, tmp_path: Path) -> None:
    found = check_submission(suite)
    one, two = (
        pack_submission(suite, found, license_name="MIT", by="A", output=tmp_path / name)
        for name in ("one.zip", "two.zip")
    )
    assert one.read_bytes() == two.read_bytes()
    assert any("model.safetensors" in name for name in zipfile.ZipFile(one).namelist())


def test_a_number_that_the_outcomes_do_not_give_is_found(suite: Path, cli: Cli) -> None:
    metrics = pd.read_csv(suite / "metrics.csv")
    metrics.loc[1, "accuracy"] += 0.05
    metrics.to_csv(suite / "metrics.csv", index=False)
    done = cli("submit", suite, "--check")
    assert done.code == 2
    assert "problem: metrics.csv: accuracy of" in done.stderr
    assert "problems, listed above: 1" in done.stderr


def test_a_text_in_place_of_a_number_is_found(suite: Path) -> None:
    metrics = pd.read_csv(suite / "metrics.csv", dtype=str)
    metrics.loc[1, "accuracy"] = "half"
    metrics.to_csv(suite / "metrics.csv", index=False)
    (problem,) = check_submission(suite).problems
    assert " is nan, the records give " in problem


def test_outcomes_of_other_images_are_found(suite: Path) -> None:
    file, record = attack_of(suite, "parquet"), attack_of(suite, "json")
    frame = pd.read_parquet(file)
    frame = frame.assign(index=frame["index"] + 1)
    frame.to_parquet(file, index=False)
    change(record, lambda said: said.update(outcomes_sha256=outcomes_sha256(frame)))
    problems = " ".join(check_submission(suite).problems)
    assert "of other test images" in problems


def test_counts_that_are_not_those_of_the_outcomes_are_found(suite: Path) -> None:
    def better(record: dict[str, Any]) -> None:
        digest = record["digest"]
        digest["right"] = [sum(counts.values()) for counts in digest["predictions"]]

    change(attack_of(suite, "json"), better)
    problems = " ".join(check_submission(suite).problems)
    assert "are not those of its outcomes" in problems


def test_outcomes_that_are_gone_are_found(suite: Path) -> None:
    attack_of(suite, "parquet").unlink()
    (problem,) = check_submission(suite).problems
    assert "the outcomes of pgd2-" in problem
    assert "are gone" in problem


def test_settings_that_were_edited_afterwards_are_found(suite: Path) -> None:
    change(attack_of(suite, "json"), lambda record: record["settings"].update(steps=20))
    (problem,) = check_submission(suite).problems
    assert "does not follow from the attack's settings" in problem
    change(attack_of(suite, "json"), lambda record: record.update(seconds=1.0), sealed=False)
    with pytest.raises(UserError, match="its seal does not fit"):
        check_submission(suite)


def test_an_attack_without_its_reliability_report_is_no_submission(suite: Path) -> None:
    unjudge(suite)
    (problem,) = check_submission(suite).problems
    assert "reliability of pgd2 not checked" in problem


@pytest.mark.parametrize("status", ["running", "failed"])
def test_a_run_that_is_not_done_is_found(suite: Path, status: str) -> None:
    if status == "failed":
        RunStore(run_of(suite)).fail("no luck")
    else:
        for name in ("trained.json", "model.safetensors"):
            (run_of(suite) / name).unlink()
    assert any(f"is {status}, not done" in line for line in check_submission(suite).problems)


def test_weights_of_another_model_are_found(suite: Path) -> None:
    file = run_of(suite) / "model.safetensors"
    file.write_bytes(file.read_bytes() + b" ")
    assert any("is not what was trained" in line for line in check_submission(suite).problems)


def test_marks_and_leaks_are_told(suite: Path) -> None:
    file = run_of(suite) / "reliability.json"
    change(file, lambda record: record["findings"][0].update(flagged=True))
    remarks = " ".join(check_submission(suite).remarks)
    name = json.loads(file.read_text())["findings"][0]["check"]
    assert f"marked † ({name}" in remarks
    assert "on about 20 test images only" in remarks


def test_csv_files_alone_cannot_be_checked(suite: Path) -> None:
    shutil.rmtree(suite / "runs")
    with pytest.raises(UserError, match="holds no runs"):
        check_submission(suite)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "give --license and --by"),
        (("--license", "GPL", "--by", "A"), "unknown licence 'GPL'"),
        (("--license", "MIT", "--by", " "), "--by is empty"),
    ],
)
def test_licence_and_name_are_asked_for(suite: Path, cli: Cli, words, told: str) -> None:
    done = cli("submit", suite, *words)
    assert done.code == 2
    assert told in done.stderr
    assert not list(Path.cwd().iterdir())


def test_nothing_is_packed_while_there_are_problems(suite: Path, tmp_path: Path) -> None:
    (run_of(suite) / "reliability.json").unlink()
    found = check_submission(suite)
    with pytest.raises(UserError, match="cannot be submitted yet"):
        pack_submission(suite, found, license_name="MIT", by="A", output=tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()
