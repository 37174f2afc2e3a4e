"""A model after experiments as it was before them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put weights, buffers, modes and random states back afterwards."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    training = {module: module.training for module in model.modules()}
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
            for module, mode in training.items():
                module.training = mode
            now = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            with torch.no_grad():
                for name in kept.keys() & now.keys():
                    now[name].copy_(kept[name])
