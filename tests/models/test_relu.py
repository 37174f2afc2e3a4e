"""Our networks' ReLU computes what PyTorch's does, bit for bit, and spoils no one's tensor."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.attacks.pgd import attack_mode, input_gradient
from ltrobust.losses import cross_entropy_sum
from ltrobust.models import build_model
from ltrobust.models.folded import FoldedNetwork
from ltrobust.models.relu import ReLU
from ltrobust.training.engine import TrainingModel

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
ARCHS = ("small-cnn", "resnet18", "preactresnet18", "wrn-28-10")


def maps(dtype: torch.dtype, layout: str = "contiguous") -> Tensor:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 4, 4, generator=draw)
    x[0, 0, 0] = torch.tensor([0.0, -0.0, float("inf"), float("-inf")])
    x[0, 0, 1] = torch.tensor([1e-39, -1e-39, 1e38, -1e38])
    return x.to(dtype).contiguous(memory_format=FORMATS[layout])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_values_and_gradients_are_those_of_pytorch(
    dtype: torch.dtype, layout: str, training: bool
) -> None:
    x = maps(dtype, layout)
    given = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    results = []
    for relu in (F.relu, ReLU() if training else ReLU().eval()):
        leaf = x.clone().requires_grad_()
        y = relu(leaf * 1)
        y.backward(given.clone())
        results.append((y.detach(), leaf.grad))
    (y, gradient), (expected, theirs) = results
    assert torch.equal(y, expected)
    assert torch.equal(gradient, theirs)


def test_it_writes_over_its_argument() -> None:
    x = maps(torch.float32)
    assert ReLU()(x).data_ptr() == x.data_ptr()
    assert float(x.min()) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gradient_whose_entries_share_memory_is_copied_first(dtype: torch.dtype) -> None:
    leaf = maps(dtype, "channels_last").nan_to_num(posinf=3, neginf=-3).requires_grad_()
    shared = torch.ones((), dtype=dtype)
    ReLU()(leaf * 1).backward(shared.expand(leaf.shape))
    assert shared == 1
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, (leaf > 0).to(dtype))


def test_second_derivatives_are_right() -> None:
    x = torch.randn(3, 4, dtype=torch.double, requires_grad=True)
    relu = ReLU()
    assert torch.autograd.gradcheck(lambda t: relu(t * 1) ** 2, x)
    assert torch.autograd.gradgradcheck(lambda t: relu(t * 1) ** 2, x)


def with_pytorchs(net: nn.Module) -> nn.Module:
    """A copy of the network with PyTorch's ReLU that overwrites nothing."""
    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ReLU):
                setattr(parent, name, nn.ReLU())
    return net


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("arch", ARCHS)
def test_networks_have_the_gradients_that_they_would_have_with_pytorchs(
    arch: str, training: bool
) -> None:
    """Else something in them does not make a gradient of its own, and got a spoilt one."""
    torch.manual_seed(0)
    net = build_model(arch, num_classes=5, in_channels=3, image_size=8).train(training)
    plain = with_pytorchs(net)
    assert any(isinstance(module, ReLU) for module in net.modules())
    assert not any(isinstance(module, ReLU) for module in plain.modules())
    x, y = torch.rand(3, 3, 8, 8), torch.arange(3)
    gradients = []
    for each in (net, plain):
        images = x.clone().requires_grad_()
        F.cross_entropy(each(images), y).backward()
        gradients.append([images.grad, *(p.grad for p in each.parameters())])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("arch", ["small-cnn", "resnet18"])
def test_attacks_on_the_folded_view_find_what_they_find_on_pytorchs(arch: str) -> None:

    torch.manual_seed(0)
    net = build_model(arch, num_classes=5, in_channels=3, image_size=8).eval()
    plain, (x, y) = with_pytorchs(net), (torch.rand(3, 3, 8, 8), torch.arange(3))
    found = []
    for each in (net, plain):
        with attack_mode(each):
            found.append(input_gradient(FoldedNetwork(each), x, y, cross_entropy_sum))
    assert torch.equal(*found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_gradients_it_is_the_same(dtype: torch.dtype) -> None:
    x = maps(dtype)
    for relu in (ReLU(), ReLU().eval()):
        assert torch.equal(relu(x.clone()), F.relu(x))
        with torch.no_grad():
            assert torch.equal(relu(x.clone()), F.relu(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_stays_nan_in_training(dtype: torch.dtype) -> None:
    """Else a training that has diverged would go on with zeros."""
    x = torch.full((64,), float("nan")).to(dtype).requires_grad_()
    assert bool(ReLU()(x * 1).isnan().all())
    with torch.no_grad():
        assert bool(ReLU()(x * 1).isnan().all())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_diverged_network_has_a_loss_that_is_not_finite(precision: str) -> None:
    net = build_model("small-cnn", num_classes=5, in_channels=3, image_size=8)
    torch.nn.init.constant_(net.conv2.weight, float("nan"))
    model = TrainingModel(net, precision).train()
    assert not torch.isfinite(F.cross_entropy(model(torch.rand(4, 3, 8, 8)), torch.arange(4)))


def test_functional_gradients_work() -> None:
    relu, x = ReLU(), torch.tensor([-1.0, 2.0])
    assert torch.func.grad(lambda t: (relu(t * 1) ** 2).sum())(x).tolist() == [0.0, 4.0]


def test_networks_can_be_exported() -> None:
    net = build_model("small-cnn", num_classes=5, in_channels=3, image_size=8).eval()
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        expected = net(x)
    for exported in (torch.jit.trace(net, x), torch.export.export(net, (x,)).module()):
        assert torch.allclose(exported(x), expected, atol=1e-6)
