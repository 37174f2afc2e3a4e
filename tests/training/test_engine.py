"""What a defense meets during training, and that its faster side computes the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.attacks.pgd import attack_mode, input_gradient, pgd
from ltrobust.errors import Notice
from ltrobust.losses import cross_entropy_sum
from ltrobust.models import ARCHS, build_model
from ltrobust.models.folded import FoldedNetwork, fold
from ltrobust.models.heads import CosineHead
from ltrobust.training.engine import TrainingModel

SMALL = ("small-cnn", "resnet18", "preactresnet18", "wrn-28-10")


def network(arch: str = "small-cnn", **more: object) -> nn.Module:
    """A network whose batch norms have statistics and weights of their own."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = build_model(arch, num_classes=5, in_channels=3, image_size=16, **more)  # type: ignore[arg-type]
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean = torch.randn_like(module.running_mean) * 0.3  # type: ignore[arg-type]
                module.running_var = torch.rand_like(module.running_var) + 0.5  # type: ignore[arg-type]
                module.weight.data = torch.rand_like(module.weight) + 0.5
                module.bias.data = torch.randn_like(module.bias) * 0.3
    return net.eval()


def batch(count: int = 4) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, 16, 16, generator=draw), torch.arange(count) % 5


@pytest.mark.parametrize("arch", SMALL)
def test_a_folded_view_has_the_logits_and_gradients_of_its_network(arch: str) -> None:
    net, (x, y) = network(arch), batch(2)
    view = FoldedNetwork(net)
    with attack_mode(net):
        expected, found = net(x), view(x)
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        ours = input_gradient(view, x, y, cross_entropy_sum)
        theirs = input_gradient(net, x, y, cross_entropy_sum)
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))
    assert ours.is_contiguous()


def test_all_foldable_batch_norms_are_folded() -> None:
    body = FoldedNetwork(network("resnet18"))._body[0]
    assert not [m for m in body.modules() if isinstance(m, nn.BatchNorm2d)]
    # in pre-activation networks the norm before the first convolution of a block stays
    assert [
        m
        for m in FoldedNetwork(network("preactresnet18"))._body[0].modules()
        if isinstance(m, nn.BatchNorm2d)
    ]


def test_a_view_shares_its_networks_parameters_and_adds_none() -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    view = FoldedNetwork(net)
    assert not list(view.parameters())
    assert not view.state_dict()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


class Undecided(nn.Module):
    """Its control flow depends on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.norm(self.conv(x)) if x.mean() > 0.3 else self.conv(x)
        return maps.mean(dim=(2, 3))


def test_what_cannot_be_folded_is_run_as_it_is() -> None:
    x, _ = batch()
    with pytest.warns(Notice, match=r"as it is.*control flow"):
        assert fold(Undecided().eval(), x) is None
    model = TrainingModel(Undecided(), "fp32")  # type: ignore[arg-type]
    with attack_mode(model):
        assert torch.allclose(model(x), model.net(x), atol=1e-6)


class Noisy(nn.Module):
    """Folding it changes its logits, because nothing computes them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean(dim=(2, 3)) + torch.rand(len(x), 5)


def test_a_view_that_computes_something_else_is_not_used() -> None:
    with pytest.warns(Notice, match="cannot be folded"):
        assert fold(Noisy().eval(), batch()[0]) is None


class Drifting(nn.Module):
    """Its logits are off by a share of the largest one in every pass but the first."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.share = share
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        logits = self.conv(x).mean(dim=(2, 3)) * 1000
        self.passes += isinstance(logits, Tensor)  # not while it is traced
        return logits * (1 + self.share) if isinstance(logits, Tensor) else logits


@pytest.mark.parametrize(("share", "used"), [(0.0, True), (3e-5, True), (3e-4, False), (-1, False)])
def test_a_view_may_differ_by_rounding_and_no_more(share: float, used: bool) -> None:
    assert (fold(Drifting(share).eval(), batch()[0]) is not None) is used


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_norm_takes_up_the_bias_of_its_convolution(bias: bool, affine: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv, norm = nn.Conv2d(3, 5, 3, bias=bias), nn.BatchNorm2d(5, affine=affine)
        norm.running_mean, norm.running_var = torch.randn(5), torch.rand(5) + 0.5
        for parameter in norm.parameters():
            parameter.data = torch.randn(5)
        if conv.bias is not None:
            conv.bias.data = torch.randn(5) * 3
    net, (x, _) = nn.Sequential(conv, norm, nn.AvgPool2d(14), nn.Flatten()).eval(), batch()
    view = FoldedNetwork(net)
    assert not [m for m in view._body[0].modules() if isinstance(m, nn.BatchNorm2d)]
    assert torch.allclose(view(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", [nn.Linear, lambda d, c: CosineHead(d, c, gamma=1 / 32)])
def test_attacks_see_the_weights_of_the_present_step(head: object) -> None:
    """The view must follow every optimizer step and every change of the statistics."""
    net = network(head=head)
    model, (x, y) = TrainingModel(net, "fp32"), batch()  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        model.train()
        with attack_mode(model):
            found, expected = model(x), net(x)
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        assert torch.allclose(model(x), net(x), rtol=1e-3, atol=1e-4)


def test_the_loss_in_eval_mode_still_reaches_every_parameter() -> None:
    model, (x, y) = TrainingModel(network(), "fp32"), batch()  # type: ignore[arg-type]
    model.eval()
    F.cross_entropy(model(x), y).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_training_model_has_the_parameters_of_its_network_and_no_others() -> None:
    net = network()
    model, (x, _) = TrainingModel(net, "bf16"), batch()  # type: ignore[arg-type]
    names = [name for name, _ in model.named_parameters()]
    with attack_mode(model):
        model(x)
    assert [name for name, _ in model.named_parameters()] == names
    assert [name.removeprefix("net.") for name in names] == [n for n, _ in net.named_parameters()]


@pytest.mark.parametrize("arch", ["small-cnn", "resnet18"])
def test_bfloat16_attacks_move_the_same_way(arch: str) -> None:
    x, y = batch(8)
    made = []
    for precision in ("fp32", "bf16"):
        model = TrainingModel(network(arch), precision)  # type: ignore[arg-type]
        with attack_mode(model):
            logits = model(x)
        assert logits.dtype == torch.float32
        made.append(pgd(model, x, y, eps=0.03, step_size=0.03, steps=1, loss=cross_entropy_sum))
    same = ((made[0] - x).sign() == (made[1] - x).sign()).float().mean()
    assert float(same) > 0.9


def test_every_architecture_can_be_folded() -> None:
    for name in ARCHS:
        size = 32 if name != "resnet50-224" else 64
        if name == "wrn-34-10":
            continue  # wrn-28-10 with more blocks
        net = build_model(name, num_classes=3, in_channels=3, image_size=size).eval()
        assert fold(net, torch.rand(2, 3, size, size)) is not None, name


def test_logits_of_a_bfloat16_view_are_not_rounded_to_bfloat16() -> None:
    """Attacks compare logits: steps of a hundredth would hide who leads."""
    net, (x, _) = network(), batch(8)
    view = fold(net, x, bf16=True)
    assert view is not None
    with torch.no_grad():
        logits, expected = view(x), net(x)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())
    assert torch.allclose(logits, expected, atol=0.05 * float(expected.abs().max()))


class Scaled(nn.Module):
    """Its last layer wants to be told something by name, and its first is called last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.head = Head(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        first = self.head(self.conv(x).mean(dim=(2, 3)), scale=2.0)
        return first + self.head(self.conv(x.flip(3)).mean(dim=(2, 3)), scale=0.5)


class Head(nn.Linear):
    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return scale * super().forward(x)


def test_the_last_layer_may_take_more_arguments_and_be_called_twice() -> None:
    torch.manual_seed(0)
    net, (x, _) = Scaled().eval(), batch(8)
    view = fold(net, x, bf16=True)
    assert view is not None
    with torch.no_grad():
        logits, expected = view(x), net(x)
    assert not torch.equal(logits, logits.bfloat16().float())
    assert torch.allclose(logits, expected, atol=0.02 * float(expected.abs().max()))
