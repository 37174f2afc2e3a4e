"""The two shapes of data: what a source offers, and what a split of it hands to a run.

A source knows all labels but reads images only when asked, so that a split decodes no more than it
keeps. `LongTailedData` is the result; nothing here knows where files lie.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ltrobust.data.split import IndexArray
from ltrobust.errors import UserError

ImageArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Images:
    """Labelled images in canonical order.

    Attributes:
        labels: (N,) int64.
        read: takes positions (M,) int64, returns their images, uint8 (M, C, H, W).
        index: (N,) int64, what each image is called in the whole set; None means 0 .. N - 1.
        order: the order in which the files hold them, for the record.
        shape: (C, H, W) of all of them, where that is known unread.
        at_once: how many to ask for at a time where not all are wanted in memory.
        files: where they lie, of data that its name and labels do not tell from other images.
    """

    labels: IndexArray
    read: Callable[[IndexArray], ImageArray]
    index: IndexArray | None = None
    order: str = "its own"
    shape: tuple[int, int, int] | None = None
    at_once: int = 512
    files: Sequence[Path] = ()

    def by_class(self, num_classes: int) -> list[IndexArray]:
        """Return the positions of each class in canonical order."""
        return [np.flatnonzero(self.labels == c).astype(np.int64) for c in range(num_classes)]

    def named(self, positions: IndexArray) -> IndexArray:
        """Return what the images at `positions` are called in the whole set."""
        return positions if self.index is None else self.index[positions]

    def facts(self) -> dict[str, Any]:
        """What a result must say about where its images come from."""
        digest = hashlib.sha256(self.labels.astype("<i8").tobytes()).hexdigest()
        return {"images": len(self.labels), "order": self.order, "labels_sha256": digest}


@dataclass(frozen=True)
class Source:
    """A data set before any split.

    Attributes:
        class_names: one name a class.
        train: the training images.
        test: the test images.
        left_out: one line on files beside them that are not read; "" when there are none.
        val: the validation images that the authors set apart; None where they made no such part.
        files: checksums of the files that were read, where they are the published ones.
    """

    class_names: tuple[str, ...]
    train: Images
    test: Images
    left_out: str = ""
    val: Images | None = None
    files: dict[str, str] = field(default_factory=dict)

    def checked(self, what: str) -> Source:
        """Return the source.

        Args:
            what: names it in errors, such as "SVHN in 'data'".

        Raises:
            UserError: a label names no class, or a class has no training or no test images.
        """
        last = len(self.class_names) - 1
        parts = {"training": self.train, "validation": self.val, "test": self.test}
        for part, images in parts.items():
            if images is None:
                continue
            labels = images.labels
            if len(labels) and (labels.min() < 0 or labels.max() > last):
                raise UserError(
                    f"{what}: the {part} images have labels {labels.min()} to {labels.max()}; "
                    f"expected 0 to {last}"
                )
            sizes = np.bincount(labels, minlength=last + 1)
            if part != "validation" and not sizes.all():
                missing = self.class_names[int(np.flatnonzero(sizes == 0)[0])]
                raise UserError(
                    f"{what}: class '{missing}' has no {part} images; every class needs some, in "
                    "the training and in the test part"
                )
        return self


@dataclass(frozen=True, eq=False)
class LongTailedData:
    """A long-tailed training set and its test set, in memory.

    Attributes:
        name: the data set's public name.
        class_names: one name a class.
        train_images: uint8 (N, C, H, W), in selection order.
        train_labels: int64 (N,).
        train_index: int64 (N,), position in the source's canonical training order.
        test_images: uint8 (M, C, H, W), in canonical order.
        test_labels: int64 (M,).
        test_index: int64 (M,), position in the source's canonical test order.
        val_images: uint8 (V, C, H, W), held out of the training images; none unless asked for.
        val_labels: int64 (V,).
        val_index: int64 (V,), position in the source's canonical training order.
        source: for "train" and "test" the number of images there were before the split, the order
            in which the files hold them, and `labels_sha256`, the SHA-256 (hex) of their labels in
            canonical order as int64 little-endian bytes.
        path: where an image folder lies, absolute; "" for other data sets.
        notes: what a user of an image folder must hear, a line each: files that are not read, and
            images that are not kept.
    """

    name: str
    class_names: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    train_index: Tensor
    test_images: Tensor
    test_labels: Tensor
    test_index: Tensor
    val_images: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    val_labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    val_index: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    source: dict[str, dict[str, Any]] = field(default_factory=dict)
    path: str = ""
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def train_counts(self) -> tuple[int, ...]:
        """Training images of each class."""
        counts = torch.bincount(self.train_labels, minlength=self.num_classes)
        return tuple(int(count) for count in counts.tolist())

    @property
    def imbalance_ratio(self) -> float:
        """Largest over smallest training class, as it came out."""
        return max(self.train_counts) / min(self.train_counts)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def split_sha256(self) -> str:
        """SHA-256 (hex) of the training index in selection order, as int64 little-endian bytes."""
        return hashlib.sha256(self.train_index.numpy().astype("<i8").tobytes()).hexdigest()
