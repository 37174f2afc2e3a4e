"""Runs that take as long as a test wants, and what is compared of them: for real engines."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

METHOD = '''
from __future__ import annotations

import os
import time
from dataclasses import dataclass

import torch.nn.functional as F

from ltrobust.method import Citation, Method, register_method


@register_method("paced", paper=Citation("A. Author", "A Title", "Venue", 2024))
@dataclass
class Paced(Method):
    """Training whose epochs take a while."""

    def loss(self, model, x, y, x_adv, ctx):
        return F.cross_entropy(model(x_adv), y)

    def on_epoch_end(self, ctx):
        time.sleep(float(os.environ.get("LTROBUST_TEST_PACE", "0")))
'''
DRIVER = """
import sys
from ltrobust.bench.launch import {engine}
{engine}.{name}.pause = 0.5
from ltrobust.cli import main
main()
"""
EPOCHS = 12
PATIENCE = 300.0


class Runs:
    """A method with slow epochs, and where its runs are done.

    Args:
        folder: takes everything.
        engine: the launcher's name.
    """

    def __init__(self, folder: Path, engine: str) -> None:
        self.folder, self._engine = folder, engine
        self._bench: subprocess.Popen[bytes] | None = None
        (folder / "paced.py").write_text(METHOD)

    def bench(self, suite: str, *words: str, pace: float = 0.0) -> subprocess.Popen[bytes]:
        """Start a bench; its output goes to a file of the suite's name."""
        driver = DRIVER.format(engine=self._engine, name=self._engine.title())
        fixed = ["--methods", "paced", "--plugin", "paced.py", "--dataset", "digits-lt"]
        fixed += ["--limit-train", "60", "--limit-test", "20", "--epochs", str(EPOCHS)]
        fixed += ["--attacks", "clean,pgd2", "--device", "cpu", "--threads", "1"]
        fixed += ["--no-checks", "--no-report", "--save-every", "0", "--output", suite]
        with self.said(suite).open("ab") as out:
            self._bench = subprocess.Popen(
                [sys.executable, "-c", driver, "bench", *fixed, *words],
                cwd=self.folder,
                env={**os.environ, "LTROBUST_TEST_PACE": str(pace), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        return self._bench

    def ended(self, suite: str, bench: subprocess.Popen[bytes], code: int = 0) -> str:
        """Wait for the end of a bench; what all drivers of its suite have printed."""
        try:
            found: int | None = bench.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            bench.kill()
            found = None
        assert found == code, f"{found}\n{self.story(suite)}"
        return self.said(suite).read_text()

    def begun(self, suite: str, epochs: int = 2, runs: int = 1) -> list[str]:
        """Wait until all runs of a suite are trained for some epochs; their ids."""

        def are_begun() -> bool:
            found = self.epochs(suite).values()
            return len(found) == runs and min(found) >= epochs

        self.until(suite, are_begun)
        return sorted(self.epochs(suite))

    def until(self, suite: str, true: Callable[[], bool]) -> None:
        """Wait for something that the last bench is to bring about."""
        assert self._bench is not None
        end = time.monotonic() + PATIENCE
        while not true():
            late = time.monotonic() > end or self._bench.poll() is not None
            assert not late or true(), self.story(suite)
            time.sleep(0.1)

    def said(self, suite: str) -> Path:
        """What the drivers of a suite have printed."""
        return self.folder / f"{suite}.out"

    def epochs(self, suite: str) -> dict[str, int]:
        """Epochs behind each run, by its id."""
        files = (self.folder / suite / "runs").glob("*/history.csv")
        return {file.parent.name: file.read_text().count("\n") - 1 for file in files}

    def worker(self, suite: str, run_id: str) -> int:
        """The process that does a run."""
        claim = json.loads((self.folder / suite / "claims" / f"{run_id}.json").read_text())
        return int(claim["pid"])

    def log(self, suite: str, run_id: str) -> str:
        """What the workers of a run have printed."""
        return (self.folder / suite / "logs" / f"{run_id}.log").read_text()

    def facts(self, suite: str) -> dict[str, tuple[str, ...]]:
        """Checksums of weights and outcomes of each run that is done."""
        found = {}
        for run in sorted((self.folder / suite / "runs").iterdir()):
            weights = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
            records = [json.loads(file.read_text()) for file in (run / "attacks").glob("*.json")]
            outcomes = sorted(record["outcomes_sha256"] for record in records)
            assert len(outcomes) == 2, run
            found[run.name] = (weights, *outcomes)
        return found

    def story(self, suite: str) -> str:
        """All that was said, for a test that has failed."""
        logs = sorted((self.folder / suite / "logs").glob("*.log"))
        files = [self.said(suite), *logs]
        return "\n".join(f"--- {file.name}\n{file.read_text()[-4000:]}" for file in files)
