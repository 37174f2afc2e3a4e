"""Read SVHN's official MATLAB files (32x32, cropped digits)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ltrobust.data.base import Images, Source
from ltrobust.data.fetch import check_md5, fetch
from ltrobust.errors import UserError

FOLDER = "svhn"
PARTS = ("train", "test")
MD5 = {"train": "e26dedcc434d2e4c54c9b2d4a06d8373", "test": "eb5a983be6a315427106f1b164d9cef3"}


def svhn_source(data_dir: Path) -> Source | None:
    """Open `train_32x32.mat` and `test_32x32.mat` in `data_dir` or its folder `svhn`.

    Returns:
        None when they are not there.

    Raises:
        UserError: a file is missing, damaged, or not the one that was published.
    """
    folders = (data_dir, data_dir / FOLDER)
    folder = next((f for f in folders if any((f / _file(p)).is_file() for p in PARTS)), None)
    if folder is None:
        return None
    train, test = (_part(folder / _file(part)) for part in PARTS)
    source = Source(tuple("0123456789"), train, test).checked(f"SVHN in '{folder}'")
    for part in PARTS:
        check_md5(folder / _file(part), MD5[part])
        source.files[_file(part)] = f"md5 {MD5[part]}"
    return source


def fetch_svhn(data_dir: Path) -> None:
    """Download both files from where torchvision has them."""
    from torchvision.datasets import SVHN  # slow to import, and only a download needs it

    for part in PARTS:
        url = SVHN.split_list[part][0]
        fetch(url, data_dir / FOLDER, _file(part), MD5[part], "SVHN")


def missing_svhn(data_dir: Path) -> UserError:
    """Build the error for a data directory without the data set."""
    return UserError(
        f"no {_file('train')} and {_file('test')} in '{data_dir}' or '{data_dir / FOLDER}'; put "
        "them there (from http://ufldl.stanford.edu/housenumbers), or name another folder with "
        "--data-dir, or fetch them with --download"
    )


def _file(part: str) -> str:
    return f"{part}_32x32.mat"


def _part(path: Path) -> Images:
    """Read one file; the authors write the digit 0 as 10."""
    from scipy.io import loadmat  # slow to import

    try:
        content: dict[str, Any] = loadmat(path)
        pixels, labels = content["X"], content["y"].ravel().astype(np.int64)
    except Exception as error:  # a damaged file can raise anything
        raise UserError(
            f"'{path}' cannot be read ({type(error).__name__}: missing, cut off or damaged); get "
            "it again"
        ) from error
    if pixels.dtype != np.uint8 or pixels.shape != (32, 32, 3, len(labels)):
        raise UserError(
            f"'{path}' holds {pixels.dtype} {pixels.shape} and {len(labels)} labels, not uint8 "
            "(32, 32, 3, N) and N labels; get it again"
        )
    images = np.ascontiguousarray(pixels.transpose(3, 2, 0, 1))
    labels[labels == 10] = 0
    return Images(labels, images.__getitem__, order="official")
