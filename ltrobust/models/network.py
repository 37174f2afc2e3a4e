"""What every architecture has in common: features, one last layer, logits.

Methods and attacks rely on this interface only. Last layers other than `nn.Linear` are built by
the `head` callable that a caller passes in; input normalisation is not done here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ltrobust.errors import UserError

HeadFactory = Callable[[int, int], nn.Module]
"""Builds the last layer from `(in_features, num_classes)`; maps (B, D) to (B, C)."""


@dataclass(frozen=True)
class NetworkSpec:
    """What a network must fit: the data set's shape and the method's last layer.

    Args:
        num_classes: number of logits C.
        in_channels: channels of the images.
        image_size: height and width of the images in pixels.
        head: builds the last layer from `(in_features, num_classes)`.
    """

    num_classes: int
    in_channels: int = 3
    image_size: int = 32
    head: HeadFactory = nn.Linear


class Network(nn.Module):
    """An image classifier: `forward(x) = head(features(x))`.

    A subclass builds its layers, calls `attach_head` last, and implements `features`.

    Args:
        spec: the shape of the data and the last layer.
        feature_dim: length D of a feature vector.

    Raises:
        UserError: the images are smaller than `min_image_size`.
    """

    head_name: ClassVar[str] = "linear"
    min_image_size: ClassVar[int] = 8
    input_size: ClassVar[int | None] = None
    """Side length that images are enlarged to before augmentation and attack; None: as they are."""

    def __init__(self, spec: NetworkSpec, feature_dim: int) -> None:
        super().__init__()
        if spec.image_size < self.min_image_size:
            raise UserError(
                f"images of {spec.image_size} pixels are too small for {type(self).__name__}: "
                f"it needs at least {self.min_image_size}; use larger images"
            )
        self.feature_dim = feature_dim
        self.num_classes = spec.num_classes

    @property
    def head(self) -> nn.Module:
        """The last layer, whatever its attribute is called in the published checkpoints."""
        return self.get_submodule(self.head_name)

    def attach_head(self, head: HeadFactory) -> None:
        """Build the last layer and store it under the architecture's own name for it."""
        self.add_module(self.head_name, head(self.feature_dim, self.num_classes))

    def features(self, x: Tensor) -> Tensor:
        """Map images, float (B, in_channels, H, W) in [0, 1], to float features (B, D)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map images, float (B, in_channels, H, W) in [0, 1], to float logits (B, C)."""
        return self.head(self.features(x))


def global_average(maps: Tensor) -> Tensor:
    """Average (B, D, H, W) over all positions to (B, D).

    Equals the fixed `avg_pool2d(4)` or `(8)` of the published code at 32x32, works at any size.
    """
    return maps.mean(dim=(2, 3))
