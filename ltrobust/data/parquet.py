"""Read Hugging Face's parquet files: a column of encoded images, a column of labels.

Labels are read first and alone; of the images only those that a split keeps are read. Names of
files are checked here; that CIFAR's rows are the right ones in `ltrobust.data.canonical`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ltrobust.data.base import ImageArray, Images
from ltrobust.data.batches import PIXELS
from ltrobust.data.pixels import DECODE_ERRORS
from ltrobust.data.split import IndexArray
from ltrobust.errors import UserError

IMAGE_COLUMNS = ("img", "image")
INDEX_COLUMN = "index"
"""Where it is there: the position of each image in the authors' files."""
SHARD = re.compile(r"(?P<number>\d+)-of-(?P<total>\d+)(?P<revision>-[0-9A-Za-z]+)?")


@dataclass(frozen=True)
class Shard:
    """One parquet file, as its name tells: its number, of how many (None: the name is silent)."""

    path: Path
    number: int
    total: int | None
    hashed: bool = False

    @property
    def kind(self) -> tuple[object, ...]:
        """What all files of one set have in common."""
        return self.path.parent, self.total, self.hashed


def parquet_shards(folder: Path, part: str) -> list[Path]:
    """List the parquet files of `part` ("train" or "test") by their numbers; maybe none.

    Names are `train-00000-of-00005.parquet`, the same with a hash behind the number of files,
    `train.parquet` alone, or `0000.parquet` and so on in a folder `train`.

    Raises:
        UserError: the names say that files are missing, or that there is more than one set.
    """
    patterns = (f"{part}.parquet", f"{part}-*.parquet", f"{part}/*.parquet")
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    shards = [_shard(path, part) for path in paths if not path.name.startswith(".")]
    if not shards:
        return []
    seen: dict[int, Shard] = {}
    for shard in shards:
        other = seen.setdefault(shard.number, shard)
        if other is not shard or shard.kind != shards[0].kind:
            other = shards[0] if other is shard else other
            names = " and ".join(f"'{one.path.relative_to(folder)}'" for one in (other, shard))
            raise UserError(
                f"'{folder}' has more than one set of {part} files, such as {names}; "
                "keep one set there"
            )
    total = shards[0].total or max(seen) + 1
    there = [seen[number].path for number in range(total) if number in seen]
    if len(there) < total or len(seen) > total:
        raise UserError(
            f"'{folder}' has {len(there)} of the {total} {part} files that the names tell of "
            f"(such as '{shards[0].path.name}'); get the missing ones, or keep only one set there"
        )
    return there


def _shard(path: Path, part: str) -> Shard:
    """Read the name of a file of `part`; raise UserError when it is none of the known ones."""
    match = SHARD.fullmatch(path.stem.removeprefix(f"{part}-"))
    if match is not None:
        return Shard(path, int(match["number"]), int(match["total"]), bool(match["revision"]))
    if path.stem == part:
        return Shard(path, 0, 1)
    if path.stem.isdecimal():
        return Shard(path, int(path.stem), None)
    raise UserError(
        f"'{path}' has not the name of a {part} file, such as {part}-00000-of-00005.parquet; "
        "give it the name it had, or move it away"
    )


def parquet_images(files: Sequence[Path], label_column: str) -> Images:
    """Open CIFAR's parquet files as labelled images; images are decoded when they are asked for.

    Args:
        files: in order.
        label_column: the column of integer labels.

    Returns:
        The images in the order of the rows; `index` is what a column of that name says, unchecked.

    Raises:
        UserError: a file is damaged or has no such column; on reading, an image is damaged.
    """
    labels = [read_integers(path, label_column) for path in files]
    index = None
    if all(INDEX_COLUMN in columns(path) for path in files):
        index = np.concatenate([read_integers(path, INDEX_COLUMN) for path in files])
    sizes = [len(part) for part in labels]

    def read(positions: IndexArray) -> ImageArray:
        images = np.empty((len(positions), *PIXELS), dtype=np.uint8)
        for at, row in encoded_images(files, sizes, positions, IMAGE_COLUMNS):
            images[at] = _cifar_pixels(row)
        return images

    return Images(np.concatenate(labels), read, index=index)


@dataclass(frozen=True)
class Encoded:
    """An encoded image and the file and row that it comes from."""

    path: Path
    row: int
    content: bytes

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"in row {self.row} of '{self.path}'"


def encoded_images(
    files: Sequence[Path], sizes: Sequence[int], positions: IndexArray, names: Sequence[str]
) -> Iterator[tuple[int, Encoded]]:
    """Yield the encoded images at `positions`, each with its place among them, file by file.

    Args:
        files: in order.
        sizes: rows of each.
        positions: (M,) int64, counted over all files.
        names: the column of the images has one of these.

    Raises:
        UserError: a file is damaged or has no such column, or a row holds no image.
    """
    starts = np.cumsum([0, *sizes])
    order = np.argsort(positions, kind="stable")
    for path, start, end in zip(files, starts, starts[1:], strict=False):
        low, high = np.searchsorted(positions[order], (start, end))
        here = order[low:high]
        if len(here):
            rows = positions[here] - start
            yield from zip(here.tolist(), _encoded_rows(path, rows, names), strict=True)


def _encoded_rows(path: Path, rows: IndexArray, names: Sequence[str]) -> Iterator[Encoded]:
    """The images at `rows`, ascending, of one file; only their row groups are read."""
    with _opened(path) as file:
        name = _first_of(names, file.schema_arrow.names, path)
        groups = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
        starts = np.cumsum([0, *groups])
        for group, (start, end) in enumerate(pairwise(starts.tolist())):
            low, high = np.searchsorted(rows, (start, end))
            if low == high:
                continue
            column = file.read_row_group(group, columns=[name]).column(0)
            values = _as_bytes(pa.concat_arrays(column.chunks), path)
            for row in rows[low:high].tolist():
                content = values[row - start].as_py()
                if content is None:
                    raise UserError(
                        f"image in row {row} of '{path}' cannot be read: the row holds none; get "
                        "this file again"
                    )
                yield Encoded(path, row, content)


def _as_bytes(values: Any, path: Path) -> Any:
    if pa.types.is_struct(values.type) and values.type.get_field_index("bytes") >= 0:
        return values.field("bytes")
    if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
        raise UserError(f"the images of '{path}' must be bytes or a struct with 'bytes'")
    return values


def columns(path: Path) -> list[str]:
    """Names of a file's columns."""
    return list(schema(path).names)


def schema(path: Path) -> pa.Schema:
    """Names and types of a file's columns, and what its writer noted of them."""
    with _opened(path) as file:
        return file.schema_arrow


def read_column(path: Path, name: str) -> Any:
    """Read one column of one file, which must be there."""
    with _opened(path) as file:
        return file.read(columns=[_first_of([name], file.schema_arrow.names, path)]).column(0)


def _first_of(names: Sequence[str], there: Sequence[str], path: Path) -> str:
    """The first of these names that a file has."""
    name = next((name for name in names if name in there), None)
    if name is None:
        raise UserError(
            f"'{path}' has no column {' or '.join(map(repr, names))} (it has: "
            f"{', '.join(there)}); is it another data set?"
        )
    return name


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a file; damage becomes a UserError."""
    try:
        # opened here: pyarrow opens no path that is not UTF-8
        with path.open("rb") as stream, pq.ParquetFile(stream) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"cannot read parquet file '{path}' (truncated or damaged); get this file again"
        ) from error


def read_integers(path: Path, column: str) -> IndexArray:
    """Read a column of integers of one file, int64 (N,)."""
    values = read_column(path, column)
    if not pa.types.is_integer(values.type) or values.null_count:
        raise UserError(
            f"column '{column}' of '{path}' must hold integers without gaps, not {values.type}"
        )
    return values.to_numpy().astype(np.int64)


def _cifar_pixels(encoded: Encoded) -> ImageArray:
    """Decode one image of CIFAR, uint8 (3, 32, 32)."""
    try:
        with Image.open(io.BytesIO(encoded.content)) as image:
            size, pixels = image.size, np.asarray(image.convert("RGB"))
    except DECODE_ERRORS as error:
        raise UserError(f"image {encoded.name} cannot be read; get this file again") from error
    if size != PIXELS[1:]:
        raise UserError(
            f"image {encoded.name} is {size[0]}x{size[1]} pixels, not 32x32; get this file again"
        )
    return pixels.transpose(2, 0, 1)
