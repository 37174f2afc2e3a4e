"""A user's own images as a source: PATH/train/<class>/* and PATH/test/<class>/*.

Classes are the sorted folder names; the canonical order goes class by class, files in the order of
`ltrobust.data.listing`. All images must have one size, or are brought to one.
"""

from __future__ import annotations

import hashlib
import json
from itertools import chain
from pathlib import Path

import numpy as np

from ltrobust.data.base import Images, Source
from ltrobust.data.listing import one_spelling, scan_folder
from ltrobust.data.reading import file_reader


def folder_source(root: Path, size: int | None = None) -> Source:
    """Open an image folder; images are read when a split asks for them.

    Args:
        root: the folder.
        size: side length that the images are brought to; None: they must have one size.

    Raises:
        UserError: as `scan_folder`; on reading, an image that cannot be read or has another size.
    """
    files = scan_folder(root)
    first = files.train[0][0]
    train, test = (_images(part, size, first) for part in (files.train, files.test))
    return Source(files.class_names, train, test, files.left_out.line())


def folder_fingerprint(root: Path, size: int | None = None) -> str:
    """Hash the relative names and the contents of an image folder's files, and the size that they
    are brought to (hex SHA-256).

    Raises:
        UserError: as `scan_folder`.
    """
    files = scan_folder(root)
    listed = sorted(
        (
            one_spelling(path.relative_to(root).as_posix()),
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in chain.from_iterable(files.train + files.test)
    )
    return content_hash(listed, size)


def content_hash(listed: list[tuple[str, str]], size: int | None) -> str:
    """Hash the names and hashes of files, with the size to which their images are brought."""
    content: object = listed if size is None else {"files": listed, "size": size}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _images(classes: tuple[tuple[Path, ...], ...], size: int | None, first: Path) -> Images:
    """Give every file the index of its class as its label."""
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes])
    files = tuple(chain.from_iterable(classes))
    return Images(labels.astype(np.int64), file_reader(files, size, first))
