"""Keeps freed memory in the process, where tensors of the same size are about to need it again.

glibc hands large blocks back to the system when they are freed, and the system clears every page
of them anew at the next allocation: hundreds of megabytes in each step of a training on a CPU.
Nothing here changes what is computed.
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of the settings in glibc's malloc.h."""
_NEVER = 2**30


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep what is freed; the process stays at its largest size.

    Nothing happens with another C library, or where the user has set an environment variable
    MALLOC_... of his own.

    Returns:
        Whether the setting was made.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; TypeError is Windows
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _NEVER)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
