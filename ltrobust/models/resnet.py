"""ResNet-18 for small images, with the parameter names of the common CIFAR implementations.

The stem is a 3x3 convolution of stride 1 without max pooling. This is not torchvision's
ImageNet network: checkpoints of the two do not fit each other.
"""

from __future__ import annotations

from torch import Tensor, nn

from ltrobust.errors import UserError
from ltrobust.models.network import Network, NetworkSpec, global_average
from ltrobust.models.relu import ReLU

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Blocks of each stage by depth: 18 and 34 as in the paper, 10 with one each."""


LEAST_WIDTH = 8
"""With fewer channels before a 1x1 convolution of stride 2, oneDNN's backward pass of channels_last
maps writes beyond its memory (torch 2.14 on a CPU, 2 to 6 channels): crashes, or wrong numbers."""


def check_width(name: str, width: int) -> None:
    """Raise UserError when a network of residual blocks is too narrow to be trained safely."""
    if width < LEAST_WIDTH:
        raise UserError(
            f"architecture {name}: width={width} is too small; use {LEAST_WIDTH} or more"
        )


def check_depth(name: str, depth: int) -> None:
    """Raise UserError unless there is a network of this depth."""
    if depth not in BLOCKS:
        raise UserError(
            f"architecture {name}: depth={depth} is not known; use {', '.join(map(str, BLOCKS))}"
        )


class ResNet18(Network):
    """ResNet-18 with a CIFAR stem; 11.2 million weights, D = 512; 0.70 million at width 16.

    Paper: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016; stage
    widths 64, 128, 256, 512 with two basic blocks each and 1x1 projection shortcuts (option B).

    Parameter names: `conv1`, `bn1`, `layer{1-4}.{0,1}.{conv1,bn1,conv2,bn2}`,
    `layer{2-4}.0.shortcut.{0,1}` and `linear`, so that CIFAR ResNet-18 checkpoints of the
    adversarial robustness literature load with `strict=True`.

    Initialisation: PyTorch's defaults.

    Args:
        spec: the shape of the data and the last layer.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        depth: layers: 18, or 10 or 34, see `BLOCKS`.
    """

    def __init__(self, spec: NetworkSpec, *, width: int = 64, depth: int = 18) -> None:
        super().__init__(spec, feature_dim=8 * width)
        self.conv1 = nn.Conv2d(spec.in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        first, second, third, fourth = BLOCKS[depth]
        self.layer1 = _stage(first, width, width, stride=1)
        self.layer2 = _stage(second, width, 2 * width, stride=2)
        self.layer3 = _stage(third, 2 * width, 4 * width, stride=2)
        self.layer4 = _stage(fourth, 4 * width, 8 * width, stride=2)
        self.relu = ReLU()
        self.attach_head(spec.head)

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, in_channels, H, W) to the pooled last stage, (B, D)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return global_average(x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each followed by batch norm, plus a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            projection = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        residual += self.shortcut(x)
        return self.relu(residual)


def _stage(blocks: int, in_channels: int, channels: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(
        first, *(BasicBlock(channels, channels, stride=1) for _ in range(blocks - 1))
    )
