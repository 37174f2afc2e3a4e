"""The stored profiles of a plan's runs as rows of a table. Nothing is measured here."""

from __future__ import annotations

from typing import Any

from ltrobust.bench.plan import Plan
from ltrobust.results.store import SuiteStore
from ltrobust.training.profile import PHASES

COLUMNS = ("run", "epochs", *PHASES, "other", "images/s", "of peak", "memory", "evaluation")


def profile_rows(plan: Plan, store: SuiteStore) -> list[tuple[str, ...]]:
    """One row, in the order of `COLUMNS`, for each run of a plan that has been profiled."""
    rows = []
    for planned in plan.runs:
        run = store.run(planned.run.run_id)
        profile = run.profile()
        if profile.training or profile.evaluation:
            names = {key: record.attack for key, record in run.attacks().items()}
            rows.append(
                (
                    planned.run.run_id,
                    *_training(profile.training),
                    _evaluation(profile.evaluation or {}, names),
                )
            )
    return rows


def _training(training: dict[str, Any] | None) -> tuple[str, ...]:
    if training is None:
        return ("-",) * (len(COLUMNS) - 2)
    seconds = training["seconds"]
    total = sum(seconds.values())
    return (
        f"{training['epochs']} of {training['of_epochs']}",
        *(f"{seconds[name] / total:.0%}" for name in (*PHASES, "other")),
        f"{training['images_per_second']:.0f}",
        f"{training['share_of_matrix_peak']:.0%}",
        f"{training['peak_memory_bytes'] / 1e9:.1f} GB",
    )


def _evaluation(evaluation: dict[str, Any], names: dict[str, str]) -> str:
    seconds = evaluation.get("seconds", {})
    return ", ".join(f"{names.get(key, key)} {value:.1f} s" for key, value in seconds.items())
