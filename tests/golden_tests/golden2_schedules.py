"""Our schedules for the learning-rate cases of the second set.

Those of methods that ship are taken from where production takes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ltrobust.training.schedule import Schedule


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


def compounding(*milestones: int, warmup_epochs: int = 0) -> Callable[[int], Schedule]:
    return lambda epochs: Schedule(
        kind="robal-compounding",
        milestones=milestones,
        counted_from=1,
        warmup_epochs=warmup_epochs,
        published_epochs=epochs,
    )


def faal(epochs: int) -> Schedule:
    milestones = (100, 105) if epochs >= 110 else (1,)
    return absolute(*milestones, counted_from=0)(epochs)


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
    "robal_rs_whole": compounding(15, 20),
    "robal_rs_fine": compounding(3, 6),
    "robal_lws": compounding(3, 6),
    "robal_focal": compounding(60, 75, warmup_epochs=5),
    "cgr": absolute(100, 105),
    # milestones in steps: an "epoch" of this run is one step
    "mma": relative(50_000, 20_000, 30_000, 40_000, counted_from=0, factors=(0.3, 0.1, 0.03)),
}
