"""Read CIFAR's official batches, from the extracted folder or straight from the tar.gz archive.

The batches are pickles, which can run any code when they are loaded. Here they stay data: an
unpickler that knows nothing but numpy arrays refuses everything else, and no file is extracted.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ltrobust.data.base import ImageArray
from ltrobust.data.layouts import CifarLayout
from ltrobust.data.split import IndexArray
from ltrobust.errors import UserError

PIXELS = (3, 32, 32)


def _latin1(text: str, encoding: str) -> bytes:
    """Stand in for `_codecs.encode`, with which Python 3 writes bytes in old pickle protocols."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return text.encode("latin1")


def _allowed_globals() -> dict[tuple[str, str], Callable[..., Any]]:
    """All that a pickled array may name; numpy 1 and 2 keep its builders in different modules."""
    builders: dict[str, Any] = {
        "multiarray._reconstruct": np.zeros(0).__reduce__()[0],
        "multiarray.scalar": np.int64(0).__reduce__()[0],
        "numeric._frombuffer": np.zeros(1).__reduce_ex__(5)[0],
    }
    allowed: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
    }
    for path, builder in builders.items():
        module, name = path.split(".")
        for core in ("numpy.core", "numpy._core"):
            allowed[f"{core}.{module}", name] = builder
    return allowed


class BatchUnpickler(pickle.Unpickler):
    """An unpickler for dictionaries of numpy arrays, lists, strings and numbers, nothing else."""

    allowed = _allowed_globals()

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed numpy builder; raise UnpicklingError for any other name."""
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for '{module}.{name}', which is not allowed")
        return self.allowed[module, name]


def batches_in_folder(layout: CifarLayout, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield where each batch lies and its bytes, training batches first.

    Raises:
        UserError: a file is missing or cannot be read.
    """
    for name in layout.train_batches + layout.test_batches:
        path = folder / name
        try:
            yield str(path), path.read_bytes()
        except OSError as error:
            raise UserError(
                f"cannot read '{path}' ({error.strerror}); extract {layout.archive} again"
            ) from error


def batches_in_archive(layout: CifarLayout, archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the same from the archive, without extracting it.

    Raises:
        UserError: the archive is damaged or lacks a batch.
    """
    names = layout.train_batches + layout.test_batches
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                stream = tar.extractfile(member) if folder == layout.batches else None
                if stream is not None and name in names:
                    found[name] = stream.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"archive '{archive}' is damaged ({type(error).__name__}); "
            "remove it and run again with --download"
        ) from error
    for name in names:
        if name not in found:
            raise UserError(
                f"archive '{archive}' has no '{layout.batches}/{name}'; "
                "remove it and run again with --download"
            )
        yield f"{archive}:{layout.batches}/{name}", found[name]


def parse_batch(where: str, content: bytes, label_key: str) -> tuple[ImageArray, IndexArray]:
    """Turn one batch into uint8 images (N, 3, 32, 32) and int64 labels (N,).

    Args:
        where: the file's name, for errors.
        content: the pickled batch.
        label_key: the labels' key in it.

    Raises:
        UserError: the pickle is damaged, names anything but arrays, or holds something else.
    """
    try:
        batch = BatchUnpickler(io.BytesIO(content), encoding="latin1").load()
        batch = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        pixels, labels = np.asarray(batch["data"]), np.asarray(batch[label_key])
    except Exception as error:  # a damaged pickle can raise anything
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"'{where}' is not a CIFAR batch ({' '.join(reason.split())}); "
            "use the official archive or --download"
        ) from error
    if (
        pixels.dtype != np.uint8
        or labels.dtype.kind not in "iu"
        or labels.ndim != 1
        or pixels.size != labels.size * int(np.prod(PIXELS))
    ):
        raise UserError(
            f"'{where}' is not a CIFAR batch: data {pixels.dtype} {pixels.shape}, "
            f"{label_key} {labels.dtype} {labels.shape}; expected uint8 (N, 3072) and N integers"
        )
    return pixels.reshape(-1, *PIXELS), labels.astype(np.int64)
