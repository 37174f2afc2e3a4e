"""Wide residual networks with the parameter names of the TRADES code.

TRADES, RoBal and AT-BSL train these; no dropout, as in their recipes.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from ltrobust.models.network import Network, NetworkSpec, global_average
from ltrobust.models.relu import ReLU


class WideResNet(Network):
    """Wide ResNet WRN-depth-widen; 36.5 (28-10) or 46.2 (34-10) million weights, D = 640;
    0.7 million and D = 128 for 16-2.

    Paper: Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016.

    Parameter names: `conv1`, `block{1-3}.layer.{i}.{bn1,conv1,bn2,conv2}`,
    `block{1-3}.layer.0.convShortcut`, `bn1` and `fc`. The TRADES code builds one more block,
    `sub_block1`, that no forward pass uses: it does not exist here, and its entries in a
    checkpoint are ignored on loading, so that such checkpoints still load with `strict=True`.

    Initialisation, as in the TRADES code: convolutions normal with mean 0 and variance
    2 / (k * k * out_channels), batch norm 1 and 0, a linear head's bias 0 and its weight
    PyTorch's default. Other heads initialise themselves.

    Args:
        spec: the shape of the data and the last layer.
        depth: number of layers, 6n + 4 for n residual blocks in each of the three groups.
        widen: factor on the widths 16, 32, 64.
    """

    head_name = "fc"

    def __init__(self, spec: NetworkSpec, *, depth: int, widen: int) -> None:
        super().__init__(spec, feature_dim=64 * widen)
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6n + 4 with n >= 1, got {depth}")
        self.conv1 = nn.Conv2d(spec.in_channels, 16, 3, padding=1, bias=False)
        self.block1 = WideGroup(blocks, 16, 16 * widen, stride=1)
        self.block2 = WideGroup(blocks, 16 * widen, 32 * widen, stride=2)
        self.block3 = WideGroup(blocks, 32 * widen, 64 * widen, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.relu = ReLU()
        self.apply(_initialise)
        self.attach_head(spec.head)
        if isinstance(self.head, nn.Linear) and self.head.bias is not None:
            nn.init.zeros_(self.head.bias)
        self.register_load_state_dict_pre_hook(_drop_unused_block)

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, in_channels, H, W) to the pooled, activated last group, (B, D)."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return global_average(self.relu(self.bn1(x)))


class WideGroup(nn.Module):
    """`blocks` wide blocks of one width; the first one changes width and resolution."""

    def __init__(self, blocks: int, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        first = WideBlock(in_channels, channels, stride)
        self.layer = nn.Sequential(
            first, *(WideBlock(channels, channels, stride=1) for _ in range(blocks - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        return self.layer(x)


class WideBlock(nn.Module):
    """Pre-activation block; a block that changes width projects its activated input."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.relu = ReLU()
        # camel case because published checkpoints spell it so
        self.convShortcut: nn.Conv2d | None = None
        if in_channels != channels:
            self.convShortcut = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        activated = self.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(activated)
        hidden = self.relu(self.bn2(self.conv1(activated)))
        residual = self.conv2(hidden)
        residual += shortcut
        return residual


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def _drop_unused_block(
    _module: nn.Module, state: dict[str, Any], prefix: str, *_rest: object
) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}sub_block1.")]:
        del state[key]
