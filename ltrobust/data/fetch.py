"""Fetch one published file into a data directory: checked by its MD5, all or nothing."""

from __future__ import annotations

import hashlib
import tempfile
from http.client import HTTPException
from pathlib import Path

from ltrobust.errors import UserError


def fetch(url: str, target: Path, name: str, md5: str, title: str) -> None:
    """Download a file to the folder `target`; nothing half-written stays.

    Args:
        url: where it is.
        target: the folder, made if need be.
        name: what to call it there.
        md5: of the file, hex.
        title: the data set, for errors.

    Raises:
        UserError: the folder cannot be written, or the download fails.
    """
    from torchvision.datasets.utils import download_url  # slow to import

    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".download-") as partial:
            download_url(url, partial, name, md5)
            (Path(partial) / name).replace(target / name)
    except (OSError, RuntimeError, HTTPException) as error:
        raise UserError(
            f"cannot download {title} from {url} to '{target}' "
            f"({' '.join(str(error).split())}); put '{name}' there yourself"
        ) from error


def check_md5(path: Path, md5: str) -> None:
    """Raise UserError unless a file is the published one."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        raise UserError(
            f"'{path}' is not the published file: its MD5 is {found}, not {md5}; it is cut off, "
            "changed or of another version, get it again"
        )
