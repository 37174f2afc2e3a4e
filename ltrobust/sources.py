"""Whether an object ships with the package, and if not, what its file holds.

What somebody adds is part of the keys of what is made with it, so that an edited file is new.
"""

from __future__ import annotations

import hashlib
import inspect
from functools import partial
from pathlib import Path
from typing import Any


def source_of(item: Any) -> str:
    """SHA-256 of the file that an object is defined in, "" for what ships with the package."""
    item = _made_by(item)
    if str(getattr(item, "__module__", "")).startswith("ltrobust."):
        return ""
    try:
        return hashlib.sha256(Path(inspect.getfile(item)).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return ""


def defined_in(item: Any, path: Path) -> bool:
    """Whether an object is defined in a file."""
    try:
        return Path(inspect.getfile(_made_by(item))).resolve() == path.resolve()
    except (OSError, TypeError):
        return False


def _made_by(item: Any) -> Any:
    """The class or function that an object stands for."""
    if isinstance(item, partial):
        return item.func
    return item if isinstance(item, type) else getattr(item, "load", None) or item
