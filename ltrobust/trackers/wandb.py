"""Weights & Biases: offline below `trackers/wandb` unless $WANDB_MODE says otherwise.

`wandb sync` sends offline runs later. A run keeps its id, so that what is sent twice is one run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

REPORT = "report"


class WandbTracker:
    """Writes W&B runs of the project `ltrobust`.

    Args:
        folder: where offline runs lie; the suite's directory two levels above groups them.
    """

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("WANDB_MODE", "offline")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._group = folder.resolve().parents[1].name
        self._runs: dict[str, Any] = {}

    def begin(self, run_id: str, config: Mapping[str, Any]) -> None:
        """Open the run with its settings."""
        self._run(run_id, dict(config))

    def epoch(self, run_id: str, epoch: int, numbers: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        values = {f"training/{name}": value for name, value in numbers.items()}
        self._run(run_id).log({**values, "epoch": epoch}, step=epoch)

    def attack(self, run_id: str, attack: str, numbers: Mapping[str, float]) -> None:
        """Keep the scores of an attack."""
        scores = {f"{attack}/{name}": value for name, value in numbers.items()}
        self._run(run_id).summary.update(scores)

    def figures(self, files: Sequence[Path]) -> None:
        """Keep the figures in a run of their own."""
        if files:
            images = {file.stem: wandb.Image(str(file)) for file in files}
            self._run(REPORT).log(images)

    def close(self) -> None:
        """End the runs."""
        for run in self._runs.values():
            run.finish()

    def _run(self, run_id: str, config: dict[str, Any] | None = None) -> Any:
        if run_id not in self._runs:
            self._runs[run_id] = wandb.init(
                project="ltrobust",
                group=self._group,
                id=f"{self._group}-{run_id}",
                name=run_id,
                config=config,
                dir=str(self._folder),
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(silent=True),
            )
        return self._runs[run_id]
