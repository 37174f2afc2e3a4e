"""Killed at any moment, the same command goes on and ends with the bits of an unbroken run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from bench_helpers import QUICK, Cli, command, environment, is_done, only_run, outcomes_of
from safetensors.torch import load_file, save_file

from ltrobust.attacks.autoattack import VERSIONS, parts
from ltrobust.cli import main
from ltrobust.report import Rendered
from ltrobust.stopwatch import Taken, as_taken, as_tensor

pytestmark = pytest.mark.usefixtures("few_checks")

EPOCHS = 12
WORDS = (
    *("bench", "--methods", "at-bsl", "--dataset", "digits-lt", "--limit-train", "60"),
    *("--limit-test", "10", "--epochs", str(EPOCHS), "--device", "cpu", "--precision", "fp32"),
    *("--output", "suite", "--save-every", "0"),
)
QUICK_ATTACKS = ("--attacks", "clean,pgd2")
PATIENCE = 120.0


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until a running command has come to a point; fail when it ends before."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"ended before the signal: {process.communicate()}"
        assert time.monotonic() < end, "never came to the point"
        time.sleep(0.002)


def members_of(session: int) -> list[int]:
    """Living processes of a session, read from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def heed_ctrl_c() -> None:
    """A shell's background jobs, and all they start, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop_at(
    condition: Callable[[], bool], kind: signal.Signals, *words: object, cwd: Path
) -> tuple[int, str]:
    """Start a command, signal it once the condition holds; return its exit status and stderr."""
    process = subprocess.Popen(
        command(*words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment(),
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )
    try:
        wait_for(condition, process)
        os.kill(process.pid, kind)
        _, stderr = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    end = time.monotonic() + 10
    while members_of(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert members_of(process.pid) == [], "a child outlived its parent"
    return process.returncode, stderr


def found(place: Path, pattern: str) -> Callable[[], bool]:
    return lambda: any(place.glob(f"suite/runs/*/{pattern}"))


def bits(place: Path) -> bytes:
    return (only_run(place / "suite") / "model.safetensors").read_bytes()


def verdicts(place: Path) -> pd.DataFrame:
    return outcomes_of(only_run(place / "suite"))


def finish(place: Path, *words: str) -> None:
    """Run a bench to its end in this process, without reports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "argv", ["ltrobust", *words])
        patch.setattr("ltrobust.bench.reports.render_board", lambda *args: Rendered())
        with contextlib.suppress(SystemExit):
            main()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken bench without AutoAttack."""
    place = tmp_path_factory.mktemp("trained")
    finish(place, *WORDS, *QUICK_ATTACKS)
    assert set(verdicts(place)["attack"]) == {"clean", "pgd2"}
    return place


@pytest.fixture(
    scope="module", params=["aa-apgd", pytest.param("autoattack", marks=pytest.mark.slow)]
)
def autoattack(request: pytest.FixtureRequest) -> str:
    """AutoAttack's first two parts, which can be killed as well, in a fifth of the time."""
    return str(request.param)


@pytest.fixture(scope="module")
def all_attacks(autoattack: str) -> tuple[str, ...]:
    return "--attacks", f"clean,pgd2,{autoattack}"


@pytest.fixture(scope="module")
def unbroken(
    trained: Path, all_attacks: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    place = tmp_path_factory.mktemp("unbroken") / "copy"
    shutil.copytree(trained, place)
    finish(place, *WORDS, *all_attacks)
    assert set(verdicts(place)["attack"]) == {"clean", "pgd2", all_attacks[1].split(",")[-1]}
    return place


@pytest.fixture(scope="module")
def killed_in_autoattack(
    all_attacks: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A bench killed after the first part of AutoAttack."""
    place = tmp_path_factory.mktemp("autoattack")
    parts = found(place, "*.part.safetensors")
    code, _ = stop_at(parts, signal.SIGKILL, *WORDS, *all_attacks, cwd=place)
    assert code == -signal.SIGKILL
    return place


def check_stopped_in_training(run: Path) -> int:
    """A run that was stopped in mid-training can be resumed; return its finished epochs."""
    assert not (run / "model.safetensors").exists()
    assert (run / "state.pt").exists()
    epochs = len(pd.read_csv(run / "history.csv"))
    assert 1 <= epochs < EPOCHS
    return epochs


def check_resumed(place: Path, trained: Path, cli: Cli) -> None:
    """The same command ends well, from where the run stood, with the bits of an unbroken run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        outcome = cli(*WORDS, *QUICK_ATTACKS)
    assert outcome.code == 0, outcome.stderr
    assert "  resuming after epoch " in outcome.stdout
    assert "  epoch 1/" not in outcome.stdout
    assert bits(place) == bits(trained)
    pd.testing.assert_frame_equal(verdicts(place), verdicts(trained))
    run = only_run(place / "suite")
    assert not (run / "state.pt").exists()
    curves = [pd.read_csv(r / "history.csv") for r in (run, only_run(trained / "suite"))]
    curves = [curve.drop(columns=["seconds", "cpu_seconds"]) for curve in curves]
    pd.testing.assert_frame_equal(*curves, check_exact=True)


@pytest.mark.usefixtures("without_reports")
def test_killed_in_training_and_resumed_equals_unbroken_bit_for_bit(
    tmp_path: Path, trained: Path, cli: Cli
) -> None:
    epoch_done = found(tmp_path, "history.csv")
    code, _ = stop_at(epoch_done, signal.SIGKILL, *WORDS, *QUICK_ATTACKS, cwd=tmp_path)
    assert code == -signal.SIGKILL
    check_stopped_in_training(only_run(tmp_path / "suite"))
    check_resumed(tmp_path, trained, cli)


@pytest.mark.slow
@pytest.mark.usefixtures("without_reports")
def test_ctrl_c_exits_130_in_one_line_and_resumes_to_the_same_bits(
    tmp_path: Path, trained: Path, cli: Cli
) -> None:
    epoch_done = found(tmp_path, "history.csv")
    code, stderr = stop_at(epoch_done, signal.SIGINT, *WORDS, *QUICK_ATTACKS, cwd=tmp_path)
    assert code == 130
    assert stderr.strip() == "stopped; the same command goes on from here", repr(stderr)
    check_stopped_in_training(only_run(tmp_path / "suite"))
    check_resumed(tmp_path, trained, cli)


@pytest.mark.slow
@pytest.mark.usefixtures("without_reports")
def test_killed_in_autoattack_and_resumed_equals_unbroken_bit_for_bit(
    killed_in_autoattack: Path,
    all_attacks: tuple[str, ...],
    tmp_path: Path,
    unbroken: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tmp_path / "copy"
    shutil.copytree(killed_in_autoattack, place)
    assert set(verdicts(place)["attack"]) == {"clean", "pgd2"}
    weights = (only_run(place / "suite") / "model.safetensors").stat().st_mtime_ns
    monkeypatch.chdir(place)
    outcome = cli(*WORDS, *all_attacks)
    assert outcome.code == 0, outcome.stderr
    assert "epoch 1/" not in outcome.stdout
    assert "  clean: " not in outcome.stdout
    assert bits(place) == bits(unbroken)
    assert (only_run(place / "suite") / "model.safetensors").stat().st_mtime_ns == weights
    pd.testing.assert_frame_equal(verdicts(place), verdicts(unbroken))
    assert not found(place, "*.part.safetensors")()


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_autoattack_goes_on_from_its_stored_state_instead_of_beginning_anew(
    killed_in_autoattack: Path,
    autoattack: str,
    all_attacks: tuple[str, ...],
    tmp_path: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tmp_path / "copy"
    shutil.copytree(killed_in_autoattack, place)
    (file,) = only_run(place / "suite").glob("*.part.safetensors")
    state = load_file(file)
    state["fell"] = torch.where(state["fell"] == 0, 1, state["fell"])
    state["todo"] = torch.zeros(0, dtype=torch.int64)
    state["pred"] = torch.full_like(state["pred"], 99)
    state["position"] = torch.tensor([len(parts(10, VERSIONS[autoattack])), 0])
    assert as_taken(state["taken"]).cpu_seconds > 0
    state["taken"] = as_tensor(Taken(1000.0, 2000.0))
    save_file(state, file)
    monkeypatch.chdir(place)
    assert cli(*WORDS, *all_attacks).code == 0
    frame = verdicts(place)
    assert (frame[frame["attack"] == autoattack]["pred"] == 99).all()
    (record,) = only_run(place / "suite").glob(f"attacks/{autoattack}-*.json")
    taken = json.loads(record.read_text())
    assert 1000 < taken["seconds"] < 1200
    assert 2000 < taken["cpu_seconds"] < 2200


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_stopped_run_shows_as_stopped_in_the_plan(
    killed_in_autoattack: Path,
    all_attacks: tuple[str, ...],
    tmp_path: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tmp_path / "copy"
    shutil.copytree(killed_in_autoattack, place)
    monkeypatch.chdir(place)
    assert '"state": "trained"' in cli(*WORDS, *all_attacks, "--dry-run", "--json").stdout
    (only_run(place / "suite") / "model.safetensors").unlink()
    assert '"state": "stopped"' in cli(*WORDS, *all_attacks, "--dry-run", "--json").stdout


def test_report_shows_what_is_there_of_a_killed_bench(
    killed_in_autoattack: Path, tmp_path: Path, cli: Cli, without_figures: None
) -> None:
    place = tmp_path / "copy"
    shutil.copytree(killed_in_autoattack, place)
    outcome = cli("report", place / "suite")
    assert (outcome.code, outcome.stderr) == (0, "")
    attacks = pd.read_csv(place / "suite" / "metrics.csv")["attack"].tolist()
    assert attacks == ["clean", "pgd2"]


# killed after each single write -----------------------------------------------------------------

SMALL = (
    *("bench", "--methods", "at-bsl", *QUICK, "--device", "cpu", "--output", "suite"),
    *("--save-every", "0"),
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the program may catch it."""


def kill_after(write: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let only that many files of a run be written; return the list that their names go to."""
    written: list[str] = []

    def counted(name: str) -> None:
        real = getattr(os, name)

        def write_one(source: str, target: Path) -> None:
            real(source, target)
            path = Path(target)
            if "runs" in path.parts:
                below = path.parts[path.parts.index("runs") + 2 :]
                written.append("/".join(below))
                if len(written) == write:
                    raise Killed

        monkeypatch.setattr(os, name, write_one)

    counted("replace")
    counted("link")
    return written


def remains(place: Path) -> tuple[object, ...]:
    """What must not depend on when a bench was killed."""
    run = only_run(place / "suite")
    measured = ["seconds", "cpu_seconds", "train_seconds", "train_cpu_seconds", "peak_memory_bytes"]
    metrics = pd.read_csv(place / "suite" / "metrics.csv").drop(columns=measured)
    history = pd.read_csv(run / "history.csv").drop(columns=["seconds", "cpu_seconds"])
    names = sorted(str(path.relative_to(run)) for path in run.rglob("*"))
    frames = [frame.to_csv() for frame in (metrics, history, verdicts(place))]
    examples = (run / "examples.parquet").read_bytes()
    return names, is_done(run), bits(place), examples, *frames


def telling(writes: list[str]) -> list[int]:
    """The first write of every file, and the last one of the record and of the state, counted
    from 1."""
    first = {name: number for number, name in reversed(list(enumerate(writes, 1)))}
    last = {name: number for number, name in enumerate(writes, 1)}
    return sorted({*first.values(), last["run.json"], last["state.pt"]})


@pytest.mark.slow
@pytest.mark.usefixtures("without_reports")
@pytest.mark.parametrize("every", [False, True])
def test_killed_after_any_write_and_resumed_leaves_what_an_unbroken_run_leaves(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, every: bool
) -> None:
    def bench(place: Path, kill: int = 0) -> list[str]:
        place.mkdir(exist_ok=True)
        with monkeypatch.context() as patch:
            patch.chdir(place)
            written = kill_after(kill, patch)
            assert cli(*SMALL).code == 0
        return written

    writes = bench(tmp_path / "unbroken")
    expected = remains(tmp_path / "unbroken")
    assert {"run.json", "state.pt", "model.safetensors", "trained.json"} <= set(writes)
    assert "examples.parquet" in writes
    assert {Path(name).suffix for name in writes if name.startswith("attacks/")} == {
        ".json",
        ".parquet",
    }
    wrong = []
    for number in range(1, len(writes) + 1) if every else telling(writes):
        name = writes[number - 1]
        place = tmp_path / str(number)
        with pytest.raises(Killed):
            bench(place, kill=number)
        try:
            bench(place)
            differs = [a for a, b in zip(remains(place), expected, strict=True) if a != b]
        except Exception as error:  # told together with what other kills do
            differs = [error]
        if differs:
            wrong.append((number, name, differs))
    assert wrong == []
