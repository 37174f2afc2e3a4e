"""Find CIFAR-10 or CIFAR-100 under a data directory, in any accepted layout, and open it.

Nothing is fetched from the network unless `fetch_archive` is called; damaged or foreign files are
errors, never skipped. Whatever the layout, the images come in official order or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ltrobust.data.base import Images, Source
from ltrobust.data.batches import batches_in_archive, batches_in_folder, parse_batch
from ltrobust.data.canonical import canonical_part, put_in_order
from ltrobust.data.fetch import fetch
from ltrobust.data.layouts import CifarLayout
from ltrobust.data.parquet import parquet_images, parquet_shards
from ltrobust.errors import UserError


def cifar_source(layout: CifarLayout, data_dir: Path) -> Source | None:
    """Open the first layout found under `data_dir`, or return None when there is none.

    Looked at, in this order: the extracted official folder and the official archive in `data_dir`
    and in its subfolder (`cifar10`, `cifar100`); parquet files in the subfolder and in `data_dir`,
    and in the folders of these that Hugging Face uses (`plain_text` or `cifar100`, `data`).

    Raises:
        UserError: files are there but damaged, incomplete, of another data set, or in an order
            that is not known.
    """
    found = _open_first(layout, data_dir)
    return None if found is None else _canonical(layout, *found)


def missing_data(layout: CifarLayout, data_dir: Path) -> UserError:
    """Build the error for a data directory without the data set."""
    state = "" if data_dir.is_dir() else " (no such folder)"
    return UserError(
        f"no {layout.title} in '{data_dir}'{state}; put there {layout.batches}/ or "
        f"{layout.archive} (official), or {layout.folder}/train-*.parquet and test-*.parquet "
        "(Hugging Face), or name another folder with --data-dir, or fetch it with --download"
    )


def fetch_archive(layout: CifarLayout, data_dir: Path) -> None:
    """Download the official archive to `data_dir`, checked by torchvision's MD5, all or nothing.

    Raises:
        UserError: the folder cannot be written, or the download fails.
    """
    from torchvision import datasets  # slow to import, and only a download needs it

    official = getattr(datasets, layout.title)
    target = data_dir / layout.folder
    fetch(official.url, target, layout.archive, official.tgz_md5, layout.title)


def _open_first(layout: CifarLayout, data_dir: Path) -> tuple[Path, Images, Images] | None:
    """Open the first layout that is there: its place, training and test rows as they lie there."""
    nested = data_dir / layout.folder
    for root in (data_dir, nested):
        place = root / layout.batches
        if place.is_dir():
            return place, *_from_batches(layout, batches_in_folder(layout, place))
        place = root / layout.archive
        if place.is_file():
            return place, *_from_batches(layout, batches_in_archive(layout, place))
    for root in (nested, data_dir):
        for folder in (root, root / layout.parquet_config, root / "data"):
            parts = _from_parquet(layout, folder)
            if parts is not None:
                return folder, *parts
    return None


def _from_batches(
    layout: CifarLayout, batches: Iterator[tuple[str, bytes]]
) -> tuple[Images, Images]:
    """Join the training batches and the test batches; their pixels are in memory already."""
    parsed = [parse_batch(where, content, layout.batch_key) for where, content in batches]
    split = len(layout.train_batches)
    parts = []
    for part in (parsed[:split], parsed[split:]):
        pixels = np.concatenate([images for images, _ in part])
        parts.append(Images(np.concatenate([labels for _, labels in part]), pixels.__getitem__))
    return parts[0], parts[1]


def _from_parquet(layout: CifarLayout, folder: Path) -> tuple[Images, Images] | None:
    """Open a folder's parquet files; None when it has none, an error when one part is missing."""
    train, test = (parquet_shards(folder, part) for part in ("train", "test"))
    if not train and not test:
        return None
    for part, files in (("train", train), ("test", test)):
        if not files:
            raise UserError(
                f"'{folder}' has no {part}-*.parquet and no {part}/*.parquet; "
                "both train and test are needed"
            )
    column = layout.parquet_label
    return parquet_images(train, column), parquet_images(test, column)


def _canonical(layout: CifarLayout, place: Path, train: Images, test: Images) -> Source:
    """Put both parts into official order; only test images with an index may be a part of all."""
    parts = []
    for part, name, images in (("train", "training", train), ("test", "test", test)):
        _check_labels(layout, images)
        what = f"{layout.title} {name} images in '{place}'"
        expected = canonical_part(layout.folder, part)
        parts.append(put_in_order(images, expected, what, whole=part == "train"))
    return Source(layout.class_names, parts[0], parts[1])


def _check_labels(layout: CifarLayout, images: Images) -> None:
    """Raise UserError unless there are images and every label names a class."""
    if not len(images.labels):
        raise UserError(f"the {layout.title} files found hold no images; get them again")
    low, high = int(images.labels.min()), int(images.labels.max())
    if low < 0 or high >= len(layout.class_names):
        raise UserError(
            f"the {layout.title} files found have labels {low} to {high}; "
            f"expected 0 to {len(layout.class_names) - 1}"
        )
