"""The command line in this process and as a subprocess, and small finished suites to look at."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TINY = ("--dataset", "digits-lt", "--limit-train", "60", "--limit-test", "20", "--epochs", "2")
QUICK = (*TINY, "--attacks", "clean,pgd2")

PLUGIN = '''
from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from ltrobust.method import Citation, Method, register_method

PAPER = Citation("A. Author", "A Title", "Venue", 2024)


@register_method("{name}", paper=PAPER)
@dataclass
class Mine(Method):
    """A method of the user's."""

    def loss(self, model, x, y, x_adv, ctx):
        return F.cross_entropy(model(x_adv), y){change}
'''


@dataclass(frozen=True)
class Outcome:
    """What a command line left behind."""

    code: int
    stdout: str
    stderr: str


Cli = Callable[..., Outcome]


def environment() -> dict[str, str]:
    """One thread (equal bits whatever the machine), no terminal, no data of the user's."""
    env = {k: v for k, v in os.environ.items() if k not in ("LTROBUST_DATA_DIR", "FORCE_COLOR")}
    return {**env, "OMP_NUM_THREADS": "1"}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "ltrobust", *map(str, words)]


def run_command(*words: object, cwd: Path) -> Outcome:
    """Run the command line as a user does, in a process of its own."""
    done = subprocess.run(
        command(*words), capture_output=True, text=True, cwd=cwd, env=environment(), timeout=300
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def tree(folder: Path) -> dict[str, int]:
    """Every file under a folder with the time of its last change in nanoseconds."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns if path.is_file() else 0
        for path in sorted(folder.rglob("*"))
    }


def only_run(suite: Path) -> Path:
    """The directory of a suite's only run."""
    (run,) = (suite / "runs").iterdir()
    return run


def write_plugin(path: Path, name: str, change: str = "") -> Path:
    """Write a plugin with one method; `change` is appended to its loss, such as " * nan"."""
    path.write_text(PLUGIN.format(name=name, change=change))
    return path


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default outputs and data directories must not be those of the checkout."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.delenv("LTROBUST_DATA_DIR", raising=False)


@pytest.fixture(autouse=True)
def _own_plugins() -> Iterator[None]:
    """Take out of the registry what a test's plugins put in."""
    from ltrobust.method import METHODS, load_builtin_methods

    load_builtin_methods()
    methods, modules = METHODS.names(), set(sys.modules)
    yield
    for name in set(METHODS.names()) - set(methods):
        METHODS.discard(name)
    for name in set(sys.modules) - modules:
        if name.startswith("ltrobust_plugin_"):
            del sys.modules[name]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line in this process, which saves the imports."""
    from ltrobust.cli import main

    def call(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ltrobust", *map(str, words)])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return Outcome(code if isinstance(code, int) else 1, captured.out, captured.err)

    return call


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawing, the slowest part of a tiny bench; other tests look at the figures."""
    monkeypatch.setattr("ltrobust.report._figures", lambda *args: {})


@dataclass(frozen=True)
class Finished:
    """A bench that ran to its end in a process of its own."""

    outcome: Outcome
    suite: Path

    @property
    def runs(self) -> list[Path]:
        return sorted((self.suite / "runs").iterdir())


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Two methods, two attacks, digits-lt."""
    place = tmp_path_factory.mktemp("finished")
    outcome = run_command(
        "bench", "--methods", "pgd-at,at-bsl", *QUICK, "--output", "suite", cwd=place
    )
    return Finished(outcome, place / "suite")
