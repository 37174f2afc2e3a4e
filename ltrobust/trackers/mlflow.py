"""MLflow: a local store below `trackers/mlflow`, or the one that $MLFLOW_TRACKING_URI names.

A run is found again by its id, and only epochs that it lacks are added.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

TAG = "ltrobust.run_id"
REPORT = "report"
LONGEST = 500
"""Characters of a setting that MLflow keeps."""


class MlflowTracker:
    """Writes to a tracking store.

    Args:
        folder: of the local store; the suite's directory two levels above names the experiment.
    """

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions ask for it
        address = os.environ.get("MLFLOW_TRACKING_URI") or folder.resolve().as_uri()
        self._client = MlflowClient(tracking_uri=address)
        self._experiment = self._experiment_of(folder.resolve().parents[1].name)
        self._runs: dict[str, str] = {}

    def begin(self, run_id: str, config: Mapping[str, Any]) -> None:
        """Open the run and keep its settings."""
        known = self._client.get_run(self._run(run_id)).data.params
        new = {key: str(value)[:LONGEST] for key, value in config.items() if key not in known}
        self._client.log_batch(self._run(run_id), params=[Param(k, v) for k, v in new.items()])

    def epoch(self, run_id: str, epoch: int, numbers: Mapping[str, float]) -> None:
        """Add a point to each curve that does not reach so far."""
        run = self._run(run_id)
        for name, value in numbers.items():
            past = self._client.get_metric_history(run, f"training/{name}")
            if epoch not in {point.step for point in past}:
                self._client.log_metric(run, f"training/{name}", value, step=epoch)

    def attack(self, run_id: str, attack: str, numbers: Mapping[str, float]) -> None:
        """Keep the scores of an attack; the newest counts."""
        metrics = [Metric(f"{attack}/{name}", value, 0, 0) for name, value in numbers.items()]
        self._client.log_batch(self._run(run_id), metrics=metrics)

    def figures(self, files: Sequence[Path]) -> None:
        """Keep the figures as artifacts of a run of their own."""
        for file in files:
            self._client.log_artifact(self._run(REPORT), str(file), "figures")

    def close(self) -> None:
        """Mark the runs as ended."""
        for run in self._runs.values():
            self._client.set_terminated(run)

    def _experiment_of(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return found.experiment_id if found else str(self._client.create_experiment(name))

    def _run(self, run_id: str) -> str:
        if run_id not in self._runs:
            found = self._client.search_runs([self._experiment], f"tags.`{TAG}` = '{run_id}'")
            if found:
                self._runs[run_id] = found[0].info.run_id
            else:
                made = self._client.create_run(
                    self._experiment, run_name=run_id, tags={TAG: run_id}
                )
                self._runs[run_id] = made.info.run_id
        return self._runs[run_id]
