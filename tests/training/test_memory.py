"""The memory estimate: activations that autograd keeps, counted exactly, and what follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ltrobust.bench.estimate import memory_needs, training_set
from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.config import Run
from ltrobust.training.memory import CUDA_ALLOWANCE, Costs, MemoryNeed, measure, outer_passes
from ltrobust.training.trainer import Thrift

COUNTS = (90,) * 10
CIFAR = (3, 32, 32)
CARD = 24_000_000_000


def run_of(method: str = "pgd-at", arch: str = "small-cnn", **flags: Any) -> Run:
    asked = {"methods": method, "dataset": "cifar10-lt", "arch": arch, "device": "cpu", **flags}
    return make_plan(make_settings(asked)).runs[0].run


def need(arch: str, precision: str = "fp32", **more: Any) -> MemoryNeed:
    costs = measure(run_of(arch=arch, precision=precision), COUNTS, CIFAR)
    return MemoryNeed(costs, batch_size=128, passes=1.0, data_bytes=0, **more)


def test_what_a_small_network_keeps_is_what_its_layers_need() -> None:
    """Input, each convolution's output (for batch norm) and activation (for the next), features."""
    costs = measure(run_of(), COUNTS, CIFAR)
    maps = [32 * 32 * 32, 64 * 16 * 16, 128 * 8 * 8, 128 * 8 * 8]
    assert costs.outer == 4 * (3 * 32 * 32 + 2 * sum(maps) + 128)
    # folded and without gradients of weights: activations after ReLU only
    assert 4 * sum(maps) <= costs.attack <= 4 * (sum(maps) + 3 * 32 * 32 + 2 * 128)
    assert costs.largest == 4 * maps[0]
    assert costs.image == 4 * 3 * 32 * 32
    assert costs.recomputed == costs.outer
    assert costs.block == 0


def test_bfloat16_halves_the_activations() -> None:
    exact, half = need("small-cnn").costs, need("small-cnn", "bf16").costs
    assert half.outer == pytest.approx(exact.outer / 2, rel=0.02)
    assert half.attack == pytest.approx(exact.attack / 2, rel=0.02)
    assert half.weights == exact.weights
    assert half.copies == exact.copies / 2
    assert half.casts > exact.casts


def test_checkpointing_keeps_little_more_than_the_inputs_of_blocks() -> None:
    costs = need("resnet18").costs
    inputs = 4 * (2 * 65536 + 65536 + 32768 + 32768 + 16384 + 16384 + 8192)
    stem = 4 * (2 * 65536 + 3 * 32 * 32)
    assert inputs <= costs.recomputed <= inputs + stem + 4 * 10_000
    assert costs.block < costs.outer / 3


@pytest.mark.parametrize(
    ("method", "options", "passes"),
    [
        ("pgd-at", [], 1),
        ("at-bsl", [], 1),
        ("taet", [], 1),
        ("taet", ["taet.wasted_clean=true"], 1),  # its second pass keeps nothing
        ("trades", [], 2),
        ("trades", ["trades.repeat_clean=true"], 3),
        ("robal", [], 2),
    ],
)
def test_passes_that_live_at_once(method: str, options: list[str], passes: int) -> None:
    found = outer_passes(run_of(method, option=options), COUNTS)
    assert found == pytest.approx(passes, rel=0.02)


def test_the_need_grows_linearly_with_the_batch() -> None:
    sizes = [replace(need("resnet18"), batch_size=size).bytes() for size in (256, 512, 1024)]
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0])
    assert sizes[0] > CUDA_ALLOWANCE


def test_smaller_pieces_and_checkpointing_never_need_more() -> None:
    plain = need("resnet18")
    previous = plain.bytes()
    for thrift in (Thrift(True), Thrift(True, 32), Thrift(True, 4)):
        now = replace(plain, thrift=thrift).bytes()
        assert now <= previous
        previous = now
    assert previous < plain.bytes()


COSTS = Costs(
    weights=10**8,
    copies=10**8,
    casts=0,
    image=10**4,
    attack=10**8,
    outer=2 * 10**8,
    recomputed=10**7,
    block=10**7,
    largest=10**6,
)


def test_changes_are_proposed_from_the_gentlest_on_until_it_fits() -> None:
    large = MemoryNeed(COSTS, 128, 1.0, 0)
    everything = large.thriftier(0)
    names = [flag.split()[0] for flag, _ in everything]
    assert names == ["--grad-checkpointing", "--micro-batch", "--batch-size"]
    sizes = [large.bytes(), *(size for _, size in everything)]
    assert sizes == sorted(sizes, reverse=True)
    enough = large.thriftier(everything[0][1])
    assert [flag for flag, _ in enough] == ["--grad-checkpointing"]
    assert large.thriftier(large.bytes()) == []


def test_what_is_on_already_is_not_proposed() -> None:
    thrifty = MemoryNeed(COSTS, 128, 1.0, 0, thrift=Thrift(grad_checkpointing=True))
    assert thrifty.thriftier(0)[0][0].startswith("--micro-batch")


def test_measuring_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    measure(run_of(), COUNTS, CIFAR)
    outer_passes(run_of("trades"), COUNTS)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_a_wide_resnet_trains_on_a_card_of_24_gb() -> None:
    flags = {"methods": "core", "dataset": "cifar10-lt", "arch": "wrn-34-10", "batch_size": 128}
    plan = make_plan(make_settings({**flags, "device": "cpu"}))
    needs = memory_needs(plan, lambda planned: training_set(planned.run.data))
    assert len(needs) == 5
    for found in needs.values():
        # at least weights, gradients, momentum and the activations that one pass keeps
        assert found.bytes() > 3 * found.costs.weights + 128 * found.costs.outer
        assert found.bytes() < CARD
        thrifty = replace(found, thrift=Thrift(grad_checkpointing=True, micro_batch=32))
        assert thrifty.bytes() < 0.9 * found.bytes()
