"""Writers of small data sets in the official layouts of those that cannot be had here."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat


def jpeg(shade: int, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> bytes:
    """One plain image."""
    buffer = io.BytesIO()
    Image.new(mode, size, shade if mode == "L" else (shade,) * 3).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_medmnist(
    path: Path,
    labels: dict[str, Sequence[int]],
    *,
    side: int = 28,
    channels: int = 3,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Write an npz file as MedMNIST's authors do; return the images of each part."""
    random = np.random.default_rng(seed)
    shape = (side, side) if channels == 1 else (side, side, channels)
    content, images = {}, {}
    for part, known in labels.items():
        images[part] = random.integers(0, 256, (len(known), *shape), dtype=np.uint8)
        content[f"{part}_images"] = images[part]
        content[f"{part}_labels"] = np.asarray(known, np.uint8)[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **content)
    return images


def write_svhn(folder: Path, labels: dict[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Write `train_32x32.mat` and `test_32x32.mat`; a label 10 stands for the digit 0."""
    folder.mkdir(parents=True, exist_ok=True)
    images = {}
    for seed, (part, known) in enumerate(labels.items()):
        random = np.random.default_rng(seed)
        images[part] = random.integers(0, 256, (32, 32, 3, len(known)), dtype=np.uint8)
        content = {"X": images[part], "y": np.asarray(known, np.uint8)[:, None]}
        savemat(folder / f"{part}_32x32.mat", content, do_compression=True)
    return images


def write_tiny(root: Path, ids: Sequence[str], train: int, test: int) -> Path:
    """Write tiny-imagenet-200/ with `train` and `test` images a class, shaded by class."""
    folder = root / "tiny-imagenet-200"
    lines = []
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "test" / "images").mkdir(parents=True)
    for c, wordnet_id in enumerate(ids):
        place = folder / "train" / wordnet_id / "images"
        place.mkdir(parents=True)
        for number in range(train):
            (place / f"{wordnet_id}_{number}.JPEG").write_bytes(jpeg(10 * c + number))
        boxes = "".join(f"{wordnet_id}_{n}.JPEG\t0\t0\t63\t63\n" for n in range(train))
        (place.parent / f"{wordnet_id}_boxes.txt").write_text(boxes)
    for number in range(test * len(ids)):
        c = (7 * number) % len(ids)
        (folder / "val" / "images" / f"val_{number}.JPEG").write_bytes(jpeg(10 * c))
        lines.append(f"val_{number}.JPEG\t{ids[c]}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("".join(f"{one}\n" for one in reversed(ids)))
    (folder / "words.txt").write_text("".join(f"{one}\tname {one}, other\n" for one in ids))
    return folder


def write_imagenet_lt(root: Path, train: Sequence[int], test: Sequence[int]) -> None:
    """Write ImageNet_LT's two lists with these labels, and the images that they name."""
    images = root / "imagenet"
    lists = root / "ImageNet_LT"
    lists.mkdir(parents=True)
    shared = root / "image.JPEG"
    shared.write_bytes(jpeg(77, (20, 16)))
    for part, folder, labels in (("train", "train", train), ("test", "val", test)):
        lines = []
        for number, label in enumerate(labels):
            wordnet_id = f"n{label:08d}"
            name = f"{wordnet_id}_{number}" if part == "train" else f"ILSVRC2012_val_{number:08d}"
            path = images / folder / wordnet_id / f"{name}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(shared)
            lines.append(f"{folder}/{wordnet_id}/{name}.JPEG {label}\n")
        (lists / f"ImageNet_LT_{part}.txt").write_text("".join(lines))


def write_hugging_face(
    path: Path,
    images: Sequence[bytes],
    labels: Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    image: str = "image",
    label: str = "label",
    row_group: int = 4,
) -> None:
    """Write one parquet file as Hugging Face's `datasets` does, class names in its metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": content, "path": f"{i}.jpg"} for i, content in enumerate(images)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array(rows, kind), label: pa.array(labels)})
    if names is not None:
        features = {
            image: {"_type": "Image"},
            label: {"names": list(names), "_type": "ClassLabel"},
        }
        noted = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": noted})
    pq.write_table(table, path, row_group_size=row_group)
