"""Stored results shown in TensorBoard, MLflow or Weights & Biases, while they come or afterwards.

Trackers are told what the files say: settings, learning curves, outcomes of attacks, figures. They
decide nothing, and the files stay the truth; a tracker that fails is told in one line and left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ltrobust.errors import UserError, unknown
from ltrobust.results.store import SuiteStore
from ltrobust.trackers.mirror import Mirror, Tracker

TRACKERS = ("tensorboard", "mlflow", "wandb")
FOLDER = "trackers"
"""Where trackers write, in a suite's directory."""


def open_trackers(names: Iterable[str], suite: Path) -> list[Tracker]:
    """Make the trackers with these names, which write below `suite`.

    Raises:
        UserError: there is no such tracker, or its package is not installed.
    """
    return [_open(name, suite / FOLDER / name) for name in dict.fromkeys(names)]


def _open(name: str, folder: Path) -> Tracker:
    try:
        if name == "tensorboard":
            from ltrobust.trackers.tensorboard import TensorBoardTracker

            return TensorBoardTracker(folder)
        if name == "mlflow":
            from ltrobust.trackers.mlflow import MlflowTracker

            return MlflowTracker(folder)
        if name == "wandb":
            from ltrobust.trackers.wandb import WandbTracker

            return WandbTracker(folder)
    except ImportError as error:
        raise UserError(
            f"tracker {name} cannot be used ({error}); install it with "
            "pip install 'ltrobust[trackers]'"
        ) from None
    raise unknown("tracker", name, TRACKERS)


def send(directory: str | Path, names: Iterable[str]) -> int:
    """Show a suite's stored results in trackers; return how many runs there are.

    Raises:
        UserError: it is no suite's directory, a file is damaged, or a tracker cannot be used.
    """
    if not SuiteStore(Path(directory)).runs():
        raise UserError(f"{directory} holds no runs; give a suite's directory (results/<suite>)")
    mirror = Mirror(Path(directory), open_trackers(names, Path(directory)))
    mirror.sync(strict=True)
    mirror.close()
    return len(mirror.runs)


__all__ = ["TRACKERS", "Mirror", "Tracker", "open_trackers", "send"]
