"""Read ImageNet-LT: its published list files over the folders of ImageNet (ILSVRC 2012).

A list has a line for each image: its path below ImageNet's folder and its class, 0 to 999. Images
are called by their line. They are cut and resized to one size, see `ltrobust.data.pixels.fitted`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ltrobust.data.base import Images, Source
from ltrobust.data.catalog import IMAGENET_SIZE
from ltrobust.data.reading import file_reader
from ltrobust.data.split import IndexArray
from ltrobust.errors import MissingDataError, UserError

LISTS = {"train": "ImageNet_LT_train.txt", "test": "ImageNet_LT_test.txt"}
LISTED = {"train": 115_846, "test": 50_000}
CLASSES = 1000
LIST_FOLDERS = ("", "ImageNet_LT", "imagenet-lt", "imagenet")
IMAGE_FOLDERS = ("", "imagenet", "ImageNet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC", "ImageNet_LT")


def imagenet_lt_source(size: int | None, data_dir: Path) -> Source | None:
    """Open both parts; None when no list is under `data_dir`.

    Lists are looked for in `data_dir` and in its folders ImageNet_LT, imagenet-lt and imagenet; the
    images' paths start in `data_dir` or in its folder imagenet, ImageNet, ILSVRC2012,
    ILSVRC/Data/CLS-LOC or ImageNet_LT.

    Raises:
        UserError: a list or an image is missing, or a list is not the published one.
    """
    place = next(
        (data_dir / f for f in LIST_FOLDERS if (data_dir / f / LISTS["train"]).is_file()), None
    )
    if place is None:
        return None
    train, test = (_part(place / LISTS[part], part, size, data_dir) for part in LISTS)
    return Source(_class_names(), train, test).checked(f"ImageNet-LT in '{place}'")


def missing_imagenet(data_dir: Path) -> UserError:
    """Build the error for a data directory without the data set."""
    return UserError(
        f"no {LISTS['train']} in '{data_dir}' or its folder ImageNet_LT; put there both list files "
        "(https://liuziwei7.github.io/projects/LongTail.html) and ImageNet's folders train and val "
        "as imagenet/train/<class> and imagenet/val/<class>, or name another folder with "
        "--data-dir; --download does not fetch it"
    )


def _class_names() -> tuple[str, ...]:
    from torchvision.models import ResNet18_Weights  # slow to import

    names: list[str] = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({c})" for c, name in enumerate(names)
    )


def _part(file: Path, part: str, size: int | None, data_dir: Path) -> Images:
    paths, labels = _read_list(file, LISTED[part])
    roots = [data_dir / folder for folder in IMAGE_FOLDERS]
    root = next((root for root in roots if (root / paths[0]).is_file()), None)
    if root is None:
        raise MissingDataError(
            f"'{file}' lists '{paths[0]}', which is not below '{data_dir}' nor its folder "
            "imagenet; put ImageNet's folders train and val there, one folder a class"
        )
    files = [root / path for path in paths]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise MissingDataError(
            f"{len(missing):,} of the {len(files):,} images that '{file}' lists are not there, "
            f"such as '{missing[0]}'; get them"
        )
    read = file_reader(files, size or IMAGENET_SIZE)
    return Images(labels, read, order="official", files=files)


def _read_list(file: Path, count: int) -> tuple[list[str], IndexArray]:
    """Paths and labels of a list."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list '{file}' cannot be read; get it again") from error
    paths, labels = [], []
    for number, line in enumerate(lines, 1):
        path, _, label = line.rpartition(" ")
        if not path or not label.isdecimal() or int(label) >= CLASSES:
            raise UserError(
                f"line {number} of '{file}' is not '<path> <class>' with a class from 0 to "
                f"{CLASSES - 1}; get the list again"
            )
        paths.append(path)
        labels.append(int(label))
    if len(paths) != count:
        raise UserError(
            f"'{file}' lists {len(paths):,} images; the published list has {count:,}, get it again"
        )
    return paths, np.asarray(labels, np.int64)
