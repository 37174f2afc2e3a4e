"""What the losses derive from class counts and labels: float counts, priors, one-hot masks.

Only the arithmetic that several losses share; no loss lives here.
"""

from __future__ import annotations

import torch
from torch import Tensor


def float_counts(class_counts: Tensor, like: Tensor) -> Tensor:
    """Class counts (C,) as floats on the device of `like`, at least float32, at least 1.

    Half precision would round 5000 to 4992, so a bfloat16 `like` gives float32 counts. A class
    without a training image counts as one image, as in REAT's code, which keeps logarithms finite.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    return class_counts.to(device=like.device, dtype=dtype).clamp_min(1)


def log_prior(class_counts: Tensor, like: Tensor) -> Tensor:
    """log p_c = log(n_c / sum n), shape (C,)."""
    counts = float_counts(class_counts, like)
    return (counts / counts.sum()).log()


def label_mask(labels: Tensor, num_classes: int) -> Tensor:
    """Boolean (B, C), true where the column is the row's label.

    Sums over such a mask are deterministic on every device, unlike scattered additions.
    """
    return labels[:, None] == torch.arange(num_classes, device=labels.device)
