"""A faster copy of a trained network for searching adversarial images, never for verdicts.

Batch norms are folded into the convolutions before them and the memory format is channels_last.
The copy computes the same function up to rounding; whoever searches with it must take the verdict
with the network itself.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit, that counts as rounding."""


class FoldedNetwork(nn.Module):
    """A network with folded batch norms, in eval mode and frozen.

    Args:
        net: maps images (B, C, H, W) to logits; must be traceable by torch.fx. Not changed.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        folded = fuse(copy.deepcopy(net).eval())
        self.body = folded.to(memory_format=torch.channels_last).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C)."""
        return self.body(_ChannelsLast.apply(x))


class _ChannelsLast(torch.autograd.Function):
    """Change the memory format of images; gradients come back contiguous.

    pyautoattack takes views of gradients, which channels_last tensors do not allow.
    """

    @staticmethod
    def forward(_ctx: object, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


def fold(net: nn.Module, example: Tensor) -> nn.Module:
    """Return a folded copy of `net`, or `net` itself when folding fails or changes the logits.

    Args:
        net: a network in eval mode.
        example: a few images (B, C, H, W) on the network's device to compare on.
    """
    try:
        folded = FoldedNetwork(net).eval()
        with torch.no_grad():
            expected, found = net(example), folded(example)
    except Exception:  # fx refuses control flow that depends on data: any network may do that
        return net
    same = (found - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp_min(1)
    return folded if bool(same) else net
