"""Many encoded images into one array: on several threads, all of one size or brought to one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from ltrobust.data.base import ImageArray
from ltrobust.data.pixels import fitted, open_rgb
from ltrobust.data.split import IndexArray
from ltrobust.errors import UserError

THREADS = min(8, os.cpu_count() or 1)

Opener = Callable[[int], Image.Image]
"""Decodes the image at a position; raises UserError when it cannot be read."""


def stacked(
    positions: IndexArray,
    opener: Opener,
    name: Callable[[int], str],
    size: int | None,
    first: tuple[int, str] | None = None,
) -> ImageArray:
    """Decode images, uint8 (M, 3, H, W).

    Args:
        positions: (M,) int64, M >= 1 unless `size` is given.
        opener: decodes one of them.
        name: names one in errors, such as "'a.png'".
        size: side length that they are brought to, see `fitted`; None: they must have one size.
        first: position and name of the image whose size the others must have; default the first.

    Raises:
        UserError: an image cannot be read, or has another size than the first.
    """
    if size is None:
        model, model_name = first or (int(positions[0]), name(int(positions[0])))
        width, height = opener(model).size
    else:
        width = height = size
    images = np.empty((len(positions), 3, height, width), dtype=np.uint8)

    def read(at: int) -> None:
        position = int(positions[at])
        image = fitted(opener(position), size)
        if image.size != (width, height):
            raise UserError(
                f"image {name(position)} is {image.size[0]}x{image.size[1]} pixels but "
                f"{model_name} is {width}x{height}; resize all images to one size, or let it be "
                "done: @64 behind the data set's name gives 64x64"
            )
        images[at] = np.asarray(image).transpose(2, 0, 1)

    on_threads(read, range(len(positions)))
    return images


def on_threads(work: Callable[[int], None], items: Iterable[int]) -> None:
    """Do all items on a few threads; the first error is raised."""
    # Pillow's warnings are caught here: filters belong to all threads
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(work, items):
            pass


def file_reader(
    files: Sequence[Path], size: int | None, first: Path | None = None
) -> Callable[[IndexArray], ImageArray]:
    """Read image files by their position.

    Args:
        files: the files.
        size: see `stacked`.
        first: with `size` None, the file whose size all must have; default the first of them.
    """

    def read(positions: IndexArray) -> ImageArray:
        def opener(position: int) -> Image.Image:
            return open_rgb(files[position] if position >= 0 else first or files[0])

        model = (-1, f"'{first or files[0]}'")
        return stacked(positions, opener, lambda at: f"'{files[at]}'", size, model)

    return read
