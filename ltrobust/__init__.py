"""ltrobust: train, attack and compare adversarial defenses on long-tailed data.

The functions here are the Python side of the commands of the same name; `load` gives back a stored
run, `attack` the adversarial images of a batch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ltrobust.errors import RunError, UserError

if TYPE_CHECKING:
    from ltrobust.api import (
        TrainedModel,
        attack,
        bench,
        compare,
        evaluate,
        load,
        report,
        train,
    )

__version__ = version("ltrobust")
__all__ = [
    "RunError",
    "TrainedModel",
    "UserError",
    "__version__",
    "attack",
    "bench",
    "compare",
    "evaluate",
    "load",
    "report",
    "train",
]
_PACKAGES = ("bench", "report")
"""Functions whose name is a package's too: the package is callable."""


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: `ltrobust --help` must not wait for it
    if name in _PACKAGES:
        return import_module(f"ltrobust.{name}")
    if name in __all__:
        return getattr(import_module("ltrobust.api"), name)
    raise AttributeError(f"module 'ltrobust' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
