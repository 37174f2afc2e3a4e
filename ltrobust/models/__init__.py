"""The architectures by name, and the one function that builds them.

Networks are built with fresh weights; loading a checkpoint is not done here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from ltrobust.models.network import HeadFactory, Network, NetworkSpec
from ltrobust.models.preact_resnet import PreActResNet18
from ltrobust.models.resnet import ResNet18
from ltrobust.models.resnet50 import ResNet50At224
from ltrobust.models.small_cnn import SmallCNN
from ltrobust.models.wideresnet import WideResNet
from ltrobust.registry import Registry

__all__ = ["ARCHS", "HeadFactory", "Network", "NetworkSpec", "build_model"]

ARCHS: Registry[Callable[[NetworkSpec], Network]] = Registry("architecture")
ARCHS.add("resnet18", ResNet18)
ARCHS.add("preactresnet18", PreActResNet18)
ARCHS.add("wrn-28-10", partial(WideResNet, depth=28, widen=10))
ARCHS.add("wrn-34-10", partial(WideResNet, depth=34, widen=10))
ARCHS.add("resnet50-224", ResNet50At224)
ARCHS.add("small-cnn", SmallCNN)


def build_model(
    arch: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int = 32,
    head: HeadFactory | None = None,
) -> Network:
    """Build a network with fresh weights, drawn from torch's current random state.

    Args:
        arch: a name in `ARCHS`.
        num_classes: number of logits C.
        in_channels: channels of the images.
        image_size: height and width of the images in pixels, 8 or more.
        head: builds the last layer from `(in_features, num_classes)`; default `nn.Linear`.

    Returns:
        A network that maps float images (B, in_channels, H, W) in [0, 1] to logits (B, C).

    Raises:
        UserError: the name is unknown, or the images are too small for the architecture.
    """
    spec = NetworkSpec(num_classes, in_channels, image_size, head or nn.Linear)
    return ARCHS.get(arch)(spec)
