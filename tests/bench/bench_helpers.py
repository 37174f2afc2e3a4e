"""Running the command line, and looking at what it leaves; used by the tests beside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
    """Every file under a folder with the time of its last change; a lock may be taken again."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns if _is_content(path) else 0
        for path in sorted(folder.rglob("*"))
    }


def _is_content(path: Path) -> bool:
    return path.is_file() and path.name != ".lock"


def only_run(suite: Path) -> Path:
    """The directory of a suite's only run."""
    (run,) = (suite / "runs").iterdir()
    return run


def write_plugin(path: Path, name: str, change: str = "") -> Path:
    """Write a plugin with one method; `change` is appended to its loss, such as " * nan"."""
    path.write_text(PLUGIN.format(name=name, change=change))
    return path


@dataclass(frozen=True)
class Finished:
    """A bench that ran to its end."""

    outcome: Outcome
    suite: Path

    @property
    def runs(self) -> list[Path]:
        return sorted((self.suite / "runs").iterdir())
