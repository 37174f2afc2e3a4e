"""A finished run is never redone; a failed one as `--overwrite` says; one bench a run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from bench_helpers import (
    QUICK,
    TINY,
    Cli,
    error_of,
    is_done,
    only_run,
    outcomes_of,
    tree,
    write_plugin,
)

from ltrobust.method import METHODS
from ltrobust.results.store import RunStore

pytestmark = pytest.mark.usefixtures("without_reports", "few_checks", "without_memory")

OUT = Path("out")
BENCH = ("bench", "--methods", "pgd-at", *QUICK, "--output", OUT)


def changes(run: Path) -> dict[str, int]:
    """When weights and attacks of a run were written."""
    names = ("model.safetensors", "history.csv")
    files = [*(run / name for name in names), *(run / "attacks").iterdir()]
    return {path.name: path.stat().st_mtime_ns for path in files}


def run_ids() -> set[str]:
    return {path.name for path in (OUT / "runs").iterdir()}


# finished runs ----------------------------------------------------------------------------------


def test_same_bench_again_trains_and_evaluates_nothing_and_says_so(cli: Cli) -> None:
    assert cli(*BENCH).code == 0
    run = only_run(OUT)
    before, metrics = changes(run), (OUT / "metrics.csv").read_bytes()
    again = cli(*BENCH)
    assert (again.code, again.stderr) == (0, "")
    assert f"{run.name}: done before" in again.stdout
    assert "epoch 1/" not in again.stdout
    assert changes(run) == before
    assert (OUT / "metrics.csv").read_bytes() == metrics


def test_new_attack_only_evaluates_and_keeps_the_old_outcomes(cli: Cli) -> None:
    cli(*BENCH)
    run = only_run(OUT)
    before, old = changes(run), outcomes_of(run)
    again = cli(*BENCH, "--attacks", "clean,fgsm")
    assert again.code == 0
    assert "  fgsm: accuracy" in again.stdout
    assert "  clean: accuracy" not in again.stdout
    assert before.items() <= changes(run).items()
    new = outcomes_of(run)
    pd.testing.assert_frame_equal(new[new["attack"] != "fgsm"], old)
    assert (new["attack"] == "fgsm").sum() == 20
    assert pd.read_csv(OUT / "metrics.csv")["attack"].tolist() == ["clean", "pgd2", "fgsm"]


def test_other_test_images_only_evaluate(cli: Cli) -> None:
    cli(*BENCH)
    run = only_run(OUT)
    before = changes(run)
    again = cli(*BENCH, "--limit-test", "30")
    assert "  clean: accuracy" in again.stdout
    assert changes(run)["model.safetensors"] == before["model.safetensors"]
    assert run_ids() == {run.name}


@pytest.mark.parametrize(
    "change",
    [
        ("--seeds", "1"),
        ("--eps", "0.05"),
        ("--epochs", "3"),
        ("--batch-size", "32"),
        ("--imbalance-ratio", "20"),
        ("--imbalance-type", "step"),
        ("--split-seed", "1"),
        ("--limit-train", "80"),
        ("--precision", "bf16"),
        ("--methods", "trades"),
        ("--arch", "resnet18"),
    ],
    ids=lambda change: change[0],
)
def test_changed_training_setting_is_a_new_run_id(cli: Cli, change: tuple[str, str]) -> None:
    plans = [
        json.loads(cli(*BENCH, "--device", "cpu", *more, "--dry-run", "--json").stdout)["runs"]
        for more in ((), change)
    ]
    before = {run["run_id"] for run in plans[0]}
    assert plans[1][-1]["run_id"] not in before  # --methods given again adds its method


@pytest.mark.parametrize(
    "same",
    [
        ("--attacks", "fgsm"),
        ("--limit-test", "30"),
        ("--output", "elsewhere"),
        ("--overwrite", "all"),
        ("--seeds", "0"),
        ("--imbalance-ratio", "10"),
        ("--device", "cpu"),
    ],
    ids=lambda change: change[0],
)
def test_what_does_not_change_the_weights_keeps_the_run_id(cli: Cli, same: tuple[str, str]) -> None:
    words = (*BENCH, "--precision", "fp32")
    plans = [
        json.loads(cli(*words, *more, "--dry-run", "--json").stdout)["runs"] for more in ((), same)
    ]
    assert plans[0][0]["run_id"] == plans[1][0]["run_id"]


def test_another_eps_gives_the_attack_another_id(cli: Cli) -> None:
    plans = [
        json.loads(cli(*BENCH, "--eps", eps, "--dry-run", "--json").stdout)["runs"][0]["attacks"]
        for eps in ("0.1", "0.2")
    ]
    clean = [{key for key in plan if key.startswith("clean")} for plan in plans]
    pgd = [{key for key in plan if key.startswith("pgd2")} for plan in plans]
    assert clean[0] == clean[1]
    assert pgd[0] != pgd[1]


def test_edited_plugin_is_trained_anew(cli: Cli, tmp_path: Path) -> None:
    words = ("bench", "--methods", "mine", *QUICK, "--dry-run", "--json", "--plugin")
    ids = []
    for folder, change in (("one", ""), ("edited", " * 2"), ("moved", "")):
        (tmp_path / folder).mkdir()
        plugin = write_plugin(tmp_path / folder / "mine.py", "mine", change)
        ids.append(json.loads(cli(*words, plugin).stdout)["runs"][0]["run_id"])
        METHODS.discard("mine")  # each command is a process of its own
    assert ids[0] != ids[1]
    assert ids[0] == ids[2]


def test_a_second_seed_keeps_the_first(cli: Cli) -> None:
    cli(*BENCH)
    run = only_run(OUT)
    before = changes(run)
    assert cli(*BENCH, "--seeds", "0,1").code == 0
    assert changes(run) == before
    assert len(run_ids()) == 2


# failing runs and --overwrite -------------------------------------------------------------------


@pytest.fixture
def failing() -> tuple[object, ...]:
    """A bench of a method whose loss is nan, and one that works."""
    plugin = write_plugin(Path("broken.py"), "broken", ' * float("nan")')
    return (
        *("bench", "--methods", "broken,pgd-at", "--plugin", plugin),
        *(*QUICK, "--output", OUT),
    )


def run_of(method: str) -> Path:
    (run,) = (OUT / "runs").glob(f"{method}-*")
    return run


def test_failing_run_is_reported_the_others_go_on_and_the_exit_code_is_1(
    cli: Cli, failing: tuple[object, ...]
) -> None:
    outcome = cli(*failing)
    assert outcome.code == 1
    (line,) = outcome.stderr.splitlines()
    assert line.startswith(f"failed: {run_of('broken').name}: ")
    assert "not finite" in line
    assert "not finite" in str(error_of(run_of("broken")))
    assert is_done(run_of("pgd-at"))
    assert set(pd.read_csv(OUT / "metrics.csv")["method"]) == {"pgd-at"}
    assert "not finite" in (run_of("broken") / "log.txt").read_text()


def test_crash_in_a_method_is_a_failed_run_with_its_traceback_in_the_log(cli: Cli) -> None:
    plugin = write_plugin(Path("crash.py"), "crash", " + [][0]")
    words = ("bench", "--methods", "crash,pgd-at", "--plugin", plugin, *QUICK, "--output", OUT)
    outcome = cli(*words)
    assert outcome.code == 1
    (line,) = outcome.stderr.splitlines()
    assert "IndexError" in line
    assert "Traceback" in (run_of("crash") / "log.txt").read_text()
    assert is_done(run_of("pgd-at"))


def test_method_without_a_loss_is_refused_before_anything_is_done(cli: Cli) -> None:
    plugin = write_plugin(Path("unbuilt.py"), "unbuilt")
    plugin.write_text(plugin.read_text().replace("def loss", "def lost"))
    words = ("bench", "--methods", "unbuilt,pgd-at", "--plugin", plugin, *QUICK, "--output", OUT)
    outcome = cli(*words)
    assert outcome.code == 2
    assert "method unbuilt has no loss; write loss(" in outcome.stderr
    assert not OUT.exists()


def test_method_that_cannot_even_be_built_is_a_failed_run_and_the_others_go_on(cli: Cli) -> None:
    plugin = write_plugin(Path("unbuilt.py"), "unbuilt")
    head = "\n    def head(self, in_features, num_classes):\n        return [][0]\n"
    plugin.write_text(plugin.read_text() + head)
    words = ("bench", "--methods", "unbuilt,pgd-at", "--plugin", plugin, *QUICK, "--output", OUT)
    outcome = cli(*words)
    assert outcome.code == 1
    (line,) = outcome.stderr.splitlines()
    assert line.startswith(f"failed: {run_of('unbuilt').name}: ")
    assert is_done(run_of("pgd-at"))


def test_bench_of_which_every_run_fails_still_ends_in_one_line_each(cli: Cli) -> None:
    plugin = write_plugin(Path("broken.py"), "broken", ' * float("nan")')
    words = ("bench", "--methods", "broken", "--plugin", plugin, *QUICK, "--output", OUT)
    outcome = cli(*words)
    assert outcome.code == 1
    assert len(outcome.stderr.splitlines()) == 1


def test_overwrite_failed_is_the_default_and_tries_again(
    cli: Cli, failing: tuple[object, ...]
) -> None:
    cli(*failing)
    before, log = changes(run_of("pgd-at")), (run_of("broken") / "log.txt").read_text()
    again = cli(*failing)
    assert again.code == 1
    assert "(kept" not in again.stderr
    assert (run_of("broken") / "log.txt").read_text() == 2 * log  # tried again, nothing erased
    assert changes(run_of("pgd-at")) == before


def test_overwrite_never_keeps_the_failure_and_still_exits_1(
    cli: Cli, failing: tuple[object, ...]
) -> None:
    cli(*failing)
    before = tree(OUT / "runs")
    again = cli(*failing, "--overwrite", "never")
    assert again.code == 1
    (line,) = again.stderr.splitlines()
    assert "not finite" in line
    assert "kept" in line
    assert tree(OUT / "runs") == before


def test_overwrite_all_redoes_everything_to_the_same_bits(cli: Cli) -> None:
    cli(*BENCH)
    run = only_run(OUT)
    before, weights = changes(run), (run / "model.safetensors").read_bytes()
    again = cli(*BENCH, "--overwrite", "all")
    assert again.code == 0
    assert "epoch 1/2" in again.stdout
    after = changes(run)
    assert all(after[name] > before[name] for name in before)
    assert (run / "model.safetensors").read_bytes() == weights


def test_failed_run_that_works_now_loses_its_error(cli: Cli) -> None:
    cli(*BENCH)
    run = only_run(OUT)
    RunStore(run).fail("no luck")
    assert cli(*BENCH, "--overwrite", "never").code == 1
    assert cli(*BENCH).code == 0
    assert is_done(run)


# claims -----------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from ltrobust.results.claims import claimed
with claimed(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(300)
"""


def test_a_run_that_another_process_does_is_left_to_it_until_that_is_gone(cli: Cli) -> None:
    words = ("bench", "--methods", "pgd-at,at-bsl", *TINY, "--attacks", "clean", "--output", OUT)
    plan = json.loads(cli(*words, "--dry-run", "--json").stdout)["runs"]
    first = plan[0]["run_id"]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, OUT / "claims", first], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        outcome = cli(*words)
        assert outcome.code == 1
        (line,) = outcome.stderr.splitlines()
        assert f"failed: {first}: " in line
        assert f"process {holder.pid}) is doing it" in line
        assert run_ids() == {plan[1]["run_id"]}
        assert cli("report", OUT).code == 0
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert cli(*words).code == 0
    assert run_ids() == {run["run_id"] for run in plan}
