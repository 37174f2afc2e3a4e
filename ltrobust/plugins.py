"""Files and installed packages that add to what ships: how they are loaded, and taken back out.

What they add is told by the registry that they add it to; nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ltrobust.errors import UserError
from ltrobust.registry import Registry
from ltrobust.sources import defined_in

GROUPS = tuple(
    f"ltrobust.{kind}" for kind in ("methods", "attacks", "networks", "datasets", "metrics")
)
"""Groups of entry points."""


def registries() -> tuple[Registry[Any], ...]:
    """What a plugin may add to."""
    from ltrobust.attacks.custom import ATTACKS
    from ltrobust.data import DATASETS
    from ltrobust.method import METHODS
    from ltrobust.models import ARCHS
    from ltrobust.results.custom import METRICS

    return METHODS, ATTACKS, ARCHS, DATASETS, METRICS


def load_installed(*groups: str) -> None:
    """Load the entry points of groups (default: all) that are not there yet.

    Raises:
        UserError: one of them cannot be loaded.
    """
    for point in (point for group in groups or GROUPS for point in entry_points(group=group)):
        if any(point.name in registry for registry in registries()):
            continue
        before = _registered()
        try:
            point.load()
        except (Exception, SystemExit) as error:
            _forget(point.module, before)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"entry point {point.name} ({point.value}): {reason}") from error


def load_plugin(path: Path) -> None:
    """Import a user's file; raise UserError when it cannot be read or registers nothing.

    Loading a file runs it: it is the user's own program, named on the command line.
    """
    if not path.is_file():
        raise UserError(f"plugin {path}: no such file; give the path of a Python file")
    # the name holds the content: an edited file is another module, loaded anew
    identity = os.fsencode(path.resolve()) + b"\0" + path.read_bytes()
    name = "ltrobust_plugin_" + hashlib.sha256(identity).hexdigest()[:12]
    if name in sys.modules:
        return
    for registry in registries():
        for old in [n for n in registry if defined_in(registry.get(n), path)]:
            registry.discard(old)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plugin {path}: not a Python file; its name must end in .py")
    before = _registered()
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError as error:
        _forget(name, before)
        raise UserError(f"plugin {path}: {error}") from error
    except (Exception, SystemExit) as error:
        _forget(name, before)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"plugin {path} cannot be loaded: {reason}") from error
    if _registered() == before:
        _forget(name, before)
        raise UserError(
            f"plugin {path} registers no method; decorate one with @register_method (or "
            "@register_attack, @register_network, @register_dataset, @register_metric)"
        )


def _registered() -> list[list[str]]:
    return [registry.names() for registry in registries()]


def _forget(module: str, before: list[list[str]]) -> None:
    sys.modules.pop(module, None)
    for registry, names in zip(registries(), before, strict=True):
        for name in set(registry.names()) - set(names):
            registry.discard(name)
