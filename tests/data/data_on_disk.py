"""Writers of small data sets in the layouts that the package reads; used by the tests beside."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def pixels_of(count: int, seed: int) -> np.ndarray:
    """Random images, uint8 (count, 3, 32, 32)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def write_batches(
    root: Path, *, train: int = 10, test: int = 2, protocol: int = 2
) -> dict[str, np.ndarray]:
    """Write cifar-100-python/ with `train` and `test` images a class; return the pixels."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    pixels = {}
    for seed, (part, each) in enumerate({"train": train, "test": test}.items()):
        pixels[part] = pixels_of(100 * each, seed)
        batch = {
            "data": pixels[part].reshape(100 * each, 3072),
            "fine_labels": [i % 100 for i in range(100 * each)],
            "coarse_labels": [0] * (100 * each),
            "filenames": [f"{i}.png" for i in range(100 * each)],
        }
        (folder / part).write_bytes(pickle.dumps(batch, protocol=protocol))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": []}, protocol=protocol))
    return pixels


def pack(root: Path) -> Path:
    """Turn cifar-100-python/ into the archive and remove the folder."""
    archive = root / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / "cifar-100-python", arcname="cifar-100-python")
    for path in (root / "cifar-100-python").iterdir():
        path.unlink()
    (root / "cifar-100-python").rmdir()
    return archive


def png(pixels: np.ndarray) -> bytes:
    """Encode one uint8 (3, H, W) image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_shard(
    path: Path,
    pixels: Sequence[np.ndarray],
    labels: Sequence[int],
    label_column: str = "label",
    *,
    image_column: str = "img",
    index: Sequence[int] | None = None,
) -> None:
    """Write one Hugging Face parquet file, with a column `index` if one is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": png(image), "path": None} for image in pixels]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {image_column: pa.array(rows, kind), label_column: pa.array(labels, pa.int64())}
    if index is not None:
        columns["index"] = pa.array(index, pa.int64())
    table = pa.table(columns)
    pq.write_table(table, path, row_group_size=16)
