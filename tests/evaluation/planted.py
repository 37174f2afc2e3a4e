"""Bad models to be found out: each wraps a well-trained network and fakes something.

All map images (B, C, H, W) in [0, 1] to (B, classes), as an evaluator takes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.data.digits import NUM_CLASSES

MEAN, STD = 0.5, 0.5
"""The usual way to map [0, 1] to [-1, 1]."""


class Wrapped(nn.Module):
    """A network between two functions: of the images, and of the logits."""

    def __init__(
        self,
        net: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(self.before(x)))


def scaled(net: nn.Module, factor: float) -> nn.Module:
    return Wrapped(net, after=lambda logits: logits * factor)


def rounded_inputs(net: nn.Module, levels: int = 4) -> nn.Module:
    """No derivative: torch.round's is zero everywhere."""
    return Wrapped(net, before=lambda x: torch.round(x * levels) / levels)


def sigmoid_steps(net: nn.Module, levels: int = 4, sharpness: float = 40.0) -> nn.Module:
    """A smooth staircase: the derivative between two steps is tiny, but not exactly zero."""
    rises = (torch.arange(levels) + 0.5) / levels

    def steps(x: Tensor) -> Tensor:
        return torch.sigmoid(sharpness * levels * (x[..., None] - rises)).sum(-1) / levels

    return Wrapped(net, before=steps)


def thermometer(net: nn.Module, levels: int = 16) -> nn.Module:
    """Buckman et al. 2018: each pixel as the thresholds it exceeds; comparing has no derivative."""
    rises = (torch.arange(levels) + 0.5) / levels
    return Wrapped(net, before=lambda x: (x[..., None] > rises).float().mean(-1))


def top_pixels(net: nn.Module, kept: int = 24) -> nn.Module:
    """Only the brightest pixels pass; the others have no derivative."""

    def brightest(x: Tensor) -> Tensor:
        least = x.flatten(1).topk(kept, dim=1).values[:, -1]
        return x * (x >= least.view(-1, 1, 1, 1))

    return Wrapped(net, before=brightest)


def jpeg_like(net: nn.Module, step: float = 0.3) -> nn.Module:
    """Rounds the coefficients of a cosine transform of each row and column."""

    def through(x: Tensor) -> Tensor:
        size = x.shape[-1]
        place = torch.arange(size, dtype=x.dtype)
        basis = torch.cos(math.pi / size * (place[None] + 0.5) * place[:, None])
        basis = basis / basis.norm(dim=1, keepdim=True)
        return basis.T @ (torch.round(basis @ x @ basis.T / step) * step) @ basis

    return Wrapped(net, before=through)


def detached(net: nn.Module) -> nn.Module:
    """Leaves autograd altogether, as a step in numpy does."""
    return Wrapped(net, before=lambda x: torch.from_numpy(x.detach().cpu().numpy().copy()))


def noisy_inputs(net: nn.Module, std: float = 0.1) -> nn.Module:
    return Wrapped(net, before=lambda x: x + std * torch.randn_like(x))


def noise_by_batch(net: nn.Module, std: float = 0.1) -> nn.Module:
    """The same noise at every call, but another for each place in the batch."""

    def add(x: Tensor) -> Tensor:
        draw = torch.Generator().manual_seed(5)
        return x + std * torch.randn(x.shape, generator=draw).to(x)

    return Wrapped(net, before=add)


def random_size(net: nn.Module) -> nn.Module:
    """Xie et al. 2018: resizes to a random size and pads at a random place."""

    def resize(x: Tensor) -> Tensor:
        size = int(torch.randint(x.shape[-1] - 2, x.shape[-1] + 1, ()))
        room = x.shape[-1] - size
        left, top = (int(torch.randint(0, room + 1, ())) for _ in range(2))
        small = F.interpolate(x, size=size, mode="bilinear")
        return F.pad(small, (left, room - left, top, room - top))

    return Wrapped(net, before=resize)


def dropout_on(net: nn.Module, share: float = 0.2) -> nn.Module:
    """Dropout that no eval() switches off."""
    return Wrapped(net, before=lambda x: F.dropout(x, share, training=True))


def expects_normalised(net: nn.Module) -> nn.Module:
    """Trained on (x - mean) / std and given x."""
    return Wrapped(net, before=lambda x: x * STD + MEAN)


def normalised_twice(net: nn.Module) -> nn.Module:
    """Normalises what the network inside it normalises already."""
    return Wrapped(net, before=lambda x: (x - MEAN) / STD)


def expects_bytes(net: nn.Module) -> nn.Module:
    """Trained on 0 to 255 and given 0 to 1."""
    return Wrapped(net, before=lambda x: x / 255)


def softmax_outputs(net: nn.Module) -> nn.Module:
    return Wrapped(net, after=lambda logits: logits.softmax(1))


def log_softmax_outputs(net: nn.Module) -> nn.Module:
    return Wrapped(net, after=lambda logits: logits.log_softmax(1))


def sigmoid_outputs(net: nn.Module) -> nn.Module:
    return Wrapped(net, after=torch.sigmoid)


def one_hot_outputs(net: nn.Module) -> nn.Module:
    return Wrapped(net, after=lambda z: F.one_hot(z.argmax(1), NUM_CLASSES) + 0.0 * z)


def rounded_logits(net: nn.Module) -> nn.Module:
    return Wrapped(net, after=torch.round)


def cosine_logits(net: nn.Module, scale: float = 0.05) -> nn.Module:
    return Wrapped(net, after=lambda z: scale * F.normalize(z - z.mean(1, keepdim=True), dim=1))


def clipped_logits(net: nn.Module, size: float = 1.0) -> nn.Module:
    return Wrapped(net, after=lambda z: 100 * z.clamp(-size, size) + 0.001 * z.detach())


def nan_logits(net: nn.Module) -> nn.Module:
    """Divides zero by zero where a logit is below the mean."""
    return Wrapped(net, after=lambda z: torch.where(z < z.mean(1, keepdim=True), torch.nan, z))


def infinite_logits(net: nn.Module) -> nn.Module:
    return Wrapped(net, after=lambda z: torch.log(z.mul(1e3).softmax(1)))


def constant(net: nn.Module, winner: int = 3) -> nn.Module:
    """Nearly blind: one class wins whatever it sees."""
    favour = 1e3 * F.one_hot(torch.tensor(winner), NUM_CLASSES)
    return Wrapped(net, after=lambda z: z + favour)


def abstaining(net: nn.Module, sure: float = 0.9) -> nn.Module:
    """Says nothing (all logits equal) unless it is sure: nothing to follow from there."""
    return Wrapped(net, after=lambda z: z * (z.softmax(1).amax(1, keepdim=True) > sure))


def misled_between_bytes(net: nn.Module, depth: float = 0.008) -> nn.Module:
    """A ripple that vanishes on multiples of 1/255, where it has a large, true derivative.

    Between them the derivative's sign is arbitrary: one large step along the gradient works, many
    small ones do not.
    """
    turns = 2 * math.pi * 255
    return Wrapped(net, before=lambda x: x + depth * torch.sin(turns * x))


def fragile_between_bytes(net: nn.Module, depth: float = 0.8) -> nn.Module:
    """Darkens what lies between multiples of 1/255, with no derivative: blind noise destroys it."""

    def darken(x: Tensor) -> Tensor:
        return x - depth * x * (torch.sin(math.pi * 255 * x).abs() > 0.1)

    return Wrapped(net, before=darken)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> Tensor:
        return -gradient


class _Random(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> Tensor:
        draw = torch.Generator().manual_seed(11)
        return torch.randn(gradient.shape, generator=draw).to(gradient)


def reversed_gradient(net: nn.Module) -> nn.Module:
    return Wrapped(net, before=_Reversed.apply)


def invented_gradient(net: nn.Module) -> nn.Module:
    return Wrapped(net, before=_Random.apply)


class BatchStatistics(nn.Module):
    """Brings each batch to the digits' mean and deviation, whatever its mode."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(0.37 * F.batch_norm(x, None, None, training=True) + 0.3)


class StuckInTrainMode(nn.Module):
    """Its eval() does not reach the network: batch norm keeps on using and updating statistics."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.train()

    def train(self, mode: bool = True) -> StuckInTrainMode:
        return super().train(True)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def norm_behind(net: nn.Module) -> nn.Module:
    """Batch norm of the logits: in eval mode they stay, in train mode the batch decides."""
    return nn.Sequential(net, nn.BatchNorm1d(NUM_CLASSES, affine=False))


class WithDropout(nn.Module):
    """A network with proper dropout, which eval() switches off."""

    def __init__(self, net: nn.Module, share: float = 0.3) -> None:
        super().__init__()
        self.dropout, self.net = nn.Dropout(share), net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.dropout(x))


class FeelsGradients(nn.Module):
    """Hides behind other logits while somebody asks for gradients."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return logits.flip(1) if x.requires_grad else logits


def nearest_template(images: Tensor, labels: Tensor) -> nn.Module:
    """Honest, and fixed by construction: the class whose mean image is nearest.

    Nothing is trained, so that no luck and no processor decides what it is: batch norm with the
    mean and variance of `images` (float (N, C, H, W) in [0, 1]), a blur, then a linear layer. The
    blur lets every pixel count, also those that are black in nearly all images.
    """
    norm = nn.BatchNorm2d(images.shape[1], affine=False)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    over = (0, 2, 3)
    norm.running_mean.copy_(images.double().mean(over))
    norm.running_var.copy_(images.double().var(over))
    norm.num_batches_tracked.fill_(1000)
    blur = nn.AvgPool2d(3, stride=1, padding=1)
    seen = blur(norm.eval()(images)).flatten(1).double()
    means = torch.stack([seen[labels == c].mean(0) for c in range(NUM_CLASSES)])
    linear = nn.Linear(means.shape[1], NUM_CLASSES)
    with torch.no_grad():
        linear.weight.copy_(SHARPNESS * means)
        linear.bias.copy_(-SHARPNESS * means.square().sum(1) / 2)
    return nn.Sequential(norm, blur, nn.Flatten(), linear).eval()


SHARPNESS = 0.25
"""Of the template's logits: as confident as it is right."""
