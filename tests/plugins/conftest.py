"""Plugins of one test are none of another's."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from ltrobust.method import load_builtin_methods
from ltrobust.plugins import registries


@pytest.fixture(autouse=True)
def _own_plugins() -> Iterator[None]:
    load_builtin_methods()
    before, modules = [registry.names() for registry in registries()], set(sys.modules)
    yield
    for registry, names in zip(registries(), before, strict=True):
        for name in set(registry.names()) - set(names):
            registry.discard(name)
    for name in set(sys.modules) - modules:
        if name.startswith("ltrobust_plugin_"):
            del sys.modules[name]
