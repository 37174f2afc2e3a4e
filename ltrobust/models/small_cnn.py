"""A four-convolution network that trains adversarially on a laptop's CPU.

For demonstrations, tests and CPU suites; it is nobody's published architecture, so its numbers
compare with each other only.
"""

from __future__ import annotations

from torch import Tensor, nn

from ltrobust.models.network import Network, NetworkSpec, global_average
from ltrobust.models.relu import ReLU


class SmallCNN(Network):
    """Four bias-free 3x3 convolutions with batch norm and ReLU; 0.24 million weights, D = 128.

    Paper: none; a plain convolutional network with the batch normalisation of Ioffe, Szegedy
    (ICML 2015) and the global average pooling of Lin, Chen, Yan, "Network In Network" (ICLR 2014).

    Widths 32, 64, 128, 128; strides 1, 2, 2, 1. Its checkpoint stays below 1 MB.

    Parameter names: `conv{1-4}`, `bn{1-4}` and `linear`. Initialisation: PyTorch's defaults.

    Args:
        spec: the shape of the data and the last layer.
        width: channels of the first convolution; the others have 2, 4 and 4 times as many.
    """

    def __init__(self, spec: NetworkSpec, *, width: int = 32) -> None:
        super().__init__(spec, feature_dim=4 * width)
        self.conv1 = _conv(spec.in_channels, width, stride=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, 2 * width, stride=2)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.conv3 = _conv(2 * width, 4 * width, stride=2)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.conv4 = _conv(4 * width, 4 * width, stride=1)
        self.bn4 = nn.BatchNorm2d(4 * width)
        self.relu = ReLU()
        self.attach_head(spec.head)

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, in_channels, H, W) to the pooled last maps, (B, D)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.relu(self.bn3(self.conv3(x)))
        x = self.relu(self.bn4(self.conv4(x)))
        return global_average(x)


def _conv(in_channels: int, channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
