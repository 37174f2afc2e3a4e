"""Read CIFAR from Hugging Face parquet files: a column of PNG bytes, a column of labels.

Labels are read first and alone; of the images only those that a split keeps are decoded.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ltrobust.data.base import ImageArray, Images
from ltrobust.data.folder import DECODE_ERRORS
from ltrobust.data.split import IndexArray
from ltrobust.errors import UserError

IMAGE_COLUMN = "img"
SHARD = re.compile(r"-of-(\d+)$")


def parquet_shards(folder: Path, part: str) -> list[Path]:
    """List the parquet files of `part` ("train" or "test") in canonical order; maybe none.

    Raises:
        UserError: the names say that there should be more files (`...-of-00005`).
    """
    files = sorted(folder.glob(f"{part}-*.parquet")) or sorted(folder.glob(f"{part}.parquet"))
    match = SHARD.search(files[0].stem) if files else None
    if match and len(files) != int(match[1]):
        raise UserError(
            f"'{folder}' has {len(files)} of the {int(match[1])} files {part}-*.parquet; "
            "get the missing ones, or keep only one set of them there"
        )
    return files


def parquet_images(files: Sequence[Path], label_column: str) -> Images:
    """Open parquet files as labelled images; images are decoded when they are asked for.

    Args:
        files: in canonical order.
        label_column: the column of integer labels.

    Raises:
        UserError: a file is damaged or has no such column; on reading, an image is damaged.
    """
    labels = [_read_labels(path, label_column) for path in files]
    starts = np.cumsum([0, *(len(part) for part in labels)])

    def read(index: IndexArray) -> ImageArray:
        images = np.empty((len(index), 3, 32, 32), dtype=np.uint8)
        for path, start, end in zip(files, starts, starts[1:], strict=False):
            here = np.flatnonzero((index >= start) & (index < end))
            if len(here):
                images[here] = _decode_rows(path, index[here] - start)
        return images

    return Images(np.concatenate(labels), read)


def _read_column(path: Path, column: str) -> Any:
    """Read one column of one file."""
    try:
        # opened here: pyarrow opens no path that is not UTF-8
        with path.open("rb") as stream, pq.ParquetFile(stream) as file:
            if column not in file.schema_arrow.names:
                raise UserError(
                    f"'{path}' has no column '{column}' (it has: "
                    f"{', '.join(file.schema_arrow.names)}); is it another data set?"
                )
            return file.read(columns=[column]).column(0)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"cannot read parquet file '{path}' (truncated or damaged); get this file again"
        ) from error


def _read_labels(path: Path, column: str) -> IndexArray:
    """Read the labels of one file, int64 (N,)."""
    labels = _read_column(path, column)
    if not pa.types.is_integer(labels.type) or labels.null_count:
        raise UserError(
            f"column '{column}' of '{path}' must hold integers without gaps, not {labels.type}"
        )
    return labels.to_numpy().astype(np.int64)


def _decode_rows(path: Path, rows: IndexArray) -> ImageArray:
    """Decode the images at `rows` of one file, uint8 (len(rows), 3, 32, 32)."""
    column = _read_column(path, IMAGE_COLUMN)
    if not pa.types.is_struct(column.type) or column.type.get_field_index("bytes") < 0:
        raise UserError(f"column '{IMAGE_COLUMN}' of '{path}' must be a struct with 'bytes'")
    encoded = pa.concat_arrays(column.chunks).field("bytes")
    images = np.empty((len(rows), 3, 32, 32), dtype=np.uint8)
    for i, row in enumerate(rows.tolist()):
        try:
            with Image.open(io.BytesIO(encoded[row].as_py())) as image:
                images[i] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        except (*DECODE_ERRORS, TypeError) as error:  # TypeError: the row holds no bytes
            raise UserError(
                f"image in row {row} of '{path}' is no readable 32x32 image; get this file again"
            ) from error
    return images
