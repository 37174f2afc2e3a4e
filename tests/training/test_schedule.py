"""Which epoch gets which learning rate."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ltrobust.errors import UserError
from ltrobust.training.schedule import ONE_CYCLE, UNIFIED, Schedule, learning_rates, rate_at


def changes(rates: tuple[float, ...]) -> list[int]:
    """Positions at which the rate differs from the epoch before."""
    return [i for i in range(1, len(rates)) if rates[i] != rates[i - 1]]


@pytest.mark.parametrize(("epochs", "expected"), [(100, [75, 90]), (40, [30, 36]), (10, [8, 9])])
def test_unified_schedule_decays_at_three_quarters_and_nine_tenths(
    epochs: int, expected: list[int]
) -> None:
    rates = learning_rates(UNIFIED, 0.1, epochs)
    assert len(rates) == epochs
    assert changes(rates) == expected
    assert rates[-1] == pytest.approx(0.001)


def test_counting_from_one_acts_an_epoch_earlier_than_from_zero() -> None:
    from_one = UNIFIED.model_copy(update={"counted_from": 1})
    assert changes(learning_rates(from_one, 0.1, 100)) == [74, 89]


def test_interrupted_multistep_goes_on_and_interrupted_compounding_begins_anew() -> None:
    compounding = UNIFIED.model_copy(update={"kind": "robal-compounding"})
    assert learning_rates(UNIFIED, 0.1, 100, start=80) == learning_rates(UNIFIED, 0.1, 100)[80:]
    assert learning_rates(compounding, 0.1, 100, start=80)[0] == pytest.approx(0.01)
    assert learning_rates(compounding, 0.1, 100)[80] == pytest.approx(1e-7)


def test_warm_up_is_refused_where_nothing_reads_it() -> None:
    with pytest.raises(ValidationError, match="robal-compounding"):
        Schedule(
            kind="multistep", milestones=(1,), counted_from=0, warmup_epochs=5, published_epochs=10
        )


def test_start_beyond_the_last_epoch_is_an_error() -> None:
    with pytest.raises(UserError, match="below 10"):
        learning_rates(UNIFIED, 0.1, 10, start=10)


def test_factors_stand_for_the_base_rate_in_place_of_powers_of_gamma() -> None:
    uneven = Schedule(
        kind="multistep",
        milestones=(2, 3),
        factors=(0.5, 0.2),
        counted_from=0,
        published_epochs=4,
    )
    assert learning_rates(uneven, 1.0, 4) == (1.0, 1.0, 0.5, 0.2)


@pytest.mark.parametrize(
    "changes", [{"factors": (0.5,)}, {"kind": "robal-compounding", "factors": (0.5, 0.2)}]
)
def test_factors_that_do_not_fit_are_refused(changes: dict[str, object]) -> None:
    fields = {"kind": "multistep", "milestones": (2, 3), "counted_from": 0, "published_epochs": 4}
    with pytest.raises(ValidationError, match="factors needs"):
        Schedule.model_validate({**fields, **changes})


def test_one_cycle_rises_to_the_base_rate_and_falls_to_zero_in_lines() -> None:
    assert [rate_at(ONE_CYCLE, 0.2, 4, p) for p in (0, 1, 2, 3, 4)] == [0, 0.1, 0.2, 0.1, 0]
    assert learning_rates(ONE_CYCLE, 0.2, 4) == pytest.approx((0.05, 0.15, 0.15, 0.05))
    assert learning_rates(ONE_CYCLE, 0.2, 4, start=2) == learning_rates(ONE_CYCLE, 0.2, 4)[2:]
    uneven = ONE_CYCLE.model_copy(update={"milestones": (12,)})
    assert rate_at(uneven, 1.0, 100, 40) == 1.0
    assert rate_at(uneven, 1.0, 100, 70) == pytest.approx(0.5)


@pytest.mark.parametrize("milestones", [(), (0,), (30,), (10, 20)])
def test_one_cycle_needs_its_one_peak_inside_the_run(milestones: tuple[int, ...]) -> None:
    fields = {"kind": "one-cycle", "counted_from": 0, "published_epochs": 30}
    with pytest.raises(ValidationError, match="where it peaks"):
        Schedule.model_validate({**fields, "milestones": milestones})
