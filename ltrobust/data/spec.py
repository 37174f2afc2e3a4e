"""What a data set is called and what it brings to a run.

A spec says how a data set is attacked and trained unless the user says otherwise, and where it
comes from. Which data sets there are stands in `ltrobust.data.catalog`; no file is read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ltrobust.errors import UserError
from ltrobust.output import printable

AugmentPolicy = Literal["none", "randaugment", "autoaugment"]
"""What is done to training images beyond crop and flip; `augment` has the settings."""
DEFAULT_DATASET = "digits-lt"
FOLDER, HUGGING_FACE = "folder", "hf"
FOLDER_PREFIX = f"{FOLDER}:"
LOCAL_PREFIXES = (FOLDER_PREFIX, f"{HUGGING_FACE}:")
"""Data of the user's own: their content is what they are, not their name."""
CONTENT = "@"
"""In results, between the name of data of the user's own and the first digits of their hash."""
NATURAL: Literal["natural"] = "natural"
"""In place of an imbalance ratio: all training images, as imbalanced as they came."""

SIZED = re.compile(r"(?P<rest>.+)@(?P<size>[0-9]{1,4})", re.DOTALL)
COLUMN = re.compile(r"(?P<rest>.*):(?P<key>image|label)=(?P<value>[^:/\\]*)", re.DOTALL)
SMALLEST, LARGEST = 8, 1024
"""Sides, in pixels, to which images may be resized."""


@dataclass(frozen=True)
class DataName:
    """A data set's name in its parts: `FAMILY[:ARGUMENT[:image=COLUMN][:label=COLUMN]][@SIZE]`.

    Attributes:
        family: such as "cifar10-lt", "medmnist" or "folder".
        argument: what stands behind the colon: a path, a data set of the family, a number.
        size: side length that images are resized to; None: as they are.
        image: the column of the images in parquet files; "" where it is to be found.
        label: the column of the labels.
    """

    family: str
    argument: str = ""
    size: int | None = None
    image: str = ""
    label: str = ""

    @property
    def local(self) -> bool:
        """Whether the data is the user's own."""
        return f"{self.family}:" in LOCAL_PREFIXES

    @property
    def ending(self) -> str:
        """Columns and size as they are written."""
        columns = (f":{key}={value}" for key, value in self._columns() if value)
        return "".join(columns) + ("" if self.size is None else f"@{self.size}")

    def _columns(self) -> tuple[tuple[str, str], ...]:
        return (("image", self.image), ("label", self.label))

    def __str__(self) -> str:
        if not self.argument:
            return self.family + self.ending
        text = f"{self.family}:{self.argument}"
        closed = "/" if self.local and (SIZED.fullmatch(text) or COLUMN.fullmatch(text)) else ""
        return text + closed + self.ending


def parse_name(name: str) -> DataName:
    """Take a data set's name apart; whether there is such a data set is not asked here.

    Raises:
        UserError: `folder:` or `hf:` without a path, a path that is no text, or a wrong size.
    """
    family, _, rest = name.partition(":")
    local = f"{family}:" in LOCAL_PREFIXES
    if local and printable(name) != name:
        raise UserError(
            f"dataset '{printable(name)}' is not UTF-8; rename the folder (or set PYTHONUTF8=1, "
            "where the terminal's locale is not UTF-8)"
        )
    sized = SIZED.fullmatch(name)
    size = None
    if sized is not None:
        size = int(sized["size"])
        family, _, rest = sized["rest"].partition(":")
        if not SMALLEST <= size <= LARGEST:
            raise UserError(
                f"dataset '{name}': images of {size} pixels are not allowed, use @{SMALLEST} to "
                f"@{LARGEST}" + (f"; a path that ends so is written '{name}/'" if local else "")
            )
    columns = {"image": "", "label": ""}
    while family == HUGGING_FACE and (column := COLUMN.fullmatch(rest)):
        rest, columns[column["key"]] = column["rest"], column["value"]
    if local and not rest.strip():
        raise UserError(f"dataset '{name}' names no folder; write {family}:PATH")
    return DataName(family, rest, size, **columns)


@dataclass(frozen=True)
class About:
    """Where a data set comes from, and where its defaults do.

    Attributes:
        citation: what its authors ask to be cited.
        url: where it is found.
        licence: its terms, in a few words.
        checksum: of its published files; "" where its authors gave none. Of a data set from
            outside: the SHA-256 of its arrays, to which they are held.
        defaults: where radius, architecture and recipe come from.
        tried_on: on which files the loader has been tried.
    """

    citation: str = ""
    url: str = ""
    licence: str = ""
    checksum: str = ""
    defaults: str = ""
    tried_on: str = ""


@dataclass(frozen=True)
class DatasetSpec:
    """A data set's defaults; where none is given, the settings that the field uses on CIFAR.

    Attributes:
        name: public name, as on the command line.
        num_classes: number of classes; None where only the files can tell (data of the user's).
        imbalance_ratio: default largest / smallest training class; None keeps all files.
        description: one line for listings.
        eps: default L-infinity radius in [0, 1] image units.
        epochs: default number of training epochs.
        batch_size: default training batch.
        arch: default architecture.
        crop_padding: zero padding of the random crop in pixels; 0 means no crop.
        flip: whether a mirrored image still belongs to its class.
        class_names: one name a class, where they are known unread.
        about: where it comes from.
        load: of a data set from outside, what gives its arrays; see `ltrobust.data.custom`.
    """

    name: str
    num_classes: int | None
    imbalance_ratio: float | None
    description: str
    eps: float = 8 / 255
    epochs: int = 100
    batch_size: int = 128
    arch: str = "resnet18"
    crop_padding: int = 4
    flip: bool = True
    class_names: tuple[str, ...] = ()
    about: About = About()
    load: Callable[[Path], Any] | None = None

    def facts(self) -> dict[str, Any]:
        """All that can be written down."""
        facts = asdict(self)
        del facts["load"]
        return facts


def result_name(name: str, fingerprint: str) -> str:
    """Name a data set in tables; of data of the user's own it says which content they had."""
    local = name.startswith(LOCAL_PREFIXES)
    return f"{name}{CONTENT}{fingerprint[:8]}" if local and fingerprint else name


def one_name_each(names: Iterable[str]) -> dict[str, str]:
    """Map result names to one for each data set: a folder may have been renamed between runs."""
    known = sorted(set(names))
    chosen: dict[str, str] = {}
    for name in known:
        chosen.setdefault(_content(name), name)
    return {name: chosen[_content(name)] for name in known}


def _content(name: str) -> str:
    """What tells data sets apart: of data of the user's own the hash alone."""
    if not (name.startswith(LOCAL_PREFIXES) and CONTENT in name):
        return name
    return FOLDER_PREFIX + name.rpartition(CONTENT)[2]
