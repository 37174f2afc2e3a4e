"""The data sets by name, and the settings that each one brings to a run.

A spec says how a data set is attacked and trained unless the user says otherwise. It does not read
any file; `ltrobust.data.load` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ltrobust.errors import UserError, unknown
from ltrobust.output import printable
from ltrobust.registry import Registry

AugmentPolicy = Literal["none", "randaugment", "autoaugment"]
"""What is done to training images beyond crop and flip; `augment` has the settings."""
DEFAULT_DATASET = "digits-lt"
FOLDER_PREFIX = "folder:"
CONTENT = "@"
"""In results, between an image folder's name and the first digits of its content's hash."""


@dataclass(frozen=True)
class DatasetSpec:
    """A data set's defaults.

    Attributes:
        name: public name, as on the command line.
        num_classes: number of classes; None where only the files can tell (image folders).
        imbalance_ratio: default largest / smallest training class; None keeps all files.
        eps: default L-infinity radius in [0, 1] image units.
        epochs: default number of training epochs.
        batch_size: default training batch.
        arch: default architecture.
        crop_padding: zero padding of the random crop in pixels; 0 means no crop.
        flip: whether a mirrored image still belongs to its class.
        description: one line for listings.
    """

    name: str
    num_classes: int | None
    imbalance_ratio: float | None
    eps: float
    epochs: int
    batch_size: int
    arch: str
    crop_padding: int
    flip: bool
    description: str


def _natural(
    name: str, num_classes: int | None, imbalance_ratio: float | None, description: str
) -> DatasetSpec:
    """Build the spec of colour photographs: the settings that the field uses on CIFAR."""
    return DatasetSpec(
        name=name,
        num_classes=num_classes,
        imbalance_ratio=imbalance_ratio,
        eps=8 / 255,
        epochs=100,
        batch_size=128,
        arch="resnet18",
        crop_padding=4,
        flip=True,
        description=description,
    )


DATASETS: Registry[DatasetSpec] = Registry("dataset")
DATASETS.add(
    "digits-lt",
    DatasetSpec(
        name="digits-lt",
        num_classes=10,
        imbalance_ratio=10.0,
        eps=0.1,
        epochs=25,
        batch_size=64,
        arch="small-cnn",
        crop_padding=0,
        flip=False,  # a mirrored digit is another shape
        description="scikit-learn's 8x8 digits, embedded: 120 down to 12 images a class",
    ),
)
DATASETS.add("cifar10-lt", _natural("cifar10-lt", 10, 50.0, "CIFAR-10, 5000 down to 100 a class"))
DATASETS.add("cifar100-lt", _natural("cifar100-lt", 100, 10.0, "CIFAR-100, 500 down to 50 a class"))


def dataset_spec(name: str) -> DatasetSpec:
    """Return the spec of a registered data set or of `folder:PATH`.

    Raises:
        UserError: the name is unknown, or `folder:` names no path, or one that is no text.
    """
    if name in DATASETS:
        return DATASETS.get(name)
    if not name.startswith(FOLDER_PREFIX):
        raise unknown("dataset", name, [*DATASETS, f"{FOLDER_PREFIX}PATH"])
    if not name.removeprefix(FOLDER_PREFIX).strip():
        raise UserError(f"dataset '{name}' names no folder; write {FOLDER_PREFIX}PATH")
    if printable(name) != name:
        raise UserError(
            f"dataset '{printable(name)}' is not UTF-8; rename the folder (or set PYTHONUTF8=1, "
            "where the terminal's locale is not UTF-8)"
        )
    return _natural(name, None, None, "your images: PATH/train/<class>, PATH/test/<class>")


def result_name(name: str, fingerprint: str) -> str:
    """Name a data set in tables; an image folder's name says which content it had."""
    folder = name.startswith(FOLDER_PREFIX)
    return f"{name}{CONTENT}{fingerprint[:8]}" if folder and fingerprint else name


def one_name_each(names: Iterable[str]) -> dict[str, str]:
    """Map result names to one for each data set: a folder may have been renamed between runs."""
    known = sorted(set(names))
    chosen: dict[str, str] = {}
    for name in known:
        chosen.setdefault(_content(name), name)
    return {name: chosen[_content(name)] for name in known}


def _content(name: str) -> str:
    """What tells data sets apart: of an image folder the hash alone."""
    if not (name.startswith(FOLDER_PREFIX) and CONTENT in name):
        return name
    return FOLDER_PREFIX + name.rpartition(CONTENT)[2]
