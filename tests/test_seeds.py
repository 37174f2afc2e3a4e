"""Seeds by name: every stream its own, every run its own, the global generator nobody's."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.config import Run
from ltrobust.seeds import derive_seed, generator
from ltrobust.training.trainer import Shuffled, build

STREAMS = ("init", "data-order", "augment", "policy", "attack", "accuracy-sample")
NAME = st.text(st.characters(exclude_characters="/"), min_size=1, max_size=8)


def planned(seed: int) -> Run:
    plan = make_plan(make_settings({"methods": "pgd-at", "seeds": seed, "device": "cpu"}))
    return plan.runs[0].run


@given(st.integers(0, 2**40), st.lists(NAME, max_size=3))
@settings(deadline=None, max_examples=30)
def test_seeds_are_what_torch_accepts(seed: int, names: list[str]) -> None:
    derived = derive_seed(seed, *names)
    assert 0 <= derived < 2**62
    assert derived == derive_seed(seed, *names)
    torch.Generator().manual_seed(derived)


def test_streams_runs_and_epochs_never_share_a_seed() -> None:
    made = [
        derive_seed(seed, stream, *epoch)
        for seed in range(20)
        for stream in STREAMS
        for epoch in [(), *((e,) for e in range(20))]
    ]
    assert len(set(made)) == len(made)


def test_neighbouring_parts_do_not_run_together() -> None:
    assert derive_seed(1, "a", 23) != derive_seed(1, "a", 2, 3)
    assert derive_seed(12, "a") != derive_seed(1, "2a")


def test_derived_seeds_stay_what_published_results_were_made_with() -> None:
    assert derive_seed(0, "init") == 759534904281029719
    assert derive_seed(3, "attack", 7) == 656644004406335341


def test_generators_repeat_and_differ_by_name() -> None:
    draws = [torch.rand(4, generator=generator("cpu", 0, *n)) for n in (("a",), ("a",), ("b",))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_deriving_and_drawing_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=generator("cpu", 5, "x"))
    build(planned(0), (5, 3), (1, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_gives_other_initial_weights_whatever_the_global_seed_is() -> None:
    with torch.random.fork_rng():
        weights = []
        for run_seed, global_seed in ((0, 1), (0, 2), (1, 1)):
            torch.manual_seed(global_seed)
            weights.append(build(planned(run_seed), (5, 3), (1, 8, 8)).net.conv1.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_data_order_changes_with_the_seed_and_with_the_epoch() -> None:
    orders = [
        Shuffled(planned(seed), 128, epoch).take(128)
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[3])
    assert orders[0].sort().values.tolist() == list(range(128))
