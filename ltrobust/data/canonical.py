"""Which images CIFAR's files must hold, and in which order their rows have to be read.

Splits name images by their position in the authors' files, so the rows of any other file are put
into that order, or refused when their labels or images are not the authors'. `canonical.npz` holds
every label in official order and the CRC-32 of every 500th image's pixels.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from ltrobust.data.base import Images
from ltrobust.data.split import IndexArray
from ltrobust.errors import UserError

OFFICIAL = "official"
BY_INDEX = "column index"
BATCHES = {"cifar10_train": 5}
"""How many files the authors made of a part; one where nothing is said."""


@dataclass(frozen=True)
class CanonicalPart:
    """The training or the test part of a data set as its authors published it.

    Attributes:
        labels: (N,) int64 in official order.
        checksums: CRC-32 of the pixels, uint8 (C, H, W), of images 0, k, 2k, ... below N, where k
            is N / len(checksums).
        batches: number of files, of equal size, that the authors made of it; other files may join
            these in another order.
    """

    labels: IndexArray
    checksums: npt.NDArray[np.uint32]
    batches: int = 1


@cache
def canonical_part(folder: str, part: str) -> CanonicalPart:
    """The "train" or "test" part of `cifar10` or `cifar100`."""
    name = f"{folder}_{part}"
    with (files("ltrobust.data") / "canonical.npz").open("rb") as file, np.load(file) as stored:
        labels = stored[f"{name}_labels"].astype(np.int64)
        return CanonicalPart(labels, stored[f"{name}_images"], BATCHES.get(name, 1))


def put_in_order(found: Images, expected: CanonicalPart, what: str, *, whole: bool) -> Images:
    """Put images as files hold them into official order, once it is sure that they are the ones.

    Args:
        found: the rows in the files' order; `index`, where it is there, is what the files claim.
        expected: what the authors published.
        what: names the images in errors, such as "CIFAR10 training images in 'data'".
        whole: whether every image must be there; if not, `index` may name a part of them.

    Returns:
        The images by ascending official position, with `index` and `order` set.

    Raises:
        UserError: images are missing, more than there are, in an unknown order, or others.
    """
    total = len(expected.labels)
    order = _batch_order(found.labels, expected)
    if order is not None:
        blocks = np.arange(total).reshape(expected.batches, -1)
        rows, index = blocks[np.argsort(order)].flatten(), np.arange(total)
        name = f"batches {', '.join(str(batch + 1) for batch in order)}"
        name = OFFICIAL if order == sorted(order) else name
    elif found.index is not None and (len(found.labels) == total or not whole):
        _check_index(found.index, found.labels, expected, what)
        rows, name = np.argsort(found.index), BY_INDEX
        index = found.index[rows]
    elif len(found.labels) != total:
        raise UserError(
            f"{what}: {len(found.labels):,} instead of {total:,}; get the files that are missing, "
            "keep no others beside them, and use folder:PATH for images of your own"
        )
    else:
        raise UserError(
            f"{what}: their labels are in no known order, so no split would be the published one; "
            "get the official archive (--download) or Hugging Face's files again"
        )
    ordered = Images(found.labels[rows], lambda at: found.read(rows[at]), index=index, order=name)
    _check_images(ordered, index, expected, what)
    return ordered


def _batch_order(labels: IndexArray, expected: CanonicalPart) -> list[int] | None:
    """Which batch comes first, second, ... in the files; None if they are not just the batches."""
    if len(labels) != len(expected.labels):
        return None
    batches = expected.labels.reshape(expected.batches, -1)
    order = [
        next((b for b, batch in enumerate(batches) if np.array_equal(block, batch)), -1)
        for block in labels.reshape(expected.batches, -1)
    ]
    return order if sorted(order) == list(range(expected.batches)) else None


def _check_index(index: IndexArray, labels: IndexArray, expected: CanonicalPart, what: str) -> None:
    """Raise UserError unless an index names each image at most once and fits the labels."""
    total = len(expected.labels)
    if not len(index) or index.min() < 0 or index.max() >= total:
        raise UserError(f"{what}: column 'index' must hold numbers from 0 to {total - 1}")
    if len(np.unique(index)) < len(index):
        raise UserError(f"{what}: column 'index' names an image twice; remove the copies")
    wrong = np.flatnonzero(expected.labels[index] != labels)
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{what}: row {row} has label {labels[row]}, but image {index[row]}, which its column "
            f"'index' names, is of class {expected.labels[index[row]]}; get the file again"
        )


def _check_images(images: Images, index: IndexArray, expected: CanonicalPart, what: str) -> None:
    """Raise UserError unless those images that have a checksum are, bit by bit, the authors'."""
    step = len(expected.labels) // len(expected.checksums)
    sampled = np.flatnonzero(index % step == 0)
    for position, pixels in zip(index[sampled], images.read(sampled), strict=True):
        if (
            zlib.crc32(np.ascontiguousarray(pixels).tobytes())
            != expected.checksums[position // step]
        ):
            raise UserError(
                f"{what}: image {position} has other pixels than the authors published (changed, "
                "compressed with loss, or in another order); get the files again"
            )
