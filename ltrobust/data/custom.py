"""Data sets from outside: a spec, and one function that gives the arrays.

What they hold is their identity, not the function or its file. Long-tailed splits are cut from
them by the rule for all sets that came with classes of any size.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ltrobust.data.base import ImageArray, Images, Source
from ltrobust.data.catalog import DATASETS, OWN_LAYOUTS
from ltrobust.data.spec import DatasetSpec
from ltrobust.errors import UserError

Arrays = tuple[ImageArray, npt.NDArray[Any], ImageArray, npt.NDArray[Any]]
"""Training images, uint8 (N, C, H, W), their labels, whole numbers (N,) in 0 .. classes - 1, test
images and their labels."""
ArrayLoader = Callable[[Path], Arrays]
"""`load(data_dir)`: the arrays, the same ones at each call; it changes no file."""
L = TypeVar("L", bound=ArrayLoader)
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def register_dataset(spec: DatasetSpec) -> Callable[[L], L]:
    """Register a data set, which `--dataset` then takes by the name in its spec.

    Raises:
        UserError: the name is taken or means something else, or the spec does not tell the classes.
    """
    check_dataset_name(spec.name)
    if spec.num_classes is None or spec.num_classes < 2:
        raise UserError(f"dataset '{spec.name}': num_classes must be 2 or more")
    if spec.class_names and len(spec.class_names) != spec.num_classes:
        raise UserError(
            f"dataset '{spec.name}': {len(spec.class_names)} class_names for "
            f"{spec.num_classes} classes; give one a class"
        )

    def decorate(load: L) -> L:
        DATASETS.add(spec.name, replace(spec, load=load))
        return load

    return decorate


def check_dataset_name(name: str) -> None:
    """Raise UserError for a name that no data set from outside can have."""
    families = {known.partition(":")[0] for known in DATASETS} | set(OWN_LAYOUTS)
    if not NAME.fullmatch(name):
        raise UserError(f"dataset name '{name}' may hold letters, digits, '-' and '_' only")
    if name not in DATASETS and name in families:
        raise UserError(f"dataset name '{name}' is that of a family of ours; choose another")


def arrays_source(spec: DatasetSpec, root: Path) -> Source:
    """Load a data set from outside, and hold it to what its spec says.

    Raises:
        UserError: the arrays cannot be had, or are not what they should be.
    """
    where, given = f"dataset '{spec.name}'", _loaded(spec, root)
    _check(where, "training", *given[:2])
    _check(where, "test", *given[2:])
    images, labels, test_images, test_labels = given
    if images.shape[1:] != test_images.shape[1:]:
        raise UserError(
            f"{where}: training images are {images.shape[1:]}, test images {test_images.shape[1:]}"
        )
    names = spec.class_names or tuple(map(str, range(spec.num_classes or 0)))
    content = hashlib.sha256("\n".join([*names, str(images.shape)]).encode())
    for array in (images, test_images):
        content.update(np.ascontiguousarray(array).data)
    for array in (labels, test_labels):
        content.update(array.astype("<i8").tobytes())
    found, expected = content.hexdigest(), spec.about.checksum
    if expected not in ("", found):
        raise UserError(f"{where}: its arrays have SHA-256 {found}, its spec says {expected}")
    return Source(
        names,
        Images(labels.astype(np.int64), images.__getitem__, shape=images.shape[1:]),
        Images(test_labels.astype(np.int64), test_images.__getitem__, shape=images.shape[1:]),
        files={"arrays sha256": found},
    ).checked(where)


def arrays_fingerprint(spec: DatasetSpec, root: Path) -> str:
    """SHA-256 of class names and arrays of a data set from outside; "" of others.

    Where its spec says it nothing is read.
    """
    if spec.load is None:
        return ""
    return spec.about.checksum or arrays_source(spec, root).files["arrays sha256"]


def _loaded(spec: DatasetSpec, root: Path) -> list[npt.NDArray[Any]]:
    """The four arrays, as they are given."""
    where = f"dataset '{spec.name}'"
    try:
        given = [np.asarray(array) for array in spec.load(root)] if spec.load is not None else []
    except UserError:
        raise
    except Exception as error:  # anything that somebody's loader may raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{where} cannot be loaded: {reason}") from error
    if len(given) != 4:
        raise UserError(f"{where}: its loader must give images, labels, test images, test labels")
    return given


def _check(where: str, part: str, images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UserError(
            f"{where}: its {part} images are {images.dtype} {images.shape}; they must be uint8 "
            "(N, C, H, W) with 1 or 3 channels"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise UserError(
            f"{where}: its {part} labels are {labels.dtype} {labels.shape}; they must be whole "
            f"numbers ({len(images)},)"
        )
