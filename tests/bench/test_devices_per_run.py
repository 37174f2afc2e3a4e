"""A run that several processes do together: the same files as of one, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from bench_helpers import Cli, attacks_of, command, content, environment, error_of, only_run
from torch.distributed import HashStore

import ltrobust
from ltrobust.bench import crew, work
from ltrobust.bench.launch import Site, local
from ltrobust.bench.plan import check_devices, cores, make_plan, threads_each
from ltrobust.bench.plan_file import write_plan
from ltrobust.bench.settings import Settings, make_settings
from ltrobust.errors import UserError
from ltrobust.progress import Reporter
from ltrobust.results.store import RunStore, SuiteStore
from ltrobust.team import LostError, Team

WORDS = (
    *("bench", "--methods", "trades", "--dataset", "digits-lt", "--limit-train", "60"),
    *("--limit-test", "40", "--epochs", "4", "--batch-size", "20", "--attacks", "clean,pgd2"),
    *("--device", "cpu", "--threads", "1", "--no-estimate", "--no-report", "--save-every", "0"),
    *("--select", "best", "--watch", "pgd2"),
)
PAIR = ("--devices-per-run", "2")
TWO = (*WORDS, *PAIR)
PATIENCE = 120.0
pytestmark = pytest.mark.usefixtures("few_checks")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run as one process does it."""
    place = tmp_path_factory.mktemp("alone")
    subprocess.run(
        command(*WORDS, "--no-checks", "--output", "out"), cwd=place, env=environment(), check=True
    )
    return only_run(place / "out")


def what_counts(run: Path) -> tuple[Any, ...]:
    """Key, weights, learning curve and outcomes."""
    outcomes = {key: one["outcomes_sha256"] for key, one in attacks_of(run).items()}
    curve = pd.read_csv(run / "history.csv")
    curve = curve.drop(columns=["seconds", "cpu_seconds"], errors="ignore").to_csv()
    return run.name, (run / "model.safetensors").read_bytes(), curve, outcomes


def helpers() -> list[int]:
    """Living processes that help with a run."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words, state = file.read_bytes().split(b"\0"), (file.parent / "stat").read_text()
        except OSError:  # it ended meanwhile
            continue
        if b"ltrobust.bench.follow" in words and state.rpartition(")")[2].split()[0] != "Z":
            found.append(int(file.parent.name))
    return found


@pytest.mark.slow
def test_a_run_whose_helper_is_killed_goes_on_and_ends_as_that_of_one_process(
    cli: Cli, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = RunStore.save_state

    def kill(store: RunStore, content: bytes, history: Any) -> None:
        save(store, content, history)
        (process,) = [helper._process for helper in started]
        process.kill()

    started: list[crew._Helper] = []
    start = crew._Helper.__init__

    def noted(helper: crew._Helper, *words: Any) -> None:
        start(helper, *words)
        started.append(helper)

    with monkeypatch.context() as patch:
        patch.setattr(crew._Helper, "__init__", noted)
        patch.setattr(RunStore, "save_state", kill)
        outcome = cli(*TWO, "--output", "out")
    run = only_run(Path("out"))
    assert outcome.code == 1
    assert "process 1 ended (signal 9); the same command goes on" in outcome.stderr
    assert error_of(run) is None, "killed, not failed"
    assert not (run / "model.safetensors").exists()

    outcome = cli(*TWO, "--output", "out")
    assert outcome.code == 0, outcome.stderr
    assert "resuming after epoch 1" in outcome.stdout
    assert "shared out among 2 processes" in outcome.stdout
    assert what_counts(run) == what_counts(alone)
    origin = content(run / "run.json")["provenance"]
    assert origin["device_name"].startswith("2 x ")
    assert origin["threads"] == 1
    # the processor time of one of several processes is not the run's
    assert content(run / "trained.json")["train_cpu_seconds"] is None
    assert {one["cpu_seconds"] for one in attacks_of(run).values()} == {None}
    assert {p.name for p in run.iterdir()} >= {p.name for p in alone.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_killed_itself_it_leaves_no_process_and_one_goes_on_from_there(
    cli: Cli, alone: Path, tmp_path: Path, kind: signal.Signals
) -> None:
    before = set(helpers())
    process = subprocess.Popen(
        command(*TWO, "--output", "out"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**environment(), "TMPDIR": str(tmp_path)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        wait_for(lambda: process.poll() is None and any(Path("out").glob("runs/*/state.pt")))
        own = set(helpers()) - before
        assert own
        process.send_signal(kind)
        assert process.wait(PATIENCE) == (130 if kind == signal.SIGINT else -kind)
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not own & set(helpers()))
    wait_for(lambda: not list(tmp_path.glob("ltrobust-*")))
    outcome = cli(*WORDS, "--output", "out")
    assert outcome.code == 0, outcome.stderr
    assert "resuming after epoch" in outcome.stdout
    assert what_counts(only_run(Path("out"))) == what_counts(alone)


HELPER = """
import shutil, sys
from contextlib import nullcontext
from ltrobust.bench import follow
from ltrobust.team import LostError

folder, remove = sys.argv[1], shutil.rmtree

def as_beside_torch(place, **options):  # which writes its file once more when the others are gone
    shutil.rmtree = remove
    for file in place.iterdir():
        file.unlink()
        file.touch()

def lost(team):
    print("lost", flush=True)
    raise LostError("process 0 is gone")

shutil.rmtree, follow.follow = as_beside_torch, lost
follow.joined = lambda *_: nullcontext()
sys.argv = ["follow", "1", "2", folder + "/store", "cpu"]
follow.main()
"""


def test_a_helper_does_not_end_before_the_folder_of_a_process_that_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "ltrobust-crew-1"
    folder.mkdir()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HELPER, str(folder)], **pipes) as helper:
        assert helper.stdout.readline() == b"lost\n"
        with pytest.raises(subprocess.TimeoutExpired):  # the input of the dead may end a bit later
            helper.wait(0.5)
        helper.stdin.close()
        helper.wait(PATIENCE)
    assert not folder.exists()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "never came to the point"
        time.sleep(0.02)


def test_a_helper_that_cannot_start_is_told_in_a_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such thing >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    outcome = cli(*TWO, "--output", "out")
    assert outcome.code == 1
    reason = "this run's process 1 ended (exit code 3: no such thing) before it could help"
    assert reason in outcome.stderr
    assert error_of(only_run(Path("out"))) == reason


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--devices-per-run", "0"), "--devices-per-run: "),
        (("--devices-per-run", "9999"), "9999: this machine has"),
        (("--devices-per-run", "2", "--batch-size", "15"), "batches of at least 16 images"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    cli: Cli, words: tuple[str, ...], said: str
) -> None:
    outcome = cli(*WORDS, *words, "--output", "out")
    assert outcome.code == 2
    assert said in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert not Path("out").exists()


def test_one_device_by_its_number_is_not_several() -> None:
    with pytest.raises(UserError, match="--device cuda:1, which is one; use --device cuda"):
        check_devices(2, "cuda:1")
    check_devices(1, "cuda:1")


def test_more_devices_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    check_devices(2, "cuda")
    with pytest.raises(UserError, match="--devices-per-run 3: this machine has 2 CUDA devices"):
        check_devices(3, "cuda")


def test_models_that_helpers_cannot_have_are_refused(cli: Cli) -> None:
    outcome = cli("evaluate", "--model", "a:b", "--devices-per-run", "2", "--dataset", "digits-lt")
    assert outcome.code == 2
    assert "--devices-per-run: only for runs of ours" in outcome.stderr
    with pytest.raises(UserError, match="give output= too"):
        ltrobust.train("pgd-at", devices_per_run=2, device="cpu")


@pytest.mark.parametrize(
    ("number", "device", "said"),
    [(3, "cpu", "under a torchrun of 2 processes"), (1, "cuda:0", "each process has its own")],
)
def test_torchrun_says_how_many_there_are(number: int, device: str, said: str) -> None:
    token = crew.LAUNCHED.set(crew.Launched(HashStore(), 0, 2))
    settings = Settings(devices_per_run=number)
    try:
        with pytest.raises(UserError, match=said), crew.assembled(settings, device):
            pass
    finally:
        crew.LAUNCHED.reset(token)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_processes_take_a_gpu_each_only_where_they_compute_there(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """On a machine with GPUs, under torchrun: process 0 tells the others where they compute."""
    taken: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(crew.dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(crew.dist, "init_process_group", lambda backend, **_: taken.append(backend))
    monkeypatch.setattr(crew.dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(Team, "told", lambda team: b"")
    settings, store, followed = Settings(), HashStore(), list[Team]()
    first, second = (crew.Launched(store, rank, 2) for rank in (0, 1))
    token = crew.LAUNCHED.set(first)
    try:
        with crew.assembled(settings, device) as made:
            assert made is not None
            second.follow(followed.append)
        other = "cuda" if device == "cpu" else "cpu"
        with (
            pytest.raises(UserError, match="under one torchrun"),
            crew.assembled(Settings(), other),
        ):
            pass
    finally:
        crew.LAUNCHED.reset(token)
        first.end()
    assert [team.rank for team in followed] == [1]
    gloo, both = ["gloo"] * 2, [0, "cpu:gloo,cuda:nccl", 1, "cpu:gloo,cuda:nccl"]
    assert taken == (gloo if device == "cpu" else both)


def test_who_follows_a_command_without_common_work_is_told_that_it_is_over() -> None:
    store, followed = HashStore(), list[Team]()
    crew.Launched(store, 0, 2).end()
    crew.Launched(store, 1, 2).follow(followed.append)
    assert followed == []


def test_a_slot_of_this_machine_has_the_devices_of_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local, "visible_devices", lambda: ["1", "3", "5", "7", "9"])
    site = Site(tmp_path, "cuda", devices=2)
    slots = [dict(slot.environment) for slot in local._slots(site)]
    assert slots == [{"CUDA_VISIBLE_DEVICES": few} for few in ("1,3", "5,7")]
    with pytest.raises(UserError, match=r"a run has 2 devices of its own, .* give --jobs 2"):
        local.slot_count("cuda", 3, 2)
    assert threads_each(1, cores()) == (1 if cores() > 1 else None)


def test_a_worker_whose_helper_is_killed_counts_as_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So whoever started it tries again, as long as the run makes progress."""
    suite = SuiteStore(tmp_path)
    plan = make_plan(make_settings({"methods": "pgd-at", "device": "cpu", "devices_per_run": 2}))
    write_plan(plan, suite)

    def lose(*args: Any) -> str:
        raise LostError("process 1 ended (signal 9)")

    monkeypatch.setattr(work, "do_run", lose)
    code = work.work(tmp_path, plan.runs[0].run.run_id, Reporter())
    assert code == 128 + signal.SIGKILL


@pytest.mark.slow
def test_under_torchrun_the_first_process_leads(cli: Cli, alone: Path) -> None:
    """Also a command that nobody helps with, and one that is refused, end all processes."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
        return subprocess.run(
            [sys.executable, *launcher, "-m", "ltrobust", *map(str, words)],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=PATIENCE,
        )

    done = run(*WORDS, "--no-checks", "--output", "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("shared out among 2 processes") == 1
    assert what_counts(only_run(Path("out"))) == what_counts(alone)
    further = ("--no-checks", "--threads", "1", "--attacks", "pgd3")
    assert run("evaluate", only_run(Path("out")), *further).returncode == 0
    assert cli("evaluate", alone, *further).code == 0
    assert what_counts(only_run(Path("out"))) == what_counts(alone)
    assert cli("evaluate", alone, *further, "--attacks", "pgd4", *PAIR).code == 0
    assert cli("evaluate", only_run(Path("out")), *further, "--attacks", "pgd4").code == 0
    assert what_counts(only_run(Path("out"))) == what_counts(alone)
    assert run("report", "out").returncode == 0
    refused = run(*WORDS, "--seeds", "-1", "--output", "other")
    assert refused.returncode != 0
    assert refused.stderr.count("must be integers >= 0") == 1
    assert os.listdir("out/claims") == [] or not list(Path("out/claims").glob("*.json"))
