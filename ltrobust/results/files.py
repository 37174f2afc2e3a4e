"""Whole files or none: how results are written and read back, whatever they hold.

Every file is written under a temporary name first, so a reader never meets half a file and a killed
writer leaves the old one. Which file lies where is the store's business.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ltrobust.errors import RunError, UserError
from ltrobust.output import encoded

TEMPORARY = ".ltrobust-"
"""How names of files that are being written begin; nobody else's do."""
ABANDONED = 24 * 3600
"""Seconds without a change after which such a file is that of a killed writer."""
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK}
"""Why a file system that has no hard links does not make one."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is either the old one or the whole new one.

    Raises:
        RunError: it cannot be written, such as on a full disk; the old one is still there.
    """
    with writing(path), _temporary(path, content) as temporary:
        os.replace(temporary, path)


def write_changed(path: Path, content: bytes) -> None:
    """Write a file where it does not say the same; see `write_atomic`."""
    try:
        same = path.read_bytes() == content
    except OSError:
        same = False
    if not same:
        write_atomic(path, content)


def create(path: Path, content: bytes) -> bool:
    """Write a whole file where none is; of several writers at a time one succeeds.

    Returns:
        Whether the file is this one; False leaves what is there alone.

    Raises:
        RunError: it cannot be written.
    """
    if path.exists():
        return False
    with writing(path), _temporary(path, content) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            os.replace(temporary, path)
    return True


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line which file cannot be written, and why."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror or error}); once it can be, the same "
            "command goes on from what is stored"
        ) from error


@contextmanager
def _temporary(path: Path, content: bytes) -> Iterator[str]:
    """A whole file under another name in the same folder, which is gone in the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        yield temporary
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_file(path: Path, content: str) -> None:
    """Write a file that the user named; UserError when it cannot be written."""
    try:
        with _temporary(path, encoded(content)) as temporary:
            os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); choose another file"
        ) from None


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object that a file holds.

    Args:
        path: the file, which is there.
        remedy: what to do about a damaged one, for the message.

    Raises:
        UserError: it cannot be read or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is damaged ({reason}); {remedy}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (not an object); {remedy}")
    return content


def sweep(folders: Iterable[Path]) -> None:
    """Remove what killed writers left in folders, none of which may be a link.

    Younger files may be those of others who are writing at this moment.
    """
    for folder in folders:
        if folder.is_symlink():
            continue
        for file in folder.glob(f"{TEMPORARY}*.tmp"):
            with suppress(OSError):
                if time.time() - file.stat().st_mtime > ABANDONED:
                    file.unlink()
