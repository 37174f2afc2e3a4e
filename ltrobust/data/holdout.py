"""Validation images for choosing a checkpoint without the test set.

They are taken from the training images and never trained on. This module only splits; who looks at
them and why is the trainer's business.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ltrobust.data.base import LongTailedData

PER_CLASS = 50
SHARE = 10
"""At most a tenth of a class is held out, so that a rare class keeps nearly all it has."""


def hold_out(data: LongTailedData) -> LongTailedData:
    """Move the last min(50, n_c / 10) training images of each class to the validation part.

    "Last" is in selection order, which the split shuffled. A class of 2 to 9 images gives one, a
    class of one gives none: as balanced as the tail allows.
    """
    held = torch.zeros(len(data.train_labels), dtype=torch.bool)
    for c, count in enumerate(data.train_counts):
        share = min(PER_CLASS, max(1, count // SHARE)) if count > 1 else 0
        members = (data.train_labels == c).nonzero().flatten()
        held[members[len(members) - share :]] = True
    return replace(
        data,
        train_images=data.train_images[~held],
        train_labels=data.train_labels[~held],
        train_index=data.train_index[~held],
        val_images=data.train_images[held],
        val_labels=data.train_labels[held],
        val_index=data.train_index[held],
    )
