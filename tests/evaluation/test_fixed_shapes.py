"""A search network at a few batch sizes gives the verdicts that it gives at any."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ltrobust.attacks.pgd import attack_mode, input_gradient
from ltrobust.attacks.suite import attack_spec
from ltrobust.config import AttackSpec
from ltrobust.errors import Notice
from ltrobust.evaluation.evaluate import AttackResult, DefendedModel, Evaluator, TestSet
from ltrobust.evaluation.fixed_shapes import SIZES, FixedShapes
from ltrobust.losses import cross_entropy_sum
from ltrobust.models import build_model
from ltrobust.models.folded import FoldedNetwork
from ltrobust.tape import Tapes

CPU = torch.device("cpu")


@pytest.fixture
def net() -> nn.Module:
    return build_model("small-cnn", num_classes=10, in_channels=1, image_size=8).eval()


@pytest.fixture
def test_set(net: nn.Module) -> TestSet:
    images = torch.randint(256, (24, 1, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        labels = net(images / 255).argmax(1)
    labels[::7] = (labels[::7] + 1) % 10
    return TestSet(images, labels, torch.arange(24))


@pytest.mark.parametrize("count", [1, 4, 5, 65])
def test_passes_and_gradients_are_those_of_the_network(net: nn.Module, count: int) -> None:
    x, y = torch.rand(count, 1, 8, 8), torch.arange(count) % 10
    with attack_mode(net):
        view = FoldedNetwork(net)
        fixed = FixedShapes(view, Tapes())
        for _ in range(3):
            x = x.roll(1, 0)
            expected = input_gradient(view, x, y, cross_entropy_sum)
            torch.testing.assert_close(input_gradient(fixed, x, y, cross_entropy_sum), expected)
            with torch.no_grad():
                torch.testing.assert_close(fixed(x), view(x))
    assert len(fixed.recordings) == 2


def judged(
    net: nn.Module, test: TestSet, spec: AttackSpec, *, fixed: bool
) -> tuple[AttackResult, Evaluator]:
    evaluator = Evaluator(DefendedModel(net, lambda z: z), test, num_classes=10, device=CPU)
    evaluator.graphs = Tapes() if fixed else None
    return evaluator.run(spec), evaluator


@pytest.mark.usefixtures("short_autoattack")
@pytest.mark.parametrize("name", ["pgd5", "autoattack"])
def test_verdicts_are_the_same_at_few_sizes(net: nn.Module, test_set: TestSet, name: str) -> None:
    spec = attack_spec(name, 0.05)
    plain, _ = judged(net, test_set, spec, fixed=False)
    fixed, evaluator = judged(net, test_set, spec, fixed=True)
    assert torch.equal(fixed.pred, plain.pred)
    assert fixed.fell == plain.fell
    search = evaluator.search_model("fp32")
    assert isinstance(search, FixedShapes)
    assert {size for size, _ in search.recordings} <= set(SIZES)
    assert search.recordings


def test_a_gradient_of_an_earlier_pass_is_refused(net: nn.Module) -> None:
    with attack_mode(net):
        fixed = FixedShapes(FoldedNetwork(net), Tapes())
        x = torch.rand(3, 1, 8, 8, requires_grad=True)
        first = fixed(x)
        fixed(torch.rand(3, 1, 8, 8, requires_grad=True))
        with pytest.raises(RuntimeError, match="another pass"):
            first.sum().backward()


class Waiting(nn.Module):
    """Looks at a number on the way."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :3] * (2.0 if float(x.sum()) > 0 else 1.0)


def test_what_cannot_be_recorded_runs_as_it_is_and_is_told(net: nn.Module) -> None:
    fixed, x = FixedShapes(Waiting(), Tapes()), torch.rand(3, 1, 8, 8)
    with pytest.warns(Notice, match="cannot be recorded"), torch.no_grad():
        assert torch.equal(fixed(x), Waiting()(x))
    with torch.no_grad():
        assert torch.equal(fixed(x), Waiting()(x))


def test_float32_means_float32_around_verdicts_only(net: nn.Module, test_set: TestSet) -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    seen: list[tuple[bool, bool, bool]] = []

    def note(*_: object) -> None:
        cudnn = torch.backends.cudnn
        seen.append((cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, cudnn.benchmark))

    handle = net.register_forward_hook(note)
    judged(net, test_set, attack_spec("pgd2", 0.05), fixed=False)
    handle.remove()
    assert set(seen) == {(False, False, False)}
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before
