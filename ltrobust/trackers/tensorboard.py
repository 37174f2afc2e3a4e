"""TensorBoard: event files below `trackers/tensorboard`, a folder for each run.

A run's events are written anew whenever its suite is shown, so that a resumed run has each epoch
once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

REPORT = "report"
"""The folder of the suite's figures, beside those of the runs."""


class TensorBoardTracker:
    """Writes event files.

    Args:
        folder: what `tensorboard --logdir` is given.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, SummaryWriter] = {}

    def begin(self, run_id: str, config: Mapping[str, Any]) -> None:
        """Show the settings as a table."""
        rows = "\n".join(f"| {key} | {json.dumps(value)} |" for key, value in config.items())
        self._writer(run_id).add_text("config", f"| setting | value |\n|---|---|\n{rows}")

    def epoch(self, run_id: str, epoch: int, numbers: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in numbers.items():
            self._writer(run_id).add_scalar(f"training/{name}", value, epoch)
        self._writer(run_id).flush()

    def attack(self, run_id: str, attack: str, numbers: Mapping[str, float]) -> None:
        """Add the scores of an attack."""
        for name, value in numbers.items():
            self._writer(run_id).add_scalar(f"{attack}/{name}", value, 0)
        self._writer(run_id).flush()

    def figures(self, files: Sequence[Path]) -> None:
        """Add the figures as images."""
        for file in files:
            image = np.asarray(Image.open(file).convert("RGB"))
            self._writer(REPORT).add_image(file.stem, image, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, name: str) -> SummaryWriter:
        if name not in self._writers:
            for old in (self._folder / name).glob("events.out.tfevents.*"):
                old.unlink()
            self._writers[name] = SummaryWriter(str(self._folder / name))
        return self._writers[name]
