"""Seeds derived by name.

Every random stream of a run (initialisation, data order, augmentation, training attack, evaluation
attack) has a seed of its own, hashed from the run's seed and the stream's name. Streams are also
split by epoch, so a run that resumes needs no saved generator: it asks for the same name again.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Hash a run's seed and a stream's name into an integer in [0, 2**62)."""
    text = "/".join(str(part) for part in (seed, *names))
    return (
        int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
        >> 2
    )


def generator(device: torch.device | str, seed: int, *names: str | int) -> torch.Generator:
    """Return a fresh generator on `device` for the stream called `names`."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))
