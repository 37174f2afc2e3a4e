"""What the outcomes of one attack come to: counts, from which all accuracies are made.

A digest is small and says nothing of single images; what sets image against image (paired
comparisons, the worst case over seeds) needs the outcomes themselves.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, model_validator

OUTCOME_COLUMNS = ["index", "label", "attack", "attack_id", "pred", "correct", "fell"]


class Digest(BaseModel):
    """Counts of one attack's outcomes.

    Attributes:
        right: images of each class (C) that stood.
        predictions: of each class (C), how often each prediction occurs, by its number as text.
        natural: images that are misclassified without an attack.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    right: list[int]
    predictions: list[dict[str, int]]
    natural: int

    @model_validator(mode="after")
    def _classes_agree(self) -> Digest:
        if len(self.right) != len(self.predictions):
            raise ValueError("right and predictions differ in the number of classes")
        if not self.n:
            raise ValueError("no image is counted")
        if any(not 0 <= r <= n for r, n in zip(self.right, self.tested, strict=True)):
            raise ValueError("more images are right than there are")
        if not all(key.isdecimal() for counts in self.predictions for key in counts):
            raise ValueError("a prediction is no class")
        return self

    @property
    def tested(self) -> list[int]:
        """Test images of each class (C)."""
        return [sum(counts.values()) for counts in self.predictions]

    @property
    def n(self) -> int:
        """Test images."""
        return sum(self.tested)

    def confusion(self) -> list[tuple[int, int, int]]:
        """Class, prediction, and how often it occurs, of those that do, in increasing order."""
        return [
            (label, pred, count)
            for label, counts in enumerate(self.predictions)
            for pred, count in sorted((int(key), count) for key, count in counts.items())
        ]


def digest_of(outcomes: pd.DataFrame, num_classes: int) -> Digest:
    """Count the outcomes of one attack.

    Args:
        outcomes: rows with `label`, `pred`, `correct` and `fell`, one per test image.
        num_classes: C.
    """
    labels = outcomes["label"].to_numpy()
    right = np.bincount(labels[outcomes["correct"].to_numpy(dtype=bool)], minlength=num_classes)
    predictions: list[dict[str, int]] = [{} for _ in range(num_classes)]
    pairs, counts = np.unique(
        np.stack([labels, outcomes["pred"].to_numpy()]), axis=1, return_counts=True
    )
    for label, pred, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
        predictions[label][str(pred)] = count
    natural = int((outcomes["fell"] == "clean").sum())
    return Digest(right=right.tolist(), predictions=predictions, natural=natural)


def images_sha256(index: ArrayLike, labels: ArrayLike) -> str:
    """SHA-256 over index and label of test images, int64 little-endian."""
    both = np.stack([np.asarray(index), np.asarray(labels)]).astype("<i8")
    return hashlib.sha256(both.tobytes()).hexdigest()


def outcomes_sha256(outcomes: pd.DataFrame) -> str:
    """SHA-256 over what was found of each image, whatever the order of the rows."""
    order = np.argsort(outcomes["index"].to_numpy(), kind="stable")
    names = ("index", "label", "pred", "correct")
    numbers = np.stack([outcomes[name].to_numpy()[order] for name in names])
    content: Any = hashlib.sha256(numbers.astype("<i8").tobytes())
    fell = outcomes["fell"].to_numpy(dtype=object)[order]  # one by one, strings of arrow are slow
    content.update("\n".join(map(str, fell)).encode())
    return str(content.hexdigest())
