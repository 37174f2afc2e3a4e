"""From a data set's name to the tensors of one long-tailed split.

`load_data` opens the source, chooses training and test images, and reads only those. Which images
that are depends on its arguments alone, never on a global generator.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from ltrobust.data.base import LongTailedData, Source
from ltrobust.data.cifar import cifar_source, fetch_archive, missing_data
from ltrobust.data.digits import digits_pools, digits_source
from ltrobust.data.folder import folder_fingerprint, folder_source
from ltrobust.data.layouts import CIFAR10, CIFAR100
from ltrobust.data.listing import in_one_line
from ltrobust.data.selection import (
    TestProtocol,
    check_test_protocol,
    ruled_test_counts,
    select_test,
    select_train,
    train_counts,
)
from ltrobust.data.spec import FOLDER_PREFIX, dataset_spec
from ltrobust.data.split import (
    ImbalanceType,
    IndexArray,
    check_imbalance_ratio,
    check_imbalance_type,
    check_split_seed,
    proportional_counts,
    shuffled_classes,
)
from ltrobust.errors import DataWarning, UserError

DATA_DIR_VARIABLE = "LTROBUST_DATA_DIR"
CIFAR_LAYOUTS = {"cifar10-lt": CIFAR10, "cifar100-lt": CIFAR100}


def load_data(
    name: str,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    imbalance_ratio: float | None = None,
    imbalance_type: ImbalanceType = "exp",
    split_seed: int = 0,
    limit_train: int | None = None,
    test_protocol: TestProtocol = "balanced",
    limit_test: int | None = None,
) -> LongTailedData:
    """Load one long-tailed split of a data set.

    Args:
        name: a registered data set, or `folder:PATH`.
        data_dir: where the files are; default the environment's LTROBUST_DATA_DIR, then `data`.
        download: fetch a CIFAR archive that is not there; nothing is fetched otherwise.
        imbalance_ratio: largest / smallest training class; default the data set's own. In an
            image folder the largest class is the head, and as many images stay as can.
        imbalance_type: "exp" or "step".
        split_seed: chooses the training images (0: those of RoBal).
        limit_train: scale the training counts down to about this many images.
        test_protocol: "balanced" (the test set as it is) or "long-tailed" (cut by the same rule;
            an image folder's in the proportions of its training set).
        limit_test: keep about this many test images.

    Warns:
        DataWarning: of an image folder, files are not read or images are not kept; the same lines
            stand in the result's `notes`.

    Raises:
        UserError: an argument is out of range, or the files are missing, damaged or too few.
    """
    spec = dataset_spec(name)
    ratio = spec.imbalance_ratio if imbalance_ratio is None else imbalance_ratio
    if ratio is not None:
        check_imbalance_ratio(ratio)
    check_imbalance_type(imbalance_type)
    check_split_seed(split_seed)
    check_test_protocol(test_protocol)
    with _readable():
        source = _open(name, data_dir, download)
    folder = name.startswith(FOLDER_PREFIX)
    pools, tests, n_max = _pools(name, source, ratio, split_seed)
    sizes, test_sizes = [len(pool) for pool in pools], [len(pool) for pool in tests]
    kept = train_counts(sizes, n_max, ratio, imbalance_type)
    test_kept = None
    if test_protocol == "long-tailed":
        test_kept = (
            proportional_counts(test_sizes, kept)
            if ratio is None or folder
            else ruled_test_counts(test_sizes, kept, ratio, imbalance_type)
        )
    notes = _notes(source, (sizes, kept), (test_sizes, test_kept)) if folder else ()
    for note in notes:
        warnings.warn(note, DataWarning, stacklevel=2)
    train = select_train(pools, kept, limit_train)
    test = select_test(tests, test_kept, limit_test)
    return LongTailedData(
        name=name,
        class_names=source.class_names,
        train_images=torch.from_numpy(source.train.read(train)),
        train_labels=torch.from_numpy(source.train.labels[train]),
        train_index=torch.from_numpy(train),
        test_images=torch.from_numpy(source.test.read(test)),
        test_labels=torch.from_numpy(source.test.labels[test]),
        test_index=torch.from_numpy(source.test.named(test)),
        path=str(_folder_root(name).resolve()) if folder else "",
        notes=notes,
        source={"train": source.train.facts(), "test": source.test.facts()},
    )


def _notes(
    source: Source,
    train: tuple[Sequence[int], Sequence[int]],
    test: tuple[Sequence[int], Sequence[int] | None],
) -> tuple[str, ...]:
    """What is not taken of an image folder; both parts come as class sizes and counts kept."""
    notes = [source.left_out] if source.left_out else []
    for part, (sizes, kept) in (("training", train), ("long-tailed test", test)):
        if kept is not None and sum(kept) < sum(sizes):
            most, least = kept.index(max(kept)), kept.index(min(kept))
            ends = ", ".join(
                f"{kept[c]:,} of '{in_one_line(source.class_names[c])}'" for c in (most, least)
            )
            notes.append(
                f"the {part} set keeps {sum(kept):,} of {sum(sizes):,} images (largest and "
                f"smallest class: {ends})"
            )
    return tuple(notes)


def data_fingerprint(name: str, data_dir: Path | None = None) -> str:
    """Identify data that a name alone does not: a hash for `folder:PATH`, "" for the rest.

    The hash covers class names, file names and contents, not the folder's own name and place.
    `data_dir` has no part in it, because the other data sets are checked to be the published ones
    when they are read.

    Raises:
        UserError: the name is unknown, or the folder is missing or badly laid out.
    """
    del data_dir
    dataset_spec(name)
    if not name.startswith(FOLDER_PREFIX):
        return ""
    with _readable():
        return folder_fingerprint(_folder_root(name))


@contextmanager
def _readable() -> Iterator[None]:
    """Turn a folder that may not be read into the user's error."""
    try:
        yield
    except PermissionError as error:
        raise UserError(f"may not read '{error.filename}'; change its permissions") from error


def _folder_root(name: str) -> Path:
    """The path in `folder:PATH`."""
    return Path(name.removeprefix(FOLDER_PREFIX)).expanduser()


def data_label(name: str) -> str:
    """Name a data set in results: an image folder by its own name, whatever the path's spelling."""
    if not name.startswith(FOLDER_PREFIX):
        return name
    return f"{FOLDER_PREFIX}{in_one_line(_folder_root(name).resolve().name) or 'root'}"


def _open(name: str, data_dir: Path | None, download: bool) -> Source:
    """Open the source that a name stands for."""
    if name.startswith(FOLDER_PREFIX):
        return folder_source(_folder_root(name))
    if name not in CIFAR_LAYOUTS:
        return digits_source()
    layout = CIFAR_LAYOUTS[name]
    root = Path(data_dir or os.environ.get(DATA_DIR_VARIABLE) or "data").expanduser()
    source = cifar_source(layout, root)
    if source is None and download:
        fetch_archive(layout, root)
        source = cifar_source(layout, root)
    if source is None:
        raise missing_data(layout, root)
    return source


def _pools(
    name: str, source: Source, ratio: float | None, split_seed: int
) -> tuple[list[IndexArray], list[IndexArray], int | None]:
    """Order each class's training and test candidates; the largest class size where it is fixed."""
    num_classes = len(source.class_names)
    if name == "digits-lt":
        train, test = digits_pools(source.train.labels, split_seed)
        return train, test, len(train[0])
    tests = source.test.by_class(num_classes)
    if ratio is None:
        return source.train.by_class(num_classes), tests, None
    pools = shuffled_classes(source.train.labels, num_classes, split_seed)
    fixed = name in CIFAR_LAYOUTS
    return pools, tests, len(source.train.labels) // num_classes if fixed else None
