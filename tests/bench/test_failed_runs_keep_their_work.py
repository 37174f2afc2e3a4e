"""A run that failed goes on from what it saved; a full disk is one line, and others are tried."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from bench_helpers import (
    QUICK,
    Cli,
    Outcome,
    command,
    environment,
    error_of,
    is_done,
    only_run,
    tree,
    write_plugin,
)

from ltrobust.results.store import RunStore

SUITE = Path("suite")
TINY = (
    *("--dataset", "digits-lt", "--limit-train", "60", "--limit-test", "20", "--epochs", "3"),
    *("--device", "cpu", "--precision", "fp32", "--attacks", "clean", "--output", SUITE),
    *("--save-every", "0"),
)
BENCH = ("bench", "--methods", "pgd-at,at-bsl", *TINY)

FAILS_ONCE = """
    def on_epoch_start(self, ctx):
        import pathlib
        import torch
        if ctx.epoch == 2 and not pathlib.Path("happened").exists():
            pathlib.Path("happened").touch()
            raise {error}
"""
ERRORS = {
    "memory": 'torch.OutOfMemoryError("CUDA out of memory")',
    "disk": 'OSError(28, "No space left on device", "scratch")',
    "crash": 'IndexError("list index out of range")',
}


def run_of(method: str) -> Path:
    (run,) = (SUITE / "runs").glob(f"{method}-*")
    return run


def failures(outcome: Outcome) -> list[str]:
    """The lines of a bench that ended as one with failed runs does."""
    assert outcome.code == 1, outcome
    assert "Traceback" not in outcome.stderr
    return outcome.stderr.splitlines()


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
@pytest.mark.usefixtures("without_reports")
def test_a_run_that_failed_in_training_goes_on_from_its_last_epoch(cli: Cli, error: str) -> None:
    plugin = write_plugin(Path("once.py"), "once")
    plugin.write_text(plugin.read_text() + FAILS_ONCE.format(error=error))
    words = ("bench", "--methods", "once", "--plugin", plugin, *TINY)
    (line,) = failures(cli(*words))
    assert line.startswith(f"failed: {run_of('once').name}: ")
    run = run_of("once")
    log, provenance = (run / "log.txt").read_text(), (run / "run.json").read_bytes()
    assert (run / "state.pt").is_file()
    again = cli(*words)
    assert (again.code, again.stderr) == (0, "")
    assert "resuming after epoch 2" in again.stdout
    assert "epoch 1/3" not in again.stdout
    assert "epoch 3/3" in again.stdout
    assert (run / "log.txt").read_text().startswith(log)
    assert (run / "run.json").read_bytes() == provenance
    assert pd.read_csv(run / "history.csv")["epoch"].tolist() == [1, 2, 3]
    resumed = (run / "model.safetensors").read_bytes()
    assert cli(*words, "--overwrite", "all").code == 0
    assert (run_of("once") / "model.safetensors").read_bytes() == resumed


@pytest.mark.usefixtures("without_reports")
def test_a_damaged_state_is_named(cli: Cli) -> None:
    plugin = write_plugin(Path("once.py"), "once")
    plugin.write_text(plugin.read_text() + FAILS_ONCE.format(error=ERRORS["crash"]))
    words = ("bench", "--methods", "once", "--plugin", plugin, *TINY)
    failures(cli(*words))
    state = run_of("once") / "state.pt"
    state.write_bytes(state.read_bytes()[:100])
    (line,) = failures(cli(*words))
    assert f"{state} is damaged; delete it to train from epoch 1" in line
    state.unlink()
    assert "epoch 1/3" in cli(*words).stdout


# a full disk ------------------------------------------------------------------------------------

Full = Callable[[str, str], None]


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Full:
    """Let every write of a file with this name fail below a run whose name begins so."""
    replace, link, real_open = os.replace, os.link, Path.open
    filled: list[tuple[str, str]] = []

    def fill(name: str, method: str) -> None:
        filled.append((name, method))

        def meets(path: object) -> bool:
            file = Path(str(path))
            place = file.parent.parent if file.parent.name == "attacks" else file.parent
            return any(
                file.name.endswith(end) and place.name.startswith(begin) for end, begin in filled
            )

        def replaced(source: str, target: Path) -> None:
            if meets(target):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target)

        def linked(source: str, target: Path) -> None:
            if meets(target):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            link(source, target)

        def opened(path: Path, mode: str = "r", *rest: object, **more: object) -> object:
            if "a" in mode and meets(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real_open(path, mode, *rest, **more)  # type: ignore[call-overload]

        monkeypatch.setattr(os, "replace", replaced)
        monkeypatch.setattr(os, "link", linked)
        monkeypatch.setattr(Path, "open", opened)

    return fill


FILES = [
    *("run.json", "state.pt", "history.csv", "trained.json", "model.safetensors", ".parquet"),
    *("log.txt", "failed.json"),
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.usefixtures("without_reports")
def test_a_file_that_cannot_be_written_fails_its_run_and_the_others_are_tried(
    cli: Cli, full: Full, name: str
) -> None:
    full(name, "pgd-at")
    if name == "failed.json":
        full("state.pt", "pgd-at")
    (line,) = failures(cli(*BENCH))
    assert line.startswith("failed: pgd-at-")
    told = "state.pt" if name == "failed.json" else name
    assert f"{told} cannot be written (No space left on device)" in line
    assert is_done(run_of("at-bsl"))
    recorded = "could not be recorded" not in line
    assert recorded == (name not in ("failed.json", "log.txt"))
    if recorded:
        assert str(error_of(run_of("pgd-at"))) in line


@pytest.mark.usefixtures("without_reports")
def test_a_report_that_cannot_be_written_is_one_line_after_the_failed_runs(
    cli: Cli, full: Full
) -> None:
    full("metrics.csv", "suite")
    lines = failures(cli(*BENCH))
    assert len(lines) == 1
    assert lines[0].startswith("error: suite/metrics.csv cannot be written (No space")
    assert [is_done(path) for path in (SUITE / "runs").iterdir()] == [True, True]


def test_an_evaluation_that_cannot_be_written_is_one_line(
    cli: Cli, full: Full, without_reports: None
) -> None:
    assert cli("bench", "--methods", "pgd-at", *TINY).code == 0
    run = only_run(SUITE)
    full(".parquet", "pgd-at")
    before = {k: v for k, v in tree(run).items() if "/" in k}
    (line,) = failures(cli("evaluate", run, "--attacks", "fgsm", "--limit-test", "20"))
    assert ".parquet cannot be written (No space left on device)" in line
    assert {k: v for k, v in tree(run).items() if "/" in k} == before


@pytest.mark.slow
def test_a_disk_without_a_byte_left_is_told_in_one_line(tmp_path: Path) -> None:
    def no_byte() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    done = subprocess.run(
        command(*BENCH),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment(), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"},
        preexec_fn=no_byte,
        timeout=200,
    )
    assert done.returncode == 2  # what is to be done cannot even be noted
    (line,) = done.stderr.splitlines()
    assert "cannot be written (File too large)" in line


# --overwrite all --------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_reports")
def test_overwrite_all_clears_each_run_once_in_a_command_and_again_in_the_next(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli(*BENCH).code == 0
    cleared: list[str] = []
    clear = RunStore.clear

    def noted(run: RunStore) -> None:
        cleared.append(run.run_id)
        clear(run)

    monkeypatch.setattr(RunStore, "clear", noted)
    for _ in range(2):
        cleared.clear()
        assert cli(*BENCH, "--overwrite", "all").code == 0
        assert sorted(cleared) == sorted(path.name for path in (SUITE / "runs").iterdir())


@pytest.mark.usefixtures("without_reports")
def test_overwrite_all_needs_no_readable_record(cli: Cli) -> None:
    assert cli("bench", "--methods", "pgd-at", *TINY).code == 0
    (only_run(SUITE) / "run.json").write_text("{")
    assert cli("bench", "--methods", "pgd-at", *TINY).code == 2
    assert cli("bench", "--methods", "pgd-at", *TINY, "--overwrite", "all").code == 0
    assert is_done(only_run(SUITE))


@pytest.mark.usefixtures("without_reports")
def test_a_stopped_bench_says_what_overwrite_all_would_do(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*words: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ltrobust.bench.runner.train", stop)
    words = ("bench", "--methods", "pgd-at", *QUICK, "--output", SUITE)
    assert "the same command goes on from here" in cli(*words).stderr
    stopped = cli(*words, "--overwrite", "all")
    assert stopped.code == 130
    assert "without --overwrite all" in stopped.stderr
