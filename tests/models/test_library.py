"""Networks of torchvision and timm as ours."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from ltrobust.errors import UserError
from ltrobust.models import build_model, canonical_arch
from ltrobust.models.folded import fold
from ltrobust.models.resnet import BLOCKS
from ltrobust.training.recompute import repeated_blocks


def meta(arch: str, **changes: Any) -> Any:
    with torch.device("meta"):
        return build_model(arch, **{"num_classes": 7, **changes})


def weights(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_a_network_of_torchvision_is_theirs_but_for_the_last_layer() -> None:
    torch.manual_seed(0)
    ours = build_model("torchvision:resnet18", num_classes=7, image_size=64).eval()
    theirs = models.resnet18(num_classes=7).eval()
    state = {k.removeprefix("body."): v for k, v in ours.state_dict().items()}
    state["fc.weight"], state["fc.bias"] = state.pop("linear.weight"), state.pop("linear.bias")
    theirs.load_state_dict(state)
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(ours(x), theirs(x))
    assert ours.feature_dim == 512
    assert torch.equal(ours.head(ours.features(x)), ours(x))
    assert repeated_blocks(ours)


@pytest.mark.parametrize(
    "name",
    [
        *("densenet121", "mobilenet_v3_small", "shufflenet_v2_x0_5", "vgg11_bn", "mnasnet0_5"),
        *("convnext_tiny", "efficientnet_b0", "alexnet", "vit_b_16", "swin_t"),
    ],
)
def test_many_kinds_of_torchvision(name: str) -> None:
    model = meta(f"torchvision:{name}", image_size=64, head=None)
    assert isinstance(model.head, nn.Linear)
    assert model.head.out_features == 7
    theirs = meta_theirs(name)
    assert weights(model) - weights(model.head) == theirs


def meta_theirs(name: str) -> int:
    with torch.device("meta"):
        try:
            model = models.get_model(name, weights=None, image_size=64)
        except TypeError:
            model = models.get_model(name, weights=None)
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    return weights(model) - weights(last)


def test_a_small_stem_keeps_every_pixel() -> None:
    model = meta("torchvision:resnet18:stem=cifar")
    body = model.body
    assert (body.conv1.kernel_size, body.conv1.stride, body.conv1.padding) == (
        (3, 3),
        (1, 1),
        (1, 1),
    )
    assert isinstance(body.maxpool, nn.Identity)
    # the same layers as our own ResNet-18, which has the same stem
    assert weights(model) == weights(meta("resnet18"))
    assert isinstance(meta("torchvision:resnet18").body.maxpool, nn.MaxPool2d)
    dense = meta("torchvision:densenet121:stem=cifar").body.features
    assert isinstance(dense.pool0, nn.Identity)


def test_grey_images_take_one_channel() -> None:
    assert meta("torchvision:resnet18", in_channels=1).body.conv1.weight.shape == (64, 1, 7, 7)
    small = meta("torchvision:resnet18:stem=cifar", in_channels=1)
    assert small.body.conv1.weight.shape == (64, 1, 3, 3)


def test_attacks_can_search_with_a_folded_view() -> None:
    model = build_model("torchvision:resnet18:stem=cifar", num_classes=3, image_size=8).eval()
    assert fold(model, torch.rand(2, 3, 8, 8)) is not None


def test_an_architecture_of_a_library_has_one_spelling() -> None:
    assert canonical_arch("torchvision:resnet18:stem=own") == "torchvision:resnet18"
    assert canonical_arch("torchvision:resnet18:stem=cifar") == "torchvision:resnet18:stem=cifar"
    assert canonical_arch("wrn-016-2") == "wrn-16-2"
    assert canonical_arch("wrn-40-4") == "wrn-40-4"
    assert canonical_arch("resnet18:depth=18") == "resnet18"
    assert canonical_arch("resnet18:depth=34:width=16") == "resnet18:width=16:depth=34"


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ("torchvision:resnet19", "did you mean 'resnet18'"),
        ("torchvision", "unknown architecture of torchvision ''"),
        ("torchvision:resnet18:stem=cifer", "did you mean 'cifar'"),
        ("torchvision:resnet18:width=3", "unknown parameter"),
        ("torchvision:resnet18:stem=cifar:stem=own", "given once"),
        ("torch:resnet18", "unknown architecture 'torch'"),
        ("resnet18:depth=20", "use 10, 18, 34"),
        ("wrn-27-10", "6n"),
    ],
)
def test_wrong_names_are_told_in_one_line(arch: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        canonical_arch(arch)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("arch", "size", "said"),
    [
        ("torchvision:squeezenet1_0", 64, "does not end in a linear layer"),
        ("torchvision:googlenet", 64, "has auxiliary outputs"),
        ("torchvision:vit_b_16", 20, "does not take images of 20 pixels"),
        ("torchvision:vgg11:stem=cifar", 32, "has stride 1 already"),
        ("torchvision:alexnet", 16, "does not take images of 16 pixels"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(arch: str, size: int, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        meta(arch, image_size=size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["resnet18", "preactresnet18"])
@pytest.mark.parametrize("depth", BLOCKS)
def test_a_depth_sets_the_blocks(family: str, depth: int) -> None:
    model = meta(f"{family}:depth={depth}:width=8")
    stages = tuple(len(getattr(model, f"layer{i}")) for i in range(1, 5))
    assert stages == BLOCKS[depth]
    convolutions = [
        m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)
    ]
    assert len(convolutions) + 1 == depth


class Tiny(nn.Module):
    """What timm would build."""

    def __init__(self, in_chans: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, 5, 7, stride=2, padding=3)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(x)).mean(dim=(2, 3))


@pytest.fixture
def timm_stub(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = types.ModuleType("timm")

    def create_model(name: str, *, pretrained: bool, num_classes: int, in_chans: int) -> nn.Module:
        assert (name, pretrained, num_classes) == ("tiny", False, 0)
        return Tiny(in_chans)

    stub.list_models = lambda: ["tiny", "tinier"]  # type: ignore[attr-defined]
    stub.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", stub)


@pytest.mark.usefixtures("timm_stub")
def test_timm_gives_a_body() -> None:
    model = build_model("timm:tiny:stem=cifar", num_classes=4, in_channels=1, image_size=16)
    assert model(torch.rand(3, 1, 16, 16)).shape == (3, 4)
    assert model.feature_dim == 5
    assert model.get_submodule("body.conv").kernel_size == (3, 3)
    assert isinstance(model.get_submodule("body.pool"), nn.Identity)
    with pytest.raises(UserError, match="weights are always fresh; write timm:tiny"):
        canonical_arch("timm:tiny.in1k")


def test_timm_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'ltrobust\[timm\]'"):
        canonical_arch("timm:resnet18")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_050"]
)
def test_the_real_timm(name: str) -> None:
    pytest.importorskip("timm")
    model = build_model(f"timm:{name}", num_classes=4, image_size=32).eval()
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 4)
    assert isinstance(model.head, nn.Linear)
