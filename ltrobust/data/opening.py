"""From a data set's name to its source: which files are looked for, and what to do without them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ltrobust.data.base import Source
from ltrobust.data.catalog import IMAGENET, MEDMNIST, TINY, dataset_spec
from ltrobust.data.cifar import cifar_source, fetch_archive, missing_data
from ltrobust.data.custom import arrays_fingerprint, arrays_source
from ltrobust.data.digits import digits_source
from ltrobust.data.folder import folder_fingerprint, folder_source
from ltrobust.data.hugging_face import hugging_face_fingerprint, hugging_face_source
from ltrobust.data.imagenet_lt import imagenet_lt_source, missing_imagenet
from ltrobust.data.layouts import CIFAR10, CIFAR100
from ltrobust.data.medmnist import fetch_medmnist, medmnist_source, missing_medmnist
from ltrobust.data.spec import FOLDER, HUGGING_FACE, DataName
from ltrobust.data.svhn import fetch_svhn, missing_svhn, svhn_source
from ltrobust.data.tiny_imagenet import missing_tiny, tiny_fingerprint, tiny_source
from ltrobust.errors import MissingDataError, UserError

DATA_DIR_VARIABLE = "LTROBUST_DATA_DIR"
CIFAR_LAYOUTS = {"cifar10-lt": CIFAR10, "cifar100-lt": CIFAR100}


@dataclass(frozen=True)
class Published:
    """How a published data set is got under a data directory.

    Attributes:
        open: its source; None when it is not there.
        missing: the error for a directory without it.
        fetch: downloads it; None where that is not offered.
    """

    open: Callable[[Path], Source | None]
    missing: Callable[[Path], UserError]
    fetch: Callable[[Path], None] | None = None


def data_root(data_dir: Path | None) -> Path:
    """The data directory: the one given, else the environment's, else `data`."""
    return Path(data_dir or os.environ.get(DATA_DIR_VARIABLE) or "data").expanduser()


def path_of(name: DataName) -> Path:
    """The path in `folder:PATH` or `hf:PATH`."""
    return Path(name.argument).expanduser()


def open_source(name: DataName, data_dir: Path | None, download: bool) -> Source:
    """Open the source that a name stands for.

    Raises:
        MissingDataError: the files are not there.
        UserError: they are damaged, or not those that were published.
    """
    if name.family == "digits-lt":
        return digits_source()
    if name.family == FOLDER:
        return folder_source(path_of(name), name.size)
    if name.family == HUGGING_FACE:
        return hugging_face_source(path_of(name), name.size, name.image, name.label)
    root, spec = data_root(data_dir), dataset_spec(str(name))
    if spec.load is not None:
        return arrays_source(spec, root)
    published = _published(name)
    source = published.open(root)
    if source is None and download and published.fetch is not None:
        published.fetch(root)
        source = published.open(root)
    if source is None:
        raise MissingDataError(str(published.missing(root)))
    return source


def fingerprint(name: DataName, data_dir: Path | None) -> str:
    """What tells data apart that have one name; "" for a published data set of ours as a whole."""
    if name.family == FOLDER:
        return folder_fingerprint(path_of(name), name.size)
    if name.family == HUGGING_FACE:
        return hugging_face_fingerprint(path_of(name), name.size, name.image, name.label)
    if name.family == TINY:
        return tiny_fingerprint(data_root(data_dir))
    return arrays_fingerprint(dataset_spec(str(name)), data_root(data_dir))


def _published(name: DataName) -> Published:
    if name.family == MEDMNIST:
        which, size = name.argument, name.size
        return Published(
            lambda root: medmnist_source(which, size, root),
            lambda root: missing_medmnist(which, size, root),
            lambda root: fetch_medmnist(which, size, root),
        )
    if name.family == TINY:
        classes = int(name.argument or 200)
        return Published(lambda root: tiny_source(classes, name.size, root), missing_tiny)
    if name.family == IMAGENET:
        return Published(lambda root: imagenet_lt_source(name.size, root), missing_imagenet)
    if name.family == "svhn-lt":
        return Published(svhn_source, missing_svhn, fetch_svhn)
    layout = CIFAR_LAYOUTS[name.family]
    return Published(
        lambda root: cifar_source(layout, root),
        lambda root: missing_data(layout, root),
        lambda root: fetch_archive(layout, root),
    )
