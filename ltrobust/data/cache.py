"""Images that do not fit into memory: decoded once into a file, and mapped from there.

The file is built in pieces, each with a checksum. A build that was stopped goes on where it stood;
one that is done is renamed into its place, and found again by what it holds. Small data never
comes here.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from ltrobust.data.base import Images
from ltrobust.data.split import IndexArray
from ltrobust.errors import UserError
from ltrobust.progress import Reporter

FOLDER = ".ltrobust-cache"
LIMIT_VARIABLE = "LTROBUST_IMAGE_MEMORY"
"""Environment: gigabytes (1e9 bytes) of images that one part of a data set may take in memory."""
SHARE = 0.25
"""Of the machine's memory, where nothing is said."""
LOOKED_AT = 16
"""Pieces of a finished file whose checksum is looked at when it is found again."""


def memory_limit() -> int:
    """Bytes that the images of one part may take in memory.

    Raises:
        UserError: the environment names no number.
    """
    text = os.environ.get(LIMIT_VARIABLE)
    if text is None:
        return int(SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise UserError(f"{LIMIT_VARIABLE}={text} is no number of gigabytes, such as 8")
    return int(limit * 1e9)


def read_or_map(
    images: Images, positions: IndexArray, root: Path, name: Callable[[], str]
) -> Tensor:
    """Read images into memory, or, where they are too many, through a file under `root`.

    Args:
        images: where they come from.
        positions: which, int64 (N,).
        root: the data directory.
        name: tells the data apart from any other data; asked only where a file is needed.

    Returns:
        uint8 (N, C, H, W), the same either way; a mapped one is read from disk as it is used.

    Raises:
        UserError: an image is damaged, or the file cannot be written.
    """
    limit = memory_limit()
    if len(positions) == 0:
        return torch.from_numpy(images.read(positions))
    image = images.shape or images.read(positions[:1]).shape[1:]
    if int(np.prod(image)) * len(positions) <= limit:
        return torch.from_numpy(images.read(positions))
    shape = (len(positions), *image)
    digest = hashlib.sha256(positions.astype("<i8").tobytes())
    digest.update(json.dumps([name(), shape, images.facts()["labels_sha256"]]).encode())
    cache = ImageCache(root / FOLDER, digest.hexdigest()[:24], shape, images.at_once)
    return cache.opened(images, positions)


class ImageCache:
    """One file of uint8 images and the checksums of its pieces.

    Args:
        folder: where it lies.
        key: its name.
        shape: of all images (N, C, H, W).
        piece: images that are decoded at a time.
    """

    def __init__(self, folder: Path, key: str, shape: tuple[int, ...], piece: int) -> None:
        self.path = folder / f"{key}.u8"
        self._notes = folder / f"{key}.json"
        self._part = folder / f"{key}.part"
        self._shape = shape
        self._piece = piece
        self._form = [*shape, piece]
        self._image = int(np.prod(shape[1:]))

    def opened(self, images: Images, positions: IndexArray) -> Tensor:
        """Map the file, built before if need be."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._alone():
                if not self._whole():
                    self._build(images, positions)
            # private pages: torch wants memory that may be written
            return torch.from_numpy(np.memmap(self.path, np.uint8, "c", shape=self._shape))
        except OSError as error:
            size = self._image * self._shape[0] / 1e9
            raise UserError(
                f"cannot keep {size:.1f} GB of decoded images in '{self.path.parent}' "
                f"({error.strerror or error}); free space there, choose another --data-dir, or "
                f"allow more memory with {LIMIT_VARIABLE} (gigabytes)"
            ) from error

    def _whole(self) -> bool:
        """Whether the file is there, has its size, and pieces of it have their checksums."""
        if not self.path.is_file() or self.path.stat().st_size != self._image * self._shape[0]:
            return False
        sums = self._checksums()
        if len(sums) != -(-self._shape[0] // self._piece):
            return False
        looked_at = np.unique(np.linspace(0, len(sums) - 1, LOOKED_AT).astype(int))
        with self.path.open("rb") as file:
            return all(self._checksum(file, piece) == sums[piece] for piece in looked_at.tolist())

    def _build(self, images: Images, positions: IndexArray) -> None:
        """Write the pieces that are missing, then give the file its name."""
        sums = self._checksums() if self._part.is_file() else []
        pieces = -(-len(positions) // self._piece)
        self._part.touch()
        with self._part.open("r+b") as file, Reporter(Console(stderr=True)) as reporter:
            if sums and self._checksum(file, len(sums) - 1) != sums[-1]:
                sums = []  # not what was noted: from the beginning
            reporter.line(f"decoding {len(positions):,} images once, into {self.path}")
            reporter.begin("part", "images decoded", pieces, len(sums))
            for piece in range(len(sums), pieces):
                part = np.ascontiguousarray(
                    images.read(positions[piece * self._piece : (piece + 1) * self._piece])
                )
                file.seek(piece * self._piece * self._image)
                file.write(part.data)
                file.flush()
                os.fsync(file.fileno())
                sums.append(zlib.crc32(part.data))
                self._note(sums)
                reporter.advance("part")
            reporter.end("part")
            file.truncate(self._image * self._shape[0])
        self._part.replace(self.path)

    def _checksum(self, file: Any, piece: int) -> int:
        file.seek(piece * self._piece * self._image)
        return zlib.crc32(file.read(self._piece * self._image))

    def _checksums(self) -> list[int]:
        try:
            content = json.loads(self._notes.read_text())
        except (OSError, ValueError):
            return []
        fits = isinstance(content, dict) and content.get("shape") == self._form
        return list(content["crc32"]) if fits else []

    def _note(self, sums: list[int]) -> None:
        temporary = self._notes.with_suffix(".tmp")
        temporary.write_text(json.dumps({"shape": self._form, "crc32": sums}))
        temporary.replace(self._notes)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process build at a time; the others wait and find it done."""
        with self.path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
