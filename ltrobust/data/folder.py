"""A user's own images as a source: PATH/train/<class>/* and PATH/test/<class>/*.

Classes are the sorted folder names; the canonical order goes class by class, files in the order of
`ltrobust.data.listing`. All images must have one size; nothing is resized here.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from ltrobust.data.base import ImageArray, Images, Source
from ltrobust.data.listing import one_spelling, scan_folder
from ltrobust.data.pixels import open_rgb
from ltrobust.data.split import IndexArray
from ltrobust.errors import UserError


def folder_source(root: Path) -> Source:
    """Open an image folder; images are read when a split asks for them.

    Raises:
        UserError: as `scan_folder`; on reading, an image that cannot be read or has another size.
    """
    files = scan_folder(root)
    first = files.train[0][0]
    width, height = open_rgb(first).size
    read = partial(_read, size=(width, height), model=first)
    train, test = _images(files.train, read), _images(files.test, read)
    return Source(files.class_names, train, test, files.left_out.line())


def folder_fingerprint(root: Path) -> str:
    """Hash the sorted relative names and the contents of an image folder's files (hex SHA-256).

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
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _images(classes: tuple[tuple[Path, ...], ...], read: partial[ImageArray]) -> Images:
    """Give every file the index of its class as its label."""
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes])
    return Images(labels.astype(np.int64), partial(read, tuple(chain.from_iterable(classes))))


def _read(
    files: tuple[Path, ...], index: IndexArray, *, size: tuple[int, int], model: Path
) -> ImageArray:
    """Read the files at `index`; `size` (width, height) is that of the image `model`."""
    images = np.empty((len(index), 3, size[1], size[0]), dtype=np.uint8)
    for i, position in enumerate(index):
        image = open_rgb(files[position])
        if image.size != size:
            raise UserError(
                f"image '{files[position]}' is {image.size[0]}x{image.size[1]} pixels but "
                f"'{model}' is {size[0]}x{size[1]}; resize all images to one size"
            )
        images[i] = np.asarray(image).transpose(2, 0, 1)
    return images
