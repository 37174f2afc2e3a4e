"""Train-mode passes without a gradient that released code makes after the optimizer's step.

They train nothing and move the BatchNorm statistics, at the new weights.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

ExtraPasses = Literal["none", "clean", "attacked, clean", "clean, attacked"]
"""Which batches pass, in which order."""


def extra_passes(which: ExtraPasses, model: nn.Module, x: Tensor, x_adv: Tensor) -> None:
    """Let the clean images `x` and the attacked images `x_adv` pass through a model."""
    batches = {"clean": x, "attacked": x_adv}
    with torch.no_grad():
        for name in which.split(", "):
            if name in batches:
                model(batches[name])
