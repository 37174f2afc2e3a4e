"""What saves memory changes no result: checkpointed blocks, and attacks on pieces of the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.config import Run, TrainingAttack
from ltrobust.data import load_data
from ltrobust.method import METHODS, Context, load_builtin_methods
from ltrobust.models import Network, build_model
from ltrobust.training import captured
from ltrobust.training.engine import TrainingModel
from ltrobust.training.recompute import recomputed, repeated_blocks
from ltrobust.training.step import train_step
from ltrobust.training.trainer import Thrift, train

load_builtin_methods()
COUNTS = torch.tensor([9, 6, 3])
BLOCKS = {"resnet18": 8, "preactresnet18": 8, "wrn-28-10": 12, "resnet50-224": 16, "small-cnn": 0}


def network(arch: str) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build_model(arch, num_classes=3, image_size=16)


def images(count: int = 6) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, 16, 16, generator=draw), torch.arange(count) % 3


def context(steps: int = 1, micro_batch: int | None = None) -> Context:
    attack = TrainingAttack(eps=0.1, step_size=0.03, steps=steps)
    draw = torch.Generator().manual_seed(7)
    return Context(COUNTS, 9, 10, attack, draw, micro_batch=micro_batch)


@pytest.mark.parametrize("arch", BLOCKS)
def test_the_blocks_of_a_network_are_its_residual_blocks(arch: str) -> None:
    net = build_model(arch, num_classes=3)
    blocks = repeated_blocks(net)
    assert len(blocks) == BLOCKS[arch]
    assert not any(isinstance(block, nn.Sequential) for block in blocks)


@pytest.mark.parametrize(
    ("arch", "method", "precision"),
    [
        ("resnet18", "trades", "fp32"),
        pytest.param("resnet18", "pgd-at", "bf16", marks=pytest.mark.slow),
        ("preactresnet18", "robal", "fp32"),
    ],
)
def test_checkpointed_training_ends_with_the_same_bits(
    arch: str, method: str, precision: str
) -> None:
    """Running statistics among them: they move once a pass, not once more when it is repeated."""
    ended = []
    for on in (False, True):
        defense = METHODS.get(method)(COUNTS)
        net = network(arch)
        model = TrainingModel(net, precision, grad_checkpointing=on)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ctx = context()
        for _ in range(2):
            train_step(model, defense, *images(), ctx)
            optimizer.step()
        ended.append((net.state_dict(), model.take_accuracy()))
    (plain, accuracy), (again, other) = ended
    assert accuracy == other
    for name, value in plain.items():
        assert torch.equal(value, again[name]), name
    passes = 2 if method in ("trades", "robal") else 1
    assert int(again["layer1.0.bn1.num_batches_tracked"]) == 2 * passes


class Drops(nn.Module):
    """A block with randomness of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3, momentum=None)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.norm(self.conv(x)), 0.5, self.training)


def test_a_repeated_block_draws_the_same_random_numbers() -> None:
    found = []
    for on in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(Drops(), Drops())
        x = images()[0].requires_grad_()
        blocks = repeated_blocks(net) if on else ()
        assert len(blocks) == (2 if on else 0)
        with recomputed(blocks):
            out = net(x)
        out.square().sum().backward()
        found.append((x.grad, torch.rand(3), *net.state_dict().values()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_blocks_are_computed_twice_only_where_weights_are_trained() -> None:
    net = network("resnet18")
    model = TrainingModel(net, "fp32", grad_checkpointing=True)
    passes: list[bool] = []
    first = repeated_blocks(net)[0].conv1  # type: ignore[union-attr]
    first.register_forward_hook(lambda *_: passes.append(True))
    x, y = images()
    F.cross_entropy(model.train()(x), y).backward()
    assert len(passes) == 2
    with torch.no_grad():
        model(x)
    assert len(passes) == 3
    F.cross_entropy(model.eval()(x), y).backward()
    assert len(passes) == 4


def test_a_failing_pass_leaves_the_blocks_as_they_were() -> None:
    net = network("resnet18")
    with pytest.raises(RuntimeError), recomputed(repeated_blocks(net)):
        net(torch.rand(2, 5, 16, 16))
    assert not [module for module in net.modules() if "forward" in vars(module)]


@pytest.mark.parametrize("method", ["pgd-at", "trades"])
@pytest.mark.parametrize("size", [1, 4, 6, 100])
def test_an_attack_in_pieces_is_the_attack_on_the_whole_batch(method: str, size: int) -> None:
    """Up to rounding: convolutions may add up in another order for another batch size."""
    found = []
    for micro_batch in (None, size):
        defense, model = METHODS.get(method)(COUNTS), TrainingModel(network("small-cnn"), "fp32")
        x, y = images()
        ctx = context(steps=3, micro_batch=micro_batch)
        found.append(defense.attack(model.train(), x, y, ctx))
        # the random stream goes on from the same place
        found.append(torch.rand(3, generator=ctx.generator))
    assert torch.allclose(found[0], found[2], atol=1e-5)
    assert torch.equal(found[1], found[3])
    assert float((found[0] - x).abs().max()) > 0.05


def test_pieces_are_no_larger_than_asked_for() -> None:
    x, y = images(7)
    sizes: list[int] = []

    def loss(logits: Tensor, labels: Tensor, row: Tensor) -> Tensor:
        sizes.append(len(logits))
        assert torch.equal(labels, y[row])
        return F.cross_entropy(logits, labels, reduction="sum")

    model = TrainingModel(network("small-cnn"), "fp32").train()
    ctx = context(steps=1, micro_batch=3)
    found = ctx.pgd(model, x, y, loss, torch.arange(7))
    assert sizes == [3, 3, 1]
    assert found.shape == x.shape
    assert model.training


def tiny(**flags: Any) -> Run:
    asked = {"methods": "trades", "epochs": 2, "batch_size": 32, "device": "cpu", **flags}
    return make_plan(make_settings(asked)).runs[0].run


def test_a_thrifty_training_ends_with_the_same_weights() -> None:
    data = load_data("digits-lt", limit_train=100, limit_test=20)
    ends = [
        train(tiny(), data, device=torch.device("cpu"), thrift=thrift).net.state_dict()
        for thrift in (Thrift(), Thrift(grad_checkpointing=True, micro_batch=9))
    ]
    for name, value in ends[0].items():
        assert torch.allclose(value.float(), ends[1][name].float(), atol=1e-4), name


@pytest.mark.slow
def test_the_trainer_hands_thrift_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int | None, bool]] = []
    real = captured.train_step

    def step(
        model: TrainingModel, method: Any, x: Tensor, y: Tensor, ctx: Context, *rest: Any
    ) -> Any:
        seen.append((ctx.micro_batch, bool(model._blocks)))
        return real(model, method, x, y, ctx, *rest)

    monkeypatch.setattr(captured, "train_step", step)
    data = load_data("digits-lt", limit_train=60, limit_test=20)
    run = tiny(epochs=1, arch="resnet18", methods="taet")
    train(run, data, device=torch.device("cpu"), thrift=Thrift(True, 5))
    assert set(seen) == {(5, True)}
