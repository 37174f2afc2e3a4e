"""Running the command line, and looking at what it leaves; used by the tests beside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ltrobust.results.records import seal

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
    """Every file under a folder with the time of its last change; claims come and go."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns if path.is_file() else 0
        for path in sorted(folder.rglob("*"))
        if "claims" not in path.parts
    }


def content(file: Path) -> dict[str, Any]:
    """What a record says; {} where there is none."""
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return found


def attacks_of(run: Path) -> dict[str, dict[str, Any]]:
    """The records of a run's attacks by id, as they were made."""
    found = [content(file) for file in (run / "attacks").glob("*.json")]
    return {one["attack_id"]: one for one in sorted(found, key=lambda one: one["made"])}


def outcomes_of(run: Path) -> pd.DataFrame:
    """All outcomes of a run, as the attacks were made."""
    files = [run / "attacks" / f"{attack_id}.parquet" for attack_id in attacks_of(run)]
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def error_of(run: Path) -> str | None:
    """Why a run failed; None where it did not."""
    reason: str | None = content(run / "failed.json").get("reason")
    return reason


def is_done(run: Path) -> bool:
    """Whether a run is trained and attacked and did not fail."""
    return (run / "trained.json").is_file() and bool(attacks_of(run)) and error_of(run) is None


def change(file: Path, change: Callable[[dict[str, Any]], object], *, sealed: bool = True) -> None:
    """Change what a record says, with a seal that fits or without."""
    said = content(file)
    change(said)
    if sealed:
        said["seal"] = seal(said)
    file.write_text(json.dumps(said))


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
