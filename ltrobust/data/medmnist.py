"""Read MedMNIST's npz files: training, validation and test images as their authors parted them.

A member of the archive is read in pieces, so that a split takes the memory of what it keeps and
not of the whole file.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from ltrobust.data.base import ImageArray, Images, Source
from ltrobust.data.catalog import MEDMNIST, MEDMNIST_SIZES, medmnist_sets
from ltrobust.data.fetch import check_md5, fetch
from ltrobust.data.split import IndexArray
from ltrobust.errors import UserError

PARTS = ("train", "val", "test")
PIECE = 1 << 24
"""Bytes of images that are read at a time."""
MANY = 2_000_000_000
"""Bytes of images that a call should ask for, where not all fit into memory."""


def medmnist_source(name: str, size: int | None, data_dir: Path) -> Source | None:
    """Open `NAME.npz`, or `NAME_SIZE.npz`, in `data_dir` or its folder `medmnist`.

    Returns:
        None when the file is not there.

    Raises:
        UserError: the file is damaged, or is not the one that was published.
    """
    path = next((p for p in _places(name, size, data_dir) if p.is_file()), None)
    if path is None:
        return None
    facts = medmnist_sets()[name]
    side = size or MEDMNIST_SIZES[0]
    parts = [_part(path, part, facts["images"][part], side, facts["channels"]) for part in PARTS]
    train, val, test = parts
    source = Source(tuple(facts["classes"]), train, test, val=val).checked(f"'{path}'")
    md5 = facts["md5"][str(side)]
    check_md5(path, md5)
    source.files[path.name] = f"md5 {md5}"
    return source


def fetch_medmnist(name: str, size: int | None, data_dir: Path) -> None:
    """Download a set as the package `medmnist` says.

    Raises:
        UserError: the package is not installed, or the download fails.
    """
    try:
        from medmnist.info import INFO
    except ImportError as error:
        raise UserError(
            f"--download of {MEDMNIST}:{name} needs the package medmnist: pip install "
            f"'ltrobust[medmnist]', or put {file_name(name, size)} there yourself"
        ) from error
    ending = "" if size is None else f"_{size}"
    info = INFO[name]
    target = data_dir / MEDMNIST
    fetch(info[f"url{ending}"], target, file_name(name, size), info[f"MD5{ending}"], name)


def missing_medmnist(name: str, size: int | None, data_dir: Path) -> UserError:
    """Build the error for a data directory without the set."""
    return UserError(
        f"no {file_name(name, size)} in '{data_dir}' or '{data_dir / MEDMNIST}'; put it there "
        "(from https://medmnist.com), or name another folder with --data-dir, or fetch it with "
        "--download"
    )


def file_name(name: str, size: int | None) -> str:
    """What the authors call a set's file."""
    return f"{name}.npz" if size is None else f"{name}_{size}.npz"


def _places(name: str, size: int | None, data_dir: Path) -> list[Path]:
    return [folder / file_name(name, size) for folder in (data_dir, data_dir / MEDMNIST)]


def _part(path: Path, part: str, count: int, side: int, channels: int) -> Images:
    """Open one part; only its labels are read."""
    shape = (count, side, side) if channels == 1 else (count, side, side, channels)
    with _member(path, f"{part}_labels", (count, 1)) as labels:
        known = np.frombuffer(_read(labels, count), np.uint8).astype(np.int64)
    with _member(path, f"{part}_images", shape):
        pass
    read = partial(_images, path, part, shape)
    # each call reads the whole member, so many at once
    at_once = max(1, MANY // (side * side * channels))
    return Images(known, read, order="official", shape=(channels, side, side), at_once=at_once)


def _images(path: Path, part: str, shape: tuple[int, ...], positions: IndexArray) -> ImageArray:
    """Read the images at `positions`, uint8 (M, C, H, W), in one pass over the member."""
    kept = np.empty((len(positions), *shape[1:]), np.uint8)
    order = np.argsort(positions, kind="stable")
    ordered = positions[order]
    row = int(np.prod(shape[1:]))
    step = max(1, PIECE // row)
    with _member(path, f"{part}_images", shape) as stream:
        for start in range(0, shape[0], step):
            end = min(start + step, shape[0])
            piece = np.frombuffer(_read(stream, (end - start) * row), np.uint8)
            low, high = np.searchsorted(ordered, (start, end))
            kept[order[low:high]] = piece.reshape(-1, *shape[1:])[ordered[low:high] - start]
    images = kept[:, None] if kept.ndim == 3 else kept.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images)


@contextmanager
def _member(path: Path, name: str, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """Open an array of the archive behind its header, once it is sure that it has this shape.

    Raises:
        UserError: the archive is damaged, or the array is not there or another.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            found, fortran, dtype = read_header(stream)
            if found != shape or fortran or dtype != np.uint8:
                raise UserError(
                    f"'{path}': '{name}' is {dtype} {found}, not uint8 {shape} as published; get "
                    "the file again"
                )
            yield stream
    except KeyError as error:
        raise UserError(f"'{path}' has no '{name}'; is it another data set's file?") from error
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"'{path}' cannot be read ({type(error).__name__}: cut off or damaged); get it again"
        ) from error


def _read(stream: IO[bytes], count: int) -> bytes:
    """Read `count` bytes; EOFError when there are fewer."""
    content = stream.read(count)
    if len(content) < count:
        raise EOFError
    return content
