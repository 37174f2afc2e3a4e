"""ltrobust: train, attack and compare adversarial defenses on long-tailed data.

`train` and `evaluate` are the Python side of the commands of the same name.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltrobust.api import TrainedModel, evaluate, train

__version__ = version("ltrobust")
__all__ = ["TrainedModel", "__version__", "evaluate", "train"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: `ltrobust --help` must not wait for it
    if name in ("TrainedModel", "evaluate", "train"):
        from ltrobust import api

        return getattr(api, name)
    raise AttributeError(f"module 'ltrobust' has no attribute '{name}'")
