"""Learning-rate schedules of the released code, as data, and the rate of every epoch they give.

A schedule says from which number its authors count epochs, because that decides by one epoch when
a milestone acts. Optimisers and checkpoints are not known here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ltrobust.errors import UserError


class Schedule(BaseModel):
    """How the rate goes over a run.

    Attributes:
        kind: "multistep": base rate times gamma^(milestones reached). "robal-compounding": RoBal's
            code multiplies the *current* rate by that factor in every epoch, so the rate collapses
            within a few epochs of the first milestone (Adversarial_Long-Tail, train.py).
            "one-cycle": the rate rises in a line from 0 to the base rate, which it has at the only
            milestone, and falls in a line to 0, step by step (Smith, "Super-convergence", 2018, as
            Wong, Rice, Kolter, ICLR 2020, train with few steps).
        milestones: numbers of the epochs from which on gamma applies once more, in the counting
            below and for a run of `published_epochs`.
        gamma: factor per milestone.
        factors: of "multistep", where the steps differ: what the base rate is times from each
            milestone on, in place of the powers of gamma.
        counted_from: number of the first epoch in the published code. torch's MultiStepLR stepped
            at the end of each epoch counts from 0.
        warmup_epochs: only "robal-compounding" reads it: while the epoch's number is smaller, the
            factor is (number + 1) / warmup_epochs, and it compounds as well.
        published_epochs: length of the run that the milestones were published for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["multistep", "robal-compounding", "one-cycle"]
    milestones: tuple[int, ...]
    gamma: float = Field(default=0.1, gt=0, le=1)
    factors: tuple[Annotated[float, Field(gt=0)], ...] = ()
    counted_from: Literal[0, 1]
    warmup_epochs: int = Field(default=0, ge=0)
    published_epochs: int = Field(ge=1)

    @model_validator(mode="after")
    def _all_is_read(self) -> Schedule:
        if self.warmup_epochs and self.kind != "robal-compounding":
            raise ValueError("warmup_epochs needs kind 'robal-compounding'; leave it out otherwise")
        if self.factors and self.kind != "multistep":
            raise ValueError("factors needs kind 'multistep'; leave it out otherwise")
        if self.factors and len(self.factors) != len(self.milestones):
            raise ValueError("factors needs one number for each of milestones")
        if self.kind == "one-cycle" and not (
            len(self.milestones) == 1 and 0 < self.milestones[0] < self.published_epochs
        ):
            raise ValueError("one-cycle needs one milestone, inside the run: where it peaks")
        return self


UNIFIED = Schedule(kind="multistep", milestones=(75, 90), counted_from=0, published_epochs=100)
"""The schedule that unified recipes share: times 0.1 at 75% and at 90% of the epochs, from 0."""

ONE_CYCLE = Schedule(kind="one-cycle", milestones=(15,), counted_from=0, published_epochs=30)
"""The schedule of the fast recipe, N-FGSM's: up to the peak in the middle of the run."""


def learning_rates(
    schedule: Schedule, base_lr: float, epochs: int, *, start: int = 0
) -> tuple[float, ...]:
    """Rate of every epoch of a run.

    Args:
        schedule: its milestones scale to round(m * epochs / published_epochs).
        base_lr: rate before any milestone.
        epochs: length of the whole run.
        start: epochs that another run already did. The compounding of RoBal's code begins anew
            there, from the base rate; a multistep schedule goes on as if never interrupted.

    Returns:
        `epochs - start` rates, in the order of training; of a one-cycle those in the middle of
        each epoch.
    """
    if not 0 <= start < epochs:
        raise UserError(
            f"start epoch {start} is outside the run; it must be at least 0 and below {epochs}"
        )
    if schedule.kind == "one-cycle":
        return tuple(rate_at(schedule, base_lr, epochs, e + 0.5) for e in range(start, epochs))
    milestones = scaled_milestones(schedule, epochs)
    numbers = range(schedule.counted_from + start, schedule.counted_from + epochs)
    factors = [_factor(schedule, milestones, number) for number in numbers]
    if schedule.kind == "multistep":
        return tuple(base_lr * factor for factor in factors)
    rates = [base_lr]
    for factor in factors:
        rates.append(rates[-1] * factor)
    return tuple(rates[1:])


def rate_at(schedule: Schedule, base_lr: float, epochs: int, position: float) -> float:
    """Rate of a one-cycle at a position in the run, in epochs from 0; a step's is its middle."""
    peak = schedule.milestones[0] / schedule.published_epochs
    part = position / epochs
    return base_lr * min(part / peak, (1 - part) / (1 - peak))


def scaled_milestones(schedule: Schedule, epochs: int) -> tuple[int, ...]:
    """Milestones for a run of `epochs` epochs, in the schedule's own counting."""
    return tuple(round(m * epochs / schedule.published_epochs) for m in schedule.milestones)


def _factor(schedule: Schedule, milestones: tuple[int, ...], number: int) -> float:
    """Factor of the epoch with this number: that of the warm-up, or gamma per milestone passed."""
    if schedule.kind == "robal-compounding" and number < schedule.warmup_epochs:
        return (number + 1) / schedule.warmup_epochs
    reached = sum(number >= milestone for milestone in milestones)
    if schedule.factors and reached:
        return schedule.factors[reached - 1]
    return float(schedule.gamma**reached)
