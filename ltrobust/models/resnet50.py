"""torchvision's ImageNet ResNet-50 at 224 pixels: what TAET's released code trains.

Smaller images are enlarged to 224 pixels before they are augmented and attacked, so eps acts on the
enlarged image, as it does there.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ltrobust.models.network import Network, NetworkSpec


class ResNet50At224(Network):
    """He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), as in torchvision.

    Parameter names and initialisation are torchvision's, with `fc` as the last layer; weights are
    fresh, never downloaded.
    """

    head_name: ClassVar[str] = "fc"
    input_size: ClassVar[int | None] = 224

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec, feature_dim=2048)
        from torchvision.models import resnet50  # seconds to import, for this network alone

        body = resnet50(weights=None)
        if spec.in_channels != 3:
            body.conv1 = nn.Conv2d(spec.in_channels, 64, 7, stride=2, padding=3, bias=False)
        for name, layer in body.named_children():
            if name != "fc":
                self.add_module(name, layer)
        self.attach_head(spec.head)

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, in_channels, 224, 224) to pooled features (B, 2048)."""
        for name, layer in self.named_children():
            if name != "fc":
                x = layer(x)
        return x.flatten(1)
