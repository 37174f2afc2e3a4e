"""Float32 that means float32: torch lets a GPU's convolutions round to TF32 unless told not to.

Trainings and verdicts say so around their own work and leave the process as they found it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def true_float32(*, search_algorithms: bool = False) -> Iterator[None]:
    """Inside, products and convolutions in float32 are float32.

    Args:
        search_algorithms: let cuDNN try its algorithms for every new shape. That is worth its time
            in a training, whose batches are all alike, and not where batches shrink.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    cudnn.benchmark = search_algorithms
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before


def is_true_float32() -> bool:
    """Whether float32 means float32 now."""
    return not (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
