"""What CPU tests prove, on a CUDA device; skipped without one. `benchmarks/gpu_day.sh checks`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from ltrobust.attacks.pgd import attack_mode, input_gradient
from ltrobust.attacks.suite import attack_spec
from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.data import long_tail_counts
from ltrobust.evaluation.evaluate import DefendedModel, Evaluator, TestSet
from ltrobust.evaluation.fixed_shapes import FixedShapes
from ltrobust.float32 import true_float32
from ltrobust.graphs import CudaGraphs
from ltrobust.losses import cross_entropy_sum
from ltrobust.method import Context
from ltrobust.models import build_model
from ltrobust.models.folded import FoldedNetwork, fold
from ltrobust.models.relu import ReLU
from ltrobust.seeds import generator
from ltrobust.training.captured import Stepper
from ltrobust.training.engine import TrainingModel
from ltrobust.training.memory import MemoryNeed, measure, outer_passes
from ltrobust.training.step import train_step
from ltrobust.training.trainer import build, make_optimizer

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DEVICE = torch.device("cuda")
COUNTS = tuple(long_tail_counts(5000, 10, 50.0, "exp"))
METHODS = ("pgd-at", "trades", "robal", "at-bsl", "taet")


@pytest.fixture(autouse=True)
def _true_float32() -> Iterator[None]:
    with true_float32(search_algorithms=False):
        yield


def ready(method: str, precision: str) -> tuple[Any, TrainingModel, torch.optim.SGD, Context]:
    asked = {"methods": method, "dataset": "cifar10-lt", "arch": "resnet18", "device": "cuda"}
    run = make_plan(make_settings({**asked, "precision": precision})).runs[0].run
    built = build(run, COUNTS, (3, 32, 32))
    built.net.to(DEVICE)
    model = TrainingModel(built.net, precision)
    ctx = Context(
        class_counts=torch.tensor(COUNTS, device=DEVICE),
        epoch=run.recipe.epochs - 1,
        epochs=run.recipe.epochs,
        attack=run.recipe.attack,
        generator=generator(DEVICE, 0, "attack"),
        model=model,
    )
    return built.method, model, make_optimizer(model, run.recipe), ctx


def batches(count: int, size: int = 128) -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return [
        (
            torch.rand(size, 3, 32, 32, generator=draw).to(DEVICE),
            torch.randint(10, (size,), generator=draw).to(DEVICE),
        )
        for _ in range(count)
    ]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def network(arch: str = "resnet18") -> nn.Module:
    torch.manual_seed(0)
    return build_model(arch, num_classes=10).to(DEVICE).eval()


def test_float32_means_float32() -> None:
    net, x = network(), torch.rand(64, 3, 32, 32, device=DEVICE)
    with torch.no_grad():
        found, folded = net(x), FoldedNetwork(net)(x)
        exact = net.double()(x.double())
    assert relative(found, exact) < 2e-5
    assert relative(folded, exact) < 2e-5


@pytest.mark.parametrize("arch", ["small-cnn", "resnet18", "preactresnet18", "wrn-28-10"])
@pytest.mark.parametrize("bf16", [False, True])
def test_folding_is_accepted(arch: str, bf16: bool) -> None:
    assert fold(network(arch), torch.rand(4, 3, 32, 32, device=DEVICE), bf16=bf16) is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_relu_as_pytorchs(dtype: torch.dtype, training: bool) -> None:
    x = torch.randn(32, 64, 16, 16, device=DEVICE).to(dtype)
    given, results = torch.randn(x.shape, device=DEVICE).to(dtype), []
    for relu in (torch.relu, ReLU().train(training)):
        leaf = x.clone().requires_grad_()
        out = relu(leaf * 1)
        out.backward(given.clone())
        assert leaf.grad is not None
        results.append((out.detach(), leaf.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_a_step_never_waits(method: str) -> None:
    defense, model, optimizer, ctx = ready(method, "bf16")
    ((x, y),) = batches(1)
    for _ in range(2):
        train_step(model, defense, x, y, ctx, optimizer)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(model, defense, x, y, ctx, optimizer)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("method", METHODS)
def test_recorded_steps_train_as_ordinary_ones(method: str) -> None:
    losses = []
    for graphs in (None, CudaGraphs(DEVICE)):
        defense, model, optimizer, ctx = ready(method, "bf16")
        stepper = Stepper(model, defense, optimizer, graphs, pytest.fail)
        losses.append([float(stepper(x, y, ctx)) for x, y in batches(8)])
    assert stepper.repeated == 4
    assert losses[0] == losses[1]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("count", [3, 100, 250])
def test_passes_of_fixed_shapes_compute_what_the_network_does(bf16: bool, count: int) -> None:
    net = network()
    x = torch.rand(count, 3, 32, 32, device=DEVICE)
    y = torch.arange(count, device=DEVICE) % 10
    with attack_mode(net):
        view = FoldedNetwork(net, bf16=bf16)
        fixed = FixedShapes(view, CudaGraphs(DEVICE))
        gradients = [input_gradient(one, x, y, cross_entropy_sum) for one in (view, fixed)]
        with torch.no_grad():
            assert relative(fixed(x), view(x)) < (0.02 if bf16 else 1e-5)
    assert relative(gradients[1], gradients[0]) < (0.05 if bf16 else 1e-3)


def test_verdicts_are_those_of_the_cpu() -> None:
    net = network("small-cnn")
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (200, 3, 32, 32), dtype=torch.uint8, generator=draw)
    with torch.no_grad():
        labels = net(images.to(DEVICE) / 255).argmax(1).cpu()
    test = TestSet(images, labels, torch.arange(200))
    found = []
    for device in (torch.device("cpu"), DEVICE):
        model = DefendedModel(net.to(device), lambda logits: logits)
        evaluator = Evaluator(model, test, num_classes=10, device=device)
        found.append(evaluator.run(attack_spec("pgd5", 2 / 255)).pred)
    assert int((found[0] != found[1]).sum()) <= 1


def test_memory_is_estimated_from_above_but_not_far() -> None:
    asked = {"methods": "pgd-at", "dataset": "cifar10-lt", "arch": "resnet18", "device": "cuda"}
    run = make_plan(make_settings({**asked, "precision": "bf16"})).runs[0].run
    costs = measure(run, COUNTS, (3, 32, 32))
    need = MemoryNeed(costs, 128, outer_passes(run, COUNTS), data_bytes=13996 * 3080)
    defense, model, optimizer, ctx = ready("pgd-at", "bf16")
    stepper = Stepper(model, defense, optimizer, CudaGraphs(DEVICE))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for x, y in batches(8):
        stepper(x, y, ctx)
    taken = torch.cuda.max_memory_reserved()
    assert 0.9 * taken < need.bytes() < 2 * taken
