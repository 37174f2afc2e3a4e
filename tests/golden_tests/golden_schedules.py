"""Turns a stored learning-rate case into our schedule and the epochs done before it.

`published_epochs` equals the length of the run, so that no milestone is scaled.
"""

from __future__ import annotations

from typing import Any

from ltrobust.training.schedule import Schedule


def compounding(case: dict[str, Any], epochs: int) -> tuple[Schedule, int]:
    start = case["first_epoch"] - 1
    schedule = Schedule(
        kind="robal-compounding",
        milestones=tuple(case["lr_decline"]),
        counted_from=1,
        warmup_epochs=case.get("warmup_epochs", 0),
        published_epochs=start + epochs,
    )
    return schedule, start


def from_one(
    milestones: tuple[int, ...], case: dict[str, Any], epochs: int
) -> tuple[Schedule, int]:
    start = case["first_epoch"] - 1
    milestones = tuple(case.get("lr_decline", case.get("milestones", milestones)))
    schedule = Schedule(
        kind="multistep", milestones=milestones, counted_from=1, published_epochs=start + epochs
    )
    return schedule, start


def multistep_lr(case: dict[str, Any], epochs: int) -> tuple[Schedule, int]:
    # torch's scheduler counts its own steps, from 0, whatever number the script gives an epoch
    schedule = Schedule(
        kind="multistep",
        milestones=tuple(case["milestones"]),
        gamma=case.get("gamma", 0.1),
        counted_from=0,
        published_epochs=epochs,
    )
    return schedule, 0
