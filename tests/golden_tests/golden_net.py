"""The tiny BatchNorm network of the training-step and attack cases, with its stored weights."""

from __future__ import annotations

import torch
from golden_store import FIRST, GoldenSet
from torch import Tensor, nn

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
HEAD = "8"


class GoldenNet(nn.Sequential):
    """The small network of a set, as our methods know networks: features and a head.

    It takes images in [0, 1]; where a release normalises them, inside or outside, so does it.
    """

    input_size = None
    head_name = HEAD
    normalised = False

    @property
    def head(self) -> nn.Module:
        return self[-1]

    def features(self, x: Tensor) -> Tensor:
        if self.normalised:
            mean, std = (torch.tensor(v, dtype=x.dtype).view(1, 3, 1, 1) for v in (MEAN, STD))
            x = (x - mean) / std
        for module in self[:-1]:
            x = module(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def golden_net(name: str, golden: GoldenSet = FIRST, key: str = "net") -> GoldenNet:
    """Build a float64 network of a file; `netn` and `net10n` see normalised input."""
    mark = f"{key}."
    names = [name_ for name_ in golden.arrays(name) if name_.startswith(mark)]
    stored = {one.removeprefix(mark): golden.tensor(name, one) for one in names}
    first, second = stored["0.weight"], stored["3.weight"]
    classes, features = stored[f"{HEAD}.weight"].shape
    net = GoldenNet(
        nn.Conv2d(first.shape[1], first.shape[0], 3, stride=1, padding=1, bias=False),
        nn.BatchNorm2d(first.shape[0]),
        nn.ReLU(),
        nn.Conv2d(second.shape[1], second.shape[0], 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(second.shape[0]),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(features, classes),
    ).double()
    net.load_state_dict(stored)
    net.normalised = key.endswith("n")
    return net
