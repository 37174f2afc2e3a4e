"""Packages that are functions too: `ltrobust.bench(...)` beside `import ltrobust.bench.plan`.

Importing a submodule sets the package as an attribute of `ltrobust`, over any function of the same
name, whenever that happens. So the package itself is made callable and calls the function of its
name in `ltrobust.api`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """The class of a package `ltrobust.<name>` that is called like `ltrobust.api.<name>`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; see its own documentation."""
        return self._function(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)

    @property
    def _function(self) -> Callable[..., Any]:
        name = self.__name__.rpartition(".")[2]
        found: Callable[..., Any] = getattr(import_module("ltrobust.api"), name)
        return found
