from __future__ import annotations

import copy
import importlib.util
import io
import math
import os
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor

from ltrobust.errors import UserError
from ltrobust.models import ARCHS, build_model, canonical_arch

WEIGHTS = {
    "resnet18": 11_173_962,
    "preactresnet18": 11_172_170,
    "wrn-28-10": 36_479_194,
    "wrn-34-10": 46_160_474,
    "wrn-16-2": 691_674,
    "resnet50-224": 23_528_522,
    "small-cnn": 242_474,
}
BLOCK = ("conv1", "bn1", "conv2", "bn2")
SMALL = ["resnet18", "preactresnet18", "small-cnn"]


class CountingHead(nn.Module):
    """Not a linear layer, so that a network that assumes one is found out."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.shape = (in_features, num_classes)
        self.weight = nn.Parameter(torch.full((num_classes, in_features), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


def keys(arch: str) -> set[str]:
    with torch.device("meta"):
        return set(build_model(arch, num_classes=10).state_dict())


def layers(arch: str) -> set[str]:
    """State-dict keys without the tensor's own name."""
    return {key.rpartition(".")[0] for key in keys(arch)}


def test_every_architecture_is_registered() -> None:
    assert set(ARCHS) == set(WEIGHTS)


@pytest.mark.parametrize("arch", WEIGHTS)
def test_weights_as_in_the_published_networks(arch: str) -> None:
    with torch.device("meta"):
        model = build_model(arch, num_classes=10)
    assert sum(p.numel() for p in model.parameters()) == WEIGHTS[arch]


@pytest.mark.parametrize(
    ("arch", "weights", "features"),
    [
        ("resnet18:width=16", 701_466, 128),
        ("preactresnet18:width=16", 701_018, 128),
        ("small-cnn:width=8", 15_698, 32),
    ],
)
def test_a_width_scales_every_stage(arch: str, weights: int, features: int) -> None:
    with torch.device("meta"):
        model = build_model(arch, num_classes=10)
    assert sum(p.numel() for p in model.parameters()) == weights
    assert model.feature_dim == features


def test_an_architecture_has_one_spelling() -> None:
    assert canonical_arch("resnet18:width=64") == "resnet18"
    assert canonical_arch("resnet18:width=016") == "resnet18:width=16"
    assert canonical_arch("wrn-28-10") == "wrn-28-10"


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ("resnet18:widht=16", "did you mean 'width'"),
        ("resnet18:width", "positive integer"),
        ("resnet18:width=0", "positive integer"),
        ("resnet18:width=4", "width=4 is too small; use 8 or more"),
        ("preactresnet18:depth=10:width=7", "width=7 is too small"),
        ("resnet18:width=1.5", "positive integer"),
        ("resnet18:width=8:width=16", "given once"),
        ("wrn-28-10:width=16", "takes no parameters"),
        ("resnet19:width=16", "did you mean 'resnet18'"),
    ],
)
def test_wrong_parameters_are_told_in_one_line(arch: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        canonical_arch(arch)


@pytest.mark.parametrize("arch", WEIGHTS)
@pytest.mark.parametrize("size", [32, 64])
def test_shapes_of_features_and_logits(arch: str, size: int) -> None:
    with torch.device("meta"):
        model = build_model(arch, num_classes=7, image_size=size).eval()
        x = torch.rand(2, 3, size, size)
        features = model.features(x)
        logits = model(x)
    assert model.num_classes == 7
    assert features.shape == (2, model.feature_dim)
    assert logits.shape == (2, 7)


@pytest.mark.parametrize("arch", [*SMALL, "wrn-28-10"])
@torch.no_grad()
def test_forward_is_head_of_features(arch: str) -> None:
    model = build_model(arch, num_classes=10).eval()
    x = torch.rand(1, 3, 32, 32)
    logits = model(x)
    assert logits.isfinite().all()
    assert torch.equal(logits, model.head(model.features(x)))


@pytest.mark.parametrize("arch", SMALL)
def test_trains_on_grey_8x8_images(arch: str) -> None:
    model = build_model(arch, num_classes=10, in_channels=1, image_size=8).train()
    F.cross_entropy(model(torch.rand(4, 1, 8, 8)), torch.arange(4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(("size", "maps"), [(8, 2), (16, 4), (17, 5), (32, 8)])
def test_small_cnn_keeps_maps_of_small_images(size: int, maps: int) -> None:
    model = build_model("small-cnn", num_classes=10, in_channels=1, image_size=size).eval()
    seen: list[torch.Size] = []
    model.get_submodule("conv4").register_forward_hook(lambda *args: seen.append(args[2].shape))
    model(torch.rand(1, 1, size, size))
    assert seen == [(1, 128, maps, maps)]


@pytest.mark.parametrize("arch", [arch for arch in WEIGHTS if arch != "resnet50-224"])
def test_pooling_equals_the_published_fixed_window(arch: str) -> None:
    """At 32x32 the last maps are what the published avg_pool2d(4) or (8) covers exactly."""
    last = {"resnet18": "layer4", "preactresnet18": "bn", "small-cnn": "bn4"}.get(arch, "bn1")
    seen: list[torch.Size] = []
    with torch.device("meta"):
        model = build_model(arch, num_classes=10).eval()
        model.get_submodule(last).register_forward_hook(lambda *args: seen.append(args[2].shape))
        model(torch.rand(1, 3, 32, 32))
    side = 4 if arch in {"resnet18", "preactresnet18"} else 8
    assert seen == [(1, model.feature_dim, side, side)]


@pytest.mark.parametrize("arch", WEIGHTS)
def test_head_callable_builds_the_last_layer(arch: str) -> None:
    with torch.device("meta"):
        model = build_model(arch, num_classes=5, head=CountingHead)
    assert isinstance(model.head, CountingHead)
    assert model.head.shape == (model.feature_dim, 5)
    assert not any(isinstance(module, nn.Linear) for module in model.modules())


def test_wide_resnet_leaves_other_heads_as_they_are() -> None:
    model = build_model("wrn-28-10", num_classes=3, head=CountingHead)
    assert torch.equal(model.head.get_parameter("weight"), torch.full((3, 640), 0.5))


def test_same_seed_same_weights() -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(build_model("small-cnn", num_classes=10).state_dict()["conv1.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_resnet18_layout() -> None:
    blocks = {f"layer{s}.{b}.{m}" for s in range(1, 5) for b in range(2) for m in BLOCK}
    shortcuts = {f"layer{s}.0.shortcut.{i}" for s in range(2, 5) for i in range(2)}
    assert layers("resnet18") == {"conv1", "bn1", "linear"} | blocks | shortcuts


def test_preactresnet18_layout_has_a_final_norm() -> None:
    blocks = {f"layer{s}.{b}.{m}" for s in range(1, 5) for b in range(2) for m in BLOCK}
    shortcuts = {f"layer{s}.0.shortcut.0" for s in range(2, 5)}
    assert layers("preactresnet18") == {"conv1", "bn", "linear"} | blocks | shortcuts


@pytest.mark.parametrize(("arch", "depth"), [("wrn-28-10", 4), ("wrn-34-10", 5)])
def test_wide_resnet_layout(arch: str, depth: int) -> None:
    blocks = {f"block{g}.layer.{b}.{m}" for g in range(1, 4) for b in range(depth) for m in BLOCK}
    shortcuts = {f"block{g}.layer.0.convShortcut" for g in range(1, 4)}
    assert layers(arch) == {"conv1", "bn1", "fc"} | blocks | shortcuts


def test_wide_resnet_initialisation() -> None:
    torch.manual_seed(0)
    model = build_model("wrn-28-10", num_classes=10)
    for name in ("block1.layer.0.conv1", "block3.layer.0.conv1", "block2.layer.0.convShortcut"):
        conv = model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        expected = math.sqrt(2 / (conv.kernel_size[0] ** 2 * conv.out_channels))
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.02)
    assert not model.get_parameter("fc.bias").any()
    assert model.get_parameter("fc.weight").abs().max() <= 1 / math.sqrt(640)


def test_wide_resnet_ignores_only_the_unused_block_of_published_checkpoints() -> None:
    with torch.device("meta"):
        model = copy.deepcopy(build_model("wrn-28-10", num_classes=10))
    state = model.state_dict()
    published = {**state, "sub_block1.layer.0.bn1.weight": torch.zeros(16)}
    model.load_state_dict(published, strict=True, assign=True)
    assert "sub_block1.layer.0.bn1.weight" in published
    with pytest.raises(RuntimeError, match=r"block4\.weight"):
        model.load_state_dict({**state, "block4.weight": torch.zeros(1)}, assign=True)


def test_small_cnn_checkpoint_is_below_one_megabyte() -> None:
    state = build_model("small-cnn", num_classes=10).state_dict()
    assert len(save(state)) < 1_000_000


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(UserError, match="'resnet8'; did you mean 'resnet18'"):
        build_model("resnet8", num_classes=10)


@pytest.mark.parametrize("arch", WEIGHTS)
def test_too_small_images_are_refused(arch: str) -> None:
    with pytest.raises(UserError, match=r"images of 7 pixels .* at least 8"):
        build_model(arch, num_classes=10, image_size=7)


def example_checkpoint() -> Path:
    package = importlib.util.find_spec("pyautoattack")
    if package is None or package.origin is None:
        pytest.skip("pyautoattack is not installed")
    path = Path(package.origin).parent / "examples" / "model_test.pt"
    if not path.is_file():
        pytest.skip("this pyautoattack comes without examples/model_test.pt")
    return path


def cifar10_test() -> tuple[Tensor, Tensor]:
    if "LTROBUST_DATA_DIR" not in os.environ:
        pytest.skip("LTROBUST_DATA_DIR is not set, so there are no real CIFAR-10 images")
    path = Path(os.environ["LTROBUST_DATA_DIR"]) / "cifar10" / "test-00000-of-00001.parquet"
    if not path.is_file():
        pytest.skip(f"LTROBUST_DATA_DIR has no {'/'.join(path.parts[-2:])}")
    table = pd.read_parquet(path).head(1000)
    images = [pil_to_tensor(Image.open(io.BytesIO(image["bytes"]))) for image in table["img"]]
    return torch.stack(images) / 255, torch.tensor(table["label"].to_numpy())


def test_resnet18_loads_a_published_checkpoint_strictly() -> None:
    model = build_model("resnet18", num_classes=10)
    state = torch.load(example_checkpoint(), map_location="cpu", weights_only=True)
    model.load_state_dict(state, strict=True)
    assert torch.equal(model.get_parameter("linear.weight"), state["linear.weight"])


@pytest.mark.slow
@pytest.mark.golden
@torch.no_grad()
def test_published_resnet18_scores_as_published_code() -> None:
    """93.7% of the first 1,000 CIFAR-10 test images, fed raw in [0, 1]."""
    model = build_model("resnet18", num_classes=10).eval()
    model.load_state_dict(torch.load(example_checkpoint(), map_location="cpu", weights_only=True))
    x, y = cifar10_test()
    predicted = torch.cat([model(batch).argmax(1) for batch in x.split(100)])
    accuracy = (predicted == y).double().mean().item()
    assert len(y) == 1000
    assert accuracy == pytest.approx(0.937, abs=0.0005)
