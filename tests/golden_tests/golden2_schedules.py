"""Our schedules for the learning-rate cases of the second set.

Those of methods that ship are taken from where production takes them. A run may have any number of
epochs: a builder is given it, and the case.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from ltrobust.methods.frl import DECAYS

from ltrobust.combination import find
from ltrobust.method import load_builtin_methods
from ltrobust.modifier import PostHoc
from ltrobust.training.schedule import Schedule

load_builtin_methods()


Builder = Callable[[dict[str, Any], int], Schedule]


def multistep(epochs: int, *milestones: float, counted_from: int, **fields: Any) -> Schedule:
    """Milestones that act from the first epoch on whose number is not smaller."""
    return Schedule(
        kind="multistep",
        milestones=tuple(math.ceil(milestone) for milestone in milestones),
        counted_from=counted_from,  # type: ignore[arg-type]
        published_epochs=epochs,
        **fields,
    )


def production(name: str) -> Builder:
    """The milestones of a method's published recipe, which its release does not scale."""

    def schedule(_case: dict[str, Any], epochs: int) -> Schedule:
        paper = find(name).recipe
        assert paper is not None
        return paper.recipe.schedule.model_copy(update={"published_epochs": epochs})

    return schedule


def shares(*parts: float, counted_from: int = 1) -> Builder:
    """Milestones at shares of the run."""
    return lambda _case, epochs: multistep(
        epochs, *(part * epochs for part in parts), counted_from=counted_from
    )


def middle_of_epoch(*parts: float) -> Builder:
    """The same for rates that are looked up at the middle of an epoch, from 0."""
    return lambda _case, epochs: multistep(
        epochs, *(part * epochs - 0.5 for part in parts), counted_from=0
    )


def before_the_end(*distances: int) -> Builder:
    """Milestones so many epochs before the last."""
    return lambda _case, epochs: multistep(
        epochs, *(epochs - distance for distance in distances), counted_from=1
    )


def gairat(case: dict[str, Any], epochs: int) -> Schedule:
    if epochs >= 110:  # the release takes it for its wide network's
        return production("gairat")(case, epochs)
    return multistep(epochs, 30, 60, counted_from=1)


def las_at(_case: dict[str, Any], epochs: int) -> Schedule:
    """Milestones in batches, ten to an epoch; torch passes by those that are no whole number."""
    batches = [10 * epochs * part / 110 for part in (99, 104)]
    reached = [batch / 10 for batch in batches if batch == int(batch)]
    return multistep(epochs, *reached, counted_from=0)


def faal(_case: dict[str, Any], epochs: int) -> Schedule:
    return multistep(epochs, *((100, 105) if epochs >= 110 else (1,)), counted_from=0)


def compounding(name: str | None = None) -> Builder:
    """RoBal's, whose milestones a case tells in words; production's where they are the same."""

    def schedule(case: dict[str, Any], epochs: int) -> Schedule:
        told = re.match(r"lr_decline \[(\d+), (\d+)\], warm-up (\d+);", case["note"])
        assert told is not None, case["note"]
        begun = case["first_epoch"] - 1
        first, second, warm_up = (int(number) for number in told.groups())
        found = Schedule(
            kind="robal-compounding",
            milestones=(first - begun, second - begun),
            counted_from=1,
            warmup_epochs=warm_up,
            published_epochs=epochs,
        )
        paper = None if name is None else find(name).recipe
        if paper is not None and paper.recipe.schedule.milestones == found.milestones:
            assert paper.recipe.schedule.warmup_epochs == warm_up
            return paper.recipe.schedule.model_copy(update={"published_epochs": epochs})
        return found

    return schedule


def fine_tuning(name: str) -> Builder:
    """That of a post-hoc method of one epoch, as it trains by default."""

    def schedule(case: dict[str, Any], epochs: int) -> Schedule:
        if epochs != 1:
            return compounding()(case, epochs)
        combination = find(name)
        method = combination(torch.tensor([2, 1]))
        assert isinstance(method, PostHoc)
        assert combination.recipe is not None
        recipe = method.fine_tuning(combination.recipe.recipe)
        assert recipe is not None
        return recipe.schedule

    return schedule


SCHEDULES: dict[str, Builder] = {
    "mart_resnet": production("mart"),
    "mart_wideresnet": production("mart"),
    "awp_trades": production("trades+awp"),
    "he": production("he"),
    "adt": production("adt"),
    "dafa_bag_of_tricks": before_the_end(10, 5),
    "dafa_trades": shares(0.75, 0.9, 1),
    "dafa_madry": shares(0.5, 0.75, 1),
    "cfa_prn": shares(0.5, 0.75, counted_from=0),
    "cfa_wrn": lambda _case, epochs: multistep(epochs, 75, 90, counted_from=0),
    "awp_at_piecewise": middle_of_epoch(0.5, 0.75),
    "udr_piecewise": middle_of_epoch(0.5, 0.75),
    "gairat_wrn": gairat,
    "gairat_resnet": gairat,
    "frl": lambda _case, epochs: multistep(epochs, *DECAYS, counted_from=0),
    "las_at": las_at,
    "faal_1": faal,
    "faal_2": faal,
    "faal_3": faal,
    "robal_rs_whole": compounding("pgd-at+resample"),
    "robal_rs_fine": fine_tuning("pgd-at+crt"),
    "robal_lws": compounding(),
    "robal_focal": compounding("at-focal"),
    "cgr": before_the_end(10, 5),
    # milestones in steps: an "epoch" of this run is one step
    "mma": lambda _case, steps: multistep(
        steps, 20_000, 30_000, 40_000, counted_from=0, factors=(0.3, 0.1, 0.03)
    ),
}
