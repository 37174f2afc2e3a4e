"""Validation images for choosing a checkpoint without the test set.

They are taken from the training images and never trained on. This module only splits; who looks at
them and why is the trainer's business.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ltrobust.data.base import LongTailedData

PER_CLASS = 50
SHARE = 10
"""At most a tenth of a class is held out, so that a rare class keeps nearly all it has."""


def held_out(labels: Tensor, num_classes: int) -> Tensor:
    """The last min(50, n_c / 10) images of each class, as bool (N,).

    "Last" is in selection order, which the split shuffled. A class of 2 to 9 images gives one, a
    class of one gives none: as balanced as the tail allows.

    Args:
        labels: int64 (N,), in selection order.
        num_classes: number of classes.
    """
    held = torch.zeros(len(labels), dtype=torch.bool)
    for c, count in enumerate(torch.bincount(labels, minlength=num_classes).tolist()):
        share = min(PER_CLASS, max(1, count // SHARE)) if count > 1 else 0
        members = (labels == c).nonzero().flatten()
        held[members[len(members) - share :]] = True
    return held


def hold_out(data: LongTailedData) -> LongTailedData:
    """Move those images from the training to the validation part, in memory.

    `load_data(..., hold_out=True)` gives the same without reading them twice.
    """
    held = held_out(data.train_labels, data.num_classes)
    return replace(
        data,
        train_images=data.train_images[~held],
        train_labels=data.train_labels[~held],
        train_index=data.train_index[~held],
        val_images=data.train_images[held],
        val_labels=data.train_labels[held],
        val_index=data.train_index[held],
    )
