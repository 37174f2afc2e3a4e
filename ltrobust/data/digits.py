"""scikit-learn's handwritten digits as a source: 8x8, one channel, embedded in the package.

The set has no test part of its own, so the split seed chooses one: of each class's permutation the
first 50 images are the test set, the next 120 the training pool.
"""

from __future__ import annotations

import zlib

import numpy as np

from ltrobust.data.base import ImageArray, Images, Source
from ltrobust.data.split import IndexArray, shuffled_classes
from ltrobust.errors import UserError

NUM_CLASSES = 10
TEST_PER_CLASS = 50
TRAIN_PER_CLASS = 120
CHECKSUM = 3779387638
"""CRC-32 of all pixels (uint8) and then all labels (int64, little-endian)."""


def digits_pools(labels: IndexArray, split_seed: int) -> tuple[list[IndexArray], list[IndexArray]]:
    """Part each class's permutation into a training pool and a test pool.

    Args:
        labels: (N,) int64 of the whole set.
        split_seed: seed of the permutations.

    Returns:
        Training pools (120 positions a class) and test pools (50 a class), in permuted order.
    """
    orders = shuffled_classes(labels, NUM_CLASSES, split_seed)
    end = TEST_PER_CLASS + TRAIN_PER_CLASS
    return [o[TEST_PER_CLASS:end] for o in orders], [o[:TEST_PER_CLASS] for o in orders]


def digits_source() -> Source:
    """Open the digits; grey values 0..16 become round(v * 255 / 16).

    `train` and `test` are the same 1,797 images; `digits_pools` tells them apart.

    Raises:
        UserError: scikit-learn brings other images.
    """
    from sklearn.datasets import load_digits  # slow to import, and only this data set needs it

    raw = load_digits()
    pixels: ImageArray = np.rint(raw.images * 255 / 16).astype(np.uint8)[:, None]
    labels = np.asarray(raw.target, dtype=np.int64)
    if zlib.crc32(labels.astype("<i8").tobytes(), zlib.crc32(pixels.tobytes())) != CHECKSUM:
        raise UserError(
            "scikit-learn's digits are not the 1,797 images that splits are defined on; "
            "install scikit-learn again"
        )
    images = Images(labels, lambda index: pixels[index])
    return Source(tuple(str(c) for c in range(NUM_CLASSES)), images, images)
