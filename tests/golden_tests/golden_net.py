"""The tiny BatchNorm network of the training-step and attack cases, with its stored weights."""

from __future__ import annotations

from golden_store import FIRST, GoldenSet
from torch import Tensor, nn


class GoldenNet(nn.Sequential):
    """A network with features and a head, as our methods know networks."""

    @property
    def head(self) -> nn.Module:
        return self[-1]

    def features(self, x: Tensor) -> Tensor:
        for module in list(self)[:-1]:
            x = module(x)
        return x


def golden_net(name: str, golden: GoldenSet = FIRST, key: str = "net") -> GoldenNet:
    """Build a float64 network of a file, in the shapes that its arrays have."""
    mark = f"{key}."
    names = [name_ for name_ in golden.arrays(name) if name_.startswith(mark)]
    stored = {one.removeprefix(mark): golden.tensor(name, one) for one in names}
    first, second = stored["0.weight"], stored["3.weight"]
    classes, features = stored["8.weight"].shape
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
    return net
