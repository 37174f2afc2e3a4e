"""Training-time augmentation of whole batches on the device that holds them.

Random crop and horizontal flip, as in torchvision but for all images at once, and the policies
that AT-BSL tries before them. What a data set allows stands in its `DatasetSpec`.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

AugmentPolicy = Literal["none", "randaugment", "autoaugment"]


def to_float(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Turn uint8 images (any shape) into `dtype` in [0, 1]; the division is done in `dtype`."""
    if images.dtype == torch.uint8 and dtype == torch.get_default_dtype():
        return images / 255  # in one pass, to the same bits
    return images.to(dtype) / 255


def enlarge(images: Tensor, size: int | None) -> Tensor:
    """Resize uint8 images (B, C, H, W) to `size` x `size` (bilinear); None leaves them alone."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    from torchvision import transforms  # takes seconds to import, and few runs need it

    resized: Tensor = transforms.functional.resize(images, [size, size], antialias=True)
    return resized


def policy_augment(images: Tensor, policy: AugmentPolicy, *, generator: torch.Generator) -> Tensor:
    """Apply RandAugment (2, 8) or AutoAugment's CIFAR-10 policy; "none" changes nothing.

    Each image draws its own operations.

    Args:
        images: uint8 (B, C, H, W).
        policy: a name in `POLICIES`, or "none".
        generator: on the CPU; global generators have no part in it.
    """
    if policy == "none":
        return images
    from ltrobust.data.policies import augment  # imports torchvision too

    return augment(images, policy, int(torch.randint(2**62, (), generator=generator)))


def random_crop_flip(
    images: Tensor, *, padding: int, flip: bool, generator: torch.Generator
) -> Tensor:
    """Pad with zeros, crop back to the old size at random, and mirror half of the images.

    Each image draws its own offset, uniform over the (2 * padding + 1)^2 windows, and its own
    flip: the distribution of torchvision's RandomCrop(size, padding) and RandomHorizontalFlip.

    Args:
        images: uint8 or float (B, C, H, W).
        padding: zero pixels added on each side, >= 0; 0 means no crop.
        flip: mirror each image with probability one half.
        generator: the only source of randomness; best on the device of `images`.

    Returns:
        Tensor of the same shape, dtype and device.
    """
    batch, channels, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(batch, height)
    columns = torch.arange(width, device=device).expand(batch, width)
    if flip:
        mirrored = _draw(2, batch, generator, device).bool()
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    if padding > 0:
        images = F.pad(images, (padding,) * 4)
        rows = rows + _draw(2 * padding + 1, batch, generator, device)[:, None]
        columns = columns + _draw(2 * padding + 1, batch, generator, device)[:, None]
    # one position a pixel, shared by the channels: many times faster than indexing by four tensors
    where = (rows * images.shape[3])[:, :, None] + columns[:, None, :]
    taken = images.flatten(2).gather(2, where.view(batch, 1, -1).expand(-1, channels, -1))
    return taken.view(batch, channels, height, width)


def _draw(high: int, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw `count` integers, uniform in 0 .. high - 1, and bring them to `device`."""
    return torch.randint(high, (count,), generator=generator, device=generator.device).to(device)
