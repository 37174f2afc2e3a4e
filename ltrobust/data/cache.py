"""Images that do not fit into memory: decoded once into a file, and mapped from there.

The file is built in pieces, each with a checksum. A build that was stopped goes on where it stood;
one that failed leaves nothing; one that is done is renamed into its place, and found again by what
it holds. Small data never comes here.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
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
"""Of the data directory; it may be removed whenever nothing runs."""
FOLDER_VARIABLE = "LTROBUST_CACHE_DIR"
"""Environment: another place for it, as where the data may only be read."""
LIMIT_VARIABLE = "LTROBUST_IMAGE_MEMORY"
"""Environment: gigabytes (1e9 bytes) of images that one part of a data set may take in memory."""
SHARE = 0.25
"""Of the machine's memory, where nothing is said."""
LOOKED_AT = 16
"""Pieces of a finished file whose checksum is looked at when it is found again as it was left; of
one that has been written to since, or copied, all are."""


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
        UserError: an image is damaged, or the file cannot be written; then none is left.
    """
    limit = memory_limit()
    if len(positions) == 0:
        return torch.from_numpy(images.read(positions))
    image = images.shape or images.read(positions[:1]).shape[1:]
    if int(np.prod(image)) * len(positions) <= limit:
        return torch.from_numpy(images.read(positions))
    shape = (len(positions), *image)
    digest = hashlib.sha256(positions.astype("<i8").tobytes())
    about = [name(), shape, images.facts()["labels_sha256"], _changes(images.files)]
    digest.update(json.dumps(about).encode())
    folder = Path(os.environ.get(FOLDER_VARIABLE) or root / FOLDER).expanduser()
    cache = ImageCache(folder, digest.hexdigest()[:24], shape, images.at_once)
    return cache.opened(images, positions)


def _changes(files: Sequence[Path]) -> str:
    """Hash of the size and the last change of files."""
    digest = hashlib.sha256()
    for file in files:
        found = file.stat()
        digest.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


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
        self._pieces = -(-shape[0] // piece)
        self._form = [*shape, piece]
        self._image = int(np.prod(shape[1:]))

    def opened(self, images: Images, positions: IndexArray) -> Tensor:
        """Map the file, built before if need be."""
        try:
            # a whole file needs no lock, and so no right to write
            if not self._whole():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self._alone():
                    if not self._whole():
                        self._build(images, positions)
            # private pages: torch wants memory that may be written
            return torch.from_numpy(np.memmap(self.path, np.uint8, "c", shape=self._shape))
        except OSError as error:
            raise self._no_room(error.strerror or str(error)) from error

    def _no_room(self, reason: str) -> UserError:
        size = self._image * self._shape[0] / 1e9
        return UserError(
            f"cannot keep {size:.1f} GB of decoded images in '{self.path.parent}' ({reason}); free "
            f"space there, name another folder with {FOLDER_VARIABLE}, or allow more memory with "
            f"{LIMIT_VARIABLE} (gigabytes)"
        )

    def _whole(self) -> bool:
        """Whether the file is there, has its size, and pieces of it have their checksums."""
        if not self.path.is_file() or self.path.stat().st_size != self._image * self._shape[0]:
            return False
        sums, left = self._noted()
        if len(sums) != self._pieces:
            return False
        as_left = left == self.path.stat().st_mtime_ns
        count = min(LOOKED_AT, self._pieces) if as_left else self._pieces
        looked_at = np.unique(np.linspace(0, self._pieces - 1, count).astype(int))
        with self.path.open("rb") as file:
            return all(self._checksum(file, piece) == sums[piece] for piece in looked_at.tolist())

    def _build(self, images: Images, positions: IndexArray) -> None:
        """Write the pieces that are missing, then give the file its name."""
        try:
            self._write(images, positions)
        except (UserError, OSError):
            for file in (self._part, self._notes):
                with suppress(OSError):
                    file.unlink(missing_ok=True)
            raise
        self._part.replace(self.path)
        self._note(self._noted()[0], self.path.stat().st_mtime_ns)

    def _write(self, images: Images, positions: IndexArray) -> None:
        noted = self._noted()[0] if self._part.is_file() else []
        self._part.touch()
        lacking = self._image * self._shape[0] - self._part.stat().st_size
        if lacking > shutil.disk_usage(self._part.parent).free:
            raise self._no_room("not enough space")
        with self._part.open("r+b") as file, Reporter(Console(stderr=True)) as reporter:
            # what is not as it was noted is made again
            fits = takewhile(lambda at: self._checksum(file, at) == noted[at], range(len(noted)))
            sums = noted[: sum(1 for _ in fits)]
            reporter.line(f"decoding {len(positions):,} images once, into {self.path}")
            reporter.begin("part", "images decoded", self._pieces, len(sums))
            for piece in range(len(sums), self._pieces):
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

    def _checksum(self, file: Any, piece: int) -> int:
        file.seek(piece * self._piece * self._image)
        return zlib.crc32(file.read(self._piece * self._image))

    def _noted(self) -> tuple[list[int], int | None]:
        """Checksums of the pieces that there are, and when a finished file was left."""
        try:
            content = json.loads(self._notes.read_text())
        except (OSError, ValueError):
            return [], None
        if not isinstance(content, dict) or content.get("shape") != self._form:
            return [], None
        sums = content.get("crc32")
        return (sums if isinstance(sums, list) else []), content.get("left")

    def _note(self, sums: list[int], left: int | None = None) -> None:
        temporary = self._notes.with_suffix(".tmp")
        temporary.write_text(json.dumps({"shape": self._form, "crc32": sums, "left": left}))
        temporary.replace(self._notes)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process build at a time; the others wait and find it done."""
        with self.path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
