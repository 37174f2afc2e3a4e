"""Training-time augmentation of whole batches on the device that holds them.

Only what keeps the label and needs no decoding: random crop and horizontal flip, as in torchvision
but for all images at once. What a data set allows stands in its `DatasetSpec`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def to_float(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Turn uint8 images (any shape) into `dtype` in [0, 1]; the division is done in `dtype`."""
    return images.to(dtype) / 255


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
    which = torch.arange(batch, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return images[which, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _draw(high: int, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw `count` integers, uniform in 0 .. high - 1, and bring them to `device`."""
    return torch.randint(high, (count,), generator=generator, device=generator.device).to(device)
