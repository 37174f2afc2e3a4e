"""Our schedules for the learning-rate cases of the second set.

Those of methods that ship are taken from where production takes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ltrobust.combination import find
from ltrobust.method import load_builtin_methods
from ltrobust.modifier import PostHoc
from ltrobust.training.schedule import Schedule

load_builtin_methods()


def absolute(*milestones: int, counted_from: int = 1, **fields: Any) -> Callable[[int], Schedule]:
    """Milestones in epochs, whatever the length of the run."""
    return lambda epochs: Schedule(
        kind="multistep",
        milestones=milestones,
        counted_from=counted_from,  # type: ignore[arg-type]
        published_epochs=epochs,
        **fields,
    )


def relative(
    published: int, *milestones: int, counted_from: int = 1, **fields: Any
) -> Callable[[int], Schedule]:
    """Milestones that the release computes from the length of the run."""
    return lambda _: absolute(*milestones, counted_from=counted_from, **fields)(published)


def compounding(*milestones: int) -> Callable[[int], Schedule]:
    return lambda epochs: Schedule(
        kind="robal-compounding",
        milestones=milestones,
        counted_from=1,
        published_epochs=epochs,
    )


def faal(epochs: int) -> Schedule:
    milestones = (100, 105) if epochs >= 110 else (1,)
    return absolute(*milestones, counted_from=0)(epochs)


def of_recipe(name: str) -> Callable[[int], Schedule]:
    """That of a method's published recipe."""

    def schedule(epochs: int) -> Schedule:
        paper = find(name).recipe
        assert paper is not None
        assert paper.recipe.epochs == epochs
        return paper.recipe.schedule

    return schedule


def fine_tuning(name: str) -> Callable[[int], Schedule]:
    """That of a post-hoc method, as it trains by default."""

    def schedule(epochs: int) -> Schedule:
        combination = find(name)
        method = combination(torch.tensor([2, 1]))
        assert isinstance(method, PostHoc)
        assert combination.recipe is not None
        recipe = method.fine_tuning(combination.recipe.recipe)
        assert recipe is not None
        assert recipe.epochs == epochs
        return recipe.schedule

    return schedule


SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "mart_resnet": absolute(75, 90, 100),
    "mart_wideresnet": absolute(75, 90, 100),
    "awp_trades": absolute(100, 150),
    "he": absolute(75),
    "adt": absolute(75),
    "dafa_bag_of_tricks": absolute(100, 105),
    "dafa_trades": relative(110, 83, 99, 110),
    "dafa_madry": relative(110, 55, 83, 110),
    "cfa_prn": absolute(100, 150, counted_from=0),
    "cfa_wrn": absolute(75, 90, counted_from=0),
    "awp_at_piecewise": relative(200, 100, 150, counted_from=0),
    "udr_piecewise": relative(200, 100, 150, counted_from=0),
    "gairat_wrn": absolute(60, 90, 110, factors=(0.1, 0.01, 0.005)),
    "gairat_resnet": absolute(30, 60),
    "frl": absolute(40, 80, counted_from=0),
    "las_at": relative(110, 99, 104, counted_from=0),
    "faal_1": faal,
    "faal_2": faal,
    "faal_3": faal,
    "robal_rs_whole": of_recipe("pgd-at+resample"),
    "robal_rs_fine": fine_tuning("pgd-at+crt"),
    "robal_lws": compounding(3, 6),  # epoch 83, counted in a run that begins at 81
    "robal_focal": of_recipe("at-focal"),
    "cgr": absolute(100, 105),
    # milestones in steps: an "epoch" of this run is one step
    "mma": relative(50_000, 20_000, 30_000, 40_000, counted_from=0, factors=(0.3, 0.1, 0.03)),
}
