"""From a data set's name to the tensors of one long-tailed split.

`load_data` opens the source, chooses training and test images, and reads only those. Which images
that are depends on its arguments alone, never on a global generator.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ltrobust.data.base import LongTailedData, Source
from ltrobust.data.cifar import cifar_source, fetch_archive, missing_data
from ltrobust.data.digits import digits_pools, digits_source
from ltrobust.data.folder import folder_fingerprint, folder_source
from ltrobust.data.layouts import CIFAR10, CIFAR100
from ltrobust.data.selection import TestProtocol, check_test_protocol, select_test, select_train
from ltrobust.data.spec import FOLDER_PREFIX, dataset_spec
from ltrobust.data.split import (
    ImbalanceType,
    IndexArray,
    check_imbalance_ratio,
    check_imbalance_type,
    check_split_seed,
    shuffled_classes,
)
from ltrobust.errors import UserError

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
        imbalance_ratio: largest / smallest training class; default the data set's own.
        imbalance_type: "exp" or "step".
        split_seed: chooses the training images (0: those of RoBal).
        limit_train: scale the training counts down to about this many images.
        test_protocol: "balanced" (the test set as it is) or "long-tailed" (cut by the same rule).
        limit_test: keep about this many test images.

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
    num_classes = len(source.class_names)
    pools, tests, n_max = _pools(name, source, ratio, split_seed)
    train = select_train(pools, n_max, ratio, imbalance_type, limit_train)
    counts = [int((source.train.labels[train] == c).sum()) for c in range(num_classes)]
    test = select_test(tests, counts, ratio, imbalance_type, test_protocol, limit_test)
    return LongTailedData(
        name=name,
        class_names=source.class_names,
        train_images=torch.from_numpy(source.train.read(train)),
        train_labels=torch.from_numpy(source.train.labels[train]),
        train_index=torch.from_numpy(train),
        test_images=torch.from_numpy(source.test.read(test)),
        test_labels=torch.from_numpy(source.test.labels[test]),
        test_index=torch.from_numpy(source.test.named(test)),
        source={"train": source.train.facts(), "test": source.test.facts()},
    )


def data_fingerprint(name: str, data_dir: Path | None = None) -> str:
    """Identify data that a name alone does not: a hash for `folder:PATH`, "" for the rest.

    The hash covers relative file names and contents, not the folder's own place. `data_dir` has no
    part in it, because the other data sets are checked to be the published ones when they are read.

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
