"""Pre-activation ResNet-18 for small images, the network of many fast adversarial trainings.

Same stem and stages as `ltrobust.models.resnet`, but normalised before each convolution; the
two share no weights and no checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn

from ltrobust.models.network import Network, NetworkSpec, global_average
from ltrobust.models.relu import ReLU
from ltrobust.models.resnet import BLOCKS


class PreActResNet18(Network):
    """Pre-activation ResNet-18 with a CIFAR stem; 11.2 million weights, D = 512.

    Paper: He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016.

    Two layouts are in use. This one has the final batch norm `bn` and ReLU before pooling, as
    in the paper and in the adversarial training code of Rice, Wong, Kolter ("Overfitting in
    adversarially robust deep learning", ICML 2020) and its many descendants; projection
    shortcuts start from the activated input. The other layout (kuangliu/pytorch-cifar, and the
    Fast AT model in RobustBench) has no final `bn`: its checkpoints are refused by
    `strict=True` for want of `bn.*`.

    Parameter names: `conv1`, `layer{1-4}.{0,1}.{bn1,conv1,bn2,conv2}`, `layer{2-4}.0.shortcut.0`,
    `bn` and `linear`. Initialisation: PyTorch's defaults.

    Args:
        spec: the shape of the data and the last layer.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        depth: layers: 18, or 10 or 34, see `ltrobust.models.resnet.BLOCKS`.
    """

    def __init__(self, spec: NetworkSpec, *, width: int = 64, depth: int = 18) -> None:
        super().__init__(spec, feature_dim=8 * width)
        self.conv1 = nn.Conv2d(spec.in_channels, width, 3, padding=1, bias=False)
        first, second, third, fourth = BLOCKS[depth]
        self.layer1 = _stage(first, width, width, stride=1)
        self.layer2 = _stage(second, width, 2 * width, stride=2)
        self.layer3 = _stage(third, 2 * width, 4 * width, stride=2)
        self.layer4 = _stage(fourth, 4 * width, 8 * width, stride=2)
        self.bn = nn.BatchNorm2d(8 * width)
        self.relu = ReLU()
        self.attach_head(spec.head)

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, in_channels, H, W) to the pooled, activated last stage, (B, D)."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return global_average(self.relu(self.bn(x)))


class PreActBlock(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, twice, plus a shortcut that is not normalised."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.relu = ReLU()
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or in_channels != channels:
            projection = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        activated = self.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        residual = self.conv2(self.relu(self.bn2(self.conv1(activated))))
        residual += shortcut
        return residual


def _stage(blocks: int, in_channels: int, channels: int, stride: int) -> nn.Sequential:
    first = PreActBlock(in_channels, channels, stride)
    return nn.Sequential(
        first, *(PreActBlock(channels, channels, stride=1) for _ in range(blocks - 1))
    )
