"""Reads labelled images as people have them: tensors, numpy arrays or a DataLoader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ltrobust.errors import UserError

Array = Tensor | npt.NDArray[Any]
Batch = Sequence[Array] | DataLoader[Any]
"""Images with their labels, or a loader of such pairs."""
_COLOURS = (1, 3)


def labelled_images(data: Batch) -> tuple[Tensor, Tensor]:
    """Read images and labels.

    Args:
        data: the pair (images, labels), tensors or numpy arrays, or a DataLoader that yields such
            pairs: images uint8 or float in [0, 1] (N, ...), labels integers (N,).

    Returns:
        Images uint8 or float32, labels int64, on the CPU.

    Raises:
        UserError: something else, or images and labels that do not fit.
    """
    images, labels = _all_batches(data) if isinstance(data, DataLoader) else _pair(data)
    fits = images.dim() >= 2 and labels.dim() == 1 and len(images) == len(labels) > 0
    if not fits:
        raise UserError(
            f"dataset: images {tuple(images.shape)} and labels {tuple(labels.shape)} must be "
            "(N, ...) and (N,) with N >= 1"
        )
    if images.dim() == 4 and images.shape[1] not in _COLOURS and images.shape[3] == max(_COLOURS):
        raise UserError(
            f"dataset: images {tuple(images.shape)} must be (N, C, H, W), with the colours before "
            "height and width; transpose them"
        )
    if labels.is_floating_point() or labels.is_complex() or int(labels.min()) < 0:
        raise UserError("dataset: labels must be integers from 0 to C - 1")
    return _checked(images), labels.long()


def _checked(images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise UserError(f"dataset: images must be uint8 or float in [0, 1], got {images.dtype}")
    images = images.float()
    if not (bool((images >= 0).all()) and bool((images <= 1).all())):
        raise UserError(
            f"dataset: images must lie in [0, 1] (or be uint8), got {float(images.min()):.4g} "
            f"to {float(images.max()):.4g}; give normalisation by normalize="
        )
    return images


def _all_batches(loader: DataLoader[Any]) -> tuple[Tensor, Tensor]:
    """Everything that a loader yields, in its order."""
    pairs = [_pair(batch) for batch in loader]
    if not pairs:
        raise UserError("dataset: the DataLoader yields no batch")
    images, labels = zip(*pairs, strict=True)
    return torch.cat(images), torch.cat(labels)


def _pair(data: Any) -> tuple[Tensor, Tensor]:
    if not (isinstance(data, tuple | list) and len(data) == 2 and all(map(_is_array, data))):
        raise UserError(
            "dataset: give a name, loaded data, the two tensors or arrays (images, labels), or a "
            f"DataLoader of such pairs; got {type(data).__name__}"
        )
    images, labels = (
        torch.from_numpy(np.ascontiguousarray(part)) if isinstance(part, np.ndarray) else part
        for part in data
    )
    return images.detach().cpu(), labels.detach().cpu()


def _is_array(value: object) -> bool:
    """Whether torch can hold it: a tensor, or an array of numbers."""
    return torch.is_tensor(value) or (isinstance(value, np.ndarray) and value.dtype.kind in "uifb")
